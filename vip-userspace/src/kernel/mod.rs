//! The eBPF programs of this host: loading, tables, pins, links, events.
//!
//! # Contract
//!
//! - One process works with a pin directory at a time ([`PinDir`] holds a lock); `vipctl detach` ends it first.
//! - Tables and links are pinned, so packets are forwarded, and VIPs move, whether this process lives or not.
//! - Pinned tables are compared with what the programs need before they are used; others are refused, with everything left
//!   as it was.
//! - A start in order: [`PinDir::open`], [`Dataplane::load`], fill the tables, then attach. Until it is replaced by
//!   attaching, the program of an earlier start goes on with the same tables.
//! - Links belong to interfaces of the calling thread's network namespace.
//! - Functions are synchronous: each is a few system calls that do not wait. [`detach`] alone waits, for vipd to end.

mod attach;
mod chunked;
mod clsact;
mod dataplane;
mod detach;
mod error;
mod events;
mod netlink;
mod pin_dir;
mod program_log;
mod programs;
mod runner;
mod shape;
mod syscall;
pub mod tables;
mod verifier;

use std::fmt;

pub use self::{
    attach::{Attached, LossTracing, TcHook},
    dataplane::{Dataplane, OBJECT},
    detach::{DetachReport, Told, detach},
    error::KernelError,
    events::EventStream,
    pin_dir::PinDir,
    programs::{ProgramReport, report_programs},
    runner::{Run, Runner, RunnerProgram},
    shape::{Capacity, MapShape},
    tables::Tables,
};

/// How XDP runs on the uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the stack, on any interface, more slowly.
    Generic,
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}
