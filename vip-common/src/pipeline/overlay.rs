//! Frames from other hosts, through VXLAN (RFC 7348).
//!
//! The sender's host has checked and translated what is inside, and says by its destination MAC who is meant: the constant MAC of a VIP
//! its owner, whoever that is by now, any other MAC that port. What is decided here is who receives it. A receiver that has moved to
//! another host gets it from here, once: a frame that was sent on already is not sent on again. Nobody's word counts here for who has an
//! address: a claim takes effect on the claimant's own host, which tells the others.
//!
//! Everything is decided before the tunnel's headers come off, so that TC finds what XDP leaves to it as it came.

use super::{
    arp::{answer_at, has_impossible_sender},
    claim::present_owner,
    deliver::Receiver,
    far_end,
    guest::{advertised_vip, may_advertise, remember},
    packet::{Frame, Ipv4Packet, Packet},
    rewrite::switch,
    tables::Tables,
    tunnel::{is_in_reach, send_back, send_on, was_sent_on},
    verdict::{Decision, Stage, attempt},
};
use crate::{
    DropReason,
    tables::{AddressKind, Direction, GrantKey, MacKey, PortFlags, Target, VniAddress, Way},
    wire::{
        Arp, ArpOperation, EtherType, Ethernet, Header as _, Ipv4, Mac, Outer, Protocol, VRRP_GROUP,
        VXLAN_PORT,
    },
};

/// Where the frame inside begins.
pub(super) const INNER: usize = Outer::LEN;

/// A frame to a MAC that nobody has.
const NOBODY: Decision = Decision::drop(DropReason::NoSuchAddress);

/// What of the headers outside is needed inside.
#[derive(Clone, Copy)]
pub(super) struct Tunnel {
    pub(super) vni: u32,
    /// Root page of the VPC's addresses.
    pub(super) root: u32,
    /// The sender's VTEP.
    pub(super) from: Ipv4,
    /// Bytes of the frame inside.
    pub(super) length: usize,
    pub(super) sent_on: bool,
    pub(super) stage: Stage,
}

impl Tunnel {
    #[inline(always)]
    pub(super) fn look_up<T: Tables>(&self, tables: &T, address: Ipv4) -> Option<Target> {
        tables.address(self.root, &VniAddress { vni: self.vni, address })
    }
}

/// UDP to this host's VTEP: a frame of a VPC, or somebody else's.
#[inline(never)]
pub(super) fn arrives<P: Packet, T: Tables>(packet: &mut P, tables: &T, stage: Stage) -> Decision {
    // Before the packet is looked at: see `passes`.
    let Some(config) = tables.config() else { return Decision::NOT_OURS };
    let (near, whole, gso_size) = (packet.near(), packet.length(), packet.gso_size());
    // Referred to, not copied: Linux 6.1 has no stack for it.
    let Some(outer) = packet.header::<Outer>(0) else { return Decision::NOT_OURS };
    if !outer.ip.is_plain() || outer.udp.destination_port.get() != VXLAN_PORT {
        return Decision::NOT_OURS;
    }
    let vni = outer.vxlan.vni();
    let Some(entry) = tables.vni(vni) else { return Decision::NOT_OURS };
    let from = outer.ip.source.get();
    if from == config.vtep || tables.vtep(from).is_none() {
        return Decision::drop(DropReason::VtepUnknown);
    }
    let Ok(ip) = Ipv4Packet::of_plain(&outer.ip, whole) else {
        return Decision::drop(DropReason::VxlanMalformed);
    };
    // Of a frame that the NIC has put together (GRO), or its sender left whole (GSO), the length outside may be of one part.
    let length = if gso_size == 0 { ip.end } else { whole };
    let agrees = gso_size != 0 || usize::from(outer.udp.length.get()) == ip.end - ip.payload;
    if !agrees || outer.ip.has_more_fragments() || length < INNER + Ethernet::LEN {
        return Decision::drop(DropReason::VxlanMalformed);
    }
    if stage == Stage::Xdp && near < length && near < INNER + Ipv4Packet::MOST_BEFORE_PAYLOAD {
        return Decision::LEAVE_TO_TC;
    }
    let tunnel = Tunnel {
        vni,
        root: entry.root,
        from,
        length: length - INNER,
        sent_on: was_sent_on(outer.udp.source_port.get()),
        stage,
    };
    let Some(&mut ethernet) = packet.header::<Ethernet>(INNER) else {
        return Decision::drop(DropReason::VxlanMalformed);
    };
    match ethernet.ether_type {
        EtherType::IPV4 if ethernet.destination.is_multicast() || is_advertisement(packet) => {
            group(packet, tables, &tunnel)
        }
        EtherType::IPV4 => match ipv4(packet, tables, &tunnel, &ethernet) {
            // Perhaps a gateway's MAC. From here, because from further down Linux 6.1 has no stack for it.
            NOBODY => far_end::routed(packet, tables, &tunnel),
            decision => decision,
        },
        EtherType::ARP => arp(packet, tables, &tunnel, &ethernet),
        _ => Decision::drop(DropReason::OverlayType),
    }
}

