//! Arrays.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::maps::{Array, Map, MapData, MapError};

use super::{Entry, KernelError, Raw, failed};

type Inner<V> = Array<MapData, Raw<V>>;

/// An array: index → value. All entries exist always, and begin as zeroes.
pub struct ArrayTable<V: Entry> {
    name: &'static str,
    len: u32,
    /// aya wants a mutable reference for writing; the kernel itself needs none.
    map: Mutex<Inner<V>>,
}

impl<V: Entry> ArrayTable<V> {
    pub(in crate::kernel) fn new(name: &'static str, map: Map) -> Result<Self, KernelError> {
        let map: Inner<V> = map.try_into().map_err(failed("use", name))?;
        Ok(Self { name, len: map.len(), map: Mutex::new(map) })
    }

    /// Number of entries.
    #[expect(clippy::len_without_is_empty, reason = "an array always has entries")]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// The entry with an index.
    pub fn get(&self, index: u32) -> Result<V, KernelError> {
        let Raw(value) = self.lock().get(&index, 0).map_err(out_of_range(self.name, "read"))?;
        Ok(value)
    }

    /// Writes the entry with an index.
    pub fn set(&self, index: u32, value: V) -> Result<(), KernelError> {
        self.lock().set(index, Raw(value), 0).map_err(out_of_range(self.name, "write"))
    }

    fn lock(&self) -> MutexGuard<'_, Inner<V>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V: Entry> fmt::Debug for ArrayTable<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArrayTable({}, {})", self.name, self.len)
    }
}

/// Makes the error of an operation on an array's entry.
pub(super) fn out_of_range(
    table: &'static str,
    operation: &'static str,
) -> impl FnOnce(MapError) -> KernelError {
    move |source| match source {
        MapError::OutOfBounds { index, max_entries } => {
            KernelError::OutOfRange { table, index, capacity: max_entries }
        }
        source => failed(operation, table)(source),
    }
}
