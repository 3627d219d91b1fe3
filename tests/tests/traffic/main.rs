//! Honest traffic: everything that two real guests, their neighbour and a client outside say to each other.
#![cfg(feature = "kernel")]

mod lossless_move;
mod plain_routing;

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vip_lab::{
    Announcement, EipReach, Guest, IperfOptions, IperfServer, Lab, LogMark, NEEDS_XDP_FEATURES, Netns, Nginx,
    UNDERLAY_OUTSIDE,
    capture::Capture,
    frame::{Frame, Ipv4Addresses},
    http,
    keepalived::{Keepalived, KeepalivedConfig, State},
    poll_until,
    scene::{EIP, EIP_NEIGHBOUR, FIXED_EIP, GATEWAY, PREFIX, Scene, Setting, VIP, VIP_ID, page_of},
    skip,
};

const SHORT: Duration = Duration::from_secs(10);

/// Missed adverts, a health check every two seconds, and a busy machine.
const ELECTION: Duration = Duration::from_secs(40);

/// Protocol numbers.
const ICMP: u8 = 1;
const VRRP: u8 = 112;

/// Where datagrams go.
const DATAGRAM_PORT: u16 = 9000;

/// A frame of a guest's full MTU, with its header.
const LONGEST_PLAIN_FRAME: usize = 1514;

/// A page of many full frames.
const LONG_PAGE: usize = 300_000;

/// The client's address that guests see.
fn client_of(reach: EipReach) -> Ipv4Addr {
    match reach {
        EipReach::OnLink => EIP_NEIGHBOUR,
        EipReach::Routed => UNDERLAY_OUTSIDE,
    }
}

/// The usual scene with a client that reaches EIPs in this way.
fn reached(reach: EipReach) -> Setting {
    Setting { reach, ..Setting::default() }
}

/// Fails unless an address answers echo requests.
fn ensure_pings(netns: &Netns, address: Ipv4Addr) -> Result<()> {
    let report = netns.ping(address, 3)?;
    ensure!(report.sent == 3 && report.received == 3, "{} to {address}: {}", netns.label(), report.text);
    Ok(())
}

/// Fails unless an address serves this page.
fn ensure_serves(netns: &Netns, address: Ipv4Addr, body: &str) -> Result<()> {
    let page = http::get(netns, page_of(address), "/", SHORT)?;
    ensure!(page.status == 200 && page.body == body, "{} to {address}: {page:?}", netns.label());
    Ok(())
}

/// Fails unless a datagram from `from` to `outer` arrives at a guest's socket on `inner`, and the answer comes back from
/// `outer`.
fn ensure_echoes(from: &Netns, outer: Ipv4Addr, guest: &Guest, inner: Ipv4Addr) -> Result<()> {
    let socket = |netns: &Netns, address: Ipv4Addr, port: u16| {
        netns.exec(|| {
            let socket = UdpSocket::bind((address, port))?;
            socket.set_read_timeout(Some(SHORT))?;
            Ok(socket)
        })
    };
    let (server, client) =
        (socket(guest.netns(), inner, DATAGRAM_PORT)?, socket(from, Ipv4Addr::UNSPECIFIED, 0)?);
    let mut buffer = [0; 64];
    client.send_to(b"question", (outer, DATAGRAM_PORT))?;
    let (length, asker) = server.recv_from(&mut buffer).context("the datagram did not arrive")?;
    ensure!(buffer.get(..length) == Some(b"question"), "it arrived changed");
    server.send_to(b"answer", asker)?;
    let (length, answerer) = client.recv_from(&mut buffer).context("the answer did not arrive")?;
    ensure!(buffer.get(..length) == Some(b"answer"), "the answer arrived changed");
    ensure!(answerer == SocketAddrV4::new(outer, DATAGRAM_PORT).into(), "the answer is from {answerer}");
    Ok(())
}

