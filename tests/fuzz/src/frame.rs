//! How the oracles read frames: of their own, from the RFCs, without the pipeline's code.

use std::{fmt::Write as _, net::Ipv4Addr};

use vip_lab::Mac;

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;
/// Least bytes of an IPv4 header.
pub const IPV4: usize = 20;
/// Bytes of an ICMP error before its quote.
pub const ICMP_ERROR: usize = 8;

/// Ethernet type of IPv4.
pub const TYPE_IPV4: u16 = 0x0800;
/// Ethernet type of ARP.
pub const TYPE_ARP: u16 = 0x0806;

/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Protocol number of DCCP.
pub const DCCP: u8 = 33;
/// Protocol number of VRRP.
pub const VRRP: u8 = 112;
/// Protocol number of UDP-Lite.
pub const UDP_LITE: u8 = 136;

/// The frame as hexadecimal digits.
pub fn hex(frame: &[u8]) -> String {
    frame.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The byte at an offset.
pub fn byte(frame: &[u8], at: usize) -> Option<u8> {
    frame.get(at).copied()
}

/// The number of two bytes at an offset.
pub fn word(frame: &[u8], at: usize) -> Option<u16> {
    frame.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

/// The address at an offset.
pub fn address(frame: &[u8], at: usize) -> Option<Ipv4Addr> {
    frame.get(at..)?.first_chunk::<4>().copied().map(Ipv4Addr::from)
}

/// The MAC at an offset.
pub fn mac(frame: &[u8], at: usize) -> Option<Mac> {
    frame.get(at..)?.first_chunk().copied().map(Mac)
}

/// Writes bytes at an offset; whether they lie in the frame.
pub fn put(frame: &mut [u8], at: usize, bytes: &[u8]) -> bool {
    let place = frame.get_mut(at..).and_then(|rest| rest.get_mut(..bytes.len()));
    place.map(|place| place.copy_from_slice(bytes)).is_some()
}

/// The one's complement sum (RFC 1071) of bytes as a number below 0xffff: 0 and 0xffff, which are one value, are both 0. An odd
/// byte at the end counts as the upper one of a word.
pub fn sum(bytes: &[u8]) -> u16 {
    let total: u64 = bytes
        .chunks(2)
        .map(|pair| match *pair {
            [high, low] => u64::from(u16::from_be_bytes([high, low])),
            [high] => u64::from(high) << 8,
            _ => 0,
        })
        .sum();
    u16::try_from(total % 0xffff).unwrap_or_default()
}

/// The sum of two sums.
pub fn add(a: u16, b: u16) -> u16 {
    u16::try_from((u32::from(a) + u32::from(b)) % 0xffff).unwrap_or_default()
}

/// An IPv4 header, wherever it stands, and where its payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    /// Offset of the header.
    pub start: usize,
    /// Offset of the payload.
    pub payload: usize,
    /// Offset of the end of the payload.
    pub end: usize,
    /// Source.
    pub source: Ipv4Addr,
    /// Destination.
    pub destination: Ipv4Addr,
    /// Protocol.
    pub protocol: u8,
    /// Time to live.
    pub ttl: u8,
    /// Offset of the payload in the packet that was cut into fragments, in bytes.
    pub fragment: usize,
    /// Whether more fragments follow.
    pub more: bool,
    /// Whether nobody may cut it (DF).
    pub whole: bool,
}

impl Ipv4 {
    /// The packet in an Ethernet frame, if it is one and its lengths fit (RFC 791 section 3.1).
    pub fn of(frame: &[u8]) -> Option<Self> {
        (word(frame, 12)? == TYPE_IPV4).then_some(())?;
        let ip = Self::header(frame, ETHERNET)?;
        let end = ETHERNET + usize::from(word(frame, 16)?);
        (ip.payload <= end && end <= frame.len()).then_some(Self { end, ..ip })
    }

    /// A header at an offset with whatever is behind it to the end of `bytes`: what an ICMP error quotes.
    pub fn header(bytes: &[u8], start: usize) -> Option<Self> {
        let first = byte(bytes, start)?;
        let payload = start + usize::from(first & 0xf) * 4;
        let fits = first >> 4 == 4 && payload >= start + IPV4 && payload <= bytes.len();
        let flags = word(bytes, start + 6)?;
        fits.then_some(Self {
            start,
            payload,
            end: bytes.len(),
            source: address(bytes, start + 12)?,
            destination: address(bytes, start + 16)?,
            protocol: byte(bytes, start + 9)?,
            ttl: byte(bytes, start + 8)?,
            fragment: usize::from(flags & 0x1fff) * 8,
            more: flags & 0x2000 != 0,
            whole: flags & 0x4000 != 0,
        })
    }

    /// Its length in bytes, header and payload, or what is here of it.
    pub const fn length(&self) -> usize {
        self.end - self.start
    }

    /// Whether its source is an address that hosts have (RFC 1812 section 5.3.7): of one host, and not of its own only.
    pub fn is_from_host(&self) -> bool {
        let [first, ..] = self.source.octets();
        !matches!(first, 0 | 127 | 224..)
    }

    /// Offset of the checksum of its payload that covers the addresses, if the payload has one and begins with it.
    pub fn transport_checksum(&self, bytes: &[u8]) -> Option<usize> {
        if self.fragment != 0 {
            return None;
        }
        let at = self.payload
            + match self.protocol {
                TCP => 16,
                UDP | UDP_LITE | DCCP => 6,
                _ => return None,
            };
        let field = word(bytes.get(..self.end)?, at)?;
        // RFC 768: none was computed.
        let none = field == 0 && matches!(self.protocol, UDP | UDP_LITE);
        (!none).then_some(at)
    }

    /// The ICMP type, of a message or its first fragment.
    pub fn icmp_type(&self, bytes: &[u8]) -> Option<u8> {
        let begins = self.protocol == ICMP && self.fragment == 0 && self.payload < self.end;
        begins.then(|| byte(bytes, self.payload))?
    }

    /// The header that an ICMP error quotes (types 3, 4, 5, 11 and 12 do), if all of it is there.
    pub fn quote(&self, bytes: &[u8]) -> Option<Self> {
        matches!(self.icmp_type(bytes)?, 3 | 4 | 5 | 11 | 12).then_some(())?;
        Self::header(bytes.get(..self.end)?, self.payload + ICMP_ERROR)
    }

    /// The sum of what the header's checksum covers, and of that itself: 0 if it is right.
    pub fn header_sum(&self, bytes: &[u8]) -> Option<u16> {
        bytes.get(self.start..self.payload).map(sum)
    }

    /// The sum of both addresses and all of the payload that is here.
    pub fn covered_sum(&self, bytes: &[u8]) -> Option<u16> {
        let addresses = sum(bytes.get(self.start + 12..self.start + IPV4)?);
        Some(add(addresses, sum(bytes.get(self.payload..self.end)?)))
    }
}

/// An ARP packet of IPv4 over Ethernet (RFC 826) in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// 1: a request; 2: a reply.
    pub operation: u16,
    /// Sender hardware address.
    pub sender_mac: Mac,
    /// Sender protocol address.
    pub sender: Ipv4Addr,
    /// Target hardware address.
    pub target_mac: Mac,
    /// Target protocol address.
    pub target: Ipv4Addr,
}

impl Arp {
    /// Bytes of a frame with it.
    pub const END: usize = ETHERNET + 28;

    /// The packet in an Ethernet frame, if it is one.
    pub fn of(frame: &[u8]) -> Option<Self> {
        (word(frame, 12)? == TYPE_ARP && frame.get(14..20)? == [0, 1, 8, 0, 6, 4]).then_some(())?;
        let operation = word(frame, 20)?;
        matches!(operation, 1 | 2).then_some(Self {
            operation,
            sender_mac: mac(frame, 22)?,
            sender: address(frame, 28)?,
            target_mac: mac(frame, 32)?,
            target: address(frame, 38)?,
        })
    }

    /// Whether it says of an address that it is the sender's without having been asked.
    pub fn announces(&self) -> bool {
        self.sender == self.target
    }
}
