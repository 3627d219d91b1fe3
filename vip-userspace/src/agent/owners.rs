//! The agent's own changes of ownership: by compare-and-swap on the same words as the programs'.

use vip_common::tables::{ClaimForm, MOVES_PER_VIP, Move, OwnerWord, Pending, Way};

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
    let epoch = old.epoch() + 1;
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
