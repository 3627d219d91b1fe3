//! A VIP moves between two live guests under a stream of datagrams to its EIP.

use std::{
    net::SocketAddrV4,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    super::{Options, progress, report::Section},
    MS,
};
use crate::{
    Guest, Lab, Mac, RawSender,
    frame::Arp,
    poll_until,
    scene::{EIP, Scene, Setting, VIP, VIP_ID},
    stream::{StreamReport, UdpStream},
};

/// Datagrams a second: one each 50 microseconds, which is how fine a move can be measured.
const RATE: u32 = 20_000;

const PORT: u16 = 7007;

/// Moves that follow each other at once, within what damping lets through: there and back in a fifth of a second.
const AT_ONCE: usize = 7;
const SOON: Duration = Duration::from_millis(100);

/// How long the stream may take to an owner.
const ARRIVES: Duration = Duration::from_secs(10);

/// Moves after those, as fast as damping lets each through immediately.
const LATER: usize = 13;
const A_SECOND: Duration = Duration::from_millis(1100);

/// One move.
struct Move<'g> {
    claimed: Instant,
    from: &'g Guest,
    to: &'g Guest,
}

pub(super) fn run(options: &Options, lab: &Lab, section: &mut Section) -> Result<()> {
    progress!("d: moves under a stream of datagrams");
    let scene = Scene::start(lab, Setting::default())?;
    let guests = [&scene.first, &scene.second];
    for guest in guests {
        guest.add_vip_address(VIP)?;
    }
    // Opened beforehand: opening takes longer than a move.
    let senders = guests.map(|guest| RawSender::new(guest.netns(), "eth0"));
    let [first, second] = senders;
    let senders = [first?, second?];
    let claimants = [(guests[0], &senders[0]), (guests[1], &senders[1])];
    claim(claimants[0])?;
    scene.outside.netns().ping(EIP, 1)?;
    let later = if options.short { 0 } else { LATER };
    let to = SocketAddrV4::new(EIP, PORT);
    let limit = Duration::from_secs(60);
    let stream = UdpStream::start(scene.outside.netns(), to, RATE, limit, &guests.map(Guest::netns))?;
    // Well under way, so that no move meets a cold path.
    let under_way = 2 * RATE as usize / 10;
    poll_until(ARRIVES, "the stream at its first owner", || {
        (stream.received(guests[0].netns()) >= under_way).then_some(())
    })?;
    let mut moves = Vec::new();
    for number in 0..AT_ONCE + later {
        thread::sleep(if number < AT_ONCE { SOON } else { A_SECOND });
        let [(from, _), claimant] = if number % 2 == 0 { claimants } else { [claimants[1], claimants[0]] };
        let claimed = Instant::now();
        claim(claimant)?;
        moves.push(Move { claimed, from, to: claimant.0 });
    }
    let last = guests.get(moves.len() % 2).context("two guests")?;
    let before = stream.received(last.netns());
    poll_until(ARRIVES, "the stream at its last owner", || {
        (stream.received(last.netns()) > before).then_some(())
    })?;
    stream.stop_sending();
    let report = stream.finish()?;
    let owner = scene.vipd.owner(VIP_ID)?;
    ensure!(owner.as_deref() == Some(last.name()), "{owner:?} owns the VIP instead of {}", last.name());
    let mut to_new = Vec::new();
    let mut between = Vec::new();
    for Move { claimed, from, to } in &moves {
        let first = arrival(&report, to, *claimed, true)?;
        let old = arrival(&report, from, first, false)?;
        to_new.push((first - *claimed).as_secs_f64() * 1e3);
        between.push((first - old).as_secs_f64() * 1e3);
    }
    let size = format!("{} moves", moves.len());
    section.tell("claim sent to first datagram at the new owner", &size, MS, to_new)?;
    section.tell("last datagram at the old owner to first at the new", &size, MS, between)?;
    let strays = report.receivers.iter().map(|receiver| receiver.arrivals.len()).sum::<usize>();
    section.verified.push(format!(
        "{} datagrams sent at {:.0} a second, {strays} arrived at the two owners, {} were lost; each claim moved the VIP, and \
         the last one has it",
        report.sent.len(),
        report.rate(),
        report.lost().len()
    ));
    Ok(())
}

/// A guest claims the VIP.
fn claim((guest, sender): (&Guest, &RawSender)) -> Result<()> {
    sender.send(&Arp::gratuitous_request(guest.mac(), VIP).frame(guest.mac(), Mac::BROADCAST))
}

/// The first arrival at a guest from a moment on, or the last one before it.
fn arrival(report: &StreamReport, guest: &Guest, moment: Instant, after: bool) -> Result<Instant> {
    let mut times: Vec<_> =
        report.receiver(guest.netns())?.arrivals.iter().map(|arrival| arrival.at).collect();
    times.sort();
    let split = times.partition_point(|at| *at < moment);
    let found = if after { times.get(split) } else { split.checked_sub(1).and_then(|last| times.get(last)) };
    found.copied().with_context(|| format!("no datagram arrived at {}", guest.name()))
}
