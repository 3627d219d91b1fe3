//! Everything that vipd asks of, or tells, the host's kernel outside of BPF: netlink, packet sockets, mounts, clocks.
//!
//! Nothing else in the agent opens a netlink or packet socket or calls libc, so this is the one seam that tests and other
//! systems have to replace.
//!
//! # Contract
//!
//! - A socket belongs to the network namespace of the thread that opens it, for good. Open everything from one
//!   namespace, and do not let a task that opens sockets wander between threads of different namespaces.
//! - The asynchronous functions need a tokio runtime with I/O and time enabled.
//! - A watch joins its multicast groups *before* it takes its first snapshot, so nothing falls between the two. When the
//!   kernel says that it had to throw notifications away (`ENOBUFS`), the watch takes a new snapshot and reports the
//!   difference: a consumer never sees that anything was lost.
//! - `next()` of every watch is cancel-safe: dropping its future loses no event, so it may stand in a `select!`.
//! - After an error from `next()` the watch is still good: calling it again takes a new snapshot.

mod arp;
mod boot_clock;
mod bpffs;
mod error;
mod fdb;
mod link;
mod link_stats;
mod link_watch;
mod listener;
mod neighbour;
mod neighbour_watch;
mod netdev;
mod netdev_message;
mod netlink;
mod pacer;
mod packet_socket;
mod requester;
mod route;
mod route_table;
mod route_watch;
mod rule;
mod xdp_features;

pub use self::{
    arp::{ARP_FRAME_LEN, announcement, reply, request},
    boot_clock::BootClock,
    bpffs::{BPFFS, Mounted, mount_bpffs},
    error::NetError,
    link::{Link, LinkKind, Master, VlanTag, XdpAttachment, XdpAttachmentMode},
    link_stats::LinkStats,
    link_watch::{LinkEvent, LinkWatch, Links, VlanLinks},
    neighbour::{Neighbour, NeighbourState},
    neighbour_watch::{NeighbourEvent, NeighbourWatch},
    netdev::Netdev,
    netlink::Netlink,
    packet_socket::PacketSocket,
    route::{Refusal, Route, Unsupported},
    route_table::RouteTable,
    route_watch::RouteWatch,
    xdp_features::{XdpFeatureEvent, XdpFeatureWatch, XdpFeatures},
};
