//! Tables that the wishes for a world compile to.

use vip_common::{
    engine::{MemoryTables, Slot},
    tables::{
        AddressKind, ClaimForm, Config, ConfigFlags, EipNetwork, Grant, GrantKey, MacKey, Members, NextHop,
        OwnerEntry, OwnerWord, Pending, PortEntry, PortFlags, Rights, RouteEntry, RouteKind, SourceEip,
        SubnetEntry, Target, VipEntry, VniAddress, VridSet,
    },
    wire::Ipv4,
};

use super::{
    VipSpec, World,
    plan::{
        HOST_ADDRESS, MASK, NEIGHBOUR_MAC, PORTS, ROUTER, SLOTS, SUBNETS, UPLINK, UPLINK_MAC, gateway,
        ifindex, in_subnet, port_address, port_eip, port_mac, ports_of, slots_of, subnet_of_port,
        subnet_of_slot, vip_address, vip_eip, vni_of,
    },
};

impl World {
    /// The tables that these wishes compile to.
    pub(crate) fn tables(&self) -> MemoryTables {
        let mut tables = MemoryTables::default();
        tables.now.set(self.now);
        self.fill_host(&mut tables);
        if let Some(overlay) = &self.overlay {
            overlay.fill(&mut tables);
        }
        for subnet in 0..SUBNETS {
            self.fill_subnet(&mut tables, subnet);
        }
        for index in 1..=PORTS {
            self.fill_port(&mut tables, index);
        }
        for slot in 0..SLOTS {
            if let Some(vip) = self.vip(slot) {
                self.fill_vip(&mut tables, slot, vip);
            }
        }
        tables
    }

    fn fill_host(&self, tables: &mut MemoryTables) {
        let mut flags = ConfigFlags::default();
        for (chosen, flag) in [
            (self.announces, ConfigFlags::ANNOUNCE_EIPS),
            (self.returns, ConfigFlags::UPLINK_RETURNS),
            (self.tcp_by_tc, ConfigFlags::TCP_BY_TC),
        ] {
            if chosen {
                flags = flags.with(flag);
            }
        }
        tables.config = Some(Config {
            uplink: UPLINK,
            routed_by: UPLINK,
            uplink_mac: UPLINK_MAC,
            flags,
            neighbours_until: u64::MAX,
            ..Config::default()
        });
        let all_bits = Ipv4::BROADCAST;
        let prefix = Ipv4::new([198, 51, 100, 0]);
        tables.routes = vec![
            (HOST_ADDRESS, all_bits, RouteEntry::new(RouteKind::Local)),
            (prefix, MASK, RouteEntry::new(RouteKind::OnLink)),
        ];
        if self.default_route {
            let default = RouteEntry::new(RouteKind::Gateway(ROUTER));
            tables.routes.push((Ipv4::UNSPECIFIED, Ipv4::UNSPECIFIED, default));
        }
        tables.next_hops.insert(ROUTER, NextHop { mac: NEIGHBOUR_MAC, zero: 0 });
        tables
            .networks
            .insert(1, EipNetwork { network: prefix, mask: MASK, gateway: ROUTER, ..EipNetwork::default() });
    }

    fn fill_subnet(&self, tables: &mut MemoryTables, subnet: u32) {
        let vni = vni_of(subnet);
        let kind = if self.is_external(subnet) {
            AddressKind::ExternalGateway(subnet + 1)
        } else {
            AddressKind::Gateway(subnet + 1)
        };
        tables.addresses.insert(VniAddress { vni, address: gateway(subnet) }, Target::new(kind));
        for from in [4001, 4002, 4003] {
            if self.reaches(from, vni) {
                let entry = SubnetEntry { vni, subnet: subnet + 1, root: 0 };
                tables.subnets.push((from, in_subnet(subnet, 0), MASK, entry));
            }
        }
    }

