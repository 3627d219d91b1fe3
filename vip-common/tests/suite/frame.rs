//! Frames: built from their parts, arbitrary ones, and read by etherparse.

use std::fmt;

use etherparse::{Ethernet2HeaderSlice, IpNumber, Ipv4Header, Ipv4HeaderSlice, checksum::Sum16BitWords};
use proptest::{collection::vec, option, prelude::*, sample::select};
use vip_common::wire::{Ipv4, Mac, Protocol};

use crate::world::{
    self, CLIENT, HOST_ADDRESS, NEIGHBOUR, SUBNETS, UNLISTED, UPLINK_MAC, port_address, port_mac, vip_address,
};

pub(crate) const ETHERNET: usize = 14;

/// An IPv4 frame in its parts. `bytes` gives it valid checksums where it has any.
#[derive(Clone, Debug)]
pub(crate) struct Ipv4Frame {
    pub(crate) to: Mac,
    pub(crate) from: Mac,
    pub(crate) source: Ipv4,
    pub(crate) destination: Ipv4,
    pub(crate) ttl: u8,
    /// Flags and fragment offset.
    pub(crate) fragment: u16,
    /// 32-bit words of options, all of them "no operation".
    pub(crate) option_words: u8,
    pub(crate) protocol: u8,
    pub(crate) payload: Vec<u8>,
}

impl Ipv4Frame {
    pub(crate) const DONT_FRAGMENT: u16 = 0x4000;

    /// A frame of 64 hops without options.
    pub(crate) fn new(from: (Mac, Ipv4), to: (Mac, Ipv4), (protocol, payload): (u8, Vec<u8>)) -> Self {
        Self {
            to: to.0,
            from: from.0,
            source: from.1,
            destination: to.1,
            ttl: 64,
            fragment: Self::DONT_FRAGMENT,
            option_words: 0,
            protocol,
            payload,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let fragment = self.fragment.to_be_bytes();
        let options = vec![1; usize::from(self.option_words) * 4];
        let mut header = Ipv4Header {
            identification: 0x1d2c,
            dont_fragment: fragment[0] & 0x40 != 0,
            more_fragments: fragment[0] & 0x20 != 0,
            fragment_offset: (self.fragment & 0x1fff).try_into().expect("13 bits"),
            time_to_live: self.ttl,
            protocol: IpNumber(self.protocol),
            source: self.source.octets(),
            destination: self.destination.octets(),
            options: options.as_slice().try_into().expect("at most 40 bytes"),
            ..Ipv4Header::default()
        };
        header.set_payload_len(self.payload.len()).expect("at most a full packet");
        header.header_checksum = header.calc_header_checksum();
        let mut bytes = ethernet(self.to, self.from, 0x0800);
        bytes.extend_from_slice(&header.to_bytes());
        bytes.extend_from_slice(&self.payload);
        if matches!(self.fragment, 0 | Self::DONT_FRAGMENT) {
            seal(&mut bytes);
        }
        bytes
    }
}

pub(crate) fn ethernet(to: Mac, from: Mac, ether_type: u16) -> Vec<u8> {
    [&to.octets()[..], &from.octets(), &ether_type.to_be_bytes()].concat()
}

/// An ARP packet of IPv4 over Ethernet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ArpFrame {
    pub(crate) to: Mac,
    pub(crate) from: Mac,
    pub(crate) operation: u16,
    pub(crate) sender: (Mac, Ipv4),
    pub(crate) target: (Mac, Ipv4),
}

impl ArpFrame {
    /// A broadcast request, as a host asks.
    pub(crate) fn question(sender: (Mac, Ipv4), target: Ipv4) -> Self {
        Self { to: Mac::BROADCAST, from: sender.0, operation: 1, sender, target: (Mac::ZERO, target) }
    }

    /// A claim as keepalived and `arping -U` make it.
    pub(crate) fn garp(mac: Mac, vip: Ipv4) -> Self {
        Self { target: (Mac::BROADCAST, vip), ..Self::question((mac, vip), vip) }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = ethernet(self.to, self.from, 0x0806);
        bytes.extend_from_slice(&[0, 1, 8, 0, 6, 4]);
        bytes.extend_from_slice(&self.operation.to_be_bytes());
        for (mac, address) in [self.sender, self.target] {
            bytes.extend_from_slice(&mac.octets());
            bytes.extend_from_slice(&address.octets());
        }
        bytes
    }
}

