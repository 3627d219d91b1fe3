//! Device maps.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::maps::{DevMap, Map, MapData, xdp::XdpMapError};

use super::{KernelError, array::out_of_range, failed, found};

/// A device map: index → interface that XDP may redirect to. The kernel empties an entry when its interface goes.
pub struct DeviceTable {
    name: &'static str,
    len: u32,
    /// aya wants a mutable reference for writing; the kernel itself needs none.
    map: Mutex<DevMap<MapData>>,
}

impl DeviceTable {
    pub(super) fn new(name: &'static str, map: Map) -> Result<Self, KernelError> {
        let map: DevMap<MapData> = map.try_into().map_err(failed("use", name))?;
        Ok(Self { name, len: map.len(), map: Mutex::new(map) })
    }

    /// Number of entries, empty ones included.
    #[expect(clippy::len_without_is_empty, reason = "its size is fixed and never 0")]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// The interface (ifindex) at an index.
    pub fn get(&self, index: u32) -> Result<Option<u32>, KernelError> {
        let device = found(self.lock().get(index, 0)).map_err(out_of_range(self.name, "read"))?;
        Ok(device.map(|device| device.if_index))
    }

    /// Puts an interface (ifindex) at an index. [`KernelError::InterfaceGone`] if this network namespace has none such.
    pub fn set(&self, index: u32, ifindex: u32) -> Result<(), KernelError> {
        self.write(index, ifindex).map_err(|error| match error {
            // dev_map_alloc looks the interface up and says EINVAL when there is none (kernel/bpf/devmap.c).
            KernelError::Table { source, .. } if super::errno(&source) == Some(libc::EINVAL) => {
                KernelError::InterfaceGone { interface: format!("of port {index}"), ifindex }
            }
            error => error,
        })
    }

    /// Empties an index.
    pub fn clear(&self, index: u32) -> Result<(), KernelError> {
        // Deleting is what ifindex 0 means to the kernel; aya has no other way to say it.
        self.write(index, 0)
    }

    fn write(&self, index: u32, ifindex: u32) -> Result<(), KernelError> {
        self.lock().set(index, ifindex, None, 0).map_err(|error| match error {
            XdpMapError::MapError(error) => out_of_range(self.name, "write")(error),
            // Only said when a program is given, and none is.
            XdpMapError::ChainedProgramNotSupported => {
                failed("write", self.name)(std::io::Error::other(error.to_string()).into())
            }
        })
    }

    fn lock(&self) -> MutexGuard<'_, DevMap<MapData>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for DeviceTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceTable({}, {})", self.name, self.len)
    }
}
