//! From objects with names to entries with numbers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    hash::Hash,
    marker::PhantomData,
    mem,
    net::Ipv4Addr,
    sync::Arc,
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
use crate::{
    state::{self, Eip, EipTarget, Host, Id, Kind, Objects, Port, Ref, Router, State, Subnet, Vip},
    vlan::Vlan,
};

/// What the plan needs to know of a port's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its number.
    pub ifindex: u32,
    /// It belongs to a bridge or to Open vSwitch.
    pub bridged: bool,
    /// It takes frames that XDP redirects to it.
    pub takes_xdp: bool,
    /// It takes them in several buffers too.
    pub takes_xdp_frags: bool,
    /// Longest IP packet that it takes, in bytes.
    pub mtu: u32,
}

/// The ports' interfaces that exist, by what ports call them: name, and VLAN on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    by_vlan: BTreeMap<Option<Vlan>, BTreeMap<String, Interface>>,
}

impl Interfaces {
    /// Adds the interface that has the frames of a VLAN of the named one; `None`: the named one itself.
    pub fn insert(&mut self, name: String, vlan: Option<Vlan>, interface: Interface) {
        self.by_vlan.entry(vlan).or_default().insert(name, interface);
    }

    /// The interface with the frames of a VLAN of the named one; `None`: the named one itself.
    pub fn get(&self, name: &str, vlan: Option<Vlan>) -> Option<&Interface> {
        self.by_vlan.get(&vlan)?.get(name)
    }
}

impl FromIterator<(String, Interface)> for Interfaces {
    /// Interfaces without VLANs.
    fn from_iter<I: IntoIterator<Item = (String, Interface)>>(interfaces: I) -> Self {
        let mut all = Self::default();
        interfaces.into_iter().for_each(|(name, interface)| all.insert(name, None, interface));
        all
    }
}

/// What the plan needs to know of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// Its id in the state. Ports of hosts with another one are reached through these.
    pub host: String,
    /// The configured EIP networks; the first one gets index 1.
    pub networks: Arc<[EipNetwork]>,
    /// An interface that is not among them does not exist at the moment: its port is in the tables without it.
    pub interfaces: Interfaces,
    /// Longest IP packet of a guest that goes to another host, in bytes; 0: not known, so anything may.
    pub tunnel_mtu: u16,
    /// Hosts, by VTEP, to which it is less, in bytes.
    pub tunnel_mtus: BTreeMap<Ipv4Addr, u16>,
}

impl Site {
    /// Longest IP packet of a guest that goes to the host with this VTEP, in bytes; 0: not known.
    fn tunnel_mtu_to(&self, vtep: Ipv4Addr) -> u16 {
        self.tunnel_mtus.get(&vtep).copied().unwrap_or(self.tunnel_mtu)
    }
}

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

/// Which indexes the objects of one kind have, as far as they are in the tables. Good for the state that it was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given<T> {
    /// By place in the state.
    indexes: Vec<u32>,
    of: PhantomData<fn() -> T>,
}

impl<T> Given<T> {
    /// Stands for no index; no table is that large.
    const NONE: u32 = u32::MAX;

    fn none(objects: &Objects<T>) -> Self {
        Self { indexes: vec![Self::NONE; objects.len()], of: PhantomData }
    }

    fn set(&mut self, object: Ref<T>, index: u32) {
        if let Some(place) = self.indexes.get_mut(object.index() as usize) {
            *place = index;
        }
    }

    /// The index of an object; `None`: it is not in the tables.
    pub fn get(&self, object: Ref<T>) -> Option<u32> {
        self.indexes.get(object.index() as usize).copied().filter(|index| *index != Self::NONE)
    }

    /// The objects that are in the tables, with their indexes.
    pub fn iter(&self) -> impl Iterator<Item = (Ref<T>, u32)> {
        (0..).map(Ref::at).zip(self.indexes.iter().copied()).filter(|(_, index)| *index != Self::NONE)
    }
}

impl<T> Default for Given<T> {
    fn default() -> Self {
        Self { indexes: Vec::new(), of: PhantomData }
    }
}

