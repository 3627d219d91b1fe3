//! Strategies for arbitrary worlds and tables.

use proptest::{array::uniform3, collection::vec, option, prelude::*, sample::select};
use vip_common::{
    engine::{MemoryTables, Slot},
    tables::{Grant, GrantKey, MacKey, OwnerEntry, OwnerWord, Rights, Target, VipEntry, VniAddress},
    wire::Ipv4,
};

use super::{
    PortSpec, VipSpec, World,
    overlay::Overlay,
    plan::{HOSTS, PORTS, SECOND, SLOTS, SUBNETS},
};

fn any_port() -> BoxedStrategy<PortSpec> {
    let rarely = prop::bool::weighted(0.15);
    (prop::bool::weighted(0.3), any::<bool>(), any::<bool>(), rarely, any::<bool>())
        .prop_map(|(bypass, bridged, takes_xdp, unplugged, eip)| PortSpec {
            bypass,
            bridged,
            takes_xdp,
            unplugged,
            eip,
        })
        .boxed()
}

fn any_vip() -> BoxedStrategy<VipSpec> {
    let rights = uniform3(prop_oneof![4 => Just(1), 2 => Just(2), 1 => Just(3), 1 => Just(0)]);
    let vrids = select(vec![vec![], vec![66], vec![67], vec![66, 67]]);
    let owner = (option::weighted(0.8, 0..3_usize), any::<bool>(), 0..1_u64 << 34, any::<bool>());
    let waiting = option::weighted(0.3, (0..3_usize, -3000..3000_i64));
    let damped = prop_oneof![3 => Just(0), 1 => 0..9 * SECOND];
    (rights, vrids, owner, waiting, damped, any::<bool>(), any::<bool>())
        .prop_map(|(rights, vrids, (owner, by_vrid, epoch, claimed), waiting, damped, eip, network)| {
            VipSpec { rights, vrids, owner, by_vrid, epoch, claimed, waiting, damped, eip, network }
        })
        .boxed()
}

/// Arbitrary consistent tables.
pub(crate) fn any_world() -> BoxedStrategy<World> {
    let switches = (any::<bool>(), any::<bool>(), any::<bool>());
    let host = (switches, prop::bool::weighted(0.8), 20 * SECOND..1_000_000 * SECOND);
    (
        any::<bool>(),
        vec(prop::bool::weighted(0.2), SUBNETS as usize),
        vec(any_port(), PORTS as usize),
        vec(option::weighted(0.8, any_vip()), SLOTS as usize),
        host,
    )
        .prop_map(|(peered, external, ports, vips, (switches, default_route, now))| {
            let (announces, returns, tcp_by_tc) = switches;
            World {
                peered,
                external,
                ports,
                vips,
                announces,
                returns,
                tcp_by_tc,
                default_route,
                now,
                overlay: None,
            }
        })
        .boxed()
}

/// Arbitrary consistent tables of one of several hosts. Claims do not wait: they do so on one host only.
pub(crate) fn any_overlay_world() -> BoxedStrategy<World> {
    (any_world(), vec(1..=HOSTS, PORTS as usize), any::<bool>())
        .prop_map(|(mut world, places, believed)| {
            for vip in world.vips.iter_mut().flatten() {
                vip.waiting = None;
            }
            world.overlay = Some(Overlay { places, believed, ..Overlay::default() });
            world
        })
        .boxed()
}

/// Arbitrary tables in the middle of a change: entries name ports and slots that are gone or belong to somebody else.
pub(crate) fn any_stale_tables() -> BoxedStrategy<MemoryTables> {
    let change = (0..7_u8, any::<prop::sample::Index>(), 0..=PORTS + 1, 0..=SLOTS);
    (any_world(), vec(change, 1..12))
        .prop_map(|(world, changes)| {
            let mut tables = world.tables();
            for (table, place, port, slot) in changes {
                make_stale(&mut tables, table, place, port, slot);
            }
            tables
        })
        .boxed()
}

fn make_stale(tables: &mut MemoryTables, table: u8, place: prop::sample::Index, port: u32, slot: u32) {
    match table {
        0 => {
            let mut keys: Vec<VniAddress> = tables.addresses.keys().copied().collect();
            keys.sort_unstable_by_key(|key| (key.vni, key.address));
            if let Some(target) = tables.addresses.get_mut(&keys[place.index(keys.len())]) {
                *target = if slot.is_multiple_of(2) { Target::vip(slot) } else { Target::port(port) };
            }
        }
        1 => {
            let mut keys: Vec<Ipv4> = tables.eips.keys().copied().collect();
            keys.sort_unstable();
            if keys.is_empty() {
                return;
            }
            if let Some(target) = tables.eips.get_mut(&keys[place.index(keys.len())]) {
                *target = if slot.is_multiple_of(2) { Target::vip(slot) } else { Target::port(port) };
            }
        }
        2 => {
            let word = OwnerWord::new(7, true, port, 0);
            if let Some(record) = tables.vips.get(&slot) {
                record.update(|entry| entry.word = word);
            } else {
                let owner = OwnerEntry { word, ..OwnerEntry::default() };
                tables.vips.insert(slot, Slot::new(slot, VipEntry::default(), owner));
            }
        }
        3 => {
            let rights = Rights::OWN.with(Rights::SOURCE);
            tables
                .grants
                .insert(GrantKey { port, slot }, Grant { rights, zero: [0; 3], vrids: [66, 0, 0, 0] });
        }
        4 => {
            let mut keys: Vec<MacKey> = tables.macs.keys().copied().collect();
            keys.sort_unstable_by_key(|key| (key.vni, key.mac.octets()));
            tables.macs.insert(keys[place.index(keys.len())], port);
        }
        5 => {
            tables.ports.remove(&port);
        }
        _ => {
            tables.vips.remove(&slot);
            tables.members.remove(&slot);
        }
    }
}