/// A guest takes the VIP by arping.
fn claim(scene: &Scene, guest: &Guest, announcement: Announcement) -> Result<Value> {
    guest.arping(announcement, VIP)?;
    scene.vipd.wait_for_owner(VIP_ID, guest.name(), SHORT)
}

fn moves_by_hand(scene: &Scene, reach: EipReach) -> Result<()> {
    let client = scene.outside.netns();
    let members = [&scene.first, &scene.second];
    let _pages: Vec<Nginx> =
        members.iter().map(|guest| Nginx::start(guest, guest.name())).collect::<Result<_>>()?;
    members.iter().try_for_each(|guest| guest.add_vip_address(VIP))?;
    let mut epoch = 0;
    for (announcement, form) in [(Announcement::Request, "garp_request"), (Announcement::Reply, "garp_reply")]
    {
        for guest in members {
            let vip = claim(scene, guest, announcement)?;
            epoch += 1;
            let learned = vip.pointer("/owner/learned_from").and_then(Value::as_str);
            ensure!(learned == Some(form), "{announcement:?} was learned as {learned:?}");
            ensure!(vip.pointer("/owner/epoch").and_then(Value::as_u64) == Some(epoch), "not {epoch}: {vip}");
            // Whoever cached a MAC keeps it: nobody outside or inside notices.
            ensure_pings(client, EIP)?;
            ensure_serves(client, EIP, guest.name())?;
            ensure_echoes(client, EIP, guest, VIP)?;
            ensure_pings(scene.third.netns(), VIP)?;
            ensure_serves(scene.third.netns(), VIP, guest.name())?;
            ensure_echoes(scene.third.netns(), VIP, guest, VIP)?;
            // Nothing is left of the way back either: packets from the VIP leave as the EIP.
            let capture = Capture::start(client, "eth0")?;
            let report = guest.netns().ping_from(VIP, client_of(reach), 2)?;
            ensure!(report.received == 2, "the owner does not reach the client: {}", report.text);
            capture.wait_for_count(SHORT, "packets of the owner, as the EIP", 2, |frame| {
                !frame.outgoing
                    && frame.ipv4().is_some_and(|ip| (ip.source, ip.destination) == (EIP, client_of(reach)))
            })?;
        }
    }
    let vip = scene.vipd.vip(VIP_ID)?;
    for counter in ["packets_in", "packets_out", "bytes_in", "bytes_out"] {
        ensure!(vip.get(counter).and_then(Value::as_u64).is_some_and(|count| count > 0), "{counter}: {vip}");
    }
    ensure!(vip.get("eip").and_then(Value::as_str) == Some("web-eip"), "{vip}");
    Ok(())
}

#[test]
fn arping_moves_the_vip_and_all_traffic_follows_for_a_client_on_link() {
    Lab::run(|lab| moves_by_hand(&Scene::start(lab, reached(EipReach::OnLink))?, EipReach::OnLink));
}

#[test]
fn arping_moves_the_vip_and_all_traffic_follows_for_a_routed_client() {
    Lab::run(|lab| moves_by_hand(&Scene::start(lab, reached(EipReach::Routed))?, EipReach::Routed));
}

fn fixed_address(scene: &Scene, reach: EipReach) -> Result<()> {
    let (client, guest) = (scene.outside.netns(), &scene.third);
    let _page = Nginx::start(guest, "the fixed one's")?;
    ensure_pings(client, FIXED_EIP)?;
    ensure_serves(client, FIXED_EIP, "the fixed one's")?;
    ensure_echoes(client, FIXED_EIP, guest, guest.address())?;
    let capture = Capture::start(client, "eth0")?;
    ensure_pings(guest.netns(), client_of(reach))?;
    // TTL: one hop, whatever translations there are (the guest's kernel starts with 64).
    capture.wait_for_count(SHORT, "packets that lost exactly one TTL", 3, |frame| {
        !frame.outgoing && frame.ipv4().is_some_and(|ip| (ip.source, ip.ttl) == (FIXED_EIP, 63))
    })?;
    let foreign = capture.matching(|frame| {
        let to_client = |ip: &Ipv4Addresses| ip.destination == client_of(reach);
        !frame.outgoing && frame.ipv4().filter(to_client).is_some_and(|ip| ip.source != FIXED_EIP)
    })?;
    ensure!(foreign.is_empty(), "the guest was seen as somebody else than its EIP: {foreign:?}");
    // Nobody is behind the other one.
    ensure!(client.ping(EIP, 1)?.received == 0, "an EIP without owner answered");
    Ok(())
}

