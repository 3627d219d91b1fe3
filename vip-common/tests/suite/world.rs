//! Tables: a fixed plan of VPCs, subnets, ports and VIPs, in which everything that an operator can choose is arbitrary.
//!
//! VPC 0 and VPC 1 use the same addresses and MACs. VPC 2 has its own and may be a peer of VPC 0. Each subnet has three ports
//! and room for two VIPs.

use std::ops::Range;

use etherparse::{IpNumber, Ipv4Header};
use proptest::{array::uniform3, collection::vec, option, prelude::*, sample::select};
use vip_common::{
    engine::{MemoryTables, Slot},
    tables::{
        AddressKind, ClaimForm, Config, ConfigFlags, EipNetwork, Grant, GrantKey, HostEntry, MacKey, Members,
        NextHop, OwnerEntry, OwnerWord, Pending, PortEntry, PortFlags, Rights, RouteEntry, RouteKind,
        SourceEip, SubnetEntry, Target, VipEntry, VniAddress, VniEntry, VridSet,
    },
    wire::{Ipv4, Mac},
};
use zerocopy::FromBytes as _;

/// Number of subnets.
pub(crate) const SUBNETS: u32 = 5;
const PORTS_PER_SUBNET: u32 = 3;
const SLOTS_PER_SUBNET: u32 = 2;
/// Number of ports; their indexes start with 1.
pub(crate) const PORTS: u32 = SUBNETS * PORTS_PER_SUBNET;
/// Number of VIP slots.
pub(crate) const SLOTS: u32 = SUBNETS * SLOTS_PER_SUBNET;
/// (VNI, third octet of the prefix) of each subnet.
const PLAN: [(u32, u8); SUBNETS as usize] = [(4001, 0), (4001, 1), (4002, 0), (4002, 1), (4003, 2)];
/// VNIs that are peers in a world with a peering.
const PEERS: [u32; 2] = [4001, 4003];

pub(crate) const SECOND: u64 = 1_000_000_000;
pub(crate) const MASK: Ipv4 = Ipv4::new([255, 255, 255, 0]);
pub(crate) const UPLINK: u32 = 2;
pub(crate) const UPLINK_MAC: Mac = Mac::new([2, 0xff, 0, 0, 0, 1]);
pub(crate) const HOST_ADDRESS: Ipv4 = Ipv4::new([198, 51, 100, 2]);
/// A router on the uplink, which NEXTHOPS knows.
pub(crate) const ROUTER: Ipv4 = Ipv4::new([198, 51, 100, 1]);
pub(crate) const NEIGHBOUR_MAC: Mac = Mac::new([2, 0xff, 0, 0, 0, 9]);
/// A host behind the router.
pub(crate) const CLIENT: Ipv4 = Ipv4::new([192, 0, 2, 77]);
/// A host on the uplink that NEXTHOPS does not know.
pub(crate) const NEIGHBOUR: Ipv4 = Ipv4::new([198, 51, 100, 77]);
/// An address in the prefix of subnets that no object has.
pub(crate) const UNLISTED: Ipv4 = Ipv4::new([10, 0, 0, 200]);

pub(crate) const fn subnet_of_port(index: u32) -> u32 {
    (index - 1) / PORTS_PER_SUBNET
}

pub(crate) const fn subnet_of_slot(slot: u32) -> u32 {
    slot / SLOTS_PER_SUBNET
}

pub(crate) const fn ports_of(subnet: u32) -> Range<u32> {
    subnet * PORTS_PER_SUBNET + 1..(subnet + 1) * PORTS_PER_SUBNET + 1
}

pub(crate) const fn slots_of(subnet: u32) -> Range<u32> {
    subnet * SLOTS_PER_SUBNET..(subnet + 1) * SLOTS_PER_SUBNET
}

pub(crate) const fn vni_of(subnet: u32) -> u32 {
    PLAN[subnet as usize].0
}

const fn low(number: u32) -> u8 {
    number.to_le_bytes()[0]
}

const fn in_subnet(subnet: u32, last: u32) -> Ipv4 {
    Ipv4::new([10, 0, PLAN[subnet as usize].1, low(last)])
}

