//! IPv4 (RFC 791) and what the pipeline reads of the transport headers.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Be16, Ipv4, WireIpv4};
use crate::checksum::{self, Sum};

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
    const DONT_FRAGMENT: u16 = 0x4000;
    const MORE_FRAGMENTS: u16 = 0x2000;
    const OFFSET: u16 = 0x1fff;

    /// TTL of packets that the forwarder itself sends (IANA's recommended default).
    pub const OWN_TTL: u8 = 64;

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

    /// A header without options of a packet that the forwarder itself sends, `total_length` bytes long in all, which nobody may cut
    /// (so that it needs no identification, RFC 6864 §4.1); with its checksum.
    #[inline(always)]
    pub fn own(protocol: u8, total_length: u16, source: Ipv4, destination: Ipv4) -> Self {
        // Internetwork control (RFC 1812 §4.3.2.5).
        Self::new(0xc0, protocol, total_length, source, destination)
    }

    /// The header, without options, of the UDP datagrams that carry guests' frames from one VTEP to another. Nobody may cut them. Its
    /// `total_length` is 0, and the checksum is that of such a header: each datagram's own length is added to both.
    #[inline(always)]
    pub fn tunnel(source: Ipv4, destination: Ipv4) -> Self {
        Self::new(0, Protocol::UDP, 0, source, destination)
    }

    #[inline(always)]
    fn new(tos: u8, protocol: u8, total_length: u16, source: Ipv4, destination: Ipv4) -> Self {
        let mut header = Self {
            version_ihl: 0x45,
            tos,
            total_length: Be16::new(total_length),
            identification: Be16::new(0),
            flags_offset: Be16::new(Self::DONT_FRAGMENT),
            ttl: Self::OWN_TTL,
            protocol,
            checksum: Be16::new(0),
            source: WireIpv4::new(source),
            destination: WireIpv4::new(destination),
        };
        header.checksum = Sum::default()
            .add(Be16::new(0x4500 | u16::from(tos)))
            .add(header.total_length)
            .add(header.flags_offset)
            .add(header.ttl_protocol())
            .add_address(source)
            .add_address(destination)
            .checksum();
        header
    }

    /// Sets the length of header and payload in bytes; mends the checksum.
    #[inline(always)]
    pub fn set_total_length(&mut self, total_length: Be16) {
        let change = Sum::default().replace(self.total_length, total_length);
        self.checksum = checksum::update(self.checksum, change);
        self.total_length = total_length;
    }

    /// Makes the header that of a fragment: length in all, offset in the whole packet's payload (a multiple of 8), both in bytes, and
    /// whether more follow; mends the checksum.
    #[inline(always)]
    pub fn set_fragment(&mut self, total_length: u16, offset: usize, more: bool) {
        let flags = (offset >> 3) as u16 & Self::OFFSET | if more { Self::MORE_FRAGMENTS } else { 0 };
        let change = Sum::default()
            .replace(self.total_length, Be16::new(total_length))
            .replace(self.flags_offset, Be16::new(flags));
        self.checksum = checksum::update(self.checksum, change);
        self.total_length = Be16::new(total_length);
        self.flags_offset = Be16::new(flags);
    }

    /// Sets the TTL; the checksum is the caller's to mend.
    #[inline(always)]
    pub const fn set_ttl(&mut self, ttl: u8) {
        self.ttl = ttl;
    }

    /// Where the payload of a fragment begins in the whole packet's, in bytes.
    #[inline(always)]
    pub const fn fragment_offset(&self) -> usize {
        ((self.flags_offset.get() & Self::OFFSET) << 3) as usize
    }

    /// Whether nobody may cut the packet (DF).
    #[inline(always)]
    pub const fn may_not_be_cut(&self) -> bool {
        self.flags_offset.get() & Self::DONT_FRAGMENT != 0
    }

    /// Whether this is a fragment other than the last.
    #[inline(always)]
    pub const fn has_more_fragments(&self) -> bool {
        self.flags_offset.get() & Self::MORE_FRAGMENTS != 0
    }

    /// Whether the payload does not start with the transport header: a fragment other than the first.
    #[inline(always)]
    pub const fn is_later_fragment(&self) -> bool {
        self.flags_offset.get() & Self::OFFSET != 0
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
    /// Length with options in bytes: 0 to 60, not checked to be 20 or more.
    #[inline(always)]
    pub const fn header_length(&self) -> usize {
        (self.offset_flags.get() >> 12 << 2) as usize
    }

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
