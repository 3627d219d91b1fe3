//! How the host is doing, as the operator sees it.

use std::process;

use vip_common::tables::MeterClass;

use super::shared::{Published, Shared};
use crate::{
    api::status::{
        Attachment, DropCount, EventsLost, InterfaceLoss, LossSource, LossStatus, PortStatus, StatusView,
        TableUse,
    },
    kernel::LossTracing,
};

impl Shared {
    /// Reads the counters and puts everything together. Blocks; for threads that may.
    pub(super) fn status_view(&self) -> StatusView {
        let facts = self.published();
        let lost = |class| self.tables.meters.lost(class).unwrap_or_default();
        StatusView {
            host: self.config.host.clone(),
            pid: process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            adopted: self.adopted,
            uplink: facts.uplink.clone(),
            ports: self.port_statuses(&facts),
            drops: DropCount::list(|reason| self.tables.drops.sum(reason.index()).unwrap_or_default()),
            losses: self.losses(&facts),
            sync: facts.sync.clone(),
            tables: facts
                .tables
                .iter()
                .map(|&(table, used, capacity)| TableUse { table: table.to_owned(), used, capacity })
                .collect(),
            events_lost: EventsLost {
                ownership: lost(MeterClass::Ownership),
                refusals: lost(MeterClass::Refusal),
            },
            warnings: facts.warnings.clone(),
        }
    }

    fn port_statuses(&self, facts: &Published) -> Vec<PortStatus> {
        let ports = facts.state.ports.values().filter(|port| *port.host == *self.config.host);
        ports
            .map(|port| {
                let interface = facts.interfaces.get(&port.interface);
                PortStatus {
                    id: port.id.to_string(),
                    interface: port.interface.clone(),
                    ifindex: interface.map(|interface| interface.ifindex),
                    attached: interface.map_or(Attachment::None, |interface| interface.attached),
                    path: interface.map(|interface| interface.path),
                    why: interface
                        .map_or("the interface does not exist", |interface| interface.why)
                        .to_owned(),
                    bridged: interface.is_some_and(|interface| interface.bridged),
                    mtu: interface.map(|interface| interface.mtu),
                }
            })
            .collect()
    }

    fn losses(&self, facts: &Published) -> LossStatus {
        match &self.losses {
            LossTracing::Attached => LossStatus {
                source: LossSource::Tracepoint,
                why: "the kernel's tracepoints of failed redirects are attached".to_owned(),
                packets: self.tables.xmit_errors.sum(0).unwrap_or_default(),
                interfaces: Vec::new(),
            },
            LossTracing::Refused(why) => {
                let interfaces = self.interface_losses(facts);
                LossStatus {
                    source: LossSource::InterfaceStatistics,
                    why: format!("the kernel refuses its tracepoints: {why}"),
                    packets: interfaces.iter().map(|loss| loss.packets).sum(),
                    interfaces,
                }
            }
        }
    }

    fn interface_losses(&self, facts: &Published) -> Vec<InterfaceLoss> {
        let ports = facts.interfaces.iter().map(|(name, interface)| (name, Some(interface.ifindex)));
        let all = ports.chain([(&facts.uplink.name, facts.uplink.ifindex)]);
        all.filter_map(|(name, ifindex)| {
            // One that went just now has no numbers.
            let stats = self.runtime.block_on(self.netlink.link_stats(ifindex?)).ok()?;
            Some(InterfaceLoss { interface: name.clone(), packets: stats.tx_dropped + stats.tx_errors })
        })
        .collect()
    }
}
