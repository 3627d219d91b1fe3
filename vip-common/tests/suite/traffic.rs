//! Counters of EIPs and VIPs: each forwarded frame once, in its direction, with all its bytes.

use proptest::prelude::*;
use vip_common::{
    engine::{self, MemoryTables},
    pipeline::{Stage, Verdict},
    tables::Traffic,
    wire::Ipv4,
};

use crate::{
    cases,
    frame::{outside_packet, whole_guest_packet},
    rules::is_eip,
    world::{SLOTS, any_world, ifindex, port_eip, subnet_of_slot, vip_address, vip_eip, vni_of},
};

const fn towards(bytes: u64) -> Traffic {
    Traffic { packets_in: 1, bytes_in: bytes, packets_out: 0, bytes_out: 0 }
}

const fn away(bytes: u64) -> Traffic {
    Traffic { packets_in: 0, bytes_in: 0, packets_out: 1, bytes_out: bytes }
}

fn of_eip(tables: &MemoryTables) -> Vec<(Ipv4, Traffic)> {
    tables.eip_traffic.borrow().iter().map(|(eip, traffic)| (*eip, *traffic)).collect()
}

fn of_vips(tables: &MemoryTables) -> Vec<(u32, Traffic)> {
    tables.vip_traffic.borrow().iter().map(|(slot, traffic)| (*slot, *traffic)).collect()
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn what_arrives_for_an_eip_is_counted_once(world in any_world(), packet in outside_packet()) {
        let (tables, bytes) = (world.tables(), packet.bytes());
        let outcome = engine::uplink(&tables, Stage::Tc, &bytes);
        let (mut eips, mut vips) = (Vec::new(), Vec::new());
        if let Verdict::Deliver { port, .. } = outcome.verdict {
            let counted = towards(bytes.len() as u64);
            if packet.destination == port_eip(port) {
                eips.push((port_eip(port), counted));
            } else if let Some(slot) = (0..SLOTS).find(|slot| vip_eip(*slot) == packet.destination) {
                eips.push((vip_eip(slot), counted));
                vips.push((slot, counted));
            }
        }
        prop_assert_eq!((of_eip(&tables), of_vips(&tables)), (eips, vips));
    }

    #[test]
    fn what_a_guest_sends_is_counted_once(world in any_world(), (port, packet) in whole_guest_packet()) {
        if is_eip(packet.destination) {
            return Ok(());
        }
        let (tables, bytes) = (world.tables(), packet.bytes());
        let outcome = engine::port(&tables, ifindex(port), false, &bytes);
        let vni = vni_of(crate::world::subnet_of_port(port));
        let source = world.slot_at(vni, packet.source).filter(|slot| world.may_source(port, *slot));
        let (out, length) = (away(bytes.len() as u64), bytes.len() as u64);
        let leaves = matches!(outcome.verdict, Verdict::Uplink { .. } | Verdict::Resolve { .. });
        let eips = if leaves { vec![(source.map_or(port_eip(port), vip_eip), out)] } else { Vec::new() };
        prop_assert_eq!(of_eip(&tables), eips);
        let is_forwarded = leaves || matches!(outcome.verdict, Verdict::Deliver { .. });
        for (slot, traffic) in of_vips(&tables) {
            prop_assert!(is_forwarded);
            let is_source = source == Some(slot);
            let is_target = packet.destination == vip_address(slot)
                && world.reaches(vni, vni_of(subnet_of_slot(slot)));
            prop_assert!(is_source || is_target, "VIP {} has no part in it", slot);
            prop_assert_eq!(traffic.packets_out, u64::from(is_source));
            prop_assert!(traffic.packets_in <= u64::from(is_target));
            prop_assert_eq!(traffic.bytes_out, traffic.packets_out * length);
            prop_assert_eq!(traffic.bytes_in, traffic.packets_in * length);
        }
        if let (true, Some(slot)) = (is_forwarded, source) {
            prop_assert!(of_vips(&tables).iter().any(|(counted, _)| *counted == slot));
        }
    }
}
