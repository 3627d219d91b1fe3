//! The agent's own changes of ownership: by compare-and-swap on the same words as the programs'.

use vip_common::tables::{
    ClaimForm, DAMPING_INTERVAL_NS, Grant, MOVES_PER_VIP, Move, OwnerEntry, OwnerWord, Pending, Way,
};

use crate::{
    kernel::{KernelError, Tables},
    net::BootClock,
};

/// Stands in MOVES for a port that has left: no index is that high.
const GONE: u32 = u32::MAX;

/// Ends the ownership and the waiting claim of a port, or of anybody if `port` is `None`.
pub(super) fn release(tables: &Tables, slot: u32, port: Option<u32>) -> Result<(), KernelError> {
    let concerns = |owner: u32| owner != 0 && port.is_none_or(|port| port == owner);
    loop {
        let entry = tables.vips.load(slot)?;
        // The claim first: a packet could make an owner of it after the word was released.
        if concerns(entry.pending.port()) {
            tables.vips.swap_pending(slot, entry.pending, Pending::NONE)?;
            continue;
        }
        if !concerns(entry.word.port()) {
            return Ok(());
        }
        if tables.vips.swap_word(slot, entry.word, entry.word.moved_to(0, 0, false))? {
            return record(tables, slot, entry.word, 0, ClaimForm::State);
        }
    }
}

/// Begins another epoch of an owner whose port is on another host now: as if it had been assigned the VIP there, so that a claim that
/// somebody made meanwhile counts more.
pub(super) fn rehome(tables: &Tables, slot: u32, port: u32) -> Result<(), KernelError> {
    loop {
        let old = tables.vips.load(slot)?.word;
        if old.port() != port || port == 0 {
            return Ok(());
        }
        if tables.vips.swap_word(slot, old, OwnerWord::new(old.epoch() + 1, false, port, old.vrid()))? {
            return record(tables, slot, old, port, ClaimForm::State);
        }
    }
}

/// Makes a member the owner for a reason other than its claim, unless the word has changed, or a claim waits that will decide.
/// Tells whether it did.
pub(super) fn take_over(
    tables: &Tables,
    slot: u32,
    old: OwnerWord,
    member: u32,
    form: ClaimForm,
) -> Result<bool, KernelError> {
    if tables.vips.load(slot)?.pending.port() != 0
        || !tables.vips.swap_word(slot, old, old.moved_to(member, 0, false))?
    {
        return Ok(false);
    }
    record(tables, slot, old, member, form)?;
    Ok(true)
}

/// Takes a word that another host told, or issues this host's own again, unless `old` has changed. Tells whether it did.
pub(super) fn accept(
    tables: &Tables,
    slot: u32,
    old: &OwnerEntry,
    word: OwnerWord,
) -> Result<bool, KernelError> {
    if !tables.vips.swap_word(slot, old.word, word)? {
        return Ok(false);
    }
    let before = old.word;
    if before.port() != word.port() && word.claimed() && old.pending != Pending::NONE {
        // It was made before this word was heard: the later one counts. If it took effect just now, that is a later one still.
        tables.vips.swap_pending(slot, old.pending, Pending::NONE)?;
    }
    if (before.epoch(), before.port()) != (word.epoch(), word.port()) {
        let form = form_of(tables, slot, before, word)?;
        write_record(tables, slot, (before, word), form)?;
    }
    Ok(true)
}

/// What has become of a claim that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// A packet has taken it, it was overtaken, or whoever made it has no right to the VIP any more.
    Gone,
    /// It waits still, for so many milliseconds.
    Waits(u32),
    /// Now it has taken effect.
    Taken,
}

