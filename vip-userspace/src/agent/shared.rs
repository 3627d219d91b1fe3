//! What the agent shows to others while it works.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use tokio::runtime::Handle;
use vip_common::tables::{MOVES_PER_VIP, Move};

use super::{
    error::chain,
    history::{History, Record},
    peers::PeersFacts,
    table_names::TableNames,
};
use crate::{
    api::{
        Timestamp,
        status::{Attachment, DeliveryPath, Durations, EipNetworkStatus, SyncStatus, UplinkStatus},
    },
    config::Config,
    kernel::{KernelError, LossTracing, Tables},
    net::Netlink,
    plan::Assigned,
    state::State,
    vlan::Vlan,
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
    /// The state in force; `None`: no valid one has been read yet.
    pub(super) state: Option<Arc<State>>,
    /// Which entries of the tables belong to its objects.
    pub(super) assigned: Arc<Assigned>,
    pub(super) names: Arc<TableNames>,
    /// How long the last reading, planning and applying took.
    pub(super) durations: Durations,
    /// By name.
    pub(super) interfaces: BTreeMap<String, InterfaceFacts>,
    /// Names of the VLAN interfaces of ports, by the interface and the VLAN that the state names; `None`: only the former exists.
    pub(super) vlan_names: BTreeMap<(String, Vlan), Option<String>>,
    pub(super) networks: Vec<EipNetworkStatus>,
    pub(super) uplink: UplinkStatus,
    pub(super) sync: SyncStatus,
    pub(super) warnings: Vec<String>,
    /// Entries in use and room, by table.
    pub(super) tables: Vec<(&'static str, u64, u64)>,
    /// This host's VTEP; `None`: there are no other hosts.
    pub(super) vtep: Option<Ipv4Addr>,
    /// Longest IP packet of a guest that goes to another host, in bytes; `None`: not known.
    pub(super) tunnel_mtu: Option<u16>,
    /// Why there is no way to a host, by its index.
    pub(super) missing_ways: BTreeMap<u32, String>,
}

impl Published {
    /// The interface that a port is served by: of that name, or the VLAN interface on it.
    pub(super) fn interface(&self, name: &str, vlan: Option<Vlan>) -> Option<&InterfaceFacts> {
        match vlan {
            None => self.interfaces.get(name),
            Some(vlan) => self.interfaces.get(self.vlan_names.get(&(name.to_owned(), vlan))?.as_ref()?),
        }
    }

    /// Whether an interface exists, and the one for a VLAN on it does not.
    pub(super) fn lacks_vlan(&self, name: &str, vlan: Vlan) -> bool {
        self.vlan_names.get(&(name.to_owned(), vlan)).is_some_and(Option::is_none)
    }
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
    /// What interfaces had dropped when the agent came to use them, by ifindex.
    dropped_before: Mutex<BTreeMap<u32, u64>>,
    history: Mutex<History>,
    peers: Mutex<Option<PeersFacts>>,
    /// VIP slots with several masters.
    conflicts: Mutex<BTreeSet<u32>>,
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
            dropped_before: Mutex::default(),
            history: Mutex::default(),
            peers: Mutex::default(),
            conflicts: Mutex::default(),
            published: RwLock::new(Arc::new(published)),
        }
    }

    pub(super) fn publish(&self, published: Published) {
        *self.published.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(published);
    }

    pub(super) fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What interfaces had dropped when the agent came to use them, by ifindex.
    pub(super) fn dropped_before(&self) -> MutexGuard<'_, BTreeMap<u32, u64>> {
        self.dropped_before.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the other hosts are doing; `None`: they are not told, or not yet.
    pub(super) fn peers(&self) -> MutexGuard<'_, Option<PeersFacts>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// VIP slots with several masters.
    pub(super) fn conflicts(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.conflicts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Self::moves`], with a failure logged: the next look reads again.
    pub(super) fn read_moves(&self, slot: u32, names: &TableNames) -> Vec<Record> {
        self.moves(slot, names).unwrap_or_else(|error| {
            tracing::warn!("{}", chain(&error));
            Vec::new()
        })
    }

    /// The moves that the tables remember of a slot, the oldest first.
    pub(super) fn moves(&self, slot: u32, names: &TableNames) -> Result<Vec<Record>, KernelError> {
        let owner = self.tables.vips.load(slot)?;
        let first = Move::index(slot, 0);
        let mut moves = Vec::new();
        for index in first..first + MOVES_PER_VIP {
            let entry = self.tables.moves.get(index)?;
            moves.extend(Record::of(&entry, owner.word, |port| names.port(port)));
        }
        moves.sort_by_key(|record| record.epoch);
        Ok(moves)
    }
}
