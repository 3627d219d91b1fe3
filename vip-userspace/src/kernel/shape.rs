//! The shape of a table: what must be equal before a pinned one is used again.
//!
//! aya takes a pinned map as it is, whatever it is, so the comparison is made here, before anything is loaded.

use std::{collections::BTreeMap, fmt, path::Path};

use aya::maps::{MapInfo, MapType};
use aya_obj::generated::{BPF_F_RDONLY_PROG, bpf_map_type};
use vip_common::tables::{
    HostEntry, MOVES_PER_VIP, names,
    record::{Ports, Shape as _, Vips, VipsAside},
};

use super::{
    KernelError,
    tables::{Sizes, cpus},
};

/// Every table of the object that is pinned.
pub(super) const TABLES: [&str; 25] = [
    names::CONFIG,
    names::NODES,
    names::SCATTERED,
    names::MACS,
    names::GRANTS,
    names::VIPS,
    names::VIPS_ASIDE,
    names::MOVES,
    names::ADVERTS,
    names::MEMBERS,
    names::PORTS,
    names::PORT_DEVS,
    names::IFPORTS,
    names::SUBNETS,
    names::ROUTES,
    names::HOSTS,
    names::VTEPS,
    names::VNIS,
    names::NEXTHOPS,
    names::NETWORKS,
    names::DROPS,
    names::METERS,
    names::EVENTS,
    names::XMIT_ERRORS,
    names::RESTS,
];

/// A port index has 20 bits in a VIP's word, and index 0 is no port.
const MOST_PORTS: u32 = (1 << 20) - 1;

/// A VIP slot times the moves of a VIP is an index of MOVES.
const MOST_VIPS: u32 = 1 << 24;

/// EIPs and subnets: a bound that keeps every size computed from them in 32 bits.
const MOST_OTHERS: u32 = 1 << 24;

/// Entries of ROUTES and of NEXTHOPS: a host's own routes and neighbours.
const ROUTES: u32 = 1 << 16;

/// Rights per VIP that GRANTS has room for on average, beside one for each port, and its bound.
const GRANTS_EACH: u32 = 10;
const MOST_GRANTS: u32 = 1 << 22;

/// Pages of the index on the smallest host, and addresses that there is another page for.
const LEAST_PAGES: u32 = 64;
const ADDRESSES_PER_PAGE: u32 = 64;

/// Prefixes per subnet that SUBNETS has room for: its own VPC's and those of peers.
const PREFIXES_PER_SUBNET: u32 = 8;

/// How much the tables have room for. Tables of another capacity are not taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Ports of all VPCs, at most 2²⁰ − 1.
    pub ports: u32,
    /// VIPs of all VPCs, at most 2²⁴.
    pub vips: u32,
    /// EIPs, at most 2²⁴.
    pub eips: u32,
    /// Subnets of all VPCs, at most 2²⁴.
    pub subnets: u32,
    /// Hosts, this one included, at most 2¹⁶ − 1.
    pub hosts: u32,
}

impl Capacity {
    /// What of it the maps do not tell.
    pub(super) fn sizes(&self) -> Result<Sizes, KernelError> {
        Ok(Sizes { ports: self.ports + 1, vips: self.vips.max(1), vpcs: self.subnets, cpus: cpus()? })
    }

    /// Entries of the tables whose size depends on it; the object fixes those of the others.
    pub(super) fn entries(&self) -> Result<BTreeMap<&'static str, u32>, KernelError> {
        let Self { ports, vips, eips, subnets, hosts } = *self;
        for (what, asked, most) in [
            ("ports", ports, MOST_PORTS),
            ("VIPs", vips, MOST_VIPS),
            ("EIPs", eips, MOST_OTHERS),
            ("subnets", subnets, MOST_OTHERS),
            ("hosts", hosts, HostEntry::MOST),
        ] {
            if asked > most {
                return Err(KernelError::Capacity { what, asked, most });
            }
        }
        let sizes = [
            // Pages for addresses that share theirs with a quarter of their neighbours; without pages, all are scattered.
            (names::NODES, 1 + subnets + LEAST_PAGES + (eips + ports + vips) / ADDRESSES_PER_PAGE),
            (names::SCATTERED, eips + ports + vips + subnets),
            (names::MACS, ports),
            (names::GRANTS, vips.saturating_mul(GRANTS_EACH).saturating_add(ports).min(MOST_GRANTS)),
            (names::ADVERTS, vips.saturating_mul(GRANTS_EACH).saturating_add(ports).min(MOST_GRANTS)),
            (names::VIPS, Vips::chunks(vips)),
            (names::VIPS_ASIDE, VipsAside::chunks(vips)),
            (names::MOVES, vips * MOVES_PER_VIP),
            (names::MEMBERS, vips),
            (names::PORTS, Ports::chunks(ports + 1)),
            (names::PORT_DEVS, ports + 1),
            (names::IFPORTS, ports),
            (names::SUBNETS, subnets * PREFIXES_PER_SUBNET),
            (names::ROUTES, ROUTES),
            (names::HOSTS, hosts + 1),
            (names::VTEPS, hosts),
            (names::VNIS, subnets),
            (names::NEXTHOPS, ROUTES),
        ];
        // The kernel makes no table without entries.
        Ok(sizes.into_iter().map(|(name, entries)| (name, entries.max(1))).collect())
    }
}

