//! Hosts that do not hear each other, and hear each other again.

use std::{net::Ipv4Addr, ops::Range};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vip_lab::{
    Cluster, ClusterConfig, Lab, Netns,
    cluster::{PEERS_PORT, Placed, VIP_ID, WEB},
    poll_until,
    scene::VIP,
    underlay::Cut,
};

use crate::stage::{SOON, claim, each, epoch, finish_whole, owner_field, stream, take, wait_for_more};

/// Where things are in a frame with what one host tells another: the UDP checksum, the datagram, and in that, behind two ids of three
/// bytes, its kind, its number, and the first word's epoch.
const UDP_CHECKSUM: Range<usize> = 40..42;
const DATAGRAM: usize = 42;
const KIND: usize = DATAGRAM + 5;
const NUMBER: Range<usize> = 88..96;
const EPOCH: Range<usize> = 104..112;

/// The kind of datagram that tells words.
const NEWS: u8 = 2;

/// With a guest beside the second member, which is no member.
fn start(lab: &Lab) -> Result<Cluster> {
    let beside = Placed::new("beside", 2, WEB, [192, 168, 7, 250]);
    let cluster = Cluster::start(lab, ClusterConfig::usual().with(beside))?;
    ["first", "second"].iter().try_for_each(|name| cluster.guest(name)?.add_vip_address(VIP))?;
    Ok(cluster)
}

/// What is sent to the VIP here arrives at a guest, all of it.
fn must_be_served_by(cluster: &Cluster, from: &Netns, name: &str) -> Result<()> {
    let stream = stream(cluster, from, VIP, &["first", "second"])?;
    wait_for_more(&stream, cluster.guest(name)?, 100)?;
    let report = finish_whole(stream)?;
    let received = report.receiver(cluster.guest(name)?.netns())?.arrivals.len();
    ensure!(received == report.sent.len(), "{name} got {received} of {}", report.sent.len());
    Ok(())
}

/// The moves of the VIP that a host shows, oldest first.
fn history(cluster: &Cluster, host: u8) -> Result<Vec<Value>> {
    let shown = cluster.vipd(host)?.vipctl(&["history", VIP_ID, "-o", "json"])?;
    let mut moves = shown.as_array().cloned().context("no array")?;
    moves.reverse();
    Ok(moves)
}

#[test]
fn hosts_that_did_not_hear_each_other_agree_again() {
    Lab::run(|lab| {
        let mut cluster = start(lab)?;
        each!(&mut cluster;
            each_side_of_a_partition_keeps_its_last_owner_and_the_higher_epoch_wins_once,
            a_host_without_carrier_serves_its_own_guests_and_catches_up,
            news_that_got_lost_are_repeated_until_they_are_seen,
            a_stranger_on_the_underlay_who_has_not_the_key_tells_nothing
        )
    });
}

fn each_side_of_a_partition_keeps_its_last_owner_and_the_higher_epoch_wins_once(
    cluster: &mut Cluster,
) -> Result<()> {
    let before = epoch(&take(cluster, "first")?)?;
    cluster.underlay().cut(cluster.host(2)?.netns(), Cut::Hosts)?;
    claim(cluster.guest("second")?)?;
    cluster.vipd(2)?.wait_for_owner(VIP_ID, "second", SOON)?;
    // Each side is whole in itself.
    must_be_served_by(cluster, cluster.guest("third")?.netns(), "first")?;
    must_be_served_by(cluster, cluster.guest("beside")?.netns(), "second")?;
    for host in [1, 3] {
        ensure!(cluster.vipd(host)?.owner(VIP_ID)?.as_deref() == Some("first"), "hv{host} was told");
    }
    cluster.underlay().heal()?;
    let vip = cluster.wait_for_owner(VIP_ID, "second", SOON)?;
    ensure!(epoch(&vip)? == before + 1, "{vip}");
    for from in ["third", "beside"] {
        must_be_served_by(cluster, cluster.guest(from)?.netns(), "second")?;
    }
    // One move each, and that of the side that lost is a peer's news.
    for (host, learned) in [(1, "peer"), (2, "garp_request"), (3, "peer")] {
        let moves = history(cluster, host)?;
        let last = moves.last().context("no move")?;
        let text = |name: &str| last.get(name).and_then(Value::as_str);
        ensure!(
            (text("port"), text("learned_from")) == (Some("second"), Some(learned)) && moves.len() == 2,
            "hv{host} tells {moves:#?}"
        );
    }
    Ok(())
}

#[test]
fn of_two_owners_with_the_same_epoch_the_higher_host_wins_everywhere() {
    Lab::run(|lab| {
        let cluster = start(lab)?;
        cluster.underlay().cut(cluster.host(2)?.netns(), Cut::Hosts)?;
        claim(cluster.guest("second")?)?;
        cluster.vipd(2)?.wait_for_owner(VIP_ID, "second", SOON)?;
        claim(cluster.guest("first")?)?;
        for host in [1, 3] {
            cluster.vipd(host)?.wait_for_owner(VIP_ID, "first", SOON)?;
        }
        let (here, there) = (cluster.vipd(1)?.vip(VIP_ID)?, cluster.vipd(2)?.vip(VIP_ID)?);
        ensure!(epoch(&here)? == epoch(&there)?, "{here} and {there}");
        cluster.underlay().heal()?;
        // "hv2" is behind "hv1" bytewise; that `first` claimed later is nobody's business: no clock decides.
        let vip = cluster.wait_for_owner(VIP_ID, "second", SOON)?;
        ensure!(epoch(&vip)? == epoch(&there)?, "{vip} and {there}");
        for from in ["third", "beside"] {
            must_be_served_by(&cluster, cluster.guest(from)?.netns(), "second")?;
        }
        // A later claim beats both.
        claim(cluster.guest("first")?)?;
        let vip = cluster.wait_for_owner(VIP_ID, "first", SOON)?;
        ensure!(epoch(&vip)? == epoch(&there)? + 1, "{vip}");
        Ok(())
    });
}

