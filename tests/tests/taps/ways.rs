//! Every way on which the programs change a packet, and what must come out at its end.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context as _, Result, ensure};
use vip_lab::{
    Mac, RawSender,
    capture::Capture,
    etherparse::{SlicedPacket, TransportSlice},
    frame::{self, Frame},
    offload::{Packet, checked, leave_checksum},
    poll_until,
    scene::{EIP, EIP_NEIGHBOUR, FIXED_EIP, VIP, constant_mac},
    tap::{Large, Offers, Offload, Segments, TapFrame},
};

use crate::stage::{FIRST_EIP, SOON, Stage, Who};

/// Bytes in each segment of a large packet.
const SEGMENT: u16 = 1400;

/// Bytes in a large packet: the last segment is shorter, and the whole has an odd length.
const LARGE: usize = 20_001;

/// Bytes in a packet of one frame.
const SMALL: usize = 601;

/// The port that packets go to.
const PORT: u16 = 7000;

/// Ethernet, IPv4 and UDP header up to UDP's checksum.
const UDP_CHECKSUM: usize = 14 + 20 + 6;

/// An Ethernet frame of the MTU.
const LONGEST_PLAIN_FRAME: usize = 1514;

/// What a driver may leave to its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A large packet, to be cut, its checksums left.
    Large(Large),
    /// One datagram whose checksum is left.
    Partial,
    /// One TCP segment with its checksum.
    CompleteTcp,
    /// One datagram with its checksum.
    CompleteUdp,
    /// A datagram without a checksum, as UDP may be.
    Without,
}

/// A way: who sends what to whom, and how it must arrive.
#[derive(Clone, Copy, Debug)]
struct Way {
    name: &'static str,
    /// None: the client outside.
    sender: Option<Who>,
    /// Where the sender's frame goes.
    to_mac: Mac,
    from: Ipv4Addr,
    to: Ipv4Addr,
    /// None: the client outside.
    receiver: Option<Who>,
    seen_from: Ipv4Addr,
    seen_to: Ipv4Addr,
    /// Hops that the way has cost.
    hops: u8,
}

const TTL: u8 = 64;

/// A packet as it was sent.
pub(crate) struct Sent {
    from: SocketAddrV4,
    payload: Vec<u8>,
    pub(crate) frame: TapFrame,
}

impl Form {
    fn takes(self) -> usize {
        if matches!(self, Self::Large(_)) { LARGE } else { SMALL }
    }

    /// A packet of this form. `number` is its source port, and the start of what it carries, which repeats at no distance of a
    /// segment.
    pub(crate) fn build(self, macs: (Mac, Mac), from: Ipv4Addr, to: Ipv4Addr, number: u16) -> Result<Sent> {
        let counted = (0..=250).cycle().take(self.takes() - 2);
        let payload: Vec<u8> = number.to_be_bytes().into_iter().chain(counted).collect();
        let is_tcp = matches!(self, Self::Large(Large::Tcp) | Self::CompleteTcp);
        let build = if is_tcp { frame::tcp } else { frame::udp };
        let mut bytes = build(macs, (from, number), (to, PORT), &payload)?;
        let headers = u16::try_from(bytes.len() - payload.len())?;
        let offload = match self {
            Self::Large(kind) => {
                let segments = Some(Segments { kind, headers, payload: SEGMENT });
                Offload { segments, ..leave_checksum(&mut bytes)? }
            }
            Self::Partial => leave_checksum(&mut bytes)?,
            Self::CompleteTcp | Self::CompleteUdp => Offload::default(),
            Self::Without => {
                let checksum = bytes.get_mut(UDP_CHECKSUM..UDP_CHECKSUM + 2).context("no UDP header")?;
                checksum.fill(0);
                Offload::default()
            }
        };
        let from = SocketAddrV4::new(from, number);
        Ok(Sent { from, payload, frame: TapFrame { offload, bytes } })
    }

    /// Whether a driver can leave it to a device: what a wire carries is complete.
    fn is_left(self) -> bool {
        matches!(self, Self::Large(_) | Self::Partial)
    }
}

/// All ways by which this form can go, one after the other.
pub(crate) fn all(stage: &Stage, form: Form) -> Result<()> {
    let outside = Capture::start(stage.outside.netns(), "eth0")?;
    let ways = ways(stage)?;
    for (way, number) in ways.iter().zip(1000..) {
        if way.sender.is_none() && form.is_left() {
            continue;
        }
        one(stage, &outside, *way, form, number).with_context(|| format!("{}, {form:?}", way.name))?;
    }
    past_a_router(stage, form, 2000).with_context(|| format!("by a router inside, {form:?}"))?;
    stage.ensure_nothing_was_dropped()
}

