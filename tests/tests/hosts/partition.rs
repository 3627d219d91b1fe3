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

use crate::stage::{
    SOON, add_vip, claim, each, epoch, finish_whole, owner_field, stream, take, wait_for_more,
};

/// Where things are in a frame with what one host tells another: the UDP checksum, the datagram, and in that, behind two ids of three
/// bytes, its kind, its number, and the first word's epoch.
const UDP_CHECKSUM: Range<usize> = 40..42;
const DATAGRAM: usize = 42;
const KIND: usize = DATAGRAM + 5;
const NUMBER: Range<usize> = 88..96;
const EPOCH: Range<usize> = 104..112;

/// The kind of datagram that greets, and of one that tells words.
const HELLO: u8 = 1;
const NEWS: u8 = 2;

/// With a guest beside the second member, which is no member.
fn start(lab: &Lab) -> Result<Cluster> {
    let beside = Placed::new("beside", 2, WEB, [192, 168, 7, 250]);
    let cluster = Cluster::start(lab, ClusterConfig::usual().with(beside))?;
    add_vip(&cluster, &["first", "second"])?;
    Ok(cluster)
}

/// What is sent to the VIP here arrives at a guest, all of it.
fn must_be_served_by(cluster: &Cluster, from: &Netns, name: &str) -> Result<()> {
    let stream = stream(cluster, from, VIP, &["first", "second"])?;
    wait_for_more(&stream, cluster.guest(name)?, 100)?;
    let report = finish_whole(stream)?;
    let received = report.receiver(cluster.guest(name)?.netns())?.arrivals.len();
    let arrived = report.sent.len() - report.lost().len();
    ensure!(received == arrived, "{name} got {received} of the {arrived} that arrived");
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
    // The host that is cut off is the old owner's.
    for (host, old, name) in [(1, "first", "second"), (2, "second", "first")] {
        cluster.underlay().cut(cluster.host(host)?.netns(), Cut::Peers(PEERS_PORT))?;
        claim(cluster.guest(name)?)?;
        for other in [3 - host, 3] {
            cluster.vipd(other)?.wait_for_owner(VIP_ID, name, SOON)?;
        }
        ensure!(cluster.vipd(host)?.owner(VIP_ID)?.as_deref() == Some(old), "hv{host} was told");
        cluster.underlay().heal()?;
        let vip = cluster.wait_for_owner(VIP_ID, name, SOON)?;
        ensure!(owner_field(&vip, "port") == Some(name), "{vip}");
    }
    Ok(())
}

/// What a host has refused so far of what came from the second one's address, by reason, and from addresses of no host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Refused {
    malformed: u64,
    auth: u64,
    replay: u64,
    unlisted: u64,
}

impl Refused {
    fn plus(&self, more: &Self) -> Self {
        Self {
            malformed: self.malformed + more.malformed,
            auth: self.auth + more.auth,
            replay: self.replay + more.replay,
            unlisted: self.unlisted + more.unlisted,
        }
    }
}

fn refused_by(cluster: &Cluster, host: u8) -> Result<Refused> {
    let status = cluster.vipd(host)?.vipctl(&["status", "-o", "json"])?;
    let hosts = status.pointer("/peers/hosts").and_then(Value::as_array).context("no hosts")?;
    let named = |peer: &&Value| peer.get("host").and_then(Value::as_str) == Some("hv2");
    let second = hosts.iter().find(named).context("no hv2")?;
    let count = |of: &Value, place: &str| {
        of.pointer(place).and_then(Value::as_u64).with_context(|| format!("no {place} in {of}"))
    };
    Ok(Refused {
        malformed: count(second, "/refused/malformed")?,
        auth: count(second, "/refused/auth")?,
        replay: count(second, "/refused/replay")?,
        unlisted: count(&status, "/peers/unlisted")?,
    })
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
    let before = [1, 3].map(|host| refused_by(cluster, host)).into_iter().collect::<Result<Vec<_>>>()?;
    let sender = vip_lab::RawSender::new(cluster.underlay().router(), "eth0")?;
    let mut expected = [(1, Refused::default()), (3, Refused::default())];
    let mut forged = 0;
    for frame in &said {
        let to = frame.ipv4().context("what a host says is IPv4")?.destination;
        let told = expected.iter_mut().find(|(host, _)| vip_lab::underlay::vtep(*host) == to);
        let (_, told) = told.with_context(|| format!("the host has said something to {to}"))?;
        sender.send(&frame.bytes)?;
        // A greeting returns a challenge, which is good once; whatever else is said has a number.
        told.replay += u64::from(frame.bytes.get(KIND) != Some(&HELLO));
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
        told.malformed += 1;
        told.auth += 2;
        // The same news, as if told later and of a later epoch: right but for its tag.
        if bytes.get(KIND) == Some(&NEWS) {
            for place in [NUMBER, EPOCH] {
                bytes
                    .get_mut(place)
                    .context("too short for news")?
                    .copy_from_slice(&1_000_000_u64.to_be_bytes());
            }
            sender.send(&bytes)?;
            told.auth += 1;
            forged += 1;
        }
    }
    ensure!(forged > 0, "there were no news");
    let socket = crate::stage::socket(cluster.underlay().router(), Ipv4Addr::UNSPECIFIED, 0)?;
    for (host, told) in &mut expected {
        for length in [0, 1, 16, 64, 200, 1400] {
            socket.send_to(&vec![0x5a; length], (vip_lab::underlay::vtep(*host), PEERS_PORT))?;
            told.unlisted += 1;
        }
    }
    // Each of them is refused, and for its own reason.
    for ((host, told), before) in expected.iter().zip(&before) {
        ensure!(told.replay > 0, "nothing could be said once more to hv{host}");
        let mut now = Refused::default();
        let refused = poll_until(SOON, &format!("hv{host} to refuse all of it"), || {
            now = refused_by(cluster, *host).ok()?;
            (now == before.plus(told)).then_some(())
        });
        refused.with_context(|| {
            format!("{before:?}, then {told:?} more were expected, and there are {now:?}")
        })?;
    }
    // All hosts go on, and the next move is heard.
    claim(cluster.guest("second")?)?;
    let after = cluster.wait_for_owner(VIP_ID, "second", SOON)?;
    ensure!(epoch(&after)? == epoch(&now)? + 1, "somebody else was believed: {now} and then {after}");
    Ok(())
}