/// Which entries of the tables belong to which objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    /// Subnet indexes.
    pub subnets: Given<Subnet>,
    /// Port indexes.
    pub ports: Given<Port>,
    /// Slots.
    pub vips: Given<Vip>,
    /// The slot of the VIP, or the index of the port, that an EIP leads to.
    pub eips: Given<Eip>,
    /// Host indexes.
    pub hosts: Given<Host>,
}

impl Assigned {
    /// The EIPs that are in the tables, and what each leads to there, for the state that these indexes were given for.
    pub(crate) fn targets<'a>(&'a self, state: &'a State) -> impl Iterator<Item = (Ipv4Addr, Target)> + 'a {
        self.eips.iter().map(|(eip, index)| {
            let Eip { address, target } = state.eips[eip];
            let target = match target {
                EipTarget::Vip(_) => Target::vip(index),
                EipTarget::Port(_) => Target::port(index),
            };
            (address, target)
        })
    }
}

/// What the tables shall contain.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// The entries.
    pub contents: Contents,
    /// The objects that are in the tables. Shared, because it outlives the contents.
    pub assigned: Arc<Assigned>,
    /// What is not in them, and why.
    pub refused: Vec<Refused>,
}

/// Works out the entries for a state.
pub fn compile(state: &State, site: &Site, indexes: &Indexes) -> Desired {
    let none = Assigned {
        subnets: Given::none(&state.subnets),
        ports: Given::none(&state.ports),
        vips: Given::none(&state.vips),
        eips: Given::none(&state.eips),
        hosts: Given::none(&state.hosts),
    };
    let mut compiler = Compiler::new(state, site, none);
    // All indexes before any entry, so that each entry is made once and whole.
    compiler.give_hosts(indexes);
    compiler.give_subnets(indexes);
    compiler.give_ports(indexes);
    compiler.give_vips(indexes);
    compiler.give_eips(indexes);
    compiler.entries();
    Desired { contents: compiler.contents, assigned: Arc::new(compiler.assigned), refused: compiler.refused }
}

/// The entries that [`compile`] made when it gave these indexes: a million entries need not be kept while they can be made again.
///
/// All arguments but `assigned`, which it returned then, are those that it had.
pub fn contents_of(state: &State, site: &Site, assigned: &Assigned) -> Contents {
    let mut compiler = Compiler::new(state, site, assigned.clone());
    compiler.entries();
    compiler.contents
}

/// The ports that may own a VIP, and the indexes of the other hosts that they are on.
#[derive(Default)]
struct Owners {
    ports: BTreeSet<u32>,
    hosts: BTreeSet<u16>,
}

/// How an address leaves: EIP, and its network's index.
type Leaves = (Ipv4, u16);

struct Compiler<'a> {
    state: &'a State,
    site: &'a Site,
    /// This host, if the state lists it.
    here: Option<Ref<Host>>,
    assigned: Assigned,
    addresses: Vec<(Place, AddressEntry)>,
    contents: Contents,
    refused: Vec<Refused>,
    /// What is not in the tables because an index rests, by kind and place.
    resting: BTreeSet<(Kind, u32)>,
}

impl<'a> Compiler<'a> {
    /// With no entry yet.
    fn new(state: &'a State, site: &'a Site, assigned: Assigned) -> Self {
        Self {
            state,
            site,
            here: state.hosts.find(&site.host),
            assigned,
            addresses: Vec::new(),
            contents: Contents::default(),
            refused: Vec::new(),
            resting: BTreeSet::new(),
        }
    }

    /// Makes all entries.
    fn entries(&mut self) {
        self.networks();
        self.hosts();
        self.subnets();
        self.eips();
        self.ports();
        self.vips();
        // Sorted first and built as a whole, the tables of a million entries have no gaps.
        self.contents.addresses = mem::take(&mut self.addresses).into_iter().collect();
    }

    fn vni(&self, subnet: Ref<Subnet>) -> u32 {
        self.state.vpcs[self.state.subnets[subnet].vpc].vni
    }

