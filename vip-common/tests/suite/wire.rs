//! Frames as they were seen on the wire: our accessors read what etherparse reads, what we write etherparse reads back, and
//! each malformation is noticed.

use etherparse::{ArpPacketSlice, Icmpv4Slice, Ipv4HeaderSlice, TcpHeader, UdpHeader};
use proptest::prelude::*;
use vip_common::{
    DropReason,
    engine::FramePacket,
    pipeline::{Ipv4Packet, Packet as _},
    wire::{
        Arp, ArpOperation, Be16, EtherType, Ethernet, Header as _, Icmp, IcmpType, Ipv4, Ipv4Header, Mac,
        Protocol, Tcp, Udp, VRRP_GROUP, VRRP_TTL, Vrrp, WireIpv4,
    },
};

use crate::{cases, frame::ETHERNET};

const VIP: Ipv4 = Ipv4::new([192, 168, 7, 246]);
const MASTER: Mac = Mac::new([2, 0, 0, 0, 7, 0xf7]);

/// keepalived's gratuitous ARP request: the target MAC is the broadcast address.
const KEEPALIVED_GARP: &[u8] = &[
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0x00, 0x00, 0x00, 0x07, 0xf7, 0x08, 0x06, 0x00, 0x01, 0x08,
    0x00, 0x06, 0x04, 0x00, 0x01, 0x02, 0x00, 0x00, 0x00, 0x07, 0xf7, 0xc0, 0xa8, 0x07, 0xf6, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xc0, 0xa8, 0x07, 0xf6,
];

/// `arping -A`: a reply that nobody asked for.
const ARPING_REPLY: &[u8] = &[
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0x00, 0x00, 0x00, 0x07, 0xf7, 0x08, 0x06, 0x00, 0x01, 0x08,
    0x00, 0x06, 0x04, 0x00, 0x02, 0x02, 0x00, 0x00, 0x00, 0x07, 0xf7, 0xc0, 0xa8, 0x07, 0xf6, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xc0, 0xa8, 0x07, 0xf6,
];

/// RFC 5227 announcement: the target MAC is zero.
const ANNOUNCEMENT: &[u8] = &[
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0x00, 0x00, 0x00, 0x07, 0xf7, 0x08, 0x06, 0x00, 0x01, 0x08,
    0x00, 0x06, 0x04, 0x00, 0x01, 0x02, 0x00, 0x00, 0x00, 0x07, 0xf7, 0xc0, 0xa8, 0x07, 0xf6, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0xc0, 0xa8, 0x07, 0xf6,
];

/// RFC 5227 probe: the sender is 0.0.0.0.
const PROBE: &[u8] = &[
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0x00, 0x00, 0x00, 0x07, 0xf7, 0x08, 0x06, 0x00, 0x01, 0x08,
    0x00, 0x06, 0x04, 0x00, 0x01, 0x02, 0x00, 0x00, 0x00, 0x07, 0xf7, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0xc0, 0xa8, 0x07, 0xf6,
];

/// keepalived's VRRP version 2 advertisement of VRID 66, priority 100, with a simple password field of zeros.
const VRRP_V2: &[u8] = &[
    0x01, 0x00, 0x5e, 0x00, 0x00, 0x12, 0x02, 0x00, 0x00, 0x00, 0x07, 0xf7, 0x08, 0x00, 0x45, 0xc0, 0x00,
    0x28, 0x00, 0x01, 0x00, 0x00, 0xff, 0x70, 0x11, 0xf3, 0xc0, 0xa8, 0x07, 0xf7, 0xe0, 0x00, 0x00, 0x12,
    0x21, 0x42, 0x64, 0x01, 0x00, 0x01, 0xb2, 0x1c, 0xc0, 0xa8, 0x07, 0xf6, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00,
];

/// The same of version 3: no password field, an interval of 100 centiseconds.
const VRRP_V3: &[u8] = &[
    0x01, 0x00, 0x5e, 0x00, 0x00, 0x12, 0x02, 0x00, 0x00, 0x00, 0x07, 0xf7, 0x08, 0x00, 0x45, 0xc0, 0x00,
    0x20, 0x00, 0x01, 0x00, 0x00, 0xff, 0x70, 0x11, 0xfb, 0xc0, 0xa8, 0x07, 0xf7, 0xe0, 0x00, 0x00, 0x12,
    0x31, 0x42, 0x64, 0x01, 0x00, 0x64, 0xf8, 0x8a, 0xc0, 0xa8, 0x07, 0xf6,
];

