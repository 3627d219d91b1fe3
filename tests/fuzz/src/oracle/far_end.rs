//! What the gateway routes for guests of a host without forwarder.

use std::net::Ipv4Addr;

use vip_common::{DropReason, pipeline::Verdict, tables::PortFlags};
use vip_lab::{Mac, fixtures::world::constant_mac};

use super::{Judgement, Oracle, hold, overlay::Vxlan};
use crate::{
    Step,
    facts::{self, Facts, Holder},
    frame::{Ipv4, TYPE_IPV4, mac, put, word},
};

const OVERLAY: Oracle = Oracle::Overlay;

const UDP: u8 = 17;

/// Port that answers of DHCP servers come from.
const DHCP_SERVER: u16 = 67;

/// Offsets in the frame: the TTL, and the header's checksum.
const TTL: usize = 22;
const SUM: usize = 24;

/// Whether a frame in a tunnel is a packet to the MAC of a gateway, and of nobody else.
pub(super) fn concerns(facts: Facts<'_>, vxlan: &Vxlan<'_>) -> bool {
    let Some(Mac([6, 0x56, a, b, c, d])) = mac(vxlan.inner, 0) else { return false };
    word(vxlan.inner, 12) == Some(TYPE_IPV4) && facts.holder(vxlan.vni, Ipv4Addr::new(a, b, c, d)).is_none()
}

