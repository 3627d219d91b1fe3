//! Agents that are killed, and return.

use std::net::SocketAddrV4;

use anyhow::{Context as _, Result, ensure};
use vip_lab::{
    Cluster, ClusterConfig, Lab,
    cluster::{Placed, VIP_ID, WEB},
    frame::Frame,
    scene::{EIP, VIP},
    underlay::CLIENT,
};

use crate::{
    connection::Connection,
    stage::{
        OTHER_PORT, SOON, add_vip, begin_with_fresh_tables, claim, claim_at_once, each, ensure_pings, epoch,
        finish_whole, is_between, owner_field, restart, stream, stream_to, take, wait_for_more,
        wait_for_ping, watch,
    },
};

/// Datagrams that an owner gets before the next thing happens.
const BETWEEN: usize = 500;

/// `fourth` is a member on the first member's host.
fn start(lab: &Lab) -> Result<Cluster> {
    let mut config = ClusterConfig::usual().with(Placed::new("fourth", 1, WEB, [192, 168, 7, 250]));
    config.objects = config.objects.replace("[first, second]", "[first, second, fourth]");
    let cluster = Cluster::start(lab, config)?;
    add_vip(&cluster, &MEMBERS)?;
    Ok(cluster)
}

const MEMBERS: [&str; 3] = ["first", "second", "fourth"];

#[test]
fn agents_that_are_killed_lose_nothing_and_catch_up() {
    Lab::run(|lab| {
        let mut cluster = start(lab)?;
        each!(&mut cluster;
            connections_from_outside_go_on_while_every_vipd_is_killed_and_returns,
            killing_one_vipd_after_the_other_loses_nothing_and_moves_go_on,
            a_move_to_another_host_while_its_vipd_is_dead_is_told_when_it_returns,
            a_vipd_that_was_away_during_a_move_hears_of_it_when_it_returns,
            a_host_with_fresh_tables_asks_its_peers_who_owns_what,
            a_claim_on_a_host_with_fresh_tables_beats_what_its_peers_remember
        )
    });
}

/// Protocol number of TCP.
const TCP: u8 = 6;

/// Words that pass by a connection before the next thing happens.
const WORDS: usize = 100;

fn connections_from_outside_go_on_while_every_vipd_is_killed_and_returns(
    cluster: &mut Cluster,
) -> Result<()> {
    take(cluster, "first")?;
    let cable = watch(cluster, 1)?;
    let mut connection = Connection::open(cluster, cluster.client(), EIP, &["first"])?;
    let mut goes_on = |after: &str| -> Result<()> {
        cable.clear();
        for _ in 0..WORDS {
            connection.ensure_alive().with_context(|| after.to_owned())?;
        }
        let echoes = |frame: &Frame| {
            let is_tcp = frame.ipv4().is_some_and(|ip| ip.protocol == TCP);
            !frame.outgoing && is_tcp && is_between(frame, EIP, CLIENT)
        };
        cable
            .wait_for_count(SOON, "the echoes as the EIP's", WORDS, echoes)
            .with_context(|| after.to_owned())?;
        Ok(())
    };
    goes_on("all vipds run")?;
    for host in [3, 2, 1] {
        cluster.vipd_mut(host)?.kill9()?;
        goes_on(&format!("the vipd of hv{host} was killed"))?;
    }
    // The router asks again who has the EIP.
    cluster.underlay().flush_neighbours()?;
    goes_on("every vipd is dead")?;
    for host in [1, 2, 3] {
        restart(cluster, host)?;
        goes_on(&format!("the vipd of hv{host} is back"))?;
    }
    Ok(())
}

fn killing_one_vipd_after_the_other_loses_nothing_and_moves_go_on(cluster: &mut Cluster) -> Result<()> {
    take(cluster, "first")?;
    let inside = stream(cluster, cluster.guest("third")?.netns(), VIP, &MEMBERS)?;
    let outside = stream_to(cluster, cluster.client(), SocketAddrV4::new(EIP, OTHER_PORT), &MEMBERS)?;
    let more = |cluster: &Cluster, name: &str| -> Result<()> {
        let guest = cluster.guest(name)?;
        wait_for_more(&inside, guest, BETWEEN)?;
        wait_for_more(&outside, guest, BETWEEN)
    };
    more(cluster, "first")?;
    for host in [3, 2, 1] {
        cluster.vipd_mut(host)?.kill9()?;
        more(cluster, "first").with_context(|| format!("the vipd of hv{host} was killed"))?;
    }
    // All are dead: the VIP moves on its own host, on the claim's packet.
    claim_at_once(cluster.guest("fourth")?)?;
    more(cluster, "fourth").context("a move on the same host while every vipd is dead")?;
    for host in [2, 3, 1] {
        restart(cluster, host)?;
        more(cluster, "fourth").with_context(|| format!("the vipd of hv{host} is back"))?;
    }
    cluster.wait_for_owner(VIP_ID, "fourth", SOON)?;
    // And from host to host again.
    claim_at_once(cluster.guest("second")?)?;
    cluster.wait_for_owner(VIP_ID, "second", SOON)?;
    more(cluster, "second")?;
    finish_whole(inside)?;
    finish_whole(outside)?;
    Ok(())
}

