//! Which index belongs to which object: read off the tables, so that it survives the agent.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use vip_common::{tables::AddressKind, wire::Ipv4};

use super::contents::{Contents, MacPlace, Place};
use crate::config::Capacity;

/// How long a freed index stays unused: a program that read it before it was freed is done long before.
pub const REST: Duration = Duration::from_secs(1);

/// The indexes of one kind of object.
#[derive(Clone, Debug)]
pub(super) struct Pool<K> {
    /// Table named when no index is left.
    pub(super) table: &'static str,
    first: u32,
    capacity: u32,
    assigned: BTreeMap<K, u32>,
    /// In use, by whomever.
    used: BTreeSet<u32>,
    resting: BTreeSet<u32>,
    /// Every index that is not in use rests.
    all_rest: bool,
}

/// Why an object got no index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoIndex {
    /// All are in use.
    Full {
        /// How many there are.
        capacity: u32,
    },
    /// Those that are free were freed a moment ago, or are being freed.
    Resting,
}

impl<K: Ord + Copy> Pool<K> {
    fn new(table: &'static str, first: u32, capacity: u32, all_rest: bool) -> Self {
        Self {
            table,
            first,
            capacity,
            assigned: BTreeMap::new(),
            used: BTreeSet::new(),
            resting: BTreeSet::new(),
            all_rest,
        }
    }

    fn note(&mut self, key: K, index: u32) {
        self.assigned.insert(key, index);
        self.used.insert(index);
    }

    /// An index for every object, in their order: those that have one keep it, also when there is no room for others.
    pub(super) fn assign(&self, wanted: &[K]) -> Vec<Result<u32, NoIndex>> {
        let end = self.first.saturating_add(self.capacity);
        let mut free = (self.first..end)
            .filter(|index| !self.all_rest && !self.used.contains(index) && !self.resting.contains(index));
        let kept = wanted.iter().filter(|key| self.assigned.contains_key(key)).count();
        // What is free but rests, or is in use by an object that is leaving, can be had later.
        let room = usize::try_from(self.capacity).unwrap_or(usize::MAX).saturating_sub(kept);
        let mut given = 0;
        wanted
            .iter()
            .map(|key| {
                if let Some(&index) = self.assigned.get(key) {
                    return Ok(index);
                }
                given += 1;
                let full = NoIndex::Full { capacity: self.capacity };
                free.next().ok_or(if given > room { full } else { NoIndex::Resting })
            })
            .collect()
    }
}

/// Which EIPs there is room for: they have no index of their own, but there may not be more than the capacity.
#[derive(Clone, Debug)]
pub(super) struct Room {
    capacity: u32,
    present: BTreeSet<Ipv4>,
}

impl Room {
    /// Whether there is room for each of the EIPs: those that are there already stay.
    pub(super) fn admit(&self, wanted: &[Ipv4]) -> Vec<Result<(), NoIndex>> {
        let kept = wanted.iter().filter(|eip| self.present.contains(eip)).count();
        let mut room = usize::try_from(self.capacity).unwrap_or(usize::MAX).saturating_sub(kept);
        wanted
            .iter()
            .map(|eip| {
                if self.present.contains(eip) {
                    return Ok(());
                }
                room = room.checked_sub(1).ok_or(NoIndex::Full { capacity: self.capacity })?;
                Ok(())
            })
            .collect()
    }
}

/// The indexes in use and those that rest.
#[derive(Clone, Debug)]
pub struct Indexes {
    pub(super) ports: Pool<MacPlace>,
    pub(super) slots: Pool<Place>,
    pub(super) eips: Room,
    /// By the gateway's address.
    pub(super) subnets: Pool<Place>,
}

impl Indexes {
    /// Reads the indexes off the tables.
    ///
    /// Ports and slots say themselves whose they are, so that one that was only half added or half removed is found too.
    pub fn of(contents: &Contents, capacity: &Capacity, resting: &Resting) -> Self {
        let all = resting.all;
        let mut indexes = Self {
            ports: Pool::new("PORTS", 1, capacity.ports, all),
            slots: Pool::new("VIPS", 0, capacity.vips, all),
            eips: Room { capacity: capacity.eips, present: contents.eips.keys().copied().collect() },
            subnets: Pool::new("SUBNETS", 1, capacity.subnets, all),
        };
        for (&index, port) in &contents.ports {
            indexes.ports.note((port.vni, port.mac.octets()), index);
        }
        for (&slot, members) in &contents.members {
            indexes.slots.note((members.vni, members.address), slot);
        }
        for (&place, entry) in &contents.addresses {
            if let AddressKind::Gateway(subnet) | AddressKind::ExternalGateway(subnet) = entry.kind {
                indexes.subnets.note(place, subnet);
            }
        }
        indexes.subnets.used.extend(contents.ports.values().map(|port| port.subnet));
        indexes.subnets.used.extend(contents.members.values().map(|members| members.subnet));
        indexes.subnets.used.extend(contents.subnets.values().map(|entry| entry.subnet));
        indexes.ports.resting = resting.kinds.ports.keys().copied().collect();
        indexes.slots.resting = resting.kinds.slots.keys().copied().collect();
        indexes.subnets.resting = resting.kinds.subnets.keys().copied().collect();
        indexes
    }
}

