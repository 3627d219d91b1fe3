//! What GRO made one frame of, on its way through the uplink's TC program.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use vip_lab::{
    Mac,
    capture::Capture,
    etherparse::{LaxNetSlice, TcpSlice, TransportSlice},
    frame::Frame,
    poll_until,
};

use crate::{
    echo::{Echo, connect, exchange},
    stage::{CLIENT, EIP, LONGEST_PLAIN_FRAME, SOON, Stage, VIP},
};

/// Enough for many large frames.
const LENGTH: usize = 300_000;

/// How long GRO waits for more.
const PATIENCE: Duration = Duration::from_millis(1);

/// TTL of the client's kernel, and one hop less.
const TTL: [u8; 2] = [64, 63];

/// The TCP header of a frame.
fn tcp(frame: &Frame) -> Option<TcpSlice<'_>> {
    match frame.packet()?.transport {
        Some(TransportSlice::Tcp(tcp)) => Some(tcp),
        _ => None,
    }
}

/// Whether the checksum of a frame's TCP segment is right.
fn is_intact(frame: &Frame) -> bool {
    let Some(packet) = frame.packet() else { return false };
    let (Some(LaxNetSlice::Ipv4(ip)), Some(segment)) = (packet.net, tcp(frame)) else { return false };
    let sum = segment.calc_checksum_ipv4(ip.header().source(), ip.header().destination());
    sum.is_ok_and(|sum| sum == segment.checksum())
}

/// Whether a frame goes from the client to the VIP by these MACs, one hop on.
fn is_delivered(frame: &Frame, to: Mac) -> bool {
    frame.ipv4().is_some_and(|ip| (ip.source, ip.destination, ip.ttl) == (CLIENT, VIP, TTL[1]))
        && frame.destination() == Some(to)
        && frame.source() == Some(Stage::gateway_mac())
}

#[test]
fn established_tcp_crosses_a_split_uplink_in_large_frames_and_nothing_else_passes_its_stack() {
    let test = "established_tcp_crosses_a_split_uplink_in_large_frames_and_nothing_else_passes_its_stack";
    Stage::run(test, "split", |stage| {
        stage.hold_segments(PATIENCE)?;
        let (client, guest) = (stage.outside.netns(), &stage.first);
        let _server = Echo::start(guest.netns())?;
        let uplink = Capture::start(stage.host.netns(), "eth0")?;
        let cable = Capture::start(stage.host.netns(), guest.interface())?;
        client.ping(EIP, 3)?;
        let (stream, _) = connect(client, EIP)?;
        exchange(&stream, LENGTH)?;

        let is_large = |frame: &Frame| frame.bytes.len() > LONGEST_PLAIN_FRAME;
        let comes_in = |frame: &Frame| {
            !frame.outgoing && frame.ipv4().is_some_and(|ip| (ip.destination, ip.ttl) == (EIP, TTL[0]))
        };
        uplink.wait_for(SOON, "a large frame on the uplink", |frame| comes_in(frame) && is_large(frame))?;
        // What XDP takes, nobody sees there.
        let strange = uplink.matching(|frame| comes_in(frame) && tcp(frame).is_none_or(|tcp| tcp.syn()))?;
        ensure!(strange.is_empty(), "it passed the uplink's stack: {strange:?}");

        let goes_in = |frame: &Frame| {
            frame.outgoing && frame.ipv4().is_some_and(|ip| ip.destination == VIP && ip.source == CLIENT)
        };
        cable.wait_for(SOON, "a large frame to the guest", |frame| goes_in(frame) && is_large(frame))?;
        let wrong = cable.matching(|frame| goes_in(frame) && !is_delivered(frame, guest.mac()))?;
        ensure!(wrong.is_empty(), "MACs, addresses or TTL are wrong: {wrong:?}");
        Ok(())
    });
}

#[test]
fn large_frames_are_cut_again_with_right_headers_for_a_guest_that_takes_none() {
    let test = "large_frames_are_cut_again_with_right_headers_for_a_guest_that_takes_none";
    Stage::run(test, "split", |stage| {
        stage.hold_segments(PATIENCE)?;
        let (client, guest) = (stage.outside.netns(), &stage.second);
        // Its own GRO would put them together again.
        guest.netns().check(&["ethtool", "-K", "eth0", "gro", "off"])?;
        stage.wait_for_path(guest, "uplink-tc")?;
        stage.host.netns().check(&[
            "ethtool",
            "-K",
            guest.interface(),
            "tx",
            "off",
            "tso",
            "off",
            "gso",
            "off",
        ])?;
        stage.give_vip(guest)?;
        let _server = Echo::start(guest.netns())?;
        let uplink = Capture::start(stage.host.netns(), "eth0")?;
        let cable = Capture::start(guest.netns(), "eth0")?;
        let (stream, _) = connect(client, EIP)?;
        exchange(&stream, LENGTH)?;
        uplink.wait_for(SOON, "a large frame on the uplink", |frame| {
            !frame.outgoing && frame.bytes.len() > LONGEST_PLAIN_FRAME && tcp(frame).is_some()
        })?;
        // The capture may be behind the connection.
        let arrived = poll_until(SOON, "all bytes in the capture", || {
            let arrived = cable.matching(|frame| !frame.outgoing && tcp(frame).is_some()).ok()?;
            let bytes: usize = arrived.iter().filter_map(tcp).map(|tcp| tcp.payload().len()).sum();
            (bytes >= LENGTH).then_some(arrived)
        })?;
        let wrong = arrived.iter().find(|frame| {
            frame.bytes.len() > LONGEST_PLAIN_FRAME || !is_intact(frame) || !is_delivered(frame, guest.mac())
        });
        wrong.map_or(Ok(()), |frame| Err(anyhow::anyhow!("{frame:?}"))).context("a frame is not right")
    });
}
