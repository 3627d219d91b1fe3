//! Guests: namespaces that stand for virtual machines.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use ipnetwork::Ipv4Network;

use crate::{Host, Mac, Netns};

/// What a guest looks like from its host.
#[derive(Clone, Debug)]
pub struct GuestConfig {
    /// Its name in the lab, also of its namespace.
    pub name: String,
    /// The name of the host's end of its cable, e.g. `tap0`.
    pub interface: String,
    /// The MAC of its `eth0`.
    pub mac: Mac,
    /// Its fixed address with the subnet's prefix length.
    pub address: Ipv4Network,
    /// Where its default route goes; None: it has none.
    pub gateway: Option<Ipv4Addr>,
    /// Whether the guest turns GRO on at its `eth0`, as an administrator of it may. A veth then takes frames from XDP.
    pub gro: bool,
    /// MTU of its `eth0` and of the host's end; None: the kernel's default.
    pub mtu: Option<u32>,
}

impl GuestConfig {
    /// A guest with kernel defaults, its default route by the first address of its subnet.
    pub fn new(name: &str, interface: &str, mac: &str, address: &str) -> Result<Self> {
        let address: Ipv4Network = address
            .parse()
            .with_context(|| format!("guest {name}: {address} is no address with prefix length"))?;
        let gateway = address.nth(1);
        let (name, interface) = (name.to_owned(), interface.to_owned());
        Ok(Self { name, interface, mac: mac.parse()?, address, gateway, gro: false, mtu: None })
    }

    /// The same guest with GRO on at its end.
    #[must_use]
    pub fn with_gro(self) -> Self {
        Self { gro: true, ..self }
    }

    /// The same guest with this MTU.
    #[must_use]
    pub fn with_mtu(self, mtu: u32) -> Self {
        Self { mtu: Some(mtu), ..self }
    }
}

/// A guest: a namespace with one interface `eth0`, whose offloads stay as the kernel made them. Clones are the same
/// guest.
#[derive(Clone, Debug)]
pub struct Guest {
    netns: Netns,
    host: Host,
    config: GuestConfig,
}

impl Guest {
    pub(crate) fn create(host: &Host, config: &GuestConfig) -> Result<Self> {
        let netns = crate::netns::sibling(host.netns(), &config.name)?;
        let guest = Self { netns, host: host.clone(), config: config.clone() };
        guest.plug()?;
        Ok(guest)
    }

    /// The guest's namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The guest's name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The name of the host's end of the cable.
    pub fn interface(&self) -> &str {
        &self.config.interface
    }

    /// The MAC of its `eth0`.
    pub fn mac(&self) -> Mac {
        self.config.mac
    }

    /// Its fixed address.
    pub fn address(&self) -> Ipv4Addr {
        self.config.address.ip()
    }

    /// Connects the guest: makes both interfaces and gives `eth0` its MAC, address and routes. Done at its start;
    /// again only after [`Guest::unplug`].
    pub fn plug(&self) -> Result<()> {
        let GuestConfig { name: _, interface, mac, address, gateway, gro, mtu } = &self.config;
        let outer = self.host.netns();
        outer.ip(&format!(
            "link add name {interface} type veth peer name eth0 address {mac} netns {}",
            self.netns.name()
        ))?;
        if let Some(mtu) = mtu {
            outer.ip(&format!("link set dev {interface} mtu {mtu}"))?;
            self.netns.ip(&format!("link set dev eth0 mtu {mtu}"))?;
        }
        if *gro {
            self.netns.check(&["ethtool", "-K", "eth0", "gro", "on"])?;
        }
        self.netns.ip(&format!("address add {address} broadcast + dev eth0"))?;
        self.netns.ip("link set dev eth0 up")?;
        outer.ip(&format!("link set dev {interface} up"))?;
        if let Some(gateway) = gateway {
            self.netns.ip(&format!("route add default via {gateway}"))?;
        }
        Ok(())
    }

    /// Takes the cable away: both interfaces vanish, as when a virtual machine is stopped.
    pub fn unplug(&self) -> Result<()> {
        self.host.netns().ip(&format!("link delete dev {}", self.config.interface))?;
        Ok(())
    }

    /// Adds a VIP to `eth0`, with the subnet's prefix length, as an administrator does by hand: nothing is announced.
    pub fn add_vip_address(&self, vip: Ipv4Addr) -> Result<()> {
        self.netns.ip(&format!("address add {vip}/{} dev eth0", self.config.address.prefix()))?;
        Ok(())
    }

    /// Removes a VIP from `eth0`; again without a word to anybody.
    pub fn remove_vip_address(&self, vip: Ipv4Addr) -> Result<()> {
        self.netns.ip(&format!("address delete {vip}/{} dev eth0", self.config.address.prefix()))?;
        Ok(())
    }

    /// Whether `eth0` has an address now.
    pub fn has_address(&self, address: Ipv4Addr) -> Result<bool> {
        let shown = self.netns.ip(&format!("-brief address show dev eth0 to {address}/32"))?;
        Ok(!shown.trim().is_empty())
    }
}
