//! Several hosts, each with a vipd of its own, on one underlay, and one state for all of them.

use std::{
    collections::BTreeMap, fmt::Write as _, fs, io::Write as _, net::Ipv4Addr,
    os::unix::fs::OpenOptionsExt as _, time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    Binaries, EipReach, Guest, GuestConfig, Host, Lab, Mac, Netns, Vipd, VipdConfig,
    scene::{EIP, FIXED_EIP, VIP},
    underlay::{EIP_GATEWAY, ROUTER_PORT, Underlay, UnderlayConfig, vtep},
};

/// The port on which the agents tell each other of claims.
pub const PEERS_PORT: u16 = 4790;

/// The secret that the hosts share.
const KEY: &str = "6b65793a20666f722074686520686f737473206f6620746865206c6162210a00";

/// A subnet of the state that every cluster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// Its id.
    pub id: &'static str,
    /// Its VPC's id.
    pub vpc: &'static str,
    /// Its VPC's VNI.
    pub vni: u32,
    /// Its network.
    pub network: Ipv4Addr,
    /// Its prefix length.
    pub prefix: u8,
    /// Its gateway, which the forwarder is.
    pub gateway: Ipv4Addr,
}

/// Where the VIP is; of VPC `blue`.
pub const WEB: Subnet = Subnet {
    id: "web",
    vpc: "blue",
    vni: 4001,
    network: Ipv4Addr::new(192, 168, 4, 0),
    prefix: 22,
    gateway: Ipv4Addr::new(192, 168, 4, 1),
};

/// Another one of VPC `blue`.
pub const APP: Subnet = Subnet {
    id: "app",
    vpc: "blue",
    vni: 4001,
    network: Ipv4Addr::new(192, 168, 8, 0),
    prefix: 24,
    gateway: Ipv4Addr::new(192, 168, 8, 1),
};

/// Of VPC `green`, a peer of `blue`.
pub const DB: Subnet = Subnet {
    id: "db",
    vpc: "green",
    vni: 4002,
    network: Ipv4Addr::new(10, 20, 0, 0),
    prefix: 24,
    gateway: Ipv4Addr::new(10, 20, 0, 1),
};

/// The same addresses as [`WEB`], in VPC `red`, which is nobody's peer.
pub const SHADOW: Subnet = Subnet { id: "shadow", vpc: "red", vni: 4003, ..WEB };

/// All of them.
const SUBNETS: [Subnet; 4] = [WEB, APP, DB, SHADOW];

/// The VIP's id.
pub const VIP_ID: &str = "web-vip";

/// The VIP with both its members, its EIP, and the EIP of the third guest's fixed address: of [`ClusterConfig::usual`].
pub fn usual_objects() -> String {
    format!(
        "groups:  [{{ id: web, members: [first, second] }}]\n\
         vips:    [{{ id: {VIP_ID}, subnet: web, address: {VIP}, group: web }}]\n\
         eips:\n\
         \x20 - {{ id: web-eip, address: {EIP}, vip: {VIP_ID} }}\n\
         \x20 - {{ id: third-eip, address: {FIXED_EIP}, port: third }}\n"
    )
}

/// A guest, and where it is.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// Its name, and its port's id.
    pub name: &'static str,
    /// The number of its host, from 1.
    pub host: u8,
    /// Its subnet.
    pub subnet: Subnet,
    /// Its fixed address.
    pub address: Ipv4Addr,
    /// Whether it has GRO on: XDP delivers to it then.
    pub gro: bool,
    /// Whether its source/destination check is on.
    pub checked: bool,
}

impl Placed {
    /// A guest that is checked and to which TC delivers.
    pub const fn new(name: &'static str, host: u8, subnet: Subnet, address: [u8; 4]) -> Self {
        let [a, b, c, d] = address;
        Self { name, host, subnet, address: Ipv4Addr::new(a, b, c, d), gro: false, checked: true }
    }

    /// Its MAC: 02:00 and the address, so that guests with the same address in two VPCs have the same MAC, too.
    pub fn mac(&self) -> Mac {
        let [a, b, c, d] = self.address.octets();
        Mac([2, 0, a, b, c, d])
    }
}

/// The first member of the VIP, on the first host. XDP delivers to it.
pub const FIRST: Placed = Placed { gro: true, ..Placed::new("first", 1, WEB, [192, 168, 7, 247]) };

/// The second member, on the second host.
pub const SECOND: Placed = Placed::new("second", 2, WEB, [192, 168, 7, 248]);

