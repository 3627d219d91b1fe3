//! Subnets of VPCs, and this host's way to the outside.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::wire::{Ipv4, Mac};

/// Value of SUBNETS: a prefix that a VPC reaches, its own or a peer's. 12 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SubnetEntry {
    /// VNI of the VPC that has the subnet: another one than the key's for a peer.
    pub vni: u32,
    /// Index of the subnet.
    pub subnet: u32,
    /// Root page in NODES of the addresses of the VPC that has the subnet.
    pub root: u32,
}

/// Where a route of this host leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// Through the uplink to this gateway.
    Gateway(Ipv4),
    /// The destination is a neighbour on the uplink.
    OnLink,
    /// An address of this host itself.
    Local,
    /// Not through the uplink, or nowhere.
    Elsewhere,
}

/// Value of ROUTES; by default, [`RouteKind::Elsewhere`]. 8 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RouteEntry {
    kind: u32,
    gateway: Ipv4,
}

impl RouteEntry {
    const GATEWAY: u32 = 1;
    const ON_LINK: u32 = 2;
    const LOCAL: u32 = 3;

    /// A route of this kind.
    pub const fn new(kind: RouteKind) -> Self {
        match kind {
            RouteKind::Gateway(gateway) => Self { kind: Self::GATEWAY, gateway },
            RouteKind::OnLink => Self { kind: Self::ON_LINK, gateway: Ipv4::UNSPECIFIED },
            RouteKind::Local => Self { kind: Self::LOCAL, gateway: Ipv4::UNSPECIFIED },
            RouteKind::Elsewhere => Self { kind: 0, gateway: Ipv4::UNSPECIFIED },
        }
    }

    /// Whether the destination is this host itself.
    #[inline(always)]
    pub const fn is_local(&self) -> bool {
        self.kind == Self::LOCAL
    }

    /// Address of the neighbour on the uplink that leads to a destination; unspecified: there is none.
    #[inline(always)]
    pub const fn next_hop(&self, destination: Ipv4) -> Ipv4 {
        match self.kind {
            Self::GATEWAY => self.gateway,
            Self::ON_LINK => destination,
            _ => Ipv4::UNSPECIFIED,
        }
    }

    /// Where the route leads.
    pub const fn kind(&self) -> RouteKind {
        match self.kind {
            Self::GATEWAY => RouteKind::Gateway(self.gateway),
            Self::ON_LINK => RouteKind::OnLink,
            Self::LOCAL => RouteKind::Local,
            _ => RouteKind::Elsewhere,
        }
    }
}

/// Value of NEXTHOPS. 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NextHop {
    /// MAC of the neighbour.
    pub mac: Mac,
    /// Always 0.
    pub zero: u16,
}

/// Value of NETWORKS: a provider network that EIPs come from. 20 bytes. Index 0 is unused: no network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EipNetwork {
    /// First address of the prefix.
    pub network: Ipv4,
    /// Mask of the prefix.
    pub mask: Ipv4,
    /// Next hop of destinations outside the prefix.
    pub gateway: Ipv4,
    /// The VLAN interface on the uplink that the network is reached by; 0: the uplink itself; [`Self::MISSING`].
    pub ifindex: u32,
    /// Longest IP packet that leaves by the VLAN interface, in bytes; 0: not known, or it is the uplink itself.
    pub mtu: u32,
}

impl EipNetwork {
    /// No interface has this number: the network's VLAN interface does not exist at the moment.
    pub const MISSING: u32 = u32::MAX;

    /// Next hop of a destination: itself inside the prefix, else the gateway.
    #[inline(always)]
    pub const fn next_hop(&self, destination: Ipv4) -> Ipv4 {
        if destination.is_in(self.network, self.mask) { destination } else { self.gateway }
    }
}
