//! `vipctl detach`: the end, with and without vipd.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vip_lab::{Binaries, EipReach, Guest, Lab, Mac, Output, Vipd, poll_until};

use crate::stage::{EIP, SOON, STATE, Stage, VIP, VIP_ID, claim, config, first_guest, second_guest};

/// The MAC that a guest's neighbour table has for an address.
fn cached_mac(guest: &Guest, address: Ipv4Addr) -> Result<Option<Mac>> {
    let text = guest.netns().ip(&format!("-json neighbour show to {address}"))?;
    let entries: Value = serde_json::from_str(&text).context("`ip -json neighbour` printed no JSON")?;
    entries.pointer("/0/lladdr").and_then(Value::as_str).map(str::parse).transpose()
}

/// Waits until an entry is older than the time in which the kernel takes no second answer (`locktime`, arp(7): 1 s).
fn wait_until_cached_for_long(guest: &Guest, address: Ipv4Addr) -> Result<()> {
    poll_until(SOON, "the cached entry to be old enough", || {
        let text = guest.netns().ip(&format!("-json -statistics neighbour show to {address}")).ok()?;
        let entries: Value = serde_json::from_str(&text).ok()?;
        entries.pointer("/0/updated").and_then(Value::as_u64).filter(|seconds| *seconds >= 2)
    })?;
    Ok(())
}

/// The usual stage with both guests on a bridge of the host; only the owner has the VIP on its interface.
fn bridged(lab: &Lab) -> Result<Stage> {
    let host = lab.add_host("hv1")?;
    let outside = host.add_outside(EipReach::OnLink)?;
    host.add_bridge("br0", None)?;
    let first = host.add_guest(&first_guest()?)?;
    let second = host.add_guest(&second_guest()?)?;
    host.enslave("tap0", "br0")?;
    host.enslave("tap1", "br0")?;
    let mut vipd = Vipd::start(&host, &Binaries::from_env()?, &config(), STATE)?;
    vipd.ready()?;
    let stage = Stage { vipd, first, second, outside, host };
    stage.first.add_vip_address(VIP)?;
    claim(&stage.first)?;
    stage.vipd.wait_for_owner(VIP_ID, "first", SOON)?;
    stage.must_serve(EIP, &stage.first)?;
    Ok(stage)
}

fn detach(stage: &Stage) -> Result<Output> {
    let bpffs = stage.vipd.bpffs();
    let bpffs = bpffs.to_str().context("a path that is text")?;
    let output = stage.vipd.vipctl_output(&["detach", "--bpffs", bpffs])?;
    ensure!(output.status.success(), "{output}");
    Ok(output)
}

/// Nothing of the programs is left, and the other guest goes on by itself.
fn must_be_gone(stage: &Stage) -> Result<()> {
    ensure!(!stage.vipd.bpffs().exists(), "pins are left in {}", stage.vipd.bpffs().display());
    let (host, second) = (stage.host.netns(), &stage.second);
    let shown = host.ip("-details link show")?;
    ensure!(!shown.contains("xdp"), "XDP is left: {shown}");
    let cached = cached_mac(second, VIP)?;
    ensure!(cached == Some(stage.first.mac()), "the neighbour table has {cached:?} for the VIP");
    // The bridge carries them now.
    let report = second.netns().ping(VIP, 3)?;
    ensure!(report.received == 3, "{report:?}");
    let report = stage.outside.netns().ping(EIP, 1)?;
    ensure!(report.received == 0, "the EIP still answers: {report:?}");
    Ok(())
}

fn must_start_afresh(stage: &mut Stage) -> Result<()> {
    stage.vipd.begin()?;
    stage.vipd.ready()?;
    ensure!(stage.status()?.pointer("/adopted") == Some(&Value::Bool(false)), "what was taken over?");
    let owner = stage.vipd.owner(VIP_ID)?;
    // The ping of the other guest may have told of the owner already; nobody else can be it.
    ensure!(owner.is_none() || owner.as_deref() == Some("first"), "{owner:?} owns the VIP");
    claim(&stage.first)?;
    stage.vipd.wait_for_owner(VIP_ID, "first", SOON)?;
    stage.must_serve(EIP, &stage.first)
}

/// The other guest knows the VIP by its constant MAC.
fn learn_constant_mac(stage: &Stage) -> Result<()> {
    let report = stage.second.netns().ping(VIP, 2)?;
    ensure!(report.received == 2, "{report:?}");
    let cached = cached_mac(&stage.second, VIP)?;
    ensure!(cached == Some("06:56:c0:a8:07:f6".parse()?), "the neighbour table has {cached:?} for the VIP");
    wait_until_cached_for_long(&stage.second, VIP)
}

#[test]
fn detach_ends_a_running_vipd_and_leaves_guests_that_reach_each_other() {
    Lab::run(|lab| {
        let mut stage = bridged(lab)?;
        learn_constant_mac(&stage)?;
        let output = detach(&stage)?;
        ensure!(output.stdout.contains("ended vipd"), "{output}");
        ensure!(!stage.vipd.is_running(), "vipd still runs");
        must_be_gone(&stage)?;
        must_start_afresh(&mut stage)
    });
}

#[test]
fn detach_works_without_vipd() {
    Lab::run(|lab| {
        let mut stage = bridged(lab)?;
        learn_constant_mac(&stage)?;
        stage.vipd.kill9()?;
        let output = detach(&stage)?;
        ensure!(!output.stdout.contains("ended vipd"), "{output}");
        must_be_gone(&stage)?;
        must_start_afresh(&mut stage)
    });
}

#[test]
fn detach_of_nothing_says_so() {
    Lab::run(|lab| {
        let stage = Stage::start(lab)?;
        let nowhere = stage.vipd.bpffs().with_file_name("nowhere");
        let output = stage.vipd.vipctl_output(&[
            "detach",
            "--bpffs",
            nowhere.to_str().context("a path that is text")?,
        ])?;
        ensure!(output.status.code() == Some(1), "{output}");
        ensure!(output.stderr.contains("nothing is attached"), "{output}");
        stage.must_serve(EIP, &stage.first)
    });
}
