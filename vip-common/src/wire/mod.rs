//! Header formats as they are on the wire.
//!
//! Header types are aligned to two bytes, as every header of an Ethernet frame is, because BPF code splits loads of
//! unaligned types into single bytes. Fields hold wire order; accessors and constructors convert. None of the types has
//! an invalid bit pattern, so a header may be laid over any bytes.

mod address;
mod arp;
mod ethernet;
mod icmp;
mod ipv4;
mod vrrp;
mod vxlan;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use self::{
    address::{Be16, Ipv4, Mac, WireIpv4},
    arp::{Arp, ArpOperation},
    ethernet::{EtherType, Ethernet},
    icmp::{FRAGMENTATION_NEEDED, Icmp, IcmpType},
    ipv4::{Ipv4Header, Protocol, Tcp, Udp},
    vrrp::{VRRP_GROUP, VRRP_TTL, Vrrp},
    vxlan::{Outer, VXLAN_PORT, Vxlan},
};

/// A header that may be laid over any bytes of its size at an even offset.
pub trait Header: Sized + FromBytes + IntoBytes + Immutable + KnownLayout + 'static {
    /// Size in bytes.
    const LEN: usize = size_of::<Self>();
}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout + 'static> Header for T {}
