//! Quotes: an ICMP error carries the start of the packet that it is about, with the addresses that this had where it failed
//! (RFC 792). A translated error has a translated quote, or its receiver could not tell what failed, and a private address
//! would leave (RFC 5508 §4.2, RFC 3022 §4.3).

use core::hint::black_box;

use super::{
    packet::{Frame, Ipv4Packet, Packet},
    rewrite::transport_checksum,
    tables::{Tables, VipCell as _},
};
use crate::{
    DropReason,
    checksum::{self, Sum},
    tables::{AddressKind, Direction, PortEntry, PortFlags, SourceEip, Target, VniAddress, Way},
    wire::{Be16, FRAGMENTATION_NEEDED, Header as _, Icmp, IcmpType, Ipv4, Ipv4Header, Protocol, WireIpv4},
};

/// Bytes of an ICMP error before its quote.
const ERROR_HEADER: usize = 8;

/// Longest ICMP error that is translated, in bytes: a jumbo frame's. RFC 1812 §4.3.2.3 allows 556.
const LONGEST: usize = 9216;

/// Which address of a quoted packet is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quoted {
    /// Of an error that comes in: the guest's packet had left as the EIP.
    Source,
    /// Of an error that goes out: the packet had come to the EIP.
    Destination,
}

/// Destination of the packet that an ICMP error is about; unspecified if the packet is no error, an address that nobody has if it
/// quotes less than a header.
#[inline(never)]
pub(super) fn quoted_destination<P: Packet>(packet: &mut P, ip: &Ipv4Packet) -> Ipv4 {
    let at = ip.payload + ERROR_HEADER;
    if !is_error(packet, ip) {
        return Ipv4::UNSPECIFIED;
    }
    if at + Ipv4Header::LEN > ip.end {
        return Ipv4::BROADCAST;
    }
    match packet.header::<Ipv4Header>(within(at)) {
        // A quote may name this one too, and is one all the same.
        Some(header) if !header.destination.get().is_unspecified() => header.destination.get(),
        _ => Ipv4::BROADCAST,
    }
}

/// The last step of an ICMP message that leaves as an EIP, which is its source already: translates the quote if it is an error,
/// and counts it. A step of its own, at the surface: the way down to where packets leave has no more stack on Linux 6.1.
#[inline(never)]
pub(super) fn icmp_leaves<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Result<(), DropReason> {
    let ip = Ipv4Packet::parse(packet)?;
    let Some(frame) = packet.header::<Frame>(0) else { return Err(DropReason::EditFailed) };
    if (1..ERROR_HEADER + Ipv4Header::LEN).contains(&frame.ip.fragment_offset()) {
        // Were the message an error, the addresses of its quote would be here and nobody could tell.
        return Err(DropReason::TinyFragment);
    }
    let address = quoted_destination(packet, &ip);
    if !address.is_unspecified() {
        let port = tables
            .port_by_interface(packet.ingress())
            .and_then(|index| tables.port(index))
            .ok_or(DropReason::TableInconsistent)?;
        let eip = eip_of(tables, &port, address).address;
        if eip.is_unspecified() || (eip != ip.source && !port.flags.has(PortFlags::BYPASS)) {
            return Err(DropReason::IcmpError);
        }
        translate_quote(packet, &ip, Quoted::Destination, address, eip)?;
    }
    let bytes = packet.length();
    match tables.eip(ip.source).and_then(Target::kind) {
        Some(AddressKind::Vip(slot)) => {
            if let Some(vip) = tables.vip(slot) {
                tables.count_vip(vip, Way::Eip, Direction::Out, bytes);
            }
        }
        Some(AddressKind::Fixed(index)) => {
            if let Some(port) = tables.port(index) {
                tables.count_port(port, Direction::Out, bytes);
            }
        }
        _ => {}
    }
    Ok(())
}

