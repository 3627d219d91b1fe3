//! Packets that are too long for the underlay once they are inside VXLAN.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vip_lab::{
    Cluster, ClusterConfig, EipReach, Lab, Netns,
    cluster::{APPLICATION, FIRST, SECOND, THIRD},
    poll_until,
    scene::EIP,
    underlay::{ROOMY, UnderlayConfig, vtep},
};

use crate::stage::{SOON, each, take};

/// MTU of an underlay that leaves less than guests' interfaces take.
const NARROW: u32 = 1500;

/// What is left of it.
const LEFT: u32 = 1450;

/// ICMP and IPv4 headers of an echo.
const HEADERS: u32 = 28;

fn start(lab: &Lab, mtu: u32, takes_xdp_frames: bool) -> Result<Cluster> {
    let underlay = UnderlayConfig { mtu, takes_xdp_frames, eips: EipReach::Routed };
    let cluster =
        Cluster::start(lab, ClusterConfig { underlay, ..ClusterConfig::usual().with(APPLICATION) })?;
    for guest in cluster.config().guests.iter().map(|guest| guest.name) {
        cluster.guest(guest)?.netns().sysctl("net/ipv4/icmp_ratelimit", "0")?;
    }
    Ok(cluster)
}

/// Echoes with packets of so many bytes; whether all came back, and what ping says.
fn echo(from: &Netns, to: Ipv4Addr, packet: u32, discovery: &str) -> Result<(bool, String)> {
    let (to, bytes) = (to.to_string(), (packet - HEADERS).to_string());
    let report =
        from.run(&["ping", "-c", "2", "-i", "0.2", "-W", "2", "-M", discovery, "-s", &bytes, &to])?;
    let whole = report.stdout.contains("2 packets transmitted, 2 received");
    Ok((whole, report.to_string()))
}

/// One that is too long is told what fits; that fits; and what may be cut arrives.
fn told(from: &Netns, to: Ipv4Addr, teller: Ipv4Addr, left: u32) -> Result<()> {
    let (came_back, said) = echo(from, to, 1500, "do")?;
    ensure!(!came_back, "1500 bytes and VXLAN passed 1500: {said}");
    ensure!(said.contains(&format!("From {teller}")), "somebody else than {teller} told it: {said}");
    poll_until(SOON, &format!("the path's MTU in {}", from.label()), || {
        from.ip(&format!("route get {to}")).ok()?.contains(&format!("mtu {left} ")).then_some(())
    })
    .context(said)?;
    let (came_back, said) = echo(from, to, left, "do")?;
    ensure!(came_back, "{left} bytes do not fit: {said}");
    let (came_back, said) = echo(from, to, 4000, "dont")?;
    ensure!(came_back, "what may be cut does not arrive: {said}");
    Ok(())
}

fn guests_are_told_what_fits_into_vxlan_and_the_rest_is_cut(cluster: &mut Cluster) -> Result<()> {
    let first = cluster.guest("first")?.netns();
    // From one subnet to another it is the gateway that tells.
    told(first, APPLICATION.address, FIRST.subnet.gateway, LEFT)?;
    // Inside the subnet there is none on the way, but a packet that vanishes would be worse.
    told(first, SECOND.address, FIRST.subnet.gateway, LEFT)
}

fn clients_are_told_by_the_eip_what_fits_on_the_way_to_the_owners_host(cluster: &mut Cluster) -> Result<()> {
    take(cluster, "first")?;
    // It enters at the third host, and goes on to the first.
    cluster.underlay().route_eips(&[3])?;
    told(cluster.client(), EIP, EIP, LEFT)
}

fn a_roomy_underlay_takes_all_that_guests_send(cluster: &mut Cluster) -> Result<()> {
    let first = cluster.guest("first")?.netns();
    for to in [SECOND.address, THIRD.address, APPLICATION.address] {
        let (came_back, said) = echo(first, to, 1500, "do")?;
        ensure!(came_back, "1500 bytes do not fit into 1550: {said}");
    }
    Ok(())
}

fn vipd_follows_the_uplinks_mtu(cluster: &mut Cluster) -> Result<()> {
    cluster.set_underlay_mtu(NARROW)?;
    // To somebody else than those of what follows: the guest remembers it.
    let first = cluster.guest("first")?.netns();
    poll_until(SOON, "the guest to be told of a smaller MTU", || {
        let (came_back, _) = echo(first, THIRD.address, 1500, "do").ok()?;
        let route = first.ip(&format!("route get {}", THIRD.address)).ok()?;
        (!came_back && route.contains(&format!("mtu {LEFT} "))).then_some(())
    })
}

fn a_route_of_its_own_mtu_narrows_the_way_to_one_host(cluster: &mut Cluster) -> Result<()> {
    /// MTU of the route, and what VXLAN leaves of it.
    const ROUTE: (u32, u32) = (1400, 1350);
    let shown = |host: &str, mtu: u32| {
        poll_until(SOON, &format!("vipd to show {mtu} for {host}"), || {
            let shown = cluster.vipd(3).ok()?.vipctl(&["get", "hosts", host, "-o", "json"]).ok()?;
            (shown.get("mtu").and_then(Value::as_u64) == Some(mtu.into())).then_some(())
        })
    };
    let (host, third) = (cluster.host(3)?.netns(), cluster.guest("third")?.netns());
    host.ip(&format!("route add {}/32 dev eth0 mtu {}", vtep(2), ROUTE.0))?;
    shown("hv2", ROUTE.1)?;
    told(third, SECOND.address, SECOND.subnet.gateway, ROUTE.1)?;
    // The other hosts' ways are what they were, also the one back.
    shown("hv1", LEFT)?;
    let (came_back, said) = echo(third, FIRST.address, LEFT, "do")?;
    ensure!(came_back, "{LEFT} bytes do not fit any more: {said}");
    host.ip(&format!("route del {}/32", vtep(2)))?;
    shown("hv2", LEFT)
}

#[test]
fn what_is_too_long_for_vxlan_is_told_or_cut_where_a_roomy_underlay_becomes_narrow() {
    Lab::run(|lab| {
        let mut cluster = start(lab, ROOMY, true)?;
        each!(&mut cluster;
            a_roomy_underlay_takes_all_that_guests_send,
            vipd_follows_the_uplinks_mtu,
            guests_are_told_what_fits_into_vxlan_and_the_rest_is_cut,
            clients_are_told_by_the_eip_what_fits_on_the_way_to_the_owners_host,
            a_route_of_its_own_mtu_narrows_the_way_to_one_host,
        )
    });
}

#[test]
fn clients_are_told_what_fits_also_where_xdp_cannot_return_frames() {
    Lab::run(|lab| {
        let mut cluster = start(lab, NARROW, false)?;
        clients_are_told_by_the_eip_what_fits_on_the_way_to_the_owners_host(&mut cluster)
    });
}
