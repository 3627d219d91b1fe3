//! Where the EIP networks are on the wire: on the uplink itself, or on a VLAN interface on it, which somebody else makes.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc};

use vip_common::{tables::EipNetwork, wire::Ipv4};

use super::{error::chain, interfaces::Uplink, run::Agent};
use crate::{
    api::status::{Attachment, EipNetworkStatus},
    config,
    net::{Link, Links},
    state::MacAddr,
    vlan::Vlan,
};

/// What an EIP network on a VLAN has of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place<'l> {
    /// This one.
    On(&'l Link),
    /// None yet; why, and what to do.
    Missing(String),
    /// One that cannot be used; why, and what to do.
    Unfit(String),
}

/// The EIP networks with their interfaces.
#[derive(Clone, Debug)]
pub(super) struct EipNetworks {
    /// As NETWORKS has them, in the order of the configuration.
    pub(super) entries: Arc<[EipNetwork]>,
    /// What is waited for.
    pub(super) missing: Vec<String>,
    /// What is there and wrong.
    pub(super) problems: Vec<String>,
}

impl EipNetworks {
    /// Finds the interfaces of the configured networks.
    pub(super) fn find(configured: &[config::EipNetwork], uplink: Option<&Uplink>, links: &Links) -> Self {
        let mut entries = Vec::with_capacity(configured.len());
        let (mut missing, mut problems) = (Vec::new(), Vec::new());
        for config::EipNetwork { id, cidr, gateway, vlan } in configured {
            let mut entry = EipNetwork {
                network: cidr.network().into(),
                mask: cidr.mask().into(),
                gateway: (*gateway).into(),
                ..EipNetwork::default()
            };
            if let Some(vlan) = *vlan {
                entry.ifindex = EipNetwork::MISSING;
                match uplink.map(|uplink| place(vlan, uplink, links)) {
                    // The uplink itself is waited for, and that is said already.
                    None => {}
                    Some(Place::On(link)) => {
                        (entry.ifindex, entry.mtu) = (link.ifindex, link.mtu);
                        if !link.up {
                            let name = &link.name;
                            missing.push(format!(
                                "EIP network {id}: its interface {name} is down; bring it up: ip link set {name} up"
                            ));
                        }
                    }
                    Some(Place::Missing(what)) => missing.push(format!("EIP network {id}: {what}")),
                    Some(Place::Unfit(what)) => problems.push(format!("EIP network {id}: {what}")),
                }
            }
            entries.push(entry);
        }
        Self { entries: entries.into(), missing, problems }
    }

    /// The VLAN interfaces (ifindex).
    pub(super) fn interfaces(&self) -> BTreeSet<u32> {
        let interfaces = self.entries.iter().map(|network| network.ifindex);
        interfaces.filter(|ifindex| ![0, EipNetwork::MISSING].contains(ifindex)).collect()
    }

    /// The VLAN interface of the network that an address lies in; 0: the uplink itself, [`EipNetwork::MISSING`]: none.
    pub(super) fn interface_of(&self, address: Ipv4Addr) -> u32 {
        let address = Ipv4::from(address);
        let network = self.entries.iter().find(|network| address.is_in(network.network, network.mask));
        network.map_or(0, |network| network.ifindex)
    }
}

/// The interface with a VLAN's frames. One on the uplink gets them before the bridge or bond that the uplink belongs to, and so
/// before one on that.
fn place<'l>(vlan: Vlan, uplink: &Uplink, links: &'l Links) -> Place<'l> {
    let vlans = links.vlans();
    let found = [uplink.ifindex, uplink.routed_by].into_iter().find_map(|on| vlans.find(on, vlan));
    let Some(link) = found else {
        let on = links.get(uplink.routed_by).map_or("the uplink", |link| &link.name);
        let commands = vlan.commands(on);
        return Place::Missing(format!(
            "there is no interface for VLAN {vlan} on {on}; vipd waits for it: {commands}"
        ));
    };
    let name = &link.name;
    if let Some(master) = &link.master {
        let (kind, of) = (&master.kind, links.get(master.ifindex).map_or("?", |master| &master.name));
        return Place::Unfit(format!(
            "its interface {name} is a member of the {kind} {of}, which takes the neighbours' answers; take it out: \
             ip link set {name} nomaster"
        ));
    }
    if link.mac != Some(uplink.mac) {
        let mac = MacAddr::new(uplink.mac);
        return Place::Unfit(format!(
            "its interface {name} has another MAC than the uplink, {mac}; give it that: ip link set {name} address {mac}"
        ));
    }
    Place::On(link)
}

