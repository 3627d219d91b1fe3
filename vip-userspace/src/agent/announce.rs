//! Tells outside neighbours where EIPs are.

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    net::Ipv4Addr,
    ops::Bound,
    time::{Duration, Instant},
};

/// How long after its first announcement an EIP that has come here is announced again, because nothing confirms an announcement.
const REPEATS: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(200), Duration::from_secs(1)];

/// How often an EIP that stays here is announced: a switch or a neighbour that has lost or mixed up what it knew learns it anew. They
/// take turns, evenly over this time,
const PERIOD: Duration = Duration::from_secs(60);

/// but never more than so many after each such pause. More than 60 000 EIPs take longer than a period.
const TURN: u32 = 10;
const BETWEEN_TURNS: Duration = Duration::from_millis(10);

/// Announcements sent together, and the pause after them: a host with thousands of EIPs must not flood its neighbours.
const BATCH: usize = 64;
const PAUSE: Duration = Duration::from_millis(10);

/// Decides which EIPs to announce, and when.
#[derive(Clone, Debug, Default)]
pub(super) struct Announcer {
    /// EIPs whose owner is here.
    here: BTreeSet<Ipv4Addr>,
    /// EIPs that were not announced yet, with the moment when they came. The last one to come is the first to be announced, and before all
    /// repeats: a VIP that moves does not wait for those that all came at a start.
    first: BTreeSet<(Reverse<Instant>, Ipv4Addr)>,
    /// Repeats to come.
    repeats: BTreeSet<(Instant, Ipv4Addr)>,
    /// Nothing of both is sent before this.
    rests_until: Option<Instant>,
    /// When the next of those that stay have their turn; `None`: nothing is here.
    turn_at: Option<Instant>,
    /// Where the last turn ended.
    turn: Option<Ipv4Addr>,
}

impl Announcer {
    /// Tells which EIPs are here now. Those that came are announced, those that went are not any more.
    pub(super) fn set(&mut self, here: BTreeSet<Ipv4Addr>, now: Instant) {
        self.first.extend(here.difference(&self.here).map(|eip| (Reverse(now), *eip)));
        self.first.retain(|(_, eip)| here.contains(eip));
        self.repeats.retain(|(_, eip)| here.contains(eip));
        self.here = here;
        self.turn_at = self.turn().map(|(_, pause)| self.turn_at.unwrap_or(now + pause));
    }

    /// How many have their turn together, and the pause until the next; `None`: nothing is here.
    fn turn(&self) -> Option<(u32, Duration)> {
        let count = u32::try_from(self.here.len()).unwrap_or(u32::MAX);
        let each = PERIOD.checked_div(count)?;
        let together = (1..TURN).find(|together| each * *together >= BETWEEN_TURNS).unwrap_or(TURN);
        Some((together, (each * together).max(BETWEEN_TURNS)))
    }

    /// Forgets that some EIPs were announced: neighbours may have heard of them from another host meanwhile. Those that are still here are
    /// announced again by the next [`Self::set`].
    pub(super) fn forget_some(&mut self, eips: &BTreeSet<Ipv4Addr>) {
        self.here.retain(|eip| !eips.contains(eip));
        self.first.retain(|(_, eip)| !eips.contains(eip));
        self.repeats.retain(|(_, eip)| !eips.contains(eip));
    }

    /// Forgets what was announced, as when the uplink has another MAC: all that is here is announced again.
    pub(super) fn forget(&mut self) {
        self.here.clear();
        self.first.clear();
        self.repeats.clear();
        self.turn_at = None;
    }