/// The EIP of an address of a port's VPC.
#[inline(always)]
pub(super) fn eip_of<T: Tables>(tables: &T, port: &PortEntry, address: Ipv4) -> SourceEip {
    match tables.address(port.root, &VniAddress { vni: port.vni, address }).and_then(Target::kind) {
        Some(AddressKind::Vip(slot)) => tables.vip(slot).map_or(SourceEip::default(), |vip| vip.entry().eip),
        Some(AddressKind::Fixed(index)) => tables.port(index).map_or(SourceEip::default(), |port| port.eip),
        _ => SourceEip::default(),
    }
}

/// Translates the quote of an ICMP error, in which the address must be `from`; an ICMP message that is no error has none. Nothing is
/// changed unless all can be.
///
/// The quoted header's checksum balances its address, so they change nothing about the checksum of the message; the quoted
/// transport checksum does.
#[inline(never)]
pub(super) fn translate_quote<P: Packet>(
    packet: &mut P,
    ip: &Ipv4Packet,
    quoted: Quoted,
    from: Ipv4,
    to: Ipv4,
) -> Result<(), DropReason> {
    if !is_error(packet, ip) {
        return Ok(());
    }
    let at = ip.payload + ERROR_HEADER;
    if at + Ipv4Header::LEN > ip.end || ip.end - ip.payload > LONGEST {
        return Err(DropReason::IcmpError);
    }
    packet.pull(ip.end)?;
    let Some([icmp, mtu]) = packet.header::<[[Be16; 2]; 2]>(within(ip.payload)).map(|message| *message)
    else {
        return Err(DropReason::EditFailed);
    };
    if tells_absurd_mtu(icmp, mtu) {
        return Err(DropReason::IcmpError);
    }
    let Some(frame) = packet.header::<Frame>(0) else { return Err(DropReason::EditFailed) };
    if frame.ip.has_more_fragments() {
        // Its checksum covers what is not here.
        return Err(DropReason::IcmpError);
    }
    let Some(header) = packet.header::<Ipv4Header>(within(at)) else { return Err(DropReason::EditFailed) };
    let address = match quoted {
        Quoted::Source => header.source,
        Quoted::Destination => header.destination,
    };
    let (length, protocol) = (header.header_length(), header.protocol());
    // An error is for the sender of what it is about. One for somebody else could quote an address of the VPC, and it would leave.
    let is_for_another = quoted == Quoted::Destination && header.source.get() != ip.destination;
    if header.version() != 4 || length < Ipv4Header::LEN || address.get() != from || is_for_another {
        return Err(DropReason::IcmpError);
    }
    let transport = at + length;
    let has_transport = !header.is_later_fragment();
    if transport > ip.end
        || (has_transport && protocol == Protocol::ICMP && quotes_error(packet, transport, ip.end))
    {
        return Err(DropReason::IcmpError);
    }
    if !is_intact(packet, ip) {
        return Err(DropReason::IcmpChecksum);
    }
    let change = Sum::default().replace_address(from, to);
    if let Some((field, optional)) = transport_checksum(protocol)
        && has_transport
        && transport + field + Be16::LEN <= ip.end
    {
        let Some(sum) = packet.header::<Be16>(within(transport + field)) else {
            return Err(DropReason::EditFailed);
        };
        let before = *sum;
        let after =
            if optional { checksum::update_udp(before, change) } else { checksum::update(before, change) };
        *sum = after;
        let Some(icmp) = packet.header::<Icmp>(within(ip.payload)) else {
            return Err(DropReason::EditFailed);
        };
        icmp.checksum = checksum::update(icmp.checksum, Sum::default().replace(before, after));
    }
    let Some(header) = packet.header::<Ipv4Header>(within(at)) else { return Err(DropReason::EditFailed) };
    match quoted {
        Quoted::Source => header.source = WireIpv4::new(to),
        Quoted::Destination => header.destination = WireIpv4::new(to),
    }
    header.checksum = checksum::update(header.checksum, change);
    Ok(())
}

/// Least MTU of an IPv4 link in bytes (RFC 791 §3.2).
const LEAST_MTU: u16 = 68;

