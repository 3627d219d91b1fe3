//! What must hold of every step.

mod delivery;
mod edit;
mod far_end;
mod fitting;
mod leaving;
mod outcome;
pub mod overlay;
mod ownership;
mod returned;
mod rights;
pub mod stages;
pub mod told;
mod traffic;
pub mod way_back;

use std::fmt;

use vip_common::{
    engine::{Hook, MemoryTables, Outcome},
    pipeline::Verdict,
};

use crate::{Step, facts::Facts, frame::hex};

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Oracle {
    /// A program gives only verdicts that its place can carry out, and takes what is its own.
    Outcome,
    /// What is not handled has the bytes with which it came.
    Untouched,
    /// A drop is counted once under its reason, nothing else is, and the reason is one that this world can have.
    Counted,
    /// Traffic is counted once, where it went.
    Traffic,
    /// Owners change by accepted claims, by the first use of a VIP that nobody owns, and by nothing else.
    Ownership,
    /// Who sends has the right to the MAC and the address that the frame names.
    Rights,
    /// What is delivered is for its receiver, in its VPC.
    Delivery,
    /// What leaves is from the uplink's MAC and the sender's EIP, to a neighbour.
    Leaving,
    /// What leaves names no address of the VPC, in its header or its quote.
    Private,
    /// What is sent back is an answer.
    Returned,
    /// What is refused for its TTL, its length, its protocol or its source has such a one.
    Refused,
    /// The sender of what lives too short or is too long is told, if there may be an error about it, and told the truth.
    Told,
    /// What does not fit where it goes, and nothing else, is cut, and its fragments are together what it was.
    Fragments,
    /// Only what a translation is about changes.
    Fields,
    /// The TTL goes down by the number of hops.
    Ttl,
    /// A checksum is as right, or as wrong, as it was.
    Checksums,
    /// Both stages of the uplink do the same.
    Stages,
    /// What travels between hosts is for a guest there, or of one, in its VPC; and guests never reach a VTEP.
    Overlay,
    /// An answer reaches who is answered, with the addresses that it knows.
    WayBack,
}

impl Oracle {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::Outcome,
        Self::Untouched,
        Self::Counted,
        Self::Traffic,
        Self::Ownership,
        Self::Rights,
        Self::Delivery,
        Self::Leaving,
        Self::Private,
        Self::Returned,
        Self::Refused,
        Self::Told,
        Self::Fragments,
        Self::Fields,
        Self::Ttl,
        Self::Checksums,
        Self::Stages,
        Self::Overlay,
        Self::WayBack,
    ];
}

/// An oracle that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub oracle: Oracle,
    /// What is wrong, and of which step.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.oracle, self.what)
    }
}

/// What an oracle says, before it is known of which step.
type Judgement = Result<(), (Oracle, String)>;

/// Whether something holds, and what to say if not.
fn hold(oracle: Oracle, holds: bool, what: impl FnOnce() -> String) -> Judgement {
    if holds { Ok(()) } else { Err((oracle, what())) }
}

/// Judges one step.
///
/// # Errors
///
/// The first oracle that does not hold.
pub fn judge(tables: &MemoryTables, step: &Step) -> Result<(), Violation> {
    let facts = Facts(tables);
    if overlay::concerns(facts, step) {
        return ownership::check(facts, step)
            .and_then(|()| overlay::check(facts, step))
            .map_err(|(oracle, what)| violation(oracle, &what, step));
    }
    overlay::check_guest(facts, step)
        .and_then(|()| outcome::check(facts, step))
        .and_then(|()| traffic::check(facts, step))
        .and_then(|()| ownership::check(facts, step))
        .and_then(|()| rights::check(facts, step))
        .and_then(|()| fitting::check(facts, step))
        .and_then(|()| told::check(facts, step))
        .and_then(|()| by_verdict(facts, step))
        .map_err(|(oracle, what)| violation(oracle, &what, step))
}

/// What holds of the verdict's frame. A verdict that makes a frame of its own has its oracle here.
fn by_verdict(facts: Facts<'_>, step: &Step) -> Judgement {
    match step.verdict {
        Verdict::Deliver { .. } | Verdict::DeliverFragments { .. } => delivery::check(facts, step),
        Verdict::Members { slot, sender } => delivery::check_members(facts, step, slot, sender),
        Verdict::Uplink { .. } | Verdict::Resolve { .. } | Verdict::ComeBack { .. } => {
            leaving::check(facts, step)
        }
        Verdict::Return => returned::check(facts, step),
        Verdict::PassOn => delivery::check_passed_on(facts, step),
        // Refusals have their oracle already.
        Verdict::NotOurs
        | Verdict::LeaveToTc
        | Verdict::Consumed
        | Verdict::Drop(_)
        | Verdict::Tell { .. }
        | Verdict::TunnelFragments { .. } => Ok(()),
    }
}

/// Checks that a frame that came back ends as when the engine lets it come back by itself.
///
/// # Errors
///
/// It does not.
pub fn same_end(back: &Step, whole: &Outcome) -> Result<(), Violation> {
    let same = back.verdict == whole.verdict && back.after == whole.frame;
    hold(Oracle::Stages, same, || format!("by itself it comes back as {whole:?}"))
        .map_err(|(oracle, what)| violation(oracle, &what, back))
}

fn violation(oracle: Oracle, what: &str, step: &Step) -> Violation {
    let Step { hook, interface, tagged, frame, verdict, after, left, .. } = step;
    let at = match hook {
        Hook::Uplink(stage) => format!("the uplink's {stage:?}"),
        Hook::Port => format!("the port of interface {interface}"),
    };
    let tagged = if *tagged { ", tagged" } else { "" };
    let drops = &left.drops;
    let (came, is) = (hex(frame), hex(after));
    let what = format!("{what}\n  at {at}{tagged}: {verdict:?}, drops {drops:?}\n  in:  {came}\n  out: {is}");
    Violation { oracle, what }
}