/// A UDP datagram between two ports, with a checksum.
pub(crate) fn udp(source: u16, destination: u16, data: &[u8]) -> (u8, Vec<u8>) {
    let length = u16::try_from(data.len() + 8).expect("at most a full packet");
    let mut payload = Vec::new();
    // 1: to be sealed; 0 would mean that the sender computes none.
    for word in [source, destination, length, 1] {
        payload.extend_from_slice(&word.to_be_bytes());
    }
    payload.extend_from_slice(data);
    (Protocol::UDP, payload)
}

/// A TCP segment without options.
pub(crate) fn tcp(source: u16, destination: u16, data: &[u8]) -> (u8, Vec<u8>) {
    let mut payload = Vec::new();
    for word in [source, destination, 1, 2, 3, 4, 0x5018, 0xfaf0, 0, 0] {
        payload.extend_from_slice(&word.to_be_bytes());
    }
    payload.extend_from_slice(data);
    (Protocol::TCP, payload)
}

/// An ICMP message.
pub(crate) fn icmp(kind: u8, data: &[u8]) -> (u8, Vec<u8>) {
    let mut payload = vec![kind, 0, 0, 0, 0x12, 0x34, 0, 1];
    payload.extend_from_slice(data);
    (Protocol::ICMP, payload)
}

/// A VRRP advertisement, version 2.
pub(crate) fn vrrp(vrid: u8, addresses: &[Ipv4]) -> (u8, Vec<u8>) {
    let count = u8::try_from(addresses.len()).expect("a few addresses");
    let mut payload = vec![0x21, vrid, 100, count, 0, 1, 0, 0];
    for address in addresses {
        payload.extend_from_slice(&address.octets());
    }
    payload.extend_from_slice(&[0; 8]);
    (Protocol::VRRP, payload)
}

/// Offset of the checksum in a transport header.
pub(crate) const fn checksum_offset(protocol: u8) -> Option<usize> {
    match protocol {
        Protocol::TCP => Some(16),
        Protocol::UDP | Protocol::UDP_LITE | Protocol::DCCP => Some(6),
        Protocol::ICMP => Some(2),
        _ => None,
    }
}

/// An IPv4 frame as etherparse reads it.
pub(crate) struct Reading<'f> {
    pub(crate) to: Mac,
    pub(crate) from: Mac,
    pub(crate) ip: Ipv4HeaderSlice<'f>,
    pub(crate) source: Ipv4,
    pub(crate) destination: Ipv4,
    /// Where the payload starts in the frame.
    pub(crate) start: usize,
    pub(crate) payload: &'f [u8],
}

impl<'f> Reading<'f> {
    /// `None` for anything but a whole IPv4 packet behind an Ethernet header.
    pub(crate) fn of(frame: &'f [u8]) -> Option<Self> {
        let link = Ethernet2HeaderSlice::from_slice(frame).ok()?;
        if link.ether_type() != etherparse::EtherType::IPV4 {
            return None;
        }
        let ip = Ipv4HeaderSlice::from_slice(&frame[ETHERNET..]).ok()?;
        let start = ETHERNET + ip.slice().len();
        let payload = frame.get(start..ETHERNET + usize::from(ip.total_len()))?;
        Some(Self {
            to: Mac::new(link.destination()),
            from: Mac::new(link.source()),
            source: Ipv4::new(ip.source()),
            destination: Ipv4::new(ip.destination()),
            start,
            ip,
            payload,
        })
    }

    pub(crate) fn protocol(&self) -> u8 {
        self.ip.protocol().0
    }

    pub(crate) fn is_later_fragment(&self) -> bool {
        self.ip.fragments_offset().value() != 0
    }

    /// Where the transport checksum lies in the frame, if the packet has one that is whole.
    pub(crate) fn checksum_at(&self) -> Option<usize> {
        let offset = checksum_offset(self.protocol())?;
        (!self.is_later_fragment() && self.payload.len() >= offset + 2).then_some(self.start + offset)
    }

    pub(crate) fn has_valid_header_checksum(&self) -> bool {
        self.ip.to_header().calc_header_checksum() == self.ip.header_checksum()
    }

