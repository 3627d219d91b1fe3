//! A frame of one tenant never reaches another one, also while the agent changes the tables.

use proptest::prelude::*;
use vip_common::{
    engine::{self, MemoryTables},
    pipeline::{Stage, Verdict},
    tables::{AddressKind, VniAddress},
    wire::Ipv4,
};

use crate::{
    cases,
    frame::{Reading, guest_frame, outside_frame},
    world::{SLOTS, World, any_stale_tables, any_world, ifindex, port_eip, subnet_of_port, vip_eip, vni_of},
};

fn vni_of_interface(tables: &MemoryTables, interface: u32) -> Option<u32> {
    tables.ports.values().find(|port| port.ifindex == interface).map(|port| port.vni)
}

/// Whether an address is an EIP of the port, or of a VIP that it may own.
fn leads_to(world: &World, address: Ipv4, port: u32) -> bool {
    address == port_eip(port) && world.port(port).eip
        || (0..SLOTS).any(|slot| address == vip_eip(slot) && world.may_own(port, slot))
}

/// The VPC of what an EIP leads to, whether the agent is done with it or not.
fn vni_behind(tables: &MemoryTables, eip: Ipv4) -> Option<u32> {
    match tables.eips.get(&eip).and_then(|target| target.kind()) {
        Some(AddressKind::Vip(slot)) => tables.vips.get(&slot).map(|vip| vip.vip().vni),
        Some(AddressKind::Fixed(port)) => tables.ports.get(&port).map(|port| port.vni),
        _ => None,
    }
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn a_guest_reaches_its_own_vpc_and_peers_only(world in any_world(), guest in guest_frame()) {
        let from = vni_of(subnet_of_port(guest.port));
        let tables = world.tables();
        let outcome = engine::port(&tables, ifindex(guest.port), guest.tagged, &guest.bytes.0);
        if let Verdict::Deliver { port, ifindex: interface } = outcome.verdict {
            prop_assert_eq!(interface, ifindex(port));
            let destination = Reading::of(&guest.bytes.0).map(|packet| packet.destination);
            let by_eip = destination.is_some_and(|address| leads_to(&world, address, port));
            prop_assert!(by_eip || world.reaches(from, vni_of(subnet_of_port(port))));
        }
        for receiver in outcome.receivers {
            prop_assert_eq!(vni_of_interface(&tables, receiver), Some(from));
        }
    }

    #[test]
    fn a_packet_from_outside_reaches_the_tenant_of_the_eip_only(world in any_world(), frame in outside_frame()) {
        let outcome = engine::uplink(&world.tables(), Stage::Tc, &frame.0);
        if let Verdict::Deliver { port, .. } = outcome.verdict {
            let eip = Reading::of(&frame.0).expect("only packets are delivered").destination;
            prop_assert!(leads_to(&world, eip, port), "{} is not port {}'s", eip, port);
        }
    }

    #[test]
    fn a_stale_index_never_delivers_to_another_tenant(tables in any_stale_tables(), guest in guest_frame()) {
        let from = vni_of(subnet_of_port(guest.port));
        let outcome = engine::port(&tables, ifindex(guest.port), guest.tagged, &guest.bytes.0);
        if let Verdict::Deliver { ifindex: interface, .. } = outcome.verdict {
            let to = vni_of_interface(&tables, interface);
            let destination = Reading::of(&guest.bytes.0).map(|packet| packet.destination);
            let peer = destination.and_then(|address| {
                let key = VniAddress { vni: from, address };
                vip_common::pipeline::Tables::subnet(&&tables, &key).map(|entry| entry.vni)
            });
            let by_eip = destination.and_then(|address| vni_behind(&tables, address));
            prop_assert!(to == Some(from) || to == peer || to == by_eip, "from {} to {:?}", from, to);
        }
        for receiver in outcome.receivers {
            prop_assert_eq!(vni_of_interface(&tables, receiver), Some(from));
        }
    }

    #[test]
    fn a_stale_eip_never_delivers_to_another_tenant(tables in any_stale_tables(), frame in outside_frame()) {
        let outcome = engine::uplink(&tables, Stage::Tc, &frame.0);
        if let Verdict::Deliver { ifindex: interface, .. } = outcome.verdict {
            let eip = Reading::of(&frame.0).expect("only packets are delivered").destination;
            prop_assert_eq!(vni_of_interface(&tables, interface), vni_behind(&tables, eip));
        }
    }
}
