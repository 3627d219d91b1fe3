//! Per-CPU arrays: counters.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::maps::{Map, MapData, PerCpuArray, PerCpuValues};
use vip_common::tables::{Meter, MeterClass, Traffic};

use super::{Entry, KernelError, Raw, array::out_of_range, failed};

type Inner<V> = PerCpuArray<MapData, Raw<V>>;

/// An array with one value per index and CPU.
pub struct PerCpuTable<V: Entry> {
    name: &'static str,
    len: u32,
    /// aya wants a mutable reference for writing; the kernel itself needs none.
    map: Mutex<Inner<V>>,
}

/// Counters that add up over CPUs. They wrap like the programs' own.
pub trait Total: Entry + Default {
    /// Both together.
    #[must_use]
    fn plus(self, other: Self) -> Self;
}

impl Total for u64 {
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
}

impl Total for Traffic {
    fn plus(self, other: Self) -> Self {
        let Self { packets_in, bytes_in, packets_out, bytes_out } = other;
        Self {
            packets_in: self.packets_in.wrapping_add(packets_in),
            bytes_in: self.bytes_in.wrapping_add(bytes_in),
            packets_out: self.packets_out.wrapping_add(packets_out),
            bytes_out: self.bytes_out.wrapping_add(bytes_out),
        }
    }
}

impl<V: Entry> PerCpuTable<V> {
    pub(in crate::kernel) fn new(name: &'static str, map: Map) -> Result<Self, KernelError> {
        let map: Inner<V> = map.try_into().map_err(failed("use", name))?;
        Ok(Self { name, len: map.len(), map: Mutex::new(map) })
    }

    /// Number of indexes.
    #[expect(clippy::len_without_is_empty, reason = "an array always has entries")]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// The values at an index, one per possible CPU.
    pub fn values(&self, index: u32) -> Result<Vec<V>, KernelError> {
        let values = self.lock().get(&index, 0).map_err(out_of_range(self.name, "read"))?;
        Ok(values.iter().map(|Raw(value)| *value).collect())
    }

    /// Sets the values of all CPUs at an index to zero. What programs count at that moment may survive or be lost.
    pub fn clear(&self, index: u32) -> Result<(), KernelError> {
        let zeroes = vec![Raw(V::new_zeroed()); self.values(index)?.len()];
        let zeroes =
            PerCpuValues::try_from(zeroes).map_err(|error| failed("write", self.name)(error.into()))?;
        self.lock().set(index, zeroes, 0).map_err(out_of_range(self.name, "write"))
    }

    fn lock(&self) -> MutexGuard<'_, Inner<V>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V: Total> PerCpuTable<V> {
    /// The values of all CPUs at an index together.
    pub fn sum(&self, index: u32) -> Result<V, KernelError> {
        Ok(self.values(index)?.into_iter().fold(V::default(), V::plus))
    }
}

impl PerCpuTable<Meter> {
    /// Events of a class that did not reach the agent.
    pub fn lost(&self, class: MeterClass) -> Result<u64, KernelError> {
        Ok(self.values(class as u32)?.iter().fold(0, |sum, meter| sum.wrapping_add(meter.lost)))
    }
}

impl<V: Entry> fmt::Debug for PerCpuTable<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PerCpuTable({}, {})", self.name, self.len)
    }
}
