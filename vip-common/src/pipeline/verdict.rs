//! What becomes of a packet.

use crate::{DropReason, wire::Ipv4};

/// Which hook of the uplink runs the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// XDP: cannot reach ports whose interface takes no XDP frames; leaves those to [`Stage::Tc`].
    Xdp,
    /// TC ingress: reaches every port.
    Tc,
}

/// What becomes of a packet. Three outcomes: it is handled, it is not ours, or it is dropped with a counted reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// To the stack, unchanged: an address that the tables do not know, or something always allowed.
    NotOurs,
    /// Handled, and to the stack unchanged all the same: an accepted claim on a port of a bridge.
    PassOn,
    /// Not for this hook: TC on the same interface decides, from the unchanged packet.
    LeaveToTc,
    /// Handled, and nobody is to see it.
    Consumed,
    /// Stopped, and counted: the index of the [`DropReason`].
    Drop(u32),
    /// Stopped and counted, and the frame has become the ICMP error that tells its sender.
    Tell {
        /// Index of the [`DropReason`].
        reason: u32,
        /// 0: back out of the interface that the packet came from. Else into this one, as if it came from outside: the sender is a
        /// guest that sent to an EIP.
        ifindex: u32,
    },
    /// To the guest of this port.
    Deliver {
        /// Port index.
        port: u32,
        /// Its interface.
        ifindex: u32,
    },
    /// To a guest, in [`Fragments`](super::Fragments).
    DeliverFragments {
        /// The guest's interface.
        ifindex: u32,
        /// The longest of them in bytes.
        mtu: u32,
    },
    /// To the members of a VIP but one, as it is: [`for_each_receiver`](super::for_each_receiver) has those on this host,
    /// [`for_each_host`](super::for_each_host) the other hosts.
    Members {
        /// VIP slot.
        slot: u32,
        /// Port index of the sender; 0: it is on another host, which sees to the others.
        sender: u32,
    },
    /// To another host, in [`Fragments`](super::Fragments) of which each gets [`TunnelHeaders`](super::TunnelHeaders) of its own.
    TunnelFragments {
        /// Index in HOSTS.
        host: u32,
        /// The receiver's VPC.
        vni: u32,
    },
    /// Back out of the interface that it came from.
    Return,
    /// Out of the uplink to the neighbour whose MAC is already in the frame.
    Uplink {
        /// The uplink, or a VLAN interface on it.
        ifindex: u32,
        /// 0: as it is. Else in [`Fragments`](super::Fragments), the longest of them in bytes.
        mtu: u32,
    },
    /// Into the uplink, as if it came from outside: a guest's packet to an EIP, translated on its way out.
    ComeBack {
        /// The uplink, or a VLAN interface on it.
        ifindex: u32,
    },
    /// Out of the uplink to a neighbour whose MAC the kernel has to find.
    Resolve {
        /// Address of the neighbour.
        next_hop: Ipv4,
        /// Index of the EIP's network where networks may be on VLANs, else 0: the neighbour is on the
        /// [`neighbours_interface`](super::neighbours_interface).
        network: u16,
    },
}

impl Verdict {
    /// The verdict that an observer was shown as one word.
    pub const fn from_word(word: u64) -> Self {
        Decision(word).verdict()
    }
}

/// A [`Verdict`] in one word, which is what the stages return: action (8 bits), port (24), detail (32), from the highest bit on.
///
/// An enum with payloads, or a `Result`, leaves registers undefined where ways with different payloads meet; the verifier
/// refuses to let a program spill those.
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) struct Decision(u64);

impl Decision {
    const NOT_OURS_ACTION: u64 = 0;
    const PASS_ON_ACTION: u64 = 1;
    const LEAVE_TO_TC_ACTION: u64 = 2;
    const CONSUMED_ACTION: u64 = 3;
    const DROP_ACTION: u64 = 4;
    const DELIVER_ACTION: u64 = 5;
    const MEMBERS_ACTION: u64 = 6;
    const RETURN_ACTION: u64 = 7;
    const UPLINK_ACTION: u64 = 8;
    const RESOLVE_ACTION: u64 = 9;
    const COME_BACK_ACTION: u64 = 10;
    const REFUSE_ACTION: u64 = 11;
    const TELL_ACTION: u64 = 12;
    const FRAGMENTS_ACTION: u64 = 13;
    const TUNNEL_ACTION: u64 = 14;
    const TUNNEL_FRAGMENTS_ACTION: u64 = 15;

    /// [`Verdict::NotOurs`].
    pub(super) const NOT_OURS: Self = Self::new(Self::NOT_OURS_ACTION, 0, 0);
    /// [`Verdict::PassOn`].
    pub(super) const PASS_ON: Self = Self::new(Self::PASS_ON_ACTION, 0, 0);
    /// [`Verdict::LeaveToTc`].
    pub(super) const LEAVE_TO_TC: Self = Self::new(Self::LEAVE_TO_TC_ACTION, 0, 0);
    /// [`Verdict::Consumed`].
    pub(super) const CONSUMED: Self = Self::new(Self::CONSUMED_ACTION, 0, 0);
    /// [`Verdict::Return`].
    pub(super) const RETURN: Self = Self::new(Self::RETURN_ACTION, 0, 0);