    /// The EIPs to announce now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Ipv4Addr> {
        let mut due = Vec::new();
        if self.rests_until.is_none_or(|until| until <= now) {
            while due.len() < BATCH {
                if let Some((_, eip)) = self.first.pop_first() {
                    self.repeats.extend(REPEATS.map(|delay| (now + delay, eip)));
                    due.push(eip);
                } else if self.repeats.first().is_some_and(|(at, _)| *at <= now) {
                    due.extend(self.repeats.pop_first().map(|(_, eip)| eip));
                } else {
                    break;
                }
            }
            self.rests_until = (due.len() == BATCH).then(|| now + PAUSE);
        }
        // After those that came: they are what neighbours wait for.
        if let Some((together, pause)) = self.turn().filter(|_| self.turn_at.is_some_and(|at| at <= now)) {
            for _ in 0..together {
                let after = self.turn.map_or(Bound::Unbounded, Bound::Excluded);
                let next = self.here.range((after, Bound::Unbounded)).next().or(self.here.first());
                self.turn = next.copied();
                due.extend(self.turn);
            }
            self.turn_at = Some(now + pause);
        }
        due
    }

    /// When [`Self::due`] has something.
    pub(super) fn next(&self) -> Option<Instant> {
        let first = self.first.first().map(|(Reverse(came), _)| *came);
        let repeat = self.repeats.first().map(|(at, _)| *at);
        let queued = first.into_iter().chain(repeat).min();
        let queued = queued.map(|at| self.rests_until.map_or(at, |until| until.max(at)));
        queued.into_iter().chain(self.turn_at).min()
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

    fn many(count: u32) -> BTreeSet<Ipv4Addr> {
        (0..count).map(|n| Ipv4Addr::from_bits(0xcb00_7100 + n)).collect()
    }

    #[test]
    fn an_eip_that_comes_is_announced_four_times_in_a_second_and_then_every_minute() {
        let start = Instant::now();
        let mut announcer = Announcer::default();
        announcer.set([EIP].into(), start);
        announcer.set([EIP].into(), start + Duration::from_millis(100));
        let times: Vec<Duration> = all_due(&mut announcer, start + Duration::from_secs(150))
            .iter()
            .map(|(at, _)| *at - start)
            .collect();
        assert_eq!(times, [0, 50, 200, 1000, 60_000, 120_000].map(Duration::from_millis));
    }

    #[test]
    fn an_eip_that_goes_is_not_announced_any_more_and_again_when_it_is_back() {
        let start = Instant::now();
        let mut announcer = Announcer::default();
        announcer.set([EIP].into(), start);
        assert_eq!(announcer.due(start), [EIP]);
        announcer.set(BTreeSet::new(), start);
        assert_eq!(announcer.next(), None);
        assert_eq!(announcer.due(start + PERIOD * 2), [] as [Ipv4Addr; 0]);
        announcer.set([EIP].into(), start);
        assert_eq!(all_due(&mut announcer, start + Duration::from_secs(9)).len(), 1 + REPEATS.len());
    }

    #[test]
    fn thousands_of_eips_do_not_leave_at_once_and_none_is_forgotten() {
        let start = Instant::now();
        let mut announcer = Announcer::default();
        announcer.set(many(1000), start);
        assert_eq!(announcer.due(start).len(), BATCH);
        assert_eq!(announcer.due(start), [] as [Ipv4Addr; 0]);
        let soon = start + Duration::from_secs(3);
        let sent: BTreeSet<Ipv4Addr> =
            all_due(&mut announcer, soon).into_iter().map(|(_, eip)| eip).collect();
        assert_eq!(sent, many(1000));
        assert!(announcer.first.is_empty() && announcer.repeats.is_empty());
    }

    #[test]
    fn those_that_stay_take_turns_and_each_has_one_a_minute() {
        for (count, together) in [(7, 1), (6000, 1), (60_000, 10), (90_000, 10)] {
            let start = Instant::now();
            let mut announcer = Announcer { here: many(count), ..Announcer::default() };
            announcer.set(many(count), start);
            let period = PERIOD.max(Duration::from_millis(count.into()));
            let sent = all_due(&mut announcer, start + period);
            let eips: BTreeSet<Ipv4Addr> = sent.iter().map(|(_, eip)| *eip).collect();
            assert_eq!((eips.len(), sent.len()), (count as usize, count as usize));
            assert!(sent.chunk_by(|one, other| one.0 == other.0).all(|turn| turn.len() == together));
        }
    }

    #[test]
    fn an_eip_that_comes_does_not_wait_for_those_that_stay() {
        let start = Instant::now();
        let mut announcer = Announcer { here: many(500_000), ..Announcer::default() };
        announcer.set(many(500_000), start);
        let later = start + Duration::from_secs(5);
        announcer.set(many(500_001), later);
        assert_eq!(announcer.due(later).first(), many(500_001).last());
    }

    #[test]
    fn an_eip_that_comes_does_not_wait_for_thousands_that_came_before_or_are_repeated() {
        let start = Instant::now();
        let mut announcer = Announcer::default();
        announcer.set(many(10_000), start);
        let last = *many(10_001).last().expect("many");
        // While most of the others wait for their first announcement, and when all of them wait to be repeated.
        for later in [Duration::from_millis(300), Duration::from_millis(1600)].map(|time| start + time) {
            announcer.set(many(10_000), later);
            all_due(&mut announcer, later);
            announcer.set(many(10_001), later);
            let sent = all_due(&mut announcer, later + PAUSE);
            assert!(sent.len() < 3 * BATCH);
            assert!(sent.iter().any(|(_, eip)| *eip == last), "{:?} after the start", later - start);
        }
        let others: BTreeSet<Ipv4Addr> = all_due(&mut announcer, start + Duration::from_secs(10))
            .into_iter()
            .map(|(_, eip)| eip)
            .collect();
        assert_eq!(others.len(), 10_001, "none is forgotten");
        assert!(announcer.first.is_empty() && announcer.repeats.is_empty());
    }

    #[test]
    fn an_eip_that_another_host_announced_meanwhile_is_announced_again_and_no_other() {
        let start = Instant::now();
        let mut announcer = Announcer::default();
        announcer.set(many(2), start);
        all_due(&mut announcer, start + Duration::from_millis(100));
        let (one, now) = (*many(1).first().expect("one"), start + Duration::from_millis(150));
        announcer.forget_some(&many(1));
        announcer.set(many(2), now);
        let sent = all_due(&mut announcer, start + Duration::from_secs(9));
        let times: Vec<Duration> =
            sent.iter().filter(|(_, eip)| *eip == one).map(|(at, _)| *at - now).collect();
        assert_eq!(times, [0, 50, 200, 1000].map(Duration::from_millis));
        assert_eq!(sent.len() - times.len(), 2, "of the other one only repeats");
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
