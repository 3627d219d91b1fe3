//! Packets that are longer than an interface takes: refused where the sender wants to know (DF, RFC 1191), cut where it does not (RFC 791 §3.2).

use super::packet::{Frame, Ipv4Packet, Packet};
use crate::wire::{Ethernet, Header as _, Ipv4Header, Protocol, Tcp, Udp};

/// How a packet goes through an interface. One number, not an enum: see [`Decision`](super::verdict::Decision).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Fit(u32);

impl Fit {
    /// As it is.
    pub(super) const WHOLE: Self = Self(0);
    /// In [`Fragments`].
    pub(super) const IN_FRAGMENTS: Self = Self(1);
    /// Not, and its sender shall be told.
    pub(super) const TOO_BIG: Self = Self(2);
}

/// [`Packet::gso_size`] of a packet whose parts have lengths of their own, as large SCTP packets have them (`GSO_BY_FRAGS`, kernel 4.8).
const IN_PARTS: usize = 0xffff;

/// How a packet goes through an interface that takes `mtu` bytes; 0: nobody knows how many.
#[inline(always)]
pub(super) fn fit<P: Packet>(packet: &mut P, ip: &Ipv4Packet, mtu: u32) -> Fit {
    if ip.length() <= mtu as usize { Fit::WHOLE } else { fit_long(packet, ip, mtu) }
}

#[inline(never)]
fn fit_long<P: Packet>(packet: &mut P, ip: &Ipv4Packet, mtu: u32) -> Fit {
    if mtu == 0 {
        return Fit::WHOLE;
    }
    let gso_size = packet.gso_size();
    if gso_size == IN_PARTS {
        // They are as long as the sender's path takes, which single packets have told it.
        return Fit::WHOLE;
    }
    if gso_size != 0 {
        let transport = match ip.protocol {
            Protocol::TCP => ip.transport::<Tcp, _>(packet).map_or(Tcp::LEN, |tcp| tcp.header_length()),
            _ => Udp::LEN,
        };
        let longest = ip.payload - Ethernet::LEN + transport + gso_size;
        // What does not fit is not cut, whatever DF says: it would have to be cut twice.
        return if longest <= mtu as usize { Fit::WHOLE } else { Fit::TOO_BIG };
    }
    let Some(frame) = packet.header::<Frame>(0) else { return Fit::TOO_BIG };
    if !frame.ip.may_not_be_cut() && Fragments::of(&frame.ip, mtu).is_some() {
        Fit::IN_FRAGMENTS
    } else {
        Fit::TOO_BIG
    }
}

/// How a packet is cut into fragments, each but the last as long as fits. Of a fragment, they are fragments of the same whole.
#[derive(Clone, Copy, Debug)]
pub struct Fragments {
    header: Ipv4Header,
    /// Bytes of the packet's payload.
    payload: usize,
    /// Bytes of payload in each but the last; a multiple of 8.
    each: usize,
}

/// One of [`Fragments`].
#[derive(Clone, Copy, Debug)]
pub struct Fragment {
    /// Its header, without options.
    pub header: Ipv4Header,
    /// Where its payload begins in the packet's, in bytes.
    pub from: usize,
    /// Bytes of its payload.
    pub length: usize,
}

impl Fragments {
    /// Most bytes of a packet that is cut, Ethernet header included.
    pub const LONGEST: usize = 0x3fff;

    /// Most fragments of a packet: of the longest one in parts for the least MTU of hosts (RFC 791 §3.1: 576).
    pub const MOST: usize = 32;

    /// Where the payload of a packet ends at most, however it is cut: no length is more (RFC 791 §3.1).
    const FARTHEST: usize = 0xffff;

    /// The fragments of the packet with this header for an interface that takes `mtu` bytes. `None` for one with options, some of
    /// which may be in the first fragment only, if there were more than [`Self::MOST`], and for a fragment that reaches farther than a
    /// packet can.
    #[inline(always)]
    pub fn of(header: &Ipv4Header, mtu: u32) -> Option<Self> {
        let each = (mtu as usize).checked_sub(Ipv4Header::LEN)? & !7;
        let payload = header.total_length().checked_sub(Ipv4Header::LEN)?;
        let can_be = header.header_length() == Ipv4Header::LEN
            && Ethernet::LEN + header.total_length() <= Self::LONGEST
            && each * Self::MOST >= payload
            // An offset behind the last would be taken for one at the start, of what nobody has checked.
            && header.fragment_offset() + payload <= Self::FARTHEST;
        can_be.then_some(Self { header: *header, payload, each })
    }

    /// The fragment with a number, from 0 on; `None` behind the last.
    #[inline(always)]
    pub fn get(&self, number: usize) -> Option<Fragment> {
        let from = self.each * number;
        let left = self.payload.checked_sub(from).filter(|left| *left != 0)?;
        let is_last = left <= self.each;
        let length = if is_last { left } else { self.each };
        let mut header = self.header;
        let more = !is_last || header.has_more_fragments();
        header.set_fragment((Ipv4Header::LEN + length) as u16, header.fragment_offset() + from, more);
        Some(Fragment { header, from, length })
    }

    /// Whether the fragment with this number is the last.
    #[inline(always)]
    pub fn is_last(&self, number: usize) -> bool {
        self.each * (number + 1) >= self.payload
    }
}