impl Agent {
    /// Looks for the interfaces of the EIP networks anew.
    pub(super) fn find_networks(&mut self) {
        let found = EipNetworks::find(&self.config.eip_networks, self.uplink.as_ref(), self.links.links());
        for what in found.missing.iter().filter(|what| !self.networks.missing.contains(what)) {
            tracing::warn!("{what}");
        }
        self.set_problems("EIP networks", found.problems.clone());
        self.networks = found;
    }

    /// Has the uplink's TC program on each VLAN interface of an EIP network, and on no other.
    pub(super) fn attach_programs_of_vlans(&mut self) {
        // An uplink that is refused says that what is on it is not ours either.
        let Some(uplink) = self.uplink_attached else { return };
        let desired = self.networks.interfaces();
        let mut problems = Vec::new();
        for ifindex in desired.difference(&self.vlans_attached.clone()) {
            let Some(link) = self.links.links().get(*ifindex) else { continue };
            match self.dataplane.attach_uplink_tc(*ifindex, &link.name) {
                Ok(_) => {
                    tracing::info!("TC handles what comes in by {}", link.name);
                    self.vlans_attached.insert(*ifindex);
                }
                Err(error) if error.is_interface_gone() => tracing::debug!("{}", chain(&error)),
                Err(error) => problems.push(chain(&error)),
            }
        }
        if !self.vlans_attached.is_subset(&desired) {
            let keep = desired.iter().copied().chain([uplink]).collect();
            match self.dataplane.detach_uplink_tc_elsewhere(&keep) {
                Ok(()) => self.vlans_attached.retain(|ifindex| desired.contains(ifindex)),
                Err(error) => problems.push(chain(&error)),
            }
        }
        self.set_problems("programs of EIP networks", problems);
    }

