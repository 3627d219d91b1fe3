//! iperf3: TCP in one stream and in several, datagrams in fragments, each way and both ways at once.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vip_lab::{EipReach, IperfServer, Lab, Netns, scene::EIP_NEIGHBOUR};

use crate::stage::{insides, start};

const TIME: Duration = Duration::from_secs(1);

/// Datagrams of three fragments, slowly enough for an emulated machine: a receiver that is kept from running for a fifth of a second
/// still has room for them.
const DATAGRAMS: [&str; 5] = ["--udp", "--bitrate", "4M", "--length", "4000"];

/// Bytes that a stream of a second carries at the least, on a machine however slow.
const SOME: u64 = 100_000;

fn number(json: &Value, pointer: &str) -> Result<u64> {
    let number = json.pointer(pointer).and_then(Value::as_u64);
    number.with_context(|| format!("no number {pointer} in {json:#}"))
}

/// Runs iperf3 each way and both ways at once, with `options`, and lets `look` judge what was received.
fn everyway(options: &[&str], look: impl Fn(&Value, &str) -> Result<()>) {
    Lab::run(|lab| {
        let scene = start(lab, EipReach::OnLink)?;
        let client = scene.outside.netns();
        let there = IperfServer::start(client, 5201)?;
        for inside in insides(&scene) {
            let netns = inside.guest.netns();
            let here = IperfServer::start_at(netns, inside.address, 5202)?;
            let bind = inside.address.to_string();
            for (ways, sums) in [
                (None, &["sum_received"][..]),
                (Some("--reverse"), &["sum_received"]),
                (Some("--bidir"), &["sum_received", "sum_received_bidir_reverse"]),
            ] {
                let run = |from: &Netns, to, port, more: &[&str]| -> Result<()> {
                    let words = [options, ways.as_slice(), more].concat();
                    let json = from.iperf_with(to, port, TIME, &words)?;
                    for sum in sums {
                        look(&json, sum).with_context(|| format!("{words:?} from {}", from.label()))?;
                    }
                    Ok(())
                };
                run(client, inside.eip, here.port(), &[])?;
                run(netns, EIP_NEIGHBOUR, there.port(), &["--bind", &bind])?;
            }
        }
        Ok(())
    });
}

/// Fails unless all streams together, and each of them, carried something.
fn carried(json: &Value, sum: &str, streams: usize) -> Result<()> {
    let all = json.pointer("/end/streams").and_then(Value::as_array).context("iperf3 tells of no streams")?;
    ensure!(all.len() % streams == 0 && !all.is_empty(), "{} streams instead of {streams}", all.len());
    for stream in all {
        ensure!(number(stream, "/receiver/bytes")? > 0, "a stream carried nothing: {stream}");
    }
    let bytes = number(json, &format!("/end/{sum}/bytes"))?;
    ensure!(bytes >= SOME, "{bytes} bytes in {sum}");
    Ok(())
}

#[test]
fn one_tcp_stream_flows_each_way_and_both_ways_at_once() {
    everyway(&[], |json, sum| carried(json, sum, 1));
}

#[test]
fn four_tcp_streams_flow_each_way_and_both_ways_at_once() {
    everyway(&["--parallel", "4"], |json, sum| carried(json, sum, 4));
}

#[test]
fn no_datagram_in_fragments_is_lost_each_way_and_both_ways_at_once() {
    everyway(&DATAGRAMS, |json, sum| {
        let counted = |name: &str| number(json, &format!("/end/{sum}/{name}"));
        let (packets, lost, bytes) = (counted("packets")?, counted("lost_packets")?, counted("bytes")?);
        ensure!(lost == 0, "{lost} of {packets} datagrams were lost");
        ensure!(packets > 0 && bytes >= SOME, "{packets} datagrams with {bytes} bytes");
        Ok(())
    });
}

#[test]
fn datagrams_of_iperf_are_put_together_at_their_receiver() {
    Lab::run(|lab| {
        let scene = start(lab, EipReach::OnLink)?;
        for inside in insides(&scene) {
            let netns = inside.guest.netns();
            let here = IperfServer::start_at(netns, inside.address, 5202)?;
            let client = scene.outside.netns();
            for (receiver, more) in [(netns, [].as_slice()), (client, &["--reverse"])] {
                let before = receiver.counter("Ip", "ReasmOKs")?;
                let words = [&DATAGRAMS, more].concat();
                let json = client.iperf_with(inside.eip, here.port(), TIME, &words)?;
                let packets = number(&json, "/end/sum_received/packets")?;
                let joined = receiver.counter("Ip", "ReasmOKs")? - before;
                ensure!(
                    packets > 0 && joined >= packets,
                    "{joined} of {packets} datagrams were put together"
                );
            }
        }
        Ok(())
    });
}
