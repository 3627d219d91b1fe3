//! Telling the sender of a packet why it goes no further: the ICMP errors that the forwarder itself sends, as the router that it is
//! (RFC 792, RFC 1812 §4.3).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{
    network::interface_of_eip,
    packet::{Frame, Ipv4Packet, Packet},
    quote::sum_of,
    tables::Tables,
    verdict::{Decision, Stage},
};
use crate::{
    tables::{ConfigFlags, EipNetwork},
    wire::{Be16, Ethernet, FRAGMENTATION_NEEDED, Header as _, Icmp, IcmpType, Ipv4, Ipv4Header, Protocol},
};

/// Longest error, in bytes of IP (RFC 1812 §4.3.2.3).
const LONGEST: usize = 576;

/// Most bytes of a quote.
const LONGEST_QUOTE: usize = LONGEST - Ipv4Header::LEN - IcmpErrorHeaders::ICMP;

/// No error tells less, whatever an interface takes: every host takes packets of this length (RFC 791 §3.1), and one that believed less
/// would send in crumbs.
const LEAST_MTU: u32 = 576;

/// What stands before the quote of an ICMP error: Ethernet, IPv4, ICMP with the two words behind it. 42 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IcmpErrorHeaders {
    ethernet: Ethernet,
    ip: Ipv4Header,
    icmp: Icmp,
    /// Nothing, and the MTU of the next hop where that is what it is about (RFC 1191 §4).
    rest: [Be16; 2],
}

impl IcmpErrorHeaders {
    /// Their length in bytes.
    pub const LEN: usize = size_of::<Self>();

    /// How far the quoted packet moves back in the frame.
    pub const SHIFT: usize = Self::LEN - Ethernet::LEN;

    /// Bytes of ICMP before the quote.
    const ICMP: usize = 8;
}

/// Tells a guest, as its gateway.
#[inline(never)]
pub(super) fn tell_guest<P: Packet, T: Tables>(packet: &mut P, tables: &T, refusal: Decision) -> Decision {
    let port = tables.port_by_interface(packet.ingress()).and_then(|index| tables.port(index));
    let gateway = port.map_or(Ipv4::UNSPECIFIED, |port| port.gateway);
    tell(packet, tables, refusal, gateway, 0)
}

/// Tells a sender outside, or a guest that sent to an EIP, as the EIP: the forwarder has no other address there.
#[inline(never)]
pub(super) fn tell_outside<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    refusal: Decision,
    stage: Stage,
) -> Decision {
    let Some(config) = tables.config() else { return refusal.untold() };
    let near = packet.near();
    let Some(frame) = packet.header::<Frame>(0) else { return refusal.untold() };
    // What a guest sends to an EIP comes from the uplink's own MAC, and from its own EIP.
    let is_guests = frame.ethernet.source == config.uplink_mac;
    if stage == Stage::Xdp
        && (is_guests
            || near < Ethernet::LEN + frame.ip.total_length()
            || !config.flags.has(ConfigFlags::UPLINK_RETURNS))
    {
        return Decision::LEAVE_TO_TC;
    }
    let eip = frame.ip.destination.get();
    let back = if is_guests { interface_of_eip(tables, config, frame.ip.source.get()) } else { 0 };
    if back == EipNetwork::MISSING {
        return refusal.untold();
    }
    tell(packet, tables, refusal, eip, back)
}

/// Makes the packet the error, from `from` to its source. `ifindex` as in [`Verdict::Tell`](super::Verdict::Tell).
#[inline(always)]
fn tell<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    refusal: Decision,
    from: Ipv4,
    ifindex: u32,
) -> Decision {
    let Ok(ip) = Ipv4Packet::parse(packet) else { return refusal.untold() };
    if from.is_unspecified() || !may_be_told(packet, &ip) || !tables.may_send_error() {
        return refusal.untold();
    }
    let quote = if ip.length() > LONGEST_QUOTE { LONGEST_QUOTE } else { ip.length() };
    let end = Ethernet::LEN + quote;
    if packet.pull(end).is_err() {
        return refusal.untold();
    }
    let Some(sum) = sum_of::<LONGEST_QUOTE, _>(packet, Ethernet::LEN, end) else { return refusal.untold() };
    let Some(frame) = packet.header::<Frame>(0) else { return refusal.untold() };
    let mut headers = IcmpErrorHeaders {
        ethernet: Ethernet {
            destination: frame.ethernet.source,
            source: frame.ethernet.destination,
            ether_type: frame.ethernet.ether_type,
        },
        ip: Ipv4Header::own(Protocol::ICMP, (IcmpErrorHeaders::SHIFT + quote) as u16, from, ip.source),
        icmp: Icmp::new(IcmpType::TIME_EXCEEDED, 0),
        rest: [Be16::new(0); 2],
    };
    if let Some(mtu) = refusal.refused_mtu() {
        let mtu = if mtu < LEAST_MTU { LEAST_MTU } else { mtu };
        headers.icmp = Icmp::new(IcmpType::UNREACHABLE, FRAGMENTATION_NEEDED);
        headers.rest = [Be16::new(0), Be16::new(mtu as u16)];
    }
    let [_, mtu] = headers.rest;
    headers.icmp.checksum = sum.add(headers.icmp.type_code()).add(mtu).checksum();
    match packet.quote(end, &headers) {
        Ok(()) => refusal.told(ifindex),
        Err(_) => refusal.untold(),
    }
}

/// Whether there may be an error about a packet: it comes from one host, starts with its transport header, and is no error itself
/// (RFC 1122 §3.2.2). To groups no refused packet goes.
#[inline(always)]
fn may_be_told<P: Packet>(packet: &mut P, ip: &Ipv4Packet) -> bool {
    if ip.later_fragment || ip.source.is_no_host() {
        return false;
    }
    ip.protocol != Protocol::ICMP
        || ip.transport::<Icmp, _>(packet).is_some_and(|icmp| !IcmpType::is_error(icmp.icmp_type()))
}

const _: () = assert!(IcmpErrorHeaders::LEN == 42);
