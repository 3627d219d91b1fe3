//! The ways to the other hosts, as HOSTS has them: they follow the uplink, and the kernel's routes and neighbours.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use vip_common::{
    tables::HostEntry,
    wire::{EtherType, Ethernet, Ipv4, Ipv4Header, Mac},
};

use super::{
    error::chain,
    interfaces::Uplink,
    next_hops::{turn_of, usable_mac},
    run::Agent,
    shared::{Published, Shared},
};
use crate::{
    api::status::{OverlayStatus, UnreachableHost},
    kernel::{KernelError, Tables},
    net::{Route, RouteTable},
    state::{Host, MacAddr, Ref, State},
};

/// Guests' interfaces that a warning names.
const NAMED: usize = 5;

/// An entry of HOSTS that leads nowhere yet, of the host with a VTEP.
pub(super) fn without_way(vtep: Ipv4) -> HostEntry {
    HostEntry { ip: Ipv4Header::tunnel(Ipv4::UNSPECIFIED, vtep), ..HostEntry::default() }
}

/// The VTEP of the host that an entry of HOSTS is about; `None`: of none.
pub(super) fn vtep_of(entry: &HostEntry) -> Option<Ipv4> {
    Some(entry.ip.destination.get()).filter(|vtep| !vtep.is_unspecified())
}

/// What HOSTS contains beside the hosts' VTEPs, and what all ways have in common.
#[derive(Debug)]
pub(super) struct Ways {
    /// This host's VTEP, of which the others know; unspecified: there are no others.
    vtep: Ipv4,
    /// Longest IP packet of a guest that leaves by the uplink in VXLAN, in bytes, when there last was an uplink; 0: there was none.
    mtu: u16,
    /// HOSTS.
    entries: BTreeMap<u32, HostEntry>,
    /// Where the last turn of keeping next hops alive ended.
    turn: Option<Ipv4>,
}

impl Ways {
    /// Reads the tables.
    pub(super) fn read(tables: &Tables) -> Result<Self, KernelError> {
        let vtep = tables.config.get(0)?.vtep;
        let mut entries = BTreeMap::new();
        for index in 1..tables.hosts.len() {
            let entry = tables.hosts.get(index)?;
            if vtep_of(&entry).is_some() {
                entries.insert(index, entry);
            }
        }
        let mtu = entries.values().map(|entry| entry.mtu).max().unwrap_or_default();
        Ok(Self { vtep, mtu, entries, turn: None })
    }

    /// This host's VTEP, as CONFIG shall have it.
    pub(super) fn vtep(&self) -> Ipv4 {
        self.vtep
    }

    /// Longest IP packet of a guest that goes to another host, in bytes; 0: not known.
    pub(super) fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Takes over what the state and the uplink say. Without a state what stands in the tables stays, and without an uplink its MTU.
    fn follow(&mut self, host: &str, state: Option<&State>, uplink: Option<&Uplink>) {
        if let Some(state) = state {
            // Alone, this host needs no VXLAN, and what others do with it on this host is theirs.
            let own = state.hosts.find(host).filter(|_| state.hosts.len() > 1);
            self.vtep = own.map_or(Ipv4::UNSPECIFIED, |own| state.hosts[own].vtep.into());
        }
        if let Some(uplink) = uplink {
            self.mtu = tunnel_mtu(uplink.mtu);
        }
    }

    /// The next hops whose turn it is to be kept alive.
    fn next_turn(&mut self) -> Vec<Ipv4Addr> {
        let all: BTreeSet<Ipv4> = self.next_hops().map(|(_, hop)| hop).collect();
        turn_of(all.iter().copied(), &mut self.turn)
    }

    /// The hosts that there is a way to, by their indexes, and the neighbours that lead there.
    fn next_hops(&self) -> impl Iterator<Item = (u32, Ipv4)> + '_ {
        let hops = self.entries.iter().map(|(&index, entry)| (index, entry.next_hop));
        hops.filter(|(_, hop)| !hop.is_unspecified())
    }
}

/// What the MTU of an uplink or of a route leaves to guests, both in bytes.
fn tunnel_mtu(outside: u32) -> u16 {
    let left = usize::try_from(outside).unwrap_or(usize::MAX).saturating_sub(HostEntry::OVERHEAD);
    // 0 would say that anything may.
    u16::try_from(left).unwrap_or(u16::MAX).max(1)
}

