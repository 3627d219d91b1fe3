//! ping and arping: what people use by hand.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::{Guest, Netns};

/// What one `ping` reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PingReport {
    /// Requests sent.
    pub sent: u32,
    /// Replies received.
    pub received: u32,
    /// All that it printed.
    pub text: String,
}

/// How a guest announces an address by arping (iputils).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announcement {
    /// `arping -U`: gratuitous requests.
    Request,
    /// `arping -A`: gratuitous replies.
    Reply,
}

impl Netns {
    /// Sends `count` echo requests, a tenth of a second apart, and waits at most a second for the last reply. No reply
    /// is no error.
    pub fn ping(&self, address: Ipv4Addr, count: u32) -> Result<PingReport> {
        self.ping_with(&[], address, count)
    }

    /// The same from one of the namespace's own addresses, e.g. a VIP.
    pub fn ping_from(&self, source: Ipv4Addr, address: Ipv4Addr, count: u32) -> Result<PingReport> {
        self.ping_with(&["-I", &source.to_string()], address, count)
    }

    fn ping_with(&self, options: &[&str], address: Ipv4Addr, count: u32) -> Result<PingReport> {
        let (count, address) = (count.to_string(), address.to_string());
        let common = ["ping", "-n", "-i", "0.1", "-W", "1", "-c", &count];
        let arguments = [&common, options, &[&address]].concat();
        let output = self.run_within(Duration::from_secs(60), &arguments)?;
        let text = output.stdout;
        // "3 packets transmitted, 3 received, 0% packet loss, time 203ms"
        let summary = text.lines().find(|line| line.contains(" packets transmitted, "));
        let summary =
            summary.with_context(|| format!("ping {address} failed: {} {text}", output.stderr.trim()))?;
        let number = |words: &str| -> Option<u32> {
            let before = summary.split(words).next()?;
            before.rsplit([' ', ',']).next()?.parse().ok()
        };
        let sent = number(" packets transmitted").context("ping's summary names no count of packets")?;
        let received = number(" received").context("ping's summary names no count of replies")?;
        Ok(PingReport { sent, received, text })
    }
}

impl Guest {
    /// Announces an address of the guest once by arping, from `eth0` with the guest's MAC.
    pub fn arping(&self, announcement: Announcement, address: Ipv4Addr) -> Result<()> {
        let mode = match announcement {
            Announcement::Request => "-U",
            Announcement::Reply => "-A",
        };
        let address = address.to_string();
        // By its path: the other arping of Debian, in /usr/sbin, has other options.
        let output = self.netns().run(&["/usr/bin/arping", mode, "-c", "1", "-I", "eth0", &address])?;
        // Its status says whether somebody answered; nobody should.
        ensure!(output.stdout.contains("Sent 1 probes"), "arping {mode} {address} sent nothing: {output}");
        Ok(())
    }
}