/// Of the same subnet, without any right to the VIP, on the third host.
pub const THIRD: Placed = Placed::new("third", 3, WEB, [192, 168, 7, 249]);

/// Of another subnet of the same VPC, on the second host; in a cluster only where it is added.
pub const APPLICATION: Placed = Placed::new("application", 2, APP, [192, 168, 8, 5]);

/// Of a peered VPC, on the third host; in a cluster only where it is added. XDP delivers to it.
pub const DATABASE: Placed = Placed { gro: true, ..Placed::new("database", 3, DB, [10, 20, 0, 5]) };

/// What differs between clusters.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// The underlay.
    pub underlay: UnderlayConfig,
    /// How many hosts run vipd: `hv1`, `hv2`, …
    pub hosts: u8,
    /// Whether one more host, `far`, with the number behind theirs, runs none: a plain Linux with the kernel's own vxlan device.
    pub far_host: bool,
    /// The guests, all of which are ports of the state.
    pub guests: Vec<Placed>,
    /// MTU of the guests' interfaces; None: the kernel's default, 1500.
    pub guest_mtu: Option<u32>,
    /// More of the state: groups, VIPs, EIPs.
    pub objects: String,
    /// More lines of each vipd's configuration.
    pub vipd: String,
}

impl ClusterConfig {
    /// Three hosts with a guest each, the first two members of the VIP.
    pub fn usual() -> Self {
        Self {
            underlay: UnderlayConfig::default(),
            hosts: 3,
            far_host: false,
            guests: vec![FIRST, SECOND, THIRD],
            guest_mtu: None,
            objects: usual_objects(),
            vipd: String::new(),
        }
    }

    /// The same with these guests in place of the usual ones, and no VIP or EIP.
    #[must_use]
    pub fn of_guests(self, guests: &[Placed]) -> Self {
        Self { guests: guests.to_vec(), objects: String::new(), ..self }
    }

    /// The same with one more guest.
    #[must_use]
    pub fn with(mut self, guest: Placed) -> Self {
        self.guests.push(guest);
        self
    }

    /// The state: the same text on every host.
    pub fn state(&self) -> Result<String> {
        let mut text = String::from("hosts:\n");
        for number in 1..=self.numbers() {
            writeln!(text, "  - {{ id: {}, vtep: {} }}", self.label(number), vtep(number))?;
        }
        text.push_str("vpcs:\n");
        for subnet in [WEB, DB, SHADOW] {
            writeln!(text, "  - {{ id: {}, vni: {} }}", subnet.vpc, subnet.vni)?;
        }
        text.push_str("subnets:\n");
        for Subnet { id, vpc, network, prefix, gateway, .. } in SUBNETS {
            writeln!(text, "  - {{ id: {id}, vpc: {vpc}, cidr: {network}/{prefix}, gateway: {gateway} }}")?;
        }
        text.push_str("peerings: [{ vpcs: [blue, green] }]\nports:\n");
        for (guest, interface) in self.interfaces() {
            let Placed { name, host, subnet, address, checked, .. } = guest;
            writeln!(
                text,
                "  - {{ id: {name}, subnet: {}, address: {address}, mac: \"{}\", host: {}, interface: {interface}, \
                 source_dest_check: {checked} }}",
                subnet.id,
                guest.mac(),
                self.label(*host)
            )?;
        }
        text.push_str(&self.objects);
        Ok(text)
    }

    /// How many hosts there are, with and without vipd.
    pub(crate) fn numbers(&self) -> u8 {
        self.hosts + u8::from(self.far_host)
    }

    /// A host's id, which is also its namespace's label.
    fn label(&self, number: u8) -> String {
        if number > self.hosts { "far".to_owned() } else { format!("hv{number}") }
    }

    /// Each guest with the name of its interface on its host: `tap0`, `tap1`, …
    fn interfaces(&self) -> impl Iterator<Item = (&Placed, String)> {
        let mut next: BTreeMap<u8, u32> = BTreeMap::new();
        self.guests.iter().map(move |guest| {
            let number = next.entry(guest.host).or_default();
            let interface = format!("tap{number}");
            *number += 1;
            (guest, interface)
        })
    }
}

/// Hosts, guests and agents. Fields are dropped from the first to the last: each vipd before what it serves.
#[derive(Debug)]
pub struct Cluster {
    vipds: Vec<Vipd>,
    guests: BTreeMap<&'static str, Guest>,
    hosts: Vec<Host>,
    underlay: Underlay,
    config: ClusterConfig,
}