/// The neighbour on the uplink that leads to a VTEP; why there is none, otherwise, in words for the operator.
fn next_hop(vtep: Ipv4Addr, table: &RouteTable) -> Result<Ipv4Addr, String> {
    if table.holds_address(vtep) {
        return Err(format!("this host itself holds {vtep}"));
    }
    match table.lookup(vtep) {
        Some((_, Route::OnLink { .. })) => Ok(vtep),
        Some((_, Route::Via { gateway, .. })) => Ok(gateway),
        Some((prefix, Route::Elsewhere)) => {
            Err(format!("the route to {prefix} leads through another interface than the uplink"))
        }
        Some((prefix, Route::Refused(how))) => Err(format!("the route to {prefix} leads nowhere ({how:?})")),
        Some((prefix, Route::Unsupported(why))) => {
            Err(format!("the route to {prefix} is not supported ({why:?})"))
        }
        None => Err(format!("there is no route to {vtep}")),
    }
}

impl Agent {
    /// Takes over what all ways have in common.
    pub(super) fn follow_hosts(&mut self) {
        self.ways.follow(&self.config.host, self.state.as_deref(), self.uplink.as_ref());
    }

    /// Longest IP packet of a guest that goes to the host with a VTEP, in bytes: the route there may take less than the uplink. 0: not known.
    fn mtu_to(&self, vtep: Ipv4) -> u16 {
        let of_route = self.routes.table().mtu_to(vtep.into()).map_or(u16::MAX, tunnel_mtu);
        self.ways.mtu.min(of_route)
    }

    /// Hosts of a state, by VTEP, to which guests' packets must be shorter than to others, with their length in bytes.
    pub(super) fn narrower_ways(&self, state: &State) -> BTreeMap<Ipv4Addr, u16> {
        let all = state.hosts.iter().map(|(_, host)| (host.vtep, self.mtu_to(host.vtep.into())));
        all.filter(|(_, mtu)| *mtu < self.ways.mtu).collect()
    }

    /// The entry of HOSTS of the host with a VTEP.
    fn way_to(&self, vtep: Ipv4) -> HostEntry {
        let mut entry = HostEntry { ip: Ipv4Header::tunnel(self.ways.vtep, vtep), ..HostEntry::default() };
        entry.mtu = self.mtu_to(vtep);
        let Some(uplink) = &self.uplink else { return entry };
        let (source, ether_type) = (Mac::new(uplink.mac), EtherType::IPV4);
        entry.ethernet = Ethernet { destination: Mac::ZERO, source, ether_type };
        if let Ok(hop) = next_hop(vtep.into(), self.routes.table()) {
            entry.next_hop = hop.into();
            let mac = self.neighbours.get(uplink.routed_by, hop).and_then(usable_mac);
            entry.ethernet.destination = mac.map_or(Mac::ZERO, Mac::new);
        }
        entry
    }

    /// Makes one entry of HOSTS what it shall be, if it is not.
    pub(super) fn place_host(&mut self, index: u32, vtep: Ipv4) -> Result<(), KernelError> {
        let entry = self.way_to(vtep);
        if self.ways.entries.get(&index) != Some(&entry) {
            self.tables.hosts.set(index, entry)?;
            self.ways.entries.insert(index, entry);
        }
        Ok(())
    }

    /// An entry of HOSTS was written anew, and leads nowhere yet, or was emptied.
    pub(super) fn host_was_reset(&mut self, index: u32, vtep: Option<Ipv4>) {
        self.ways.entries.remove(&index);
        if let Some(vtep) = vtep
            && let Err(error) = self.place_host(index, vtep)
        {
            // The present pass tries all of them once more, and then it is a problem.
            tracing::debug!("{}", chain(&error));
        }
    }

    /// Makes HOSTS what the kernel says, and has the kernel look for neighbours that lead to hosts and are not known.
    pub(super) async fn place_hosts(&mut self) {
        let hosts: Vec<(u32, Ipv4)> =
            self.contents.near().hosts.iter().map(|(&index, &vtep)| (index, vtep)).collect();
        let mut problems: Vec<String> = Vec::new();
        for (index, vtep) in hosts {
            problems.extend(self.place_host(index, vtep).err().map(|error| chain(&error)));
        }
        problems.dedup();
        self.set_problems("hosts", problems);
        let unknown: BTreeSet<Ipv4> = self
            .ways
            .next_hops()
            .filter(|(index, _)| self.ways.entries.get(index).is_some_and(has_no_mac))
            .map(|(_, hop)| hop)
            .collect();
        let some = turn_of(unknown.into_iter(), &mut None);
        self.keep_hops_alive(some).await;
    }

