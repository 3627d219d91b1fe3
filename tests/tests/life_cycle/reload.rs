//! New versions of the state's file, good and bad.

use std::{fs, net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vip_lab::{Lab, poll_until};

use crate::stage::{
    EIP, SOON, STATE, Stage, VIP_ID, claim, must_be_same_ownership, must_be_whole, number, wait_for_more,
};

/// The state is refused for this reason, with file and, where one is to blame, line.
fn must_refuse(stage: &Stage, line: Option<u32>, reason: &str) -> Result<()> {
    let status = stage.wait_for_status(&format!("a refusal because of {reason}"), |status| {
        status.pointer("/sync/state").and_then(Value::as_str) == Some("refused")
            && status.pointer("/sync/error").and_then(Value::as_str).is_some_and(|text| text.contains(reason))
    })?;
    let error = status.pointer("/sync/error").and_then(Value::as_str).context("no error")?;
    let line = line.map_or_else(String::new, |line| format!("{line}:"));
    let place = format!("{}:{line}", stage.vipd.state_file().display());
    ensure!(error.contains(&place), "{place} is not named in: {error}");
    let text = stage.vipd.vipctl_output(&["status"])?;
    ensure!(text.stdout.contains("REFUSED") && text.stdout.contains(reason), "{text}");
    Ok(())
}

#[test]
fn a_bad_state_is_refused_whole_and_the_running_one_stays() {
    Lab::run(|lab| {
        let stage = Stage::start(lab)?;
        let before = stage.vip()?;
        let stream = stage.stream(EIP, 1_000, Duration::from_secs(100))?;

        let unknown = STATE.replace("group: web }", "group: nobody }");
        let half = STATE.split_once("\"02:00:00:00:07:f8").context("the second port")?.0;
        let doubled = STATE.replace("192.168.7.248", "192.168.7.247");
        // Complete lines, but no longer the whole document.
        let shortened = STATE.split_once("subnets:").context("the subnets")?.0;
        for (text, line, reason) in [
            ("hosts: [{ id: hv1, vtep: 198.51.100.1 }\nvpcs: ]\n", Some(2), ""),
            (unknown.as_str(), Some(8), "nobody"),
            ("", None, "empty"),
            (half, None, "cut off"),
            (shortened, None, "missing"),
            (doubled.as_str(), Some(6), "192.168.7.247"),
        ] {
            stage.vipd.write_state(text)?;
            must_refuse(&stage, line, reason)?;
            must_be_same_ownership(&before, &stage.vip()?)?;
            stage.vipd.write_state(STATE)?;
            stage.wait_for_sync("in_sync")?;
        }

        // The same in place, then the file vanishes altogether.
        stage.vipd.write_state_in_place(half)?;
        must_refuse(&stage, None, "")?;
        fs::remove_file(stage.vipd.state_file())?;
        must_refuse(&stage, None, "cannot be read")?;
        must_be_same_ownership(&before, &stage.vip()?)?;
        stage.vipd.write_state(STATE)?;
        stage.wait_for_sync("in_sync")?;

        claim(&stage.second)?;
        wait_for_more(&stream, &stage.second, 200)?;
        stream.stop_sending();
        must_be_whole(stream)
    });
}

#[test]
fn a_restart_on_a_bad_state_goes_on_with_what_is_pinned() {
    Lab::run(|lab| {
        let mut stage = Stage::start(lab)?;
        stage.vipd.kill9()?;
        stage.vipd.write_state("ports: [\n")?;
        let stream = stage.stream(EIP, 1_000, Duration::from_secs(60))?;
        stage.vipd.begin()?;
        stage.vipd.ready()?;
        must_refuse(&stage, None, "")?;
        claim(&stage.second)?;
        wait_for_more(&stream, &stage.second, 500)?;
        stage.vipd.write_state(STATE)?;
        stage.wait_for_sync("in_sync")?;
        let owner = stage.vipd.owner(VIP_ID)?;
        ensure!(owner.as_deref() == Some("second"), "{owner:?} owns the VIP");
        stream.stop_sending();
        must_be_whole(stream)
    });
}

#[test]
fn a_good_state_is_applied_by_rename_and_in_place() {
    const OTHER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);
    Lab::run(|lab| {
        let stage = Stage::start(lab)?;
        let before = stage.vip()?;
        let stream = stage.stream(EIP, 1_000, Duration::from_secs(60))?;
        let more = format!("{STATE}  - {{ id: other-eip, address: {OTHER}, port: second }}\n").replace(
            "eips:    [{ id: web-eip, address: 203.0.113.10, vip: web-vip }]",
            "eips:\n  - { id: web-eip, address: 203.0.113.10, vip: web-vip }",
        );
        let eips = |count: usize| {
            poll_until(SOON, &format!("{count} EIPs"), || {
                let shown = stage.vipd.vipctl(&["get", "eips", "-o", "json"]).ok()?;
                (shown.as_array()?.len() == count).then_some(())
            })
        };
        stage.vipd.write_state(&more)?;
        eips(2)?;
        let report = stage.outside.netns().ping(OTHER, 3)?;
        ensure!(report.received == 3, "{report:?}");
        stage.vipd.write_state_in_place(STATE)?;
        eips(1)?;
        let report = stage.outside.netns().ping(OTHER, 1)?;
        ensure!(report.received == 0, "an EIP that is gone answers: {report:?}");
        stage.vipd.write_state_in_place(&more)?;
        eips(2)?;
        let report = stage.outside.netns().ping(OTHER, 3)?;
        ensure!(report.received == 3, "{report:?}");
        must_be_same_ownership(&before, &stage.vip()?)?;
        stream.stop_sending();
        must_be_whole(stream)
    });
}

