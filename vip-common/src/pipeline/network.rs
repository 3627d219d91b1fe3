//! Where EIPs are on the wire: on the uplink, or on a VLAN interface on top of it. The kernel takes tags off and puts them on, so
//! what tells a packet's VLAN is the interface that it came in by, or leaves by.

use super::{
    arp::ArpFrame,
    packet::{Frame, Packet},
    tables::{Tables, VipCell as _},
};
use crate::{
    tables::{AddressKind, Config, SourceEip, Target},
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

/// Interface by which a packet leaves as an EIP of a network: the interface of that network, or of the destination's if this is an
/// EIP of this host, into which the packet comes again. [`MISSING`](crate::tables::EipNetwork::MISSING): there is none at the moment.
#[inline(never)]
pub(super) fn interface_towards<T: Tables>(
    tables: &T,
    config: &Config,
    destination: Ipv4,
    network: u16,
) -> u32 {
    match tables.eip(destination) {
        Some(target) => interface_of(tables, config, eip_behind(tables, target).network),
        None => interface_of(tables, config, network),
    }
}

/// Interface whose neighbours are the next hops of a network.
#[inline(always)]
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
