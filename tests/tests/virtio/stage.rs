//! A hypervisor whose uplink is a card of the machine, with guests that are programs behind taps.

use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vip_lab::{
    Binaries, EipReach, Host, Lab, Mac, Outside, Vipd, VipdConfig,
    etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice},
    frame::Arp,
    scene::{self, EIP, EIP_NETWORKS, GATEWAY, GUESTS, VIP, VIP_ID, constant_mac},
    tap::{Offload, Segments, Tap, TapFrame},
};

pub(crate) const SHORT: Duration = Duration::from_secs(20);

/// The port that guests serve.
pub(crate) const PORT: u16 = 7000;

/// Bytes of Ethernet and IPv4 header, without options.
const BEFORE_L4: u16 = 14 + 20;

/// Where in a TCP or UDP header its checksum stands.
const TCP_CHECKSUM: u16 = 16;
const UDP_CHECKSUM: u16 = 6;

/// A guest: its end of the tap, and what it is called.
pub(crate) struct TapGuest {
    pub(crate) name: &'static str,
    pub(crate) mac: Mac,
    pub(crate) address: Ipv4Addr,
    pub(crate) tap: Tap,
}

/// Fields are dropped from the first to the last.
pub(crate) struct Stage {
    pub(crate) vipd: Vipd,
    pub(crate) guests: [TapGuest; 3],
    pub(crate) outside: Outside,
    pub(crate) host: Host,
}

impl Stage {
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let host = lab.add_host("hv1")?;
        let outside = host.add_outside_on_cards(EipReach::OnLink)?;
        let guest = |(name, interface, mac, address): (&'static str, &str, &str, &str)| -> Result<TapGuest> {
            let tap = Tap::create(host.netns(), interface)?;
            Ok(TapGuest { name, mac: mac.parse()?, address: address.parse()?, tap })
        };
        let [first, second, third] = GUESTS;
        let guests = [guest(first)?, guest(second)?, guest(third)?];
        let config = VipdConfig::new("hv1").with(EIP_NETWORKS).with("xdp_mode: native");
        let mut vipd = Vipd::start(&host, &Binaries::from_env()?, &config, &scene::state(true)?)?;
        vipd.ready()?;
        Ok(Self { vipd, guests, outside, host })
    }

    /// A guest claims the VIP, and vipd says that it is its owner.
    pub(crate) fn claim(&self, guest: &TapGuest) -> Result<Value> {
        let frame = Arp::gratuitous_request(guest.mac, VIP).frame(guest.mac, Mac::BROADCAST);
        guest.tap.send(&frame, Offload::default())?;
        self.vipd.wait_for_owner(VIP_ID, guest.name, SHORT)
    }

    /// A client outside: a socket that knows the EIP's port.
    pub(crate) fn client(&self) -> Result<UdpSocket> {
        self.outside.netns().exec(|| {
            let socket =
                UdpSocket::bind((scene::EIP_NEIGHBOUR, 0)).context("cannot open a client's socket")?;
            socket.connect((EIP, PORT)).context("cannot connect a client's socket")?;
            socket.set_read_timeout(Some(SHORT)).context("cannot limit a client's wait")?;
            Ok(socket)
        })
    }

    /// The client sends a word, and this guest and nobody else gets it, translated and with right checksums. Gives the
    /// client's address.
    pub(crate) fn reaches(&self, client: &UdpSocket, word: &str, owner: &TapGuest) -> Result<SocketAddrV4> {
        client.send(word.as_bytes()).context("the client cannot send")?;
        let frame = owner.receive(word, |udp| udp == word.as_bytes())?;
        let packet = checked(&frame.complete()?)?;
        ensure!((packet.destination, packet.to) == (VIP, PORT), "{packet:?}");
        for other in self.guests.iter().filter(|other| other.name != owner.name) {
            let strayed = other.tap.receive(Duration::ZERO, word, |frame| carries(frame, word.as_bytes()));
            ensure!(strayed.is_err(), "{} got what was {}'s", other.name, owner.name);
        }
        Ok(SocketAddrV4::new(packet.source, packet.from))
    }
}

impl TapGuest {
    /// The UDP datagram that this guest receives, as `wanted` chooses by its payload.
    pub(crate) fn receive(&self, what: &str, wanted: impl Fn(&[u8]) -> bool) -> Result<TapFrame> {
        self.tap.receive(SHORT, what, |frame| udp_payload(frame).is_some_and(|payload| wanted(&payload)))
    }

    /// Sends a datagram from the VIP by the gateway; the checksum is left to whoever sends it on.
    pub(crate) fn reply(&self, to: SocketAddrV4, word: &str) -> Result<()> {
        let builder = PacketBuilder::ethernet2(self.mac.0, constant_mac(GATEWAY).0)
            .ipv4(VIP.octets(), to.ip().octets(), 64)
            .udp(PORT, to.port());
        let mut frame = Vec::new();
        builder.write_to_vec(&mut frame, word.as_bytes()).context("cannot build a datagram")?;
        let offload = partial(&mut frame, 17, UDP_CHECKSUM)?;
        self.tap.send(&frame, offload)
    }

