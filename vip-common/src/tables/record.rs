//! Records: what a packet needs of one port or VIP, with its counters, side by side in memory.
//!
//! PORTS, VIPS and VIPS_ASIDE are arrays of chunks (array of maps), and a chunk is a mappable array of [`CHUNK`] elements. An element
//! begins with the entries of a few neighbouring objects and goes on with their counters, whole lines for each CPU. So a packet
//! touches two neighbouring lines of one page where a table of entries and a per-CPU table of counters would make it touch two
//! lines of two pages; no two CPUs write to one line; and counters exist only for chunks that something is in.
//!
//! ```text
//! PORTS element:      2 ports of 64 bytes | CPU 0: their traffic                        | CPU 1: … | …
//! VIPS element:       4 VIPs of 32 bytes  | CPU 0: what came to their EIPs              | CPU 1: … | …
//! VIPS_ASIDE element: 4 VIPs of 16 bytes  | CPU 0: what left as their EIPs; the traffic inside, and onward | CPU 1: … | …
//! ```
//!
//! What a VIP has is apart in two tables, because the caches are small: a packet to an EIP needs nothing of VIPS_ASIDE.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{AsideRecord, AsideTraffic, Count, PortEntry, Traffic, VipRecord};

/// Elements of a chunk.
pub const CHUNK: u32 = 1024;

/// Size of a cache line, in bytes.
pub const LINE: usize = 64;

/// Where the object with an index lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of the chunk.
    pub chunk: u32,
    /// Index of the element in the chunk.
    pub element: u32,
    /// Which object of the element.
    pub lane: u32,
}

/// What the elements of a table of records consist of.
pub trait Shape {
    /// What the table says of an object. Its words change whole.
    type Entry: FromBytes + IntoBytes + Immutable + KnownLayout;
    /// What one CPU counts of an object: words of 64 bits.
    type Counters: FromBytes + IntoBytes + Immutable + KnownLayout;

    /// Objects in an element.
    const LANES: u32;

    /// Objects in a chunk.
    const PER_CHUNK: u32 = CHUNK * Self::LANES;

    /// Bytes of an element that the entries take.
    const ENTRIES: usize = size_of::<Self::Entry>() * Self::LANES as usize;

    /// Bytes of an element that one CPU's counters take.
    const PER_CPU: usize = size_of::<Self::Counters>() * Self::LANES as usize;

    /// Where the object with this index lies.
    #[inline(always)]
    fn place(index: u32) -> Place {
        Place {
            chunk: index / Self::PER_CHUNK,
            element: index / Self::LANES % CHUNK,
            lane: index % Self::LANES,
        }
    }

    /// Chunks that `objects` need.
    fn chunks(objects: u32) -> u32 {
        objects.div_ceil(Self::PER_CHUNK)
    }

    /// Bytes of an element on a machine with this many CPUs.
    fn element_size(cpus: u32) -> u32 {
        Self::ENTRIES as u32 + cpus * Self::PER_CPU as u32
    }

    /// Offset in the element of an object's entry, in bytes.
    #[inline(always)]
    fn entry(lane: u32) -> usize {
        lane as usize * size_of::<Self::Entry>()
    }

    /// Offset in the element of an object's counters of a CPU, in bytes.
    #[inline(always)]
    fn counters(lane: u32, cpu: u32) -> usize {
        Self::ENTRIES + cpu as usize * Self::PER_CPU + lane as usize * size_of::<Self::Counters>()
    }
}

/// Of PORTS.
#[derive(Clone, Copy, Debug)]
pub struct Ports;

impl Shape for Ports {
    type Entry = PortEntry;
    type Counters = Traffic;

    const LANES: u32 = 2;
}

/// Of VIPS. The counters are of frames that came to the EIP.
#[derive(Clone, Copy, Debug)]
pub struct Vips;

impl Shape for Vips {
    type Entry = VipRecord;
    type Counters = Count;

    const LANES: u32 = 4;
}

/// Of VIPS_ASIDE.
#[derive(Clone, Copy, Debug)]
pub struct VipsAside;

impl Shape for VipsAside {
    type Entry = AsideRecord;
    type Counters = AsideTraffic;

    const LANES: u32 = 4;
}

/// Whether entries and counters of a CPU are whole lines, and no entry lies in two.
const fn is_aligned<S: Shape>() -> bool {
    S::ENTRIES.is_multiple_of(LINE)
        && S::PER_CPU.is_multiple_of(LINE)
        && LINE.is_multiple_of(size_of::<S::Entry>())
}

const _: () = assert!(is_aligned::<Ports>() && is_aligned::<Vips>() && is_aligned::<VipsAside>());