/// A UDP datagram with the router alert option (RFC 2113), five data bytes, and the padding of a short Ethernet frame.
const UDP_WITH_OPTION: &[u8] = &[
    0x02, 0x00, 0x00, 0x00, 0x07, 0xf7, 0x02, 0x00, 0x00, 0x00, 0x07, 0xf8, 0x08, 0x00, 0x46, 0x00, 0x00,
    0x25, 0x1c, 0x46, 0x40, 0x00, 0x40, 0x11, 0xf8, 0x3d, 0xc0, 0xa8, 0x07, 0xf8, 0xc0, 0xa8, 0x07, 0xf7,
    0x94, 0x04, 0x00, 0x00, 0x13, 0x88, 0x00, 0x35, 0x00, 0x0d, 0x17, 0x05, 0x68, 0x65, 0x6c, 0x6c, 0x6f,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
];

/// An echo request of id 0x1234, sequence number 7.
const ECHO_REQUEST: &[u8] = &[
    0x02, 0x00, 0x00, 0x00, 0x07, 0xf7, 0x02, 0x00, 0x00, 0x00, 0x07, 0xf8, 0x08, 0x00, 0x45, 0x00, 0x00,
    0x20, 0x00, 0x07, 0x40, 0x00, 0x40, 0x01, 0xa9, 0x96, 0xc0, 0xa8, 0x07, 0xf8, 0xc0, 0xa8, 0x07, 0xf7,
    0x08, 0x00, 0xe5, 0xc4, 0x12, 0x34, 0x00, 0x07, 0x00, 0x00, 0x00, 0x00,
];

/// Reads a header as the pipeline does.
fn header<H: vip_common::wire::Header + Copy>(frame: &[u8], offset: usize) -> Option<H> {
    FramePacket::new(frame).header::<H>(offset).copied()
}

fn ethernet(frame: &[u8]) -> Ethernet {
    header(frame, 0).expect("an Ethernet header")
}

fn arp(frame: &[u8]) -> Arp {
    header(frame, ETHERNET).expect("an ARP packet")
}

fn ipv4(frame: &[u8]) -> Ipv4Header {
    header(frame, ETHERNET).expect("an IPv4 header")
}

#[test]
fn arp_forms_of_the_field_are_read_as_etherparse_reads_them() {
    for (frame, operation) in [
        (KEEPALIVED_GARP, ArpOperation::Request),
        (ARPING_REPLY, ArpOperation::Reply),
        (ANNOUNCEMENT, ArpOperation::Request),
        (PROBE, ArpOperation::Request),
    ] {
        let theirs = ArpPacketSlice::from_slice(&frame[ETHERNET..]).expect("an ARP packet");
        let (link, ours) = (ethernet(frame), arp(frame));
        assert_eq!((link.destination, link.source), (Mac::BROADCAST, MASTER));
        assert_eq!(link.ether_type, EtherType::ARP);
        assert_eq!(ours.operation(), Some(operation));
        assert_eq!(ours.sender_mac.octets(), theirs.sender_hw_addr());
        assert_eq!(ours.sender_ip.get().octets(), theirs.sender_protocol_addr());
        assert_eq!(ours.target_mac.octets(), theirs.target_hw_addr());
        assert_eq!(ours.target_ip.get().octets(), theirs.target_protocol_addr());
    }
    assert_eq!(arp(KEEPALIVED_GARP).target_mac, Mac::BROADCAST);
    assert_eq!(arp(KEEPALIVED_GARP).sender_ip.get(), VIP);
    assert!(arp(ANNOUNCEMENT).target_mac.is_zero());
    assert!(arp(PROBE).sender_ip.get().is_unspecified());
}

#[test]
fn arp_is_written_as_it_is_read() {
    for frame in [KEEPALIVED_GARP, ARPING_REPLY, ANNOUNCEMENT, PROBE] {
        let read = arp(frame);
        let operation = read.operation().expect("IPv4 over Ethernet");
        let written =
            Arp::new(operation, (read.sender_mac, read.sender_ip), (read.target_mac, read.target_ip));
        assert_eq!(zerocopy::IntoBytes::as_bytes(&written), &frame[ETHERNET..]);
        assert_eq!(zerocopy::IntoBytes::as_bytes(&ethernet(frame)), &frame[..ETHERNET]);
    }
}

