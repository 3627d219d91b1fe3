//! Who owns a VIP, and how that changes.
//!
//! A claim takes effect on its own packet, by one compare-and-swap of the VIP's word. Damping delays alternation only: a VIP has
//! a bucket of [`DAMPING_BURST`] moves, refilled one per [`DAMPING_INTERVAL_NS`]; a claim beyond it waits in the entry's pending
//! word until its due time, when the first packet to the VIP takes it. So the last claim always wins in the end, and no timer is needed.

use super::tables::{Tables, VipCell};
use crate::tables::{
    ClaimForm, ConfigFlags, DAMPING_BURST, DAMPING_INTERVAL_NS, Event, EventKind, GrantKey, Move, OwnerWord,
    Pending,
};

/// How often a compare-and-swap is tried: each failure means that somebody else's claim succeeded.
const ATTEMPTS: u32 = 4;

/// How often the agent hears that a member other than the owner uses a VIP, in nanoseconds.
const REPORT_INTERVAL_NS: u64 = 200_000_000;

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum ClaimOutcome {
    /// The claimant is the owner now, or has been before.
    Accepted,
    /// The claim waits for its due time, or lost against a simultaneous one.
    Waiting,
}

/// Who makes a claim, and how.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// VIP slot.
    pub slot: u32,
    /// Port index of the claimant, which has the *own* right.
    pub port: u32,
    /// VRID whose virtual router MAC it claims with; 0: its own MAC.
    pub vrid: u8,
    /// How.
    pub form: ClaimForm,
}

/// The owner of the VIP in `slot` at this moment: takes a waiting claim whose time has come first.
///
/// A slot that does not exist is owned by nobody.
#[inline(always)]
pub fn present_owner<T: Tables>(tables: &T, slot: u32) -> OwnerWord {
    match tables.vip(slot) {
        Some(cell) => present_owner_of(tables, cell, slot),
        None => OwnerWord::default(),
    }
}

/// [`present_owner`] of a VIP whose record is at hand.
#[inline(always)]
pub(super) fn present_owner_of<T: Tables>(tables: &T, cell: T::Vip, slot: u32) -> OwnerWord {
    let pending = cell.pending();
    if pending != Pending::NONE && pending.is_due(tables.now()) {
        tables.take_pending(slot);
    }
    cell.word()
}

/// Makes a waiting claim effective whose time has come, if nobody else did and its claimant still has the right.
#[inline(always)]
pub fn take_pending<T: Tables>(tables: &T, slot: u32) {
    let Some(cell) = tables.vip(slot) else { return };
    let pending = cell.pending();
    if pending == Pending::NONE || !pending.is_due(tables.now()) || !cell.swap_pending(pending, Pending::NONE)
    {
        return;
    }
    let port = pending.port();
    let vrid = pending.vrid();
    let may_own = tables
        .grant(&GrantKey { port, slot })
        .is_some_and(|grant| grant.rights.may_own() && (vrid == 0 || grant.allows_vrid(vrid)));
    if let (true, Some(form)) = (may_own, pending.form()) {
        let now = tables.now();
        cell.update_damped_until(|until| Some(until.max(now) + DAMPING_INTERVAL_NS));
        let _lost_to_newer_claim = set_owner(tables, cell, &Claim { slot, port, vrid, form });
    }
}

/// A claim by a port with the *own* right: moves the VIP at once, or lets the claim wait if the VIP alternates too fast.
#[inline(always)]
pub fn take_claim<T: Tables>(tables: &T, claim: &Claim) -> ClaimOutcome {
    let Some(cell) = tables.vip(claim.slot) else { return ClaimOutcome::Waiting };
    let word = cell.word();
    if word.port() != 0 && word.port() != claim.port {
        let now = tables.now();
        // The latest time until which the bucket may be used up already.
        let latest = now + (DAMPING_BURST - 1) * DAMPING_INTERVAL_NS;
        let mut excess = 0;
        cell.update_damped_until(|until| {
            excess = until.saturating_sub(latest);
            if excess == 0 { Some(until.max(now) + DAMPING_INTERVAL_NS) } else { None }
        });
        if excess != 0 {
            return wait(tables, cell, claim, now + excess);
        }
    } else if word.port() != 0 {
        tell_repeat(tables, cell, claim, word);
    }
    forget_pending(cell);
    set_owner(tables, cell, claim)
}

/// A newer claim replaces the one that waits; one by the present owner clears it.
#[inline(always)]
fn forget_pending<C: VipCell>(cell: C) {
    let pending = cell.pending();
    if pending != Pending::NONE {
        // Failing means that another CPU replaced or took it in this very moment: as if this claim had come first.
        let _replaced = cell.swap_pending(pending, Pending::NONE);
    }
}

