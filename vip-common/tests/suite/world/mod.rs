//! Tables: a fixed plan of VPCs, subnets, ports and VIPs, in which everything that an operator can choose is arbitrary.
//!
//! VPC 0 and VPC 1 use the same addresses and MACs. VPC 2 has its own and may be a peer of VPC 0. Each subnet has three ports
//! and room for two VIPs.

mod arbitrary;
mod overlay;
mod plan;
mod tables;

use vip_common::{engine::MemoryTables, wire::Ipv4};

use self::plan::{PEERS, PORTS_PER_SUBNET, SLOTS_PER_SUBNET};
pub(crate) use self::{
    arbitrary::{any_overlay_world, any_stale_tables, any_world},
    overlay::Overlay,
    plan::{
        CLIENT, HOST_ADDRESS, HOSTS, NEIGHBOUR, NEIGHBOUR_MAC, PORTS, ROUTER, SECOND, SLOTS, SUBNETS,
        UNLISTED, UPLINK, UPLINK_MAC, VNIS, gateway, host_mac, host_of, ifindex, port_address, port_eip,
        port_mac, ports_of, slots_of, subnet_of_port, subnet_of_slot, vip_address, vip_eip, vni_of, vtep,
    },
};

/// What an operator and the hypervisor can choose of a port.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent choices, each of them yes or no")]
pub(crate) struct PortSpec {
    pub(crate) bypass: bool,
    pub(crate) bridged: bool,
    pub(crate) takes_xdp: bool,
    /// No interface on this host at the moment.
    pub(crate) unplugged: bool,
    pub(crate) eip: bool,
}

/// What can be chosen of a VIP, and who owns it.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent choices, each of them yes or no")]
pub(crate) struct VipSpec {
    /// Of the subnet's ports: 1 *own*, 2 *source*, 3 both, 0 none.
    pub(crate) rights: [u8; 3],
    /// Allowed VRIDs.
    pub(crate) vrids: Vec<u8>,
    /// The owner: one of the ports with the *own* right, by the order; `None`: nobody.
    pub(crate) owner: Option<usize>,
    /// Whether the owner holds it by a virtual router MAC, if one is allowed.
    pub(crate) by_vrid: bool,
    pub(crate) epoch: u64,
    pub(crate) claimed: bool,
    /// The claim that waits: by which of the ports with the *own* right, and due in how many milliseconds.
    pub(crate) waiting: Option<(usize, i64)>,
    /// Moves that the bucket misses, in nanoseconds from now.
    pub(crate) damped: u64,
    pub(crate) eip: bool,
    pub(crate) network: bool,
}

impl Default for VipSpec {
    /// Owned by the subnet's first port; all three may own it.
    fn default() -> Self {
        Self {
            rights: [1; 3],
            vrids: Vec::new(),
            owner: Some(0),
            by_vrid: false,
            epoch: 1,
            claimed: true,
            waiting: None,
            damped: 0,
            eip: true,
            network: false,
        }
    }
}

/// Everything behind the tables of one host.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent choices, each of them yes or no")]
pub(crate) struct World {
    pub(crate) peered: bool,
    /// Subnets whose gateway is somebody else.
    pub(crate) external: Vec<bool>,
    pub(crate) ports: Vec<PortSpec>,
    pub(crate) vips: Vec<Option<VipSpec>>,
    pub(crate) announces: bool,
    pub(crate) returns: bool,
    pub(crate) tcp_by_tc: bool,
    pub(crate) default_route: bool,
    /// Nanoseconds since boot.
    pub(crate) now: u64,
    /// Other hosts; `None`: there are none.
    pub(crate) overlay: Option<Overlay>,
}