/// Makes a waiting claim effective whose time has come, as the first packet to the VIP would: none may come by on this host. `grant`: what
/// the port with an index may do with the VIP.
pub(super) fn take_pending(
    tables: &Tables,
    slot: u32,
    grant: impl FnOnce(u32) -> Option<Grant>,
) -> Result<Waited, KernelError> {
    let OwnerEntry { word: old, pending, damped_until, .. } = tables.vips.load(slot)?;
    let (Some(form), now) =
        (pending.form().filter(|_| pending != Pending::NONE), BootClock::now()?.boot_ns())
    else {
        return Ok(Waited::Gone);
    };
    if let Ok(left @ 1..) = u32::try_from(-i64::from(pending.since_due_ms(now))) {
        return Ok(Waited::Waits(left));
    }
    let (port, vrid) = (pending.port(), pending.vrid());
    let may =
        grant(port).is_some_and(|grant| grant.rights.may_own() && (vrid == 0 || grant.allows_vrid(vrid)));
    let new = old.moved_to(port, vrid, form.is_claim());
    if !tables.vips.swap_pending(slot, pending, Pending::NONE)?
        || !may
        || old == new
        || !tables.vips.swap_word(slot, old, new)?
    {
        // Whoever changed the one or the other did so just now: as if this had come first.
        return Ok(Waited::Gone);
    }
    tables.vips.damp_until(slot, damped_until.max(now) + DAMPING_INTERVAL_NS)?;
    if old.port() != new.port() {
        write_record(tables, slot, (old, new), form)?;
    }
    Ok(Waited::Taken)
}

/// Forgets a claim that waits: a later one was made on another host.
pub(super) fn overtake(tables: &Tables, slot: u32) -> Result<(), KernelError> {
    let pending = tables.vips.load(slot)?.pending;
    if pending != Pending::NONE {
        // If it takes effect in this moment, it is as if the other had been made before it.
        tables.vips.swap_pending(slot, pending, Pending::NONE)?;
    }
    Ok(())
}

/// How the owner of `word` came to own the VIP: as before, if it is the same.
fn form_of(tables: &Tables, slot: u32, before: OwnerWord, word: OwnerWord) -> Result<ClaimForm, KernelError> {
    let entry = tables.moves.get(Move::index(slot, before.epoch()))?;
    let is_same =
        before.port() == word.port() && (entry.epoch, entry.port) == (before.epoch(), before.port());
    Ok(ClaimForm::from_number(entry.form).filter(|_| is_same).unwrap_or(ClaimForm::Peer))
}

/// Begins another VIP's life in a slot: nobody's, with nothing counted and nothing remembered. The epoch stays.
pub(super) fn begin(tables: &Tables, slot: u32) -> Result<(), KernelError> {
    release(tables, slot, None)?;
    tables.vips.clear_traffic(slot, Way::Inside)?;
    tables.vips.clear_traffic(slot, Way::Onward)?;
    if tables.vips.load(slot)?.word.epoch() == 0 {
        // Nobody has ever owned anything in this slot.
        return Ok(());
    }
    let first = Move::index(slot, 0);
    for index in first..first + MOVES_PER_VIP {
        tables.moves.set(index, Move::default())?;
    }
    Ok(())
}

/// Makes a slot's remembered moves name nobody instead of a port whose index may pass to another one.
pub(super) fn forget(tables: &Tables, slot: u32, port: u32) -> Result<(), KernelError> {
    let first = Move::index(slot, 0);
    for index in first..first + MOVES_PER_VIP {
        if let Some(entry) = without(tables.moves.get(index)?, port) {
            tables.moves.set(index, entry)?;
        }
    }
    Ok(())
}

/// The move without a port's index; `None` if it does not name it.
fn without(entry: Move, port: u32) -> Option<Move> {
    let other = |index| if index == port { GONE } else { index };
    let entry_without = Move { port: other(entry.port), previous: other(entry.previous), ..entry };
    (entry_without != entry).then_some(entry_without)
}

fn record(tables: &Tables, slot: u32, old: OwnerWord, port: u32, form: ClaimForm) -> Result<(), KernelError> {
    write_record(tables, slot, (old, OwnerWord::new(old.epoch() + 1, false, port, 0)), form)
}

fn write_record(
    tables: &Tables,
    slot: u32,
    (old, new): (OwnerWord, OwnerWord),
    form: ClaimForm,
) -> Result<(), KernelError> {
    let (epoch, port) = (new.epoch(), new.port());
    let at = BootClock::now()?.boot_ns();
    let entry = Move { epoch, at, port, previous: old.port(), form: form.number(), zero: 0 };
    tables.moves.set(Move::index(slot, epoch), entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_that_names_a_port_which_left_names_no_index_any_more() {
        let entry = Move { epoch: 9, at: 77, port: 2, previous: 1, form: 1, zero: 0 };
        assert_eq!(without(entry, 2), Some(Move { port: GONE, ..entry }));
        assert_eq!(without(entry, 1), Some(Move { previous: GONE, ..entry }));
        assert_eq!(without(entry, 3), None);
    }
}