#[test]
fn each_malformation_of_arp_is_noticed() {
    for (what, at, value) in [
        ("hardware type", ETHERNET + 1, 6),
        ("high byte of the hardware type", ETHERNET, 1),
        ("protocol type", ETHERNET + 2, 0x86),
        ("hardware length", ETHERNET + 4, 8),
        ("protocol length", ETHERNET + 5, 16),
        ("operation 0", ETHERNET + 7, 0),
        ("operation 3", ETHERNET + 7, 3),
        ("high byte of the operation", ETHERNET + 6, 1),
    ] {
        let mut bent = KEEPALIVED_GARP.to_vec();
        bent[at] = value;
        assert_eq!(arp(&bent).operation(), None, "{what}");
    }
    assert_eq!(header::<Arp>(&KEEPALIVED_GARP[..41], ETHERNET), None);
    assert_eq!(header::<Ethernet>(&KEEPALIVED_GARP[..13], 0), None);
}

#[test]
fn ipv4_is_read_as_etherparse_reads_it() {
    for frame in [VRRP_V2, VRRP_V3, UDP_WITH_OPTION, ECHO_REQUEST] {
        let theirs = Ipv4HeaderSlice::from_slice(&frame[ETHERNET..]).expect("an IPv4 header");
        let ours = ipv4(frame);
        assert_eq!(ethernet(frame).ether_type, EtherType::IPV4);
        assert_eq!(ours.version(), theirs.version());
        assert_eq!(ours.header_length(), usize::from(theirs.ihl()) * 4);
        assert_eq!(ours.total_length(), usize::from(theirs.total_len()));
        assert_eq!(ours.identification.get(), theirs.identification());
        assert_eq!(ours.ttl(), theirs.ttl());
        assert_eq!(ours.protocol(), theirs.protocol().0);
        assert_eq!(ours.checksum.get(), theirs.header_checksum());
        assert_eq!(ours.source.get().octets(), theirs.source());
        assert_eq!(ours.destination.get().octets(), theirs.destination());
        assert_eq!(ours.is_later_fragment(), theirs.fragments_offset().value() != 0);
        assert_eq!(
            theirs.to_header().calc_header_checksum(),
            theirs.header_checksum(),
            "the fixture is right"
        );
        let packet = Ipv4Packet::parse(&mut FramePacket::new(frame)).expect("a whole packet");
        assert_eq!(packet.payload, ETHERNET + theirs.slice().len());
        assert_eq!(packet.end, ETHERNET + usize::from(theirs.total_len()), "padding is no payload");
    }
}

#[test]
fn each_malformation_of_ipv4_is_noticed() {
    let parse = |frame: &[u8]| Ipv4Packet::parse(&mut FramePacket::new(frame));
    for (what, at, value) in [
        ("version 6", 14, 0x65),
        ("version 0", 14, 0x05),
        ("a header of 16 bytes", 14, 0x44),
        ("a header longer than the packet", 14, 0x4f),
        ("a total length below the header's", 17, 19),
        ("a total length above the frame's", 17, 0x21),
        ("a total length of 0", 17, 0),
    ] {
        let mut bent = ECHO_REQUEST.to_vec();
        bent[at] = value;
        assert_eq!(parse(&bent), Err(DropReason::Ipv4Malformed), "{what}");
    }
    assert_eq!(parse(&ECHO_REQUEST[..33]), Err(DropReason::FrameTruncated));
    assert_eq!(parse(&ECHO_REQUEST[..ECHO_REQUEST.len() - 1]), Err(DropReason::Ipv4Malformed));
    assert!(parse(ECHO_REQUEST).is_ok());
}

#[test]
fn a_frame_too_large_for_the_length_field_is_as_long_as_it_is() {
    let mut large = ECHO_REQUEST.to_vec();
    large[16..18].fill(0);
    large.resize(70_000, 0);
    let packet = Ipv4Packet::parse(&mut FramePacket::new(&large)).expect("a packet that the NIC will cut");
    assert_eq!(packet.end, 70_000);
}

#[test]
fn the_smallest_and_the_largest_header_are_read() {
    let mut frame = ECHO_REQUEST.to_vec();
    frame[17] = 20;
    let packet = Ipv4Packet::parse(&mut FramePacket::new(&frame)).expect("a header without payload");
    assert_eq!((packet.payload, packet.end), (34, 34));
    frame.resize(74, 1);
    (frame[14], frame[17]) = (0x4f, 60);
    let packet = Ipv4Packet::parse(&mut FramePacket::new(&frame)).expect("a header full of options");
    assert_eq!((packet.payload, packet.end), (74, 74));
}

