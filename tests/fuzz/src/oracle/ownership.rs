//! Who may own a VIP after a step.

use std::net::Ipv4Addr;

use vip_common::{
    engine::Hook,
    pipeline::Verdict,
    tables::{ClaimForm, EventKind, OwnerEntry, OwnerWord, Pending},
};
use vip_lab::Mac;

use super::{Judgement, Oracle, hold};
use crate::{
    Step,
    facts::Facts,
    frame::{Arp, Ipv4, mac},
};

/// What a frame may do to the owner of a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// Its sender says that it has the VIP, by this VRID's MAC or, with 0, by its own.
    Claim { port: u32, vrid: u8 },
    /// Its sender uses the VIP, which it may own.
    Learn { port: u32, vrid: u8 },
}

pub(super) fn check(facts: Facts<'_>, step: &Step) -> Judgement {
    let mut moves = 0;
    for (slot, before) in &step.owners {
        let Some(after) = step.left.owners.get(slot) else {
            return Err((Oracle::Ownership, format!("slot {slot} is gone")));
        };
        let used = used(facts, step, *slot);
        let allowed = allowed(facts, *slot, before, used);
        hold(Oracle::Ownership, allowed.contains(&after.word), || {
            format!(
                "slot {slot} went from {:?} to {:?}; allowed by {used:?}: {allowed:?}",
                before.word, after.word
            )
        })?;
        waiting(facts, *slot, before, after, used)?;
        took_effect(step, *slot, after, used)?;
        moves += after.word.epoch() - before.word.epoch();
    }
    let told = step.left.events.iter().filter(|event| event.kind() == Some(EventKind::Moved)).count();
    let remembered = step.left.moves.len();
    hold(Oracle::Ownership, (told as u64, remembered as u64) == (moves, moves), || {
        format!("of {moves} moves {told} were told and {remembered} remembered")
    })
}

/// Whether the MAC is the port's, or of a virtual router that it may be for this VIP; its VRID.
fn vrid_for(facts: Facts<'_>, port: u32, slot: u32, candidate: Mac) -> Option<u8> {
    let entry = facts.port(port)?;
    if candidate == crate::facts::mac(entry.mac) {
        return Some(0);
    }
    let Mac([.., vrid]) = candidate;
    let allowed = facts.may_have(entry, candidate) && facts.grant(port, slot)?.vrids.contains(&vrid);
    allowed.then_some(vrid)
}

/// What the frame says of a VIP, if its sender may own that.
fn used(facts: Facts<'_>, step: &Step, slot: u32) -> Option<Use> {
    let Hook::Port = step.hook else { return None };
    let (port, entry) = facts.port_of(step.interface)?;
    let vip = facts.0.vips.get(&slot)?.vip();
    let (from, frame) = (mac(&step.frame, 6)?, &step.frame);
    let can = !step.tagged
        && vip.vni == entry.vni
        && facts.grant(port, slot)?.rights.may_own()
        && facts.may_have(entry, from);
    if !can {
        return None;
    }
    if let Some(arp) = Arp::of(frame).filter(|arp| arp.sender == Ipv4Addr::from(vip.address)) {
        vrid_for(facts, port, slot, from)?;
        let vrid = vrid_for(facts, port, slot, arp.sender_mac)?;
        if arp.announces() {
            return Some(Use::Claim { port, vrid });
        }
        return (arp.operation == 1).then_some(Use::Learn { port, vrid });
    }
    let ip = Ipv4::of(frame).filter(|ip| ip.source == Ipv4Addr::from(vip.address))?;
    // To groups from whoever: not looked at (RFC 3376).
    let manages_groups = ip.protocol == 2 && ip.destination.is_multicast();
    // A virtual router's MAC that is not this VIP's is as good as the port's own here.
    let vrid = vrid_for(facts, port, slot, from).unwrap_or_default();
    (!manages_groups).then_some(Use::Learn { port, vrid })
}

/// The word after a port became the owner: the epoch grows by one if it was not, and what it claimed once stays claimed.
fn moved(word: OwnerWord, port: u32, vrid: u8, claimed: bool) -> OwnerWord {
    if word.port() == port {
        OwnerWord::new(word.epoch(), claimed || word.claimed(), port, vrid)
    } else {
        OwnerWord::new(word.epoch() + 1, claimed, port, vrid)
    }
}

fn allowed(facts: Facts<'_>, slot: u32, before: &OwnerEntry, used: Option<Use>) -> Vec<OwnerWord> {
    let mut words = vec![before.word];
    words.extend(due(facts, slot, before).map(|(port, vrid)| moved(before.word, port, vrid, true)));
    let used: Vec<_> = words
        .iter()
        .filter_map(|word| match used? {
            Use::Claim { port, vrid } => Some(moved(*word, port, vrid, true)),
            Use::Learn { port, vrid } => (word.port() == 0).then(|| moved(*word, port, vrid, false)),
        })
        .collect();
    words.extend(used);
    words
}

/// Claimant and VRID of a claim that has waited long enough, and still may.
fn due(facts: Facts<'_>, slot: u32, entry: &OwnerEntry) -> Option<(u32, u8)> {
    let Pending(word) = entry.pending;
    let due = u64::from(u32::try_from(word >> 32).ok()?);
    let is_due = word != 0 && due <= facts.0.now.get() / 1_000_000 && entry.pending.form().is_some();
    let (port, vrid) = (entry.pending.port(), entry.pending.vrid());
    let grant = facts.grant(port, slot)?;
    let may = grant.rights.may_own() && (vrid == 0 || grant.vrids.contains(&vrid));
    (is_due && may).then_some((port, vrid))
}

/// What waits is what waited, nothing, or the frame's own claim.
fn waiting(
    facts: Facts<'_>,
    slot: u32,
    before: &OwnerEntry,
    after: &OwnerEntry,
    used: Option<Use>,
) -> Judgement {
    if after.pending == before.pending {
        return Ok(());
    }
    let Pending(word) = before.pending;
    let due = word >> 32 <= facts.0.now.get() / 1_000_000;
    let right = match used {
        Some(Use::Claim { port, vrid }) => {
            let own = (after.pending.port(), after.pending.vrid()) == (port, vrid)
                && after.pending.form().is_some_and(ClaimForm::is_claim);
            after.pending == Pending::NONE || own
        }
        _ => after.pending == Pending::NONE && due,
    };
    hold(Oracle::Ownership, right, || {
        format!("of slot {slot} waited {:?}, now {:?}", before.pending, after.pending)
    })
}

/// A claim that the program took has an effect: at once, or later.
fn took_effect(step: &Step, slot: u32, after: &OwnerEntry, used: Option<Use>) -> Judgement {
    let Some(Use::Claim { port, .. }) = used else { return Ok(()) };
    let taken = matches!(step.verdict, Verdict::Consumed | Verdict::PassOn);
    let effective = after.word.port() == port || after.pending.port() == port;
    hold(Oracle::Ownership, taken && effective, || format!("a claim of slot {slot} is without effect"))
}