    fn fill_port(&self, tables: &mut MemoryTables, index: u32) {
        let (spec, subnet) = (self.port(index), subnet_of_port(index));
        let vni = vni_of(subnet);
        let mut flags = PortFlags::default();
        for (chosen, flag) in [
            (spec.bypass, PortFlags::BYPASS),
            (spec.bridged, PortFlags::BRIDGED),
            (spec.takes_xdp, PortFlags::TAKES_XDP),
            (self.is_external(subnet), PortFlags::EXTERNAL_ROUTER),
        ] {
            if chosen {
                flags = flags.with(flag);
            }
        }
        let mut vrids = VridSet::default();
        for slot in slots_of(subnet) {
            for vrid in self.vip(slot).into_iter().flat_map(|vip| &vip.vrids) {
                if self.may_source(index, slot) {
                    assert!(vrids.insert(*vrid), "there is room for a few");
                }
            }
        }
        let address = port_address(index);
        let entry = PortEntry {
            ifindex: if spec.unplugged { 0 } else { ifindex(index) },
            vni,
            subnet: subnet + 1,
            address,
            gateway: gateway(subnet),
            mask: MASK,
            mac: port_mac(index),
            flags,
            eip: if spec.eip { SourceEip::new(port_eip(index), 0) } else { SourceEip::default() },
            root: 0,
            mtu: 0,
            vrids,
        };
        let entry = match self.elsewhere(index) {
            Some((host, overlay)) => PortEntry {
                ifindex: host,
                flags: flags.with(PortFlags::REMOTE),
                mtu: u32::from(overlay.mtu),
                ..entry
            },
            None => entry,
        };
        tables.ports.insert(index, entry);
        tables.macs.insert(MacKey::new(vni, entry.mac), index);
        if !entry.flags.has(PortFlags::REMOTE) {
            tables.interfaces.insert(ifindex(index), index);
        }
        if spec.eip {
            tables.eips.insert(port_eip(index), Target::port(index));
        }
        tables.addresses.insert(VniAddress { vni, address }, Target::port(index));
    }

    fn fill_vip(&self, tables: &mut MemoryTables, slot: u32, vip: &VipSpec) {
        let subnet = subnet_of_slot(slot);
        let (vni, address) = (vni_of(subnet), vip_address(slot));
        let members = self.members(slot);
        let of_member = |order: usize| members.get(order % members.len().max(1)).copied();
        let vrid = if vip.by_vrid { vip.vrids.first().copied().unwrap_or_default() } else { 0 };
        let word = match vip.owner.and_then(of_member) {
            Some(owner) => OwnerWord::new(vip.epoch, vip.claimed, owner, vrid),
            None => OwnerWord::new(vip.epoch, false, 0, 0),
        };
        let pending = vip.waiting.and_then(|(order, in_ms)| {
            let due = self.now.saturating_add_signed(in_ms * 1_000_000);
            Some(Pending::new(of_member(order)?, vrid, ClaimForm::GarpRequest, due))
        });
        let eip = if vip.eip {
            tables.eips.insert(vip_eip(slot), Target::vip(slot));
            SourceEip::new(vip_eip(slot), u16::from(vip.network))
        } else {
            SourceEip::default()
        };
        let entry = VipEntry { eip, vni, address };
        let owner = OwnerEntry {
            word,
            pending: pending.unwrap_or_default(),
            damped_until: self.now + vip.damped,
            reported: 0,
        };
        tables.vips.insert(slot, Slot::new(slot, entry, owner));
        tables.addresses.insert(VniAddress { vni, address }, Target::vip(slot));
        let mut vrids = [0; 4];
        for (place, vrid) in vrids.iter_mut().zip(&vip.vrids) {
            *place = *vrid;
        }
        for port in ports_of(subnet) {
            let rights = match self.rights(port, slot) {
                0 => continue,
                1 => Rights::OWN,
                2 => Rights::SOURCE,
                _ => Rights::OWN.with(Rights::SOURCE),
            };
            tables.grants.insert(GrantKey { port, slot }, Grant { rights, zero: [0; 3], vrids });
        }
        let mut listed_members = Members { vni, address, subnet: subnet + 1, ..Members::default() };
        for (place, member) in listed_members.ports.iter_mut().zip(members.iter().copied()) {
            *place = member;
        }
        let mut hosts: Vec<u32> =
            members.iter().filter_map(|member| Some(self.elsewhere(*member)?.0)).collect();
        hosts.sort_unstable();
        hosts.dedup();
        for (place, host) in listed_members.hosts.iter_mut().zip(hosts) {
            *place = u16::try_from(host).expect("a few hosts");
        }
        tables.members.insert(slot, listed_members);
    }
}
