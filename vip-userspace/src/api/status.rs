//! How vipd itself is doing, as operators and other programs see it. The promises of [`model`](super::model) hold.

use std::{net::Ipv4Addr, path::PathBuf};

use serde::{Deserialize, Serialize};
use vip_common::DropReason;

use super::Timestamp;
use crate::{config::UplinkPath, peers::PeerState, state::MacAddr, vlan::Vlan};

/// The answer to "how is this host doing?".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// This host's id in the state.
    pub host: String,
    /// Process id of the vipd that answers.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// When it started.
    pub started_at: Timestamp,
    /// Whether it found pinned tables at its start and took them over.
    pub adopted: bool,
    /// Where outside traffic comes in.
    pub uplink: UplinkStatus,
    /// The EIP networks of the configuration, in its order.
    pub eip_networks: Vec<EipNetworkStatus>,
    /// What travels between hosts; `null`: the state has no other host, or was not read yet.
    pub overlay: Option<OverlayStatus>,
    /// This host's ports, also those whose interface does not exist.
    pub ports: Vec<PortStatus>,
    /// Every reason for which packets can be dropped, those that never happened too, in the order of their numbers.
    pub drops: Vec<DropCount>,
    /// Packets that were lost after the programs had passed them on.
    pub losses: LossStatus,
    /// What became of the desired state.
    pub sync: SyncStatus,
    /// How long the last change of the state took.
    pub durations: Durations,
    /// How full the tables are.
    pub tables: Vec<TableUse>,
    /// Events of the programs that did not reach vipd. It re-reads the tables then, so no move is missed.
    pub events_lost: EventsLost,
    /// ICMP errors (time exceeded, fragmentation needed) that were not sent, because a CPU sends no more than so many.
    pub icmp_errors_held_back: u64,
    /// The other hosts, which tell and are told who owns what; `null`: the configuration has no `peers`.
    pub peers: Option<PeersStatus>,
    /// What an operator should know: limits of this build that touch this host, and what is out of order.
    pub warnings: Vec<String>,
}

/// The uplink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkStatus {
    /// Interface name.
    pub name: String,
    /// Its index; `null`: it does not exist at the moment.
    pub ifindex: Option<u32>,
    /// MAC that outside neighbours send to; `null`: as above.
    pub mac: Option<MacAddr>,
    /// Its MTU in bytes; `null`: as above.
    pub mtu: Option<u32>,
    /// How the XDP program is attached; `null`: it is not. With the path `tc` it is not to be.
    pub xdp: Option<XdpView>,
    /// Which programs handle what comes in: `uplink_path` of the configuration.
    pub path: UplinkPath,
    /// The pinned link that holds the XDP program, a path below bpffs.
    pub link: PathBuf,
    /// The bridge or bond that has the uplink's routes and neighbours; `null`: the uplink itself.
    pub routed_by: Option<String>,
}

/// Where an EIP network is on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EipNetworkStatus {
    /// The network.
    pub id: String,
    /// Its VLAN: a number, or a list of the outer and the inner one; `null`: frames have no tag.
    pub vlan: Option<Vlan>,
    /// The interface that its EIPs come in by: the uplink, or a VLAN interface; `null`: it does not exist at the moment, or cannot
    /// be used, for the reason that the warnings name.
    pub interface: Option<String>,
    /// Its index; `null`: as above.
    pub ifindex: Option<u32>,
    /// Its MTU in bytes; `null`: as above.
    pub mtu: Option<u32>,
    /// How the TC program is attached there.
    pub attached: Attachment,
}

/// What travels between hosts, in VXLAN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayStatus {
    /// This host's VTEP.
    pub vtep: Ipv4Addr,
    /// Longest IP packet of a guest that goes to another host, in bytes: the uplink's MTU less what stands before it. Where a route has an
    /// MTU of its own, that host's entry tells less. `null`: not known.
    pub guest_mtu: Option<u16>,
    /// Number of other hosts.
    pub hosts: usize,
    /// Those of them that cannot be reached, in the order of the state.
    pub unreachable: Vec<UnreachableHost>,
}

/// Another host that cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreachableHost {
    /// Its id.
    pub host: String,
    /// Why, in words.
    pub why: String,
}

/// How an XDP program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpView {
    /// In the driver.
    Native,
    /// In the stack, after an skb was made.
    Generic,
}

/// How one port of this host is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStatus {
    /// The port.
    pub id: String,
    /// The host's end of the NIC.
    pub interface: String,
    /// The VLAN of its frames there; `null`: they have no tag. With one, all else is about the VLAN interface.
    pub vlan: Option<Vlan>,
    /// Its index; `null`: it does not exist at the moment.
    pub ifindex: Option<u32>,
    /// How the port's program is attached.
    pub attached: Attachment,
    /// Which program delivers what comes through the uplink; `null` while there is no interface.
    pub path: Option<DeliveryPath>,
    /// Why this path, in words.
    pub why: String,
    /// Whether the interface belongs to a bridge or to OVS: accepted claims go on to it.
    pub bridged: bool,
    /// The interface's MTU in bytes; `null` while there is none.
    pub mtu: Option<u32>,
}

/// How a port's program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attachment {
    /// By a pinned TCX link (Linux 6.6 and later).
    Tcx,
    /// By a filter of a clsact qdisc.
    Clsact,
    /// Not at all: the port is neither served nor filtered.
    None,
}

/// Which program delivers to a port what comes through the uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeliveryPath {
    /// XDP, straight to the interface.
    Xdp,
    /// TC on the uplink, because the interface takes no XDP frames or the uplink's path is `tc`.
    UplinkTc,
    /// TC on the uplink established TCP, XDP everything else.
    Split,
}

