//! What is counted of traffic.

use std::collections::BTreeMap;

use vip_common::{
    engine::Hook,
    pipeline::Verdict,
    tables::{Direction, Traffic},
};

use super::{Judgement, Oracle, hold};
use crate::{
    Step,
    facts::{Facts, Holder},
    frame::{Ipv4, address},
};

pub(super) fn check(facts: Facts<'_>, step: &Step) -> Judgement {
    let mut eips = BTreeMap::new();
    // Slots of VIPs whose traffic must be counted, and whether anything else may be.
    let mut vips = BTreeMap::new();
    let bytes = step.after.len() as u64;
    let eip = match (step.hook, step.verdict) {
        (Hook::Uplink(_), Verdict::Deliver { .. } | Verdict::DeliverFragments { .. }) => {
            address(&step.frame, 30).map(|eip| (eip, Direction::In))
        }
        (Hook::Port, Verdict::Uplink { .. } | Verdict::Resolve { .. } | Verdict::ComeBack { .. }) => {
            address(&step.after, 26).map(|eip| (eip, Direction::Out))
        }
        (Hook::Port, Verdict::Deliver { .. } | Verdict::DeliverFragments { .. }) => {
            inside(facts, step, &mut vips, bytes);
            None
        }
        _ => None,
    };
    if let Some((eip, direction)) = eip {
        count(&mut eips, eip.into(), direction, bytes);
        if let Some(Holder::Vip(slot)) = facts.inner(eip).map(|inner| inner.holder) {
            count(&mut vips, slot, direction, bytes);
        }
    }
    hold(Oracle::Traffic, step.left.eips == eips, || {
        format!("of EIPs {:?} is counted instead of {eips:?}", step.left.eips)
    })?;
    hold(Oracle::Traffic, step.left.vips == vips, || {
        format!("of VIPs {:?} is counted instead of {vips:?}", step.left.vips)
    })
}

/// A packet inside the VPC: from a VIP, and to one, unless its destination MAC chose a real server, or a guest without check.
fn inside(facts: Facts<'_>, step: &Step, vips: &mut BTreeMap<u32, Traffic>, bytes: u64) {
    let (Some(ip), Some((_, sender))) = (Ipv4::of(&step.frame), facts.port_of(step.interface)) else {
        return;
    };
    let Some((port, _)) = facts.receiver(step.verdict) else { return };
    let Some(vni) = facts.port(port).map(|port| port.vni) else { return };
    let from = facts.holder(sender.vni, ip.source);
    let to = facts.holder(vni, ip.destination);
    if let Some(Holder::Vip(slot)) = from {
        let may = facts.port_of(step.interface).and_then(|(index, _)| facts.grant(index, slot));
        if may.is_some_and(|grant| grant.rights.may_source()) {
            count(vips, slot, Direction::Out, bytes);
        }
    }
    if let Some(Holder::Vip(slot)) = to {
        let goes_to_owner = facts.owner(slot).port() == port;
        let by_address = vni != sender.vni
            || crate::frame::mac(&step.frame, 0).is_some_and(|to| facts.is_routed(sender, to))
            || facts.is_neighbour(sender, ip.destination);
        if goes_to_owner && by_address {
            count(vips, slot, Direction::In, bytes);
        }
    }
}

fn count<K: Ord>(counted: &mut BTreeMap<K, Traffic>, key: K, direction: Direction, bytes: u64) {
    let traffic = counted.entry(key).or_default();
    let (packets, sum) = match direction {
        Direction::In => (&mut traffic.packets_in, &mut traffic.bytes_in),
        Direction::Out => (&mut traffic.packets_out, &mut traffic.bytes_out),
    };
    *packets += 1;
    *sum += bytes;
}
