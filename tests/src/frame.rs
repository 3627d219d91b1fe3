//! Ethernet frames: what a capture shows and a raw sender sends, taken apart and built by etherparse, which shares no
//! code with the forwarder.

use std::{fmt, net::Ipv4Addr, time::Instant};

use anyhow::{Context as _, Result};
pub use etherparse::ArpOperation;
use etherparse::{
    ArpEthIpv4Packet, ArpPacket, EtherType, IpNumber, LaxNetSlice, LaxSlicedPacket, PacketBuilder,
    TransportSlice,
};

use crate::Mac;

/// A frame that passed an interface.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// When the kernel saw it there.
    pub at: Instant,
    /// Whether it left by the interface (false: it came in).
    pub outgoing: bool,
    /// All of it, Ethernet header first. The checksum of a frame that a stack on this machine sent may be partial, and
    /// it may be longer than the MTU.
    pub bytes: Vec<u8>,
}

/// The addresses of an IPv4 packet and what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Addresses {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Protocol number, e.g. 112 for VRRP.
    pub protocol: u8,
    /// Time to live.
    pub ttl: u8,
}

/// An ARP packet for IPv4 over Ethernet (RFC 826).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Request, reply or something else.
    pub operation: ArpOperation,
    /// Sender hardware address.
    pub sender_mac: Mac,
    /// Sender protocol address.
    pub sender: Ipv4Addr,
    /// Target hardware address.
    pub target_mac: Mac,
    /// Target protocol address.
    pub target: Ipv4Addr,
}

impl Arp {
    /// A gratuitous request, as `arping -U` and keepalived send it.
    pub fn gratuitous_request(mac: Mac, address: Ipv4Addr) -> Self {
        let operation = ArpOperation::REQUEST;
        Self { operation, sender_mac: mac, sender: address, target_mac: Mac::BROADCAST, target: address }
    }

    /// A gratuitous reply, as `arping -A` sends it.
    pub fn gratuitous_reply(mac: Mac, address: Ipv4Addr) -> Self {
        let operation = ArpOperation::REPLY;
        Self { operation, sender_mac: mac, sender: address, target_mac: mac, target: address }
    }

    /// An announcement (RFC 5227 section 2.3): a gratuitous request with an empty target MAC.
    pub fn announcement(mac: Mac, address: Ipv4Addr) -> Self {
        let operation = ArpOperation::REQUEST;
        Self { operation, sender_mac: mac, sender: address, target_mac: Mac::ZERO, target: address }
    }

    /// A probe (RFC 5227 section 2.1.1): asks for an address without naming one as sender.
    pub fn probe(mac: Mac, address: Ipv4Addr) -> Self {
        Self::question(mac, Ipv4Addr::UNSPECIFIED, address)
    }

    /// An ordinary question for `target`.
    pub fn question(mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Self {
        Self { operation: ArpOperation::REQUEST, sender_mac: mac, sender, target_mac: Mac::ZERO, target }
    }

    /// The packet as a frame.
    pub fn frame(&self, source: Mac, destination: Mac) -> Vec<u8> {
        let Self { operation, sender_mac, sender, target_mac, target } = *self;
        let packet = ArpPacket::from(ArpEthIpv4Packet {
            operation,
            sender_mac: sender_mac.0,
            sender_ipv4: sender.octets(),
            target_mac: target_mac.0,
            target_ipv4: target.octets(),
        });
        let header = [destination.0, source.0].concat();
        [&header, EtherType::ARP.0.to_be_bytes().as_slice(), &packet.to_bytes()].concat()
    }
}

/// What a VRRP version 2 advertisement says (RFC 3768 section 5.1) of one address, without authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advert {
    /// VRID.
    pub vrid: u8,
    /// Priority: 1 to 255; 0: the sender resigns.
    pub priority: u8,
    /// Seconds from one to the next.
    pub interval: u8,
    /// The address.
    pub address: Ipv4Addr,
}

