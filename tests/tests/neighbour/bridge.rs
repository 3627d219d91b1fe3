//! What unlisted neighbours on a bridge know of a VIP, and what the bridge knows.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use vip_lab::{
    Lab, Mac, RawSender, UNDERLAY_OUTSIDE,
    capture::Capture,
    frame::{Arp, Frame},
    poll_until,
};

use crate::stage::{EIP, FIXED_EIP, SOON, Stage, VIP, VIP_ID, reaches, take_vip};

/// The virtual router MAC of VRID 66 (RFC 5798 section 7.3).
const VIRTUAL: Mac = Mac([0, 0, 0x5e, 0, 1, 66]);

/// An echo request from an address to the VIP, on its way to the guest.
fn is_request_from(source: Ipv4Addr) -> impl Fn(&Frame) -> bool {
    move |frame| frame.outgoing && frame.ipv4().is_some_and(|ip| ip.source == source && ip.destination == VIP)
}

/// The bridge has a static entry for a MAC at an interface.
fn is_static(stage: &Stage, mac: Mac, interface: &str) -> Result<bool> {
    let table = stage.host.netns().check(&["bridge", "fdb", "show", "br", "br0"])?;
    let start = format!("{mac} dev {interface} ");
    Ok(table
        .lines()
        .any(|line| line.starts_with(&start) && line.split_whitespace().any(|word| word == "static")))
}

fn wait_until_static(stage: &Stage, mac: Mac, interface: &str) -> Result<()> {
    poll_until(SOON, &format!("{mac} to be static at {interface}"), || {
        is_static(stage, mac, interface).ok().filter(|found| *found)
    })
    .map(drop)
    .with_context(|| stage.host.netns().check(&["bridge", "fdb", "show", "br", "br0"]).unwrap_or_default())
}

#[test]
fn an_unlisted_neighbour_reaches_the_vip_before_and_after_a_move() {
    Lab::run(|lab| {
        let stage = Stage::build(lab)?;
        let vipd = stage.start_vipd()?;
        let (at_first, at_second) =
            (Capture::start(stage.host.netns(), "tap0")?, Capture::start(stage.host.netns(), "tap1")?);
        let neighbour = stage.third.netns();
        let is_request = is_request_from(stage.third.address());
        take_vip(&vipd, &stage.first)?;
        reaches(neighbour, VIP)?;
        ensure!(at_first.count(&is_request)? > 0, "somebody else has answered for the first guest");
        ensure!(at_second.count(&is_request)? == 0, "the second guest got the first's packets");

        stage.first.remove_vip_address(VIP)?;
        take_vip(&vipd, &stage.second)?;
        at_first.clear();
        let report = neighbour.ping(VIP, 5)?;
        ensure!(report.received == 5, "after the move: {report:?}");
        ensure!(at_second.count(&is_request)? >= 5, "somebody else has answered for the second guest");
        ensure!(at_first.count(&is_request)? == 0, "the first guest still gets packets");

        // And back, while vipd is not there.
        let mut vipd = vipd;
        vipd.kill9()?;
        stage.second.remove_vip_address(VIP)?;
        stage.first.add_vip_address(VIP)?;
        stage.first.arping(vip_lab::Announcement::Reply, VIP)?;
        let report = neighbour.ping(VIP, 5)?;
        ensure!(report.received == 5, "after the move without vipd: {report:?}");
        Ok(())
    });
}

#[test]
fn only_the_accepted_claim_is_passed_on_to_the_bridge() {
    Lab::run(|lab| {
        let stage = Stage::build(lab)?;
        let vipd = stage.start_vipd()?;
        let at_third = Capture::start(stage.host.netns(), "tap2")?;
        let claims_by = |mac: Mac| {
            at_third.count(move |frame: &Frame| frame.announces(VIP) && frame.source() == Some(mac))
        };
        take_vip(&vipd, &stage.first)?;
        poll_until(SOON, "the claim at the neighbour", || {
            claims_by(stage.first.mac()).ok().filter(|count| *count == 1)
        })?;
        // A repetition says nothing new, but it is true.
        stage.first.arping(vip_lab::Announcement::Reply, VIP)?;
        poll_until(SOON, "the repetition at the neighbour", || {
            claims_by(stage.first.mac()).ok().filter(|count| *count == 2)
        })?;
        // A lie: the second guest's claim with the first's MAC inside.
        let lie = Arp::gratuitous_request(stage.first.mac(), VIP).frame(stage.second.mac(), Mac::BROADCAST);
        RawSender::new(stage.second.netns(), "eth0")?.send(&lie)?;
        // Another one: an address that is a neighbour's.
        let lie = Arp::gratuitous_reply(stage.second.mac(), stage.first.address());
        RawSender::new(stage.second.netns(), "eth0")?.send(&lie.frame(stage.second.mac(), Mac::BROADCAST))?;
        reaches(stage.second.netns(), stage.third.address())?;
        let lies = at_third.count(|frame| {
            frame.source() == Some(stage.second.mac())
                && frame.arp().is_some_and(|arp| arp.sender == arp.target)
        })?;
        ensure!(lies == 0, "{lies} lies have reached the neighbour");
        Ok(())
    });
}

