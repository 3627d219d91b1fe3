//! ARP for IPv4 over Ethernet (RFC 826).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Be16, EtherType, Mac, WireIpv4};

/// ARP operations (RFC 826).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArpOperation {
    /// 1.
    Request,
    /// 2.
    Reply,
}

/// An ARP packet of IPv4 over Ethernet, 28 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Arp {
    hardware_type: Be16,
    protocol_type: Be16,
    lengths: Be16,
    operation: Be16,
    /// Sender hardware address.
    pub sender_mac: Mac,
    /// Sender protocol address.
    pub sender_ip: WireIpv4,
    /// Target hardware address: no meaning in a request.
    pub target_mac: Mac,
    /// Target protocol address.
    pub target_ip: WireIpv4,
}

impl Arp {
    const ETHERNET: Be16 = Be16::new(1);
    const LENGTHS: Be16 = Be16::new(0x0604);
    const REQUEST: Be16 = Be16::new(1);
    const REPLY: Be16 = Be16::new(2);

    /// An ARP packet of IPv4 over Ethernet.
    #[inline(always)]
    pub const fn new(operation: ArpOperation, sender: (Mac, WireIpv4), target: (Mac, WireIpv4)) -> Self {
        Self {
            hardware_type: Self::ETHERNET,
            protocol_type: EtherType::IPV4,
            lengths: Self::LENGTHS,
            operation: match operation {
                ArpOperation::Request => Self::REQUEST,
                ArpOperation::Reply => Self::REPLY,
            },
            sender_mac: sender.0,
            sender_ip: sender.1,
            target_mac: target.0,
            target_ip: target.1,
        }
    }

    /// The operation, if hardware type, protocol type and both lengths are those of IPv4 over Ethernet and it is a
    /// request or a reply.
    #[inline(always)]
    pub fn operation(&self) -> Option<ArpOperation> {
        if self.hardware_type != Self::ETHERNET
            || self.protocol_type != EtherType::IPV4
            || self.lengths != Self::LENGTHS
        {
            return None;
        }
        match self.operation {
            Self::REQUEST => Some(ArpOperation::Request),
            Self::REPLY => Some(ArpOperation::Reply),
            _ => None,
        }
    }
}
