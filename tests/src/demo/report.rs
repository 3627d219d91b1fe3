//! What the demo says before and after.

use std::time::Instant;

use anstream::{eprintln, println};
use anyhow::{Error, Result};
use serde_json::Value;

use super::{
    handover::Handover,
    requests::Requests,
    role::Role,
    scene::{DATAGRAMS, Scene},
    stage::{EIP, Stage, VIP, VIP_ID},
    style::{self, BAD, BOLD, DIM, GOOD, count},
    timeline::Timeline,
    watch::Spell,
};
use crate::{http::Fetch, stream::StreamReport};

/// A move of the VIP, by all that was seen of it.
#[derive(Debug)]
pub(super) struct Move {
    /// Who had it.
    pub(super) from: Role,
    /// Who has it.
    pub(super) to: Role,
    /// When the demo gave keepalived a reason.
    pub(super) at: Instant,
    /// The VIP as vipctl showed it before.
    pub(super) before: Value,
    /// And afterwards.
    pub(super) after: Value,
    /// What the wires told.
    pub(super) handover: Handover,
    /// What became of the numbered datagrams.
    pub(super) datagrams: StreamReport,
    /// Requests from `at` to the claim.
    pub(super) asked_before: Requests,
    /// Requests since the claim.
    pub(super) asked_after: Requests,
}

/// What this is, and a picture.
pub(super) fn print_title() {
    println!(
        "{BOLD}A VIP moves between two real keepalived guests while a client asks for a page through its EIP.{BOLD:#}"
    );
    println!();
    println!("                  hypervisor hv1        guests with nginx and keepalived");
    for (role, left) in
        [(Role::Master, "  client ────── eth0  vipd  ┬─ "), (Role::Backup, "                            └─ ")]
    {
        println!("{left}{} ── {:<12}  {}", role.interface(), role.name(), role.address());
    }
    println!();
    println!("  EIP {EIP}  →  VIP {VIP}  →  the guest that claimed it last");
    println!();
    println!(
        "{DIM}All of it runs in network namespaces of its own, which are removed at the end, also on Ctrl-C.{DIM:#}"
    );
    println!();
}

/// A line of a section.
fn line(title: &str, text: &str) {
    println!("  {DIM}{title:<10}{DIM:#}  {text}");
}

/// What was seen of a move.
pub(super) fn print_move(number: usize, it: &Move) {
    let Move { from, to, at, before, after, handover, datagrams, asked_before, asked_after } = it;
    let Handover { claim, sent, delivered, late } = *handover;
    let (from, to, interface) = (from.name(), to.name(), to.interface());
    println!();
    println!("{BOLD}Move {number}: {from} → {to}{BOLD:#}");
    line(
        "keepalived",
        &format!(
            "{} until the claim: its check runs every 2 s, its adverts every second",
            style::time(claim.saturating_duration_since(*at))
        ),
    );
    let (old, new) = (owner(before), owner(after));
    line(
        "vipd",
        &format!(
            "epoch {} → {}, learned from {}, since {}",
            old.epoch, new.epoch, new.learned_from, new.since
        ),
    );
    line(
        "",
        &format!(
            "{BOLD}{}{BOLD:#} from the claim on {interface} to the first packet for the VIP that went out there:",
            style::time(delivered.saturating_duration_since(claim))
        ),
    );
    line(
        "",
        &format!(
            "{} until the client sent its next packet, {} for its way from the client to {interface}",
            style::time(sent.saturating_duration_since(claim)),
            style::time(delivered.saturating_duration_since(sent.max(claim)))
        ),
    );
    let lost = datagrams.lost();
    let lost_after = lost.iter().filter(|(_, sent)| *sent >= claim).count();
    let lost_before = lost.len() - lost_after;
    line(
        "datagrams",
        &format!(
            "{} sent to the EIP, {DATAGRAMS} a second: {lost_before} lost before the claim, {lost_after} after it",
            datagrams.sent.len()
        ),
    );
    line("", &format!("after the claim {late} of them went to {from}"));
    let why =
        if asked_before.refused > 0 { "; nginx was stopped, and keepalived had yet to act" } else { "" };
    line("requests", &format!("before the claim: {}{why}", describe(asked_before)));
    line("", &format!("after the claim:  {}", describe(asked_after)));
}

