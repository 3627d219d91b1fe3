//! Tables in memory.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
    vec::Vec,
};

use crate::{
    pipeline::{Tables, VipCell},
    tables::{
        Advert, Config, Direction, EipNetwork, Event, Grant, GrantKey, HostEntry, MacKey, Members, Meter,
        MeterClass, Move, NextHop, OwnerEntry, OwnerWord, Pending, PortEntry, RouteEntry, SubnetEntry,
        Target, Traffic, VipEntry, VniAddress, VniEntry, Way,
    },
    wire::Ipv4,
};

/// The tables of one host, with a clock that stands still until it is moved.
#[derive(Debug, Default)]
pub struct MemoryTables {
    /// Nanoseconds since boot.
    pub now: Cell<u64>,
    /// CONFIG.
    pub config: Option<Config>,
    /// NODES and SCATTERED, of EIPs.
    pub eips: HashMap<Ipv4, Target>,
    /// NODES and SCATTERED, of the VPCs' addresses.
    pub addresses: HashMap<VniAddress, Target>,
    /// MACS.
    pub macs: HashMap<MacKey, u32>,
    /// IFPORTS.
    pub interfaces: HashMap<u32, u32>,
    /// PORTS.
    pub ports: BTreeMap<u32, PortEntry>,
    /// GRANTS.
    pub grants: HashMap<GrantKey, Grant>,
    /// VIPS.
    pub vips: BTreeMap<u32, Slot>,
    /// ADVERTS.
    pub adverts: RefCell<HashMap<GrantKey, Advert>>,
    /// MEMBERS.
    pub members: BTreeMap<u32, Members>,
    /// SUBNETS: (VNI, first address, mask).
    pub subnets: Vec<(u32, Ipv4, Ipv4, SubnetEntry)>,
    /// ROUTES: (first address, mask).
    pub routes: Vec<(Ipv4, Ipv4, RouteEntry)>,
    /// NEXTHOPS.
    pub next_hops: HashMap<Ipv4, NextHop>,
    /// HOSTS.
    pub hosts: BTreeMap<u32, HostEntry>,
    /// VTEPS.
    pub vteps: HashMap<Ipv4, u32>,
    /// VNIS.
    pub vnis: HashMap<u32, VniEntry>,
    /// NETWORKS.
    pub networks: BTreeMap<u16, EipNetwork>,
    /// MOVES.
    pub moves: RefCell<BTreeMap<u32, Move>>,
    /// What came out of EVENTS.
    pub events: RefCell<Vec<Event>>,
    /// METERS, by class.
    pub meters: RefCell<[Meter; MeterClass::COUNT as usize]>,
    /// DROPS.
    pub drops: RefCell<BTreeMap<u32, u64>>,
    /// Traffic by EIP.
    pub eip_traffic: RefCell<BTreeMap<Ipv4, Traffic>>,
    /// Traffic of VIPs by slot, both ways together.
    pub vip_traffic: RefCell<BTreeMap<u32, Traffic>>,
}

/// A record of VIPS.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    index: u32,
    owner: Cell<OwnerEntry>,
    vip: VipEntry,
}

impl Slot {
    /// The record with this index.
    pub const fn new(index: u32, vip: VipEntry, owner: OwnerEntry) -> Self {
        Self { index, owner: Cell::new(owner), vip }
    }

    /// What claims change.
    pub const fn get(&self) -> OwnerEntry {
        self.owner.get()
    }

    /// What the state says.
    pub const fn vip(&self) -> VipEntry {
        self.vip
    }

    /// Changes what claims change.
    pub fn update(&self, change: impl FnOnce(&mut OwnerEntry)) {
        let mut entry = self.owner.get();
        change(&mut entry);
        self.owner.set(entry);
    }
}

impl VipCell for &Slot {
    fn entry(self) -> VipEntry {
        self.vip
    }

    fn word(self) -> OwnerWord {
        self.get().word
    }

    fn pending(self) -> Pending {
        self.get().pending
    }

    fn update_damped_until(self, update: impl FnOnce(u64) -> Option<u64>) {
        if let Some(at) = update(self.get().damped_until) {
            self.update(|entry| entry.damped_until = at);
        }
    }

    fn update_reported(self, update: impl FnOnce(u64) -> Option<u64>) {
        if let Some(at) = update(self.get().reported) {
            self.update(|entry| entry.reported = at);
        }
    }

    fn swap_word(self, old: OwnerWord, new: OwnerWord) -> bool {
        let is_old = self.word() == old;
        if is_old {
            self.update(|entry| entry.word = new);
        }
        is_old
    }

    fn swap_pending(self, old: Pending, new: Pending) -> bool {
        let is_old = self.pending() == old;
        if is_old {
            self.update(|entry| entry.pending = new);
        }
        is_old
    }
}

