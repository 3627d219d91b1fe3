//! Frames that a guest sends.

use super::{
    advert::Advertised,
    arp::{self, ArpFrame},
    claim::present_owner,
    deliver::Receiver,
    fragments::{Fit, fit},
    packet::{Frame, Ipv4Packet, Packet},
    quote::within,
    rewrite::{answer_echo, switch},
    route,
    source::{Source, check_source},
    tables::Tables,
    verdict::{Decision, attempt},
};
use crate::{
    DropReason,
    tables::{AddressKind, Direction, GrantKey, MacKey, OwnerWord, PortFlags, Target, VniAddress, Way},
    wire::{
        EtherType, Ethernet, Header as _, Ipv4, Mac, Protocol, Udp, VRRP_GROUP, VRRP_TTL, Vrrp, WireIpv4,
    },
};

/// The port that sends, and what of its frame every stage needs.
pub(super) struct Sender<T: Tables> {
    pub(super) index: u32,
    pub(super) port: T::Port,
    /// Ethernet source: the port's MAC or a virtual router MAC that it may use.
    pub(super) mac: Mac,
    /// Ethernet destination.
    pub(super) to: Mac,
}

impl<T: Tables> Sender<T> {
    #[inline(always)]
    pub(super) fn has_bypass(&self) -> bool {
        self.port.flags.has(PortFlags::BYPASS)
    }

    /// Whether the address lies in the port's subnet.
    #[inline(always)]
    pub(super) fn is_neighbour(&self, address: Ipv4) -> bool {
        (address.raw() ^ self.port.address.raw()) & self.port.mask.raw() == 0
    }

    /// What the address is in the sender's VPC.
    #[inline(always)]
    pub(super) fn look_up(&self, tables: &T, address: Ipv4) -> Option<Target> {
        tables.address(self.port.root, &VniAddress { vni: self.port.vni, address })
    }

    /// VRID behind a MAC that the port may use as its own: 0 for its own MAC, `None` for somebody else's.
    #[inline(always)]
    pub(super) fn vrid_of(&self, mac: Mac) -> Option<u8> {
        if mac == self.port.mac {
            return Some(0);
        }
        mac.vrid().filter(|vrid| self.port.vrids.contains(*vrid))
    }
}

#[inline(always)]
pub(super) fn decide<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Decision {
    let Some(index) = tables.port_by_interface(packet.ingress()) else { return Decision::NOT_OURS };
    let Some(port) = tables.port(index) else { return Decision::drop(DropReason::TableInconsistent) };
    if port.vni == 0 {
        return Decision::drop(DropReason::TableInconsistent);
    }
    let Some(&mut ethernet) = packet.header::<Ethernet>(0) else {
        return Decision::drop(DropReason::FrameTruncated);
    };
    let sender = Sender { index, port, mac: ethernet.source, to: ethernet.destination };
    if packet.is_tagged() {
        let decision = tagged(&sender);
        return if decision == Decision::NOT_OURS { leave_alone(packet, tables) } else { decision };
    }
    if sender.vrid_of(sender.mac).is_none() {
        return Decision::drop(DropReason::SourceMac);
    }
    match ethernet.ether_type {
        EtherType::IPV4 => {
            let decision = ipv4(packet, tables, &sender);
            if decision == Decision::NOT_OURS { leave_alone(packet, tables) } else { decision }
        }
        EtherType::ARP => arp::decide(packet, tables, &sender),
        // The kernel takes the outer tag out of the bytes. One that is still there stands inside a tag with VLAN 0, and bridges and
        // guests take both for nothing: what comes next would pass unchecked.
        EtherType::VLAN | EtherType::PROVIDER_VLAN => Decision::drop(DropReason::NestedTag),
        _ => Decision::NOT_OURS,
    }
}

/// A frame that is for the host's own bridge or stack: not to a VTEP, though, nor from one, whatever tags it has. A bridge takes the outer
/// tag off where the VLAN leaves untagged, and what is inside is then a frame of the underlay.
#[inline(never)]
pub(super) fn leave_alone<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Decision {
    // Before the packet is looked at: else the compiler passes the places of its start and end, which the verifier takes for numbers.
    if tables.config().is_none_or(|config| config.vtep.is_unspecified()) {
        return Decision::NOT_OURS;
    }
    let Some(ethernet) = packet.header::<Ethernet>(0) else { return Decision::NOT_OURS };
    if matches!(ethernet.ether_type, EtherType::VLAN | EtherType::PROVIDER_VLAN) {
        // The outer tag is beside the bytes: this is the second one.
        names_vtep(packet, tables, VLAN_TAG)
    } else {
        names_vtep(packet, tables, 0)
    }
}