impl Cluster {
    /// Makes everything, starts all agents, and waits until they serve. Nobody has a VIP.
    pub fn start(lab: &Lab, config: ClusterConfig) -> Result<Self> {
        Self::start_with(lab, config, &Binaries::from_env()?)
    }

    /// The same with programs at other paths.
    pub fn start_with(lab: &Lab, config: ClusterConfig, binaries: &Binaries) -> Result<Self> {
        let mut cluster = Self::build(lab, config)?;
        cluster.start_agents(lab, binaries)?;
        cluster.wait_until_ready()?;
        Ok(cluster)
    }

    /// Underlay, hosts and guests; no vipd runs.
    pub fn build(lab: &Lab, config: ClusterConfig) -> Result<Self> {
        let underlay = Underlay::create(lab, config.underlay)?;
        let mut hosts = Vec::new();
        for number in 1..=config.numbers() {
            let host = lab.add_host(&config.label(number))?;
            underlay.connect(host.netns(), number)?;
            hosts.push(host);
        }
        let mut guests = BTreeMap::new();
        for (placed, interface) in config.interfaces() {
            let Placed { name, host, subnet, address, gro, .. } = placed;
            let host = nth(&hosts, *host)?;
            let guest = GuestConfig::new(
                name,
                &interface,
                &placed.mac().to_string(),
                &format!("{address}/{}", subnet.prefix),
            )?;
            let guest =
                GuestConfig { gateway: Some(subnet.gateway), gro: *gro, mtu: config.guest_mtu, ..guest };
            guests.insert(*name, host.add_guest(&guest)?);
        }
        Ok(Self { vipds: Vec::new(), guests, hosts, underlay, config })
    }

