//! iperf3: streams of TCP and UDP, and their throughput.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{Netns, Process, Signal};

/// How long the server may take to listen.
const SERVER_TIME: Duration = Duration::from_secs(10);

/// What iperf3 may take beyond the measured time: connecting, and exchanging the results.
const OVERHEAD: Duration = Duration::from_secs(15);

/// Traffic of a lab is bounded.
const LONGEST_RUN: Duration = Duration::from_secs(60);

/// An iperf3 server, ended when dropped.
#[derive(Debug)]
pub struct IperfServer {
    process: Process,
    port: u16,
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub struct IperfOptions {
    /// Whom to connect to.
    pub address: Ipv4Addr,
    /// The server's port.
    pub port: u16,
    /// How long to send, in whole seconds, at most a minute.
    pub time: Duration,
    /// Whether the server sends (`-R`) and not the client.
    pub reverse: bool,
}

/// What iperf3 measured.
#[derive(Clone, Debug)]
pub struct IperfReport {
    /// What the receiving side got, in bits per second.
    pub bits_per_second: f64,
    /// Segments that the sender had to send again, where it knows.
    pub retransmits: Option<u64>,
    /// Everything, as iperf3 prints it.
    pub json: Value,
}

impl IperfServer {
    /// Starts a server that serves one client after the other.
    pub fn start(netns: &Netns, port: u16) -> Result<Self> {
        Self::start_with(netns, port, &[])
    }

    /// The same on one address alone: its datagrams come from there. Those of other servers come from the namespace's first address.
    pub fn start_at(netns: &Netns, address: Ipv4Addr, port: u16) -> Result<Self> {
        Self::start_with(netns, port, &["--bind", &address.to_string()])
    }

    fn start_with(netns: &Netns, port: u16, more: &[&str]) -> Result<Self> {
        let port_text = port.to_string();
        let common = ["iperf3", "--server", "--forceflush", "--port", &port_text];
        let process = netns.spawn("iperf3", &[&common, more].concat())?;
        process.wait_for_line("Server listening", SERVER_TIME)?;
        Ok(Self { process, port })
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it.
    pub fn stop(mut self) -> Result<()> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.wait(SERVER_TIME)?;
        Ok(())
    }
}

impl Netns {
    /// Measures one TCP stream from this namespace.
    pub fn iperf(&self, options: IperfOptions) -> Result<IperfReport> {
        let more: &[&str] = if options.reverse { &["--reverse"] } else { &[] };
        let json = self.iperf_with(options.address, options.port, options.time, more)?;
        let received = json.pointer("/end/sum_received/bits_per_second").and_then(Value::as_f64);
        let bits_per_second = received.context("iperf3 reported no throughput")?;
        let retransmits = json.pointer("/end/sum_sent/retransmits").and_then(Value::as_u64);
        Ok(IperfReport { bits_per_second, retransmits, json })
    }

    /// Runs iperf3 from this namespace with more options, e.g. `["--udp", "--bidir"]`, for whole seconds, and gives what it prints.
    pub fn iperf_with(&self, address: Ipv4Addr, port: u16, time: Duration, more: &[&str]) -> Result<Value> {
        ensure!(time <= LONGEST_RUN, "an iperf3 run of {time:?} is longer than {LONGEST_RUN:?}");
        let (address, port, seconds) =
            (address.to_string(), port.to_string(), time.as_secs().max(1).to_string());
        let common = [
            "iperf3",
            "--json",
            "--connect-timeout",
            "5000",
            "--client",
            &address,
            "--port",
            &port,
            "--time",
            &seconds,
        ];
        let output = self.run_within(time + OVERHEAD, &[&common, more].concat())?;
        let json: Value = serde_json::from_str(&output.stdout)
            .with_context(|| format!("iperf3 to {address} printed no JSON: {output}"))?;
        if let Some(error) = json.get("error") {
            bail!("iperf3 to {address} failed: {error}");
        }
        Ok(json)
    }
}