    /// A neighbour on the interface that has the uplink's is different. Tells whether a host is reached through it.
    pub(super) fn neighbour_of_hosts_changed(&mut self, address: Ipv4Addr) -> bool {
        let hop = Ipv4::from(address);
        let through: Vec<u32> =
            self.ways.next_hops().filter(|(_, one)| *one == hop).map(|(index, _)| index).collect();
        for &index in &through {
            let Some(&vtep) = self.contents.near().hosts.get(&index) else { continue };
            if let Err(error) = self.place_host(index, vtep) {
                tracing::warn!("neighbour {address}: {}", chain(&error));
            }
        }
        !through.is_empty()
    }

    /// Has the kernel confirm the neighbours that lead to hosts, as far as it is their turn.
    pub(super) async fn keep_ways_alive(&mut self) {
        let hops = self.ways.next_turn();
        self.keep_hops_alive(hops).await;
    }

    async fn keep_hops_alive(&self, hops: Vec<Ipv4Addr>) {
        let Some(ifindex) = self.uplink.as_ref().map(|uplink| uplink.routed_by) else { return };
        for hop in hops {
            if !self.keep_alive(ifindex, hop).await {
                return;
            }
        }
    }

    /// Why there is no way to a host, by its index.
    pub(super) fn missing_ways(&self) -> BTreeMap<u32, String> {
        let hosts = self.contents.near().hosts.iter().filter(|(_, vtep)| **vtep != self.ways.vtep);
        hosts.filter_map(|(&index, &vtep)| Some((index, self.why_no_way(vtep)?))).collect()
    }

    fn why_no_way(&self, vtep: Ipv4) -> Option<String> {
        match &self.uplink {
            None => Some(format!("the uplink {} does not exist", self.config.uplink)),
            Some(_) => next_hop(vtep.into(), self.routes.table()).err(),
        }
    }

    /// What an operator should know about this host's part in the traffic between hosts.
    pub(super) fn tunnel_warnings(&self) -> Vec<String> {
        let vtep = Ipv4Addr::from(self.ways.vtep);
        if vtep.is_unspecified() {
            return Vec::new();
        }
        let mut warnings = Vec::new();
        if !self.routes.table().holds_address(vtep) {
            warnings.push(format!(
                "this host's VTEP {vtep} is none of its addresses, so that nothing comes from other hosts; give it to the \
                 uplink, or correct the state"
            ));
        }
        let mtu = u32::from(self.ways.mtu);
        let interfaces = self.contents.near().interfaces.keys();
        let links = interfaces.filter_map(|ifindex| self.links.links().get(*ifindex));
        let larger: Vec<_> = links.filter(|link| mtu != 0 && link.mtu > mtu).collect();
        if !larger.is_empty() {
            let names: Vec<_> =
                larger.iter().take(NAMED).map(|link| format!("{} ({})", link.name, link.mtu)).collect();
            let more = match larger.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            warnings.push(format!(
                "{} guests' interfaces have a larger MTU than the {mtu} bytes that go to other hosts: {}{more}; their guests are \
                 told by \"fragmentation needed\"",
                larger.len(),
                names.join(", ")
            ));
        }
        warnings
    }
}

/// Whether the neighbour that leads to a host is not known.
fn has_no_mac(entry: &HostEntry) -> bool {
    entry.ethernet.destination.is_zero()
}

/// The way to another host at this moment, for the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct WayView {
    pub(super) next_hop: Option<Ipv4Addr>,
    pub(super) mac: Option<MacAddr>,
    pub(super) mtu: Option<u16>,
    /// Why nothing goes there; `None`: it does.
    pub(super) why: Option<String>,
}

impl Shared {
    /// The way to a host that the state in force lists; `None`: it is this one.
    pub(super) fn way(&self, facts: &Published, host: Ref<Host>) -> Result<Option<WayView>, KernelError> {
        if facts.state.as_ref().is_some_and(|state| state.hosts.find(&self.config.host) == Some(host)) {
            return Ok(None);
        }
        let Some(index) = facts.assigned.hosts.get(host) else {
            let why = Some("it is not in the tables".to_owned());
            return Ok(Some(WayView { why, ..WayView::default() }));
        };
        let entry = self.tables.hosts.get(index)?;
        let next_hop = Some(entry.next_hop).filter(|hop| !hop.is_unspecified()).map(Ipv4Addr::from);
        let mac = Some(entry.ethernet.destination).filter(|mac| !mac.is_zero());
        let why = match (next_hop, mac) {
            (Some(_), Some(_)) => None,
            (Some(hop), None) => Some(format!("the neighbour {hop} does not answer")),
            (None, _) => {
                Some(facts.missing_ways.get(&index).cloned().unwrap_or_else(|| "there is no way".to_owned()))
            }
        };
        let mac = mac.map(|mac| MacAddr::new(mac.octets()));
        Ok(Some(WayView { next_hop, mac, mtu: Some(entry.mtu).filter(|mtu| *mtu != 0), why }))
    }

