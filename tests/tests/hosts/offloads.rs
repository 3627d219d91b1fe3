//! What the kernel keeps beside a frame's bytes, between hosts: tags, and the marks of frames that are cut late.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};
use serde_json::Value;
use vip_lab::{
    Cluster, ClusterConfig, Lab, Netns, RawSender,
    cluster::{FIRST, SECOND},
    frame,
    scene::VIP,
};

use crate::stage::{PORT, SOON, add_vip, ensure_carries_tcp, ensure_pings, socket, take, take_untold, watch};

/// A priority tag: the highest priority but two, no VLAN (IEEE 802.1Q §9.6).
const TAG: [u8; 4] = [0x81, 0, 5 << 5, 0];

/// The frame with a priority tag.
fn tagged(frame: &[u8]) -> Vec<u8> {
    let (macs, rest) = frame.split_at(12);
    [macs, &TAG, rest].concat()
}

/// Counts what an interface gets with that tag.
fn count_tags(netns: &Netns, interface: &str) -> Result<()> {
    netns.nft("add table netdev tags")?;
    netns.nft(&format!(
        "add chain netdev tags in {{ type filter hook ingress device {interface} priority 0 ; }}"
    ))?;
    netns.nft("add rule netdev tags in vlan pcp 5 counter")?;
    Ok(())
}

/// How many there were.
fn tags(netns: &Netns) -> Result<u64> {
    let shown = netns.nft("list table netdev tags")?;
    let count = shown.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
    count.and_then(|count| count.parse().ok()).with_context(|| format!("no counter in {shown}"))
}

#[test]
fn a_priority_tag_passes_neither_into_a_tunnel_nor_out_of_it() {
    Lab::run(|lab| {
        let cluster = Cluster::start(lab, ClusterConfig::usual().of_guests(&[FIRST, SECOND]))?;
        let (first, second) = (cluster.guest("first")?, cluster.guest("second")?);
        ensure_pings(first.netns(), SECOND.address)?;
        let server = socket(second.netns(), SECOND.address, PORT)?;
        let (segment, cable) = (cluster.underlay().segment(), cluster.cable(1)?);
        count_tags(segment, cable)?;
        count_tags(second.netns(), "eth0")?;
        let capture = watch(&cluster, 1)?;
        let datagram = frame::udp(
            (FIRST.mac(), SECOND.mac()),
            (FIRST.address, 4000),
            (SECOND.address, PORT),
            b"with a tag",
        )?;
        RawSender::new(first.netns(), "eth0")?.send(&tagged(&datagram))?;
        let mut buffer = [0; 64];
        let length = server.recv(&mut buffer).context("the datagram did not arrive")?;
        ensure!(buffer.get(..length) == Some(b"with a tag"), "it arrived changed");
        ensure!(tags(segment)? == 0, "the frame outside has the guest's tag");
        ensure!(tags(second.netns())? == 0, "the other guest has got the tag");

        // A tag of the underlay's own.
        let is_it = |frame: &frame::Frame| {
            frame.tunnelled().and_then(|found| found.inner.udp().map(|(_, port, _)| port)) == Some(PORT)
        };
        let outer = capture.wait_for(SOON, "the frame between the hosts", is_it)?;
        RawSender::new(segment, cluster.cable(2)?)?.send(&tagged(&outer.bytes))?;
        let length = server.recv(&mut buffer).context("the frame with a tag outside did not arrive")?;
        ensure!(buffer.get(..length) == Some(b"with a tag"), "it arrived changed");
        ensure!(tags(second.netns())? == 0, "the tag outside has become the guest's");
        Ok(())
    });
}

/// Bytes of a datagram, and how many of them a guest leaves to be cut from one.
const PART: usize = 1200;
const PARTS: usize = 10;

/// Hosts whose uplinks pass super-segments, as cables between namespaces do where no XDP program is.
fn start(lab: &Lab) -> Result<Cluster> {
    let config = ClusterConfig { vipd: "uplink_path: tc\n".to_owned(), ..ClusterConfig::usual() };
    let cluster = Cluster::start(lab, config)?;
    for host in 1..=3 {
        cuts(cluster.underlay().segment(), cluster.cable(host)?, "on")?;
        cuts(cluster.host(host)?.netns(), "eth0", "on")?;
    }
    add_vip(&cluster, &["first", "second"])?;
    take(&cluster, "first")?;
    Ok(cluster)
}

/// Whether an interface takes what is not cut yet.
fn cuts(netns: &Netns, interface: &str, takes: &str) -> Result<()> {
    let mut words = vec!["ethtool", "-K", interface];
    for offload in ["tx", "tso", "gso", "tx-udp-segmentation", "tx-udp_tnl-segmentation"] {
        words.extend([offload, takes]);
    }
    netns.check(&words)?;
    Ok(())
}

