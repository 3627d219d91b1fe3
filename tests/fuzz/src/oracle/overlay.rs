//! What travels between hosts (RFC 7348): who may get it, and what of the underlay guests never see.

use std::net::Ipv4Addr;

use vip_common::{
    DropReason,
    engine::Hook,
    pipeline::{Stage, Verdict},
    tables::{PortEntry, PortFlags},
    wire,
};
use vip_lab::{Mac, fixtures::world::constant_mac};

use super::{Judgement, Oracle, delivery, far_end, hold, rights, traffic};
use crate::{
    Step,
    facts::{self, Facts, Holder},
    frame::{Arp, ETHERNET, IPV4, Ipv4, TYPE_ARP, TYPE_IPV4, UDP, address, byte, mac, put, word},
};

const OVERLAY: Oracle = Oracle::Overlay;

/// Bytes before the frame inside.
const OUTER: usize = ETHERNET + IPV4 + 8 + 8;
/// UDP port of VXLAN.
const PORT: u16 = 4789;

/// A frame in VXLAN.
pub(super) struct Vxlan<'f> {
    ip: Ipv4,
    source_port: u16,
    pub(super) vni: u32,
    pub(super) inner: &'f [u8],
    /// The same with what is behind the outer packet, which guests take for padding.
    pub(super) padded: &'f [u8],
}

impl<'f> Vxlan<'f> {
    /// `None` for anything but UDP to that port, behind a plain IPv4 header, with a VNI that says that it is valid.
    fn of(frame: &'f [u8]) -> Option<Self> {
        let ip = Ipv4::of(frame)?;
        let is_plain = ip.payload == ETHERNET + IPV4 && ip.protocol == UDP && ip.fragment == 0 && !ip.more;
        let is_vxlan = is_plain && word(frame, 36) == Some(PORT) && byte(frame, 42)? & 8 != 0;
        let inner = frame.get(OUTER..ip.end).filter(|_| is_vxlan)?;
        let [a, b, c] = *frame.get(46..)?.first_chunk()?;
        Some(Self {
            ip,
            source_port: word(frame, 34)?,
            vni: u32::from_be_bytes([0, a, b, c]),
            inner,
            padded: frame.get(OUTER..)?,
        })
    }

    /// Whether a previous owner's host has sent it on.
    pub(super) fn was_sent_on(&self) -> bool {
        (16_384..32_768).contains(&self.source_port)
    }
}

/// This host's VTEP, if it has one.
fn vtep(facts: Facts<'_>) -> Option<Ipv4Addr> {
    facts.0.config.as_ref().map(|config| config.vtep.into()).filter(|vtep: &Ipv4Addr| !vtep.is_unspecified())
}

/// Whether an address is a host's.
fn is_vtep(facts: Facts<'_>, address: Ipv4Addr) -> bool {
    facts.0.vteps.contains_key(&wire::Ipv4::from(address))
}

/// A frame of a VPC that reached the uplink for this host.
fn arrived<'s>(facts: Facts<'_>, step: &'s Step) -> Option<Vxlan<'s>> {
    let Hook::Uplink(_) = step.hook else { return None };
    let ours = !step.tagged && facts.uplink().map(|(_, mac)| mac) == mac(&step.frame, 0);
    Vxlan::of(&step.frame).filter(|vxlan| {
        ours && Some(vxlan.ip.destination) == vtep(facts) && facts.0.vnis.contains_key(&vxlan.vni)
    })
}

/// What left for another host.
fn left<'s>(facts: Facts<'_>, step: &'s Step) -> Option<Vxlan<'s>> {
    let leaves = matches!(step.verdict, Verdict::Uplink { .. } | Verdict::Resolve { .. } | Verdict::Return);
    let own = vtep(facts)?;
    Vxlan::of(&step.after).filter(|vxlan| leaves && vxlan.ip.source == own && step.after != step.frame)
}

/// Whether a step is about what travels between hosts.
pub fn concerns(facts: Facts<'_>, step: &Step) -> bool {
    let refused = |first: DropReason, last: DropReason| matches!(step.verdict, Verdict::Drop(reason) if (first.index()..=last.index()).contains(&reason));
    vtep(facts).is_some()
        && (arrived(facts, step).is_some()
            || left(facts, step).is_some()
            || !step.tunnelled.is_empty()
            || refused(DropReason::VtepUnknown, DropReason::BackToSender))
}