/// Whether an error that begins with these words tells of an MTU that no link has: believed, it would slow its receiver down. 0 is
/// what routers tell that know of no MTU (RFC 1191 §5).
#[inline(always)]
fn tells_absurd_mtu([type_code, _]: [Be16; 2], [_, mtu]: [Be16; 2]) -> bool {
    const TOO_BIG: u16 = (IcmpType::UNREACHABLE as u16) << 8 | FRAGMENTATION_NEEDED as u16;
    type_code.get() == TOO_BIG && (1..LEAST_MTU).contains(&mtu.get())
}

/// Whether the packet is an ICMP error that quotes another.
#[inline(always)]
fn is_error<P: Packet>(packet: &mut P, ip: &Ipv4Packet) -> bool {
    ip.transport::<Icmp, _>(packet).is_some_and(|icmp| {
        matches!(
            icmp.icmp_type(),
            IcmpType::UNREACHABLE | IcmpType::TIME_EXCEEDED | IcmpType::PARAMETER_PROBLEM
        )
    })
}

/// Whether the quoted ICMP message is not one that errors may be about (RFC 1122 §3.2.2): its own quote would stay as it is.
#[inline(always)]
fn quotes_error<P: Packet>(packet: &mut P, transport: usize, end: usize) -> bool {
    if transport + Icmp::LEN > end {
        return false;
    }
    packet.header::<Icmp>(within(transport)).is_none_or(|icmp| IcmpType::is_error(icmp.icmp_type()))
}

/// All offsets of bytes of an error that is translated.
const OFFSETS: usize = 0x3fff;

/// An offset of a byte near the frame's start. The verifier sees that it is one: of sums and differences it may think that they lie
/// before the packet, and that of Linux 6.1 forgets what it knew of a number on the stack. Hidden from the compiler, which knows
/// better and would leave the mask out.
#[inline(always)]
pub(super) fn within(offset: usize) -> usize {
    black_box(offset) & OFFSETS
}

/// Adds parts of these lengths, each if so much is left.
macro_rules! steps {
    ($packet:ident, $end:ident, $sum:ident, $left:ident: $($length:literal),*) => {
        $(if $left >= $length {
            let part = $packet.sum::<$length>(within($end - $left))?;
            $sum = $sum.plus(part);
            $left -= $length;
        })*
    };
}

/// Whether the ICMP checksum is right (RFC 792).
#[inline(always)]
fn is_intact<P: Packet>(packet: &mut P, ip: &Ipv4Packet) -> bool {
    sum_of::<LONGEST, _>(packet, ip.payload, ip.end).is_some_and(|sum| sum.checksum().raw() == 0)
}

/// The sum of the bytes between two offsets, the first one even; `None` if they are more than `MOST`, or the packet ends before.
///
/// Each step is told by what is left, not by where it is: so the verifier sees the rest after any of them alike.
#[inline(always)]
pub(super) fn sum_of<const MOST: usize, P: Packet>(packet: &mut P, from: usize, end: usize) -> Option<Sum> {
    let mut sum = Sum::default();
    let mut left = end - from;
    if left > MOST {
        return None;
    }
    // Counted, because the verifier of Linux 6.1 forgets how much may be left.
    for _ in 0..MOST / 512 {
        if left < 512 {
            break;
        }
        let part = packet.sum::<512>(within(end - left))?;
        sum = sum.plus(part);
        left -= 512;
    }
    steps!(packet, end, sum, left: 256, 128, 64, 32, 16, 8, 4);
    if left >= Be16::LEN {
        let word = packet.header::<Be16>(within(end - left))?;
        sum = sum.add(*word);
        left -= Be16::LEN;
    }
    if left != 0 {
        // With the byte before it: of a check for a single byte the verifier learns nothing.
        let [_, byte] = packet.header::<[u8; 2]>(within(end - 2))?;
        sum = sum.add(Be16::from_raw(u16::from_ne_bytes([*byte, 0])));
    }
    Some(sum)
}

const _: () = assert!(Ipv4Packet::MOST_BEFORE_PAYLOAD + LONGEST <= OFFSETS);
