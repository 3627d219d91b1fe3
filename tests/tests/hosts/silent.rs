//! Owners that left without a word, and the members on other hosts that use the VIP then.

use anyhow::{Result, ensure};
use vip_lab::{
    Cluster, ClusterConfig, Guest, Lab,
    capture::Capture,
    cluster::{PEERS_PORT, VIP_ID, WEB},
    frame::{Arp, ArpOperation, Frame},
    poll_until,
    scene::VIP,
};

use crate::stage::{SOON, ensure_echoes, epoch, owner_field, take, watch};

/// A question for the VIP, as a guest hears it.
fn asks_for_the_vip(frame: &Frame) -> bool {
    let asks = |arp: Arp| arp.operation == ArpOperation::REQUEST && arp.target == VIP;
    !frame.outgoing && frame.arp().is_some_and(asks)
}

/// What the owner's host tells the other one: the eighth kind of datagram, behind magic and version.
fn says_silent(frame: &Frame) -> bool {
    frame.udp().is_some_and(|(_, port, payload)| port == PEERS_PORT && payload.get(5) == Some(&8))
}

/// Sends to the gateway from the VIP, a second long at least.
fn use_vip(guest: &Guest) -> Result<()> {
    guest.netns().ping_from(VIP, WEB.gateway, 2).map(drop)
}

#[test]
fn a_member_takes_the_vip_from_a_silent_owner_on_another_host() {
    Lab::run(|lab| {
        let cluster = Cluster::start(lab, ClusterConfig::usual())?;
        let before = take(&cluster, "first")?;
        let (first, second) = (cluster.guest("first")?, cluster.guest("second")?);
        first.remove_vip_address(VIP)?;
        second.add_vip_address(VIP)?;
        let owner = Capture::start(first.netns(), "eth0")?;
        let cable = watch(&cluster, 1)?;
        poll_until(SOON, "second to get the VIP by using it", || {
            use_vip(second).ok()?;
            (cluster.vipd(2).ok()?.owner(VIP_ID).ok()?.as_deref() == Some("second")).then_some(())
        })?;
        let after = cluster.wait_for_owner(VIP_ID, "second", SOON)?;
        ensure!(epoch(&after)? == epoch(&before)? + 1, "{before} and then {after}");
        let there = cluster.vipd(2)?.vip(VIP_ID)?;
        ensure!(owner_field(&there, "learned_from") == Some("silent_owner"), "{there}");
        // Whoever uses the VIP behind the verdict, before it has moved, has the owner asked again.
        let verdict = cable.wait_for(SOON, "the verdict", |frame| !frame.outgoing && says_silent(frame))?;
        let asked = owner.count(|frame| asks_for_the_vip(frame) && frame.at < verdict.at)?;
        ensure!(asked == 3, "the owner was asked {asked} times");
        ensure_echoes(cluster.guest("third")?.netns(), VIP, second, VIP)
    });
}

#[test]
fn an_owner_that_answers_keeps_the_vip_whoever_uses_it_elsewhere() {
    Lab::run(|lab| {
        let cluster = Cluster::start(lab, ClusterConfig::usual())?;
        let before = take(&cluster, "first")?;
        let (first, second) = (cluster.guest("first")?, cluster.guest("second")?);
        second.add_vip_address(VIP)?;
        let owner = Capture::start(first.netns(), "eth0")?;
        // More than the three questions would take, and the verdict.
        for _ in 0..4 {
            use_vip(second)?;
        }
        owner.wait_for_count(SOON, "a question", 1, asks_for_the_vip)?;
        let after = cluster.wait_for_owner(VIP_ID, "first", SOON)?;
        ensure!(epoch(&after)? == epoch(&before)?, "{before} and then {after}");
        ensure_echoes(cluster.guest("third")?.netns(), VIP, first, VIP)
    });
}
