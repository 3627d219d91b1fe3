//! The forwarder as the gateway of a subnet.

use super::{
    claim::present_owner,
    deliver::Receiver,
    fragments::{Fit, fit},
    guest::{Sender, count_vip},
    network::mtu_of,
    packet::{Ipv4Packet, Packet},
    quote::{eip_of, quoted_destination},
    rewrite::{Translation, answer_echo, check_routable, check_translatable, rewrite},
    source::Source,
    tables::{Tables, VipCell as _},
    verdict::{Decision, attempt},
};
use crate::{
    DropReason,
    tables::{
        AddressKind, Config, Direction, EipNetwork, PortFlags, RouteEntry, SourceEip, SubnetEntry, Target,
        VniAddress, Way,
    },
    wire::{Ipv4, Mac, Protocol},
};

/// A packet to the gateway's MAC: to another address of the VPC or its peers, or out as the source's EIP.
#[inline(never)]
pub(super) fn routed<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    sender: &Sender<T>,
    ip: &Ipv4Packet,
    source: Source,
) -> Decision {
    let key = VniAddress { vni: sender.port.vni, address: ip.destination };
    let Some(subnet) = tables.subnet(&key) else {
        if ip.destination.is_never_forwarded() {
            return Decision::drop(DropReason::NoRoute);
        }
        return match source {
            Source::FIXED | Source::FOREIGN
                if ip.protocol == Protocol::ICMP && sender.has_bypass() && !sender.port.eip.is_some() =>
            {
                error_of_router(packet, tables, sender, ip)
            }
            Source::FOREIGN => Decision::drop(no_route(tables, ip)),
            _ => translated(packet, tables, sender, ip, source),
        };
    };
    let target = attempt!(target_inside(tables, subnet, ip).ok_or(DropReason::NoSuchAddress));
    if let Some(AddressKind::Gateway(_)) = target.kind() {
        attempt!(answer_echo(packet, 0, ip, Mac::of_address(sender.port.gateway)));
        return Decision::RETURN;
    }
    let (receiver, vip) =
        attempt!(receiver_inside(tables, sender.index, VniAddress { vni: subnet.vni, ..key }, target));
    attempt!(check_routable(ip));
    if ip.ttl <= 1 {
        return Decision::refuse(DropReason::TtlExpired);
    }
    let mtu = receiver.entry.mtu;
    let fit = fit(packet, ip, mtu);
    if fit == Fit::TOO_BIG {
        return Decision::too_big(mtu);
    }
    attempt!(receiver.check_way(tables, fit));
    attempt!(rewrite(packet, ip, Translation::None, || receiver.macs()));
    count_vip(packet, tables, vip, Direction::In);
    count_vip(packet, tables, source, Direction::Out);
    receiver.decision_for(fit)
}

/// What a packet's destination is in the VPC of a subnet that it lies in.
#[inline(always)]
pub(super) fn target_inside<T: Tables>(tables: &T, subnet: &SubnetEntry, ip: &Ipv4Packet) -> Option<Target> {
    tables.address(subnet.root, &VniAddress { vni: subnet.vni, address: ip.destination })
}

/// Who receives a packet that port `sender` sent to `target`, which is at `key`, and the VIP that it is for as a source;
/// [`Source::FIXED`] where it is for none.
#[inline(always)]
pub(super) fn receiver_inside<T: Tables>(
    tables: &T,
    sender: u32,
    key: VniAddress,
    target: Target,
) -> Result<(Receiver<T>, Source), DropReason> {
    let mut vip = Source::FIXED;
    let receiver = match target.kind() {
        Some(AddressKind::Fixed(index)) => Receiver::port(tables, key.vni, index)?,
        Some(AddressKind::Vip(slot)) => {
            vip = Source::vip(slot);
            let owner = present_owner(tables, slot);
            if owner.port() == sender {
                return Err(DropReason::OwnerLoop);
            }
            Receiver::owner(tables, key.vni, key.address, owner)?
        }
        Some(AddressKind::Gateway(_) | AddressKind::ExternalGateway(_)) => {
            return Err(DropReason::NoSuchAddress);
        }
        None => return Err(DropReason::TableInconsistent),
    };
    if receiver.index == sender { Err(DropReason::Reflected) } else { Ok((receiver, vip)) }
}

/// A packet to a router that is not ours: only what needs translation is.
#[inline(always)]
pub(super) fn past_external_router<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    sender: &Sender<T>,
    ip: &Ipv4Packet,
    source: Source,
) -> Decision {
    let key = VniAddress { vni: sender.port.vni, address: ip.destination };
    if tables.subnet(&key).is_some() {
        return Decision::NOT_OURS;
    }
    if tables.route(ip.destination).is_some_and(RouteEntry::is_local) {
        return Decision::NOT_OURS;
    }
    if source == Source::FOREIGN || ip.destination.is_never_forwarded() {
        return Decision::NOT_OURS;
    }
    translated(packet, tables, sender, ip, source)
}

/// Why a packet that leaves the VPC without an EIP stops.
#[inline(always)]
pub(super) fn no_route<T: Tables>(tables: &T, ip: &Ipv4Packet) -> DropReason {
    if tables.eip(ip.destination).is_some() { DropReason::Hairpin } else { DropReason::NoRoute }
}

