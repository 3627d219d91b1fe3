//! Packets that are longer than the way between hosts is: told of, or cut, each part with headers of its own.

use vip_common::{
    DropReason, engine,
    engine::{FramePacket, MemoryTables, Outcome},
    pipeline::{self, Stage, Verdict},
    wire::{Ipv4, Mac, VRRP_GROUP},
};

use super::{Cluster, OUTER, Opened, Wrapped, opened, overlay, spread};
use crate::{
    frame::{ArpFrame, Ipv4Frame, Reading, tcp, udp, vrrp},
    world::{
        CLIENT, NEIGHBOUR_MAC, UPLINK, World, gateway, host_mac, ifindex, port_address, port_eip, port_mac,
        vip_address,
    },
};

/// Longest packet of a guest between hosts whose uplinks take 1500 bytes.
const MTU: u16 = 1450;

/// Without DF.
const MAY_BE_CUT: u16 = 0;

/// Port 1, who owns a VIP, is on the second host, port 4 on the third.
fn narrow() -> World {
    let mut world = spread(&[(1, 2), (4, 3)]);
    overlay(&mut world).mtu = MTU;
    world
}

/// A payload that makes the whole IP packet so long.
fn long(bytes: usize) -> (u8, Vec<u8>) {
    let data: Vec<u8> = (0..=250).cycle().take(bytes - 28).collect();
    udp(4000, 53, &data)
}

/// A packet of port 2 of so many bytes.
fn packet(to: Mac, destination: Ipv4, bytes: usize) -> Ipv4Frame {
    Ipv4Frame::new((port_mac(2), port_address(2)), (to, destination), long(bytes))
}

/// All ways of port 2 to receivers on other hosts.
fn ways() -> [(Mac, Ipv4); 3] {
    [
        (port_mac(1), port_address(1)),
        (Mac::of_address(vip_address(0)), vip_address(0)),
        (Mac::of_address(gateway(0)), port_address(4)),
    ]
}

fn guest(tables: &MemoryTables, frame: &Ipv4Frame) -> Outcome {
    engine::port(tables, ifindex(2), false, &frame.bytes())
}

#[test]
fn what_just_fits_goes_whole_and_fills_the_uplink() {
    let tables = narrow().tables();
    for (to, destination) in ways() {
        for fragment in [Ipv4Frame::DONT_FRAGMENT, MAY_BE_CUT] {
            let frame = Ipv4Frame { fragment, ..packet(to, destination, usize::from(MTU)) };
            let outcome = guest(&tables, &frame);
            assert_eq!(outcome.verdict, Verdict::Uplink { ifindex: UPLINK, mtu: 0 });
            assert_eq!(outcome.frame.len(), 14 + 1500);
        }
    }
}

#[test]
fn a_guest_that_wants_no_cutting_is_told_by_its_gateway_how_long_packets_to_other_hosts_may_be() {
    let tables = narrow().tables();
    for (to, destination) in ways() {
        let frame = packet(to, destination, usize::from(MTU) + 1);
        let outcome = guest(&tables, &frame);
        assert_eq!(outcome.verdict, Verdict::Tell { reason: DropReason::TooBig.index(), ifindex: 0 });
        let error = Reading::of(&outcome.frame).expect("a packet");
        assert_eq!((error.to, error.from), (port_mac(2), to), "from whom it had sent to");
        assert_eq!((error.source, error.destination), (gateway(0), port_address(2)));
        assert!(error.has_valid_header_checksum() && error.has_valid_transport_checksum() == Some(true));
        assert_eq!(error.payload[..2], [3, 4]);
        assert_eq!(error.payload[6..8], MTU.to_be_bytes());
        assert_eq!(error.payload[8..], frame.bytes()[14..14 + error.payload.len() - 8]);
    }
    assert!(tables.vip_traffic.borrow().is_empty(), "what went no further is no traffic");
}

#[test]
fn a_sender_outside_is_told_by_the_eip_how_long_packets_to_its_owners_host_may_be() {
    let tables = narrow().tables();
    let from = (NEIGHBOUR_MAC, CLIENT);
    for stage in [Stage::Xdp, Stage::Tc] {
        let frame = Ipv4Frame::new(from, (host_mac(1), port_eip(1)), long(usize::from(MTU) + 1));
        let outcome = engine::uplink(&tables, stage, &frame.bytes());
        assert_eq!(outcome.verdict, Verdict::Tell { reason: DropReason::TooBig.index(), ifindex: 0 });
        let error = Reading::of(&outcome.frame).expect("a packet");
        assert_eq!((error.source, error.destination), (port_eip(1), CLIENT));
        assert_eq!(error.payload[6..8], MTU.to_be_bytes());
    }
}

