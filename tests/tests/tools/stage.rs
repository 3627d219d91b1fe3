//! The usual scene with its VIP owned, and a client far away behind a narrow link.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::Value;
use vip_lab::{
    Announcement, EipReach, Guest, Lab, Netns, UNDERLAY_OUTSIDE,
    scene::{EIP, FIXED_EIP, Scene, Setting, VIP, VIP_ID},
};

pub(crate) const SOON: Duration = Duration::from_secs(20);

/// An end inside: a guest, an address of its, and the EIP of that.
#[derive(Clone, Copy)]
pub(crate) struct Inside<'s> {
    pub(crate) guest: &'s Guest,
    pub(crate) address: Ipv4Addr,
    pub(crate) eip: Ipv4Addr,
}

/// Starts the scene; the first guest has the VIP.
pub(crate) fn start(lab: &Lab, reach: EipReach) -> Result<Scene> {
    let scene = Scene::start(lab, Setting { reach, ..Setting::default() })?;
    scene.first.add_vip_address(VIP)?;
    scene.first.arping(Announcement::Request, VIP)?;
    scene.vipd.wait_for_owner(VIP_ID, scene.first.name(), SOON)?;
    Ok(scene)
}

/// The VIP at the guest that XDP delivers to, and the fixed address of the one that TC delivers to.
pub(crate) fn insides(scene: &Scene) -> [Inside<'_>; 2] {
    [
        Inside { guest: &scene.first, address: VIP, eip: EIP },
        Inside { guest: &scene.third, address: scene.third.address(), eip: FIXED_EIP },
    ]
}

/// What the narrow link carries, in bytes.
pub(crate) const NARROW: &str = "1300";

/// The far client (TEST-NET-1, RFC 5737).
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 130);

/// A client behind two routers, between which the link is narrow: neither end sees that at its own interface.
pub(crate) struct Far {
    pub(crate) netns: Netns,
    /// The router before the link, as guests see it.
    pub(crate) router: Netns,
}

impl Far {
    /// Puts it behind the client of a scene whose EIPs are routed.
    pub(crate) fn add(lab: &Lab, scene: &Scene) -> Result<Self> {
        let (netns, next, router) =
            (lab.add_netns("far")?, lab.add_netns("next")?, scene.outside.netns().clone());
        let to_next = format!("link add name next mtu {NARROW} type veth peer name eth0 mtu {NARROW}");
        router.ip(&format!("{to_next} netns {}", next.name()))?;
        next.ip(&format!("link add name lan type veth peer name eth0 netns {}", netns.name()))?;
        for (netns, interface, address) in [
            (&router, "next", "192.0.2.1/30"),
            (&next, "eth0", "192.0.2.2/30"),
            (&next, "lan", "192.0.2.129/25"),
            (&netns, "eth0", "192.0.2.130/25"),
        ] {
            netns.ip(&format!("address add {address} dev {interface}"))?;
            netns.ip(&format!("link set dev {interface} up"))?;
        }
        router.ip("route add 192.0.2.128/25 via 192.0.2.2")?;
        next.ip("route add default via 192.0.2.1")?;
        netns.ip("route add default via 192.0.2.129")?;
        scene.host.netns().ip(&format!("route add 192.0.2.0/24 via {UNDERLAY_OUTSIDE}"))?;
        for router in [&router, &next] {
            router.sysctl("net/ipv4/ip_forward", "1")?;
            // Errors are what this is about: none is held back.
            router.sysctl("net/ipv4/icmp_ratelimit", "0")?;
        }
        Ok(Self { netns, router })
    }

    /// Lets the router before the link tell nobody of packets that do not fit.
    pub(crate) fn silence(&self) -> Result<()> {
        let rules = "add table ip silent; \
                     add chain ip silent output { type filter hook output priority 0; }; \
                     add rule ip silent output icmp type destination-unreachable counter drop";
        self.router.check(&["nft", rules])?;
        Ok(())
    }

    /// How often it would have told.
    pub(crate) fn untold(&self) -> Result<u64> {
        let shown = self.router.check(&["nft", "--json", "list", "chain", "ip", "silent", "output"])?;
        let shown: Value = serde_json::from_str(&shown).context("nft printed no JSON")?;
        let list =
            |value: &Value, at| value.pointer(at).and_then(Value::as_array).cloned().unwrap_or_default();
        let mut expressions =
            list(&shown, "/nftables").into_iter().flat_map(|object| list(&object, "/rule/expr"));
        let packets = expressions.find_map(|expression| expression.pointer("/counter/packets")?.as_u64());
        packets.with_context(|| format!("no counter in {shown}"))
    }
}
