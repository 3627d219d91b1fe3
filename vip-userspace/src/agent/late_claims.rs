//! Claims that take effect long after their own packet.
//!
//! An accepted claim goes on to the bridge of its port and teaches the neighbours there. One that waits does not: when it takes
//! effect at last, they have to be told by the agent. The first packet to the VIP makes it take effect; where none comes by, because the
//! present owner is on another host, the agent does.

use std::{collections::BTreeMap, time::Instant};

use vip_common::tables::{OwnerEntry, Pending};

#[derive(Clone, Copy, Debug)]
struct Late {
    port: u32,
    /// When it is to be looked at; `None`: it was.
    due: Option<Instant>,
}

/// Whether a claim by a guest of this host, of which other hosts have to hear though it changed no owner, may be what became of a VIP: it
/// waits, or the owner, if that is here, has moved so recently that its repeated claims count. `now` in nanoseconds since boot.
pub(super) fn may_have_been_claimed(entry: &OwnerEntry, owner_is_here: bool, now: u64) -> bool {
    entry.pending != Pending::NONE || owner_is_here && entry.damped_until > now
}

/// The claims that wait, by VIP slot.
#[derive(Clone, Debug, Default)]
pub(super) struct LateClaims {
    claims: BTreeMap<u32, Late>,
    /// Events about such claims that were lost; `None`: it was not looked at yet.
    lost: Option<u64>,
}

impl LateClaims {
    /// So many events about claims that wait or change no owner were lost until now. Tells how many since the last call; at the first one none.
    pub(super) fn events_lost(&mut self, lost: u64) -> u64 {
        let before = self.lost.replace(lost).unwrap_or(lost);
        lost.wrapping_sub(before)
    }

    /// A claim by the port with this index waits until `due`. A later claim replaces it.
    pub(super) fn waits(&mut self, slot: u32, port: u32, due: Instant) {
        self.claims.insert(slot, Late { port, due: Some(due) });
    }

    /// The slots whose claims are due, with the claimants, each once. Call again at [`Self::next`].
    pub(super) fn due(&mut self, now: Instant) -> Vec<(u32, u32)> {
        let due = self.claims.iter_mut().filter(|(_, late)| late.due.is_some_and(|due| due <= now));
        due.map(|(slot, late)| {
            late.due = None;
            (*slot, late.port)
        })
        .collect()
    }

    /// When [`Self::due`] has something to do.
    pub(super) fn next(&self) -> Option<Instant> {
        self.claims.values().filter_map(|late| late.due).min()
    }

    /// The VIP moved to a port. Tells whether by a claim that had waited.
    pub(super) fn moved(&mut self, slot: u32, port: u32) -> bool {
        self.claims.remove(&slot).is_some_and(|late| late.port == port)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vip_common::tables::{ClaimForm, OwnerWord};

    use super::*;

    #[test]
    fn only_the_move_that_a_waiting_claim_leads_to_is_late() {
        let mut late = LateClaims::default();
        let due = Instant::now();
        assert!(!late.moved(4, 1));
        late.waits(4, 2, due);
        assert!(late.moved(4, 2));
        assert!(!late.moved(4, 2));
    }

    #[test]
    fn what_was_lost_before_the_first_look_is_history() {
        let mut late = LateClaims::default();
        assert_eq!([7, 7, 9, 9].map(|lost| late.events_lost(lost)), [0, 0, 2, 0]);
    }

    #[test]
    fn other_hosts_have_to_hear_of_claims_that_wait_and_of_those_of_an_owner_here_that_moved_recently() {
        let word = OwnerWord::new(4, true, 7, 0);
        let calm = OwnerEntry { word, pending: Pending::NONE, damped_until: 100, reported: 0 };
        assert!(may_have_been_claimed(&calm, true, 99));
        assert!(!may_have_been_claimed(&calm, true, 100));
        assert!(!may_have_been_claimed(&calm, false, 99), "an owner elsewhere claims there");
        let waits = OwnerEntry { pending: Pending::new(8, 0, ClaimForm::GarpRequest, 200), ..calm };
        assert!(may_have_been_claimed(&waits, false, 150));
    }

    #[test]
    fn a_claim_that_was_overtaken_is_not_waited_for_any_more() {
        let mut late = LateClaims::default();
        let due = Instant::now();
        late.waits(4, 2, due);
        late.waits(4, 3, due);
        late.waits(5, 2, due);
        assert!(!late.moved(4, 1));
        assert!(!late.moved(4, 3));
        assert!(late.moved(5, 2));
    }

    #[test]
    fn a_claim_is_looked_at_once_when_it_is_due() {
        let (mut late, start) = (LateClaims::default(), Instant::now());
        let second = |number| start + Duration::from_secs(number);
        late.waits(4, 2, second(2));
        late.waits(5, 1, second(1));
        assert_eq!((late.next(), late.due(start)), (Some(second(1)), vec![]));
        assert_eq!((late.due(second(1)), late.next()), (vec![(5, 1)], Some(second(2))));
        late.waits(4, 3, second(3));
        assert_eq!(late.due(second(2)), []);
        assert_eq!((late.due(second(3)), late.next()), (vec![(4, 3)], None));
        assert!(late.moved(4, 3));
    }
}