    /// What an object needs is refused before the object is. `resting`: nothing is wrong but that an index rests.
    fn refuse(&mut self, kind: Kind, (place, id): (u32, &str), reason: Reason, resting: bool) {
        if resting {
            self.resting.insert((kind, place));
        }
        self.refused.push(Refused { kind, id: Id::from(id), reason, resting });
    }

    /// Refuses an object that needs another one, which is not in the tables.
    fn refuse_without(&mut self, kind: Kind, object: (u32, &str), (needed, place, id): (Kind, u32, &str)) {
        let resting = self.resting.contains(&(needed, place));
        self.refuse(kind, object, Reason::Without { kind: needed, id: Id::from(id) }, resting);
    }

    /// Gives indexes; what gets none is refused.
    fn give<T, K: Hash + Eq + Copy>(
        &mut self,
        (kind, objects): (Kind, &Objects<T>),
        pool: &Pool<K>,
        wanted: &[(Ref<T>, K)],
    ) -> Given<T> {
        let mut given = Given::none(objects);
        for (&(object, _), index) in wanted.iter().zip(pool.assign(wanted.iter().map(|(_, key)| *key))) {
            let named = (object.index(), objects.id(object));
            match index {
                Ok(index) => given.set(object, index),
                Err(NoIndex::Full { capacity }) => {
                    self.refuse(kind, named, Reason::Full { table: pool.table, capacity }, false);
                }
                Err(NoIndex::Resting) => self.refuse(kind, named, Reason::Resting, true),
            }
        }
        given
    }

    /// The objects whose subnet is in the tables, with the keys of their indexes; the others are refused.
    fn with_subnet<T, K>(
        &mut self,
        (kind, objects): (Kind, &Objects<T>),
        subnet_of: impl Fn(&T) -> Ref<Subnet>,
        key: impl Fn(u32, &T) -> K,
    ) -> Vec<(Ref<T>, K)> {
        let mut served = Vec::with_capacity(objects.len());
        for (object, what) in objects.iter() {
            let subnet = subnet_of(what);
            if self.assigned.subnets.get(subnet).is_some() {
                served.push((object, key(self.vni(subnet), what)));
            } else {
                let needed = (Kind::Subnet, subnet.index(), self.state.subnets.id(subnet));
                self.refuse_without(kind, (object.index(), objects.id(object)), needed);
            }
        }
        served
    }

    fn give_hosts(&mut self, indexes: &Indexes) {
        let hosts = &self.state.hosts;
        // This one first: without its own VTEP nothing comes from the others.
        let others = hosts.refs().filter(|host| self.here != Some(*host));
        let wanted: Vec<_> =
            self.here.into_iter().chain(others).map(|host| (host, Ipv4::from(hosts[host].vtep))).collect();
        self.assigned.hosts = self.give((Kind::Host, hosts), &indexes.hosts, &wanted);
    }

    fn give_subnets(&mut self, indexes: &Indexes) {
        let subnets = &self.state.subnets;
        let wanted: Vec<_> = subnets
            .iter()
            .map(|(subnet, what)| (subnet, (self.vni(subnet), Ipv4::from(what.gateway))))
            .collect();
        self.assigned.subnets = self.give((Kind::Subnet, subnets), &indexes.subnets, &wanted);
    }

    fn give_ports(&mut self, indexes: &Indexes) {
        let ports = (Kind::Port, &self.state.ports);
        let mut wanted = self.with_subnet(ports, |port| port.subnet, |vni, port| (vni, port.mac.octets()));
        wanted.retain(|(port, _)| self.is_reached(*port));
        self.assigned.ports = self.give(ports, &indexes.ports, &wanted);
    }

    /// Whether the host of a port is this one or in the tables, or will be in a second: meanwhile the port leads nowhere, and keeps what it
    /// owns. If not, the port is refused.
    fn is_reached(&mut self, port: Ref<Port>) -> bool {
        let state = self.state;
        let host = state.ports[port].host;
        let is_reached = self.here == Some(host)
            || self.assigned.hosts.get(host).is_some()
            || self.resting.contains(&(Kind::Host, host.index()));
        if !is_reached {
            let needed = (Kind::Host, host.index(), state.hosts.id(host));
            self.refuse_without(Kind::Port, (port.index(), state.ports.id(port)), needed);
        }
        is_reached
    }

