//! Connections at the moment of a move: they end by a reset or go on, and never hang.

use anyhow::Result;
use vip_lab::{
    Cluster, ClusterConfig, Lab,
    cluster::VIP_ID,
    scene::{EIP, VIP},
};

use crate::{
    connection::{Connection, SERVICE},
    stage::{SOON, claim, each, ensure_serves, take},
};

#[test]
fn connections_end_by_a_reset_or_go_on_when_the_vip_moves() {
    Lab::run(|lab| {
        let mut cluster = Cluster::start(lab, ClusterConfig::usual())?;
        cluster.guest("second")?.add_vip_address(VIP)?;
        // The last one leaves a guest that hears nothing of the service.
        each!(&mut cluster;
            an_established_connection_is_reset_by_the_new_owner_and_a_new_one_is_served,
            a_connection_goes_on_when_the_vip_comes_back_before_anybody_noticed,
            a_connection_goes_on_by_tcps_repeats_when_the_vip_comes_back_from_an_owner_that_said_nothing
        )
    });
}

fn an_established_connection_is_reset_by_the_new_owner_and_a_new_one_is_served(
    cluster: &mut Cluster,
) -> Result<()> {
    take(cluster, "first")?;
    let _page = vip_lab::Nginx::start(cluster.guest("second")?, "second")?;
    let mut connections = [
        Connection::open(cluster, cluster.client(), EIP, &["first"])?,
        Connection::open(cluster, cluster.guest("third")?.netns(), VIP, &["first"])?,
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
        Connection::open(cluster, cluster.client(), EIP, &["first"])?,
        Connection::open(cluster, cluster.guest("third")?.netns(), VIP, &["first"])?,
    ];
    connections.iter_mut().try_for_each(Connection::ensure_alive)?;
    for name in ["second", "first"] {
        claim(cluster.guest(name)?)?;
        cluster.wait_for_owner(VIP_ID, name, SOON)?;
    }
    connections.iter_mut().try_for_each(Connection::ensure_alive)
}

fn a_connection_goes_on_by_tcps_repeats_when_the_vip_comes_back_from_an_owner_that_said_nothing(
    cluster: &mut Cluster,
) -> Result<()> {
    take(cluster, "first")?;
    // What is sent while the VIP is with the other member is lost there without a word.
    let second = cluster.guest("second")?.netns();
    second.nft("add table ip lab")?;
    second.nft("add chain ip lab in { type filter hook input priority 0 ; }")?;
    second.nft(&format!("add rule ip lab in tcp dport {SERVICE} drop"))?;
    let mut connection = Connection::open(cluster, cluster.client(), EIP, &["first"])?;
    connection.ensure_alive()?;
    claim(cluster.guest("second")?)?;
    cluster.wait_for_owner(VIP_ID, "second", SOON)?;
    connection.say()?;
    connection.ensure_unheard()?;
    claim(cluster.guest("first")?)?;
    cluster.wait_for_owner(VIP_ID, "first", SOON)?;
    connection.ensure_heard()?;
    connection.ensure_alive()
}
