//! What guests of different hosts say to each other.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use vip_lab::{
    Cluster, ClusterConfig, Lab, Nginx,
    cluster::{APPLICATION, DATABASE, FIRST, Placed, SECOND, SHADOW, THIRD, WEB},
    underlay::UnderlayConfig,
};

use crate::stage::{
    SOON, each, ensure_carries_tcp, ensure_echoes, ensure_pings, ensure_serves, ensure_silent,
};

const GUESTS: [Placed; 5] = [FIRST, SECOND, THIRD, APPLICATION, DATABASE];

/// Of a VPC with the same addresses and MACs, on the same hosts and crosswise.
const SHADOWS: [Placed; 2] = [
    Placed { name: "shadow-client", host: 1, subnet: SHADOW, ..FIRST },
    Placed { name: "shadow-server", host: 3, subnet: SHADOW, ..SECOND },
];

fn cluster_of(lab: &Lab, takes_xdp_frames: bool, guests: &[Placed]) -> Result<Cluster> {
    let underlay = UnderlayConfig { takes_xdp_frames, ..UnderlayConfig::default() };
    Cluster::start(lab, ClusterConfig { underlay, ..ClusterConfig::usual().of_guests(guests) })
}

/// Every guest reaches every other one by ping and datagrams, whatever the subnets, and back.
fn guests_reach_each_other_in_their_subnet_their_vpc_and_its_peer(cluster: &mut Cluster) -> Result<()> {
    for from in GUESTS {
        for to in GUESTS.iter().filter(|to| to.name != from.name) {
            let (here, there) = (cluster.guest(from.name)?, cluster.guest(to.name)?);
            ensure_pings(here.netns(), there.address()).with_context(|| {
                format!("{} to {}; dropped: {:?}", from.name, to.name, cluster.all_drops())
            })?;
            ensure_echoes(here.netns(), there.address(), there, there.address())
                .with_context(|| format!("{} to {}", from.name, to.name))?;
        }
        // Each host is the gateway of its guests.
        ensure_pings(cluster.guest(from.name)?.netns(), from.subnet.gateway)?;
    }
    let drops = cluster.all_drops()?;
    ensure!(drops.is_empty(), "honest traffic was dropped: {drops:?}");
    Ok(())
}

#[test]
fn guests_of_several_hosts_reach_each_other_and_nobody_else() {
    Lab::run(|lab| {
        let mut guests = GUESTS.to_vec();
        guests.extend(SHADOWS);
        let mut cluster = cluster_of(lab, true, &guests)?;
        // The last one unplugs a guest.
        each!(&mut cluster;
            guests_reach_each_other_in_their_subnet_their_vpc_and_its_peer,
            tcp_runs_both_ways_between_hosts_with_the_guests_own_offloads,
            an_address_that_no_port_has_is_nobodys_on_any_host,
            equal_addresses_of_two_vpcs_are_kept_apart,
        )
    });
}

#[test]
fn guests_reach_each_other_where_the_uplink_takes_no_frames_from_xdp() {
    Lab::run(|lab| {
        let mut cluster = cluster_of(lab, false, &GUESTS)?;
        guests_reach_each_other_in_their_subnet_their_vpc_and_its_peer(&mut cluster)
    });
}

fn tcp_runs_both_ways_between_hosts_with_the_guests_own_offloads(cluster: &mut Cluster) -> Result<()> {
    // In the subnet, to XDP's guest and to TC's; routed; to the peer.
    for (from, to) in [(THIRD, FIRST), (FIRST, SECOND), (FIRST, APPLICATION), (SECOND, DATABASE)] {
        for reverse in [false, true] {
            ensure_carries_tcp(cluster.guest(from.name)?, cluster.guest(to.name)?, to.address, reverse)?;
        }
    }
    Ok(())
}

fn equal_addresses_of_two_vpcs_are_kept_apart(cluster: &mut Cluster) -> Result<()> {
    let guest = |name: &str| cluster.guest(name);
    let _pages = [Nginx::start(guest("second")?, "blue")?, Nginx::start(guest("shadow-server")?, "red")?];
    for _ in 0..3 {
        ensure_serves(guest("first")?.netns(), SECOND.address, "blue")?;
        ensure_serves(guest("shadow-client")?.netns(), SECOND.address, "red")?;
    }
    // The peering is blue's and green's: red has no way there, nor is it found from there.
    ensure_pings(guest("first")?.netns(), DATABASE.address)?;
    let before = cluster.drops(1, "no_route")?;
    ensure_silent(guest("shadow-client")?.netns(), DATABASE.address)?;
    ensure!(cluster.drops(1, "no_route")? > before, "dropped: {:?}", cluster.all_drops()?);
    guest("shadow-server")?.unplug()?;
    ensure_silent(guest("shadow-client")?.netns(), SECOND.address)?;
    ensure_serves(guest("first")?.netns(), SECOND.address, "blue")
}

fn an_address_that_no_port_has_is_nobodys_on_any_host(cluster: &mut Cluster) -> Result<()> {
    let nobody = Ipv4Addr::new(192, 168, 7, 99);
    ensure_silent(cluster.guest("first")?.netns(), nobody)?;
    let capture = crate::stage::watch(cluster, 1)?;
    ensure_silent(cluster.guest("first")?.netns(), nobody)?;
    ensure_pings(cluster.guest("first")?.netns(), SECOND.address)?;
    capture.wait_for_count(SOON, "the echoes of the other guest", 3, |frame| {
        frame.tunnelled().is_some_and(|found| found.vni == WEB.vni)
    })?;
    let astray = crate::stage::tunnelled(&capture)?;
    let about = |found: &vip_lab::vxlan::Tunnelled| {
        found.inner.arp().is_some_and(|arp| arp.target == nobody)
            || found.inner.ipv4().is_some_and(|ip| ip.destination == nobody)
    };
    ensure!(!astray.iter().any(about), "the question was flooded to other hosts: {astray:?}");
    Ok(())
}
