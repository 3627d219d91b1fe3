//! Many hosts: frames between them, as RFC 7348 has them, and what each host makes of what it is sent.
//!
//! [`Cluster`] runs the engine of each host on the tables of one state, and carries frames between them by the outer addresses
//! alone, read by etherparse.

mod cases;
mod far_end;
mod fitting;
mod properties;
mod received;
mod refused;

use etherparse::UdpHeaderSlice;
use vip_common::{
    engine::{self, MemoryTables, Outcome},
    pipeline::{Stage, Verdict},
    wire::{Ipv4, Mac},
};

use crate::{
    frame::{Ipv4Frame, Reading, udp},
    world::{HOSTS, Overlay, PORTS, SUBNETS, World, gateway, host_mac, host_of, ifindex, port_mac, vtep},
};

/// UDP port of VXLAN (RFC 7348 section 5).
const VXLAN: u16 = 4789;
/// Bytes before the frame inside.
const OUTER: usize = 50;
/// A source port of frames that come from their sender's host.
const FRESH: u16 = 50_000;
/// A source port of frames that a previous owner's host sends on.
const ONWARD: u16 = 20_000;

/// A frame in VXLAN, in its parts.
#[derive(Clone, Debug)]
struct Wrapped {
    outer: Ipv4Frame,
    /// Source and destination port.
    ports: (u16, u16),
    /// The first byte of VXLAN.
    flags: u8,
    vni: u32,
    inner: Vec<u8>,
}

impl Wrapped {
    /// As a host sends it to another one.
    fn new(from: u32, to: u32, vni: u32, inner: impl Into<Vec<u8>>) -> Self {
        let outer = Ipv4Frame::new((host_mac(from), vtep(from)), (host_mac(to), vtep(to)), (17, Vec::new()));
        Self { outer, ports: (FRESH, VXLAN), flags: 8, vni, inner: inner.into() }
    }

    /// As a previous owner's host sends it on.
    fn sent_on(self) -> Self {
        Self { ports: (ONWARD, VXLAN), ..self }
    }

    fn bytes(&self) -> Vec<u8> {
        let header = [&[self.flags, 0, 0, 0][..], &(self.vni << 8).to_be_bytes()].concat();
        let (from, to) = self.ports;
        let (_, payload) = udp(from, to, &[&header[..], &self.inner].concat());
        let checksum = 14 + 20 + 4 * usize::from(self.outer.option_words) + 6;
        let mut bytes = Ipv4Frame { payload, ..self.outer.clone() }.bytes();
        bytes[checksum..checksum + 2].fill(0);
        bytes
    }
}

/// A frame in VXLAN as etherparse reads what is outside.
struct Opened<'f> {
    outer: Reading<'f>,
    udp: UdpHeaderSlice<'f>,
    vxlan: &'f [u8],
    inner: &'f [u8],
}

impl<'f> Opened<'f> {
    fn of(frame: &'f [u8]) -> Option<Self> {
        let outer = Reading::of(frame)?;
        if outer.protocol() != 17 || outer.is_later_fragment() {
            return None;
        }
        let udp = UdpHeaderSlice::from_slice(outer.payload).ok()?;
        if udp.destination_port() != VXLAN {
            return None;
        }
        let (vxlan, inner) = outer.payload[8..].split_at_checked(8)?;
        Some(Self { outer, udp, vxlan, inner })
    }

    fn vni(&self) -> u32 {
        u32::from_be_bytes([0, self.vxlan[4], self.vxlan[5], self.vxlan[6]])
    }

    fn source_port(&self) -> u16 {
        self.udp.source_port()
    }

    /// Whether it comes from its sender's host, and not from a previous owner's.
    fn is_fresh(&self) -> bool {
        self.source_port() >= 49_152
    }
}

/// A frame that leaves a host for another one as RFC 7348 section 5 has it; tells what is in it.
fn opened(frame: &[u8], from: u32, to: u32) -> Opened<'_> {
    let is = Opened::of(frame).expect("VXLAN");
    assert_eq!((is.outer.from, is.outer.to), (host_mac(from), host_mac(to)), "MACs on the underlay");
    assert_eq!((is.outer.source, is.outer.destination), (vtep(from), vtep(to)), "VTEPs");
    assert!(is.outer.has_valid_header_checksum());
    let ip = &is.outer.ip;
    assert_eq!((ip.slice().len(), ip.ttl(), ip.dont_fragment(), ip.more_fragments()), (20, 64, true, false));
    assert_eq!(usize::from(ip.total_len()), frame.len() - 14, "nothing behind it");
    assert_eq!(usize::from(is.udp.length()), frame.len() - 34);
    assert_eq!(is.udp.checksum(), 0, "none is sent");
    assert!(is.is_fresh() || (16_384..32_768).contains(&is.source_port()), "{}", is.source_port());
    assert_eq!(is.vxlan[..4], [8, 0, 0, 0], "the VNI is valid, and nothing else is said");
    assert_eq!(is.vxlan[7], 0);
    is
}

/// All hosts of a world.
struct Cluster {
    tables: Vec<MemoryTables>,
}