#[test]
fn an_eip_on_a_fixed_address_serves_a_client_on_link() {
    Lab::run(|lab| fixed_address(&Scene::start(lab, reached(EipReach::OnLink))?, EipReach::OnLink));
}

#[test]
fn an_eip_on_a_fixed_address_serves_a_routed_client() {
    Lab::run(|lab| fixed_address(&Scene::start(lab, reached(EipReach::Routed))?, EipReach::Routed));
}

#[test]
fn guests_reach_each_other_the_gateway_and_the_vip() {
    Lab::run(|lab| {
        let scene = Scene::start(lab, Setting::default())?;
        scene.first.add_vip_address(VIP)?;
        claim(&scene, &scene.first, Announcement::Request)?;
        let body = "p".repeat(LONG_PAGE);
        let pages: Vec<Nginx> =
            scene.guests().into_iter().map(|guest| Nginx::start(guest, &body)).collect::<Result<_>>()?;
        for guest in scene.guests() {
            ensure_pings(guest.netns(), GATEWAY)?;
            for other in scene.guests().into_iter().filter(|other| other.name() != guest.name()) {
                let capture = Capture::start(other.netns(), "eth0")?;
                ensure_pings(guest.netns(), other.address())?;
                ensure_serves(guest.netns(), other.address(), &body)?;
                ensure_echoes(guest.netns(), other.address(), other, other.address())?;
                capture.wait_for(SHORT, "a packet that lost no TTL inside its subnet", |frame| {
                    !frame.outgoing
                        && frame.ipv4().is_some_and(|ip| (ip.source, ip.ttl) == (guest.address(), 64))
                })?;
            }
        }
        for guest in [&scene.second, &scene.third] {
            ensure_pings(guest.netns(), VIP)?;
            ensure_serves(guest.netns(), VIP, &body)?;
            ensure_echoes(guest.netns(), VIP, &scene.first, VIP)?;
        }
        drop(pages);
        let drops = scene.drops()?;
        let dropped: Vec<_> = drops.iter().filter(|(_, count)| **count > 0).collect();
        ensure!(dropped.is_empty(), "honest packets were dropped: {dropped:?}");
        Ok(())
    });
}

/// The entry of a port in `vipctl status`.
fn port_status(scene: &Scene, guest: &Guest) -> Result<Value> {
    let status = scene.status()?;
    let ports = status.get("ports").and_then(Value::as_array).context("the status names no ports")?;
    let is_it = |port: &&Value| port.get("id").and_then(Value::as_str) == Some(guest.name());
    ports
        .iter()
        .find(is_it)
        .cloned()
        .with_context(|| format!("the status does not name {}: {status}", guest.name()))
}

