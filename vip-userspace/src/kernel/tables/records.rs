//! PORTS, VIPS and VIPS_ASIDE: records in chunks, in memory that the programs share.

use std::{
    fmt, io,
    marker::PhantomData,
    ops::Range,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    slice,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use aya::maps::{Map, MapData, MapError};
use memmap2::{MmapOptions, MmapRaw};
use vip_common::tables::record::{CHUNK, Place, Shape};
use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes as _};

use super::{KernelError, failed};
use crate::kernel::syscall;

/// Index → record. A chunk is made when something in it is written for the first time; until then its records read as zeroes.
pub(super) struct Records<S> {
    name: &'static str,
    capacity: u32,
    cpus: u32,
    outer: MapData,
    chunks: Box<[OnceLock<MmapRaw>]>,
    making: Mutex<()>,
    shape: PhantomData<S>,
}

/// Makes an array of chunks for `capacity` objects, without any chunk.
pub(in crate::kernel) fn create<S: Shape>(
    name: &'static str,
    capacity: u32,
    cpus: u32,
) -> Result<OwnedFd, KernelError> {
    let prototype = create_chunk::<S>(name, cpus)?;
    syscall::create_array_of_maps(name, prototype.as_fd(), S::chunks(capacity).max(1)).map_err(not_made(name))
}

fn create_chunk<S: Shape>(name: &'static str, cpus: u32) -> Result<OwnedFd, KernelError> {
    syscall::create_mappable_array(name, S::element_size(cpus), CHUNK).map_err(not_made(name))
}

fn not_made(table: &'static str) -> impl Fn(io::Error) -> KernelError {
    move |source| KernelError::Map { table, source }
}

impl<S: Shape> Records<S> {
    /// The array with the chunks that it has already.
    pub(super) fn open(name: &'static str, map: Map, capacity: u32, cpus: u32) -> Result<Self, KernelError> {
        // The object declares an array, and the loader believes it; the pinned map says what it is.
        let (Map::Array(outer) | Map::ArrayOfMaps(outer)) = map else {
            return Err(KernelError::ObjectLacks { kind: "array", name });
        };
        let len = outer.info().map_err(failed("inspect", name))?.max_entries();
        let records = Self {
            name,
            capacity: capacity.min(len.saturating_mul(S::PER_CHUNK)),
            cpus,
            outer,
            chunks: (0..len).map(|_| OnceLock::new()).collect(),
            making: Mutex::new(()),
            shape: PhantomData,
        };
        for (index, chunk) in (0..).zip(&records.chunks) {
            if let Some(inner) = syscall::inner_map(records.outer.fd(), index).map_err(not_made(name))? {
                let memory = records.map(&inner)?;
                chunk.get_or_init(|| memory);
            }
        }
        Ok(records)
    }

    /// Number of indexes.
    pub(super) fn len(&self) -> u32 {
        self.capacity
    }

