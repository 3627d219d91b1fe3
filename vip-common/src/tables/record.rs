//! Records: what a packet needs of one port or VIP, with its counters, side by side in memory.
//!
//! PORTS and VIPS are arrays of chunks (array of maps), and a chunk is a mappable array of [`CHUNK`] elements. An element begins with
//! the entries of one or two objects, one cache line each, and goes on with one line of counters per CPU. So a packet touches
//! two neighbouring lines of one page where a table of entries and a per-CPU table of counters would make it touch two lines of two
//! pages; no two CPUs write to one line; and counters exist only for chunks that something is in.
//!
//! ```text
//! PORTS element: port 2n | port 2n+1 | CPU 0: traffic of 2n, of 2n+1 | CPU 1: … | …
//! VIPS element:  VIP n               | CPU 0: traffic by EIP, inside | CPU 1: … | …
//! ```

use super::Traffic;

/// Elements of a chunk.
pub const CHUNK: u32 = 1024;

/// Size of a cache line, of an entry, and of one CPU's counters in an element, in bytes.
pub const LINE: usize = 64;

/// Where something lies in chunks of elements of `LANES` entries each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<const LANES: u32> {
    /// Index of the chunk.
    pub chunk: u32,
    /// Index of the element in the chunk.
    pub element: u32,
    /// Which entry of the element.
    pub lane: u32,
}

impl<const LANES: u32> Place<LANES> {
    /// Entries of an element.
    pub const LANES: u32 = LANES;

    /// Objects in a chunk.
    pub const PER_CHUNK: u32 = CHUNK * LANES;

    /// Where the object with this index lies.
    #[inline(always)]
    pub const fn of(index: u32) -> Self {
        Self { chunk: index / Self::PER_CHUNK, element: index / LANES % CHUNK, lane: index % LANES }
    }

    /// Chunks that `objects` need.
    pub const fn chunks(objects: u32) -> u32 {
        objects.div_ceil(Self::PER_CHUNK)
    }

    /// Bytes of an element on a machine with this many CPUs.
    pub const fn element_size(cpus: u32) -> u32 {
        (LANES + cpus) * LINE as u32
    }

    /// Offset in the element of the entry, in bytes.
    #[inline(always)]
    pub const fn entry(self) -> usize {
        self.lane as usize * LINE
    }

    /// Offset in the element of a CPU's counters: the entry's own where an element has several entries, else its first.
    #[inline(always)]
    pub const fn counters(self, cpu: u32) -> usize {
        (LANES + cpu) as usize * LINE + self.lane as usize * size_of::<Traffic>()
    }
}

/// Where a port lies in PORTS.
pub type PortPlace = Place<2>;

/// Where a VIP lies in VIPS.
pub type VipPlace = Place<1>;

/// Offset from a VIP's counters of what goes through its EIP to those of what stays in the VPC.
pub const INSIDE: usize = size_of::<Traffic>();

const _: () = assert!(
    size_of::<Traffic>() * 2 == LINE
        && size_of::<super::PortEntry>() == LINE
        && size_of::<super::VipRecord>() == LINE
);
