//! Other hosts, and the VPCs whose frames travel between them.

use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes, KnownLayout};

use crate::wire::{Ethernet, Header as _, Ipv4, Ipv4Header, Outer};

/// Value of HOSTS: a host that has a VTEP, and the way to it. 44 bytes. Index 0 is no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4))]
pub struct HostEntry {
    /// Ethernet header of what goes there: to the next hop's MAC, from the uplink's. Destination zero: that MAC is not known, and the
    /// kernel has to find it.
    pub ethernet: Ethernet,
    /// IPv4 header of what goes there, from this host's VTEP to the other's, of UDP without options and with DF; `total_length` is 0,
    /// and the checksum is that of such a header.
    pub ip: Ipv4Header,
    /// Longest IP packet of a guest that goes there, in bytes: the uplink's MTU, or the smaller one of the route there, less
    /// [`Self::OVERHEAD`]; 0: not known, so anything may.
    pub mtu: u16,
    /// Neighbour on the uplink that leads to the VTEP; unspecified: there is no way at the moment.
    pub next_hop: Ipv4,
    /// Always 0.
    pub zero: u32,
}

impl Default for HostEntry {
    /// No host.
    fn default() -> Self {
        Self::new_zeroed()
    }
}

impl HostEntry {
    /// Bytes that stand between the guest's IP packet and the end of the underlay's: IPv4, UDP, VXLAN, the guest's Ethernet header.
    pub const OVERHEAD: usize = Outer::LEN;

    /// Most hosts: their indexes take 16 bits.
    pub const MOST: u32 = 0xffff;
}

/// Value of VNIS: a VPC whose frames travel between hosts. 4 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VniEntry {
    /// Root page in NODES of the VPC's addresses.
    pub root: u32,
}

const _: () = assert!(size_of::<HostEntry>() == 44);
