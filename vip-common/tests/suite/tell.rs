//! Packets that live too short or are too long: who is told what, from which address, and what is cut instead.

use vip_common::{
    DropReason,
    engine::{self, FramePacket, MemoryTables, Outcome},
    pipeline::{self, Stage, Verdict},
    tables::ConfigFlags,
    wire::{Ipv4, Mac},
};

use crate::{
    frame::{Ipv4Frame, Reading, icmp, tcp, udp},
    world::{
        CLIENT, NEIGHBOUR_MAC, UPLINK, UPLINK_MAC, World, gateway, ifindex, port_address, port_eip, port_mac,
        vip_eip, world,
    },
};

const EXPIRED: u32 = DropReason::TtlExpired.index();
const TOO_BIG: u32 = DropReason::TooBig.index();

/// Without DF.
const MAY_BE_CUT: u16 = 0;

/// From outside to an EIP.
fn inbound(eip: Ipv4) -> Ipv4Frame {
    Ipv4Frame::new((NEIGHBOUR_MAC, CLIENT), (UPLINK_MAC, eip), udp(4000, 53, b"question"))
}

/// From the guest of port 2 through its gateway.
fn routed(destination: Ipv4) -> Ipv4Frame {
    Ipv4Frame::new(
        (port_mac(2), port_address(2)),
        (Mac::of_address(gateway(0)), destination),
        tcp(4000, 80, b"GET"),
    )
}

fn guest(tables: &MemoryTables, frame: &Ipv4Frame) -> Outcome {
    engine::port(tables, ifindex(2), false, &frame.bytes())
}

fn told(reason: u32) -> Verdict {
    Verdict::Tell { reason, ifindex: 0 }
}

/// Type, code and the word behind the checksum of the error that the frame has become, which quotes `about`.
fn error_of(outcome: &Outcome, from: Ipv4, about: &[u8]) -> (u8, u8, u16) {
    let error = Reading::of(&outcome.frame).expect("a whole packet");
    assert!(error.has_valid_header_checksum() && error.has_valid_transport_checksum() == Some(true));
    assert_eq!((error.source, u8::from(error.ip.protocol())), (from, 1));
    assert_eq!(error.ip.ttl(), 64);
    assert_eq!(
        error.payload[8..],
        about[14..about.len().min(14 + 548)],
        "the quote is the packet as it came"
    );
    (error.payload[0], error.payload[1], u16::from_be_bytes([error.payload[6], error.payload[7]]))
}

fn with_mtus(change: impl FnOnce(&mut World)) -> MemoryTables {
    let mut tables = world(change);
    if let Some(config) = &mut tables.config {
        config.uplink_mtu = 1500;
    }
    for port in tables.ports.values_mut() {
        port.mtu = 1400;
    }
    tables
}

/// A payload that makes the whole IP packet so long.
fn long(bytes: usize) -> (u8, Vec<u8>) {
    let data: Vec<u8> = (0..=250).cycle().take(bytes - 28).collect();
    udp(4000, 53, &data)
}

#[test]
fn a_guest_whose_packet_lives_too_short_is_told_by_its_gateway() {
    let tables = world(|world| world.peered = true);
    for destination in [CLIENT, port_address(4), port_address(13)] {
        for ttl in [0, 1] {
            let frame = Ipv4Frame { ttl, ..routed(destination) };
            let outcome = guest(&tables, &frame);
            assert_eq!(outcome.verdict, told(EXPIRED));
            assert_eq!(error_of(&outcome, gateway(0), &frame.bytes()), (11, 0, 0));
            let error = Reading::of(&outcome.frame).expect("a whole packet");
            assert_eq!((error.to, error.from), (port_mac(2), Mac::of_address(gateway(0))));
            assert_eq!(error.destination, port_address(2));
        }
    }
}

#[test]
fn a_sender_outside_is_told_by_the_eip() {
    for stage in [Stage::Xdp, Stage::Tc] {
        for eip in [vip_eip(0), port_eip(2)] {
            let frame = Ipv4Frame { ttl: 1, ..inbound(eip) }.bytes();
            let outcome = engine::uplink(&world(|_| ()), stage, &frame);
            assert_eq!(outcome.verdict, told(EXPIRED));
            assert_eq!(error_of(&outcome, eip, &frame), (11, 0, 0));
            let error = Reading::of(&outcome.frame).expect("a whole packet");
            assert_eq!((error.to, error.from, error.destination), (NEIGHBOUR_MAC, UPLINK_MAC, CLIENT));
        }
    }
}

#[test]
fn tc_tells_where_the_uplink_does_not_send_what_xdp_returns() {
    let mut tables = world(|_| ());
    if let Some(config) = &mut tables.config {
        config.flags = ConfigFlags::ANNOUNCE_EIPS;
    }
    let frame = Ipv4Frame { ttl: 1, ..inbound(vip_eip(0)) }.bytes();
    assert_eq!(engine::uplink(&tables, Stage::Xdp, &frame).verdict, Verdict::LeaveToTc);
    assert!(tables.drops.borrow().is_empty(), "who decides counts");
    assert_eq!(engine::uplink(&tables, Stage::Tc, &frame).verdict, told(EXPIRED));
    assert_eq!(tables.drops.borrow().get(&EXPIRED), Some(&1));
}