pub(crate) const fn gateway(subnet: u32) -> Ipv4 {
    in_subnet(subnet, 1)
}

pub(crate) const fn port_address(index: u32) -> Ipv4 {
    in_subnet(subnet_of_port(index), 10 + (index - 1) % PORTS_PER_SUBNET)
}

pub(crate) const fn port_mac(index: u32) -> Mac {
    let [_, _, net, last] = port_address(index).octets();
    Mac::new([2, 0, 0, 0, net, last])
}

pub(crate) const fn vip_address(slot: u32) -> Ipv4 {
    in_subnet(subnet_of_slot(slot), 100 + slot % SLOTS_PER_SUBNET)
}

pub(crate) const fn port_eip(index: u32) -> Ipv4 {
    Ipv4::new([203, 0, 113, low(index)])
}

pub(crate) const fn vip_eip(slot: u32) -> Ipv4 {
    Ipv4::new([203, 0, 113, low(100 + slot)])
}

pub(crate) const fn ifindex(index: u32) -> u32 {
    100 + index
}

/// Number of hosts in worlds of several; their numbers, and their indexes in HOSTS, start with 1.
pub(crate) const HOSTS: u32 = 3;

/// MAC of a host's uplink.
pub(crate) const fn host_mac(host: u32) -> Mac {
    Mac::new([2, 0xff, 0, 0, 0, low(host)])
}

/// Address of a host on the underlay.
pub(crate) const fn vtep(host: u32) -> Ipv4 {
    Ipv4::new([198, 51, 100, low(20 + host)])
}

/// The host with this VTEP.
pub(crate) fn host_of(address: Ipv4) -> Option<u32> {
    (1..=HOSTS).find(|host| vtep(*host) == address)
}

/// VNIs of all VPCs.
pub(crate) const VNIS: [u32; 3] = [4001, 4002, 4003];

/// Several hosts with one state, seen from one of them.
#[derive(Clone, Debug)]
pub(crate) struct Overlay {
    /// The host whose tables they are.
    pub(crate) here: u32,
    /// The host of each port.
    pub(crate) places: Vec<u32>,
    /// Longest IP packet of a guest between hosts; 0: nobody knows.
    pub(crate) mtu: u16,
    /// Hosts whose MAC nobody knows.
    pub(crate) strangers: Vec<u32>,
    /// Hosts that no route leads to.
    pub(crate) lost: Vec<u32>,
    /// Whether MACs of next hops are believed.
    pub(crate) believed: bool,
    /// Whether nobody is learned.
    pub(crate) learning_waits: bool,
}

impl Default for Overlay {
    /// All ports are here, on the first host, which reaches both others.
    fn default() -> Self {
        Self {
            here: 1,
            places: vec![1; PORTS as usize],
            mtu: 0,
            strangers: Vec::new(),
            lost: Vec::new(),
            believed: true,
            learning_waits: false,
        }
    }
}

impl Overlay {
    pub(crate) fn place(&self, port: u32) -> u32 {
        self.places[port as usize - 1]
    }

    /// The entry of HOSTS for another host: headers by etherparse.
    fn entry(&self, host: u32) -> HostEntry {
        let mut header = Ipv4Header {
            dont_fragment: true,
            time_to_live: 64,
            protocol: IpNumber::UDP,
            source: vtep(self.here).octets(),
            destination: vtep(host).octets(),
            ..Ipv4Header::default()
        };
        header.total_len = 0;
        header.header_checksum = header.calc_header_checksum();
        let is_lost = self.lost.contains(&host);
        let mac = if is_lost || self.strangers.contains(&host) { Mac::ZERO } else { host_mac(host) };
        let ethernet = [&mac.octets()[..], &host_mac(self.here).octets(), &[8, 0]].concat();
        HostEntry {
            ethernet: vip_common::wire::Ethernet::read_from_bytes(&ethernet).expect("14 bytes"),
            ip: vip_common::wire::Ipv4Header::read_from_bytes(&header.to_bytes()).expect("20 bytes"),
            mtu: self.mtu,
            next_hop: if is_lost { Ipv4::UNSPECIFIED } else { vtep(host) },
            zero: 0,
        }
    }

