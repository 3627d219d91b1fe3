//! What the demo of several hosts says.

use std::time::Duration;

use anstream::{eprintln, println};
use anyhow::{Error, Result};

use super::{
    super::style::{self, BAD, BOLD, DIM, GOOD, count},
    judge::{Fate, Stale, percentile},
    stage::{BESIDE, ELSEWHERE, MEMBERS, Stage, VIPS, eip, vip, vip_id},
    watch::{Client, Observed, RATE},
};
use crate::Binaries;

/// What this is, and a picture.
pub(super) fn print_title(hosts: u8, moves: usize) {
    println!(
        "{BOLD}{moves} moves of VIPs between two hosts, under three streams of {RATE} datagrams a second.{BOLD:#}"
    );
    println!();
    println!("   client ── router ──┬── hv1  vipd ┬─ {:<8} keepalived", MEMBERS[0].name);
    println!("   (outside)          │             └─ {:<8} a client", BESIDE[0].name);
    println!("                      ├── hv2  vipd ┬─ {:<8} keepalived", MEMBERS[1].name);
    println!("            underlay  │             └─ {:<8} a client", BESIDE[1].name);
    println!("             bridge   ├── hv3  vipd ── {:<8} a client", ELSEWHERE.name);
    for host in 4..=hosts {
        println!("                      ├── hv{host}  vipd");
    }
    println!();
    println!(
        "  {VIPS} VIPs ({} to {}), each with an EIP ({} to {}), take turns:",
        vip(0),
        vip(VIPS - 1),
        eip(0),
        eip(VIPS - 1)
    );
    println!("  one alone may move eight times at once and then once a second.");
    println!(
        "{DIM}All of it runs in network namespaces of its own, which are removed at the end, also on Ctrl-C.{DIM:#}"
    );
    println!();
}

/// A line of progress.
pub(super) fn print_progress(text: &str) {
    println!("  {DIM}{text}{DIM:#}");
}

/// A client in words.
fn who(client: Client) -> &'static str {
    match client {
        Client::SameHost => "a client on the new owner's host",
        Client::OtherHost => "the client on hv3",
        Client::Outside => "the client outside, by the EIP",
    }
}

/// Median, 99th percentile and maximum, right-aligned.
fn three(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let column = |percent| percentile(times, percent).map_or_else(|| "-".to_owned(), style::time);
    format!("{:>10} {:>10} {:>10}", column(50), column(99), column(100))
}

/// What was measured.
pub(super) fn print_results(hosts: u8, all: &[Observed]) {
    println!();
    println!(
        "{BOLD}{:<52}{BOLD:#}{:>10} {:>10} {:>10}",
        "From the claim to the first at the new owner, from", "p50", "p99", "max"
    );
    for (index, client) in Client::ALL.into_iter().enumerate() {
        let first = |observed: &Observed| observed.fates.get(index).and_then(|fate| fate.first);
        let mut times: Vec<Duration> = all.iter().filter_map(first).collect();
        println!("  {:<50}{}", who(client), three(&mut times));
    }
    println!(
        "  {DIM}The datagrams of a client are {} apart: that is the least that these figures can tell.{DIM:#}",
        style::time(Duration::from_secs(1) / RATE)
    );
    println!();
    println!("{BOLD}What still went to the old owner after the claim, host by host{BOLD:#}");
    println!(
        "  {:<6}{:>10} {:>10} {:>10}{:>16}{:>16}{:>14}",
        "", "until it had", "applied", "the move", "sent to the old", "given to the", "either one"
    );
    println!(
        "  {:<6}{:>10} {:>10} {:>10}{:>16}{:>16}{:>14}",
        "host", "p50", "p99", "max", "owner's host", "old owner", "afterwards"
    );
    for host in 0..usize::from(hosts) {
        let mut times: Vec<Duration> = all.iter().filter_map(|observed| observed.it.interval(host)).collect();
        let sent = all.iter().filter_map(|observed| observed.stale.get(host));
        let sent = sent.fold(Stale::default(), |sum, it| Stale {
            before_applied: sum.before_applied + it.before_applied,
            after_applied: sum.after_applied + it.after_applied,
        });
        // What an old owner gets, its own host gives to it.
        let given =
            all.iter().filter(|observed| observed.it.from == host).flat_map(|observed| observed.fates);
        let (given, given_after) = given.fold((0, 0), |(meanwhile, after), fate| {
            (meanwhile + fate.to_old_owner, after + fate.to_old_owner_after)
        });
        println!(
            "  {:<6}{}{:>16}{:>16}{:>14}",
            format!("hv{}", host + 1),
            three(&mut times),
            sent.before_applied,
            given,
            sent.after_applied + given_after
        );
    }
    println!(
        "  {DIM}The moment is that of `vipctl history`, to the end of its millisecond. On the new owner's host the claim itself is the move.{DIM:#}"
    );
    println!();
    println!("{BOLD}Datagrams{BOLD:#}");
    println!(
        "  {:<36}{:>10}{:>10}{:>12}{:>12}{:>15}{:>15}",
        "from", "sent", "a second", "to the old", "lost before", "lost until", "lost after"
    );
    println!(
        "  {:<36}{:>10}{:>10}{:>12}{:>12}{:>15}{:>15}",
        "", "", "", "owner", "the claim", "its host knew", "its host knew"
    );
    let watched: Duration =
        all.iter().map(|observed| observed.it.window.end - observed.it.window.start).sum();
    for (index, client) in Client::ALL.into_iter().enumerate() {
        let sum = |part: fn(&Fate) -> usize| -> usize {
            all.iter().filter_map(|observed| observed.fates.get(index)).map(part).sum()
        };
        let sent = sum(|fate| fate.sent);
        println!(
            "  {:<36}{:>10}{:>10}{:>12}{:>12}{:>15}{:>15}",
            who(client),
            sent,
            sent as u128 * 1000 / watched.as_millis().max(1),
            sum(|fate| fate.to_old_owner + fate.to_old_owner_after),
            sum(|fate| fate.lost_before),
            sum(|fate| fate.lost_between),
            sum(|fate| fate.lost_after)
        );
    }
    println!(
        "  {DIM}\"Its host\" is the client's own; those from outside enter at any host, so the last one that knew counts.{DIM:#}"
    );
}