    #[inline(always)]
    const fn new(action: u64, port: u32, detail: u32) -> Self {
        Self(action << 56 | (port as u64 & 0xff_ffff) << 32 | detail as u64)
    }

    /// [`Verdict::Drop`].
    #[inline(always)]
    pub(super) const fn drop(reason: DropReason) -> Self {
        Self::new(Self::DROP_ACTION, 0, reason.index())
    }

    /// [`Verdict::Drop`], unless its sender can be told: [`tell`](super::tell) makes the one or the other of it.
    #[inline(always)]
    pub(super) const fn refuse(reason: DropReason) -> Self {
        Self::new(Self::REFUSE_ACTION, 0, reason.index())
    }

    /// [`Self::refuse`] of a packet that is longer than `mtu` bytes.
    #[inline(always)]
    pub(super) const fn too_big(mtu: u32) -> Self {
        Self::new(Self::REFUSE_ACTION, mtu, DropReason::TooBig.index())
    }

    /// [`Verdict::Drop`] for the reason of a [`Self::refuse`].
    #[inline(always)]
    pub(super) const fn untold(self) -> Self {
        Self::new(Self::DROP_ACTION, 0, self.0 as u32)
    }

    /// [`Verdict::Tell`] for the reason of a [`Self::refuse`].
    #[inline(always)]
    pub(super) const fn told(self, ifindex: u32) -> Self {
        Self::new(Self::TELL_ACTION, self.0 as u32, ifindex)
    }

    /// The bytes that are too few for the packet, if that is why it is a [`Self::refuse`].
    #[inline(always)]
    pub(super) const fn refused_mtu(self) -> Option<u32> {
        if self.0 as u32 == DropReason::TooBig.index() {
            Some((self.0 >> 32 & 0xff_ffff) as u32)
        } else {
            None
        }
    }

    /// Whether it is a [`Self::refuse`].
    #[inline(always)]
    pub(super) const fn is_refusal(self) -> bool {
        self.0 >> 56 == Self::REFUSE_ACTION
    }

    /// [`Verdict::DeliverFragments`].
    #[inline(always)]
    pub(super) const fn fragments(ifindex: u32, mtu: u32) -> Self {
        Self::new(Self::FRAGMENTS_ACTION, mtu, ifindex)
    }

    /// Through VXLAN to the host with this index: [`tunnel`](super::tunnel) makes a verdict of it.
    #[inline(always)]
    pub(super) const fn tunnel(host: u32, vni: u32) -> Self {
        Self::new(Self::TUNNEL_ACTION, vni, host)
    }

    /// [`Verdict::TunnelFragments`].
    #[inline(always)]
    pub(super) const fn tunnel_fragments(host: u32, vni: u32) -> Self {
        Self::new(Self::TUNNEL_FRAGMENTS_ACTION, vni, host)
    }

    /// Whether it is a [`Self::tunnel`].
    #[inline(always)]
    pub(super) const fn is_tunnel(self) -> bool {
        self.0 >> 56 == Self::TUNNEL_ACTION
    }

    /// Host's index and VNI of a [`Self::tunnel`].
    #[inline(always)]
    pub(super) const fn tunnelled(self) -> (u32, u32) {
        (self.0 as u32, (self.0 >> 32 & 0xff_ffff) as u32)
    }

    /// Whether nothing but the verdict is left of it, and that is carried out by one call of the kernel at most.
    #[inline(always)]
    pub(super) const fn is_simple(self) -> bool {
        self.0 >> 56 <= Self::DELIVER_ACTION || self.0 >> 56 == Self::RETURN_ACTION
    }

    /// [`Verdict::Deliver`].
    #[inline(always)]
    pub(super) const fn deliver(port: u32, ifindex: u32) -> Self {
        Self::new(Self::DELIVER_ACTION, port, ifindex)
    }

    /// [`Verdict::Members`].
    #[inline(always)]
    pub(super) const fn members(slot: u32, sender: u32) -> Self {
        Self::new(Self::MEMBERS_ACTION, sender, slot)
    }

    /// [`Verdict::Uplink`].
    #[inline(always)]
    pub(super) const fn uplink(ifindex: u32, mtu: u32) -> Self {
        Self::new(Self::UPLINK_ACTION, mtu, ifindex)
    }

    /// [`Verdict::ComeBack`].
    #[inline(always)]
    pub(super) const fn come_back(ifindex: u32) -> Self {
        Self::new(Self::COME_BACK_ACTION, 0, ifindex)
    }