    fn fill(&self, tables: &mut MemoryTables) {
        for host in 1..=HOSTS {
            tables.vteps.insert(vtep(host), host);
            if host != self.here {
                tables.hosts.insert(host, self.entry(host));
            }
        }
        for vni in VNIS {
            tables.vnis.insert(vni, VniEntry { root: 0 });
        }
        let now = tables.now.get();
        if let Some(config) = &mut tables.config {
            config.vtep = vtep(self.here);
            config.uplink_mac = host_mac(self.here);
            config.neighbours_until = if self.believed { u64::MAX } else { now };
            if self.learning_waits {
                config.flags = config.flags.with(ConfigFlags::LEARNING_WAITS);
            }
        }
    }
}

/// What an operator and the hypervisor can choose of a port.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent choices, each of them yes or no")]
pub(crate) struct PortSpec {
    pub(crate) bypass: bool,
    pub(crate) bridged: bool,
    pub(crate) takes_xdp: bool,
    /// No interface on this host at the moment.
    pub(crate) unplugged: bool,
    pub(crate) eip: bool,
}

/// What can be chosen of a VIP, and who owns it.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent choices, each of them yes or no")]
pub(crate) struct VipSpec {
    /// Of the subnet's ports: 1 *own*, 2 *source*, 3 both, 0 none.
    pub(crate) rights: [u8; 3],
    /// Allowed VRIDs.
    pub(crate) vrids: Vec<u8>,
    /// The owner: one of the ports with the *own* right, by the order; `None`: nobody.
    pub(crate) owner: Option<usize>,
    /// Whether the owner holds it by a virtual router MAC, if one is allowed.
    pub(crate) by_vrid: bool,
    pub(crate) epoch: u64,
    pub(crate) claimed: bool,
    /// The claim that waits: by which of the ports with the *own* right, and due in how many milliseconds.
    pub(crate) waiting: Option<(usize, i64)>,
    /// Moves that the bucket misses, in nanoseconds from now.
    pub(crate) damped: u64,
    pub(crate) eip: bool,
    pub(crate) network: bool,
}

impl Default for VipSpec {
    /// Owned by the subnet's first port; all three may own it.
    fn default() -> Self {
        Self {
            rights: [1; 3],
            vrids: Vec::new(),
            owner: Some(0),
            by_vrid: false,
            epoch: 1,
            claimed: true,
            waiting: None,
            damped: 0,
            eip: true,
            network: false,
        }
    }
}

/// Everything behind the tables of one host.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent choices, each of them yes or no")]
pub(crate) struct World {
    pub(crate) peered: bool,
    /// Subnets whose gateway is somebody else.
    pub(crate) external: Vec<bool>,
    pub(crate) ports: Vec<PortSpec>,
    pub(crate) vips: Vec<Option<VipSpec>>,
    pub(crate) announces: bool,
    pub(crate) returns: bool,
    pub(crate) tcp_by_tc: bool,
    pub(crate) default_route: bool,
    /// Nanoseconds since boot.
    pub(crate) now: u64,
    /// Other hosts; `None`: there are none.
    pub(crate) overlay: Option<Overlay>,
}

impl Default for World {
    /// Every port with its check on and an EIP, one VIP per subnet that its first port owns, a default route.
    fn default() -> Self {
        let port = PortSpec { takes_xdp: true, eip: true, ..PortSpec::default() };
        Self {
            peered: false,
            external: vec![false; SUBNETS as usize],
            ports: vec![port; PORTS as usize],
            vips: (0..SLOTS).map(|slot| (slot % SLOTS_PER_SUBNET == 0).then(VipSpec::default)).collect(),
            announces: true,
            returns: true,
            tcp_by_tc: false,
            default_route: true,
            now: 1000 * SECOND,
            overlay: None,
        }
    }
}