fn ways(stage: &Stage) -> Result<[Way; 13]> {
    let (first, neighbour) = (stage.guest(Who::First)?, stage.guest(Who::Neighbour)?);
    let (far, peer) = (stage.guest(Who::Far)?, stage.guest(Who::Peer)?);
    let uplink = stage.host.uplink_mac()?;
    let from_first = |name, to_mac, to, receiver, hops| Way {
        name,
        sender: Some(Who::First),
        to_mac,
        from: first.address,
        to,
        receiver,
        seen_from: first.address,
        seen_to: to,
        hops,
    };
    let inside = |name, to_mac, to, receiver, hops| from_first(name, to_mac, to, Some(receiver), hops);
    // From EIP to EIP is there and back: two hops.
    let by_eip = |name, to, receiver, seen_to| Way {
        seen_from: FIRST_EIP,
        seen_to,
        ..from_first(name, first.gateway, to, Some(receiver), 2)
    };
    let from_outside = |name, to, receiver, seen_to| Way {
        name,
        sender: None,
        to_mac: uplink,
        from: EIP_NEIGHBOUR,
        to,
        receiver: Some(receiver),
        seen_from: EIP_NEIGHBOUR,
        seen_to,
        hops: 1,
    };
    let out = |name, guest, from, eip| Way {
        sender: Some(guest),
        from,
        seen_from: eip,
        ..from_first(name, first.gateway, EIP_NEIGHBOUR, None, 1)
    };
    Ok([
        out("out of the uplink", Who::First, first.address, FIRST_EIP),
        out("out of the uplink from the VIP", Who::Owner, VIP, EIP),
        by_eip("to the own EIP", FIRST_EIP, Who::First, first.address),
        by_eip("to a neighbour's EIP", FIXED_EIP, Who::Neighbour, neighbour.address),
        by_eip("to the VIP's EIP", EIP, Who::Owner, VIP),
        inside("to another subnet", first.gateway, far.address, Who::Far, 1),
        inside("to a peer VPC", first.gateway, peer.address, Who::Peer, 1),
        inside("to a neighbour by the gateway", first.gateway, neighbour.address, Who::Neighbour, 1),
        inside("to a neighbour", neighbour.mac, neighbour.address, Who::Neighbour, 0),
        inside("to the VIP", constant_mac(VIP), VIP, Who::Owner, 0),
        inside("to the VIP by the gateway", first.gateway, VIP, Who::Owner, 1),
        from_outside("in to a fixed address", FIRST_EIP, Who::First, first.address),
        from_outside("in to the VIP", EIP, Who::Owner, VIP),
    ])
}

/// Sends a packet on a way and fails unless it arrives, as it was but for what the way changes.
fn one(stage: &Stage, outside: &Capture, way: Way, form: Form, number: u16) -> Result<()> {
    let sender = way.sender.map(|who| stage.guest(who)).transpose()?;
    let from_mac = sender.map_or(stage.outside.mac(), |guest| guest.mac);
    let sent = form.build((from_mac, way.to_mac), way.from, way.to, number)?;
    match sender {
        Some(guest) => guest.tap.send(&sent.frame.bytes, sent.frame.offload)?,
        None => RawSender::new(stage.outside.netns(), "eth0")?.send(&sent.frame.bytes)?,
    }
    let (packets, receiver) = match way.receiver {
        Some(who) => {
            let frames = at_tap(stage, who, number, &sent)?;
            let whole = is_whole(stage.offers, form);
            for frame in &frames {
                fits(frame, form, whole)?;
            }
            (packets(&frames)?, stage.guest(who)?.mac)
        }
        None => (outside_of(outside, number, &sent)?, stage.outside.mac()),
    };
    let seen = (SocketAddrV4::new(way.seen_from, number), SocketAddrV4::new(way.seen_to, PORT));
    arrived(&packets, form, &sent, seen, TTL - way.hops, receiver)
}

/// By a router inside whose check is off: to it by its MAC, as it was, and from it on to another subnet, as it came.
fn past_a_router(stage: &Stage, form: Form, number: u16) -> Result<()> {
    let (first, router, far) = (stage.guest(Who::First)?, stage.guest(Who::Router)?, stage.guest(Who::Far)?);
    let sent = form.build((first.mac, router.mac), first.address, far.address, number)?;
    first.tap.send(&sent.frame.bytes, sent.frame.offload)?;
    let seen = (sent.from, SocketAddrV4::new(far.address, PORT));
    let frames = at_tap(stage, Who::Router, number, &sent)?;
    arrived(&packets(&frames)?, form, &sent, seen, TTL, router.mac)?;

    for mut frame in frames {
        let macs = frame.bytes.first_chunk_mut::<12>().context("a frame without MACs")?;
        *macs = [router.gateway.0, router.mac.0].concat().try_into().unwrap_or(*macs);
        router.tap.send(&frame.bytes, frame.offload)?;
    }
    let frames = at_tap(stage, Who::Far, number, &sent)?;
    arrived(&packets(&frames)?, form, &sent, seen, TTL - 1, far.mac)
}

