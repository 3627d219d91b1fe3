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
        AsideRecord, Direction, OwnerWord, Pending, PortEntry, Traffic, VipEntry, VipRecord, Way,
        record::{AsidePlace, Place, PortPlace, VipPlace},
    },
};

use crate::maps;

/// An entry in an element of a chunk. Elements live as long as the map does.
#[derive(Clone, Copy)]
struct Record<const ENTRY: usize> {
    element: *mut u8,
    index: u32,
}

impl<const ENTRY: usize> Record<ENTRY> {
    /// The record with an index, in an array of chunks.
    #[inline(always)]
    fn find(chunks: &'static Array<u32>, index: u32) -> Option<Self> {
        let Place { chunk, element, .. } = Place::<ENTRY>::of(index);
        // SAFETY: the tables of records are arrays of maps, and their elements arrays.
        let element = unsafe {
            let chunk = look_up(from_ref(chunks).cast_mut().cast(), &chunk)?;
            look_up(chunk, &element)?
        };
        Some(Self { element: element.cast(), index })
    }

    /// The entry.
    #[inline(always)]
    fn entry<T>(self) -> *mut T {
        // SAFETY: an element begins with its entries.
        unsafe { self.element.add(Place::<ENTRY>::of(self.index).entry()).cast() }
    }

    /// Counts a frame in this CPU's counters.
    #[inline(always)]
    fn count(self, direction: Direction, bytes: usize) {
        // SAFETY: the helper has no preconditions.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        if cpu < maps::CPUS.load() {
            let offset = Place::<ENTRY>::of(self.index).counters(cpu);
            // SAFETY: an element has counters for as many CPUs; these belong to this one, which runs one program at a time here.
            unsafe {
                let traffic: *mut Traffic = self.element.add(offset).cast();
                (*traffic).count(direction, bytes as u64);
            }
        }
    }
}

/// `bpf_map_lookup_elem`, which the kernel inlines for arrays and arrays of maps.
///
/// # Safety
///
/// The map is an array of this object, or an element of an array of maps, which the verifier knows for one.
#[inline(always)]
pub(crate) unsafe fn look_up(map: *mut c_void, index: &u32) -> Option<*mut c_void> {
    // SAFETY: the caller's; the key of an array is four bytes.
    let found = unsafe { bpf_map_lookup_elem(map, from_ref(index).cast()) };
    if found.is_null() { None } else { Some(found) }
}

/// A record of PORTS.
#[derive(Clone, Copy)]
pub(crate) struct Port(Record<{ PortPlace::ENTRY }>);

impl Port {
    #[inline(always)]
    pub(crate) fn find(index: u32) -> Option<Self> {
        Record::find(&maps::PORTS, index).map(Self)
    }

    #[inline(always)]
    pub(crate) fn count(self, direction: Direction, bytes: usize) {
        self.0.count(direction, bytes);
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

/// A record of VIPS, and that of VIPS_ASIDE by need.
#[derive(Clone, Copy)]
pub(crate) struct Vip(Record<{ VipPlace::ENTRY }>);

impl Vip {
    #[inline(always)]
    pub(crate) fn find(slot: u32) -> Option<Self> {
        Record::find(&maps::VIPS, slot).map(Self)
    }

    #[inline(always)]
    pub(crate) fn count(self, way: Way, direction: Direction, bytes: usize) {
        match way {
            Way::Eip => self.0.count(direction, bytes),
            Way::Inside => {
                if let Some(aside) = self.aside() {
                    aside.count(direction, bytes);
                }
            }
        }
    }

    #[inline(always)]
    fn record(self) -> *mut VipRecord {
        self.0.entry()
    }

    /// The other half, which the agent makes with the first.
    #[inline(always)]
    fn aside(self) -> Option<Record<{ AsidePlace::ENTRY }>> {
        Record::find(&maps::VIPS_ASIDE, self.0.index)
    }

    /// A field of the other half.
    #[inline(always)]
    fn aside_field(self, field: impl FnOnce(*mut AsideRecord) -> *mut u64) -> Option<*mut u64> {
        self.aside().map(|aside| field(aside.entry()))
    }
}

/// The address of a field of a record.
macro_rules! field {
    ($record:expr, $field:ident) => {
        // SAFETY: a record is as large as its type, and lives as long as the map.
        unsafe { &raw mut (*$record).$field }
    };
}

impl VipCell for Vip {
    #[inline(always)]
    fn entry(self) -> VipEntry {
        // SAFETY: as in `Port::deref`.
        unsafe { *field!(self.record(), vip) }
    }

    #[inline(always)]
    fn word(self) -> OwnerWord {
        // SAFETY: an aligned 64-bit load of a map's element is one instruction and never torn.
        unsafe { read_volatile(field!(self.record(), word)) }
    }

    #[inline(always)]
    fn pending(self) -> Pending {
        // SAFETY: as in `word`.
        unsafe { read_volatile(field!(self.record(), pending)) }
    }

    #[inline(always)]
    fn damped_until(self) -> u64 {
        let at = self.aside_field(|aside| field!(aside, damped_until));
        // SAFETY: as in `word`.
        at.map_or(0, |at| unsafe { read_volatile(at) })
    }

    #[inline(always)]
    fn set_damped_until(self, at: u64) {
        if let Some(field) = self.aside_field(|aside| field!(aside, damped_until)) {
            // SAFETY: as in `word`; an aligned 64-bit store is one instruction.
            unsafe { write_volatile(field, at) }
        }
    }

    #[inline(always)]
    fn reported(self) -> u64 {
        let at = self.aside_field(|aside| field!(aside, reported));
        // SAFETY: as in `word`.
        at.map_or(0, |at| unsafe { read_volatile(at) })
    }

    #[inline(always)]
    fn set_reported(self, at: u64) {
        if let Some(field) = self.aside_field(|aside| field!(aside, reported)) {
            // SAFETY: as in `set_damped_until`.
            unsafe { write_volatile(field, at) }
        }
    }

    #[inline(always)]
    fn swap_word(self, old: OwnerWord, new: OwnerWord) -> bool {
        // SAFETY: the field is aligned to eight bytes of a map's element.
        unsafe { compare_exchange(field!(self.record(), word).cast(), old.0, new.0) }
    }

    #[inline(always)]
    fn swap_pending(self, old: Pending, new: Pending) -> bool {
        // SAFETY: as in `swap_word`.
        unsafe { compare_exchange(field!(self.record(), pending).cast(), old.0, new.0) }
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
