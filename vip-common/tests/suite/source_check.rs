//! What a guest may say that it is: rule 6 on the way out.

use proptest::prelude::*;
use vip_common::{
    DropReason, engine,
    pipeline::Verdict,
    wire::{Ipv4, Mac},
};

use crate::{
    cases,
    frame::{ArpFrame, Ipv4Frame, Reading, guest_frame, udp, whole_guest_packet},
    rules::{ArpReading, Speaker, is_always_allowed, owner_entry},
    world::{self, CLIENT, World, any_world, gateway, ifindex, port_address, port_mac, vip_address},
};

/// Whether somebody sees the frame, or what became of it.
fn is_seen(verdict: Verdict) -> bool {
    !matches!(verdict, Verdict::Drop(_) | Verdict::Consumed)
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn nobody_sees_a_frame_from_a_foreign_mac(world in any_world(), guest in guest_frame()) {
        let outcome = engine::port(&world.tables(), ifindex(guest.port), guest.tagged, &guest.bytes.0);
        if is_seen(outcome.verdict) {
            let source: [u8; 6] = guest.bytes.0[6..12].try_into().expect("six bytes");
            prop_assert!(Speaker::new(&world, guest.port).may_use_mac(Mac::new(source)));
        }
    }

    #[test]
    fn nobody_sees_a_packet_from_a_foreign_address(world in any_world(), guest in guest_frame()) {
        let tables = world.tables();
        let outcome = engine::port(&tables, ifindex(guest.port), false, &guest.bytes.0);
        if let Some(packet) = Reading::of(&guest.bytes.0)
            && is_seen(outcome.verdict)
        {
            let speaker = Speaker::new(&world, guest.port);
            // The owner of a VIP hands a client's packet on to a real server, as LVS-DR does (rule 5).
            let slot = world.slot_at(speaker.vni(), packet.destination);
            let is_director = slot.is_some_and(|slot| owner_entry(&tables, slot).word.port() == guest.port);
            let to_real_server = match (outcome.verdict, slot) {
                (Verdict::Deliver { port, .. }, Some(slot)) => {
                    world.may_source(port, slot) || world.may_own(port, slot) || world.port(port).bypass
                }
                _ => false,
            };
            prop_assert!(
                is_always_allowed(&packet)
                    || speaker.may_send_from(packet.source)
                    || is_director && to_real_server
            );
        }
    }

    #[test]
    fn a_packet_leaves_the_host_as_its_own_eip_only(world in any_world(), (port, packet) in whole_guest_packet()) {
        let outcome = engine::port(&world.tables(), ifindex(port), false, &packet.bytes());
        if matches!(outcome.verdict, Verdict::Uplink { .. } | Verdict::Resolve { .. }) {
            let speaker = Speaker::new(&world, port);
            prop_assert!(speaker.owns_address(packet.source), "a bypass port never leaves as somebody's EIP");
            let eip = match world.slot_at(speaker.vni(), packet.source) {
                Some(slot) => world::vip_eip(slot),
                None => world::port_eip(port),
            };
            let after = Reading::of(&outcome.frame).expect("a whole packet");
            prop_assert_eq!((after.source, after.destination), (eip, packet.destination));
            prop_assert_eq!(after.ip.ttl(), packet.ttl - 1);
        }
    }

    #[test]
    fn nobody_hears_a_guest_say_in_arp_that_it_is_somebody_else(world in any_world(), guest in guest_frame()) {
        let outcome = engine::port(&world.tables(), ifindex(guest.port), false, &guest.bytes.0);
        if let Some(arp) = ArpReading::of(&guest.bytes.0)
            && is_seen(outcome.verdict)
        {
            let speaker = Speaker::new(&world, guest.port);
            prop_assert!(speaker.may_speak_as(arp.sender), "{:?} was {:?}", arp, outcome.verdict);
            prop_assert!(speaker.may_use_mac(arp.sender_mac));
        }
    }
}

/// Verdict of the default world, changed, about a frame of port 2.
fn verdict_of(change: impl FnOnce(&mut World), frame: &[u8]) -> Verdict {
    let mut world = World::default();
    change(&mut world);
    engine::port(&world.tables(), ifindex(2), false, frame).verdict
}

