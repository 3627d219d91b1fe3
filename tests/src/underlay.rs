//! The underlay: the segment between hosts, and the way out of it.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};

use crate::{EIP_POOL, EipReach, Lab, Netns, host::UPLINK};

/// The router's address among the VTEPs.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 254);

/// The router's address in the EIP network, with [`EipReach::OnLink`].
pub const EIP_GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 254);

/// The address of the client behind the router.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

/// The router's address towards the client.
const CLIENT_GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// Prefix length of both networks of the router.
const PREFIX: u8 = 24;

/// The bridge that is the segment.
const BRIDGE: &str = "br0";

/// The router's end of the segment's cable to it, and that cable's port of the bridge.
pub(crate) const ROUTER_PORT: &str = "router";

/// MTU of an underlay on which guests can have 1500: VXLAN takes 50 bytes (RFC 7348 section 5: Ethernet of the guest, VXLAN, UDP, IPv4).
pub const ROOMY: u32 = 1550;

/// What differs between underlays.
#[derive(Clone, Copy, Debug)]
pub struct UnderlayConfig {
    /// MTU of every interface on the segment.
    pub mtu: u32,
    /// Whether the far ends of the uplinks have GRO on: only then a veth takes frames that XDP returns. Without it TC forwards what
    /// came by the uplink and leaves by it again.
    pub takes_xdp_frames: bool,
    /// How the router reaches EIPs.
    pub eips: EipReach,
}

impl Default for UnderlayConfig {
    /// Room for guests' 1500 bytes, XDP returns frames, the router asks for EIPs by ARP.
    fn default() -> Self {
        Self { mtu: ROOMY, takes_xdp_frames: true, eips: EipReach::OnLink }
    }
}

/// What does not pass between a host and the other hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing passes, to and from the router neither: the host's uplink has lost its carrier.
    Carrier,
    /// Nothing passes; the router is still reached.
    Hosts,
    /// What the agents tell each other does not pass (UDP to this port).
    Peers(u16),
}

/// One Ethernet segment with the hosts' uplinks, a router on it, and a client behind the router. Clones are the same underlay.
///
/// What enters the segment looks as from a real NIC: checksums are complete and no frame is longer than the MTU.
#[derive(Clone, Debug)]
pub struct Underlay {
    segment: Netns,
    router: Netns,
    client: Netns,
    config: UnderlayConfig,
}

/// The VTEP address of a host, by its number from 1.
pub fn vtep(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 31, 0, host)
}

impl Underlay {
    /// Makes segment, router and client; there are no hosts yet. With [`EipReach::Routed`] the router has no route to EIPs until
    /// [`Underlay::route_eips`].
    pub fn create(lab: &Lab, config: UnderlayConfig) -> Result<Self> {
        let (segment, router, client) =
            (lab.add_netns("segment")?, lab.add_netns("router")?, lab.add_netns("client")?);
        segment.ip(&format!("link add name {BRIDGE} type bridge stp_state 0 forward_delay 0"))?;
        segment.ip(&format!("link set dev {BRIDGE} mtu {} up", config.mtu))?;
        let underlay = Self { segment, router, client, config };
        underlay.plug(&underlay.router, ROUTER_PORT)?;
        let (router, client) = (&underlay.router, &underlay.client);
        router.ip(&format!("address add {ROUTER}/{PREFIX} dev {UPLINK}"))?;
        if config.eips == EipReach::OnLink {
            router.ip(&format!("address add {EIP_GATEWAY}/{PREFIX} dev {UPLINK}"))?;
        }
        router.ip(&format!("link add name eth1 type veth peer name eth0 netns {}", client.name()))?;
        router.ip(&format!("address add {CLIENT_GATEWAY}/{PREFIX} dev eth1"))?;
        router.ip("link set dev eth1 up")?;
        client.ip(&format!("address add {CLIENT}/{PREFIX} dev eth0"))?;
        client.ip("link set dev eth0 up")?;
        client.ip(&format!("route add default via {CLIENT_GATEWAY}"))?;
        router.sysctl("net/ipv4/ip_forward", "1")?;
        // Ports decide, so that a handful of flows use several of the equal routes.
        router.sysctl("net/ipv4/fib_multipath_hash_policy", "1")?;
        for netns in [router, client] {
            netns.sysctl("net/ipv4/icmp_ratelimit", "0")?;
        }
        // From one EIP to another: the way through the router is the way.
        for interface in ["all", UPLINK] {
            router.sysctl(&format!("net/ipv4/conf/{interface}/send_redirects"), "0")?;
        }
        Ok(underlay)
    }