#[test]
fn a_guest_that_sends_to_an_eip_is_told_by_that_eip_at_the_second_hop() {
    let tables = world(|_| ());
    let frame = Ipv4Frame { ttl: 2, ..routed(vip_eip(0)) };
    let outcome = guest(&tables, &frame);
    assert!(matches!(outcome.verdict, Verdict::Deliver { port: 2, .. }), "{:?}", outcome.verdict);
    let error = Reading::of(&outcome.frame).expect("a whole packet");
    assert_eq!((error.source, error.destination), (vip_eip(0), port_address(2)));
    assert_eq!((error.payload[0], error.payload[1]), (11, 0));
    let quoted = &error.payload[8..];
    assert_eq!(quoted[12..16], port_address(2).octets(), "the guest's own packet is quoted");
    assert_eq!(quoted[16..20], vip_eip(0).octets());
    assert!(error.has_valid_transport_checksum() == Some(true));
}

#[test]
fn nobody_is_told_of_errors_and_later_fragments() {
    let tables = world(|world| world.port_mut(2).bypass = true);
    let with = |(protocol, payload)| Ipv4Frame { ttl: 1, protocol, payload, ..inbound(vip_eip(0)) };
    for frame in [
        with(icmp(3, &[0; 28])),
        with(icmp(11, &[0; 28])),
        with(icmp(12, &[0; 28])),
        Ipv4Frame { ttl: 1, fragment: 100, ..inbound(vip_eip(0)) },
    ] {
        let outcome = engine::uplink(&tables, Stage::Tc, &frame.bytes());
        assert_eq!(outcome.verdict, Verdict::Drop(EXPIRED), "{frame:?}");
    }
    let echo = with(icmp(8, &[0; 28]));
    assert_eq!(engine::uplink(&tables, Stage::Tc, &echo.bytes()).verdict, told(EXPIRED));
}

#[test]
fn a_storm_of_errors_is_metered_and_every_packet_counted() {
    let tables = world(|_| ());
    let frame = Ipv4Frame { ttl: 1, ..inbound(vip_eip(0)) }.bytes();
    let told =
        (0..1000).filter(|_| engine::uplink(&tables, Stage::Xdp, &frame).verdict == told(EXPIRED)).count();
    assert_eq!(told, 64);
    assert_eq!(tables.drops.borrow().get(&EXPIRED), Some(&1000));
    tables.now.set(tables.now.get() + 10_000_000);
    let more = (0..1000)
        .filter(|_| engine::uplink(&tables, Stage::Xdp, &frame).verdict == self::told(EXPIRED))
        .count();
    assert_eq!(more, 10, "one a millisecond");
}

#[test]
fn who_may_not_be_cut_is_told_how_long_packets_may_be() {
    let tables = with_mtus(|_| ());
    let (protocol, payload) = long(1501);
    let frame = Ipv4Frame { protocol, payload, ..routed(CLIENT) };
    let outcome = guest(&tables, &frame);
    assert_eq!(outcome.verdict, told(TOO_BIG));
    assert_eq!(error_of(&outcome, gateway(0), &frame.bytes()), (3, 4, 1500));
    assert!(outcome.frame.len() <= 14 + 576);

    let (protocol, payload) = long(1401);
    let frame = Ipv4Frame { protocol, payload, ..inbound(vip_eip(0)) };
    for stage in [Stage::Xdp, Stage::Tc] {
        let outcome = engine::uplink(&tables, stage, &frame.bytes());
        assert_eq!(outcome.verdict, told(TOO_BIG));
        assert_eq!(error_of(&outcome, vip_eip(0), &frame.bytes()), (3, 4, 1400));
    }
    let frame = Ipv4Frame { payload: frame.payload.clone(), protocol, ..routed(port_address(4)) };
    assert_eq!(error_of(&guest(&tables, &frame), gateway(0), &frame.bytes()), (3, 4, 1400));
    let fits = Ipv4Frame { payload: long(1400).1, ..frame };
    assert!(matches!(guest(&tables, &fits).verdict, Verdict::Deliver { port: 4, .. }));
}

#[test]
fn nobody_is_told_of_less_than_576() {
    let mut tables = with_mtus(|_| ());
    for port in tables.ports.values_mut() {
        port.mtu = 300;
    }
    let (protocol, payload) = long(1000);
    let frame = Ipv4Frame { protocol, payload, ..inbound(vip_eip(0)) }.bytes();
    let outcome = engine::uplink(&tables, Stage::Xdp, &frame);
    assert_eq!(error_of(&outcome, vip_eip(0), &frame), (3, 4, 576));
}

