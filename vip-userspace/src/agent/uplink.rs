//! The uplink: CONFIG, its programs, routes and neighbours.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use vip_common::{
    tables::{Config as HostEntry, ConfigFlags, EipNetwork, LAYOUT_VERSION},
    wire::Mac,
};

use super::{
    AgentError,
    error::chain,
    interfaces::Uplink,
    next_hops::{unsupported, usable_mac},
    run::Agent,
};
use crate::{
    api::status::{UplinkStatus, XdpView},
    config::UplinkPath,
    kernel::{Attached, KernelError, XdpMode},
    net::{BootClock, Neighbour, NeighbourEvent, NetError},
    state::MacAddr,
};

/// How long the programs believe NEXTHOPS after the agent last vouched for it: a few of its turns of keeping neighbours alive.
const VOUCHED_FOR: Duration = Duration::from_secs(30);

/// Until when the programs may believe NEXTHOPS, in nanoseconds since boot; without a clock, never.
fn neighbours_until() -> u64 {
    let vouched = u64::try_from(VOUCHED_FOR.as_nanos()).unwrap_or_default();
    BootClock::now().map_or(0, |clock| clock.boot_ns().saturating_add(vouched))
}

impl Agent {
    /// Looks for the uplink anew.
    pub(super) fn find_uplink(&mut self) -> Result<(), AgentError> {
        let found = Uplink::find(&self.config.uplink, self.links.links())?;
        if found == self.uplink {
            return Ok(());
        }
        let before = self.uplink.as_ref().map(|uplink| (uplink.ifindex, uplink.mac));
        let after = found.as_ref().map(|uplink| (uplink.ifindex, uplink.mac));
        if before != after {
            // Neighbours know another MAC, or none at all.
            self.announcer.forget();
        }
        if let Some(Uplink { ifindex, mac, .. }) = found {
            tracing::info!(name = self.config.uplink, ifindex, mac = %MacAddr::new(mac), "the uplink is there");
        } else {
            tracing::warn!(name = self.config.uplink, "the uplink went; waits for it");
        }
        if self.uplink_attached.is_some_and(|ifindex| self.links.links().get(ifindex).is_none()) {
            self.uplink_attached = None;
        }
        self.uplink = found;
        Ok(())
    }

    /// Follows the routes and neighbours of the interface that has the uplink's, and the neighbours on the VLANs of EIP networks.
    pub(super) fn follow_uplink(&mut self) {
        let mut with_neighbours = self.networks.interfaces();
        with_neighbours.extend(self.uplink.iter().map(|uplink| uplink.routed_by));
        let both = self.uplink.iter().flat_map(|uplink| [uplink.ifindex, uplink.routed_by]).collect();
        self.neighbours.set_interfaces(with_neighbours);
        self.routes.set_uplink(both);
    }

    /// Something about interfaces, or what XDP can do with them, is different.
    pub(super) async fn interfaces_changed(&mut self) {
        let stack = self.find_uplink().err().map(|error| chain(&error));
        self.set_problems("uplink", stack.into_iter().collect());
        self.find_networks();
        self.follow_uplink();
        self.reconsider();
        self.notice_detached();
        self.converge().await;
    }

    /// Routes or the host's addresses are different.
    pub(super) async fn routes_changed(&mut self) {
        match self.netlink.extra_rules().await {
            Ok(rules) => self.extra_rules = rules,
            Err(error) => tracing::warn!("{}", chain(&error)),
        }
        self.reconsider();
        self.converge().await;
        self.keep_neighbours_alive().await;
    }

    /// Makes CONFIG, ROUTES and NEXTHOPS what the kernel says.
    pub(super) fn place_uplink(&mut self) {
        let mut problems = Vec::new();
        let mut flags = ConfigFlags::default();
        if self.config.announce_eips {
            flags = flags.with(ConfigFlags::ANNOUNCE_EIPS);
        }
        if self.config.uplink_path == UplinkPath::Split {
            flags = flags.with(ConfigFlags::TCP_BY_TC);
        }
        if self.config.eip_networks.iter().any(|network| network.vlan.is_some()) {
            flags = flags.with(ConfigFlags::VLANS);
        }
        let mut entry =
            HostEntry { layout: LAYOUT_VERSION, agent_pid: std::process::id(), ..HostEntry::default() };
        if let Some(uplink) = &self.uplink {
            if uplink.returns {
                flags = flags.with(ConfigFlags::UPLINK_RETURNS);
            }
            entry.uplink = uplink.ifindex;
            entry.routed_by = uplink.routed_by;
            entry.uplink_mac = Mac::new(uplink.mac);
            entry.uplink_mtu = uplink.mtu;
        }
        self.follow_hosts();
        entry.vtep = self.ways.vtep();
        entry.flags = flags.with(self.learning_flag());
        entry.neighbours_until = neighbours_until();
        problems.extend(self.write_host_entry(entry).err().map(|error| chain(&error)));
        problems.extend(self.next_hops.set_routes(&self.tables, self.routes.table()));
        let here = |one: &&Neighbour| self.neighbours_interface(one.address) == Some(one.ifindex);
        let neighbours: Vec<Neighbour> = self.neighbours.iter().filter(here).copied().collect();
        problems.extend(self.next_hops.set_neighbours(&self.tables, neighbours.iter()));
        problems.extend(unsupported(self.routes.table()));
        self.set_problems("routes and neighbours", problems);
    }

    /// Lets the programs go on believing NEXTHOPS.
    pub(super) fn vouch_for_neighbours(&self) {
        let vouched = self.tables.config.get(0).and_then(|entry| {
            self.tables.config.set(0, HostEntry { neighbours_until: neighbours_until(), ..entry })
        });
        if let Err(error) = vouched {
            tracing::warn!("{}", chain(&error));
        }
    }