impl World {
    pub(crate) fn port(&self, index: u32) -> &PortSpec {
        &self.ports[index as usize - 1]
    }

    pub(crate) fn port_mut(&mut self, index: u32) -> &mut PortSpec {
        &mut self.ports[index as usize - 1]
    }

    pub(crate) fn vip(&self, slot: u32) -> Option<&VipSpec> {
        self.vips[slot as usize].as_ref()
    }

    /// The slot of the default world's VIP, to be changed.
    pub(crate) fn vip_mut(&mut self, slot: u32) -> &mut VipSpec {
        self.vips[slot as usize].as_mut().expect("the slot has a VIP")
    }

    pub(crate) fn is_external(&self, subnet: u32) -> bool {
        self.external[subnet as usize]
    }

    /// Host of a port.
    pub(crate) fn place(&self, port: u32) -> u32 {
        self.overlay.as_ref().map_or(1, |overlay| overlay.place(port))
    }

    /// The other host that a port is on.
    fn elsewhere(&self, port: u32) -> Option<(u32, &Overlay)> {
        let overlay = self.overlay.as_ref()?;
        let place = overlay.place(port);
        (place != overlay.here).then_some((place, overlay))
    }

    /// VNIs that reach each other.
    pub(crate) fn reaches(&self, from: u32, to: u32) -> bool {
        from == to || self.peered && PEERS.contains(&from) && PEERS.contains(&to)
    }

    fn rights(&self, index: u32, slot: u32) -> u8 {
        let subnet = subnet_of_slot(slot);
        match self.vip(slot) {
            Some(vip) if subnet_of_port(index) == subnet => {
                vip.rights[((index - 1) % PORTS_PER_SUBNET) as usize]
            }
            _ => 0,
        }
    }

    pub(crate) fn may_own(&self, index: u32, slot: u32) -> bool {
        self.rights(index, slot) & 1 != 0
    }

    pub(crate) fn may_source(&self, index: u32, slot: u32) -> bool {
        self.rights(index, slot) != 0
    }

    pub(crate) fn is_real_server(&self, index: u32, slot: u32) -> bool {
        self.rights(index, slot) == 2
    }

    pub(crate) fn allows_vrid(&self, index: u32, slot: u32, vrid: u8) -> bool {
        self.may_source(index, slot) && self.vip(slot).is_some_and(|vip| vip.vrids.contains(&vrid))
    }

    /// Ports that may own the VIP.
    pub(crate) fn members(&self, slot: u32) -> Vec<u32> {
        ports_of(subnet_of_slot(slot)).filter(|index| self.may_own(*index, slot)).collect()
    }

    /// The VIP with this address in the VPC.
    pub(crate) fn slot_at(&self, vni: u32, address: Ipv4) -> Option<u32> {
        (0..SLOTS).find(|slot| {
            vip_address(*slot) == address && vni_of(subnet_of_slot(*slot)) == vni && self.vip(*slot).is_some()
        })
    }

    /// The port with this fixed address in the VPC.
    pub(crate) fn port_at(vni: u32, address: Ipv4) -> Option<u32> {
        (1..=PORTS).find(|index| port_address(*index) == address && vni_of(subnet_of_port(*index)) == vni)
    }

    /// The tables that these wishes compile to.
    pub(crate) fn tables(&self) -> MemoryTables {
        let mut tables = MemoryTables::default();
        tables.now.set(self.now);
        self.fill_host(&mut tables);
        if let Some(overlay) = &self.overlay {
            overlay.fill(&mut tables);
        }
        for subnet in 0..SUBNETS {
            self.fill_subnet(&mut tables, subnet);
        }
        for index in 1..=PORTS {
            self.fill_port(&mut tables, index);
        }
        for slot in 0..SLOTS {
            if let Some(vip) = self.vip(slot) {
                self.fill_vip(&mut tables, slot, vip);
            }
        }
        tables
    }

