//! The owners' words, in memory that the programs share.

use std::{
    fmt,
    os::fd::{AsFd as _, AsRawFd as _},
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::{Map, MapData};
use memmap2::{MmapOptions, MmapRaw};
use vip_common::tables::{OwnerEntry, OwnerWord, Pending};

use super::{KernelError, failed};

/// An [`OwnerEntry`] while programs change it: field by field, each by one atomic access.
#[repr(C)]
struct Shared {
    word: AtomicU64,
    pending: AtomicU64,
    damped_until: AtomicU64,
    reported: AtomicU64,
}

// The kernel puts array elements at multiples of their size rounded up to eight: with this size, one after the other.
const _: () =
    assert!(size_of::<Shared>() == size_of::<OwnerEntry>() && size_of::<Shared>().is_multiple_of(8));

/// VIP slot → owner. The programs change words and pending claims by compare-and-swap; so does this, on the same memory.
pub struct OwnerTable {
    name: &'static str,
    len: u32,
    memory: MmapRaw,
    /// Keeps the map, and so its name in the kernel's lists, with this process.
    _map: MapData,
}

impl OwnerTable {
    pub(super) fn new(name: &'static str, map: Map) -> Result<Self, KernelError> {
        let Map::Array(map) = map else {
            return Err(KernelError::ObjectLacks { kind: "array", name });
        };
        let info = map.info().map_err(failed("inspect", name))?;
        if usize::try_from(info.value_size()) != Ok(size_of::<Shared>()) {
            return Err(KernelError::ObjectLacks { kind: "array of 32-byte entries", name });
        }
        let len = info.max_entries();
        let bytes = size_of::<Shared>() * len as usize;
        let memory = MmapOptions::new()
            .len(bytes)
            .map_raw(map.fd().as_fd().as_raw_fd())
            .map_err(|source| KernelError::Map { table: name, source })?;
        Ok(Self { name, len, memory, _map: map })
    }

    /// Number of slots.
    #[expect(clippy::len_without_is_empty, reason = "an array always has entries")]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// A slot's entry. Each field is whole; the fields need not be of the same moment.
    pub fn load(&self, slot: u32) -> Result<OwnerEntry, KernelError> {
        let Shared { word, pending, damped_until, reported } = self.slot(slot)?;
        Ok(OwnerEntry {
            word: OwnerWord(word.load(Ordering::Acquire)),
            pending: Pending(pending.load(Ordering::Acquire)),
            damped_until: damped_until.load(Ordering::Acquire),
            reported: reported.load(Ordering::Acquire),
        })
    }

    /// Replaces a slot's word if it is still `old`; tells whether it was.
    pub fn swap_word(&self, slot: u32, old: OwnerWord, new: OwnerWord) -> Result<bool, KernelError> {
        Ok(swap(&self.slot(slot)?.word, old.0, new.0))
    }

    /// Replaces a slot's waiting claim if it is still `old`; tells whether it was.
    pub fn swap_pending(&self, slot: u32, old: Pending, new: Pending) -> Result<bool, KernelError> {
        Ok(swap(&self.slot(slot)?.pending, old.0, new.0))
    }

    fn slot(&self, slot: u32) -> Result<&Shared, KernelError> {
        if slot >= self.len {
            return Err(KernelError::OutOfRange { table: self.name, index: slot, capacity: self.len });
        }
        #[expect(clippy::cast_ptr_alignment, reason = "mappings are page-aligned")]
        let first = self.memory.as_mut_ptr().cast::<Shared>();
        // SAFETY: the mapping lives as long as self, is page-aligned, readable and writable, and spans len entries of the
        // size of Shared, of which slot is one. Whoever else writes there, the kernel's programs and other
        // mappings, changes whole aligned 64-bit words, and so may atomics do. There is no safe access to shared memory.
        Ok(unsafe { &*first.add(slot as usize) })
    }
}

fn swap(word: &AtomicU64, old: u64, new: u64) -> bool {
    word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

impl fmt::Debug for OwnerTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnerTable({}, {})", self.name, self.len)
    }
}
