//! Connections at the moment of a move: they end by a reset or go on, and never hang.

use std::{
    io::{Read as _, Write as _},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use vip_lab::{
    Cluster, ClusterConfig, Lab,
    cluster::VIP_ID,
    scene::{EIP, VIP},
};

use crate::stage::{Connection, SOON, claim, each, ensure_serves, take};

#[test]
fn connections_end_by_a_reset_or_go_on_when_the_vip_moves() {
    Lab::run(|lab| {
        let mut cluster = Cluster::start(lab, ClusterConfig::usual())?;
        cluster.guest("second")?.add_vip_address(VIP)?;
        // The last one leaves a guest that hears nothing of the service.
        each!(&mut cluster;
            an_established_connection_is_reset_by_the_new_owner_and_a_new_one_is_served,
            a_connection_goes_on_when_the_vip_comes_back_before_anybody_noticed,
            a_connection_that_the_new_owner_has_taken_over_goes_on
        )
    });
}

fn an_established_connection_is_reset_by_the_new_owner_and_a_new_one_is_served(
    cluster: &mut Cluster,
) -> Result<()> {
    take(cluster, "first")?;
    let _page = vip_lab::Nginx::start(cluster.guest("second")?, "second")?;
    let mut connections = [
        Connection::open(cluster, cluster.client(), EIP, "first")?,
        Connection::open(cluster, cluster.guest("third")?.netns(), VIP, "first")?,
    ];
    connections.iter_mut().try_for_each(Connection::ensure_alive)?;
    claim(cluster.guest("second")?)?;
    cluster.wait_for_owner(VIP_ID, "second", SOON)?;
    for connection in &mut connections {
        connection.ensure_reset()?;
    }
    ensure_serves(cluster.client(), EIP, "second")?;
    ensure_serves(cluster.guest("third")?.netns(), VIP, "second")
}

fn a_connection_goes_on_when_the_vip_comes_back_before_anybody_noticed(cluster: &mut Cluster) -> Result<()> {
    take(cluster, "first")?;
    let mut connections = [
        Connection::open(cluster, cluster.client(), EIP, "first")?,
        Connection::open(cluster, cluster.guest("third")?.netns(), VIP, "first")?,
    ];
    connections.iter_mut().try_for_each(Connection::ensure_alive)?;
    for name in ["second", "first"] {
        claim(cluster.guest(name)?)?;
        cluster.wait_for_owner(VIP_ID, name, SOON)?;
    }
    connections.iter_mut().try_for_each(Connection::ensure_alive)
}

fn a_connection_that_the_new_owner_has_taken_over_goes_on(cluster: &mut Cluster) -> Result<()> {
    take(cluster, "first")?;
    // What is sent while the VIP is with the other member is lost there without a word, as where both share their state: TCP
    // repeats it, and the connection goes on.
    let second = cluster.guest("second")?.netns();
    for command in [
        "add table ip lab",
        "add chain ip lab in { type filter hook input priority 0 ; }",
        "add rule ip lab in tcp dport 7000 counter drop",
    ] {
        let words: Vec<&str> = ["nft"].into_iter().chain(command.split_whitespace()).collect();
        second.check(&words)?;
    }
    let mut connection = Connection::open(cluster, cluster.client(), EIP, "first")?;
    connection.ensure_alive()?;
    claim(cluster.guest("second")?)?;
    cluster.wait_for_owner(VIP_ID, "second", SOON)?;
    connection.client.write_all(b"hello")?;
    let mut word = [0; 5];
    connection.server.set_read_timeout(Some(Duration::from_millis(500)))?;
    let early = connection.server.read_exact(&mut word);
    ensure!(early.is_err(), "the old owner still got it");
    connection.server.set_read_timeout(Some(SOON))?;
    claim(cluster.guest("first")?)?;
    cluster.wait_for_owner(VIP_ID, "first", SOON)?;
    connection.server.read_exact(&mut word).context("the word was never repeated")?;
    ensure!(&word == b"hello", "{word:?} arrived");
    connection.ensure_alive()
}
