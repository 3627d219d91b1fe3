//! What guests receive.

use std::net::Ipv4Addr;

use vip_common::{
    engine::Hook,
    pipeline::Verdict,
    tables::{PortEntry, PortFlags},
};
use vip_lab::{Mac, fixtures::world::constant_mac};

use super::{
    Judgement, Oracle,
    edit::{self, Edit, Translated},
    hold,
};
use crate::{
    Step,
    facts::{self, Facts, Holder},
    frame::{Arp, Ipv4, VRRP, address, byte, mac},
};

const DELIVERY: Oracle = Oracle::Delivery;

pub(super) fn check(facts: Facts<'_>, step: &Step) -> Judgement {
    let receiver = facts.receiver(step.verdict);
    let Some((index, interface, receiver)) =
        receiver.and_then(|(index, interface)| Some((index, interface, facts.port(index)?)))
    else {
        return Err((DELIVERY, "the receiver does not exist".to_owned()));
    };
    hold(DELIVERY, interface != 0 && receiver.ifindex == interface, || {
        format!("the receiver's interface is {}", receiver.ifindex)
    })?;
    match step.hook {
        Hook::Uplink(_) => from_outside(facts, step, index, receiver),
        Hook::Port => {
            let Some((sender, port)) = facts.port_of(step.interface) else {
                return Err((DELIVERY, "it comes from no port".to_owned()));
            };
            hold(DELIVERY, sender != index, || "the sender receives it".to_owned())?;
            hold(DELIVERY, facts.are_joined(port.vni, receiver.vni), || {
                format!("VPC {} sends to {}", port.vni, receiver.vni)
            })?;
            match Ipv4::of(&step.frame) {
                Some(ip) => inside(facts, step, (sender, port), (index, receiver), &ip),
                None => arp(facts, step, port, index, receiver),
            }
        }
    }
}

/// To an EIP: to who has it, through its gateway.
fn from_outside(facts: Facts<'_>, step: &Step, index: u32, receiver: &PortEntry) -> Judgement {
    let Some(ip) = Ipv4::of(&step.frame) else { return Err((DELIVERY, "it is no packet".to_owned())) };
    let Some(inner) = facts.inner(ip.destination) else {
        return Err((DELIVERY, "it is to no EIP".to_owned()));
    };
    let owner = facts.port_for(inner.holder).map(|(owner, _)| owner);
    hold(DELIVERY, (owner, inner.vni) == (Some(index), receiver.vni), || {
        format!("the EIP is port {owner:?}'s")
    })?;
    hold(DELIVERY, ip.is_from_host(), || format!("{} is no host", ip.source))?;
    has_macs(facts, step, inner.holder, receiver)?;
    let address = Some(inner.address);
    edit::check(
        step,
        &Edit { destination: address, quote: address.map(Translated::Source), hops: 1, ..Edit::NONE },
    )
}

/// Ethernet addresses of what comes through the receiver's gateway.
fn has_macs(facts: Facts<'_>, step: &Step, holder: Holder, receiver: &PortEntry) -> Judgement {
    let to = match holder {
        Holder::Vip(slot) => facts.owner_mac(facts.owner(slot)),
        Holder::Port(_) => Some(facts::mac(receiver.mac)),
    };
    let macs = (mac(&step.after, 0), mac(&step.after, 6));
    let expected = (to, Some(constant_mac(receiver.gateway.into())));
    hold(DELIVERY, macs == expected, || format!("the MACs are {macs:?} instead of {expected:?}"))
}

fn inside(
    facts: Facts<'_>,
    step: &Step,
    (sender, port): (u32, &PortEntry),
    (index, receiver): (u32, &PortEntry),
    ip: &Ipv4,
) -> Judgement {
    let holder = facts.holder(receiver.vni, ip.destination);
    let owns = match holder {
        Some(Holder::Vip(slot)) => facts.owner(slot).port() == index,
        Some(Holder::Port(port)) => port == index,
        None => false,
    };
    let to = mac(&step.frame, 0).unwrap_or(Mac::ZERO);
    if facts.is_routed(port, to) {
        let Some(holder) = holder.filter(|_| owns) else {
            return Err((DELIVERY, format!("{} is not the receiver's", ip.destination)));
        };
        hold(DELIVERY, facts.reached(port.vni, ip.destination) == Some(receiver.vni), || {
            "no subnet leads there".to_owned()
        })?;
        has_macs(facts, step, holder, receiver)?;
        return edit::check(step, &Edit { hops: 1, ..Edit::NONE });
    }
    let is_real_server = match holder {
        Some(Holder::Vip(slot)) => {
            let rights = facts.grant(index, slot).map(|grant| grant.rights).unwrap_or_default();
            rights.is_real_server() || (facts.owner(slot).port() == sender && rights.may_source())
        }
        _ => false,
    };
    let may = owns || is_real_server || receiver.flags.has(PortFlags::BYPASS);
    hold(DELIVERY, may, || format!("{} is not the receiver's", ip.destination))?;
    hold(DELIVERY, (receiver.vni, receiver.subnet) == (port.vni, port.subnet), || {
        "the receiver is in another subnet".to_owned()
    })?;
    let Some(now) = mac(&step.after, 0) else { return Err((DELIVERY, "it has no MAC".to_owned())) };
    hold(DELIVERY, facts.may_have(receiver, now), || format!("the MAC {now} is not the receiver's"))?;
    hold(DELIVERY, mac(&step.after, 6) == mac(&step.frame, 6), || "the sender's MAC is another".to_owned())?;
    edit::check(step, &Edit::NONE)
}

