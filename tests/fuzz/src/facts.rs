//! What the tables say, looked up without the pipeline.

use std::net::Ipv4Addr;

use vip_common::{
    engine::MemoryTables,
    pipeline::Verdict,
    tables::{Grant, GrantKey, OwnerWord, PortEntry, PortFlags},
    wire,
};
use vip_lab::{
    Mac,
    fixtures::world::{constant_mac, vrrp_mac},
};

/// The tables of the world that a frame meets.
#[derive(Clone, Copy)]
pub struct Facts<'t>(pub &'t MemoryTables);

/// Who has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The VIP in this slot.
    Vip(u32),
    /// The port with this index.
    Port(u32),
}

/// An address of a VPC that has an EIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// VNI of the VPC.
    pub vni: u32,
    /// The address.
    pub address: Ipv4Addr,
    /// Whose it is.
    pub holder: Holder,
}

/// Converts a MAC.
pub fn mac(mac: wire::Mac) -> Mac {
    Mac(mac.octets())
}

impl<'t> Facts<'t> {
    /// The port with an index.
    pub fn port(self, index: u32) -> Option<&'t PortEntry> {
        self.0.ports.get(&index)
    }

    /// Index and port behind an interface.
    pub fn port_of(self, interface: u32) -> Option<(u32, &'t PortEntry)> {
        let found = self.0.ports.iter().find(|(_, port)| port.ifindex == interface);
        found.map(|(index, port)| (*index, port))
    }

    /// Index of the port to which a verdict delivers, and the interface by which, of a packet that is whole or cut.
    pub fn receiver(self, verdict: Verdict) -> Option<(u32, u32)> {
        match verdict {
            Verdict::Deliver { port, ifindex } => Some((port, ifindex)),
            Verdict::DeliverFragments { ifindex, .. } => {
                self.port_of(ifindex).map(|(index, _)| (index, ifindex))
            }
            _ => None,
        }
    }

    /// The port that receives what is for who has an address.
    pub fn port_for(self, holder: Holder) -> Option<(u32, &'t PortEntry)> {
        let index = match holder {
            Holder::Vip(slot) => self.owner(slot).port(),
            Holder::Port(index) => index,
        };
        self.port(index).map(|port| (index, port))
    }

    /// Who has an address of a VPC.
    pub fn holder(self, vni: u32, address: Ipv4Addr) -> Option<Holder> {
        let address = wire::Ipv4::from(address);
        let vip = self.0.vips.iter().find(|(_, slot)| slot.vip().vni == vni && slot.vip().address == address);
        let port = || self.0.ports.iter().find(|(_, port)| port.vni == vni && port.address == address);
        vip.map(|(slot, _)| Holder::Vip(*slot)).or_else(|| port().map(|(index, _)| Holder::Port(*index)))
    }

    /// The EIP of an address of a VPC.
    pub fn eip(self, vni: u32, address: Ipv4Addr) -> Option<Ipv4Addr> {
        let eip = match self.holder(vni, address)? {
            Holder::Vip(slot) => self.0.vips.get(&slot)?.vip().eip,
            Holder::Port(index) => self.port(index)?.eip,
        };
        eip.is_some().then(|| eip.address.into())
    }

    /// Whose an EIP is.
    pub fn inner(self, eip: Ipv4Addr) -> Option<Inner> {
        let eip = wire::Ipv4::from(eip);
        if eip.is_unspecified() {
            return None;
        }
        let vip = self.0.vips.iter().find(|(_, slot)| slot.vip().eip.address == eip).map(|(slot, vip)| {
            Inner { vni: vip.vip().vni, address: vip.vip().address.into(), holder: Holder::Vip(*slot) }
        });
        vip.or_else(|| {
            let (index, port) = self.0.ports.iter().find(|(_, port)| port.eip.address == eip)?;
            Some(Inner { vni: port.vni, address: port.address.into(), holder: Holder::Port(*index) })
        })
    }

    /// What a port may do with a VIP.
    pub fn grant(self, port: u32, slot: u32) -> Option<&'t Grant> {
        self.0.grants.get(&GrantKey { port, slot })
    }

    /// The owner of a VIP as the tables have it now.
    pub fn owner(self, slot: u32) -> OwnerWord {
        self.0.vips.get(&slot).map(|cell| cell.get().word).unwrap_or_default()
    }

    /// VNI of the VPC whose subnet the address lies in, of those that a VPC reaches: its own and its peers'.
    pub fn reached(self, vni: u32, address: Ipv4Addr) -> Option<u32> {
        let address = u32::from(address);
        let number = |address: wire::Ipv4| u32::from(Ipv4Addr::from(address));
        let subnet = self
            .0
            .subnets
            .iter()
            .find(|(from, network, mask, _)| *from == vni && address & number(*mask) == number(*network));
        subnet.map(|(_, _, _, entry)| entry.vni)
    }

    /// Whether VPCs are one, or peers.
    pub fn are_joined(self, vni: u32, other: u32) -> bool {
        vni == other || self.0.subnets.iter().any(|(from, _, _, entry)| *from == vni && entry.vni == other)
    }

    /// Whether the port may have a MAC: its own, or of one of its virtual routers.
    pub fn may_have(self, port: &PortEntry, candidate: Mac) -> bool {
        let Mac([.., vrid]) = candidate;
        candidate == mac(port.mac) || (candidate == vrrp_mac(vrid) && port.vrids.contains(vrid))
    }

    /// The MAC by which the owner of a VIP receives it.
    pub fn owner_mac(self, word: OwnerWord) -> Option<Mac> {
        let port = self.port(word.port())?;
        Some(if word.vrid() == 0 { mac(port.mac) } else { vrrp_mac(word.vrid()) })
    }

    /// Whether a frame to this MAC is to be routed by the forwarder.
    pub fn is_routed(self, port: &PortEntry, to: Mac) -> bool {
        to == constant_mac(port.gateway.into()) && !port.flags.has(PortFlags::EXTERNAL_ROUTER)
    }

    /// Whether an address of a VPC is that of a gateway of ports.
    pub fn is_gateway(self, vni: u32, address: Ipv4Addr) -> bool {
        self.0.ports.values().any(|port| (port.vni, Ipv4Addr::from(port.gateway)) == (vni, address))
    }

    /// Whether an address lies in a port's subnet.
    pub fn is_neighbour(self, port: &PortEntry, address: Ipv4Addr) -> bool {
        let mask = u32::from(Ipv4Addr::from(port.mask));
        u32::from(address) & mask == u32::from(Ipv4Addr::from(port.address)) & mask
    }

    /// The uplink's interface and MAC.
    pub fn uplink(self) -> Option<(u32, Mac)> {
        self.0.config.as_ref().map(|config| (config.uplink, mac(config.uplink_mac)))
    }
}
