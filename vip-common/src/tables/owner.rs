//! Who owns a VIP: one 64-bit word, the claim that waits, the last moves.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{SourceEip, event::ClaimForm};
use crate::wire::Ipv4;

/// Moves that a VIP may make at once before alternation is damped.
pub const DAMPING_BURST: u64 = 8;

/// Nanoseconds in which the bucket regains one move.
pub const DAMPING_INTERVAL_NS: u64 = 1_000_000_000;

/// Moves remembered per VIP, a power of two.
pub const MOVES_PER_VIP: u32 = 8;

/// The owner of a VIP: epoch (35 bits), claimed (1), port index (20), VRID (8), from the highest bit on.
///
/// A VIP moves by one compare-and-swap of this word, so no packet sees half a move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct OwnerWord(pub u64);

impl OwnerWord {
    const PORT_BITS: u32 = 20;
    const PORT_MASK: u64 = (1 << Self::PORT_BITS) - 1;

    /// A word of its parts; `port` 0: nobody owns the VIP.
    #[inline(always)]
    pub const fn new(epoch: u64, claimed: bool, port: u32, vrid: u8) -> Self {
        Self(epoch << 29 | (claimed as u64) << 28 | (port as u64 & Self::PORT_MASK) << 8 | vrid as u64)
    }

    /// Number of the last change of owner.
    #[inline(always)]
    pub const fn epoch(self) -> u64 {
        self.0 >> 29
    }

    /// Whether the owner claimed the VIP; otherwise it was learned from its ordinary traffic.
    #[inline(always)]
    pub const fn claimed(self) -> bool {
        self.0 >> 28 & 1 != 0
    }

    /// Port index of the owner; 0: none.
    #[inline(always)]
    pub const fn port(self) -> u32 {
        (self.0 >> 8 & Self::PORT_MASK) as u32
    }

    /// VRID whose virtual router MAC the owner receives the VIP by; 0: the port's own MAC.
    #[inline(always)]
    pub const fn vrid(self) -> u8 {
        (self.0 & 0xff) as u8
    }

    /// What orders words of one VIP: epoch, then claimed before learned. The host's id decides among equals.
    #[inline(always)]
    pub const fn order(self) -> u64 {
        self.0 >> 28
    }

    /// The word after `port` became the owner. The epoch grows only when the owner changes.
    #[inline(always)]
    #[must_use]
    pub const fn moved_to(self, port: u32, vrid: u8, claimed: bool) -> Self {
        if self.port() == port {
            Self::new(self.epoch(), claimed || self.claimed(), port, vrid)
        } else {
            Self::new(self.epoch() + 1, claimed, port, vrid)
        }
    }
}

/// A claim that damping delays: due time (32 bits, milliseconds since boot, wrapping), form (4), port index (20), VRID (8),
/// from the highest bit on. 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Pending(pub u64);

impl Pending {
    /// No claim waits.
    pub const NONE: Self = Self(0);

    /// A claim that waits until `due_ns`, nanoseconds since boot, rounded up to a millisecond.
    #[inline(always)]
    pub const fn new(port: u32, vrid: u8, form: ClaimForm, due_ns: u64) -> Self {
        let due = due_ns / 1_000_000 + 1;
        Self(
            due << 32
                | (form.number() as u64 & 0xf) << 28
                | (port as u64 & OwnerWord::PORT_MASK) << 8
                | vrid as u64,
        )
    }

    /// Port index of the claimant; 0: no claim waits.
    #[inline(always)]
    pub const fn port(self) -> u32 {
        (self.0 >> 8 & OwnerWord::PORT_MASK) as u32
    }

    /// VRID of the claim; 0: the port's own MAC.
    #[inline(always)]
    pub const fn vrid(self) -> u8 {
        (self.0 & 0xff) as u8
    }

    /// How the claim was made.
    #[inline(always)]
    pub const fn form(self) -> Option<ClaimForm> {
        ClaimForm::from_number((self.0 >> 28 & 0xf) as u32)
    }

    /// Whether the due time has come. The stamp wraps after 49 days: a claim waits a few seconds at most.
    #[inline(always)]
    pub const fn is_due(self, now_ns: u64) -> bool {
        self.since_due_ms(now_ns) >= 0
    }

    /// Milliseconds since the due time; negative until then.
    #[inline(always)]
    pub const fn since_due_ms(self, now_ns: u64) -> i32 {
        let now = (now_ns / 1_000_000) as u32;
        now.wrapping_sub((self.0 >> 32) as u32).cast_signed()
    }
}

/// Who owns a VIP and who waits to: what claims change. 32 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct OwnerEntry {
    /// The owner.
    pub word: OwnerWord,
    /// The claim that waits.
    pub pending: Pending,
    /// Nanoseconds since boot until which the bucket of moves is used up, for one move each interval.
    pub damped_until: u64,
    /// Nanoseconds since boot when the agent was last told that a member other than the owner uses the VIP, or advertises it.
    pub reported: u64,
}

/// What the state says of a VIP. 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VipEntry {
    /// The EIP that it leaves as.
    pub eip: SourceEip,
    /// VNI of the VPC; 0: no VIP in this slot.
    pub vni: u32,
    /// The VIP.
    pub address: Ipv4,
}

/// The VIP of a record of VIPS: what each packet needs of it. 32 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct VipRecord {
    /// The owner.
    pub word: OwnerWord,
    /// The claim that waits.
    pub pending: Pending,
    /// What the state says.
    pub vip: VipEntry,
}

/// The VIP of a record of VIPS_ASIDE: what claims need of it beside that. 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AsideRecord {
    /// As in [`OwnerEntry`].
    pub damped_until: u64,
    /// As in [`OwnerEntry`].
    pub reported: u64,
}

/// Value of MOVES: one change of owner. 32 bytes. Believed only if its epoch is one that the word can have had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Move {
    /// Epoch that the move began.
    pub epoch: u64,
    /// Nanoseconds since boot (CLOCK_BOOTTIME).
    pub at: u64,
    /// New owner's port index; 0: released.
    pub port: u32,
    /// Previous owner's port index; 0: none.
    pub previous: u32,
    /// [`ClaimForm`] number.
    pub form: u32,
    /// Always 0.
    pub zero: u32,
}

impl Move {
    /// Index in MOVES of the move of a slot that began `epoch`.
    #[inline(always)]
    pub const fn index(slot: u32, epoch: u64) -> u32 {
        slot * MOVES_PER_VIP + (epoch as u32 & (MOVES_PER_VIP - 1))
    }
}

const _: () =
    assert!(size_of::<VipRecord>() == 32 && size_of::<AsideRecord>() == 16 && size_of::<Move>() == 32);
