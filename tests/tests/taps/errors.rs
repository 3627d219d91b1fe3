//! ICMP errors from outside about packets whose checksums the guest had left to its device: each must quote to the guest what it had
//! sent, as its device would have put it on a wire.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use vip_lab::{
    RawSender,
    capture::Capture,
    etherparse::{Ipv4HeaderSlice, PacketBuilder},
    offload::{same, sum},
    scene::{EIP, EIP_NEIGHBOUR, VIP},
    tap::{Large, Offload, TapFrame},
};

use crate::{
    stage::{FIRST_EIP, SOON, Stage, TapGuest, Who},
    ways::{Form, source_port},
};

/// The router outside that has something to say.
const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// Bytes of an Ethernet header, of an IPv4 header without options, and of what stands before a quote.
const ETHERNET: usize = 14;
const IP: usize = 20;
const BEFORE_QUOTE: usize = 8;

/// Where TTL and checksum stand in an IPv4 header.
const TTL: usize = 8;
const CHECKSUM: std::ops::Range<usize> = 10..12;

const ICMP: u8 = 1;

/// An error: type, code, what follows the checksum, and how much it quotes at most.
type Kind = (u8, u8, [u8; 4], usize);

/// Port unreachable with the longest quote of RFC 1812 section 4.3.2.3; fragmentation needed, by a link of 1300 bytes (RFC 1191),
/// with the shortest of RFC 792; time exceeded with all of the packet.
const KINDS: [Kind; 3] = [(3, 3, [0; 4], 548), (3, 4, [0, 0, 5, 0x14], 28), (11, 0, [0; 4], 1500)];

pub(crate) fn come_in(stage: &Stage) -> Result<()> {
    let wire = Capture::start(stage.outside.netns(), "eth0")?;
    let mut numbers = 3000..;
    for (who, address, eip) in
        [(Who::First, stage.guest(Who::First)?.address, FIRST_EIP), (Who::Owner, VIP, EIP)]
    {
        for form in [Form::Partial, Form::Large(Large::Tcp), Form::CompleteUdp, Form::Without] {
            let number = numbers.next().context("no more ports")?;
            about(stage, &wire, (who, address, eip), form, number)
                .with_context(|| format!("about {form:?} of {eip}"))?;
        }
    }
    stage.ensure_nothing_was_dropped()
}

/// Sends a packet out and brings in errors about the last of what was on the wire.
fn about(
    stage: &Stage,
    wire: &Capture,
    (who, address, eip): (Who, Ipv4Addr, Ipv4Addr),
    form: Form,
    number: u16,
) -> Result<()> {
    let guest = stage.guest(who)?;
    let sent = form.build((guest.mac, guest.gateway), address, EIP_NEIGHBOUR, number)?;
    guest.tap.send(&sent.frame.bytes, sent.frame.offload)?;
    let segments = sent.frame.on_the_wire()?;
    let on_wire = wire.wait_for_count(SOON, "what the guest sent", segments.len(), |frame| {
        !frame.outgoing && source_port(&frame.bytes) == Some(number)
    })?;
    let (segment, last) = segments.last().zip(on_wire.last()).context("nothing was sent")?;
    let expected = one_hop_on(segment)?;
    for kind in KINDS {
        let length = kind.3.min(expected.len());
        let quote = last.bytes.get(ETHERNET..ETHERNET + length).context("a short frame")?;
        bring_in(stage, eip, kind, quote)?;
        let frame = guest.tap.receive(SOON, "the error", is_routers)?;
        let told = checked_error(&frame, guest, address, kind)?;
        let expected = expected.get(..length).context("a short packet")?;
        same(&told, expected).with_context(|| format!("the quote of {kind:?}"))?;
    }
    Ok(())
}

/// The packet of a frame after one hop.
fn one_hop_on(frame: &[u8]) -> Result<Vec<u8>> {
    let mut packet = frame.get(ETHERNET..).context("a frame without a packet")?.to_vec();
    *packet.get_mut(TTL).context("no IPv4 header")? -= 1;
    packet.get_mut(CHECKSUM).context("no IPv4 header")?.fill(0);
    let checksum = !sum(packet.get(..IP).context("no IPv4 header")?);
    packet.get_mut(CHECKSUM).context("no IPv4 header")?.copy_from_slice(&checksum.to_be_bytes());
    Ok(packet)
}

fn bring_in(stage: &Stage, eip: Ipv4Addr, (kind, code, rest, _): Kind, quote: &[u8]) -> Result<()> {
    let (from, to) = (stage.outside.mac(), stage.host.uplink_mac()?);
    let builder = PacketBuilder::ethernet2(from.0, to.0)
        .ipv4(ROUTER.octets(), eip.octets(), 64)
        .icmpv4_raw(kind, code, rest);
    let mut frame = Vec::new();
    builder.write_to_vec(&mut frame, quote).context("cannot build an error")?;
    RawSender::new(stage.outside.netns(), "eth0")?.send(&frame)
}

/// Whether a frame is an ICMP message of the router's: the client's own stack tells of closed ports too.
fn is_routers(frame: &TapFrame) -> bool {
    let ip = frame.bytes.get(ETHERNET..).and_then(|packet| Ipv4HeaderSlice::from_slice(packet).ok());
    ip.is_some_and(|ip| (ip.protocol().0, ip.source_addr()) == (ICMP, ROUTER))
}

/// The quote of an error that a guest got; anything else about it that is not right is an error here.
fn checked_error(
    frame: &TapFrame,
    guest: &TapGuest,
    address: Ipv4Addr,
    (kind, code, rest, _): Kind,
) -> Result<Vec<u8>> {
    ensure!(frame.offload == Offload::default(), "work is left: {:?}", frame.offload);
    ensure!(frame.bytes.starts_with(&guest.mac.0), "it is for another MAC");
    let packet = frame.bytes.get(ETHERNET..).context("a frame without a packet")?;
    let ip = Ipv4HeaderSlice::from_slice(packet)?;
    ensure!(sum(ip.slice()) == u16::MAX, "the IPv4 checksum is wrong");
    ensure!((ip.source_addr(), ip.destination_addr(), ip.ttl()) == (ROUTER, address, 63), "{ip:?}");
    let message = packet.get(IP..usize::from(ip.total_len())).context("a frame that ends too early")?;
    ensure!(sum(message) == u16::MAX, "the ICMP checksum is wrong");
    let (header, quote) = message.split_at_checked(BEFORE_QUOTE).context("an error without a quote")?;
    let told = (header.get(..2), header.get(4..));
    ensure!(told == (Some(&[kind, code]), Some(&rest)), "another error: {header:02x?}");
    Ok(quote.to_vec())
}
