//! Frames that reach the uplink: ARP for EIPs, and packets to EIPs.

use super::{
    arp::{ArpFrame, answer, has_impossible_sender},
    claim::present_owner_of,
    deliver::Receiver,
    fragments::{Fit, fit},
    network::is_elsewhere,
    overlay,
    packet::{Frame, Ipv4Packet, Packet},
    quote::{Quoted, translate_quote},
    rewrite::{Translation, check_translatable, rewrite},
    tables::{Tables, VipCell as _},
    tunnel::is_in_reach,
    verdict::{Decision, Stage, attempt},
};
use crate::{
    DropReason,
    tables::{AddressKind, Config, ConfigFlags, Direction, PortFlags, Target, Way},
    wire::{ArpOperation, EtherType, Ethernet, Header as _, Ipv4, Ipv4Header, Mac, Protocol, Tcp},
};

#[inline(always)]
pub(super) fn decide<P: Packet, T: Tables>(packet: &mut P, tables: &T, stage: Stage) -> Decision {
    let Some(config) = tables.config() else { return Decision::NOT_OURS };
    if packet.is_tagged() {
        return Decision::NOT_OURS;
    }
    if config.flags.has(ConfigFlags::VLANS) && is_elsewhere(packet, tables, config) {
        return match stage {
            // The NIC may have taken the tag off. TC sees it, and on the VLAN interface the frame without it.
            Stage::Xdp => Decision::LEAVE_TO_TC,
            Stage::Tc => Decision::NOT_OURS,
        };
    }
    let Some(ethernet) = packet.header::<Ethernet>(0) else { return Decision::NOT_OURS };
    match ethernet.ether_type {
        EtherType::IPV4 => packet_to_eip(packet, tables, config, stage),
        EtherType::ARP => question_for_eip(packet, tables, config, stage),
        _ => Decision::NOT_OURS,
    }
}

/// DNAT of a packet to an EIP, and delivery to the port behind it.
#[inline(always)]
fn packet_to_eip<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    config: &Config,
    stage: Stage,
) -> Decision {
    let near = packet.near();
    let Some(mut frame) = packet.header::<Frame>(0) else { return Decision::NOT_OURS };
    if frame.ethernet.destination != config.uplink_mac {
        return Decision::NOT_OURS;
    }
    // Before anything is looked up: TC will do that.
    if stage == Stage::Xdp && config.flags.has(ConfigFlags::TCP_BY_TC) && frame.ip.protocol() == Protocol::TCP
    {
        let ip = frame.ip;
        if continues_tcp(packet, &ip) {
            return Decision::LEAVE_TO_TC;
        }
        let Some(again) = packet.header::<Frame>(0) else { return Decision::NOT_OURS };
        frame = again;
    }
    let destination = frame.ip.destination.get();
    let is_udp = frame.ip.protocol() == Protocol::UDP;
    if is_udp && destination == config.vtep {
        if stage == Stage::Xdp && config.flags.has(ConfigFlags::VLANS) {
            // The NIC may have taken a tag off, which TC sees.
            return Decision::LEAVE_TO_TC;
        }
        // On the VLANs of EIP networks nobody is a host, this one neither. XDP is on the uplink itself.
        return if stage == Stage::Tc && packet.ingress() != config.uplink {
            overlay::passes(packet, tables)
        } else {
            overlay::arrives(packet, tables, stage)
        };
    }
    let Some(target) = tables.eip(destination) else {
        return if is_udp { overlay::passes(packet, tables) } else { Decision::NOT_OURS };
    };
    if frame.ip.is_plain()
        && frame.ip.protocol() != Protocol::ICMP
        && let Ok(ip) = Ipv4Packet::of_plain(&frame.ip, near)
    {
        // Not read again.
        let ip = Ipv4Packet { destination, ..ip };
        to_target(packet, tables, &ip, target, stage, Extent { bytes: near, near: true })
    } else {
        unusual(packet, tables, target, stage)
    }
}

/// How long a frame is, and whether all of it is near.
#[derive(Clone, Copy)]
struct Extent {
    bytes: usize,
    near: bool,
}

/// Most bytes of a packet that translation looks at: the headers, to the end of the transport checksum that is farthest.
const HEADERS: usize = Ipv4Packet::MOST_BEFORE_PAYLOAD + Tcp::LEN;

/// [`to_target`] out of line, for what need not be fast, and for frames that XDP has in several buffers, of which it reaches the first
/// one only.
#[inline(never)]
fn unusual<P: Packet, T: Tables>(packet: &mut P, tables: &T, target: Target, stage: Stage) -> Decision {
    let extent = Extent { bytes: packet.length(), near: packet.near() >= packet.length() };
    let ip = attempt!(Ipv4Packet::parse(packet));
    if stage == Stage::Xdp && !extent.near && (ip.protocol == Protocol::ICMP || packet.near() < HEADERS) {
        // The sum of an ICMP message is over all its bytes.
        return Decision::LEAVE_TO_TC;
    }
    to_target(packet, tables, &ip, target, stage, extent)
}