/// UDP to the uplink's MAC, and to an address that is neither an EIP nor, where it comes in, this host's VTEP: not VXLAN of a VPC.
#[inline(never)]
pub(super) fn passes<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Decision {
    // Before the packet is looked at: else the compiler passes the places of its start and end, which the verifier takes for numbers.
    if tables.config().is_none_or(|config| config.vtep.is_unspecified()) {
        return Decision::NOT_OURS;
    }
    match packet.header::<Outer>(0) {
        Some(outer)
            if outer.ip.is_plain()
                && outer.udp.destination_port.get() == VXLAN_PORT
                && tables.vni(outer.vxlan.vni()).is_some() =>
        {
            Decision::drop(DropReason::VtepNotOurs)
        }
        _ => Decision::NOT_OURS,
    }
}

#[inline(never)]
fn ipv4<P: Packet, T: Tables>(packet: &mut P, tables: &T, tunnel: &Tunnel, ethernet: &Ethernet) -> Decision {
    let Some(&mut Frame { ip, .. }) = packet.header::<Frame>(INNER) else {
        return Decision::drop(DropReason::VxlanMalformed);
    };
    let ip = attempt!(Ipv4Packet::of(&ip, tunnel.length));
    let (receiver, slot) = attempt!(receiver_of(tables, tunnel, ethernet.destination, ip.destination));
    if slot.as_vip().is_none() && is_at_sender(tables, tunnel, &receiver) {
        return Decision::drop(DropReason::BackToSender);
    }
    let decision = hand_over(packet, tables, tunnel, &receiver, Some(&ip));
    if let Some(vip) = slot.as_vip().and_then(|slot| tables.vip(slot)) {
        // Nothing changes in between that would have to be looked at first.
        if decision.is_delivery() {
            tables.count_vip(vip, Way::Inside, Direction::In, tunnel.length);
        } else if decision.is_sent_on() {
            tables.count_vip(vip, Way::Onward, Direction::In, tunnel.length);
        }
    }
    decision
}

