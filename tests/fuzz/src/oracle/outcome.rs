//! Which verdicts a program may give, what they leave alone, and what of drops is counted.

use std::collections::BTreeMap;

use vip_common::{
    DropReason,
    engine::Hook,
    pipeline::{Stage, Verdict},
};

use super::{Judgement, Oracle, hold};
use crate::{
    Step,
    facts::Facts,
    frame::{ETHERNET, IPV4, TYPE_IPV4, address, mac, word},
};

pub(super) fn check(facts: Facts<'_>, step: &Step) -> Judgement {
    possible(step)?;
    untouched(step)?;
    counted(step)?;
    taken(facts, step)
}

fn possible(step: &Step) -> Judgement {
    let possible = matches!(
        (step.hook, step.verdict),
        (
            _,
            Verdict::NotOurs
                | Verdict::Drop(_)
                | Verdict::Tell { ifindex: 0, .. }
                | Verdict::Deliver { .. }
                | Verdict::Return,
        ) | (Hook::Uplink(Stage::Xdp), Verdict::LeaveToTc)
            | (Hook::Uplink(Stage::Tc), Verdict::Tell { .. })
            | (Hook::Uplink(Stage::Tc) | Hook::Port, Verdict::DeliverFragments { .. })
            | (
                Hook::Port,
                Verdict::PassOn
                    | Verdict::Consumed
                    | Verdict::Members { .. }
                    | Verdict::Uplink { .. }
                    | Verdict::Resolve { .. }
                    | Verdict::ComeBack { .. },
            )
    );
    hold(Oracle::Outcome, possible, || "nobody here can carry out the verdict".to_owned())
}

fn untouched(step: &Step) -> Judgement {
    let alone = matches!(
        step.verdict,
        Verdict::NotOurs | Verdict::LeaveToTc | Verdict::PassOn | Verdict::Members { .. }
    );
    hold(Oracle::Untouched, !alone || step.after == step.frame, || "the bytes have changed".to_owned())
}

fn counted(step: &Step) -> Judgement {
    let expected = match step.verdict {
        Verdict::Drop(reason) | Verdict::Tell { reason, .. } => BTreeMap::from([(reason, 1)]),
        _ => BTreeMap::new(),
    };
    hold(Oracle::Counted, step.left.drops == expected, || format!("counted should be {expected:?}"))?;
    let (Verdict::Drop(reason) | Verdict::Tell { reason, .. }) = step.verdict else { return Ok(()) };
    let reason = usize::try_from(reason).ok().and_then(|index| DropReason::ALL.get(index));
    // The engine refuses no edit, nothing is sent here, and the world's entries all fit each other.
    let possible = reason.is_some_and(|reason| {
        !matches!(reason, DropReason::EditFailed | DropReason::RedirectFailed | DropReason::TableInconsistent)
    });
    hold(Oracle::Counted, possible, || format!("{reason:?} is no reason here"))?;
    hold(Oracle::Counted, step.receivers.is_empty(), || "somebody received what was dropped".to_owned())
}

/// An IPv4 packet to an EIP of this host, by its MAC, is the forwarder's.
fn taken(facts: Facts<'_>, step: &Step) -> Judgement {
    let Hook::Uplink(_) = step.hook else { return Ok(()) };
    let frame = &step.frame;
    let is_ours = !step.tagged
        && frame.len() >= ETHERNET + IPV4
        && word(frame, 12) == Some(TYPE_IPV4)
        && facts.uplink().map(|(_, mac)| mac) == mac(frame, 0)
        && address(frame, 30).is_some_and(|eip| facts.inner(eip).is_some());
    hold(Oracle::Outcome, !is_ours || step.verdict != Verdict::NotOurs, || {
        "a packet to an EIP is not taken".to_owned()
    })
}