fn a_move_to_another_host_while_its_vipd_is_dead_is_told_when_it_returns(
    cluster: &mut Cluster,
) -> Result<()> {
    take(cluster, "first")?;
    let before = epoch(&cluster.vipd(1)?.vip(VIP_ID)?)?;
    cluster.vipd_mut(2)?.kill9()?;
    claim(cluster.guest("second")?)?;
    // On its host it is the owner at once; the others cannot know.
    let beside = cluster.guest("third")?;
    ensure_pings(beside.netns(), VIP)?;
    ensure!(cluster.vipd(1)?.owner(VIP_ID)?.as_deref() == Some("first"), "hv1 was told by a dead vipd");
    restart(cluster, 2)?;
    let vip = cluster.wait_for_owner(VIP_ID, "second", SOON)?;
    ensure!(epoch(&vip)? == before + 1, "{vip}");
    let stream = stream(cluster, cluster.guest("third")?.netns(), VIP, &MEMBERS)?;
    wait_for_more(&stream, cluster.guest("second")?, BETWEEN)?;
    finish_whole(stream)?;
    Ok(())
}

fn a_vipd_that_was_away_during_a_move_hears_of_it_when_it_returns(cluster: &mut Cluster) -> Result<()> {
    take(cluster, "first")?;
    cluster.vipd_mut(3)?.kill9()?;
    claim(cluster.guest("second")?)?;
    for host in [1, 2] {
        cluster.vipd(host)?.wait_for_owner(VIP_ID, "second", SOON)?;
    }
    // Its programs still send to the old owner's host, which sends on.
    wait_for_ping(cluster.guest("third")?.netns(), VIP)?;
    let stream = stream(cluster, cluster.guest("third")?.netns(), VIP, &MEMBERS)?;
    wait_for_more(&stream, cluster.guest("second")?, BETWEEN)?;
    restart(cluster, 3)?;
    let vip = cluster.vipd(3)?.wait_for_owner(VIP_ID, "second", SOON)?;
    ensure!(owner_field(&vip, "learned_from") == Some("peer"), "{vip}");
    finish_whole(stream)?;
    Ok(())
}

fn a_host_with_fresh_tables_asks_its_peers_who_owns_what(cluster: &mut Cluster) -> Result<()> {
    take(cluster, "first")?;
    let before = cluster.vipd(1)?.vip(VIP_ID)?;
    for host in [3, 1, 2] {
        begin_with_fresh_tables(cluster, host)?;
        let vip = cluster.vipd(host)?.wait_for_owner(VIP_ID, "first", SOON)?;
        ensure!(epoch(&vip)? == epoch(&before)?, "hv{host}: {before} and then {vip}");
    }
    ensure_pings(cluster.guest("third")?.netns(), VIP)?;
    ensure_pings(cluster.client(), EIP)
}

fn a_claim_on_a_host_with_fresh_tables_beats_what_its_peers_remember(cluster: &mut Cluster) -> Result<()> {
    take(cluster, "first")?;
    // Several moves, so that an epoch of 1 would lose.
    for name in ["second", "first"] {
        claim(cluster.guest(name)?)?;
        cluster.wait_for_owner(VIP_ID, name, SOON)?;
    }
    let before = epoch(&cluster.vipd(1)?.vip(VIP_ID)?)?;
    begin_with_fresh_tables(cluster, 2)?;
    // Before or after the peers have answered: it is the last claim.
    claim(cluster.guest("second")?)?;
    let vip = cluster.wait_for_owner(VIP_ID, "second", SOON)?;
    ensure!(epoch(&vip)? > before, "{vip}");
    wait_for_ping(cluster.guest("third")?.netns(), VIP)
}
