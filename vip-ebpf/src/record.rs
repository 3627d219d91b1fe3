//! The records of PORTS and VIPS: found in two steps, changed by compare-and-swap, counted per CPU.

use core::{
    ffi::c_void,
    intrinsics::{AtomicOrdering, atomic_cxchg},
    ops::Deref,
    ptr::{from_ref, read_volatile, write_volatile},
};

use aya_ebpf::{
    helpers::{bpf_get_smp_processor_id, generated::bpf_map_lookup_elem},
    maps::Array,
};
use vip_common::{
    pipeline::VipCell,
    tables::{
        Direction, OwnerEntry, OwnerWord, Pending, PortEntry, Traffic, VipEntry, VipRecord, Way,
        record::{INSIDE, Place, PortPlace, VipPlace},
    },
};

use crate::maps;

/// An entry in an element of a chunk. Elements live as long as the map does.
#[derive(Clone, Copy)]
struct Record<const LANES: u32> {
    element: *mut u8,
    place: Place<LANES>,
}

impl<const LANES: u32> Record<LANES> {
    /// The record with an index, in an array of chunks.
    #[inline(always)]
    fn find(chunks: &'static Array<u32>, index: u32) -> Option<Self> {
        let place = Place::of(index);
        let chunk = look_up(from_ref(chunks).cast_mut().cast(), place.chunk)?;
        let element = look_up(chunk, place.element)?;
        Some(Self { element: element.cast(), place })
    }

    /// The entry.
    #[inline(always)]
    fn entry<T>(self) -> *mut T {
        // SAFETY: an element begins with its entries, as many as there are lanes.
        unsafe { self.element.add(self.place.entry()).cast() }
    }

    /// Counts a frame in this CPU's counters, `offset` bytes from their start.
    #[inline(always)]
    fn count(self, offset: usize, direction: Direction, bytes: usize) {
        // SAFETY: the helper has no preconditions.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        if cpu < maps::CPUS.load() {
            // SAFETY: an element has counters for as many CPUs; these belong to this one, which runs one program at a time here.
            unsafe {
                let traffic: *mut Traffic = self.element.add(self.place.counters(cpu) + offset).cast();
                (*traffic).count(direction, bytes as u64);
            }
        }
    }
}

/// `bpf_map_lookup_elem`, which the kernel inlines for arrays and arrays of maps.
#[inline(always)]
fn look_up(map: *mut c_void, index: u32) -> Option<*mut c_void> {
    // SAFETY: the map is one of this object, or an element of an array of maps, which the verifier knows for one.
    let found = unsafe { bpf_map_lookup_elem(map, from_ref(&index).cast()) };
    if found.is_null() { None } else { Some(found) }
}

/// A record of PORTS.
#[derive(Clone, Copy)]
pub(crate) struct Port(Record<{ PortPlace::LANES }>);

impl Port {
    #[inline(always)]
    pub(crate) fn find(index: u32) -> Option<Self> {
        Record::find(&maps::PORTS, index).map(Self)
    }

    #[inline(always)]
    pub(crate) fn count(self, direction: Direction, bytes: usize) {
        self.0.count(0, direction, bytes);
    }
}

impl Deref for Port {
    type Target = PortEntry;

    #[inline(always)]
    fn deref(&self) -> &PortEntry {
        // SAFETY: the agent writes an entry before anything leads to it; one that is updated in place shows old and new fields of
        // the same port at worst for one packet.
        unsafe { &*self.0.entry() }
    }
}

/// A record of VIPS.
#[derive(Clone, Copy)]
pub(crate) struct Vip(Record<{ VipPlace::LANES }>);

impl Vip {
    #[inline(always)]
    pub(crate) fn find(slot: u32) -> Option<Self> {
        Record::find(&maps::VIPS, slot).map(Self)
    }

    #[inline(always)]
    pub(crate) fn count(self, way: Way, direction: Direction, bytes: usize) {
        let offset = match way {
            Way::Eip => 0,
            Way::Inside => INSIDE,
        };
        self.0.count(offset, direction, bytes);
    }

    #[inline(always)]
    fn owner(self) -> *mut OwnerEntry {
        // SAFETY: a record is as large as its type.
        unsafe { &raw mut (*self.0.entry::<VipRecord>()).owner }
    }
}

impl VipCell for Vip {
    #[inline(always)]
    fn entry(self) -> VipEntry {
        // SAFETY: as in `Port::deref`.
        unsafe { (*self.0.entry::<VipRecord>()).vip }
    }

    #[inline(always)]
    fn word(self) -> OwnerWord {
        // SAFETY: the pointer comes from the map's look-up; an aligned 64-bit load is one instruction and never torn.
        unsafe { read_volatile(&raw const (*self.owner()).word) }
    }

    #[inline(always)]
    fn pending(self) -> Pending {
        // SAFETY: as in `word`.
        unsafe { read_volatile(&raw const (*self.owner()).pending) }
    }

    #[inline(always)]
    fn damped_until(self) -> u64 {
        // SAFETY: as in `word`.
        unsafe { read_volatile(&raw const (*self.owner()).damped_until) }
    }

    #[inline(always)]
    fn set_damped_until(self, at: u64) {
        // SAFETY: as in `word`; an aligned 64-bit store is one instruction.
        unsafe { write_volatile(&raw mut (*self.owner()).damped_until, at) }
    }

    #[inline(always)]
    fn reported(self) -> u64 {
        // SAFETY: as in `word`.
        unsafe { read_volatile(&raw const (*self.owner()).reported) }
    }

    #[inline(always)]
    fn set_reported(self, at: u64) {
        // SAFETY: as in `set_damped_until`.
        unsafe { write_volatile(&raw mut (*self.owner()).reported, at) }
    }

    #[inline(always)]
    fn swap_word(self, old: OwnerWord, new: OwnerWord) -> bool {
        // SAFETY: the pointer comes from the map's look-up and the field is aligned to eight bytes.
        unsafe { compare_exchange((&raw mut (*self.owner()).word).cast(), old.0, new.0) }
    }

    #[inline(always)]
    fn swap_pending(self, old: Pending, new: Pending) -> bool {
        // SAFETY: as in `swap_word`.
        unsafe { compare_exchange((&raw mut (*self.owner()).pending).cast(), old.0, new.0) }
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
