//! `vipd.yaml`: what one agent is, and where it finds its things.
//!
//! [`load`] reads the file, judges it whole and fills in the defaults. [`ConfigError`] lists every problem with
//! its line. Fields of the interface that this build does not obey yet are refused by name: a setting that is
//! silently ignored would be a promise broken in silence.

use std::{
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use ipnetwork::Ipv4Network;
use serde::{Deserialize, Serialize};
use vip_common::tables::HostEntry;

use self::document::Document;
use crate::{
    state::{
        Problem, Problems,
        error::Report,
        words::{self, Complaint},
        yaml::{self, At},
    },
    vlan::Vlan,
};

mod document;
#[cfg(test)]
mod tests;

/// Default of [`Config::socket`].
pub const DEFAULT_SOCKET: &str = "/run/vip/vipd.sock";

/// Default of [`Config::bpffs`].
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf/vip";

/// Default of [`Peers::port`].
pub const DEFAULT_PEERS_PORT: u16 = 4790;

/// Most ports that the tables can hold: the owner word has 20 bits for a port, and 0 says "none".
pub const MAX_PORTS: u32 = (1 << 20) - 1;

/// Most hosts that the tables can hold: their indexes have 16 bits, and 0 says "none".
pub const MAX_HOSTS: u32 = HostEntry::MOST;

/// One agent's settings, valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This host's id in the state.
    pub host: String,
    /// The interface that EIP traffic comes in by.
    pub uplink: String,
    /// The file with the desired state.
    pub source: PathBuf,
    /// Where `vipctl` finds the agent.
    pub socket: PathBuf,
    /// Directory on a bpf filesystem that holds the pins of this agent alone.
    pub bpffs: PathBuf,
    /// How the uplink's XDP program is attached; never silently the other way.
    pub xdp_mode: XdpMode,
    /// Which of the uplink's two programs handles what comes in.
    pub uplink_path: UplinkPath,
    /// Networks that EIPs are on-link in; an EIP outside all of them is routed. No two overlap.
    pub eip_networks: Vec<EipNetwork>,
    /// Answer ARP for, and announce, the EIPs whose owner is on this host.
    pub announce_eips: bool,
    /// How this host and the others tell each other who owns what; `None`: they do not.
    pub peers: Option<Peers>,
    /// Sizes of the tables.
    pub capacity: Capacity,
}

/// How the hosts tell each other who owns what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peers {
    /// The file with the secret that all hosts share, see [`Key::read`](crate::peers::Key::read).
    pub key_file: PathBuf,
    /// The UDP port that all of them have, on their VTEPs.
    pub port: u16,
}

/// Where an XDP program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the stack, after the packet's buffer was made: slow, for drivers without XDP.
    Generic,
}

/// Which of the uplink's two programs handles what comes in. The answers are the same; the cost is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UplinkPath {
    /// XDP everything that it can deliver, TC the rest: cheapest for small packets.
    #[default]
    Xdp,
    /// TC everything, behind GRO; XDP is not attached.
    Tc,
    /// TC established TCP, which GRO makes few large packets of; XDP everything else.
    Split,
}

impl UplinkPath {
    /// The word for it in the configuration and in the status.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Tc => "tc",
            Self::Split => "split",
        }
    }
}

/// A provider network that EIPs belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EipNetwork {
    /// Its id.
    pub id: String,
    /// Its prefix; no host bits are set.
    pub cidr: Ipv4Network,
    /// Its router, inside `cidr`.
    pub gateway: Ipv4Addr,
    /// The VLAN that it is on; none: frames have no tag.
    pub vlan: Option<Vlan>,
}

/// How many entries the tables are made for. Tables cannot grow: another size needs new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Ports: 1 to [`MAX_PORTS`].
    pub ports: u32,
    /// VIPs: at least 1.
    pub vips: u32,
    /// EIPs: at least 1.
    pub eips: u32,
    /// Subnets: at least 1.
    pub subnets: u32,
    /// Hosts, this one included: 1 to [`MAX_HOSTS`].
    pub hosts: u32,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { ports: 4096, vips: 16_384, eips: 16_384, subnets: 4096, hosts: 1024 }
    }
}

/// Why a [`Config`] was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read as text.
    #[error("{}: the configuration cannot be read; correct the path, or the file's permissions or encoding (UTF-8)", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The text was read and is wrong: each line of the message is one problem.
    #[error("{0}")]
    Invalid(Problems),
}

impl ConfigError {
    /// The problems of a text that was read; none where it could not be read.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Read { .. } => &[],
            Self::Invalid(problems) => problems.list(),
        }
    }
}

