//! The forwarder's programs with the tables of a [`World`]: the only place of the benchmark that knows its tables.
//!
//! The tables are filled as vipd fills them: a state is compiled, compared with nothing, and the steps are carried out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{ProgramFd, xdp::XdpLink};
use vip_common::{
    DropReason,
    tables::{
        Config, ConfigFlags, LAYOUT_VERSION, NextHop, OwnerWord, Pending, RouteEntry, RouteKind, Traffic,
    },
    wire::{self, Ipv4},
};
use vip_userspace::{
    agent::carry_out,
    config,
    kernel::{Capacity, Runner, RunnerProgram, Tables},
    plan::{Contents, Desired, Indexes, Interface, Interfaces, Resting, compile, diff},
    state::{Eip, EipTarget, Host, Id, MacAddr, Port, Rights, Router, State, Subnet, Vip, Vpc},
};

use super::world::{self, World};

/// The loaded programs.
pub(super) struct Forwarder {
    runner: Runner,
    desired: Desired,
}

/// What the tables say that the programs did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Packets by EIP, both directions.
    pub(super) eips: Traffic,
    /// EIPs with any packet.
    pub(super) eips_used: u32,
    /// Packets by VIP, both directions.
    pub(super) vips: Traffic,
    /// VIPs with any packet.
    pub(super) vips_used: u32,
    /// Moves of all VIPs.
    pub(super) moves: u64,
    /// VIPs for which a claim waits.
    pub(super) waiting: u32,
    /// Dropped packets by reason.
    pub(super) drops: BTreeMap<&'static str, u64>,
}

impl Forwarder {
    /// Loads an object and fills its tables. The calling thread's namespace has the world's interfaces.
    pub(super) fn load(object: &[u8], world: World) -> Result<Self> {
        let (ports, vips, eips, subnets) = (world::PORTS, world.entries, world.entries, 4);
        let capacity = Capacity { ports, vips, eips, subnets };
        let runner = Runner::load_unobserved(object, &capacity)?;
        let wanted = config::Capacity { ports, vips, eips, subnets };
        let resting = Resting::default();
        let indexes = Indexes::of(&Contents::default(), &wanted, &resting);
        let desired = compile(&state(world)?, &[], &interfaces(), &indexes);
        if let Some(refused) = desired.refused.first() {
            anyhow::bail!("{refused}");
        }
        let tables = runner.tables();
        for step in diff(&Contents::default(), &desired.contents) {
            carry_out(tables, &step)?;
        }
        set_host(tables)?;
        let forwarder = Self { runner, desired };
        forwarder.give_to_owners(world)?;
        Ok(forwarder)
    }

    /// A program.
    pub(super) fn program(&mut self, program: RunnerProgram) -> Result<&ProgramFd> {
        Ok(self.runner.program(program)?)
    }

    /// Puts the uplink's program on an interface, until the link is dropped.
    pub(super) fn attach(&mut self, ifindex: u32) -> Result<XdpLink> {
        Ok(self.runner.attach_uplink(ifindex)?)
    }

    /// Every VIP belongs to its owner, as after a first claim.
    fn give_to_owners(&self, world: World) -> Result<()> {
        let owners = &self.runner.tables().owners;
        for vip in 0..world.entries {
            let slot = *self.desired.vips.get(&vip_id(vip)).context("a VIP without a slot")?;
            let port = port_id(world.owner_of(vip));
            let port = *self.desired.ports.get(&port).context("a port without an index")?;
            let old = owners.load(slot)?.word;
            ensure!(owners.swap_word(slot, old, OwnerWord::new(1, true, port, 0))?, "somebody moved a VIP");
        }
        Ok(())
    }

    /// Everything that is counted.
    pub(super) fn counted(&self) -> Result<Counted> {
        let tables = self.runner.tables();
        let mut counted = Counted::default();
        for index in self.desired.eips.values() {
            counted.eips_used += add(&mut counted.eips, tables.eip_traffic.sum(*index)?);
        }
        for slot in self.desired.vips.values() {
            counted.vips_used += add(&mut counted.vips, tables.vip_traffic.sum(*slot)?);
            let entry = tables.owners.load(*slot)?;
            counted.moves += entry.word.epoch();
            counted.waiting += u32::from(entry.pending != Pending::NONE);
        }
        for reason in DropReason::ALL {
            let packets = tables.drops.sum(reason.index())?;
            if packets > 0 {
                counted.drops.insert(reason.name(), packets);
            }
        }
        Ok(counted)
    }
}