    /// Gives a host's namespace its uplink `eth0`, with the VTEP address of its number and the default route by the router. The
    /// uplink's far end, a port of the bridge in [`Underlay::segment`], has the namespace's label as its name.
    pub fn connect(&self, host: &Netns, number: u8) -> Result<()> {
        self.plug(host, host.label())?;
        if self.config.takes_xdp_frames {
            self.segment.check(&["ethtool", "-K", host.label(), "gro", "on"])?;
        }
        host.ip(&format!("address add {}/{PREFIX} dev {UPLINK}", vtep(number)))?;
        host.ip(&format!("route add default via {ROUTER}"))?;
        Ok(())
    }

    /// A cable from a namespace's `eth0` to the bridge.
    fn plug(&self, netns: &Netns, port: &str) -> Result<()> {
        let Self { segment, config, .. } = self;
        segment.ip(&format!("link add name {port} type veth peer name {UPLINK} netns {}", netns.name()))?;
        for (netns, interface) in [(segment, port), (netns, UPLINK)] {
            netns.check(&["ethtool", "-K", interface, "tx", "off", "tso", "off", "gso", "off"])?;
            netns.ip(&format!("link set dev {interface} mtu {} up", config.mtu))?;
        }
        segment.ip(&format!("link set dev {port} master {BRIDGE}"))?;
        Ok(())
    }

    /// The namespace of the bridge; captures on its ports see what XDP makes of frames, too.
    pub fn segment(&self) -> &Netns {
        &self.segment
    }

    /// The router: `eth0` is on the segment, `eth1` towards the client.
    pub fn router(&self) -> &Netns {
        &self.router
    }

    /// The client outside; its address is [`CLIENT`].
    pub fn client(&self) -> &Netns {
        &self.client
    }

    /// What it was made with.
    pub fn config(&self) -> UnderlayConfig {
        self.config
    }

    /// Lets the router route all EIPs by the VTEP addresses of these hosts, flow by flow if there are several; each flow keeps its host.
    pub fn route_eips(&self, hosts: &[u8]) -> Result<()> {
        let ways: Vec<String> = hosts.iter().map(|host| format!("nexthop via {}", vtep(*host))).collect();
        self.router.ip(&format!("route replace {EIP_POOL} {}", ways.join(" ")))?;
        Ok(())
    }

    /// The router forgets all neighbours: it asks by ARP again.
    pub fn flush_neighbours(&self) -> Result<()> {
        self.router.ip("neighbour flush all")?;
        Ok(())
    }

    /// Cuts a host off, in both directions, until [`Underlay::heal`].
    pub fn cut(&self, host: &Netns, cut: Cut) -> Result<()> {
        let port = host.label();
        let matching = match cut {
            Cut::Carrier => {
                self.segment.ip(&format!("link set dev {port} down"))?;
                return Ok(());
            }
            Cut::Hosts => String::new(),
            Cut::Peers(number) => format!("ip protocol udp udp dport {number} "),
        };
        self.segment.nft("add table bridge lab")?;
        self.segment.nft("add chain bridge lab forward { type filter hook forward priority 0; }")?;
        for (here, there) in [("iifname", "oifname"), ("oifname", "iifname")] {
            let rule = format!("{here} {port} {there} != {ROUTER_PORT} {matching}counter drop");
            self.segment.nft(&format!("add rule bridge lab forward {rule}"))?;
        }
        Ok(())
    }

    /// Takes back all that [`Underlay::cut`] has cut.
    pub fn heal(&self) -> Result<()> {
        self.segment.nft("add table bridge lab")?;
        self.segment.nft("delete table bridge lab")?;
        let shown = self.segment.ip(&format!("-json link show master {BRIDGE}"))?;
        let shown: serde_json::Value = serde_json::from_str(&shown).context("ip wrote no JSON")?;
        let ports = shown.as_array().into_iter().flatten();
        for port in ports.filter_map(|port| port.get("ifname")?.as_str()) {
            self.segment.ip(&format!("link set dev {port} up"))?;
        }
        Ok(())
    }
}