    /// Sends TCP from an address of this guest in one frame of many segments, as a driver with TSO does.
    pub(crate) fn send_segments(
        &self,
        destination: Mac,
        from: SocketAddrV4,
        to: SocketAddrV4,
        payload: &[u8],
        segment: u16,
    ) -> Result<()> {
        let builder = PacketBuilder::ethernet2(self.mac.0, destination.0)
            .ipv4(from.ip().octets(), to.ip().octets(), 64)
            .tcp(from.port(), to.port(), 1, 65_000)
            .ack(1);
        let mut frame = Vec::new();
        builder.write_to_vec(&mut frame, payload).context("cannot build a segment")?;
        let checksum = partial(&mut frame, 6, TCP_CHECKSUM)?;
        let headers = u16::try_from(frame.len() - payload.len())?;
        let segments = Some(Segments { headers, payload: segment });
        self.tap.send(&frame, Offload { segments, ..checksum })
    }
}

/// Puts the pseudo-header's sum in place of the checksum, as a driver does that leaves the rest to the device.
fn partial(frame: &mut [u8], protocol: u8, field: u16) -> Result<Offload> {
    let place = usize::from(BEFORE_L4 + field);
    let addresses = frame.get(26..34).context("a frame without addresses")?;
    let length = u16::try_from(frame.len())? - BEFORE_L4;
    let sum = fold(sum(addresses) + u32::from(protocol) + u32::from(length));
    let stored = frame.get_mut(place..place + 2).context("a frame without a checksum")?;
    stored.copy_from_slice(&sum.to_be_bytes());
    Ok(Offload { checksum: Some((BEFORE_L4, field)), segments: None })
}

/// The sum of RFC 1071, not folded.
fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2).map(|word| match word {
        [high, low] => u16::from_be_bytes([*high, *low]),
        [high] => u16::from_be_bytes([*high, 0]),
        _ => 0,
    });
    words.map(u32::from).sum()
}

fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    let twice = (once & 0xffff) + (once >> 16);
    // Two folds of a 32-bit sum leave 16 bits.
    u16::try_from(twice).unwrap_or(u16::MAX)
}

/// Completing a frame as the device would.
pub(crate) trait Complete {
    fn complete(&self) -> Result<Vec<u8>>;
}

impl Complete for TapFrame {
    fn complete(&self) -> Result<Vec<u8>> {
        let mut bytes = self.bytes.clone();
        if let Some((start, offset)) = self.offload.checksum {
            let covered =
                bytes.get(usize::from(start)..).context("a checksum that begins behind the frame")?;
            let checksum = !fold(sum(covered));
            let place = usize::from(start + offset);
            bytes
                .get_mut(place..place + 2)
                .context("no checksum field")?
                .copy_from_slice(&checksum.to_be_bytes());
        }
        Ok(bytes)
    }
}

/// A packet of right checksums, as far as tests look at it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) from: u16,
    pub(crate) to: u16,
    pub(crate) ttl: u8,
    /// TCP's; 0 for UDP.
    pub(crate) sequence: u32,
    pub(crate) payload: Vec<u8>,
}

/// Takes a frame of TCP or UDP apart; wrong checksums, which etherparse computes, are errors.
pub(crate) fn checked(frame: &[u8]) -> Result<Packet> {
    let packet = SlicedPacket::from_ethernet(frame).context("the frame cannot be taken apart")?;
    let Some(NetSlice::Ipv4(ip)) = &packet.net else { anyhow::bail!("no IPv4 packet: {packet:?}") };
    let ip = ip.header();
    let header = ip.to_header();
    ensure!(ip.header_checksum() == header.calc_header_checksum(), "the IP checksum is wrong: {header:?}");
    let (source, destination, ttl) = (ip.source_addr(), ip.destination_addr(), ip.ttl());
    match &packet.transport {
        Some(TransportSlice::Udp(udp)) => {
            let right = udp.to_header().calc_checksum_ipv4(&header, udp.payload())?;
            ensure!(udp.checksum() == right, "the UDP checksum is {:#06x}, not {right:#06x}", udp.checksum());
            let (from, to, payload) = (udp.source_port(), udp.destination_port(), udp.payload().to_vec());
            Ok(Packet { source, destination, from, to, ttl, sequence: 0, payload })
        }
        Some(TransportSlice::Tcp(tcp)) => {
            let right = tcp.to_header().calc_checksum_ipv4(&header, tcp.payload())?;
            ensure!(tcp.checksum() == right, "the TCP checksum is {:#06x}, not {right:#06x}", tcp.checksum());
            let (from, to, payload) = (tcp.source_port(), tcp.destination_port(), tcp.payload().to_vec());
            Ok(Packet { source, destination, from, to, ttl, sequence: tcp.sequence_number(), payload })
        }
        other => anyhow::bail!("neither TCP nor UDP: {other:?}"),
    }
}

fn udp_payload(frame: &TapFrame) -> Option<Vec<u8>> {
    let packet = SlicedPacket::from_ethernet(&frame.bytes).ok()?;
    let Some(TransportSlice::Udp(udp)) = packet.transport else { return None };
    Some(udp.payload().to_vec())
}

fn carries(frame: &TapFrame, word: &[u8]) -> bool {
    udp_payload(frame).is_some_and(|payload| payload == word)
}