    fn give_vips(&mut self, indexes: &Indexes) {
        let vips = (Kind::Vip, &self.state.vips);
        let wanted = self.with_subnet(vips, |vip| vip.subnet, |vni, vip| (vni, Ipv4::from(vip.address)));
        self.assigned.vips = self.give(vips, &indexes.slots, &wanted);
    }

    fn give_eips(&mut self, indexes: &Indexes) {
        let state = self.state;
        let mut wanted = Vec::with_capacity(state.eips.len());
        for (eip, what) in state.eips.iter() {
            let (index, needed) = match what.target {
                EipTarget::Vip(vip) => {
                    (self.assigned.vips.get(vip), (Kind::Vip, vip.index(), state.vips.id(vip)))
                }
                EipTarget::Port(port) => {
                    (self.assigned.ports.get(port), (Kind::Port, port.index(), state.ports.id(port)))
                }
            };
            if let Some(index) = index {
                wanted.push((eip, index));
            } else {
                self.refuse_without(Kind::Eip, (eip.index(), state.eips.id(eip)), needed);
            }
        }
        let addresses = wanted.iter().map(|(eip, _)| Ipv4::from(state.eips[*eip].address));
        for (&(eip, index), admitted) in wanted.iter().zip(indexes.eips.admit(addresses)) {
            if let Err(NoIndex::Full { capacity }) = admitted {
                let reason = Reason::Full { table: "EIPs", capacity };
                self.refuse(Kind::Eip, (eip.index(), state.eips.id(eip)), reason, false);
            } else {
                self.assigned.eips.set(eip, index);
            }
        }
    }

    fn networks(&mut self) {
        self.contents.networks = (1..).zip(self.site.networks.iter().copied()).collect();
    }

    fn hosts(&mut self) {
        let hosts = self.assigned.hosts.iter();
        self.contents.hosts =
            hosts.map(|(host, index)| (index, self.state.hosts[host].vtep.into())).collect();
        self.contents.vteps = self.contents.hosts.iter().map(|(&index, &vtep)| (vtep, index)).collect();
    }

    fn subnets(&mut self) {
        let state = self.state;
        for (subnet, index) in self.assigned.subnets.iter() {
            let what = &state.subnets[subnet];
            let vpc = &state.vpcs[what.vpc];
            let kind = match what.router {
                Router::Vip => AddressKind::Gateway(index),
                Router::External => AddressKind::ExternalGateway(index),
            };
            self.contents.vnis.insert(vpc.vni);
            self.addresses.push(((vpc.vni, what.gateway.into()), AddressEntry::new(kind)));
            for vni in vpc.peers.iter().map(|peer| state.vpcs[*peer].vni).chain([vpc.vni]) {
                let prefix = Prefix { vni, network: what.cidr.network().into(), length: what.cidr.prefix() };
                self.contents.subnets.insert(prefix, SubnetEntry { vni: vpc.vni, subnet: index, root: 0 });
            }
        }
    }

    fn eips(&mut self) {
        let targets = self.assigned.targets(self.state);
        self.contents.eips = targets.map(|(address, target)| (address.into(), target)).collect();
    }

    /// The EIP of each object that has one, by its place: an EIP's place more than 0.
    fn eips_of<T>(&self, objects: &Objects<T>, led_to: impl Fn(EipTarget) -> Option<Ref<T>>) -> Vec<u32> {
        let mut eips = vec![0; objects.len()];
        for (eip, _) in self.assigned.eips.iter() {
            let object = led_to(self.state.eips[eip].target);
            if let Some(place) = object.and_then(|object| eips.get_mut(object.index() as usize)) {
                *place = eip.index() + 1;
            }
        }
        eips
    }

