//! What fits through the interface that it goes to, and what is made of what does not.

use vip_common::{
    engine::Hook,
    pipeline::Verdict,
    tables::{PortEntry, PortFlags},
};
use vip_lab::Mac;

use super::{Judgement, Oracle, hold};
use crate::{
    Step,
    facts::Facts,
    frame::{ETHERNET, IPV4, Ipv4, mac, word},
};

const FRAGMENTS: Oracle = Oracle::Fragments;

/// Longest frame in bytes that is cut.
const LONGEST: usize = 0x3fff;
/// Most fragments of a packet.
const MOST: usize = 32;

pub(super) fn check(facts: Facts<'_>, step: &Step) -> Judgement {
    let cut_for = match step.verdict {
        Verdict::DeliverFragments { mtu, .. } => Some(mtu),
        Verdict::Uplink { mtu, .. } if mtu != 0 => Some(mtu),
        _ => None,
    };
    hold(FRAGMENTS, cut_for.is_some() || step.fragments.is_empty(), || "it is cut by mistake".to_owned())?;
    let goes_on = facts.receiver(step.verdict).is_some()
        || matches!(
            step.verdict,
            Verdict::Uplink { .. } | Verdict::Resolve { .. } | Verdict::ComeBack { .. }
        );
    // What is no packet is nothing that is routed.
    let Some(ip) = Ipv4::of(&step.frame).filter(|_| goes_on) else { return Ok(()) };
    let narrow = limit(facts, step, &ip).filter(|limit| ip.length() > bytes(*limit));
    let can_be_cut = narrow.is_some_and(|limit| can_be_cut(&ip, limit));
    match (narrow, cut_for) {
        (None, None) => Ok(()),
        // The kernel, which has yet to find the neighbour, cuts nothing and loses it.
        (Some(_), None) => {
            hold(FRAGMENTS, can_be_cut && matches!(step.verdict, Verdict::Resolve { .. }), || {
                format!("{} bytes go where {narrow:?} fit", ip.length())
            })
        }
        (_, Some(mtu)) => {
            hold(FRAGMENTS, narrow == Some(mtu) && can_be_cut, || {
                format!("{} bytes are cut for {mtu}, where {narrow:?} fit", ip.length())
            })?;
            together(step, bytes(mtu))
        }
    }
}

/// Most bytes of IP that go through the interface to which a packet is routed, whatever became of it; `None`: any number of them,
/// as to a neighbour in the same subnet, and to an EIP, which is on its way into the uplink still.
pub(super) fn limit(facts: Facts<'_>, step: &Step, ip: &Ipv4) -> Option<u32> {
    let of_port = |port: Option<&PortEntry>| port.map(|port| port.mtu);
    let limit = match step.hook {
        Hook::Uplink(_) => {
            let holder = facts.inner(ip.destination)?.holder;
            of_port(facts.port_for(holder).map(|(_, port)| port))
        }
        Hook::Port => {
            let (_, port) = facts.port_of(step.interface)?;
            let routed = facts.is_routed(port, mac(&step.frame, 0).unwrap_or(Mac::ZERO));
            match facts.reached(port.vni, ip.destination) {
                Some(vni) if routed => {
                    let holder = facts.holder(vni, ip.destination)?;
                    of_port(facts.port_for(holder).map(|(_, port)| port))
                }
                None if routed || port.flags.has(PortFlags::EXTERNAL_ROUTER) => facts
                    .inner(ip.destination)
                    .is_none()
                    .then(|| facts.0.config.as_ref().map(|config| config.uplink_mtu))?,
                _ => None,
            }
        }
    };
    limit.filter(|limit| *limit != 0)
}

/// Whether a packet may be cut, and can, for an interface that takes `limit` bytes.
pub(super) fn can_be_cut(ip: &Ipv4, limit: u32) -> bool {
    let payload = ip.end - ip.payload;
    let has_options = ip.payload - ip.start != IPV4;
    // Of a packet that cannot have been one (RFC 791 section 3.1), what lies behind its longest has no offset.
    let is_too_far = ip.fragment + payload > usize::from(u16::MAX);
    !ip.whole
        && !has_options
        && !is_too_far
        && ip.end <= LONGEST
        && each(bytes(limit)).is_some_and(|each| payload.div_ceil(each) <= MOST)
}

/// Most bytes of payload in a fragment that others follow (RFC 791 section 3.2); `None`: not even 8 fit.
fn each(limit: usize) -> Option<usize> {
    limit.checked_sub(IPV4).map(|room| room / 8 * 8).filter(|each| *each != 0)
}

fn bytes(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// The fragments have the header of the packet that leaves, each says rightly which part it is, and all of its payload is there.
fn together(step: &Step, limit: usize) -> Judgement {
    let after = &step.after;
    let (Some(packet), Some(each)) = (Ipv4::of(after), each(limit)) else {
        return Err((FRAGMENTS, "what is cut is no packet".to_owned()));
    };
    let payload = after.get(packet.payload..packet.end).unwrap_or_default();
    let parts: Vec<_> = payload.chunks(each).collect();
    hold(FRAGMENTS, parts.len() == step.fragments.len(), || {
        format!("{} fragments instead of {}", step.fragments.len(), parts.len())
    })?;
    let mut offset = packet.fragment;
    for (number, (part, frame)) in parts.iter().zip(&step.fragments).enumerate() {
        let told = |what: &str| format!("fragment {number}: {what}: {}", crate::frame::hex(frame));
        let Some(ip) = Ipv4::of(frame) else { return Err((FRAGMENTS, told("is no packet"))) };
        let is_last = number + 1 == parts.len();
        hold(FRAGMENTS, ip.length() <= limit, || told("is too long"))?;
        let place = (ip.fragment, ip.more) == (offset, !is_last || packet.more);
        // Neither DF nor the bit that is always 0.
        let flags = word(frame, 20).is_some_and(|word| word & 0xc000 == 0);
        hold(FRAGMENTS, place && flags, || told("is another part"))?;
        hold(FRAGMENTS, frame.get(ip.payload..) == Some(*part), || told("has another payload"))?;
        let same = [0..ETHERNET + 2, 18..20, 22..24, 26..ETHERNET + IPV4]
            .into_iter()
            .all(|range| frame.get(range.clone()) == after.get(range));
        hold(FRAGMENTS, same, || told("has another header"))?;
        hold(Oracle::Checksums, ip.header_sum(frame) == packet.header_sum(after), || {
            told("the header's checksum")
        })?;
        offset += part.len();
    }
    Ok(())
}

/// Whether a packet is refused because it is too long, rightly so.
pub(super) fn check_too_big(facts: Facts<'_>, step: &Step, ip: &Ipv4) -> Judgement {
    let limit = limit(facts, step, ip);
    let right = limit.is_some_and(|limit| ip.length() > bytes(limit) && !can_be_cut(ip, limit));
    hold(Oracle::Refused, right, || format!("{} bytes are refused where {limit:?} fit", ip.length()))
}
