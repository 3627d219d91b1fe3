//! A host without vipd: a plain Linux whose guests are on a bridge with the kernel's own vxlan device.

use anyhow::Result;

use crate::{
    Cluster, Host, Netns,
    cluster::Subnet,
    scene::{VIP, constant_mac},
    underlay::vtep,
};

/// The bridge of such a host, and its vxlan device.
const BRIDGE: &str = "br0";
const DEVICE: &str = "vxlan0";

/// How the bridge of such a host finds the VTEP behind which a MAC is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It learns from what comes in; what it does not know goes to all.
    Learning,
    /// An administrator has written each MAC down; only groups go to all.
    Static,
}

/// Makes a host of a cluster, e.g. that of [`ClusterConfig::far_host`](crate::ClusterConfig::far_host), serve its guests of a subnet:
/// the bridge, the vxlan device (RFC 7348, UDP 4789), and where the others are.
pub fn serve(cluster: &Cluster, number: u8, subnet: Subnet, finding: Finding) -> Result<()> {
    let far: &Host = cluster.host(number)?;
    let netns = far.netns();
    far.add_bridge(BRIDGE, None)?;
    let learning = if finding == Finding::Learning { "learning" } else { "nolearning" };
    netns.ip(&format!(
        "link add name {DEVICE} type vxlan id {} local {} dstport 4789 {learning}",
        subnet.vni,
        vtep(number)
    ))?;
    netns.ip(&format!("link set dev {DEVICE} mtu {} up", cluster.underlay().config().mtu - 50))?;
    far.enslave(DEVICE, BRIDGE)?;
    for host in (1..=cluster.config().numbers()).filter(|host| *host != number) {
        // To all: what the kernel does not know, and groups.
        entry(netns, "00:00:00:00:00:00", host)?;
    }
    if finding == Finding::Static {
        // Gateway and VIPs are behind any host, which sends on what is not for it.
        let vips = [subnet.gateway, VIP].map(|address| (constant_mac(address).to_string(), 1));
        vips.iter()
            .filter(|(_, host)| *host != number)
            .try_for_each(|(mac, host)| entry(netns, mac, *host))?;
    }
    for placed in cluster.config().guests.iter().filter(|guest| guest.subnet == subnet) {
        if placed.host == number {
            far.enslave(cluster.guest(placed.name)?.interface(), BRIDGE)?;
        } else if finding == Finding::Static {
            entry(netns, &placed.mac().to_string(), placed.host)?;
        }
    }
    Ok(())
}

fn entry(netns: &Netns, mac: &str, host: u8) -> Result<()> {
    let vtep = vtep(host).to_string();
    netns.check(&["bridge", "fdb", "append", mac, "dev", DEVICE, "dst", &vtep, "self", "permanent"])?;
    Ok(())
}
