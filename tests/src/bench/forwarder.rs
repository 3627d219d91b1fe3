//! The forwarder's programs with the tables of a [`World`]: the only place of the benchmark that knows its tables.
//!
//! The tables are filled as vipd fills them: what they shall contain is compared with nothing, and the steps are carried out.

use std::{collections::BTreeMap, net::Ipv4Addr};

use anyhow::{Result, ensure};
use aya::programs::{ProgramFd, xdp::XdpLink};
use vip_common::{
    DropReason,
    tables::{
        AddressKind, Config, ConfigFlags, Grant, HostEntry, LAYOUT_VERSION, Members, NextHop, OwnerWord,
        Pending, PortEntry, PortFlags, Rights, RouteEntry, RouteKind, SubnetEntry, Target, Traffic, Way,
    },
    wire::{self, EtherType, Ethernet, Ipv4, Ipv4Header},
};
use vip_userspace::{
    agent::fill,
    kernel::{Capacity, Runner, RunnerProgram, Tables},
    plan::{AddressEntry, Contents, Prefix, diff},
};

use super::world::{self, Owners, World};

/// The loaded programs.
pub(super) struct Forwarder {
    runner: Runner,
    world: World,
    owners: Owners,
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
    /// Packets of VIPs that were sent on to the owner's host.
    pub(super) onward: u64,
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
        let (vips, eips, subnets) = (world.entries, world.entries, 4);
        let (ports, hosts) = (world::PORTS + world::FAR_OWNERS, world::HOSTS + 1);
        let capacity = Capacity { ports, vips, eips, subnets, hosts };
        let runner = Runner::load_unobserved(object, &capacity)?;
        let tables = runner.tables();
        fill(tables, &diff(&Contents::default(), &contents(world)))?;
        set_host(tables)?;
        let mut forwarder = Self { runner, world, owners: Owners::Here };
        forwarder.give_to_owners()?;
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

    /// Has the VIPs owned here or elsewhere from now on.
    pub(super) fn set_owners(&mut self, owners: Owners) -> Result<()> {
        if self.owners != owners {
            self.owners = owners;
            self.give_to_owners()?;
        }
        Ok(())
    }

    /// Every VIP belongs to its owner, as after a claim.
    fn give_to_owners(&mut self) -> Result<()> {
        let Self { runner, world, owners } = self;
        let words = &runner.tables().vips;
        for vip in 0..world.entries {
            let port = match owners {
                Owners::Here => world.owner_of(vip),
                Owners::Elsewhere => world::far_owner_of(vip),
            };
            let old = words.load(vip)?.word;
            let new = OwnerWord::new(old.epoch() + 1, true, port_index(port), 0);
            ensure!(words.swap_word(vip, old, new)?, "somebody moved a VIP");
        }
        Ok(())
    }

