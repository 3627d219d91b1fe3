//! No frame and no content of the tables makes the pipeline panic.

use proptest::prelude::*;
use vip_common::{
    engine::{self, MemoryTables},
    pipeline::Stage,
    wire::Mac,
};

use crate::{
    cases,
    frame::{Ipv4Frame, guest_frame, icmp, outside_frame, tcp, udp, vrrp, whole_guest_packet},
    world::{self, CLIENT, NEIGHBOUR_MAC, UPLINK_MAC, World, any_stale_tables, any_world, ifindex},
};

fn run_everywhere(tables: &MemoryTables, port: u32, frame: &[u8]) {
    let _ = engine::port(tables, ifindex(port), false, frame);
    let _ = engine::uplink(tables, Stage::Xdp, frame);
    let _ = engine::uplink(tables, Stage::Tc, frame);
}

proptest! {
    #![proptest_config(cases(800))]

    #[test]
    fn any_frame_in_any_world_gets_a_verdict(
        world in any_world(),
        guest in guest_frame(),
        outside in outside_frame(),
    ) {
        let tables = world.tables();
        run_everywhere(&tables, guest.port, &guest.bytes.0);
        run_everywhere(&tables, guest.port, &outside.0);
    }

    #[test]
    fn stale_entries_do_no_harm(tables in any_stale_tables(), guest in guest_frame(), outside in outside_frame()) {
        run_everywhere(&tables, guest.port, &guest.bytes.0);
        run_everywhere(&tables, guest.port, &outside.0);
    }

    #[test]
    fn empty_tables_make_no_frame_ours(guest in guest_frame()) {
        let outcome = engine::port(&MemoryTables::default(), ifindex(guest.port), guest.tagged, &guest.bytes.0);
        prop_assert_eq!(outcome.verdict, vip_common::pipeline::Verdict::NotOurs);
        prop_assert_eq!(outcome.frame, guest.bytes.0);
    }
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn a_frame_may_end_anywhere(world in any_world(), (port, packet) in whole_guest_packet()) {
        let tables = world.tables();
        let bytes = packet.bytes();
        for length in 0..bytes.len() {
            run_everywhere(&tables, port, &bytes[..length]);
        }
    }
}

/// A length of the IPv4 header that does not fit what follows, at every boundary of every header.
#[test]
fn no_combination_of_lengths_panics() {
    let world = World::default();
    let tables = world.tables();
    let vip = world::vip_address(0);
    for payload in [udp(1, 2, &[0; 3]), tcp(1, 2, &[]), icmp(8, &[]), vrrp(66, &[vip, vip])] {
        let from = (world::port_mac(2), world::port_address(2));
        let guest = Ipv4Frame::new(from, (Mac::of_address(world::gateway(0)), CLIENT), payload.clone());
        let outside = Ipv4Frame::new((NEIGHBOUR_MAC, CLIENT), (UPLINK_MAC, world::vip_eip(0)), payload);
        for bytes in [guest.bytes(), outside.bytes()] {
            for version_and_length in [0x40_u8, 0x44, 0x45, 0x46, 0x4f, 0x55, 0x05] {
                for total_length in 0..=u8::try_from(bytes.len()).expect("a short frame") {
                    let mut bent = bytes.clone();
                    bent[14] = version_and_length;
                    bent[16..18].copy_from_slice(&u16::from(total_length).to_be_bytes());
                    run_everywhere(&tables, 2, &bent);
                }
            }
        }
    }
}
