//! IPv4 (RFC 791) and what the pipeline reads of the transport headers.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Be16, WireIpv4};

/// IP protocol numbers (IANA registry) that the pipeline tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol;

impl Protocol {
    /// RFC 792.
    pub const ICMP: u8 = 1;
    /// RFC 1112, 2236, 3376.
    pub const IGMP: u8 = 2;
    /// RFC 9293.
    pub const TCP: u8 = 6;
    /// RFC 768.
    pub const UDP: u8 = 17;
    /// RFC 4340.
    pub const DCCP: u8 = 33;
    /// RFC 9568.
    pub const VRRP: u8 = 112;
    /// RFC 3828.
    pub const UDP_LITE: u8 = 136;
}

/// An IPv4 header without its options, 20 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Ipv4Header {
    version_ihl: u8,
    tos: u8,
    total_length: Be16,
    /// Identification.
    pub identification: Be16,
    flags_offset: Be16,
    ttl: u8,
    protocol: u8,
    /// Header checksum.
    pub checksum: Be16,
    /// Source address.
    pub source: WireIpv4,
    /// Destination address.
    pub destination: WireIpv4,
}

impl Ipv4Header {
    /// Version field.
    #[inline(always)]
    pub const fn version(&self) -> u8 {
        self.version_ihl >> 4
    }

    /// Header length in bytes with options: 0 to 60, not yet checked to be 20 or more.
    #[inline(always)]
    pub const fn header_length(&self) -> usize {
        ((self.version_ihl & 0xf) << 2) as usize
    }

    /// Length of header and payload in bytes.
    #[inline(always)]
    pub const fn total_length(&self) -> usize {
        self.total_length.get() as usize
    }

    /// Time to live.
    #[inline(always)]
    pub const fn ttl(&self) -> u8 {
        self.ttl
    }

    /// Protocol of the payload.
    #[inline(always)]
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }

    /// TTL and protocol as one field, as the checksum sees them.
    #[inline(always)]
    pub const fn ttl_protocol(&self) -> Be16 {
        Be16::new((self.ttl as u16) << 8 | self.protocol as u16)
    }

    /// Whether this is version 4, without options, and no later fragment: nearly every header there is.
    #[inline(always)]
    pub const fn is_plain(&self) -> bool {
        self.version_ihl == 0x45 && !self.is_later_fragment()
    }

    /// Sets the TTL; the checksum is the caller's to mend.
    #[inline(always)]
    pub const fn set_ttl(&mut self, ttl: u8) {
        self.ttl = ttl;
    }

    /// Where the payload of a fragment begins in the whole packet's, in bytes.
    #[inline(always)]
    pub const fn fragment_offset(&self) -> usize {
        ((self.flags_offset.get() & 0x1fff) << 3) as usize
    }

    /// Whether this is a fragment other than the last.
    #[inline(always)]
    pub const fn has_more_fragments(&self) -> bool {
        self.flags_offset.get() & 0x2000 != 0
    }

    /// Whether the payload does not start with the transport header: a fragment other than the first.
    #[inline(always)]
    pub const fn is_later_fragment(&self) -> bool {
        self.flags_offset.get() & 0x1fff != 0
    }
}

/// A TCP header without its options, 20 bytes (RFC 9293 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Tcp {
    /// Source port.
    pub source_port: Be16,
    /// Destination port.
    pub destination_port: Be16,
    /// Sequence number, high half first.
    pub sequence: [Be16; 2],
    /// Acknowledgment number, high half first.
    pub acknowledgment: [Be16; 2],
    offset_flags: Be16,
    /// Window.
    pub window: Be16,
    /// Checksum.
    pub checksum: Be16,
    /// Urgent pointer.
    pub urgent: Be16,
}

impl Tcp {
    /// Whether it opens a connection: SYN, alone or as the answer.
    #[inline(always)]
    pub const fn has_syn(&self) -> bool {
        self.offset_flags.get() & 2 != 0
    }
}

/// A UDP header, 8 bytes (RFC 768).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Udp {
    /// Source port.
    pub source_port: Be16,
    /// Destination port.
    pub destination_port: Be16,
    /// Length of header and payload in bytes.
    pub length: Be16,
    /// Checksum; 0: none.
    pub checksum: Be16,
}
