//! Packets that are longer than an interface takes: their senders are told, or they are cut, by the forwarder as by any router.
#![cfg(feature = "kernel")]

use std::{
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vip_lab::{
    Announcement, Lab, Netns,
    capture::Capture,
    etherparse::LaxNetSlice,
    frame::Frame,
    poll_until,
    scene::{EIP, EIP_NEIGHBOUR, FIXED_EIP, GATEWAY, Scene, Setting, VIP, VIP_ID},
};

const SOON: Duration = Duration::from_secs(20);

/// The scene; the first guest has the VIP.
fn start(lab: &Lab) -> Result<Scene> {
    let scene = Scene::start(lab, Setting::default())?;
    for netns in [scene.outside.netns(), scene.first.netns(), scene.third.netns()] {
        netns.sysctl("net/ipv4/icmp_ratelimit", "0")?;
    }
    scene.first.add_vip_address(VIP)?;
    scene.first.arping(Announcement::Request, VIP)?;
    scene.vipd.wait_for_owner(VIP_ID, scene.first.name(), SOON)?;
    Ok(scene)
}

/// Changes an interface's MTU.
fn set_mtu(netns: &Netns, interface: &str, mtu: u32) -> Result<()> {
    netns.ip(&format!("link set dev {interface} mtu {mtu}")).map(drop)
}

/// Waits until vipd knows an MTU; `place` is where the status has it.
fn wait_for_mtu(scene: &Scene, place: &str, mtu: u32) -> Result<()> {
    poll_until(SOON, &format!("vipd's MTU of {place} to be {mtu}"), || {
        (scene.status().ok()?.pointer(place)?.as_u64()? == u64::from(mtu)).then_some(())
    })?;
    Ok(())
}

/// Gives both ends of the uplink and of the guests' cables an MTU.
fn set_all_mtus(scene: &Scene, uplink: u32, guests: u32) -> Result<()> {
    set_mtu(scene.outside.netns(), "eth0", uplink)?;
    set_mtu(scene.host.netns(), "eth0", uplink)?;
    for (number, guest) in scene.guests().into_iter().enumerate() {
        set_mtu(scene.host.netns(), guest.interface(), guests)?;
        set_mtu(guest.netns(), "eth0", guests)?;
        wait_for_mtu(scene, &format!("/ports/{number}/mtu"), guests)?;
    }
    wait_for_mtu(scene, "/uplink/mtu", uplink)
}

/// One echo of so many data bytes that nobody may cut; whether it came back, and what ping says.
fn echo(netns: &Netns, source: Option<Ipv4Addr>, to: Ipv4Addr, bytes: u32) -> Result<(bool, String)> {
    let (to, bytes, source) = (to.to_string(), bytes.to_string(), source.map(|source| source.to_string()));
    let mut command = vec!["ping", "-c", "1", "-W", "2", "-M", "do", "-s", &bytes];
    if let Some(source) = &source {
        command.extend(["-I", source]);
    }
    command.push(&to);
    let report = netns.run(&command)?;
    Ok((report.status.success(), report.to_string()))
}

/// Echoes of so many data bytes that anybody may cut, which must come back.
fn echo_in_fragments(netns: &Netns, source: Option<Ipv4Addr>, to: Ipv4Addr, bytes: u32) -> Result<()> {
    let (to, bytes, source) = (to.to_string(), bytes.to_string(), source.map(|source| source.to_string()));
    let mut command = vec!["ping", "-c", "3", "-i", "0.2", "-W", "2", "-M", "dont", "-s", &bytes];
    if let Some(source) = &source {
        command.extend(["-I", source]);
    }
    command.push(&to);
    netns.check(&command).map(drop)
}

/// Waits until a host knows the MTU of a path.
fn wait_for_path_mtu(netns: &Netns, to: Ipv4Addr, from: Option<Ipv4Addr>, mtu: u32) -> Result<()> {
    let from = from.map(|from| format!(" from {from}")).unwrap_or_default();
    poll_until(SOON, &format!("the path's MTU in {}", netns.label()), || {
        netns.ip(&format!("route get {to}{from}")).ok()?.contains(&format!("mtu {mtu} ")).then_some(())
    })?;
    Ok(())
}

/// Length and "more follow" of a fragment.
fn fragment(frame: &Frame) -> Option<(usize, bool)> {
    match frame.packet()?.net? {
        LaxNetSlice::Ipv4(ip) if ip.payload().fragmented => {
            Some((usize::from(ip.header().total_len()), ip.header().more_fragments()))
        }
        _ => None,
    }
}

fn drops(scene: &Scene, reason: &str) -> Result<u64> {
    scene.drops()?.get(reason).copied().with_context(|| format!("the status has no {reason}"))
}

#[test]
fn guests_are_told_by_their_gateway_what_the_uplink_takes() {
    Lab::run(|lab| {
        let scene = start(lab)?;
        set_mtu(scene.host.netns(), "eth0", 1400)?;
        wait_for_mtu(&scene, "/uplink/mtu", 1400)?;
        for (number, (guest, source)) in
            (1..).zip([(&scene.first, VIP), (&scene.third, scene.third.address())])
        {
            let (came_back, said) = echo(guest.netns(), Some(source), EIP_NEIGHBOUR, 1373)?;
            ensure!(!came_back, "1401 bytes left by an uplink of 1400: {said}");
            ensure!(
                said.contains(&format!("From {GATEWAY}")),
                "somebody else than the gateway told it: {said}"
            );
            ensure!(said.contains("mtu = 1400") || said.contains("mtu=1400"), "{said}");
            wait_for_path_mtu(guest.netns(), EIP_NEIGHBOUR, Some(source), 1400)?;
            ensure!(echo(guest.netns(), Some(source), EIP_NEIGHBOUR, 1372)?.0, "1400 bytes do not fit");
            ensure!(drops(&scene, "too_big")? == number, "each is counted: {:?}", scene.drops()?);
        }
        Ok(())
    });
}

#[test]
fn clients_are_told_by_the_eip_what_a_guest_takes() {
    Lab::run(|lab| {
        let scene = start(lab)?;
        for (place, guest, eip) in
            [("/ports/0/mtu", &scene.first, EIP), ("/ports/2/mtu", &scene.third, FIXED_EIP)]
        {
            set_mtu(scene.host.netns(), guest.interface(), 1300)?;
            set_mtu(guest.netns(), "eth0", 1300)?;
            wait_for_mtu(&scene, place, 1300)?;
            let (came_back, said) = echo(scene.outside.netns(), None, eip, 1273)?;
            ensure!(!came_back, "1301 bytes reached a guest of 1300: {said}");
            ensure!(said.contains(&format!("From {eip}")), "somebody else than the EIP told it: {said}");
            wait_for_path_mtu(scene.outside.netns(), eip, None, 1300)?;
            ensure!(echo(scene.outside.netns(), None, eip, 1272)?.0, "1300 bytes do not fit");
            echo_in_fragments(scene.outside.netns(), None, eip, 4000)?;
        }
        Ok(())
    });
}

#[test]
fn what_may_be_cut_arrives_whole_in_both_directions() {
    Lab::run(|lab| {
        let scene = start(lab)?;
        set_all_mtus(&scene, 1500, 9000)?;
        let seen = Capture::start(scene.outside.netns(), "eth0")?;
        for (guest, source) in [(&scene.first, VIP), (&scene.third, scene.third.address())] {
            echo_in_fragments(guest.netns(), Some(source), EIP_NEIGHBOUR, 6000)?;
        }
        // 6028 bytes are five fragments for 1500; three pings of two guests.
        let from_guests = |frame: &Frame| !frame.outgoing && fragment(frame).is_some();
        poll_until(SOON, "all fragments", || (seen.count(from_guests).ok()? == 30).then_some(()))?;
        for frame in seen.matching(from_guests)? {
            let (length, more) = fragment(&frame).context("a fragment")?;
            ensure!(length <= 1500 && (more == (length == 1500)), "a fragment of {length} bytes: {frame:?}");
        }
        // Towards guests that take less than the uplink brings.
        set_all_mtus(&scene, 1500, 1300)?;
        for eip in [EIP, FIXED_EIP] {
            echo_in_fragments(scene.outside.netns(), None, eip, 1400)?;
        }
        ensure!(drops(&scene, "too_big")? == 0 && drops(&scene, "edit_failed")? == 0, "{:?}", scene.drops()?);
        Ok(())
    });
}

#[test]
fn a_checksum_that_was_left_to_the_nic_is_right_when_the_packet_is_cut() {
    Lab::run(|lab| {
        let scene = start(lab)?;
        set_all_mtus(&scene, 1500, 9000)?;
        let guest = scene.third.netns();
        let offloads = guest.check(&["ethtool", "-k", "eth0"])?;
        ensure!(offloads.contains("tx-checksumming: on"), "the guest computes checksums itself: {offloads}");
        // DF is not set then.
        guest.sysctl("net/ipv4/ip_no_pmtu_disc", "1")?;
        let receiver = scene.outside.netns().exec(|| {
            let socket = UdpSocket::bind((EIP_NEIGHBOUR, 9999))?;
            socket.set_read_timeout(Some(SOON))?;
            Ok(socket)
        })?;
        for length in [1473, 3001, 5000, 8972] {
            let data: Vec<u8> = (0..length).map(|number: u32| (number % 253) as u8).collect();
            let sent = data.clone();
            guest.exec(move || {
                let sender = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                sender.send_to(&sent, (EIP_NEIGHBOUR, 9999))?;
                Ok(())
            })?;
            let mut buffer = vec![0; 10_000];
            let (bytes, from) = receiver.recv_from(&mut buffer).with_context(|| {
                format!("{length} bytes do not arrive: their checksum is wrong, or a part is lost")
            })?;
            ensure!(from.ip() == FIXED_EIP, "they come from {from}");
            ensure!(buffer.get(..bytes) == Some(&data), "{length} bytes arrived as others");
        }
        Ok(())
    });
}

#[test]
fn jumbo_frames_go_through_xdp_in_several_buffers() {
    Lab::run(|lab| {
        let scene = start(lab)?;
        // With XDP attached: its program takes frames in several buffers, or the driver would refuse.
        set_all_mtus(&scene, 9000, 9000)?;
        for (guest, source, eip) in
            [(&scene.first, VIP, EIP), (&scene.third, scene.third.address(), FIXED_EIP)]
        {
            for bytes in [1472, 3400, 4100, 8972] {
                let (came_back, said) = echo(scene.outside.netns(), None, eip, bytes)?;
                ensure!(came_back, "{bytes} bytes to {eip}: {said}");
                let (came_back, said) = echo(guest.netns(), Some(source), EIP_NEIGHBOUR, bytes)?;
                ensure!(came_back, "{bytes} bytes from {source}: {said}");
            }
            datagrams(&scene, guest.netns(), eip)?;
        }
        let status = scene.status()?;
        if scene.xdp_features_are_told()? {
            let path = status.pointer("/ports/0/path").and_then(Value::as_str);
            ensure!(path == Some("xdp"), "the first guest is served by {path:?}");
        }
        let lost: u64 = scene.drops()?.values().sum();
        ensure!(lost == 0, "{:?}", scene.drops()?);
        Ok(())
    });
}

/// Sends datagrams of all kinds of lengths to an EIP, which must arrive as they are.
fn datagrams(scene: &Scene, guest: &Netns, eip: Ipv4Addr) -> Result<()> {
    let receiver = guest.exec(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 7777))?;
        socket.set_read_timeout(Some(SOON))?;
        Ok(socket)
    })?;
    let sender = scene.outside.netns().exec(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?))?;
    for length in [1_u32, 1472, 3300, 3500, 4096, 8971, 8972] {
        let data: Vec<u8> = (0..length).map(|number| (number % 251) as u8).collect();
        sender.send_to(&data, (eip, 7777))?;
        let mut buffer = vec![0; 10_000];
        let (bytes, _) = receiver
            .recv_from(&mut buffer)
            .with_context(|| format!("{length} bytes to {eip} do not arrive"))?;
        ensure!(buffer.get(..bytes) == Some(&data), "{length} bytes arrived as others");
    }
    Ok(())
}
