//! Guests that say nothing, little or the wrong thing at the wrong time: whose the VIP is then.
#![cfg(feature = "kernel")]

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vip_lab::{
    Announcement, Guest, Lab, Mac, RawSender,
    capture::Capture,
    frame::{Arp, ArpOperation, Frame},
    poll_until,
    scene::{EIP, EIP_NEIGHBOUR, FIXED_EIP, GATEWAY, Scene, Setting, VIP, VIP_ID, constant_mac},
};

const SHORT: Duration = Duration::from_secs(10);

/// Three questions within a second, and the member's next packet.
const SILENCE: Duration = Duration::from_secs(15);

/// Protocol number of ICMP.
const ICMP: u8 = 1;

/// RFC 5227 section 1.1: probes of a guest, which a real one sends one to two seconds apart. The distance does not
/// matter to a forwarder, which keeps no state of them.
const PROBES: usize = 3;

/// Announcements of a guest (`ANNOUNCE_NUM`).
const ANNOUNCEMENTS: usize = 2;

fn field<'a>(vip: &'a Value, pointer: &str) -> Option<&'a str> {
    vip.pointer(pointer).and_then(Value::as_str)
}

fn epoch(vip: &Value) -> Result<u64> {
    vip.pointer("/owner/epoch").and_then(Value::as_u64).context("the VIP has no owner with an epoch")
}

/// Fails unless a VIP is owned, learned in this way, and says since when.
fn ensure_learned(vip: &Value, by: &str) -> Result<()> {
    ensure!(field(vip, "/state") == Some("owned"), "{vip}");
    ensure!(field(vip, "/owner/learned_from") == Some(by), "it was not learned from {by}: {vip}");
    ensure!(field(vip, "/owner/since").is_some_and(|since| since.ends_with('Z')), "{vip}");
    Ok(())
}

/// A guest takes the VIP as an administrator does by hand who knows of neighbours: address, then `arping -U`.
fn take(scene: &Scene, guest: &Guest) -> Result<Value> {
    guest.add_vip_address(VIP)?;
    guest.arping(Announcement::Request, VIP)?;
    scene.vipd.wait_for_owner(VIP_ID, guest.name(), SHORT)
}

/// A guest sends to the gateway from the VIP until it owns it.
fn use_until_owned(scene: &Scene, guest: &Guest) -> Result<Value> {
    poll_until(SILENCE, &format!("{} to get the VIP by using it", guest.name()), || {
        guest.netns().ping_from(VIP, GATEWAY, 2).ok()?;
        (scene.vipd.owner(VIP_ID).ok()?.as_deref() == Some(guest.name())).then_some(())
    })?;
    scene.vipd.vip(VIP_ID)
}

/// Fails unless the client's echo requests to the EIP end at a guest.
fn ensure_served_by(scene: &Scene, guest: &Guest) -> Result<()> {
    let capture = Capture::start(guest.netns(), "eth0")?;
    let report = scene.outside.netns().ping(EIP, 3)?;
    ensure!(
        report.received == report.sent,
        "the VIP's EIP did not answer: {report:?}; vipd says {:?}; the host's neighbours: {}",
        scene.drops(),
        scene.host.netns().ip("neighbour show")?
    );
    let what = format!("the three requests at {}", guest.name());
    capture.wait_for_count(SHORT, &what, 3, |frame| {
        !frame.outgoing && frame.ipv4().is_some_and(|ip| (ip.source, ip.destination) == (EIP_NEIGHBOUR, VIP))
    })?;
    Ok(())
}

