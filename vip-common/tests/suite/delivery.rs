//! Who receives what a guest sends: rules 5 and 6, in both directions. What the rules say is delivered, and nothing else is.

use proptest::prelude::*;
use vip_common::{
    DropReason, engine,
    pipeline::Verdict,
    wire::{Ipv4, Mac, Protocol},
};

use crate::{
    cases,
    frame::{Ipv4Frame, Reading, udp, whole_guest_packet},
    rules::{Speaker, Way, is_always_allowed, is_eip, owner_entry, receiver},
    world::{World, any_world, gateway, ifindex, port_address, port_mac, subnet_of_port, vip_address},
};

/// The MAC by which a port receives a packet: its own, or the virtual router MAC by which it owns a VIP.
fn receives_by(mac: Mac, port: u32) -> bool {
    mac == port_mac(port) || mac.vrid().is_some()
}

proptest! {
    #![proptest_config(cases(2500))]

    #[test]
    fn a_packet_reaches_whom_the_rules_name_and_nobody_else(
        world in any_world(),
        (port, packet) in whole_guest_packet(),
    ) {
        let speaker = Speaker::new(&world, port);
        if !speaker.may_use_mac(packet.from) || !speaker.may_send_from(packet.source) || is_eip(packet.destination) {
            return Ok(());
        }
        let (tables, bytes) = (world.tables(), packet.bytes());
        let outcome = engine::port(&tables, ifindex(port), false, &bytes);
        let before = Reading::of(&bytes).expect("a whole packet");
        // What the packet itself taught, or let happen, has happened before it was delivered.
        let expected = receiver(speaker, &before, |slot| owner_entry(&tables, slot).word.port());
        match expected {
            Some((to, _)) if world.port(to).unplugged => {
                prop_assert_eq!(outcome.verdict, Verdict::Drop(DropReason::NoInterface.index()));
            }
            Some((_, Way::Routed)) if packet.protocol == Protocol::VRRP => {
                prop_assert_eq!(outcome.verdict, Verdict::Drop(DropReason::VrrpRouted.index()));
            }
            Some((_, Way::Routed)) if packet.ttl <= 1 => {
                let reason = DropReason::TtlExpired.index();
                let ends = matches!(outcome.verdict, Verdict::Drop(drop) | Verdict::Tell { reason: drop, .. } if drop == reason);
                prop_assert!(ends, "{:?}", outcome.verdict);
            }
            Some((to, way)) => {
                prop_assert_eq!(outcome.verdict, Verdict::Deliver { port: to, ifindex: ifindex(to) });
                let after = Reading::of(&outcome.frame).expect("a whole packet");
                prop_assert!(receives_by(after.to, to));
                prop_assert_eq!((after.source, after.destination), (packet.source, packet.destination));
                match way {
                    Way::Switched => {
                        prop_assert_eq!(&outcome.frame[6..], &bytes[6..], "only the destination MAC changes");
                    }
                    Way::Routed => {
                        prop_assert_eq!(after.ip.ttl(), packet.ttl - 1, "one TTL in all");
                        prop_assert_eq!(after.from, Mac::of_address(gateway(subnet_of_port(to))));
                    }
                }
            }
            None => prop_assert!(
                !matches!(outcome.verdict, Verdict::Deliver { .. }),
                "nobody is to receive it, but {:?}",
                outcome.verdict
            ),
        }
    }

    #[test]
    fn what_is_always_allowed_is_never_ours(world in any_world(), (port, packet) in whole_guest_packet()) {
        let bytes = packet.bytes();
        let reading = Reading::of(&bytes).expect("a whole packet");
        if Speaker::new(&world, port).may_use_mac(packet.from) && is_always_allowed(&reading) {
            let verdict = engine::port(&world.tables(), ifindex(port), false, &bytes).verdict;
            prop_assert_eq!(verdict, Verdict::NotOurs);
        }
    }

    #[test]
    fn an_advertisement_goes_to_members_only(world in any_world(), (port, packet) in whole_guest_packet()) {
        let outcome = engine::port(&world.tables(), ifindex(port), false, &packet.bytes());
        if let Verdict::Members { slot, sender } = outcome.verdict {
            prop_assert_eq!(sender, port);
            prop_assert!(world.may_own(port, slot), "only a member's advertisement is passed on");
            prop_assert_eq!(packet.protocol, Protocol::VRRP);
            prop_assert_eq!(packet.ttl, 255);
            let mut expected: Vec<u32> = world
                .members(slot)
                .into_iter()
                .filter(|member| *member != port && !world.port(*member).unplugged)
                .map(ifindex)
                .collect();
            let mut receivers = outcome.receivers;
            receivers.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(receivers, expected);
        }
    }
}

/// A frame of `port` in the default world's first subnet.
fn sends(port: u32, to: Mac, destination: Ipv4) -> Vec<u8> {
    Ipv4Frame::new((port_mac(port), port_address(port)), (to, destination), udp(1, 2, b"x")).bytes()
}

#[test]
fn a_stale_cache_that_holds_a_vanished_former_owners_mac_still_reaches_the_vip() {
    let mut world = World::default();
    world.port_mut(2).unplugged = true;
    let outcome = engine::port(&world.tables(), ifindex(3), false, &sends(3, port_mac(2), vip_address(0)));
    assert_eq!(outcome.verdict, Verdict::Deliver { port: 1, ifindex: ifindex(1) });
}

#[test]
fn a_router_of_the_subnet_gets_frames_for_a_vanished_neighbour() {
    let mut world = World::default();
    world.port_mut(2).unplugged = true;
    world.port_mut(1).bypass = true;
    let outcome = engine::port(&world.tables(), ifindex(3), false, &sends(3, port_mac(1), port_address(2)));
    assert_eq!(outcome.verdict, Verdict::Deliver { port: 1, ifindex: ifindex(1) });
}

#[test]
fn the_owner_sends_to_a_real_server_by_its_mac_and_never_to_itself() {
    let mut world = World::default();
    world.vip_mut(0).rights = [1, 2, 0];
    let vip = vip_address(0);
    let verdict = |to| engine::port(&world.tables(), ifindex(1), false, &sends(1, to, vip)).verdict;
    assert_eq!(verdict(port_mac(2)), Verdict::Deliver { port: 2, ifindex: ifindex(2) });
    assert_eq!(verdict(port_mac(1)), Verdict::Drop(DropReason::OwnerLoop.index()));
    assert_eq!(verdict(Mac::of_address(vip)), Verdict::Drop(DropReason::OwnerLoop.index()));
    assert_eq!(verdict(port_mac(3)), Verdict::Drop(DropReason::DestinationNotOwn.index()));
}

#[test]
fn an_unowned_vip_receives_nothing() {
    let mut world = World::default();
    world.vip_mut(0).owner = None;
    let frame = sends(3, Mac::of_address(vip_address(0)), vip_address(0));
    // Port 3 sends from its fixed address, which teaches nothing.
    let tables = world.tables();
    let outcome = engine::port(&tables, ifindex(3), false, &frame);
    assert_eq!(outcome.verdict, Verdict::Drop(DropReason::Unowned.index()));
    assert_eq!(owner_entry(&tables, 0).word.port(), 0);
}