/// SNAT of a packet from the port's fixed address or a VIP to the EIP of that, and out of the uplink. ICMP is counted later, by
/// [`icmp_leaves`](super::quote::icmp_leaves).
#[inline(never)]
fn translated<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    sender: &Sender<T>,
    ip: &Ipv4Packet,
    source: Source,
) -> Decision {
    let Some(slot) = source.as_vip() else {
        let decision = leave(packet, tables, sender, ip, sender.port.eip);
        if decision.is_out() && ip.protocol != Protocol::ICMP {
            tables.count_port(sender.port, Direction::Out, packet.length());
        }
        return decision;
    };
    let vip = attempt!(tables.vip(slot).ok_or(DropReason::TableInconsistent));
    let decision = leave(packet, tables, sender, ip, vip.entry().eip);
    if decision.is_out() && ip.protocol != Protocol::ICMP {
        tables.count_vip(vip, Way::Eip, Direction::Out, packet.length());
    }
    decision
}

/// An ICMP error by a router of the VPC that has no EIP, which may send from an address in no table: it leaves as the EIP of the
/// address that it is about.
#[inline(never)]
fn error_of_router<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    sender: &Sender<T>,
    ip: &Ipv4Packet,
) -> Decision {
    let address = quoted_destination(packet, ip);
    if address.is_unspecified() {
        return Decision::drop(no_route(tables, ip));
    }
    let eip = eip_of(tables, &sender.port, address);
    leave(packet, tables, sender, ip, eip)
}

/// Out of the uplink as an EIP, if there is one.
#[inline(never)]
fn leave<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    sender: &Sender<T>,
    ip: &Ipv4Packet,
    eip: SourceEip,
) -> Decision {
    if !eip.is_some() {
        return if sender.port.flags.has(PortFlags::EXTERNAL_ROUTER) {
            Decision::NOT_OURS
        } else {
            Decision::drop(no_route(tables, ip))
        };
    }
    if tables.vtep(ip.destination).is_some() {
        return Decision::drop(DropReason::VtepAddress);
    }
    let config = attempt!(tables.config().ok_or(DropReason::TableInconsistent));
    // To an EIP of this host: hairpinning (RFC 4787 §6). It comes in again, whatever the routes say, and one hop further.
    let comes_back = tables.eip(ip.destination).is_some();
    let mut next_hop = Ipv4::UNSPECIFIED;
    if !comes_back {
        let route = tables.route(ip.destination).copied().unwrap_or_default();
        if route.is_local() {
            return Decision::drop(DropReason::HostAddress);
        }
        next_hop = next_hop_of(tables, route, ip.destination, eip.network);
        if next_hop.is_unspecified() {
            return Decision::drop(DropReason::NoNextHop);
        }
    }
    attempt!(check_translatable(packet, ip));
    if ip.ttl <= 1 {
        return Decision::refuse(DropReason::TtlExpired);
    }
    let (destination_mac, decision) = if comes_back {
        // How long it may be is seen when it comes in.
        (config.uplink_mac, Decision::come_back(config.uplink))
    } else {
        let mtu = mtu_of(tables, config, eip.network);
        let fragments = match fit(packet, ip, mtu) {
            Fit::TOO_BIG => return Decision::too_big(mtu),
            Fit::IN_FRAGMENTS => mtu,
            _ => 0,
        };
        leave_by(tables, config, next_hop, fragments)
    };
    let macs = || (destination_mac, config.uplink_mac);
    attempt!(rewrite(packet, ip, Translation::Source(eip.address), macs));
    decision
}

/// Address of the neighbour that the packet goes to; unspecified: there is none. An address and no `Option`, whose payload would be
/// an undefined register to the verifier.
#[expect(
    clippy::needless_bitwise_bool,
    reason = "another branch would take stack that Linux 6.1 does not have here"
)]
#[inline(always)]
fn next_hop_of<T: Tables>(tables: &T, route: RouteEntry, destination: Ipv4, eip_network: u16) -> Ipv4 {
    if eip_network != 0 {
        let Some(network) = tables.network(eip_network) else { return Ipv4::UNSPECIFIED };
        let next_hop = network.next_hop(destination);
        // Nothing is broadcast to the provider's network.
        return if next_hop.is_last_of(network.mask) | (network.ifindex == EipNetwork::MISSING) {
            Ipv4::UNSPECIFIED
        } else {
            next_hop
        };
    }
    route.next_hop(destination)
}

/// The neighbour's MAC from NEXTHOPS; the kernel's neighbour table has to find it where that knows none, or where nobody has
/// kept it up to date. A packet in fragments takes what is there, however old: the kernel sends whole packets only, and what it is
/// asked to send too long is lost at the interface, though the neighbour is found for the next one. `fragments`: as in
/// [`Verdict::Uplink`](super::Verdict::Uplink).
#[inline(always)]
fn leave_by<T: Tables>(tables: &T, config: &Config, next_hop: Ipv4, fragments: u32) -> (Mac, Decision) {
    let believed = fragments != 0 || tables.now() < config.neighbours_until;
    let known = if believed { tables.next_hop(next_hop) } else { None };
    match known {
        Some(neighbour) => (neighbour.mac, Decision::uplink(config.uplink, fragments)),
        None => (Mac::ZERO, Decision::resolve(next_hop)),
    }
}
