//! A move under a stream of datagrams: who receives which.

use std::{
    collections::HashMap,
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vip_lab::{
    Guest, Lab, Mac, RawSender,
    capture::Capture,
    frame::{Arp, ArpOperation, Frame},
    poll_until,
    scene::{EIP, Scene, Setting, VIP, VIP_ID},
    stream::{StreamReport, UdpStream},
};

use crate::{DATAGRAM_PORT, SHORT, ensure_pings, say};

/// Datagrams a second while the VIP moves.
const RATE: u32 = 10_000;

/// Moves, all within the damping's budget of eight.
const MOVES: usize = 6;

/// Datagrams that an owner gets before the next one claims.
const BETWEEN_MOVES: usize = 3000;

/// More than one datagram in so many that never came to the host, and the stream is none.
const MOST_WITHOUT_ROOM: u64 = 20;

/// The stream lasts longer than the moves on the slowest machine.
const STREAM_TIME: Duration = Duration::from_secs(60);

/// A time during which a guest owned the VIP.
#[derive(Clone, Copy, Debug)]
struct Tenure {
    owner: usize,
    /// When its claim reached the host: it owned nothing before.
    claimed: Instant,
    /// When the next owner's claim was surely handled: it owned nothing afterwards. None: it still owns the VIP.
    ended: Option<Instant>,
}

impl Tenure {
    /// Whether it may have received a datagram that was on its way from `sent` to `arrived`.
    fn covers(&self, sent: Instant, arrived: Instant) -> bool {
        self.claimed <= arrived && self.ended.is_none_or(|ended| sent <= ended)
    }
}

/// Lets a guest claim the VIP, and gives the times when the claim reached the host and when it was surely handled: the
/// guest asks a question directly behind it, and the host has answered.
fn claim_and_ask(scene: &Scene, guest: &Guest, tap: &Capture) -> Result<(Instant, Instant)> {
    let (mac, asked) = (guest.mac(), scene.third.address());
    let answers = |frame: &Frame| {
        let answers = |arp: Arp| arp.operation == ArpOperation::REPLY && arp.sender == asked;
        frame.outgoing && frame.arp().is_some_and(answers)
    };
    let before = tap.count(answers)?;
    let claim = Arp::gratuitous_request(mac, VIP).frame(mac, Mac::BROADCAST);
    let question = Arp::question(mac, guest.address(), asked).frame(mac, Mac::BROADCAST);
    RawSender::new(guest.netns(), "eth0")?.send_in_order(&[&claim, &question])?;
    poll_until(SHORT, "the answer behind the claim", || (tap.count(answers).ok()? > before).then_some(()))?;
    let claims = tap.matching(|frame| !frame.outgoing && frame.announces(VIP))?;
    let answered = tap.matching(answers)?;
    let (claim, answer) =
        (claims.last().context("no claim was seen")?, answered.last().context("no answer")?);
    ensure!(claim.at <= answer.at, "the answer was sent before the claim came");
    Ok((claim.at, answer.at))
}

/// The number of a stream's datagram on the client's cable.
fn number_of(frame: &Frame) -> Option<u64> {
    let (_, port, payload) = frame.udp()?;
    let number = payload.get(8..16)?.first_chunk().copied().map(u64::from_be_bytes);
    number.filter(|_| frame.outgoing && port == DATAGRAM_PORT)
}

#[test]
fn a_move_loses_no_datagram_that_arrives_after_the_claim() {
    Lab::run(|lab| {
        let scene = Scene::start(lab, Setting::default())?;
        let members = [&scene.first, &scene.second];
        members.iter().try_for_each(|guest| guest.add_vip_address(VIP))?;
        let taps = members
            .map(|guest| Capture::start(scene.host.netns(), guest.interface()))
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        let (claimed, _) = claim_and_ask(&scene, &scene.first, taps.first().context("a capture")?)?;
        ensure_pings(scene.outside.netns(), EIP)?;
        let mut tenures = vec![Tenure { owner: 0, claimed, ended: None }];

        let cable = Capture::start(scene.outside.netns(), "eth0")?;
        let no_room = scene.outside.netns().send_drops("eth0")?;
        let to = SocketAddrV4::new(EIP, DATAGRAM_PORT);
        let receivers = members.map(Guest::netns);
        let stream = UdpStream::start(scene.outside.netns(), to, RATE, STREAM_TIME, &receivers)?;
        let serve = |guest: &Guest| {
            let before = stream.received(guest.netns());
            poll_until(SHORT, &format!("datagrams at {}", guest.name()), || {
                (stream.received(guest.netns()) >= before + BETWEEN_MOVES).then_some(())
            })
        };
        serve(&scene.first)?;
        for (owner, (guest, tap)) in members.iter().zip(&taps).enumerate().cycle().skip(1).take(MOVES) {
            let (claimed, handled) = claim_and_ask(&scene, guest, tap)?;
            if let Some(last) = tenures.last_mut() {
                last.ended = Some(handled);
            }
            tenures.push(Tenure { owner, claimed, ended: None });
            serve(guest)?;
        }
        stream.stop_sending();
        let report = stream.finish()?;
        let epoch = scene.vipd.vip(VIP_ID)?.pointer("/owner/epoch").and_then(Value::as_u64);
        ensure!(epoch == Some(MOVES as u64 + 1), "{MOVES} moves were asked for: {epoch:?}");
        let is_numbered = |frame: &Frame| number_of(frame).is_some();
        let on_cable =
            cable.wait_for_count(SHORT, "the datagrams on the cable", report.sent.len(), is_numbered)?;
        let on_cable: HashMap<u64, Instant> =
            on_cable.iter().filter_map(|frame| Some((number_of(frame)?, frame.at))).collect();
        // A machine that is kept from running leaves the uplink's queue full: what did not fit never came to the host.
        let no_room = scene.outside.netns().send_drops("eth0")? - no_room;
        judge(&report, no_room, &on_cable, &members, &tenures)?;
        say(&format!(
            "{MOVES} moves under {:.0} datagrams a second: {} of {} arrived, each at the owner; {no_room} never came to the host",
            report.rate(),
            report.sent.len() - report.lost().len(),
            report.sent.len()
        ))
    });
}

/// Fails unless each datagram that came to the host arrived once, at a guest that owned the VIP while it was on its way.
/// For `no_room` of them the uplink's queue had no room.
fn judge(
    report: &StreamReport,
    no_room: u64,
    on_cable: &HashMap<u64, Instant>,
    members: &[&Guest],
    tenures: &[Tenure],
) -> Result<()> {
    let lost = report.lost();
    ensure!(
        lost.len() as u64 <= no_room,
        "{} datagrams were lost, and {no_room} never came to the host: {:?}; owners: {tenures:#?}",
        lost.len(),
        lost.first()
    );
    ensure!(
        no_room <= report.sent.len() as u64 / MOST_WITHOUT_ROOM,
        "{no_room} of {} datagrams never came to the host: this machine is too slow for the stream",
        report.sent.len()
    );
    ensure!(report.duplicates() == 0, "{} datagrams arrived twice", report.duplicates());
    for (index, guest) in members.iter().enumerate() {
        for arrival in &report.receiver(guest.netns())?.arrivals {
            let sent = on_cable.get(&arrival.number).context("a datagram arrived that was never sent")?;
            let mut owned = tenures.iter().filter(|tenure| tenure.owner == index);
            ensure!(
                owned.any(|tenure| tenure.covers(*sent, arrival.at)),
                "{} got datagram {} from {sent:?} to {:?} and was not the owner: {tenures:#?}",
                guest.name(),
                arrival.number,
                arrival.at
            );
        }
    }
    Ok(())
}
