//! The rules of forwarding, said again: short and slow, from the plan of the world instead of the tables, with etherparse's
//! reading of the frame. The pipeline is held against them.

use etherparse::{ArpHardwareId, ArpPacketSlice, EtherType, Ethernet2HeaderSlice};
use vip_common::{
    engine::MemoryTables,
    tables::OwnerEntry,
    wire::{Ipv4, Mac, Protocol},
};

use crate::{
    frame::{ETHERNET, Reading},
    world::{
        self, PORTS, SLOTS, World, gateway, port_address, port_mac, subnet_of_port, vip_address, vni_of,
    },
};

/// A guest that has sent a frame.
#[derive(Clone, Copy)]
pub(crate) struct Speaker<'w> {
    pub(crate) world: &'w World,
    pub(crate) port: u32,
}

impl<'w> Speaker<'w> {
    pub(crate) fn new(world: &'w World, port: u32) -> Self {
        Self { world, port }
    }

    pub(crate) fn subnet(&self) -> u32 {
        subnet_of_port(self.port)
    }

    pub(crate) fn vni(&self) -> u32 {
        vni_of(self.subnet())
    }

    fn has_bypass(&self) -> bool {
        self.world.port(self.port).bypass
    }

    /// Whether the guest may use the MAC as its own: the port's, or a virtual router MAC of one of its bindings.
    pub(crate) fn may_use_mac(&self, mac: Mac) -> bool {
        mac == port_mac(self.port)
            || (0..SLOTS).any(|slot| self.may_use_mac_for(mac, slot) && mac != port_mac(self.port))
    }

    /// The same for one VIP.
    pub(crate) fn may_use_mac_for(&self, mac: Mac, slot: u32) -> bool {
        mac == port_mac(self.port)
            || [66, 67]
                .iter()
                .any(|vrid| mac == Mac::of_vrid(*vrid) && self.world.allows_vrid(self.port, slot, *vrid))
    }

    /// Whether the guest may send IPv4 packets from the address.
    pub(crate) fn may_send_from(&self, source: Ipv4) -> bool {
        self.has_bypass() || self.owns_address(source)
    }

    /// Whether the address is the port's fixed one, or a VIP with *own* or *source*.
    pub(crate) fn owns_address(&self, source: Ipv4) -> bool {
        source == port_address(self.port)
            || self
                .world
                .slot_at(self.vni(), source)
                .is_some_and(|slot| self.world.may_source(self.port, slot))
    }

    /// Whether the guest may say in ARP that it has the address.
    pub(crate) fn may_speak_as(&self, address: Ipv4) -> bool {
        if address.is_unspecified() || address == port_address(self.port) {
            return true;
        }
        if let Some(slot) = self.world.slot_at(self.vni(), address) {
            return self.world.may_own(self.port, slot);
        }
        let is_gateway =
            (0..world::SUBNETS).any(|subnet| vni_of(subnet) == self.vni() && gateway(subnet) == address);
        self.has_bypass() && !is_gateway && World::port_at(self.vni(), address).is_none()
    }
}

/// An ARP packet as etherparse reads it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ArpReading {
    pub(crate) to: Mac,
    pub(crate) from: Mac,
    pub(crate) operation: u16,
    pub(crate) sender_mac: Mac,
    pub(crate) sender: Ipv4,
    pub(crate) target: Ipv4,
}

impl ArpReading {
    /// `None` for anything but IPv4 over Ethernet.
    pub(crate) fn of(frame: &[u8]) -> Option<Self> {
        let link = Ethernet2HeaderSlice::from_slice(frame).ok()?;
        if link.ether_type() != EtherType::ARP {
            return None;
        }
        let arp = ArpPacketSlice::from_slice(&frame[ETHERNET..]).ok()?;
        if arp.hw_addr_type() != ArpHardwareId::ETHERNET || arp.proto_addr_type() != EtherType::IPV4 {
            return None;
        }
        Some(Self {
            to: Mac::new(link.destination()),
            from: Mac::new(link.source()),
            operation: arp.operation().0,
            sender_mac: Mac::new(arp.sender_hw_addr().try_into().ok()?),
            sender: Ipv4::new(arp.sender_protocol_addr().try_into().ok()?),
            target: Ipv4::new(arp.target_protocol_addr().try_into().ok()?),
        })
    }

    /// Rule 1: whether the packet is a claim of the VIP in `slot` that counts.
    pub(crate) fn claims(&self, speaker: Speaker<'_>, slot: u32) -> bool {
        matches!(self.operation, 1 | 2)
            && self.sender == self.target
            && speaker.world.slot_at(speaker.vni(), self.sender) == Some(slot)
            && speaker.world.may_own(speaker.port, slot)
            && speaker.may_use_mac_for(self.from, slot)
            && speaker.may_use_mac_for(self.sender_mac, slot)
    }
}