/// What parts of a datagram are when they arrive: the packet that they came from.
fn reassembled(parts: &[Vec<u8>]) -> (Vec<u8>, usize) {
    let mut payload = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        let packet = Reading::of(part).expect("a packet");
        assert!(packet.has_valid_header_checksum());
        assert_eq!(usize::from(packet.ip.fragments_offset().value()) * 8, payload.len());
        assert_eq!(packet.ip.more_fragments(), number + 1 < parts.len());
        assert!(!packet.ip.dont_fragment());
        assert!(packet.ip.total_len() <= MTU);
        payload.extend_from_slice(packet.payload);
    }
    let first = Reading::of(&parts[0]).expect("a packet");
    assert!(parts.iter().all(|part| {
        let packet = Reading::of(part).expect("a packet");
        (packet.ip.identification(), packet.ip.ttl(), packet.to, packet.from)
            == (first.ip.identification(), first.ip.ttl(), first.to, first.from)
    }));
    (payload, parts.len())
}

#[test]
fn what_may_be_cut_travels_in_parts_each_in_headers_of_its_own() {
    let cluster = Cluster::of(&narrow());
    for (to, destination) in ways() {
        for bytes in [usize::from(MTU) + 1, 3000, 9000] {
            let frame = Ipv4Frame { fragment: MAY_BE_CUT, ..packet(to, destination, bytes) };
            let outcome = guest(cluster.at(1), &frame);
            let host = if destination == port_address(4) { 3 } else { 2 };
            assert_eq!(outcome.verdict, Verdict::TunnelFragments { host, vni: 4001 });
            let parts = outcome.fragments();
            let mut source_ports: Vec<u16> = Vec::new();
            for part in &parts {
                assert!(part.len() <= 14 + 1500, "it fits the uplink");
                let is = opened(part, 1, host);
                assert_eq!(is.vni(), 4001);
                source_ports.push(is.source_port());
            }
            source_ports.dedup();
            assert_eq!(source_ports.len(), 1, "parts of a packet are one flow: {source_ports:?}");
            let arrived: Vec<_> = cluster
                .port(1, 2, &frame.bytes())
                .into_iter()
                .map(|end| {
                    assert!(matches!(end.outcome.verdict, Verdict::Deliver { .. }));
                    assert_eq!((end.host, end.hops), (host, 1));
                    end.outcome.frame
                })
                .collect();
            let (payload, count) = reassembled(&arrived);
            assert_eq!(count, parts.len());
            assert_eq!(payload, frame.bytes()[34..], "the same datagram");
        }
    }
}

#[test]
fn a_fragment_that_is_too_long_is_cut_into_parts_of_the_same_whole() {
    let cluster = Cluster::of(&narrow());
    // The middle of a datagram: behind 1600 bytes, and more follow.
    let middle =
        Ipv4Frame { fragment: 0x20c8, payload: vec![7; 1600], ..packet(port_mac(1), port_address(1), 1600) };
    let ends = cluster.port(1, 2, &middle.bytes());
    assert_eq!(ends.len(), 2);
    let mut at = 1600;
    for end in &ends {
        let part = Reading::of(&end.outcome.frame).expect("a packet");
        assert_eq!(usize::from(part.ip.fragments_offset().value()) * 8, at);
        assert!(part.ip.more_fragments());
        at += part.payload.len();
    }
    assert_eq!(at, 3200);
}

#[test]
fn all_fragments_of_a_guests_own_have_one_source_port() {
    let tables = narrow().tables();
    let (protocol, datagram) = udp(4000, 53, &[7; 2000]);
    let part = |fragment, bytes: &[u8]| Ipv4Frame {
        fragment,
        protocol,
        payload: bytes.to_vec(),
        ..packet(port_mac(1), port_address(1), 100)
    };
    let ports: Vec<u16> =
        [part(0x2000, &datagram[..800]), part(0x2064, &datagram[800..1600]), part(200, &datagram[1600..])]
            .iter()
            .map(|frame| opened(&guest(&tables, frame).frame, 1, 2).source_port())
            .collect();
    assert!(ports.iter().all(|port| *port == ports[0]), "{ports:?}");
}

