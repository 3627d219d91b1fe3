//! Packets that are too long for the underlay once they are inside VXLAN.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use vip_lab::{
    Cluster, ClusterConfig, EipReach, Lab, Netns,
    cluster::{APP, FIRST, Placed, SECOND, THIRD},
    poll_until,
    scene::EIP,
    underlay::{ROOMY, UnderlayConfig},
};

use crate::stage::{SOON, each, take};

/// MTU of an underlay that leaves less than guests' interfaces take.
const NARROW: u32 = 1500;

/// What is left of it.
const LEFT: u32 = 1450;

/// ICMP and IPv4 headers of an echo.
const HEADERS: u32 = 28;

const APPLICATION: Placed = Placed {
    name: "application",
    host: 2,
    subnet: APP,
    address: Ipv4Addr::new(192, 168, 8, 5),
    gro: false,
    checked: true,
};

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
fn told(from: &Netns, to: Ipv4Addr, teller: Ipv4Addr) -> Result<()> {
    let (came_back, said) = echo(from, to, 1500, "do")?;
    ensure!(!came_back, "1500 bytes and VXLAN passed 1500: {said}");
    ensure!(said.contains(&format!("From {teller}")), "somebody else than {teller} told it: {said}");
    poll_until(SOON, &format!("the path's MTU in {}", from.label()), || {
        from.ip(&format!("route get {to}")).ok()?.contains(&format!("mtu {LEFT} ")).then_some(())
    })
    .context(said)?;
    let (came_back, said) = echo(from, to, LEFT, "do")?;
    ensure!(came_back, "{LEFT} bytes do not fit: {said}");
    let (came_back, said) = echo(from, to, 4000, "dont")?;
    ensure!(came_back, "what may be cut does not arrive: {said}");
    Ok(())
}

fn guests_are_told_what_fits_into_vxlan_and_the_rest_is_cut(cluster: &mut Cluster) -> Result<()> {
    let first = cluster.guest("first")?.netns();
    // From one subnet to another it is the gateway that tells.
    told(first, APPLICATION.address, FIRST.subnet.gateway)?;
    // Inside the subnet there is none on the way, but a packet that vanishes would be worse.
    told(first, SECOND.address, FIRST.subnet.gateway)
}

fn clients_are_told_by_the_eip_what_fits_on_the_way_to_the_owners_host(cluster: &mut Cluster) -> Result<()> {
    take(cluster, "first")?;
    // It enters at the third host, and goes on to the first.
    cluster.underlay().route_eips(&[3])?;
    told(cluster.client(), EIP, EIP)
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

#[test]
fn what_is_too_long_for_vxlan_is_told_or_cut_where_a_roomy_underlay_becomes_narrow() {
    Lab::run(|lab| {
        let mut cluster = start(lab, ROOMY, true)?;
        each!(&mut cluster;
            a_roomy_underlay_takes_all_that_guests_send,
            vipd_follows_the_uplinks_mtu,
            guests_are_told_what_fits_into_vxlan_and_the_rest_is_cut,
            clients_are_told_by_the_eip_what_fits_on_the_way_to_the_owners_host,
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