    fn fill_host(&self, tables: &mut MemoryTables) {
        let mut flags = ConfigFlags::default();
        for (chosen, flag) in [
            (self.announces, ConfigFlags::ANNOUNCE_EIPS),
            (self.returns, ConfigFlags::UPLINK_RETURNS),
            (self.tcp_by_tc, ConfigFlags::TCP_BY_TC),
        ] {
            if chosen {
                flags = flags.with(flag);
            }
        }
        tables.config = Some(Config {
            uplink: UPLINK,
            routed_by: UPLINK,
            uplink_mac: UPLINK_MAC,
            flags,
            neighbours_until: u64::MAX,
            ..Config::default()
        });
        let all_bits = Ipv4::BROADCAST;
        let prefix = Ipv4::new([198, 51, 100, 0]);
        tables.routes = vec![
            (HOST_ADDRESS, all_bits, RouteEntry::new(RouteKind::Local)),
            (prefix, MASK, RouteEntry::new(RouteKind::OnLink)),
        ];
        if self.default_route {
            let default = RouteEntry::new(RouteKind::Gateway(ROUTER));
            tables.routes.push((Ipv4::UNSPECIFIED, Ipv4::UNSPECIFIED, default));
        }
        tables.next_hops.insert(ROUTER, NextHop { mac: NEIGHBOUR_MAC, zero: 0 });
        tables
            .networks
            .insert(1, EipNetwork { network: prefix, mask: MASK, gateway: ROUTER, ..EipNetwork::default() });
    }

    fn fill_subnet(&self, tables: &mut MemoryTables, subnet: u32) {
        let vni = vni_of(subnet);
        let kind = if self.is_external(subnet) {
            AddressKind::ExternalGateway(subnet + 1)
        } else {
            AddressKind::Gateway(subnet + 1)
        };
        tables.addresses.insert(VniAddress { vni, address: gateway(subnet) }, Target::new(kind));
        for from in [4001, 4002, 4003] {
            if self.reaches(from, vni) {
                let entry = SubnetEntry { vni, subnet: subnet + 1, root: 0 };
                tables.subnets.push((from, in_subnet(subnet, 0), MASK, entry));
            }
        }
    }

    fn fill_port(&self, tables: &mut MemoryTables, index: u32) {
        let (spec, subnet) = (self.port(index), subnet_of_port(index));
        let vni = vni_of(subnet);
        let mut flags = PortFlags::default();
        for (chosen, flag) in [
            (spec.bypass, PortFlags::BYPASS),
            (spec.bridged, PortFlags::BRIDGED),
            (spec.takes_xdp, PortFlags::TAKES_XDP),
            (self.is_external(subnet), PortFlags::EXTERNAL_ROUTER),
        ] {
            if chosen {
                flags = flags.with(flag);
            }
        }
        let mut vrids = VridSet::default();
        for slot in slots_of(subnet) {
            for vrid in self.vip(slot).into_iter().flat_map(|vip| &vip.vrids) {
                if self.may_source(index, slot) {
                    assert!(vrids.insert(*vrid), "there is room for a few");
                }
            }
        }
        let address = port_address(index);
        let entry = PortEntry {
            ifindex: if spec.unplugged { 0 } else { ifindex(index) },
            vni,
            subnet: subnet + 1,
            address,
            gateway: gateway(subnet),
            mask: MASK,
            mac: port_mac(index),
            flags,
            eip: if spec.eip { SourceEip::new(port_eip(index), 0) } else { SourceEip::default() },
            root: 0,
            mtu: 0,
            vrids,
        };
        let entry = match self.elsewhere(index) {
            Some((host, overlay)) => PortEntry {
                ifindex: host,
                flags: flags.with(PortFlags::REMOTE),
                mtu: u32::from(overlay.mtu),
                ..entry
            },
            None => entry,
        };
        tables.ports.insert(index, entry);
        tables.macs.insert(MacKey::new(vni, entry.mac), index);
        if !entry.flags.has(PortFlags::REMOTE) {
            tables.interfaces.insert(ifindex(index), index);
        }
        if spec.eip {
            tables.eips.insert(port_eip(index), Target::port(index));
        }
        tables.addresses.insert(VniAddress { vni, address }, Target::port(index));
    }