#[test]
fn packets_to_an_eip_are_cut_on_their_way_to_another_host() {
    let cluster = Cluster::of(&narrow());
    let frame = Ipv4Frame {
        fragment: MAY_BE_CUT,
        ..Ipv4Frame::new((NEIGHBOUR_MAC, CLIENT), (host_mac(1), port_eip(1)), long(2000))
    };
    let left = engine::uplink(cluster.at(1), Stage::Xdp, &frame.bytes());
    assert_eq!((left.verdict, left.frame), (Verdict::LeaveToTc, frame.bytes()));
    let arrived: Vec<_> =
        cluster.uplink(1, &frame.bytes()).into_iter().map(|end| end.outcome.frame).collect();
    let (payload, count) = reassembled(&arrived);
    assert_eq!((payload.len(), count), (1980, 2));
    let first = Reading::of(&arrived[0]).expect("a packet");
    assert_eq!((first.destination, first.to, first.ip.ttl()), (port_address(1), port_mac(1), 63));
}

#[test]
fn padding_that_does_not_fit_behind_a_packet_stays_behind() {
    let tables = narrow().tables();
    let with_padding =
        |frame: Vec<u8>, length: usize| [frame.clone(), vec![0; length - frame.len()]].concat();
    for (to, destination) in ways() {
        let whole = packet(to, destination, 200).bytes();
        let alone = guest(&tables, &packet(to, destination, 200));
        let (_, alone) = super::sent(&alone, 1);
        // What fits, to the last byte, travels as it is.
        for (length, kept) in [(250, 250), (1464, 1464), (1465, 214), (1514, 214)] {
            let outcome = engine::port(&tables, ifindex(2), false, &with_padding(whole.clone(), length));
            let (host, frame) = super::sent(&outcome, 1);
            let is = opened(&frame, 1, host);
            assert_eq!((is.inner.len(), &is.inner[..214]), (kept, &alone[OUTER..]), "{destination} {length}");
        }
    }
    // By XDP too, and of ARP.
    let inbound = Ipv4Frame::new((NEIGHBOUR_MAC, CLIENT), (host_mac(1), port_eip(1)), long(200)).bytes();
    for stage in [Stage::Xdp, Stage::Tc] {
        let outcome = engine::uplink(&tables, stage, &with_padding(inbound.clone(), 1514));
        let (_, frame) = super::sent(&outcome, 1);
        assert_eq!(opened(&frame, 1, 2).inner.len(), 214, "{stage:?}");
    }
    let probe = ArpFrame::question((port_mac(2), Ipv4::UNSPECIFIED), vip_address(0)).bytes();
    let outcome = engine::port(&tables, ifindex(2), false, &with_padding(probe.clone(), 1514));
    let (_, frame) = super::sent(&outcome, 1);
    assert_eq!(opened(&frame, 1, 2).inner, probe);
}

#[test]
fn an_advertisement_that_does_not_fit_is_counted() {
    let tables = narrow().tables();
    let group = (Mac::new([1, 0, 0x5e, 0, 0, 18]), VRRP_GROUP);
    let advert = Ipv4Frame {
        ttl: 255,
        ..Ipv4Frame::new((port_mac(2), port_address(2)), group, vrrp(66, &[vip_address(0)]))
    };
    for (length, hosts) in [(1464, 1), (1465, 0)] {
        tables.drops.borrow_mut().clear();
        let mut frame = advert.bytes();
        frame.resize(length, 0);
        let outcome = engine::port(&tables, ifindex(2), false, &frame);
        assert_eq!((outcome.receivers, outcome.tunnelled.len()), (vec![ifindex(3)], hosts), "{length}");
        let counted = tables.drops.borrow().get(&DropReason::TooBig.index()).copied();
        assert_eq!(counted, (hosts == 0).then_some(1), "{length}");
    }
}

#[test]
fn large_packets_that_the_nic_cuts_go_whole_if_their_segments_fit() {
    let tables = narrow().tables();
    // Headers of 40 bytes and the segment, in 1450.
    for (gso_size, verdict) in [
        (1410, Verdict::Uplink { ifindex: UPLINK, mtu: 0 }),
        (1411, Verdict::Tell { reason: DropReason::TooBig.index(), ifindex: 0 }),
        (0xffff, Verdict::Uplink { ifindex: UPLINK, mtu: 0 }),
    ] {
        let frame = Ipv4Frame::new(
            (port_mac(2), port_address(2)),
            (port_mac(1), port_address(1)),
            tcp(4000, 80, &vec![7; 20_000]),
        );
        let mut packet = FramePacket::new(&frame.bytes());
        packet.set_ingress(ifindex(2));
        packet.set_gso_size(gso_size);
        assert_eq!(pipeline::port(&mut packet, &&tables), verdict, "{gso_size}");
        if matches!(verdict, Verdict::Uplink { .. }) {
            assert_eq!(packet.into_bytes()[OUTER..], frame.bytes(), "what is inside stays whole");
        }
    }
}