/// Who receives a packet, and what its MAC names: the VIP whose owner that is, or the port.
#[inline(always)]
fn receiver_of<T: Tables>(
    tables: &T,
    tunnel: &Tunnel,
    mac: Mac,
    destination: Ipv4,
) -> Result<(Receiver<T>, Target), DropReason> {
    if let Some(address) = mac.address() {
        let slot =
            tunnel.look_up(tables, address).and_then(Target::as_vip).ok_or(DropReason::NoSuchAddress)?;
        let owner = present_owner(tables, slot);
        let receiver = Receiver::owner(tables, tunnel.vni, address, owner)?;
        // The VIP as a next hop: its owner routes, for which its own check must be off.
        if destination != address && !receiver.entry.flags.has(PortFlags::BYPASS) {
            return Err(DropReason::DestinationNotOwn);
        }
        return Ok((receiver, Target::vip(slot)));
    }
    let index = tables.port_by_mac(&MacKey::new(tunnel.vni, mac)).ok_or(DropReason::NoSuchAddress)?;
    let receiver = Receiver::port(tables, tunnel.vni, index)?;
    if destination != receiver.entry.address && !receiver.entry.flags.has(PortFlags::BYPASS) {
        let slot = tunnel.look_up(tables, destination).and_then(Target::as_vip);
        let grant = slot.and_then(|slot| tables.grant(&GrantKey { port: index, slot }));
        if !grant.is_some_and(|grant| grant.rights.may_source()) {
            return Err(DropReason::DestinationNotOwn);
        }
    }
    // A packet that the owner hands on counted for the VIP when the owner got it.
    Ok((receiver, Target::port(index)))
}

/// Whether the receiver is on the host that the frame comes from. Hosts with a forwarder send no such frame. A bridge that does not know
/// where a guest beside it is does, to all hosts; from here it would learn that the guest is behind its tunnel.
#[inline(always)]
fn is_at_sender<T: Tables>(tables: &T, tunnel: &Tunnel, receiver: &Receiver<T>) -> bool {
    receiver.is_remote() && tables.vtep(tunnel.from) == Some(receiver.entry.ifindex)
}

/// To the receiver: here, or on its way once more. `ip`: the packet, unless it is ARP.
#[inline(always)]
fn hand_over<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    tunnel: &Tunnel,
    receiver: &Receiver<T>,
    ip: Option<&Ipv4Packet>,
) -> Decision {
    if receiver.is_remote() {
        if tunnel.sent_on {
            return Decision::drop(DropReason::ForwardedTwice);
        }
        if is_too_long(packet, receiver, ip) {
            return Decision::drop(DropReason::TooBig);
        }
        let host = receiver.entry.ifindex;
        if tunnel.stage == Stage::Xdp && !is_in_reach(tables, host) {
            return Decision::LEAVE_TO_TC;
        }
        return send_on(packet, tables, host, tunnel.stage);
    }
    if let Some(obstacle) = obstacle(packet, tunnel, receiver, ip) {
        return obstacle;
    }
    attempt!(packet.decapsulate().map_err(DropReason::from));
    attempt!(switch(packet, receiver.mac()));
    receiver.decision()
}

/// Why a receiver here does not get a packet, or ARP, at this hook, or at all.
#[inline(always)]
pub(super) fn obstacle<P: Packet, T: Tables>(
    packet: &P,
    tunnel: &Tunnel,
    receiver: &Receiver<T>,
    ip: Option<&Ipv4Packet>,
) -> Option<Decision> {
    let needed =
        if packet.near() < packet.length() { PortFlags::TAKES_XDP_FRAGS } else { PortFlags::TAKES_XDP };
    if tunnel.stage == Stage::Xdp && !receiver.entry.flags.has(needed) {
        return Some(Decision::LEAVE_TO_TC);
    }
    let ip = ip?;
    if packet.gso_size() == 0 {
        return is_too_long(packet, receiver, Some(ip)).then_some(Decision::drop(DropReason::TooBig));
    }
    // Of UDP the kernel would still take the header for the tunnel's, and lose it where it is cut (Linux 6.18). And what is longer than its
    // packet is several frames, each with VXLAN before it, that the NIC has put together.
    if ip.protocol != Protocol::TCP || ip.end != tunnel.length {
        return Some(Decision::drop(DropReason::EditFailed));
    }
    None
}

/// Whether a packet that is one on the wire does not fit the receiver's interface, or the way to its host.
#[inline(always)]
pub(super) fn is_too_long<P: Packet, T: Tables>(
    packet: &P,
    receiver: &Receiver<T>,
    ip: Option<&Ipv4Packet>,
) -> bool {
    let mtu = receiver.entry.mtu as usize;
    mtu != 0 && packet.gso_size() == 0 && ip.is_some_and(|ip| ip.length() > mtu)
}

