//! The plan's contents and steps in the kernel's tables.

use vip_common::{
    tables::{
        AddressKind, EipNetwork, HostEntry, MacKey, Members, PortEntry, SourceEip, SubnetEntry, Target,
        VipEntry, VniAddress, VniEntry, Way,
    },
    wire::Mac,
};

use super::{
    hosts::{vtep_of, without_way},
    owners,
};
use crate::{
    kernel::{KernelError, Tables, tables::Change},
    plan::{AddressEntry, Contents, MacPlace, Place, Prefix, Step},
};

/// Reads what the tables contain.
pub(super) fn read(tables: &Tables) -> Result<Contents, KernelError> {
    let mut contents = Contents {
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
        vteps: tables.vteps.entries()?.into_iter().collect(),
        vnis: tables.vnis.entries()?.into_iter().map(|(vni, _)| vni).collect(),
        ..Contents::default()
    };
    for (VniAddress { vni, address }, length, entry) in tables.subnets.entries()? {
        contents.subnets.insert(Prefix { vni, network: address, length }, SubnetEntry { root: 0, ..entry });
    }
    for slot in tables.vips.present() {
        let members = tables.members.get(slot)?;
        if members != Members::default() {
            contents.members.insert(slot, members);
        }
    }
    for index in tables.ports.present() {
        let port = PortEntry { eip: SourceEip::default(), root: 0, ..tables.ports.get(index)? };
        if port != PortEntry::default() {
            contents.ports.insert(index, port);
        }
        if let Some(ifindex) = tables.port_devs.get(index)? {
            contents.port_devs.insert(index, ifindex);
        }
    }
    for (VniAddress { vni, address }, target) in tables.index.entries() {
        if vni == 0 {
            contents.eips.insert(address, target);
        } else if let Some(kind) = target.kind() {
            let eip = match kind {
                AddressKind::Fixed(index) => tables.ports.get(index)?.eip,
                AddressKind::Vip(slot) => tables.vips.get(slot)?.eip,
                AddressKind::Gateway(_) | AddressKind::ExternalGateway(_) => SourceEip::default(),
            };
            contents.addresses.insert((vni, address), AddressEntry { kind, eip });
        }
    }
    for index in 1..tables.hosts.len() {
        if let Some(vtep) = vtep_of(&tables.hosts.get(index)?) {
            contents.hosts.insert(index, vtep);
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

/// Makes room for what steps write, so that it is not made one by one.
pub(super) fn prepare(tables: &Tables, steps: &[Step]) -> Result<(), KernelError> {
    tables.ports.reserve(steps.iter().filter_map(|step| match step {
        Step::SetPort(index, _) => Some(*index),
        _ => None,
    }))?;
    tables.vips.reserve(steps.iter().filter_map(|step| match step {
        Step::FreshSlot(slot) | Step::SetMembers(slot, _) => Some(*slot),
        _ => None,
    }))
}

/// Steps of one table that follow each other, which go in one operation if the table has such; a step of any other kind is alone.
pub(super) fn batches(steps: &[Step]) -> impl Iterator<Item = &[Step]> {
    steps.chunk_by(|a, b| {
        matches!(
            (a, b),
            (Step::SetEip(..), Step::SetEip(..))
                | (Step::SetAddress(..), Step::SetAddress(..))
                | (Step::SetMac(..), Step::SetMac(..))
                | (Step::SetGrant(..), Step::SetGrant(..))
        )
    })
}

/// Carries out all steps of a plan.
pub fn fill(tables: &Tables, steps: &[Step]) -> Result<(), KernelError> {
    prepare(tables, steps)?;
    batches(steps).try_for_each(|batch| carry_out(tables, batch))
}

/// Carries a batch out. If it fails, some of its steps may have been carried out.
pub(super) fn carry_out(tables: &Tables, batch: &[Step]) -> Result<(), KernelError> {
    match batch {
        [step] => one(tables, step),
        [Step::SetEip(..), ..] => {
            let changes: Vec<Change> = batch
                .iter()
                .filter_map(|step| match *step {
                    Step::SetEip(eip, target) => Some((VniAddress::eip(eip), Some(target))),
                    _ => None,
                })
                .collect();
            tables.index.apply(&changes)
        }
        [Step::SetAddress(..), ..] => {
            let mut changes: Vec<Change> = Vec::with_capacity(batch.len());
            let mut rooted = None;
            for step in batch {
                let Step::SetAddress(place, AddressEntry { kind, eip }) = *step else { continue };
                if rooted != Some(place.0) {
                    tables.index.root(place.0)?;
                    rooted = Some(place.0);
                }
                set_eip(tables, kind, eip)?;
                changes.push((address_key(place), Some(Target::new(kind))));
            }
            tables.index.apply(&changes)
        }
        [Step::SetMac(..), ..] => tables.macs.insert_all(batch.iter().filter_map(|step| match *step {
            Step::SetMac(place, index) => Some((mac_key(place), index)),
            _ => None,
        })),
        [Step::SetGrant(..), ..] => tables.grants.insert_all(batch.iter().filter_map(|step| match *step {
            Step::SetGrant(key, grant) => Some((key, grant)),
            _ => None,
        })),
        steps => steps.iter().try_for_each(|step| one(tables, step)),
    }
}

fn one(tables: &Tables, step: &Step) -> Result<(), KernelError> {
    match *step {
        Step::RemoveEip(eip) => tables.index.apply(&[(VniAddress::eip(eip), None)]),
        Step::RemoveAddress(place) => {
            tables.index.root(place.0)?;
            let address = address_key(place);
            if let Some(kind) = tables.index.get(&address).and_then(Target::kind) {
                set_eip(tables, kind, SourceEip::default())?;
            }
            tables.index.apply(&[(address, None)])
        }
        Step::RemoveMac(place) => tables.macs.remove(&mac_key(place)).map(drop),
        Step::RemoveSubnet(prefix) => {
            tables.subnets.remove(address_key((prefix.vni, prefix.network)), prefix.length).map(drop)
        }
        Step::RemoveVtep(vtep) => tables.vteps.remove(&vtep).map(drop),
        Step::RemoveVni(vni) => tables.vnis.remove(&vni).map(drop),
        Step::RemoveInterface(ifindex) => tables.ifports.remove(&ifindex).map(drop),
        Step::Release { slot, port } => owners::release(tables, slot, port),
        Step::Rehome { slot, port } => owners::rehome(tables, slot, port),
        Step::RemoveGrant(key) => {
            // The advert last: without the grant nobody puts another one there.
            tables.grants.remove(&key)?;
            tables.adverts.remove(&key).map(drop)
        }
        Step::ForgetPort { slot, port } => owners::forget(tables, slot, port),
        Step::ClearMembers(slot) => {
            tables.vips.clear(slot)?;
            tables.members.set(slot, Members::default())
        }
        Step::ClearPort(index) => tables.ports.clear(index),
        Step::ClearHost(index) => tables.hosts.set(index, HostEntry::default()),
        Step::RemovePortDev(index) => tables.port_devs.clear(index),
        Step::SetNetwork(index, network) => tables.networks.set(index, network),
        Step::FreshSlot(slot) => owners::begin(tables, slot),
        Step::FreshEip(target) => match target.kind() {
            Some(AddressKind::Vip(slot)) => tables.vips.clear_traffic(slot, Way::Eip),
            Some(AddressKind::Fixed(index)) => tables.ports.clear_traffic(index),
            _ => Ok(()),
        },
        Step::SetHost(index, vtep) => tables.hosts.set(index, without_way(vtep)),
        Step::SetPortDev(index, ifindex) => tables.port_devs.set(index, ifindex),
        Step::SetPort(index, port) => {
            let root = tables.index.root(port.vni)?;
            tables.ports.set(index, PortEntry { root, ..port })
        }
        Step::SetMembers(slot, members) => {
            let Members { vni, address, .. } = members;
            tables.vips.set(slot, VipEntry { vni, address, ..VipEntry::default() })?;
            tables.members.set(slot, members)
        }
        Step::SetGrant(key, grant) => tables.grants.insert(key, grant),
        Step::SetAddress(place, AddressEntry { kind, eip }) => {
            tables.index.root(place.0)?;
            set_eip(tables, kind, eip)?;
            tables.index.apply(&[(address_key(place), Some(Target::new(kind)))])
        }
        Step::SetMac(place, index) => tables.macs.insert(mac_key(place), index),
        Step::SetSubnet(prefix, entry) => {
            let root = tables.index.root(entry.vni)?;
            let entry = SubnetEntry { root, ..entry };
            tables.subnets.insert(address_key((prefix.vni, prefix.network)), prefix.length, entry)
        }
        Step::SetVtep(vtep, index) => tables.vteps.insert(vtep, index),
        Step::SetVni(vni) => tables.vnis.insert(vni, VniEntry { root: tables.index.root(vni)? }),
        Step::SetEip(eip, target) => tables.index.apply(&[(VniAddress::eip(eip), Some(target))]),
        Step::SetInterface(ifindex, index) => tables.ifports.insert(ifindex, index),
    }
}

/// Sets the EIP that an address leaves as in the record of its port or VIP.
fn set_eip(tables: &Tables, kind: AddressKind, eip: SourceEip) -> Result<(), KernelError> {
    match kind {
        AddressKind::Fixed(index) => tables.ports.set_eip(index, eip),
        AddressKind::Vip(slot) => tables.vips.set_eip(slot, eip),
        AddressKind::Gateway(_) | AddressKind::ExternalGateway(_) => Ok(()),
    }
}

fn address_key((vni, address): Place) -> VniAddress {
    VniAddress { vni, address }
}

fn mac_key((vni, mac): MacPlace) -> MacKey {
    MacKey::new(vni, Mac::new(mac))
}
