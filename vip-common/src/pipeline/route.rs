//! The forwarder as the gateway of a subnet.

use super::{
    claim::present_owner,
    deliver::Receiver,
    guest::{Sender, Source, count_vip},
    packet::{Ipv4Packet, Packet},
    rewrite::{Rewrite, answer_echo, check_translatable},
    tables::Tables,
    verdict::{Decision, attempt},
};
use crate::{
    DropReason,
    tables::{AddressEntry, AddressKind, Config, Direction, RouteEntry, RouteKind, VniAddress},
    wire::{Ipv4, Mac},
};

/// A packet to the gateway's MAC: to another address of the VPC or its peers, or out as the source's EIP.
#[inline(never)]
pub(super) fn routed<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    sender: &Sender<'_>,
    ip: &Ipv4Packet,
    source: Source,
) -> Decision {
    let key = VniAddress { vni: sender.port.vni, address: ip.destination };
    let Some(subnet) = tables.subnet(&key) else {
        if ip.destination.is_never_forwarded() {
            return Decision::drop(DropReason::NoRoute);
        }
        let Some(eip) = source_eip(tables, sender, ip, source) else {
            return Decision::drop(no_route(tables, ip));
        };
        return translated(packet, tables, ip, source, eip);
    };
    let vni = subnet.vni;
    let entry = attempt!(
        tables.address(&VniAddress { vni, address: ip.destination }).ok_or(DropReason::NoSuchAddress)
    );
    // No VIP so far.
    let mut vip = Source::FIXED;
    let receiver = match entry.kind() {
        Some(AddressKind::Fixed(index)) => attempt!(Receiver::port(tables, vni, index)),
        Some(AddressKind::Vip(slot)) => {
            vip = Source::vip(slot);
            let owner = present_owner(tables, slot);
            if owner.port() == sender.index {
                return Decision::drop(DropReason::OwnerLoop);
            }
            attempt!(Receiver::owner(tables, vni, owner))
        }
        Some(AddressKind::Gateway) => {
            attempt!(answer_echo(packet, ip, Mac::of_address(sender.port.gateway)));
            return Decision::RETURN;
        }
        Some(AddressKind::ExternalGateway) => return Decision::drop(DropReason::NoSuchAddress),
        None => return Decision::drop(DropReason::TableInconsistent),
    };
    if receiver.index == sender.index {
        return Decision::drop(DropReason::Reflected);
    }
    if ip.ttl <= 1 {
        return Decision::drop(DropReason::TtlExpired);
    }
    attempt!(Rewrite::routed(ip, receiver.mac, Mac::of_address(receiver.entry.gateway)).apply(packet, ip));
    count_vip(packet, tables, vip, Direction::In);
    count_vip(packet, tables, source, Direction::Out);
    receiver.decision()
}

/// A packet to a router that is not ours: only what needs translation is.
#[inline(never)]
pub(super) fn past_external_router<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    sender: &Sender<'_>,
    ip: &Ipv4Packet,
    source: Source,
) -> Decision {
    let key = VniAddress { vni: sender.port.vni, address: ip.destination };
    if tables.subnet(&key).is_some() {
        return Decision::NOT_OURS;
    }
    if tables.route(ip.destination).is_some_and(|route| route.kind() == RouteKind::Local) {
        return Decision::NOT_OURS;
    }
    match source_eip(tables, sender, ip, source).filter(|_| !ip.destination.is_never_forwarded()) {
        Some(eip) => translated(packet, tables, ip, source, eip),
        None => Decision::NOT_OURS,
    }
}

/// The entry of the source's address, if it has an EIP. A port whose check is off never leaves as somebody else's EIP.
#[inline(always)]
fn source_eip<'t, T: Tables>(
    tables: &'t T,
    sender: &Sender<'_>,
    ip: &Ipv4Packet,
    source: Source,
) -> Option<&'t AddressEntry> {
    if source == Source::FOREIGN {
        return None;
    }
    sender.look_up(tables, ip.source).filter(|entry| !entry.eip.is_unspecified())
}

/// Why a packet that leaves the VPC without an EIP stops.
#[inline(always)]
fn no_route<T: Tables>(tables: &T, ip: &Ipv4Packet) -> DropReason {
    if tables.eip(ip.destination).is_some() { DropReason::Hairpin } else { DropReason::NoRoute }
}

/// SNAT to the EIP, and out of the uplink.
#[inline(never)]
fn translated<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ip: &Ipv4Packet,
    source: Source,
    eip: &AddressEntry,
) -> Decision {
    if tables.eip(ip.destination).is_some() {
        return Decision::drop(DropReason::Hairpin);
    }
    let config = attempt!(tables.config().ok_or(DropReason::TableInconsistent));
    let next_hop = attempt!(next_hop(tables, ip.destination, eip.eip_network));
    attempt!(check_translatable(packet, ip));
    if ip.ttl <= 1 {
        return Decision::drop(DropReason::TtlExpired);
    }
    let (destination_mac, decision) = leave_by(tables, config, next_hop);
    attempt!(
        Rewrite { source: eip.eip, ..Rewrite::routed(ip, destination_mac, config.uplink_mac) }
            .apply(packet, ip)
    );
    tables.count_eip(eip.eip_index, Direction::Out, packet.length());
    count_vip(packet, tables, source, Direction::Out);
    decision
}

/// Address of the neighbour that the packet goes to.
#[inline(always)]
fn next_hop<T: Tables>(tables: &T, destination: Ipv4, eip_network: u16) -> Result<Ipv4, DropReason> {
    let route = tables.route(destination).map(RouteEntry::kind);
    if route == Some(RouteKind::Local) {
        return Err(DropReason::HostAddress);
    }
    if eip_network != 0 {
        let network = tables.network(eip_network).ok_or(DropReason::TableInconsistent)?;
        let next_hop = network.next_hop(destination);
        // Nothing is broadcast to the provider's network.
        return if next_hop.is_last_of(network.mask) { Err(DropReason::NoNextHop) } else { Ok(next_hop) };
    }
    match route {
        Some(RouteKind::Gateway(gateway)) => Ok(gateway),
        Some(RouteKind::OnLink) => Ok(destination),
        _ => Err(DropReason::NoNextHop),
    }
}

/// The neighbour's MAC from NEXTHOPS; the kernel's neighbour table has to find it where that knows none, or where nobody has
/// kept it up to date.
#[inline(always)]
fn leave_by<T: Tables>(tables: &T, config: &Config, next_hop: Ipv4) -> (Mac, Decision) {
    let known = if tables.now() < config.neighbours_until { tables.next_hop(next_hop) } else { None };
    match known {
        Some(neighbour) => (neighbour.mac, Decision::uplink(config.uplink)),
        None => (Mac::ZERO, Decision::resolve(next_hop)),
    }
}
