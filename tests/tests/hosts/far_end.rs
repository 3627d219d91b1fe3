//! A host of the state that runs no vipd, but the kernel's own vxlan device.

use anyhow::{Context as _, Result};
use vip_lab::{
    Cluster, ClusterConfig, Lab,
    cluster::{APPLICATION, DATABASE, Placed, THIRD, WEB},
    far_end::{self, Finding},
    scene::VIP,
};

use crate::stage::{SOON, claim, ensure_carries_tcp, ensure_echoes, ensure_pings, take, wait_for_ping};

/// On a host that runs vipd.
const NEAR_DATABASE: Placed = Placed { host: 1, ..DATABASE };

/// `third` is on the far host.
fn start(lab: &Lab, finding: Finding) -> Result<Cluster> {
    let usual = ClusterConfig::usual().with(APPLICATION).with(NEAR_DATABASE);
    let config = ClusterConfig { hosts: 2, far_host: true, ..usual };
    let cluster = Cluster::start(lab, config)?;
    far_end::serve(&cluster, THIRD.host, WEB, finding)?;
    Ok(cluster)
}

fn flush(cluster: &Cluster, names: &[&str]) -> Result<()> {
    for name in names {
        cluster.guest(name)?.netns().ip("neighbour flush all")?;
    }
    Ok(())
}

fn both_ways(lab: &Lab, finding: Finding) -> Result<()> {
    let cluster = start(lab, finding)?;
    take(&cluster, "first")?;
    let far = cluster.guest("third")?;
    for name in ["first", "second"] {
        let near = cluster.guest(name)?;
        // Whoever begins asks by ARP.
        flush(&cluster, &["first", "second", "third"])?;
        ensure_pings(far.netns(), near.address()).with_context(|| format!("far to {name}"))?;
        flush(&cluster, &["first", "second", "third"])?;
        ensure_pings(near.netns(), far.address()).with_context(|| format!("{name} to far"))?;
        ensure_echoes(far.netns(), near.address(), near, near.address())?;
        ensure_echoes(near.netns(), far.address(), far, far.address())?;
    }
    flush(&cluster, &["first", "second", "third"])?;
    ensure_pings(far.netns(), VIP)?;
    ensure_echoes(far.netns(), VIP, cluster.guest("first")?, VIP)?;

    for (from, to) in [("third", "first"), ("first", "third"), ("third", "second")] {
        let (from, to) = (cluster.guest(from)?, cluster.guest(to)?);
        ensure_carries_tcp(from, to, to.address(), false)?;
    }
    Ok(())
}

#[test]
fn a_learning_far_end_talks_with_guests_and_vip() {
    Lab::run(|lab| both_ways(lab, Finding::Learning));
}

#[test]
fn a_static_far_end_talks_with_guests_and_vip() {
    Lab::run(|lab| both_ways(lab, Finding::Static));
}

#[test]
fn a_far_end_keeps_reaching_a_vip_that_moves_whatever_it_remembers() {
    Lab::run(|lab| {
        let cluster = start(lab, Finding::Learning)?;
        take(&cluster, "first")?;
        let far = cluster.guest("third")?;
        ensure_pings(far.netns(), VIP)?;
        cluster.guest("second")?.add_vip_address(VIP)?;
        for name in ["second", "first", "second"] {
            claim(cluster.guest(name)?)?;
            cluster.wait_for_owner(vip_lab::cluster::VIP_ID, name, SOON)?;
            // Its bridge still believes the old host until something comes from the new one.
            wait_for_ping(far.netns(), VIP)?;
            ensure_echoes(far.netns(), VIP, cluster.guest(name)?, VIP)?;
        }
        Ok(())
    });
}

fn are_routed(lab: &Lab, finding: Finding) -> Result<()> {
    let cluster = start(lab, finding)?;
    let far = cluster.guest("third")?;
    ensure_pings(far.netns(), WEB.gateway).context("the gateway itself")?;
    // One is behind the host that the far bridge takes the gateway for, and the other behind another.
    for placed in [APPLICATION, NEAR_DATABASE] {
        let near = cluster.guest(placed.name)?;
        flush(&cluster, &["third", placed.name])?;
        ensure_pings(far.netns(), near.address()).with_context(|| format!("far to {}", placed.name))?;
        flush(&cluster, &["third", placed.name])?;
        ensure_pings(near.netns(), far.address()).with_context(|| format!("{} to far", placed.name))?;
        ensure_echoes(far.netns(), near.address(), near, near.address())?;
        ensure_echoes(near.netns(), far.address(), far, far.address())?;
        for (from, to) in [(far, near), (near, far)] {
            ensure_carries_tcp(from, to, to.address(), false)?;
        }
    }
    Ok(())
}

#[test]
fn guests_of_a_learning_far_end_are_routed_by_the_gateway_of_the_other_hosts() {
    Lab::run(|lab| are_routed(lab, Finding::Learning));
}

#[test]
fn guests_of_a_static_far_end_are_routed_by_the_gateway_of_the_other_hosts() {
    Lab::run(|lab| are_routed(lab, Finding::Static));
}
