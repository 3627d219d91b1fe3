//! Guests that come and go while vipd runs.

use anyhow::ensure;
use serde_json::Value;
use vip_lab::{Binaries, EipReach, Lab, Vipd, poll_until};

use crate::stage::{EIP, SOON, STATE, Stage, VIP, VIP_ID, claim, config, first_guest, number, second_guest};

/// How the status shows a port's interface.
fn is_served(status: &Value, port: &str) -> bool {
    let ports = status.pointer("/ports").and_then(Value::as_array);
    ports.into_iter().flatten().any(|shown| {
        shown.pointer("/id").and_then(Value::as_str) == Some(port)
            && shown.pointer("/ifindex").is_some_and(Value::is_u64)
            && shown.pointer("/attached").and_then(Value::as_str).is_some_and(|how| how != "none")
    })
}

fn dropped(status: &Value, reason: &str) -> u64 {
    let drops = status.pointer("/drops").and_then(Value::as_array);
    let of = drops
        .into_iter()
        .flatten()
        .find(|drop| drop.pointer("/reason").and_then(Value::as_str) == Some(reason));
    of.and_then(|drop| drop.pointer("/packets")).and_then(Value::as_u64).unwrap_or_default()
}

#[test]
fn ownership_ends_with_the_interface_and_the_guest_may_come_back() {
    Lab::run(|lab| {
        let stage = Stage::start(lab)?;
        let before = stage.vip()?;
        stage.first.unplug()?;
        let gone = poll_until(SOON, "the VIP to be unowned", || {
            let vip = stage.vip().ok()?;
            (vip.pointer("/state").and_then(Value::as_str) == Some("unowned")).then_some(vip)
        })?;
        ensure!(gone.pointer("/owner") == Some(&Value::Null), "{gone}");
        ensure!(number(&gone, "/epoch")? == number(&before, "/epoch")? + 1, "{before} {gone}");
        let status =
            stage.wait_for_status("the port without interface", |status| !is_served(status, "first"))?;
        let unowned = dropped(&status, "unowned");
        ensure!(stage.outside.netns().ping(EIP, 2)?.received == 0, "nobody should answer");
        ensure!(dropped(&stage.status()?, "unowned") >= unowned + 2, "the drops are not counted");

        stage.first.plug()?;
        stage.wait_for_status("the port to be served again", |status| is_served(status, "first"))?;
        let vip = stage.vip()?;
        ensure!(vip.pointer("/owner") == Some(&Value::Null), "nobody has claimed the VIP yet: {vip}");
        stage.first.add_vip_address(VIP)?;
        claim(&stage.first)?;
        let back = stage.vipd.wait_for_owner(VIP_ID, "first", SOON)?;
        ensure!(number(&back, "/owner/epoch")? == number(&before, "/epoch")? + 2, "{before} {back}");
        stage.must_serve(EIP, &stage.first)?;
        claim(&stage.second)?;
        stage.must_serve(EIP, &stage.second)
    });
}

#[test]
fn a_guest_that_vanishes_takes_nothing_from_the_other() {
    Lab::run(|lab| {
        let stage = Stage::start(lab)?;
        let before = stage.vip()?;
        stage.second.unplug()?;
        stage.wait_for_status("the port without interface", |status| !is_served(status, "second"))?;
        stage.must_serve(EIP, &stage.first)?;
        let after = stage.vip()?;
        ensure!(after.pointer("/owner") == before.pointer("/owner"), "{before} {after}");
        Ok(())
    });
}

#[test]
fn guests_that_start_later_than_vipd_are_served_once_they_are_there() {
    Lab::run(|lab| {
        let host = lab.add_host("hv1")?;
        let mut vipd = Vipd::start(&host, &Binaries::from_env()?, &config(), STATE)?;
        vipd.ready()?;
        // The uplink comes later as well.
        let outside = host.add_outside(EipReach::OnLink)?;
        let first = host.add_guest(&first_guest()?)?;
        let second = host.add_guest(&second_guest()?)?;
        let stage = Stage { vipd, first, second, outside, host };
        stage.wait_for_status("both ports and the uplink to be served", |status| {
            is_served(status, "first")
                && is_served(status, "second")
                && status.pointer("/uplink/xdp").and_then(Value::as_str) == Some("native")
        })?;
        stage.wait_for_sync("in_sync")?;
        stage.second.add_vip_address(VIP)?;
        claim(&stage.second)?;
        stage.vipd.wait_for_owner(VIP_ID, "second", SOON)?;
        stage.must_serve(EIP, &stage.second)
    });
}

#[test]
fn an_interface_that_came_back_while_vipd_was_dead_is_taken_up() {
    Lab::run(|lab| {
        let mut stage = Stage::start(lab)?;
        stage.vipd.kill9()?;
        stage.first.unplug()?;
        stage.first.plug()?;
        stage.first.add_vip_address(VIP)?;
        stage.vipd.begin()?;
        stage.vipd.ready()?;
        stage.wait_for_status("the port to be served", |status| is_served(status, "first"))?;
        claim(&stage.first)?;
        stage.vipd.wait_for_owner(VIP_ID, "first", SOON)?;
        stage.must_serve(EIP, &stage.first)
    });
}

#[test]
fn an_uplink_that_vanishes_and_comes_back_serves_again() {
    Lab::run(|lab| {
        let stage = Stage::start(lab)?;
        let xdp = |status: &Value| status.pointer("/uplink/xdp").and_then(Value::as_str).map(str::to_owned);
        stage.host.netns().ip("link delete dev eth0")?;
        stage.wait_for_status("no program on the uplink", |status| xdp(status).is_none())?;
        // Opposite the same client, whose own interface is new as well.
        let (inside, client) = (stage.host.netns(), stage.outside.netns());
        inside.ip(&format!("link add name eth0 type veth peer name eth0 netns {}", client.name()))?;
        client.check(&["ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off", "gro", "on"])?;
        inside.ip("address add 198.51.100.1/24 dev eth0")?;
        inside.ip("link set dev eth0 up")?;
        client.ip("address add 203.0.113.254/24 dev eth0")?;
        client.ip("link set dev eth0 up")?;
        stage
            .wait_for_status("the uplink to be served", |status| xdp(status).as_deref() == Some("native"))?;
        stage.must_serve(EIP, &stage.first)?;
        let report = client.ping(EIP, 3)?;
        ensure!(report.received == 3, "{report:?}");
        Ok(())
    });
}
