//! Two members on two hosts that both want the VIP.

use std::{net::SocketAddrV4, time::Instant};

use anyhow::{Result, ensure};
use serde_json::Value;
use vip_lab::{
    Cluster, ClusterConfig, Lab, Netns,
    cluster::VIP_ID,
    keepalived::{Keepalived, KeepalivedConfig, State},
    poll_until,
    scene::{EIP, PREFIX, VIP},
};

use crate::stage::{
    ELECTION, OTHER_PORT, SOON, claim_at_once, ensure_all_at, epoch, finish_whole, owner_field, stream,
    stream_to, wait_for_more,
};

/// More claims than the damping lets through at once.
const CLAIMS: usize = 20;

#[test]
fn the_last_claim_wins_on_every_host_and_nothing_alternates_afterwards() {
    Lab::run(|lab| {
        let cluster = Cluster::start(lab, ClusterConfig::usual())?;
        ["first", "second"].iter().try_for_each(|name| cluster.guest(name)?.add_vip_address(VIP))?;
        let running = [
            stream(&cluster, cluster.guest("third")?.netns(), VIP, &["first", "second"])?,
            stream_to(&cluster, cluster.client(), SocketAddrV4::new(EIP, OTHER_PORT), &["first", "second"])?,
        ];
        for name in ["first", "second"].iter().cycle().take(CLAIMS) {
            claim_at_once(cluster.guest(name)?)?;
            // Claims of two hosts have an order if the first one is known before the second one is made.
            let host = if *name == "first" { 1 } else { 2 };
            poll_until(SOON, "the claim to be taken or damped", || {
                let shown = cluster.vipd(host).ok()?.vip(VIP_ID).ok()?;
                shown.get("state").and_then(Value::as_str).map(drop)
            })?;
        }
        let vip = cluster.wait_for_owner(VIP_ID, "second", ELECTION)?;
        let known = Instant::now();
        for stream in &running {
            wait_for_more(stream, cluster.guest("second")?, 1000)?;
        }
        for stream in running {
            stream.stop_sending();
            ensure_all_at(&stream.finish()?, cluster.guest("second")?, known)?;
        }
        ensure!(epoch(&vip)? <= CLAIMS as u64, "there were more moves than claims: {vip}");
        for vipd in cluster.vipds() {
            ensure!(epoch(&vipd.vip(VIP_ID)?)? == epoch(&vip)?, "the VIP moved once more");
        }
        Ok(())
    });
}

/// Keeps VRRP adverts from a guest, which then takes itself for the only one.
fn deafen(guest: &Netns) -> Result<()> {
    for command in [
        "add table ip lab",
        "add chain ip lab in { type filter hook input priority 0 ; }",
        "add rule ip lab in ip protocol 112 drop",
    ] {
        let words: Vec<&str> = ["nft"].into_iter().chain(command.split_whitespace()).collect();
        guest.check(&words)?;
    }
    Ok(())
}

#[test]
fn of_two_masters_on_two_hosts_the_one_of_higher_priority_is_assigned_once() {
    Lab::run(|lab| {
        let cluster = Cluster::start(lab, ClusterConfig::usual())?;
        let vip = ipnetwork::Ipv4Network::new(VIP, PREFIX)?;
        let (first, second) = (cluster.guest("first")?, cluster.guest("second")?);
        deafen(first.netns())?;
        deafen(second.netns())?;
        // A second set of claims, which keepalived sends after five seconds, would decide by itself.
        let config = |name: &str, state: State| -> Result<String> {
            let text = KeepalivedConfig::cloudpods(name, state, vip).render()?;
            Ok(text.replacen("global_defs {", "global_defs {\n    vrrp_garp_master_delay 0", 1))
        };
        let _master = Keepalived::start_with(first, &config("first", State::Master)?)?;
        cluster.wait_for_owner(VIP_ID, "first", ELECTION)?;
        let mut usurper = Keepalived::start_with(second, &config("second", State::Backup)?)?;
        cluster.vipd(2)?.wait_for_owner(VIP_ID, "second", ELECTION)?;
        // Both advertise: after three intervals that is a conflict, and the higher priority gets the VIP.
        let vip = cluster.wait_for_owner(VIP_ID, "first", ELECTION)?;
        ensure!(owner_field(&vip, "learned_from") == Some("vrrp"), "{vip}");
        // The hosts of the members hear both.
        for host in [1, 2] {
            let state = cluster.vipd(host)?.vip(VIP_ID)?.get("state").cloned();
            ensure!(state.as_ref().and_then(Value::as_str) == Some("conflict"), "the state is {state:?}");
        }
        let stream = stream(&cluster, cluster.client(), EIP, &["first", "second"])?;
        let known = Instant::now();
        wait_for_more(&stream, first, 2000)?;
        ensure_all_at(&finish_whole(stream)?, first, known)?;
        ensure!(epoch(&cluster.vipd(1)?.vip(VIP_ID)?)? == epoch(&vip)?, "it was assigned twice");
        // It ends when one of them is silent.
        usurper.kill9()?;
        poll_until(ELECTION, "the conflict to end", || {
            let shown = cluster.vipd(1).ok()?.vip(VIP_ID).ok()?;
            (shown.get("state").and_then(Value::as_str) == Some("owned")).then_some(())
        })
    });
}
