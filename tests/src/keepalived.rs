//! Real keepalived in a guest.

use std::{fmt::Write as _, fs, net::Ipv4Addr, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use ipnetwork::Ipv4Network;

use crate::{Guest, Log, LogLine, LogMark, Process};

/// How long keepalived may take to say goodbye.
const STOP_TIME: Duration = Duration::from_secs(10);

/// A VRRP state, as keepalived logs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It owns the VIPs.
    Master,
    /// Another one does.
    Backup,
    /// It cannot: its interface or a script without weight has failed.
    Fault,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Master => "MASTER",
            Self::Backup => "BACKUP",
            Self::Fault => "FAULT",
        }
    }

    /// The state that a line of keepalived's log says it enters.
    fn entered(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once("Entering ")?;
        [Self::Master, Self::Backup, Self::Fault]
            .into_iter()
            .find(|state| rest.strip_prefix(state.word()).is_some_and(|rest| rest.starts_with(" STATE")))
    }
}

/// A script that keepalived runs again and again; exit status 0 is health.
#[derive(Clone, Debug)]
pub struct CheckScript {
    /// The script. Keepalived runs nothing that others than root may write to.
    pub path: PathBuf,
    /// Seconds between two runs.
    pub interval: u32,
    /// Added to the priority: a positive weight while the script succeeds, a negative one while it fails; 0: failure
    /// means [`State::Fault`].
    pub weight: i32,
}

/// The configuration of one VRRP instance.
#[derive(Clone, Debug)]
pub struct KeepalivedConfig {
    /// `router_id`: unique among the guests.
    pub router_id: String,
    /// What it takes itself for at its start.
    pub state: State,
    /// Where it advertises and puts the VIPs.
    pub interface: String,
    /// VRID.
    pub virtual_router_id: u8,
    /// Priority, 1–254; the higher one wins, at once unless `nopreempt`.
    pub priority: u8,
    /// Seconds between two advertisements.
    pub advert_interval: u8,
    /// The password of `auth_type PASS`.
    pub password: String,
    /// The addresses that move.
    pub vips: Vec<Ipv4Network>,
    /// The health check.
    pub check: Option<CheckScript>,
    /// The other members, told by unicast; empty: multicast to 224.0.0.18.
    pub unicast_peers: Vec<Ipv4Addr>,
    /// Whether a master of lower priority is left in office.
    pub nopreempt: bool,
    /// Whether the VIPs get the virtual MAC 00:00:5e:00:01:VRID (`use_vmac`) and not the guest's own.
    pub virtual_mac: bool,
}

impl KeepalivedConfig {
    /// The configuration of the Cloudpods example: VRID 66, priority 100 for the master and 99 for the backup,
    /// advertisements each second by multicast on `eth0`, password 1111.
    pub fn cloudpods(router_id: &str, state: State, vip: Ipv4Network) -> Self {
        Self {
            router_id: router_id.to_owned(),
            state,
            interface: "eth0".to_owned(),
            virtual_router_id: 66,
            priority: if state == State::Master { 100 } else { 99 },
            advert_interval: 1,
            password: "1111".to_owned(),
            vips: vec![vip],
            check: None,
            unicast_peers: Vec::new(),
            nopreempt: false,
            virtual_mac: false,
        }
    }

    /// The same with the example's health check: every two seconds, weight 2. A healthy master has 102 and a healthy
    /// backup 101; a master whose check fails falls to 100, and the backup takes over.
    #[must_use]
    pub fn with_check(self, path: PathBuf) -> Self {
        Self { check: Some(CheckScript { path, interval: 2, weight: 2 }), ..self }
    }

    /// The file that keepalived reads.
    pub fn render(&self) -> Result<String> {
        let mut text = String::new();
        writeln!(text, "global_defs {{\n    router_id {}\n    script_user root", self.router_id)?;
        writeln!(text, "    enable_script_security\n}}")?;
        if let Some(CheckScript { path, interval, weight }) = &self.check {
            writeln!(text, "vrrp_script check {{\n    script \"{}\"", path.display())?;
            writeln!(text, "    interval {interval}\n    weight {weight}\n}}")?;
        }
        writeln!(text, "vrrp_instance VI_1 {{\n    state {}", self.state.word())?;
        writeln!(text, "    interface {}\n    virtual_router_id {}", self.interface, self.virtual_router_id)?;
        writeln!(text, "    priority {}\n    advert_int {}", self.priority, self.advert_interval)?;
        if self.nopreempt {
            writeln!(text, "    nopreempt")?;
        }
        if self.virtual_mac {
            writeln!(text, "    use_vmac")?;
        }
        writeln!(
            text,
            "    authentication {{\n        auth_type PASS\n        auth_pass {}\n    }}",
            self.password
        )?;
        if !self.unicast_peers.is_empty() {
            writeln!(text, "    unicast_peer {{")?;
            self.unicast_peers.iter().try_for_each(|peer| writeln!(text, "        {peer}"))?;
            writeln!(text, "    }}")?;
        }
        writeln!(text, "    virtual_ipaddress {{")?;
        self.vips.iter().try_for_each(|vip| writeln!(text, "        {vip}"))?;
        writeln!(text, "    }}")?;
        if self.check.is_some() {
            writeln!(text, "    track_script {{\n        check\n    }}")?;
        }
        writeln!(text, "}}")?;
        Ok(text)
    }
}

