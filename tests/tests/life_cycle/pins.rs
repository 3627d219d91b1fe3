//! Pins: whose they are, of what shape, and what if some are gone.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vip_lab::{Lab, LogMark};

use crate::stage::{
    EIP, SOON, Stage, VIP_ID, claim, config, must_be_same_ownership, must_be_whole, wait_for_more,
};

/// How long vipd may take to refuse its work.
const REFUSAL: Duration = Duration::from_secs(60);

/// The text of vipd's log since a mark.
fn log_since(stage: &Stage, mark: LogMark) -> String {
    stage.vipd.log().lines_since(mark).into_iter().map(|line| line.text + "\n").collect()
}

/// The files in the directory of pinned links.
fn links(stage: &Stage) -> Result<Vec<String>> {
    let entries = fs::read_dir(stage.vipd.bpffs().join("links"))?;
    entries.map(|entry| entry?.file_name().into_string().ok().context("a name that is no text")).collect()
}

#[test]
fn a_second_vipd_is_refused_and_the_first_goes_on() {
    Lab::run(|lab| {
        let stage = Stage::start(lab)?;
        let before = stage.status()?;
        let pid = before.pointer("/pid").and_then(Value::as_u64).context("no process id")?;
        let mark = stage.vipd.log().mark();
        let mut second = stage.vipd.spawn_another()?;
        let status = second.wait(REFUSAL)?;
        ensure!(status.code() == Some(1), "the second ended with {status}");
        let log = log_since(&stage, mark);
        ensure!(log.contains(&format!("process {pid}")), "the first is not named: {log}");
        ensure!(stage.status()?.pointer("/pid") == before.pointer("/pid"), "another one answers");
        claim(&stage.second)?;
        stage.vipd.wait_for_owner(VIP_ID, "second", SOON)?;
        stage.must_serve(EIP, &stage.second)
    });
}

#[test]
fn tables_of_another_shape_are_refused_by_name_and_forwarding_is_untouched() {
    Lab::run(|lab| {
        let mut stage = Stage::start(lab)?;
        let before = stage.vip()?;
        let stream = stage.stream(EIP, 1_000, Duration::from_secs(100))?;
        stage.vipd.kill9()?;
        // The first table of another size, in the order of their names, is the one that is told of.
        for (capacity, table) in
            [("vips: 100", "ADVERTS"), ("eips: 100", "NODES"), ("subnets: 5000", "NODES")]
        {
            stage.vipd.write_config(&config().with(&format!("capacity: {{ {capacity} }}")))?;
            let mark = stage.vipd.log().mark();
            stage.vipd.begin()?;
            let status = stage.vipd.wait_for_end(REFUSAL)?;
            ensure!(status.code() == Some(1), "vipd ended with {status}");
            let refused =
                stage.vipd.log().wait_for_line(mark, &format!("table {table} is pinned in"), SOON)?;
            ensure!(refused.text.contains("forwarding goes on"), "{}", refused.text);
        }
        wait_for_more(&stream, &stage.first, 500)?;
        stage.vipd.write_config(&config())?;
        stage.vipd.begin()?;
        stage.vipd.ready()?;
        must_be_same_ownership(&before, &stage.vip()?)?;
        wait_for_more(&stream, &stage.first, 500)?;
        stream.stop_sending();
        must_be_whole(stream)
    });
}

#[test]
fn programs_whose_pins_were_lost_are_attached_again() {
    Lab::run(|lab| {
        let mut stage = Stage::start(lab)?;
        let before = stage.vip()?;
        let names = links(&stage)?;
        ensure!(names.len() == 4, "two programs of the uplink and one for each port: {names:?}");
        for name in &names {
            stage.vipd.kill9()?;
            fs::remove_file(stage.vipd.bpffs().join("links").join(name))?;
            stage.vipd.begin()?;
            stage.vipd.ready()?;
            stage.must_serve(EIP, &stage.first).with_context(|| format!("after the loss of {name}"))?;
            must_be_same_ownership(&before, &stage.vip()?)
                .with_context(|| format!("after the loss of {name}"))?;
        }
        claim(&stage.second)?;
        stage.vipd.wait_for_owner(VIP_ID, "second", SOON)?;
        stage.must_serve(EIP, &stage.second)?;
        let mut after = links(&stage)?;
        let mut names = names;
        after.sort();
        names.sort();
        ensure!(after == names, "the links were {names:?} and are {after:?}");
        Ok(())
    });
}

#[test]
fn tables_whose_pins_were_lost_are_made_and_filled_again() {
    Lab::run(|lab| {
        let mut stage = Stage::start(lab)?;
        for table in ["NODES", "SCATTERED", "PORTS", "PORT_DEVS", "DROPS", "NEXTHOPS", "VIPS", "CONFIG"] {
            stage.vipd.kill9()?;
            fs::remove_file(stage.vipd.bpffs().join(table)).with_context(|| table.to_owned())?;
            stage.vipd.begin()?;
            stage.vipd.ready().with_context(|| format!("after the loss of {table}"))?;
            stage.wait_for_sync("in_sync").with_context(|| format!("after the loss of {table}"))?;
            // Owners that are not remembered any more are told by the next claim.
            claim(&stage.first)?;
            stage.vipd.wait_for_owner(VIP_ID, "first", SOON)?;
            stage.must_serve(EIP, &stage.first).with_context(|| format!("after the loss of {table}"))?;
        }
        claim(&stage.second)?;
        stage.vipd.wait_for_owner(VIP_ID, "second", SOON)?;
        stage.must_serve(EIP, &stage.second)
    });
}

#[test]
fn all_pins_may_be_lost() {
    Lab::run(|lab| {
        let mut stage = Stage::start(lab)?;
        stage.vipd.kill9()?;
        fs::remove_dir_all(stage.vipd.bpffs())?;
        stage.vipd.begin()?;
        stage.vipd.ready()?;
        ensure!(stage.status()?.pointer("/adopted") == Some(&Value::Bool(false)), "what was taken over?");
        claim(&stage.first)?;
        stage.vipd.wait_for_owner(VIP_ID, "first", SOON)?;
        stage.must_serve(EIP, &stage.first)
    });
}
