//! Which index belongs to which object: read off the tables, so that it survives the agent.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::Hash,
    time::{Duration, Instant},
};

use hashbrown::HashMap;
use vip_common::{tables::AddressKind, wire::Ipv4};

use super::contents::{Contents, MacPlace, Place, host_of};
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
    assigned: HashMap<K, u32>,
    /// In use, by whomever: rising.
    used: Vec<u32>,
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

impl<K: Hash + Eq + Copy> Pool<K> {
    /// `assigned` may tell of an object twice; the last time counts. `used` need not be sorted.
    fn new(
        table: &'static str,
        (first, capacity): (u32, u32),
        assigned: impl Iterator<Item = (K, u32)>,
        used: Vec<u32>,
        (resting, all_rest): (BTreeSet<u32>, bool),
    ) -> Self {
        Self { table, first, capacity, assigned: assigned.collect(), used: sorted(used), resting, all_rest }
    }

    /// An index for every object, in their order: those that have one keep it, also when there is no room for others.
    pub(super) fn assign(&self, wanted: impl ExactSizeIterator<Item = K>) -> Vec<Result<u32, NoIndex>> {
        let kept: Vec<Option<u32>> = wanted.map(|key| self.assigned.get(&key).copied()).collect();
        let stay = kept.iter().flatten().count();
        // What is free but rests, or is in use by an object that is leaving, can be had later.
        let room = usize::try_from(self.capacity).unwrap_or(usize::MAX).saturating_sub(stay);
        let mut free = self.free();
        let mut given = 0;
        kept.into_iter()
            .map(|index| {
                if let Some(index) = index {
                    return Ok(index);
                }
                given += 1;
                let full = NoIndex::Full { capacity: self.capacity };
                free.next().ok_or(if given > room { full } else { NoIndex::Resting })
            })
            .collect()
    }

    /// The indexes that can be had now, rising.
    fn free(&self) -> impl Iterator<Item = u32> {
        let end = if self.all_rest { self.first } else { self.first.saturating_add(self.capacity) };
        let mut used = self.used.iter().copied().peekable();
        (self.first..end).filter(move |index| {
            while used.next_if(|used| used < index).is_some() {}
            used.peek() != Some(index) && !self.resting.contains(index)
        })
    }
}

/// Rising, and each once.
fn sorted(mut indexes: Vec<u32>) -> Vec<u32> {
    indexes.sort_unstable();
    indexes.dedup();
    indexes
}

/// Which EIPs there is room for: they have no index of their own, but there may not be more than the capacity.
#[derive(Clone, Debug)]
pub(super) struct Room {
    capacity: u32,
    /// Rising.
    present: Vec<Ipv4>,
}

impl Room {
    /// Whether there is room for each of the EIPs: those that are there already stay.
    pub(super) fn admit(
        &self,
        wanted: impl Iterator<Item = Ipv4> + Clone,
    ) -> impl Iterator<Item = Result<(), NoIndex>> {
        let kept = wanted.clone().filter(|eip| self.is_present(*eip)).count();
        let mut room = usize::try_from(self.capacity).unwrap_or(usize::MAX).saturating_sub(kept);
        wanted.map(move |eip| {
            if !self.is_present(eip) {
                room = room.checked_sub(1).ok_or(NoIndex::Full { capacity: self.capacity })?;
            }
            Ok(())
        })
    }

    fn is_present(&self, eip: Ipv4) -> bool {
        self.present.binary_search(&eip).is_ok()
    }
}

/// The indexes in use by each kind of object: rising, and by whomever.
#[derive(Clone, Debug, Default)]
struct Used {
    ports: Vec<u32>,
    slots: Vec<u32>,
    subnets: Vec<u32>,
    hosts: Vec<u32>,
}

