//! The plan's contents and steps in the kernel's tables.

use vip_common::{
    tables::{EipNetwork, GrantKey, MacKey, Members, PortEntry, VniAddress},
    wire::Mac,
};

use super::owners;
use crate::{
    kernel::{KernelError, Tables},
    plan::{Contents, MacPlace, Place, Prefix, Step},
};

/// Reads what the tables contain.
pub(super) fn read(tables: &Tables) -> Result<Contents, KernelError> {
    let mut contents = Contents {
        eips: tables.eips.entries()?.into_iter().collect(),
        addresses: tables
            .addrs
            .entries()?
            .into_iter()
            .map(|(key, entry)| ((key.vni, key.address), entry))
            .collect(),
        macs: tables
            .macs
            .entries()?
            .into_iter()
            .map(|(key, port)| ((key.vni, key.mac.octets()), port))
            .collect(),
        grants: tables
            .grants
            .entries()?
            .into_iter()
            .map(|(key, grant)| ((key.port, key.slot), grant))
            .collect(),
        interfaces: tables.ifports.entries()?.into_iter().collect(),
        ..Contents::default()
    };
    for (VniAddress { vni, address }, length, entry) in tables.subnets.entries()? {
        contents.subnets.insert(Prefix { vni, network: address, length }, entry);
    }
    for slot in 0..tables.members.len() {
        let members = tables.members.get(slot)?;
        if members != Members::default() {
            contents.members.insert(slot, members);
        }
    }
    for index in 1..tables.ports.len() {
        let port = tables.ports.get(index)?;
        if port != PortEntry::default() {
            contents.ports.insert(index, port);
        }
        if let Some(ifindex) = tables.port_devs.get(index)? {
            contents.port_devs.insert(index, ifindex);
        }
    }
    for index in 1..tables.networks.len() {
        let network = tables.networks.get(index)?;
        if network != EipNetwork::default() {
            contents.networks.insert(index, network);
        }
    }
    Ok(contents)
}

/// Carries a step out.
pub fn carry_out(tables: &Tables, step: &Step) -> Result<(), KernelError> {
    match *step {
        Step::RemoveEip(eip) => tables.eips.remove(&eip).map(drop),
        Step::RemoveAddress(place) => tables.addrs.remove(&address_key(place)).map(drop),
        Step::RemoveMac(place) => tables.macs.remove(&mac_key(place)).map(drop),
        Step::RemoveSubnet(prefix) => {
            tables.subnets.remove(address_key((prefix.vni, prefix.network)), prefix.length).map(drop)
        }
        Step::RemoveInterface(ifindex) => tables.ifports.remove(&ifindex).map(drop),
        Step::Release { slot, port } => owners::release(tables, slot, port),
        Step::RemoveGrant(key) => tables.grants.remove(&key).map(drop),
        Step::ForgetPort { slot, port } => owners::forget(tables, slot, port),
        Step::ClearMembers(slot) => tables.members.set(slot, Members::default()),
        Step::ClearPort(index) => tables.ports.set(index, PortEntry::default()),
        Step::RemovePortDev(index) => tables.port_devs.clear(index),
        Step::SetNetwork(index, network) => tables.networks.set(index, network),
        Step::FreshSlot(slot) => owners::begin(tables, slot),
        Step::FreshEip(index) => tables.eip_traffic.clear(index),
        Step::SetPortDev(index, ifindex) => tables.port_devs.set(index, ifindex),
        Step::SetPort(index, port) => tables.ports.set(index, port),
        Step::SetMembers(slot, members) => tables.members.set(slot, members),
        Step::SetGrant(GrantKey { port, slot }, grant) => {
            tables.grants.insert(GrantKey { port, slot }, grant)
        }
        Step::SetAddress(place, entry) => tables.addrs.insert(address_key(place), entry),
        Step::SetMac(place, index) => tables.macs.insert(mac_key(place), index),
        Step::SetSubnet(prefix, entry) => {
            tables.subnets.insert(address_key((prefix.vni, prefix.network)), prefix.length, entry)
        }
        Step::SetEip(eip, entry) => tables.eips.insert(eip, entry),
        Step::SetInterface(ifindex, index) => tables.ifports.insert(ifindex, index),
    }
}

fn address_key((vni, address): Place) -> VniAddress {
    VniAddress { vni, address }
}

fn mac_key((vni, mac): MacPlace) -> MacKey {
    MacKey::new(vni, Mac::new(mac))
}
