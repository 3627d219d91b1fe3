//! VRRP advertisements (RFC 9568 §5.1; version 2 of RFC 3768 §5.1 has the same first eight bytes and addresses).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Be16, Ipv4};

/// Where advertisements go: 224.0.0.18 (RFC 9568 §5.1.1.2).
pub const VRRP_GROUP: Ipv4 = Ipv4::new([224, 0, 0, 18]);

/// The TTL that an advertisement must have: a packet with another one came through a router (RFC 9568 §5.1.1.3).
pub const VRRP_TTL: u8 = 255;

/// The fixed part of an advertisement, 8 bytes; the addresses follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Vrrp {
    version_type_vrid: Be16,
    priority_count: Be16,
    interval: Be16,
    checksum: Be16,
}

impl Vrrp {
    /// The only packet type there is (RFC 9568 §5.2.2).
    pub const ADVERTISEMENT: u8 = 1;

    /// [`Self::ADVERTISEMENT`], or a type that does not exist.
    #[inline(always)]
    pub const fn packet_type(&self) -> u8 {
        (self.version_type_vrid.get() >> 8 & 0xf) as u8
    }

    /// Virtual router id.
    #[inline(always)]
    pub const fn vrid(&self) -> u8 {
        (self.version_type_vrid.get() & 0xff) as u8
    }

    /// Priority; 0: the sender ends being master.
    #[inline(always)]
    pub const fn priority(&self) -> u8 {
        (self.priority_count.get() >> 8) as u8
    }

    /// Interval between advertisements in milliseconds: centiseconds in version 3 (RFC 9568 §5.2.7), seconds in version 2 (RFC 3768 §5.3.7).
    #[inline(always)]
    pub const fn interval(&self) -> u32 {
        let field = self.interval.get() as u32;
        if self.version_type_vrid.get() >> 12 == 2 { (field & 0xff) * 1000 } else { (field & 0xfff) * 10 }
    }

    /// Number of addresses that follow.
    #[inline(always)]
    pub const fn address_count(&self) -> u8 {
        (self.priority_count.get() & 0xff) as u8
    }
}