/// Bytes of a VLAN tag (IEEE 802.1Q §9.6).
const VLAN_TAG: usize = 4;

/// Refuses a frame to or from a VTEP, whose EtherType is so many bytes behind its usual place.
#[inline(always)]
fn names_vtep<P: Packet, T: Tables>(packet: &mut P, tables: &T, behind: usize) -> Decision {
    let Some(&mut Ethernet { ether_type, .. }) = packet.header::<Ethernet>(behind) else {
        return Decision::NOT_OURS;
    };
    let is_named = match ether_type {
        EtherType::IPV4 => packet.header::<Frame>(behind).is_some_and(|&mut Frame { ip, .. }| {
            tables.vtep(ip.destination.get()).is_some() || tables.vtep(ip.source.get()).is_some()
        }),
        EtherType::ARP => packet
            .header::<ArpFrame>(behind)
            .is_some_and(|&mut ArpFrame { arp, .. }| tables.vtep(arp.sender_ip.get()).is_some()),
        EtherType::VLAN | EtherType::PROVIDER_VLAN => return Decision::drop(DropReason::NestedTag),
        _ => false,
    };
    if is_named { Decision::drop(DropReason::VtepAddress) } else { Decision::NOT_OURS }
}

/// A frame of another VLAN than the port's. If other ports have VLAN interfaces on its own, what it may say is judged there. Out of
/// line: the way on has no more stack on Linux 6.1.
#[inline(never)]
fn tagged<T: Tables>(sender: &Sender<T>) -> Decision {
    if sender.port.flags.has(PortFlags::TRUNK) || sender.vrid_of(sender.mac).is_some() {
        Decision::NOT_OURS
    } else {
        Decision::drop(DropReason::SourceMac)
    }
}

#[inline(always)]
fn ipv4<P: Packet, T: Tables>(packet: &mut P, tables: &T, sender: &Sender<T>) -> Decision {
    let ip = attempt!(Ipv4Packet::parse(packet));
    let manages_groups = ip.protocol == Protocol::IGMP && ip.destination.is_multicast();
    if manages_groups || is_dhcp_request(packet, &ip) {
        return Decision::NOT_OURS;
    }
    let source = attempt!(check_source(tables, sender, &ip));
    if source == Source::FOREIGN && tables.vtep(ip.source).is_some() {
        return Decision::drop(DropReason::VtepAddress);
    }
    if is_dhcp_reply(packet, 0, &ip) && !sender.has_bypass() {
        return Decision::drop(DropReason::DhcpServer);
    }
    if ip.protocol == Protocol::VRRP && ip.destination == VRRP_GROUP {
        return advertisement(packet, tables, sender, &ip, source);
    }
    if sender.to.is_multicast() || ip.destination.is_multicast() || ip.destination == Ipv4::BROADCAST {
        return Decision::NOT_OURS;
    }
    if sender.to == Mac::of_address(sender.port.gateway) && !sender.port.flags.has(PortFlags::EXTERNAL_ROUTER)
    {
        return route::routed(packet, tables, sender, &ip, source);
    }
    match sender.look_up(tables, ip.destination) {
        Some(target) if sender.is_neighbour(ip.destination) => {
            switched(packet, tables, sender, &ip, source, target)
        }
        _ => by_mac(packet, tables, sender, &ip, source),
    }
}

/// A client without an address asks for one (RFC 2131 §4.1): always allowed.
#[inline(always)]
fn is_dhcp_request<P: Packet>(packet: &mut P, ip: &Ipv4Packet) -> bool {
    ip.source.is_unspecified() && is_udp_between(packet, 0, ip, 68, 67)
}

/// A server gives an address to a client. `base`: where the frame begins in the packet.
#[inline(always)]
pub(super) fn is_dhcp_reply<P: Packet>(packet: &mut P, base: usize, ip: &Ipv4Packet) -> bool {
    is_udp_between(packet, base, ip, 67, 68)
}

#[inline(always)]
fn is_udp_between<P: Packet>(
    packet: &mut P,
    base: usize,
    ip: &Ipv4Packet,
    source: u16,
    destination: u16,
) -> bool {
    ip.protocol == Protocol::UDP
        && ip
            .transport_at::<Udp, _>(packet, base)
            .is_some_and(|udp| udp.source_port.get() == source && udp.destination_port.get() == destination)
}

/// Addresses of an advertisement that are looked at for a VIP of the tables: the others belong to the same virtual router.
const ADVERTISED: usize = 8;

