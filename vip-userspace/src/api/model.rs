//! The objects as operators and other programs see them.
//!
//! The JSON is an interface: a field may be added, none changes its name, its type or its meaning. Every field is
//! always there; what does not apply is `null`. Objects of another kind are named by their ids. Addresses, prefixes,
//! MACs and moments (RFC 3339, UTC) are strings. Counters begin at 0 when the tables are made, not when vipd starts.
//! In and out are seen from the guest: *in* is towards the guest.

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;
use serde::{Deserialize, Serialize};

use super::Timestamp;
use crate::{state::MacAddr, vlan::Vlan};

/// A hypervisor of the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostView {
    /// Its id.
    pub id: String,
    /// Its tunnel address on the underlay.
    pub vtep: Ipv4Addr,
    /// Whether it is the one that the asked vipd runs on.
    pub this: bool,
    /// Number of ports that live on it.
    pub ports: usize,
    /// Display name.
    pub name: Option<String>,
    /// The operator's remark.
    pub remark: Option<String>,
    /// Whether frames to it leave by the uplink to a neighbour that is known; true of the one that the asked vipd runs on.
    pub reachable: bool,
    /// The neighbour on the uplink that leads to it; `null`: none, or it is the one that the asked vipd runs on.
    pub next_hop: Option<Ipv4Addr>,
    /// That neighbour's MAC; `null`: not known.
    pub next_hop_mac: Option<MacAddr>,
    /// Longest IP packet of a guest that goes there, in bytes; `null`: not known, or it is the one that the asked vipd runs on.
    pub mtu: Option<u16>,
    /// Why it is not reachable, in words; `null`: it is.
    pub why: Option<String>,
}

/// A tenant's network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VpcView {
    /// Its id.
    pub id: String,
    /// Its number, 24 bits.
    pub vni: u32,
    /// Ids of the VPCs that it is peered with.
    pub peers: Vec<String>,
    /// Ids of its subnets.
    pub subnets: Vec<String>,
    /// Number of its ports.
    pub ports: usize,
    /// Number of its VIPs.
    pub vips: usize,
    /// Display name.
    pub name: Option<String>,
    /// The operator's remark.
    pub remark: Option<String>,
}

/// Who routes for a subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouterView {
    /// The forwarder is the gateway.
    Vip,
    /// Somebody else is.
    External,
}

/// A prefix of a VPC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetView {
    /// Its id.
    pub id: String,
    /// The VPC that it belongs to.
    pub vpc: String,
    /// Network address and prefix length.
    pub cidr: Ipv4Network,
    /// Address of the router.
    pub gateway: Ipv4Addr,
    /// Who the router is.
    pub router: RouterView,
    /// Number of its ports.
    pub ports: usize,
    /// Number of its VIPs.
    pub vips: usize,
    /// Display name.
    pub name: Option<String>,
    /// The operator's remark.
    pub remark: Option<String>,
}

/// A guest's NIC. How its interface is served: [`PortStatus`](super::status::PortStatus).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortView {
    /// Its id.
    pub id: String,
    /// The VPC of its subnet.
    pub vpc: String,
    /// Its subnet.
    pub subnet: String,
    /// Its fixed address.
    pub address: Ipv4Addr,
    /// The guest's MAC.
    pub mac: MacAddr,
    /// The host that it lives on.
    pub host: String,
    /// The host's end of the NIC.
    pub interface: String,
    /// The VLAN of its frames there: a number, or a list of the outer and the inner one; `null`: they have no tag.
    pub vlan: Option<Vlan>,
    /// Index on this host of the interface, or of the VLAN interface on it; `null`: it does not exist at the moment, or is another
    /// host's.
    pub ifindex: Option<u32>,
    /// Whether its source and destination addresses are checked; false: bypass.
    pub source_dest_check: bool,
    /// The EIP that leads to its fixed address.
    pub eip: Option<String>,
    /// The VIPs that it owns.
    pub owns: Vec<String>,
    /// The VIPs that it is bound to, and as what.
    pub bound: Vec<VipBinding>,
    /// Display name.
    pub name: Option<String>,
    /// The operator's remark.
    pub remark: Option<String>,
}

/// A VIP that a port is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipBinding {
    /// The VIP.
    pub vip: String,
    /// What the port may do with it; at least one right.
    pub rights: Vec<Right>,
}