fn a_host_without_carrier_serves_its_own_guests_and_catches_up(cluster: &mut Cluster) -> Result<()> {
    take(cluster, "first")?;
    cluster.underlay().cut(cluster.host(2)?.netns(), Cut::Carrier)?;
    for name in ["second", "first"] {
        // One takes it on its own host, the other one knows nothing of that.
        claim(cluster.guest(name)?)?;
    }
    cluster.vipd(2)?.wait_for_owner(VIP_ID, "second", SOON)?;
    must_be_served_by(cluster, cluster.guest("beside")?.netns(), "second")?;
    must_be_served_by(cluster, cluster.guest("third")?.netns(), "first")?;
    cluster.underlay().heal()?;
    cluster.wait_for_owner(VIP_ID, "second", SOON)?;
    must_be_served_by(cluster, cluster.guest("third")?.netns(), "second")
}

fn news_that_got_lost_are_repeated_until_they_are_seen(cluster: &mut Cluster) -> Result<()> {
    take(cluster, "first")?;
    for round in 0..2 {
        let (host, name) = if round == 0 { (1, "second") } else { (2, "first") };
        cluster.underlay().cut(cluster.host(host)?.netns(), Cut::Peers(PEERS_PORT))?;
        claim(cluster.guest(name)?)?;
        cluster.vipd(3 - host)?.wait_for_owner(VIP_ID, name, SOON)?;
        cluster.vipd(3)?.wait_for_owner(VIP_ID, name, SOON).or_else(|error| {
            // With the claimant's own host cut off, nobody is told.
            if round == 1 { Ok(Value::Null) } else { Err(error) }
        })?;
        cluster.underlay().heal()?;
        let vip = cluster.wait_for_owner(VIP_ID, name, SOON)?;
        ensure!(owner_field(&vip, "port") == Some(name), "{vip}");
    }
    Ok(())
}

fn a_stranger_on_the_underlay_who_has_not_the_key_tells_nothing(cluster: &mut Cluster) -> Result<()> {
    let before = take(cluster, "first")?;
    // What a host says, said again by somebody else, and with a byte changed.
    let heard = crate::stage::watch(cluster, 2)?;
    claim(cluster.guest("second")?)?;
    let moved = cluster.wait_for_owner(VIP_ID, "second", SOON)?;
    ensure!(epoch(&moved)? == epoch(&before)? + 1, "{moved}");
    let said = heard
        .matching(|frame| !frame.outgoing && frame.udp().is_some_and(|(_, port, _)| port == PEERS_PORT))?;
    ensure!(!said.is_empty(), "the host has said nothing");
    claim(cluster.guest("first")?)?;
    let now = cluster.wait_for_owner(VIP_ID, "first", SOON)?;
    let sender = vip_lab::RawSender::new(cluster.underlay().router(), "eth0")?;
    let mut forged = 0;
    for frame in &said {
        sender.send(&frame.bytes)?;
        // No checksum, which would give it away.
        let mut bytes = frame.bytes.clone();
        bytes.get_mut(UDP_CHECKSUM).context("too short for UDP")?.fill(0);
        for at in [DATAGRAM, DATAGRAM + 8, bytes.len() - 1] {
            let mut other = bytes.clone();
            if let Some(byte) = other.get_mut(at) {
                *byte ^= 1;
            }
            sender.send(&other)?;
        }
        // The same news, as if told later and of a later epoch: right but for its tag.
        if bytes.get(KIND) == Some(&NEWS) {
            for place in [NUMBER, EPOCH] {
                bytes
                    .get_mut(place)
                    .context("too short for news")?
                    .copy_from_slice(&1_000_000_u64.to_be_bytes());
            }
            sender.send(&bytes)?;
            forged += 1;
        }
    }
    ensure!(forged > 0, "there were no news");
    let refused = || {
        let status = cluster.vipd(1).ok()?.vipctl(&["status", "-o", "json"]).ok()?;
        let hosts = status.pointer("/peers/hosts")?.as_array()?.clone();
        let refused = hosts.iter().filter_map(|host| host.pointer("/refused/auth")?.as_u64());
        Some(refused.sum::<u64>()).filter(|refused| *refused > 0)
    };
    poll_until(SOON, "hv1 to refuse what the key does not authenticate", refused)?;
    let socket = crate::stage::socket(cluster.underlay().router(), Ipv4Addr::UNSPECIFIED, 0)?;
    for host in 1..=3 {
        for length in [0, 1, 16, 64, 200, 1400] {
            socket.send_to(&vec![0x5a; length], (vip_lab::underlay::vtep(host), PEERS_PORT))?;
        }
    }
    // All hosts go on, and the next move is heard.
    claim(cluster.guest("second")?)?;
    let after = cluster.wait_for_owner(VIP_ID, "second", SOON)?;
    ensure!(epoch(&after)? == epoch(&now)? + 1, "somebody else was believed: {now} and then {after}");
    Ok(())
}