/// Frames and bytes that have come by a host's cable so far.
fn traffic(cluster: &Cluster, host: u8) -> Result<(u64, u64)> {
    let words = format!("-json -statistics link show dev {}", cluster.cable(host)?);
    let shown: Value = serde_json::from_str(&cluster.underlay().segment().ip(&words)?)?;
    let count = |name: &str| {
        let count = shown.pointer(&format!("/0/stats64/rx/{name}")).and_then(Value::as_u64);
        count.with_context(|| format!("no {name} in {shown}"))
    };
    Ok((count("packets")?, count("bytes")?))
}

/// Bytes of a frame on average since then.
fn length_since(cluster: &Cluster, host: u8, (frames, bytes): (u64, u64)) -> Result<u64> {
    let now = traffic(cluster, host)?;
    ((now.1 - bytes).checked_div(now.0 - frames)).context("no frame has come")
}

/// TCP of a guest to an address that another one has.
fn tcp(cluster: &Cluster, from: &str, to: &str, address: Ipv4Addr) -> Result<()> {
    ensure_carries_tcp(cluster.guest(from)?, cluster.guest(to)?, address, false)
}

/// Datagrams that a guest leaves to be cut from one, to an address that another one has; how many arrive.
fn datagrams(cluster: &Cluster, from: &str, to: &str, address: Ipv4Addr) -> Result<usize> {
    let server = socket(cluster.guest(to)?.netns(), address, PORT)?;
    let client = socket(cluster.guest(from)?.netns(), Ipv4Addr::UNSPECIFIED, 0)?;
    setsockopt(&client, UdpGsoSegment, &i32::try_from(PART)?)?;
    client.send_to(&[7; PART * PARTS], (address, PORT))?;
    // The last word, which nobody cuts, comes behind them.
    setsockopt(&client, UdpGsoSegment, &0)?;
    client.send_to(b"last", (address, PORT))?;
    let mut buffer = [0; 2 * PART];
    let mut arrived = 0;
    loop {
        let length = server.recv(&mut buffer).context("the last word did not arrive")?;
        if buffer.get(..length) == Some(b"last") {
            return Ok(arrived);
        }
        ensure!(buffer.get(..length) == Some(&[7; PART]), "{length} bytes arrived");
        arrived += 1;
    }
}

#[test]
fn super_segments_of_tcp_are_right_wherever_they_are_cut() {
    Lab::run(|lab| {
        let cluster = start(lab)?;
        let whole = u64::from(cluster.underlay().config().mtu) + 14;
        let before = traffic(&cluster, 1)?;
        tcp(&cluster, "first", "second", SECOND.address)?;
        ensure!(length_since(&cluster, 1, before)? > whole, "no super-segment has passed between the hosts");
        // The guest's interface takes none, so they are cut there, where the tunnel is off.
        cuts(cluster.host(2)?.netns(), cluster.guest("second")?.interface(), "off")?;
        tcp(&cluster, "first", "second", SECOND.address)?;
        // Once more through a tunnel: the third host is not told.
        take_untold(&cluster)?;
        let before = traffic(&cluster, 1)?;
        tcp(&cluster, "third", "second", VIP)?;
        ensure!(length_since(&cluster, 1, before)? > whole, "no super-segment was sent on");
        // Cut by the uplink of the host that sends it on.
        cuts(cluster.host(1)?.netns(), "eth0", "off")?;
        let before = traffic(&cluster, 1)?;
        tcp(&cluster, "third", "second", VIP)?;
        ensure!(length_since(&cluster, 1, before)? <= whole, "the uplink cuts nothing");
        let drops = cluster.all_drops()?;
        ensure!(!drops.contains_key("edit_failed"), "{drops:?}");
        Ok(())
    });
}

#[test]
fn super_segments_of_udp_are_right_in_a_tunnel_and_refused_by_name_outside() {
    Lab::run(|lab| {
        let cluster = start(lab)?;
        ensure!(datagrams(&cluster, "first", "second", SECOND.address)? == 0, "the kernel has learned it");
        ensure!(cluster.drops(2, "edit_failed")? == 1, "{:?}", cluster.all_drops()?);
        // Sent on, they stay in the tunnel, and are right where they are cut with it.
        take_untold(&cluster)?;
        let capture = watch(&cluster, 3)?;
        cuts(cluster.host(1)?.netns(), "eth0", "off")?;
        let arrived = datagrams(&cluster, "third", "second", VIP)?;
        ensure!(arrived == PARTS, "{arrived} of {PARTS} arrived: {:?}", cluster.all_drops()?);
        capture.wait_for(SOON, "the frame that the guest's own host has not cut", |frame| {
            frame.bytes.len() > PART * PARTS
        })?;
        ensure!(cluster.drops(2, "edit_failed")? == 1, "{:?}", cluster.all_drops()?);
        Ok(())
    });
}
