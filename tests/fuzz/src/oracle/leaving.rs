//! What leaves the VPC as an EIP.

use std::net::Ipv4Addr;

use vip_common::{pipeline::Verdict, tables::PortFlags};
use vip_lab::Mac;

use super::{
    Judgement, Oracle,
    edit::{self, Edit, Translated},
    hold,
};
use crate::{
    Step,
    facts::{Facts, Holder},
    frame::{ICMP, Ipv4, mac},
};

pub(super) fn check(facts: Facts<'_>, step: &Step) -> Judgement {
    let (Some(was), Some(is)) = (Ipv4::of(&step.frame), Ipv4::of(&step.after)) else {
        return Err((Oracle::Leaving, "what leaves is no packet".to_owned()));
    };
    let (Some((index, port)), Some((uplink, uplink_mac))) = (facts.port_of(step.interface), facts.uplink())
    else {
        return Err((Oracle::Leaving, "there is no sender, or no uplink".to_owned()));
    };
    hold(Oracle::Leaving, mac(&step.after, 6) == Some(uplink_mac), || {
        "the source MAC is not the uplink's".to_owned()
    })?;
    private(facts, port.vni, &step.after, &is)?;
    to_neighbour(facts, step, uplink, uplink_mac, is.destination)?;

    // An error is about a packet to an EIP, which its quote shall name.
    let quoted = was.quote(&step.frame).filter(|_| matches!(was.icmp_type(&step.frame), Some(3 | 11 | 12)));
    let about = quoted.and_then(|quote| facts.eip(port.vni, quote.destination));
    let own = match facts.holder(port.vni, was.source) {
        Some(Holder::Port(holder)) if holder == index => facts.eip(port.vni, was.source),
        Some(Holder::Vip(slot)) => {
            let may = facts.grant(index, slot).is_some_and(|grant| grant.rights.may_source());
            facts.eip(port.vni, was.source).filter(|_| may)
        }
        _ => None,
    };
    // A router of the VPC tells of packets that were for others.
    let is_router = port.flags.has(PortFlags::BYPASS) && was.protocol == ICMP;
    let allowed = own.or(about.filter(|_| is_router));
    let Some(eip) = allowed else {
        return Err((Oracle::Leaving, format!("{} has no EIP to leave as", was.source)));
    };
    edit::check(
        step,
        &Edit { source: Some(eip), quote: about.map(Translated::Destination), hops: 1, ..Edit::NONE },
    )?;
    hold(Oracle::Private, quoted.is_none() || about.is_some(), || {
        "the quote is not of a packet to an EIP".to_owned()
    })
}

/// No address that the sender's VPC has or reaches is in what leaves.
fn private(facts: Facts<'_>, vni: u32, frame: &[u8], ip: &Ipv4) -> Judgement {
    let mut addresses = vec![ip.source, ip.destination];
    if let Some(quote) = ip.quote(frame) {
        addresses.extend([quote.source, quote.destination]);
    }
    // A later fragment of an error has the rest of its quote.
    let begins_in_quote = ip.protocol == ICMP && (1..28).contains(&ip.fragment);
    hold(Oracle::Private, !begins_in_quote, || "it may be a part of a quote".to_owned())?;
    let private = addresses.into_iter().find(|address| facts.reached(vni, *address).is_some());
    hold(Oracle::Private, private.is_none(), || format!("{private:?} leaves"))
}

/// The next hop is one that the tables name for the destination.
fn to_neighbour(
    facts: Facts<'_>,
    step: &Step,
    uplink: u32,
    uplink_mac: Mac,
    destination: Ipv4Addr,
) -> Judgement {
    let to = mac(&step.after, 0);
    let (right, comes_back) = match step.verdict {
        Verdict::Uplink { ifindex, .. } => {
            let known = facts.0.next_hops.values().any(|hop| Some(crate::facts::mac(hop.mac)) == to);
            (ifindex == uplink && known, false)
        }
        Verdict::ComeBack { ifindex } => (ifindex == uplink && to == Some(uplink_mac), true),
        Verdict::Resolve { next_hop, .. } => {
            let next_hop = Ipv4Addr::from(next_hop);
            (!next_hop.is_unspecified() && facts.reached(0, next_hop).is_none(), false)
        }
        _ => (false, false),
    };
    hold(Oracle::Leaving, right, || format!("{to:?} is no neighbour"))?;
    hold(Oracle::Leaving, comes_back == facts.inner(destination).is_some(), || {
        "what is to an EIP of this host comes back, and nothing else".to_owned()
    })
}