#[test]
fn the_bridge_has_static_entries_for_the_ports() {
    Lab::run(|lab| {
        let stage = Stage::build(lab)?;
        let mut vipd = stage.start_vipd()?;
        wait_until_static(&stage, stage.first.mac(), "tap0")?;
        wait_until_static(&stage, stage.second.mac(), "tap1")?;
        ensure!(!is_static(&stage, stage.third.mac(), "tap2")?, "the third guest is not vipd's matter");
        // They go with the cable and come back with it, also when vipd sees only the end of that.
        for lives in [true, false] {
            if !lives {
                vipd.kill9()?;
            }
            stage.second.unplug()?;
            stage.second.plug()?;
            stage.host.enslave("tap1", "br0")?;
            if !lives {
                vipd.begin()?;
                vipd.ready()?;
            }
            wait_until_static(&stage, stage.second.mac(), "tap1")?;
            wait_until_static(&stage, stage.first.mac(), "tap0")?;
        }
        Ok(())
    });
}

#[test]
fn a_virtual_mac_is_found_at_its_present_owner_with_vipd_and_without() {
    Lab::run(|lab| {
        let stage = Stage::build(lab)?;
        let mut vipd = stage.start_vipd()?;
        // A virtual router claims by its virtual MAC, and the other one takes over with the same.
        let claim = Arp::gratuitous_request(VIRTUAL, VIP).frame(VIRTUAL, Mac::BROADCAST);
        let neighbour = stage.third.netns();
        neighbour.ip(&format!("neighbour replace {VIP} lladdr {VIRTUAL} dev eth0 nud permanent"))?;
        let request = is_request_from(stage.third.address());
        let (first, second) = ((&stage.first, "tap0"), (&stage.second, "tap1"));
        for ((guest, interface), lives) in [(first, true), (second, true), (first, false), (second, false)] {
            if !lives && vipd.is_running() {
                vipd.kill9()?;
            }
            let capture = Capture::start(stage.host.netns(), interface)?;
            RawSender::new(guest.netns(), "eth0")?.send(&claim)?;
            if lives {
                vipd.wait_for_owner(VIP_ID, guest.name(), SOON)?;
            }
            // Nobody has the address: what counts is where the request goes.
            neighbour.ping(VIP, 1)?;
            capture
                .wait_for(SOON, "the neighbour's request", |frame| {
                    request(frame) && frame.destination() == Some(VIRTUAL)
                })
                .with_context(|| format!("{} claimed, vipd lives: {lives}", guest.name()))?;
            let elsewhere = if interface == "tap0" { "tap1" } else { "tap0" };
            let elsewhere = Capture::start(stage.host.netns(), elsewhere)?;
            neighbour.ping(VIP, 2)?;
            let strays = elsewhere.count(&request)?;
            ensure!(strays == 0, "{strays} requests went to the one that does not own the VIP");
        }
        Ok(())
    });
}

#[test]
fn eips_work_behind_a_gateway_that_is_the_hosts_own_bridge() {
    Lab::run(|lab| {
        let stage = Stage::build(lab)?;
        let vipd = stage.start_vipd()?;
        take_vip(&vipd, &stage.first)?;
        let client = stage.outside.netns();
        for eip in [EIP, FIXED_EIP] {
            let report = client.ping(eip, 3)?;
            ensure!(report.received == 3, "{eip}: {report:?}");
        }
        // What the second guest begins leaves as its EIP; what the first begins has none and leaves by the host.
        let capture = Capture::start(client, "eth0")?;
        for (guest, source) in [(&stage.second, FIXED_EIP), (&stage.first, stage.first.address())] {
            let report = guest.netns().ping(UNDERLAY_OUTSIDE, 2)?;
            ensure!(report.received == 2, "{}: {report:?}", guest.name());
            let seen = capture.count(|frame| {
                !frame.outgoing
                    && frame
                        .ipv4()
                        .is_some_and(|ip| ip.source == source && ip.destination == UNDERLAY_OUTSIDE)
            })?;
            ensure!(seen == 2, "{} of {}'s requests came from {source}", seen, guest.name());
        }
        Ok(())
    });
}