    /// Attaches the uplink's programs, and detaches one that the path in use has no work for.
    pub(super) fn attach_uplink(&mut self, ifindex: u32) -> Result<(), KernelError> {
        let name = self.config.uplink.clone();
        if let Some(mode) = self.xdp_mode() {
            let attached = self.dataplane.attach_uplink(ifindex, &name, mode)?;
            self.attach_uplink_tc(ifindex, &name)?;
            if attached == Attached::ModeChanged {
                tracing::warn!("{name} had no XDP program for a moment, because the mode changed");
            }
            tracing::info!("XDP runs on {name} in {mode} mode");
        } else {
            self.attach_uplink_tc(ifindex, &name)?;
            self.dataplane.detach_xdp()?;
            tracing::info!("TC alone handles what comes in by {name}");
        }
        self.uplink_attached = Some(ifindex);
        Ok(())
    }

    /// Attaches the uplink's TC program, and detaches it from what is neither the uplink nor the place of an EIP network.
    fn attach_uplink_tc(&mut self, ifindex: u32, name: &str) -> Result<(), KernelError> {
        self.dataplane.attach_uplink_tc(ifindex, name)?;
        let keep = self.networks.interfaces().into_iter().chain([ifindex]).collect();
        self.dataplane.detach_uplink_tc_elsewhere(&keep)
    }

    /// One neighbour is different.
    pub(super) async fn neighbour_changed(&mut self, event: &NeighbourEvent) {
        let (ifindex, address, mac) = match event {
            NeighbourEvent::Updated(neighbour) => {
                (neighbour.ifindex, neighbour.address, usable_mac(neighbour))
            }
            NeighbourEvent::Removed { ifindex, address } => (*ifindex, *address, None),
        };
        let is_of_uplink = self.uplink.as_ref().is_some_and(|uplink| uplink.routed_by == ifindex);
        let leads_to_host = is_of_uplink && self.neighbour_of_hosts_changed(address);
        let forgotten = matches!(event, NeighbourEvent::Removed { .. });
        if forgotten && leads_to_host {
            self.keep_alive(ifindex, address).await;
        }
        if self.neighbours_interface(address) != Some(ifindex) {
            return;
        }
        if let Some(problem) = self.next_hops.set_neighbour(&self.tables, address.into(), mac) {
            tracing::warn!("neighbour {address}: {problem}");
        }
        if forgotten && !leads_to_host && self.gateways().contains(&address) {
            self.keep_alive(ifindex, address).await;
        }
    }

    /// The interface on which an address is a neighbour, if it is one: an EIP network on a VLAN has its own.
    fn neighbours_interface(&self, address: Ipv4Addr) -> Option<u32> {
        match self.networks.interface_of(address) {
            0 => self.uplink.as_ref().map(|uplink| uplink.routed_by),
            EipNetwork::MISSING => None,
            ifindex => Some(ifindex),
        }
    }

    /// Has the kernel confirm the gateways, and those neighbours whose turn it is: the programs' packets are none that it
    /// sees.
    pub(super) async fn keep_neighbours_alive(&mut self) {
        let mut addresses = self.gateways();
        addresses.extend(self.next_hops.next_turn());
        let mut gone = BTreeSet::new();
        for address in addresses {
            let Some(ifindex) = self.neighbours_interface(address).filter(|one| !gone.contains(one)) else {
                continue;
            };
            if !self.keep_alive(ifindex, address).await {
                gone.insert(ifindex);
            }
        }
        self.keep_ways_alive().await;
    }

    /// Whether the interface is still there.
    pub(super) async fn keep_alive(&self, ifindex: u32, address: Ipv4Addr) -> bool {
        match self.netlink.keep_alive(ifindex, address).await {
            Ok(()) => true,
            Err(NetError::NoSuchInterface { .. }) => false,
            // An interface that is down, or a gateway that is none any more: nothing to keep alive.
            Err(error) => {
                tracing::debug!("neighbour {address}: {}", chain(&error));
                true
            }
        }
    }

    /// Neighbours that everything else depends on.
    fn gateways(&self) -> BTreeSet<Ipv4Addr> {
        let networks = self.networks.entries.iter().map(|network| network.gateway.into());
        self.next_hops.gateways().into_iter().chain(networks).collect()
    }

    /// For the operator.
    pub(super) fn uplink_status(&self) -> UplinkStatus {
        let links = self.links.links();
        let link = self.uplink.as_ref().and_then(|uplink| links.get(uplink.ifindex));
        let attached = link.filter(|link| self.uplink_attached == Some(link.ifindex));
        let routed_by = self.uplink.as_ref().filter(|uplink| uplink.routed_by != uplink.ifindex);
        let pin = link.map_or_else(|| "uplink".to_owned(), |link| format!("uplink_{}", link.ifindex));
        UplinkStatus {
            name: self.config.uplink.clone(),
            ifindex: link.map(|link| link.ifindex),
            mac: self.uplink.as_ref().map(|uplink| MacAddr::new(uplink.mac)),
            mtu: link.map(|link| link.mtu),
            // Attaching has verified the mode.
            xdp: attached.and(self.xdp_mode()).map(|mode| match mode {
                XdpMode::Generic => XdpView::Generic,
                XdpMode::Native => XdpView::Native,
            }),
            path: self.config.uplink_path,
            link: self.config.bpffs.join("links").join(pin),
            routed_by: routed_by.and_then(|uplink| Some(links.get(uplink.routed_by)?.name.clone())),
        }
    }
}