/// A packet that came from host `from` for a gateway: delivered here, or `out` to this host.
pub(super) fn check(
    facts: Facts<'_>,
    step: &Step,
    was: &Vxlan<'_>,
    from: u32,
    out: Option<(u32, Vxlan<'_>)>,
) -> Judgement {
    let wrong = |what: &str| (OVERLAY, what.to_owned());
    hold(OVERLAY, !was.was_sent_on(), || "what was sent on is routed".to_owned())?;
    let by = facts
        .0
        .ports
        .iter()
        .find(|(_, port)| port.vni == was.vni && Some(facts::mac(port.mac)) == mac(was.inner, 6));
    let (_, sender) = by.ok_or(wrong("nobody has sent it"))?;
    let theirs = sender.flags.has(PortFlags::REMOTE) && sender.ifindex == from;
    hold(OVERLAY, theirs, || "its sender is not on that host".to_owned())?;
    let gateway = mac(was.inner, 0).is_some_and(|to| facts.is_routed(sender, to));
    hold(OVERLAY, gateway, || "it is to no gateway of the sender's".to_owned())?;
    let ip = Ipv4::of(was.inner).ok_or(wrong("it is no packet"))?;
    let own = match facts.holder(was.vni, ip.source) {
        Some(Holder::Port(index)) => facts.port(index).is_some_and(|port| port.mac == sender.mac),
        Some(Holder::Vip(slot)) => {
            by.and_then(|(index, _)| facts.grant(*index, slot)).is_some_and(|grant| grant.rights.may_source())
        }
        None => false,
    };
    hold(OVERLAY, own || sender.flags.has(PortFlags::BYPASS), || {
        format!("{} is not the sender's", ip.source)
    })?;
    let vni = facts.reached(was.vni, ip.destination).ok_or(wrong("it leaves the VPC"))?;
    let Some(holder) = facts.holder(vni, ip.destination) else {
        // Only a gateway has an address and no port.
        let out = out.filter(|(host, out)| *host == from && out.vni == was.vni && !out.was_sent_on());
        let (_, out) = out.ok_or(wrong("the answer goes to somebody else"))?;
        return answered(was, &ip, &out);
    };
    let (index, receiver) = facts.port_for(holder).ok_or(wrong("nobody receives it"))?;
    let owner = match holder {
        Holder::Vip(slot) => facts.owner_mac(facts.owner(slot)),
        Holder::Port(_) => Some(facts::mac(receiver.mac)),
    };
    let (before, after, to) = if let Some((host, out)) = &out {
        let there = receiver.flags.has(PortFlags::REMOTE) && receiver.ifindex == *host;
        hold(OVERLAY, there && out.vni == receiver.vni && !out.was_sent_on(), || {
            format!("it goes to host {host} in VPC {}", out.vni)
        })?;
        let to = match holder {
            Holder::Vip(_) => Some(constant_mac(ip.destination)),
            Holder::Port(_) => owner,
        };
        (was.inner, out.inner, to)
    } else {
        let here = Verdict::Deliver { port: index, ifindex: receiver.ifindex };
        hold(OVERLAY, step.verdict == here && !receiver.flags.has(PortFlags::REMOTE), || {
            format!("it is for port {index}")
        })?;
        (was.padded, step.after.as_slice(), owner)
    };
    let Some(Mac(to)) = to else { return Err(wrong("its receiver has no MAC")) };
    let Mac(source) = constant_mac(receiver.gateway.into());
    let mut expected = before.to_vec();
    let sum = after.get(SUM..SUM + 2).unwrap_or_default();
    let one_hop = put(&mut expected, 0, &to)
        && put(&mut expected, 6, &source)
        && put(&mut expected, TTL, &[ip.ttl.wrapping_sub(1)])
        && put(&mut expected, SUM, sum);
    hold(Oracle::Fields, one_hop && ip.ttl > 1 && expected == after, || {
        "more, or less, has changed than a hop changes".to_owned()
    })?;
    let is = Ipv4::of(after).ok_or(wrong("it is no packet any more"))?;
    let stays = (ip.header_sum(was.inner) == Some(0)) == (is.header_sum(after) == Some(0));
    hold(Oracle::Fields, stays, || "the header's checksum".to_owned())
}

/// Whether a packet from host `from` for a gateway may stop for a reason; `None`: that is for others to judge.
pub(super) fn is_why(facts: Facts<'_>, vxlan: &Vxlan<'_>, from: u32, reason: DropReason) -> Option<bool> {
    let ip = Ipv4::of(vxlan.inner)?;
    let sender = facts.0.ports.iter().find(|(_, port)| {
        let there = port.flags.has(PortFlags::REMOTE) && port.ifindex == from;
        there && port.vni == vxlan.vni && Some(facts::mac(port.mac)) == mac(vxlan.inner, 6)
    });
    let bypass = sender.is_some_and(|(_, port)| port.flags.has(PortFlags::BYPASS));
    let gateway = sender.zip(mac(vxlan.inner, 0)).is_some_and(|((_, port), to)| facts.is_routed(port, to));
    let vni = facts.reached(vxlan.vni, ip.destination);
    let holder = vni.and_then(|vni| facts.holder(vni, ip.destination));
    let receiver = holder.and_then(|holder| facts.port_for(holder));
    let is_gateways = holder.is_none() && vni.is_some_and(|vni| facts.is_gateway(vni, ip.destination));
    Some(match reason {
        DropReason::ForwardedTwice => vxlan.was_sent_on(),
        DropReason::SourceMac => sender.is_none(),
        DropReason::SourceAddress => {
            let own = sender.is_some_and(|(index, port)| match facts.holder(vxlan.vni, ip.source) {
                Some(Holder::Port(holder)) => facts.port(holder).is_some_and(|other| other.mac == port.mac),
                Some(Holder::Vip(slot)) => {
                    facts.grant(*index, slot).is_some_and(|grant| grant.rights.may_source())
                }
                None => false,
            });
            sender.is_some() && !own && !bypass
        }
        DropReason::VtepAddress => bypass && facts.0.vteps.contains_key(&ip.source.into()),
        DropReason::DhcpServer => {
            !bypass && ip.protocol == UDP && word(vxlan.inner, ip.payload) == Some(DHCP_SERVER)
        }
        DropReason::NoSuchAddress => !gateway || (vni.is_some() && holder.is_none() && !is_gateways),
        DropReason::NoRoute | DropReason::Hairpin => vni.is_none(),
        DropReason::GatewayService => is_gateways,
        DropReason::Reflected => {
            receiver.zip(sender).is_some_and(|((receiver, _), (sender, _))| receiver == *sender)
        }
        DropReason::TtlExpired => ip.ttl <= 1,
        DropReason::Unowned => matches!(holder, Some(Holder::Vip(_))) && receiver.is_none(),
        DropReason::NoInterface => receiver.is_some_and(|(_, port)| port.ifindex == 0),
        DropReason::TooBig => receiver.is_some_and(|(_, port)| {
            port.mtu != 0 && ip.length() > usize::try_from(port.mtu).unwrap_or(usize::MAX)
        }),
        _ => return None,
    })
}

/// The gateway's echo reply.
fn answered(was: &Vxlan<'_>, asked: &Ipv4, out: &Vxlan<'_>) -> Judgement {
    let right = Ipv4::of(out.inner).is_some_and(|is| {
        (is.source, is.destination, is.protocol) == (asked.destination, asked.source, 1)
            && (mac(out.inner, 0), mac(out.inner, 6)) == (mac(was.inner, 6), mac(was.inner, 0))
            && (is.fragment != 0
                || (asked.icmp_type(was.inner), is.icmp_type(out.inner)) == (Some(8), Some(0)))
    });
    hold(OVERLAY, right, || "it is no answer of the gateway's".to_owned())
}
