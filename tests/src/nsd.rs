//! nsd: a real name server.

use std::{
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{Netns, Process, poll_until};

/// How long nsd may take to serve.
const START_TIME: Duration = Duration::from_secs(20);

/// The zone it serves; `.example` is nobody's (RFC 2606).
pub const ZONE: &str = "lab.example";

/// A name server on port 53 of one address, ended when dropped.
#[derive(Debug)]
pub struct Nsd {
    process: Process,
}

impl Nsd {
    /// Starts nsd in a namespace, with these texts as the TXT records of `txt.lab.example`. It answers in datagrams of up to 4096
    /// bytes to those who take them (RFC 6891).
    pub fn start(netns: &Netns, address: Ipv4Addr, texts: &[String]) -> Result<Self> {
        let directory = netns.directory().join(format!("{}-nsd-{address}", netns.label()));
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let mut zone = format!(
            "$ORIGIN {ZONE}.\n$TTL 60\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A {address}\n"
        );
        for text in texts {
            writeln!(zone, "txt TXT \"{text}\"")?;
        }
        fs::write(directory.join("zone"), zone).context("cannot write nsd's zone")?;
        let configuration = directory.join("nsd.conf");
        let place = directory.display();
        let text = format!(
            "server:\n\
             \x20 ip-address: {address}\n\
             \x20 port: 53\n\
             \x20 do-ip6: no\n\
             \x20 server-count: 1\n\
             \x20 username: \"\"\n\
             \x20 chroot: \"\"\n\
             \x20 zonesdir: \"{place}\"\n\
             \x20 database: \"\"\n\
             \x20 pidfile: \"{place}/nsd.pid\"\n\
             \x20 xfrdfile: \"{place}/xfrd.state\"\n\
             \x20 xfrdir: \"{place}\"\n\
             \x20 zonelistfile: \"{place}/zone.list\"\n\
             \x20 cookie-secret-file: \"{place}/cookies\"\n\
             \x20 ipv4-edns-size: 4096\n\
             \x20 rrl-ratelimit: 0\n\
             remote-control:\n\
             \x20 control-enable: no\n\
             zone:\n\
             \x20 name: {ZONE}\n\
             \x20 zonefile: zone\n"
        );
        fs::write(&configuration, text).context("cannot write nsd's configuration")?;
        // In the foreground, its messages to the log.
        let configuration = configuration.to_string_lossy();
        let mut process = netns.spawn("nsd", &["nsd", "-d", "-c", &configuration])?;
        let mut ended = Ok(());
        poll_until(START_TIME, "nsd to serve", || {
            ended = process.must_run();
            (ended.is_err() || serves(netns, address)).then_some(())
        })?;
        ended?;
        Ok(Self { process })
    }

    /// What it says.
    pub fn log(&self) -> &crate::Log {
        self.process.log()
    }
}

/// Whether somebody has bound the server's port.
fn serves(netns: &Netns, address: Ipv4Addr) -> bool {
    netns.exec(|| Ok(UdpSocket::bind((address, 53)).is_err())).unwrap_or(false)
}
