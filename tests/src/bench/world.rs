//! What every part of the benchmark measures with: EIPs of a pool, each with a VIP of its own, spread over local ports.

use std::net::Ipv4Addr;

use crate::{Mac, fixtures::world::constant_mac};

/// Ports that may own VIPs.
pub(super) const OWNERS: u32 = 64;

/// The port that may own every VIP and owns none: number of a port.
pub(super) const STANDBY: u32 = OWNERS;

/// A port that has no VIP, and talks to them.
pub(super) const NEIGHBOUR: u32 = OWNERS + 1;

/// All ports here.
pub(super) const PORTS: u32 = OWNERS + 2;

/// Ports of other hosts that may own VIPs: their numbers begin at [`PORTS`].
pub(super) const FAR_OWNERS: u32 = OWNERS;

/// Other hosts, over which those ports are spread.
pub(super) const HOSTS: u32 = 16;

/// This host's VTEP.
pub(super) const OWN_VTEP: Ipv4Addr = Ipv4Addr::new(172, 31, 1, 1);

/// The VPC's number.
pub(super) const VNI: u32 = 4001;

/// The subnet's gateway.
pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 255, 255, 254);

/// The subnet that all VIPs and ports are in.
pub(super) const SUBNET: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 0, 0, 0), 8);

/// The first EIP (RFC 6598 space, of which there is enough).
pub(super) const FIRST_EIP: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);

/// The first of as many addresses that are nobody's.
pub(super) const FIRST_UNKNOWN: Ipv4Addr = Ipv4Addr::new(100, 112, 0, 0);

/// The first VIP.
pub(super) const FIRST_VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// Somebody outside.
pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);

/// Next hop of everything outside.
pub(super) const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// MAC of that next hop.
pub(super) const ROUTER_MAC: Mac = Mac([2, 0, 0, 0, 3, 1]);

/// MAC of the uplink.
pub(super) const UPLINK_MAC: Mac = Mac([2, 0, 0, 0, 3, 2]);

/// Interface index of the uplink.
pub(super) const UPLINK: u32 = 90;

/// A prime that is prime to every number of entries in use: EIP and VIP of one number lie far from each other.
const SPREAD: u64 = 611_953;

/// Address number `number` from `first` on.
pub(super) fn nth(first: Ipv4Addr, number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(first) + number)
}

/// The MAC by which a VIP is reached.
pub(super) fn vip_mac(vip: Ipv4Addr) -> Mac {
    constant_mac(vip)
}

/// Fixed address of a port.
pub(super) fn port_address(port: u32) -> Ipv4Addr {
    nth(Ipv4Addr::new(10, 255, 0, 1), port)
}

/// MAC of a port.
pub(super) fn port_mac(port: u32) -> Mac {
    let [.., last] = port.to_be_bytes();
    Mac([2, 0, 0, 0, 1, last])
}

/// Number of the host that a port of another host is on.
pub(super) const fn host_of(port: u32) -> u32 {
    (port - PORTS) % HOSTS
}

/// VTEP of another host.
pub(super) fn vtep(host: u32) -> Ipv4Addr {
    nth(Ipv4Addr::new(172, 31, 0, 1), host)
}

/// MAC of another host, which is a neighbour.
pub(super) fn host_mac(host: u32) -> Mac {
    let [.., last] = host.to_be_bytes();
    Mac([2, 0, 0, 0, 2, last])
}

/// Interface index of a port.
pub(super) const fn port_interface(port: u32) -> u32 {
    100 + port
}

/// The port that owns a VIP while the owners are on other hosts.
pub(super) const fn far_owner_of(vip: u32) -> u32 {
    PORTS + vip % FAR_OWNERS
}

/// Where the owners of all VIPs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owners {
    /// On this host.
    Here,
    /// On the other hosts.
    Elsewhere,
}

/// So many EIPs, with their VIPs.
#[derive(Clone, Copy, Debug)]
pub(super) struct World {
    /// How many.
    pub(super) entries: u32,
    /// How many ports they are spread over, at most [`OWNERS`].
    pub(super) owners: u32,
}

impl World {
    /// Number of the EIP that leads to a VIP.
    pub(super) fn eip_of(self, vip: u32) -> u32 {
        let number = u64::from(vip) * SPREAD % u64::from(self.entries);
        u32::try_from(number).unwrap_or_default()
    }

    /// Numbers of the VIPs, by the number of the EIP.
    pub(super) fn vips_by_eip(self) -> Vec<u32> {
        let mut vips = vec![0; self.entries as usize];
        for vip in 0..self.entries {
            if let Some(place) = vips.get_mut(self.eip_of(vip) as usize) {
                *place = vip;
            }
        }
        vips
    }

    /// The port that owns a VIP.
    pub(super) const fn owner_of(self, vip: u32) -> u32 {
        vip % self.owners
    }

    /// How many VIPs a port owns.
    pub(super) const fn owned_by(self, port: u32) -> u32 {
        if port >= self.owners { 0 } else { (self.entries + self.owners - 1 - port) / self.owners }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_vip_has_an_eip_of_its_own_and_an_owner() {
        for entries in [1, 1000, 100_000, 1_000_000] {
            let world = World { entries, owners: OWNERS };
            let vips = world.vips_by_eip();
            assert!((0..entries).all(|vip| vips.get(world.eip_of(vip) as usize) == Some(&vip)), "{entries}");
            assert_eq!((0..PORTS).map(|port| world.owned_by(port)).sum::<u32>(), entries);
        }
    }
}
