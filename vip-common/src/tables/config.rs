//! What a program needs to know of its host.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::wire::{Ipv4, Mac};

/// Version of the tables' layout. Grows with every change of a key, a value or their meaning.
pub const LAYOUT_VERSION: u32 = 5;

/// Switches of the programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct ConfigFlags(u16);

impl ConfigFlags {
    /// Answer ARP for EIPs whose owner is on this host.
    pub const ANNOUNCE_EIPS: Self = Self(1);
    /// The uplink can send what XDP returns to it; otherwise TC answers. A veth does so only while an XDP program runs at its
    /// other end.
    pub const UPLINK_RETURNS: Self = Self(1 << 1);
    /// XDP leaves TCP to TC, which sees it behind GRO; a segment with SYN is its own all the same.
    pub const TCP_BY_TC: Self = Self(1 << 2);
    /// EIPs may be on VLANs: a packet to one must have come in where its network is.
    pub const VLANS: Self = Self(1 << 3);
    /// No owner is learned from ordinary traffic: other hosts, which may know one, were not heard yet.
    pub const LEARNING_WAITS: Self = Self(1 << 4);

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The set without another one.
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

/// Value of CONFIG. 40 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Config {
    /// [`LAYOUT_VERSION`] of whoever made the tables. First, so that every version finds it.
    pub layout: u32,
    /// Process that last wrote the tables.
    pub agent_pid: u32,
    /// The uplink.
    pub uplink: u32,
    /// Interface that has the uplink's routes and neighbours: the uplink, or the bridge or bond that it belongs to.
    pub routed_by: u32,
    /// MAC that outside neighbours send to and see as source: of `routed_by`.
    pub uplink_mac: Mac,
    /// Switches.
    pub flags: ConfigFlags,
    /// Nanoseconds since boot (CLOCK_BOOTTIME) until which NEXTHOPS is believed. The agent moves it on while it follows the
    /// kernel's neighbours; later the kernel's own table is asked for each packet, so that a neighbour's new MAC is found
    /// without the agent too.
    pub neighbours_until: u64,
    /// Longest IP packet that leaves by the uplink, in bytes; 0: not known, so anything may.
    pub uplink_mtu: u32,
    /// This host's VTEP; unspecified: it has none, and no VXLAN is ours.
    pub vtep: Ipv4,
}

const _: () = assert!(size_of::<Config>() == 40);
