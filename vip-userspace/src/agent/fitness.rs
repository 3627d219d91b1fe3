//! Whether a state that is valid in itself also fits this host as it is now.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    net::Ipv4Addr,
};

use super::{
    AgentError,
    interfaces::{by_name, ports_on},
};
use crate::{
    config::{Config, EipNetwork},
    net::{Links, RouteTable},
    state::{Router, State, StateError},
};

/// Name of the loopback interface of each network namespace.
const LOOPBACK: &str = "lo";

/// What a version of the state's file is worth on this host.
pub(super) enum Judged {
    /// It can be in force.
    Fits(State),
    /// It is valid, but not here and now.
    Unfit {
        /// The state.
        state: State,
        /// What does not fit.
        error: AgentError,
    },
    /// It is not valid, or not there.
    Refused(AgentError),
}

impl Judged {
    /// What can be in force; why not, otherwise.
    pub(super) fn or_error(self) -> Result<Self, AgentError> {
        match self {
            Self::Fits(_) => Ok(self),
            Self::Unfit { error, .. } | Self::Refused(error) => Err(error),
        }
    }
}

/// Judges what was read, against the host as it is now.
pub(super) fn judge(
    config: &Config,
    read: Option<Result<State, StateError>>,
    links: &Links,
    routes: &RouteTable,
) -> Judged {
    let state = match read {
        Some(Ok(state)) => state,
        Some(Err(error)) => return Judged::Refused(error.into()),
        None => {
            let source = ErrorKind::NotFound.into();
            return Judged::Refused(StateError::Read { path: config.source.clone(), source }.into());
        }
    };
    let mut problems = held_addresses(&state, routes);
    problems.extend(reserved_eips(&state, &config.eip_networks));
    problems.extend(ports_on_host(&state, &config.host, links));
    problems.extend(ports_on_uplink(&state, config, links));
    problems.extend(ports_on_vlans(&state, config, links));
    if problems.is_empty() {
        return Judged::Fits(state);
    }
    let error = AgentError::Unfit { path: config.source.clone(), problems: problems.join("\n") };
    Judged::Unfit { state, error }
}

/// Interfaces in bridges of which only VLANs are ports': nothing stands where their guests send without a tag.
pub(super) fn unchecked_trunks(state: &State, host: &str, links: &Links) -> Vec<String> {
    let interfaces = |tagged: bool| {
        let ports = ports_on(state, host).filter(move |(_, port)| port.vlan.is_some() == tagged);
        ports.map(|(port, _)| state.interface(port)).collect::<BTreeSet<_>>()
    };
    let (trunks, untagged) = (interfaces(true), interfaces(false));
    let is_in_bridge = |name: &str| links.by_name(name).is_some_and(|link| link.master.is_some());
    trunks
        .difference(&untagged)
        .filter(|interface| is_in_bridge(interface))
        .map(|interface| {
            format!(
                "interface {interface} is in a bridge and has ports in VLANs only: what its guest sends without a tag, or in another VLAN, \
                 is not checked; give it a port without `vlan`, or take it out of the bridge"
            )
        })
        .collect()
}

/// Addresses that the state gives away, but the host itself holds.
pub(super) fn held_addresses(state: &State, routes: &RouteTable) -> Vec<String> {
    let held = Held::by(routes);
    let mut problems = held_gateways(state, &held);
    let eips = state.eips.iter().filter(|(_, eip)| held.has(eip.address));
    problems.extend(eips.map(|(id, eip)| {
        format!(
            "eip {}: this host itself holds {}, so all its own traffic would go to the guest; take another address, or remove \
             this one from the host",
            state.eips.id(id),
            eip.address
        )
    }));
    problems
}

/// The addresses that the host itself holds, for a million questions.
struct Held {
    /// First and last address of each prefix, rising and apart.
    ranges: Vec<(Ipv4Addr, Ipv4Addr)>,
}

impl Held {
    fn by(routes: &RouteTable) -> Self {
        let mut all: Vec<_> =
            routes.local.iter().map(|prefix| (prefix.network(), prefix.broadcast())).collect();
        all.sort_unstable();
        let mut ranges: Vec<(Ipv4Addr, Ipv4Addr)> = Vec::new();
        for (first, last) in all {
            match ranges.last_mut() {
                Some((_, before)) if first <= *before => *before = last.max(*before),
                _ => ranges.push((first, last)),
            }
        }
        Self { ranges }
    }

    fn has(&self, address: Ipv4Addr) -> bool {
        let begun = self.ranges.partition_point(|(first, _)| *first <= address);
        let range = begun.checked_sub(1).and_then(|before| self.ranges.get(before));
        range.is_some_and(|(_, last)| address <= *last)
    }
}

