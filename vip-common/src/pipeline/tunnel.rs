//! Frames to other hosts, through VXLAN (RFC 7348).
//!
//! The headers stand ready in HOSTS; a frame adds its length, its VPC and its flow. The source port is of the flow, so that what is on
//! the way, and network cards, keep its packets in order (RFC 7348 §5). It also tells a frame that a previous owner's host sends on: that
//! has a range of ports of its own, and is never sent on again.

use zerocopy::FromZeros as _;

use super::{
    packet::{EditFailed, Frame, Packet},
    tables::{Tables, members_of},
    verdict::{Decision, Stage, attempt},
};
use crate::{
    DropReason,
    tables::{ConfigFlags, HostEntry},
    wire::{
        Arp, Be16, EtherType, Ethernet, Header as _, Ipv4Header, Outer, Protocol, Udp, VXLAN_PORT, Vxlan,
    },
};

/// First source port of frames that come from their sender's host: the dynamic range (RFC 7348 §5, RFC 6335 §6).
const FRESH: u16 = 49_152;

/// First source port of frames that a previous owner's host sends on. No kernel takes ports from there by itself
/// (`net.ipv4.ip_local_port_range`).
const ONWARD: u16 = 16_384;

/// Bits of a source port that tell the flow.
const FLOW_BITS: u32 = 14;

/// Whether a frame from this source port was sent on by a previous owner's host.
#[inline(always)]
pub(super) const fn was_sent_on(source_port: u16) -> bool {
    source_port >> FLOW_BITS == ONWARD >> FLOW_BITS
}

/// What stands before the frames of one flow to another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelHeaders {
    ethernet: Ethernet,
    ip: Ipv4Header,
    source_port: u16,
    /// Longest IP packet inside, in bytes.
    pub mtu: u16,
    vni: u32,
}

impl TunnelHeaders {
    /// Those of the frame's flow to the host with this index in HOSTS, for what nobody finds a MAC for any more; `None`: there is no way
    /// to it at the moment, or its MAC is not known.
    #[inline(always)]
    pub fn of<P: Packet, T: Tables>(packet: &mut P, tables: &T, host: u32, vni: u32) -> Option<Self> {
        let source_port = FRESH | flow(packet);
        with_mac(tables, host).and_then(|host| Self::to(host, source_port, vni))
    }

    #[inline(always)]
    fn to(host: &HostEntry, source_port: u16, vni: u32) -> Option<Self> {
        if host.next_hop.is_unspecified() {
            return None;
        }
        Some(Self { ethernet: host.ethernet, ip: host.ip, source_port, mtu: host.mtu, vni })
    }

    /// Whether the way to the host takes a frame of `length` bytes. One that the NIC cuts was judged by its parts.
    #[inline(always)]
    fn takes<P: Packet>(&self, packet: &P, length: usize) -> bool {
        self.mtu == 0 || length <= Ethernet::LEN + self.mtu as usize || packet.gso_size() != 0
    }

    /// What stands before a frame of `length` bytes.
    #[inline(always)]
    pub fn outer(&self, length: usize) -> Outer {
        const IP: usize = Outer::LEN - Ethernet::LEN;
        // Of a frame that the NIC cuts (GSO) more than the fields can tell: it fills them in for each part.
        let total_length = Be16::new((IP + length) as u16);
        let mut ip = self.ip;
        ip.set_total_length(total_length);
        Outer {
            ethernet: self.ethernet,
            ip,
            udp: Udp {
                source_port: Be16::new(self.source_port),
                destination_port: Be16::new(VXLAN_PORT),
                length: Be16::new((IP - Ipv4Header::LEN + length) as u16),
                checksum: Be16::new(0),
            },
            vxlan: Vxlan::new(self.vni),
        }
    }
}