/// A member's probe goes to the owner; a reply to who asked, with the constant MAC of a VIP.
fn arp(facts: Facts<'_>, step: &Step, port: &PortEntry, index: u32, receiver: &PortEntry) -> Judgement {
    let Some(arp) = Arp::of(&step.frame) else {
        return Err((DELIVERY, "it is neither IPv4 nor ARP".to_owned()));
    };
    if arp.sender.is_unspecified() {
        let Some(Holder::Vip(slot)) = facts.holder(port.vni, arp.target) else {
            return Err((DELIVERY, "a probe is not for a VIP".to_owned()));
        };
        hold(DELIVERY, facts.owner(slot).port() == index, || "a probe is not for its receiver".to_owned())?;
        return unchanged(step, &step.frame);
    }
    let asked = arp.operation == 2
        && mac(&step.frame, 0) == Some(facts::mac(receiver.mac))
        && (receiver.vni, receiver.subnet) == (port.vni, port.subnet);
    hold(DELIVERY, asked, || "an ARP packet is not for its receiver".to_owned())?;
    let mut expected = step.frame.clone();
    if let Some(Holder::Vip(_)) = facts.holder(port.vni, arp.sender) {
        let Mac(constant) = constant_mac(arp.sender);
        crate::frame::put(&mut expected, 6, &constant);
        crate::frame::put(&mut expected, 22, &constant);
    }
    unchanged(step, &expected)
}

fn unchanged(step: &Step, expected: &[u8]) -> Judgement {
    hold(Oracle::Fields, step.after == expected, || {
        format!("the bytes should be {}", crate::frame::hex(expected))
    })
}

/// Of an advertisement, the address that it is from, and the slot of the first VIP that it names.
pub(super) fn advertisement(facts: Facts<'_>, vni: u32, frame: &[u8]) -> Option<(Ipv4Addr, Option<u32>)> {
    const HEADER: usize = 8;
    let ip = Ipv4::of(frame)
        .filter(|ip| ip.protocol == VRRP && ip.destination.octets() == [224, 0, 0, 18] && ip.ttl == 255)?;
    let addresses = ip.payload + HEADER;
    let count = usize::from(byte(frame, ip.payload + 3)?);
    let is_whole = ip.fragment == 0 && addresses + 4 * count <= ip.end;
    // What stands behind eight addresses is not looked at.
    let mut named =
        (0..count.min(8)).filter(|_| is_whole).filter_map(|number| address(frame, addresses + 4 * number));
    let slot = named.find_map(|address| match facts.holder(vni, address) {
        Some(Holder::Vip(slot)) => Some(slot),
        _ => None,
    });
    Some((ip.source, slot))
}

/// An advertisement goes to the other members, and to nobody else.
pub(super) fn check_members(facts: Facts<'_>, step: &Step, slot: u32, sender: u32) -> Judgement {
    let (port, members) = (facts.port_of(step.interface), facts.0.members.get(&slot));
    let (Some((index, port)), Some(members)) = (port, members) else {
        return Err((DELIVERY, "there is no such sender, or VIP".to_owned()));
    };
    let may = index == sender && facts.grant(index, slot).is_some_and(|grant| grant.rights.may_own());
    hold(DELIVERY, may, || "the sender is no member".to_owned())?;
    let (source, about) = advertisement(facts, port.vni, &step.frame).unzip();
    hold(DELIVERY, about.flatten() == Some(slot), || format!("it is about {about:?}, not about {slot}"))?;
    hold(DELIVERY, source == Some(port.address.into()), || format!("its source is {source:?}"))?;
    let mut expected: Vec<u32> = facts
        .0
        .ports
        .iter()
        .filter(|(member, _)| **member != sender && members.ports.contains(member))
        .filter(|(_, member)| member.vni == port.vni && member.ifindex != 0)
        .filter(|(_, member)| !member.flags.has(PortFlags::REMOTE))
        .map(|(_, member)| member.ifindex)
        .collect();
    let mut receivers = step.receivers.clone();
    expected.sort_unstable();
    receivers.sort_unstable();
    hold(DELIVERY, receivers == expected, || format!("{receivers:?} receive it instead of {expected:?}"))
}

/// What a bridge sees of claims: accepted ones of its own ports.
pub(super) fn check_passed_on(facts: Facts<'_>, step: &Step) -> Judgement {
    let bridged = facts.port_of(step.interface).filter(|(_, port)| port.flags.has(PortFlags::BRIDGED));
    let owns = bridged.zip(Arp::of(&step.frame)).is_some_and(|((index, port), arp)| {
        let holder = facts.holder(port.vni, arp.sender);
        arp.announces() && matches!(holder, Some(Holder::Vip(slot)) if facts.owner(slot).port() == index)
    });
    hold(DELIVERY, owns && step.verdict == Verdict::PassOn, || {
        "the bridge sees what is no accepted claim".to_owned()
    })
}
