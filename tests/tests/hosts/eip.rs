//! EIPs: in by any host, out by the owner's.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use vip_lab::{
    Cluster, ClusterConfig, EipReach, Lab, Nginx,
    cluster::{FIRST, VIP_ID},
    frame::{ArpOperation, Frame},
    scene::{EIP, FIXED_EIP, VIP},
    underlay::{CLIENT, EIP_GATEWAY, UnderlayConfig, vtep},
};

use crate::stage::{
    ELECTION, SOON, claim, claim_at_once, each, ensure_echoes, ensure_pings, ensure_serves, is_between, take,
    tunnelled, watch,
};

fn start(lab: &Lab, eips: EipReach, takes_xdp_frames: bool) -> Result<Cluster> {
    let underlay = UnderlayConfig { eips, takes_xdp_frames, ..UnderlayConfig::default() };
    Cluster::start(lab, ClusterConfig { underlay, ..ClusterConfig::usual() })
}

fn an_eip_enters_at_any_host_and_leaves_by_the_owners(cluster: &mut Cluster) -> Result<()> {
    let _pages =
        [Nginx::start(cluster.guest("first")?, "first")?, Nginx::start(cluster.guest("second")?, "second")?];
    let client = cluster.client();
    cluster.guest("second")?.add_vip_address(VIP)?;
    for (owner, number) in [("first", 1), ("second", 2)] {
        take(cluster, owner)?;
        for host in 1..=3 {
            cluster.underlay().route_eips(&[host])?;
            let owners = watch(cluster, number)?;
            let entered = watch(cluster, host)?;
            let context = || format!("in by hv{host}, to {owner}; dropped: {:?}", cluster.all_drops());
            ensure_pings(client, EIP).with_context(context)?;
            ensure_serves(client, EIP, owner).with_context(context)?;
            ensure_echoes(client, EIP, cluster.guest(owner)?, VIP).with_context(context)?;
            // The fixed address's EIP takes the same ways.
            ensure_pings(client, FIXED_EIP).with_context(context)?;
            owners.wait_for(SOON, "an answer out by the owner's host", |frame| {
                !frame.outgoing && is_between(frame, EIP, CLIENT)
            })?;
            if host != number {
                let back = entered.count(|frame| !frame.outgoing && is_between(frame, EIP, CLIENT))?;
                ensure!(back == 0, "{back} answers took the way back by hv{host}");
                let inner = tunnelled(&entered)?;
                ensure!(
                    inner.iter().any(|found| found.destination == vtep(number)
                        && found.inner.ipv4().is_some_and(|ip| (ip.source, ip.destination) == (CLIENT, VIP))),
                    "hv{host} has sent nothing on to the owner's host"
                );
            }
        }
    }
    // Flow by flow to all of them.
    cluster.underlay().route_eips(&[1, 2, 3])?;
    for _ in 0..12 {
        ensure_serves(client, EIP, "second")?;
    }
    Ok(())
}

#[test]
fn eips_that_are_routed_to_several_hosts() {
    Lab::run(|lab| {
        let mut cluster = start(lab, EipReach::Routed, true)?;
        each!(&mut cluster;
            an_eip_enters_at_any_host_and_leaves_by_the_owners,
            one_routed_hop_costs_one_ttl_whatever_hosts_are_on_the_way,
        )
    });
}

#[test]
fn eips_that_the_router_asks_for() {
    Lab::run(|lab| {
        let mut cluster = start(lab, EipReach::OnLink, true)?;
        cluster.guest("second")?.add_vip_address(VIP)?;
        each!(&mut cluster;
            only_the_owners_host_answers_for_the_eip_and_says_so_when_it_moves,
            announcements_of_a_moved_eip_come_at_once_and_then_ever_more_seldom,
            guests_reach_the_eip_of_another_hosts_vip_as_their_own_eip,
        )
    });
}

#[test]
fn an_eip_enters_at_any_host_also_where_xdp_cannot_return_frames() {
    Lab::run(|lab| {
        let mut cluster = start(lab, EipReach::Routed, false)?;
        an_eip_enters_at_any_host_and_leaves_by_the_owners(&mut cluster)
    });
}

fn one_routed_hop_costs_one_ttl_whatever_hosts_are_on_the_way(cluster: &mut Cluster) -> Result<()> {
    take(cluster, "first")?;
    cluster.underlay().route_eips(&[3])?;
    let guest = vip_lab::capture::Capture::start(cluster.guest("first")?.netns(), "eth0")?;
    let out = watch(cluster, 1)?;
    ensure_pings(cluster.client(), EIP)?;
    // 64, less the router's, less one.
    guest.wait_for(SOON, "a request that lost one at the router and one here", |frame| {
        frame.ipv4().is_some_and(|ip| (ip.source, ip.destination, ip.ttl) == (CLIENT, VIP, 62))
    })?;
    out.wait_for(SOON, "an answer that lost one", |frame| {
        frame.ipv4().is_some_and(|ip| (ip.source, ip.destination, ip.ttl) == (EIP, CLIENT, 63))
    })?;
    Ok(())
}

