//! ICMP (RFC 792).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Be16;

/// ICMP types (IANA registry) that the pipeline tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpType;

impl IcmpType {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable: an error, quotes a packet.
    pub const UNREACHABLE: u8 = 3;
    /// Source quench (deprecated by RFC 6633): an error, quotes a packet.
    pub const SOURCE_QUENCH: u8 = 4;
    /// Redirect: never translated.
    pub const REDIRECT: u8 = 5;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// Time exceeded: an error, quotes a packet.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem: an error, quotes a packet.
    pub const PARAMETER_PROBLEM: u8 = 12;

    /// Whether messages of the type are errors, or act on routes as errors do: none of them is ever answered with another (RFC 1122
    /// §3.2.2).
    #[inline(always)]
    pub const fn is_error(icmp_type: u8) -> bool {
        matches!(
            icmp_type,
            Self::UNREACHABLE
                | Self::SOURCE_QUENCH
                | Self::REDIRECT
                | Self::TIME_EXCEEDED
                | Self::PARAMETER_PROBLEM
        )
    }
}

/// Code of [`IcmpType::UNREACHABLE`]: fragmentation needed and DF set (RFC 1191 §4).
pub const FRAGMENTATION_NEEDED: u8 = 4;

/// The start of every ICMP message, 4 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Icmp {
    type_code: Be16,
    /// Checksum over the whole message.
    pub checksum: Be16,
}

impl Icmp {
    /// Of a type and code; the checksum is still 0.
    #[inline(always)]
    pub const fn new(icmp_type: u8, code: u8) -> Self {
        Self { type_code: Be16::new((icmp_type as u16) << 8 | code as u16), checksum: Be16::new(0) }
    }

    /// The [`IcmpType`].
    #[inline(always)]
    pub const fn icmp_type(&self) -> u8 {
        (self.type_code.get() >> 8) as u8
    }

    /// Type and code as one field, as the checksum sees them.
    #[inline(always)]
    pub const fn type_code(&self) -> Be16 {
        self.type_code
    }

    /// Sets the type and keeps the code; the checksum is the caller's to mend.
    #[inline(always)]
    pub const fn set_type(&mut self, icmp_type: u8) {
        self.type_code = Be16::new((icmp_type as u16) << 8 | self.type_code.get() & 0xff);
    }
}