#[test]
fn large_packets_that_arrive_are_delivered_whole_whatever_the_length_outside_says() {
    let mut world = narrow();
    overlay(&mut world).here = 2;
    let mut tables = world.tables();
    tables.ports.get_mut(&1).expect("it is here").mtu = 1500;
    let inner = Ipv4Frame::new(
        (port_mac(2), port_address(2)),
        (port_mac(1), port_address(1)),
        tcp(4000, 80, &[7; 4000]),
    );
    let mut bytes = Wrapped::new(1, 2, 4001, inner.bytes()).bytes();
    // The length of one part, with a header checksum that nobody looks at.
    bytes[16..18].copy_from_slice(&1500_u16.to_be_bytes());
    let mut packet = FramePacket::new(&bytes);
    packet.set_ingress(UPLINK);
    packet.set_gso_size(1410);
    let verdict = pipeline::uplink(&mut packet, &&tables, Stage::Tc);
    assert_eq!(verdict, Verdict::Deliver { port: 1, ifindex: ifindex(1) });
    assert_eq!(packet.into_bytes(), inner.bytes());
    // Not cut by anybody, it is longer than the guest takes.
    let whole = Wrapped::new(1, 2, 4001, inner.bytes()).bytes();
    let outcome = engine::uplink(&tables, Stage::Tc, &whole);
    assert_eq!(outcome.verdict, Verdict::Drop(DropReason::TooBig.index()));
}

#[test]
fn parts_wait_for_nobody() {
    // The kernel finds MACs for whole packets only: without one that is known there is no way.
    let frame =
        Ipv4Frame { fragment: MAY_BE_CUT, ..packet(port_mac(1), port_address(1), usize::from(MTU) + 1) };
    let mut world = narrow();
    overlay(&mut world).believed = false;
    let outcome = guest(&world.tables(), &frame);
    assert_eq!(outcome.fragments().len(), 2, "with one that is old they go");
    for lost in [true, false] {
        let mut world = narrow();
        if lost {
            overlay(&mut world).lost = vec![2];
        } else {
            overlay(&mut world).strangers = vec![2];
        }
        let tables = world.tables();
        let outcome = guest(&tables, &frame);
        assert!(
            outcome.fragments().iter().all(|part| Opened::of(part).expect("VXLAN").outer.to != Mac::ZERO),
            "nobody has the MAC 0"
        );
        assert!(outcome.fragments().is_empty());
        assert_eq!(tables.drops.borrow().get(&DropReason::NoWayToHost.index()), Some(&1), "lost: {lost}");
    }
}

#[test]
fn what_no_kernel_can_cut_any_more_outside_its_tunnel_stays_in_it() {
    let tables = spread(&[(2, 2), (3, 3)]).tables();
    let refused = Verdict::Drop(DropReason::EditFailed.index());
    let to_third = Verdict::Uplink { ifindex: UPLINK, mtu: 0 };
    let to_first = Verdict::Deliver { port: 1, ifindex: ifindex(1) };
    let data = [7; 4000];
    for (payload, to, verdict) in [
        (tcp(4000, 80, &data), 1, to_first),
        (udp(4000, 80, &data), 1, refused),
        // There it is cut with the tunnel's headers.
        (udp(4000, 80, &data), 3, to_third),
    ] {
        let protocol = payload.0;
        let inner =
            Ipv4Frame::new((port_mac(2), port_address(2)), (port_mac(to), port_address(to)), payload).bytes();
        let outcome = |inner: Vec<u8>| {
            let mut packet = FramePacket::new(&Wrapped::new(2, 1, 4001, inner).bytes());
            packet.set_ingress(UPLINK);
            packet.set_gso_size(1200);
            pipeline::uplink(&mut packet, &&tables, Stage::Tc)
        };
        assert_eq!(outcome(inner.clone()), verdict, "protocol {protocol} to port {to}");
        // Several frames, one behind the other, each with VXLAN of its own.
        let merged = [inner.clone(), vec![8, 0, 0, 0, 0, 15, 161, 0], inner].concat();
        let verdict = if to == 1 { refused } else { to_third };
        assert_eq!(outcome(merged), verdict, "protocol {protocol} to port {to}, merged");
    }
}