/// The sender's MAC of an ARP packet about the EIP.
fn tells(frame: &Frame, operation: ArpOperation) -> bool {
    frame.arp().is_some_and(|arp| arp.sender == EIP && arp.operation == operation)
}

fn only_the_owners_host_answers_for_the_eip_and_says_so_when_it_moves(cluster: &mut Cluster) -> Result<()> {
    take(cluster, "first")?;
    let cables = [1, 2, 3].map(|host| watch(cluster, host)).into_iter().collect::<Result<Vec<_>>>()?;
    let told = |host: usize, wanted: &dyn Fn(&Frame) -> bool| -> Result<usize> {
        let cable = host.checked_sub(1).and_then(|index| cables.get(index)).context("a cable")?;
        cable.count(|frame| !frame.outgoing && wanted(frame))
    };
    for (owner, number) in [("first", 1), ("second", 2), ("first", 1)] {
        claim(cluster.guest(owner)?)?;
        cluster.wait_for_owner(VIP_ID, owner, SOON)?;
        cluster.underlay().flush_neighbours()?;
        cables.iter().for_each(vip_lab::capture::Capture::clear);
        ensure_pings(cluster.client(), EIP)?;
        let asked = |frame: &Frame| tells(frame, ArpOperation::REPLY) && !frame.announces(EIP);
        let of_owner = cables.get(number - 1).context("a cable")?;
        of_owner.wait_for(SOON, "the answer of the owner's host", |frame| !frame.outgoing && asked(frame))?;
        for host in (1..=3).filter(|host| *host != number) {
            let answers = told(host, &asked)?;
            ensure!(answers == 0, "hv{host} has answered {answers} times for the EIP of {owner}");
        }
    }
    Ok(())
}

fn announcements_of_a_moved_eip_come_at_once_and_then_ever_more_seldom(cluster: &mut Cluster) -> Result<()> {
    take(cluster, "second")?;
    ensure_pings(cluster.client(), EIP)?;
    let (old, new) = (watch(cluster, 1)?, watch(cluster, 2)?);
    let is_told = |frame: &Frame| !frame.outgoing && frame.announces(EIP);
    // The old owner's host is about to announce it once more.
    claim_at_once(cluster.guest("first")?)?;
    old.wait_for(SOON, "an announcement by the old owner's host", is_told)?;
    cluster.vipd(2)?.wait_for_owner(VIP_ID, "first", SOON)?;
    let claimed = claim_at_once(cluster.guest("second")?)?;
    cluster.vipd(1)?.wait_for_owner(VIP_ID, "second", SOON)?;
    let known = Instant::now();
    let announced =
        new.wait_for_count(ELECTION, "four announcements", 4, |frame| is_told(frame) && frame.at > claimed)?;
    let at: Vec<_> = announced.iter().map(|frame| frame.at - claimed).collect();
    println!("announced {at:?} after the claim");
    // 0, 50 ms, 200 ms, 1 s.
    let gaps: Vec<_> = at.windows(2).filter_map(|pair| pair.get(1)?.checked_sub(*pair.first()?)).collect();
    ensure!(gaps.first() < gaps.last(), "the announcements come {at:?} after the claim");
    let mac = cluster.host(2)?.uplink_mac()?;
    for frame in &announced {
        let arp = frame.arp().context("an announcement is ARP")?;
        ensure!(arp.sender_mac == mac && frame.source() == Some(mac), "{frame:?}");
    }
    // The router has believed it: what it sends goes straight to the new owner's host.
    let neighbour = cluster.underlay().router().ip(&format!("neighbour show to {EIP}"))?;
    ensure!(neighbour.contains(&mac.to_string()), "the router believes {neighbour}, not {mac}");
    let late = old.matching(|frame| is_told(frame) && frame.at > known)?;
    ensure!(late.is_empty(), "the old owner's host announces it still: {late:?}");
    Ok(())
}

fn guests_reach_the_eip_of_another_hosts_vip_as_their_own_eip(cluster: &mut Cluster) -> Result<()> {
    take(cluster, "first")?;
    // `third` has an EIP of its own: from one to the other, inside.
    let seen = vip_lab::capture::Capture::start(cluster.guest("first")?.netns(), "eth0")?;
    ensure_pings(cluster.guest("third")?.netns(), EIP)?;
    seen.wait_for(SOON, "the request by the EIP", |frame| is_between(frame, FIXED_EIP, VIP))?;
    ensure!(FIRST.host == 1 && EIP_GATEWAY != EIP, "the scene has changed");
    Ok(())
}
