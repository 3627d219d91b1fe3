//! Protocols that few stacks speak: only addresses change, and the checksums of those whose checksum covers addresses.
#![cfg(feature = "kernel")]

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};
use vip_lab::{
    Announcement, Lab, Mac, Netns, RawSender,
    capture::Capture,
    etherparse::{IpNumber, Ipv4Header, LaxNetSlice},
    frame::Frame,
    offload::{pseudo_header, same, sum},
    scene::{EIP, EIP_NEIGHBOUR, FIXED_EIP, GATEWAY, Scene, Setting, VIP, VIP_ID, constant_mac},
    skip,
};

const SOON: Duration = Duration::from_secs(20);

/// Protocol numbers.
const GRE: u8 = 47;
const ESP: u8 = 50;
const DCCP: u8 = 33;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;
/// For experiments (RFC 3692): nobody knows it.
const UNKNOWN: u8 = 253;

const ETHERNET: usize = 14;
const IPV4: [u8; 2] = [8, 0];
const TTL: u8 = 64;

/// Where UDP-Lite and DCCP have their checksum.
const CHECKSUM: usize = 6;

/// Addresses of a packet.
#[derive(Clone, Copy)]
struct Ends {
    from: Ipv4Addr,
    to: Ipv4Addr,
}

/// What an IPv4 packet carries between these ends.
type Body<'b> = &'b dyn Fn(Ends) -> Result<Vec<u8>>;

/// An IPv4 packet, its checksum right; the carried bytes may depend on its addresses.
fn packet(protocol: u8, ends: Ends, ttl: u8, body: Body<'_>) -> Result<Vec<u8>> {
    let (from, to) = (ends.from.octets(), ends.to.octets());
    let body = body(ends)?;
    let header = Ipv4Header::new(u16::try_from(body.len())?, ttl, IpNumber(protocol), from, to)?;
    let mut packet = Vec::new();
    header.write(&mut packet)?;
    packet.extend_from_slice(&body);
    Ok(packet)
}

/// Starts the scene; the first guest has the VIP. Nothing is dropped.
fn run(body: impl FnOnce(&Scene) -> Result<()>) {
    Lab::run(|lab| {
        let scene = Scene::start(lab, Setting::default())?;
        scene.first.add_vip_address(VIP)?;
        scene.first.arping(Announcement::Request, VIP)?;
        scene.vipd.wait_for_owner(VIP_ID, scene.first.name(), SOON)?;
        // Neighbours know each other, so that what follows is not in their way.
        scene.outside.netns().ping(EIP, 1)?;
        body(&scene)?;
        let mut drops = scene.drops()?;
        drops.retain(|_, &mut packets| packets != 0);
        ensure!(drops.is_empty(), "packets were dropped: {drops:?}");
        Ok(())
    });
}

/// Sends packets of a protocol in to both EIPs and out from what is behind them, and fails unless each arrives with other addresses,
/// one hop on, and as if it had been made for them.
fn everyway(scene: &Scene, protocol: u8, body: Body<'_>) -> Result<()> {
    let client = scene.outside.netns();
    let uplink = scene.host.uplink_mac()?;
    for (guest, inner, eip) in [(&scene.first, VIP, EIP), (&scene.third, scene.third.address(), FIXED_EIP)] {
        let (inside, outside) = (guest.netns(), client);
        let (to_eip, to_inner) =
            (Ends { from: EIP_NEIGHBOUR, to: eip }, Ends { from: EIP_NEIGHBOUR, to: inner });
        let (from_inner, from_eip) =
            (Ends { from: inner, to: EIP_NEIGHBOUR }, Ends { from: eip, to: EIP_NEIGHBOUR });
        let gateway = constant_mac(GATEWAY);
        for (from, macs, sent, to, seen) in [
            (outside, (scene.outside.mac(), uplink), to_eip, inside, to_inner),
            (inside, (guest.mac(), gateway), from_inner, outside, from_eip),
        ] {
            let what = || format!("protocol {protocol} from {} to {eip}", from.label());
            let capture = Capture::start(to, "eth0")?;
            send(from, macs, &packet(protocol, sent, TTL, body)?)?;
            let frame =
                capture.wait_for(SOON, &what(), |frame| !frame.outgoing && carries(frame, protocol))?;
            let expected = packet(protocol, seen, TTL - 1, body)?;
            let came = frame.bytes.get(ETHERNET..ETHERNET + expected.len()).with_context(what)?;
            same(came, &expected).with_context(what)?;
        }
    }
    Ok(())
}