/// Puts the frame of a [`Verdict::Members`](super::Verdict::Members) into a tunnel and calls `send` with it and the uplink for every
/// other host that has members of the VIP in `slot`. Of a `sender` on another host, 0, nothing goes further: its own host has seen to
/// that. Hosts without a way are counted.
#[inline(always)]
pub fn for_each_host<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    slot: u32,
    sender: u32,
    mut send: impl FnMut(&mut P, u32),
) -> Result<(), EditFailed> {
    let Some(members) = members_of(tables, slot, sender) else { return Ok(()) };
    let Some(config) = tables.config() else { return Ok(()) };
    if sender == 0 || members.hosts[0] == 0 {
        return Ok(());
    }
    let length = packet.length();
    let source_port = FRESH | flow(packet);
    packet.encapsulate(&Outer::new_zeroed())?;
    for &host in &members.hosts {
        if host == 0 {
            break;
        }
        let entry = with_mac(tables, u32::from(host));
        let Some(headers) = entry.and_then(|entry| TunnelHeaders::to(entry, source_port, members.vni)) else {
            tables.count_drop(DropReason::NoWayToHost.index());
            continue;
        };
        if !headers.takes(packet, length) {
            // No advertisement is so long, with what is behind it.
            tables.count_drop(DropReason::TooBig.index());
            continue;
        }
        *packet.header(0).ok_or(EditFailed)? = headers.outer(length);
        send(packet, config.uplink);
    }
    Ok(())
}

/// Whether frames for a host can be sent. Fragments need the MAC of its next hop `at_once`; for what is whole the kernel finds it.
#[inline(always)]
pub(super) fn has_way<T: Tables>(tables: &T, host: u32, at_once: bool) -> bool {
    tables.host(host).is_some_and(|host| {
        let is_stranger = at_once && host.ethernet.destination.is_zero();
        !host.next_hop.is_unspecified() && !is_stranger
    })
}

/// A host whose MAC, or that of the next hop to it, is known, however old.
#[inline(always)]
fn with_mac<T: Tables>(tables: &T, host: u32) -> Option<&HostEntry> {
    tables.host(host).filter(|host| !host.ethernet.destination.is_zero())
}

/// What of a frame's flow a source port tells: the same for all packets of a flow, and all fragments of a packet.
#[inline(always)]
fn flow<P: Packet>(packet: &mut P) -> u16 {
    const GOLDEN: u32 = 0x9e37_79b1;
    const PORTS: usize = Ethernet::LEN + Ipv4Header::LEN;
    let Some(&mut Frame { ethernet, ip }) = packet.header::<Frame>(0) else { return 0 };
    if ethernet.ether_type != EtherType::IPV4 {
        return 0;
    }
    let mut hash = ip.source.get().raw() ^ ip.destination.get().raw().rotate_left(16);
    if ip.is_plain()
        && !ip.has_more_fragments()
        && matches!(ip.protocol(), Protocol::TCP | Protocol::UDP)
        && let Some(&mut [source, destination]) = packet.header::<[Be16; 2]>(PORTS)
    {
        hash ^= u32::from(source.raw()) << 16 | u32::from(destination.raw());
    }
    (hash.wrapping_mul(GOLDEN) >> (u32::BITS - FLOW_BITS)) as u16
}

/// Where the packet in a frame ends, without the padding behind it. Of other frames than IPv4, only ARP goes to other hosts.
#[inline(always)]
fn end<P: Packet>(packet: &mut P) -> usize {
    match packet.header::<Frame>(0) {
        Some(frame) if frame.ethernet.ether_type == EtherType::IPV4 => {
            Ethernet::LEN + frame.ip.total_length()
        }
        _ => Ethernet::LEN + Arp::LEN,
    }
}