#[test]
fn a_guest_that_never_announces_is_learned_by_its_first_packet() {
    Lab::run(|lab| {
        let scene = Scene::start(lab, Setting::default())?;
        ensure!(field(&scene.vipd.vip(VIP_ID)?, "/state") == Some("unowned"), "somebody owns it already");
        // The guest knows its gateway, so that its first frame from the VIP is no ARP request.
        ensure!(scene.first.netns().ping(GATEWAY, 1)?.received == 1, "the gateway does not answer");
        scene.first.add_vip_address(VIP)?;
        ensure!(scene.vipd.owner(VIP_ID)?.is_none(), "an address that was never used has an owner");
        ensure!(scene.outside.netns().ping(EIP, 1)?.received == 0, "an EIP without owner answered");

        let report = scene.first.netns().ping_from(VIP, GATEWAY, 1)?;
        ensure!(report.received == 1, "the packet that was learned from was not answered: {report:?}");
        let vip = scene.vipd.wait_for_owner(VIP_ID, "nginx-master", SHORT)?;
        ensure_learned(&vip, "data")?;
        ensure_served_by(&scene, &scene.first)
    });
}

#[test]
fn a_guest_that_never_announces_is_learned_by_its_first_question() {
    Lab::run(|lab| {
        let scene = Scene::start(lab, Setting::default())?;
        scene.second.add_vip_address(VIP)?;
        // It has to ask for its neighbour first, and names the VIP as the sender of the question.
        let third = scene.third.address();
        let report = scene.second.netns().ping_from(VIP, third, 1)?;
        ensure!(report.received == 1, "{report:?}");
        let vip = scene.vipd.wait_for_owner(VIP_ID, "nginx-slave", SHORT)?;
        ensure_learned(&vip, "arp")?;
        ensure_served_by(&scene, &scene.second)
    });
}

#[test]
fn a_member_takes_the_vip_by_hand_from_an_owner_that_dropped_it_without_a_word() {
    Lab::run(|lab| {
        let scene = Scene::start(lab, Setting::default())?;
        let before = take(&scene, &scene.first)?;
        scene.first.remove_vip_address(VIP)?;
        let owner = Capture::start(scene.host.netns(), "tap0")?;
        scene.second.add_vip_address(VIP)?;
        ensure!(
            scene.vipd.owner(VIP_ID)?.as_deref() == Some("nginx-master"),
            "an unused address moved the VIP"
        );

        let after = use_until_owned(&scene, &scene.second)?;
        ensure_learned(&after, "silent_owner")?;
        ensure!(epoch(&after)? == epoch(&before)? + 1, "{before} and then {after}");
        owner.wait_for_count(SHORT, "three questions", 3, asks_for_the_vip)?;
        let questions = owner.matching(asks_for_the_vip)?;
        ensure!(questions.len() == 3, "the owner was asked {} times: {questions:?}", questions.len());
        ensure!(
            questions.iter().all(|question| question.destination() == Some(scene.first.mac())),
            "a question was no unicast: {questions:?}"
        );
        ensure_served_by(&scene, &scene.second)
    });
}

/// A question for the VIP that the host sends.
fn asks_for_the_vip(frame: &Frame) -> bool {
    let asks = |arp: Arp| arp.operation == ArpOperation::REQUEST && arp.target == VIP;
    frame.outgoing && frame.arp().is_some_and(asks)
}

#[test]
fn an_owner_that_lives_keeps_the_vip_while_a_draining_member_goes_on_sending() {
    Lab::run(|lab| {
        let scene = Scene::start(lab, Setting::default())?;
        take(&scene, &scene.second)?;
        let before = take(&scene, &scene.first)?;
        let moves = scene.history()?.len();
        let owner = Capture::start(scene.host.netns(), "tap0")?;

        // The second one still has the address, and sends from it. Its packets leave as the EIP.
        let client = Capture::start(scene.outside.netns(), "eth0")?;
        poll_until(SILENCE, "five answers of the owner", || {
            scene.second.netns().ping_from(VIP, EIP_NEIGHBOUR, 3).ok()?;
            (owner.count(|frame| answers_for_the_vip(frame, scene.first.mac())).ok()? >= 5).then_some(())
        })?;
        client.wait_for(SHORT, "a packet of the draining member, as the EIP", |frame| {
            !frame.outgoing && frame.ipv4().is_some_and(|ip| ip.source == EIP)
        })?;

        let after = scene.vipd.vip(VIP_ID)?;
        ensure!(field(&after, "/owner/port") == Some("nginx-master"), "a living owner lost the VIP: {after}");
        ensure!(
            epoch(&after)? == epoch(&before)? && scene.history()?.len() == moves,
            "{before} and then {after}"
        );
        ensure_served_by(&scene, &scene.first)
    });
}