pub(super) fn check(facts: Facts<'_>, step: &Step) -> Judgement {
    if let Some(vxlan) = arrived(facts, step) {
        return inbound(facts, step, &vxlan);
    }
    if let Verdict::Drop(reason) = step.verdict {
        let once = step.left.drops == [(reason, 1)].into();
        return hold(OVERLAY, once, || "it is not counted once".to_owned());
    }
    if let Verdict::Members { slot, sender } = step.verdict {
        return advertised(facts, step, slot, sender);
    }
    match left(facts, step) {
        Some(vxlan) => outbound(facts, step, &vxlan),
        None => Err((OVERLAY, "nobody here sends that to another host".to_owned())),
    }
}

/// No guest reaches a VTEP, or speaks as one, on the underlay.
pub(super) fn check_guest(facts: Facts<'_>, step: &Step) -> Judgement {
    if facts.port_of(step.interface).is_none() {
        return Ok(());
    }
    let leaves = match step.verdict {
        Verdict::NotOurs | Verdict::PassOn => true,
        Verdict::Uplink { .. } | Verdict::Resolve { .. } => left(facts, step).is_none(),
        _ => false,
    };
    if step.hook != Hook::Port || !leaves || vtep(facts).is_none() {
        return Ok(());
    }
    let is_tag = |frame: &[u8]| matches!(word(frame, 12), Some(0x8100 | 0x88a8));
    let mut frame = step.after.clone();
    if step.tagged && is_tag(&frame) {
        if frame.len() < ETHERNET + 4 {
            // It ends in the second tag.
            return Ok(());
        }
        frame.drain(12..16);
    }
    hold(OVERLAY, !is_tag(&frame), || "nobody has looked behind the tags".to_owned())?;
    let speaks = ip_addresses(&frame)
        .is_some_and(|addresses| addresses.iter().any(|address| is_vtep(facts, *address)));
    hold(OVERLAY, !speaks, || "a guest's packet to or from a VTEP".to_owned())?;
    let claims = Arp::of(&frame).is_some_and(|arp| is_vtep(facts, arp.sender));
    hold(OVERLAY, !claims, || "a guest says in ARP that it is a VTEP".to_owned())
}

/// Where a packet is from and to, whatever its lengths are.
fn ip_addresses(frame: &[u8]) -> Option<[Ipv4Addr; 2]> {
    let is_ipv4 = word(frame, 12) == Some(TYPE_IPV4);
    is_ipv4.then_some([address(frame, ETHERNET + 12)?, address(frame, ETHERNET + 16)?])
}

/// The outer headers, and the other host.
fn host_of(facts: Facts<'_>, step: &Step, frame: &[u8], vxlan: &Vxlan<'_>) -> Result<u32, (Oracle, String)> {
    let wrong = |what: &str| (OVERLAY, what.to_owned());
    let to = facts.0.vteps.get(&wire::Ipv4::from(vxlan.ip.destination)).copied();
    let host =
        to.filter(|_| Some(vxlan.ip.destination) != vtep(facts)).ok_or(wrong("it goes to no other host"))?;
    let entry = facts.0.hosts.get(&host).ok_or(wrong("the host is in no table"))?;
    let macs = (mac(frame, 0), mac(frame, 6));
    let known = (Some(facts::mac(entry.ethernet.destination)), facts.uplink().map(|(_, own)| own));
    let found = matches!(step.verdict, Verdict::Resolve { .. });
    hold(OVERLAY, found || macs == known, || format!("the MACs are {macs:?} instead of {known:?}"))?;
    // What goes on, or back, keeps the lengths with which it came.
    let (end, length) = match arrived(facts, step) {
        Some(was) => (was.ip.end, word(&step.frame, 38)),
        None => (frame.len(), u16::try_from(frame.len() - ETHERNET - IPV4).ok()),
    };
    let right = vxlan.ip.header_sum(frame) == Some(0)
        && vxlan.ip.end == end
        && vxlan.ip.ttl == 64
        && vxlan.ip.whole
        && word(frame, 38) == length
        && word(frame, 40) == Some(0)
        && (vxlan.was_sent_on() || vxlan.source_port >= 49_152);
    hold(OVERLAY, right, || "the outer headers are not those of an honest host".to_owned())?;
    Ok(host)
}