#[test]
fn vrrp_of_both_versions_is_read() {
    for frame in [VRRP_V2, VRRP_V3] {
        let (ip, advert): (_, Vrrp) = (ipv4(frame), header(frame, 34).expect("an advertisement"));
        assert_eq!((ip.protocol(), ip.ttl()), (Protocol::VRRP, VRRP_TTL));
        assert_eq!(ip.destination.get(), VRRP_GROUP);
        assert_eq!((advert.packet_type(), advert.vrid(), advert.address_count()), (1, 66, 1));
        let address: WireIpv4 = header(frame, 34 + Vrrp::LEN).expect("one address");
        assert_eq!(address.get(), VIP);
    }
    assert_eq!(header::<Vrrp>(&VRRP_V3[..41], 34), None);
}

#[test]
fn udp_behind_options_is_read_as_etherparse_reads_it() {
    let (theirs, _) = UdpHeader::from_slice(&UDP_WITH_OPTION[38..]).expect("a UDP header");
    let ours: Udp = header(UDP_WITH_OPTION, 38).expect("a UDP header");
    assert_eq!(ours.source_port.get(), theirs.source_port);
    assert_eq!(ours.destination_port.get(), theirs.destination_port);
    assert_eq!(ours.length.get(), theirs.length);
    assert_eq!(ours.checksum.get(), theirs.checksum);
}

#[test]
fn tcp_is_read_as_etherparse_writes_it() {
    let mut theirs = TcpHeader::new(40_000, 80, 0x0102_0304, 0x2000);
    theirs.acknowledgment_number = 0x0506_0708;
    (theirs.checksum, theirs.urgent_pointer) = (0x1234, 0x5678);
    for syn in [false, true] {
        // All other flags are the opposite.
        theirs.syn = syn;
        (theirs.fin, theirs.rst, theirs.psh, theirs.ack) = (!syn, !syn, !syn, !syn);
        (theirs.urg, theirs.ece, theirs.cwr, theirs.ns) = (!syn, !syn, !syn, !syn);
        let ours: Tcp = header(&theirs.to_bytes(), 0).expect("a TCP header");
        assert_eq!(ours.has_syn(), syn);
        assert_eq!((ours.source_port.get(), ours.destination_port.get()), (40_000, 80));
        assert_eq!(ours.sequence.map(Be16::get), [0x0102, 0x0304]);
        assert_eq!(ours.acknowledgment.map(Be16::get), [0x0506, 0x0708]);
        assert_eq!((ours.window.get(), ours.checksum.get(), ours.urgent.get()), (0x2000, 0x1234, 0x5678));
    }
}

#[test]
fn icmp_is_read_and_written_as_etherparse_reads_it() {
    let theirs = Icmpv4Slice::from_slice(&ECHO_REQUEST[34..]).expect("an ICMP message");
    let mut ours: Icmp = header(ECHO_REQUEST, 34).expect("an ICMP message");
    assert_eq!(ours.icmp_type(), theirs.type_u8());
    assert_eq!(ours.icmp_type(), IcmpType::ECHO_REQUEST);
    assert_eq!(ours.type_code().get(), u16::from_be_bytes([theirs.type_u8(), theirs.code_u8()]));
    assert_eq!(ours.checksum.get(), theirs.checksum());
    ours.set_type(IcmpType::ECHO_REPLY);
    assert_eq!((ours.icmp_type(), ours.checksum.get()), (IcmpType::ECHO_REPLY, theirs.checksum()));
}

#[test]
fn setting_the_ttl_changes_the_ttl_alone() {
    let mut header = ipv4(ECHO_REQUEST);
    header.set_ttl(1);
    let mut expected = ECHO_REQUEST[ETHERNET..34].to_vec();
    expected[8] = 1;
    assert_eq!(zerocopy::IntoBytes::as_bytes(&header), expected);
}

#[test]
fn the_header_of_a_tunnel_has_no_length_yet_and_its_own_checksum() {
    let (from, to) = (Ipv4::new([172, 31, 0, 1]), Ipv4::new([172, 31, 255, 254]));
    let header = Ipv4Header::tunnel(from, to);
    let bytes = zerocopy::IntoBytes::as_bytes(&header);
    let read = etherparse::Ipv4Header::from_slice(bytes).expect("a header").0;
    assert_eq!((read.dont_fragment, read.more_fragments, read.fragment_offset.value()), (true, false, 0));
    assert_eq!((read.time_to_live, read.protocol.0, read.identification), (64, Protocol::UDP, 0));
    assert_eq!((read.dscp.value(), read.ecn.value(), read.total_len), (0, 0, 0));
    assert_eq!((read.source, read.destination), (from.octets(), to.octets()));
    // Ones' complement arithmetic has two zeroes; the sum of a whole header is the negative one.
    let sum = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum::<u32>();
    assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
}