/// Reads and judges a configuration file. Relative paths in it start at its own directory.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let text =
        fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?;
    let base = path.parent().unwrap_or_else(|| Path::new(""));
    parse(&text, &path.display().to_string(), base)
}

/// Judges a configuration that was read already; `origin` is the name errors give it, `base` the directory at
/// which relative paths start.
pub fn parse(text: &str, origin: &str, base: &Path) -> Result<Config, ConfigError> {
    let document: Document =
        yaml::read(text).map_err(|problem| ConfigError::Invalid(Problems::new(origin, vec![problem])))?;
    let mut judge = Judge::default();
    let config = judge.config(document, base);
    judge.report.finish(origin, config).map_err(ConfigError::Invalid)
}

/// Turns the document into settings, and collects what is wrong with it.
#[derive(Default)]
struct Judge {
    report: Report,
}

impl Judge {
    /// The settings; none only if a problem was noted.
    fn config(&mut self, document: Document, base: &Path) -> Option<Config> {
        let Document {
            host,
            uplink,
            source,
            socket,
            bpffs,
            metrics,
            xdp_mode,
            uplink_path,
            profile,
            eip_networks,
            announce_eips,
            peers,
            capacity,
        } = document;
        self.refuse("metrics", "serve metrics", metrics.as_ref());
        self.profile(profile.as_ref());
        let host = self.word("host", host, "this host's id in the state", words::judge_id);
        let uplink =
            self.word("uplink", uplink, "the interface that EIPs come in by", words::judge_interface);
        let source = self.source(source);
        let path = |path: Option<At<String>>, default: &str| {
            base.join(path.map_or_else(|| default.to_owned(), |path| path.value))
        };
        let socket = path(socket, DEFAULT_SOCKET);
        let bpffs = path(bpffs, DEFAULT_BPFFS);
        let xdp_mode = self.xdp_mode(xdp_mode.as_ref());
        let uplink_path = self.uplink_path(uplink_path.as_ref());
        let eip_networks = self.eip_networks(eip_networks.unwrap_or_default());
        let peers = self.peers(peers, base);
        let capacity = self.capacity(capacity);
        Some(Config {
            host: host?,
            uplink: uplink?,
            source: base.join(source?),
            socket,
            bpffs,
            xdp_mode: xdp_mode?,
            uplink_path: uplink_path?,
            eip_networks,
            announce_eips: announce_eips.unwrap_or(true),
            peers,
            capacity,
        })
    }

    /// Notes that a field is there which this build cannot obey.
    fn refuse<T>(&mut self, field: &str, does: &str, found: Option<&At<T>>) {
        if let Some(At { line, .. }) = found {
            self.report.add(*line, field, format!("this build does not {does} yet"), "remove the field");
        }
    }

    /// A word that has to be there and has to be good.
    fn word(
        &mut self,
        field: &str,
        found: Option<At<String>>,
        meaning: &str,
        judge: fn(&str) -> Result<(), Complaint>,
    ) -> Option<String> {
        let Some(At { value, line }) = found else {
            self.report.add(None, field, "it is missing", format!("write {meaning}"));
            return None;
        };
        match judge(&value) {
            Ok(()) => Some(value),
            Err((what, advice)) => {
                self.report.add(line, field, what, advice);
                None
            }
        }
    }

    fn source(&mut self, source: Option<At<document::Source>>) -> Option<PathBuf> {
        let advice = "write { file: /etc/vip/state.yaml }";
        let Some(At { value: document::Source { file, etcd }, line }) = source else {
            self.report.add(None, "source", "it is missing", advice);
            return None;
        };
        if let Some(At { line, .. }) = etcd {
            self.report.add(line, "source.etcd", "this build does not read etcd yet", advice);
        } else if file.is_none() {
            self.report.add(line, "source", "it names no file", advice);
        }
        file.map(|file| PathBuf::from(file.value))
    }

    fn profile(&mut self, profile: Option<&At<String>>) {
        let Some(At { value, line }) = profile else { return };
        match value.as_str() {
            "default" => {}
            "ucloud" | "cloudpods" | "otc" | "ucloudstack" | "huawei" => {
                let what = format!("this build does not obey profile {value} yet");
                self.report.add(*line, "profile", what, "write default, or remove the field");
            }
            other => {
                let what = format!("there is no profile `{}`", other.escape_debug());
                self.report.add(*line, "profile", what, "write default, or remove the field");
            }
        }
    }

    fn xdp_mode(&mut self, mode: Option<&At<String>>) -> Option<XdpMode> {
        let Some(At { value, line }) = mode else { return Some(XdpMode::Native) };
        match value.as_str() {
            "native" => Some(XdpMode::Native),
            "generic" => Some(XdpMode::Generic),
            other => {
                let what = format!("there is no mode `{}`", other.escape_debug());
                self.report.add(*line, "xdp_mode", what, "write native or generic");
                None
            }
        }
    }

