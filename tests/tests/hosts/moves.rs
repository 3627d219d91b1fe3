//! A VIP moves from host to host under streams of datagrams.

use std::time::Instant;

use anyhow::{Result, ensure};
use vip_lab::{
    Cluster, ClusterConfig, EipReach, Lab,
    cluster::VIP_ID,
    keepalived::{Keepalived, KeepalivedConfig, State},
    poll_until,
    scene::{EIP, PREFIX, VIP},
    underlay::{UnderlayConfig, vtep},
    vxlan::Tunnelled,
};

use crate::stage::{
    ELECTION, PORT, SOON, claim_at_once, each, ensure_all_at, epoch, finish_whole, owner_field, stream, take,
    take_untold, tunnelled, wait_for_more, watch,
};

/// All within the damping's budget of eight, the first claim included.
const MOVES: [&str; 6] = ["second", "first", "second", "first", "second", "first"];

/// Datagrams that an owner gets before the next one claims.
const BETWEEN: usize = 500;

/// The mark of a frame that a previous owner's host sends on.
const MARKED: std::ops::RangeInclusive<u16> = 16_384..=32_767;

/// The usual cluster, with the VIP at `first` and on both members' interfaces.
fn start(lab: &Lab, eips: EipReach) -> Result<Cluster> {
    let underlay = UnderlayConfig { eips, ..UnderlayConfig::default() };
    let cluster = Cluster::start(lab, ClusterConfig { underlay, ..ClusterConfig::usual() })?;
    cluster.guest("second")?.add_vip_address(VIP)?;
    take(&cluster, "first")?;
    Ok(cluster)
}

fn moves_lose_nothing(lab: &Lab, eips: EipReach) -> Result<()> {
    let cluster = start(lab, eips)?;
    if eips == EipReach::Routed {
        // Neither the old nor the new owner's host.
        cluster.underlay().route_eips(&[3])?;
    }
    let members = ["first", "second"];
    let mut number = epoch(&cluster.vipd(3)?.vip(VIP_ID)?)?;
    for name in MOVES {
        let guest = cluster.guest(name)?;
        let inside = stream(&cluster, cluster.guest("third")?.netns(), VIP, &members)?;
        wait_for_more(&inside, cluster.guest(if name == "first" { "second" } else { "first" })?, BETWEEN)?;
        claim_at_once(guest)?;
        let vip = cluster.wait_for_owner(VIP_ID, name, SOON)?;
        let known = Instant::now();
        wait_for_more(&inside, guest, BETWEEN)?;
        ensure_all_at(&finish_whole(inside)?, guest, known)?;
        number += 1;
        ensure!(epoch(&vip)? == number, "not epoch {number}: {vip}");
        for (host, vipd) in (1..).zip(cluster.vipds()) {
            let shown = vipd.vip(VIP_ID)?;
            let expected =
                if host == (if name == "first" { 1 } else { 2 }) { "garp_request" } else { "peer" };
            ensure!(owner_field(&shown, "learned_from") == Some(expected), "hv{host}: {shown}");
            ensure!(epoch(&shown)? == number, "hv{host}: {shown}");
        }
        // The same from outside, one move back and one again, would use up the damping's budget: the moves are shared.
        let outside = stream(&cluster, cluster.client(), EIP, &members)?;
        wait_for_more(&outside, guest, BETWEEN)?;
        ensure_all_at(&finish_whole(outside)?, guest, known)?;
    }
    Ok(())
}

#[test]
fn nothing_is_lost_once_every_host_knows_the_new_owner_by_arp() {
    Lab::run(|lab| moves_lose_nothing(lab, EipReach::OnLink));
}

#[test]
fn nothing_is_lost_once_every_host_knows_the_new_owner_by_routes() {
    Lab::run(|lab| moves_lose_nothing(lab, EipReach::Routed));
}

#[test]
fn moves_are_followed_by_all_hosts_and_by_those_that_were_not_told() {
    Lab::run(|lab| {
        let mut cluster = start(lab, EipReach::OnLink)?;
        // Together within the damping's budget, too.
        each!(&mut cluster;
            from_outside_nothing_is_lost_while_the_owner_moves_either,
            a_host_that_was_not_told_still_reaches_the_new_owner_by_the_old_one_s_host
        )
    });
}