impl Used {
    fn of(contents: &Contents) -> Self {
        let of_addresses = contents.addresses.values().filter_map(|entry| match entry.kind {
            AddressKind::Gateway(subnet) | AddressKind::ExternalGateway(subnet) => Some(subnet),
            AddressKind::Fixed(_) | AddressKind::Vip(_) => None,
        });
        let of_objects = contents
            .ports
            .values()
            .map(|port| port.subnet)
            .chain(contents.members.values().map(|members| members.subnet));
        let of_subnets = contents.subnets.values().map(|entry| entry.subnet);
        // Neighbours are mostly in one subnet.
        let mut subnets: Vec<u32> = Vec::new();
        for subnet in of_addresses.chain(of_objects).chain(of_subnets) {
            if subnets.last() != Some(&subnet) {
                subnets.push(subnet);
            }
        }
        let of_members = contents.members.values().flat_map(|members| members.hosts).map(u32::from);
        let hosts = contents.hosts.keys().chain(contents.vteps.values()).copied();
        let hosts = hosts.chain(contents.ports.values().filter_map(host_of));
        Self {
            hosts: sorted(hosts.chain(of_members).filter(|index| *index != 0).collect()),
            ports: contents.ports.keys().copied().collect(),
            slots: contents.members.keys().copied().collect(),
            subnets: sorted(subnets),
        }
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
    /// By the VTEP.
    pub(super) hosts: Pool<Ipv4>,
}

impl Indexes {
    /// Reads the indexes off the tables.
    ///
    /// Ports and slots say themselves whose they are, so that one that was only half added or half removed is found too.
    pub fn of(contents: &Contents, capacity: &Capacity, resting: &Resting) -> Self {
        let Used { ports, slots, subnets, hosts } = Used::of(contents);
        let rest = |kind: &BTreeMap<u32, Instant>| (kind.keys().copied().collect(), resting.all);
        let gateways = contents.addresses.iter().filter_map(|(&place, entry)| match entry.kind {
            AddressKind::Gateway(subnet) | AddressKind::ExternalGateway(subnet) => Some((place, subnet)),
            AddressKind::Fixed(_) | AddressKind::Vip(_) => None,
        });
        Self {
            ports: Pool::new(
                "PORTS",
                (1, capacity.ports),
                contents.ports.iter().map(|(&index, port)| ((port.vni, port.mac.octets()), index)),
                ports,
                rest(&resting.kinds.ports),
            ),
            slots: Pool::new(
                "VIPS",
                (0, capacity.vips),
                contents.members.iter().map(|(&slot, members)| ((members.vni, members.address), slot)),
                slots,
                rest(&resting.kinds.slots),
            ),
            eips: Room { capacity: capacity.eips, present: contents.eips.keys().copied().collect() },
            subnets: Pool::new(
                "SUBNETS",
                (1, capacity.subnets),
                gateways,
                subnets,
                rest(&resting.kinds.subnets),
            ),
            hosts: Pool::new(
                "HOSTS",
                (1, capacity.hosts),
                contents.hosts.iter().map(|(&index, &vtep)| (vtep, index)),
                hosts,
                rest(&resting.kinds.hosts),
            ),
        }
    }
}

/// Freed indexes, each with the end of its rest.
#[derive(Clone, Debug, Default)]
struct Kinds {
    ports: BTreeMap<u32, Instant>,
    slots: BTreeMap<u32, Instant>,
    subnets: BTreeMap<u32, Instant>,
    hosts: BTreeMap<u32, Instant>,
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
    pub fn note(&mut self, before: &Indexes, after: &Contents, now: Instant) {
        let until = now + REST;
        let after = Used::of(after);
        let freed = |before: &[u32], after: &[u32]| -> Vec<(u32, Instant)> {
            let mut after = after.iter().copied().peekable();
            let gone = before.iter().copied().filter(|index| {
                while after.next_if(|used| used < index).is_some() {}
                after.peek() != Some(index)
            });
            gone.map(|index| (index, until)).collect()
        };
        self.kinds.ports.extend(freed(&before.ports.used, &after.ports));
        self.kinds.slots.extend(freed(&before.slots.used, &after.slots));
        self.kinds.subnets.extend(freed(&before.subnets.used, &after.subnets));
        self.kinds.hosts.extend(freed(&before.hosts.used, &after.hosts));
    }

