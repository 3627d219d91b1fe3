//! Worlds: a state and the interfaces of its host.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::Ipv4Addr,
};

use proptest::{collection::vec, option, prelude::*};
use vip_userspace::{
    plan::{Interface, Interfaces},
    state::{State, parse},
};

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) text: String,
    pub(crate) state: State,
    pub(crate) interfaces: Interfaces,
}

impl World {
    pub(crate) fn of(text: String, interfaces: Interfaces) -> Self {
        let state = parse(&text, "world", None).unwrap_or_else(|error| panic!("{error}\n{text}"));
        Self { text, state, interfaces }
    }
}

/// A port by numbers small enough that two worlds often disagree about who has what.
#[derive(Clone, Debug)]
pub(crate) struct PortSeed {
    pub(crate) subnet: u8,
    pub(crate) address: u8,
    pub(crate) mac: u8,
    pub(crate) host: u8,
    pub(crate) interface: u8,
    pub(crate) bypass: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct VipSeed {
    pub(crate) subnet: u8,
    pub(crate) address: u8,
    pub(crate) bindings: Vec<(u8, bool, bool)>,
    pub(crate) vrid: Option<u8>,
}

fn port_seed() -> impl Strategy<Value = PortSeed> {
    (0..4_u8, 0..6_u8, 0..6_u8, 1..4_u8, 0..6_u8, any::<bool>()).prop_map(
        |(subnet, address, mac, host, interface, bypass)| PortSeed {
            subnet,
            address,
            mac,
            host,
            interface,
            bypass,
        },
    )
}

fn vip_seed() -> impl Strategy<Value = VipSeed> {
    (0..4_u8, 0..6_u8, vec((0..8_u8, any::<bool>(), any::<bool>()), 0..5), option::of(66..68_u8))
        .prop_map(|(subnet, address, bindings, vrid)| VipSeed { subnet, address, bindings, vrid })
}

/// Two VPCs with two subnets each; the second VPC has the addresses of the first. Seeds that no valid state holds (an
/// address or MAC twice in a VPC, an interface twice on the host) are left out.
pub(crate) fn world() -> impl Strategy<Value = World> {
    (
        vec(port_seed(), 0..8),
        vec(vip_seed(), 0..5),
        vec((0..4_u8, any::<bool>(), 0..8_u8), 0..4),
        vec(option::weighted(0.8, (1..9_u32, any::<bool>(), any::<bool>())), 6),
        any::<bool>(),
        0..2_u8,
        (any::<bool>(), any::<bool>()),
    )
        .prop_map(|(ports, vips, eips, interfaces, peered, routers, (lists_all, renumbered))| {
            let World { mut text, interfaces, .. } =
                build(&ports, &vips, &eips, &interfaces, peered, routers);
            if renumbered {
                text = text.replace("172.31.0.2", "172.31.0.12");
            }
            if !lists_all && !text.contains("host: hv3") {
                text = text.replace(", { id: hv3, vtep: 172.31.0.3 }", "");
            }
            World::of(text, interfaces)
        })
}

pub(crate) fn build(
    ports: &[PortSeed],
    vips: &[VipSeed],
    eips: &[(u8, bool, u8)],
    interfaces: &[Option<(u32, bool, bool)>],
    peered: bool,
    routers: u8,
) -> World {
    // Writing to a string cannot fail.
    let mut text = String::from(
        "hosts: [{ id: hv1, vtep: 172.31.0.1 }, { id: hv2, vtep: 172.31.0.2 }, { id: hv3, vtep: 172.31.0.3 }]\nvpcs:\n",
    );
    for vpc in 0..2 {
        let _ = writeln!(text, "  - {{ id: vpc{vpc}, vni: {} }}", 100 + vpc);
    }
    // Peers reach each other and must not overlap.
    let second = |vpc: u8| if peered { vpc } else { 0 };
    text += "subnets:\n";
    for (vpc, half) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let (number, net) = (vpc * 2 + half, second(vpc));
        let router = if routers == half { "vip" } else { "external" };
        let _ = writeln!(
            text,
            "  - {{ id: subnet{number}, vpc: vpc{vpc}, cidr: 10.{net}.{half}.0/24, gateway: 10.{net}.{half}.1, router: {router} }}"
        );
    }
    let mut addresses = BTreeSet::new();
    let mut macs = BTreeSet::new();
    let mut taken = BTreeSet::new();
    let mut known = BTreeMap::new();
    text += "ports:\n";
    for (number, seed) in ports.iter().enumerate() {
        let vpc = seed.subnet / 2;
        let address = Ipv4Addr::new(10, second(vpc), seed.subnet % 2, 10 + seed.address);
        if !addresses.insert((vpc, address))
            || !macs.insert((vpc, seed.mac))
            || !taken.insert((seed.host, seed.interface))
        {
            continue;
        }
        known.insert(number, seed.subnet);
        let _ = writeln!(
            text,
            "  - {{ id: port{number}, subnet: subnet{}, address: {address}, mac: 02:00:00:00:00:{:02x}, host: hv{}, interface: tap{}, source_dest_check: {} }}",
            seed.subnet, seed.mac, seed.host, seed.interface, !seed.bypass
        );
    }
    if known.is_empty() {
        text += "  []\n";
    }
    let mut vip_lines = String::new();
    let mut known_vips = BTreeSet::new();
    for (number, seed) in vips.iter().enumerate() {
        let vpc = seed.subnet / 2;
        let address = Ipv4Addr::new(10, second(vpc), seed.subnet % 2, 10 + seed.address);
        if !addresses.insert((vpc, address)) {
            continue;
        }
        known_vips.insert(number);
        // The last binding of a port counts.
        let bindings: BTreeMap<u8, (bool, bool)> =
            seed.bindings.iter().map(|&(port, own, source)| (port, (own || !source, source))).collect();
        let mut bound =
            bindings.iter().filter(|(port, _)| known.get(&usize::from(**port)) == Some(&seed.subnet));
        let owners = list(bound.clone().filter(|(_, (own, _))| *own).map(|(port, _)| port));
        let sources = list(bound.by_ref().filter(|(_, (_, source))| *source).map(|(port, _)| port));
        let vrids = seed.vrid.map_or_else(String::new, |vrid| vrid.to_string());
        let _ = writeln!(
            vip_lines,
            "  - {{ id: vip{number}, subnet: subnet{}, address: {address}, ports: [{owners}], real_servers: [{sources}], vrids: [{vrids}] }}",
            seed.subnet
        );
    }
    let mut targets = BTreeSet::new();
    let mut publics = BTreeSet::new();
    let mut eip_lines = String::new();
    for &(last, to_vip, target) in eips {
        let number = usize::from(target);
        let known = if to_vip { known_vips.contains(&number) } else { known.contains_key(&number) };
        let kind = if to_vip { "vip" } else { "port" };
        if known && publics.insert(last) && targets.insert((to_vip, target)) {
            let _ = writeln!(
                eip_lines,
                "  - {{ id: eip{last}, address: 203.0.113.{last}, {kind}: {kind}{target} }}"
            );
        }
    }
    for (list, lines) in [("vips", vip_lines), ("eips", eip_lines)] {
        let lines = if lines.is_empty() { "  []\n".to_owned() } else { lines };
        let _ = write!(text, "{list}:\n{lines}");
    }
    if peered {
        text += "peerings: [{ vpcs: [vpc0, vpc1] }]\n";
    }
    let mut numbers = BTreeSet::new();
    let interfaces = interfaces
        .iter()
        .enumerate()
        .filter_map(|(number, interface)| Some((format!("tap{number}"), (*interface)?)))
        .filter(|(_, (ifindex, ..))| numbers.insert(*ifindex))
        .map(|(name, (ifindex, bridged, takes_xdp))| {
            (name, Interface { ifindex, bridged, takes_xdp, takes_xdp_frags: takes_xdp, mtu: 1500 })
        })
        .collect();
    World::of(text, interfaces)
}

fn list<'p>(ports: impl Iterator<Item = &'p u8>) -> String {
    ports.map(|port| format!("port{port}")).collect::<Vec<_>>().join(", ")
}

pub(crate) fn seed(subnet: u8, address: u8, mac: u8, interface: u8) -> PortSeed {
    PortSeed { subnet, address, mac, host: 1, interface, bypass: false }
}

pub(crate) fn seed_on(host: u8, subnet: u8, address: u8, interface: u8) -> PortSeed {
    PortSeed { host, ..seed(subnet, address, address, interface) }
}
