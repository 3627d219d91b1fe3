//! dig: answers of a real name server that fit no packet, through EIPs in fragments.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use vip_lab::{
    EipReach, Lab, Netns, Nsd, ZONE, capture::Capture, etherparse::LaxNetSlice, frame::Frame,
    scene::EIP_NEIGHBOUR,
};

use crate::stage::{SOON, insides, start};

/// Texts, of 245 letters each, which with all headers are an answer of just below 4096 bytes.
const TEXTS: usize = 15;
const LETTERS: usize = 245;

/// The least that an answer with all of them takes, and fragments of such a one by an MTU of 1500.
const ANSWER: usize = TEXTS * LETTERS;
const FRAGMENTS: usize = 3;

fn texts() -> Vec<String> {
    let text = |number: usize| format!("{number:03}").chars().cycle().take(LETTERS).collect();
    (0..TEXTS).map(text).collect()
}

/// Asks for the texts by UDP alone and fails unless all came, in one datagram.
fn ask(from: &Netns, source: Ipv4Addr, server: Ipv4Addr) -> Result<()> {
    let (at, source, name) = (format!("@{server}"), source.to_string(), format!("txt.{ZONE}"));
    let shown = from.check(&[
        "dig",
        "+notcp",
        "+ignore",
        "+bufsize=4096",
        "+tries=1",
        "+time=10",
        "-b",
        &source,
        &at,
        &name,
        "TXT",
    ])?;
    ensure!(shown.contains("status: NOERROR"), "{server} answers {shown}");
    let flags = shown.lines().find_map(|line| line.strip_prefix(";; flags: ")?.split(';').next());
    let flags = flags.with_context(|| format!("no flags in {shown}"))?;
    ensure!(!flags.split_whitespace().any(|flag| flag == "tc"), "the answer was cut: {shown}");
    let missing: Vec<_> =
        texts().into_iter().filter(|text| !shown.contains(&format!("\"{text}\""))).collect();
    ensure!(missing.is_empty(), "{missing:?} did not come: {shown}");
    let size = shown.lines().find_map(|line| line.strip_prefix(";; MSG SIZE  rcvd: ")?.parse::<usize>().ok());
    ensure!(size.is_some_and(|size| size > ANSWER), "the answer has {size:?} bytes: {shown}");
    Ok(())
}

/// Fails unless an answer passed the interface in fragments.
fn in_fragments(capture: &Capture, from: Ipv4Addr, to: Ipv4Addr) -> Result<()> {
    let is_one = |frame: &Frame| {
        let Some(LaxNetSlice::Ipv4(ip)) = frame.packet().and_then(|packet| packet.net) else { return false };
        let header = ip.header();
        header.is_fragmenting_payload() && (header.source_addr(), header.destination_addr()) == (from, to)
    };
    capture.wait_for_count(SOON, "the answer's fragments", FRAGMENTS, is_one)?;
    let count = capture.count(is_one)?;
    ensure!(count == FRAGMENTS, "{count} fragments");
    Ok(())
}

#[test]
fn a_name_server_behind_an_eip_answers_in_fragments() {
    Lab::run(|lab| {
        let scene = start(lab, EipReach::OnLink)?;
        for inside in insides(&scene) {
            let _server = Nsd::start(inside.guest.netns(), inside.address, &texts())?;
            let capture = Capture::start(inside.guest.netns(), "eth0")?;
            ask(scene.outside.netns(), EIP_NEIGHBOUR, inside.eip)?;
            in_fragments(&capture, inside.address, EIP_NEIGHBOUR)?;
        }
        Ok(())
    });
}

#[test]
fn a_name_server_outside_answers_guests_in_fragments() {
    Lab::run(|lab| {
        let scene = start(lab, EipReach::OnLink)?;
        let _server = Nsd::start(scene.outside.netns(), EIP_NEIGHBOUR, &texts())?;
        for inside in insides(&scene) {
            let capture = Capture::start(inside.guest.netns(), "eth0")?;
            ask(inside.guest.netns(), inside.address, EIP_NEIGHBOUR)?;
            in_fragments(&capture, EIP_NEIGHBOUR, inside.address)?;
        }
        Ok(())
    });
}

#[test]
fn a_guest_is_answered_in_fragments_by_a_neighbour_at_its_eip() {
    Lab::run(|lab| {
        let scene = start(lab, EipReach::OnLink)?;
        let [vip, fixed] = insides(&scene);
        for (client, server) in [(vip, fixed), (fixed, vip)] {
            let _server = Nsd::start(server.guest.netns(), server.address, &texts())?;
            let capture = Capture::start(client.guest.netns(), "eth0")?;
            ask(client.guest.netns(), client.address, server.eip)?;
            in_fragments(&capture, server.eip, client.address)?;
        }
        Ok(())
    });
}
