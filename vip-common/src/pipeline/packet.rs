//! How the pipeline reaches a packet.

use super::tell::IcmpErrorHeaders;
use crate::{
    DropReason,
    checksum::{self, Sum},
    wire::{Be16, Ethernet, Header, Ipv4, Ipv4Header, Outer},
};

/// The kernel refused to change the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EditFailed;

impl From<EditFailed> for DropReason {
    fn from(_: EditFailed) -> Self {
        Self::EditFailed
    }
}

/// A packet, as one of its hosts has it: XDP, TC, or a byte vector.
///
/// Everything that may move the bytes takes `&mut self`, so no reference to a header outlives it: the borrow checker
/// demands what the verifier would.
pub trait Packet {
    /// Length of the whole frame in bytes, with what lies outside the linear part.
    fn length(&self) -> usize;

    /// Length in bytes of what [`Self::header`] reaches without [`Self::pull`], or of the whole frame: what is cheaper to tell.
    fn near(&self) -> usize;

    /// Payload bytes of each packet that the frame will be cut into when it leaves; 0: it will not be (GSO).
    fn gso_size(&self) -> usize;

    /// Index of the interface that it came through.
    fn ingress(&self) -> u32;

    /// Whether the frame carries a VLAN tag that the kernel keeps beside the bytes, with a VLAN other than 0.
    fn is_tagged(&self) -> bool;

    /// The header at an even `offset`, in place; `None` if the packet ends before its end. The only bounds check there is.
    fn header<H: Header>(&mut self, offset: usize) -> Option<&mut H>;

    /// Makes the bytes before `end` such that [`Self::header`] finds them.
    fn pull(&mut self, end: usize) -> Result<(), EditFailed>;

    /// Makes the frame an ICMP error about itself: its bytes from the Ethernet header to `end` become the quote behind `headers`. They are
    /// on the wire what they are here: no sum is left to the NIC any more, nor is the frame cut.
    ///
    /// If it fails the frame is lost.
    fn quote(&mut self, end: usize, headers: &IcmpErrorHeaders) -> Result<(), EditFailed>;

    /// Takes what is behind the first `end` bytes off the frame, which is longer.
    ///
    /// If it fails the frame is lost.
    fn trim(&mut self, end: usize) -> Result<(), EditFailed>;

    /// Puts the headers of a tunnel before the frame. What it left to the NIC, a sum or the cutting, stays left to it.
    ///
    /// If it fails the frame is lost.
    fn encapsulate(&mut self, outer: &Outer) -> Result<(), EditFailed>;

    /// Takes the headers of a tunnel off: the first [`Outer`] bytes.
    ///
    /// If it fails the frame is lost.
    fn decapsulate(&mut self) -> Result<(), EditFailed>;

    /// The sum of the `N` bytes at an even `offset`, `N` a multiple of 4 up to 512; `None` if the packet ends before their end.
    fn sum<const N: usize>(&mut self, offset: usize) -> Option<Sum>;

    /// Mends the transport checksum at `offset` after an address of the pseudo-header changed. With `optional`, a field
    /// of 0 means that the sender computed none and stays (UDP over IPv4, RFC 768).
    ///
    /// The host does it, because in TC the field may hold the sum of the pseudo-header alone (CHECKSUM_PARTIAL), which
    /// only the kernel knows.
    fn mend_transport_checksum(
        &mut self,
        offset: usize,
        optional: bool,
        from: Ipv4,
        to: Ipv4,
    ) -> Result<(), EditFailed>;
}

/// [`Packet::mend_transport_checksum`] for hosts whose packets always carry real checksums.
#[inline(always)]
pub fn mend_in_place<P: Packet>(
    packet: &mut P,
    offset: usize,
    optional: bool,
    from: Ipv4,
    to: Ipv4,
) -> Result<(), EditFailed> {
    let field: &mut Be16 = packet.header(offset).ok_or(EditFailed)?;
    let change = Sum::default().replace_address(from, to);
    *field = if optional { checksum::update_udp(*field, change) } else { checksum::update(*field, change) };
    Ok(())
}