fn send(netns: &Netns, macs: (Mac, Mac), packet: &[u8]) -> Result<()> {
    let frame = [&macs.1.0, &macs.0.0, IPV4.as_slice(), packet].concat();
    RawSender::new(netns, "eth0")?.send(&frame)
}

fn carries(frame: &Frame, protocol: u8) -> bool {
    let net = frame.packet().and_then(|packet| packet.net);
    matches!(net, Some(LaxNetSlice::Ipv4(ip)) if ip.header().protocol().0 == protocol)
}

/// Some bytes of this length.
fn bytes(length: usize) -> Vec<u8> {
    (7..=255).cycle().take(length).collect()
}

/// Puts the checksum of the pseudo-header and of the first `covered` bytes into a message. A checksum that comes out as 0 becomes
/// `zero`.
fn with_checksum(
    protocol: u8,
    ends: Ends,
    mut message: Vec<u8>,
    covered: usize,
    zero: u16,
) -> Result<Vec<u8>> {
    let carried = u16::try_from(message.len())?;
    let header =
        Ipv4Header::new(carried, TTL, IpNumber(protocol), ends.from.octets(), ends.to.octets())?.to_bytes();
    let pseudo = pseudo_header(&header, message.len())?.to_be_bytes();
    let covered = message.get(..covered).context("a checksum of more than there is")?;
    let checksum = match !sum(&[&pseudo, covered].concat()) {
        0 => zero,
        checksum => checksum,
    };
    let field = message.get_mut(CHECKSUM..CHECKSUM + 2).context("no room for a checksum")?;
    field.copy_from_slice(&checksum.to_be_bytes());
    Ok(message)
}

/// A UDP-Lite message (RFC 3828 section 3.1): its checksum covers as many bytes as it says, 0 being all. `free` are two bytes of it.
fn udp_lite(ends: Ends, coverage: u16, free: u16) -> Result<Vec<u8>> {
    let words = [1000, 2000, coverage, 0].map(u16::to_be_bytes).concat();
    let message = [words, free.to_be_bytes().to_vec(), bytes(101)].concat();
    let covered = if coverage == 0 { message.len() } else { usize::from(coverage) };
    with_checksum(UDP_LITE, ends, message, covered, u16::MAX)
}

/// A DCCP-Data packet (RFC 4340 sections 5.1 and 9.1), whose checksum covers header and data, or `coverage - 1` words of the data.
/// `free` are two bytes of its sequence number.
fn dccp(ends: Ends, coverage: u8, free: u16) -> Result<Vec<u8>> {
    const HEADER: usize = 12;
    // DCCP-Data, with a short sequence number.
    const TYPE: u8 = 2 << 1;
    let ports = [1000_u16, 2000].map(u16::to_be_bytes).concat();
    let [high, low] = free.to_be_bytes();
    let rest = [u8::try_from(HEADER / 4)?, coverage, 0, 0, TYPE, 1, high, low];
    let message = [ports, rest.to_vec(), bytes(101)].concat();
    let covered = match coverage {
        0 => message.len(),
        words => HEADER + usize::from(words - 1) * 4,
    };
    with_checksum(DCCP, ends, message, covered, 0)
}

#[test]
fn what_has_no_checksum_of_addresses_passes_untouched() {
    run(|scene| {
        for protocol in [GRE, ESP, SCTP, UNKNOWN] {
            // An even length and an odd one, and less than a header of most.
            for length in [200, 33, 3] {
                everyway(scene, protocol, &|_| Ok(bytes(length)))?;
            }
        }
        Ok(())
    });
}

#[test]
fn udp_lite_keeps_a_right_checksum_whatever_it_covers() {
    run(|scene| {
        for coverage in [0, 8, 21, 111] {
            everyway(scene, UDP_LITE, &|ends| udp_lite(ends, coverage, 0))
                .with_context(|| format!("coverage {coverage}"))?;
        }
        Ok(())
    });
}

#[test]
fn dccp_keeps_a_right_checksum_whatever_it_covers() {
    run(|scene| {
        for coverage in [0, 1, 4] {
            everyway(scene, DCCP, &|ends| dccp(ends, coverage, 0))
                .with_context(|| format!("coverage {coverage}"))?;
        }
        Ok(())
    });
}