/// What makes two tables interchangeable, as far as the kernel knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapShape {
    kind: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
    flags: u32,
}

impl MapShape {
    /// Entries.
    pub(super) fn entries(&self) -> u32 {
        self.entries
    }

    /// The shape that the loader will give a table of the object.
    fn of_object(name: &str, map: &aya_obj::Map, entries: Option<u32>) -> Self {
        // The object declares an array, because aya makes no arrays of maps.
        let is_chunked = [names::PORTS, names::VIPS, names::VIPS_ASIDE].contains(&name);
        let kind = if is_chunked { bpf_map_type::BPF_MAP_TYPE_ARRAY_OF_MAPS as u32 } else { map.map_type() };
        let is_device_map = kind == bpf_map_type::BPF_MAP_TYPE_DEVMAP as u32;
        // Device maps have room for a program beside each interface since Linux 5.8, and aya uses it where it can.
        let value_size = match (is_device_map, aya::features().devmap_prog_id()) {
            (true, true) => 8,
            (true, false) => 4,
            (false, _) => map.value_size(),
        };
        Self {
            kind,
            key_size: map.key_size(),
            value_size,
            entries: entries.unwrap_or_else(|| map.max_entries()),
            flags: map.map_flags(),
        }
    }

    /// The shape of a pinned table; `None` if there is no such pin.
    pub(super) fn of_pin(table: &'static str, path: &Path) -> Result<Option<Self>, KernelError> {
        match path.try_exists() {
            Ok(false) => return Ok(None),
            Ok(true) => {}
            Err(source) => {
                return Err(KernelError::Pin { action: "look for", path: path.to_owned(), source });
            }
        }
        let failed =
            |source| KernelError::Table { operation: "inspect the pinned", table, source: Box::new(source) };
        let info = MapInfo::from_pin(path).map_err(failed)?;
        let kind = info.map_type().map_err(failed)? as u32;
        let is_device_map = kind == bpf_map_type::BPF_MAP_TYPE_DEVMAP as u32;
        // The kernel adds this flag to every device map (kernel/bpf/devmap.c, dev_map_init_map).
        let flags = if is_device_map { info.map_flags() & !BPF_F_RDONLY_PROG } else { info.map_flags() };
        Ok(Some(Self {
            kind,
            key_size: info.key_size(),
            value_size: info.value_size(),
            entries: info.max_entries(),
            flags,
        }))
    }
}

impl fmt::Display for MapShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, key_size, value_size, entries, flags } = *self;
        match bpf_map_type::try_from(kind).ok().and_then(|kind| MapType::try_from(kind).ok()) {
            Some(kind) => write!(f, "{kind:?}")?,
            None => write!(f, "type {kind}")?,
        }
        write!(f, " of {entries} entries, {key_size}-byte keys, {value_size}-byte values, flags {flags:#x}")
    }
}

/// The shapes of all pinned tables as this object and this capacity demand them.
pub(super) fn expected(
    object: &aya_obj::Object,
    capacity: &Capacity,
) -> Result<BTreeMap<&'static str, MapShape>, KernelError> {
    let entries = capacity.entries()?;
    TABLES
        .into_iter()
        .map(|name| {
            let map = object.maps.get(name).ok_or(KernelError::ObjectLacks { kind: "table", name })?;
            Ok((name, MapShape::of_object(name, map, entries.get(name).copied())))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: Capacity = Capacity { ports: 8, vips: 4, eips: 3, subnets: 2, hosts: 5 };

    #[test]
    fn sizes_follow_the_capacity() {
        let entries = CAPACITY.entries().expect("a small capacity");
        for (table, expected) in [
            ("PORTS", 1),
            ("PORT_DEVS", 9),
            ("MOVES", 32),
            ("SCATTERED", 17),
            ("NODES", 67),
            ("GRANTS", 48),
            ("HOSTS", 6),
            ("VTEPS", 5),
            ("VNIS", 2),
        ] {
            assert_eq!(entries.get(table), Some(&expected), "{table}");
        }
        assert_eq!(entries.get("DROPS"), None, "the object fixes it");
    }

    #[test]
    fn no_table_is_without_entries() {
        let none = Capacity { ports: 0, vips: 0, eips: 0, subnets: 0, hosts: 0 };
        assert!(none.entries().expect("an empty host").values().all(|entries| *entries > 0));
    }

    #[test]
    fn more_than_an_index_can_name_is_refused() {
        let most = Capacity {
            ports: MOST_PORTS,
            vips: MOST_VIPS,
            eips: MOST_OTHERS,
            subnets: MOST_OTHERS,
            hosts: HostEntry::MOST,
        };
        most.entries().expect("the bounds themselves are possible");
        let beyond = Capacity { ports: MOST_PORTS + 1, ..CAPACITY };
        let error = beyond.entries().expect_err("port indexes have 20 bits");
        assert_eq!(
            error.to_string(),
            "a capacity of 1048576 ports was asked for; at most 1048575 are possible"
        );
    }
}
