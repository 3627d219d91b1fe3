//! What the kernel keeps beside a frame's bytes, between hosts: tags.

use anyhow::{Context as _, Result, ensure};
use vip_lab::{
    Cluster, ClusterConfig, Lab, Netns, RawSender,
    cluster::{FIRST, SECOND},
    frame,
};

use crate::stage::{PORT, SOON, ensure_pings, socket, watch};

/// A priority tag: the highest priority but two, no VLAN (IEEE 802.1Q §9.6).
const TAG: [u8; 4] = [0x81, 0, 5 << 5, 0];

/// The frame with a priority tag.
fn tagged(frame: &[u8]) -> Vec<u8> {
    let (macs, rest) = frame.split_at(12);
    [macs, &TAG, rest].concat()
}

/// Counts what an interface gets with that tag.
fn count_tags(netns: &Netns, interface: &str) -> Result<()> {
    for command in [
        "add table netdev tags",
        &format!("add chain netdev tags in {{ type filter hook ingress device {interface} priority 0 ; }}"),
        "add rule netdev tags in vlan pcp 5 counter",
    ] {
        let words: Vec<&str> = ["nft"].into_iter().chain(command.split_whitespace()).collect();
        netns.check(&words)?;
    }
    Ok(())
}

/// How many there were.
fn tags(netns: &Netns) -> Result<u64> {
    let shown = netns.check(&["nft", "list", "table", "netdev", "tags"])?;
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