/// EIPs that are their network's gateway, or no host's address in it.
fn reserved_eips(state: &State, networks: &[EipNetwork]) -> Vec<String> {
    let mut problems = Vec::new();
    for (eip_id, eip) in state.eips.iter() {
        for EipNetwork { id, cidr, gateway, vlan: _ } in networks {
            // RFC 3021: networks of two addresses, and of one, have neither a first nor a last one to spare.
            let spare = cidr.prefix() < 31;
            let what = match eip.address {
                address if address == *gateway => "gateway",
                address if spare && address == cidr.network() => "network address",
                address if spare && address == cidr.broadcast() => "broadcast address",
                _ => continue,
            };
            problems.push(format!(
                "eip {}: {} is the {what} of the EIP network {id}; take another address",
                state.eips.id(eip_id),
                eip.address
            ));
        }
    }
    problems
}

/// Gateways that the forwarder shall answer for, but the host itself holds: it would answer as well.
fn held_gateways(state: &State, held: &Held) -> Vec<String> {
    state
        .subnets
        .iter()
        .filter(|(_, subnet)| subnet.router == Router::Vip && held.has(subnet.gateway))
        .map(|(id, subnet)| {
            format!(
                "subnet {}: this host itself holds the gateway's address {}, so the forwarder cannot be the gateway; write \
                 `router: external`, or remove the address from the host",
                state.subnets.id(id),
                subnet.gateway
            )
        })
        .collect()
}

/// Ports whose interface carries the host's own traffic: the loopback interface, or what other ports' interfaces are members of.
fn ports_on_host(state: &State, host: &str, links: &Links) -> Vec<String> {
    let by_name = by_name(links);
    let of_ports = ports_on(state, host).filter_map(|(port, _)| by_name.get(state.interface(port)));
    let masters: BTreeSet<u32> =
        of_ports.filter_map(|link| link.master.as_ref().map(|master| master.ifindex)).collect();
    let is_master = |name: &str| by_name.get(name).is_some_and(|link| masters.contains(&link.ifindex));
    let mut problems = Vec::new();
    for (port, _) in ports_on(state, host) {
        let what = match state.interface(port) {
            LOOPBACK => "the host's loopback interface",
            name if is_master(name) => "the bridge or bond that other ports' interfaces belong to",
            _ => continue,
        };
        problems.push(format!(
            "port {}: its interface {} is {what}, which cannot be a guest's; name the guest's interface",
            state.ports.id(port),
            state.interface(port)
        ));
    }
    problems
}

/// Ports whose interface is the uplink, or the bridge or bond that it belongs to.
fn ports_on_uplink(state: &State, config: &Config, links: &Links) -> Vec<String> {
    let uplink = config.uplink.as_str();
    let master = links.by_name(uplink).and_then(|link| links.get(link.master.as_ref()?.ifindex));
    ports_on(state, &config.host)
        .map(|(port, _)| (port, state.interface(port)))
        .filter(|(_, name)| *name == uplink || master.is_some_and(|master| *name == master.name))
        .map(|(port, name)| {
            format!(
                "port {}: its interface {name} is the uplink, which cannot be a guest's; name the guest's interface",
                state.ports.id(port)
            )
        })
        .collect()
}

/// Ports without a VLAN whose interface is the VLAN interface of something else: of a port, or of an EIP network.
pub(super) fn ports_on_vlans(state: &State, config: &Config, links: &Links) -> Vec<String> {
    let (by_name, vlans) = (by_name(links), links.vlans());
    let mut taken: BTreeMap<u32, String> = BTreeMap::new();
    for (port, what) in ports_on(state, &config.host) {
        let link = what.vlan.zip(by_name.get(state.interface(port)));
        if let Some(link) = link.and_then(|(vlan, on)| vlans.find(on.ifindex, vlan)) {
            taken.insert(link.ifindex, format!("port {}", state.ports.id(port)));
        }
    }
    let uplink = by_name.get(config.uplink.as_str());
    let on = uplink.iter().flat_map(|link| [Some(link.ifindex), link.master.as_ref().map(|it| it.ifindex)]);
    for on in on.flatten() {
        for network in &config.eip_networks {
            if let Some(link) = network.vlan.and_then(|vlan| vlans.find(on, vlan)) {
                taken.insert(link.ifindex, format!("the EIP network {}", network.id));
            }
        }
    }
    if taken.is_empty() {
        return Vec::new();
    }
    let untagged = ports_on(state, &config.host).filter(|(_, what)| what.vlan.is_none());
    let conflicts = untagged.filter_map(|(port, _)| {
        let link = by_name.get(state.interface(port))?;
        let other = taken.get(&link.ifindex)?;
        Some(format!(
            "port {}: its interface {} is the VLAN interface of {other}; name another one",
            state.ports.id(port),
            link.name
        ))
    });
    conflicts.collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        config,
        net::{Link, LinkKind, Master, VlanTag},
        state,
    };

    const STATE: &str = "
hosts: [{ id: hv1, vtep: 172.31.0.1 }]
vpcs: [{ id: red, vni: 100 }]
subnets: [{ id: web, vpc: red, cidr: 10.0.0.0/24, gateway: 10.0.0.1 }]
ports:
  - { id: a, subnet: web, host: hv1, interface: IFACE, mac: '02:00:00:00:00:0a', address: 10.0.0.10 }
  - { id: b, subnet: web, host: hv1, interface: tap1, mac: '02:00:00:00:00:0b', address: 10.0.0.11 }
