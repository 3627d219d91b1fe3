//! What the host's interfaces mean to the forwarder.

use std::collections::BTreeMap;

use super::AgentError;
use crate::{
    net::{Link, LinkKind, Links, XdpFeatures},
    plan::{Interface, Interfaces},
    state::{Port, Ref, State},
};

/// XDP features by ifindex; empty on a kernel that does not tell (before 6.3).
pub(super) type Features = BTreeMap<u32, XdpFeatures>;

/// Whether an interface takes frames that XDP redirects to it, and why, in words for the operator.
pub(super) fn takes_xdp(link: &Link, features: &Features) -> (bool, &'static str) {
    if link.vlan.is_some() {
        return (false, "a VLAN interface takes no XDP frames");
    }
    if features.is_empty() {
        return match link.kind {
            LinkKind::Tun => (true, "a tap always takes XDP frames"),
            _ => (false, "this kernel does not tell whether the interface takes XDP frames (Linux 6.3 does)"),
        };
    }
    match features.get(&link.ifindex) {
        Some(features) if features.contains(XdpFeatures::NDO_XMIT) => {
            (true, "the interface takes XDP frames")
        }
        Some(_) if link.kind == LinkKind::Veth => {
            (false, "the interface takes no XDP frames: the guest's end of the veth has GRO off")
        }
        _ => (false, "the interface takes no XDP frames: its driver has no NDO_XMIT"),
    }
}

/// Whether the interface belongs to a Linux bridge or to Open vSwitch.
pub(super) fn is_bridged(link: &Link) -> bool {
    link.master.as_ref().is_some_and(|master| matches!(master.kind, LinkKind::Bridge | LinkKind::OpenVSwitch))
}

/// The interfaces by their names: there may be a million ports to look one up for.
pub(super) fn by_name(links: &Links) -> BTreeMap<&str, &Link> {
    links.iter().map(|link| (link.name.as_str(), link)).collect()
}

/// The interfaces of the state's ports on this host, as far as they exist.
pub(super) fn of_ports(state: &State, host: &str, links: &Links, features: &Features) -> Interfaces {
    let (by_name, vlans) = (by_name(links), links.vlans());
    let mut interfaces = Interfaces::default();
    for (port, what) in ports_on(state, host) {
        let named = by_name.get(state.interface(port)).copied();
        let link = match what.vlan {
            None => named,
            Some(vlan) => named.and_then(|named| vlans.find(named.ifindex, vlan)),
        };
        let Some(link) = link else { continue };
        let interface = Interface {
            ifindex: link.ifindex,
            bridged: is_bridged(link),
            takes_xdp: takes_xdp(link, features).0,
            takes_xdp_frags: features
                .get(&link.ifindex)
                .is_some_and(|features| features.contains(XdpFeatures::NDO_XMIT_SG)),
            mtu: link.mtu,
        };
        interfaces.insert(state.interface(port).to_owned(), what.vlan, interface);
    }
    interfaces
}

/// The ports that the state has on a host.
pub(super) fn ports_on<'s>(state: &'s State, host: &str) -> impl Iterator<Item = (Ref<Port>, &'s Port)> {
    let host = state.hosts.find(host);
    state.ports.iter().filter(move |(_, port)| Some(port.host) == host)
}

/// Where outside traffic comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Uplink {
    /// Its number.
    pub(super) ifindex: u32,
    /// The interface that has its routes and neighbours: itself, or the bridge or bond that it belongs to.
    pub(super) routed_by: u32,
    /// MAC of that interface, in wire order: what outside neighbours send to.
    pub(super) mac: [u8; 6],
    /// Longest IP packet that leaves by it, in bytes.
    pub(super) mtu: u32,
    /// It can send what XDP returns to it.
    pub(super) returns: bool,
}

impl Uplink {
    /// The uplink, if it exists.
    pub(super) fn find(name: &str, links: &Links) -> Result<Option<Self>, AgentError> {
        let Some(link) = links.by_name(name) else { return Ok(None) };
        let routed_by = match &link.master {
            None => link,
            Some(master) if matches!(master.kind, LinkKind::Bridge | LinkKind::Bond) => {
                // A master that is gone already: its event follows.
                let Some(master) = links.get(master.ifindex) else { return Ok(None) };
                master
            }
            Some(master) => {
                let (uplink, kind) = (name.to_owned(), master.kind.to_string());
                return Err(AgentError::UnsupportedStack { uplink, kind });
            }
        };
        let mac = routed_by.mac.ok_or_else(|| AgentError::NoMac { uplink: name.to_owned() })?;
        // XDP_TX out of a veth is flushed only if the other end has an XDP program of its own (veth_xdp_flush of Linux 6.18;
        // GRO, which is enough for redirected frames, is not), and nobody tells whether it has one.
        let returns = link.kind != LinkKind::Veth;
        let (ifindex, mtu) = (link.ifindex, link.mtu.min(routed_by.mtu));
        Ok(Some(Self { ifindex, routed_by: routed_by.ifindex, mac, mtu, returns }))
    }
}
