//! Numbers, addresses and MACs of the fixed plan.

use std::ops::Range;

use vip_common::wire::{Ipv4, Mac};

/// Number of subnets.
pub(crate) const SUBNETS: u32 = 5;
pub(super) const PORTS_PER_SUBNET: u32 = 3;
pub(super) const SLOTS_PER_SUBNET: u32 = 2;
/// Number of ports; their indexes start with 1.
pub(crate) const PORTS: u32 = SUBNETS * PORTS_PER_SUBNET;
/// Number of VIP slots.
pub(crate) const SLOTS: u32 = SUBNETS * SLOTS_PER_SUBNET;
/// (VNI, third octet of the prefix) of each subnet.
const PLAN: [(u32, u8); SUBNETS as usize] = [(4001, 0), (4001, 1), (4002, 0), (4002, 1), (4003, 2)];
/// VNIs that are peers in a world with a peering.
pub(super) const PEERS: [u32; 2] = [4001, 4003];

pub(crate) const SECOND: u64 = 1_000_000_000;
pub(crate) const MASK: Ipv4 = Ipv4::new([255, 255, 255, 0]);
pub(crate) const UPLINK: u32 = 2;
pub(crate) const UPLINK_MAC: Mac = Mac::new([2, 0xff, 0, 0, 0, 1]);
pub(crate) const HOST_ADDRESS: Ipv4 = Ipv4::new([198, 51, 100, 2]);
/// A router on the uplink, which NEXTHOPS knows.
pub(crate) const ROUTER: Ipv4 = Ipv4::new([198, 51, 100, 1]);
pub(crate) const NEIGHBOUR_MAC: Mac = Mac::new([2, 0xff, 0, 0, 0, 9]);
/// A host behind the router.
pub(crate) const CLIENT: Ipv4 = Ipv4::new([192, 0, 2, 77]);
/// A host on the uplink that NEXTHOPS does not know.
pub(crate) const NEIGHBOUR: Ipv4 = Ipv4::new([198, 51, 100, 77]);
/// An address in the prefix of subnets that no object has.
pub(crate) const UNLISTED: Ipv4 = Ipv4::new([10, 0, 0, 200]);

pub(crate) const fn subnet_of_port(index: u32) -> u32 {
    (index - 1) / PORTS_PER_SUBNET
}

pub(crate) const fn subnet_of_slot(slot: u32) -> u32 {
    slot / SLOTS_PER_SUBNET
}

pub(crate) const fn ports_of(subnet: u32) -> Range<u32> {
    subnet * PORTS_PER_SUBNET + 1..(subnet + 1) * PORTS_PER_SUBNET + 1
}

pub(crate) const fn slots_of(subnet: u32) -> Range<u32> {
    subnet * SLOTS_PER_SUBNET..(subnet + 1) * SLOTS_PER_SUBNET
}

pub(crate) const fn vni_of(subnet: u32) -> u32 {
    PLAN[subnet as usize].0
}

const fn low(number: u32) -> u8 {
    number.to_le_bytes()[0]
}

pub(super) const fn in_subnet(subnet: u32, last: u32) -> Ipv4 {
    Ipv4::new([10, 0, PLAN[subnet as usize].1, low(last)])
}

pub(crate) const fn gateway(subnet: u32) -> Ipv4 {
    in_subnet(subnet, 1)
}

pub(crate) const fn port_address(index: u32) -> Ipv4 {
    in_subnet(subnet_of_port(index), 10 + (index - 1) % PORTS_PER_SUBNET)
}

pub(crate) const fn port_mac(index: u32) -> Mac {
    let [_, _, net, last] = port_address(index).octets();
    Mac::new([2, 0, 0, 0, net, last])
}

pub(crate) const fn vip_address(slot: u32) -> Ipv4 {
    in_subnet(subnet_of_slot(slot), 100 + slot % SLOTS_PER_SUBNET)
}

pub(crate) const fn port_eip(index: u32) -> Ipv4 {
    Ipv4::new([203, 0, 113, low(index)])
}

pub(crate) const fn vip_eip(slot: u32) -> Ipv4 {
    Ipv4::new([203, 0, 113, low(100 + slot)])
}

pub(crate) const fn ifindex(index: u32) -> u32 {
    100 + index
}

/// Number of hosts in worlds of several; their numbers, and their indexes in HOSTS, start with 1.
pub(crate) const HOSTS: u32 = 3;

/// MAC of a host's uplink.
pub(crate) const fn host_mac(host: u32) -> Mac {
    Mac::new([2, 0xff, 0, 0, 0, low(host)])
}

/// Address of a host on the underlay.
pub(crate) const fn vtep(host: u32) -> Ipv4 {
    Ipv4::new([198, 51, 100, low(20 + host)])
}

/// The host with this VTEP.
pub(crate) fn host_of(address: Ipv4) -> Option<u32> {
    (1..=HOSTS).find(|host| vtep(*host) == address)
}

/// VNIs of all VPCs.
pub(crate) const VNIS: [u32; 3] = [4001, 4002, 4003];