/// A running keepalived, killed when dropped.
#[derive(Debug)]
pub struct Keepalived {
    process: Process,
    name: String,
}

impl Keepalived {
    /// Starts keepalived in a guest, with its configuration, pid files and log in the lab's directory.
    pub fn start(guest: &Guest, config: &KeepalivedConfig) -> Result<Self> {
        Self::start_with(guest, &config.render()?)
    }

    /// The same with this text as its configuration.
    pub fn start_with(guest: &Guest, config: &str) -> Result<Self> {
        let netns = guest.netns();
        let base = netns.directory().join(format!("{}-keepalived", guest.name()));
        let file = |extension: &str| -> Result<String> {
            let path = base.with_extension(extension);
            path.to_str().map(str::to_owned).context("the lab's directory is no UTF-8 path")
        };
        let (configuration, pid, vrrp_pid) = (file("conf")?, file("pid")?, file("vrrp.pid")?);
        fs::write(&configuration, config).with_context(|| format!("cannot write {configuration}"))?;
        let arguments = [
            "keepalived",
            "--dont-fork",
            "--vrrp",
            "--dont-respawn",
            "--log-console",
            "--log-detail",
            "--no-syslog",
            "--use-file",
            &configuration,
            "--pid",
            &pid,
            "--vrrp_pid",
            &vrrp_pid,
        ];
        let process = netns.spawn("keepalived", &arguments)?;
        Ok(Self { process, name: guest.name().to_owned() })
    }

    /// Its log.
    pub fn log(&self) -> &Log {
        self.process.log()
    }

    /// The state that it entered last, and when; None before the first.
    pub fn state(&self) -> Option<(State, LogLine)> {
        self.transitions().pop()
    }

    /// The states that it entered, oldest first, and when.
    pub fn transitions(&self) -> Vec<(State, LogLine)> {
        let lines = self.log().lines_since(LogMark::default());
        lines.into_iter().filter_map(|line| Some((State::entered(&line.text)?, line))).collect()
    }

    /// Waits until it enters a state, after `mark`: a place in [`Keepalived::log`].
    pub fn wait_for_state(&self, mark: LogMark, state: State, limit: Duration) -> Result<LogLine> {
        let entered = format!("Entering {} STATE", state.word());
        self.log()
            .wait_for_line(mark, &entered, limit)
            .with_context(|| format!("keepalived of {}", self.name))
    }

    /// Ends it in order: a master resigns by an advertisement of priority 0 and takes the VIPs off its interface.
    pub fn stop(&mut self) -> Result<()> {
        self.process.stop(STOP_TIME)?;
        Ok(())
    }

    /// Kills it and its children without a farewell: the VIPs stay on the interface, and nobody is told.
    pub fn kill9(&mut self) -> Result<()> {
        self.process.kill9()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cloudpods_example_is_written_as_its_page_has_it() {
        let vip = "192.168.7.246/22".parse().expect("well formed");
        let config = KeepalivedConfig::cloudpods("nginx-master", State::Master, vip)
            .with_check("/tmp/check.sh".into());
        let text = config.render().expect("strings take everything");
        for line in [
            "state MASTER",
            "interface eth0",
            "virtual_router_id 66",
            "priority 100",
            "advert_int 1",
            "auth_type PASS",
            "auth_pass 1111",
            "192.168.7.246/22",
            "weight 2",
            "interval 2",
        ] {
            assert!(text.lines().any(|found| found.trim() == line), "{line} is missing in:\n{text}");
        }
        assert_eq!(text.matches('{').count(), text.matches('}').count(), "{text}");
    }

    #[test]
    fn states_are_read_from_the_log() {
        let line = "Fri Nov 21 09:00:00 2025: (VI_1) Entering MASTER STATE";
        assert_eq!(State::entered(line), Some(State::Master));
        assert_eq!(State::entered("(VI_1) Entering BACKUP STATE (init)"), Some(State::Backup));
        assert_eq!(State::entered("(VI_1) Receive advertisement timeout"), None);
    }
}
