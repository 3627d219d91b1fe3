//! The records of PORTS and VIPS: found in two steps, changed by compare-and-swap, counted per CPU.

use core::{
    ffi::c_void,
    intrinsics::{AtomicOrdering, atomic_cxchg},
    marker::PhantomData,
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
        AsideRecord, Direction, OwnerWord, Pending, PortEntry, VipEntry, Way,
        record::{Place, Ports, Shape, Vips, VipsAside},
    },
};

use crate::maps;

/// An object's place in an element of a chunk. Elements live as long as the map does.
struct Record<S> {
    element: *mut u8,
    index: u32,
    shape: PhantomData<S>,
}

impl<S> Clone for Record<S> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Record<S> {}

impl<S: Shape> Record<S> {
    /// The record with an index, in an array of chunks.
    #[inline(always)]
    fn find(chunks: &'static Array<u32>, index: u32) -> Option<Self> {
        let Place { chunk, element, .. } = S::place(index);
        // SAFETY: the tables of records are arrays of maps, and their elements arrays.
        let element = unsafe {
            let chunk = look_up(from_ref(chunks).cast_mut().cast(), &chunk)?;
            look_up(chunk, &element)?
        };
        Some(Self { element: element.cast(), index, shape: PhantomData })
    }

    /// The entry.
    #[inline(always)]
    fn entry(self) -> *mut S::Entry {
        // SAFETY: an element begins with its entries.
        unsafe { self.element.add(S::entry(S::place(self.index).lane)).cast() }
    }

    /// Lets `count` change this CPU's counters.
    #[inline(always)]
    fn count(self, count: impl FnOnce(&mut S::Counters)) {
        // SAFETY: the helper has no preconditions.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        if cpu < maps::CPUS.load() {
            let offset = S::counters(S::place(self.index).lane, cpu);
            // SAFETY: an element has counters for as many CPUs; these belong to this one, which runs one program at a time here.
            count(unsafe { &mut *self.element.add(offset).cast() });
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
pub(crate) struct Port(Record<Ports>);

impl Port {
    #[inline(always)]
    pub(crate) fn find(index: u32) -> Option<Self> {
        Record::find(&maps::PORTS, index).map(Self)
    }

    #[inline(always)]
    pub(crate) fn count(self, direction: Direction, bytes: usize) {
        self.0.count(|traffic| traffic.count(direction, bytes as u64));
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
pub(crate) struct Vip(Record<Vips>);

impl Vip {
    #[inline(always)]
    pub(crate) fn find(slot: u32) -> Option<Self> {
        Record::find(&maps::VIPS, slot).map(Self)
    }

    #[inline(always)]
    pub(crate) fn count(self, way: Way, direction: Direction, bytes: usize) {
        let bytes = bytes as u64;
        if let (Way::Eip, Direction::In) = (way, direction) {
            self.0.count(|count| count.add(bytes));
        } else if let Some(aside) = self.aside() {
            aside.count(|traffic| match way {
                Way::Eip => traffic.eip_out.add(bytes),
                Way::Inside => traffic.inside.count(direction, bytes),
                Way::Onward => traffic.onward.add(bytes),
            });
        }
    }

    /// The other half, which the agent makes with the first.
    #[inline(always)]
    fn aside(self) -> Option<Record<VipsAside>> {
        Record::find(&maps::VIPS_ASIDE, self.0.index)
    }

    #[inline(always)]
    fn word_field(self) -> *mut OwnerWord {
        // SAFETY: a record is as large as its type, and lives as long as the map.
        unsafe { &raw mut (*self.0.entry()).word }
    }

    #[inline(always)]
    fn pending_field(self) -> *mut Pending {
        // SAFETY: as in `word_field`.
        unsafe { &raw mut (*self.0.entry()).pending }
    }

    /// Changes a field of the other half.
    #[inline(always)]
    fn update(
        self,
        field: impl FnOnce(*mut AsideRecord) -> *mut u64,
        update: impl FnOnce(u64) -> Option<u64>,
    ) {
        let Some(aside) = self.aside() else { return };
        let field = field(aside.entry());
        // SAFETY: the field is aligned to eight bytes of a map's element: one instruction loads or stores it.
        if let Some(value) = update(unsafe { read_volatile(field) }) {
            // SAFETY: as above.
            unsafe { write_volatile(field, value) }
        }
    }
}

impl VipCell for Vip {
    #[inline(always)]
    fn entry(self) -> VipEntry {
        // SAFETY: as in `Port::deref`.
        unsafe { (*self.0.entry()).vip }
    }

    #[inline(always)]
    fn word(self) -> OwnerWord {
        // SAFETY: an aligned 64-bit load of a map's element is one instruction and never torn.
        unsafe { read_volatile(self.word_field()) }
    }

    #[inline(always)]
    fn pending(self) -> Pending {
        // SAFETY: as in `word`.
        unsafe { read_volatile(self.pending_field()) }
    }

    #[inline(always)]
    fn update_damped_until(self, update: impl FnOnce(u64) -> Option<u64>) {
        // SAFETY: as in `word_field`.
        self.update(|aside| unsafe { &raw mut (*aside).damped_until }, update);
    }

    #[inline(always)]
    fn update_reported(self, update: impl FnOnce(u64) -> Option<u64>) {
        // SAFETY: as in `word_field`.
        self.update(|aside| unsafe { &raw mut (*aside).reported }, update);
    }

    #[inline(always)]
    fn swap_word(self, old: OwnerWord, new: OwnerWord) -> bool {
        // SAFETY: the field is aligned to eight bytes of a map's element.
        unsafe { compare_exchange(self.word_field().cast(), old.0, new.0) }
    }

    #[inline(always)]
    fn swap_pending(self, old: Pending, new: Pending) -> bool {
        // SAFETY: as in `swap_word`.
        unsafe { compare_exchange(self.pending_field().cast(), old.0, new.0) }
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
