//! Counters and meters, one per CPU.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Direction as the guest sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Towards the guest.
    In,
    /// From the guest.
    Out,
}

/// Which way a VIP's packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// Through its EIP.
    Eip,
    /// Inside the VPC and its peers.
    Inside,
    /// Arrived here, and sent on to the host that the VIP has moved to.
    Onward,
}

/// Frames and their bytes. 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Count {
    /// Frames.
    pub packets: u64,
    /// Bytes of the whole frames.
    pub bytes: u64,
}

impl Count {
    /// Counts a frame of `bytes`.
    #[inline(always)]
    pub const fn add(&mut self, bytes: u64) {
        self.packets += 1;
        self.bytes += bytes;
    }
}

/// What VIPS_ASIDE counts of a VIP: all but the frames that came to its EIP. 64 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AsideTraffic {
    /// Frames that left as the EIP.
    pub eip_out: Count,
    /// Frames inside the VPC and its peers.
    pub inside: Traffic,
    /// Frames that came from other hosts, and were sent on to the host that the VIP has moved to.
    pub onward: Count,
}

/// What was forwarded. Bytes are of whole frames; a frame that the guest left to
/// the NIC to cut (GSO) counts once. 32 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Traffic {
    /// Frames towards guests.
    pub packets_in: u64,
    /// Bytes towards guests.
    pub bytes_in: u64,
    /// Frames from guests.
    pub packets_out: u64,
    /// Bytes from guests.
    pub bytes_out: u64,
}

impl Traffic {
    /// Counts a frame of `bytes`.
    #[inline(always)]
    pub const fn count(&mut self, direction: Direction, bytes: u64) {
        match direction {
            Direction::In => {
                self.packets_in += 1;
                self.bytes_in += bytes;
            }
            Direction::Out => {
                self.packets_out += 1;
                self.bytes_out += bytes;
            }
        }
    }
}

/// What is metered, each apart: events, so that a storm of refusals never hides a move, and the errors that senders are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MeterClass {
    /// Changes of owner, and what the agent must act on.
    Ownership = 0,
    /// Refused claims.
    Refusal = 1,
    /// ICMP errors that the forwarder itself sends (RFC 1812 §4.3.2.8).
    IcmpError = 2,
    /// Claims that wait or change no owner, of which other hosts must hear.
    Waiting = 3,
}

impl MeterClass {
    /// Number of classes: size of METERS.
    pub const COUNT: u32 = 4;

    /// Nanoseconds per event, or error, that a CPU may send in the long run, and how many at once.
    #[inline(always)]
    const fn rate(self) -> (u64, u64) {
        match self {
            Self::Ownership => (100_000, 4096),
            Self::Refusal => (10_000_000, 64),
            Self::IcmpError => (1_000_000, 64),
            Self::Waiting => (1_000_000, 1024),
        }
    }
}

/// Value of METERS: a token bucket kept as the time until which it is used up (the generic cell rate algorithm), and what
/// did not reach the agent. 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Meter {
    used_until: u64,
    /// Events that the meter or a full ring kept from the agent; errors that it kept from senders.
    pub lost: u64,
}

impl Meter {
    /// Whether one may be sent at `now_ns`; takes a token if so, counts a loss if not.
    #[inline(always)]
    pub const fn admit(&mut self, class: MeterClass, now_ns: u64) -> bool {
        let (interval, burst) = class.rate();
        let from = if self.used_until > now_ns { self.used_until } else { now_ns };
        if from - now_ns > interval * (burst - 1) {
            self.lost += 1;
            return false;
        }
        self.used_until = from + interval;
        true
    }
}
