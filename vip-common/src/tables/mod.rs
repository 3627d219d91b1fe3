//! Keys and values of the tables that the agent and the programs share.
//!
//! Addresses turn into small integers once ([`EipEntry`], [`AddressEntry`], [`MacKey`]); from there on everything is an array.
//! Every type has an explicit layout without padding: padding in a hash key is a look-up that fails at random. Numbers
//! are in host order, addresses in network order ([`Ipv4`](crate::wire::Ipv4)).

mod address;
mod config;
mod counter;
mod event;
mod owner;
mod port;
mod route;

pub use self::{
    address::{AddressEntry, AddressKind, EipEntry, Target, VniAddress},
    config::{Config, ConfigFlags, LAYOUT_VERSION},
    counter::{Direction, Meter, MeterClass, Traffic},
    event::{ClaimForm, Event, EventKind},
    owner::{DAMPING_BURST, DAMPING_INTERVAL_NS, MOVES_PER_VIP, Move, OwnerEntry, OwnerWord, Pending},
    port::{Grant, GrantKey, MAX_MEMBERS, MacKey, Members, PortEntry, PortFlags, Rights, VridSet},
    route::{EipNetwork, NextHop, RouteEntry, RouteKind, SubnetEntry},
};

/// Names of the tables as the kernel and the pin directory have them: at most 15 bytes.
pub mod names {
    /// Array of one [`Config`](super::Config).
    pub const CONFIG: &str = "CONFIG";
    /// Hash: EIP address ([`Ipv4`](crate::wire::Ipv4)) → [`EipEntry`](super::EipEntry).
    pub const EIPS: &str = "EIPS";
    /// Hash: [`VniAddress`](super::VniAddress) → [`AddressEntry`](super::AddressEntry).
    pub const ADDRS: &str = "ADDRS";
    /// Hash: [`MacKey`](super::MacKey) → port index (`u32`).
    pub const MACS: &str = "MACS";
    /// Hash: [`GrantKey`](super::GrantKey) → [`Grant`](super::Grant).
    pub const GRANTS: &str = "GRANTS";
    /// Mappable array: VIP slot → [`OwnerEntry`](super::OwnerEntry), changed by compare-and-swap only.
    pub const OWNERS: &str = "OWNERS";
    /// Array: VIP slot × [`MOVES_PER_VIP`](super::MOVES_PER_VIP) + epoch modulo it → [`Move`](super::Move).
    pub const MOVES: &str = "MOVES";
    /// Array: VIP slot → [`Members`](super::Members).
    pub const MEMBERS: &str = "MEMBERS";
    /// Array: port index → [`PortEntry`](super::PortEntry).
    pub const PORTS: &str = "PORTS";
    /// Device map: port index → interface index, of ports whose interface takes XDP frames.
    pub const PORT_DEVS: &str = "PORT_DEVS";
    /// Hash: interface index (`u32`) → port index (`u32`).
    pub const IFPORTS: &str = "IFPORTS";
    /// LPM trie: (VNI, big-endian; address) → [`SubnetEntry`](super::SubnetEntry).
    pub const SUBNETS: &str = "SUBNETS";
    /// LPM trie: address → [`RouteEntry`](super::RouteEntry): this host's routes.
    pub const ROUTES: &str = "ROUTES";
    /// Hash: next hop's address → [`NextHop`](super::NextHop).
    pub const NEXTHOPS: &str = "NEXTHOPS";
    /// Array: EIP network index → [`EipNetwork`](super::EipNetwork).
    pub const NETWORKS: &str = "NETWORKS";
    /// Per-CPU array: drop reason → packets (`u64`).
    pub const DROPS: &str = "DROPS";
    /// Per-CPU array: EIP index → [`Traffic`](super::Traffic).
    pub const EIP_TRAFFIC: &str = "EIP_TRAFFIC";
    /// Per-CPU array: VIP slot → [`Traffic`](super::Traffic).
    pub const VIP_TRAFFIC: &str = "VIP_TRAFFIC";
    /// Per-CPU array: [`MeterClass`](super::MeterClass) → [`Meter`](super::Meter).
    pub const METERS: &str = "METERS";
    /// Ring buffer of [`Event`](super::Event)s.
    pub const EVENTS: &str = "EVENTS";
    /// Per-CPU array: index 0 → the last verdict's word (`u64`), kept only where the programs were loaded to be observed.
    pub const VERDICTS: &str = "VERDICTS";
    /// Per-CPU array: index 0 → packets lost after the verdict, as the kernel's tracepoint reports (`u64`).
    pub const XMIT_ERRORS: &str = "XMIT_ERRORS";
}
