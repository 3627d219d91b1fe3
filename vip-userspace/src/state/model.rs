//! The desired state, valid and resolved.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::Ipv4Addr,
    sync::Arc,
};

use ipnetwork::Ipv4Network;

use super::MacAddr;

/// The name of an object, unique within its kind. Cheap to clone: objects refer to each other by it.
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
    /// See [`State::peerings`].
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

/// Words for people: they never touch traffic and therefore stand apart from the objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Label {
    /// A display name.
    pub name: Option<String>,
    /// Anything an operator wants to remember.
    pub remark: Option<String>,
}

impl Label {
    /// A label, if there is a word in it.
    pub(super) fn of(name: Option<String>, remark: Option<String>) -> Option<Self> {
        (name.is_some() || remark.is_some()).then_some(Self { name, remark })
    }
}

/// A hypervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its id.
    pub id: Id,
    /// Its tunnel address on the underlay.
    pub vtep: Ipv4Addr,
}

/// A tenant's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vpc {
    /// Its id.
    pub id: Id,
    /// Its number: 1 to 2^24 - 1, unique.
    pub vni: u32,
    /// The VPCs it is peered with; each of them has this one among its own.
    pub peers: BTreeSet<Id>,
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
    /// Its id.
    pub id: Id,
    /// The VPC it belongs to.
    pub vpc: Id,
    /// Network address and length; no host bits are set.
    pub cidr: Ipv4Network,
    /// Address of the router, inside `cidr`.
    pub gateway: Ipv4Addr,
    /// Who the router is.
    pub router: Router,
}

/// One guest NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its id.
    pub id: Id,
    /// The subnet it is in.
    pub subnet: Id,
    /// The VPC of that subnet.
    pub vpc: Id,
    /// Its fixed address, unique in the VPC.
    pub address: Ipv4Addr,
    /// Its MAC, unique in the VPC.
    pub mac: MacAddr,
    /// The host it lives on.
    pub host: Id,
    /// The host's end of the NIC, a tap or veth; unique on the host. Need not exist yet.
    pub interface: String,
    /// False: the port may send from and receive any address (bypass).
    pub source_dest_check: bool,
}

/// Ports that share VIPs, all of one subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its id.
    pub id: Id,
    /// Its ports; may be empty.
    pub members: BTreeSet<Id>,
}

/// What a port may do with a VIP. At least one is set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rights {
    /// Claim it, send from it, receive it.
    pub own: bool,
    /// Send from it and receive it by MAC: an LVS-DR real server.
    pub source: bool,
}

/// A floating address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vip {
    /// Its id.
    pub id: Id,
    /// The subnet it is in.
    pub subnet: Id,
    /// The VPC of that subnet.
    pub vpc: Id,
    /// The address, unique in the VPC.
    pub address: Ipv4Addr,
    /// Ports of the same subnet and their rights, from the group, `ports` and `real_servers` together. Empty:
    /// nobody may own it.
    pub bindings: BTreeMap<Id, Rights>,
    /// VRIDs whose virtual MACs may claim it: at most [`MAX_VRIDS`](super::MAX_VRIDS), none of them 0.
    pub vrids: BTreeSet<u8>,
}

/// What an EIP leads to. No two EIPs have the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EipTarget {
    /// The owner of a VIP.
    Vip(Id),
    /// A port, by its fixed address.
    Port(Id),
}

/// A public address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eip {
    /// Its id.
    pub id: Id,
    /// The address: unique, in no subnet of any VPC, no host's tunnel address.
    pub address: Ipv4Addr,
    /// Where it leads.
    pub target: EipTarget,
}

/// All that is desired, by id. Every reference in it resolves, and every promise of its types holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Never empty.
    pub hosts: BTreeMap<Id, Host>,
    /// Tenants' networks.
    pub vpcs: BTreeMap<Id, Vpc>,
    /// Their prefixes.
    pub subnets: BTreeMap<Id, Subnet>,
    /// Guests' NICs.
    pub ports: BTreeMap<Id, Port>,
    /// Groups of ports; what they mean is in the VIPs' bindings already.
    pub groups: BTreeMap<Id, Group>,
    /// Floating addresses.
    pub vips: BTreeMap<Id, Vip>,
    /// Public addresses.
    pub eips: BTreeMap<Id, Eip>,
    /// Pairs of VPCs whose subnets reach each other, the lesser id first; also in [`Vpc::peers`].
    pub peerings: BTreeSet<(Id, Id)>,
    /// Words for people, for the objects that have some; a peering's id is its two VPCs with a `+` between.
    pub labels: BTreeMap<(Kind, Id), Label>,
}

impl State {
    /// The words for people of one object.
    pub fn label(&self, kind: Kind, id: &Id) -> Option<&Label> {
        self.labels.get(&(kind, Id::clone(id)))
    }

    /// Whether both mean the same traffic: names, remarks, and groups as such (their bindings count) may differ.
    pub fn traffic_eq(&self, other: &Self) -> bool {
        // Taken apart in full, so that a new field has to be thought about here.
        let Self { hosts, vpcs, subnets, ports, groups: _, vips, eips, peerings, labels: _ } = self;
        *hosts == other.hosts
            && *vpcs == other.vpcs
            && *subnets == other.subnets
            && *ports == other.ports
            && *vips == other.vips
            && *eips == other.eips
            && *peerings == other.peerings
    }
}