/// Packets dropped for one reason, on all CPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropCount {
    /// Name of the [`DropReason`].
    pub reason: String,
    /// Packets dropped.
    pub packets: u64,
    /// What the reason means.
    pub description: String,
}

impl DropCount {
    /// Every reason with its count, zero or not.
    pub fn list(packets: impl Fn(DropReason) -> u64) -> Vec<Self> {
        let count = |&reason: &DropReason| Self {
            reason: reason.name().to_owned(),
            packets: packets(reason),
            description: reason.description().to_owned(),
        };
        DropReason::ALL.iter().map(count).collect()
    }
}

/// Packets lost after the programs had passed them on: failed redirects, full rings, interfaces that are down.
///
/// The tracepoints tell what XDP loses, the interfaces what XDP and TC lose; a frame that XDP redirected may be in both numbers,
/// so they must not be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossStatus {
    /// Where `packets` comes from.
    pub source: LossSource,
    /// Why from there, in words.
    pub why: String,
    /// Packets lost, by `source`: since the tables were made (tracepoints), or as `interface_packets`.
    pub packets: u64,
    /// Packets that the uplink and the ports' interfaces did not transmit since vipd attached its programs to them, also other
    /// senders' packets. The sum of `interfaces`.
    pub interface_packets: u64,
    /// The same for each interface whose numbers could be read.
    pub interfaces: Vec<InterfaceLoss>,
}

/// Where the numbers of losses come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LossSource {
    /// The kernel's tracepoints of XDP redirects, those of other programs on this kernel included.
    #[serde(rename = "tracepoint")]
    Tracepoint,
    /// The interfaces' counters of dropped transmissions: also those of other senders.
    #[serde(rename = "interface statistics")]
    InterfaceStatistics,
}

/// Packets lost on one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceLoss {
    /// Interface name.
    pub interface: String,
    /// Packets lost.
    pub packets: u64,
}

/// What became of the desired state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncStatus {
    /// Whether the traffic is what the file asks for.
    pub state: SyncState,
    /// The file.
    pub file: PathBuf,
    /// When the state that is in force was read; `null`: none was yet.
    pub loaded_at: Option<Timestamp>,
    /// What is wrong, unless `in_sync`.
    pub error: Option<String>,
}

/// How long the parts of the last change of the state took, in milliseconds; 0: less than one, or not done yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durations {
    /// Reading the file, and judging it by itself.
    pub parse_ms: u64,
    /// Working out the steps to it.
    pub plan_ms: u64,
    /// Carrying them out.
    pub apply_ms: u64,
}

/// Whether the traffic is what the file asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncState {
    /// It is.
    InSync,
    /// The file is not valid: the state before it stays in force, or the pinned tables do if vipd has read none (`loaded_at`
    /// is `null`).
    Refused,
    /// There is no file yet, and the pinned tables stay in force; or new objects wait for indexes that were freed less than
    /// a second ago.
    Waiting,
    /// The state is valid, but not all of it could be applied: a full table, say.
    Error,
}

/// How full a table is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableUse {
    /// Name of the table.
    pub table: String,
    /// Entries in use.
    pub used: u64,
    /// Entries that there is room for.
    pub capacity: u64,
}

/// Events that did not reach vipd, by the meter that they go through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsLost {
    /// Changes of owner.
    pub ownership: u64,
    /// Refused claims.
    pub refusals: u64,
    /// Claims that wait or change no owner.
    pub waiting: u64,
}

/// How this host and the others tell each other who owns what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeersStatus {
    /// The UDP port.
    pub port: u16,
    /// Whether this host has new tables and has not heard yet what the others know, so that owners are not learned from ordinary
    /// traffic: 3 s at most.
    pub learning: bool,
    /// All other hosts of the state.
    pub hosts: Vec<PeerStatus>,
    /// Words about VIPs and ports that this host's state does not know, or not so; they wait until it does.
    pub waiting: u64,
    /// Datagrams from addresses that are no other host's VTEP.
    pub unlisted: u64,
}

/// Another host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its id.
    pub host: String,
    /// Its VTEP.
    pub vtep: Ipv4Addr,
    /// How it is doing.
    pub state: PeerView,
    /// Milliseconds since it was last heard; `null`: never.
    pub heard_ms_ago: Option<u64>,
    /// VIPs of which it has not acknowledged the newest word.
    pub unacked: u64,
    /// Its words that were applied here.
    pub applied: u64,
    /// Datagrams from its VTEP that were not believed.
    pub refused: RefusedCounts,
}

/// How another host is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerView {
    /// It answers.
    Up,
    /// It was greeted a moment ago.
    Connecting,
    /// It does not answer.
    Down,
}

impl From<PeerState> for PeerView {
    fn from(state: PeerState) -> Self {
        match state {
            PeerState::Up => Self::Up,
            PeerState::Connecting => Self::Connecting,
            PeerState::Down => Self::Down,
        }
    }
}

/// Datagrams that were not believed, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedCounts {
    /// No datagrams of this protocol, or ones that no vipd sends.
    pub malformed: u64,
    /// Of a version that this vipd does not know.
    pub version: u64,
    /// Made without the key, or changed on the way.
    pub auth: u64,
    /// Not from the host whose VTEP they come from, or not for this one.
    pub identity: u64,
    /// Of another session: on their way when a host restarted, or a replay of that time.
    pub session: u64,
    /// Come before.
    pub replay: u64,
}
