//! What goes back where the frame came from: answers. Each kind of answer has its own check.

use vip_common::{engine::Hook, tables::AddressKind, wire};
use vip_lab::{Mac, fixtures::world::constant_mac};

use super::{Judgement, Oracle, hold};
use crate::{
    Step,
    facts::{self, Facts, Holder},
    frame::{Arp, ICMP, Ipv4, hex, mac, put, sum},
};

const RETURNED: Oracle = Oracle::Returned;

pub(super) fn check(facts: Facts<'_>, step: &Step) -> Judgement {
    if let Some(question) = Arp::of(&step.frame) {
        return arp(facts, step, &question);
    }
    match (step.hook, Ipv4::of(&step.frame)) {
        (Hook::Port, Some(ip)) => echo(facts, step, &ip),
        _ => Err((RETURNED, "it is answered, and is no question".to_owned())),
    }
}

/// The address, asked for by who may be answered, is at a MAC that the tables tell.
fn arp(facts: Facts<'_>, step: &Step, question: &Arp) -> Judgement {
    hold(RETURNED, question.operation == 1 && !question.announces(), || "an answer is answered".to_owned())?;
    let told = match step.hook {
        Hook::Uplink(_) => facts.inner(question.target).and_then(|_| facts.uplink()).map(|(_, mac)| mac),
        Hook::Port => told_to_guest(facts, step, question),
    };
    let Some(told) = told else {
        return Err((RETURNED, format!("nobody may answer for {}", question.target)));
    };
    let (Mac(told), Mac(asker)) = (told, question.sender_mac);
    let mut expected = step.frame.clone();
    let fields = [
        (0, asker.as_slice()),
        (6, &told),
        (20, &[0, 2]),
        (22, &told),
        (28, &question.target.octets()),
        (32, &asker),
        (38, &question.sender.octets()),
    ];
    let fits = fields.into_iter().all(|(at, bytes)| put(&mut expected, at, bytes));
    hold(RETURNED, fits && step.after == expected, || format!("the answer should be {}", hex(&expected)))
}

/// The constant MAC of a VIP or a gateway, the own one of a port; nobody is told of itself.
fn told_to_guest(facts: Facts<'_>, step: &Step, question: &Arp) -> Option<Mac> {
    let (index, port) = facts.port_of(step.interface)?;
    let subnet = facts.0.subnets.iter().any(|(vni, network, mask, entry)| {
        (*vni, entry.subnet) == (port.vni, port.subnet)
            && wire::Ipv4::from(question.target).is_in(*network, *mask)
    });
    if !subnet {
        return None;
    }
    match facts.holder(port.vni, question.target) {
        Some(Holder::Vip(_)) => Some(constant_mac(question.target)),
        Some(Holder::Port(holder)) => {
            (holder != index).then(|| facts.port(holder).map(|port| facts::mac(port.mac)))?
        }
        None => is_gateway(facts, port.vni, question.target).then(|| constant_mac(question.target)),
    }
}

/// Whether the address is a gateway that the forwarder is.
fn is_gateway(facts: Facts<'_>, vni: u32, address: std::net::Ipv4Addr) -> bool {
    let key = vip_common::tables::VniAddress { vni, address: address.into() };
    let kind = facts.0.addresses.get(&key).and_then(|target| target.kind());
    matches!(kind, Some(AddressKind::Gateway(_)))
}

/// An echo request to a gateway of the VPC or its peers comes back as its reply (RFC 792), from the MAC that was asked for it.
fn echo(facts: Facts<'_>, step: &Step, ip: &Ipv4) -> Judgement {
    /// What a host begins with.
    const OWN_TTL: u8 = 64;
    let (before, after) = (&step.frame, &step.after);
    let Some((_, port)) = facts.port_of(step.interface) else {
        return Err((RETURNED, "nobody asked".to_owned()));
    };
    let gateway =
        facts.reached(port.vni, ip.destination).is_some_and(|vni| is_gateway(facts, vni, ip.destination));
    let request = ip.fragment != 0 || ip.icmp_type(before) == Some(8);
    hold(RETURNED, gateway && ip.protocol == ICMP && request, || {
        "it is no echo request to a gateway".to_owned()
    })?;
    let Some(from) = mac(before, 6) else { return Err((RETURNED, "nobody asked".to_owned())) };
    let to = mac(before, 0).unwrap_or(Mac::ZERO);
    let Mac(answerer) = if facts.is_routed(port, to) {
        constant_mac(port.gateway.into())
    } else {
        constant_mac(ip.destination)
    };
    let Mac(from) = from;
    let mut expected = before.clone();
    let mut fields = vec![
        (0, from.to_vec()),
        (6, answerer.to_vec()),
        (22, vec![OWN_TTL]),
        (26, ip.destination.octets().to_vec()),
        (30, ip.source.octets().to_vec()),
        // Judged by their sums.
        (24, after.get(24..26).unwrap_or_default().to_vec()),
    ];
    let is_first = ip.fragment == 0;
    if is_first {
        fields.push((ip.payload, vec![0]));
        let checksum = after.get(ip.payload + 2..ip.payload + 4);
        fields.push((ip.payload + 2, checksum.unwrap_or_default().to_vec()));
    }
    let fits = fields.into_iter().all(|(at, bytes)| put(&mut expected, at, &bytes));
    hold(RETURNED, fits && *after == expected, || format!("the reply should be {}", hex(&expected)))?;
    let headers = (ip.header_sum(before), ip.header_sum(after));
    hold(Oracle::Checksums, headers.0 == headers.1, || "the header's checksum".to_owned())?;
    let message = |frame: &[u8]| frame.get(ip.payload..ip.end).map(sum);
    hold(Oracle::Checksums, !is_first || message(before) == message(after), || {
        "the message's checksum".to_owned()
    })
}