/// The port that a frame in a VPC is for, by what it says of it.
fn receiver<'t>(facts: Facts<'t>, vni: u32, inner: &[u8]) -> Option<(u32, &'t PortEntry)> {
    let to = mac(inner, 0)?;
    // A probe is for the owner, whatever MAC it is to.
    if let Some(arp) = Arp::of(inner).filter(|arp| arp.operation == 1 && arp.sender.is_unspecified()) {
        return facts.port_for(facts.holder(vni, arp.target)?);
    }
    if let Mac([6, 0x56, a, b, c, d]) = to {
        let holder = facts.holder(vni, Ipv4Addr::new(a, b, c, d))?;
        return matches!(holder, Holder::Vip(_)).then(|| facts.port_for(holder))?;
    }
    let found = facts.0.ports.iter().find(|(_, port)| port.vni == vni && facts::mac(port.mac) == to)?;
    Some((*found.0, found.1))
}

/// What a guest, or somebody outside, sends to a guest of another host: it goes there, and would be delivered here all the same.
fn outbound(facts: Facts<'_>, step: &Step, vxlan: &Vxlan<'_>) -> Judgement {
    let host = host_of(facts, step, &step.after, vxlan)?;
    hold(OVERLAY, !vxlan.was_sent_on(), || "it was not sent on".to_owned())?;
    let Some((index, port)) = receiver(facts, vxlan.vni, vxlan.inner) else {
        return Err((OVERLAY, "nobody in the VPC is meant".to_owned()));
    };
    hold(OVERLAY, port.flags.has(PortFlags::REMOTE) && port.ifindex == host, || {
        format!("the receiver is not on host {host}")
    })?;
    let mut after = vxlan.inner.to_vec();
    if Ipv4::of(&after).is_some()
        && let Some(Mac([6, 0x56, a, b, c, d])) = mac(&after, 0)
        && let Some(Holder::Vip(slot)) = facts.holder(vxlan.vni, Ipv4Addr::new(a, b, c, d))
        && let Some(Mac(owner)) = facts.owner_mac(facts.owner(slot))
    {
        put(&mut after, 0, &owner);
    }
    let verdict = Verdict::Deliver { port: index, ifindex: port.ifindex };
    let there = Step { verdict, after, ..step.clone() };
    rights::check(facts, &there)?;
    traffic::check(facts, &there)?;
    delivery::check(facts, &there)
}

/// An advertisement reaches each other host with members once, as it is.
fn advertised(facts: Facts<'_>, step: &Step, slot: u32, sender: u32) -> Judgement {
    let members = facts.0.members.get(&slot);
    let mut hosts: Vec<u32> = members
        .into_iter()
        .flat_map(|members| members.ports)
        .filter_map(|member| facts.port(member))
        .filter(|member| member.flags.has(PortFlags::REMOTE))
        .map(|member| member.ifindex)
        .collect();
    hosts.sort_unstable();
    hosts.dedup();
    let mut reached = Vec::new();
    for frame in &step.tunnelled {
        let Some(vxlan) = Vxlan::of(frame) else { return Err((OVERLAY, "a copy is no VXLAN".to_owned())) };
        hold(OVERLAY, vxlan.inner == step.frame, || "a copy is another frame".to_owned())?;
        hold(OVERLAY, members.is_some_and(|members| members.vni == vxlan.vni), || "the VNI".to_owned())?;
        reached.push(host_of(facts, step, frame, &vxlan)?);
    }
    reached.sort_unstable();
    hold(OVERLAY, reached == hosts, || format!("hosts {reached:?} hear it instead of {hosts:?}"))?;
    let here = Step { after: step.frame.clone(), ..step.clone() };
    rights::check(facts, &here)?;
    delivery::check_members(facts, &here, slot, sender)
}