/// What a binding lets a port do with a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// Claim it, send from it, receive it.
    Own,
    /// Send from it and receive it by MAC: a real server of LVS-DR.
    Source,
}

/// Whether somebody owns a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VipState {
    /// One port does.
    Owned,
    /// No port does: packets to it are dropped as `unowned`.
    Unowned,
    /// Several members of one VRID advertise at once.
    Conflict,
}

/// A floating address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipView {
    /// Its id.
    pub id: String,
    /// The VPC of its subnet.
    pub vpc: String,
    /// Its subnet.
    pub subnet: String,
    /// The address.
    pub address: Ipv4Addr,
    /// Whether somebody owns it.
    pub state: VipState,
    /// Who owns it; `null` while it is unowned.
    pub owner: Option<OwnerView>,
    /// Number of changes of owner so far, releases included; never smaller than before.
    pub epoch: u64,
    /// The ports that it is bound to.
    pub bound: Vec<PortBinding>,
    /// The EIP that leads to it.
    pub eip: Option<String>,
    /// VRIDs whose virtual router MACs may claim it.
    pub vrids: Vec<u8>,
    /// Frames towards its owner that this host passed on, to a guest here or to another host: one that crosses hosts counts on both.
    pub packets_in: u64,
    /// Bytes of those frames.
    pub bytes_in: u64,
    /// Frames from guests that this host forwarded for it. One that a guest left to the NIC to cut (GSO) counts once.
    pub packets_out: u64,
    /// Bytes of those frames.
    pub bytes_out: u64,
    /// Frames that came from another host, which took the owner for one here, and that this host sent on to the present one.
    pub packets_onward: u64,
    /// Bytes of those frames.
    pub bytes_onward: u64,
    /// Display name.
    pub name: Option<String>,
    /// The operator's remark.
    pub remark: Option<String>,
}

/// The owner of a VIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerView {
    /// The port.
    pub port: String,
    /// The host that the port lives on.
    pub host: String,
    /// The MAC that receives the VIP: the port's own, or the virtual router MAC that it claimed with.
    pub mac: MacAddr,
    /// The epoch that began with its ownership.
    pub epoch: u64,
    /// When its ownership began; `null`: not recorded.
    pub since: Option<Timestamp>,
    /// How it became the owner, a name of [`ClaimForm`](vip_common::tables::ClaimForm); `null`: not recorded.
    pub learned_from: Option<String>,
}

/// A port that a VIP is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortBinding {
    /// The port.
    pub port: String,
    /// What it may do with the VIP; at least one right.
    pub rights: Vec<Right>,
}

/// A public address. It leads to a VIP or to a port, never to both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EipView {
    /// Its id.
    pub id: String,
    /// The address.
    pub address: Ipv4Addr,
    /// The VPC of its target.
    pub vpc: String,
    /// The VIP that it leads to.
    pub vip: Option<String>,
    /// The port that it leads to, by its fixed address.
    pub port: Option<String>,
    /// The VIP's or the port's address inside the VPC.
    pub inner: Ipv4Addr,
    /// The port that gets its packets now: the VIP's owner, or the port itself; `null`: nobody.
    pub served_by: Option<String>,
    /// The entry of `eip_networks` that holds it; `null`: it is routed.
    pub network: Option<String>,
    /// Frames to it that came in at this host, and that it passed on to a guest here or to another host.
    pub packets_in: u64,
    /// Bytes of those frames.
    pub bytes_in: u64,
    /// Frames from guests that left as it. One that a guest left to the NIC to cut (GSO) counts once.
    pub packets_out: u64,
    /// Bytes of those frames.
    pub bytes_out: u64,
    /// Display name.
    pub name: Option<String>,
    /// The operator's remark.
    pub remark: Option<String>,
}

/// One change of a VIP's owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveView {
    /// The epoch that it began.
    pub epoch: u64,
    /// When.
    pub at: Timestamp,
    /// The new owner; `null`: the VIP was released.
    pub port: Option<String>,
    /// The host that it lives on now; `null`: the VIP was released, or the state has that port no more.
    pub host: Option<String>,
    /// The owner before; `null`: nobody.
    pub previous: Option<String>,
    /// How it came, a name of [`ClaimForm`](vip_common::tables::ClaimForm).
    pub learned_from: String,
}
