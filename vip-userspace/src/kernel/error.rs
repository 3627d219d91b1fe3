//! What can go wrong between the agent and its eBPF programs.

use std::{error::Error, io, iter, path::PathBuf};

use aya::{EbpfError, maps::MapError, programs::ProgramError, util::KernelVersion};

use super::{MapShape, XdpMode};
use crate::net::NetError;

/// An operation on programs, tables, pins or links that was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The binary carries no programs.
    #[error("this binary was built without its eBPF programs; build it with `cargo xtask build`")]
    NoObject,

    /// The programs' object cannot be read.
    #[error("the eBPF object is damaged")]
    Object {
        /// What the parser says.
        source: Box<aya_obj::ParseError>,
    },

    /// The programs' object is of another version than this binary.
    #[error(
        "the eBPF object has no {kind} `{name}`; build the whole workspace anew with `cargo xtask build`"
    )]
    ObjectLacks {
        /// `table` or `program`.
        kind: &'static str,
        /// Its name.
        name: &'static str,
    },

    /// More entries than the tables can ever have.
    #[error("a capacity of {asked} {what} was asked for; at most {most} are possible")]
    Capacity {
        /// What is counted.
        what: &'static str,
        /// How many were asked for.
        asked: u32,
        /// How many there can be.
        most: u32,
    },

    /// The BPF file system is not there.
    #[error(transparent)]
    Net(#[from] NetError),

    /// The verifier's statistics of programs that it accepted could not be had.
    #[error("cannot read how much stack the programs use")]
    Statistics {
        /// The system's reason.
        source: io::Error,
    },

    /// A pin or its directory could not be made, read or removed.
    #[error("cannot {action} {}", path.display())]
    Pin {
        /// What was to be done.
        action: &'static str,
        /// The pin or the directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },

    /// Another process works with the pins.
    #[error(
        "{} is in use by {}; one vipd serves a pin directory: end that one first",
        path.display(),
        match holder { Some(pid) => format!("process {pid}"), None => "another process".to_owned() }
    )]
    Locked {
        /// The pin directory.
        path: PathBuf,
        /// The process, where this one may know it.
        holder: Option<u32>,
    },

    /// The process that holds the pin directory is not the vipd that wrote its tables.
    #[error(
        "{} is held by {}, which is not the vipd that serves it; try again when that process has ended",
        path.display(),
        match holder { Some(pid) => format!("process {pid}"), None => "an unknown process".to_owned() }
    )]
    NotAgent {
        /// The pin directory.
        path: PathBuf,
        /// The process, where this one may know it.
        holder: Option<u32>,
    },

    /// vipd was asked to end and has not.
    #[error("vipd (process {pid}) still runs {seconds} s after SIGTERM; end it and try again")]
    StillRunning {
        /// The process.
        pid: u32,
        /// How long it was given.
        seconds: u64,
    },

    /// The process could not be signalled.
    #[error("cannot end vipd (process {pid})")]
    Signal {
        /// The process.
        pid: u32,
        /// The system's reason.
        source: io::Error,
    },

    /// Nothing is pinned there.
    #[error("nothing is attached: {} does not exist", path.display())]
    NothingPinned {
        /// The pin directory.
        path: PathBuf,
    },

    /// A pinned table is of another version or another capacity.
    #[error(
        "table {table} is pinned in {} as {pinned}, but this vipd needs {expected}; forwarding goes on as it was. \
         Start the vipd that made it, or give up its tables with `vipctl detach`",
        path.display()
    )]
    Shape {
        /// The table.
        table: &'static str,
        /// The pin directory.
        path: PathBuf,
        /// What is there.
        pinned: MapShape,
        /// What is needed.
        expected: MapShape,
    },

    /// The pinned tables have another layout.
    #[error(
        "the tables pinned in {} have layout version {pinned}, but this vipd needs {expected}; forwarding goes on as it \
         was. Start the vipd that made them, or give them up with `vipctl detach`",
        path.display()
    )]
    Layout {
        /// The pin directory.
        path: PathBuf,
        /// Version of the pinned tables.
        pinned: u32,
        /// Version of this binary.
        expected: u32,
    },

    /// The kernel refused the object's tables.
    #[error(
        "the kernel refused the eBPF tables (CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON are needed){}",
        if_old()
    )]
    Load {
        /// What aya says.
        source: Box<EbpfError>,
    },

    /// The kernel refused something about one program.
    #[error("cannot {action} the eBPF program `{program}`{}", if_old())]
    Program {
        /// What was to be done.
        action: &'static str,
        /// The program.
        program: &'static str,
        /// What aya says.
        source: Box<ProgramError>,
    },

    /// The kernel refused to attach or replace a program.
    #[error("cannot attach the eBPF program `{program}` to {interface}")]
    Attach {
        /// The program.
        program: &'static str,
        /// The interface's name.
        interface: String,
        /// What aya says.
        source: Box<ProgramError>,
    },

    /// The interface does not exist (any more), or the name belongs to another one by now.
    #[error("interface {interface} (ifindex {ifindex}) is gone")]
    InterfaceGone {
        /// Its name.
        interface: String,
        /// Its number.
        ifindex: u32,
    },

    /// Somebody else's XDP program is on the uplink.
    #[error(
        "{interface} already has the XDP program `{name}` (id {program}), which this vipd did not attach; {}",
        if *like_ours {
            "it looks like another vipd's: end that one with `vipctl detach --bpffs DIR`".to_owned()
        } else {
            format!("remove it first: `ip link set dev {interface} xdp off`, or end the program that holds it")
        }
    )]
    ForeignXdp {
        /// The uplink's name.
        interface: String,
        /// The program's id.
        program: u32,
        /// The program's name; empty if it has none.
        name: String,
        /// Whether it is called like ours.
        like_ours: bool,
    },

    /// A TC filter of somebody else has the place where ours belongs (kernels before 6.6 only).
    #[error(
        "{interface} has somebody else's TC filter where this vipd's belongs (ingress, priority {priority}, handle \
         {handle:#x}); remove it first: `tc filter del dev {interface} ingress pref {priority}`"
    )]
    ForeignFilter {
        /// The interface's name.
        interface: String,
        /// Priority of the filter.
        priority: u16,
        /// Handle of the filter.
        handle: u32,
    },

    /// The driver cannot do the mode of XDP that is configured.
    #[error(
        "{interface} cannot run XDP in {mode} mode; {}",
        match mode {
            XdpMode::Native => "if its driver knows no XDP (or the MTU is too large for it), set `xdp_mode: generic`, or `uplink_path: tc`",
            XdpMode::Generic => "is another XDP program attached in native mode?",
        }
    )]
    XdpMode {
        /// The uplink's name.
        interface: String,
        /// The mode that was asked for.
        mode: XdpMode,
        /// What aya says.
        source: Box<ProgramError>,
    },

    /// The kernel attached the program, but not as asked.
    #[error("the kernel did not attach XDP to {interface} in {mode} mode as asked; it is detached again")]
    XdpUnverified {
        /// The uplink's name.
        interface: String,
        /// The mode that was asked for.
        mode: XdpMode,
    },

    /// The kernel makes no link that can be pinned (XDP: before 5.9), so the program would vanish with vipd.
    #[error(
        "the kernel gives no link for `{program}` on {interface}, so it would not outlive vipd (Linux 5.9 does)"
    )]
    NoLink {
        /// The program.
        program: &'static str,
        /// The interface's name.
        interface: String,
    },

    /// The kernel was asked about an interface and did not answer.
    #[error("cannot read {what} of interface {ifindex}")]
    Netlink {
        /// What was asked.
        what: &'static str,
        /// The interface.
        ifindex: u32,
        /// The system's reason.
        source: io::Error,
    },

    /// A table operation failed.
    #[error("cannot {operation} table {table}")]
    Table {
        /// What was to be done.
        operation: &'static str,
        /// The table.
        table: &'static str,
        /// What aya says.
        source: Box<MapError>,
    },

    /// A table has no room for another entry.
    #[error("table {table} is full: it has its {capacity} entries")]
    TableFull {
        /// The table.
        table: &'static str,
        /// Its capacity.
        capacity: u32,
    },

    /// An index beyond the end of an array.
    #[error("index {index} is beyond the {capacity} entries of table {table}")]
    OutOfRange {
        /// The table.
        table: &'static str,
        /// The index.
        index: u32,
        /// Its capacity.
        capacity: u32,
    },

    /// The number of CPUs is not known, and so not how many counters a record has.
    #[error("cannot tell how many CPUs this machine can have (/sys/devices/system/cpu/possible)")]
    Cpus {
        /// The system's reason.
        source: io::Error,
    },

    /// An address of a VPC that has no root page: [`AddressIndex::root`](super::tables::AddressIndex::root) makes it.
    #[error("the index has no root for the addresses of VNI {vni}")]
    NoRoot {
        /// The VNI.
        vni: u32,
    },

    /// A table's memory could not be made or mapped.
    #[error("cannot make or map the memory of table {table}")]
    Map {
        /// The table.
        table: &'static str,
        /// The system's reason.
        source: io::Error,
    },

    /// The events have a reader already.
    #[error("the programs' events are being read already")]
    EventsTaken,

    /// The events cannot be waited for.
    #[error("cannot wait for the programs' events")]
    Events {
        /// The system's reason.
        source: io::Error,
    },
}

/// What to say of a refusal on a kernel that the programs were never made for.
fn if_old() -> &'static str {
    match KernelVersion::current() {
        Ok(version) if version < KernelVersion::new(6, 1, 0) => {
            "; this kernel is older than Linux 6.1, from which on the programs work"
        }
        _ => "",
    }
}

impl KernelError {
    /// Whether the interface went away meanwhile: callers wait for it to come back instead of giving up.
    pub fn is_interface_gone(&self) -> bool {
        matches!(self, Self::InterfaceGone { .. } | Self::Net(NetError::NoSuchInterface { .. }))
    }

    /// The error and its causes in one line.
    pub fn with_causes(&self) -> String {
        let first: &(dyn Error + 'static) = self;
        let causes = iter::successors(Some(first), |&error| error.source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    }
}