/// How full each table is, except that of the neighbours: those come and go by themselves.
fn tables(status: &Value) -> Vec<&Value> {
    let tables = status.pointer("/tables").and_then(Value::as_array).into_iter().flatten();
    tables.filter(|table| table.pointer("/table").and_then(Value::as_str) != Some("NEXTHOPS")).collect()
}

#[test]
fn names_and_remarks_change_nothing_else() {
    Lab::run(|lab| {
        let stage = Stage::start(lab)?;
        let (vip, status) = (stage.vip()?, stage.status()?);
        let stream = stage.stream(EIP, 1_000, Duration::from_secs(60))?;
        wait_for_more(&stream, &stage.first, 200)?;
        let renamed = STATE
            .replace("{ id: web-vip,", "{ id: web-vip, name: \"the web\", remark: \"of 2024\",")
            .replace("{ id: web-eip,", "{ id: web-eip, remark: \"public\",")
            .replace("{ id: first,", "{ id: first, name: \"number one\",")
            .replace("{ id: web, vpc", "{ id: web, name: \"a subnet\", vpc");
        stage.vipd.write_state(&renamed)?;
        let shown = poll_until(SOON, "the new remark", || {
            let vip = stage.vip().ok()?;
            (vip.pointer("/remark").and_then(Value::as_str) == Some("of 2024")).then_some(vip)
        })?;
        must_be_same_ownership(&vip, &shown)?;
        wait_for_more(&stream, &stage.first, 200)?;
        stream.stop_sending();
        let report = stream.finish()?;
        ensure!(report.lost().is_empty() && report.duplicates() == 0, "{} lost", report.lost().len());
        // No counter was touched: the VIP's has grown by exactly what was sent.
        let grown = number(&stage.vip()?, "/packets_in")? - number(&vip, "/packets_in")?;
        ensure!(grown == report.sent.len() as u64, "{} sent, {grown} counted", report.sent.len());
        let after = stage.status()?;
        ensure!(tables(&status) == tables(&after), "the tables have changed: {status:#} {after:#}");
        for pointer in ["/pid", "/uplink", "/ports"] {
            ensure!(status.pointer(pointer) == after.pointer(pointer), "{pointer} has changed in {after:#}");
        }
        Ok(())
    });
}