/// Datagrams that must not be, of all moves.
pub(super) struct Faults {
    /// Lost after the client's host had applied the move.
    pub(super) lost: usize,
    /// Delivered to the old owner after that moment.
    pub(super) astray: usize,
    /// Arrived twice.
    pub(super) doubled: usize,
}

impl Faults {
    /// Counts them.
    pub(super) fn of(all: &[Observed]) -> Self {
        let sum = |part: fn(&Fate) -> usize| all.iter().flat_map(|observed| &observed.fates).map(part).sum();
        Self {
            lost: sum(|fate| fate.lost_after),
            astray: sum(|fate| fate.astray),
            doubled: sum(|fate| fate.doubled),
        }
    }
}

/// The point of it all.
pub(super) fn print_success(moves: usize, lost: usize, no_room: u64) {
    println!();
    if no_room > 0 {
        println!(
            "  {DIM}The lab's own cables had no room for {no_room} frames: this machine was busy.{DIM:#}"
        );
    }
    let moves = count(moves, "move");
    if lost == 0 {
        println!("{GOOD}{moves}, and nothing was lost once a host had applied one.{GOOD:#}");
    } else {
        println!(
            "{GOOD}{moves}, and no more was lost once a host had applied one ({lost}) than the lab's own cables had no room for.{GOOD:#}"
        );
    }
}

/// What went wrong, with what helps to see why.
pub(super) fn print_failure(stage: &Stage, error: &Error) {
    eprintln!();
    eprintln!("{BAD}The demo failed:{BAD:#} {error:#}");
    for vipd in stage.cluster.vipds() {
        match vipd.vipctl_output(&["status"]) {
            Ok(output) => eprintln!("\n`vipctl status` says:\n{}{}", output.stdout, output.stderr),
            Err(error) => eprintln!("\n`vipctl status` says nothing: {error:#}"),
        }
        eprintln!("vipd's log ends:\n{}", vipd.log().end());
    }
}

/// Prints what to try in a lab that stays up, in another terminal.
pub(super) fn print_around(stage: &Stage, binaries: &Binaries) -> Result<()> {
    println!(
        "\n{BOLD}The lab stays up. Ctrl-C ends and removes it.{BOLD:#} Meanwhile, as root in another terminal:"
    );
    let vipctl = binaries.vipctl.display();
    for (number, vipd) in (1_u8..).zip(stage.cluster.vipds()) {
        println!("\n  {DIM}# hv{number}{DIM:#}");
        println!("  {vipctl} --socket {} get vips", vipd.socket().display());
        println!("  {vipctl} --socket {} history {}", vipd.socket().display(), vip_id(0));
        println!("  nsenter --net={} sh", stage.cluster.host(number)?.netns().path().display());
    }
    for guest in MEMBERS.iter().chain(&BESIDE).chain([&ELSEWHERE]) {
        println!("\n  {DIM}# {}{DIM:#}", guest.name);
        println!("  nsenter --net={} sh", stage.cluster.guest(guest.name)?.netns().path().display());
    }
    println!("\n  {DIM}# the client outside{DIM:#}");
    println!("  nsenter --net={} ping {}", stage.cluster.client().path().display(), eip(0));
    println!("\n  {DIM}# a move: 1 and 0 in these files are who is preferred{DIM:#}");
    println!("  ls {}/*-prefers-*", stage.directory().display());
    Ok(())
}
