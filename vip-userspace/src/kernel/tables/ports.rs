//! PORTS.

use std::sync::atomic::Ordering;

use aya::maps::Map;
use vip_common::tables::{PortEntry, SourceEip, Traffic, names, record::Ports};
use zerocopy::transmute;

use super::{
    KernelError,
    records::{Records, load, store},
};

/// Word of an entry that holds the EIP.
const EIP: usize = std::mem::offset_of!(PortEntry, eip) / 8;

const WORDS: usize = size_of::<PortEntry>() / 8;

/// Port index → port, and the traffic of its EIP.
#[derive(Debug)]
pub struct PortTable(Records<Ports>);

impl PortTable {
    pub(super) fn open(map: Map, capacity: u32, cpus: u32) -> Result<Self, KernelError> {
        Records::open(names::PORTS, map, capacity, cpus).map(Self)
    }

    /// Number of indexes, the unused first one included.
    #[expect(clippy::len_without_is_empty, reason = "its size is fixed and never 0")]
    pub fn len(&self) -> u32 {
        self.0.len()
    }

    /// The indexes that something may be at, the unused first one left out: all others are empty.
    pub fn present(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.present().filter(|index| *index != 0)
    }

    /// Bytes of memory behind the table.
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// Makes room for ports, many at once.
    pub fn reserve(&self, indexes: impl IntoIterator<Item = u32>) -> Result<(), KernelError> {
        self.0.reserve(indexes)
    }

    /// The port with an index, with the EIP that its fixed address leaves as.
    pub fn get(&self, index: u32) -> Result<PortEntry, KernelError> {
        let Some(words) = self.0.entry(index)? else { return Ok(PortEntry::default()) };
        let words: [u64; WORDS] = load(words);
        Ok(transmute!(words))
    }

    /// Writes a port and keeps the EIP that is there. Programs may see some words of the old entry beside some of the new one.
    pub fn set(&self, index: u32, entry: PortEntry) -> Result<(), KernelError> {
        let words = self.0.entry_made(index)?;
        let eip = words.get(EIP).map_or(0, |word| word.load(Ordering::Acquire));
        store(words, &transmute!(PortEntry { eip: transmute!(eip), ..entry }) as &[u64; WORDS]);
        Ok(())
    }

    /// Empties an index.
    pub fn clear(&self, index: u32) -> Result<(), KernelError> {
        if let Some(words) = self.0.entry(index)? {
            store(words, &[0; WORDS]);
        }
        Ok(())
    }

    /// Sets the EIP that the fixed address leaves as, by one store.
    pub fn set_eip(&self, index: u32, eip: SourceEip) -> Result<(), KernelError> {
        if let Some(word) = self.0.entry_made(index)?.get(EIP) {
            word.store(transmute!(eip), Ordering::Release);
        }
        Ok(())
    }

    /// Traffic through the port's EIP.
    pub fn traffic(&self, index: u32) -> Result<Traffic, KernelError> {
        self.0.counted(index)
    }

    /// Sets the traffic to zero.
    pub fn clear_traffic(&self, index: u32) -> Result<(), KernelError> {
        self.0.clear_counters(index, 0..size_of::<Traffic>())
    }
}