fn from_outside_nothing_is_lost_while_the_owner_moves_either(cluster: &mut Cluster) -> Result<()> {
    let outside = stream(cluster, cluster.client(), EIP, &["first", "second"])?;
    wait_for_more(&outside, cluster.guest("first")?, BETWEEN)?;
    let mut known = Instant::now();
    for name in MOVES {
        claim_at_once(cluster.guest(name)?)?;
        cluster.wait_for_owner(VIP_ID, name, SOON)?;
        known = Instant::now();
        wait_for_more(&outside, cluster.guest(name)?, BETWEEN)?;
    }
    ensure_all_at(&finish_whole(outside)?, cluster.guest("first")?, known)
}

/// Datagrams to the VIP among what was seen.
fn to_vip(found: &Tunnelled) -> bool {
    found.inner.udp().is_some_and(|(_, port, _)| port == PORT)
}

fn a_host_that_was_not_told_still_reaches_the_new_owner_by_the_old_one_s_host(
    cluster: &mut Cluster,
) -> Result<()> {
    let inside = stream(cluster, cluster.guest("third")?.netns(), VIP, &["first", "second"])?;
    wait_for_more(&inside, cluster.guest("first")?, BETWEEN)?;
    take_untold(cluster)?;
    let known = Instant::now();
    let old = watch(cluster, 1)?;
    wait_for_more(&inside, cluster.guest("second")?, BETWEEN)?;
    ensure!(cluster.vipd(3)?.owner(VIP_ID)?.as_deref() == Some("first"), "hv3 was told after all");
    let sent_on: Vec<_> = tunnelled(&old)?.into_iter().filter(to_vip).collect();
    ensure!(!sent_on.is_empty(), "the old owner's host has sent nothing on");
    for found in &sent_on {
        ensure!((found.source, found.destination) == (vtep(1), vtep(2)), "sent on wrongly: {found:?}");
        ensure!(MARKED.contains(&found.source_port), "sent on without a mark: {found:?}");
    }
    drop(old);

    cluster.underlay().heal()?;
    cluster.vipd(3)?.wait_for_owner(VIP_ID, "second", SOON)?;
    let direct = watch(cluster, 3)?;
    let detour = watch(cluster, 1)?;
    wait_for_more(&inside, cluster.guest("second")?, BETWEEN)?;
    let sent: Vec<_> = tunnelled(&direct)?.into_iter().filter(to_vip).collect();
    ensure!(!sent.is_empty(), "the third host has sent nothing");
    ensure!(sent.iter().all(|found| found.destination == vtep(2)), "a detour: {:?}", sent.first());
    ensure!(!tunnelled(&detour)?.iter().any(to_vip), "the old owner's host still sends on");
    ensure_all_at(&finish_whole(inside)?, cluster.guest("second")?, known)
}

#[test]
fn real_keepalived_on_two_hosts_hands_the_vip_over_and_takes_it_back() {
    Lab::run(|lab| {
        let cluster = Cluster::start(lab, ClusterConfig::usual())?;
        let vip = ipnetwork::Ipv4Network::new(VIP, PREFIX)?;
        let config = |name: &str, state: State| KeepalivedConfig::cloudpods(name, state, vip);
        let (first, second) = (cluster.guest("first")?, cluster.guest("second")?);
        let mut master = Keepalived::start(first, &config("first", State::Master))?;
        let backup = Keepalived::start(second, &config("second", State::Backup))?;
        cluster.wait_for_owner(VIP_ID, "first", ELECTION)?;
        // Adverts cross hosts, or both would be masters.
        poll_until(ELECTION, "the backup to settle", || (backup.state()?.0 == State::Backup).then_some(()))?;
        master.kill9()?;
        cluster.wait_for_owner(VIP_ID, "second", ELECTION)?;
        // A crashed guest keeps the address; nobody is led there.
        let known = Instant::now();
        for (from, to) in [(cluster.guest("third")?.netns(), VIP), (cluster.client(), EIP)] {
            let stream = stream(&cluster, from, to, &["first", "second"])?;
            wait_for_more(&stream, second, BETWEEN)?;
            ensure_all_at(&finish_whole(stream)?, second, known)?;
        }
        let mark = backup.log().mark();
        first.remove_vip_address(VIP)?;
        let _master = Keepalived::start(first, &config("first", State::Master))?;
        backup.wait_for_state(mark, State::Backup, ELECTION)?;
        cluster.wait_for_owner(VIP_ID, "first", ELECTION)?;
        let drops = cluster.all_drops()?;
        ensure!(
            !drops.keys().any(|reason| reason.starts_with("vrrp") || reason.starts_with("claim")),
            "keepalived's frames were dropped: {drops:?}"
        );
        Ok(())
    });
}
