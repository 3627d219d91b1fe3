//! Where EIPs are on the wire: on the uplink, or on a VLAN interface on top of it. The kernel takes tags off and puts them on, so
//! what tells a packet's VLAN is the interface that it came in by, or leaves by.

use super::{
    arp::ArpFrame,
    packet::{Frame, Packet},
    tables::{Tables, VipCell as _},
    verdict::Decision,
};
use crate::{
    DropReason,
    tables::{AddressKind, Config, EipNetwork, SourceEip, Target},
    wire::{EtherType, Ethernet, Ipv4},
};

/// Whether a frame is to, or asks for, an EIP whose network is not where it came in. Before anything else, and by look-ups of its
/// own: hosts without VLANs pay for one test, and the verifier follows what comes next only once.
#[inline(never)]
pub(super) fn is_elsewhere<P: Packet, T: Tables>(packet: &mut P, tables: &T, config: &Config) -> bool {
    let Some(ethernet) = packet.header::<Ethernet>(0) else { return false };
    let address = match ethernet.ether_type {
        EtherType::IPV4 => packet.header::<Frame>(0).map_or(Ipv4::UNSPECIFIED, |it| it.ip.destination.get()),
        EtherType::ARP => packet.header::<ArpFrame>(0).map_or(Ipv4::UNSPECIFIED, |it| it.arp.target_ip.get()),
        _ => return false,
    };
    let Some(target) = tables.eip(address) else { return false };
    interface_of(tables, config, eip_behind(tables, target).network) != packet.ingress()
}

/// Interface that an EIP's network is on: the uplink for an address that is none.
#[inline(always)]
pub(super) fn interface_of_eip<T: Tables>(tables: &T, config: &Config, eip: Ipv4) -> u32 {
    let network = tables.eip(eip).map_or(0, |target| eip_behind(tables, target).network);
    interface_of(tables, config, network)
}

/// Longest IP packet in bytes that leaves for a network; 0: not known.
#[inline(always)]
pub(super) fn mtu_of<T: Tables>(tables: &T, config: &Config, network: u16) -> u32 {
    match tables.network(network).map(|network| network.mtu) {
        Some(mtu) if mtu != 0 => mtu,
        _ => config.uplink_mtu,
    }
}

/// The last step of a packet that leaves as an EIP, which is its source already: out of the interface of that EIP's network, or into
/// that of the EIP that it goes to. A step of its own, at the surface: the way down to where packets leave has no more stack on
/// Linux 6.1.
#[inline(never)]
pub(super) fn leaves<P: Packet, T: Tables>(packet: &mut P, tables: &T, decision: Decision) -> Decision {
    // Before the packet is looked at: else the compiler passes the places of its start and end, which the verifier takes for numbers.
    let Some(config) = tables.config() else { return Decision::drop(DropReason::TableInconsistent) };
    let Some(frame) = packet.header::<Frame>(0) else { return Decision::drop(DropReason::EditFailed) };
    let eip = if decision.comes_back() { frame.ip.destination.get() } else { frame.ip.source.get() };
    let Some(target) = tables.eip(eip) else { return Decision::drop(DropReason::TableInconsistent) };
    let network = eip_behind(tables, target).network;
    let interface = interface_of(tables, config, network);
    if interface == EipNetwork::MISSING {
        return Decision::drop(DropReason::NoNextHop);
    }
    decision.on(interface, network)
}

/// Interface whose neighbours are the next hops of a network.
#[inline(never)]
pub fn neighbours_interface<T: Tables>(tables: &T, network: u16) -> u32 {
    match tables.network(network).map(|network| network.ifindex) {
        Some(ifindex) if ifindex != 0 => ifindex,
        _ => tables.config().map_or(0, |config| config.routed_by),
    }
}

#[inline(always)]
fn interface_of<T: Tables>(tables: &T, config: &Config, network: u16) -> u32 {
    match tables.network(network).map(|network| network.ifindex) {
        Some(ifindex) if ifindex != 0 => ifindex,
        _ => config.uplink,
    }
}

#[inline(always)]
fn eip_behind<T: Tables>(tables: &T, target: Target) -> SourceEip {
    match target.kind() {
        Some(AddressKind::Vip(slot)) => tables.vip(slot).map_or(SourceEip::default(), |vip| vip.entry().eip),
        Some(AddressKind::Fixed(index)) => tables.port(index).map_or(SourceEip::default(), |port| port.eip),
        _ => SourceEip::default(),
    }
}
