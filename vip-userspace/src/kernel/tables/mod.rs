//! The programs' tables as the agent sees them: typed, and shared between threads.
//!
//! Every operation is one system call on one entry, so the programs see each change whole (hash tables exchange entries,
//! arrays copy: an entry of an array that a program reads at that moment may be half old, half new, which is why the
//! agent makes an array's entry reachable only after it is written). A table lists its entries from a list of keys taken
//! before: entries that vanish meanwhile are left out.

mod array;
mod devices;
mod hash;
mod owners;
mod per_cpu;
mod trie;

use std::path::Path;

use aya::{
    Ebpf, Pod,
    maps::{Map, MapData, MapError},
};
use vip_common::{
    tables::{
        AddressEntry, Config, EipEntry, EipNetwork, Grant, GrantKey, MacKey, Members, Meter, Move, NextHop,
        PortEntry, RouteEntry, SubnetEntry, Traffic, VniAddress, names,
    },
    wire::Ipv4,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

pub use self::{
    array::ArrayTable,
    devices::DeviceTable,
    hash::HashTable,
    owners::OwnerTable,
    per_cpu::{PerCpuTable, Total},
    trie::{TrieKey, TrieTable},
};
use super::KernelError;

/// A key or value: bytes without padding, any of which make a value.
pub trait Entry: FromBytes + IntoBytes + Immutable + Copy + Send + 'static {}

impl<T: FromBytes + IntoBytes + Immutable + Copy + Send + 'static> Entry for T {}

/// A key or value on its way through aya, which knows nothing of zerocopy.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Raw<T>(T);

// SAFETY: aya reads and writes such values as bytes. zerocopy's derives prove that T has no padding and no interior
// mutability (IntoBytes, Immutable) and that all bytes are valid (FromBytes); Raw adds nothing to T.
unsafe impl<T: Entry> Pod for Raw<T> {}

/// All tables.
#[derive(Debug)]
pub struct Tables {
    /// The host.
    pub config: ArrayTable<Config>,
    /// EIP → where packets to it go.
    pub eips: HashTable<Ipv4, EipEntry>,
    /// Address of a VPC → what it is.
    pub addrs: HashTable<VniAddress, AddressEntry>,
    /// MAC of a VPC → port index.
    pub macs: HashTable<MacKey, u32>,
    /// Port and VIP slot → rights.
    pub grants: HashTable<GrantKey, Grant>,
    /// VIP slot → owner.
    pub owners: OwnerTable,
    /// VIP slot × moves per VIP + epoch modulo it → move.
    pub moves: ArrayTable<Move>,
    /// VIP slot → ports that may own it.
    pub members: ArrayTable<Members>,
    /// Port index → port.
    pub ports: ArrayTable<PortEntry>,
    /// Port index → interface that takes XDP frames.
    pub port_devs: DeviceTable,
    /// Interface → port index.
    pub ifports: HashTable<u32, u32>,
    /// Prefix of a VPC → subnet.
    pub subnets: TrieTable<VniAddress, SubnetEntry>,
    /// Prefix → where this host's route leads.
    pub routes: TrieTable<Ipv4, RouteEntry>,
    /// Next hop → its MAC.
    pub nexthops: HashTable<Ipv4, NextHop>,
    /// EIP network index → network.
    pub networks: ArrayTable<EipNetwork>,
    /// Drop reason → packets.
    pub drops: PerCpuTable<u64>,
    /// EIP index → traffic.
    pub eip_traffic: PerCpuTable<Traffic>,
    /// VIP slot → traffic.
    pub vip_traffic: PerCpuTable<Traffic>,
    /// Meter class → events lost.
    pub meters: PerCpuTable<Meter>,
    /// Index 0 → packets lost after the verdict.
    pub xmit_errors: PerCpuTable<u64>,
}

impl Tables {
    /// The tables of a loaded object, which gives them away.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Self::build(|name| ebpf.take_map(name).ok_or(KernelError::ObjectLacks { kind: "table", name }))
    }

    /// The tables pinned in a directory. Their shapes are compared with those of the types only as far as sizes go.
    pub(super) fn open(directory: &Path) -> Result<Self, KernelError> {
        Self::build(|name| {
            MapData::from_pin(directory.join(name))
                .and_then(Map::from_map_data)
                .map_err(failed("open the pinned", name))
        })
    }

    fn build(mut map: impl FnMut(&'static str) -> Result<Map, KernelError>) -> Result<Self, KernelError> {
        Ok(Self {
            config: ArrayTable::new(names::CONFIG, map(names::CONFIG)?)?,
            eips: HashTable::new(names::EIPS, map(names::EIPS)?)?,
            addrs: HashTable::new(names::ADDRS, map(names::ADDRS)?)?,
            macs: HashTable::new(names::MACS, map(names::MACS)?)?,
            grants: HashTable::new(names::GRANTS, map(names::GRANTS)?)?,
            owners: OwnerTable::new(names::OWNERS, map(names::OWNERS)?)?,
            moves: ArrayTable::new(names::MOVES, map(names::MOVES)?)?,
            members: ArrayTable::new(names::MEMBERS, map(names::MEMBERS)?)?,
            ports: ArrayTable::new(names::PORTS, map(names::PORTS)?)?,
            port_devs: DeviceTable::new(names::PORT_DEVS, map(names::PORT_DEVS)?)?,
            ifports: HashTable::new(names::IFPORTS, map(names::IFPORTS)?)?,
            subnets: TrieTable::new(names::SUBNETS, map(names::SUBNETS)?)?,
            routes: TrieTable::new(names::ROUTES, map(names::ROUTES)?)?,
            nexthops: HashTable::new(names::NEXTHOPS, map(names::NEXTHOPS)?)?,
            networks: ArrayTable::new(names::NETWORKS, map(names::NETWORKS)?)?,
            drops: PerCpuTable::new(names::DROPS, map(names::DROPS)?)?,
            eip_traffic: PerCpuTable::new(names::EIP_TRAFFIC, map(names::EIP_TRAFFIC)?)?,
            vip_traffic: PerCpuTable::new(names::VIP_TRAFFIC, map(names::VIP_TRAFFIC)?)?,
            meters: PerCpuTable::new(names::METERS, map(names::METERS)?)?,
            xmit_errors: PerCpuTable::new(names::XMIT_ERRORS, map(names::XMIT_ERRORS)?)?,
        })
    }
}

/// Makes the error of an operation on a table.
fn failed(operation: &'static str, table: &'static str) -> impl FnOnce(MapError) -> KernelError {
    move |source| KernelError::Table { operation, table, source: Box::new(source) }
}

/// The errno with which the kernel refused, if it did.
fn errno(error: &MapError) -> Option<i32> {
    match error {
        MapError::SyscallError(error) => error.io_error.raw_os_error(),
        MapError::IoError(error) => error.raw_os_error(),
        _ => None,
    }
}

/// Makes the error of an insertion: without room, hash tables say E2BIG, those that allocate entries one by one ENOMEM, and
/// tries ENOSPC.
fn not_inserted(table: &'static str, capacity: u32) -> impl FnOnce(MapError) -> KernelError {
    move |source| match errno(&source) {
        Some(libc::E2BIG | libc::ENOMEM | libc::ENOSPC) => KernelError::TableFull { table, capacity },
        _ => failed("write", table)(source),
    }
}

/// An entry, or its absence.
fn found<T>(result: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(None),
        Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}
