//! Hash tables.

use std::{
    fmt,
    os::fd::{AsFd as _, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::maps::{HashMap, Map, MapData};

use super::{Entry, KernelError, Raw, failed, found, not_inserted};
use crate::kernel::syscall;

type Inner<K, V> = HashMap<MapData, Raw<K>, Raw<V>>;

/// A hash table: key → value.
pub struct HashTable<K: Entry, V: Entry> {
    name: &'static str,
    capacity: u32,
    /// The map once more, for what aya does not do.
    fd: OwnedFd,
    /// aya wants a mutable reference for writing; the kernel itself needs none.
    map: Mutex<Inner<K, V>>,
}

impl<K: Entry, V: Entry> HashTable<K, V> {
    pub(super) fn new(name: &'static str, map: Map) -> Result<Self, KernelError> {
        let (capacity, fd) = (capacity(name, &map)?, descriptor(name, &map)?);
        let map = Mutex::new(map.try_into().map_err(failed("use", name))?);
        Ok(Self { name, capacity, fd, map })
    }

    /// Most entries that it can have.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Result<Option<V>, KernelError> {
        let value = found(self.lock().get(&Raw(*key), 0)).map_err(failed("read", self.name))?;
        Ok(value.map(|Raw(value)| value))
    }

    /// Adds or replaces an entry. Without room for another one: [`KernelError::TableFull`], and nothing has changed.
    pub fn insert(&self, key: K, value: V) -> Result<(), KernelError> {
        self.lock().insert(Raw(key), Raw(value), 0).map_err(not_inserted(self.name, self.capacity))
    }

    /// Adds or replaces entries, by one system call where the kernel can (Linux 5.6). After an error some may be in.
    pub fn insert_all(&self, entries: impl IntoIterator<Item = (K, V)>) -> Result<(), KernelError> {
        let (keys, values): (Vec<K>, Vec<V>) = entries.into_iter().unzip();
        let written = syscall::update_batch(&self.fd, &keys, &values);
        match written {
            Ok(()) => Ok(()),
            Err(error) if matches!(error.raw_os_error(), Some(libc::E2BIG | libc::ENOMEM | libc::ENOSPC)) => {
                Err(KernelError::TableFull { table: self.name, capacity: self.capacity })
            }
            Err(error) if syscall::is_unsupported(&error) => {
                keys.into_iter().zip(values).try_for_each(|(key, value)| self.insert(key, value))
            }
            Err(source) => Err(failed("write", self.name)(source.into())),
        }
    }

    /// Removes an entry; tells whether there was one.
    pub fn remove(&self, key: &K) -> Result<bool, KernelError> {
        let removed =
            found(self.lock().remove(&Raw(*key))).map_err(failed("remove an entry of", self.name))?;
        Ok(removed.is_some())
    }

    /// All entries, in no order.
    pub fn entries(&self) -> Result<Vec<(K, V)>, KernelError> {
        let map = self.lock();
        let keys: Vec<_> = map.keys().collect::<Result<_, _>>().map_err(failed("list", self.name))?;
        let mut entries = Vec::with_capacity(keys.len());
        for key in keys {
            if let Some(Raw(value)) = found(map.get(&key, 0)).map_err(failed("read", self.name))? {
                entries.push((key.0, value));
            }
        }
        Ok(entries)
    }

    fn lock(&self) -> MutexGuard<'_, Inner<K, V>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Entry, V: Entry> fmt::Debug for HashTable<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HashTable({}, {})", self.name, self.capacity)
    }
}

fn descriptor(name: &'static str, map: &Map) -> Result<OwnedFd, KernelError> {
    let Map::HashMap(data) = map else { return Err(KernelError::ObjectLacks { kind: "hash table", name }) };
    data.fd().as_fd().try_clone_to_owned().map_err(|error| failed("use", name)(error.into()))
}

/// Entries that the kernel gave a map.
pub(super) fn capacity(name: &'static str, map: &Map) -> Result<u32, KernelError> {
    let (Map::HashMap(data) | Map::LpmTrie(data)) = map else {
        return Err(KernelError::ObjectLacks { kind: "hash table or trie", name });
    };
    Ok(data.info().map_err(failed("inspect", name))?.max_entries())
}
