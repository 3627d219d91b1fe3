//! tcpdump: a second opinion on what passed an interface, and a file for people.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{Netns, Process};

/// How long tcpdump may take to start or to end.
const TCPDUMP_TIME: Duration = Duration::from_secs(10);

/// A running tcpdump that writes `NAMESPACE-INTERFACE.pcap` to the lab's directory. A failing test keeps the file and
/// prints its path.
#[derive(Debug)]
pub struct Tcpdump {
    process: Process,
    file: PathBuf,
}

impl Tcpdump {
    /// Starts it; frames from now on are in the file.
    pub fn start(netns: &Netns, interface: &str) -> Result<Self> {
        let file = netns.directory().join(format!("{}-{interface}.pcap", netns.label()));
        let path = file.to_str().context("the lab's directory is no UTF-8 path")?;
        // -Z root: its own user may not write to the lab's directory. Buffer in KiB.
        let arguments = [
            "tcpdump",
            "-n",
            "-U",
            "--immediate-mode",
            "-B",
            "16384",
            "-Z",
            "root",
            "-i",
            interface,
            "-w",
            path,
        ];
        let process = netns.spawn(&format!("tcpdump-{interface}"), &arguments)?;
        process.wait_for_line("listening on", TCPDUMP_TIME)?;
        Ok(Self { process, file })
    }

    /// The pcap file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Ends it, so that the file is complete.
    pub fn stop(&mut self) -> Result<()> {
        self.process.stop(TCPDUMP_TIME)?;
        Ok(())
    }
}
