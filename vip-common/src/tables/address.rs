//! EIPs and the addresses of VPCs.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::wire::Ipv4;

/// What an address leads to: a VIP slot or a port index, in one word. Bit 31 tells which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Target(u32);

impl Target {
    const VIP: u32 = 1 << 31;

    /// A VIP slot, below 2³¹.
    #[inline(always)]
    pub const fn vip(slot: u32) -> Self {
        Self(slot | Self::VIP)
    }

    /// A port index, below 2²⁰.
    #[inline(always)]
    pub const fn port(index: u32) -> Self {
        Self(index & !Self::VIP)
    }

    /// The VIP slot, if it is one.
    #[inline(always)]
    pub const fn as_vip(self) -> Option<u32> {
        if self.0 & Self::VIP != 0 { Some(self.0 & !Self::VIP) } else { None }
    }

    /// The port index, if it is one.
    #[inline(always)]
    pub const fn as_port(self) -> Option<u32> {
        if self.0 & Self::VIP == 0 { Some(self.0) } else { None }
    }
}

/// Value of EIPS: where packets to an EIP go. 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EipEntry {
    /// VNI of the VPC.
    pub vni: u32,
    /// The VIP's or the port's fixed address.
    pub inner: Ipv4,
    /// The VIP slot or the port.
    pub target: Target,
    /// Index of the EIP's traffic counters.
    pub index: u32,
}

/// Key of ADDRS. 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VniAddress {
    /// VNI of the VPC, host order.
    pub vni: u32,
    /// Address in the VPC.
    pub address: Ipv4,
}

impl VniAddress {
    /// Key of SUBNETS: the VNI big-endian, so that the trie compares it from its highest bit on, then the address.
    /// A prefix of n bits is a trie key of 32 + n bits.
    #[inline(always)]
    pub const fn trie_key(self) -> [u32; 2] {
        [self.vni.to_be(), self.address.raw()]
    }
}

/// What an address of a VPC is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressKind {
    /// The fixed address of the port with this index.
    Fixed(u32),
    /// The VIP in this slot.
    Vip(u32),
    /// The gateway of a subnet that this forwarder routes (`router: vip`).
    Gateway,
    /// The gateway of a subnet that somebody else routes (`router: external`).
    ExternalGateway,
}

/// Value of ADDRS. 20 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AddressEntry {
    kind: u16,
    /// Index in NETWORKS of the EIP's network; 0: routed as this host routes.
    pub eip_network: u16,
    /// Index of the subnet.
    pub subnet: u32,
    number: u32,
    /// The EIP to source from; unspecified: none.
    pub eip: Ipv4,
    /// Index of that EIP's traffic counters.
    pub eip_index: u32,
}

impl AddressEntry {
    const FIXED: u16 = 1;
    const VIP: u16 = 2;
    const GATEWAY: u16 = 3;
    const EXTERNAL_GATEWAY: u16 = 4;

    /// An address without EIP.
    pub const fn new(kind: AddressKind, subnet: u32) -> Self {
        let (kind, number) = match kind {
            AddressKind::Fixed(port) => (Self::FIXED, port),
            AddressKind::Vip(slot) => (Self::VIP, slot),
            AddressKind::Gateway => (Self::GATEWAY, 0),
            AddressKind::ExternalGateway => (Self::EXTERNAL_GATEWAY, 0),
        };
        Self { kind, eip_network: 0, subnet, number, eip: Ipv4::UNSPECIFIED, eip_index: 0 }
    }

    /// The same address, which leaves as `eip` through the EIP network with index `network`.
    #[must_use]
    pub const fn with_eip(self, eip: Ipv4, eip_index: u32, network: u16) -> Self {
        Self { eip, eip_index, eip_network: network, ..self }
    }

    /// What the address is; `None` for a value that this layout does not know.
    #[inline(always)]
    pub const fn kind(&self) -> Option<AddressKind> {
        match self.kind {
            Self::FIXED => Some(AddressKind::Fixed(self.number)),
            Self::VIP => Some(AddressKind::Vip(self.number)),
            Self::GATEWAY => Some(AddressKind::Gateway),
            Self::EXTERNAL_GATEWAY => Some(AddressKind::ExternalGateway),
            _ => None,
        }
    }
}

const _: () = assert!(size_of::<EipEntry>() == 16 && size_of::<AddressEntry>() == 20);