fn packet_from(mac: Mac, source: Ipv4) -> Vec<u8> {
    Ipv4Frame::new((mac, source), (port_mac(3), port_address(3)), udp(1, 2, b"x")).bytes()
}

fn drop(reason: DropReason) -> Verdict {
    Verdict::Drop(reason.index())
}

#[test]
fn a_foreign_mac_is_refused_even_with_bypass() {
    let frame = packet_from(port_mac(1), port_address(2));
    assert_eq!(verdict_of(|_| (), &frame), drop(DropReason::SourceMac));
    assert_eq!(verdict_of(|world| world.port_mut(2).bypass = true, &frame), drop(DropReason::SourceMac));
}

#[test]
fn a_foreign_address_is_refused_unless_the_check_is_off() {
    let frame = packet_from(port_mac(2), CLIENT);
    assert_eq!(verdict_of(|_| (), &frame), drop(DropReason::SourceAddress));
    assert_eq!(
        verdict_of(|world| world.port_mut(2).bypass = true, &frame),
        Verdict::Deliver { port: 3, ifindex: ifindex(3) }
    );
}

#[test]
fn a_vip_is_a_source_for_members_and_real_servers_only() {
    let frame = packet_from(port_mac(2), vip_address(0));
    let delivered = Verdict::Deliver { port: 3, ifindex: ifindex(3) };
    let with_rights = |rights| verdict_of(|world| world.vip_mut(0).rights = rights, &frame);
    assert_eq!(with_rights([1, 1, 1]), delivered);
    assert_eq!(with_rights([1, 2, 1]), delivered);
    assert_eq!(with_rights([1, 0, 1]), drop(DropReason::SourceAddress));
}

#[test]
fn a_dhcp_client_may_ask_and_only_a_bypass_port_may_serve() {
    let ask = Ipv4Frame::new(
        (port_mac(2), Ipv4::UNSPECIFIED),
        (Mac::BROADCAST, Ipv4::BROADCAST),
        udp(68, 67, &[1; 240]),
    );
    assert_eq!(verdict_of(|_| (), &ask.bytes()), Verdict::NotOurs);
    let serve = Ipv4Frame::new(
        (port_mac(2), port_address(2)),
        (Mac::BROADCAST, Ipv4::BROADCAST),
        udp(67, 68, &[2; 240]),
    );
    assert_eq!(verdict_of(|_| (), &serve.bytes()), drop(DropReason::DhcpServer));
    assert_eq!(verdict_of(|world| world.port_mut(2).bypass = true, &serve.bytes()), Verdict::NotOurs);
}

#[test]
fn a_tag_hides_no_foreign_mac() {
    let world = World::default();
    let frame = packet_from(port_mac(1), port_address(2));
    let outcome = engine::port(&world.tables(), ifindex(2), true, &frame);
    assert_eq!(outcome.verdict, drop(DropReason::SourceMac));
}

#[test]
fn arp_poison_is_refused_by_name_even_with_bypass() {
    let garp = |address| ArpFrame::garp(port_mac(2), address).bytes();
    for bypass in [false, true] {
        let verdict = |frame: &[u8]| {
            verdict_of(
                |world| {
                    world.port_mut(2).bypass = bypass;
                    world.vip_mut(0).rights = [1, 2, 1];
                },
                frame,
            )
        };
        assert_eq!(verdict(&garp(gateway(0))), drop(DropReason::ArpGateway));
        assert_eq!(verdict(&garp(port_address(1))), drop(DropReason::ArpFixedAddress));
        assert_eq!(verdict(&garp(vip_address(0))), drop(DropReason::ClaimNotMember));
        let foreign_mac = ArpFrame {
            sender: (port_mac(1), port_address(2)),
            ..ArpFrame::garp(port_mac(2), port_address(2))
        };
        assert_eq!(verdict(&foreign_mac.bytes()), drop(DropReason::ArpSenderMac));
    }
    let foreign = garp(world::UNLISTED);
    assert_eq!(verdict_of(|_| (), &foreign), drop(DropReason::ArpForeignSender));
    assert_eq!(verdict_of(|world| world.port_mut(2).bypass = true, &foreign), Verdict::NotOurs);
}
