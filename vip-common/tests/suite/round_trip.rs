//! Out undoes in: what a guest sends back as the mirror of what it received arrives outside as if there were no translation.

use proptest::prelude::*;
use vip_common::{
    engine,
    pipeline::{Stage, Verdict},
    wire::Mac,
};

use crate::{
    cases,
    frame::{Ipv4Frame, Reading, outside_packet, word},
    rules::{is_always_allowed, owner_entry},
    world::{
        CLIENT, HOST_ADDRESS, NEIGHBOUR, NEIGHBOUR_MAC, UPLINK, UPLINK_MAC, World, any_world, gateway,
        ifindex, port_eip, port_mac, subnet_of_port, vip_address, vip_eip,
    },
};

/// The frame with both addresses and both MACs exchanged: every checksum stays right, or wrong, as it is.
fn mirrored(frame: &[u8]) -> Vec<u8> {
    let mut mirror = frame.to_vec();
    mirror[..6].copy_from_slice(&frame[6..12]);
    mirror[6..12].copy_from_slice(&frame[..6]);
    mirror[26..30].copy_from_slice(&frame[30..34]);
    mirror[30..34].copy_from_slice(&frame[26..30]);
    mirror
}

fn check_round_trip(world: &World, frame: &[u8]) -> Result<(), TestCaseError> {
    let tables = world.tables();
    let inside = engine::uplink(&tables, Stage::Tc, frame);
    let Verdict::Deliver { port, .. } = inside.verdict else { return Ok(()) };
    let (before, received) =
        (Reading::of(frame).expect("a whole packet"), Reading::of(&inside.frame).expect("a whole packet"));
    prop_assert_eq!(received.ip.ttl(), before.ip.ttl() - 1, "one TTL in all");
    prop_assert_eq!(received.from, Mac::of_address(gateway(subnet_of_port(port))));
    prop_assert_eq!(received.source, before.source);
    // IGMP is always allowed from a guest, and never ours.
    if received.ip.ttl() < 2 || is_always_allowed(&received) || world.is_external(subnet_of_port(port)) {
        return Ok(());
    }
    let outside = engine::port(&tables, ifindex(port), false, &mirrored(&inside.frame));
    match outside.verdict {
        Verdict::Uplink { ifindex: uplink, mtu: 0 } => prop_assert_eq!(uplink, UPLINK),
        Verdict::Resolve { next_hop, .. } => prop_assert_eq!(next_hop, before.source),
        // Not routed for want of a route, or a server's answer that looks like DHCP's.
        Verdict::Drop(_) => return Ok(()),
        other => prop_assert!(false, "{:?}", other),
    }
    let returned = mirrored(&outside.frame);
    let (start, field) = (before.start, before.checksum_at());
    for (at, (then, now)) in frame.iter().zip(&returned).enumerate() {
        let mended = at < 12
            || at == 22
            || (24..26).contains(&at)
            || field.is_some_and(|field| (field..field + 2).contains(&at));
        prop_assert!(then == now || mended, "byte {} of a packet with its payload at {}", at, start);
    }
    let returned = Reading::of(&returned).expect("a whole packet");
    prop_assert_eq!(returned.ip.ttl(), before.ip.ttl() - 2);
    prop_assert_eq!(returned.has_valid_header_checksum(), before.has_valid_header_checksum());
    prop_assert_eq!(returned.has_valid_transport_checksum(), before.has_valid_transport_checksum());
    if let Some(field) = field.map(|field| field - start) {
        let (then, now) = (word(before.payload, field), word(returned.payload, field));
        prop_assert_eq!(then % 0xffff, now % 0xffff, "0 and 0xffff are one number in one's complement");
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn out_undoes_in(world in any_world(), packet in outside_packet()) {
        check_round_trip(&world, &packet.bytes())?;
    }

    #[test]
    fn corruption_is_carried_through_and_never_laundered(
        world in any_world(),
        packet in outside_packet(),
        at in any::<prop::sample::Index>(),
        flip in 1..=255_u8,
    ) {
        let mut frame = packet.bytes();
        // The transport's bytes and the header's checksum, not what the way depends on.
        let start = Reading::of(&frame).expect("a whole packet").start;
        let places: Vec<usize> = (24..26).chain(start..frame.len()).collect();
        frame[places[at.index(places.len())]] ^= flip;
        check_round_trip(&world, &frame)?;
    }

    #[test]
    fn a_packet_to_an_eip_reaches_whom_it_is_bound_to(world in any_world(), packet in outside_packet()) {
        let tables = world.tables();
        let outcome = engine::uplink(&tables, Stage::Tc, &packet.bytes());
        if let Verdict::Deliver { port, ifindex: interface } = outcome.verdict {
            prop_assert_eq!(packet.to, UPLINK_MAC);
            prop_assert_eq!(interface, ifindex(port));
            let received = Reading::of(&outcome.frame).expect("a whole packet");
            if packet.destination == port_eip(port) {
                prop_assert_eq!(received.destination, crate::world::port_address(port));
                prop_assert_eq!(received.to, port_mac(port));
            } else {
                let slot = (0..crate::world::SLOTS).find(|slot| vip_eip(*slot) == packet.destination);
                let slot = slot.expect("EIPs are of ports and VIPs");
                prop_assert_eq!(received.destination, vip_address(slot));
                let word = owner_entry(&tables, slot).word;
                prop_assert_eq!(word.port(), port);
                let mac = if word.vrid() == 0 { port_mac(port) } else { Mac::of_vrid(word.vrid()) };
                prop_assert_eq!(received.to, mac);
            }
        }
    }
}

/// Both ways of the default world's VIP 0, for a client behind the router and for one on the uplink itself.
#[test]
fn tcp_udp_and_echo_pass_both_ways() {
    let world = World::default();
    for source in [CLIENT, NEIGHBOUR] {
        for payload in [
            crate::frame::tcp(40_000, 80, b"GET /"),
            crate::frame::udp(40_000, 53, b"question"),
            crate::frame::icmp(8, b"0123456789"),
            (47, vec![0; 12]),
        ] {
            let tables = world.tables();
            let packet = Ipv4Frame::new((NEIGHBOUR_MAC, source), (UPLINK_MAC, vip_eip(0)), payload);
            let inside = engine::uplink(&tables, Stage::Xdp, &packet.bytes());
            assert_eq!(inside.verdict, Verdict::Deliver { port: 1, ifindex: ifindex(1) });
            let outside = engine::port(&tables, ifindex(1), false, &mirrored(&inside.frame));
            let expected = if source == CLIENT {
                Verdict::Uplink { ifindex: UPLINK, mtu: 0 }
            } else {
                Verdict::Resolve { next_hop: NEIGHBOUR, network: 0 }
            };
            assert_eq!(outside.verdict, expected);
            let sent = Reading::of(&outside.frame).expect("a whole packet");
            assert_eq!((sent.source, sent.destination), (vip_eip(0), source));
            assert_eq!(sent.from, UPLINK_MAC);
            assert_eq!(sent.to, if source == CLIENT { NEIGHBOUR_MAC } else { Mac::ZERO });
            assert!(sent.has_valid_header_checksum());
            assert_ne!(sent.has_valid_transport_checksum(), Some(false));
        }
    }
}

#[test]
fn the_hosts_own_traffic_is_not_ours() {
    let tables = World::default().tables();
    let packet = Ipv4Frame::new(
        (NEIGHBOUR_MAC, CLIENT),
        (UPLINK_MAC, HOST_ADDRESS),
        crate::frame::tcp(40_000, 22, b"ssh"),
    );
    for stage in [Stage::Xdp, Stage::Tc] {
        let outcome = engine::uplink(&tables, stage, &packet.bytes());
        assert_eq!((outcome.verdict, outcome.frame), (Verdict::NotOurs, packet.bytes()));
    }
}