/// Whether the packet inside is a VRRP advertisement, whatever MAC it is to: the sender's host does not ask either.
#[inline(always)]
fn is_advertisement<P: Packet>(packet: &mut P) -> bool {
    packet.header::<Frame>(INNER).is_some_and(|&mut Frame { ip, .. }| {
        ip.protocol() == Protocol::VRRP && ip.destination.get() == VRRP_GROUP
    })
}

/// A packet to a group: a VRRP advertisement, to the members here, unchanged.
#[inline(never)]
fn group<P: Packet, T: Tables>(packet: &mut P, tables: &T, tunnel: &Tunnel) -> Decision {
    let Some(&mut Frame { ip, .. }) = packet.header::<Frame>(INNER) else {
        return Decision::drop(DropReason::VxlanMalformed);
    };
    let ip = &attempt!(Ipv4Packet::of(&ip, tunnel.length));
    if ip.protocol != Protocol::VRRP || ip.destination != VRRP_GROUP {
        return Decision::drop(DropReason::OverlayGroup);
    }
    if tunnel.stage == Stage::Xdp {
        // It cannot make several packets of one.
        return Decision::LEAVE_TO_TC;
    }
    let look_up = |address| tunnel.look_up(tables, address);
    let Some((slot, vrrp)) = attempt!(advertised_vip(packet, INNER, ip, look_up)) else {
        return Decision::drop(DropReason::VrrpNotMember);
    };
    // Of the members themselves: a slot may have been another tenant's a moment ago.
    let is_of_vpc = tables.members(slot).is_some_and(|members| members.vni == tunnel.vni);
    // A host without forwarder has not asked whether its guest is a member.
    let port = look_up(ip.source).and_then(Target::as_port).unwrap_or(0);
    if !is_of_vpc || !may_advertise(tables, port, slot) {
        return Decision::drop(DropReason::VrrpNotMember);
    }
    remember(tables, slot, port, ip.source, &vrrp);
    attempt!(packet.decapsulate().map_err(DropReason::from));
    Decision::members(slot, 0)
}

/// ARP from another host: a probe for the owner, a reply for the port that asked, a question that a host without forwarder spreads.
#[inline(never)]
fn arp<P: Packet, T: Tables>(packet: &mut P, tables: &T, tunnel: &Tunnel, ethernet: &Ethernet) -> Decision {
    // What is behind the outer packet is none of it.
    if tunnel.length < Ethernet::LEN + Arp::LEN {
        return Decision::drop(DropReason::VxlanMalformed);
    }
    let Some(&mut arp) = packet.header::<Arp>(INNER + Ethernet::LEN) else {
        return Decision::drop(DropReason::VxlanMalformed);
    };
    let operation = attempt!(arp.operation().ok_or(DropReason::ArpMalformed));
    let (speaker, target) = (arp.sender_ip.get(), arp.target_ip.get());
    if has_impossible_sender(&arp) {
        return Decision::drop(DropReason::ArpMalformed);
    }
    if speaker == target || !is_true(tables, tunnel, speaker, arp.sender_mac) {
        return Decision::drop(DropReason::OverlayClaim);
    }
    match operation {
        ArpOperation::Request if speaker.is_unspecified() => {
            if let Some(slot) = tunnel.look_up(tables, target).and_then(Target::as_vip) {
                if !may_probe(tables, tunnel, slot, arp.sender_mac) {
                    return Decision::drop(DropReason::ProbeNotMember);
                }
                let owner = present_owner(tables, slot);
                return match Receiver::owner(tables, tunnel.vni, target, owner) {
                    Ok(receiver) => hand_over_arp(packet, tables, tunnel, &receiver),
                    // Nobody is there to defend the address.
                    Err(_) => Decision::CONSUMED,
                };
            }
            question(packet, tables, tunnel, &arp)
        }
        ArpOperation::Request => question(packet, tables, tunnel, &arp),
        ArpOperation::Reply if speaker.is_unspecified() => Decision::drop(DropReason::ArpMalformed),
        ArpOperation::Reply => {
            let port = tables.port_by_mac(&MacKey::new(tunnel.vni, ethernet.destination));
            let index = attempt!(port.ok_or(DropReason::NoSuchAddress));
            let receiver = attempt!(Receiver::port(tables, tunnel.vni, index));
            if is_at_sender(tables, tunnel, &receiver) {
                return Decision::drop(DropReason::BackToSender);
            }
            hand_over_arp(packet, tables, tunnel, &receiver)
        }
    }
}