#[test]
fn xdp_serves_a_guest_with_gro_and_tc_one_without_and_status_says_so() {
    Lab::run(|lab| {
        let scene = Scene::start(lab, Setting::default())?;
        if !scene.xdp_features_are_told()? {
            skip("xdp_serves_a_guest_with_gro_and_tc_one_without_and_status_says_so", NEEDS_XDP_FEATURES);
            return Ok(());
        }
        for (guest, path, seen_by_tc) in [(&scene.first, "xdp", false), (&scene.second, "uplink-tc", true)] {
            let port = port_status(&scene, guest)?;
            ensure!(port.get("path").and_then(Value::as_str) == Some(path), "{port}");
            ensure!(port.get("why").and_then(Value::as_str).is_some_and(|why| !why.is_empty()), "{port}");
            guest.add_vip_address(VIP)?;
            claim(&scene, guest, Announcement::Request)?;
            // What XDP sends to a guest, nobody sees on the uplink any more.
            let uplink = Capture::start(scene.host.netns(), "eth0")?;
            ensure_pings(scene.outside.netns(), EIP)?;
            // A request would stand before its reply.
            uplink.wait_for_count(SHORT, "the replies on the uplink", 3, |frame| {
                frame.outgoing && frame.ipv4().is_some_and(|ip| ip.source == EIP)
            })?;
            let seen = uplink
                .count(|frame| !frame.outgoing && frame.ipv4().is_some_and(|ip| ip.destination == EIP))?;
            ensure!((seen > 0) == seen_by_tc, "{}: {seen} packets passed the uplink's stack", guest.name());
        }
        // A guest that turns GRO on and off is followed.
        for (setting, path) in [("on", "xdp"), ("off", "uplink-tc")] {
            scene.second.netns().check(&["ethtool", "-K", "eth0", "gro", setting])?;
            poll_until(SHORT, &format!("the path {path} with GRO {setting}"), || {
                let port = port_status(&scene, &scene.second).ok()?;
                (port.get("path").and_then(Value::as_str) == Some(path)).then_some(())
            })?;
            ensure_pings(scene.outside.netns(), EIP)?;
        }
        Ok(())
    });
}

#[test]
fn a_real_keepalived_pair_fails_over_and_back_and_the_page_stays_behind_the_eip() {
    Lab::run(|lab| {
        let scene = Scene::start(lab, Setting::default())?;
        let members = [(&scene.first, State::Master), (&scene.second, State::Backup)];
        let stranger = Capture::start(scene.third.netns(), "eth0")?;
        let client = Capture::start(scene.outside.netns(), "eth0")?;
        let mut pages = Vec::new();
        let mut daemons = Vec::new();
        for (guest, state) in members {
            let page = Nginx::start(guest, guest.name())?;
            let vip = format!("{VIP}/{PREFIX}").parse()?;
            let config =
                KeepalivedConfig::cloudpods(guest.name(), state, vip).with_check(page.health_script());
            daemons.push(Keepalived::start(guest, &config)?);
            pages.push(page);
        }
        let [on_first, _on_second] = pages.as_slice() else { anyhow::bail!("two guests have two servers") };
        let [first, second] = daemons.as_slice() else { anyhow::bail!("two guests have two daemons") };
        first.wait_for_state(LogMark::default(), State::Master, ELECTION)?;
        second.wait_for_state(LogMark::default(), State::Backup, ELECTION)?;
        let serves = |guest: &Guest| -> Result<u64> {
            let vip = scene.vipd.wait_for_owner(VIP_ID, guest.name(), ELECTION)?;
            let learned = vip.pointer("/owner/learned_from").and_then(Value::as_str);
            ensure!(learned == Some("garp_request"), "{vip}");
            poll_until(SHORT, &format!("the page of {}", guest.name()), || {
                ensure_serves(scene.outside.netns(), EIP, guest.name()).ok()
            })?;
            vip.pointer("/owner/epoch").and_then(Value::as_u64).context("an epoch")
        };
        let before = serves(&scene.first)?;

        let mark = second.log().mark();
        on_first.stop()?;
        second.wait_for_state(mark, State::Master, ELECTION)?;
        let away = serves(&scene.second)?;
        ensure!(away == before + 1, "epoch {before} and then {away}");

        let mark = first.log().mark();
        on_first.begin()?;
        first.wait_for_state(mark, State::Master, ELECTION)?;
        let back = serves(&scene.first)?;
        ensure!(back == away + 1, "epoch {away} and then {back}");
        // It kept the VIP from its election to the failure, and from its return on.
        let elections = first.transitions().into_iter().filter(|(state, _)| *state == State::Master).count();
        ensure!(
            elections == 2,
            "the preferred guest became master {elections} times: {:?}",
            first.transitions()
        );

        // Adverts stayed among the members, and nobody else heard of the claims.
        let is_private = |frame: &Frame| {
            !frame.outgoing && (frame.ipv4().is_some_and(|ip| ip.protocol == VRRP) || frame.announces(VIP))
        };
        // Whatever was sent before these has been seen before them.
        ensure_pings(scene.third.netns(), GATEWAY)?;
        ensure_pings(scene.outside.netns(), EIP)?;
        let is_ping = |frame: &Frame| !frame.outgoing && frame.ipv4().is_some_and(|ip| ip.protocol == ICMP);
        stranger.wait_for(SHORT, "an echo reply", is_ping)?;
        client.wait_for(SHORT, "an echo reply", is_ping)?;
        ensure!(stranger.count(is_private)? == 0, "a stranger heard of the election");
        ensure!(client.count(is_private)? == 0, "the client heard of the election");
        Ok(())
    });
}

