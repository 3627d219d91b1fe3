//! Members that take themselves for the master of one virtual router at the same time (split brain).
//!
//! Two members that advertise one VRID for three intervals or more are a conflict, until one is silent for three intervals. Claims
//! decide who owns the VIP meanwhile, the last one; if that is not the member with the higher (priority, primary address), which the
//! other would have to give way to (RFC 9568 §6.4.3), it is made the owner, once. A later claim counts again. Nothing here touches the tables.

use std::collections::{BTreeMap, BTreeSet};

use vip_common::tables::Advert;

/// What is to be done about a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A conflict began; the port with this index is the one that should own the VIP.
    Began {
        /// Port index.
        master: u32,
    },
    /// It is over.
    Ended,
}

/// The conflicts that are on, by VIP slot.
#[derive(Clone, Debug, Default)]
pub(super) struct Conflicts {
    slots: BTreeSet<u32>,
}

impl Conflicts {
    /// Judges what the members of the VIP in `slot` advertise, by port index, `now` in nanoseconds since boot.
    pub(super) fn judge(&mut self, slot: u32, adverts: &BTreeMap<u32, Advert>, now: u64) -> Option<Change> {
        if self.slots.contains(&slot) {
            let goes_on = is_shared(adverts.values().filter(|advert| advert.is_heard(now)));
            return (!goes_on && self.slots.remove(&slot)).then_some(Change::Ended);
        }
        let lasting = || adverts.iter().filter(|(_, advert)| advert.is_lasting(now));
        let is_rivalled = |vrid: u8| lasting().filter(|(_, advert)| advert.vrid == vrid).nth(1).is_some();
        let rivals = lasting().filter(|(_, advert)| is_rivalled(advert.vrid));
        let (&master, _) = rivals.max_by_key(|(_, advert)| advert.rank())?;
        self.slots.insert(slot);
        Some(Change::Began { master })
    }

    /// The slots with a conflict.
    pub(super) fn slots(&self) -> &BTreeSet<u32> {
        &self.slots
    }
}

/// Whether two of them are of one virtual router.
fn is_shared<'a>(adverts: impl Iterator<Item = &'a Advert>) -> bool {
    let mut seen = BTreeSet::new();
    adverts.into_iter().any(|advert| !seen.insert(advert.vrid))
}

#[cfg(test)]
mod tests {
    use vip_common::wire::Ipv4;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn advert(priority: u8, host: u8, since: u64, at: u64) -> Advert {
        let address = Ipv4::new([192, 168, 7, host]);
        Advert { since, at, address, interval: 1000, vrid: 66, priority, zero: [0; 6] }
    }

    #[test]
    fn a_member_of_another_virtual_router_has_no_part_in_a_conflict() {
        let mut conflicts = Conflicts::default();
        let other = Advert { vrid: 67, ..advert(254, 9, 0, 4 * SECOND) };
        let adverts =
            [(1, advert(100, 1, 0, 4 * SECOND)), (2, advert(90, 2, 0, 4 * SECOND)), (3, other)].into();
        assert_eq!(conflicts.judge(4, &adverts, 4 * SECOND), Some(Change::Began { master: 1 }));
    }

    #[test]
    fn two_that_advertise_for_three_intervals_are_a_conflict_until_one_is_silent_for_three() {
        let mut conflicts = Conflicts::default();
        let at = |first: u64, second: u64| {
            BTreeMap::from([
                (1, advert(100, 1, 0, first * SECOND)),
                (2, advert(99, 2, SECOND, second * SECOND)),
            ])
        };
        assert_eq!(conflicts.judge(7, &at(3, 3), 3 * SECOND), None, "the second has advertised for two");
        assert_eq!(conflicts.judge(7, &at(4, 4), 4 * SECOND), Some(Change::Began { master: 1 }));
        assert_eq!(conflicts.judge(7, &at(5, 4), 5 * SECOND), None, "told once");
        assert_eq!(conflicts.judge(7, &at(7, 4), 7 * SECOND), None, "silent for three intervals, not more");
        assert_eq!(conflicts.judge(7, &at(8, 4), 8 * SECOND), Some(Change::Ended));
        assert_eq!(conflicts.judge(7, &at(9, 4), 9 * SECOND), None);
        assert!(conflicts.slots().is_empty());
    }

    #[test]
    fn the_higher_priority_should_own_it_and_among_equals_the_higher_address() {
        let began = |first, second| {
            Conflicts::default().judge(7, &BTreeMap::from([(1, first), (2, second)]), 9 * SECOND)
        };
        let lasting = |priority, host| advert(priority, host, 0, 9 * SECOND);
        assert_eq!(began(lasting(100, 1), lasting(101, 2)), Some(Change::Began { master: 2 }));
        assert_eq!(began(lasting(101, 1), lasting(100, 2)), Some(Change::Began { master: 1 }));
        assert_eq!(began(lasting(100, 3), lasting(100, 2)), Some(Change::Began { master: 1 }));
    }

    #[test]
    fn routers_of_other_numbers_do_not_meet() {
        let other = Advert { vrid: 67, ..advert(100, 1, 0, 9 * SECOND) };
        let adverts = BTreeMap::from([(1, other), (2, advert(99, 2, 0, 9 * SECOND))]);
        assert_eq!(Conflicts::default().judge(7, &adverts, 9 * SECOND), None);
    }

    #[test]
    fn one_that_gave_way_within_three_intervals_is_none() {
        let adverts =
            BTreeMap::from([(1, advert(100, 1, 0, 9 * SECOND)), (2, advert(99, 2, 7 * SECOND, 9 * SECOND))]);
        assert_eq!(Conflicts::default().judge(7, &adverts, 9 * SECOND), None);
    }
}