    /// What travels between hosts; `None`: there are no others.
    pub(super) fn overlay_status(&self, facts: &Published) -> Result<Option<OverlayStatus>, KernelError> {
        let (Some(state), Some(vtep)) = (facts.state.as_deref(), facts.vtep) else { return Ok(None) };
        let (mut hosts, mut unreachable) = (0, Vec::new());
        for host in state.hosts.refs() {
            let Some(way) = self.way(facts, host)? else { continue };
            hosts += 1;
            let id = state.hosts.id(host);
            unreachable.extend(way.why.map(|why| UnreachableHost { host: id.to_owned(), why }));
        }
        Ok(Some(OverlayStatus { vtep, guest_mtu: facts.tunnel_mtu, hosts, unreachable }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state;

    #[test]
    fn the_longest_route_decides_which_neighbour_leads_to_a_vtep() {
        let gateway = Ipv4Addr::new(192, 0, 2, 1);
        let table = RouteTable::of_each_kind();
        let hop = |octets: [u8; 4]| next_hop(octets.into(), &table);
        assert_eq!(hop([192, 0, 2, 8]), Ok([192, 0, 2, 8].into()));
        assert_eq!(hop([172, 31, 0, 2]), Ok(gateway));
        let why = |octets| hop(octets).expect_err("there is no way");
        assert!(why([10, 9, 0, 1]).contains("10.0.0.0/8 leads through another interface"));
        assert!(why([10, 1, 0, 1]).contains("10.1.0.0/16 leads nowhere (Blackhole)"));
        assert!(why([192, 0, 2, 7]).contains("this host itself holds"));
        assert!(
            next_hop([172, 31, 0, 2].into(), &RouteTable::default())
                .is_err_and(|why| why.contains("no route"))
        );
    }

    #[test]
    fn guests_get_what_the_headers_leave_and_never_what_says_that_anything_may() {
        assert_eq!(tunnel_mtu(1500), 1450);
        assert_eq!(tunnel_mtu(9000), 8950);
        assert_eq!([tunnel_mtu(50), tunnel_mtu(0)], [1, 1]);
        assert_eq!(tunnel_mtu(u32::MAX), u16::MAX);
    }

    fn ways() -> Ways {
        Ways { vtep: Ipv4::UNSPECIFIED, mtu: 0, entries: BTreeMap::new(), turn: None }
    }

    #[test]
    fn a_host_that_is_alone_takes_no_vxlan_and_an_agent_without_a_state_changes_nothing() {
        let state = |hosts: &str| {
            let text = format!("hosts: [{hosts}]\nvpcs: []\nsubnets: []\nports: []\n");
            state::parse(&text, "test", None).expect("a state")
        };
        let alone = state("{ id: hv1, vtep: 172.31.0.1 }");
        let two = state("{ id: hv1, vtep: 172.31.0.1 }, { id: hv2, vtep: 172.31.0.2 }");
        let mut ways = ways();
        ways.follow("hv2", Some(&two), None);
        assert_eq!(ways.vtep(), Ipv4::new([172, 31, 0, 2]));
        ways.follow("hv2", None, None);
        assert_eq!(ways.vtep(), Ipv4::new([172, 31, 0, 2]));
        ways.follow("hv1", Some(&alone), None);
        assert_eq!(ways.vtep(), Ipv4::UNSPECIFIED);
    }

    #[test]
    fn the_mtu_outlives_the_uplink() {
        let uplink = Uplink { ifindex: 2, routed_by: 2, mac: [2; 6], mtu: 1500, returns: true };
        let mut ways = ways();
        ways.follow("hv1", None, Some(&uplink));
        assert_eq!(ways.mtu(), 1450);
        ways.follow("hv1", None, None);
        assert_eq!(ways.mtu(), 1450);
    }

    #[test]
    fn hosts_behind_one_gateway_keep_it_alive_once() {
        let gateway = Ipv4::new([192, 0, 2, 1]);
        let to = |last| HostEntry { next_hop: gateway, ..without_way(Ipv4::new([172, 31, 0, last])) };
        let mut ways = Ways { entries: [(1, to(1)), (2, to(2))].into(), ..ways() };
        ways.entries.insert(3, without_way(Ipv4::new([172, 31, 0, 3])));
        assert_eq!(ways.next_turn(), [Ipv4Addr::from(gateway)]);
        assert_eq!(ways.entries.values().filter_map(vtep_of).count(), 3);
    }
}