impl Advert {
    /// It in a frame to 224.0.0.18, from an address; its own checksum stays empty.
    pub fn frame(&self, source: Mac, from: Ipv4Addr, ttl: u8) -> Result<Vec<u8>> {
        const GROUP: [u8; 4] = [224, 0, 0, 18];
        const GROUP_MAC: [u8; 6] = [0x01, 0x00, 0x5e, 0, 0, 18];
        let Self { vrid, priority, interval, address } = *self;
        // Version 2 and type 1; VRID; priority; one address; no authentication; interval; checksum.
        let header = [0x21, vrid, priority, 1, 0, interval, 0, 0];
        let payload = [header.as_slice(), &address.octets(), &[0; 8]].concat();
        let builder = PacketBuilder::ethernet2(source.0, GROUP_MAC).ipv4(from.octets(), GROUP, ttl);
        let mut frame = Vec::new();
        builder.write(&mut frame, IpNumber::VRRP, &payload).context("cannot build a frame")?;
        Ok(frame)
    }
}

/// An [`Advert`] of priority 200 each second, as a frame.
pub fn vrrp(source: Mac, from: Ipv4Addr, vrid: u8, address: Ipv4Addr, ttl: u8) -> Result<Vec<u8>> {
    Advert { vrid, priority: 200, interval: 1, address }.frame(source, from, ttl)
}