    /// How an object leaves, of what [`Self::eips_of`] tells.
    fn leaves(&self, eips: &[u32], object: u32) -> Option<Leaves> {
        let eip = Ref::at(eips.get(object as usize)?.checked_sub(1)?);
        let address = self.state.eips[eip].address;
        Some((address.into(), self.network_of(address)))
    }

    /// The VRIDs that each port may use by all its VIPs, of those ports that have some.
    fn vrids(&mut self) -> BTreeMap<Ref<Port>, VridSet> {
        let state = self.state;
        let mut vrids: BTreeMap<Ref<Port>, VridSet> = BTreeMap::new();
        let mut surplus = BTreeSet::new();
        for vip in state.vips.values() {
            for vrid in vip.vrids() {
                for binding in state.bindings(vip).iter().filter(|binding| binding.rights.own) {
                    if !vrids.entry(binding.port).or_default().insert(vrid) {
                        surplus.insert(binding.port);
                    }
                }
            }
        }
        surplus.retain(|port| self.assigned.ports.get(*port).is_some());
        for port in surplus {
            self.refuse(Kind::Port, (port.index(), state.ports.id(port)), Reason::Vrids, false);
        }
        vrids
    }

    fn ports(&mut self) {
        let state = self.state;
        let eips = self.eips_of(&state.ports, |target| match target {
            EipTarget::Port(port) => Some(port),
            EipTarget::Vip(_) => None,
        });
        let vrids = self.vrids();
        let tagged =
            state.ports.iter().filter(|(_, port)| port.vlan.is_some() && Some(port.host) == self.here);
        let trunks: BTreeSet<&str> = tagged.map(|(port, _)| state.interface(port)).collect();
        let mut macs = Vec::with_capacity(state.ports.len());
        let mut entries = Vec::with_capacity(state.ports.len());
        for (port, index) in self.assigned.ports.iter() {
            let what = &state.ports[port];
            let (subnet, vni) = (&state.subnets[what.subnet], self.vni(what.subnet));
            let Some(subnet_index) = self.assigned.subnets.get(what.subnet) else { continue };
            let is_here = Some(what.host) == self.here;
            let interface = self.site.interfaces.get(state.interface(port), what.vlan).filter(|_| is_here);
            let (leads_to, mtu) = match (interface, self.assigned.hosts.get(what.host)) {
                (Some(interface), _) => (interface.ifindex, interface.mtu),
                (None, Some(host)) if !is_here => {
                    (host, self.site.tunnel_mtu_to(state.hosts[what.host].vtep).into())
                }
                (None, _) => (0, 0),
            };
            let is_trunk = is_here && what.vlan.is_none() && trunks.contains(state.interface(port));
            let flags = [
                (!what.source_dest_check, PortFlags::BYPASS),
                (!is_here, PortFlags::REMOTE),
                (interface.is_some_and(|interface| interface.bridged), PortFlags::BRIDGED),
                (interface.is_some_and(|interface| interface.takes_xdp), PortFlags::TAKES_XDP),
                (interface.is_some_and(|interface| interface.takes_xdp_frags), PortFlags::TAKES_XDP_FRAGS),
                (is_trunk, PortFlags::TRUNK),
                (subnet.router == Router::External, PortFlags::EXTERNAL_ROUTER),
            ]
            .into_iter()
            .filter_map(|(set, flag)| set.then_some(flag))
            .fold(PortFlags::default(), PortFlags::with);
            if let Some(interface) = interface {
                self.contents.interfaces.insert(interface.ifindex, index);
                if interface.takes_xdp {
                    self.contents.port_devs.insert(index, interface.ifindex);
                }
            }
            macs.push(((vni, what.mac.octets()), index));
            let address = AddressEntry::new(AddressKind::Fixed(index));
            self.addresses
                .push(((vni, what.address.into()), leaving(address, self.leaves(&eips, port.index()))));
            entries.push((
                index,
                PortEntry {
                    ifindex: leads_to,
                    vni,
                    subnet: subnet_index,
                    address: what.address.into(),
                    gateway: subnet.gateway.into(),
                    mask: subnet.cidr.mask().into(),
                    mac: Mac::new(what.mac.octets()),
                    flags,
                    eip: SourceEip::default(),
                    root: 0,
                    mtu,
                    vrids: vrids.get(&port).copied().unwrap_or_default(),
                },
            ));
        }
        self.contents.macs = macs.into_iter().collect();
        self.contents.ports = entries.into_iter().collect();
    }

