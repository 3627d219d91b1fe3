//! What must hold between any two steps.

use std::collections::{BTreeMap, BTreeSet};

use vip_common::{
    tables::{AddressKind, PortFlags},
    wire::Mac,
};
use vip_userspace::plan::{Contents, Step, host_of, interface_of};

pub(crate) fn assert_sound(contents: &Contents, after: &str) {
    let port = |index: &u32| contents.ports.get(index);
    for (&(vni, address), entry) in &contents.addresses {
        match entry.kind {
            AddressKind::Fixed(index) => {
                let port =
                    port(&index).unwrap_or_else(|| panic!("{address} leads to an empty port after {after}"));
                assert_eq!((port.vni, port.address), (vni, address), "after {after}");
            }
            AddressKind::Vip(slot) => {
                let vip =
                    contents.members.get(&slot).unwrap_or_else(|| panic!("{address} is empty after {after}"));
                assert_eq!((vip.vni, vip.address), (vni, address), "after {after}");
            }
            AddressKind::Gateway(_) | AddressKind::ExternalGateway(_) => {}
        }
    }
    for (&(vni, mac), index) in &contents.macs {
        let port = port(index).unwrap_or_else(|| panic!("a MAC leads to an empty port after {after}"));
        assert_eq!((port.vni, port.mac), (vni, Mac::new(mac)), "after {after}");
    }
    for (eip, target) in &contents.eips {
        let place = match (target.as_vip(), target.as_port()) {
            (Some(slot), _) => contents.members.get(&slot).map(|vip| (vip.vni, vip.address)),
            (_, Some(index)) => port(&index).map(|port| (port.vni, port.address)),
            _ => None,
        };
        let address = place.and_then(|place| contents.addresses.get(&place));
        assert_eq!(address.map(|entry| entry.eip.address), Some(*eip), "after {after}");
    }
    for (ifindex, index) in &contents.interfaces {
        assert_eq!(port(index).and_then(interface_of), Some(*ifindex), "after {after}");
    }
    for (index, slot) in contents.grants.keys() {
        let vni = contents.members.get(slot).map(|vip| vip.vni);
        assert!(vni.is_some() && vni == port(index).map(|port| port.vni), "a stray grant after {after}");
    }
    for members in contents.members.values() {
        for index in members.ports.iter().filter(|index| **index != 0) {
            assert_eq!(port(index).map(|port| port.vni), Some(members.vni), "after {after}");
        }
        for host in members.hosts.iter().filter(|host| **host != 0) {
            assert!(contents.hosts.contains_key(&u32::from(*host)), "members on an empty host after {after}");
        }
    }
    for (vtep, index) in &contents.vteps {
        assert_eq!(contents.hosts.get(index), Some(vtep), "after {after}");
    }
    let mut ifindexes = BTreeSet::new();
    for (index, port) in &contents.ports {
        let interface = interface_of(port);
        assert!(
            interface.is_none_or(|interface| ifindexes.insert(interface)),
            "two ports share an interface after {after}"
        );
        let host = host_of(port);
        assert!(
            host.is_none_or(|host| contents.hosts.contains_key(&host)),
            "a port is on an empty host after {after}"
        );
        if port.flags.has(PortFlags::TAKES_XDP) {
            assert_eq!(contents.port_devs.get(index), Some(&port.ifindex), "after {after}");
        }
    }
    let mut eips = BTreeSet::new();
    for entry in contents.addresses.values().filter(|entry| entry.eip.is_some()) {
        assert!(eips.insert(entry.eip.address), "two addresses leave as {} after {after}", entry.eip.address);
    }
}

/// The owners' words, of which only the port matters here.
pub(crate) type Owners = BTreeMap<u32, u32>;

/// Every VIP is owned by a port that may.
pub(crate) fn settle_owners(contents: &Contents, choice: usize) -> Owners {
    let mut candidates: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (&(port, slot), grant) in &contents.grants {
        if grant.rights.may_own() {
            candidates.entry(slot).or_default().push(port);
        }
    }
    candidates
        .into_iter()
        .filter_map(|(slot, ports)| Some((slot, *ports.get(choice % ports.len())?)))
        .collect()
}

pub(crate) fn apply_to_owners(owners: &mut Owners, step: &Step) {
    let ends = match *step {
        Step::Release { slot, port: Some(port) } => {
            owners.get(&slot).filter(|owner| **owner == port).map(|_| slot)
        }
        Step::Release { slot, port: None } | Step::FreshSlot(slot) => Some(slot),
        _ => None,
    };
    if let Some(slot) = ends {
        owners.remove(&slot);
    }
}

/// Whether a port passes from another host to this one.
pub(crate) fn comes_here(before: &Contents, after: &Contents, port: u32) -> bool {
    let is_remote = |contents: &Contents| Some(contents.ports.get(&port)?.flags.has(PortFlags::REMOTE));
    is_remote(before) == Some(true) && is_remote(after) == Some(false)
}

/// Whether a port is on one host before and on another after.
pub(crate) fn changes_hosts(before: &Contents, after: &Contents, port: u32) -> bool {
    let place = |contents: &Contents| {
        let port = contents.ports.get(&port)?;
        Some(if port.flags.has(PortFlags::REMOTE) { host_of(port) } else { None })
    };
    place(before).zip(place(after)).is_some_and(|(before, after)| before != after)
}