/// Adds what one object counted; tells whether it is anything.
fn add(sum: &mut Traffic, one: Traffic) -> u32 {
    sum.packets_in += one.packets_in;
    sum.bytes_in += one.bytes_in;
    sum.packets_out += one.packets_out;
    sum.bytes_out += one.bytes_out;
    u32::from(one != Traffic::default())
}

fn port_id(port: u32) -> Id {
    format!("port-{port}").into()
}

fn vip_id(vip: u32) -> Id {
    format!("vip-{vip}").into()
}

/// The objects of a world.
fn state(world: World) -> Result<State> {
    let mut state = State::default();
    let (host, vpc, subnet): (Id, Id, Id) = ("hv1".into(), "blue".into(), "web".into());
    let (network, prefix) = world::SUBNET;
    let vtep = Ipv4Addr::new(172, 31, 0, 1);
    state.hosts.insert(Arc::clone(&host), Host { id: Arc::clone(&host), vtep });
    let entry = Vpc { id: Arc::clone(&vpc), vni: world::VNI, peers: BTreeSet::new() };
    state.vpcs.insert(Arc::clone(&vpc), entry);
    let entry = Subnet {
        id: Arc::clone(&subnet),
        vpc: Arc::clone(&vpc),
        cidr: ipnetwork::Ipv4Network::new(network, prefix)?,
        gateway: world::GATEWAY,
        router: Router::Vip,
    };
    state.subnets.insert(Arc::clone(&subnet), entry);
    for port in 0..world::PORTS {
        let id = port_id(port);
        let entry = Port {
            id: Arc::clone(&id),
            subnet: Arc::clone(&subnet),
            vpc: Arc::clone(&vpc),
            address: world::port_address(port),
            mac: MacAddr::new(world::port_mac(port).0),
            host: Arc::clone(&host),
            interface: format!("port{port}"),
            source_dest_check: true,
        };
        state.ports.insert(id, entry);
    }
    let own = Rights { own: true, source: false };
    for vip in 0..world.entries {
        let id = vip_id(vip);
        let members = [world.owner_of(vip), world::STANDBY];
        let entry = Vip {
            id: Arc::clone(&id),
            subnet: Arc::clone(&subnet),
            vpc: Arc::clone(&vpc),
            address: world::nth(world::FIRST_VIP, vip),
            bindings: members.into_iter().map(|port| (port_id(port), own)).collect(),
            vrids: BTreeSet::new(),
        };
        state.vips.insert(Arc::clone(&id), entry);
        let eip: Id = format!("eip-{vip}").into();
        let entry = Eip {
            id: Arc::clone(&eip),
            address: world::nth(world::FIRST_EIP, world.eip_of(vip)),
            target: EipTarget::Vip(id),
        };
        state.eips.insert(eip, entry);
    }
    Ok(state)
}

fn interfaces() -> Interfaces {
    (0..world::PORTS)
        .map(|port| {
            let ifindex = world::port_interface(port);
            (format!("port{port}"), Interface { ifindex, bridged: false, takes_xdp: true })
        })
        .collect()
}

/// The host's own entries: the uplink, the way out, a neighbour that is known for good.
fn set_host(tables: &Tables) -> Result<()> {
    let mac = |mac: crate::Mac| wire::Mac::new(mac.0);
    let address = |address: Ipv4Addr| Ipv4::new(address.octets());
    let flags = ConfigFlags::default().with(ConfigFlags::ANNOUNCE_EIPS).with(ConfigFlags::UPLINK_RETURNS);
    tables.config.set(
        0,
        Config {
            layout: LAYOUT_VERSION,
            uplink: world::UPLINK,
            routed_by: world::UPLINK,
            uplink_mac: mac(world::UPLINK_MAC),
            flags,
            neighbours_until: u64::MAX,
            ..Config::default()
        },
    )?;
    let gateway = RouteEntry::new(RouteKind::Gateway(address(world::ROUTER)));
    tables.routes.insert(Ipv4::UNSPECIFIED, 0, gateway)?;
    tables.nexthops.insert(address(world::ROUTER), NextHop { mac: mac(world::ROUTER_MAC), zero: 0 })?;
    Ok(())
}
