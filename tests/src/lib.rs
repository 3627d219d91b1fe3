//! Labs of network namespaces for the forwarder's tests and its demo.
//!
//! A [`Lab`] holds one or more hypervisors ([`Host`]), each with its guests ([`Guest`]) behind `tap0`, `tap1`, … and an
//! outside client ([`Outside`]) behind its uplink `eth0`. Everything lives in namespaces that the lab made itself and
//! vanishes with it: on drop, on panic, on Ctrl-C ([`interrupt`]) and, when the process was killed, at the start of
//! the next lab on the machine. Nothing outside those namespaces is changed except the lab's own directories below
//! the system's temporary directory, `/run/netns` and `/sys/fs/bpf`.
//!
//! ```no_run
//! use vip_lab::{EipReach, GuestConfig, Lab};
//!
//! Lab::run(|lab| {
//!     let host = lab.add_host("hv1")?;
//!     let outside = host.add_outside(EipReach::OnLink)?;
//!     let guest = host.add_guest(&GuestConfig::new("a", "tap0", "02:00:00:00:07:f7", "192.168.7.247/22")?)?;
//!     outside.netns().ping("198.51.100.1".parse()?, 1)?;
//!     guest.netns().check(&["ip", "address", "show"])?;
//!     Ok(())
//! });
//! ```
//!
//! A [`Cluster`] is several hosts on one [`underlay`], which a router connects with a client outside.
//!
//! Functions return [`anyhow::Result`]; [`Lab::run`] turns an error into the test's panic while the lab still stands,
//! so that its logs and captures are kept and their place is printed.

#[cfg(feature = "bench")]
pub mod bench;
pub mod big_state;
pub mod capture;
mod clock;
pub mod cluster;
pub mod corpus;
mod counters;
pub mod demo;
pub mod far_end;
pub mod fixtures;
pub mod frame;
mod guest;
mod host;
pub mod http;
pub mod interrupt;
mod iperf;
pub mod keepalived;
mod lab;
mod leftovers;
mod mac;
mod netns;
mod nginx;
mod nsd;
pub mod offload;
mod outside;
mod packet_socket;
mod poll;
mod process;
pub mod scene;
mod sender;
mod skip;
pub mod stream;
pub mod tap;
mod tcpdump;
mod tools;
pub mod underlay;
mod vipd;
pub mod virtio;
pub mod vxlan;

pub use cluster::{Cluster, ClusterConfig};
pub use etherparse;
pub use guest::{Guest, GuestConfig};
pub use host::Host;
pub use iperf::{IperfOptions, IperfReport, IperfServer};
pub use lab::Lab;
pub use mac::Mac;
pub use netns::Netns;
pub use nginx::Nginx;
pub use nix::sys::signal::Signal;
pub use nsd::{Nsd, ZONE};
pub use outside::{EIP_POOL, EipReach, Outside, UNDERLAY_HOST, UNDERLAY_OUTSIDE};
pub use poll::poll_until;
pub use process::{Log, LogLine, LogMark, Output, Process};
pub use sender::RawSender;
pub use skip::{NEEDS_XDP_FEATURES, SKIPPED, skip};
pub use tcpdump::Tcpdump;
pub use tools::{Announcement, PingReport};
pub use vipd::{Binaries, Vipd, VipdConfig};
