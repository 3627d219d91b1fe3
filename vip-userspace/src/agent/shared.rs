//! What the agent shows to others while it works.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use tokio::runtime::Handle;
use vip_common::tables::{MOVES_PER_VIP, Move};

use super::history::{History, Record};
use crate::{
    api::{
        Timestamp,
        status::{Attachment, DeliveryPath, SyncStatus, UplinkStatus},
    },
    config::Config,
    kernel::{LossTracing, Tables},
    net::Netlink,
    state::{Id, State},
};

/// An interface of a port that exists.
#[derive(Clone, Debug)]
pub(super) struct InterfaceFacts {
    pub(super) ifindex: u32,
    pub(super) mtu: u32,
    pub(super) bridged: bool,
    pub(super) path: DeliveryPath,
    pub(super) why: &'static str,
    pub(super) attached: Attachment,
}

/// What was true when the agent last changed something. Owners and counters are read when somebody asks.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub(super) state: Arc<State>,
    /// Slots by the VIP's id.
    pub(super) vips: BTreeMap<Id, u32>,
    /// Indexes of counters by the EIP's id.
    pub(super) eips: BTreeMap<Id, u32>,
    /// Ids by port index, also of ports that have left.
    pub(super) port_names: BTreeMap<u32, Id>,
    /// By name.
    pub(super) interfaces: BTreeMap<String, InterfaceFacts>,
    pub(super) uplink: UplinkStatus,
    pub(super) sync: SyncStatus,
    pub(super) warnings: Vec<String>,
    /// Entries in use and room, by table.
    pub(super) tables: Vec<(&'static str, u64, u64)>,
}

/// The id of a port; one that left before this agent came has no name any more.
pub(super) fn port_name(names: &BTreeMap<u32, Id>, index: u32) -> Id {
    names.get(&index).map_or_else(|| Id::from("(unknown)"), Id::clone)
}

/// Shared by the agent, which writes, and the server's threads, which read.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) tables: Arc<Tables>,
    pub(super) netlink: Netlink,
    pub(super) runtime: Handle,
    pub(super) started_at: Timestamp,
    pub(super) adopted: bool,
    pub(super) losses: LossTracing,
    history: Mutex<History>,
    published: RwLock<Arc<Published>>,
}

impl Shared {
    pub(super) fn new(
        config: Config,
        tables: Arc<Tables>,
        netlink: Netlink,
        started_at: Timestamp,
        adopted: bool,
        losses: LossTracing,
        published: Published,
    ) -> Self {
        Self {
            config,
            tables,
            netlink,
            runtime: Handle::current(),
            started_at,
            adopted,
            losses,
            history: Mutex::default(),
            published: RwLock::new(Arc::new(published)),
        }
    }

    pub(super) fn publish(&self, published: Published) {
        *self.published.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(published);
    }

    pub(super) fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The moves that the tables remember of a slot, the oldest first.
    pub(super) fn read_moves(&self, slot: u32, names: &BTreeMap<u32, Id>) -> Vec<Record> {
        let Ok(owner) = self.tables.owners.load(slot) else { return Vec::new() };
        let first = Move::index(slot, 0);
        let mut moves: Vec<Record> = (first..first + MOVES_PER_VIP)
            .filter_map(|index| self.tables.moves.get(index).ok())
            .filter_map(|entry| Record::of(&entry, owner.word, |port| port_name(names, port)))
            .collect();
        moves.sort_by_key(|record| record.epoch);
        moves
    }
}
