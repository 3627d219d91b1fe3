//! The entry of one VIP in OWNERS, changed by compare-and-swap.

use core::{
    intrinsics::{AtomicOrdering, atomic_cxchg},
    ptr::{read_volatile, write_volatile},
};

use vip_common::{
    pipeline::OwnerCell,
    tables::{OwnerEntry, OwnerWord, Pending},
};

/// An element of OWNERS. Elements of an array map live as long as the map does.
#[derive(Clone, Copy)]
pub(crate) struct Cell(pub(crate) *mut OwnerEntry);

impl OwnerCell for Cell {
    #[inline(always)]
    fn word(self) -> OwnerWord {
        // SAFETY: the pointer comes from the map's look-up; an aligned 64-bit load is one instruction and never torn.
        unsafe { read_volatile(&raw const (*self.0).word) }
    }

    #[inline(always)]
    fn pending(self) -> Pending {
        // SAFETY: as in `word`.
        unsafe { read_volatile(&raw const (*self.0).pending) }
    }

    #[inline(always)]
    fn damped_until(self) -> u64 {
        // SAFETY: as in `word`.
        unsafe { read_volatile(&raw const (*self.0).damped_until) }
    }

    #[inline(always)]
    fn set_damped_until(self, at: u64) {
        // SAFETY: as in `word`; an aligned 64-bit store is one instruction.
        unsafe { write_volatile(&raw mut (*self.0).damped_until, at) }
    }

    #[inline(always)]
    fn reported(self) -> u64 {
        // SAFETY: as in `word`.
        unsafe { read_volatile(&raw const (*self.0).reported) }
    }

    #[inline(always)]
    fn set_reported(self, at: u64) {
        // SAFETY: as in `set_damped_until`.
        unsafe { write_volatile(&raw mut (*self.0).reported, at) }
    }

    #[inline(always)]
    fn swap_word(self, old: OwnerWord, new: OwnerWord) -> bool {
        // SAFETY: the pointer comes from the map's look-up and the field is aligned to eight bytes.
        unsafe { compare_exchange((&raw mut (*self.0).word).cast(), old.0, new.0) }
    }

    #[inline(always)]
    fn swap_pending(self, old: Pending, new: Pending) -> bool {
        // SAFETY: as in `swap_word`.
        unsafe { compare_exchange((&raw mut (*self.0).pending).cast(), old.0, new.0) }
    }
}

/// Replaces `old` by `new` (kernel 5.12, instruction set v3); whether it did.
///
/// # Safety
///
/// `word` points to eight aligned bytes of a map's element.
#[inline(always)]
unsafe fn compare_exchange(word: *mut u64, old: u64, new: u64) -> bool {
    // SAFETY: the caller's.
    let (_, exchanged) = unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(word, old, new)
    };
    exchanged
}