/// A VRRP advertisement: to the members of the VIP that it names, unchanged, and nowhere else. It comes from its sender's primary address
/// (RFC 9568 §5.1.1.1), by which other hosts know whose it is.
#[inline(never)]
fn advertisement<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    sender: &Sender<T>,
    ip: &Ipv4Packet,
    source: Source,
) -> Decision {
    let look_up = |address| sender.look_up(tables, address);
    let Some((slot, vrrp)) = attempt!(advertised_vip(packet, 0, ip, look_up)) else {
        return Decision::NOT_OURS;
    };
    if source != Source::FIXED || !may_advertise(tables, sender.index, slot) {
        return Decision::drop(DropReason::VrrpNotMember);
    }
    remember(tables, slot, sender.index, ip.source, &vrrp);
    Decision::members(slot, sender.index)
}

/// Whether the members of the VIP in `slot` hear advertisements of this port.
#[inline(always)]
pub(super) fn may_advertise<T: Tables>(tables: &T, port: u32, slot: u32) -> bool {
    tables.grant(&GrantKey { port, slot }).is_some_and(|grant| grant.rights.may_own())
}

/// Remembers who takes itself for the master.
#[inline(always)]
pub(super) fn remember<T: Tables>(tables: &T, slot: u32, port: u32, address: Ipv4, vrrp: &Vrrp) {
    tables.advertised(&Advertised {
        slot,
        port,
        address,
        interval: vrrp.interval(),
        vrid: vrrp.vrid(),
        priority: vrrp.priority(),
    });
}

/// The slot of the first VIP that an advertisement names, and what it says: the sender's host and the others go by the same one. `base`:
/// where the frame begins in the packet.
#[inline(always)]
pub(super) fn advertised_vip<P: Packet>(
    packet: &mut P,
    base: usize,
    ip: &Ipv4Packet,
    look_up: impl Fn(Ipv4) -> Option<Target>,
) -> Result<Option<(u32, Vrrp)>, DropReason> {
    let payload = within(base + ip.payload);
    if ip.later_fragment || ip.payload + Vrrp::LEN > ip.end {
        return Err(DropReason::FrameTruncated);
    }
    let Some(&mut vrrp) = packet.header::<Vrrp>(payload) else {
        return Err(DropReason::FrameTruncated);
    };
    if ip.ttl != VRRP_TTL {
        return Err(DropReason::VrrpTtl);
    }
    if vrrp.packet_type() != Vrrp::ADVERTISEMENT {
        return Err(DropReason::VrrpNotMember);
    }
    if ip.payload + Vrrp::LEN + usize::from(vrrp.address_count()) * WireIpv4::LEN > ip.end {
        return Err(DropReason::FrameTruncated);
    }
    for number in 0..ADVERTISED {
        if number >= usize::from(vrrp.address_count()) {
            break;
        }
        let offset = payload + Vrrp::LEN + number * WireIpv4::LEN;
        let Some(address) = packet.header::<WireIpv4>(offset) else { break };
        if let Some(slot) = look_up(address.get()).and_then(Target::as_vip) {
            return Ok(Some((slot, vrrp)));
        }
    }
    Ok(None)
}

/// A packet to an address of the sender's own subnet that the tables know.
#[inline(always)]
fn switched<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    sender: &Sender<T>,
    ip: &Ipv4Packet,
    source: Source,
    target: Target,
) -> Decision {
    match target.kind() {
        Some(AddressKind::Vip(slot)) => to_vip(packet, tables, sender, ip, source, slot),
        Some(AddressKind::Fixed(index)) => {
            if tables.port(index).is_some_and(|port| port.mac == sender.to) {
                let receiver = attempt!(Receiver::port(tables, sender.port.vni, index));
                return deliver(packet, tables, sender, ip, source, &receiver);
            }
            by_mac(packet, tables, sender, ip, source)
        }
        // Behind a port's MAC there is that port, not the gateway.
        Some(AddressKind::Gateway(_))
            if tables.port_by_mac(&MacKey::new(sender.port.vni, sender.to)).is_none() =>
        {
            attempt!(answer_echo(packet, 0, ip, Mac::of_address(ip.destination)));
            Decision::RETURN
        }
        Some(AddressKind::Gateway(_) | AddressKind::ExternalGateway(_)) => {
            by_mac(packet, tables, sender, ip, source)
        }
        None => Decision::drop(DropReason::TableInconsistent),
    }
}