impl Default for World {
    /// Every port with its check on and an EIP, one VIP per subnet that its first port owns, a default route.
    fn default() -> Self {
        let port = PortSpec { takes_xdp: true, eip: true, ..PortSpec::default() };
        Self {
            peered: false,
            external: vec![false; SUBNETS as usize],
            ports: vec![port; PORTS as usize],
            vips: (0..SLOTS).map(|slot| (slot % SLOTS_PER_SUBNET == 0).then(VipSpec::default)).collect(),
            announces: true,
            returns: true,
            tcp_by_tc: false,
            default_route: true,
            now: 1000 * SECOND,
            overlay: None,
        }
    }
}

impl World {
    pub(crate) fn port(&self, index: u32) -> &PortSpec {
        &self.ports[index as usize - 1]
    }

    pub(crate) fn port_mut(&mut self, index: u32) -> &mut PortSpec {
        &mut self.ports[index as usize - 1]
    }

    pub(crate) fn vip(&self, slot: u32) -> Option<&VipSpec> {
        self.vips[slot as usize].as_ref()
    }

    /// The slot of the default world's VIP, to be changed.
    pub(crate) fn vip_mut(&mut self, slot: u32) -> &mut VipSpec {
        self.vips[slot as usize].as_mut().expect("the slot has a VIP")
    }

    pub(crate) fn is_external(&self, subnet: u32) -> bool {
        self.external[subnet as usize]
    }

    /// Host of a port.
    pub(crate) fn place(&self, port: u32) -> u32 {
        self.overlay.as_ref().map_or(1, |overlay| overlay.place(port))
    }

    /// The other host that a port is on.
    pub(super) fn elsewhere(&self, port: u32) -> Option<(u32, &Overlay)> {
        let overlay = self.overlay.as_ref()?;
        let place = overlay.place(port);
        (place != overlay.here).then_some((place, overlay))
    }

    /// VNIs that reach each other.
    pub(crate) fn reaches(&self, from: u32, to: u32) -> bool {
        from == to || self.peered && PEERS.contains(&from) && PEERS.contains(&to)
    }

    pub(super) fn rights(&self, index: u32, slot: u32) -> u8 {
        let subnet = subnet_of_slot(slot);
        match self.vip(slot) {
            Some(vip) if subnet_of_port(index) == subnet => {
                vip.rights[((index - 1) % PORTS_PER_SUBNET) as usize]
            }
            _ => 0,
        }
    }

    pub(crate) fn may_own(&self, index: u32, slot: u32) -> bool {
        self.rights(index, slot) & 1 != 0
    }

    pub(crate) fn may_source(&self, index: u32, slot: u32) -> bool {
        self.rights(index, slot) != 0
    }

    pub(crate) fn is_real_server(&self, index: u32, slot: u32) -> bool {
        self.rights(index, slot) == 2
    }

    pub(crate) fn allows_vrid(&self, index: u32, slot: u32, vrid: u8) -> bool {
        self.may_source(index, slot) && self.vip(slot).is_some_and(|vip| vip.vrids.contains(&vrid))
    }

    /// Ports that may own the VIP.
    pub(crate) fn members(&self, slot: u32) -> Vec<u32> {
        ports_of(subnet_of_slot(slot)).filter(|index| self.may_own(*index, slot)).collect()
    }

    /// The VIP with this address in the VPC.
    pub(crate) fn slot_at(&self, vni: u32, address: Ipv4) -> Option<u32> {
        (0..SLOTS).find(|slot| {
            vip_address(*slot) == address && vni_of(subnet_of_slot(*slot)) == vni && self.vip(*slot).is_some()
        })
    }

    /// The port with this fixed address in the VPC.
    pub(crate) fn port_at(vni: u32, address: Ipv4) -> Option<u32> {
        (1..=PORTS).find(|index| port_address(*index) == address && vni_of(subnet_of_port(*index)) == vni)
    }
}

/// The tables of the default world, changed.
pub(crate) fn world(change: impl FnOnce(&mut World)) -> MemoryTables {
    let mut world = World::default();
    change(&mut world);
    world.tables()
}