/// Freed indexes, each with the end of its rest.
#[derive(Clone, Debug, Default)]
struct Kinds {
    ports: BTreeMap<u32, Instant>,
    slots: BTreeMap<u32, Instant>,
    subnets: BTreeMap<u32, Instant>,
}

/// Indexes that were freed less than [`REST`] ago.
#[derive(Clone, Debug, Default)]
pub struct Resting {
    kinds: Kinds,
    all: bool,
    all_until: Option<Instant>,
}

impl Resting {
    /// After a start with tables of an earlier agent, which may have freed any index just before it died: everything that
    /// is not in use rests.
    pub fn everything(now: Instant) -> Self {
        Self { all: true, all_until: Some(now + REST), ..Self::default() }
    }

    /// Notes what was in use before and is not any more.
    pub fn note(&mut self, before: &Contents, after: &Contents, now: Instant) {
        let until = now + REST;
        let none = Self::default();
        let capacity = Capacity { ports: 0, vips: 0, eips: 0, subnets: 0 };
        let before = Indexes::of(before, &capacity, &none);
        let after = Indexes::of(after, &capacity, &none);
        let freed = |before: &BTreeSet<u32>, after: &BTreeSet<u32>| -> Vec<(u32, Instant)> {
            before.difference(after).map(|&index| (index, until)).collect()
        };
        self.kinds.ports.extend(freed(&before.ports.used, &after.ports.used));
        self.kinds.slots.extend(freed(&before.slots.used, &after.slots.used));
        self.kinds.subnets.extend(freed(&before.subnets.used, &after.subnets.used));
    }

    /// Forgets those whose rest is over.
    pub fn expire(&mut self, now: Instant) {
        if self.all_until.is_some_and(|until| until <= now) {
            self.all = false;
            self.all_until = None;
        }
        let Kinds { ports, slots, subnets } = &mut self.kinds;
        for kind in [ports, slots, subnets] {
            kind.retain(|_, until| *until > now);
        }
    }

    /// When the last rest ends; `None` if nothing rests.
    pub fn ends(&self) -> Option<Instant> {
        let Kinds { ports, slots, subnets } = &self.kinds;
        [ports, slots, subnets].into_iter().flat_map(BTreeMap::values).copied().chain(self.all_until).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(capacity: u32, assigned: &[(u32, u32)]) -> Pool<u32> {
        let mut pool = Pool::new("TEST", 1, capacity, false);
        for &(key, index) in assigned {
            pool.note(key, index);
        }
        pool
    }

    #[test]
    fn objects_that_stay_keep_their_index_whatever_else_is_wanted() {
        let pool = pool(4, &[(70, 3), (80, 1)]);
        assert_eq!(pool.assign(&[10, 70, 80]), [Ok(2), Ok(3), Ok(1)]);
    }

    #[test]
    fn a_full_table_refuses_the_new_ones_only() {
        let pool = pool(2, &[(70, 1)]);
        let full = Err(NoIndex::Full { capacity: 2 });
        assert_eq!(pool.assign(&[10, 20, 70]), [Ok(2), full, Ok(1)]);
    }

    #[test]
    fn eips_that_are_there_stay_when_there_is_no_room_for_others() {
        let [old, new] = [[203, 0, 113, 1], [203, 0, 113, 0]].map(Ipv4::new);
        let room = Room { capacity: 1, present: BTreeSet::from([old]) };
        assert_eq!(room.admit(&[new, old]), [Err(NoIndex::Full { capacity: 1 }), Ok(())]);
    }

    #[test]
    fn the_index_of_an_object_that_leaves_is_not_given_away_at_once() {
        let pool = pool(1, &[(70, 1)]);
        assert_eq!(pool.assign(&[10]), [Err(NoIndex::Resting)]);
    }

    #[test]
    fn a_freed_index_rests_and_then_serves_again() {
        let start = Instant::now();
        let mut before = Contents::default();
        let members = vip_common::tables::Members { vni: 1, ..Default::default() };
        before.members.insert(0, members);
        let capacity = Capacity { ports: 1, vips: 1, eips: 1, subnets: 1 };
        let mut resting = Resting::default();
        resting.note(&before, &Contents::default(), start);
        let give = |resting: &Resting| {
            Indexes::of(&Contents::default(), &capacity, resting).slots.assign(&[(2, Ipv4::UNSPECIFIED)])
        };
        resting.expire(start + REST / 2);
        assert_eq!(give(&resting), [Err(NoIndex::Resting)]);
        assert_eq!(resting.ends(), Some(start + REST));
        resting.expire(start + REST);
        assert_eq!(give(&resting), [Ok(0)]);
        assert_eq!(resting.ends(), None);
    }

    #[test]
    fn after_a_restart_every_unused_index_rests() {
        let start = Instant::now();
        let mut resting = Resting::everything(start);
        let capacity = Capacity { ports: 9, vips: 9, eips: 9, subnets: 9 };
        let give = |resting: &Resting| {
            Indexes::of(&Contents::default(), &capacity, resting).slots.assign(&[(2, Ipv4::UNSPECIFIED)])
        };
        assert_eq!(give(&resting), [Err(NoIndex::Resting)]);
        resting.expire(start + REST);
        assert_eq!(give(&resting), [Ok(0)]);
    }
}