/// The two free bytes with which a message between these ends has this checksum.
fn free_for(checksum: u16, message: impl Fn(u16) -> Result<Vec<u8>>) -> Result<u16> {
    for free in 0..=u16::MAX {
        if message(free)?.get(CHECKSUM..CHECKSUM + 2) == Some(&checksum.to_be_bytes()) {
            return Ok(free);
        }
    }
    anyhow::bail!("no message has the checksum {checksum:#06x}")
}

#[test]
fn a_checksum_that_becomes_zero_is_sent_as_the_protocol_wants() {
    run(|scene| {
        let translated = [
            Ends { from: EIP_NEIGHBOUR, to: VIP },
            Ends { from: EIP, to: EIP_NEIGHBOUR },
            Ends { from: EIP_NEIGHBOUR, to: scene.third.address() },
            Ends { from: FIXED_EIP, to: EIP_NEIGHBOUR },
        ];
        for ends in translated {
            // 0 would say that there is none.
            let free = free_for(u16::MAX, |free| udp_lite(ends, 0, free))?;
            everyway(scene, UDP_LITE, &|ends| udp_lite(ends, 0, free)).context("UDP-Lite")?;
            let free = free_for(0, |free| dccp(ends, 0, free))?;
            everyway(scene, DCCP, &|ends| dccp(ends, 0, free)).context("DCCP")?;
        }
        Ok(())
    });
}

/// A one-to-one SCTP socket (RFC 6458 section 4) on one address, so that it names no other to its peer; None where the kernel does
/// not speak SCTP.
fn sctp(netns: &Netns, address: Ipv4Addr, port: u16) -> Result<Option<Socket>> {
    netns.exec(|| {
        let socket = match Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::SCTP)) {
            Err(error) if error.raw_os_error() == Some(NOT_SPOKEN) => return Ok(None),
            socket => socket.context("cannot open an SCTP socket")?,
        };
        socket.set_read_timeout(Some(SOON)).context("cannot limit a read")?;
        socket.bind(&SocketAddr::from((address, port)).into()).context("cannot bind an SCTP socket")?;
        Ok(Some(socket))
    })
}

/// `EPROTONOSUPPORT`.
const NOT_SPOKEN: i32 = 93;

/// An association from `client` to `server`, known to the client by `to` and to the server by `seen`; something is said each way.
fn associate(client: &Socket, server: &Socket, to: SocketAddrV4, seen: Ipv4Addr) -> Result<()> {
    server.listen(1).context("cannot listen")?;
    client.connect_timeout(&SocketAddr::V4(to).into(), SOON).with_context(|| format!("to {to}"))?;
    let (mut there, peer) = server.accept().context("no association was made")?;
    let peer = peer.as_socket_ipv4().context("a peer without an address")?;
    ensure!(*peer.ip() == seen, "the server sees {peer} instead of {seen}");
    there.set_read_timeout(Some(SOON)).context("cannot limit a read")?;
    let mut here = client;
    // More than fits a packet.
    let said = bytes(5000);
    says(&mut here, &mut there, &said).context("to the server")?;
    says(&mut there, &mut here, &said).context("to the client")
}

fn says(from: &mut impl io::Write, to: &mut impl io::Read, what: &[u8]) -> Result<()> {
    from.write_all(what).context("cannot send")?;
    let mut heard = vec![0; what.len()];
    to.read_exact(&mut heard).context("not all was heard")?;
    ensure!(heard == what, "something else was heard");
    Ok(())
}

#[test]
fn sctp_associations_are_made_by_eips_both_ways() {
    let test = "sctp_associations_are_made_by_eips_both_ways";
    run(|scene| {
        if sctp(scene.outside.netns(), EIP_NEIGHBOUR, 0)?.is_none() {
            skip(test, "needs a kernel that speaks SCTP (CONFIG_IP_SCTP)");
            return Ok(());
        }
        for (guest, inner, eip) in
            [(&scene.first, VIP, EIP), (&scene.third, scene.third.address(), FIXED_EIP)]
        {
            let open = |netns: &Netns, address, port| sctp(netns, address, port)?.context("no SCTP any more");
            let client = scene.outside.netns();
            let (from, to) = (open(client, EIP_NEIGHBOUR, 0)?, open(guest.netns(), inner, 5000)?);
            associate(&from, &to, SocketAddrV4::new(eip, 5000), EIP_NEIGHBOUR)?;
            let (from, to) = (open(guest.netns(), inner, 0)?, open(client, EIP_NEIGHBOUR, 5001)?);
            associate(&from, &to, SocketAddrV4::new(EIP_NEIGHBOUR, 5001), eip)?;
        }
        Ok(())
    });
}
