//! What became of the datagrams of one move.

use std::{
    net::Ipv4Addr,
    ops::Range,
    time::{Duration, Instant},
};

use crate::{frame::Frame, stream::StreamReport, underlay::vtep};

/// A move of a VIP, by what was seen of it.
#[derive(Clone, Debug)]
pub(super) struct Move {
    /// Which member had it, by its number from 0; its host's number is one more.
    pub(super) from: usize,
    /// Which member has it.
    pub(super) to: usize,
    /// When the new owner's claim reached its host.
    pub(super) claim: Instant,
    /// When each host had applied it, in the order of the hosts.
    pub(super) applied: Vec<Instant>,
    /// All streams were for this VIP during that time.
    pub(super) window: Range<Instant>,
}

impl Move {
    /// When the last host had applied it.
    pub(super) fn applied_everywhere(&self) -> Instant {
        self.applied.iter().copied().max().unwrap_or(self.claim).max(self.claim)
    }

    /// When a host (its number less one) had applied it.
    pub(super) fn applied_by(&self, host: usize) -> Instant {
        self.applied.get(host).copied().unwrap_or_else(|| self.applied_everywhere()).max(self.claim)
    }

    /// How long a host (its number less one) took to apply it; None for the new owner's host, on which the claim is the move.
    pub(super) fn interval(&self, host: usize) -> Option<Duration> {
        let at = self.applied.get(host).filter(|_| host != self.to)?;
        Some(at.saturating_duration_since(self.claim))
    }

    /// The VTEP of the host of the old owner.
    fn old_vtep(&self) -> Option<Ipv4Addr> {
        u8::try_from(self.from + 1).ok().map(vtep)
    }
}

/// What became of one stream's datagrams during one move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fate {
    /// How many were sent.
    pub(super) sent: usize,
    /// Lost before the claim: by the lab, or by a host that had nothing to do with the move.
    pub(super) lost_before: usize,
    /// Lost between the claim and the moment when the client's host had applied the move.
    pub(super) lost_between: usize,
    /// Lost although they were sent after the client's host had applied the move: there must be none.
    pub(super) lost_after: usize,
    /// Delivered to the old owner although they were sent after that moment: there must be none, whatever the lab has no room for.
    pub(super) astray: usize,
    /// Delivered to the old owner after the claim, until its host had applied the move.
    pub(super) to_old_owner: usize,
    /// The same, afterwards.
    pub(super) to_old_owner_after: usize,
    /// Arrived twice.
    pub(super) doubled: usize,
    /// From the claim to the first one at the new owner; None: none arrived there.
    pub(super) first: Option<Duration>,
}

impl Fate {
    /// Reads it off a stream whose receivers were the members, in their order, and whose client's host had applied the move at
    /// `known`.
    pub(super) fn of(it: &Move, known: Instant, report: &StreamReport) -> Self {
        let begin = report.sent.partition_point(|at| *at < it.window.start);
        let end = report.sent.partition_point(|at| *at < it.window.end);
        let sent = report.sent.get(begin..end).unwrap_or_default();
        // Where and when each of them arrived.
        let mut arrived: Vec<Option<(usize, Instant)>> = vec![None; sent.len()];
        let mut fate = Self { sent: sent.len(), ..Self::default() };
        for (member, receiver) in report.receivers.iter().enumerate() {
            for arrival in &receiver.arrivals {
                let index = usize::try_from(arrival.number).ok().and_then(|number| number.checked_sub(begin));
                match index.and_then(|index| arrived.get_mut(index)) {
                    Some(place @ None) => *place = Some((member, arrival.at)),
                    Some(Some(_)) => fate.doubled += 1,
                    None => {}
                }
            }
        }
        let known_to_old = it.applied_by(it.from);
        for (&at, arrival) in sent.iter().zip(&arrived) {
            match *arrival {
                Some((member, when)) if member == it.to && when >= it.claim => {
                    let after = when.saturating_duration_since(it.claim);
                    fate.first = Some(fate.first.map_or(after, |first: Duration| first.min(after)));
                }
                Some((_, when)) if when >= it.claim => {
                    let after = usize::from(when > known_to_old);
                    fate.to_old_owner_after += after;
                    fate.to_old_owner += 1 - after;
                    fate.astray += usize::from(at >= known);
                }
                Some(_) => {}
                None if at >= known => fate.lost_after += 1,
                None if at >= it.claim => fate.lost_between += 1,
                None => fate.lost_before += 1,
            }
        }
        fate
    }
}

/// Frames that a host sent to the old owner's host after the claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stale {
    /// Until it had applied the move.
    pub(super) before_applied: usize,
    /// Afterwards.
    pub(super) after_applied: usize,
}

impl Stale {
    /// Counts them in what a host (its number less one) was seen to send.
    pub(super) fn of(it: &Move, host: usize, sent: &[Frame]) -> Self {
        let Some(applied) = it.applied.get(host).copied() else { return Self::default() };
        let within = |frame: &&Frame| frame.at > it.claim && frame.at < it.window.end;
        let stale = |frame: &Frame| {
            frame
                .tunnelled()
                .is_some_and(|found| Some(found.destination) == it.old_vtep() && found.inner.udp().is_some())
        };
        let times = sent.iter().filter(within).filter(|frame| stale(frame)).map(|frame| frame.at);
        times.fold(Self::default(), |counted, at| {
            let after = usize::from(at > applied);
            Self {
                before_applied: counted.before_applied + 1 - after,
                after_applied: counted.after_applied + after,
            }
        })
    }
}

