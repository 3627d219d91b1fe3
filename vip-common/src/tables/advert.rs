//! What members of a VIP advertise by VRRP.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::wire::Ipv4;

/// Advertisement intervals after which a silent router is taken for gone (RFC 9568 §6.1, without the skew), and for which two must
/// advertise before it is a conflict.
pub const ADVERT_INTERVALS: u64 = 3;

/// Value of ADVERTS: what a member last advertised for a VIP. 32 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Advert {
    /// Nanoseconds since boot (CLOCK_BOOTTIME) since when it advertises without a pause.
    pub since: u64,
    /// Nanoseconds since boot of the last one.
    pub at: u64,
    /// Primary address: the advertisement's source.
    pub address: Ipv4,
    /// Interval in milliseconds.
    pub interval: u32,
    /// Virtual router id.
    pub vrid: u8,
    /// Priority: 1 to 255.
    pub priority: u8,
    /// Always 0.
    pub zero: [u8; 6],
}

impl Advert {
    /// Nanoseconds without an advertisement after which the router counts as silent.
    #[inline(always)]
    pub const fn patience(&self) -> u64 {
        self.interval as u64 * 1_000_000 * ADVERT_INTERVALS
    }

    /// Whether the router still advertises.
    #[inline(always)]
    pub const fn is_heard(&self, now: u64) -> bool {
        now.saturating_sub(self.at) <= self.patience()
    }

    /// Whether it has done so for long enough to be taken for a master.
    #[inline(always)]
    pub const fn is_lasting(&self, now: u64) -> bool {
        self.is_heard(now) && self.at.saturating_sub(self.since) >= self.patience()
    }

    /// Order of masters: the higher one stays (RFC 9568 §6.4.3).
    pub const fn rank(&self) -> (u8, u32) {
        (self.priority, u32::from_be(self.address.raw()))
    }
}

const _: () = assert!(size_of::<Advert>() == 32);
