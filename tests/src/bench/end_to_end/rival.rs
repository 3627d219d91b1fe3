//! What the kernel has for the same job: routing, and nftables in front of it.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use super::super::world::{self, World};
use crate::{Netns, Output};

/// A way through the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rival {
    /// Routing alone: packets come with the inner address.
    Routing,
    /// DNAT with connections.
    Conntrack,
    /// The address rewritten before connections would be looked up.
    Stateless,
    /// The address rewritten where the frame comes in.
    Ingress,
}

impl Rival {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Routing => "kernel routing, no NAT",
            Self::Conntrack => "nftables DNAT, conntrack",
            Self::Stateless => "nftables, stateless",
            Self::Ingress => "nftables, netdev ingress",
        }
    }

    /// Sets it up; `remove` takes it away.
    pub(super) fn add(self, host: &Netns, world: World) -> Result<()> {
        let Some(chain) = self.chain() else { return Ok(()) };
        let mut rules = format!("table {chain} {{\n map vips {{ type ipv4_addr : ipv4_addr; elements = {{\n");
        for vip in 0..world.entries {
            let eip = world::nth(world::FIRST_EIP, world.eip_of(vip));
            writeln!(rules, "{eip} : {},", world::nth(world::FIRST_VIP, vip))?;
        }
        write!(rules, "}} }}\n chain c {{ {}; }}\n}}\n", self.rule())?;
        let file = host.directory().join("nftables.rules");
        fs::write(&file, rules).context("cannot write rules")?;
        load(host, &file)
    }

    /// Takes it away.
    pub(super) fn remove(self, host: &Netns) -> Result<()> {
        if self == Self::Routing {
            return Ok(());
        }
        host.check(&["nft", "flush", "ruleset"]).map(drop)
    }

    const fn chain(self) -> Option<&'static str> {
        match self {
            Self::Routing => None,
            Self::Conntrack | Self::Stateless => Some("ip bench"),
            Self::Ingress => Some("netdev bench"),
        }
    }

    const fn rule(self) -> &'static str {
        match self {
            Self::Routing => "",
            Self::Conntrack => "type nat hook prerouting priority dstnat; dnat to ip daddr map @vips",
            Self::Stateless => {
                "type filter hook prerouting priority raw; ip daddr set ip daddr map @vips notrack"
            }
            Self::Ingress => {
                "type filter hook ingress device eth0 priority 0; ip daddr set ip daddr map @vips"
            }
        }
    }
}

fn load(host: &Netns, file: &Path) -> Result<()> {
    let file = file.to_str().context("a path that is no UTF-8")?;
    let output: Output = host.run(&["nft", "-f", file])?;
    // Messages quote the rules, which are long.
    let message = output.stderr.lines().next().unwrap_or_default();
    ensure!(output.status.success(), "nft refuses the rules: {message}");
    Ok(())
}

/// Makes the host a router from the outside to all VIPs, which are behind its first port.
pub(super) fn enable_routing(host: &Netns) -> Result<()> {
    host.sysctl("net/ipv4/ip_forward", "1")?;
    for which in ["all", "default", "eth0", "port0"] {
        host.sysctl(&format!("net/ipv4/conf/{which}/rp_filter"), "0")?;
    }
    let next_hop = world::port_address(0);
    let (network, prefix) = world::SUBNET;
    host.ip("address add 198.51.100.2/24 dev eth0")?;
    host.ip(&format!("neighbour add {next_hop} lladdr {} dev port0 nud permanent", world::port_mac(0)))?;
    host.ip(&format!("route add {network}/{prefix} via {next_hop} dev port0 onlink"))?;
    Ok(())
}