    fn uplink_path(&mut self, path: Option<&At<String>>) -> Option<UplinkPath> {
        let Some(At { value, line }) = path else { return Some(UplinkPath::default()) };
        match value.as_str() {
            "xdp" => Some(UplinkPath::Xdp),
            "tc" => Some(UplinkPath::Tc),
            "split" => Some(UplinkPath::Split),
            other => {
                let what = format!("there is no path `{}`", other.escape_debug());
                self.report.add(*line, "uplink_path", what, "write xdp, tc or split");
                None
            }
        }
    }

    fn eip_networks(&mut self, list: Vec<At<document::EipNetwork>>) -> Vec<EipNetwork> {
        let mut networks: Vec<EipNetwork> = Vec::with_capacity(list.len());
        for At { value: document::EipNetwork { id, cidr, gateway, vlan }, .. } in list {
            let vlan =
                vlan.and_then(|vlan| self.note("eip_networks[].vlan", vlan.line, Vlan::read(&vlan.value)));
            self.note("eip_networks[].id", id.line, words::judge_id(&id.value));
            let prefix = self.note("eip_networks[].cidr", cidr.line, words::read_cidr(&cidr.value));
            let router =
                self.note("eip_networks[].gateway", gateway.line, words::read_address(&gateway.value));
            let (Some(prefix), Some(router)) = (prefix, router) else { continue };
            let place = words::judge_place(router, prefix, || format!("network {}", id.value));
            self.note("eip_networks[].gateway", gateway.line, place);
            for other in &networks {
                if other.id == id.value {
                    let what = format!("the id `{}` is used already", other.id);
                    self.report.add(id.line, "eip_networks[].id", what, "give each network its own id");
                }
                if other.cidr.overlaps(prefix) {
                    let what = format!("{prefix} overlaps {} of network {}", other.cidr, other.id);
                    self.report.add(cidr.line, "eip_networks[].cidr", what, "give each its own addresses");
                }
            }
            networks.push(EipNetwork { id: id.value, cidr: prefix, gateway: router, vlan });
        }
        networks
    }

    /// `None` also if a problem was noted.
    fn peers(&mut self, peers: Option<At<document::Peers>>, base: &Path) -> Option<Peers> {
        let At { value: document::Peers { key_file, port }, line } = peers?;
        if key_file.as_ref().is_none_or(|file| file.value.is_empty()) {
            let advice = "write { key_file: /etc/vip/peers.key }, a file with one secret for all hosts";
            self.report.add(line, "peers.key_file", "it is missing", advice);
        }
        let port = match port {
            None => DEFAULT_PEERS_PORT,
            Some(At { value, line }) => {
                u16::try_from(value).ok().filter(|port| *port != 0).unwrap_or_else(|| {
                    let what = format!("{value} is no UDP port");
                    self.report.add(
                        line,
                        "peers.port",
                        what,
                        "use a number from 1 to 65535, the same on all hosts",
                    );
                    DEFAULT_PEERS_PORT
                })
            }
        };
        Some(Peers { key_file: base.join(key_file?.value), port })
    }

    fn capacity(&mut self, capacity: Option<document::Capacity>) -> Capacity {
        let default = Capacity::default();
        let Some(document::Capacity { ports, vips, eips, subnets, hosts }) = capacity else { return default };
        Capacity {
            ports: self.entries("capacity.ports", ports.as_ref(), default.ports, MAX_PORTS),
            vips: self.entries("capacity.vips", vips.as_ref(), default.vips, u32::MAX),
            eips: self.entries("capacity.eips", eips.as_ref(), default.eips, u32::MAX),
            subnets: self.entries("capacity.subnets", subnets.as_ref(), default.subnets, u32::MAX),
            hosts: self.entries("capacity.hosts", hosts.as_ref(), default.hosts, MAX_HOSTS),
        }
    }

    fn entries(&mut self, field: &str, found: Option<&At<u64>>, default: u32, most: u32) -> u32 {
        let Some(&At { value, line }) = found else { return default };
        let entries = u32::try_from(value).ok().filter(|entries| (1..=most).contains(entries));
        entries.unwrap_or_else(|| {
            let what = format!("{value} entries are not possible");
            self.report.add(line, field, what, format!("use a number from 1 to {most}"));
            default
        })
    }

    /// The value, or a note of what is wrong with it.
    fn note<T>(&mut self, field: &str, line: u32, judged: Result<T, Complaint>) -> Option<T> {
        match judged {
            Ok(value) => Some(value),
            Err((what, advice)) => {
                self.report.add(line, field, what, advice);
                None
            }
        }
    }
}