/// The frames of a packet that come to a guest, until all it carries has come.
fn at_tap(stage: &Stage, who: Who, number: u16, sent: &Sent) -> Result<Vec<TapFrame>> {
    let guest = stage.guest(who)?;
    let is_its = |frame: &TapFrame| source_port(&frame.bytes) == Some(number);
    let (mut frames, mut bytes) = (Vec::new(), 0);
    while bytes < sent.payload.len() {
        let frame = guest.tap.receive(SOON, "the rest of a packet", is_its)?;
        bytes += payload_length(&frame.bytes);
        frames.push(frame);
    }
    Ok(frames)
}

/// What devices would make of a guest's frames.
fn packets(frames: &[TapFrame]) -> Result<Vec<Packet>> {
    let wire = frames.iter().map(TapFrame::on_the_wire).collect::<Result<Vec<_>>>()?.concat();
    wire.iter().map(|frame| checked(frame)).collect()
}

/// The packets that come to the client outside, until all that was sent has come. Their frames fit the wire.
fn outside_of(capture: &Capture, number: u16, sent: &Sent) -> Result<Vec<Packet>> {
    let is_its = |frame: &Frame| !frame.outgoing && source_port(&frame.bytes) == Some(number);
    let frames = poll_until(SOON, "all bytes outside", || {
        let frames = capture.matching(is_its).ok()?;
        let bytes: usize = frames.iter().map(|frame| payload_length(&frame.bytes)).sum();
        (bytes >= sent.payload.len()).then_some(frames)
    })?;
    let too_long = frames.iter().find(|frame| frame.bytes.len() > LONGEST_PLAIN_FRAME);
    ensure!(too_long.is_none(), "too long for the wire: {too_long:?}");
    frames.iter().map(|frame| checked(&frame.bytes)).collect()
}

/// Whether guests of these offers get packets of this form as they were sent.
fn is_whole(offers: Offers, form: Form) -> bool {
    match (offers, form) {
        (Offers::Nothing, _) | (Offers::LargeTcp, Form::Large(Large::Udp)) => false,
        (Offers::LargeTcp | Offers::LargeUdp, _) => true,
    }
}

/// Fails unless a guest got a frame in the form that was sent, or, where its driver does not take that, in frames that a wire could
/// have carried.
fn fits(frame: &TapFrame, form: Form, whole: bool) -> Result<()> {
    let Offload { checksum, segments } = frame.offload;
    match form {
        Form::Large(kind) if whole => {
            let as_sent = segments.map(|segments| (segments.kind, segments.payload));
            ensure!(as_sent == Some((kind, SEGMENT)), "it is to be cut otherwise: {:?}", frame.offload);
            ensure!(checksum.is_some(), "its checksum is not left: {:?}", frame.offload);
        }
        Form::Partial if whole => ensure!(checksum.is_some(), "its checksum is not left"),
        _ => {
            ensure!(segments.is_none(), "it is to be cut: {:?}", frame.offload);
            ensure!(frame.bytes.len() <= LONGEST_PLAIN_FRAME, "{} bytes at once", frame.bytes.len());
        }
    }
    Ok(())
}

/// Fails unless these packets carry all that was sent, in its order, by these addresses.
fn arrived(
    packets: &[Packet],
    form: Form,
    sent: &Sent,
    seen: (SocketAddrV4, SocketAddrV4),
    ttl: u8,
    receiver: Mac,
) -> Result<()> {
    let count = sent.payload.len().div_ceil(usize::from(SEGMENT));
    ensure!(packets.len() == count, "{} packets instead of {count}", packets.len());
    for packet in packets {
        let Packet { source, destination, .. } = *packet;
        ensure!((source, destination) == seen, "from {source} to {destination} instead of {seen:?}");
        ensure!(packet.ttl == ttl, "TTL {} instead of {ttl}", packet.ttl);
        ensure!(packet.receiver == receiver, "to {} instead of {receiver}", packet.receiver);
        ensure!(packet.has_checksum == (form != Form::Without), "a checksum came or went");
    }
    let mut packets = packets.to_vec();
    // UDP has no numbers: it stays as it came.
    packets.sort_by_key(|packet| packet.sequence);
    let whole: Vec<u8> = packets.into_iter().flat_map(|packet| packet.payload).collect();
    ensure!(whole == sent.payload, "{} bytes came, and not those that were sent", whole.len());
    Ok(())
}

/// The transport's source port of a frame, if it is TCP or UDP.
pub(crate) fn source_port(frame: &[u8]) -> Option<u16> {
    match SlicedPacket::from_ethernet(frame).ok()?.transport? {
        TransportSlice::Tcp(tcp) => Some(tcp.source_port()),
        TransportSlice::Udp(udp) => Some(udp.source_port()),
        _ => None,
    }
}

/// What the transport of a frame carries.
fn payload_length(frame: &[u8]) -> usize {
    match SlicedPacket::from_ethernet(frame).ok().and_then(|packet| packet.transport) {
        Some(TransportSlice::Tcp(tcp)) => tcp.payload().len(),
        Some(TransportSlice::Udp(udp)) => udp.payload().len(),
        _ => 0,
    }
}