    /// Whether the transport checksum over the whole payload is right; `None` where there is none.
    pub(crate) fn has_valid_transport_checksum(&self) -> Option<bool> {
        let at = self.checksum_at()? - self.start;
        if self.ip.is_fragmenting_payload() {
            return None;
        }
        if self.protocol() == Protocol::UDP && self.payload[at..at + 2] == [0, 0] {
            return None;
        }
        Some(transport_sum(self).ones_complement() == 0)
    }

    pub(crate) fn udp_ports(&self) -> Option<(u16, u16)> {
        let is_first =
            self.protocol() == Protocol::UDP && !self.is_later_fragment() && self.payload.len() >= 8;
        is_first.then(|| (word(self.payload, 0), word(self.payload, 2)))
    }
}

pub(crate) fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn transport_sum(packet: &Reading<'_>) -> Sum16BitWords {
    let mut sum = Sum16BitWords::new();
    if packet.protocol() != Protocol::ICMP {
        let length = u16::try_from(packet.payload.len()).expect("a field of 16 bits");
        sum = sum
            .add_4bytes(packet.ip.source())
            .add_4bytes(packet.ip.destination())
            .add_2bytes([0, packet.protocol()])
            .add_2bytes(length.to_be_bytes());
    }
    sum.add_slice(packet.payload)
}

/// Gives an unfragmented packet its transport checksum.
fn seal(bytes: &mut [u8]) {
    let Some(at) = Reading::of(bytes).and_then(|packet| packet.checksum_at()) else { return };
    bytes[at..at + 2].fill(0);
    let Some(packet) = Reading::of(bytes) else { return };
    let sum = transport_sum(&packet);
    let checksum = match packet.protocol() {
        Protocol::UDP | Protocol::UDP_LITE => sum.to_ones_complement_with_no_zero(),
        _ => sum.ones_complement(),
    };
    bytes[at..at + 2].copy_from_slice(&checksum.to_ne_bytes());
}

/// Bytes of a frame, shown as hex.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A frame that a guest sends.
#[derive(Clone, Debug)]
pub(crate) struct GuestFrame {
    pub(crate) port: u32,
    pub(crate) tagged: bool,
    pub(crate) bytes: Bytes,
}

/// Every address that means something in a world, and some that mean nothing.
pub(crate) fn any_address() -> BoxedStrategy<Ipv4> {
    let mut pool = vec![
        CLIENT,
        NEIGHBOUR,
        HOST_ADDRESS,
        Ipv4::UNSPECIFIED,
        Ipv4::BROADCAST,
        Ipv4::new([224, 0, 0, 18]),
        Ipv4::new([127, 0, 0, 1]),
        Ipv4::new([10, 0, 0, 255]),
        UNLISTED,
    ];
    pool.extend((1..=world::PORTS).flat_map(|index| [port_address(index), world::port_eip(index)]));
    pool.extend((0..world::SLOTS).flat_map(|slot| [vip_address(slot), world::vip_eip(slot)]));
    pool.extend((0..SUBNETS).map(world::gateway));
    pool.extend((1..=world::HOSTS).map(world::vtep));
    select(pool).boxed()
}

pub(crate) fn any_mac() -> BoxedStrategy<Mac> {
    let mut pool = vec![
        Mac::BROADCAST,
        Mac::ZERO,
        UPLINK_MAC,
        Mac::new([1, 0, 0x5e, 0, 0, 18]),
        Mac::new([2, 9, 9, 9, 9, 9]),
        Mac::of_vrid(66),
        Mac::of_vrid(67),
        Mac::of_address(UNLISTED),
    ];
    pool.extend((1..=world::PORTS).map(port_mac));
    pool.extend((0..world::SLOTS).map(|slot| Mac::of_address(vip_address(slot))));
    pool.extend((0..SUBNETS).map(|subnet| Mac::of_address(world::gateway(subnet))));
    select(pool).boxed()
}

fn vip_beside(port: u32) -> BoxedStrategy<Ipv4> {
    select(world::slots_of(world::subnet_of_port(port)).map(vip_address).collect::<Vec<_>>()).boxed()
}

fn own_mac(port: u32) -> BoxedStrategy<Mac> {
    prop_oneof![
        12 => Just(port_mac(port)),
        2 => select(vec![Mac::of_vrid(66), Mac::of_vrid(67)]),
        1 => any_mac(),
    ]
    .boxed()
}

fn own_address(port: u32) -> BoxedStrategy<Ipv4> {
    prop_oneof![8 => Just(port_address(port)), 6 => vip_beside(port), 3 => any_address()].boxed()
}

