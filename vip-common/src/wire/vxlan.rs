//! VXLAN (RFC 7348): Ethernet frames of a VPC between hosts.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Be16, Ethernet, Ipv4Header, Udp};

/// Destination port of VXLAN (RFC 7348 §5).
pub const VXLAN_PORT: u16 = 4789;

/// The header of VXLAN, 8 bytes (RFC 7348 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Vxlan {
    flags: Be16,
    reserved: Be16,
    /// The VNI's first 16 bits.
    vni_high: Be16,
    /// Its last 8 bits, and a reserved byte.
    vni_low: Be16,
}

impl Vxlan {
    /// The flag I: the VNI is valid. Without it the frame must be discarded.
    const VNI_IS_VALID: u16 = 0x0800;

    /// The header of a frame in a VPC.
    #[inline(always)]
    pub const fn new(vni: u32) -> Self {
        Self {
            flags: Be16::new(Self::VNI_IS_VALID),
            reserved: Be16::new(0),
            vni_high: Be16::new((vni >> 8) as u16),
            vni_low: Be16::new((vni << 8) as u16),
        }
    }

    /// The VNI, 24 bits; 0, which no VPC has, if the header says that it is not valid. Reserved fields are ignored.
    #[inline(always)]
    pub const fn vni(&self) -> u32 {
        if self.flags.get() & Self::VNI_IS_VALID == 0 {
            return 0;
        }
        (self.vni_high.get() as u32) << 8 | (self.vni_low.get() >> 8) as u32
    }
}

/// What stands before a frame that travels between hosts: Ethernet, IPv4 without options, UDP, VXLAN. 50 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Outer {
    /// Ethernet on the underlay.
    pub ethernet: Ethernet,
    /// From VTEP to VTEP.
    pub ip: Ipv4Header,
    /// To [`VXLAN_PORT`]; the source port tells flows apart. Checksum 0: none (RFC 7348 §4.1, RFC 768).
    pub udp: Udp,
    /// Which VPC.
    pub vxlan: Vxlan,
}

const _: () = assert!(size_of::<Outer>() == 50);
