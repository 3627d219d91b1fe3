//! Out undoes in, and in undoes out: an answer reaches who is answered, from the address that it knows.

use std::net::Ipv4Addr;

use vip_common::{
    DropReason,
    engine::{Hook, MemoryTables},
    pipeline::{Stage, Verdict},
    tables::PortFlags,
};

use super::{Oracle, Violation, hold, overlay, violation};
use crate::{
    Step,
    facts::{Facts, Inner},
    frame::{Ipv4, put},
};

/// The answer to a packet.
pub struct Answer {
    /// The program that it meets.
    pub hook: Hook,
    /// The interface that it comes through.
    pub interface: u32,
    /// The packet with both ends exchanged.
    pub frame: Vec<u8>,
}

/// The answer to what was translated; None: it was not, or cannot be answered.
pub fn answer(tables: &MemoryTables, step: &Step) -> Option<Answer> {
    let ip = Ipv4::of(&step.after)?;
    let frame = || exchanged(&step.after, &ip);
    match (step.hook, step.verdict) {
        (Hook::Uplink(_), Verdict::Deliver { ifindex, .. } | Verdict::DeliverFragments { ifindex, .. }) => {
            Some(Answer { hook: Hook::Port, interface: ifindex, frame: frame()? })
        }
        (Hook::Port, Verdict::Uplink { ifindex, .. }) => {
            Some(Answer { hook: Hook::Uplink(Stage::Tc), interface: ifindex, frame: frame()? })
        }
        (Hook::Port, Verdict::Resolve { .. }) => {
            let (interface, _) = Facts(tables).uplink()?;
            Some(Answer { hook: Hook::Uplink(Stage::Tc), interface, frame: frame()? })
        }
        _ => None,
    }
}

/// The same bytes with MACs and addresses exchanged, of a quote too, and a TTL with which they get there.
fn exchanged(frame: &[u8], ip: &Ipv4) -> Option<Vec<u8>> {
    let mut answer = frame.to_vec();
    answer.get_mut(..12)?.rotate_left(6);
    answer.get_mut(26..34)?.rotate_left(4);
    // The checksum stays as it is: how wrong it is, is the way's business as well.
    put(&mut answer, 22, &[64]).then_some(())?;
    if let Some(quote) = ip.quote(frame) {
        answer.get_mut(quote.start + 12..quote.start + 20)?.rotate_left(4);
    }
    Some(answer)
}

/// Checks what became of an answer.
///
/// # Errors
///
/// It went elsewhere, or from another address.
pub fn check(tables: &MemoryTables, step: &Step, answer: &Answer, back: &Step) -> Result<(), Violation> {
    let facts = Facts(tables);
    if overlay::concerns(facts, back) {
        // It goes on to another host, of which that oracle knows more.
        return Ok(());
    }
    let (Some(first), Some(sent), Some(got)) =
        (Ipv4::of(&step.frame), Ipv4::of(&answer.frame), Ipv4::of(&back.after))
    else {
        return Err(violation(Oracle::WayBack, "an answer is no packet", back));
    };
    let judged = match answer.hook {
        Hook::Port => {
            let out = matches!(
                back.verdict,
                Verdict::Uplink { .. } | Verdict::Resolve { .. } | Verdict::ComeBack { .. }
            );
            let right = out && (got.source, got.destination) == (first.destination, first.source);
            right || (!out && has_no_way_out(facts, back, &sent))
        }
        Hook::Uplink(_) => match facts.inner(sent.destination) {
            Some(inner) => reaches(facts, step, &first, &got, back, inner),
            None => false,
        },
    };
    hold(Oracle::WayBack, judged, || {
        format!("{} to {} was answered, which ends as {:?}", first.source, first.destination, back.verdict)
    })
    .map_err(|(oracle, what)| violation(oracle, &what, back))
}

/// Why what a guest answers may stay inside: it is not the gateway's to route, or the way is one way.
fn has_no_way_out(facts: Facts<'_>, back: &Step, sent: &Ipv4) -> bool {
    let Some((_, port)) = facts.port_of(back.interface) else { return false };
    // From nobody's address: a group's, which may be VRRP's, or one that is never forwarded (RFC 1812 section 5.3.7).
    if sent.destination.is_multicast() || is_never_forwarded(sent.destination) {
        return true;
    }
    let reason = |reason: DropReason| back.verdict == Verdict::Drop(reason.index());
    match back.verdict {
        // Always allowed, or somebody else's router's.
        Verdict::NotOurs => port.flags.has(PortFlags::EXTERNAL_ROUTER),
        // Its sender said that it is an address that is inside.
        Verdict::Deliver { .. }
        | Verdict::DeliverFragments { .. }
        | Verdict::Return
        | Verdict::Members { .. } => facts.reached(port.vni, sent.destination).is_some(),
        // The way out is narrower than the way in: another oracle knows how narrow.
        Verdict::Tell { reason, .. } => reason == DropReason::TooBig.index(),
        Verdict::Drop(_) => {
            let inside = facts.reached(port.vni, sent.destination).is_some();
            inside
                || [
                    DropReason::NoNextHop,
                    DropReason::HostAddress,
                    DropReason::DhcpServer,
                    DropReason::TooBig,
                ]
                .into_iter()
                .any(reason)
                || (reason(DropReason::TinyFragment) && sent.protocol == 1 && sent.fragment != 0)
                || (reason(DropReason::IcmpError) && sent.quote(&back.frame).is_some())
        }
        _ => false,
    }
}

fn is_never_forwarded(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first == 0 || first == 127 || first >= 240
}

/// Whether an answer from outside reaches who sent: the sender itself, or who owns the VIP.
fn reaches(facts: Facts<'_>, step: &Step, first: &Ipv4, got: &Ipv4, back: &Step, inner: Inner) -> bool {
    let receiver = facts.port_for(inner.holder);
    let Some(sender) = facts.port_of(step.interface) else { return false };
    let reachable = receiver.is_some_and(|(_, port)| port.ifindex != 0);
    if let Some((port, _)) = facts.receiver(back.verdict) {
        // A router's error left as the EIP that it is about.
        let as_router = sender.1.flags.has(PortFlags::BYPASS) && first.quote(&step.frame).is_some();
        return receiver.is_some_and(|(index, _)| index == port)
            && got.source == first.destination
            && (got.destination == first.source || as_router);
    }
    match back.verdict {
        // The way in is narrower than the way out: another oracle knows how narrow.
        Verdict::Tell { reason, .. } => reason == DropReason::TooBig.index(),
        Verdict::Drop(_) => {
            !reachable
                || back.verdict == Verdict::Drop(DropReason::TooBig.index())
                || (back.verdict == Verdict::Drop(DropReason::IcmpError.index())
                    && first.quote(&step.frame).is_some())
        }
        _ => false,
    }
}