/// A frame from another host.
fn inbound(facts: Facts<'_>, step: &Step, vxlan: &Vxlan<'_>) -> Judgement {
    let stays = matches!(step.verdict, Verdict::NotOurs | Verdict::PassOn | Verdict::Tell { .. });
    hold(OVERLAY, !stays, || "a frame of a VPC is the forwarder's".to_owned())?;
    hold(OVERLAY, step.left.eips.is_empty(), || "it came to no EIP".to_owned())?;
    let from = facts.0.vteps.get(&wire::Ipv4::from(vxlan.ip.source)).copied();
    let is_elsewhere = facts.uplink().map(|(uplink, _)| uplink) != Some(step.interface);
    if is_elsewhere && step.hook == Hook::Uplink(Stage::Tc) {
        let not_here = Verdict::Drop(DropReason::VtepNotOurs.index());
        return hold(OVERLAY, step.verdict == not_here, || "nobody is a host there".to_owned());
    }
    let is_host = from.is_some() && Some(vxlan.ip.source) != vtep(facts);
    let unknown = DropReason::VtepUnknown.index();
    hold(OVERLAY, is_host != (step.verdict == Verdict::Drop(unknown)), || {
        format!("{} is, or is not, a host", vxlan.ip.source)
    })?;
    if let Some(from) = from.filter(|_| far_end::concerns(facts, vxlan)) {
        let out = match left(facts, step) {
            Some(out) => Some((host_of(facts, step, &step.after, &out)?, out)),
            None => None,
        };
        if out.is_some() || matches!(step.verdict, Verdict::Deliver { .. }) {
            return far_end::check(facts, step, vxlan, from, out);
        }
    }
    match step.verdict {
        Verdict::LeaveToTc => {
            hold(Oracle::Untouched, step.after == step.frame, || "the bytes have changed".to_owned())
        }
        Verdict::Drop(reason) => {
            hold(OVERLAY, step.left.drops == [(reason, 1)].into(), || "it is not counted once".to_owned())?;
            let name = usize::try_from(reason).ok().and_then(|index| DropReason::ALL.get(index));
            let of_gateway = from.filter(|_| far_end::concerns(facts, vxlan));
            let is_why = reason == unknown
                || name.is_some_and(|reason| {
                    of_gateway
                        .and_then(|from| far_end::is_why(facts, vxlan, from, *reason))
                        .unwrap_or_else(|| is_why(facts, vxlan, &step.frame, *reason))
                });
            hold(OVERLAY, is_why, || format!("{name:?} is not why it should stop"))
        }
        Verdict::Deliver { port, ifindex } => delivered(facts, step, vxlan, port, ifindex),
        Verdict::Members { slot, sender } => heard(facts, step, vxlan, slot, sender),
        Verdict::Uplink { .. } | Verdict::Resolve { .. } | Verdict::Return => {
            let Some(out) = left(facts, step) else {
                return Err((OVERLAY, "what goes on is no VXLAN".to_owned()));
            };
            let host = host_of(facts, step, &step.after, &out)?;
            hold(OVERLAY, out.vni == vxlan.vni, || "it changes the VPC".to_owned())?;
            if out.was_sent_on() {
                goes_on(facts, vxlan, &out, host)
            } else {
                hold(OVERLAY, Some(host) == from, || "the answer goes to somebody else".to_owned())?;
                answered(facts, vxlan, &out)
            }
        }
        _ => hold(
            OVERLAY,
            step.verdict == Verdict::Consumed && word(vxlan.inner, 12) == Some(TYPE_ARP),
            || "only ARP is consumed".to_owned(),
        ),
    }
}