#[test]
fn headers_have_the_sizes_of_their_formats() {
    assert_eq!((Ethernet::LEN, Arp::LEN, Ipv4Header::LEN), (14, 28, 20));
    assert_eq!(Tcp::LEN, 20);
    assert_eq!((Udp::LEN, Icmp::LEN, Vrrp::LEN, WireIpv4::LEN), (8, 4, 8, 4));
    for alignment in [align_of::<Ethernet>(), align_of::<Arp>(), align_of::<Ipv4Header>(), align_of::<Vrrp>()]
    {
        assert_eq!(
            alignment, 2,
            "every header of a frame lies at an even offset, none is surely at a better one"
        );
    }
}

#[test]
fn special_macs_and_addresses_are_recognised() {
    assert_eq!(Mac::of_vrid(66).octets(), [0, 0, 0x5e, 0, 1, 66]);
    assert_eq!(Mac::of_vrid(66).vrid(), Some(66));
    assert_eq!(Mac::of_vrid(0).vrid(), None, "VRID 0 does not exist (RFC 9568 §5.2.3)");
    assert_eq!(Mac::new([0, 0, 0x5e, 0, 2, 66]).vrid(), None, "that is the one of IPv6");
    assert_eq!(MASTER.vrid(), None);
    assert_eq!(Mac::of_address(VIP).octets(), [0x06, 0x56, 192, 168, 7, 246]);
    assert!(Mac::BROADCAST.is_multicast() && !MASTER.is_multicast() && !Mac::of_address(VIP).is_multicast());
    assert!(Mac::ZERO.is_zero() && !MASTER.is_zero());
    assert!(VRRP_GROUP.is_multicast() && !VIP.is_multicast() && !Ipv4::BROADCAST.is_multicast());
    assert!(
        Ipv4::new([239, 255, 255, 255]).is_multicast() && !Ipv4::new([223, 255, 255, 255]).is_multicast()
    );
    assert_eq!((VIP.to_string(), MASTER.to_string()), ("192.168.7.246".into(), "02:00:00:00:07:f7".into()));
}

proptest! {
    #![proptest_config(cases(1000))]

    #[test]
    fn numbers_and_addresses_survive_their_types(
        number in any::<u16>(),
        octets in any::<[u8; 4]>(),
        mac in any::<[u8; 6]>(),
    ) {
        prop_assert_eq!(Be16::new(number).get(), number);
        let wire = Be16::new(number);
        prop_assert_eq!(zerocopy::IntoBytes::as_bytes(&wire), number.to_be_bytes());
        prop_assert_eq!(Be16::from_raw(Be16::new(number).raw()), Be16::new(number));
        let address = Ipv4::new(octets);
        prop_assert_eq!(address.octets(), octets);
        prop_assert_eq!(WireIpv4::new(address).get(), address);
        prop_assert_eq!(Ipv4::from_raw(address.raw()), address);
        let std_address = std::net::Ipv4Addr::from(octets);
        prop_assert_eq!(Ipv4::from(std_address), address);
        prop_assert_eq!(std::net::Ipv4Addr::from(address), std_address);
        prop_assert_eq!(address.is_multicast(), std_address.is_multicast());
        prop_assert_eq!(Mac::new(mac).octets(), mac);
        prop_assert_eq!(Mac::of_address(address).address(), Some(address));
        prop_assert_eq!(Mac::new(mac).is_of_address(), mac[..2] == [0x06, 0x56]);
        prop_assert_eq!(Mac::new(mac).is_multicast(), mac[0] & 1 == 1);
    }

    #[test]
    fn prefixes_hold_what_their_bits_say(octets in any::<[u8; 4]>(), other in any::<[u8; 4]>(), bits in 0..=32_u32) {
        let number = u32::from_be_bytes;
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        let (network, wire_mask) = (number(octets) & mask, Ipv4::new(mask.to_be_bytes()));
        let holds = number(other) & mask == network;
        prop_assert_eq!(Ipv4::new(other).is_in(Ipv4::new(network.to_be_bytes()), wire_mask), holds);
        let last = number(other) | mask == u32::MAX;
        prop_assert_eq!(Ipv4::new(other).is_last_of(wire_mask), last);
    }
}
