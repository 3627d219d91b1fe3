//! Another path, from vipd's next start on.

use std::{net::SocketAddrV4, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vip_lab::{poll_until, stream::UdpStream};

use crate::{
    echo::{Echo, connect, exchange},
    stage::{EIP, SOON, Stage},
};

const PORT: u16 = 9000;

/// The path and what XDP does, as the status and the kernel have it.
fn must_use(stage: &Stage, path: &str) -> Result<()> {
    let (xdp, port) = match path {
        "tc" => (None, "uplink-tc"),
        path => (Some("native"), path),
    };
    let status = stage.status()?;
    let shown = |pointer: &str| status.pointer(pointer).and_then(Value::as_str);
    ensure!(shown("/uplink/path") == Some(path), "{status:#}");
    ensure!(shown("/uplink/xdp") == xdp, "{status:#}");
    for guest in [&stage.first, &stage.second] {
        stage.wait_for_path(guest, port)?;
    }
    let link = stage.host.netns().ip("-details link show dev eth0")?;
    ensure!(link.contains("prog/xdp") == xdp.is_some(), "path {path}: {link}");
    let text = stage.vipd.vipctl_output(&["status"])?.stdout;
    ensure!(text.contains(&format!("path {path}")) && !text.contains("NOT ATTACHED"), "{text}");
    Ok(())
}

/// The client reaches the owner with everything that takes one of the two ways.
fn must_serve(stage: &Stage) -> Result<()> {
    let client = stage.outside.netns();
    stage.outside.flush_neighbours()?;
    let report = client.ping(EIP, 3)?;
    ensure!(report.received == 3, "{report:?}");
    let _server = Echo::start(stage.first.netns())?;
    let (stream, name) = connect(client, EIP)?;
    ensure!(name == stage.first.name(), "{name} answers");
    exchange(&stream, 100_000)
}

#[test]
fn a_restart_with_another_path_takes_it_and_gives_the_same_answers() {
    let test = "a_restart_with_another_path_takes_it_and_gives_the_same_answers";
    Stage::run(test, "xdp", |mut stage| {
        must_use(&stage, "xdp")?;
        must_serve(&stage)?;
        for path in ["tc", "xdp", "tc", "split", "tc", "xdp", "split", "xdp"] {
            stage.change_path(path)?;
            must_use(&stage, path)?;
            must_serve(&stage)?;
        }
        stage.change_path("tc")?;
        let bpffs = stage.vipd.bpffs();
        let bpffs = bpffs.to_str().context("a path that is text")?;
        let output = stage.vipd.vipctl_output(&["detach", "--bpffs", bpffs])?;
        ensure!(output.status.success(), "{output}");
        poll_until(SOON, "vipd's end", || (!stage.vipd.is_running()).then_some(()))?;
        ensure!(!stage.vipd.bpffs().exists(), "{} is left", stage.vipd.bpffs().display());
        Ok(())
    });
}

#[test]
fn a_change_between_xdp_and_split_loses_nothing() {
    let test = "a_change_between_xdp_and_split_loses_nothing";
    Stage::run(test, "xdp", |mut stage| {
        let (client, guest) = (stage.outside.netns().clone(), stage.first.netns().clone());
        let _server = Echo::start(&guest)?;
        let (tcp, _) = connect(&client, EIP)?;
        let to = SocketAddrV4::new(EIP, PORT);
        let stream = UdpStream::start(&client, to, 2000, Duration::from_secs(60), &[&guest])?;
        for path in ["split", "xdp", "split"] {
            let before = stream.received(&guest);
            stage.change_path(path)?;
            must_use(&stage, path)?;
            exchange(&tcp, 100_000)?;
            poll_until(SOON, "more datagrams", || (stream.received(&guest) > before + 200).then_some(()))?;
        }
        stream.stop_sending();
        let report = stream.finish()?;
        ensure!(report.lost().is_empty() && report.duplicates() == 0, "{} were lost", report.lost().len());
        Ok(())
    });
}