/// DNAT of a packet to the VIP or port that its EIP leads to, and delivery.
#[inline(always)]
fn to_target<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ip: &Ipv4Packet,
    target: Target,
    stage: Stage,
    extent: Extent,
) -> Decision {
    if ip.source.is_no_host() {
        return Decision::drop(DropReason::MartianSource);
    }
    attempt!(check_translatable(packet, ip));
    if ip.ttl <= 1 {
        return Decision::refuse(DropReason::TtlExpired);
    }
    match target.kind() {
        Some(AddressKind::Vip(slot)) => {
            let vip = attempt!(tables.vip(slot).ok_or(DropReason::TableInconsistent));
            let entry = vip.entry();
            if entry.eip.address != ip.destination {
                return Decision::drop(DropReason::TableInconsistent);
            }
            let owner = present_owner_of(tables, vip, slot);
            let receiver = attempt!(Receiver::owner(tables, entry.vni, entry.address, owner));
            let decision = translate_for(packet, tables, ip, &receiver, entry.address, stage, extent);
            if decision.is_handled() {
                tables.count_vip(vip, Way::Eip, Direction::In, extent.bytes);
            }
            decision
        }
        Some(AddressKind::Fixed(index)) => {
            let port = attempt!(tables.port(index).ok_or(DropReason::TableInconsistent));
            if port.eip.address != ip.destination {
                return Decision::drop(DropReason::TableInconsistent);
            }
            let receiver = attempt!(Receiver::<T>::of(index, port));
            let decision = translate_for(packet, tables, ip, &receiver, port.address, stage, extent);
            if decision.is_handled() {
                tables.count_port(port, Direction::In, extent.bytes);
            }
            decision
        }
        _ => Decision::drop(DropReason::TableInconsistent),
    }
}

/// DNAT of a packet to an address of its receiver, and delivery.
#[inline(always)]
fn translate_for<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ip: &Ipv4Packet,
    receiver: &Receiver<T>,
    address: Ipv4,
    stage: Stage,
    extent: Extent,
) -> Decision {
    if stage == Stage::Xdp && is_out_of_reach(tables, receiver, extent) {
        return Decision::LEAVE_TO_TC;
    }
    let mtu = receiver.entry.mtu;
    let fit = fit(packet, ip, mtu);
    if fit != Fit::WHOLE {
        if fit == Fit::TOO_BIG {
            return Decision::too_big(mtu);
        }
        if stage == Stage::Xdp {
            // It cannot make several packets of one.
            return Decision::LEAVE_TO_TC;
        }
    }
    if stage == Stage::Tc {
        // XDP has asked whether it reaches the host.
        attempt!(receiver.check_way(tables, fit));
    }
    if ip.protocol == Protocol::ICMP {
        attempt!(translate_quote(packet, ip, Quoted::Source, ip.destination, address));
    }
    attempt!(rewrite(packet, ip, Translation::Destination(address), || receiver.macs()));
    receiver.decision_for(fit)
}

/// Whether a TCP segment, of which nothing is checked yet, comes behind the SYN of its direction. One and the same for all segments
/// of a connection that is open, so none of them overtakes another; of a fragmented segment the first may differ, and the rest wait
/// for it at the receiver.
#[inline(always)]
fn continues_tcp<P: Packet>(packet: &mut P, ip: &Ipv4Header) -> bool {
    ip.is_later_fragment()
        || !packet.header::<Tcp>(Ethernet::LEN + ip.header_length()).is_some_and(|tcp| tcp.has_syn())
}

/// Whether XDP cannot reach the receiver: its interface, or the way to its host.
#[inline(always)]
fn is_out_of_reach<T: Tables>(tables: &T, receiver: &Receiver<T>, extent: Extent) -> bool {
    if receiver.is_remote() {
        return !extent.near || !is_in_reach(tables, receiver.entry.ifindex);
    }
    let needed = if extent.near { PortFlags::TAKES_XDP } else { PortFlags::TAKES_XDP_FRAGS };
    !receiver.entry.flags.has(needed)
}

/// Answers an ARP request for an EIP whose owner is on this host; a probe too, which the address must be defended against
/// (RFC 5227 §2.1.1).
#[inline(always)]
fn question_for_eip<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    config: &Config,
    stage: Stage,
) -> Decision {
    if !config.flags.has(ConfigFlags::ANNOUNCE_EIPS) {
        return Decision::NOT_OURS;
    }
    let Some(&mut ArpFrame { ethernet, arp }) = packet.header::<ArpFrame>(0) else {
        return Decision::NOT_OURS;
    };
    let address = arp.target_ip.get();
    let is_question = arp.operation() == Some(ArpOperation::Request)
        && arp.sender_ip.get() != address
        && !has_impossible_sender(&arp)
        && (ethernet.destination == Mac::BROADCAST || ethernet.destination == config.uplink_mac);
    if !is_question {
        return Decision::NOT_OURS;
    }
    let Some(target) = tables.eip(address) else { return Decision::NOT_OURS };
    let is_here = match target.kind() {
        Some(AddressKind::Vip(slot)) => tables.vip(slot).is_some_and(|vip| {
            let owner = present_owner_of(tables, vip, slot);
            let entry = vip.entry();
            Receiver::owner(tables, entry.vni, entry.address, owner).is_ok_and(|owner| !owner.is_remote())
        }),
        Some(AddressKind::Fixed(index)) => tables
            .port(index)
            .is_some_and(|port| Receiver::<T>::of(index, port).is_ok_and(|owner| !owner.is_remote())),
        _ => false,
    };
    if !is_here {
        return Decision::NOT_OURS;
    }
    if stage == Stage::Xdp && !config.flags.has(ConfigFlags::UPLINK_RETURNS) {
        return Decision::LEAVE_TO_TC;
    }
    answer(packet, &arp, config.uplink_mac)
}