/// Puts the headers before a frame to another host, and sends it.
#[inline(always)]
pub(super) fn send<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    decision: Decision,
    stage: Stage,
) -> Decision {
    let (host, vni) = decision.tunnelled();
    let mut length = packet.length();
    let source_port = FRESH | flow(packet);
    let is_ipv4 = packet.header::<Ethernet>(0).is_some_and(|ethernet| ethernet.ether_type == EtherType::IPV4);
    let entry = if is_ipv4 { tables.host(host) } else { with_mac(tables, host) };
    let Some(headers) = entry.and_then(|entry| TunnelHeaders::to(entry, source_port, vni)) else {
        return Decision::drop(DropReason::NoWayToHost);
    };
    if !headers.takes(packet, length) {
        // The packet itself fits, as was seen to: what does not is behind it.
        length = end(packet);
        if !headers.takes(packet, length) {
            return Decision::drop(DropReason::TooBig);
        }
        attempt!(packet.trim(length).map_err(DropReason::from));
    }
    if packet.encapsulate(&headers.outer(length)).is_err() {
        return Decision::drop(DropReason::EditFailed);
    }
    out(tables, host, stage, is_ipv4)
}

/// Sends a frame with its headers on to a host: its receiver has moved there. What it is in stays, but for who it is from and for.
#[inline(always)]
pub(super) fn send_on<P: Packet, T: Tables>(packet: &mut P, tables: &T, host: u32, stage: Stage) -> Decision {
    redirect(packet, tables, host, stage, ONWARD)
}

/// Sends an answer, which stands in its question's frame, back to the host that asked.
#[inline(always)]
pub(super) fn send_back<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    host: u32,
    stage: Stage,
) -> Decision {
    redirect(packet, tables, host, stage, FRESH)
}

#[inline(always)]
fn redirect<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    host: u32,
    stage: Stage,
    ports: u16,
) -> Decision {
    let Some(entry) = tables.host(host).filter(|entry| !entry.next_hop.is_unspecified()) else {
        return Decision::drop(DropReason::NoWayToHost);
    };
    let Some(outer) = packet.header::<Outer>(0) else { return Decision::drop(DropReason::EditFailed) };
    let total_length = Be16::new(outer.ip.total_length() as u16);
    outer.ethernet = entry.ethernet;
    outer.ip = entry.ip;
    outer.ip.set_total_length(total_length);
    let flow = outer.udp.source_port.get() & ((1 << FLOW_BITS) - 1);
    outer.udp.source_port = Be16::new(ports | flow);
    // None, as in all that is sent from here: the addresses that it would be about are others now.
    outer.udp.checksum = Be16::new(0);
    out(tables, host, stage, true)
}

/// Out of the uplink, to the MAC that is in the frame, or that the kernel finds.
///
/// `can_wait`: whether the kernel can take the frame's headers for what they are. It could not of a frame that is not IPv4 itself, which
/// therefore takes the MAC that is there, however old.
#[inline(always)]
fn out<T: Tables>(tables: &T, host: u32, stage: Stage, can_wait: bool) -> Decision {
    let (Some(config), Some(host)) = (tables.config(), tables.host(host)) else {
        return Decision::drop(DropReason::TableInconsistent);
    };
    match stage {
        // That the MAC is known was seen to before.
        Stage::Xdp => Decision::RETURN,
        Stage::Tc if !can_wait || is_known(tables, host, config.neighbours_until) => {
            Decision::uplink(config.uplink, 0)
        }
        Stage::Tc => Decision::resolve(host.next_hop),
    }
}

/// Whether XDP can send to a host by itself.
#[inline(always)]
pub(super) fn is_in_reach<T: Tables>(tables: &T, host: u32) -> bool {
    let (Some(config), Some(host)) = (tables.config(), tables.host(host)) else { return false };
    config.flags.has(ConfigFlags::UPLINK_RETURNS)
        && !host.next_hop.is_unspecified()
        && is_known(tables, host, config.neighbours_until)
}

#[inline(always)]
fn is_known<T: Tables>(tables: &T, host: &HostEntry, until: u64) -> bool {
    !host.ethernet.destination.is_zero() && tables.now() < until
}