/// A packet to a VIP of the sender's subnet (LVS-DR included): the destination MAC decides for the owner's own packets and for
/// real servers, else the owner receives it.
#[inline(never)]
fn to_vip<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    sender: &Sender<T>,
    ip: &Ipv4Packet,
    source: Source,
    slot: u32,
) -> Decision {
    let owner = present_owner(tables, slot);
    let from_owner = owner.port() == sender.index;
    if from_owner && (sender.to == Mac::of_address(ip.destination) || sender.vrid_of(sender.to).is_some()) {
        return Decision::drop(DropReason::OwnerLoop);
    }
    if let Some(index) = tables.port_by_mac(&MacKey::new(sender.port.vni, sender.to)) {
        let port = attempt!(tables.port(index).ok_or(DropReason::TableInconsistent));
        let rights =
            tables.grant(&GrantKey { port: index, slot }).map(|grant| grant.rights).unwrap_or_default();
        let chosen = if from_owner {
            rights.may_source() || port.flags.has(PortFlags::BYPASS)
        } else {
            rights.is_real_server()
        };
        if chosen && port.subnet == sender.port.subnet {
            let receiver = attempt!(Receiver::port(tables, sender.port.vni, index));
            return deliver(packet, tables, sender, ip, source, &receiver);
        }
        if from_owner {
            return Decision::drop(DropReason::DestinationNotOwn);
        }
    } else if from_owner {
        if source == Source::FOREIGN && !sender.has_bypass() {
            return Decision::drop(DropReason::SourceAddress);
        }
        // The director of a real server that is not in the tables: a bridge may know it.
        return Decision::NOT_OURS;
    }
    let receiver = attempt!(Receiver::owner(tables, sender.port.vni, ip.destination, owner));
    let decision = deliver(packet, tables, sender, ip, source, &receiver);
    if decision.is_handled() {
        count_vip(packet, tables, Source::vip(slot), Direction::In);
    }
    decision
}

/// A packet whose address does not lead to its receiver: its MAC may.
#[inline(never)]
fn by_mac<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    sender: &Sender<T>,
    ip: &Ipv4Packet,
    source: Source,
) -> Decision {
    let vni = sender.port.vni;
    if let Some(index) = tables.port_by_mac(&MacKey::new(vni, sender.to)) {
        let receiver = attempt!(Receiver::port(tables, vni, index));
        return to_bypass(packet, tables, sender, ip, source, &receiver);
    }
    if let Some(address) = sender.to.address()
        && let Some(AddressKind::Vip(slot)) = sender.look_up(tables, address).and_then(Target::kind)
    {
        // The VIP as a next hop: its owner routes, for which its own check must be off.
        let owner: OwnerWord = present_owner(tables, slot);
        let receiver = attempt!(Receiver::owner(tables, vni, address, owner));
        return to_bypass(packet, tables, sender, ip, source, &receiver);
    }
    if sender.port.flags.has(PortFlags::EXTERNAL_ROUTER) && !sender.is_neighbour(ip.destination) {
        return route::past_external_router(packet, tables, sender, ip, source);
    }
    Decision::NOT_OURS
}

/// Frames to the MAC of a port whose check is off go there whatever their address; others get their own only.
#[inline(always)]
fn to_bypass<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    sender: &Sender<T>,
    ip: &Ipv4Packet,
    source: Source,
    receiver: &Receiver<T>,
) -> Decision {
    if receiver.entry.subnet != sender.port.subnet || !receiver.entry.flags.has(PortFlags::BYPASS) {
        return Decision::drop(DropReason::DestinationNotOwn);
    }
    deliver(packet, tables, sender, ip, source, receiver)
}

/// Delivery inside the subnet.
#[inline(always)]
fn deliver<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    sender: &Sender<T>,
    ip: &Ipv4Packet,
    source: Source,
    receiver: &Receiver<T>,
) -> Decision {
    if receiver.index == sender.index {
        return Decision::drop(DropReason::Reflected);
    }
    let mut fitting = Fit::WHOLE;
    if receiver.is_remote() {
        // The guest takes its link for longer than the way between the hosts is.
        fitting = fit(packet, ip, receiver.entry.mtu);
        if fitting == Fit::TOO_BIG {
            return Decision::too_big(receiver.entry.mtu);
        }
    }
    attempt!(receiver.check_way(tables, fitting));
    attempt!(switch(packet, receiver.mac()));
    count_vip(packet, tables, source, Direction::Out);
    receiver.decision_for(fitting)
}

/// Counts a frame from, or to, a VIP inside the VPC.
#[inline(always)]
pub(super) fn count_vip<P: Packet, T: Tables>(packet: &P, tables: &T, vip: Source, direction: Direction) {
    if let Some(vip) = vip.as_vip().and_then(|slot| tables.vip(slot)) {
        tables.count_vip(vip, Way::Inside, direction, packet.length());
    }
}
