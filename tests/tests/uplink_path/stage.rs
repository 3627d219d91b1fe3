//! One host with two guests that XDP can deliver to, a VIP that they share, and an EIP for that and for the second of them.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::Value;
use vip_lab::{
    Announcement, Binaries, EipReach, Guest, GuestConfig, Host, Lab, Mac, NEEDS_XDP_FEATURES, Outside, Vipd,
    VipdConfig, fixtures::world::constant_mac, poll_until, skip,
};

pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 246);

/// Leads to the VIP.
pub(crate) const EIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

/// Leads to the second guest's fixed address.
pub(crate) const FIXED_EIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);

/// The client's address in the EIP network.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 254);

/// For what should happen soon, on a machine that is busy.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A frame of a full MTU, with its header.
pub(crate) const LONGEST_PLAIN_FRAME: usize = 1514;

const STATE: &str = r#"hosts:   [{ id: hv1, vtep: 198.51.100.1 }]
vpcs:    [{ id: blue, vni: 4001 }]
subnets: [{ id: web, vpc: blue, cidr: 192.168.4.0/22, gateway: 192.168.4.1 }]
ports:
  - { id: first, subnet: web, address: 192.168.7.247, mac: "02:00:00:00:07:f7", host: hv1, interface: tap0 }
  - { id: second, subnet: web, address: 192.168.7.248, mac: "02:00:00:00:07:f8", host: hv1, interface: tap1 }
groups:  [{ id: web, members: [first, second] }]
vips:    [{ id: web-vip, subnet: web, address: 192.168.7.246, group: web }]
eips:
  - { id: web-eip, address: 203.0.113.10, vip: web-vip }
  - { id: fixed-eip, address: 203.0.113.11, port: second }
"#;

fn config(path: &str) -> VipdConfig {
    VipdConfig::new("hv1")
        .with("eip_networks: [{ id: public, cidr: 203.0.113.0/24, gateway: 203.0.113.254 }]")
        .with(&format!("uplink_path: {path}"))
}

/// Everything is there. Fields are dropped from the first to the last: vipd before what it works on.
pub(crate) struct Stage {
    pub(crate) vipd: Vipd,
    pub(crate) first: Guest,
    pub(crate) second: Guest,
    pub(crate) outside: Outside,
    pub(crate) host: Host,
}

impl Stage {
    /// Runs a test with the uplink's path. Where the kernel does not tell what XDP can do with an interface, veths are served by TC
    /// whatever the path is: there the test is skipped.
    ///
    /// # Panics
    /// When the test fails.
    pub(crate) fn run(test: &str, path: &str, body: impl FnOnce(Self) -> Result<()>) {
        Lab::run(|lab| {
            let Some(stage) = Self::start(lab, path)? else {
                skip(test, NEEDS_XDP_FEATURES);
                return Ok(());
            };
            body(stage)
        });
    }

    /// vipd serves with this path, both guests have the VIP on their interface, `first` has claimed it. None where the path is
    /// TC's although it should not be.
    fn start(lab: &Lab, path: &str) -> Result<Option<Self>> {
        let host = lab.add_host("hv1")?;
        let outside = host.add_outside(EipReach::OnLink)?;
        // A NIC has it on, a veth has not.
        host.netns().check(&["ethtool", "-K", "eth0", "gro", "on"])?;
        let guest = |name: &str, interface: &str, mac: &str, address: &str| {
            host.add_guest(&GuestConfig::new(name, interface, mac, address)?.with_gro())
        };
        let first = guest("first", "tap0", "02:00:00:00:07:f7", "192.168.7.247/22")?;
        let second = guest("second", "tap1", "02:00:00:00:07:f8", "192.168.7.248/22")?;
        let vipd = Vipd::start(&host, &Binaries::from_env()?, &config(path), STATE)?;
        let mut stage = Self { vipd, first, second, outside, host };
        stage.vipd.ready()?;
        if !stage.xdp_features_are_told()? {
            return Ok(None);
        }
        for guest in [&stage.first, &stage.second] {
            guest.add_vip_address(VIP)?;
            stage.wait_for_path(guest, if path == "tc" { "uplink-tc" } else { path })?;
        }
        stage.give_vip(&stage.first)?;
        Ok(Some(stage))
    }

    fn xdp_features_are_told(&self) -> Result<bool> {
        let status = self.status()?;
        let why = status.pointer("/ports/0/why").and_then(Value::as_str).context("the status has no port")?;
        Ok(!why.starts_with("this kernel does not tell"))
    }

    /// Starts vipd again with another path.
    pub(crate) fn change_path(&mut self, path: &str) -> Result<()> {
        self.vipd.write_config(&config(path))?;
        self.vipd.restart()
    }

    /// A guest takes the VIP by gratuitous ARP.
    pub(crate) fn give_vip(&self, guest: &Guest) -> Result<()> {
        guest.arping(Announcement::Request, VIP)?;
        self.vipd.wait_for_owner("web-vip", guest.name(), SOON).map(drop)
    }

    /// What `vipctl status` shows.
    pub(crate) fn status(&self) -> Result<Value> {
        self.vipd.vipctl(&["status", "-o", "json"])
    }

    /// Waits until the status names this path for a guest's port.
    pub(crate) fn wait_for_path(&self, guest: &Guest, path: &str) -> Result<()> {
        poll_until(SOON, &format!("the path {path} for {}", guest.name()), || {
            let status = self.status().ok()?;
            let is_it = |port: &&Value| port.get("id").and_then(Value::as_str) == Some(guest.name());
            let port = status.get("ports")?.as_array()?.iter().find(is_it)?;
            (port.get("path")?.as_str()? == path).then_some(())
        })
    }

    /// The uplink's MAC.
    pub(crate) fn uplink_mac(&self) -> Result<Mac> {
        let status = self.status()?;
        status.pointer("/uplink/mac").and_then(Value::as_str).context("the uplink has no MAC")?.parse()
    }

    /// The MAC that guests receive routed packets from.
    pub(crate) fn gateway_mac() -> Mac {
        constant_mac(Ipv4Addr::new(192, 168, 4, 1))
    }

    /// Lets the uplink's GRO wait for more segments of a flow, as it does on a NIC under load. What XDP takes waits for nothing.
    pub(crate) fn hold_segments(&self, time: Duration) -> Result<()> {
        let netns = self.host.netns();
        // /sys shows the interfaces of whoever mounted it: `ip netns exec` does, for its command alone.
        let write = format!("echo {} > /sys/class/net/eth0/gro_flush_timeout", time.as_nanos());
        netns.check(&["ip", "netns", "exec", netns.name(), "sh", "-c", &write]).map(drop)
    }
}
