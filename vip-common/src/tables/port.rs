//! Ports, and what bindings let them do with VIPs.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::SourceEip;
use crate::wire::{Ipv4, Mac};

/// Most ports that may own one VIP: receivers of its VRRP advertisements.
pub const MAX_MEMBERS: usize = 16;

/// Properties of a port that the programs act on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct PortFlags(u16);

impl PortFlags {
    /// Source/destination check off.
    pub const BYPASS: Self = Self(1);
    /// The interface is enslaved to a bridge or to OVS: accepted claims also go on to it.
    pub const BRIDGED: Self = Self(1 << 1);
    /// The interface takes XDP frames (NDO_XMIT): PORT_DEVS has it.
    pub const TAKES_XDP: Self = Self(1 << 2);
    /// The interface takes XDP frames in several buffers too (NDO_XMIT_SG): those longer than a page.
    pub const TAKES_XDP_FRAGS: Self = Self(1 << 4);
    /// Other ports have VLAN interfaces on this one: tagged frames are theirs, and are checked there.
    pub const TRUNK: Self = Self(1 << 5);
    /// The subnet's gateway is somebody else (`router: external`).
    pub const EXTERNAL_ROUTER: Self = Self(1 << 3);
    /// The port is on another host.
    pub const REMOTE: Self = Self(1 << 6);

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is left of the set without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` is set.
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A set of at most [`VridSet::CAPACITY`] VRIDs, one byte each; 0: a free place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct VridSet([u32; 4]);

impl VridSet {
    /// Most VRIDs of a port.
    pub const CAPACITY: usize = 16;

    /// Adds a VRID (1 to 255); tells whether it is in the set now: there may be no room.
    #[must_use]
    pub fn insert(&mut self, vrid: u8) -> bool {
        if self.contains(vrid) {
            return true;
        }
        match self.0.as_mut_bytes().iter_mut().find(|place| **place == 0) {
            Some(place) => *place = vrid,
            None => return false,
        }
        true
    }

    /// Whether the VRID is in the set; 0 never is.
    #[inline(always)]
    pub fn contains(&self, vrid: u8) -> bool {
        const ONES: u32 = 0x0101_0101;
        const HIGHS: u32 = 0x8080_8080;
        let [a, b, c, d] = self.0;
        // A byte that is equal becomes zero, and only where there is a zero byte does this leave a high bit.
        let hits = |word: u32| {
            let other = word ^ ONES.wrapping_mul(u32::from(vrid));
            other.wrapping_sub(ONES) & !other & HIGHS
        };
        vrid != 0 && (hits(a) | hits(b) | hits(c) | hits(d)) != 0
    }
}

/// The port of a record of PORTS: all that a packet needs of it in one cache line. 64 bytes. Index 0 is no port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PortEntry {
    /// Interface on this host; of a port on another host ([`PortFlags::REMOTE`]) that host's index in HOSTS. 0: none at the moment.
    pub ifindex: u32,
    /// VNI of the VPC; 0: no such port.
    pub vni: u32,
    /// Index of the subnet.
    pub subnet: u32,
    /// Fixed address.
    pub address: Ipv4,
    /// The subnet's gateway.
    pub gateway: Ipv4,
    /// The subnet's mask.
    pub mask: Ipv4,
    /// The guest's MAC.
    pub mac: Mac,
    /// Properties.
    pub flags: PortFlags,
    /// The EIP that the fixed address leaves as.
    pub eip: SourceEip,
    /// Root page in NODES of the VPC's addresses.
    pub root: u32,
    /// Longest IP packet that the interface takes, or the way to the other host, in bytes; 0: not known, so anything may.
    pub mtu: u32,
    /// VRIDs whose virtual router MACs the port may send from: those of all its grants.
    pub vrids: VridSet,
}

/// Key of MACS. 12 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MacKey {
    /// VNI of the VPC.
    pub vni: u32,
    /// A port's MAC.
    pub mac: Mac,
    /// Always 0: makes the size a multiple of the alignment.
    pub zero: u16,
}

impl MacKey {
    /// The key of a MAC in a VPC.
    #[inline(always)]
    pub const fn new(vni: u32, mac: Mac) -> Self {
        Self { vni, mac, zero: 0 }
    }
}

/// What a binding lets a port do with a VIP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Rights(u8);

impl Rights {
    /// Claim it, send from it, receive for it.
    pub const OWN: Self = Self(1);
    /// Send from it and receive it by MAC: a real server of LVS-DR.
    pub const SOURCE: Self = Self(1 << 1);

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The right to own.
    #[inline(always)]
    pub const fn may_own(self) -> bool {
        self.0 & Self::OWN.0 != 0
    }

    /// The right to send from the address: *own* implies it.
    #[inline(always)]
    pub const fn may_source(self) -> bool {
        self.0 & (Self::OWN.0 | Self::SOURCE.0) != 0
    }

    /// *source* without *own*: receives the VIP by MAC.
    #[inline(always)]
    pub const fn is_real_server(self) -> bool {
        self.0 & (Self::OWN.0 | Self::SOURCE.0) == Self::SOURCE.0
    }
}

/// Key of GRANTS. 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GrantKey {
    /// Port index.
    pub port: u32,
    /// VIP slot.
    pub slot: u32,
}

/// Value of GRANTS. 8 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Grant {
    /// What the port may do.
    pub rights: Rights,
    /// Always 0.
    pub zero: [u8; 3],
    /// VRIDs whose virtual router MACs may carry the VIP; 0: none.
    pub vrids: [u8; 4],
}

impl Grant {
    /// Whether the port may claim with the virtual router MAC of this VRID.
    #[inline(always)]
    pub const fn allows_vrid(&self, vrid: u8) -> bool {
        let [a, b, c, d] = self.vrids;
        vrid != 0 && (a == vrid || b == vrid || c == vrid || d == vrid)
    }
}

/// Value of MEMBERS: the ports that may own a VIP. 112 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Members {
    /// VNI of the VPC; 0: no VIP in this slot.
    pub vni: u32,
    /// The VIP.
    pub address: Ipv4,
    /// Index of the subnet.
    pub subnet: u32,
    /// Always 0.
    pub zero: u32,
    /// Port indexes; 0: none.
    pub ports: [u32; MAX_MEMBERS],
    /// Indexes in HOSTS of the other hosts that members are on, each once, without gaps; 0: no more.
    pub hosts: [u16; MAX_MEMBERS],
}

const _: () = assert!(size_of::<PortEntry>() == 64 && size_of::<Grant>() == 8 && size_of::<MacKey>() == 12);