/// Tells the agent that the owner of a VIP that moved a moment ago claims it again: what waits on other hosts is overtaken by that, as
/// what waits here is. Nothing waits anywhere unless the bucket is in use on the owner's host too.
#[inline(never)]
fn tell_repeat<T: Tables>(tables: &T, cell: T::Vip, claim: &Claim, word: OwnerWord) {
    let now = tables.now();
    let mut is_in_use = false;
    cell.update_damped_until(|until| {
        is_in_use = until > now;
        None
    });
    if is_in_use {
        tables.notify(&Event {
            at: now,
            epoch: word.epoch(),
            kind: EventKind::Repeated as u32,
            slot: claim.slot,
            port: claim.port,
            form: claim.form.number(),
            ..Event::default()
        });
    }
}

#[inline(never)]
fn wait<T: Tables>(tables: &T, cell: T::Vip, claim: &Claim, due: u64) -> ClaimOutcome {
    let waiting = Pending::new(claim.port, claim.vrid, claim.form, due);
    let before = cell.pending();
    if cell.swap_pending(before, waiting) && before.port() != claim.port {
        tables.notify(&Event {
            at: tables.now(),
            kind: EventKind::Damped as u32,
            slot: claim.slot,
            port: claim.port,
            form: claim.form.number(),
            ..Event::default()
        });
    }
    ClaimOutcome::Waiting
}

/// An ordinary packet from a VIP by a port with the *own* right: learns the owner of a VIP that has none.
///
/// Returns the owner as it is then.
#[inline(always)]
pub(super) fn learn<T: Tables>(tables: &T, claim: &Claim) -> OwnerWord {
    let word = present_owner(tables, claim.slot);
    if word.port() != 0 {
        return word;
    }
    tables.learn_unowned(claim);
    present_owner(tables, claim.slot)
}

/// Gives a VIP that has no owner to who uses it, if it still has none.
#[inline(always)]
pub fn learn_unowned<T: Tables>(tables: &T, claim: &Claim) {
    let Some(cell) = tables.vip(claim.slot) else { return };
    let word = cell.word();
    let waits = tables.config().is_some_and(|config| config.flags.has(ConfigFlags::LEARNING_WAITS));
    if word.port() != 0 || waits {
        return;
    }
    let learned = word.moved_to(claim.port, claim.vrid, false);
    if cell.swap_word(word, learned) {
        record(tables, word, learned, claim);
    }
}

/// Tells the agent, now and then, that a member that does not own a VIP uses it.
#[inline(always)]
pub fn report_use<T: Tables>(tables: &T, slot: u32, port: u32) {
    report(tables, slot, port, EventKind::MemberUses);
}

/// Tells the agent what a member does that does not own a VIP, now and then.
#[inline(always)]
pub(super) fn report<T: Tables>(tables: &T, slot: u32, port: u32, kind: EventKind) {
    let Some(cell) = tables.vip(slot) else { return };
    let owner = cell.word();
    let now = tables.now();
    let mut is_due = false;
    cell.update_reported(|last| {
        is_due = now.saturating_sub(last) >= REPORT_INTERVAL_NS;
        if is_due { Some(now) } else { None }
    });
    if !is_due {
        return;
    }
    tables.notify(&Event {
        at: now,
        epoch: owner.epoch(),
        kind: kind as u32,
        slot,
        port,
        previous: owner.port(),
        ..Event::default()
    });
}

// In line: a frame of its own, however small, takes 32 bytes of the 512 that a chain of calls has on Linux 6.1.
#[inline(always)]
fn set_owner<T: Tables>(tables: &T, cell: T::Vip, claim: &Claim) -> ClaimOutcome {
    for _ in 0..ATTEMPTS {
        let old = cell.word();
        let new = old.moved_to(claim.port, claim.vrid, claim.form.is_claim());
        if old == new {
            return ClaimOutcome::Accepted;
        }
        if cell.swap_word(old, new) {
            if old.port() != new.port() {
                record(tables, old, new, claim);
            }
            return ClaimOutcome::Accepted;
        }
    }
    ClaimOutcome::Waiting
}

#[inline(never)]
fn record<T: Tables>(tables: &T, old: OwnerWord, new: OwnerWord, claim: &Claim) {
    let at = tables.now();
    tables.record_move(
        Move::index(claim.slot, new.epoch()),
        &Move {
            epoch: new.epoch(),
            at,
            port: new.port(),
            previous: old.port(),
            form: claim.form.number(),
            zero: 0,
        },
    );
    tables.notify(&Event {
        at,
        epoch: new.epoch(),
        kind: EventKind::Moved as u32,
        slot: claim.slot,
        port: new.port(),
        previous: old.port(),
        form: claim.form.number(),
        ..Event::default()
    });
}
