//! The desired state, valid and resolved.
//!
//! Objects refer to each other by [`Ref`], four bytes, and have no allocations of their own where there may be a million of them.

use std::{fmt, net::Ipv4Addr, sync::Arc};

use ipnetwork::Ipv4Network;

use super::{
    MAX_VRIDS, MacAddr,
    names::Names,
    objects::{Objects, Ref},
};
use crate::vlan::Vlan;

/// The name of an object, unique within its kind, where it has to outlive the state. Cheap to clone.
pub type Id = Arc<str>;

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// See [`Host`].
    Host,
    /// See [`Vpc`].
    Vpc,
    /// See [`Subnet`].
    Subnet,
    /// See [`Port`].
    Port,
    /// See [`Group`].
    Group,
    /// See [`Vip`].
    Vip,
    /// See [`Eip`].
    Eip,
    /// See [`Peering`].
    Peering,
}

impl Kind {
    /// The key of the list that holds this kind.
    pub const fn list(self) -> &'static str {
        match self {
            Self::Host => "hosts",
            Self::Vpc => "vpcs",
            Self::Subnet => "subnets",
            Self::Port => "ports",
            Self::Group => "groups",
            Self::Vip => "vips",
            Self::Eip => "eips",
            Self::Peering => "peerings",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Vpc => "vpc",
            Self::Subnet => "subnet",
            Self::Port => "port",
            Self::Group => "group",
            Self::Vip => "vip",
            Self::Eip => "eip",
            Self::Peering => "peering",
        })
    }
}

/// A hypervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its tunnel address on the underlay.
    pub vtep: Ipv4Addr,
}

/// A tenant's network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vpc {
    /// Its number: 1 to 2^24 - 1, unique.
    pub vni: u32,
    /// The VPCs it is peered with, in their order; each of them has this one among its own.
    pub peers: Vec<Ref<Vpc>>,
}

/// Who routes for a subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Router {
    /// The forwarder is the gateway.
    Vip,
    /// Somebody else is; what goes to the gateway and needs no translation is not ours.
    External,
}

/// A prefix inside a VPC. The subnets of a VPC and of its peers do not overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// The VPC it belongs to.
    pub vpc: Ref<Vpc>,
    /// Network address and length; no host bits are set.
    pub cidr: Ipv4Network,
    /// Address of the router, inside `cidr`.
    pub gateway: Ipv4Addr,
    /// Who the router is.
    pub router: Router,
}

/// One guest NIC. Its interface is told by [`State::interface`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The subnet it is in.
    pub subnet: Ref<Subnet>,
    /// The host it lives on.
    pub host: Ref<Host>,
    /// Its fixed address, unique in the VPC.
    pub address: Ipv4Addr,
    /// Its MAC, unique in the VPC.
    pub mac: MacAddr,
    /// The VLAN of its frames on its interface, unique there; none: they have no tag.
    pub vlan: Option<Vlan>,
    /// False: the port may send from and receive any address (bypass).
    pub source_dest_check: bool,
}

/// Ports that share VIPs, all of one subnet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// Its ports, in their order; may be empty.
    pub members: Vec<Ref<Port>>,
}

/// What a port may do with a VIP. At least one is set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rights {
    /// Claim it, send from it, receive it.
    pub own: bool,
    /// Send from it and receive it by MAC: an LVS-DR real server.
    pub source: bool,
}

/// A port that may do something with a VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// The port.
    pub port: Ref<Port>,
    /// What it may.
    pub rights: Rights,
}

/// A floating address. Its ports are told by [`State::bindings`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vip {
    /// The subnet it is in.
    pub subnet: Ref<Subnet>,
    /// The address, unique in the VPC.
    pub address: Ipv4Addr,
    /// Where its bindings begin among those of all VIPs, and how many there are.
    pub(super) bindings: (u32, u32),
    /// Rising; 0 behind the last.
    pub(super) vrids: [u8; MAX_VRIDS],
}

impl Vip {
    /// VRIDs whose virtual MACs may claim it, rising: at most [`MAX_VRIDS`], none of them 0.
    pub fn vrids(&self) -> impl Iterator<Item = u8> + use<> {
        self.vrids.into_iter().filter(|vrid| *vrid != 0)
    }
}

/// What an EIP leads to. No two EIPs have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EipTarget {
    /// The owner of a VIP.
    Vip(Ref<Vip>),
    /// A port, by its fixed address.
    Port(Ref<Port>),
}

/// A public address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eip {
    /// The address: unique, in no subnet of any VPC, no host's tunnel address.
    pub address: Ipv4Addr,
    /// Where it leads.
    pub target: EipTarget,
}

/// Two VPCs whose subnets reach each other; also in [`Vpc::peers`]. Its id is theirs with a `+` between, the lesser first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peering {
    /// The two, the lesser id first.
    pub vpcs: [Ref<Vpc>; 2],
}

/// All that is desired, by id. Every reference in it resolves, and every promise of its types holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Never empty.
    pub hosts: Objects<Host>,
    /// Tenants' networks.
    pub vpcs: Objects<Vpc>,
    /// Their prefixes.
    pub subnets: Objects<Subnet>,
    /// Guests' NICs.
    pub ports: Objects<Port>,
    /// Groups of ports; what they mean is in the VIPs' bindings already.
    pub groups: Objects<Group>,
    /// Floating addresses.
    pub vips: Objects<Vip>,
    /// Public addresses.
    pub eips: Objects<Eip>,
    /// Pairs of VPCs.
    pub peerings: Objects<Peering>,
    /// Interfaces of the ports, in the order of the ports.
    pub(super) interfaces: Names,
    /// Bindings of all VIPs, one after the other.
    pub(super) bindings: Vec<Binding>,
}

impl State {
    /// The host's end of a port's NIC, a tap or veth; with the port's VLAN unique on the host. Need not exist yet.
    pub fn interface(&self, port: Ref<Port>) -> &str {
        self.interfaces.get(port.index())
    }

    /// Ports of a VIP's subnet and their rights, from the group, `ports` and `real_servers` together, in the order of the ports.
    /// Empty: nobody may own it.
    pub fn bindings(&self, vip: &Vip) -> &[Binding] {
        let (begin, count) = vip.bindings;
        let begin = begin as usize;
        self.bindings.get(begin..begin + count as usize).unwrap_or_default()
    }

    /// The VPC of a port.
    pub fn vpc_of_port(&self, port: &Port) -> Ref<Vpc> {
        self.subnets[port.subnet].vpc
    }

    /// The VPC of a VIP.
    pub fn vpc_of_vip(&self, vip: &Vip) -> Ref<Vpc> {
        self.subnets[vip.subnet].vpc
    }

    /// Whether both mean the same traffic: names, remarks, and groups as such (their bindings count) may differ.
    pub fn traffic_eq(&self, other: &Self) -> bool {
        // Taken apart in full, so that a new field has to be thought about here.
        let Self { hosts, vpcs, subnets, ports, groups: _, vips, eips, peerings, interfaces, bindings } =
            self;
        hosts.same_but_labels(&other.hosts)
            && vpcs.same_but_labels(&other.vpcs)
            && subnets.same_but_labels(&other.subnets)
            && ports.same_but_labels(&other.ports)
            && vips.same_but_labels(&other.vips)
            && eips.same_but_labels(&other.eips)
            && peerings.same_but_labels(&other.peerings)
            && *interfaces == other.interfaces
            && *bindings == other.bindings
    }
}