    /// The indexes whose chunks exist: all others read as zeroes.
    pub(super) fn present(&self) -> impl Iterator<Item = u32> + '_ {
        (0..)
            .zip(&self.chunks)
            .filter(|(_, chunk)| chunk.get().is_some())
            .flat_map(|(chunk, _): (u32, _)| chunk * S::PER_CHUNK..(chunk + 1) * S::PER_CHUNK)
            .take_while(|index| *index < self.capacity)
    }

    /// Bytes of all chunks that there are.
    pub(super) fn bytes(&self) -> usize {
        self.chunks.iter().filter_map(OnceLock::get).map(MmapRaw::len).sum()
    }

    fn chunk_bytes(&self) -> usize {
        S::element_size(self.cpus) as usize * CHUNK as usize
    }

    fn map(&self, inner: &OwnedFd) -> Result<MmapRaw, KernelError> {
        let info = inner
            .try_clone()
            .map_err(MapError::from)
            .and_then(MapData::from_fd)
            .and_then(|chunk| chunk.info())
            .map_err(failed("inspect", self.name))?;
        if info.value_size() != S::element_size(self.cpus) || info.max_entries() != CHUNK {
            return Err(KernelError::ObjectLacks {
                kind: "chunks for this machine's CPUs in",
                name: self.name,
            });
        }
        MmapOptions::new().len(self.chunk_bytes()).map_raw(inner.as_raw_fd()).map_err(not_made(self.name))
    }

    /// Makes all chunks that the indexes need, many at once.
    pub(super) fn reserve(&self, indexes: impl IntoIterator<Item = u32>) -> Result<(), KernelError> {
        let _alone = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let mut missing: Vec<u32> = indexes
            .into_iter()
            .map(|index| S::place(index).chunk)
            .filter(|chunk| self.chunks.get(*chunk as usize).is_some_and(|chunk| chunk.get().is_none()))
            .collect();
        missing.sort_unstable();
        missing.dedup();
        // A run of chunks in one go: each go waits for the programs.
        for run in missing.chunk_by(|a, b| a + 1 == *b) {
            let inner = run
                .iter()
                .map(|_| create_chunk::<S>(self.name, self.cpus))
                .collect::<Result<Vec<OwnedFd>, _>>()?;
            let memory = inner.iter().map(|inner| self.map(inner)).collect::<Result<Vec<MmapRaw>, _>>()?;
            let first = run.first().copied().unwrap_or_default();
            syscall::set_inner_maps(self.outer.fd(), first, &inner).map_err(not_made(self.name))?;
            for (index, memory) in run.iter().zip(memory) {
                if let Some(chunk) = self.chunks.get(*index as usize) {
                    chunk.get_or_init(|| memory);
                }
            }
        }
        Ok(())
    }

    fn check(&self, index: u32) -> Result<Place, KernelError> {
        if index >= self.capacity {
            return Err(KernelError::OutOfRange { table: self.name, index, capacity: self.capacity });
        }
        Ok(S::place(index))
    }

    /// `bytes` from a byte offset of the record's element on, as words; `None` if its chunk does not exist.
    fn words(&self, place: Place, offset: usize, bytes: usize) -> Option<&[AtomicU64]> {
        let memory = self.chunks.get(place.chunk as usize)?.get()?;
        let element = place.element as usize * S::element_size(self.cpus) as usize;
        let start = element + offset;
        if !start.is_multiple_of(8) || start + bytes > memory.len() {
            return None;
        }
        // SAFETY: the mapping lives as long as self, is page-aligned, readable and writable, and contains the words. Whoever else
        // writes there, the kernel's programs and other mappings, changes whole aligned 64-bit words, and so may
        // atomics do. There is no safe access to shared memory.
        Some(unsafe { slice::from_raw_parts(memory.as_mut_ptr().add(start).cast(), bytes / 8) })
    }

    /// The words of an entry that exists in memory; `None`: it reads as zeroes.
    pub(super) fn entry(&self, index: u32) -> Result<Option<&[AtomicU64]>, KernelError> {
        let place = self.check(index)?;
        Ok(self.words(place, S::entry(place.lane), size_of::<S::Entry>()))
    }

    /// The words of an entry, whose chunk is made if it does not exist.
    pub(super) fn entry_made(&self, index: u32) -> Result<&[AtomicU64], KernelError> {
        if self.entry(index)?.is_none() {
            self.reserve([index])?;
        }
        self.entry(index)?.ok_or(KernelError::ObjectLacks { kind: "chunk in", name: self.name })
    }

    /// The counters of all CPUs together.
    pub(super) fn counted(&self, index: u32) -> Result<S::Counters, KernelError> {
        let place = self.check(index)?;
        let mut counters = S::Counters::new_zeroed();
        let sums = <[u64]>::mut_from_bytes(counters.as_mut_bytes()).unwrap_or_default();
        for cpu in 0..self.cpus {
            for (sum, word) in sums.iter_mut().zip(self.counters(place, cpu)) {
                *sum = sum.wrapping_add(word.load(Ordering::Relaxed));
            }
        }
        Ok(counters)
    }

    /// The words of a CPU's counters; none if their chunk does not exist.
    fn counters(&self, place: Place, cpu: u32) -> &[AtomicU64] {
        self.words(place, S::counters(place.lane, cpu), size_of::<S::Counters>()).unwrap_or_default()
    }

    /// Sets the counters from a byte offset on to zero. What programs count at that moment may survive or be lost.
    pub(super) fn clear_counters(&self, index: u32, bytes: Range<usize>) -> Result<(), KernelError> {
        let place = self.check(index)?;
        for cpu in 0..self.cpus {
            let words = self.counters(place, cpu).get(bytes.start / 8..bytes.end / 8).unwrap_or_default();
            for word in words {
                word.store(0, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

/// Reads words.
pub(super) fn load<const N: usize>(words: &[AtomicU64]) -> [u64; N] {
    let mut loaded = [0; N];
    for (to, from) in loaded.iter_mut().zip(words) {
        *to = from.load(Ordering::Acquire);
    }
    loaded
}

/// Writes words, the first one last.
pub(super) fn store(words: &[AtomicU64], values: &[u64]) {
    for (word, value) in words.iter().zip(values).rev() {
        if word.load(Ordering::Relaxed) != *value {
            word.store(*value, Ordering::Release);
        }
    }
}

impl<S> fmt::Debug for Records<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Records({}, {})", self.name, self.capacity)
    }
}
