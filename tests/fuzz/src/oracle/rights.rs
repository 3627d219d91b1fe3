//! What who sends may say that it is.

use std::net::Ipv4Addr;

use vip_common::{engine::Hook, pipeline::Verdict, tables::PortFlags};

use super::{Judgement, Oracle, hold};
use crate::{
    Step,
    facts::{Facts, Holder},
    frame::{Ipv4, mac},
};

pub(super) fn check(facts: Facts<'_>, step: &Step) -> Judgement {
    let Hook::Port = step.hook else { return Ok(()) };
    let Some((index, port)) = facts.port_of(step.interface) else {
        return hold(Oracle::Rights, step.verdict == Verdict::NotOurs, || {
            "the frame is from an interface that is in no table".to_owned()
        });
    };
    if matches!(step.verdict, Verdict::Drop(_)) {
        return Ok(());
    }
    let from = mac(&step.frame, 6).is_some_and(|from| facts.may_have(port, from));
    hold(Oracle::Rights, from, || "the source MAC is somebody else's".to_owned())?;

    let handled = !matches!(step.verdict, Verdict::NotOurs | Verdict::PassOn);
    let Some(ip) = Ipv4::of(&step.frame).filter(|_| handled) else { return Ok(()) };
    let from_vip = || match facts.holder(port.vni, ip.source) {
        Some(Holder::Vip(slot)) => facts.grant(index, slot).is_some_and(|grant| grant.rights.may_source()),
        _ => false,
    };
    // LVS-DR: the owner of the VIP hands on what is to the VIP.
    let directs = || match (facts.holder(port.vni, ip.destination), step.verdict) {
        (Some(Holder::Vip(slot)), Verdict::Deliver { .. }) => facts.owner(slot).port() == index,
        _ => false,
    };
    let may = ip.source == Ipv4Addr::from(port.address)
        || port.flags.has(PortFlags::BYPASS)
        || from_vip()
        || directs();
    hold(Oracle::Rights, may, || format!("the source address {} is not the sender's", ip.source))
}