/// A UDP datagram in an Ethernet frame, with complete checksums; TTL 64.
pub fn udp(macs: (Mac, Mac), from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Result<Vec<u8>> {
    let builder = PacketBuilder::ethernet2(macs.0.0, macs.1.0)
        .ipv4(from.0.octets(), to.0.octets(), 64)
        .udp(from.1, to.1);
    let mut frame = Vec::new();
    builder.write_to_vec(&mut frame, payload).context("cannot build a frame")?;
    Ok(frame)
}

/// A TCP segment with ACK and PSH, however long, in an Ethernet frame with complete checksums; TTL 64, sequence number 1.
pub fn tcp(macs: (Mac, Mac), from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Result<Vec<u8>> {
    const WINDOW: u16 = 65_000;
    let builder = PacketBuilder::ethernet2(macs.0.0, macs.1.0)
        .ipv4(from.0.octets(), to.0.octets(), 64)
        .tcp(from.1, to.1, 1, WINDOW)
        .ack(1)
        .psh();
    let mut frame = Vec::new();
    builder.write_to_vec(&mut frame, payload).context("cannot build a frame")?;
    Ok(frame)
}

/// An ICMP echo request in an Ethernet frame; TTL 64.
pub fn echo_request(
    macs: (Mac, Mac),
    from: Ipv4Addr,
    to: Ipv4Addr,
    number: u16,
    payload: &[u8],
) -> Result<Vec<u8>> {
    let builder = PacketBuilder::ethernet2(macs.0.0, macs.1.0)
        .ipv4(from.octets(), to.octets(), 64)
        .icmpv4_echo_request(number, number);
    let mut frame = Vec::new();
    builder.write_to_vec(&mut frame, payload).context("cannot build a frame")?;
    Ok(frame)
}

impl Frame {
    /// Destination MAC; None for less than a header.
    pub fn destination(&self) -> Option<Mac> {
        self.bytes.first_chunk().copied().map(Mac)
    }

    /// Source MAC; None for less than a header.
    pub fn source(&self) -> Option<Mac> {
        self.bytes.get(6..)?.first_chunk().copied().map(Mac)
    }

    /// EtherType, e.g. 0x0806 for ARP; None for less than a header.
    pub fn ether_type(&self) -> Option<u16> {
        self.bytes.get(12..)?.first_chunk().copied().map(u16::from_be_bytes)
    }

    /// Everything that etherparse makes of it, as far as it is well formed.
    pub fn packet(&self) -> Option<LaxSlicedPacket<'_>> {
        LaxSlicedPacket::from_ethernet(&self.bytes).ok()
    }

    /// The ARP packet in it, if it is one for IPv4 over Ethernet.
    pub fn arp(&self) -> Option<Arp> {
        let Some(LaxNetSlice::Arp(arp)) = self.packet()?.net else { return None };
        let arp = arp.to_packet().try_eth_ipv4().ok()?;
        Some(Arp {
            operation: arp.operation,
            sender_mac: Mac(arp.sender_mac),
            sender: arp.sender_ipv4.into(),
            target_mac: Mac(arp.target_mac),
            target: arp.target_ipv4.into(),
        })
    }

    /// The addresses of the IPv4 packet in it.
    pub fn ipv4(&self) -> Option<Ipv4Addresses> {
        let Some(LaxNetSlice::Ipv4(ipv4)) = self.packet()?.net else { return None };
        let header = ipv4.header();
        Some(Ipv4Addresses {
            source: header.source_addr(),
            destination: header.destination_addr(),
            protocol: header.protocol().0,
            ttl: header.ttl(),
        })
    }

    /// Source port, destination port and payload of the UDP datagram in it.
    pub fn udp(&self) -> Option<(u16, u16, &[u8])> {
        let Some(TransportSlice::Udp(udp)) = self.packet()?.transport else { return None };
        Some((udp.source_port(), udp.destination_port(), udp.payload()))
    }

    /// Whether it is an ARP packet that says "`address` is at my MAC" without having been asked: sender and target are
    /// that address.
    pub fn announces(&self, address: Ipv4Addr) -> bool {
        self.arp().is_some_and(|arp| arp.sender == address && arp.target == address)
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = if self.outgoing { "out" } else { "in" };
        write!(f, "{direction}, {} bytes: ", self.bytes.len())?;
        self.bytes.iter().take(96).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 7, 0xf7]);
    const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 246);

    fn frame(bytes: Vec<u8>) -> Frame {
        Frame { at: Instant::now(), outgoing: false, bytes }
    }

    #[test]
    fn a_gratuitous_request_has_the_bytes_of_rfc_826() {
        let bytes = Arp::gratuitous_request(MAC, VIP).frame(MAC, Mac::BROADCAST);
        let ethernet = [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 7, 0xf7, 8, 6];
        let sender = [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 7, 0xf7, 192, 168, 7, 246];
        let target = [255, 255, 255, 255, 255, 255, 192, 168, 7, 246];
        assert_eq!(bytes, [&ethernet[..], &sender, &target].concat());
    }

    #[test]
    fn an_arp_frame_is_taken_apart_as_it_was_built() {
        for arp in [Arp::gratuitous_reply(MAC, VIP), Arp::announcement(MAC, VIP), Arp::probe(MAC, VIP)] {
            let frame = frame(arp.frame(MAC, Mac::BROADCAST));
            assert_eq!(frame.arp(), Some(arp));
            assert_eq!(frame.source(), Some(MAC));
            assert_eq!(frame.destination(), Some(Mac::BROADCAST));
            assert_eq!(frame.ether_type(), Some(0x0806));
            assert_eq!(frame.announces(VIP), !arp.sender.is_unspecified());
        }
    }

    #[test]
    fn a_datagram_shows_its_addresses_and_payload() {
        let from = Ipv4Addr::new(192, 0, 2, 1);
        let frame =
            frame(udp((MAC, Mac::BROADCAST), (from, 1000), (VIP, 2000), b"hello").expect("it is short"));
        let expected = Ipv4Addresses { source: from, destination: VIP, protocol: 17, ttl: 64 };
        assert_eq!(frame.ipv4(), Some(expected));
        assert_eq!(frame.udp(), Some((1000, 2000, b"hello".as_slice())));
        assert_eq!(frame.arp(), None);
    }

    #[test]
    fn a_frame_shorter_than_its_header_has_no_fields() {
        let short = frame(vec![0; 5]);
        assert_eq!((short.destination(), short.source(), short.ether_type()), (None, None, None));
        assert!(short.arp().is_none() && short.ipv4().is_none() && short.udp().is_none());
    }
}
