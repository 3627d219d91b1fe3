//! NODES: the pages of the index, in memory that the programs share.

use std::{
    os::fd::{AsFd as _, AsRawFd as _},
    sync::atomic::{AtomicU32, Ordering},
};

use aya::maps::{Map, MapData};
use memmap2::{MmapOptions, MmapRaw};
use vip_common::tables::{index::Node, names};

use super::{KernelError, failed};

/// Words of a page: one per value of an octet.
pub(super) const WORDS: usize = size_of::<Node>() / 4;

/// Page → words.
#[derive(Debug)]
pub(super) struct Pages {
    len: u32,
    memory: MmapRaw,
    /// Keeps the map, and so its name in the kernel's lists, with this process.
    _map: MapData,
}

impl Pages {
    pub(super) fn open(map: Map) -> Result<Self, KernelError> {
        let name = names::NODES;
        let Map::Array(map) = map else {
            return Err(KernelError::ObjectLacks { kind: "array", name });
        };
        let info = map.info().map_err(failed("inspect", name))?;
        if usize::try_from(info.value_size()) != Ok(size_of::<Node>()) {
            return Err(KernelError::ObjectLacks { kind: "array of pages", name });
        }
        let len = info.max_entries();
        let memory = MmapOptions::new()
            .len(size_of::<Node>() * len as usize)
            .map_raw(map.fd().as_fd().as_raw_fd())
            .map_err(|source| KernelError::Map { table: name, source })?;
        Ok(Self { len, memory, _map: map })
    }

    /// Number of pages.
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// A page; `None` beyond the last one.
    fn page(&self, page: u32) -> Option<&[AtomicU32; WORDS]> {
        if page >= self.len {
            return None;
        }
        #[expect(clippy::cast_ptr_alignment, reason = "mappings are page-aligned")]
        let first = self.memory.as_mut_ptr().cast::<[AtomicU32; WORDS]>();
        // SAFETY: the mapping lives as long as self, is page-aligned, readable and writable, and spans `len` pages, of which
        // this is one. Whoever else writes there changes whole aligned words, and so may atomics do.
        Some(unsafe { &*first.add(page as usize) })
    }

    /// The word for an octet; 0 beyond the last page.
    pub(super) fn word(&self, page: u32, octet: u8) -> u32 {
        self.page(page)
            .and_then(|words| words.get(usize::from(octet)))
            .map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Sets the word for an octet: whatever was written before is seen by who sees this.
    pub(super) fn set(&self, page: u32, octet: u8, value: u32) {
        if let Some(word) = self.page(page).and_then(|words| words.get(usize::from(octet))) {
            word.store(value, Ordering::Release);
        }
    }

    /// Sets all words of a page to 0.
    pub(super) fn clear(&self, page: u32) {
        for word in self.page(page).into_iter().flatten() {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// The words of a page that are not 0, with their octets.
    pub(super) fn words(&self, page: u32) -> impl Iterator<Item = (u8, u32)> + '_ {
        (0..=u8::MAX).map(move |octet| (octet, self.word(page, octet))).filter(|(_, word)| *word != 0)
    }
}