/// Ethernet and IPv4 together, 34 bytes: one bounds check for both.
#[derive(
    Clone, Copy, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
)]
#[repr(C)]
pub(super) struct Frame {
    pub(super) ethernet: Ethernet,
    pub(super) ip: Ipv4Header,
}

/// What the pipeline wants to know of an IPv4 packet, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Packet {
    /// Source address.
    pub source: Ipv4,
    /// Destination address.
    pub destination: Ipv4,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Time to live.
    pub ttl: u8,
    /// Whether the payload does not start with the transport header.
    pub later_fragment: bool,
    /// Offset of the payload in the frame: 34 to 74.
    pub payload: usize,
    /// Offset of the end of the payload in the frame.
    pub end: usize,
}

impl Ipv4Packet {
    /// Most bytes before the payload: Ethernet, and IPv4 with all options that fit.
    pub(super) const MOST_BEFORE_PAYLOAD: usize = Ethernet::LEN + 60;

    /// Reads the header behind the Ethernet header and checks its lengths against the frame (RFC 791 §3.1).
    #[inline(always)]
    pub fn parse<P: Packet>(packet: &mut P) -> Result<Self, DropReason> {
        let length = packet.length();
        let Some(Frame { ip, .. }) = packet.header::<Frame>(0) else {
            return Err(DropReason::FrameTruncated);
        };
        Self::of(ip, length)
    }

    /// The packet behind a header, in a frame of `length` bytes.
    #[inline(always)]
    pub(super) fn of(ip: &Ipv4Header, length: usize) -> Result<Self, DropReason> {
        if ip.version() != 4 || ip.header_length() < Ipv4Header::LEN {
            return Err(DropReason::Ipv4Malformed);
        }
        Self::with(ip, length, ip.header_length(), ip.is_later_fragment())
    }

    /// [`Self::of`] for a header that [`Ipv4Header::is_plain`]: where things lie is known when the program is compiled.
    #[inline(always)]
    pub(super) fn of_plain(ip: &Ipv4Header, length: usize) -> Result<Self, DropReason> {
        Self::with(ip, length, Ipv4Header::LEN, false)
    }

    #[inline(always)]
    fn with(
        ip: &Ipv4Header,
        length: usize,
        header_length: usize,
        later_fragment: bool,
    ) -> Result<Self, DropReason> {
        let mut total_length = ip.total_length();
        if total_length == 0 && length > 0xffff {
            // A frame larger than the field can tell, which the NIC will cut ("BIG TCP" for IPv4, kernel 6.3).
            total_length = length - Ethernet::LEN;
        }
        if total_length < header_length || Ethernet::LEN + total_length > length {
            return Err(DropReason::Ipv4Malformed);
        }
        Ok(Self {
            source: ip.source.get(),
            destination: ip.destination.get(),
            protocol: ip.protocol(),
            ttl: ip.ttl(),
            later_fragment,
            payload: Ethernet::LEN + header_length,
            end: Ethernet::LEN + total_length,
        })
    }

    /// Length in bytes, from the header to the end of the payload.
    #[inline(always)]
    pub(super) const fn length(&self) -> usize {
        self.end - Ethernet::LEN
    }

    /// The header at the start of the payload; `None` in a later fragment, and if the payload ends before its end.
    #[inline(always)]
    pub(super) fn transport<'a, H: Header, P: Packet>(&self, packet: &'a mut P) -> Option<&'a mut H> {
        self.transport_at(packet, 0)
    }

    /// [`Self::transport`] of a frame that begins at `base` in the packet.
    #[inline(always)]
    pub(super) fn transport_at<'a, H: Header, P: Packet>(
        &self,
        packet: &'a mut P,
        base: usize,
    ) -> Option<&'a mut H> {
        if self.later_fragment || self.payload + H::LEN > self.end {
            return None;
        }
        // All offsets that a payload can have; without, the verifier may see an address below the packet's start.
        packet.header(base + (self.payload & 0x7e))
    }
}