/// Whether a host's frame may be dropped for this reason.
fn is_why(facts: Facts<'_>, vxlan: &Vxlan<'_>, frame: &[u8], reason: DropReason) -> bool {
    let inner = vxlan.inner;
    let (kind, arp) = (word(inner, 12), Arp::of(inner));
    let is_ipv4 = kind == Some(TYPE_IPV4);
    let ip = Ipv4::of(inner).filter(|_| is_ipv4);
    let to = mac(inner, 0);
    let is_advert = byte(inner, ETHERNET + 9) == Some(crate::frame::VRRP)
        && address(inner, ETHERNET + 16) == Some(Ipv4Addr::new(224, 0, 0, 18));
    let advert = ip.filter(|_| is_advert);
    let about = || delivery::advertisement(facts, vxlan.vni, inner);
    let found = receiver(facts, vxlan.vni, inner);
    let is_remote = |port: &PortEntry| port.flags.has(PortFlags::REMOTE);
    match reason {
        DropReason::VxlanMalformed => {
            vxlan.ip.more
                || word(frame, 38).map(usize::from) != Some(vxlan.ip.end - ETHERNET - IPV4)
                || inner.len() < ETHERNET
                || (is_ipv4 && inner.len() < ETHERNET + IPV4)
                || (kind == Some(TYPE_ARP) && inner.len() < Arp::END)
        }
        DropReason::Ipv4Malformed => is_ipv4 && ip.is_none(),
        DropReason::OverlayType => !is_ipv4 && kind != Some(TYPE_ARP),
        DropReason::OverlayGroup => {
            is_ipv4 && to.is_some_and(|Mac([first, ..])| first & 1 != 0) && !is_advert
        }
        DropReason::VrrpTtl => advert.is_some_and(|ip| ip.ttl != 255),
        DropReason::FrameTruncated => advert.is_some() && about().is_none_or(|(_, slot)| slot.is_none()),
        DropReason::VrrpNotMember => {
            advert.is_some()
                && about().is_none_or(|(source, slot)| {
                    let type_is_one =
                        advert.and_then(|ip| byte(inner, ip.payload)).map(|first| first & 0xf) == Some(1);
                    let member =
                        slot.zip(facts.holder(vxlan.vni, source)).and_then(|(slot, holder)| match holder {
                            Holder::Port(index) => facts.grant(index, slot),
                            Holder::Vip(_) => None,
                        });
                    !type_is_one || !member.is_some_and(|grant| grant.rights.may_own())
                })
        }
        DropReason::ArpMalformed => {
            kind == Some(TYPE_ARP) && !arp.is_some_and(|arp| is_honest(facts, vxlan, &arp))
        }
        DropReason::OverlayClaim => arp.is_some_and(|arp| !is_honest(facts, vxlan, &arp)),
        // There is nobody, or nobody who owns the VIP.
        DropReason::NoSuchAddress | DropReason::Unowned => found.is_none(),
        DropReason::NoInterface => found.is_some_and(|(_, port)| port.ifindex == 0),
        DropReason::BackToSender => comes_back(facts, vxlan),
        DropReason::ProbeNotMember => arp.is_some_and(|arp| {
            let Mac(sender) = arp.sender_mac;
            let is_virtual = sender.starts_with(&[0, 0, 0x5e, 0, 1]) && sender[5] != 0;
            let slot = match facts.holder(vxlan.vni, arp.target) {
                Some(Holder::Vip(slot)) => Some(slot),
                _ => None,
            };
            let ports = &facts.0.ports;
            let port = ports
                .iter()
                .find(|(_, port)| port.vni == vxlan.vni && facts::mac(port.mac) == arp.sender_mac);
            let grant = slot.zip(port).and_then(|(slot, (index, _))| facts.grant(*index, slot));
            arp.sender.is_unspecified()
                && slot.is_some()
                && !is_virtual
                && !grant.is_some_and(|grant| grant.rights.may_own())
        }),
        DropReason::ForwardedTwice => vxlan.was_sent_on() && found.is_some_and(|(_, port)| is_remote(port)),
        DropReason::NoWayToHost => facts
            .0
            .hosts
            .values()
            .any(|host| host.next_hop.is_unspecified() || host.ethernet.destination.is_zero()),
        DropReason::TooBig => ip.zip(found).is_some_and(|(ip, (_, port))| {
            port.mtu != 0 && ip.length() > usize::try_from(port.mtu).unwrap_or(usize::MAX)
        }),
        DropReason::DestinationNotOwn => ip.zip(found).is_some_and(|(ip, (index, port))| {
            !port.flags.has(PortFlags::BYPASS) && !is_own(facts, vxlan, index, ip.destination)
        }),
        _ => false,
    }
}

