//! The programs' tables as the agent sees them: typed, and shared between threads.
//!
//! Every operation is one system call on one entry, so the programs see each change whole (hash tables exchange entries,
//! arrays copy: an entry of an array that a program reads at that moment may be half old, half new, which is why the
//! agent makes an array's entry reachable only after it is written). A table lists its entries from a list of keys taken
//! before: entries that vanish meanwhile are left out.

mod array;
mod devices;
mod hash;
mod index;
mod pages;
mod per_cpu;
mod ports;
pub(in crate::kernel) mod records;
mod trie;
mod vips;

use std::path::Path;

use aya::{
    Ebpf, Pod,
    maps::{Map, MapData, MapError},
};
use vip_common::{
    tables::{
        Advert, Config, EipNetwork, Grant, GrantKey, HostEntry, MacKey, Members, Meter, Move, NextHop,
        PortEntry, RouteEntry, SubnetEntry, VniAddress, VniEntry, names,
    },
    wire::Ipv4,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

pub use self::{
    array::ArrayTable,
    devices::DeviceTable,
    hash::HashTable,
    index::{AddressIndex, Change},
    per_cpu::{PerCpuTable, Total},
    ports::PortTable,
    trie::{TrieKey, TrieTable},
    vips::VipTable,
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
    /// EIP, and address of a VPC → what it is.
    pub index: AddressIndex,
    /// MAC of a VPC → port index.
    pub macs: HashTable<MacKey, u32>,
    /// Port and VIP slot → rights.
    pub grants: HashTable<GrantKey, Grant>,
    /// VIP slot → VIP, owner, traffic.
    pub vips: VipTable,
    /// VIP slot × moves per VIP + epoch modulo it → move.
    pub moves: ArrayTable<Move>,
    /// Port and VIP slot → what the port advertises.
    pub adverts: HashTable<GrantKey, Advert>,
    /// VIP slot → ports that may own it.
    pub members: ArrayTable<Members>,
    /// Port index → port, traffic of its EIP.
    pub ports: PortTable,
    /// Port index → interface that takes XDP frames.
    pub port_devs: DeviceTable,
    /// Interface → port index.
    pub ifports: HashTable<u32, u32>,
    /// Prefix of a VPC → subnet.
    pub subnets: TrieTable<VniAddress, SubnetEntry>,
    /// Prefix → where this host's route leads.
    pub routes: TrieTable<Ipv4, RouteEntry>,
    /// Host index → the way to its VTEP.
    pub hosts: ArrayTable<HostEntry>,
    /// VTEP → host index.
    pub vteps: HashTable<Ipv4, u32>,
    /// VNI → root page of a VPC whose frames travel between hosts.
    pub vnis: HashTable<u32, VniEntry>,
    /// Next hop → its MAC.
    pub nexthops: HashTable<Ipv4, NextHop>,
    /// EIP network index → network.
    pub networks: ArrayTable<EipNetwork>,
    /// Drop reason → packets.
    pub drops: PerCpuTable<u64>,
    /// Meter class → events lost.
    pub meters: PerCpuTable<Meter>,
    /// Index 0 → packets lost after the verdict.
    pub xmit_errors: PerCpuTable<u64>,
}

/// What of the sizes of the tables their maps do not tell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Port indexes, the unused first one included.
    pub(super) ports: u32,
    /// VIP slots.
    pub(super) vips: u32,
    /// VPCs that must be able to have a root page.
    pub(super) vpcs: u32,
    /// CPUs that have counters.
    pub(super) cpus: u32,
}

impl Tables {
    /// The tables of a loaded object, which gives them away.
    pub(super) fn take(ebpf: &mut Ebpf, sizes: Sizes) -> Result<Self, KernelError> {
        Self::build(sizes, |name| ebpf.take_map(name).ok_or(KernelError::ObjectLacks { kind: "table", name }))
    }

    /// The tables pinned in a directory. Their shapes are compared with those of the types only as far as sizes go.
    pub(super) fn open(directory: &Path) -> Result<Self, KernelError> {
        let sizes = Sizes { ports: u32::MAX, vips: u32::MAX, vpcs: 0, cpus: cpus()? };
        Self::build(sizes, |name| {
            MapData::from_pin(directory.join(name))
                .and_then(Map::from_map_data)
                .map_err(failed("open the pinned", name))
        })
    }

    fn build(
        sizes: Sizes,
        mut map: impl FnMut(&'static str) -> Result<Map, KernelError>,
    ) -> Result<Self, KernelError> {
        let subnets: TrieTable<VniAddress, SubnetEntry> =
            TrieTable::new(names::SUBNETS, map(names::SUBNETS)?)?;
        let ports = PortTable::open(map(names::PORTS)?, sizes.ports, sizes.cpus)?;
        let vnis: HashTable<u32, VniEntry> = HashTable::new(names::VNIS, map(names::VNIS)?)?;
        let mut roots = Vec::new();
        roots.extend(vnis.entries()?.into_iter().map(|(vni, VniEntry { root })| (vni, root)));
        for (_, _, SubnetEntry { vni, root, .. }) in subnets.entries()? {
            roots.push((vni, root));
        }
        for index in ports.present() {
            let PortEntry { vni, root, .. } = ports.get(index)?;
            if vni != 0 && roots.last() != Some(&(vni, root)) {
                roots.push((vni, root));
            }
        }
        Ok(Self {
            config: ArrayTable::new(names::CONFIG, map(names::CONFIG)?)?,
            index: AddressIndex::open(map(names::NODES)?, map(names::SCATTERED)?, roots, sizes.vpcs)?,
            macs: HashTable::new(names::MACS, map(names::MACS)?)?,
            grants: HashTable::new(names::GRANTS, map(names::GRANTS)?)?,
            vips: VipTable::open(map(names::VIPS)?, map(names::VIPS_ASIDE)?, sizes.vips, sizes.cpus)?,
            moves: ArrayTable::new(names::MOVES, map(names::MOVES)?)?,
            adverts: HashTable::new(names::ADVERTS, map(names::ADVERTS)?)?,
            members: ArrayTable::new(names::MEMBERS, map(names::MEMBERS)?)?,
            ports,
            port_devs: DeviceTable::new(names::PORT_DEVS, map(names::PORT_DEVS)?)?,
            ifports: HashTable::new(names::IFPORTS, map(names::IFPORTS)?)?,
            subnets,
            routes: TrieTable::new(names::ROUTES, map(names::ROUTES)?)?,
            hosts: ArrayTable::new(names::HOSTS, map(names::HOSTS)?)?,
            vteps: HashTable::new(names::VTEPS, map(names::VTEPS)?)?,
            vnis,
            nexthops: HashTable::new(names::NEXTHOPS, map(names::NEXTHOPS)?)?,
            networks: ArrayTable::new(names::NETWORKS, map(names::NETWORKS)?)?,
            drops: PerCpuTable::new(names::DROPS, map(names::DROPS)?)?,
            meters: PerCpuTable::new(names::METERS, map(names::METERS)?)?,
            xmit_errors: PerCpuTable::new(names::XMIT_ERRORS, map(names::XMIT_ERRORS)?)?,
        })
    }
}

/// CPUs that the machine can have.
pub(super) fn cpus() -> Result<u32, KernelError> {
    let count = aya::util::nr_cpus().map_err(|(_, source)| KernelError::Cpus { source })?;
    u32::try_from(count).map_err(|error| KernelError::Cpus { source: std::io::Error::other(error) })
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
