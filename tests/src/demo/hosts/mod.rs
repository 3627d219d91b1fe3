//! The demo of several hosts: VIPs move between keepalived guests of two hosts, again and again, while clients beside them, on a third
//! host and outside send numbered datagrams.
//!
//! Everything it tells was observed: claims and frames by captures, datagrams by sender and receivers, and when a host had
//! applied a move by `vipctl history`.

mod judge;
mod report;
mod stage;
mod watch;

use std::{path::Path, thread};

use anyhow::{Result, ensure};

use self::{
    report::Faults,
    stage::Stage,
    watch::{Observed, ROUND},
};
use crate::{Binaries, Lab, interrupt};

/// How much is shown.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many hosts there are, at least three.
    pub hosts: u8,
    /// How often a VIP moves.
    pub moves: usize,
    /// Whether the lab stays up afterwards.
    pub keep: bool,
}

/// Shows the moves, with the programs at these paths, and judges them: an error if a datagram was lost or delivered to the old owner
/// although the client's host had applied the move when it was sent. Takes about half a second for each move.
///
/// With [`Options::keep`] the lab then stays up, also after an error, until Ctrl-C ends the process.
pub fn run(options: Options, vipd: &Path, vipctl: &Path) -> Result<()> {
    ensure!(options.hosts >= 3, "the members are on two hosts and a client is on a third one");
    ensure!(options.moves > 0, "nothing is shown without a move");
    interrupt::remove_labs_on_signal();
    let binaries = Binaries { vipd: vipd.to_owned(), vipctl: vipctl.to_owned() };
    let lab = Lab::new()?;
    report::print_title(options.hosts, options.moves);
    report::print_progress("builds the lab, and starts a vipd on each host");
    let mut stage = Stage::build(&lab, &binaries, options.hosts)?;
    let outcome = play(&mut stage, options);
    if let Err(error) = &outcome {
        report::print_failure(&stage, error);
    }
    if options.keep {
        report::print_around(&stage, &binaries)?;
        loop {
            // Ctrl-C removes the lab and ends the process, in a thread of its own.
            thread::park();
        }
    }
    drop(stage);
    drop(lab);
    outcome
}

fn play(stage: &mut Stage, options: Options) -> Result<()> {
    report::print_progress("starts keepalived in both members");
    stage.elect()?;
    let stage = &*stage;
    let before = stage.cluster.no_room()?;
    let mut all: Vec<Observed> = Vec::new();
    while all.len() < options.moves {
        let moves = ROUND.min(options.moves - all.len());
        all.extend(watch::round(stage, all.len(), moves)?);
        report::print_progress(&format!("{} of {} moves", all.len(), options.moves));
    }
    let no_room = stage.cluster.no_room()?.saturating_sub(before);
    report::print_results(options.hosts, &all);
    let Faults { lost, astray, doubled } = Faults::of(&all);
    ensure!(doubled == 0, "{doubled} datagrams arrived twice");
    ensure!(
        astray == 0,
        "{astray} datagrams were delivered to the old owner although the client's host had applied the move"
    );
    // What the lab's own queues had no room for says nothing about the forwarder.
    ensure!(
        lost as u64 <= no_room,
        "{lost} datagrams did not reach the new owner although the client's host had applied the move, and the lab's cables had no \
         room for {no_room}"
    );
    report::print_success(options.moves, lost, no_room);
    Ok(())
}
