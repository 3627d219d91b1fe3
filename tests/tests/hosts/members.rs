//! What members of a VIP tell each other, across hosts and nobody else: adverts and probes.

use anyhow::{Context as _, Result, ensure};
use vip_lab::{
    Cluster, ClusterConfig, Lab, Mac, RawSender,
    capture::Capture,
    cluster::{Placed, VIP_ID, WEB},
    frame::{self, Arp, ArpOperation, Frame},
    poll_until,
    scene::{VIP, constant_mac},
    vxlan::Tunnelled,
};

use crate::stage::{SOON, each, ensure_pings, take, tunnelled, watch};

/// Protocol number of VRRP.
const VRRP: u8 = 112;

/// Adverts to look at.
const ADVERTS: usize = 5;

/// `third` and `fourth` are members, too: two hosts with one, one with two. `outsider` and `stranger` are none.
fn start(lab: &Lab) -> Result<Cluster> {
    let mut config = ClusterConfig::usual()
        .with(Placed::new("fourth", 1, WEB, [192, 168, 7, 250]))
        .with(Placed::new("outsider", 2, WEB, [192, 168, 7, 251]))
        .with(Placed::new("stranger", 3, WEB, [192, 168, 7, 252]));
    config.objects = config.objects.replace("[first, second]", "[first, second, third, fourth]");
    Cluster::start(lab, config)
}

const MEMBERS: [&str; 4] = ["first", "second", "third", "fourth"];
const OTHERS: [&str; 2] = ["outsider", "stranger"];

fn captures<const N: usize>(cluster: &Cluster, names: [&str; N]) -> Result<Vec<Capture>> {
    names.iter().map(|name| Capture::start(cluster.guest(name)?.netns(), "eth0")).collect()
}

#[test]
fn members_hear_each_other_across_hosts_and_nobody_else_does() {
    Lab::run(|lab| {
        let mut cluster = start(lab)?;
        take(&cluster, "first")?;
        // The last one leaves the VIP without an owner.
        each!(&mut cluster;
            adverts_reach_each_member_on_every_host_once_and_unchanged_and_nobody_else,
            probes_adverts_and_claims_by_somebody_who_is_no_member_never_leave_its_host,
            a_members_probe_reaches_the_owner_on_its_host_who_defends_the_vip
        )
    });
}

fn adverts_reach_each_member_on_every_host_once_and_unchanged_and_nobody_else(
    cluster: &mut Cluster,
) -> Result<()> {
    let (members, others) = (captures(cluster, MEMBERS)?, captures(cluster, OTHERS)?);
    let cable = watch(cluster, 1)?;
    let first = cluster.guest("first")?;
    let sender = RawSender::new(first.netns(), "eth0")?;
    for number in 1..=ADVERTS {
        // Told apart by their VRID.
        let advert = frame::vrrp(first.mac(), first.address(), u8::try_from(number)?, VIP, 255)?;
        sender.send(&advert)?;
        for (name, capture) in MEMBERS.iter().zip(&members).skip(1) {
            let is_it = |frame: &Frame| !frame.outgoing && frame.bytes == advert;
            capture.wait_for(SOON, "the advert", is_it).with_context(|| (*name).to_owned())?;
        }
    }
    let advert = |frame: &Frame| !frame.outgoing && frame.ipv4().is_some_and(|ip| ip.protocol == VRRP);
    for (name, capture) in MEMBERS.iter().zip(&members).skip(1) {
        let count = capture.count(advert)?;
        ensure!(count == ADVERTS, "{name} got {count} adverts instead of {ADVERTS}");
    }
    for (name, capture) in OTHERS.iter().zip(&others) {
        ensure!(capture.count(advert)? == 0, "{name} is no member and got an advert");
    }
    ensure!(members.first().context("a capture")?.count(advert)? == 0, "the sender got its own adverts back");
    // Once to each host with members, whatever their number.
    let crosses = |frame: &Frame| {
        let is_advert =
            |found: &Tunnelled| found.inner.ipv4().is_some_and(|ip| ip.protocol == VRRP && ip.ttl == 255);
        !frame.outgoing && frame.tunnelled().as_ref().is_some_and(is_advert)
    };
    cable.wait_for_count(SOON, "the adverts to two hosts", 2 * ADVERTS, crosses)?;
    let adverts = cable.count(crosses)?;
    ensure!(adverts == 2 * ADVERTS, "{adverts} adverts crossed for {ADVERTS} and two hosts");
    Ok(())
}

