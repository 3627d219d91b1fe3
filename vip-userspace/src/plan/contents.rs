//! What the tables contain that the desired state decides about.

use std::collections::{BTreeMap, BTreeSet};

use vip_common::{
    tables::{
        AddressKind, EipNetwork, Grant, GrantKey, Members, PortEntry, PortFlags, SourceEip, SubnetEntry,
        Target,
    },
    wire::{Ipv4, Mac},
};

use super::Step;

/// An address of a VPC: VNI and address.
pub type Place = (u32, Ipv4);

/// A MAC of a VPC: VNI and the six bytes in wire order. Key of MACS.
pub type MacPlace = (u32, [u8; 6]);

/// Key of SUBNETS: the VPC that reaches the prefix, its network address and its length in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    /// VNI of the VPC that reaches it.
    pub vni: u32,
    /// First address.
    pub network: Ipv4,
    /// Length in bits, without the VNI's.
    pub length: u8,
}

/// What an address of a VPC is, and the EIP that it leaves as.
///
/// The tables have the first in the index and the second in the record of the port or VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressEntry {
    /// What it is.
    pub kind: AddressKind,
    /// The EIP; gateways have none.
    pub eip: SourceEip,
}

impl AddressEntry {
    /// An address without EIP.
    pub fn new(kind: AddressKind) -> Self {
        Self { kind, eip: SourceEip::default() }
    }

    /// The same address, which leaves as `eip` through the EIP network with index `network`.
    #[must_use]
    pub fn with_eip(self, eip: Ipv4, network: u16) -> Self {
        Self { eip: SourceEip::new(eip, network), ..self }
    }
}

/// Number of the interface on this host that a port has, if it has one.
pub fn interface_of(port: &PortEntry) -> Option<u32> {
    (port.ifindex != 0 && !port.flags.has(PortFlags::REMOTE)).then_some(port.ifindex)
}

/// Index of the other host that a port is on, if it is on one.
pub fn host_of(port: &PortEntry) -> Option<u32> {
    (port.ifindex != 0 && port.flags.has(PortFlags::REMOTE)).then_some(port.ifindex)
}

/// The entries of the tables that the agent writes because of the state. Empty entries of arrays are left out.
///
/// Routes and neighbours follow the kernel, those that lead to other hosts too, and words of owners the guests; none of them is here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The index, of EIPs: a VIP or a port.
    pub eips: BTreeMap<Ipv4, Target>,
    /// The index, of VPCs' addresses; and their EIPs.
    pub addresses: BTreeMap<Place, AddressEntry>,
    /// MACS: port index.
    pub macs: BTreeMap<MacPlace, u32>,
    /// GRANTS, by (port index, slot).
    pub grants: BTreeMap<(u32, u32), Grant>,
    /// MEMBERS and VIPS, by slot.
    pub members: BTreeMap<u32, Members>,
    /// PORTS, by index; without EIP and root page.
    pub ports: BTreeMap<u32, PortEntry>,
    /// PORT_DEVS: ifindex by port index.
    pub port_devs: BTreeMap<u32, u32>,
    /// IFPORTS: port index by ifindex.
    pub interfaces: BTreeMap<u32, u32>,
    /// SUBNETS, without root pages.
    pub subnets: BTreeMap<Prefix, SubnetEntry>,
    /// NETWORKS, by index, from 1 on.
    pub networks: BTreeMap<u32, EipNetwork>,
    /// HOSTS, by index: the VTEPs that their headers lead to.
    pub hosts: BTreeMap<u32, Ipv4>,
    /// VTEPS: host index.
    pub vteps: BTreeMap<Ipv4, u32>,
    /// VNIS, without root pages.
    pub vnis: BTreeSet<u32>,
}

impl Contents {
    /// What the contents are after the step. Steps about owners and moves change nothing here.
    pub fn apply(&mut self, step: &Step) {
        match *step {
            Step::RemoveEip(eip) => drop(self.eips.remove(&eip)),
            Step::RemoveAddress(place) => drop(self.addresses.remove(&place)),
            Step::RemoveMac(place) => drop(self.macs.remove(&place)),
            Step::RemoveSubnet(prefix) => drop(self.subnets.remove(&prefix)),
            Step::RemoveInterface(ifindex) => drop(self.interfaces.remove(&ifindex)),
            Step::RemoveGrant(GrantKey { port, slot }) => drop(self.grants.remove(&(port, slot))),
            Step::RemoveVtep(vtep) => drop(self.vteps.remove(&vtep)),
            Step::RemoveVni(vni) => drop(self.vnis.remove(&vni)),
            Step::ClearMembers(slot) => drop(self.members.remove(&slot)),
            Step::ClearPort(index) => drop(self.ports.remove(&index)),
            Step::ClearHost(index) => drop(self.hosts.remove(&index)),
            Step::RemovePortDev(index) => drop(self.port_devs.remove(&index)),
            Step::SetNetwork(index, network) if network == EipNetwork::default() => {
                self.networks.remove(&index);
            }
            Step::SetNetwork(index, network) => drop(self.networks.insert(index, network)),
            Step::SetHost(index, vtep) => drop(self.hosts.insert(index, vtep)),
            Step::SetPortDev(index, ifindex) => drop(self.port_devs.insert(index, ifindex)),
            Step::SetPort(index, port) => drop(self.ports.insert(index, port)),
            Step::SetMembers(slot, members) => drop(self.members.insert(slot, members)),
            Step::SetGrant(GrantKey { port, slot }, grant) => drop(self.grants.insert((port, slot), grant)),
            Step::SetAddress(place, entry) => drop(self.addresses.insert(place, entry)),
            Step::SetMac(place, index) => drop(self.macs.insert(place, index)),
            Step::SetSubnet(prefix, entry) => drop(self.subnets.insert(prefix, entry)),
            Step::SetVtep(vtep, index) => drop(self.vteps.insert(vtep, index)),
            Step::SetVni(vni) => drop(self.vnis.insert(vni)),
            Step::SetEip(eip, entry) => drop(self.eips.insert(eip, entry)),
            Step::SetInterface(ifindex, index) => drop(self.interfaces.insert(ifindex, index)),
            Step::Release { .. }
            | Step::Rehome { .. }
            | Step::ForgetPort { .. }
            | Step::FreshSlot(_)
            | Step::FreshEip(_) => {}
        }
    }

    /// Whether the port with this index has this fixed address.
    pub(super) fn port_is_at(&self, index: u32, place: Place) -> bool {
        self.ports.get(&index).is_some_and(|port| (port.vni, port.address) == place)
    }

    /// Whether the port with this index has this MAC.
    pub(super) fn port_has_mac(&self, index: u32, (vni, mac): MacPlace) -> bool {
        self.ports.get(&index).is_some_and(|port| port.vni == vni && port.mac == Mac::new(mac))
    }

    /// Whether the VIP in this slot is this address.
    pub(super) fn vip_is_at(&self, slot: u32, place: Place) -> bool {
        self.members.get(&slot).is_some_and(|members| (members.vni, members.address) == place)
    }
}
