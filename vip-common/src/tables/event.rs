//! What the programs tell the agent: a hint, never the truth, which is in OWNERS.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::MeterClass;
use crate::{
    DropReason,
    wire::{Ipv4, Mac},
};

/// Declares the numbered forms with their names in `learned_from`.
macro_rules! claim_forms {
    ($($number:literal $variant:ident $name:literal $text:literal)*) => {
        /// How an owner came to own a VIP.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum ClaimForm {
            $(#[doc = $text] $variant = $number,)*
        }

        impl ClaimForm {
            /// Every form, in the order of the numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The form with this number.
            #[inline(always)]
            pub const fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// Name in `learned_from`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

claim_forms! {
    0 GarpRequest "garp_request" "ARP request with sender = target and a target MAC: `arping -U`, keepalived."
    1 GarpReply "garp_reply" "ARP reply with sender = target: `arping -A`."
    2 Announcement "announcement" "RFC 5227 announcement: ARP request with sender = target and target MAC 0."
    3 Arp "arp" "Learned: an ordinary ARP request from a VIP that nobody owned."
    4 Data "data" "Learned: a packet from a VIP that nobody owned."
    5 SilentOwner "silent_owner" "The owner did not answer the agent while another member used the VIP."
    6 Vrrp "vrrp" "Two members advertised the VRID at once; the agent decided."
    7 Peer "peer" "Another host told of it."
    8 State "state" "The desired state or a vanished interface ended or moved the ownership."
}

impl ClaimForm {
    /// The number of the form.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// Whether the owner itself announced; otherwise the ownership was learned or assigned.
    #[inline(always)]
    pub const fn is_claim(self) -> bool {
        matches!(self, Self::GarpRequest | Self::GarpReply | Self::Announcement)
    }
}

/// What an [`Event`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EventKind {
    /// A VIP has a new owner: slot, port, previous, epoch, form.
    Moved = 1,
    /// A claim waits for its due time: slot, port, form.
    Damped = 2,
    /// A claim, a probe or an ARP packet was refused: port, VNI, reason, MAC, and the address spoken for or probed.
    Refused = 3,
    /// A member that does not own the VIP uses it: slot, port, previous (the owner), epoch.
    MemberUses = 4,
    /// The owner answered the agent's question whether it still holds the VIP: slot, port, epoch.
    OwnerAnswered = 5,
    /// A member that does not own the VIP advertises it by VRRP, lastingly: slot, port, previous (the owner), epoch.
    Advertises = 6,
    /// The owner of a VIP that has moved a moment ago claims it again: slot, port, epoch, form.
    Repeated = 7,
}

impl EventKind {
    /// The kind with this number.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Moved),
            2 => Some(Self::Damped),
            3 => Some(Self::Refused),
            4 => Some(Self::MemberUses),
            5 => Some(Self::OwnerAnswered),
            6 => Some(Self::Advertises),
            7 => Some(Self::Repeated),
            _ => None,
        }
    }

    /// The meter that the kind goes through.
    #[inline(always)]
    pub const fn class(self) -> MeterClass {
        match self {
            Self::Moved | Self::MemberUses | Self::OwnerAnswered | Self::Advertises => MeterClass::Ownership,
            Self::Damped | Self::Repeated => MeterClass::Waiting,
            Self::Refused => MeterClass::Refusal,
        }
    }
}

/// Record of EVENTS. 56 bytes; fields that a kind does not name are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Event {
    /// Nanoseconds since boot (CLOCK_BOOTTIME).
    pub at: u64,
    /// Epoch of the VIP's word.
    pub epoch: u64,
    /// [`EventKind`] number.
    pub kind: u32,
    /// VIP slot.
    pub slot: u32,
    /// Port index.
    pub port: u32,
    /// Port index of the previous or present owner; 0: none.
    pub previous: u32,
    /// [`ClaimForm`] number, of kinds that name a form.
    pub form: u32,
    /// [`DropReason`] number, of a refusal.
    pub reason: u32,
    /// The address that a refusal is about.
    pub address: Ipv4,
    /// The MAC that a refusal is about.
    pub mac: Mac,
    /// Always 0.
    pub zero: u16,
    /// VNI of the port.
    pub vni: u32,
}

impl Event {
    /// What the event tells; `None` for a number that this version does not know.
    pub const fn kind(&self) -> Option<EventKind> {
        EventKind::from_number(self.kind)
    }

    /// The refusal's reason; `None` for a number that this version does not know.
    pub fn reason(&self) -> Option<DropReason> {
        DropReason::ALL.get(self.reason as usize).copied()
    }
}

const _: () = assert!(size_of::<Event>() == 56);
