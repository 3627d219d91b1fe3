//! VIPS and VIPS_ASIDE.

use std::{
    mem::offset_of,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::Map;
use vip_common::tables::{
    AsideRecord, AsideTraffic, Count, OwnerEntry, OwnerWord, Pending, SourceEip, Traffic, VipEntry,
    VipRecord, Way, names,
    record::{Vips, VipsAside},
};
use zerocopy::transmute;

use super::{
    KernelError, Total as _,
    records::{Records, load, store},
};

/// Where things are in an entry, in words.
const WORD: usize = offset_of!(VipRecord, word) / 8;
const PENDING: usize = offset_of!(VipRecord, pending) / 8;
const VIP: usize = offset_of!(VipRecord, vip) / 8;
const DAMPED_UNTIL: usize = offset_of!(AsideRecord, damped_until) / 8;
const EIP: usize = VIP + offset_of!(VipEntry, eip) / 8;
const VIP_WORDS: usize = size_of::<VipEntry>() / 8;

// `restore` writes both in one go.
const _: () = assert!(WORD == 0 && PENDING == 1);

/// VIP slot → VIP, owner, traffic. The programs change words and pending claims by compare-and-swap; so does this, on the same
/// memory.
#[derive(Debug)]
pub struct VipTable {
    vips: Records<Vips>,
    aside: Records<VipsAside>,
}

impl VipTable {
    pub(super) fn open(vips: Map, aside: Map, capacity: u32, cpus: u32) -> Result<Self, KernelError> {
        Ok(Self {
            vips: Records::open(names::VIPS, vips, capacity, cpus)?,
            aside: Records::open(names::VIPS_ASIDE, aside, capacity, cpus)?,
        })
    }

    /// Number of slots.
    #[expect(clippy::len_without_is_empty, reason = "its size is fixed and never 0")]
    pub fn len(&self) -> u32 {
        self.vips.len()
    }

    /// The slots that something may be in: all others are empty.
    pub fn present(&self) -> impl Iterator<Item = u32> + '_ {
        self.vips.present()
    }

    /// Bytes of memory behind the table.
    pub fn bytes(&self) -> usize {
        self.vips.bytes() + self.aside.bytes()
    }

    /// Makes room for VIPs, many at once.
    pub fn reserve(&self, slots: impl IntoIterator<Item = u32> + Clone) -> Result<(), KernelError> {
        // First what the programs find through the other.
        self.aside.reserve(slots.clone())?;
        self.vips.reserve(slots)
    }

    /// What claims change of a slot. Each field is whole; the fields need not be of the same moment.
    pub fn load(&self, slot: u32) -> Result<OwnerEntry, KernelError> {
        let VipRecord { word, pending, .. } = self.record(slot)?;
        let AsideRecord { damped_until, reported } = match self.aside.entry(slot)? {
            Some(words) => transmute!(load::<{ size_of::<AsideRecord>() / 8 }>(words)),
            None => AsideRecord::default(),
        };
        Ok(OwnerEntry { word, pending, damped_until, reported })
    }

    fn record(&self, slot: u32) -> Result<VipRecord, KernelError> {
        Ok(match self.vips.entry(slot)? {
            Some(words) => transmute!(load::<{ size_of::<VipRecord>() / 8 }>(words)),
            None => VipRecord::default(),
        })
    }

    /// The words of a slot's record, which is made if it does not exist.
    fn made(&self, slot: u32) -> Result<&[AtomicU64], KernelError> {
        self.aside.entry_made(slot)?;
        self.vips.entry_made(slot)
    }

    /// What the state says of a slot.
    pub fn get(&self, slot: u32) -> Result<VipEntry, KernelError> {
        Ok(self.record(slot)?.vip)
    }

    /// Writes what the state says of a slot and keeps its EIP.
    pub fn set(&self, slot: u32, vip: VipEntry) -> Result<(), KernelError> {
        let words = self.made(slot)?;
        let eip = words.get(EIP).map_or(0, |word| word.load(Ordering::Acquire));
        let values: [u64; VIP_WORDS] = transmute!(VipEntry { eip: transmute!(eip), ..vip });
        store(words.get(VIP..).unwrap_or_default(), &values);
        Ok(())
    }

    /// Empties what the state says of a slot; the owner's word stays, with its epoch.
    pub fn clear(&self, slot: u32) -> Result<(), KernelError> {
        if let Some(words) = self.vips.entry(slot)? {
            store(words.get(VIP..).unwrap_or_default(), &[0; VIP_WORDS]);
        }
        Ok(())
    }

    /// Sets the EIP that the VIP leaves as, by one store.
    pub fn set_eip(&self, slot: u32, eip: SourceEip) -> Result<(), KernelError> {
        if let Some(word) = self.made(slot)?.get(EIP) {
            word.store(transmute!(eip), Ordering::Release);
        }
        Ok(())
    }

    /// Writes what claims change of a slot, whatever it was: for tables that no program works with at the moment.
    pub fn restore(&self, slot: u32, owner: OwnerEntry) -> Result<(), KernelError> {
        let OwnerEntry { word, pending, damped_until, reported } = owner;
        let aside: [u64; size_of::<AsideRecord>() / 8] = transmute!(AsideRecord { damped_until, reported });
        store(self.aside.entry_made(slot)?, &aside);
        store(self.made(slot)?, &[word.0, pending.0]);
        Ok(())
    }

    /// Replaces a slot's word if it is still `old`; tells whether it was.
    pub fn swap_word(&self, slot: u32, old: OwnerWord, new: OwnerWord) -> Result<bool, KernelError> {
        Ok(swap(self.made(slot)?.get(WORD), old.0, new.0))
    }

    /// Replaces a slot's waiting claim if it is still `old`; tells whether it was.
    pub fn swap_pending(&self, slot: u32, old: Pending, new: Pending) -> Result<bool, KernelError> {
        Ok(swap(self.made(slot)?.get(PENDING), old.0, new.0))
    }

    /// Sets until when a slot's bucket of moves is used up, in nanoseconds since boot.
    pub fn damp_until(&self, slot: u32, until: u64) -> Result<(), KernelError> {
        if let Some(word) = self.aside.entry_made(slot)?.get(DAMPED_UNTIL) {
            word.store(until, Ordering::Release);
        }
        Ok(())
    }

    /// Traffic of a VIP that goes one way.
    pub fn traffic(&self, slot: u32, way: Way) -> Result<Traffic, KernelError> {
        let AsideTraffic { eip_out, inside, onward } = self.aside.counted(slot)?;
        Ok(match way {
            Way::Eip => {
                let Count { packets, bytes } = self.vips.counted(slot)?;
                Traffic {
                    packets_in: packets,
                    bytes_in: bytes,
                    packets_out: eip_out.packets,
                    bytes_out: eip_out.bytes,
                }
            }
            Way::Inside => inside,
            Way::Onward => {
                let Count { packets, bytes } = onward;
                Traffic { packets_in: packets, bytes_in: bytes, ..Traffic::default() }
            }
        })
    }

    /// Traffic of a VIP that this host passed on, from outside and inside together, without what another host sent here by mistake.
    pub fn all_traffic(&self, slot: u32) -> Result<Traffic, KernelError> {
        Ok(self.traffic(slot, Way::Eip)?.plus(self.traffic(slot, Way::Inside)?))
    }

    /// Sets the traffic that goes one way to zero.
    pub fn clear_traffic(&self, slot: u32, way: Way) -> Result<(), KernelError> {
        let (eip_out, inside) = (offset_of!(AsideTraffic, eip_out), offset_of!(AsideTraffic, inside));
        let onward = offset_of!(AsideTraffic, onward);
        match way {
            Way::Eip => {
                self.vips.clear_counters(slot, 0..size_of::<Count>())?;
                self.aside.clear_counters(slot, eip_out..eip_out + size_of::<Count>())
            }
            Way::Inside => self.aside.clear_counters(slot, inside..inside + size_of::<Traffic>()),
            Way::Onward => self.aside.clear_counters(slot, onward..onward + size_of::<Count>()),
        }
    }
}

fn swap(word: Option<&AtomicU64>, old: u64, new: u64) -> bool {
    word.is_some_and(|word| word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).is_ok())
}
