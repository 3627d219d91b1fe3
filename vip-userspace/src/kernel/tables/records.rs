//! PORTS and VIPS: records in chunks, in memory that the programs share.

use std::{
    fmt, io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use aya::maps::{Map, MapData, MapError};
use memmap2::{MmapOptions, MmapRaw};
use vip_common::tables::{
    Traffic,
    record::{CHUNK, LINE, Place},
};
use zerocopy::transmute;

use super::{KernelError, failed};
use crate::kernel::syscall;

/// Words of an entry.
pub(super) const WORDS: usize = LINE / 8;

/// Words of the traffic of one way.
const TRAFFIC: usize = size_of::<Traffic>() / 8;

/// Index → record. A chunk is made when something in it is written for the first time; until then its records read as zeroes.
pub(super) struct Records<const LANES: u32> {
    name: &'static str,
    capacity: u32,
    cpus: u32,
    outer: MapData,
    chunks: Box<[OnceLock<MmapRaw>]>,
    making: Mutex<()>,
}

/// Makes an array of chunks for `capacity` objects, without any chunk.
pub(in crate::kernel) fn create<const LANES: u32>(
    name: &'static str,
    capacity: u32,
    cpus: u32,
) -> Result<OwnedFd, KernelError> {
    let prototype = create_chunk::<LANES>(name, cpus)?;
    syscall::create_array_of_maps(name, prototype.as_fd(), Place::<LANES>::chunks(capacity).max(1))
        .map_err(not_made(name))
}

fn create_chunk<const LANES: u32>(name: &'static str, cpus: u32) -> Result<OwnedFd, KernelError> {
    syscall::create_mappable_array(name, Place::<LANES>::element_size(cpus), CHUNK).map_err(not_made(name))
}

fn not_made(table: &'static str) -> impl Fn(io::Error) -> KernelError {
    move |source| KernelError::Map { table, source }
}

impl<const LANES: u32> Records<LANES> {
    /// The array with the chunks that it has already.
    pub(super) fn open(name: &'static str, map: Map, capacity: u32, cpus: u32) -> Result<Self, KernelError> {
        // The object declares an array, and the loader believes it; the pinned map says what it is.
        let (Map::Array(outer) | Map::ArrayOfMaps(outer)) = map else {
            return Err(KernelError::ObjectLacks { kind: "array", name });
        };
        let len = outer.info().map_err(failed("inspect", name))?.max_entries();
        let records = Self {
            name,
            capacity: capacity.min(len.saturating_mul(Place::<LANES>::PER_CHUNK)),
            cpus,
            outer,
            chunks: (0..len).map(|_| OnceLock::new()).collect(),
            making: Mutex::new(()),
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
        let per_chunk = Place::<LANES>::PER_CHUNK;
        (0..)
            .zip(&self.chunks)
            .filter(|(_, chunk)| chunk.get().is_some())
            .flat_map(move |(chunk, _): (u32, _)| chunk * per_chunk..(chunk + 1) * per_chunk)
            .take_while(|index| *index < self.capacity)
    }

    /// Bytes of all chunks that there are.
    pub(super) fn bytes(&self) -> usize {
        self.chunks.iter().filter_map(OnceLock::get).map(MmapRaw::len).sum()
    }

    fn chunk_bytes(&self) -> usize {
        Place::<LANES>::element_size(self.cpus) as usize * CHUNK as usize
    }

    fn map(&self, inner: &OwnedFd) -> Result<MmapRaw, KernelError> {
        let info = inner
            .try_clone()
            .map_err(MapError::from)
            .and_then(MapData::from_fd)
            .and_then(|chunk| chunk.info())
            .map_err(failed("inspect", self.name))?;
        if info.value_size() != Place::<LANES>::element_size(self.cpus) || info.max_entries() != CHUNK {
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
            .map(|index| Place::<LANES>::of(index).chunk)
            .filter(|chunk| self.chunks.get(*chunk as usize).is_some_and(|chunk| chunk.get().is_none()))
            .collect();
        missing.sort_unstable();
        missing.dedup();
        // A run of chunks in one go: each go waits for the programs.
        for run in missing.chunk_by(|a, b| a + 1 == *b) {
            let inner = run
                .iter()
                .map(|_| create_chunk::<LANES>(self.name, self.cpus))
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

    fn check(&self, index: u32) -> Result<Place<LANES>, KernelError> {
        if index >= self.capacity {
            return Err(KernelError::OutOfRange { table: self.name, index, capacity: self.capacity });
        }
        Ok(Place::of(index))
    }

    /// `N` words at a byte offset of the record's element; `None` if its chunk does not exist.
    fn words<const N: usize>(&self, place: Place<LANES>, offset: usize) -> Option<&[AtomicU64; N]> {
        let memory = self.chunks.get(place.chunk as usize)?.get()?;
        let element = place.element as usize * Place::<LANES>::element_size(self.cpus) as usize;
        let start = element + offset;
        if !start.is_multiple_of(8) || start + N * 8 > memory.len() {
            return None;
        }
        // SAFETY: the mapping lives as long as self, is page-aligned, readable and writable, and contains the words. Whoever else
        // writes there, the kernel's programs and other mappings, changes whole aligned 64-bit words, and so may
        // atomics do. There is no safe access to shared memory.
        Some(unsafe { &*memory.as_mut_ptr().add(start).cast() })
    }

    /// The words of an entry that exists in memory; `None`: it reads as zeroes.
    pub(super) fn entry(&self, index: u32) -> Result<Option<&[AtomicU64; WORDS]>, KernelError> {
        let place = self.check(index)?;
        Ok(self.words(place, place.entry()))
    }

    /// The words of an entry, whose chunk is made if it does not exist.
    pub(super) fn entry_made(&self, index: u32) -> Result<&[AtomicU64; WORDS], KernelError> {
        if self.entry(index)?.is_none() {
            self.reserve([index])?;
        }
        self.entry(index)?.ok_or(KernelError::ObjectLacks { kind: "chunk in", name: self.name })
    }

    /// The counters of all CPUs together, at a byte offset from each one's start.
    pub(super) fn traffic(&self, index: u32, offset: usize) -> Result<Traffic, KernelError> {
        let place = self.check(index)?;
        let mut sum = [0_u64; TRAFFIC];
        for cpu in 0..self.cpus {
            let Some(words) = self.words::<TRAFFIC>(place, place.counters(cpu) + offset) else { break };
            for (sum, word) in sum.iter_mut().zip(words) {
                *sum = sum.wrapping_add(word.load(Ordering::Relaxed));
            }
        }
        Ok(transmute!(sum))
    }

    /// Sets counters to zero. What programs count at that moment may survive or be lost.
    pub(super) fn clear_traffic(&self, index: u32, offset: usize) -> Result<(), KernelError> {
        let place = self.check(index)?;
        for cpu in 0..self.cpus {
            for word in self.words::<TRAFFIC>(place, place.counters(cpu) + offset).into_iter().flatten() {
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

impl<const LANES: u32> fmt::Debug for Records<LANES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Records({}, {})", self.name, self.capacity)
    }
}