    /// For the operator.
    pub(super) fn network_statuses(&self) -> Vec<EipNetworkStatus> {
        let links = self.links.links();
        let status = |(network, entry): (&config::EipNetwork, &EipNetwork)| {
            let (ifindex, attached_to) = match entry.ifindex {
                0 => (self.uplink.as_ref().map(|uplink| uplink.ifindex), self.uplink_attached),
                ifindex => (Some(ifindex), self.vlans_attached.get(&ifindex).copied()),
            };
            let link = ifindex.and_then(|ifindex| links.get(ifindex));
            let is_attached = link.is_some_and(|link| Some(link.ifindex) == attached_to);
            EipNetworkStatus {
                id: network.id.clone(),
                vlan: network.vlan,
                interface: link.map(|link| link.name.clone()),
                ifindex: link.map(|link| link.ifindex),
                mtu: link.map(|link| link.mtu),
                attached: if is_attached { self.tc_attachment() } else { Attachment::None },
            }
        };
        self.config.eip_networks.iter().zip(self.networks.entries.iter()).map(status).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{LinkKind, Master, VlanTag};

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn link(ifindex: u32, name: &str, vlan: Option<(u32, bool, u16)>) -> Link {
        Link {
            ifindex,
            name: name.to_owned(),
            mac: Some(MAC),
            mtu: 1500 - ifindex,
            up: true,
            running: true,
            carrier: true,
            kind: LinkKind::Device,
            master: None,
            vlan: vlan.map(|(on, provider, id)| VlanTag { on, provider, id }),
            xdp: None,
        }
    }

    fn find(vlan: Option<Vlan>, links: &[Link]) -> EipNetworks {
        let configured = config::EipNetwork {
            id: "isp".to_owned(),
            cidr: "203.0.113.0/24".parse().expect("a prefix"),
            gateway: Ipv4Addr::new(203, 0, 113, 1),
            vlan,
        };
        let links = Links::of(links.iter().cloned());
        let uplink = Uplink::find("eth0", &links).expect("a good uplink");
        EipNetworks::find(&[configured], uplink.as_ref(), &links)
    }

    fn entry(found: &EipNetworks) -> (u32, u32) {
        found.entries.first().map(|entry| (entry.ifindex, entry.mtu)).expect("one network")
    }

    #[test]
    fn a_network_without_vlan_is_on_the_uplink_itself() {
        let found = find(None, &[link(2, "eth0", None), link(3, "eth0.100", Some((2, false, 100)))]);
        assert_eq!((entry(&found), found.interfaces()), ((0, 0), BTreeSet::new()));
        assert!(found.missing.is_empty() && found.problems.is_empty());
    }

    #[test]
    fn a_network_is_on_its_vlan_interface_whatever_that_is_called() {
        let all = [
            link(2, "eth0", None),
            link(3, "blue", Some((2, false, 100))),
            link(4, "outer", Some((2, true, 200))),
            link(5, "inner", Some((4, false, 7))),
        ];
        for (vlan, place) in [(Vlan::tag(100), (3, 1497)), (Vlan::stacked(200, 7), (5, 1495))] {
            let found = find(vlan, &all);
            assert_eq!((entry(&found), found.interfaces()), (place, [place.0].into()));
            assert_eq!(found.interface_of(Ipv4Addr::new(203, 0, 113, 9)), place.0);
            assert_eq!(found.interface_of(Ipv4Addr::new(198, 51, 100, 9)), 0);
            assert!(found.missing.is_empty() && found.problems.is_empty());
        }
    }

    #[test]
    fn a_vlan_interface_that_is_missing_is_waited_for_with_the_commands_that_make_it() {
        let found =
            find(Vlan::tag(100), &[link(2, "eth0", None), link(3, "eth0.101", Some((2, false, 101)))]);
        assert_eq!((entry(&found), found.interfaces()), ((EipNetwork::MISSING, 0), BTreeSet::new()));
        let [missing] = found.missing.as_slice() else { panic!("{found:?}") };
        assert!(
            missing.starts_with("EIP network isp: ") && missing.contains("VLAN 100 on eth0"),
            "{missing}"
        );
        assert!(missing.contains("ip link add link eth0 name eth0.100 type vlan id 100"), "{missing}");
        let without_uplink = find(Vlan::tag(100), &[]);
        assert_eq!(entry(&without_uplink).0, EipNetwork::MISSING);
        assert!(without_uplink.missing.is_empty(), "the uplink is what is missing");
    }

    #[test]
    fn a_vlan_interface_with_another_mac_or_of_a_bridge_is_a_problem() {
        let vlan = link(3, "eth0.100", Some((2, false, 100)));
        let of_bridge = Link { master: Some(Master { ifindex: 9, kind: LinkKind::Bridge }), ..vlan.clone() };
        for (unfit, remedy) in [
            (Link { mac: Some([2; 6]), ..vlan }, "ip link set eth0.100 address 02:00:00:00:00:01"),
            (of_bridge, "ip link set eth0.100 nomaster"),
        ] {
            let found = find(Vlan::tag(100), &[link(2, "eth0", None), unfit, link(9, "br0", None)]);
            assert_eq!(entry(&found).0, EipNetwork::MISSING);
            assert!(found.problems.join("\n").ends_with(remedy), "{found:?}");
        }
    }

    #[test]
    fn a_vlan_interface_on_the_uplinks_bridge_serves_unless_one_is_on_the_uplink() {
        let member =
            Link { master: Some(Master { ifindex: 9, kind: LinkKind::Bridge }), ..link(2, "eth0", None) };
        let bridge = Link { kind: LinkKind::Bridge, ..link(9, "br0", None) };
        let on_bridge = link(10, "br0.100", Some((9, false, 100)));
        let all = [member, bridge, on_bridge, link(11, "eth0.100", Some((2, false, 100)))];
        let (without, _) = all.split_at(3);
        assert_eq!(entry(&find(Vlan::tag(100), without)).0, 10);
        assert_eq!(entry(&find(Vlan::tag(100), &all)).0, 11);
        let (bare, _) = all.split_at(2);
        assert!(find(Vlan::tag(100), bare).missing.join("").contains("link add link br0 name br0.100"));
    }
}
