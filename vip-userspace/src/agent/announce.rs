//! Tells outside neighbours where EIPs are.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

/// When an EIP that has come here is announced. Repeats, because nothing confirms an announcement.
const DELAYS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(200), Duration::from_secs(1)];

/// Announcements sent together, and the pause after them: a host with thousands of EIPs must not flood its neighbours.
const BATCH: usize = 64;
const PAUSE: Duration = Duration::from_millis(10);

/// Decides which EIPs to announce, and when.
#[derive(Clone, Debug, Default)]
pub(super) struct Announcer {
    /// EIPs whose owner is here.
    here: BTreeSet<Ipv4Addr>,
    /// Announcements to come.
    queue: BTreeSet<(Instant, Ipv4Addr)>,
    /// Nothing is sent before this.
    rests_until: Option<Instant>,
}

impl Announcer {
    /// Tells which EIPs are here now. Those that came are announced, those that went are not any more.
    pub(super) fn set(&mut self, here: BTreeSet<Ipv4Addr>, now: Instant) {
        for &eip in here.difference(&self.here) {
            self.queue.extend(DELAYS.map(|delay| (now + delay, eip)));
        }
        self.queue.retain(|(_, eip)| here.contains(eip));
        self.here = here;
    }

    /// Forgets what was announced, as when the uplink has another MAC: all that is here is announced again.
    pub(super) fn forget(&mut self) {
        self.here.clear();
        self.queue.clear();
    }

    /// The EIPs to announce now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Ipv4Addr> {
        if self.rests_until.is_some_and(|until| now < until) {
            return Vec::new();
        }
        let mut due = Vec::new();
        while due.len() < BATCH {
            let Some(&first) = self.queue.first().filter(|(at, _)| *at <= now) else { break };
            self.queue.remove(&first);
            due.push(first.1);
        }
        self.rests_until = (due.len() == BATCH).then(|| now + PAUSE);
        due
    }

    /// When [`Self::due`] has something.
    pub(super) fn next(&self) -> Option<Instant> {
        let &(at, _) = self.queue.first()?;
        Some(self.rests_until.map_or(at, |until| until.max(at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

    fn all_due(announcer: &mut Announcer, until: Instant) -> Vec<(Instant, Ipv4Addr)> {
        let mut sent = Vec::new();
        while let Some(next) = announcer.next().filter(|next| *next <= until) {
            sent.extend(announcer.due(next).into_iter().map(|eip| (next, eip)));
        }
        sent
    }

    #[test]
    fn an_eip_that_comes_is_announced_three_times_and_not_again_while_it_stays() {
        let start = Instant::now();
        let mut announcer = Announcer::default();
        announcer.set([EIP].into(), start);
        announcer.set([EIP].into(), start + Duration::from_millis(100));
        let times: Vec<Duration> = all_due(&mut announcer, start + Duration::from_secs(9))
            .iter()
            .map(|(at, _)| *at - start)
            .collect();
        assert_eq!(times, DELAYS);
    }

    #[test]
    fn an_eip_that_goes_is_not_announced_any_more_and_again_when_it_is_back() {
        let start = Instant::now();
        let mut announcer = Announcer::default();
        announcer.set([EIP].into(), start);
        assert_eq!(announcer.due(start), [EIP]);
        announcer.set(BTreeSet::new(), start);
        assert_eq!(announcer.next(), None);
        announcer.set([EIP].into(), start);
        assert_eq!(all_due(&mut announcer, start + Duration::from_secs(9)).len(), DELAYS.len());
    }

    #[test]
    fn thousands_of_eips_do_not_leave_at_once_and_none_is_forgotten() {
        let start = Instant::now();
        let mut announcer = Announcer::default();
        let many: BTreeSet<Ipv4Addr> = (0..1000_u32).map(|n| Ipv4Addr::from_bits(0xcb00_7100 + n)).collect();
        announcer.set(many, start);
        assert_eq!(announcer.due(start).len(), BATCH);
        assert_eq!(announcer.due(start), [] as [Ipv4Addr; 0]);
        assert_eq!(all_due(&mut announcer, start + Duration::from_secs(60)).len(), 3 * 1000 - BATCH);
    }

    #[test]
    fn all_are_announced_again_when_the_uplink_has_another_mac() {
        let start = Instant::now();
        let mut announcer = Announcer::default();
        announcer.set([EIP].into(), start);
        all_due(&mut announcer, start + Duration::from_secs(9));
        announcer.forget();
        announcer.set([EIP].into(), start);
        assert_eq!(announcer.due(start), [EIP]);
    }
}
