//! Real devices at both ends: native XDP on a network card with several queues, guests behind taps that speak virtio-net's
//! own words. Only the machine of `cargo xtask vm` has such a card.
#![cfg(feature = "kernel")]

mod stage;

use std::net::SocketAddrV4;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vip_lab::{
    Lab,
    capture::Capture,
    offload::checked,
    scene::{EIP, EIP_NEIGHBOUR, GATEWAY, VIP, VIP_ID, constant_mac},
    skip, virtio,
};

use crate::stage::{PORT, SHORT, Stage, TapGuest};

/// Bytes in each segment of a large TCP packet, and of the whole: the last segment is shorter.
const SEGMENT: u16 = 1400;
const LARGE: usize = 4 * 1400 + 123;

/// Flows, of which some come in by each of a few queues.
const FLOWS: usize = 64;

/// Runs a test on the machine's cards; without them it is skipped.
fn on_cards(test: &str, body: impl FnOnce(&Stage) -> Result<()>) {
    if !virtio::present() {
        skip(test, "needs network cards to itself, as the machine of `cargo xtask vm` has");
        return;
    }
    Lab::run(|lab| body(&Stage::start(lab)?));
}

fn number(value: &Value, pointer: &str) -> Result<u64> {
    value
        .pointer(pointer)
        .and_then(Value::as_u64)
        .with_context(|| format!("no number {pointer} in {value:#}"))
}

/// The payload of a large packet: no two of its bytes at the distance of a segment are the same by chance.
fn large() -> Vec<u8> {
    (0_u8..=250).cycle().take(LARGE).collect()
}

#[test]
fn a_card_forwards_in_and_out_and_follows_a_move() {
    on_cards("a_card_forwards_in_and_out_and_follows_a_move", |stage| {
        let status = stage.vipd.vipctl(&["status", "-o", "json"])?;
        let mode = status.pointer("/uplink/xdp").and_then(Value::as_str);
        ensure!(mode == Some("native"), "the uplink's XDP is {mode:?}: {status:#}");
        let [first, second, _] = &stage.guests;

        let before = stage.claim(first)?;
        let client = stage.client()?;
        let address = stage.reaches(&client, "to the first", first)?;
        first.reply(address, "from the first")?;
        ensure!(received(&client)? == "from the first", "another word came back");

        let after = stage.claim(second)?;
        ensure!(
            number(&after, "/owner/epoch")? == number(&before, "/owner/epoch")? + 1,
            "{before:#} {after:#}"
        );
        let address = stage.reaches(&client, "to the second", second)?;
        second.reply(address, "from the second")?;
        ensure!(received(&client)? == "from the second", "another word came back");

        let vip = stage.vipd.vip(VIP_ID)?;
        ensure!(number(&vip, "/packets_in")? == 2, "two packets went in: {vip:#}");
        ensure!(number(&vip, "/packets_out")? == 2, "two packets came out: {vip:#}");
        Ok(())
    });
}

fn received(client: &std::net::UdpSocket) -> Result<String> {
    let mut buffer = [0; 100];
    // Connected: a datagram from another address than the EIP's is not given to it.
    let length = client.recv(&mut buffer).context("nothing came back")?;
    Ok(String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned())
}

#[test]
fn every_queue_of_a_card_leads_to_the_owner() {
    on_cards("every_queue_of_a_card_leads_to_the_owner", |stage| {
        let [first, ..] = &stage.guests;
        stage.claim(first)?;
        let clients = (0..FLOWS).map(|_| stage.client()).collect::<Result<Vec<_>>>()?;
        // The first packet of all asks for the EIP's MAC; the others find it known.
        for (flow, client) in clients.iter().enumerate() {
            stage.reaches(client, &format!("flow {flow}"), first)?;
        }
        let queues = virtio::busy_queues(stage.host.netns(), "eth0")?;
        ensure!(queues > 1, "{FLOWS} flows came in by {queues} queue");
        Ok(())
    });
}

#[test]
fn a_large_packet_of_a_tap_leaves_in_segments_with_right_checksums() {
    on_cards("a_large_packet_of_a_tap_leaves_in_segments_with_right_checksums", |stage| {
        let [first, ..] = &stage.guests;
        stage.claim(first)?;
        // The client's neighbour entry, in both directions.
        let client = stage.client()?;
        let address = stage.reaches(&client, "hello", first)?;
        let wire = Capture::start(stage.outside.netns(), "eth0")?;
        let payload = large();
        let (from, to) = (SocketAddrV4::new(VIP, PORT), SocketAddrV4::new(*address.ip(), 9));
        first.send_segments(constant_mac(GATEWAY), from, to, &payload, SEGMENT)?;

        let segments = LARGE.div_ceil(usize::from(SEGMENT));
        let is_ours = |frame: &vip_lab::frame::Frame| {
            !frame.outgoing && frame.ipv4().is_some_and(|ip| ip.source == EIP && ip.protocol == 6)
        };
        let frames = wire.wait_for_count(SHORT, "the segments", segments, is_ours)?;
        let mut packets = frames.iter().map(|frame| checked(&frame.bytes)).collect::<Result<Vec<_>>>()?;
        packets.sort_by_key(|packet| packet.sequence);
        for packet in &packets {
            let ends = (packet.source.port(), *packet.destination.ip());
            ensure!((ends, packet.ttl) == ((PORT, EIP_NEIGHBOUR), 63), "{packet:?}");
        }
        let whole: Vec<u8> = packets.into_iter().flat_map(|packet| packet.payload).collect();
        ensure!(whole == payload, "{} bytes came, and not those that were sent", whole.len());
        Ok(())
    });
}

#[test]
fn a_large_packet_between_taps_stays_whole() {
    on_cards("a_large_packet_between_taps_stays_whole", |stage| {
        let [first, _, third] = &stage.guests;
        stage.claim(first)?;
        let payload = large();
        let (from, to) = (SocketAddrV4::new(third.address, 9), SocketAddrV4::new(VIP, PORT));
        third.send_segments(constant_mac(VIP), from, to, &payload, SEGMENT)?;

        let is_ours = |frame: &vip_lab::tap::TapFrame| frame.offload.segments.is_some();
        let frame = first.tap.receive(SHORT, "the large packet", is_ours)?;
        ensure!(
            frame.offload.segments.map(|segments| segments.payload) == Some(SEGMENT),
            "it is to be cut otherwise: {:?}",
            frame.offload
        );
        let packet = checked(&frame.complete()?)?;
        ensure!(
            packet.payload == payload,
            "{} bytes came, and not those that were sent",
            packet.payload.len()
        );
        ensure!((packet.source, packet.destination) == (from, to), "{packet:?}");
        addressed_to(&frame.bytes, first)
    });
}

fn addressed_to(frame: &[u8], guest: &TapGuest) -> Result<()> {
    let destination = frame.first_chunk().context("an empty frame")?;
    ensure!(*destination == guest.mac.0, "the frame is for {destination:02x?}, not for {}", guest.mac);
    Ok(())
}
