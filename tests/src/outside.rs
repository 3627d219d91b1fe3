//! The client outside, behind a host's uplink.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};

use crate::{Host, Mac, Netns, host::UPLINK, virtio};

/// The outside client's address on the underlay.
pub const UNDERLAY_OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

/// The host's address on the underlay.
pub const UNDERLAY_HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// The network of the EIPs (TEST-NET-3, RFC 5737).
pub const EIP_POOL: &str = "203.0.113.0/24";

/// The outside client's own address in the EIP network, with [`EipReach::OnLink`].
const EIP_NEIGHBOUR: &str = "203.0.113.254/24";

/// How the outside client reaches EIPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EipReach {
    /// It has an address in the EIP network and asks for EIPs by ARP.
    OnLink,
    /// It has a route to the EIP network by the host's underlay address.
    Routed,
}

/// A client outside: 198.51.100.7/24 on `eth0`, opposite the host's `eth0` with 198.51.100.1/24.
///
/// What it sends looks as from a real NIC: checksums are complete and no frame is larger than the MTU, since native
/// XDP on a veth would take a checksum that is still to be completed for a real one. Its own end has GRO on, without
/// which a veth takes no frames that XDP redirects or returns.
#[derive(Clone, Debug)]
pub struct Outside {
    netns: Netns,
    mac: Mac,
}

impl Outside {
    pub(crate) fn create(host: &Host, reach: EipReach) -> Result<Self> {
        let (inside, netns) = (host.netns(), Self::netns_of(host)?);
        inside.ip(&format!("link add name {UPLINK} type veth peer name eth0 netns {}", netns.name()))?;
        netns.check(&["ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off", "gro", "on"])?;
        Self::configure(inside, netns, reach)
    }

    /// As [`Outside::create`], with the machine's network cards instead of a veth.
    pub(crate) fn create_on_cards(host: &Host, reach: EipReach) -> Result<Self> {
        let (inside, netns) = (host.netns(), Self::netns_of(host)?);
        virtio::give(virtio::UPLINK_MAC, inside, UPLINK)?;
        virtio::give(virtio::OUTSIDE_MAC, &netns, "eth0")?;
        // Captures see what came over the wire, not what GRO made of it.
        netns.check(&["ethtool", "-K", "eth0", "gro", "off"])?;
        Self::configure(inside, netns, reach)
    }

    fn netns_of(host: &Host) -> Result<Netns> {
        let inside = host.netns();
        crate::netns::sibling(inside, &format!("{}-outside", inside.label()))
    }

    fn configure(inside: &Netns, netns: Netns, reach: EipReach) -> Result<Self> {
        inside.ip(&format!("address add {UNDERLAY_HOST}/24 dev {UPLINK}"))?;
        inside.ip(&format!("link set dev {UPLINK} up"))?;
        netns.ip(&format!("address add {UNDERLAY_OUTSIDE}/24 dev eth0"))?;
        netns.ip("link set dev eth0 up")?;
        match reach {
            EipReach::OnLink => netns.ip(&format!("address add {EIP_NEIGHBOUR} dev eth0"))?,
            EipReach::Routed => netns.ip(&format!("route add {EIP_POOL} via {UNDERLAY_HOST}"))?,
        };
        let mac = mac_of(&netns, "eth0")?;
        Ok(Self { netns, mac })
    }

    /// The client's namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The MAC of the client's `eth0`.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Forgets all neighbours: the next packet asks by ARP again.
    pub fn flush_neighbours(&self) -> Result<()> {
        self.netns.ip("neighbour flush all")?;
        Ok(())
    }
}

/// The MAC of an interface.
pub(crate) fn mac_of(netns: &Netns, interface: &str) -> Result<Mac> {
    let shown: serde_json::Value =
        serde_json::from_str(&netns.ip(&format!("-json link show dev {interface}"))?)
            .context("`ip -json link show` printed no JSON")?;
    let address = shown.pointer("/0/address").and_then(|address| address.as_str());
    address.with_context(|| format!("{interface} of {} has no MAC address", netns.label()))?.parse()
}