#[test]
fn what_may_be_cut_is_cut_and_is_the_packet_again_when_put_together() {
    let tables = with_mtus(|_| ());
    let (protocol, payload) = long(4001);
    let frame = Ipv4Frame { protocol, payload, fragment: MAY_BE_CUT, ..routed(CLIENT) };
    let outcome = guest(&tables, &frame);
    assert_eq!(outcome.verdict, Verdict::Uplink { ifindex: UPLINK, mtu: 1500 });
    let whole = Reading::of(&outcome.frame).expect("a whole packet");
    assert!(whole.has_valid_transport_checksum() == Some(true));
    assert_eq!(put_together(&outcome.fragments(), 1500), whole.payload);

    let inwards = Ipv4Frame { destination: vip_eip(0), ..inbound(vip_eip(0)) };
    let inwards = Ipv4Frame { protocol, payload: frame.payload, fragment: MAY_BE_CUT, ..inwards };
    assert_eq!(engine::uplink(&tables, Stage::Xdp, &inwards.bytes()).verdict, Verdict::LeaveToTc);
    let outcome = engine::uplink(&tables, Stage::Tc, &inwards.bytes());
    assert!(matches!(outcome.verdict, Verdict::DeliverFragments { mtu: 1400, .. }), "{:?}", outcome.verdict);
    let whole = Reading::of(&outcome.frame).expect("a whole packet");
    assert_eq!(put_together(&outcome.fragments(), 1400), whole.payload);
}

#[test]
fn what_is_cut_leaves_while_nobody_keeps_the_neighbours_too() {
    let mut tables = with_mtus(|_| ());
    if let Some(config) = &mut tables.config {
        config.neighbours_until = 0;
    }
    let (protocol, payload) = long(1501);
    let frame = Ipv4Frame { protocol, payload, fragment: MAY_BE_CUT, ..routed(CLIENT) };
    assert_eq!(guest(&tables, &frame).verdict, Verdict::Uplink { ifindex: UPLINK, mtu: 1500 });
    let fits = Ipv4Frame { payload: long(1500).1, ..frame };
    assert!(matches!(guest(&tables, &fits).verdict, Verdict::Resolve { .. }), "the kernel knows better");
}

#[test]
fn a_fragment_is_cut_into_fragments_of_the_same_whole() {
    let tables = with_mtus(|_| ());
    // The second of more (0x2000): it begins at 8 × 300 bytes.
    let middle = Ipv4Frame { fragment: 0x2000 + 300, protocol: 17, payload: long(2000).1, ..routed(CLIENT) };
    let outcome = guest(&tables, &middle);
    let fragments = outcome.fragments();
    let read: Vec<_> = fragments.iter().map(|frame| Reading::of(frame).expect("a whole packet")).collect();
    let places: Vec<_> = read
        .iter()
        .map(|part| (part.ip.fragments_offset().byte_offset(), part.payload.len(), part.ip.more_fragments()))
        .collect();
    assert_eq!(places, [(2400, 1480, true), (3880, 500, true)]);
    assert!(read.iter().all(Reading::has_valid_header_checksum));
}

#[test]
fn what_cannot_be_cut_is_told_of_all_the_same() {
    let tables = with_mtus(|_| ());
    let (protocol, payload) = long(1600);
    let options = Ipv4Frame { fragment: MAY_BE_CUT, option_words: 1, protocol, payload, ..routed(CLIENT) };
    assert_eq!(guest(&tables, &options).verdict, told(TOO_BIG));
    let huge = Ipv4Frame { fragment: MAY_BE_CUT, option_words: 0, payload: long(16_384).1, ..options };
    assert_eq!(guest(&tables, &huge).verdict, told(TOO_BIG));
}

#[test]
fn what_the_nic_cuts_must_fit_in_its_parts() {
    let tables = with_mtus(|_| ());
    let (protocol, payload) = tcp(4000, 80, &vec![1; 20_000]);
    let frame = Ipv4Frame { protocol, payload, ..routed(CLIENT) }.bytes();
    for (gso_size, verdict) in [
        (1460, Verdict::Uplink { ifindex: UPLINK, mtu: 0 }),
        (1461, told(TOO_BIG)),
        (0xffff, Verdict::Uplink { ifindex: UPLINK, mtu: 0 }),
        (0, told(TOO_BIG)),
    ] {
        let mut packet = FramePacket::new(&frame);
        packet.set_ingress(ifindex(2));
        packet.set_gso_size(gso_size);
        assert_eq!(pipeline::port(&mut packet, &&tables), verdict, "{gso_size}");
    }
}

/// The payload that fragments, none longer than `mtu`, make together.
fn put_together(fragments: &[Vec<u8>], mtu: usize) -> Vec<u8> {
    let mut payload = Vec::new();
    for (number, frame) in fragments.iter().enumerate() {
        let part = Reading::of(frame).expect("a whole packet");
        assert!(frame.len() <= 14 + mtu && part.has_valid_header_checksum());
        assert_eq!(usize::from(part.ip.fragments_offset().byte_offset()), payload.len());
        assert_eq!(part.ip.more_fragments(), number + 1 < fragments.len());
        payload.extend_from_slice(part.payload);
    }
    assert!(fragments.len() > 1);
    payload
}
