//! How the host is doing, as the operator sees it.

use std::{
    collections::{BTreeMap, BTreeSet},
    process,
};

use vip_common::{DropReason, tables::MeterClass};

use super::{
    error::chain,
    peers::PeersFacts,
    run::Agent,
    shared::{Published, Shared},
};
use crate::{
    api::status::{
        Attachment, DropCount, EventsLost, InterfaceLoss, LossSource, LossStatus, PortStatus, StatusView,
        TableUse,
    },
    kernel::{KernelError, LossTracing},
    net::{LinkStats, NetError},
};

impl Shared {
    /// Reads the counters and puts everything together. Blocks; for threads that may.
    pub(super) fn status_view(&self) -> Result<StatusView, KernelError> {
        let facts = self.published();
        let mut drops = BTreeMap::new();
        for reason in DropReason::ALL {
            drops.insert(reason.index(), self.tables.drops.sum(reason.index())?);
        }
        let meters = &self.tables.meters;
        let peers = self.peers().clone();
        let mut warnings = facts.warnings.clone();
        warnings.extend(peers.iter().flat_map(PeersFacts::warnings));
        Ok(StatusView {
            host: self.config.host.clone(),
            pid: process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            adopted: self.adopted,
            uplink: facts.uplink.clone(),
            eip_networks: facts.networks.clone(),
            overlay: self.overlay_status(&facts)?,
            ports: self.port_statuses(&facts),
            drops: DropCount::list(|reason| drops.get(&reason.index()).copied().unwrap_or_default()),
            losses: self.losses(&facts)?,
            sync: facts.sync.clone(),
            durations: facts.durations,
            tables: facts
                .tables
                .iter()
                .map(|&(table, used, capacity)| TableUse { table: table.to_owned(), used, capacity })
                .collect(),
            events_lost: EventsLost {
                ownership: meters.lost(MeterClass::Ownership)?,
                refusals: meters.lost(MeterClass::Refusal)?,
                waiting: meters.lost(MeterClass::Waiting)?,
            },
            icmp_errors_held_back: meters.lost(MeterClass::IcmpError)?,
            peers: peers.as_ref().map(PeersFacts::status),
            warnings,
        })
    }

    fn port_statuses(&self, facts: &Published) -> Vec<PortStatus> {
        let Some(state) = facts.state.as_deref() else { return Vec::new() };
        let here = state.hosts.find(&self.config.host);
        let ports = state.ports.iter().filter(|(_, port)| Some(port.host) == here);
        ports
            .map(|(port, what)| {
                let name = state.interface(port);
                let interface = facts.interface(name, what.vlan);
                let missing = || match what.vlan.filter(|vlan| facts.lacks_vlan(name, *vlan)) {
                    Some(vlan) => {
                        format!("there is no interface for VLAN {vlan} on it: {}", vlan.commands(name))
                    }
                    None => "the interface does not exist".to_owned(),
                };
                PortStatus {
                    id: state.ports.id(port).to_owned(),
                    interface: name.to_owned(),
                    vlan: what.vlan,
                    ifindex: interface.map(|interface| interface.ifindex),
                    attached: interface.map_or(Attachment::None, |interface| interface.attached),
                    path: interface.map(|interface| interface.path),
                    why: interface.map_or_else(missing, |interface| interface.why.to_owned()),
                    bridged: interface.is_some_and(|interface| interface.bridged),
                    mtu: interface.map(|interface| interface.mtu),
                }
            })
            .collect()
    }

    fn losses(&self, facts: &Published) -> Result<LossStatus, KernelError> {
        let interfaces = self.interface_losses(facts);
        let interface_packets = interfaces.iter().map(|loss| loss.packets).sum();
        let (source, why, packets) = match &self.losses {
            LossTracing::Attached => (
                LossSource::Tracepoint,
                "the kernel's tracepoints of XDP are attached".to_owned(),
                self.tables.xmit_errors.sum(0)?,
            ),
            LossTracing::Refused(why) => (
                LossSource::InterfaceStatistics,
                format!("the kernel refuses its tracepoints: {why}"),
                interface_packets,
            ),
        };
        Ok(LossStatus { source, why, packets, interface_packets, interfaces })
    }

    /// What the interfaces dropped since the agent came to use them; those whose numbers cannot be read are left out.
    fn interface_losses(&self, facts: &Published) -> Vec<InterfaceLoss> {
        let before = self.dropped_before().clone();
        let ports = facts.interfaces.iter().map(|(name, interface)| (name, Some(interface.ifindex)));
        let uplink = [(&facts.uplink.name, facts.uplink.ifindex)];
        let vlans = facts.networks.iter().filter(|network| network.vlan.is_some());
        // Networks on one VLAN have one interface.
        let vlans: BTreeMap<_, _> =
            vlans.filter_map(|network| Some((network.interface.as_ref()?, network.ifindex))).collect();
        let all = ports.chain(uplink).chain(vlans);
        all.filter_map(|(name, ifindex)| {
            let before = before.get(&ifindex?)?;
            // One that went just now has no numbers.
            let stats = self.runtime.block_on(self.netlink.link_stats(ifindex?)).ok()?;
            Some(InterfaceLoss { interface: name.clone(), packets: dropped(&stats).saturating_sub(*before) })
        })
        .collect()
    }
}

impl Agent {
    /// Notes what the interfaces that programs are attached to have dropped before.
    pub(super) async fn note_dropped_before(&self) {
        let uplinks = self.vlans_attached.iter().copied().chain(self.uplink_attached);
        let used: BTreeSet<u32> = self.attached.iter().copied().chain(uplinks).collect();
        let mut before = self.shared.dropped_before().clone();
        before.retain(|ifindex, _| used.contains(ifindex));
        for ifindex in used {
            if before.contains_key(&ifindex) {
                continue;
            }
            match self.netlink.link_stats(ifindex).await {
                Ok(stats) => drop(before.insert(ifindex, dropped(&stats))),
                Err(NetError::NoSuchInterface { .. }) => {}
                Err(error) => tracing::warn!("{}", chain(&error)),
            }
        }
        *self.shared.dropped_before() = before;
    }
}

fn dropped(stats: &LinkStats) -> u64 {
    stats.tx_dropped + stats.tx_errors
}