eips: [{ id: e, address: EIP, port: a }]
";

    fn state(interface: &str, eip: &str) -> State {
        let text = STATE.replace("IFACE", interface).replace("EIP", eip);
        state::parse(&text, "test", Some("hv1")).expect("a valid state")
    }

    fn network(cidr: &str, gateway: &str) -> EipNetwork {
        EipNetwork {
            id: "public".to_owned(),
            cidr: cidr.parse().expect("a prefix"),
            gateway: gateway.parse().expect("an address"),
            vlan: None,
        }
    }

    fn link(ifindex: u32, name: &str, kind: LinkKind, master: Option<u32>) -> Link {
        Link {
            ifindex,
            name: name.to_owned(),
            mac: None,
            mtu: 1500,
            up: true,
            running: true,
            carrier: true,
            kind,
            master: master.map(|ifindex| Master { ifindex, kind: LinkKind::Bridge }),
            vlan: None,
            xdp: None,
        }
    }

    #[test]
    fn an_eip_that_the_host_holds_is_refused() {
        let mut routes = RouteTable::default();
        assert_eq!(held_addresses(&state("tap0", "198.51.100.1"), &routes), [] as [String; 0]);
        routes.local.insert("198.51.100.1/32".parse().expect("a prefix"));
        let problems = held_addresses(&state("tap0", "198.51.100.1"), &routes).join("\n");
        assert!(problems.starts_with("eip e: this host itself holds 198.51.100.1"), "{problems}");
        assert_eq!(held_addresses(&state("tap0", "198.51.100.2"), &routes), [] as [String; 0]);
    }

    #[test]
    fn an_eip_that_is_no_hosts_address_of_its_network_is_refused() {
        let networks = [network("203.0.113.0/24", "203.0.113.1")];
        for (eip, what) in [
            ("203.0.113.0", "the network address of"),
            ("203.0.113.1", "the gateway of"),
            ("203.0.113.255", "the broadcast address of"),
        ] {
            let problems = reserved_eips(&state("tap0", eip), &networks).join("\n");
            assert!(problems.contains(what), "{eip}: {problems}");
        }
        assert_eq!(reserved_eips(&state("tap0", "203.0.113.10"), &networks), [] as [String; 0]);
        assert_eq!(
            reserved_eips(&state("tap0", "203.0.113.1"), &[network("203.0.113.0/31", "203.0.113.0")]),
            [] as [String; 0]
        );
    }

    #[test]
    fn a_port_on_the_loopback_interface_or_on_other_ports_bridge_is_refused() {
        let links = Links::of([
            link(1, "lo", LinkKind::Device, None),
            link(2, "tap0", LinkKind::Tun, Some(9)),
            link(3, "tap1", LinkKind::Tun, Some(9)),
            link(8, "br1", LinkKind::Bridge, None),
            link(9, "br0", LinkKind::Bridge, None),
        ]);
        let problems =
            |interface: &str| ports_on_host(&state(interface, "203.0.113.10"), "hv1", &links).join("\n");
        assert!(problems("lo").starts_with("port a: its interface lo is the host's loopback interface"));
        assert!(problems("br0").starts_with("port a: its interface br0 is the bridge or bond"));
        assert_eq!(problems("tap0"), "");
        assert_eq!(problems("br1"), "");
    }

    #[test]
    fn a_port_on_the_vlan_interface_of_another_or_of_an_eip_network_is_refused() {
        let vlan = |ifindex, name: &str, on, id| Link {
            vlan: Some(VlanTag { on, provider: false, id }),
            ..link(ifindex, name, LinkKind::Device, None)
        };
        let links = Links::of([
            link(2, "eth0", LinkKind::Device, None),
            link(3, "tap1", LinkKind::Tun, None),
            vlan(4, "isp", 2, 100),
            vlan(5, "other", 2, 101),
            vlan(6, "blue", 3, 200),
        ]);
        let text = "host: hv1\nuplink: eth0\nsource: { file: s }\n\
                    eip_networks: [{ id: isp, cidr: 203.0.113.0/24, gateway: 203.0.113.1, vlan: 100 }]\n";
        let config = config::parse(text, "test", Path::new("")).expect("a good configuration");
        let problems = |interface: &str| {
            let text = STATE
                .replace("interface: tap1", "interface: tap1, vlan: 200")
                .replace("IFACE", interface)
                .replace("EIP", "203.0.113.10");
            let state = state::parse(&text, "test", Some("hv1")).expect("a valid state");
            ports_on_vlans(&state, &config, &links).join("\n")
        };
        assert!(
            problems("isp")
                .starts_with("port a: its interface isp is the VLAN interface of the EIP network isp")
        );
        assert!(problems("blue").starts_with("port a: its interface blue is the VLAN interface of port b"));
        assert_eq!(problems("other"), "");
        assert_eq!(problems("tap1"), "", "untagged and tagged frames on one interface");
    }
}
