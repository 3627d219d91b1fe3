//! What the demo says before and after.

use std::time::Instant;

use anstream::{eprintln, println};
use anyhow::{Error, Result};
use serde_json::Value;

use super::{
    handover::Handover,
    requests::Requests,
    role::Role,
    scene::{DATAGRAMS, EIP, Scene, Stage, VIP},
    style::{self, BAD, BOLD, DIM, GOOD, count},
};
use crate::stream::StreamReport;

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
    /// What became of the requests since `at`.
    pub(super) requests: Requests,
}

/// What this is, and a picture.
pub(super) fn print_title() {
    let (master, backup) = (Role::Master, Role::Backup);
    println!(
        "{BOLD}A VIP moves between two real keepalived guests while a client asks for a page through its EIP.{BOLD:#}"
    );
    println!();
    println!(
        "                                        {} ── {} {}  nginx + keepalived",
        master.interface(),
        master.name(),
        master.address()
    );
    println!("  client ────── eth0  hypervisor hv1 ──┤");
    println!(
        "                      vipd: XDP and TC  {} ── {}  {}  nginx + keepalived",
        backup.interface(),
        backup.name(),
        backup.address()
    );
    println!();
    println!("  EIP {EIP}  =  VIP {VIP}  =  whichever guest has claimed it");
    println!();
    println!(
        "{DIM}Everything runs in network namespaces of its own and is removed at the end, also after Ctrl-C.{DIM:#}"
    );
    println!();
}

/// What was measured of the moves.
pub(super) fn print_moves(moves: &[Move]) {
    for (index, it) in moves.iter().enumerate() {
        print_move(index + 1, it);
    }
}

fn print_move(number: usize, it: &Move) {
    let Move { from, to, at, before, after, handover, datagrams, requests } = it;
    let Handover { claim, sent, delivered, late } = *handover;
    let (from, to, interface) = (from.name(), to.name(), to.interface());
    println!();
    println!("{BOLD}Move {number}: {from} → {to}{BOLD:#}");
    let line = |title: &str, text: &str| println!("  {DIM}{title:<11}{DIM:#} {text}");

    let noticed = style::time(claim.saturating_duration_since(*at));
    line(
        "keepalived",
        &format!(
            "{noticed} from nginx's change to the claim: its check runs every 2 s, its adverts every second"
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
    let total = style::time(delivered.saturating_duration_since(claim));
    line(
        "",
        &format!(
            "{BOLD}{total}{BOLD:#} from the claim on {interface} to the first packet for the VIP sent out there:"
        ),
    );
    let gap = style::time(sent.saturating_duration_since(claim));
    let path = style::time(delivered.saturating_duration_since(sent));
    line(
        "",
        &format!(
            "{gap} until the client's next packet, {path} from the client's NIC through vipd to {interface}"
        ),
    );

    let lost = datagrams.lost();
    let lost_after = lost.iter().filter(|(_, sent)| *sent >= claim).count();
    line(
        "datagrams",
        &format!(
            "{} sent through the EIP, {DATAGRAMS} a second: {} lost before the claim, {BOLD}{lost_after} lost after it{BOLD:#}",
            datagrams.sent.len(),
            lost.len() - lost_after,
        ),
    );
    line("", &format!("{late} went to {from} after the claim"));
    line("requests", &describe(requests));
}

fn describe(requests: &Requests) -> String {
    let Requests { pages, refused, unanswered } = requests;
    let pages = pages.iter().map(|(guest, number)| format!("{number} answered by {guest}"));
    let failed = format!("{refused} refused, {unanswered} without an answer");
    pages.chain([failed]).collect::<Vec<_>>().join(", ")
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
    let status = scene.status()?;
    let drops = status.pointer("/drops").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let packets = |drop: &Value| drop.get("packets").and_then(Value::as_u64).unwrap_or_default();
    let happened: Vec<&Value> = drops.iter().filter(|drop| packets(drop) > 0).collect();
    if happened.is_empty() {
        println!("  vipd dropped no packet");
        return Ok(());
    }
    println!("  vipd dropped, by reason:");
    for drop in happened {
        let text = |name: &str| drop.get(name).and_then(Value::as_str).unwrap_or("?");
        println!("  {:>8} {}  {DIM}{}{DIM:#}", packets(drop), text("reason"), text("description"));
    }
    Ok(())
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