/// Rule 2: whether the frame is an ordinary use of the VIP in `slot` by a port with the *own* right, from which an unowned
/// VIP is learned.
pub(crate) fn teaches(speaker: Speaker<'_>, frame: &[u8], slot: u32) -> bool {
    let from_vip = |address| {
        speaker.world.slot_at(speaker.vni(), address) == Some(slot)
            && speaker.world.may_own(speaker.port, slot)
    };
    if let Some(arp) = ArpReading::of(frame) {
        return arp.operation == 1 && arp.sender != arp.target && from_vip(arp.sender);
    }
    Reading::of(frame).is_some_and(|packet| from_vip(packet.source))
}

/// The entry of OWNERS of a slot.
pub(crate) fn owner_entry(tables: &MemoryTables, slot: u32) -> OwnerEntry {
    tables.vips.get(&slot).map(vip_common::engine::Slot::get).unwrap_or_default()
}

/// Always allowed from any source address, and never ours (rule 6): IGMP to groups, and a DHCP client without an address.
pub(crate) fn is_always_allowed(packet: &Reading<'_>) -> bool {
    packet.protocol() == Protocol::IGMP && packet.destination.is_multicast()
        || packet.source.is_unspecified() && packet.udp_ports() == Some((68, 67))
}

/// Whether an address is an EIP, if the world has that: a guest's packet to it goes out and comes in again.
pub(crate) fn is_eip(address: Ipv4) -> bool {
    (0..SLOTS).any(|slot| world::vip_eip(slot) == address)
        || (1..=PORTS).any(|port| world::port_eip(port) == address)
}

/// How a packet reaches a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// In its subnet.
    Switched,
    /// Through the gateway, for one TTL.
    Routed,
}

/// Rules 5 and 6: the guest that is to receive a whole IPv4 packet of a guest that passed the source check, if there is one.
///
/// `owner` says who owns a VIP.
pub(crate) fn receiver(
    speaker: Speaker<'_>,
    packet: &Reading<'_>,
    owner: impl Fn(u32) -> u32,
) -> Option<(u32, Way)> {
    let (world, vni, subnet) = (speaker.world, speaker.vni(), speaker.subnet());
    let destination = packet.destination;
    if is_always_allowed(packet)
        || packet.udp_ports() == Some((67, 68)) && !world.port(speaker.port).bypass
        || packet.to.is_multicast()
        || destination.is_multicast()
        || destination == Ipv4::BROADCAST
    {
        return None;
    }
    if packet.to == Mac::of_address(gateway(subnet)) && !world.is_external(subnet) {
        return routed(speaker, destination, owner).map(|port| (port, Way::Routed));
    }
    let by_mac = world::ports_of(subnet).find(|port| port_mac(*port) == packet.to);
    let to = if let Some(slot) =
        world.slot_at(vni, destination).filter(|slot| world::subnet_of_slot(*slot) == subnet)
    {
        if owner(slot) == speaker.port {
            by_mac.filter(|port| world.may_source(*port, slot) || world.port(*port).bypass)
        } else {
            by_mac.filter(|port| world.is_real_server(*port, slot)).or(Some(owner(slot)))
        }
    } else {
        // A VIP as next hop: whoever owns it routes, for which its check is off. The gateway answers for itself.
        let is_answered = destination == gateway(subnet) && !world.is_external(subnet);
        let hop = world::slots_of(subnet).find(|slot| {
            world.vip(*slot).is_some() && Mac::of_address(vip_address(*slot)) == packet.to && !is_answered
        });
        by_mac.or_else(|| hop.map(owner)).filter(|port| {
            *port != 0 && (world.port(*port).bypass || by_mac.is_some() && port_address(*port) == destination)
        })
    };
    to.filter(|port| *port != 0 && *port != speaker.port).map(|port| (port, Way::Switched))
}

fn routed(speaker: Speaker<'_>, destination: Ipv4, owner: impl Fn(u32) -> u32) -> Option<u32> {
    let world = speaker.world;
    let listed = (1..=PORTS).find(|port| {
        port_address(*port) == destination && world.reaches(speaker.vni(), vni_of(subnet_of_port(*port)))
    });
    let floating = || {
        (0..SLOTS).find(|slot| {
            world.vip(*slot).is_some()
                && vip_address(*slot) == destination
                && world.reaches(speaker.vni(), vni_of(world::subnet_of_slot(*slot)))
        })
    };
    listed.or_else(|| floating().map(owner)).filter(|port| *port != 0 && *port != speaker.port)
}
