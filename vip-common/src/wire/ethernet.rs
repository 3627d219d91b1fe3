//! Ethernet II frames (IEEE 802.3 §3.1.1).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Be16, Mac};

/// EtherType numbers (IEEE 802 numbers registry) that the pipeline tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EtherType;

impl EtherType {
    /// IPv4 (RFC 894).
    pub const IPV4: Be16 = Be16::new(0x0800);
    /// A customer's VLAN tag (IEEE 802.1Q §9.6).
    pub const VLAN: Be16 = Be16::new(0x8100);
    /// A provider's VLAN tag (IEEE 802.1ad).
    pub const PROVIDER_VLAN: Be16 = Be16::new(0x88a8);
    /// ARP (RFC 826).
    pub const ARP: Be16 = Be16::new(0x0806);
}

/// An Ethernet header, 14 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Ethernet {
    /// Receiver.
    pub destination: Mac,
    /// Sender.
    pub source: Mac,
    /// What follows: an [`EtherType`].
    pub ether_type: Be16,
}