/// A destination: MAC and address.
fn destination(port: u32) -> BoxedStrategy<(Mac, Ipv4)> {
    let subnet = world::subnet_of_port(port);
    let gateway = world::gateway(subnet);
    let beside: Vec<u32> = world::ports_of(subnet).collect();
    let vpc = (0..SUBNETS).filter(|other| world::vni_of(*other) == world::vni_of(subnet));
    let inside: Vec<Ipv4> = vpc
        .flat_map(|other| {
            world::ports_of(other).map(port_address).chain(world::slots_of(other).map(vip_address))
        })
        .collect();
    prop_oneof![
        6 => select(beside.clone()).prop_map(|index| (port_mac(index), port_address(index))),
        5 => vip_beside(port).prop_map(|vip| (Mac::of_address(vip), vip)),
        5 => (vip_beside(port), select(beside.clone())).prop_map(|(vip, index)| (port_mac(index), vip)),
        3 => (any_address(), select(beside)).prop_map(|(address, index)| (port_mac(index), address)),
        2 => (any_address(), vip_beside(port)).prop_map(|(address, vip)| (Mac::of_address(vip), address)),
        6 => any_address().prop_map(move |address| (Mac::of_address(gateway), address)),
        4 => select(inside).prop_map(move |address| (Mac::of_address(gateway), address)),
        4 => Just((Mac::of_address(gateway), CLIENT)),
        1 => Just((Mac::of_address(gateway), gateway)),
        2 => Just((Mac::new([1, 0, 0x5e, 0, 0, 18]), Ipv4::new([224, 0, 0, 18]))),
        3 => (any_mac(), any_address()),
    ]
    .boxed()
}

fn payload(port: u32) -> BoxedStrategy<(u8, Vec<u8>)> {
    let data = vec(any::<u8>(), 0..40);
    let ports = select(vec![(68, 67), (67, 68), (5000, 53), (80, 40_000)]);
    prop_oneof![
        6 => (ports, data.clone()).prop_map(|((from, to), data)| udp(from, to, &data)),
        6 => (any::<u8>(), data.clone()).prop_map(|(flags, data)| {
            let (protocol, mut segment) = tcp(40_000, 80, &data);
            segment[13] = flags;
            (protocol, segment)
        }),
        4 => (select(vec![0, 8, 8, 8, 3, 4, 5, 11, 12, 13]), data.clone())
            .prop_map(|(kind, data)| icmp(kind, &data)),
        3 => (select(vec![66, 67]), vec(prop_oneof![3 => vip_beside(port), 1 => any_address()], 0..10))
            .prop_map(|(vrid, addresses)| vrrp(vrid, &addresses)),
        3 => (any::<u8>(), data.clone()),
        1 => (select(vec![Protocol::IGMP, Protocol::UDP_LITE, Protocol::DCCP]), data),
    ]
    .boxed()
}

fn time_to_live() -> BoxedStrategy<u8> {
    prop_oneof![8 => Just(64), 3 => Just(255), 2 => 0..=2_u8].boxed()
}

fn fragment() -> BoxedStrategy<u16> {
    prop_oneof![
        8 => Just(Ipv4Frame::DONT_FRAGMENT),
        2 => Just(0),
        1 => Just(0x2000),
        1 => any::<u16>(),
    ]
    .boxed()
}

/// A well-formed IPv4 frame of a port: checksums are right, addresses need not be its own.
pub(crate) fn guest_packet(port: u32) -> BoxedStrategy<Ipv4Frame> {
    let addresses = (own_mac(port), own_address(port), destination(port));
    let option_words = prop_oneof![4 => Just(0), 1 => 0..=10_u8];
    (addresses, payload(port), time_to_live(), fragment(), option_words)
        .prop_map(|((mac, source, to), payload, ttl, fragment, option_words)| Ipv4Frame {
            ttl,
            fragment,
            option_words,
            ..Ipv4Frame::new((mac, source), to, payload)
        })
        .boxed()
}