/// The owner's answer to a question for the VIP.
fn answers_for_the_vip(frame: &Frame, owner: Mac) -> bool {
    let answers =
        |arp: Arp| arp.operation == ArpOperation::REPLY && arp.sender == VIP && arp.sender_mac == owner;
    !frame.outgoing && frame.arp().is_some_and(answers)
}

/// A guest that sends what Windows sends when an address is added: probes, and later announcements.
struct Prober {
    sender: RawSender,
    mac: Mac,
}

impl Prober {
    fn new(guest: &Guest) -> Result<Self> {
        Ok(Self { sender: RawSender::new(guest.netns(), "eth0")?, mac: guest.mac() })
    }

    fn send(&self, arp: &Arp, times: usize) -> Result<()> {
        let frame = arp.frame(self.mac, Mac::BROADCAST);
        (0..times).try_for_each(|_| self.sender.send(&frame))
    }

    fn probe(&self) -> Result<()> {
        self.send(&Arp::probe(self.mac, VIP), PROBES)
    }

    fn announce(&self) -> Result<()> {
        self.send(&Arp::announcement(self.mac, VIP), ANNOUNCEMENTS)
    }
}

/// Fails if anything that says "the VIP is mine" has reached a guest. Whatever the host sent to it before the echo
/// reply that is fetched here has been seen.
fn ensure_no_defence(guest: &Guest, capture: &Capture) -> Result<()> {
    let report = guest.netns().ping(GATEWAY, 1)?;
    ensure!(report.received == 1, "{report:?}");
    capture.wait_for(SHORT, "the gateway's echo reply", |frame| {
        !frame.outgoing && frame.ipv4().is_some_and(|ip| ip.source == GATEWAY)
    })?;
    let answers =
        capture.matching(|frame| !frame.outgoing && frame.arp().is_some_and(|arp| arp.sender == VIP))?;
    ensure!(answers.is_empty(), "{} was told that the VIP is taken: {answers:?}", guest.name());
    Ok(())
}

#[test]
fn probes_and_announcements_take_an_unowned_vip() {
    Lab::run(|lab| {
        let scene = Scene::start(lab, Setting::default())?;
        let (prober, others) = (Prober::new(&scene.first)?, [&scene.second, &scene.third]);
        let capture = Capture::start(scene.first.netns(), "eth0")?;
        let neighbours = watch(&others)?;

        prober.probe()?;
        ensure_no_defence(&scene.first, &capture)?;
        ensure!(scene.vipd.owner(VIP_ID)?.is_none(), "a probe claimed the VIP");
        scene.first.add_vip_address(VIP)?;
        prober.announce()?;
        let vip = scene.vipd.wait_for_owner(VIP_ID, "nginx-master", SHORT)?;
        ensure_learned(&vip, "announcement")?;
        ensure_served_by(&scene, &scene.first)?;
        ensure_unseen(&scene, &others, &neighbours)
    });
}

