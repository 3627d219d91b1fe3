//! A host with a bridge: two guests of the state, two that vipd has never heard of, and the host itself on it.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result};
use ipnetwork::Ipv4Network;
use vip_lab::{
    Announcement, Binaries, EipReach, Guest, GuestConfig, Host, Lab, Netns, Outside, Vipd, VipdConfig,
    poll_until,
};

pub(crate) const VIP_ID: &str = "web-vip";
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 246);

/// The bridge's address, which is the subnet's gateway.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 4, 1);

/// Leads to the VIP.
pub(crate) const EIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

/// Leads to the second guest's fixed address.
pub(crate) const FIXED_EIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);

/// For what should happen soon, on a machine that is busy.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The first two guests, a gateway that is not the forwarder, a VRID that may claim.
const STATE: &str = r#"hosts:   [{ id: hv1, vtep: 198.51.100.1 }]
vpcs:    [{ id: blue, vni: 4001 }]
subnets: [{ id: web, vpc: blue, cidr: 192.168.4.0/22, gateway: 192.168.4.1, router: external }]
ports:
  - { id: first, subnet: web, address: 192.168.7.247, mac: "02:00:00:00:07:f7", host: hv1, interface: tap0 }
  - { id: second, subnet: web, address: 192.168.7.248, mac: "02:00:00:00:07:f8", host: hv1, interface: tap1 }
vips:    [{ id: web-vip, subnet: web, address: 192.168.7.246, ports: [first, second], vrids: [66] }]
eips:
  - { id: web-eip, address: 203.0.113.10, vip: web-vip }
  - { id: fixed-eip, address: 203.0.113.11, port: second }
"#;

/// Host, bridge, guests and client; no vipd yet.
pub(crate) struct Stage {
    /// In the state.
    pub(crate) first: Guest,
    /// In the state.
    pub(crate) second: Guest,
    /// On the same bridge, but not in the state.
    pub(crate) third: Guest,
    /// Like the third.
    pub(crate) fourth: Guest,
    /// Behind the host as a router, in a prefix of its own.
    pub(crate) plain: Netns,
    pub(crate) outside: Outside,
    pub(crate) host: Host,
}

impl Stage {
    pub(crate) fn build(lab: &Lab) -> Result<Self> {
        let host = lab.add_host("hv1")?;
        let outside = host.add_outside(EipReach::OnLink)?;
        host.enable_forwarding()?;
        host.add_bridge("br0", Some(Ipv4Network::new(GATEWAY, 22)?))?;
        let guest = |name: &str, interface: &str, mac: &str, address: &str| -> Result<Guest> {
            let guest = host.add_guest(&GuestConfig::new(name, interface, mac, address)?)?;
            host.enslave(interface, "br0")?;
            Ok(guest)
        };
        let first = guest("first", "tap0", "02:00:00:00:07:f7", "192.168.7.247/22")?;
        let second = guest("second", "tap1", "02:00:00:00:07:f8", "192.168.7.248/22")?;
        let third = guest("third", "tap2", "02:00:00:00:05:03", "192.168.5.3/22")?;
        let fourth = guest("fourth", "tap3", "02:00:00:00:05:04", "192.168.5.4/22")?;
        let plain = lab.add_netns("plain")?;
        let inside = host.netns();
        inside.ip(&format!("link add name plain0 type veth peer name eth0 netns {}", plain.name()))?;
        inside.ip("address add 10.9.0.1/24 dev plain0")?;
        inside.ip("link set dev plain0 up")?;
        plain.ip("address add 10.9.0.2/24 dev eth0")?;
        plain.ip("link set dev eth0 up")?;
        plain.ip("route add default via 10.9.0.1")?;
        for prefix in ["10.9.0.0/24", "192.168.4.0/22"] {
            outside.netns().ip(&format!("route add {prefix} via 198.51.100.1"))?;
        }
        Ok(Self { first, second, third, fourth, plain, outside, host })
    }

    /// Starts vipd and waits until it serves.
    pub(crate) fn start_vipd(&self) -> Result<Vipd> {
        let config = VipdConfig::new("hv1")
            .with("eip_networks: [{ id: public, cidr: 203.0.113.0/24, gateway: 203.0.113.254 }]");
        let mut vipd = Vipd::start(&self.host, &Binaries::from_env()?, &config, STATE)?;
        vipd.ready()?;
        Ok(vipd)
    }
}

/// A guest has the VIP on its interface and tells everybody.
pub(crate) fn take_vip(vipd: &Vipd, guest: &Guest) -> Result<()> {
    guest.add_vip_address(VIP)?;
    guest.arping(Announcement::Request, VIP)?;
    vipd.wait_for_owner(VIP_ID, guest.name(), SOON)?;
    Ok(())
}

/// Waits until a ping is answered.
pub(crate) fn reaches(from: &Netns, to: Ipv4Addr) -> Result<()> {
    poll_until(SOON, &format!("{to} to answer {}", from.label()), || {
        from.ping(to, 1).ok().filter(|report| report.received == 1)
    })
    .map(drop)
    .context("ping")
}
