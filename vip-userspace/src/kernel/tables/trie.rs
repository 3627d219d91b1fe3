//! Longest-prefix tries.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::maps::{LpmTrie, Map, MapData, lpm_trie::Key};
use vip_common::{tables::VniAddress, wire::Ipv4};

use super::{Entry, KernelError, Raw, failed, found, hash::capacity, not_inserted};

/// What a trie looks up: an address, perhaps after bits that must match whole.
pub trait TrieKey: Copy + Eq {
    /// The bits that the kernel compares, first one first.
    type Bits: Entry;

    /// Bits before the address.
    const BEFORE_ADDRESS: u32;

    /// As the kernel compares it.
    fn bits(self) -> Self::Bits;

    /// From what the kernel compares.
    fn of_bits(bits: Self::Bits) -> Self;
}

impl TrieKey for Ipv4 {
    type Bits = u32;

    const BEFORE_ADDRESS: u32 = 0;

    fn bits(self) -> u32 {
        self.raw()
    }

    fn of_bits(bits: u32) -> Self {
        Self::new(bits.to_ne_bytes())
    }
}

impl TrieKey for VniAddress {
    type Bits = [u32; 2];

    const BEFORE_ADDRESS: u32 = 32;

    fn bits(self) -> [u32; 2] {
        self.trie_key()
    }

    fn of_bits([vni, address]: [u32; 2]) -> Self {
        Self { vni: u32::from_be(vni), address: Ipv4::of_bits(address) }
    }
}

/// A longest-prefix trie: prefix → value. Prefix lengths count the bits of the address alone.
pub struct TrieTable<K: TrieKey, V: Entry> {
    name: &'static str,
    capacity: u32,
    /// aya wants a mutable reference for writing; the kernel itself needs none.
    map: Mutex<Inner<K, V>>,
}

type Inner<K, V> = LpmTrie<MapData, Raw<<K as TrieKey>::Bits>, Raw<V>>;

impl<K: TrieKey, V: Entry> TrieTable<K, V> {
    pub(super) fn new(name: &'static str, map: Map) -> Result<Self, KernelError> {
        let capacity = capacity(name, &map)?;
        let map = Mutex::new(map.try_into().map_err(failed("use", name))?);
        Ok(Self { name, capacity, map })
    }

    /// Most entries that it can have.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The value of the longest prefix that covers an address.
    pub fn covering(&self, address: K) -> Result<Option<V>, KernelError> {
        let value = found(self.lock().get(&key(address, 32), 0)).map_err(failed("read", self.name))?;
        Ok(value.map(|Raw(value)| value))
    }

    /// Adds or replaces the entry of a prefix of `len` bits, at most 32. Without room for another one:
    /// [`KernelError::TableFull`], and nothing has changed.
    pub fn insert(&self, prefix: K, len: u8, value: V) -> Result<(), KernelError> {
        self.lock().insert(&key(prefix, len), Raw(value), 0).map_err(not_inserted(self.name, self.capacity))
    }

    /// Removes the entry of exactly this prefix; tells whether there was one.
    pub fn remove(&self, prefix: K, len: u8) -> Result<bool, KernelError> {
        let removed =
            found(self.lock().remove(&key(prefix, len))).map_err(failed("remove an entry of", self.name))?;
        Ok(removed.is_some())
    }

    /// All entries: prefix, its length, value.
    pub fn entries(&self) -> Result<Vec<(K, u8, V)>, KernelError> {
        let map = self.lock();
        let keys: Vec<_> = map.keys().collect::<Result<_, _>>().map_err(failed("list", self.name))?;
        let mut entries = Vec::with_capacity(keys.len());
        for key in keys {
            // A look-up finds the longest prefix that is not longer than the one asked for: that prefix itself.
            if let Some(Raw(value)) = found(map.get(&key, 0)).map_err(failed("read", self.name))? {
                let Raw(bits) = key.data();
                let len = key.prefix_len().saturating_sub(K::BEFORE_ADDRESS);
                entries.push((K::of_bits(bits), u8::try_from(len).unwrap_or(u8::MAX), value));
            }
        }
        Ok(entries)
    }

    fn lock(&self) -> MutexGuard<'_, Inner<K, V>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key<K: TrieKey>(prefix: K, len: u8) -> Key<Raw<K::Bits>> {
    Key::new(K::BEFORE_ADDRESS + u32::from(len), Raw(prefix.bits()))
}

impl<K: TrieKey, V: Entry> fmt::Debug for TrieTable<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrieTable({}, {})", self.name, self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_lead_back_to_the_key() {
        let address = Ipv4::new([192, 168, 4, 1]);
        assert_eq!(Ipv4::of_bits(address.bits()), address);
        let key = VniAddress { vni: 4001, address };
        assert_eq!(VniAddress::of_bits(key.bits()), key);
    }
}