/// Whether a frame is for a port of the host that it comes from, and not for a VIP.
fn comes_back(facts: Facts<'_>, vxlan: &Vxlan<'_>) -> bool {
    let from = facts.0.vteps.get(&wire::Ipv4::from(vxlan.ip.source)).copied();
    let is_probe = Arp::of(vxlan.inner).is_some_and(|arp| arp.operation == 1 && arp.sender.is_unspecified());
    let is_vips = matches!(mac(vxlan.inner, 0), Some(Mac([6, 0x56, ..]))) || is_probe;
    let port = receiver(facts, vxlan.vni, vxlan.inner).map(|(_, port)| port);
    !is_vips && port.is_some_and(|port| port.flags.has(PortFlags::REMOTE) && Some(port.ifindex) == from)
}

/// Whether an address is what the MAC that a frame is to stands for: a VIP's for that VIP alone, a port's for its fixed address, or a VIP that
/// it owns or serves.
fn is_own(facts: Facts<'_>, vxlan: &Vxlan<'_>, index: u32, destination: Ipv4Addr) -> bool {
    if let Some(Mac([6, 0x56, a, b, c, d])) = mac(vxlan.inner, 0)
        && destination != Ipv4Addr::new(a, b, c, d)
    {
        return false;
    }
    match facts.holder(vxlan.vni, destination) {
        Some(Holder::Port(holder)) => holder == index,
        Some(Holder::Vip(slot)) => {
            // By the VIP's MAC its owner is meant, by his own a member.
            let by_vip = mac(vxlan.inner, 0) == Some(constant_mac(destination));
            by_vip && facts.owner(slot).port() == index
                || !by_vip && facts.grant(index, slot).is_some_and(|grant| grant.rights.may_source())
        }
        None => false,
    }
}

/// Whether ARP says to one what the tables say, or asks.
fn is_honest(facts: Facts<'_>, vxlan: &Vxlan<'_>, arp: &Arp) -> bool {
    let truth = match facts.holder(vxlan.vni, arp.sender) {
        Some(Holder::Port(holder)) => {
            facts.port(holder).is_some_and(|port| facts::mac(port.mac) == arp.sender_mac)
        }
        Some(Holder::Vip(_)) => arp.sender_mac == constant_mac(arp.sender),
        None => arp.sender.is_unspecified() && arp.operation == 1,
    };
    let Mac([first, ..]) = arp.sender_mac;
    let is_host = first & 1 == 0 && arp.sender_mac != Mac([0; 6]);
    truth && is_host && !arp.announces() && matches!(arp.operation, 1 | 2)
}

fn delivered(facts: Facts<'_>, step: &Step, vxlan: &Vxlan<'_>, index: u32, interface: u32) -> Judgement {
    let Some(port) = facts.port(index) else { return Err((OVERLAY, "there is no such port".to_owned())) };
    let here = port.vni == vxlan.vni && port.ifindex == interface && !port.flags.has(PortFlags::REMOTE);
    hold(OVERLAY, here, || format!("port {index} is not of VPC {}, or not here", vxlan.vni))?;
    let meant = receiver(facts, vxlan.vni, vxlan.inner).map(|(index, _)| index);
    hold(OVERLAY, meant == Some(index), || format!("it is for {meant:?}"))?;
    let same = step.after.get(6..) == vxlan.padded.get(6..);
    hold(Oracle::Fields, same, || "more than the receiver's MAC has changed".to_owned())?;
    if let Some(arp) = Arp::of(vxlan.inner) {
        let truth = arp.sender.is_unspecified() && arp.operation == 1
            || match facts.holder(vxlan.vni, arp.sender) {
                Some(Holder::Port(holder)) => {
                    facts.port(holder).is_some_and(|port| facts::mac(port.mac) == arp.sender_mac)
                }
                // A VIP, or a gateway.
                _ => arp.sender_mac == constant_mac(arp.sender),
            };
        hold(OVERLAY, truth && !arp.announces(), || "a guest hears what is not so".to_owned())?;
        return hold(Oracle::Fields, step.after == vxlan.padded, || "ARP has changed".to_owned());
    }
    let now = mac(&step.after, 0);
    hold(OVERLAY, now.is_some_and(|now| facts.may_have(port, now)), || format!("{now:?} is not its MAC"))?;
    let Some(ip) = Ipv4::of(vxlan.inner) else {
        return Err((OVERLAY, "it is neither IPv4 nor ARP".to_owned()));
    };
    let may = match facts.holder(vxlan.vni, ip.destination) {
        Some(Holder::Port(holder)) => holder == index,
        Some(Holder::Vip(slot)) => {
            facts.owner(slot).port() == index
                || facts.grant(index, slot).is_some_and(|grant| grant.rights.may_source())
        }
        None => false,
    };
    hold(OVERLAY, may || port.flags.has(PortFlags::BYPASS), || {
        format!("{} is not the receiver's", ip.destination)
    })
}

