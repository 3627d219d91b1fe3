//! `ping -s`: echo requests and replies of every size, whole and in fragments. ping itself looks at what comes back byte by byte.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use vip_lab::{
    EipReach, Lab, Netns,
    capture::Capture,
    etherparse::LaxNetSlice,
    frame::Frame,
    poll_until,
    scene::{EIP_NEIGHBOUR, Scene},
};

use crate::stage::{Inside, SOON, insides, start};

/// Bytes of data: in one packet, the most of one packet of the MTU, one more than that, and of several.
const SIZES: [usize; 5] = [100, 1472, 1473, 4000, 8000];

/// Bytes of data in a packet of the MTU: 1500 without the headers of IPv4 and ICMP.
const LONGEST_WHOLE: usize = 1472;

/// Bytes of an ICMP message in a fragment that is not the last, with an MTU of 1500.
const FRAGMENT: usize = 1480;

const COUNT: usize = 3;

const ICMP: u8 = 1;

/// What ping says about fragmentation: `-M do` forbids it, `-M dont` allows it to everybody.
const FORBIDDEN: &str = "do";
const ALLOWED: &str = "dont";

/// Bytes of what leads a message: ICMP's header.
const HEADER: usize = 8;

fn ping(from: &Netns, source: Ipv4Addr, to: Ipv4Addr, size: usize, fragments: &str) -> Result<bool> {
    let (count, size) = (COUNT.to_string(), size.to_string());
    let (source, to) = (source.to_string(), to.to_string());
    let output = from.run(&[
        "ping", "-n", "-c", &count, "-i", "0.1", "-W", "5", "-s", &size, "-M", fragments, "-I", &source, &to,
    ])?;
    ensure!(!output.stdout.contains("wrong data byte"), "{output}");
    let all = format!("{COUNT} packets transmitted, {COUNT} received, 0% packet loss");
    Ok(output.status.success() && output.stdout.contains(&all) && !output.stdout.contains("DUP"))
}

/// Whether an ICMP packet, or a fragment of one, goes between these; the second says whether it may be fragmented further and the
/// third whether it is a fragment.
fn icmp_between(frame: &Frame, from: Ipv4Addr, to: Ipv4Addr) -> Option<(bool, bool)> {
    let Some(LaxNetSlice::Ipv4(ip)) = frame.packet()?.net else { return None };
    let header = ip.header();
    let ours = (header.protocol().0, header.source_addr(), header.destination_addr()) == (ICMP, from, to);
    ours.then(|| (!header.dont_fragment(), header.is_fragmenting_payload()))
}

/// Pings with all sizes and both settings, and fails unless just the fragments that must be pass the guest's interface, both ways.
fn sizes(inside: Inside<'_>, pinger: &Netns, source: Ipv4Addr, to: Ipv4Addr) -> Result<()> {
    let guest = inside.guest.netns();
    let capture = Capture::start(guest, "eth0")?;
    for size in SIZES {
        for setting in [FORBIDDEN, ALLOWED] {
            capture.clear();
            let what = format!("{size} bytes, -M {setting}, from {} to {to}", pinger.label());
            let answered = ping(pinger, source, to, size, setting).context(what.clone())?;
            if setting == FORBIDDEN && size > LONGEST_WHOLE {
                ensure!(!answered, "{what}: more than the MTU went in one packet");
                let seen = capture.count(|frame| {
                    icmp_between(frame, EIP_NEIGHBOUR, inside.address).is_some()
                        || icmp_between(frame, inside.address, EIP_NEIGHBOUR).is_some()
                })?;
                ensure!(seen == 0, "{what}: {seen} packets passed");
                continue;
            }
            ensure!(answered, "{what}: not all came back as it was");
            let pieces = (size + HEADER).div_ceil(FRAGMENT);
            for (from, to, outgoing) in
                [(EIP_NEIGHBOUR, inside.address, false), (inside.address, EIP_NEIGHBOUR, true)]
            {
                let is_request = outgoing == (pinger.label() == guest.label());
                let seen = |frame: &Frame| {
                    let (may_be, is) = icmp_between(frame, from, to)?;
                    let set = !is_request || may_be == (setting == ALLOWED);
                    (frame.outgoing == outgoing && set && is == (pieces > 1)).then_some(())
                };
                let count = poll_until(SOON, &what, || {
                    let count = capture.count(|frame| seen(frame).is_some()).ok()?;
                    (count >= COUNT * pieces).then_some(count)
                })?;
                let all = capture.count(|frame| icmp_between(frame, from, to).is_some())?;
                ensure!((count, all) == (COUNT * pieces, count), "{what}: {count} and {all} packets");
            }
        }
    }
    Ok(())
}

fn run(body: impl FnOnce(&Scene) -> Result<()>) {
    Lab::run(|lab| body(&start(lab, EipReach::OnLink)?));
}

#[test]
fn echo_requests_of_all_sizes_come_in_by_eips_in_as_many_fragments_as_were_sent() {
    run(|scene| {
        let client = scene.outside.netns();
        insides(scene).into_iter().try_for_each(|inside| sizes(inside, client, EIP_NEIGHBOUR, inside.eip))
    });
}

#[test]
fn echo_requests_of_all_sizes_go_out_by_eips_in_as_many_fragments_as_were_sent() {
    run(|scene| {
        insides(scene)
            .into_iter()
            .try_for_each(|inside| sizes(inside, inside.guest.netns(), inside.address, EIP_NEIGHBOUR))
    });
}
