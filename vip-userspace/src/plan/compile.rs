//! From objects with names to entries with numbers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::Ipv4Addr,
};

use vip_common::{
    tables::{
        AddressKind, EipNetwork, Grant, MAX_MEMBERS, Members, PortEntry, PortFlags, Rights, SourceEip,
        SubnetEntry, Target, VridSet,
    },
    wire::{Ipv4, Mac},
};

use super::{
    contents::{AddressEntry, Contents, Place, Prefix},
    indexes::{Indexes, NoIndex, Pool},
};
use crate::state::{self, EipTarget, Id, Kind, Router, State};

/// What the plan needs to know of a port's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its number.
    pub ifindex: u32,
    /// It belongs to a bridge or to Open vSwitch.
    pub bridged: bool,
    /// It takes frames that XDP redirects to it.
    pub takes_xdp: bool,
}

/// The interfaces that exist, by name.
pub type Interfaces = BTreeMap<String, Interface>;

/// Why an object is not in the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The table has no room.
    Full {
        /// Its name.
        table: &'static str,
        /// How many entries it has.
        capacity: u32,
    },
    /// Room is there, but was freed a moment ago: the object follows in a second.
    Resting,
    /// An object that it needs is not in the tables.
    Without {
        /// The other's kind.
        kind: Kind,
        /// The other's id.
        id: Id,
    },
    /// A port that a binding names is not in the tables; the VIP is.
    Member {
        /// The port's id.
        id: Id,
    },
    /// More ports than [`MAX_MEMBERS`] may own the VIP; the surplus got no right.
    Members,
    /// The port's VIPs allow more than [`VridSet::CAPACITY`] VRIDs; it may not use the surplus.
    Vrids,
}

/// An object of the state that is not, or not wholly, in the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its kind.
    pub kind: Kind,
    /// Its id.
    pub id: Id,
    /// Why.
    pub reason: Reason,
    /// Nothing is wrong: an index rests, its own or that of what it needs, and it follows in a second.
    pub resting: bool,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.kind, self.id)?;
        match &self.reason {
            Reason::Full { table, capacity } => {
                write!(
                    f,
                    "not applied, {table} is full ({capacity} entries); remove objects that are not needed"
                )
            }
            Reason::Resting => f.write_str("follows in a second, when a freed entry has rested"),
            Reason::Without { kind, id } => write!(f, "not applied, because {kind} {id} is not"),
            Reason::Member { id } => write!(f, "port {id} has no rights yet, because it is not applied"),
            Reason::Vrids => write!(
                f,
                "its VIPs allow more than {} VRIDs, and it may use no more; remove VRIDs",
                VridSet::CAPACITY
            ),
            Reason::Members => {
                write!(f, "only {MAX_MEMBERS} ports may own a VIP; the others got no right, remove them")
            }
        }
    }
}

/// What the tables shall contain.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// The entries.
    pub contents: Contents,
    /// Port indexes by id, of the ports that are in the tables.
    pub ports: BTreeMap<Id, u32>,
    /// Slots by the VIP's id.
    pub vips: BTreeMap<Id, u32>,
    /// Where EIPs lead, by the EIP's id.
    pub eips: BTreeMap<Id, Target>,
    /// What is not in them, and why.
    pub refused: Vec<Refused>,
}

/// Works out the entries for a state.
///
/// `networks` are the configured EIP networks; the first one gets index 1. An interface that `interfaces` lacks does not
/// exist at the moment: its port is in the tables without it.
pub fn compile(
    state: &State,
    networks: &[EipNetwork],
    interfaces: &Interfaces,
    indexes: &Indexes,
) -> Desired {
    let mut compiler = Compiler {
        state,
        networks,
        interfaces,
        subnets: BTreeMap::new(),
        desired: Desired::default(),
        resting: BTreeSet::new(),
    };
    for (index, network) in (1..).zip(networks) {
        compiler.desired.contents.networks.insert(index, *network);
    }
    compiler.subnets(indexes);
    compiler.ports(indexes);
    compiler.vips(indexes);
    compiler.eips(indexes);
    compiler.desired
}

struct Compiler<'a> {
    state: &'a State,
    networks: &'a [EipNetwork],
    interfaces: &'a Interfaces,
    subnets: BTreeMap<Id, u32>,
    desired: Desired,
    /// What is not in the tables because an index rests.
    resting: BTreeSet<(Kind, Id)>,
}