    /// Forgets those whose rest is over.
    pub fn expire(&mut self, now: Instant) {
        if self.all_until.is_some_and(|until| until <= now) {
            self.all = false;
            self.all_until = None;
        }
        let Kinds { ports, slots, subnets, hosts } = &mut self.kinds;
        for kind in [ports, slots, subnets, hosts] {
            kind.retain(|_, until| *until > now);
        }
    }

    /// When the last rest ends; `None` if nothing rests.
    pub fn ends(&self) -> Option<Instant> {
        let Kinds { ports, slots, subnets, hosts } = &self.kinds;
        [ports, slots, subnets, hosts]
            .into_iter()
            .flat_map(BTreeMap::values)
            .copied()
            .chain(self.all_until)
            .max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(capacity: u32, assigned: &[(u32, u32)]) -> Pool<u32> {
        let used = assigned.iter().map(|(_, index)| *index).collect();
        Pool::new("TEST", (1, capacity), assigned.iter().copied(), used, (BTreeSet::new(), false))
    }

    fn assign(pool: &Pool<u32>, wanted: &[u32]) -> Vec<Result<u32, NoIndex>> {
        pool.assign(wanted.iter().copied())
    }

    #[test]
    fn objects_that_stay_keep_their_index_whatever_else_is_wanted() {
        let pool = pool(4, &[(70, 3), (80, 1)]);
        assert_eq!(assign(&pool, &[10, 70, 80]), [Ok(2), Ok(3), Ok(1)]);
    }

    #[test]
    fn a_full_table_refuses_the_new_ones_only() {
        let pool = pool(2, &[(70, 1)]);
        let full = Err(NoIndex::Full { capacity: 2 });
        assert_eq!(assign(&pool, &[10, 20, 70]), [Ok(2), full, Ok(1)]);
    }

    #[test]
    fn eips_that_are_there_stay_when_there_is_no_room_for_others() {
        let [old, new] = [[203, 0, 113, 1], [203, 0, 113, 0]].map(Ipv4::new);
        let room = Room { capacity: 1, present: vec![old] };
        let admitted: Vec<_> = room.admit([new, old].into_iter()).collect();
        assert_eq!(admitted, [Err(NoIndex::Full { capacity: 1 }), Ok(())]);
    }

    #[test]
    fn the_index_of_an_object_that_leaves_is_not_given_away_at_once() {
        let pool = pool(1, &[(70, 1)]);
        assert_eq!(assign(&pool, &[10]), [Err(NoIndex::Resting)]);
    }

    #[test]
    fn a_freed_index_rests_and_then_serves_again() {
        let start = Instant::now();
        let mut before = Contents::default();
        let members = vip_common::tables::Members { vni: 1, ..Default::default() };
        before.members.insert(0, members);
        let capacity = Capacity { ports: 1, vips: 1, eips: 1, subnets: 1, hosts: 1 };
        let mut resting = Resting::default();
        let before = Indexes::of(&before, &capacity, &resting);
        resting.note(&before, &Contents::default(), start);
        let give = |resting: &Resting| {
            Indexes::of(&Contents::default(), &capacity, resting)
                .slots
                .assign([(2, Ipv4::UNSPECIFIED)].into_iter())
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
        let capacity = Capacity { ports: 9, vips: 9, eips: 9, subnets: 9, hosts: 9 };
        let give = |resting: &Resting| {
            Indexes::of(&Contents::default(), &capacity, resting)
                .slots
                .assign([(2, Ipv4::UNSPECIFIED)].into_iter())
        };
        assert_eq!(give(&resting), [Err(NoIndex::Resting)]);
        resting.expire(start + REST);
        assert_eq!(give(&resting), [Ok(0)]);
    }
}
