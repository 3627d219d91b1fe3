//! Frames that reach the uplink: ARP for EIPs, and packets to EIPs.

use super::{
    arp::{ArpFrame, answer, has_impossible_sender},
    claim::present_owner,
    deliver::{Receiver, is_on_this_host},
    packet::{Frame, Ipv4Packet, Packet},
    rewrite::{Rewrite, check_translatable},
    tables::Tables,
    verdict::{Decision, Stage, attempt},
};
use crate::{
    DropReason,
    tables::{Config, ConfigFlags, Direction, EipEntry, PortFlags},
    wire::{ArpOperation, EtherType, Ethernet, Mac},
};

#[inline(always)]
pub(super) fn decide<P: Packet, T: Tables>(packet: &mut P, tables: &T, stage: Stage) -> Decision {
    let Some(config) = tables.config() else { return Decision::NOT_OURS };
    if packet.is_tagged() {
        return Decision::NOT_OURS;
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
    let Some(frame) = packet.header::<Frame>(0) else { return Decision::NOT_OURS };
    if frame.ethernet.destination != config.uplink_mac {
        return Decision::NOT_OURS;
    }
    let Some(eip) = tables.eip(frame.ip.destination.get()) else { return Decision::NOT_OURS };
    let ip = attempt!(Ipv4Packet::parse(packet));
    attempt!(check_translatable(packet, &ip));
    if ip.ttl <= 1 {
        return Decision::drop(DropReason::TtlExpired);
    }
    let receiver = attempt!(receiver_behind(tables, eip));
    if stage == Stage::Xdp && !receiver.entry.flags.has(PortFlags::TAKES_XDP) {
        return Decision::LEAVE_TO_TC;
    }
    let rewrite = Rewrite {
        destination: eip.inner,
        ..Rewrite::routed(&ip, receiver.mac, Mac::of_address(receiver.entry.gateway))
    };
    attempt!(rewrite.apply(packet, &ip));
    let length = packet.length();
    tables.count_eip(eip.index, Direction::In, length);
    if let Some(slot) = eip.target.as_vip() {
        tables.count_vip(slot, Direction::In, length);
    }
    receiver.decision()
}

#[inline(always)]
fn receiver_behind<'t, T: Tables>(tables: &'t T, eip: &EipEntry) -> Result<Receiver<'t>, DropReason> {
    match eip.target.as_vip() {
        Some(slot) => {
            let owner = present_owner(tables, slot);
            Receiver::owner(tables, eip.vni, owner)
        }
        None => Receiver::port(tables, eip.vni, eip.target.as_port().unwrap_or_default()),
    }
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
    let Some(eip) = tables.eip(address) else { return Decision::NOT_OURS };
    let port = match eip.target.as_vip() {
        Some(slot) => present_owner(tables, slot).port(),
        None => eip.target.as_port().unwrap_or_default(),
    };
    if !is_on_this_host(tables, eip.vni, port) {
        return Decision::NOT_OURS;
    }
    if stage == Stage::Xdp && !config.flags.has(ConfigFlags::UPLINK_RETURNS) {
        return Decision::LEAVE_TO_TC;
    }
    answer(packet, &arp, config.uplink_mac)
}
