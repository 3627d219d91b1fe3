//! Two members on two hosts that both want the VIP.

use std::{
    net::SocketAddrV4,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::Value;
use vip_lab::{
    Cluster, ClusterConfig, Lab,
    cluster::VIP_ID,
    keepalived::{Keepalived, State},
    poll_until,
    scene::{EIP, VIP},
};

use crate::{
    masters::{claims_once, deafen, wait_for_conflict},
    stage::{
        ELECTION, OTHER_PORT, SOON, Stream, add_vip, claim_at_once, ensure_all_at, epoch, finish_whole,
        owner_field, stream, stream_to, wait_for_more,
    },
};

/// More claims than the damping lets through at once, on either host.
const CLAIMS: usize = 24;

/// Longer than vipd needs to tell another host of a claim, and far shorter than a claim waits.
const BETWEEN: Duration = Duration::from_millis(50);

/// Longer than a claim waits that the damping holds back.
const CALM: Duration = Duration::from_secs(3);

/// Streams to both members, from inside and from outside.
fn streams(cluster: &Cluster) -> Result<[Stream; 2]> {
    let members = ["first", "second"];
    Ok([
        stream(cluster, cluster.guest("third")?.netns(), VIP, &members)?,
        stream_to(cluster, cluster.client(), SocketAddrV4::new(EIP, OTHER_PORT), &members)?,
    ])
}

/// What is sent from now on goes to one owner, and nothing moves any more.
fn ensure_settled(cluster: &Cluster, streams: [Stream; 2], owner: &str) -> Result<()> {
    let (known, vip) = (Instant::now(), cluster.vipd(1)?.vip(VIP_ID)?);
    for stream in &streams {
        wait_for_more(stream, cluster.guest(owner)?, 2000)?;
    }
    for stream in streams {
        stream.stop_sending();
        ensure_all_at(&stream.finish()?, cluster.guest(owner)?, known)?;
    }
    for vipd in cluster.vipds() {
        ensure!(epoch(&vipd.vip(VIP_ID)?)? == epoch(&vip)?, "the VIP moved once more");
    }
    Ok(())
}

#[test]
fn the_last_of_two_claimants_wins_on_every_host_and_nothing_alternates_afterwards() {
    Lab::run(|lab| {
        let cluster = Cluster::start(lab, ClusterConfig::usual())?;
        add_vip(&cluster, &["first", "second"])?;
        let running = streams(&cluster)?;
        for name in ["first", "second", "first", "second", "first", "second"] {
            claim_at_once(cluster.guest(name)?)?;
            cluster.wait_for_owner(VIP_ID, name, SOON)?;
        }
        ensure_settled(&cluster, running, "second")
    });
}

/// Waits before the last claim of a storm that began at `start`, so that a busy machine has the longest time to tell of the one before it, and
/// then of the last one: claims that wait take effect at full seconds after the first claim.
fn wait_for_the_middle_of_a_second(start: Instant) {
    let into = start.elapsed().as_secs_f64().fract();
    let middle = if into < 0.5 { 0.5 + into / 2.0 } else { 1.5 };
    sleep(Duration::from_secs_f64(middle - into));
}

#[test]
fn a_storm_of_claims_from_two_hosts_ends_with_the_last_claimant_on_all() {
    Lab::run(|lab| {
        let cluster = Cluster::start(lab, ClusterConfig::usual())?;
        add_vip(&cluster, &["first", "second"])?;
        let running = streams(&cluster)?;
        let start = Instant::now();
        for name in ["first", "second"].iter().cycle().take(CLAIMS - 1) {
            claim_at_once(cluster.guest(name)?)?;
            // Claims of two hosts have an order if the first one is known before the second one is made.
            sleep(BETWEEN);
        }
        wait_for_the_middle_of_a_second(start);
        claim_at_once(cluster.guest("second")?)?;
        // What the damping holds back takes effect a second later, by the packets of the streams.
        let mut last = (Instant::now(), Vec::new());
        poll_until(ELECTION, "the owner to stay for three seconds", || {
            let shown: Vec<Value> =
                cluster.vipds().iter().map(|vipd| vipd.vip(VIP_ID).ok()).collect::<Option<_>>()?;
            let now: Vec<Option<Value>> =
                shown.iter().map(|vip| vip.pointer("/owner/epoch").cloned()).collect();
            if now != last.1 {
                last = (Instant::now(), now);
            }
            (last.0.elapsed() > CALM).then_some(())
        })?;
        let vip = cluster.wait_for_owner(VIP_ID, "second", SOON)?;
        ensure!(epoch(&vip)? <= CLAIMS as u64, "there were more moves than claims: {vip}");
        ensure_settled(&cluster, running, "second")
    });
}

#[test]
fn of_two_masters_on_two_hosts_the_one_of_higher_priority_is_assigned_once() {
    Lab::run(|lab| {
        let cluster = Cluster::start(lab, ClusterConfig::usual())?;
        let (first, second) = (cluster.guest("first")?, cluster.guest("second")?);
        deafen(first.netns())?;
        deafen(second.netns())?;
        // A second set of claims, which keepalived sends after five seconds, would decide by itself.
        let _master = Keepalived::start_with(first, &claims_once("first", State::Master)?)?;
        cluster.wait_for_owner(VIP_ID, "first", ELECTION)?;
        let mut usurper = Keepalived::start_with(second, &claims_once("second", State::Backup)?)?;
        cluster.vipd(2)?.wait_for_owner(VIP_ID, "second", ELECTION)?;
        // Both advertise: after three intervals that is a conflict, and the higher priority gets the VIP.
        let vip = cluster.wait_for_owner(VIP_ID, "first", ELECTION)?;
        ensure!(owner_field(&vip, "learned_from") == Some("vrrp"), "{vip}");
        // The hosts of the members hear both.
        wait_for_conflict(&cluster, true)?;
        let stream = stream(&cluster, cluster.client(), EIP, &["first", "second"])?;
        let known = Instant::now();
        wait_for_more(&stream, first, 2000)?;
        ensure_all_at(&finish_whole(stream)?, first, known)?;
        ensure!(epoch(&cluster.vipd(1)?.vip(VIP_ID)?)? == epoch(&vip)?, "it was assigned twice");
        // It ends when one of them is silent.
        usurper.kill9()?;
        wait_for_conflict(&cluster, false)
    });
}
