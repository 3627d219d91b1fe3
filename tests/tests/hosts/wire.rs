//! What hosts put on the underlay, as a third party reads it.

use std::{collections::BTreeSet, net::Ipv4Addr};

use anyhow::{Context as _, Result, ensure};
use vip_lab::{
    Cluster, ClusterConfig, Lab, Mac,
    cluster::{APP, APPLICATION, DATABASE, DB, Placed, SECOND, Subnet, THIRD, WEB},
    frame::Frame,
    offload,
    scene::{VIP, constant_mac},
    underlay::vtep,
    vxlan::Tunnelled,
};

use crate::stage::{PORT, SOON, each, ensure_echoes, socket, take, tunnelled, watch};

#[test]
fn what_travels_between_hosts_is_vxlan_as_any_other_vtep_reads_it() {
    Lab::run(|lab| {
        let config = ClusterConfig::usual().with(APPLICATION).with(Placed { host: 2, ..DATABASE });
        let mut cluster = Cluster::start(lab, config)?;
        take(&cluster, "first")?;
        each!(&mut cluster;
            outer_headers_are_those_of_rfc_7348_and_inner_ones_those_of_a_router,
            a_flow_keeps_its_source_port_and_flows_have_several,
        )
    });
}

/// Receiver, its address and subnet, inner source and destination MAC, TTL of a packet that began with 64.
type Case = (&'static str, Ipv4Addr, Subnet, (Mac, Mac), u8);

/// The first datagram to an address among what a host has sent.
fn datagram_to(sent: &[Tunnelled], to: Ipv4Addr) -> Result<&Tunnelled> {
    let to_it = |found: &&Tunnelled| {
        found.inner.ipv4().is_some_and(|ip| ip.destination == to)
            && found.inner.udp().is_some_and(|(_, port, _)| port == PORT)
    };
    sent.iter().find(to_it).with_context(|| format!("no datagram to {to} among {} frames", sent.len()))
}

fn outer_headers_are_those_of_rfc_7348_and_inner_ones_those_of_a_router(cluster: &mut Cluster) -> Result<()> {
    let third = cluster.guest("third")?;
    let first = watch(cluster, 3)?;
    // In the subnet, to a VIP, to another subnet, to a peer.
    let gateway = |subnet: Subnet| constant_mac(subnet.gateway);
    let cases: [Case; 4] = [
        ("second", SECOND.address, WEB, (THIRD.mac(), SECOND.mac()), 64),
        ("first", VIP, WEB, (THIRD.mac(), constant_mac(VIP)), 64),
        ("application", APPLICATION.address, APP, (gateway(APP), APPLICATION.mac()), 63),
        ("database", DATABASE.address, DB, (gateway(DB), DATABASE.mac()), 63),
    ];
    for (name, address, subnet, (source, destination), ttl) in cases {
        ensure_echoes(third.netns(), address, cluster.guest(name)?, address)?;
        first.wait_for(SOON, "the datagram", |frame| {
            frame
                .tunnelled()
                .is_some_and(|found| found.inner.ipv4().is_some_and(|ip| ip.destination == address))
        })?;
        let sent = tunnelled(&first)?;
        let found = datagram_to(&sent, address)?;
        let host = if name == "first" { 1 } else { 2 };
        ensure!((found.source, found.destination) == (vtep(3), vtep(host)), "{found:?}");
        ensure!(found.vni == subnet.vni, "VNI {} instead of {}'s", found.vni, subnet.vpc);
        ensure!(found.source_port >= 49_152, "a fresh frame from port {}", found.source_port);
        ensure!(
            (found.inner.source(), found.inner.destination()) == (Some(source), Some(destination)),
            "to {name}: {found:?}"
        );
        let packet = offload::checked(&found.inner.bytes)?;
        ensure!(packet.ttl == ttl, "TTL {} to {name}", packet.ttl);
        ensure!(packet.has_checksum && packet.payload == b"question", "{packet:?}");
    }
    // A question and an answer in each case.
    let is_tunnelled = |frame: &Frame| frame.tunnelled().is_some();
    first.wait_for_count(SOON, "all of them", 2 * cases.len(), is_tunnelled)?;
    first.matching(is_tunnelled)?.iter().try_for_each(Frame::check_outer)
}

fn a_flow_keeps_its_source_port_and_flows_have_several(cluster: &mut Cluster) -> Result<()> {
    let (first, second) = (cluster.guest("first")?, cluster.guest("second")?);
    let capture = watch(cluster, 1)?;
    let flows: Vec<_> =
        (0..16).map(|_| socket(first.netns(), Ipv4Addr::UNSPECIFIED, 0)).collect::<Result<_>>()?;
    for _ in 0..3 {
        for flow in &flows {
            flow.send_to(b"hello", (second.address(), PORT))?;
        }
    }
    let is_datagram = |found: &Tunnelled| found.inner.udp().is_some_and(|(_, port, _)| port == PORT);
    capture.wait_for_count(SOON, "three datagrams of each flow", 48, |frame| {
        frame.tunnelled().as_ref().is_some_and(is_datagram)
    })?;
    let found: BTreeSet<(u16, u16)> = tunnelled(&capture)?
        .iter()
        .filter_map(|found| Some((found.inner.udp()?.0, found.source_port)))
        .collect();
    ensure!(found.len() == flows.len(), "a flow has several outer ports: {found:?}");
    let ports: BTreeSet<u16> = found.iter().map(|(_, outer)| *outer).collect();
    ensure!(ports.len() > 1, "all flows have the same outer port: {found:?}");
    Ok(())
}
