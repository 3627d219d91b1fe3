//! ICMP errors between guests and the world, by real tools that would not know what failed if the quotes were wrong.
#![cfg(feature = "kernel")]

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use vip_lab::{
    Announcement, EipReach, Lab, Netns,
    capture::Capture,
    etherparse::{LaxNetSlice, TransportSlice},
    frame::Frame,
    poll_until,
    scene::{EIP, FIXED_EIP, GATEWAY, Scene, Setting, VIP, VIP_ID},
};

const SOON: Duration = Duration::from_secs(20);

/// The router between the host and the far client, as the host sees it.
const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

/// The far client (TEST-NET-1, RFC 5737).
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

/// What the link to the far client carries, in bytes.
const NARROW: &str = "1300";

/// The scene with a router outside and a client behind it; the first guest has the VIP.
fn start(lab: &Lab) -> Result<(Scene, Netns)> {
    let scene = Scene::start(lab, Setting { reach: EipReach::Routed, ..Setting::default() })?;
    let far = lab.add_netns("far")?;
    let router = scene.outside.netns();
    router.ip(&format!("link add name far type veth peer name eth0 netns {}", far.name()))?;
    for (netns, interface, address) in [(router, "far", "192.0.2.1/24"), (&far, "eth0", "192.0.2.7/24")] {
        netns.ip(&format!("address add {address} dev {interface}"))?;
        netns.ip(&format!("link set dev {interface} mtu {NARROW} up"))?;
    }
    far.ip("route add default via 192.0.2.1")?;
    router.sysctl("net/ipv4/ip_forward", "1")?;
    // Errors are what this is about: none is held back.
    for netns in [router, &far, scene.first.netns(), scene.third.netns()] {
        netns.sysctl("net/ipv4/icmp_ratelimit", "0")?;
    }
    scene.host.netns().ip(&format!("route add 192.0.2.0/24 via {ROUTER}"))?;
    scene.first.add_vip_address(VIP)?;
    scene.first.arping(Announcement::Request, VIP)?;
    scene.vipd.wait_for_owner(VIP_ID, scene.first.name(), SOON)?;
    Ok((scene, far))
}

/// The addresses that traceroute shows for these hops.
fn hops(from: &Netns, first: u8, last: u8, words: &[&str]) -> Result<Vec<String>> {
    let (first, last) = (first.to_string(), last.to_string());
    let mut command = vec!["traceroute", "-n", "-q", "1", "-w", "2", "-f", &first, "-m", &last];
    command.extend(words);
    let shown = from.check(&command)?;
    let hop = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
    shown.lines().skip(1).map(|line| hop(line).with_context(|| format!("no hop: {shown}"))).collect()
}

/// Private addresses in what leaves the host, the quotes included.
fn leaks(frame: &Frame) -> bool {
    let private = |bytes: &[u8]| bytes.starts_with(&[192, 168]);
    frame.outgoing && frame.bytes.get(14..).is_some_and(|packet| packet.windows(4).any(private))
}

/// Whether a frame is an ICMP error.
fn is_error(frame: &Frame) -> bool {
    let Some(packet) = frame.packet() else { return false };
    let is_ipv4 = matches!(packet.net, Some(LaxNetSlice::Ipv4(_)));
    let kind = match packet.transport {
        Some(TransportSlice::Icmpv4(icmp)) => icmp.type_u8(),
        _ => return false,
    };
    is_ipv4 && [3, 11, 12].contains(&kind)
}

#[test]
fn traceroute_from_a_guest_shows_gateway_routers_and_the_end() {
    Lab::run(|lab| {
        let (scene, _far) = start(lab)?;
        let to = [GATEWAY.to_string(), ROUTER.to_string(), FAR.to_string()];
        for (guest, source) in [(&scene.first, VIP), (&scene.third, scene.third.address())] {
            let source = source.to_string();
            for method in ["-U", "-I"] {
                let shown = hops(guest.netns(), 1, 3, &[method, "-s", &source, &FAR.to_string()])?;
                ensure!(shown == to, "{}, {method}: {shown:?} instead of {to:?}", guest.name());
            }
        }
        Ok(())
    });
}

#[test]
fn traceroute_to_an_eip_shows_it_as_the_last_router_and_the_end_and_nothing_private_leaves() {
    Lab::run(|lab| {
        let (scene, far) = start(lab)?;
        let uplink = Capture::start(scene.host.netns(), "eth0")?;
        for eip in [EIP, FIXED_EIP] {
            let to = eip.to_string();
            // The answer of a guest where nobody listens is an error.
            let shown = hops(&far, 2, 3, &["-U", &to])?;
            ensure!(shown == [to.clone(), to.clone()], "{shown:?} instead of {to} twice");
        }
        uplink.wait_for(SOON, "both guests' errors", |frame| frame.outgoing && is_error(frame))?;
        poll_until(SOON, "both guests' errors", || {
            (uplink.count(|frame| frame.outgoing && is_error(frame)).ok()? >= 4).then_some(())
        })?;
        let leaked = uplink.matching(leaks)?;
        ensure!(leaked.is_empty(), "private addresses left: {leaked:?}");
        let drops = scene.drops()?;
        ensure!(drops.get("icmp_error") == Some(&0) && drops.get("icmp_checksum") == Some(&0), "{drops:?}");
        Ok(())
    });
}

#[test]
fn a_guest_learns_of_a_narrow_link_outside() {
    Lab::run(|lab| {
        let (scene, _far) = start(lab)?;
        let to = FAR.to_string();
        for (guest, source) in [(&scene.first, VIP), (&scene.third, scene.third.address())] {
            let source = source.to_string();
            let ping = ["ping", "-c", "1", "-W", "2", "-M", "do", "-s", "1400", "-I", &source, &to];
            let report = guest.netns().run(&ping)?;
            ensure!(!report.status.success(), "1428 bytes crossed a link of {NARROW}: {report}");
            poll_until(SOON, &format!("the path's MTU in {}", guest.name()), || {
                let route = guest.netns().ip(&format!("route get {to} from {source}")).ok()?;
                route.contains(&format!("mtu {NARROW}")).then_some(())
            })?;
            let ping =
                ["ping", "-c", "3", "-i", "0.2", "-W", "2", "-M", "want", "-s", "1400", "-I", &source, &to];
            guest.netns().check(&ping).context("what fits in fragments does not arrive")?;
        }
        Ok(())
    });
}
