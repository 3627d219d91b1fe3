//! Where EIPs are on the wire: on the uplink, or on a VLAN interface on top of it. The kernel takes tags off and puts them on, so
//! what tells a packet's VLAN is the interface that it came in by, or leaves by.

use super::tables::{Tables, VipCell as _};
use crate::{
    tables::{AddressKind, Config, SourceEip, Target},
    wire::Ipv4,
};

/// Whether packets to the EIP behind a target come in by another interface than this one.
#[inline(never)]
pub(super) fn is_elsewhere<T: Tables>(tables: &T, config: &Config, target: Target, ingress: u32) -> bool {
    interface_of(tables, config, eip_behind(tables, target).network) != ingress
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
