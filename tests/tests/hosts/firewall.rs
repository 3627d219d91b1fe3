//! Members with a stateful firewall of their own, which knows nothing of connections that began elsewhere.

use anyhow::{Context as _, Result, ensure};
use vip_lab::{
    Cluster, ClusterConfig, Lab, Netns, Nginx,
    cluster::VIP_ID,
    poll_until,
    scene::{EIP, VIP},
    skip,
};

use crate::{
    connection::{Connection, watch_service},
    stage::{SOON, claim, each, ensure_serves, take},
};

/// Drops what belongs to no connection.
const RULE: &str = "add rule ip lab in ct state invalid counter drop";

/// Whether this kernel follows connections in namespaces and nftables asks it.
fn has_conntrack(lab: &Lab) -> Result<bool> {
    let asked = lab.add_netns("asked")?;
    begin_firewall(&asked)?;
    let words: Vec<&str> = ["nft"].into_iter().chain(RULE.split(' ')).collect();
    let added = asked.run(&words)?;
    let lacks = added.stderr.contains("No such file or directory") || added.stderr.contains("not supported");
    ensure!(
        added.status.success() != lacks,
        "nft says neither that there is connection tracking nor that there is none: {added}"
    );
    Ok(!lacks)
}

fn begin_firewall(netns: &Netns) -> Result<()> {
    netns.nft("add table ip lab")?;
    netns.nft("add chain ip lab in { type filter hook input priority 0 ; }")?;
    Ok(())
}

/// How many packets the firewall has dropped.
fn refused(netns: &Netns) -> Result<u64> {
    let shown = netns.nft("list chain ip lab in")?;
    let count = shown.split("counter packets ").nth(1).and_then(|rest| rest.split(' ').next());
    count.and_then(|count| count.parse().ok()).with_context(|| format!("no counter in {shown}"))
}

/// Connections to the first member, from outside and from inside.
fn connections(cluster: &Cluster) -> Result<[Connection; 2]> {
    let third = cluster.guest("third")?.netns();
    let mut both = [
        Connection::open(cluster, cluster.client(), EIP, &["first"])?,
        Connection::open(cluster, third, VIP, &["first"])?,
    ];
    both.iter_mut().try_for_each(Connection::ensure_alive)?;
    Ok(both)
}

/// The second member serves new connections, the first ones after the move.
fn ensure_new_ones_are_served(cluster: &Cluster) -> Result<()> {
    for (from, to) in [(cluster.client(), EIP), (cluster.guest("third")?.netns(), VIP)] {
        ensure_serves(from, to, "second")?;
        Connection::open(cluster, from, to, &["second"])?.ensure_alive()?;
    }
    Ok(())
}

#[test]
fn connections_reach_a_new_owner_with_a_stateful_firewall_whatever_that_makes_of_them() {
    Lab::run(|lab| {
        if !has_conntrack(lab)? {
            let test = "connections_reach_a_new_owner_with_a_stateful_firewall_whatever_that_makes_of_them";
            skip(test, "needs a kernel with connection tracking for nftables (CONFIG_NFT_CT)");
            return Ok(());
        }
        let mut cluster = Cluster::start(lab, ClusterConfig::usual())?;
        ["first", "second"].iter().try_for_each(|name| {
            let guest = cluster.guest(name)?;
            guest.add_vip_address(VIP)?;
            begin_firewall(guest.netns())?;
            guest.netns().nft(RULE).map(drop)
        })?;
        let _page = Nginx::start(cluster.guest("second")?, "second")?;
        each!(&mut cluster;
            one_that_picks_connections_up_in_the_middle_lets_the_guest_reset_them,
            one_that_does_not_gets_all_that_it_drops
        )
    });
}

/// The kernel's default: a packet in the middle of a connection begins one for the firewall.
fn one_that_picks_connections_up_in_the_middle_lets_the_guest_reset_them(
    cluster: &mut Cluster,
) -> Result<()> {
    take(cluster, "first")?;
    let second = cluster.guest("second")?;
    second.netns().sysctl("net/netfilter/nf_conntrack_tcp_loose", "1")?;
    let mut old = connections(cluster)?;
    claim(second)?;
    cluster.wait_for_owner(VIP_ID, "second", SOON)?;
    ensure_new_ones_are_served(cluster)?;
    old.iter_mut().try_for_each(Connection::ensure_reset)
}

fn one_that_does_not_gets_all_that_it_drops(cluster: &mut Cluster) -> Result<()> {
    take(cluster, "first")?;
    let second = cluster.guest("second")?;
    second.netns().sysctl("net/netfilter/nf_conntrack_tcp_loose", "0")?;
    let mut old = connections(cluster)?;
    claim(second)?;
    cluster.wait_for_owner(VIP_ID, "second", SOON)?;
    ensure_new_ones_are_served(cluster)?;
    for connection in &mut old {
        let (came, before) = (watch_service(second)?, refused(second.netns())?);
        connection.say()?;
        // The word, and TCP's repeats of it: nothing of our own stands between.
        came.wait_for_count(SOON, "the word and two repeats", 3, |_| true)?;
        poll_until(SOON, "the firewall to count them", || {
            (refused(second.netns()).ok()? >= before + 3).then_some(())
        })?;
        connection.ensure_unheard()?;
    }
    // And as nobody told the clients, all goes on where the connections are known.
    claim(cluster.guest("first")?)?;
    cluster.wait_for_owner(VIP_ID, "first", SOON)?;
    old.iter_mut().try_for_each(Connection::ensure_heard)
}