#[test]
fn probes_and_announcements_take_the_vip_from_an_owner_that_is_gone() {
    Lab::run(|lab| {
        let scene = Scene::start(lab, Setting::default())?;
        let before = take(&scene, &scene.second)?;
        scene.second.remove_vip_address(VIP)?;
        let (prober, capture) = (Prober::new(&scene.first)?, Capture::start(scene.first.netns(), "eth0")?);
        let owner = Capture::start(scene.second.netns(), "eth0")?;

        prober.probe()?;
        owner.wait_for_count(SHORT, "the probes at the owner", PROBES, is_probe)?;
        ensure!(owner.count(is_probe)? == PROBES, "not every probe went to the owner, once");
        ensure_no_defence(&scene.first, &capture)?;
        ensure!(scene.vipd.owner(VIP_ID)?.as_deref() == Some("nginx-slave"), "a probe moved the VIP");
        scene.first.add_vip_address(VIP)?;
        prober.announce()?;
        let after = scene.vipd.wait_for_owner(VIP_ID, "nginx-master", SHORT)?;
        ensure_learned(&after, "announcement")?;
        ensure!(epoch(&after)? == epoch(&before)? + 1, "{before} and then {after}");
        ensure_served_by(&scene, &scene.first)
    });
}

fn is_probe(frame: &Frame) -> bool {
    let probe =
        |arp: Arp| arp.operation == ArpOperation::REQUEST && arp.sender.is_unspecified() && arp.target == VIP;
    !frame.outgoing && frame.arp().is_some_and(probe)
}

#[test]
fn an_owner_that_lives_defends_the_vip_against_a_probe() {
    Lab::run(|lab| {
        let scene = Scene::start(lab, Setting::default())?;
        let before = take(&scene, &scene.second)?;
        let (prober, capture) = (Prober::new(&scene.first)?, Capture::start(scene.first.netns(), "eth0")?);
        let neighbours = watch(&[&scene.third])?;

        prober.probe()?;
        // RFC 5227 section 2.1.1: an answer with the probed address as sender is a conflict, and the prober gives up.
        let defence = capture.wait_for(SHORT, "the owner's defence", |frame| {
            !frame.outgoing && frame.arp().is_some_and(|arp| arp.sender == VIP)
        })?;
        let arp = defence.arp().context("an ARP packet")?;
        ensure!(
            arp.operation == ArpOperation::REPLY && arp.sender_mac == constant_mac(VIP),
            "a guest learned another MAC than the VIP's: {arp:?}"
        );
        let after = scene.vipd.vip(VIP_ID)?;
        ensure!(
            after.get("owner") == before.get("owner"),
            "a probe changed the owner: {before} and then {after}"
        );
        // The owner's own probe, say after its link went down and up, comes back to nobody.
        let owner = Capture::start(scene.second.netns(), "eth0")?;
        Prober::new(&scene.second)?.probe()?;
        ensure_no_defence(&scene.second, &owner)?;
        ensure_served_by(&scene, &scene.second)?;
        ensure_unseen(&scene, &[&scene.third], &neighbours)
    });
}

/// Captures at guests that nothing of a claim may reach.
fn watch(guests: &[&Guest]) -> Result<Vec<Capture>> {
    guests.iter().map(|guest| Capture::start(guest.netns(), "eth0")).collect()
}

/// Fails if a probe or a claim of the VIP has reached one of the guests.
fn ensure_unseen(scene: &Scene, guests: &[&Guest], captures: &[Capture]) -> Result<()> {
    for (guest, capture) in guests.iter().zip(captures) {
        let from = if guest.address() == scene.third.address() { &scene.first } else { &scene.third };
        ensure!(from.netns().ping(guest.address(), 1)?.received == 1, "{} is not reached", guest.name());
        // What was sent before this has been seen before it.
        capture.wait_for(SHORT, "an echo request", |frame| {
            !frame.outgoing
                && frame.ipv4().is_some_and(|ip| (ip.source, ip.protocol) == (from.address(), ICMP))
        })?;
        let seen = capture.matching(|frame| {
            !frame.outgoing && frame.arp().is_some_and(|arp| arp.target == VIP || arp.sender == VIP)
        })?;
        ensure!(seen.is_empty(), "{} heard of the VIP's owner: {seen:?}", guest.name());
    }
    Ok(())
}

