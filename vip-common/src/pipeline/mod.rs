//! The decisions about a packet, from the first byte to the verdict.
//!
//! Two entries, one per place where packets come from: [`uplink`] for what reaches the host from outside, [`port`] for what
//! a guest sends. Both take a [`Packet`] and the [`Tables`] and return a [`Verdict`]; the caller only carries it out. A packet
//! is changed at the very end, when nothing can refuse it any more, so a verdict of [`Verdict::NotOurs`] or
//! [`Verdict::LeaveToTc`] always finds the bytes as they came, and so does an error that quotes the packet.
//!
//! ```text
//! uplink: parse → EIP → owner of the VIP, or port → translate → deliver
//!                                                 → lives too short, too long → tell the sender
//!         VXLAN of a VPC → receiver by the MAC inside → deliver | on its way once more | to the members here
//! port:   source MAC → ARP: sender → claim | question | reply
//!                    → IPv4: always allowed → source address → by MAC | by VIP | routed → deliver | translate → next hop
//!                                                                                        → for an EIP: into the uplink
//!                                                                                        → on another host: VXLAN
//! ```

mod advert;
mod arp;
mod claim;
mod deliver;
mod far_end;
mod fragments;
mod guest;
mod network;
mod outside;
mod overlay;
mod packet;
mod quote;
mod rewrite;
mod route;
mod source;
mod tables;
mod tell;
mod tunnel;
mod verdict;

pub use self::{
    advert::{Advertised, advertised},
    claim::{Claim, ClaimOutcome, learn_unowned, present_owner, report_use, take_claim, take_pending},
    fragments::{Fragment, Fragments},
    network::neighbours_interface,
    packet::{EditFailed, Ipv4Packet, Packet, mend_in_place},
    source::{SourceQuestion, source_of},
    tables::{Tables, VipCell, for_each_receiver},
    tell::IcmpErrorHeaders,
    tunnel::{TunnelHeaders, for_each_host},
    verdict::{Stage, Verdict},
};

use crate::{tables::ConfigFlags, wire::Protocol};

/// Decides about a frame that reached the uplink.
#[inline(always)]
pub fn uplink<P: Packet, T: Tables>(packet: &mut P, tables: &T, stage: Stage) -> Verdict {
    let decision = outside::decide(packet, tables, stage);
    if decision.is_delivery() {
        // First and alone: this is what packets are for.
        tables.observe(decision.word());
        return decision.delivery();
    }
    let decision =
        if decision.is_simple() { decision } else { rest_of_uplink(packet, tables, decision, stage) };
    conclude(decision, tables)
}

/// Decides about a frame that a guest sent.
#[inline(always)]
pub fn port<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    let decision = guest::decide(packet, tables);
    let decision = if decision.is_simple() { decision } else { rest_of_port(packet, tables, decision) };
    conclude(decision, tables)
}

/// What is left to do about a packet, for a second program: the first one's stack, and what the verifier follows of it, end here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Nothing.
    Done(Verdict),
    /// The rest, by [`resume`] with this word.
    Rest(u64),
}

/// The first part of [`uplink`] in TC.
#[inline(always)]
pub fn begin_uplink<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Step {
    step(outside::decide(packet, tables, Stage::Tc), tables)
}

/// The first part of [`port`].
#[inline(always)]
pub fn begin_port<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Step {
    step(guest::decide(packet, tables), tables)
}

#[inline(always)]
fn step<T: Tables>(decision: verdict::Decision, tables: &T) -> Step {
    if decision.is_simple() { Step::Done(conclude(decision, tables)) } else { Step::Rest(decision.word()) }
}

/// Where a packet came from that is [resumed](resume).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The uplink.
    Uplink,
    /// A guest's port.
    Port,
}

/// The second part of [`uplink`] and [`port`] in TC.
#[inline(always)]
pub fn resume<P: Packet, T: Tables>(packet: &mut P, tables: &T, word: u64, origin: Origin) -> Verdict {
    let decision = verdict::Decision::from_word(word);
    let decision = match origin {
        Origin::Uplink => rest_of_uplink(packet, tables, decision, Stage::Tc),
        Origin::Port => rest_of_port(packet, tables, decision),
    };
    conclude(decision, tables)
}

#[inline(always)]
fn rest_of_uplink<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    decision: verdict::Decision,
    stage: Stage,
) -> verdict::Decision {
    if decision.is_tunnel() {
        tunnel::send(packet, tables, decision, stage)
    } else if decision.is_refusal() {
        tell::tell_outside(packet, tables, decision, stage)
    } else {
        decision
    }
}

#[inline(always)]
fn rest_of_port<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    decision: verdict::Decision,
) -> verdict::Decision {
    if decision.is_tunnel() {
        tunnel::send(packet, tables, decision, Stage::Tc)
    } else if decision.is_out() || decision.is_refusal() {
        last_steps(packet, tables, decision)
    } else {
        decision
    }
}

/// The last steps of a packet that leaves as an EIP, or whose sender is to be told why it does not, at the surface and out of line: the
/// stack of Linux 6.1 is used up by the way down to where packets leave.
#[inline(never)]
fn last_steps<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    decision: verdict::Decision,
) -> verdict::Decision {
    if decision.is_refusal() {
        return tell::tell_guest(packet, tables, decision);
    }
    // Before the packet is looked at: else the compiler passes the places of its start and end, which the verifier takes for numbers.
    let vlans = tables.config().is_some_and(|config| config.flags.has(ConfigFlags::VLANS));
    if packet.header::<packet::Frame>(0).is_some_and(|frame| frame.ip.protocol() == Protocol::ICMP)
        && let Err(reason) = quote::icmp_leaves(packet, tables)
    {
        return verdict::Decision::drop(reason);
    }
    if vlans { network::leaves(packet, tables, decision) } else { decision }
}

#[inline(always)]
fn conclude<T: Tables>(decision: verdict::Decision, tables: &T) -> Verdict {
    if let Some(reason) = decision.drop_index() {
        tables.count_drop(reason);
    }
    tables.observe(decision.word());
    decision.verdict()
}
