//! From EIP to EIP on one host, with real tools: the far side sees the sender's EIP, and a VIP's move breaks nothing.
#![cfg(feature = "kernel")]

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Result, ensure};
use vip_lab::{
    Announcement, Guest, Lab, Netns, Nginx,
    capture::Capture,
    scene::{EIP, FIXED_EIP, Scene, Setting, VIP, VIP_ID, page_of},
};

const SOON: Duration = Duration::from_secs(20);

/// The path MTU and more: what is fragmented.
const LARGE: &str = "4000";

fn must_serve(from: &Netns, address: Ipv4Addr, body: &str) -> Result<()> {
    let page = format!("http://{}/", page_of(address));
    let shown = from.check(&["curl", "--silent", "--show-error", "--max-time", "10", &page])?;
    ensure!(shown.trim() == body, "{page} shows {shown:?} instead of {body:?}");
    Ok(())
}

fn must_ping(from: &Netns, source: Ipv4Addr, to: Ipv4Addr) -> Result<()> {
    for size in ["56", LARGE] {
        let (source, to) = (source.to_string(), to.to_string());
        from.check(&["ping", "-c", "3", "-i", "0.2", "-W", "2", "-s", size, "-I", &source, &to])?;
    }
    Ok(())
}

/// Fails unless the guest saw packets to the address from the EIP, and from nobody else outside its subnet.
fn must_have_seen(capture: &Capture, to: Ipv4Addr, eip: Ipv4Addr) -> Result<()> {
    capture.wait_for(SOON, "a packet from the sender's EIP", |frame| {
        !frame.outgoing && frame.ipv4().is_some_and(|ip| (ip.source, ip.destination) == (eip, to))
    })?;
    let strange = capture.matching(|frame| {
        !frame.outgoing && frame.ipv4().is_some_and(|ip| ip.destination == to && ip.source != eip)
    })?;
    ensure!(strange.is_empty(), "{to} was reached from others than {eip}: {strange:?}");
    Ok(())
}

#[test]
fn a_guest_reaches_the_vip_by_its_eip_and_is_seen_as_its_own() {
    Lab::run(|lab| {
        let scene = Scene::start(lab, Setting::default())?;
        let members: [&Guest; 2] = [&scene.first, &scene.second];
        let _pages: Vec<Nginx> =
            members.iter().map(|guest| Nginx::start(guest, guest.name())).collect::<Result<_>>()?;
        members.iter().try_for_each(|guest| guest.add_vip_address(VIP))?;
        for owner in [&scene.first, &scene.second, &scene.first] {
            owner.arping(Announcement::Request, VIP)?;
            scene.vipd.wait_for_owner(VIP_ID, owner.name(), SOON)?;
            let capture = Capture::start(owner.netns(), "eth0")?;
            must_serve(scene.third.netns(), EIP, owner.name())?;
            must_ping(scene.third.netns(), scene.third.address(), EIP)?;
            must_have_seen(&capture, VIP, FIXED_EIP)?;
        }
        Ok(())
    });
}

#[test]
fn a_guest_reaches_itself_by_its_own_eip() {
    Lab::run(|lab| {
        let scene = Scene::start(lab, Setting::default())?;
        let _page = Nginx::start(&scene.third, "the third's")?;
        let capture = Capture::start(scene.third.netns(), "eth0")?;
        must_serve(scene.third.netns(), FIXED_EIP, "the third's")?;
        must_ping(scene.third.netns(), scene.third.address(), FIXED_EIP)?;
        must_have_seen(&capture, scene.third.address(), FIXED_EIP)?;
        Ok(())
    });
}

#[test]
fn a_closed_port_behind_another_eip_is_told_at_once() {
    Lab::run(|lab| {
        let scene = Scene::start(lab, Setting::default())?;
        scene.first.add_vip_address(VIP)?;
        scene.first.arping(Announcement::Request, VIP)?;
        scene.vipd.wait_for_owner(VIP_ID, scene.first.name(), SOON)?;
        // The error counts for the socket only if its quote names what the socket sent.
        let refused = scene.third.netns().exec(|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(SOON))?;
            socket.connect((EIP, 9))?;
            socket.send(b"anybody?")?;
            Ok(socket.recv(&mut [0; 16]).map_err(|error| error.kind()))
        })?;
        ensure!(refused == Err(std::io::ErrorKind::ConnectionRefused), "{refused:?}");
        Ok(())
    });
}