    fn fill_vip(&self, tables: &mut MemoryTables, slot: u32, vip: &VipSpec) {
        let subnet = subnet_of_slot(slot);
        let (vni, address) = (vni_of(subnet), vip_address(slot));
        let members = self.members(slot);
        let of_member = |order: usize| members.get(order % members.len().max(1)).copied();
        let vrid = if vip.by_vrid { vip.vrids.first().copied().unwrap_or_default() } else { 0 };
        let word = match vip.owner.and_then(of_member) {
            Some(owner) => OwnerWord::new(vip.epoch, vip.claimed, owner, vrid),
            None => OwnerWord::new(vip.epoch, false, 0, 0),
        };
        let pending = vip.waiting.and_then(|(order, in_ms)| {
            let due = self.now.saturating_add_signed(in_ms * 1_000_000);
            Some(Pending::new(of_member(order)?, vrid, ClaimForm::GarpRequest, due))
        });
        let eip = if vip.eip {
            tables.eips.insert(vip_eip(slot), Target::vip(slot));
            SourceEip::new(vip_eip(slot), u16::from(vip.network))
        } else {
            SourceEip::default()
        };
        let entry = VipEntry { eip, vni, address };
        let owner = OwnerEntry {
            word,
            pending: pending.unwrap_or_default(),
            damped_until: self.now + vip.damped,
            reported: 0,
        };
        tables.vips.insert(slot, Slot::new(slot, entry, owner));
        tables.addresses.insert(VniAddress { vni, address }, Target::vip(slot));
        let mut vrids = [0; 4];
        for (place, vrid) in vrids.iter_mut().zip(&vip.vrids) {
            *place = *vrid;
        }
        for port in ports_of(subnet) {
            let rights = match self.rights(port, slot) {
                0 => continue,
                1 => Rights::OWN,
                2 => Rights::SOURCE,
                _ => Rights::OWN.with(Rights::SOURCE),
            };
            tables.grants.insert(GrantKey { port, slot }, Grant { rights, zero: [0; 3], vrids });
        }
        let mut listed_members = Members { vni, address, subnet: subnet + 1, ..Members::default() };
        for (place, member) in listed_members.ports.iter_mut().zip(members.iter().copied()) {
            *place = member;
        }
        let mut hosts: Vec<u32> =
            members.iter().filter_map(|member| Some(self.elsewhere(*member)?.0)).collect();
        hosts.sort_unstable();
        hosts.dedup();
        for (place, host) in listed_members.hosts.iter_mut().zip(hosts) {
            *place = u16::try_from(host).expect("a few hosts");
        }
        tables.members.insert(slot, listed_members);
    }
}

fn any_port() -> BoxedStrategy<PortSpec> {
    let rarely = prop::bool::weighted(0.15);
    (prop::bool::weighted(0.3), any::<bool>(), any::<bool>(), rarely, any::<bool>())
        .prop_map(|(bypass, bridged, takes_xdp, unplugged, eip)| PortSpec {
            bypass,
            bridged,
            takes_xdp,
            unplugged,
            eip,
        })
        .boxed()
}

fn any_vip() -> BoxedStrategy<VipSpec> {
    let rights = uniform3(prop_oneof![4 => Just(1), 2 => Just(2), 1 => Just(3), 1 => Just(0)]);
    let vrids = select(vec![vec![], vec![66], vec![67], vec![66, 67]]);
    let owner = (option::weighted(0.8, 0..3_usize), any::<bool>(), 0..1_u64 << 34, any::<bool>());
    let waiting = option::weighted(0.3, (0..3_usize, -3000..3000_i64));
    let damped = prop_oneof![3 => Just(0), 1 => 0..9 * SECOND];
    (rights, vrids, owner, waiting, damped, any::<bool>(), any::<bool>())
        .prop_map(|(rights, vrids, (owner, by_vrid, epoch, claimed), waiting, damped, eip, network)| {
            VipSpec { rights, vrids, owner, by_vrid, epoch, claimed, waiting, damped, eip, network }
        })
        .boxed()
}