/// The entry of the longest prefix that holds.
fn longest<'e, V>(candidates: impl Iterator<Item = (Ipv4, &'e V)>) -> Option<&'e V> {
    candidates.max_by_key(|(mask, _)| mask.raw().count_ones()).map(|(_, value)| value)
}

impl<'t> Tables for &'t MemoryTables {
    type Vip = &'t Slot;
    type Port = &'t PortEntry;

    fn now(&self) -> u64 {
        self.now.get()
    }

    fn config(&self) -> Option<&Config> {
        self.config.as_ref()
    }

    fn eip(&self, address: Ipv4) -> Option<Target> {
        self.eips.get(&address).copied()
    }

    fn address(&self, _: u32, key: &VniAddress) -> Option<Target> {
        // How the kernel's tables reach it is tested with them.
        self.addresses.get(key).copied()
    }

    fn port_by_mac(&self, key: &MacKey) -> Option<u32> {
        self.macs.get(key).copied()
    }

    fn port_by_interface(&self, ifindex: u32) -> Option<u32> {
        self.interfaces.get(&ifindex).copied()
    }

    fn port(&self, index: u32) -> Option<&'t PortEntry> {
        self.ports.get(&index)
    }

    fn grant(&self, key: &GrantKey) -> Option<&Grant> {
        self.grants.get(key)
    }

    fn vip(&self, slot: u32) -> Option<&'t Slot> {
        self.vips.get(&slot)
    }

    fn advert(&self, key: &GrantKey) -> Option<Advert> {
        self.adverts.borrow().get(key).copied()
    }

    fn put_advert(&self, key: &GrantKey, advert: &Advert) {
        self.adverts.borrow_mut().insert(*key, *advert);
    }

    fn remove_advert(&self, key: &GrantKey) {
        self.adverts.borrow_mut().remove(key);
    }

    fn members(&self, slot: u32) -> Option<&Members> {
        self.members.get(&slot)
    }

    fn subnet(&self, key: &VniAddress) -> Option<&SubnetEntry> {
        longest(
            self.subnets
                .iter()
                .filter(|(vni, network, mask, _)| *vni == key.vni && key.address.is_in(*network, *mask))
                .map(|(_, _, mask, entry)| (*mask, entry)),
        )
    }

    fn route(&self, destination: Ipv4) -> Option<&RouteEntry> {
        longest(
            self.routes
                .iter()
                .filter(|(network, mask, _)| destination.is_in(*network, *mask))
                .map(|(_, mask, entry)| (*mask, entry)),
        )
    }

    fn next_hop(&self, address: Ipv4) -> Option<&NextHop> {
        self.next_hops.get(&address)
    }

    fn host(&self, index: u32) -> Option<&HostEntry> {
        self.hosts.get(&index)
    }

    fn vtep(&self, address: Ipv4) -> Option<u32> {
        self.vteps.get(&address).copied()
    }

    fn vni(&self, vni: u32) -> Option<&VniEntry> {
        self.vnis.get(&vni)
    }

    fn network(&self, index: u16) -> Option<&EipNetwork> {
        self.networks.get(&index)
    }

    fn record_move(&self, index: u32, record: &Move) {
        self.moves.borrow_mut().insert(index, *record);
    }

    fn notify(&self, event: &Event) {
        let Some(kind) = event.kind() else { return };
        let class = kind.class();
        let mut meters = self.meters.borrow_mut();
        if meters.get_mut(class as usize).is_some_and(|meter| meter.admit(class, event.at)) {
            self.events.borrow_mut().push(*event);
        }
    }

    fn may_send_error(&self) -> bool {
        let class = MeterClass::IcmpError;
        self.meters
            .borrow_mut()
            .get_mut(class as usize)
            .is_some_and(|meter| meter.admit(class, self.now.get()))
    }

    fn observe(&self, _: u64) {
        // The engine's caller has the verdict itself.
    }

    fn count_drop(&self, reason: u32) {
        *self.drops.borrow_mut().entry(reason).or_default() += 1;
    }

    fn count_port(&self, port: &'t PortEntry, direction: Direction, bytes: usize) {
        self.count_eip(port.eip.address, direction, bytes);
    }

    fn count_vip(&self, vip: &'t Slot, way: Way, direction: Direction, bytes: usize) {
        if way == Way::Eip {
            self.count_eip(vip.vip.eip.address, direction, bytes);
        }
        self.vip_traffic.borrow_mut().entry(vip.index).or_default().count(direction, bytes as u64);
    }
}

impl MemoryTables {
    fn count_eip(&self, eip: Ipv4, direction: Direction, bytes: usize) {
        self.eip_traffic.borrow_mut().entry(eip).or_default().count(direction, bytes as u64);
    }
}
