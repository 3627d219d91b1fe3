//! Changes to a packet: values first, effects last.

use super::packet::{Frame, Ipv4Packet, Packet};
use crate::{
    DropReason,
    checksum::{self, Sum},
    wire::{Be16, Ethernet, Icmp, IcmpType, Ipv4, Ipv4Header, Mac, Protocol, WireIpv4},
};

/// Which address of a packet becomes another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Translation {
    /// None: a packet inside a VPC.
    None,
    /// The source (SNAT).
    Source(Ipv4),
    /// The destination (DNAT).
    Destination(Ipv4),
}

/// Routes a packet: perhaps another address, one from the TTL, which must be 2 or more, new MACs; mends both checksums.
///
/// `macs` gives the Ethernet destination and source. It is asked last, so that they need no registers before.
#[inline(always)]
pub(super) fn rewrite<P: Packet>(
    packet: &mut P,
    ip: &Ipv4Packet,
    translation: Translation,
    macs: impl FnOnce() -> (Mac, Mac),
) -> Result<(), DropReason> {
    let (from, to) = match translation {
        Translation::None => (Ipv4::UNSPECIFIED, Ipv4::UNSPECIFIED),
        Translation::Source(to) => (ip.source, to),
        Translation::Destination(to) => (ip.destination, to),
    };
    let change = Sum::default().replace_address(from, to);
    // The transport checksum first: in TC the helper ends all references into the packet.
    mend_transport(packet, ip, from, to)?;
    let Some(frame) = packet.header::<Frame>(0) else { return Err(DropReason::EditFailed) };
    let header = &mut frame.ip;
    match translation {
        Translation::None => {}
        Translation::Source(to) => header.source = WireIpv4::new(to),
        Translation::Destination(to) => header.destination = WireIpv4::new(to),
    }
    header.set_ttl(ip.ttl.wrapping_sub(1));
    // One less in the upper byte of the word of TTL and protocol, whatever the word is.
    header.checksum = checksum::update(header.checksum, change.replace(TTL_ONE, Be16::new(0)));
    let (destination, source) = macs();
    frame.ethernet.destination = destination;
    frame.ethernet.source = source;
    Ok(())
}

/// A TTL of one as the checksum sees it.
const TTL_ONE: Be16 = Be16::new(1 << 8);

/// Routes the packet of a frame that begins at `base`, inside a VPC: one from the TTL, which must be 2 or more, and new MACs.
#[inline(always)]
pub(super) fn rewrite_at<P: Packet>(
    packet: &mut P,
    base: usize,
    (destination, source): (Mac, Mac),
) -> Result<(), DropReason> {
    let Some(frame) = packet.header::<Frame>(base) else { return Err(DropReason::EditFailed) };
    let header = &mut frame.ip;
    header.set_ttl(header.ttl().wrapping_sub(1));
    header.checksum = checksum::update(header.checksum, Sum::default().replace(TTL_ONE, Be16::new(0)));
    frame.ethernet.destination = destination;
    frame.ethernet.source = source;
    Ok(())
}

/// Delivery inside a subnet: a new Ethernet destination, nothing else.
#[inline(always)]
pub(super) fn switch<P: Packet>(packet: &mut P, destination_mac: Mac) -> Result<(), DropReason> {
    let Some(ethernet) = packet.header::<Ethernet>(0) else { return Err(DropReason::EditFailed) };
    ethernet.destination = destination_mac;
    Ok(())
}

/// Offset of the checksum in a transport header whose checksum covers the pseudo-header, and whether 0 means none.
#[inline(always)]
pub(super) const fn transport_checksum(protocol: u8) -> Option<(usize, bool)> {
    match protocol {
        Protocol::TCP => Some((16, false)),
        Protocol::UDP | Protocol::UDP_LITE => Some((6, true)),
        Protocol::DCCP => Some((6, false)),
        _ => None,
    }
}

#[inline(always)]
fn mend_transport<P: Packet>(
    packet: &mut P,
    ip: &Ipv4Packet,
    from: Ipv4,
    to: Ipv4,
) -> Result<(), DropReason> {
    match transport_checksum(ip.protocol) {
        Some((field, optional)) if from != to && !ip.later_fragment => {
            Ok(packet.mend_transport_checksum(ip.payload + field, optional, from, to)?)
        }
        _ => Ok(()),
    }
}

/// Whether the packet may be routed at all, whatever its addresses become.
#[inline(always)]
pub(super) fn check_routable(ip: &Ipv4Packet) -> Result<(), DropReason> {
    if ip.protocol == Protocol::VRRP { Err(DropReason::VrrpRouted) } else { Ok(()) }
}

/// Whether the packet may be routed and its addresses can be translated, checked before anything is changed.
#[inline(always)]
pub(super) fn check_translatable<P: Packet>(packet: &mut P, ip: &Ipv4Packet) -> Result<(), DropReason> {
    check_routable(ip)?;
    if ip.later_fragment {
        return Ok(());
    }
    if let Some((field, _)) = transport_checksum(ip.protocol) {
        if ip.payload + field + 2 > ip.end {
            return Err(DropReason::TinyFragment);
        }
    } else if ip.protocol == Protocol::ICMP {
        let Some(icmp) = ip.transport::<Icmp, _>(packet) else {
            return Err(DropReason::TinyFragment);
        };
        match icmp.icmp_type() {
            IcmpType::REDIRECT => return Err(DropReason::IcmpRedirect),
            // Nobody may act on it any more (RFC 6633), and it has a quote.
            IcmpType::SOURCE_QUENCH => return Err(DropReason::IcmpError),
            _ => {}
        }
    }
    Ok(())
}

/// Turns an echo request to the gateway into its reply, addressed back to its sender (RFC 792, RFC 1812 §4.3.3.6).
///
/// Works on fragments too: the checksum covers the whole message, of which only the type changes. `base`: where the frame begins in the
/// packet.
#[inline(never)]
pub(super) fn answer_echo<P: Packet>(
    packet: &mut P,
    base: usize,
    ip: &Ipv4Packet,
    gateway_mac: Mac,
) -> Result<(), DropReason> {
    if ip.protocol != Protocol::ICMP {
        return Err(DropReason::GatewayService);
    }
    if !ip.later_fragment {
        match ip.transport_at::<Icmp, _>(packet, base) {
            Some(icmp) if icmp.icmp_type() == IcmpType::ECHO_REQUEST => {
                let before: Be16 = icmp.type_code();
                icmp.set_type(IcmpType::ECHO_REPLY);
                icmp.checksum =
                    checksum::update(icmp.checksum, Sum::default().replace(before, icmp.type_code()));
            }
            _ => return Err(DropReason::GatewayService),
        }
    }
    let Some(frame) = packet.header::<Frame>(base) else { return Err(DropReason::EditFailed) };
    frame.ethernet.destination = frame.ethernet.source;
    frame.ethernet.source = gateway_mac;
    let header: &mut Ipv4Header = &mut frame.ip;
    header.source = WireIpv4::new(ip.destination);
    header.destination = WireIpv4::new(ip.source);
    let before = header.ttl_protocol();
    header.set_ttl(Ipv4Header::OWN_TTL);
    header.checksum =
        checksum::update(header.checksum, Sum::default().replace(before, header.ttl_protocol()));
    Ok(())
}