/// A value that so many per cent of all do not exceed (nearest rank); None of none.
pub(super) fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Mac, frame,
        stream::{Arrival, ReceiverReport},
        vxlan::Outer,
    };

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    /// From the first member to the second: claimed at 10 ms, known to the hosts at 14, 10 and 12 ms.
    fn moved(start: Instant) -> Move {
        Move {
            from: 0,
            to: 1,
            claim: at(start, 10),
            applied: [14, 10, 12].map(|millis| at(start, millis)).to_vec(),
            window: start..at(start, 100),
        }
    }

    #[test]
    fn each_datagram_has_one_fate() {
        let start = Instant::now();
        // Numbers are milliseconds of sending; each takes half a millisecond.
        let sent: Vec<Instant> = (0..20).map(|millis| at(start, millis)).collect();
        let arrival = |number: u64| Arrival { number, at: at(start, number) + Duration::from_micros(500) };
        let receiver = |numbers: &[u64]| ReceiverReport {
            namespace: String::new(),
            arrivals: numbers.iter().copied().map(arrival).collect(),
        };
        // 3, 12 and 17 are lost; 11 and 15 go to the old owner after the claim; 16 arrives twice.
        let receivers =
            vec![receiver(&[0, 1, 2, 4, 5, 6, 7, 8, 9, 11, 15]), receiver(&[10, 13, 14, 16, 16, 18, 19])];
        let it = moved(start);
        let fate = Fate::of(&it, it.applied_everywhere(), &StreamReport { sent, receivers });
        let expected = Fate {
            sent: 20,
            lost_before: 1,
            lost_between: 1,
            lost_after: 1,
            // 15 was sent after everybody knew.
            astray: 1,
            // 11 came before the old owner's host knew, at 14.
            to_old_owner: 1,
            to_old_owner_after: 1,
            doubled: 1,
            first: Some(Duration::from_micros(500)),
        };
        assert_eq!(fate, expected);
    }

    #[test]
    fn what_was_sent_at_other_times_is_no_business_of_a_move() {
        let start = Instant::now();
        let it = Move { window: at(start, 5)..at(start, 8), ..moved(start) };
        let sent: Vec<Instant> = (0..20).map(|millis| at(start, millis)).collect();
        let fate = Fate::of(&it, at(start, 14), &StreamReport { sent, receivers: Vec::new() });
        assert_eq!(fate, Fate { sent: 3, lost_before: 3, ..Fate::default() });
    }

    #[test]
    fn what_the_new_owner_got_before_its_claim_is_not_the_first_after_it() {
        let start = Instant::now();
        let sent: Vec<Instant> = (8..14).map(|millis| at(start, millis)).collect();
        let arrivals = [(0, 8), (5, 13)].map(|(number, millis)| Arrival { number, at: at(start, millis) });
        let none = ReceiverReport { namespace: String::new(), arrivals: Vec::new() };
        let new = ReceiverReport { namespace: String::new(), arrivals: arrivals.to_vec() };
        let report = StreamReport { sent, receivers: vec![none, new] };
        let fate = Fate::of(&moved(start), at(start, 14), &report);
        assert_eq!(fate.first, Some(Duration::from_millis(3)));
    }

    #[test]
    fn what_is_lost_counts_from_the_moment_of_the_clients_own_host() {
        let start = Instant::now();
        let it = moved(start);
        let sent: Vec<Instant> = (0..20).map(|millis| at(start, millis)).collect();
        let lost = |host| {
            let report = StreamReport { sent: sent.clone(), receivers: Vec::new() };
            let fate = Fate::of(&it, it.applied_by(host), &report);
            (fate.lost_before, fate.lost_between, fate.lost_after)
        };
        assert_eq!((0..3).map(lost).collect::<Vec<_>>(), [(10, 4, 6), (10, 0, 10), (10, 2, 8)]);
    }

    #[test]
    fn only_vxlan_to_the_old_owners_host_after_the_claim_is_stale() {
        let start = Instant::now();
        let frame_at = |millis, host| {
            let macs = (Mac::ZERO, Mac::BROADCAST);
            let inner = frame::udp(macs, (vtep(9), 1), (vtep(9), 2), b"x").expect("it is short");
            let (source, destination) = (vtep(3), vtep(host));
            let outer = Outer { macs, source, destination, source_port: 50_000, vni: 1 };
            Frame {
                at: at(start, millis),
                outgoing: false,
                bytes: outer.around(&inner).expect("it is short"),
            }
        };
        let sent = [frame_at(9, 1), frame_at(11, 1), frame_at(11, 2), frame_at(13, 1), frame_at(101, 1)];
        let counted = Stale::of(&moved(start), 2, &sent);
        assert_eq!(counted, Stale { before_applied: 1, after_applied: 1 });
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let sorted: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        let millis = |percent| percentile(&sorted, percent).map(|time| time.as_millis());
        assert_eq!((millis(50), millis(99), millis(100)), (Some(50), Some(99), Some(100)));
        assert_eq!(percentile(&[Duration::from_millis(1)], 99), Some(Duration::from_millis(1)));
        assert_eq!(percentile(&[], 50), None);
    }
}