/// An advertisement is heard by the VIP's members here, and by nobody else.
fn heard(facts: Facts<'_>, step: &Step, vxlan: &Vxlan<'_>, slot: u32, sender: u32) -> Judgement {
    let mut expected: Vec<u32> = facts
        .0
        .members
        .get(&slot)
        .into_iter()
        .flat_map(|members| members.ports)
        .filter_map(|member| facts.port(member))
        .filter(|member| {
            member.vni == vxlan.vni && member.ifindex != 0 && !member.flags.has(PortFlags::REMOTE)
        })
        .map(|member| member.ifindex)
        .collect();
    let mut receivers = step.receivers.clone();
    expected.sort_unstable();
    receivers.sort_unstable();
    hold(OVERLAY, sender == 0 && receivers == expected, || {
        format!("{receivers:?} hear it instead of {expected:?}")
    })?;
    hold(OVERLAY, step.tunnelled.is_empty(), || "it goes further".to_owned())?;
    let (source, about) = delivery::advertisement(facts, vxlan.vni, vxlan.inner).unzip();
    hold(OVERLAY, about.flatten() == Some(slot), || format!("it is about {about:?}, not about {slot}"))?;
    let member = source.and_then(|source| match facts.holder(vxlan.vni, source)? {
        Holder::Port(index) => facts.grant(index, slot),
        Holder::Vip(_) => None,
    });
    hold(OVERLAY, member.is_some_and(|grant| grant.rights.may_own()), || {
        format!("{source:?} is no member's address")
    })?;
    hold(OVERLAY, step.after == vxlan.padded, || "the advertisement has changed".to_owned())
}

/// A frame goes on to the receiver's host, once, as it is.
fn goes_on(facts: Facts<'_>, was: &Vxlan<'_>, is: &Vxlan<'_>, host: u32) -> Judgement {
    hold(OVERLAY, !was.was_sent_on(), || "it is sent on a second time".to_owned())?;
    hold(OVERLAY, is.inner == was.inner, || "the frame inside has changed".to_owned())?;
    hold(OVERLAY, !comes_back(facts, was), || "it goes back to where it comes from".to_owned())?;
    let port = receiver(facts, was.vni, was.inner).map(|(_, port)| port);
    hold(OVERLAY, port.is_some_and(|port| port.flags.has(PortFlags::REMOTE) && port.ifindex == host), || {
        format!("the receiver is not on host {host}")
    })
}

/// A question is answered with what is so, for who is here.
fn answered(facts: Facts<'_>, was: &Vxlan<'_>, is: &Vxlan<'_>) -> Judgement {
    let (Some(question), Some(answer)) = (Arp::of(was.inner), Arp::of(is.inner)) else {
        return Err((OVERLAY, "what is fresh is no answer".to_owned()));
    };
    let right = (question.operation, answer.operation) == (1, 2)
        && !question.announces()
        && (answer.sender, answer.target) == (question.target, question.sender)
        && mac(is.inner, 0) == Some(question.sender_mac)
        && mac(is.inner, 6) == Some(answer.sender_mac);
    hold(OVERLAY, right, || "the answer is not to the question".to_owned())?;
    let so = if let Some(holder) = facts.holder(was.vni, answer.sender) {
        facts.port_for(holder).is_some_and(|(_, port)| {
            let told = match holder {
                Holder::Vip(_) => constant_mac(answer.sender),
                Holder::Port(_) => facts::mac(port.mac),
            };
            !port.flags.has(PortFlags::REMOTE) && answer.sender_mac == told
        })
    } else {
        // A gateway is on every host.
        answer.sender_mac == constant_mac(answer.sender) && facts.is_gateway(was.vni, answer.sender)
    };
    hold(OVERLAY, so, || format!("{} is not here, or not at that MAC", answer.sender))
}