fn a_members_probe_reaches_the_owner_on_its_host_who_defends_the_vip(cluster: &mut Cluster) -> Result<()> {
    let (members, others) = (captures(cluster, MEMBERS)?, captures(cluster, OTHERS)?);
    // RFC 5227 section 2.1.1, by the tool that distributions use for it: 1 is "somebody has it".
    let found = cluster.guest("second")?.netns().run(&[
        "/usr/bin/arping",
        "-D",
        "-c",
        "2",
        "-w",
        "5",
        "-I",
        "eth0",
        &VIP.to_string(),
    ])?;
    ensure!(found.status.code() == Some(1), "the probe was not answered: {found}");
    let probe = |frame: &Frame| {
        frame.arp().is_some_and(|arp| {
            arp.operation == ArpOperation::REQUEST && arp.sender.is_unspecified() && arp.target == VIP
        })
    };
    let answered_by = |frame: &Frame| {
        frame.arp().filter(|arp| arp.operation == ArpOperation::REPLY).map(|arp| arp.sender_mac)
    };
    let second = members.get(1).context("a capture")?;
    let answer =
        second.wait_for(SOON, "the answer", |frame| !frame.outgoing && answered_by(frame).is_some())?;
    // No guest learns another MAC than the VIP's.
    ensure!(answered_by(&answer) == Some(constant_mac(VIP)), "another MAC is told: {answer:?}");
    let owner = members.first().context("a capture")?;
    owner.wait_for(SOON, "the probe at the owner", |frame| !frame.outgoing && probe(frame))?;
    // Nobody else has answered.
    owner.wait_for(SOON, "the owner's defence", |frame| frame.outgoing && answered_by(frame).is_some())?;
    for (name, capture) in ["third", "fourth"].iter().zip(members.iter().skip(2)) {
        let strays = capture.count(|frame| !frame.outgoing && probe(frame))?;
        ensure!(strays == 0, "{name} got {strays} probes, which are for the owner");
    }
    for (name, capture) in OTHERS.iter().zip(&others) {
        ensure!(capture.count(|frame| !frame.outgoing && probe(frame))? == 0, "{name} got a probe");
    }
    // An owner that is gone is not defended by anybody else.
    cluster.guest("first")?.remove_vip_address(VIP)?;
    let found = cluster.guest("second")?.netns().run(&[
        "/usr/bin/arping",
        "-D",
        "-c",
        "1",
        "-w",
        "2",
        "-I",
        "eth0",
        &VIP.to_string(),
    ])?;
    ensure!(found.status.code() == Some(0), "somebody defends a VIP that nobody has: {found}");
    Ok(())
}

fn probes_adverts_and_claims_by_somebody_who_is_no_member_never_leave_its_host(
    cluster: &mut Cluster,
) -> Result<()> {
    let stranger = cluster.guest("stranger")?;
    ensure_pings(stranger.netns(), VIP)?;
    let cable = watch(cluster, 3)?;
    let members = captures(cluster, MEMBERS)?;
    let sender = RawSender::new(stranger.netns(), "eth0")?;
    let before = cluster.vipd(3)?.drops()?;
    for arp in [
        Arp::probe(stranger.mac(), VIP),
        Arp::gratuitous_request(stranger.mac(), VIP),
        Arp::gratuitous_reply(stranger.mac(), VIP),
    ] {
        sender.send(&arp.frame(stranger.mac(), Mac::BROADCAST))?;
    }
    sender.send(&frame::vrrp(stranger.mac(), stranger.address(), 66, VIP, 255)?)?;
    let total = |drops: &std::collections::BTreeMap<String, u64>| drops.values().sum::<u64>();
    poll_until(SOON, "all four to be dropped", || {
        (total(&cluster.vipd(3).ok()?.drops().ok()?) == total(&before) + 4).then_some(())
    })?;
    let strays = tunnelled(&cable)?;
    ensure!(strays.is_empty(), "some of it crossed: {strays:?}");
    for capture in &members {
        let strays = capture.matching(|frame| {
            !frame.outgoing
                && (frame.source() == Some(stranger.mac())
                    && (frame.arp().is_some() || frame.ipv4().is_some_and(|ip| ip.protocol == VRRP)))
        })?;
        ensure!(strays.is_empty(), "a member got {strays:?}");
    }
    ensure!(cluster.vipd(3)?.owner(VIP_ID)?.as_deref() == Some("first"), "the VIP moved");
    Ok(())
}