    fn start_agents(&mut self, lab: &Lab, binaries: &Binaries) -> Result<()> {
        let key = lab.directory().join("peers.key");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&key)
            .with_context(|| format!("cannot make {}", key.display()))?;
        writeln!(file, "{KEY}").context("cannot write the peers' key")?;
        let state = self.config.state()?;
        for number in 1..=self.config.hosts {
            let mut config = VipdConfig::new(&self.config.label(number))
                .with(&format!("peers: {{ key_file: {}, port: {PEERS_PORT} }}", key.display()));
            if self.config.underlay.eips == EipReach::OnLink {
                config = config.with(&format!(
                    "eip_networks: [{{ id: public, cidr: {}, gateway: {EIP_GATEWAY} }}]",
                    crate::EIP_POOL
                ));
            }
            config.more.push_str(&self.config.vipd);
            let vipd = Vipd::start(nth(&self.hosts, number)?, binaries, &config, &state)?;
            self.vipds.push(vipd);
        }
        Ok(())
    }

    /// Waits until each vipd serves.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        self.vipds.iter_mut().try_for_each(Vipd::ready)
    }

    /// What it was made with.
    pub fn config(&self) -> &ClusterConfig {
        &self.config
    }

    /// The underlay.
    pub fn underlay(&self) -> &Underlay {
        &self.underlay
    }

    /// The client outside.
    pub fn client(&self) -> &Netns {
        self.underlay.client()
    }

    /// A host, by its number from 1; the one without vipd is the last.
    pub fn host(&self, number: u8) -> Result<&Host> {
        nth(&self.hosts, number)
    }

    /// The vipd of a host, by its number from 1.
    pub fn vipd(&self, number: u8) -> Result<&Vipd> {
        nth(&self.vipds, number)
    }

    /// The same, to stop and to start it.
    pub fn vipd_mut(&mut self, number: u8) -> Result<&mut Vipd> {
        let index = usize::from(number).checked_sub(1);
        index.and_then(|index| self.vipds.get_mut(index)).with_context(|| format!("there is no hv{number}"))
    }

    /// All of them, in the order of their hosts.
    pub fn vipds(&self) -> &[Vipd] {
        &self.vipds
    }

    /// A guest, by its name.
    pub fn guest(&self, name: &str) -> Result<&Guest> {
        self.guests.get(name).with_context(|| format!("there is no guest {name}"))
    }

    /// Waits until the vipd of every host shows a port as a VIP's owner, and gives the VIP as the first host shows it.
    pub fn wait_for_owner(&self, vip: &str, port: &str, limit: Duration) -> Result<Value> {
        let mut shown = None;
        for vipd in self.vipds.iter().rev() {
            shown = Some(vipd.wait_for_owner(vip, port, limit)?);
        }
        shown.context("there is no vipd")
    }

    /// Packets that a host has dropped so far for a reason.
    pub fn drops(&self, number: u8, reason: &str) -> Result<u64> {
        let drops = self.vipd(number)?.drops()?;
        drops.get(reason).copied().with_context(|| format!("the status of hv{number} has no {reason}"))
    }

    /// Packets that all hosts have dropped so far, by reason, those that are none left out: what a test compares.
    pub fn all_drops(&self) -> Result<BTreeMap<String, u64>> {
        let mut all = BTreeMap::new();
        for vipd in &self.vipds {
            for (reason, packets) in vipd.drops()? {
                if packets > 0 {
                    *all.entry(reason).or_default() += packets;
                }
            }
        }
        Ok(all)
    }

    /// Replaces the state of every host.
    pub fn write_state(&self, state: &str) -> Result<()> {
        self.vipds.iter().try_for_each(|vipd| vipd.write_state(state))
    }

    /// The uplink's far end of a host: where captures see all that the host sends and gets.
    pub fn cable(&self, number: u8) -> Result<&str> {
        Ok(self.host(number)?.netns().label())
    }

    /// The queues of all its cables.
    pub fn queues(&self) -> Result<Queues> {
        let (underlay, mut ends) = (&self.underlay, Vec::new());
        ends.push((underlay.client().clone(), "eth0".to_owned()));
        for interface in ["eth0", "eth1"] {
            ends.push((underlay.router().clone(), interface.to_owned()));
        }
        ends.push((underlay.segment().clone(), ROUTER_PORT.to_owned()));
        for host in &self.hosts {
            let netns = host.netns();
            ends.push((underlay.segment().clone(), netns.label().to_owned()));
            ends.push((netns.clone(), "eth0".to_owned()));
        }
        for placed in &self.config.guests {
            let (guest, host) = (self.guest(placed.name)?, self.host(placed.host)?);
            ends.push((host.netns().clone(), guest.interface().to_owned()));
            ends.push((guest.netns().clone(), "eth0".to_owned()));
        }
        Ok(Queues { ends })
    }

    /// Frames for which the cables had no room so far: what the lab itself has lost.
    pub fn no_room(&self) -> Result<u64> {
        self.queues()?.no_room()
    }

    /// Sets the MTU of each interface on the underlay.
    pub fn set_underlay_mtu(&self, mtu: u32) -> Result<()> {
        for host in &self.hosts {
            for (netns, interface) in
                [(self.underlay.segment(), host.netns().label()), (host.netns(), "eth0")]
            {
                netns.ip(&format!("link set dev {interface} mtu {mtu}"))?;
            }
        }
        Ok(())
    }
}

/// The queues of a cluster's cables, which can be asked while the cluster changes.
#[derive(Clone, Debug)]
pub struct Queues {
    /// Both ends of each cable.
    ends: Vec<(Netns, String)>,
}

impl Queues {
    /// Frames for which they had no room so far.
    pub fn no_room(&self) -> Result<u64> {
        self.ends.iter().map(|(netns, interface)| netns.send_drops(interface)).sum()
    }
}

fn nth<T>(of: &[T], number: u8) -> Result<&T> {
    let index = usize::from(number).checked_sub(1);
    index.and_then(|index| of.get(index)).with_context(|| format!("there is no host number {number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guest_has_an_interface_of_its_own_on_its_host() {
        let more = Placed::new("fourth", 1, APP, [192, 168, 8, 4]);
        let config = ClusterConfig::usual().with(more);
        let found: Vec<_> =
            config.interfaces().map(|(guest, interface)| (guest.name, guest.host, interface)).collect();
        let expected =
            [("first", 1, "tap0"), ("second", 2, "tap0"), ("third", 3, "tap0"), ("fourth", 1, "tap1")];
        assert_eq!(found, expected.map(|(name, host, interface)| (name, host, interface.to_owned())));
    }

    #[test]
    fn the_state_lists_the_far_host_behind_the_others() {
        let config = ClusterConfig { far_host: true, hosts: 2, ..ClusterConfig::usual() };
        let text = config.state().expect("strings take everything");
        for line in ["{ id: hv2, vtep: 172.31.0.2 }", "{ id: far, vtep: 172.31.0.3 }", "host: far"] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
    }
}
