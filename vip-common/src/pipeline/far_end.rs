//! The gateway of guests whose host has no forwarder, but a bridge and the kernel's own vxlan device.
//!
//! Such a guest asks for its gateway as for everybody else, and each of the other hosts answers with the gateway's constant MAC. What it
//! then sends there comes to one of them through VXLAN, and is routed there as that host's own guests' packets are: checked, inside the
//! VPC and its peers, one hop further. Nothing runs in circles: hosts with a forwarder send nothing to a gateway's MAC, what was sent on
//! is not routed, and what is routed is for another MAC then.

use super::{
    deliver::Receiver,
    guest::is_dhcp_reply,
    overlay::{INNER, Tunnel, is_too_long, obstacle},
    packet::{Frame, Ipv4Packet, Packet},
    rewrite::{answer_echo, check_routable, rewrite_at},
    route::{no_route, receiver_inside, target_inside},
    source::Source,
    tables::Tables,
    tunnel::{is_in_reach, send_back},
    verdict::{Decision, Stage, attempt},
};
use crate::{
    DropReason,
    tables::{AddressKind, Direction, GrantKey, MacKey, PortFlags, Target, VniAddress, Way},
    wire::{Ipv4, Mac, Outer, Vxlan},
};

/// A packet in a tunnel to a MAC that is nobody's: to a gateway's, by one of those guests, or to none.
#[inline(never)]
pub(super) fn routed<P: Packet, T: Tables>(packet: &mut P, tables: &T, tunnel: &Tunnel) -> Decision {
    let Some(&mut Frame { ethernet, ip }) = packet.header::<Frame>(INNER) else {
        return Decision::drop(DropReason::VxlanMalformed);
    };
    let ip = &attempt!(Ipv4Packet::of(&ip, tunnel.length));
    if packet.gso_size() != 0 && ip.end != tunnel.length {
        // Several frames that the NIC has put together.
        return Decision::drop(DropReason::EditFailed);
    }
    let is_gateway = |address| {
        matches!(tunnel.look_up(tables, address).and_then(Target::kind), Some(AddressKind::Gateway(_)))
    };
    if !ethernet.destination.address().is_some_and(is_gateway) {
        return Decision::drop(DropReason::NoSuchAddress);
    }
    if tunnel.sent_on {
        return Decision::drop(DropReason::ForwardedTwice);
    }
    let index = tables.port_by_mac(&MacKey::new(tunnel.vni, ethernet.source));
    let index = attempt!(index.ok_or(DropReason::SourceMac));
    let port = attempt!(tables.port(index).ok_or(DropReason::TableInconsistent));
    let is_there = port.flags.has(PortFlags::REMOTE) && tables.vtep(tunnel.from) == Some(port.ifindex);
    if port.vni != tunnel.vni || !is_there {
        return Decision::drop(DropReason::SourceMac);
    }
    if ethernet.destination != Mac::of_address(port.gateway) {
        return Decision::drop(DropReason::NoSuchAddress);
    }
    let source = attempt!(source_of(tables, tunnel, index, port, ip.source));
    if is_dhcp_reply(packet, INNER, ip) && !port.flags.has(PortFlags::BYPASS) {
        return Decision::drop(DropReason::DhcpServer);
    }
    let key = VniAddress { vni: tunnel.vni, address: ip.destination };
    // Translated to its EIP a guest's packet is by its own host only.
    let subnet = attempt!(tables.subnet(&key).ok_or_else(|| no_route(tables, ip)));
    let target = attempt!(target_inside(tables, subnet, ip).ok_or(DropReason::NoSuchAddress));
    if let Some(AddressKind::Gateway(_)) = target.kind() {
        if tunnel.stage == Stage::Xdp && !is_in_reach(tables, port.ifindex) {
            return Decision::LEAVE_TO_TC;
        }
        attempt!(answer_echo(packet, INNER, ip, ethernet.destination));
        return send_back(packet, tables, port.ifindex, tunnel.stage);
    }
    let key = VniAddress { vni: subnet.vni, ..key };
    let (receiver, vip) = attempt!(receiver_inside(tables, index, key, target));
    attempt!(check_routable(ip));
    if ip.ttl <= 1 {
        return Decision::drop(DropReason::TtlExpired);
    }
    let decision = send(packet, tables, tunnel, &receiver, ip);
    if decision.is_delivery() || decision.is_sent_on() {
        count(tables, vip, Direction::In, tunnel.length);
        count(tables, source, Direction::Out, tunnel.length);
    }
    decision
}

/// The source check of such a guest's packet. Nobody is learned from it: that is what hosts do about their own guests.
#[inline(always)]
fn source_of<T: Tables>(
    tables: &T,
    tunnel: &Tunnel,
    index: u32,
    port: T::Port,
    source: Ipv4,
) -> Result<Source, DropReason> {
    if source == port.address {
        return Ok(Source::FIXED);
    }
    let slot = tunnel.look_up(tables, source).and_then(Target::as_vip);
    let grant = slot.and_then(|slot| tables.grant(&GrantKey { port: index, slot }));
    if let Some(slot) = slot.filter(|_| grant.is_some_and(|grant| grant.rights.may_source())) {
        return Ok(Source::vip(slot));
    }
    if !port.flags.has(PortFlags::BYPASS) {
        Err(DropReason::SourceAddress)
    } else if tables.vtep(source).is_some() {
        Err(DropReason::VtepAddress)
    } else {
        Ok(Source::FOREIGN)
    }
}

/// Routes a packet, still in its tunnel, and sends it to its receiver, here or on any other host.
#[inline(always)]
fn send<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    tunnel: &Tunnel,
    receiver: &Receiver<T>,
    ip: &Ipv4Packet,
) -> Decision {
    if receiver.is_remote() {
        if is_too_long(packet, receiver, Some(ip)) {
            return Decision::drop(DropReason::TooBig);
        }
        let host = receiver.entry.ifindex;
        if tunnel.stage == Stage::Xdp && !is_in_reach(tables, host) {
            return Decision::LEAVE_TO_TC;
        }
        attempt!(rewrite_at(packet, INNER, receiver.macs()));
        let Some(outer) = packet.header::<Outer>(0) else { return Decision::drop(DropReason::EditFailed) };
        outer.vxlan = Vxlan::new(receiver.entry.vni);
        // As fresh as if its own host had routed it.
        return send_back(packet, tables, host, tunnel.stage);
    }
    if let Some(obstacle) = obstacle(packet, tunnel, receiver, Some(ip)) {
        return obstacle;
    }
    // First: where a NIC has summed the whole frame up, the kernel takes the tunnel's headers out of its sum as they came.
    attempt!(packet.decapsulate().map_err(DropReason::from));
    attempt!(rewrite_at(packet, 0, receiver.macs()));
    receiver.decision()
}

#[inline(always)]
fn count<T: Tables>(tables: &T, vip: Source, direction: Direction, bytes: usize) {
    if let Some(vip) = vip.as_vip().and_then(|slot| tables.vip(slot)) {
        tables.count_vip(vip, Way::Inside, direction, bytes);
    }
}
