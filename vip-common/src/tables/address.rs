//! EIPs and the addresses of VPCs.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::wire::Ipv4;

/// What an address is, and the number of the object behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressKind {
    /// The fixed address of the port with this index, or an EIP of it.
    Fixed(u32),
    /// The VIP in this slot, or an EIP of it.
    Vip(u32),
    /// The gateway of the subnet with this index, which this forwarder routes (`router: vip`).
    Gateway(u32),
    /// The gateway of the subnet with this index, which somebody else routes (`router: external`).
    ExternalGateway(u32),
}

/// An [`AddressKind`] in one word: kind (3 bits), number (29), from the highest bit on. 0 is no target.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct Target(u32);

impl Target {
    pub(super) const NUMBER_BITS: u32 = 29;
    const NUMBER_MASK: u32 = (1 << Self::NUMBER_BITS) - 1;
    const FIXED: u32 = 1;
    const VIP: u32 = 2;
    const GATEWAY: u32 = 3;
    const EXTERNAL_GATEWAY: u32 = 4;

    /// The word of a kind, whose number is below 2²⁹.
    #[inline(always)]
    pub const fn new(kind: AddressKind) -> Self {
        let (kind, number) = match kind {
            AddressKind::Fixed(port) => (Self::FIXED, port),
            AddressKind::Vip(slot) => (Self::VIP, slot),
            AddressKind::Gateway(subnet) => (Self::GATEWAY, subnet),
            AddressKind::ExternalGateway(subnet) => (Self::EXTERNAL_GATEWAY, subnet),
        };
        Self(kind << Self::NUMBER_BITS | number & Self::NUMBER_MASK)
    }

    /// The VIP in a slot.
    #[inline(always)]
    pub const fn vip(slot: u32) -> Self {
        Self::new(AddressKind::Vip(slot))
    }

    /// The port with an index.
    #[inline(always)]
    pub const fn port(index: u32) -> Self {
        Self::new(AddressKind::Fixed(index))
    }

    /// The target with this word, as it stands in an index.
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        Self(word)
    }

    /// The word.
    #[inline(always)]
    pub const fn word(self) -> u32 {
        self.0
    }

    /// What it is; `None` for a word that this layout does not know.
    #[inline(always)]
    pub const fn kind(self) -> Option<AddressKind> {
        let number = self.0 & Self::NUMBER_MASK;
        match self.0 >> Self::NUMBER_BITS {
            Self::FIXED => Some(AddressKind::Fixed(number)),
            Self::VIP => Some(AddressKind::Vip(number)),
            Self::GATEWAY => Some(AddressKind::Gateway(number)),
            Self::EXTERNAL_GATEWAY => Some(AddressKind::ExternalGateway(number)),
            _ => None,
        }
    }

    /// The VIP slot, if it is one.
    #[inline(always)]
    pub const fn as_vip(self) -> Option<u32> {
        if self.0 >> Self::NUMBER_BITS == Self::VIP { Some(self.0 & Self::NUMBER_MASK) } else { None }
    }

    /// The port index, if it is one.
    #[inline(always)]
    pub const fn as_port(self) -> Option<u32> {
        if self.0 >> Self::NUMBER_BITS == Self::FIXED { Some(self.0 & Self::NUMBER_MASK) } else { None }
    }
}

/// Key of SCATTERED. 8 bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct VniAddress {
    /// VNI of the VPC, host order; 0: an EIP.
    pub vni: u32,
    /// Address in the VPC, or the EIP.
    pub address: Ipv4,
}

impl VniAddress {
    /// The key of an EIP.
    #[inline(always)]
    pub const fn eip(address: Ipv4) -> Self {
        Self { vni: 0, address }
    }

    /// Key of SUBNETS: the VNI big-endian, so that the trie compares it from its highest bit on, then the address.
    /// A prefix of n bits is a trie key of 32 + n bits.
    #[inline(always)]
    pub const fn trie_key(self) -> [u32; 2] {
        [self.vni.to_be(), self.address.raw()]
    }
}

/// The EIP that an address of a VPC leaves as: address, and index in NETWORKS of its network. 8 bytes, changed as one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct SourceEip {
    /// The EIP; unspecified: none.
    pub address: Ipv4,
    /// Index in NETWORKS; 0: routed as this host routes.
    pub network: u16,
    /// Always 0.
    pub zero: u16,
}

impl SourceEip {
    /// An EIP on the network with this index.
    #[inline(always)]
    pub const fn new(address: Ipv4, network: u16) -> Self {
        Self { address, network, zero: 0 }
    }

    /// Whether there is one.
    #[inline(always)]
    pub fn is_some(self) -> bool {
        !self.address.is_unspecified()
    }
}

const _: () = assert!(size_of::<SourceEip>() == 8);