/// The tables of the default world, changed.
pub(crate) fn world(change: impl FnOnce(&mut World)) -> MemoryTables {
    let mut world = World::default();
    change(&mut world);
    world.tables()
}

/// Arbitrary consistent tables.
pub(crate) fn any_world() -> BoxedStrategy<World> {
    let switches = (any::<bool>(), any::<bool>(), any::<bool>());
    let host = (switches, prop::bool::weighted(0.8), 20 * SECOND..1_000_000 * SECOND);
    (
        any::<bool>(),
        vec(prop::bool::weighted(0.2), SUBNETS as usize),
        vec(any_port(), PORTS as usize),
        vec(option::weighted(0.8, any_vip()), SLOTS as usize),
        host,
    )
        .prop_map(|(peered, external, ports, vips, (switches, default_route, now))| {
            let (announces, returns, tcp_by_tc) = switches;
            World {
                peered,
                external,
                ports,
                vips,
                announces,
                returns,
                tcp_by_tc,
                default_route,
                now,
                overlay: None,
            }
        })
        .boxed()
}

/// Arbitrary consistent tables of one of several hosts. Claims do not wait: they do so on one host only.
pub(crate) fn any_overlay_world() -> BoxedStrategy<World> {
    (any_world(), vec(1..=HOSTS, PORTS as usize), any::<bool>())
        .prop_map(|(mut world, places, believed)| {
            for vip in world.vips.iter_mut().flatten() {
                vip.waiting = None;
            }
            world.overlay = Some(Overlay { places, believed, ..Overlay::default() });
            world
        })
        .boxed()
}

/// Arbitrary tables in the middle of a change: entries name ports and slots that are gone or belong to somebody else.
pub(crate) fn any_stale_tables() -> BoxedStrategy<MemoryTables> {
    let change = (0..7_u8, any::<prop::sample::Index>(), 0..=PORTS + 1, 0..=SLOTS);
    (any_world(), vec(change, 1..12))
        .prop_map(|(world, changes)| {
            let mut tables = world.tables();
            for (table, place, port, slot) in changes {
                make_stale(&mut tables, table, place, port, slot);
            }
            tables
        })
        .boxed()
}

fn make_stale(tables: &mut MemoryTables, table: u8, place: prop::sample::Index, port: u32, slot: u32) {
    match table {
        0 => {
            let mut keys: Vec<VniAddress> = tables.addresses.keys().copied().collect();
            keys.sort_unstable_by_key(|key| (key.vni, key.address));
            if let Some(target) = tables.addresses.get_mut(&keys[place.index(keys.len())]) {
                *target = if slot.is_multiple_of(2) { Target::vip(slot) } else { Target::port(port) };
            }
        }
        1 => {
            let mut keys: Vec<Ipv4> = tables.eips.keys().copied().collect();
            keys.sort_unstable();
            if keys.is_empty() {
                return;
            }
            if let Some(target) = tables.eips.get_mut(&keys[place.index(keys.len())]) {
                *target = if slot.is_multiple_of(2) { Target::vip(slot) } else { Target::port(port) };
            }
        }
        2 => {
            let word = OwnerWord::new(7, true, port, 0);
            if let Some(record) = tables.vips.get(&slot) {
                record.update(|entry| entry.word = word);
            } else {
                let owner = OwnerEntry { word, ..OwnerEntry::default() };
                tables.vips.insert(slot, Slot::new(slot, VipEntry::default(), owner));
            }
        }
        3 => {
            let rights = Rights::OWN.with(Rights::SOURCE);
            tables
                .grants
                .insert(GrantKey { port, slot }, Grant { rights, zero: [0; 3], vrids: [66, 0, 0, 0] });
        }
        4 => {
            let mut keys: Vec<MacKey> = tables.macs.keys().copied().collect();
            keys.sort_unstable_by_key(|key| (key.vni, key.mac.octets()));
            tables.macs.insert(keys[place.index(keys.len())], port);
        }
        5 => {
            tables.ports.remove(&port);
        }
        _ => {
            tables.vips.remove(&slot);
            tables.members.remove(&slot);
        }
    }
}