#[test]
fn the_last_of_many_alternating_claims_wins_in_the_end() {
    /// More than the eight that are let through at once.
    const CLAIMS: usize = 15;
    Lab::run(|lab| {
        let scene = Scene::start(lab, Setting::default())?;
        let guests = [&scene.first, &scene.second];
        guests.iter().try_for_each(|guest| guest.add_vip_address(VIP))?;
        let senders =
            [RawSender::new(guests[0].netns(), "eth0")?, RawSender::new(guests[1].netns(), "eth0")?];
        for (guest, sender) in guests.iter().zip(&senders).cycle().take(CLAIMS) {
            let claim = Arp::gratuitous_request(guest.mac(), VIP);
            sender.send_in_order(&[&claim.frame(guest.mac(), Mac::BROADCAST)])?;
            // Claims of two guests keep their order if the first one is done with: its next frame is answered.
            ensure!(guest.netns().ping(GATEWAY, 1)?.received == 1, "the gateway is silent");
        }
        let damped = scene.vipd.vip(VIP_ID)?;
        ensure!(field(&damped, "/owner/port").is_some(), "{damped}");

        // Packets to the VIP, no claim, make the claim effective that waits.
        poll_until(SHORT, "the last claim to win", || {
            scene.outside.netns().ping(EIP, 1).ok()?;
            (scene.vipd.owner(VIP_ID).ok()?.as_deref() == Some("nginx-master")).then_some(())
        })?;
        let settled = scene.vipd.vip(VIP_ID)?;
        ensure_learned(&settled, "garp_request")?;
        ensure!(epoch(&settled)? <= CLAIMS as u64, "there were more moves than claims: {settled}");
        ensure_served_by(&scene, &scene.first)?;

        let history = scene.history()?;
        ensure!(history.len() > 1, "{history:?}");
        for pair in history.windows(2) {
            let [before, after] = pair else { continue };
            ensure!(before.get("port") == after.get("previous"), "a move is missing: {history:?}");
            let of = |entry: &Value| entry.get("epoch").and_then(Value::as_u64);
            ensure!(of(before).map(|epoch| epoch + 1) == of(after), "an epoch is missing: {history:?}");
        }
        let last = history.last().context("a move")?;
        ensure!(
            field(last, "/port") == Some("nginx-master")
                && last.get("epoch") == settled.pointer("/owner/epoch"),
            "the history does not end with the owner: {last} and {settled}"
        );
        // Calm again, and now for good: no claim waits any more.
        ensure!(epoch(&scene.vipd.vip(VIP_ID)?)? == epoch(&settled)?, "the VIP moved once more");
        Ok(())
    });
}

#[test]
fn a_claim_while_vipd_is_dead_moves_the_vip_and_is_told_after_its_restart() {
    Lab::run(|lab| {
        let mut scene = Scene::start(lab, Setting::default())?;
        let before = take(&scene, &scene.first)?;
        ensure_learned(&before, "garp_request")?;
        ensure_served_by(&scene, &scene.first)?;

        scene.vipd.kill9()?;
        ensure_served_by(&scene, &scene.first).context("vipd was killed")?;
        scene.second.add_vip_address(VIP)?;
        scene.second.arping(Announcement::Reply, VIP)?;
        ensure_served_by(&scene, &scene.second).context("the VIP moved while vipd was dead")?;
        // The other EIP never noticed.
        ensure!(scene.outside.netns().ping(FIXED_EIP, 1)?.received == 1, "the fixed address's EIP is dead");

        scene.vipd.begin()?;
        scene.vipd.ready()?;
        let after = scene.vipd.wait_for_owner(VIP_ID, "nginx-slave", SHORT)?;
        ensure_learned(&after, "garp_reply")?;
        ensure!(epoch(&after)? == epoch(&before)? + 1, "{before} and then {after}");
        ensure!(field(&after, "/owner/since") >= field(&before, "/owner/since"), "{before} and then {after}");
        ensure_served_by(&scene, &scene.second)
    });
}
