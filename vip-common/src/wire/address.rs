//! Addresses and numbers in wire order.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A 16-bit number in network byte order.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Be16(u16);

impl Be16 {
    /// From a number in host order.
    #[inline(always)]
    pub const fn new(value: u16) -> Self {
        Self(value.to_be())
    }

    /// The number in host order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }

    /// The two bytes as the machine reads them: what one's complement sums run over (RFC 1071 §2(B)).
    #[inline(always)]
    pub const fn raw(self) -> u16 {
        self.0
    }

    /// From the machine's reading of the two bytes.
    #[inline(always)]
    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }
}

impl fmt::Debug for Be16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.get())
    }
}

/// An IPv4 address as a number: the four bytes in network order, aligned to four. Key and value type of the tables.
#[derive(
    Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct Ipv4(u32);

impl Ipv4 {
    /// 0.0.0.0: the sender of an ARP probe (RFC 5227 §1.1) and the source of a DHCP client; "none" in a table.
    pub const UNSPECIFIED: Self = Self(0);
    /// 255.255.255.255.
    pub const BROADCAST: Self = Self(u32::MAX);

    /// From the four bytes, first one first.
    #[inline(always)]
    pub const fn new(octets: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(octets))
    }

    /// The four bytes, first one first.
    #[inline(always)]
    pub const fn octets(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }

    /// The four bytes as the machine reads them.
    #[inline(always)]
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// From the machine's reading of the four bytes.
    #[inline(always)]
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// No address at all.
    #[inline(always)]
    pub const fn is_unspecified(self) -> bool {
        self.0 == 0
    }

    /// 224.0.0.0/4 (RFC 1112 §4).
    #[inline(always)]
    pub const fn is_multicast(self) -> bool {
        u32::from_be(self.0) >> 28 == 0xe
    }

    /// Whether packets to the address are never forwarded: 0.0.0.0/8, 127.0.0.0/8 and 240.0.0.0/4 (RFC 1122 §3.2.1.3, RFC 1812
    /// §5.3.7).
    #[inline(always)]
    pub const fn is_never_forwarded(self) -> bool {
        let [first, ..] = self.octets();
        first == 0 || first == 127 || first >= 240
    }

    /// Whether no host has the address, so that no packet comes from it: groups, and what [`Self::is_never_forwarded`] to.
    #[inline(always)]
    pub const fn is_no_host(self) -> bool {
        let [first, ..] = self.octets();
        first == 0 || first == 127 || first >= 224
    }

    /// Whether the address lies in the prefix `network`/`mask`.
    #[inline(always)]
    pub const fn is_in(self, network: Self, mask: Self) -> bool {
        self.0 & mask.0 == network.0
    }

    /// Whether the address is the last one of the prefix with this mask: its directed broadcast address.
    #[inline(always)]
    pub const fn is_last_of(self, mask: Self) -> bool {
        self.0 | mask.0 == u32::MAX
    }
}

impl From<core::net::Ipv4Addr> for Ipv4 {
    fn from(address: core::net::Ipv4Addr) -> Self {
        Self::new(address.octets())
    }
}

impl From<Ipv4> for core::net::Ipv4Addr {
    fn from(address: Ipv4) -> Self {
        Self::from(address.octets())
    }
}

impl fmt::Debug for Ipv4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", core::net::Ipv4Addr::from(*self))
    }
}

impl fmt::Display for Ipv4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// An IPv4 address inside a header: aligned to two.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct WireIpv4([u16; 2]);

impl WireIpv4 {
    /// The address in a header.
    #[inline(always)]
    pub const fn new(address: Ipv4) -> Self {
        Self(zerocopy::transmute!(address.0))
    }

    /// The address as the tables have it.
    #[inline(always)]
    pub const fn get(self) -> Ipv4 {
        Ipv4(zerocopy::transmute!(self.0))
    }
}

impl fmt::Debug for WireIpv4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.get(), f)
    }
}

/// A MAC address: six bytes in wire order, aligned to two.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Mac([u16; 3]);

impl Mac {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Self = Self([u16::MAX; 3]);
    /// 00:00:00:00:00:00: an unknown target in ARP.
    pub const ZERO: Self = Self([0; 3]);

    /// From the six bytes, first one first.
    #[inline(always)]
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(zerocopy::transmute!(octets))
    }

    /// The six bytes, first one first.
    #[inline(always)]
    pub const fn octets(self) -> [u8; 6] {
        zerocopy::transmute!(self.0)
    }

    /// The constant MAC behind which a VIP or a gateway is reached: 06:56, then the address. Guests that hold it in
    /// their caches never go stale when the VIP moves.
    #[inline(always)]
    pub const fn of_address(address: Ipv4) -> Self {
        let [hi, lo]: [u16; 2] = zerocopy::transmute!(address.raw());
        Self([u16::from_ne_bytes([0x06, 0x56]), hi, lo])
    }

    /// Whether the MAC lies in the range of [`Self::of_address`].
    #[inline(always)]
    pub const fn is_of_address(self) -> bool {
        let [first, ..] = self.0;
        first == u16::from_ne_bytes([0x06, 0x56])
    }

    /// The address behind a MAC of [`Self::of_address`].
    #[inline(always)]
    pub const fn address(self) -> Option<Ipv4> {
        let [_, hi, lo] = self.0;
        if self.is_of_address() { Some(Ipv4(zerocopy::transmute!([hi, lo]))) } else { None }
    }

    /// The IPv4 virtual router MAC of a VRID: 00:00:5e:00:01:VRID (RFC 9568 §7.3).
    #[inline(always)]
    pub const fn of_vrid(vrid: u8) -> Self {
        Self([0, u16::from_ne_bytes([0x5e, 0]), u16::from_ne_bytes([1, vrid])])
    }

    /// The VRID if this is an IPv4 virtual router MAC with a VRID other than 0.
    #[inline(always)]
    pub const fn vrid(self) -> Option<u8> {
        let [a, b, c] = self.0;
        let [one, vrid] = c.to_ne_bytes();
        if a == 0 && b == u16::from_ne_bytes([0x5e, 0]) && one == 1 && vrid != 0 { Some(vrid) } else { None }
    }

    /// Group bit set: multicast or broadcast (IEEE 802.3 §3.2.3).
    #[inline(always)]
    pub const fn is_multicast(self) -> bool {
        let [first, ..] = self.0;
        first & u16::from_ne_bytes([1, 0]) != 0
    }

    /// All zero.
    #[inline(always)]
    pub const fn is_zero(self) -> bool {
        let [a, b, c] = self.0;
        a | b | c == 0
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, octet) in self.octets().iter().enumerate() {
            write!(f, "{}{octet:02x}", if index == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