    /// [`Verdict::Resolve`].
    #[inline(always)]
    pub(super) const fn resolve(next_hop: Ipv4) -> Self {
        Self::new(Self::RESOLVE_ACTION, 0, next_hop.raw())
    }

    /// The word.
    #[inline(always)]
    pub(super) const fn word(self) -> u64 {
        self.0
    }

    /// The decision with this word.
    #[inline(always)]
    pub(super) const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The reason's index, of a drop, told or not.
    #[inline(always)]
    pub(super) const fn drop_index(self) -> Option<u32> {
        match self.0 >> 56 {
            Self::DROP_ACTION | Self::REFUSE_ACTION => Some(self.0 as u32),
            Self::TELL_ACTION => Some((self.0 >> 32 & 0xff_ffff) as u32),
            _ => None,
        }
    }

    /// Whether it is [`Verdict::Deliver`].
    #[inline(always)]
    pub(super) const fn is_delivery(self) -> bool {
        self.0 >> 56 == Self::DELIVER_ACTION
    }

    /// Whether a packet from another host goes to a third one.
    #[inline(always)]
    pub(super) const fn is_sent_on(self) -> bool {
        matches!(self.0 >> 56, Self::RETURN_ACTION | Self::UPLINK_ACTION | Self::RESOLVE_ACTION)
    }

    /// Whether the packet goes to a guest, here or on another host, whole or in fragments.
    #[inline(always)]
    pub(super) const fn is_handled(self) -> bool {
        matches!(
            self.0 >> 56,
            Self::DELIVER_ACTION
                | Self::FRAGMENTS_ACTION
                | Self::TUNNEL_ACTION
                | Self::TUNNEL_FRAGMENTS_ACTION
        )
    }

    /// The [`Verdict::Deliver`] that it is.
    #[inline(always)]
    pub(super) const fn delivery(self) -> Verdict {
        Verdict::Deliver { port: (self.0 >> 32 & 0xff_ffff) as u32, ifindex: self.0 as u32 }
    }

    /// Whether it is [`Verdict::ComeBack`].
    #[inline(always)]
    pub(super) const fn comes_back(self) -> bool {
        self.0 >> 56 == Self::COME_BACK_ACTION
    }

    /// What [is out](Self::is_out), by this interface instead of the uplink, and in this network.
    #[inline(always)]
    pub(super) const fn on(self, ifindex: u32, network: u16) -> Self {
        if self.0 >> 56 == Self::RESOLVE_ACTION {
            Self::new(Self::RESOLVE_ACTION, network as u32, self.0 as u32)
        } else {
            Self(self.0 & !(u32::MAX as u64) | ifindex as u64)
        }
    }

    /// Whether the packet left as an EIP: by the uplink, or to another EIP.
    #[inline(always)]
    pub(super) const fn is_out(self) -> bool {
        matches!(self.0 >> 56, Self::UPLINK_ACTION | Self::RESOLVE_ACTION | Self::COME_BACK_ACTION)
    }

    /// The verdict behind the word.
    #[inline(always)]
    pub(super) const fn verdict(self) -> Verdict {
        let (port, detail) = ((self.0 >> 32 & 0xff_ffff) as u32, self.0 as u32);
        match self.0 >> 56 {
            Self::PASS_ON_ACTION => Verdict::PassOn,
            Self::LEAVE_TO_TC_ACTION => Verdict::LeaveToTc,
            Self::CONSUMED_ACTION => Verdict::Consumed,
            Self::DROP_ACTION | Self::REFUSE_ACTION => Verdict::Drop(detail),
            Self::TELL_ACTION => Verdict::Tell { reason: port, ifindex: detail },
            Self::FRAGMENTS_ACTION => Verdict::DeliverFragments { ifindex: detail, mtu: port },
            Self::DELIVER_ACTION => self.delivery(),
            Self::MEMBERS_ACTION => Verdict::Members { slot: detail, sender: port },
            Self::RETURN_ACTION => Verdict::Return,
            Self::TUNNEL_FRAGMENTS_ACTION => Verdict::TunnelFragments { host: detail, vni: port },
            Self::UPLINK_ACTION => Verdict::Uplink { ifindex: detail, mtu: port },
            Self::COME_BACK_ACTION => Verdict::ComeBack { ifindex: detail },
            Self::RESOLVE_ACTION => {
                Verdict::Resolve { next_hop: Ipv4::from_raw(detail), network: port as u16 }
            }
            _ => Verdict::NotOurs,
        }
    }
}

impl From<DropReason> for Decision {
    #[inline(always)]
    fn from(reason: DropReason) -> Self {
        Self::drop(reason)
    }
}

/// The value of a `Result`, or a return of the decision to drop for the reason of its error: `?` for stages.
macro_rules! attempt {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(reason) => return $crate::pipeline::verdict::Decision::drop(reason),
        }
    };
}
pub(super) use attempt;