impl Compiler<'_> {
    fn vni(&self, vpc: &Id) -> Option<u32> {
        self.state.vpcs.get(vpc).map(|vpc| vpc.vni)
    }

    /// What an object needs is refused before the object is.
    fn refuse(&mut self, kind: Kind, id: &Id, reason: Reason) {
        let rests = |kind: Kind, id: &Id| self.resting.contains(&(kind, Id::clone(id)));
        let resting = match &reason {
            Reason::Resting => true,
            Reason::Without { kind, id } => rests(*kind, id),
            Reason::Member { id } => rests(Kind::Port, id),
            Reason::Full { .. } | Reason::Members | Reason::Vrids => false,
        };
        if resting {
            self.resting.insert((kind, Id::clone(id)));
        }
        self.desired.refused.push(Refused { kind, id: Id::clone(id), reason, resting });
    }

    /// Gives indexes; what gets none is refused.
    fn assign<K: Ord + Copy>(
        &mut self,
        kind: Kind,
        pool: &Pool<K>,
        wanted: Vec<(Id, K)>,
    ) -> BTreeMap<Id, u32> {
        let (ids, keys): (Vec<Id>, Vec<K>) = wanted.into_iter().unzip();
        let mut assigned = BTreeMap::new();
        for (id, index) in ids.into_iter().zip(pool.assign(&keys)) {
            match index {
                Ok(index) => drop(assigned.insert(id, index)),
                Err(NoIndex::Full { capacity }) => {
                    self.refuse(kind, &id, Reason::Full { table: pool.table, capacity });
                }
                Err(NoIndex::Resting) => self.refuse(kind, &id, Reason::Resting),
            }
        }
        assigned
    }

    /// Leaves out the objects whose subnet is not in the tables.
    fn with_subnet<'o, T>(
        &mut self,
        kind: Kind,
        objects: &'o BTreeMap<Id, T>,
        subnet_of: impl Fn(&T) -> &Id,
    ) -> Vec<&'o T> {
        let mut served = Vec::new();
        for (id, object) in objects {
            let subnet = subnet_of(object);
            if self.subnets.contains_key(subnet) {
                served.push(object);
            } else {
                self.refuse(kind, id, Reason::Without { kind: Kind::Subnet, id: Id::clone(subnet) });
            }
        }
        served
    }

    fn subnets(&mut self, indexes: &Indexes) {
        let state = self.state;
        let wanted = state
            .subnets
            .values()
            .filter_map(|subnet| {
                Some((Id::clone(&subnet.id), (self.vni(&subnet.vpc)?, subnet.gateway.into())))
            })
            .collect();
        self.subnets = self.assign(Kind::Subnet, &indexes.subnets, wanted);
        for (id, &index) in &self.subnets {
            let Some(subnet) = state.subnets.get(id) else { continue };
            let Some(vpc) = state.vpcs.get(&subnet.vpc) else { continue };
            let contents = &mut self.desired.contents;
            let kind = match subnet.router {
                Router::Vip => AddressKind::Gateway(index),
                Router::External => AddressKind::ExternalGateway(index),
            };
            contents.addresses.insert((vpc.vni, subnet.gateway.into()), AddressEntry::new(kind));
            let peers = vpc.peers.iter().filter_map(|peer| state.vpcs.get(peer));
            for vni in peers.map(|peer| peer.vni).chain([vpc.vni]) {
                let prefix =
                    Prefix { vni, network: subnet.cidr.network().into(), length: subnet.cidr.prefix() };
                contents.subnets.insert(prefix, SubnetEntry { vni: vpc.vni, subnet: index, root: 0 });
            }
        }
    }

    fn ports(&mut self, indexes: &Indexes) {
        let served = self.with_subnet(Kind::Port, &self.state.ports, |port| &port.subnet);
        let wanted = served
            .iter()
            .filter_map(|port| Some((Id::clone(&port.id), (self.vni(&port.vpc)?, port.mac.octets()))))
            .collect();
        let assigned = self.assign(Kind::Port, &indexes.ports, wanted);
        for port in served {
            if let Some(&index) = assigned.get(&port.id) {
                self.port(port, index);
            }
        }
        self.desired.ports = assigned;
    }

    fn port(&mut self, port: &state::Port, index: u32) {
        let Some(vni) = self.vni(&port.vpc) else { return };
        let Some(subnet) = self.state.subnets.get(&port.subnet) else { return };
        let Some(&subnet_index) = self.subnets.get(&port.subnet) else { return };
        let interface = self.interfaces.get(&port.interface);
        let flags = [
            (!port.source_dest_check, PortFlags::BYPASS),
            (interface.is_some_and(|interface| interface.bridged), PortFlags::BRIDGED),
            (interface.is_some_and(|interface| interface.takes_xdp), PortFlags::TAKES_XDP),
            (subnet.router == Router::External, PortFlags::EXTERNAL_ROUTER),
        ]
        .into_iter()
        .filter_map(|(set, flag)| set.then_some(flag))
        .fold(PortFlags::default(), PortFlags::with);
        let mut vrids = VridSet::default();
        let owned = self
            .state
            .vips
            .values()
            .filter(|vip| vip.bindings.get(&port.id).is_some_and(|rights| rights.own));
        let mut surplus = false;
        for &vrid in owned.flat_map(|vip| &vip.vrids) {
            surplus |= !vrids.insert(vrid);
        }
        if surplus {
            self.refuse(Kind::Port, &port.id, Reason::Vrids);
        }

        let contents = &mut self.desired.contents;
        if let Some(interface) = interface {
            contents.interfaces.insert(interface.ifindex, index);
            if interface.takes_xdp {
                contents.port_devs.insert(index, interface.ifindex);
            }
        }
        contents.macs.insert((vni, port.mac.octets()), index);
        contents.addresses.insert((vni, port.address.into()), AddressEntry::new(AddressKind::Fixed(index)));
        contents.ports.insert(
            index,
            PortEntry {
                ifindex: interface.map_or(0, |interface| interface.ifindex),
                vni,
                subnet: subnet_index,
                address: port.address.into(),
                gateway: subnet.gateway.into(),
                mask: subnet.cidr.mask().into(),
                mac: Mac::new(port.mac.octets()),
                flags,
                eip: SourceEip::default(),
                root: 0,
                zero: 0,
                vrids,
            },
        );
    }

    fn vips(&mut self, indexes: &Indexes) {
        let served = self.with_subnet(Kind::Vip, &self.state.vips, |vip| &vip.subnet);
        let wanted = served
            .iter()
            .filter_map(|vip| Some((Id::clone(&vip.id), (self.vni(&vip.vpc)?, vip.address.into()))))
            .collect();
        let assigned = self.assign(Kind::Vip, &indexes.slots, wanted);
        for vip in served {
            if let Some(&slot) = assigned.get(&vip.id) {
                self.vip(vip, slot);
            }
        }
        self.desired.vips = assigned;
    }

    fn vip(&mut self, vip: &state::Vip, slot: u32) {
        let Some(vni) = self.vni(&vip.vpc) else { return };
        let Some(&subnet) = self.subnets.get(&vip.subnet) else { return };
        let mut vrids = [0; 4];
        for (place, vrid) in vrids.iter_mut().zip(&vip.vrids) {
            *place = *vrid;
        }
        let mut owners = BTreeSet::new();
        for (id, rights) in &vip.bindings {
            let Some(&port) = self.desired.ports.get(id) else {
                self.refuse(Kind::Vip, &vip.id, Reason::Member { id: Id::clone(id) });
                continue;
            };
            let own = rights.own && owners.len() < MAX_MEMBERS;
            if own {
                owners.insert(port);
            } else if rights.own {
                self.refuse(Kind::Vip, &vip.id, Reason::Members);
            }
            let granted = [(own, Rights::OWN), (rights.source, Rights::SOURCE)]
                .into_iter()
                .filter_map(|(set, right)| set.then_some(right))
                .fold(Rights::default(), Rights::with);
            if granted != Rights::default() {
                let vrids = if own { vrids } else { [0; 4] };
                self.desired
                    .contents
                    .grants
                    .insert((port, slot), Grant { rights: granted, zero: [0; 3], vrids });
            }
        }
        let mut members = Members { vni, address: vip.address.into(), subnet, ..Members::default() };
        for (place, port) in members.ports.iter_mut().zip(owners) {
            *place = port;
        }
        let contents = &mut self.desired.contents;
        contents.members.insert(slot, members);
        contents.addresses.insert((vni, vip.address.into()), AddressEntry::new(AddressKind::Vip(slot)));
    }

    fn eips(&mut self, indexes: &Indexes) {
        let mut served = Vec::new();
        for eip in self.state.eips.values() {
            if let Some((target, place)) = self.target(&eip.target) {
                served.push((eip, target, place));
            } else {
                let (kind, id) = match &eip.target {
                    EipTarget::Vip(id) => (Kind::Vip, id),
                    EipTarget::Port(id) => (Kind::Port, id),
                };
                self.refuse(Kind::Eip, &eip.id, Reason::Without { kind, id: Id::clone(id) });
            }
        }
        let wanted: Vec<Ipv4> = served.iter().map(|(eip, ..)| eip.address.into()).collect();
        for ((eip, target, place), admitted) in served.into_iter().zip(indexes.eips.admit(&wanted)) {
            if let Err(NoIndex::Full { capacity }) = admitted {
                self.refuse(Kind::Eip, &eip.id, Reason::Full { table: "EIPs", capacity });
                continue;
            }
            let network = self.network_of(eip.address);
            let contents = &mut self.desired.contents;
            contents.eips.insert(eip.address.into(), target);
            if let Some(entry) = contents.addresses.get_mut(&place) {
                *entry = entry.with_eip(eip.address.into(), network);
            }
            self.desired.eips.insert(Id::clone(&eip.id), target);
        }
    }

    /// Where an EIP leads, if that is in the tables.
    fn target(&self, target: &EipTarget) -> Option<(Target, Place)> {
        match target {
            EipTarget::Vip(id) => {
                let vip = self.state.vips.get(id)?;
                let slot = *self.desired.vips.get(id)?;
                Some((Target::vip(slot), (self.vni(&vip.vpc)?, vip.address.into())))
            }
            EipTarget::Port(id) => {
                let port = self.state.ports.get(id)?;
                let index = *self.desired.ports.get(id)?;
                Some((Target::port(index), (self.vni(&port.vpc)?, port.address.into())))
            }
        }
    }

    /// Index of the EIP's network, the narrowest if several contain it; 0: none.
    fn network_of(&self, eip: Ipv4Addr) -> u16 {
        (1..)
            .zip(self.networks)
            .filter(|(_, network)| Ipv4::from(eip).is_in(network.network, network.mask))
            .max_by_key(|(_, network)| network.mask.raw().count_ones())
            .map_or(0, |(index, _)| index)
    }
}
