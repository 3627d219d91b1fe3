//! Keys and values of the tables that the agent and the programs share.
//!
//! Addresses turn into small integers once ([`Target`], [`MacKey`]); from there on everything is an array.
//! Every type has an explicit layout without padding: padding in a hash key is a look-up that fails at random. Numbers
//! are in host order, addresses in network order ([`Ipv4`](crate::wire::Ipv4)).

mod address;
mod advert;
mod config;
mod counter;
mod event;
mod host;
pub mod index;
mod owner;
mod port;
pub mod record;
mod route;

pub use self::{
    address::{AddressKind, SourceEip, Target, VniAddress},
    advert::{ADVERT_INTERVALS, Advert},
    config::{Config, ConfigFlags, LAYOUT_VERSION},
    counter::{AsideTraffic, Count, Direction, Meter, MeterClass, Traffic, Way},
    event::{ClaimForm, Event, EventKind},
    host::{HostEntry, VniEntry},
    owner::{
        AsideRecord, DAMPING_BURST, DAMPING_INTERVAL_NS, MOVES_PER_VIP, Move, OwnerEntry, OwnerWord, Pending,
        VipEntry, VipRecord,
    },
    port::{Grant, GrantKey, MAX_MEMBERS, MacKey, Members, PortEntry, PortFlags, Rights, VridSet},
    route::{EipNetwork, NextHop, RouteEntry, RouteKind, SubnetEntry},
};

/// Names of the tables as the kernel and the pin directory have them: at most 15 bytes.
pub mod names {
    /// Array of one [`Config`](super::Config).
    pub const CONFIG: &str = "CONFIG";
    /// Mappable array: page → [`Node`](super::index::Node), the index of EIPs and addresses.
    pub const NODES: &str = "NODES";
    /// Hash: [`VniAddress`](super::VniAddress) → [`Target`](super::Target), the addresses that have no page in NODES.
    pub const SCATTERED: &str = "SCATTERED";
    /// Hash: [`MacKey`](super::MacKey) → port index (`u32`).
    pub const MACS: &str = "MACS";
    /// Hash: [`GrantKey`](super::GrantKey) → [`Grant`](super::Grant).
    pub const GRANTS: &str = "GRANTS";
    /// Array of chunks of [records](super::record): VIP slot → [`VipRecord`](super::VipRecord) and what came to its EIP. The words of the
    /// owner are changed by compare-and-swap only.
    pub const VIPS: &str = "VIPS";
    /// Array of chunks of [records](super::record): VIP slot → [`AsideRecord`](super::AsideRecord) and the VIP's other traffic.
    pub const VIPS_ASIDE: &str = "VIPS_ASIDE";
    /// Array: VIP slot × [`MOVES_PER_VIP`](super::MOVES_PER_VIP) + epoch modulo it → [`Move`](super::Move).
    pub const MOVES: &str = "MOVES";
    /// Hash: [`GrantKey`](super::GrantKey) → [`Advert`](super::Advert).
    pub const ADVERTS: &str = "ADVERTS";
    /// Array: VIP slot → [`Members`](super::Members).
    pub const MEMBERS: &str = "MEMBERS";
    /// Array of chunks of [records](super::record): port index → [`PortEntry`](super::PortEntry) and the traffic of its EIP.
    pub const PORTS: &str = "PORTS";
    /// Device map: port index → interface index, of ports whose interface takes XDP frames.
    pub const PORT_DEVS: &str = "PORT_DEVS";
    /// Hash: interface index (`u32`) → port index (`u32`).
    pub const IFPORTS: &str = "IFPORTS";
    /// LPM trie: (VNI, big-endian; address) → [`SubnetEntry`](super::SubnetEntry).
    pub const SUBNETS: &str = "SUBNETS";
    /// LPM trie: address → [`RouteEntry`](super::RouteEntry): this host's routes.
    pub const ROUTES: &str = "ROUTES";
    /// Array: host index → [`HostEntry`](super::HostEntry).
    pub const HOSTS: &str = "HOSTS";
    /// Hash: VTEP address → host index (`u32`); this host's own too.
    pub const VTEPS: &str = "VTEPS";
    /// Hash: VNI (`u32`) → [`VniEntry`](super::VniEntry): the VPCs whose VXLAN is ours.
    pub const VNIS: &str = "VNIS";
    /// Hash: next hop's address → [`NextHop`](super::NextHop).
    pub const NEXTHOPS: &str = "NEXTHOPS";
    /// Array: EIP network index → [`EipNetwork`](super::EipNetwork).
    pub const NETWORKS: &str = "NETWORKS";
    /// Per-CPU array: drop reason → packets (`u64`).
    pub const DROPS: &str = "DROPS";
    /// Per-CPU array: [`MeterClass`](super::MeterClass) → [`Meter`](super::Meter).
    pub const METERS: &str = "METERS";
    /// Ring buffer of [`Event`](super::Event)s.
    pub const EVENTS: &str = "EVENTS";
    /// Array of programs: those that go on where `uplink_tc` (index 0) and `port` (1) leave off. What the first leave to the second is part
    /// of the layout: programs of an earlier start go on by the second programs of a later one.
    pub const RESTS: &str = "RESTS";
    /// Per-CPU array: index 0 → the last verdict's word (`u64`), kept only where the programs were loaded to be observed.
    pub const VERDICTS: &str = "VERDICTS";
    /// Per-CPU array: index 0 → packets lost after the verdict, as the kernel's tracepoint reports (`u64`).
    pub const XMIT_ERRORS: &str = "XMIT_ERRORS";
}
