//! Real connections through the uplink.

use anyhow::{Result, ensure};

use crate::{
    echo::{Echo, Talk, connect, exchange},
    stage::{CLIENT, EIP, FIXED_EIP, Stage},
};

/// Much more than a window.
const LONG: usize = 2 << 20;

fn connections_live_while_the_vip_moves(stage: &Stage) -> Result<()> {
    let client = stage.outside.netns();
    let _servers = [Echo::start(stage.first.netns())?, Echo::start(stage.second.netns())?];
    let (stream, name) = connect(client, FIXED_EIP)?;
    ensure!(name == stage.second.name(), "{name} answers for the second guest's EIP");
    let talk = Talk::start(stream);
    for owner in [&stage.first, &stage.second, &stage.first, &stage.second] {
        stage.give_vip(owner)?;
        let (stream, name) = connect(client, EIP)?;
        ensure!(name == owner.name(), "{name} answers for the VIP of {}", owner.name());
        exchange(&stream, LONG)?;
        talk.goes_on()?;
    }
    // The owner opens one itself: the answer to its SYN comes in by the uplink.
    let _server = Echo::start(client)?;
    let (stream, _) = connect(stage.second.netns(), CLIENT)?;
    exchange(&stream, LONG)?;
    talk.finish()
}

#[test]
fn connections_live_while_the_vip_moves_behind_an_xdp_uplink() {
    let test = "connections_live_while_the_vip_moves_behind_an_xdp_uplink";
    Stage::run(test, "xdp", |stage| connections_live_while_the_vip_moves(&stage));
}

#[test]
fn connections_live_while_the_vip_moves_behind_a_tc_uplink() {
    let test = "connections_live_while_the_vip_moves_behind_a_tc_uplink";
    Stage::run(test, "tc", |stage| connections_live_while_the_vip_moves(&stage));
}

#[test]
fn connections_live_while_the_vip_moves_behind_a_split_uplink() {
    let test = "connections_live_while_the_vip_moves_behind_a_split_uplink";
    Stage::run(test, "split", |stage| connections_live_while_the_vip_moves(&stage));
}
