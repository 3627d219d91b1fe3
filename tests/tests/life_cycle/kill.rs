//! Forwarding without vipd, and its return.

use std::{net::SocketAddrV4, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vip_lab::{Lab, Netns, Outside, UNDERLAY_HOST, UNDERLAY_OUTSIDE, poll_until, stream::UdpStream};

use crate::stage::{
    EIP, PORT, SOON, STATE, Stage, VIP_ID, claim, must_be_same_ownership, must_be_whole, number, since,
    wait_for_more,
};

#[test]
fn kill_9_and_restart_lose_no_packet_and_moves_go_on_meanwhile() {
    Lab::run(|lab| {
        let mut stage = Stage::start(lab)?;
        let before = stage.vip()?;
        let stream = stage.stream(EIP, 10_000, Duration::from_secs(100))?;
        wait_for_more(&stream, &stage.first, 5_000)?;

        stage.vipd.kill9()?;
        wait_for_more(&stream, &stage.first, 10_000)?;
        claim(&stage.second)?;
        wait_for_more(&stream, &stage.second, 10_000)?;

        stage.vipd.begin()?;
        stage.vipd.ready()?;
        wait_for_more(&stream, &stage.second, 10_000)?;
        let after = stage.vip()?;
        claim(&stage.first)?;
        wait_for_more(&stream, &stage.first, 5_000)?;
        stream.stop_sending();
        must_be_whole(stream)?;

        ensure!(stage.status()?.pointer("/adopted") == Some(&Value::Bool(true)), "nothing was taken over");
        let owner = after.pointer("/owner/port").and_then(Value::as_str);
        ensure!(owner == Some("second"), "the move without vipd is not known: {after}");
        ensure!(number(&after, "/owner/epoch")? == number(&before, "/owner/epoch")? + 1, "{before} {after}");
        ensure!(since(&after)? > since(&before)?, "{before} {after}");
        Ok(())
    });
}

#[test]
fn what_a_guest_sends_out_as_a_routed_eip_outlives_a_restart() {
    const ROUTED: &str = "192.0.2.77";
    Lab::run(|lab| {
        let mut stage = Stage::start(lab)?;
        // Outside every EIP network: the way out is this host's own route.
        let with_routed_eip = STATE.replace(
            "eips:    [",
            &format!("eips:    [{{ id: routed-eip, address: {ROUTED}, port: first }}, "),
        );
        stage.vipd.write_state(&with_routed_eip)?;
        poll_until(SOON, "two EIPs", || {
            let eips = stage.vipd.vipctl(&["get", "eips", "-o", "json"]).ok()?;
            (eips.as_array()?.len() == 2).then_some(())
        })?;
        let client = stage.outside.netns();
        client.ip(&format!("route add {ROUTED}/32 via {UNDERLAY_HOST}"))?;
        let to = SocketAddrV4::new(UNDERLAY_OUTSIDE, PORT);
        let stream = UdpStream::start(stage.first.netns(), to, 10_000, Duration::from_secs(60), &[client])?;
        let more = |stream: &UdpStream| {
            let enough = stream.received(client) + 5_000;
            poll_until(SOON, "5000 more datagrams at the client", || {
                (stream.received(client) >= enough).then_some(())
            })
        };
        more(&stream)?;
        stage.vipd.kill9()?;
        more(&stream)?;
        stage.vipd.begin()?;
        stage.vipd.ready()?;
        more(&stream)?;
        stream.stop_sending();
        must_be_whole(stream)
    });
}

#[test]
fn owner_epoch_since_and_learned_from_outlive_vipd() {
    Lab::run(|lab| {
        let mut stage = Stage::start(lab)?;
        let first = stage.vip()?;
        claim(&stage.second)?;
        let moved = stage.vipd.wait_for_owner(VIP_ID, "second", SOON)?;
        ensure!(number(&moved, "/owner/epoch")? == number(&first, "/owner/epoch")? + 1, "{first} {moved}");
        ensure!(since(&moved)? > since(&first)?, "{first} {moved}");
        let learned = moved.pointer("/owner/learned_from").and_then(Value::as_str);
        ensure!(learned == Some("garp_request"), "{moved}");
        ensure!(moved.pointer("/owner/mac").and_then(Value::as_str) == Some("02:00:00:00:07:f8"), "{moved}");
        let history = stage.vipd.vipctl(&["history", VIP_ID, "-o", "json"])?;

        stage.vipd.kill9()?;
        stage.vipd.begin()?;
        stage.vipd.ready()?;
        must_be_same_ownership(&moved, &stage.vip()?)?;
        stage.vipd.restart()?;
        must_be_same_ownership(&moved, &stage.vip()?)?;
        let remembered = stage.vipd.vipctl(&["history", VIP_ID, "-o", "json"])?;
        let epochs = |history: &Value| -> Vec<Option<u64>> {
            let changes = history.as_array().into_iter().flatten();
            changes.map(|change| change.pointer("/epoch").and_then(Value::as_u64)).collect()
        };
        ensure!(epochs(&history) == epochs(&remembered), "history was {history} and is {remembered}");
        stage.must_serve(EIP, &stage.second)
    });
}

/// One more client on the link of the uplink, never heard of before, with an address in the EIPs' network and one on the
/// underlay.
fn newcomer(lab: &Lab, outside: &Outside) -> Result<Netns> {
    let client = lab.add_netns("newcomer")?;
    outside.netns().ip("link add link eth0 name new0 type macvlan mode bridge")?;
    outside.netns().ip(&format!("link set dev new0 netns {}", client.name()))?;
    client.ip("address add 203.0.113.77/24 dev new0")?;
    client.ip("address add 198.51.100.77/24 dev new0")?;
    client.ip("link set dev new0 up")?;
    Ok(client)
}

#[test]
fn a_client_never_seen_before_is_served_while_vipd_is_dead() {
    Lab::run(|lab| {
        let mut stage = Stage::start(lab)?;
        stage.vipd.kill9()?;
        let client = newcomer(lab, &stage.outside)?;
        let known = stage.host.netns().ip("neighbour show to 203.0.113.77")?;
        ensure!(known.trim().is_empty(), "the client is known already: {known}");
        let report = client.ping(EIP, 5)?;
        // The first ones may wait for the address resolution, and the kernel keeps them for it.
        ensure!(report.received == report.sent, "{report:?}");
        stage.vipd.begin()?;
        stage.vipd.ready()?;
        let report = client.ping(EIP, 3)?;
        ensure!(report.received == report.sent, "{report:?}");
        Ok(())
    });
}

#[test]
fn vipd_ends_in_order_and_a_move_is_taken_up_by_the_next() {
    Lab::run(|lab| {
        let mut stage = Stage::start(lab)?;
        let stream = stage.stream(EIP, 1_000, Duration::from_secs(60))?;
        let status = stage.vipd.stop()?;
        ensure!(status.success(), "vipd ended with {status}");
        claim(&stage.second)?;
        wait_for_more(&stream, &stage.second, 500)?;
        stage.vipd.begin()?;
        stage.vipd.ready()?;
        let owner = stage.vipd.owner(VIP_ID)?;
        ensure!(owner.as_deref() == Some("second"), "{owner:?} owns the VIP");
        stream.stop_sending();
        must_be_whole(stream)
    });
}

#[test]
fn the_socket_of_a_killed_vipd_hinders_nobody() {
    Lab::run(|lab| {
        let mut stage = Stage::start(lab)?;
        stage.vipd.kill9()?;
        ensure!(stage.vipd.socket().exists(), "a killed vipd leaves its socket");
        let output = stage.vipd.vipctl_output(&["status"])?;
        ensure!(output.status.code() == Some(1), "{output}");
        ensure!(output.stderr.contains("no vipd"), "{output}");
        stage.vipd.begin()?;
        stage.vipd.ready()?;
        poll_until(SOON, "an answer", || stage.status().ok()).context("the new vipd")?;
        Ok(())
    });
}