/// A well-formed ARP packet of a port.
pub(crate) fn guest_arp(port: u32) -> BoxedStrategy<ArpFrame> {
    let speaker = prop_oneof![4 => own_address(port), 1 => Just(Ipv4::UNSPECIFIED)];
    let macs = (own_mac(port), prop_oneof![6 => Just(None), 1 => own_mac(port).prop_map(Some)]);
    let to = prop_oneof![3 => Just(Mac::BROADCAST), 1 => any_mac()];
    let target = (
        prop_oneof![2 => Just(Mac::ZERO), 2 => Just(Mac::BROADCAST), 1 => any_mac()],
        prop_oneof![1 => Just(None), 1 => own_address(port).prop_map(Some), 1 => any_address().prop_map(Some)],
    );
    (macs, to, prop_oneof![8 => 1..=2_u16, 1 => any::<u16>()], speaker, target)
        .prop_map(|((from, sender_mac), to, operation, speaker, (target_mac, target))| ArpFrame {
            to,
            from,
            operation,
            sender: (sender_mac.unwrap_or(from), speaker),
            target: (target_mac, target.unwrap_or(speaker)),
        })
        .boxed()
}

pub(crate) fn bent(bytes: impl Strategy<Value = Vec<u8>> + 'static) -> BoxedStrategy<Vec<u8>> {
    let flips =
        prop_oneof![3 => Just(Vec::new()), 1 => vec((any::<prop::sample::Index>(), 1..=255_u8), 1..4)];
    let cut = option::weighted(0.15, any::<prop::sample::Index>());
    let padding = prop_oneof![2 => Just(0), 1 => 0..20_usize];
    (bytes, flips, cut, padding)
        .prop_map(|(mut bytes, flips, cut, padding)| {
            for (index, flip) in flips {
                let at = index.index(bytes.len());
                bytes[at] ^= flip;
            }
            bytes.resize(bytes.len() + padding, 0xa5);
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            bytes
        })
        .boxed()
}

/// Any frame of any guest: well-formed, bent, cut, or noise.
pub(crate) fn guest_frame() -> BoxedStrategy<GuestFrame> {
    let bytes = |port| {
        let other = (any_mac(), own_mac(port), any::<u16>(), vec(any::<u8>(), 0..80))
            .prop_map(|(to, from, kind, data)| [ethernet(to, from, kind), data].concat());
        prop_oneof![
            6 => bent(guest_packet(port).prop_map(|packet| packet.bytes())),
            4 => bent(guest_arp(port).prop_map(|arp| arp.bytes())),
            1 => bent(other),
            1 => vec(any::<u8>(), 0..120),
        ]
    };
    (1..=world::PORTS, prop::bool::weighted(0.03))
        .prop_flat_map(move |(port, tagged)| (Just(port), Just(tagged), bytes(port)))
        .prop_map(|(port, tagged, bytes)| GuestFrame { port, tagged, bytes: Bytes(bytes) })
        .boxed()
}

/// A well-formed frame of a guest.
pub(crate) fn whole_guest_packet() -> BoxedStrategy<(u32, Ipv4Frame)> {
    (1..=world::PORTS).prop_flat_map(|port| (Just(port), guest_packet(port))).boxed()
}

/// A well-formed packet that reaches the uplink.
pub(crate) fn outside_packet() -> BoxedStrategy<Ipv4Frame> {
    let eips: Vec<Ipv4> =
        (1..=world::PORTS).map(world::port_eip).chain((0..world::SLOTS).map(world::vip_eip)).collect();
    let to = prop_oneof![8 => Just(UPLINK_MAC), 1 => any_mac()];
    let destination = prop_oneof![6 => select(eips), 1 => any_address()];
    (to, select(vec![CLIENT, NEIGHBOUR]), destination, payload(1), time_to_live(), fragment(), 0..=10_u8)
        .prop_map(|(to, source, destination, payload, ttl, fragment, option_words)| Ipv4Frame {
            ttl,
            fragment,
            option_words,
            ..Ipv4Frame::new((world::NEIGHBOUR_MAC, source), (to, destination), payload)
        })
        .boxed()
}

/// Any frame that reaches the uplink.
pub(crate) fn outside_frame() -> BoxedStrategy<Bytes> {
    let arp = (any_address(), any_address(), 0..=3_u16).prop_map(|(speaker, target, operation)| {
        ArpFrame { operation, ..ArpFrame::question((world::NEIGHBOUR_MAC, speaker), target) }.bytes()
    });
    prop_oneof![
        5 => bent(outside_packet().prop_map(|packet| packet.bytes())),
        3 => bent(arp),
        1 => vec(any::<u8>(), 0..120),
    ]
    .prop_map(Bytes)
    .boxed()
}