/// Whether a probe for a VIP is a member's: a host without forwarder has not asked. A virtual router's MAC is no port's; who may use it has
/// been asked by a host with a forwarder, and only the owner hears what else comes.
#[inline(always)]
fn may_probe<T: Tables>(tables: &T, tunnel: &Tunnel, slot: u32, mac: Mac) -> bool {
    mac.vrid().is_some()
        || tables
            .port_by_mac(&MacKey::new(tunnel.vni, mac))
            .is_some_and(|port| may_advertise(tables, port, slot))
}

/// [`hand_over`] of a frame whose Ethernet destination stays.
#[inline(always)]
fn hand_over_arp<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    tunnel: &Tunnel,
    receiver: &Receiver<T>,
) -> Decision {
    let Some(&mut ethernet) = packet.header::<Ethernet>(INNER) else {
        return Decision::drop(DropReason::EditFailed);
    };
    let decision = hand_over(packet, tables, tunnel, receiver, None);
    if decision.is_delivery() {
        attempt!(switch(packet, ethernet.destination));
    }
    decision
}

/// Whether the tables agree that this address has this MAC.
#[inline(always)]
fn is_true<T: Tables>(tables: &T, tunnel: &Tunnel, address: Ipv4, mac: Mac) -> bool {
    if address.is_unspecified() {
        return true;
    }
    match tunnel.look_up(tables, address).and_then(Target::kind) {
        Some(AddressKind::Fixed(index)) => {
            tables.port(index).is_some_and(|port| port.vni == tunnel.vni && port.mac == mac)
        }
        Some(AddressKind::Vip(_) | AddressKind::Gateway(_)) => mac == Mac::of_address(address),
        Some(AddressKind::ExternalGateway(_)) | None => false,
    }
}

/// A question from a host that asks all others, as one without forwarder does: answered for what is here.
#[inline(always)]
fn question<P: Packet, T: Tables>(packet: &mut P, tables: &T, tunnel: &Tunnel, arp: &Arp) -> Decision {
    let target = arp.target_ip.get();
    let is_here = |port: T::Port| port.vni == tunnel.vni && !port.flags.has(PortFlags::REMOTE);
    let mac = match tunnel.look_up(tables, target).and_then(Target::kind) {
        Some(AddressKind::Fixed(index)) => match tables.port(index) {
            Some(port) if is_here(port) => port.mac,
            _ => return Decision::CONSUMED,
        },
        Some(AddressKind::Vip(slot)) => match tables.port(present_owner(tables, slot).port()) {
            Some(port) if is_here(port) => Mac::of_address(target),
            _ => return Decision::CONSUMED,
        },
        // The gateway is on every host, for guests of those without forwarder too.
        Some(AddressKind::Gateway(_)) => Mac::of_address(target),
        Some(AddressKind::ExternalGateway(_)) | None => return Decision::CONSUMED,
    };
    let Some(host) = tables.vtep(tunnel.from) else { return Decision::drop(DropReason::VtepUnknown) };
    if tunnel.stage == Stage::Xdp && !is_in_reach(tables, host) {
        return Decision::LEAVE_TO_TC;
    }
    if !answer_at(packet, INNER, arp, mac) {
        return Decision::drop(DropReason::EditFailed);
    }
    send_back(packet, tables, host, tunnel.stage)
}
