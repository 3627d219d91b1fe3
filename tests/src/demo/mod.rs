//! The demo: a VIP moves between two real keepalived guests, and back, while a client outside fetches a page through
//! the VIP's EIP.
//!
//! Everything it tells was observed: who owns the VIP by `vipctl`, claims and packets by captures on both ends of
//! their way, keepalived's states by its log, pages and datagrams by the client.

mod around;
mod handover;
pub mod hosts;
mod report;
mod requests;
mod role;
mod scene;
mod stage;
mod style;
mod timeline;
mod watch;

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use self::{
    handover::Handover,
    report::Move,
    requests::Requests,
    role::Role,
    scene::Scene,
    stage::Stage,
    timeline::{Actor, Timeline},
    watch::Watch,
};
use crate::{Binaries, Lab, interrupt};

/// How long two keepalived may take to agree on a master: three adverts are missed first, and machines may be slow.
const SETTLE_TIME: Duration = Duration::from_secs(30);

/// How long a move may take: at most two seconds to the health check, some more for an election.
const MOVE_TIME: Duration = Duration::from_secs(25);

/// How long the pages of a quiet moment may take.
const QUIET_TIME: Duration = Duration::from_secs(15);

/// Pages of a quiet moment: a second and a half.
const QUIET_PAGES: usize = 15;

/// Shows the moves, with the programs at these paths, and judges them: an error when the VIP did not move or the page
/// is not served afterwards. Takes about half a minute.
///
/// With `keep` the lab then stays up, also after an error, until Ctrl-C ends the process.
pub fn run(keep: bool, vipd: &Path, vipctl: &Path) -> Result<()> {
    interrupt::remove_labs_on_signal();
    let binaries = Binaries { vipd: vipd.to_owned(), vipctl: vipctl.to_owned() };
    let lab = Lab::new()?;
    report::print_title();
    let mut watch = Watch::start();
    let mut stage = Stage::build(&lab, &binaries, &mut watch.timeline)?;
    let played = play(&mut stage, &mut watch, keep.then_some(&binaries));
    drop(stage);
    drop(lab);
    played?;
    report::print_end();
    Ok(())
}

/// Everything that needs the lab. With `keep` it does not return once both guests play.
fn play(stage: &mut Stage, watch: &mut Watch, keep: Option<&Binaries>) -> Result<()> {
    stage.wait_for_vipd(&mut watch.timeline)?;
    let mut scene = Scene::begin(stage, &mut watch.timeline)?;
    let outcome = show(&mut scene, watch);
    watch.timeline.flush();
    match &outcome {
        Ok(()) => report::print_summary(),
        Err(error) => report::print_failure(stage, error),
    }
    if let Some(binaries) = keep {
        // What was fetched and captured would grow for ever; the guests go on.
        let _services = scene.stop_watching();
        around::print(stage, binaries);
        loop {
            // Ctrl-C removes the lab and ends the process, in a thread of its own.
            thread::park();
        }
    }
    outcome
}

/// The moves, and what there is to tell about them.
fn show(scene: &mut Scene<'_>, watch: &mut Watch) -> Result<()> {
    let master = Role::Master;
    watch.wait(scene, SETTLE_TIME, "nginx-master to own the VIP", |watch| watch.is_owned_by(master))?;
    scene.start_client(&mut watch.timeline)?;
    watch
        .wait(scene, QUIET_TIME, "the page to come from nginx-master", |watch| watch.is_served_by(master))?;
    watch.wait_for_pages(scene, QUIET_TIME, QUIET_PAGES)?;

    let scene = &*scene;
    let away = show_move(scene, watch, Role::Backup, |timeline| {
        timeline.say(Actor::Demo, "stops nginx on nginx-master, and takes care that it cannot be started");
        scene.stop_nginx(master)
    })?;
    let back = show_move(scene, watch, master, |timeline| {
        timeline
            .say(Actor::Demo, "starts nginx on nginx-master again: its keepalived will want the VIP back");
        scene.start_nginx(master)
    })?;
    watch.timeline.flush();

    let fetches = scene.fetches();
    report::print_move(1, &away);
    report::print_move(2, &back);
    report::print_owners(&watch.timeline, watch.spells(), &fetches);
    report::print_totals(scene, &Requests::within(&fetches, ..))
}

/// Gives keepalived a reason and watches the VIP go to a guest, until pages come from there.
fn show_move(
    scene: &Scene<'_>,
    watch: &mut Watch,
    to: Role,
    reason: impl FnOnce(&mut Timeline) -> Result<()>,
) -> Result<Move> {
    let (from, name) = (to.other(), to.name());
    let before = scene.vip()?;
    let stream = scene.start_datagrams(MOVE_TIME)?;
    watch.wait(scene, QUIET_TIME, "datagrams at the owner of the VIP", |_| {
        scene.received(&stream, from) > 0
    })?;

    let at = Instant::now();
    reason(&mut watch.timeline)?;
    watch.wait(scene, MOVE_TIME, &format!("{name} to own the VIP and serve the page"), |watch| {
        watch.is_served_by(to)
    })?;
    watch.wait_for_pages(scene, QUIET_TIME, QUIET_PAGES)?;

    stream.stop_sending();
    let datagrams = stream.finish()?;
    let after = scene.vip()?;
    let owner = after.pointer("/owner/port").and_then(Value::as_str);
    ensure!(owner == Some(name), "the VIP did not stay with {name}: vipctl says {after}");
    let handover =
        Handover::find(at, &scene.client_frames()?, &scene.frames_at(from)?, &scene.frames_at(to)?)
            .with_context(|| format!("in the captures of the move to {name}"))?;
    let fetches = scene.fetches();
    let asked_before = Requests::within(&fetches, at..handover.claim);
    let asked_after = Requests::within(&fetches, handover.claim..);
    Ok(Move { from, to, at, before, after, handover, datagrams, asked_before, asked_after })
}