/// Where a frame's way ended, and what came of it there.
#[derive(Debug)]
struct End {
    host: u32,
    /// Hosts that it came to through the underlay.
    hops: usize,
    outcome: Outcome,
}

impl Cluster {
    fn of(world: &World) -> Self {
        let overlay = world.overlay.clone().unwrap_or_default();
        let at = |here| World { overlay: Some(Overlay { here, ..overlay.clone() }), ..world.clone() };
        Self { tables: (1..=HOSTS).map(|here| at(here).tables()).collect() }
    }

    fn at(&self, host: u32) -> &MemoryTables {
        &self.tables[host as usize - 1]
    }

    /// A frame of a guest, on its way to the ends.
    fn port(&self, host: u32, port: u32, frame: &[u8]) -> Vec<End> {
        self.port_by(host, port, false, frame)
    }

    /// The same, perhaps with a VLAN tag beside the bytes.
    fn port_by(&self, host: u32, port: u32, tagged: bool, frame: &[u8]) -> Vec<End> {
        let mut ends = Vec::new();
        self.follow(host, 0, engine::port(self.at(host), ifindex(port), tagged, frame), &mut ends);
        ends
    }

    /// A frame that comes in by a host's uplink.
    fn uplink(&self, host: u32, frame: &[u8]) -> Vec<End> {
        let mut ends = Vec::new();
        self.follow(host, 0, self.arrives(host, frame), &mut ends);
        ends
    }

    fn arrives(&self, host: u32, frame: &[u8]) -> Outcome {
        let first = engine::uplink(self.at(host), Stage::Xdp, frame);
        if first.verdict != Verdict::LeaveToTc {
            return first;
        }
        assert_eq!(first.frame, frame, "XDP leaves it as it came");
        engine::uplink(self.at(host), Stage::Tc, frame)
    }

    fn follow(&self, host: u32, hops: usize, outcome: Outcome, ends: &mut Vec<End>) {
        assert!(hops < 4, "it runs in circles");
        let sent = tunnelled(host, &outcome);
        for (to, frame) in &sent {
            self.follow(*to, hops + 1, self.arrives(*to, frame), ends);
        }
        if sent.is_empty() || matches!(outcome.verdict, Verdict::Members { .. }) {
            ends.push(End { host, hops, outcome });
        }
    }
}

/// What leaves a host for others, and for which; the kernel has found MACs that it was asked for.
fn tunnelled(host: u32, outcome: &Outcome) -> Vec<(u32, Vec<u8>)> {
    let frames = match outcome.verdict {
        Verdict::Members { .. } => outcome.tunnelled.clone(),
        Verdict::TunnelFragments { .. } => outcome.fragments(),
        Verdict::Uplink { .. } | Verdict::Resolve { .. } | Verdict::Return => vec![outcome.frame.clone()],
        _ => Vec::new(),
    };
    let to_host = |mut frame: Vec<u8>| {
        let is = Opened::of(&frame).filter(|is| is.outer.source == vtep(host))?;
        let to = host_of(is.outer.destination)?;
        if matches!(outcome.verdict, Verdict::Resolve { .. }) {
            frame[..6].copy_from_slice(&host_mac(to).octets());
        }
        Some((to, frame))
    };
    frames.into_iter().filter_map(to_host).collect()
}

/// The frame that leaves one host for another one, which must be the only one.
fn sent(outcome: &Outcome, from: u32) -> (u32, Vec<u8>) {
    let mut all = tunnelled(from, outcome);
    assert_eq!(all.len(), 1, "{:?}", outcome.verdict);
    all.pop().expect("one")
}

/// The default world with these ports on other hosts.
fn spread(places: &[(u32, u32)]) -> World {
    let mut overlay = Overlay::default();
    for (port, host) in places {
        overlay.places[*port as usize - 1] = *host;
    }
    World { overlay: Some(overlay), ..World::default() }
}

/// Changes what the hosts are like.
fn overlay(world: &mut World) -> &mut Overlay {
    world.overlay.as_mut().expect("a world of several hosts")
}

/// The MAC by which a port receives a packet: its own, or a virtual router MAC by which it owns a VIP.
fn receives_by(mac: Mac, port: u32) -> bool {
    mac == port_mac(port) || mac.vrid().is_some()
}

/// Whether an address is a host's.
fn is_vtep(address: Ipv4) -> bool {
    host_of(address).is_some()
}

/// All ports on one host.
fn all_on(host: u32) -> Vec<u32> {
    vec![host; PORTS as usize]
}

/// The same state with all ports on one host, seen from there.
fn on_one_host(world: &World, host: u32) -> MemoryTables {
    let overlay = world.overlay.clone().expect("several hosts");
    World { overlay: Some(Overlay { here: host, places: all_on(host), ..overlay }), ..world.clone() }.tables()
}

/// Whether it is the constant MAC of a subnet's gateway.
fn is_gateway_mac(mac: Mac) -> bool {
    (0..SUBNETS).any(|subnet| mac == Mac::of_address(gateway(subnet)))
}