/// Requests by their end, those that happened.
fn describe(requests: &Requests) -> String {
    let Requests { pages, refused, unanswered } = requests;
    let mut parts: Vec<String> =
        pages.iter().map(|(guest, number)| format!("{number} answered by {guest}")).collect();
    if *refused > 0 {
        parts.push(format!("{refused} refused"));
    }
    if *unanswered > 0 || parts.is_empty() {
        parts.push(format!("{unanswered} without an answer"));
    }
    parts.join(", ")
}

/// Who owned the VIP when, and what the client got meanwhile.
pub(super) fn print_owners(timeline: &Timeline, spells: &[Spell], fetches: &[Fetch]) {
    println!();
    println!("{BOLD}Who owned the VIP{BOLD:#}  {DIM}(vipctl history {VIP_ID}){DIM:#}");
    let ends = spells.iter().skip(1).map(|spell| Some(spell.since)).chain([None]);
    for (spell, end) in spells.iter().zip(ends) {
        let Spell { since, epoch, owner, learned_from } = spell;
        let (until, requests) = match end {
            Some(end) => {
                (format!("{:>8.3} s", timeline.seconds(end)), Requests::within(fetches, *since..end))
            }
            None => (format!("{:>10}", "now"), Requests::within(fetches, *since..)),
        };
        println!(
            "  {:>8.3} s – {until}  {:<12}  epoch {epoch}, by {learned_from}: {}",
            timeline.seconds(*since),
            owner.as_deref().unwrap_or("nobody"),
            count(requests.answered(), "page")
        );
    }
}

struct Owner<'a> {
    epoch: u64,
    since: &'a str,
    learned_from: &'a str,
}

/// The owner in a VIP's JSON.
fn owner(vip: &Value) -> Owner<'_> {
    let text = |pointer: &str| vip.pointer(pointer).and_then(Value::as_str).unwrap_or("?");
    Owner {
        epoch: vip.pointer("/owner/epoch").and_then(Value::as_u64).unwrap_or_default(),
        since: text("/owner/since"),
        learned_from: text("/owner/learned_from"),
    }
}

/// Requests, adverts and vipd's counters over the whole time.
pub(super) fn print_totals(scene: &Scene<'_>, requests: &Requests) -> Result<()> {
    println!();
    println!("{BOLD}In all{BOLD:#}");
    let asked = requests.answered() + requests.refused + requests.unanswered;
    println!("  {}: {}", count(asked, "request"), describe(requests));
    let (to_backup, to_master) = (scene.adverts_to(Role::Backup)?, scene.adverts_to(Role::Master)?);
    println!(
        "  VRRP adverts that vipd let through: {to_backup} from {} to {}, {to_master} back",
        Role::Master.name(),
        Role::Backup.name()
    );
    print_drops(&scene.status()?);
    Ok(())
}

/// vipd's counters that are not zero.
fn print_drops(status: &Value) {
    let drops = status.pointer("/drops").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let packets = |drop: &Value| drop.get("packets").and_then(Value::as_u64).unwrap_or_default();
    let happened: Vec<&Value> = drops.iter().filter(|drop| packets(drop) > 0).collect();
    if happened.is_empty() {
        println!("  vipd dropped no packet: all {} reasons stand at 0", drops.len());
    } else {
        println!("  vipd dropped, by reason:");
    }
    for drop in happened {
        let text = |name: &str| drop.get(name).and_then(Value::as_str).unwrap_or("?");
        println!("  {:>8}  {}  {DIM}{}{DIM:#}", packets(drop), text("reason"), text("description"));
    }
    let lost = status.pointer("/losses/packets").and_then(Value::as_u64).unwrap_or_default();
    if lost > 0 {
        println!("  {lost} lost after vipd had passed them on");
    }
}

/// The point of it all.
pub(super) fn print_summary() {
    println!();
    println!("{GOOD}The VIP moved, and moved back; the page is still served.{GOOD:#}");
}

/// What went wrong, with what helps to see why.
pub(super) fn print_failure(stage: &Stage, error: &Error) {
    eprintln!();
    eprintln!("{BAD}The demo failed:{BAD:#} {error:#}");
    match stage.vipd.vipctl_output(&["status"]) {
        Ok(output) => eprintln!("\n`vipctl status` says:\n{}{}", output.stdout, output.stderr),
        Err(error) => eprintln!("\n`vipctl status` says nothing: {error:#}"),
    }
    eprintln!("vipd's log ends:\n{}", stage.vipd.log().end());
}

/// That nothing is left.
pub(super) fn print_end() {
    println!("{DIM}The lab is gone. To look around in it: cargo xtask demo --keep{DIM:#}");
}