    /// Everything that is counted.
    pub(super) fn counted(&self) -> Result<Counted> {
        let tables = self.runner.tables();
        let mut counted = Counted::default();
        for slot in 0..self.world.entries {
            // Every VIP has an EIP, whose traffic is the VIP's that goes that way.
            counted.eips_used += add(&mut counted.eips, tables.vips.traffic(slot, Way::Eip)?);
            counted.vips_used += add(&mut counted.vips, tables.vips.all_traffic(slot)?);
            counted.onward += tables.vips.traffic(slot, Way::Onward)?.packets_in;
            let entry = tables.vips.load(slot)?;
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

/// Index of a port in the tables: 0 is none.
const fn port_index(port: u32) -> u32 {
    port + 1
}

/// Index of another host in the tables.
const fn host_index(host: u32) -> u32 {
    host + 1
}

/// Index of the subnet.
const SUBNET: u32 = 1;

/// What the tables contain for a world. A VIP's slot is its number.
fn contents(world: World) -> Contents {
    let mut contents = Contents::default();
    let (network, prefix) = world::SUBNET;
    let vni = world::VNI;
    contents.subnets.insert(
        Prefix { vni, network: network.into(), length: prefix },
        SubnetEntry { vni, subnet: SUBNET, root: 0 },
    );
    let mut add = |address: Ipv4Addr, entry| contents.addresses.insert((vni, address.into()), entry);
    add(world::GATEWAY, AddressEntry::new(AddressKind::Gateway(SUBNET)));
    for port in 0..world::PORTS + world::FAR_OWNERS {
        let index = port_index(port);
        add(world::port_address(port), AddressEntry::new(AddressKind::Fixed(index)));
    }
    for vip in 0..world.entries {
        let eip = world::nth(world::FIRST_EIP, world.eip_of(vip));
        let entry = AddressEntry::new(AddressKind::Vip(vip)).with_eip(eip.into(), 0);
        add(world::nth(world::FIRST_VIP, vip), entry);
    }
    for port in 0..world::PORTS + world::FAR_OWNERS {
        let index = port_index(port);
        let mac = world::port_mac(port);
        let (ifindex, flags) = if port < world::PORTS {
            let ifindex = world::port_interface(port);
            contents.port_devs.insert(index, ifindex);
            contents.interfaces.insert(ifindex, index);
            (ifindex, PortFlags::TAKES_XDP)
        } else {
            (host_index(world::host_of(port)), PortFlags::REMOTE)
        };
        let entry = PortEntry {
            ifindex,
            vni,
            subnet: SUBNET,
            address: world::port_address(port).into(),
            gateway: world::GATEWAY.into(),
            mask: Ipv4::from_raw(u32::MAX.unbounded_shl(32 - u32::from(prefix)).to_be()),
            mac: wire::Mac::new(mac.0),
            flags,
            ..PortEntry::default()
        };
        contents.ports.insert(index, entry);
        contents.macs.insert((vni, mac.0), index);
    }
    for host in 0..world::HOSTS {
        contents.hosts.insert(host_index(host), world::vtep(host).into());
        contents.vteps.insert(world::vtep(host).into(), host_index(host));
    }
    contents.vteps.insert(world::OWN_VTEP.into(), host_index(world::HOSTS));
    contents.vnis.insert(vni);
    let own = Grant { rights: Rights::OWN, ..Grant::default() };
    for vip in 0..world.entries {
        let members = [world.owner_of(vip), world::STANDBY].map(port_index);
        let mut entry = Members {
            vni,
            address: world::nth(world::FIRST_VIP, vip).into(),
            subnet: SUBNET,
            ..Members::default()
        };
        for (place, member) in entry.ports.iter_mut().zip(members) {
            *place = member;
            contents.grants.insert((member, vip), own);
        }
        contents.members.insert(vip, entry);
        let eip = world::nth(world::FIRST_EIP, world.eip_of(vip));
        contents.eips.insert(eip.into(), Target::vip(vip));
    }
    contents
}

/// The host's own entries: the uplink, the way out, a neighbour that is known for good, other hosts that are neighbours too.
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
            vtep: address(world::OWN_VTEP),
            ..Config::default()
        },
    )?;
    let gateway = RouteEntry::new(RouteKind::Gateway(address(world::ROUTER)));
    tables.routes.insert(Ipv4::UNSPECIFIED, 0, gateway)?;
    tables.nexthops.insert(address(world::ROUTER), NextHop { mac: mac(world::ROUTER_MAC), zero: 0 })?;
    for host in 0..world::HOSTS {
        let ethernet = Ethernet {
            destination: mac(world::host_mac(host)),
            source: mac(world::UPLINK_MAC),
            ether_type: EtherType::IPV4,
        };
        let next_hop = address(world::vtep(host));
        let ip = Ipv4Header::tunnel(address(world::OWN_VTEP), next_hop);
        tables
            .hosts
            .set(host_index(host), HostEntry { ethernet, ip, mtu: 1500, next_hop, ..HostEntry::default() })?;
    }
    Ok(())
}