    fn vips(&mut self) {
        let state = self.state;
        let eips = self.eips_of(&state.vips, |target| match target {
            EipTarget::Vip(vip) => Some(vip),
            EipTarget::Port(_) => None,
        });
        let assigned = mem::take(&mut self.assigned.vips);
        let mut grants = Vec::with_capacity(state.vips.len());
        let mut members = Vec::with_capacity(state.vips.len());
        for (vip, slot) in assigned.iter() {
            let what = &state.vips[vip];
            let vni = self.vni(what.subnet);
            let Some(subnet) = self.assigned.subnets.get(what.subnet) else { continue };
            let Owners { ports, hosts } = self.grants(vip, slot, &mut grants);
            let mut of_vip = Members { vni, address: what.address.into(), subnet, ..Members::default() };
            for (place, port) in of_vip.ports.iter_mut().zip(ports) {
                *place = port;
            }
            for (place, host) in of_vip.hosts.iter_mut().zip(hosts) {
                *place = host;
            }
            members.push((slot, of_vip));
            let address = AddressEntry::new(AddressKind::Vip(slot));
            self.addresses
                .push(((vni, what.address.into()), leaving(address, self.leaves(&eips, vip.index()))));
        }
        self.contents.grants = grants.into_iter().collect();
        self.contents.members = members.into_iter().collect();
        self.assigned.vips = assigned;
    }

    /// Adds the rights that the bindings of a VIP give. Tells which ports may own it.
    fn grants(&mut self, vip: Ref<Vip>, slot: u32, grants: &mut Vec<((u32, u32), Grant)>) -> Owners {
        let state = self.state;
        let what = &state.vips[vip];
        let named = (vip.index(), state.vips.id(vip));
        let mut vrids = [0; 4];
        for (place, vrid) in vrids.iter_mut().zip(what.vrids()) {
            *place = vrid;
        }
        let mut owners = Owners::default();
        for &state::Binding { port: member, rights } in state.bindings(what) {
            let Some(port) = self.assigned.ports.get(member) else {
                let resting = self.resting.contains(&(Kind::Port, member.index()));
                let id = Id::from(state.ports.id(member));
                self.refuse(Kind::Vip, named, Reason::Member { id }, resting);
                continue;
            };
            let own = rights.own && owners.ports.len() < MAX_MEMBERS;
            if own {
                owners.ports.insert(port);
                let host = state.ports[member].host;
                let other = self.assigned.hosts.get(host).filter(|_| self.here != Some(host));
                // An index of HOSTS has 16 bits.
                owners.hosts.extend(other.and_then(|index| u16::try_from(index).ok()));
            } else if rights.own {
                self.refuse(Kind::Vip, named, Reason::Members, false);
            }
            let granted = [(own, Rights::OWN), (rights.source, Rights::SOURCE)]
                .into_iter()
                .filter_map(|(set, right)| set.then_some(right))
                .fold(Rights::default(), Rights::with);
            if granted != Rights::default() {
                let vrids = if own { vrids } else { [0; 4] };
                grants.push(((port, slot), Grant { rights: granted, zero: [0; 3], vrids }));
            }
        }
        owners
    }

    /// Index of the EIP's network, the narrowest if several contain it; 0: none.
    fn network_of(&self, eip: Ipv4Addr) -> u16 {
        (1..)
            .zip(self.site.networks.iter())
            .filter(|(_, network)| Ipv4::from(eip).is_in(network.network, network.mask))
            .max_by_key(|(_, network)| network.mask.raw().count_ones())
            .map_or(0, |(index, _)| index)
    }
}

/// The address with the EIP that it leaves as, if any.
fn leaving(address: AddressEntry, leaves: Option<Leaves>) -> AddressEntry {
    leaves.map_or(address, |(eip, network)| address.with_eip(eip, network))
}