/// Bits per second of one TCP stream between the client and a server in a guest; `reverse`: the guest sends.
fn throughput(scene: &Scene, server: &IperfServer, address: Ipv4Addr, reverse: bool) -> Result<f64> {
    let options = IperfOptions { address, port: server.port(), time: Duration::from_secs(2), reverse };
    Ok(scene.outside.netns().iperf(options)?.bits_per_second)
}

/// Fails unless the guest's offloads are as the kernel made them.
fn ensure_default_offloads(guest: &Guest) -> Result<()> {
    let shown = guest.netns().check(&["ethtool", "-k", "eth0"])?;
    for feature in ["tx-checksumming: on", "tcp-segmentation-offload: on", "generic-segmentation-offload: on"]
    {
        ensure!(shown.contains(feature), "{} has not {feature}: {shown}", guest.name());
    }
    Ok(())
}

/// A line of the test's output that is shown also when the test succeeds, below the line that names the test.
fn say(words: &str) -> Result<()> {
    write!(std::io::stdout(), "\n    {words}\n").context("cannot write to the standard output")
}

#[test]
fn tcp_flows_both_ways_through_the_eip_with_the_guests_offloads_at_their_defaults() {
    Lab::run(|lab| {
        let scene = Scene::start(lab, Setting::default())?;
        let body = "p".repeat(LONG_PAGE);
        for guest in [&scene.first, &scene.second] {
            ensure_default_offloads(guest)?;
            guest.add_vip_address(VIP)?;
            claim(&scene, guest, Announcement::Request)?;
            let server = IperfServer::start(guest.netns(), 5201)?;
            let (down, up) =
                (throughput(&scene, &server, EIP, true)?, throughput(&scene, &server, EIP, false)?);
            ensure!(down > 0.0 && up > 0.0, "{down} and {up} bits per second");
            say(&format!(
                "{}: {:.0} Mbit/s to the client, {:.0} from it",
                guest.name(),
                down / 1e6,
                up / 1e6
            ))?;
            server.stop()?;

            // A segment of several frames leaves the host whole.
            let page = Nginx::start(guest, &body)?;
            let uplink = Capture::start(scene.host.netns(), "eth0")?;
            ensure_serves(scene.outside.netns(), EIP, &body)?;
            uplink.wait_for(SHORT, &format!("a whole segment of {}", guest.name()), |frame| {
                frame.outgoing && frame.bytes.len() > LONGEST_PLAIN_FRAME
            })?;
            drop(page);
        }
        // And a guest as the client's client.
        let server = IperfServer::start(scene.outside.netns(), 5202)?;
        for reverse in [false, true] {
            let options = IperfOptions {
                address: EIP_NEIGHBOUR,
                port: server.port(),
                time: Duration::from_secs(1),
                reverse,
            };
            let report = scene.third.netns().iperf(options)?;
            ensure!(report.bits_per_second > 0.0, "{report:?}");
        }
        server.stop()
    });
}
