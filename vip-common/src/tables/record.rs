//! Records: what a packet needs of one port or VIP, with its counters, side by side in memory.
//!
//! PORTS, VIPS and VIPS_ASIDE are arrays of chunks (array of maps), and a chunk is a mappable array of [`CHUNK`] elements. An element
//! begins with the entries of [`LANES`] objects, one or one half of a cache line each, and goes on with one line of counters per
//! CPU. So a packet touches two neighbouring lines of one page where a table of entries and a per-CPU table of counters would make
//! it touch two lines of two pages; no two CPUs write to one line; and counters exist only for chunks that something is in.
//!
//! ```text
//! PORTS element:      port 2n | port 2n+1 | CPU 0: traffic of 2n, of 2n+1 | CPU 1: … | …
//! VIPS element:       VIP 2n, VIP 2n+1    | CPU 0: traffic by EIP of 2n, of 2n+1 | CPU 1: … | …
//! VIPS_ASIDE element: VIP 2n, VIP 2n+1    | CPU 0: traffic inside of 2n, of 2n+1 | CPU 1: … | …
//! ```
//!
//! What a VIP has is apart in two tables, because the caches are small: a packet to an EIP needs nothing of VIPS_ASIDE.

use super::{AsideRecord, PortEntry, Traffic, VipRecord};

/// Elements of a chunk.
pub const CHUNK: u32 = 1024;

/// Size of a cache line and of one CPU's counters in an element, in bytes.
pub const LINE: usize = 64;

/// Objects in an element.
pub const LANES: u32 = 2;

/// Objects in a chunk.
pub const PER_CHUNK: u32 = CHUNK * LANES;

/// Where something lies in chunks whose elements have entries of `ENTRY` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<const ENTRY: usize> {
    /// Index of the chunk.
    pub chunk: u32,
    /// Index of the element in the chunk.
    pub element: u32,
    /// Which entry of the element.
    pub lane: u32,
}

impl<const ENTRY: usize> Place<ENTRY> {
    /// Bytes of an entry.
    pub const ENTRY: usize = ENTRY;

    /// Where the object with this index lies.
    #[inline(always)]
    pub const fn of(index: u32) -> Self {
        Self { chunk: index / PER_CHUNK, element: index / LANES % CHUNK, lane: index % LANES }
    }

    /// Chunks that `objects` need.
    pub const fn chunks(objects: u32) -> u32 {
        objects.div_ceil(PER_CHUNK)
    }

    /// Bytes of an element on a machine with this many CPUs.
    pub const fn element_size(cpus: u32) -> u32 {
        LANES * ENTRY as u32 + cpus * LINE as u32
    }

    /// Offset in the element of the entry, in bytes.
    #[inline(always)]
    pub const fn entry(self) -> usize {
        self.lane as usize * ENTRY
    }

    /// Offset in the element of the entry's counters of a CPU, in bytes.
    #[inline(always)]
    pub const fn counters(self, cpu: u32) -> usize {
        LANES as usize * ENTRY + cpu as usize * LINE + self.lane as usize * size_of::<Traffic>()
    }
}

/// Where a port lies in PORTS.
pub type PortPlace = Place<{ size_of::<PortEntry>() }>;

/// Where a VIP lies in VIPS.
pub type VipPlace = Place<{ size_of::<VipRecord>() }>;

/// Where a VIP lies in VIPS_ASIDE.
pub type AsidePlace = Place<{ size_of::<AsideRecord>() }>;

const _: () = assert!(
    size_of::<Traffic>() * LANES as usize == LINE
        && PortPlace::ENTRY == LINE
        && VipPlace::ENTRY * LANES as usize == LINE
        && AsidePlace::ENTRY * LANES as usize == LINE
);
