//! The agent's life.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, ErrorKind},
    net::Ipv4Addr,
    panic,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::time::{sleep, sleep_until};
use vip_common::tables::{Config as HostEntry, Event, Target};

use super::{
    AgentError,
    announce::Announcer,
    conflicts::Conflicts,
    converge::Filled,
    eip_networks::EipNetworks,
    error::chain,
    events::Refusal,
    fdb,
    fitness::{Judged, judge},
    hosts::Ways,
    interfaces::Uplink,
    known::Known,
    late_claims::LateClaims,
    next_hops::NextHops,
    peers::Peers,
    quiet::Quiet,
    reload::StateFile,
    shared::Shared,
    silent_owner::SilentOwners,
    table_names::TableNames,
    words::Words,
};
use crate::{
    api::{
        Timestamp,
        status::{Durations, SyncState, SyncStatus},
    },
    config::{self, Capacity, Config, UplinkPath},
    kernel::{self, Dataplane, EventStream, Tables, XdpMode},
    net::{LinkWatch, NeighbourEvent, NeighbourWatch, NetError, Netlink, RouteWatch, XdpFeatureWatch},
    plan::{Assigned, Resting},
    state::{State, StateError},
};

/// How often the owners' words and the meters are looked at, whatever the events say.
const LOOK: Duration = Duration::from_secs(1);

/// How often neighbours are kept alive. The kernel calls one stale after 30 s at the usual settings, and forgets it a
/// minute after that at the earliest.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How long after a failure everything is tried again, if nothing happens before.
pub(super) const RETRY: Duration = Duration::from_secs(3);

/// Events taken at once, so that a storm does not keep the other happenings waiting.
const EVENTS_AT_ONCE: usize = 256;

/// Runs the agent until `shutdown` is ready. Needs a tokio runtime with I/O and time, all threads of which are in one network
/// namespace.
///
/// Ends with an error if it cannot start, or if its socket fails. Forwarding goes on in any case; a first start that
/// fails leaves neither programs nor tables behind.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), AgentError> {
    tokio::pin!(shutdown);
    let bpffs = config.bpffs.clone();
    let mut fresh = false;
    let started = tokio::select! {
        started = Agent::start(config, &mut fresh) => started,
        () = &mut shutdown => return Ok(()),
    };
    let (mut agent, mut server) = match started {
        Ok(started) => started,
        Err(error) => {
            if fresh && let Err(error) = kernel::detach(&bpffs) {
                tracing::warn!("what this start made could not be taken back: {}", chain(&error));
            }
            return Err(error);
        }
    };
    loop {
        let happening = tokio::select! {
            () = &mut shutdown => break,
            ended = &mut server.task => {
                return ended.unwrap_or_else(|error| panic::resume_unwind(error.into_panic())).map_err(AgentError::from);
            }
            happening = agent.next() => happening,
        };
        agent.take(happening).await;
    }
    server.end().await;
    tracing::info!("ends; forwarding goes on, `vipctl detach` stops it");
    Ok(())
}

/// Something to react to.
pub(super) enum Happening {
    /// The interfaces changed.
    Links(Result<(), NetError>),
    /// What XDP can do with them changed.
    Features(Result<(), NetError>),
    /// Routes or addresses changed.
    Routes(Result<(), NetError>),
    /// A neighbour changed.
    Neighbour(Result<NeighbourEvent, NetError>),
    /// The programs told something.
    Events(Vec<Event>),
    /// They cannot be listened to.
    EventsFailed(kernel::KernelError),
    /// Another host may have told something.
    Peers(io::Result<()>),
    /// Something different is in the state's file.
    File(Box<Result<State, StateError>>),
    /// Something is due.
    Time,
}

/// Everything that the agent knows. The files of this module each add the methods about one noun.
pub(super) struct Agent {
    pub(super) config: Config,
    pub(super) capacity: Capacity,
    pub(super) networks: EipNetworks,
    pub(super) dataplane: Dataplane,
    pub(super) tables: Arc<Tables>,
    pub(super) shared: Arc<Shared>,

    pub(super) netlink: Netlink,
    pub(super) links: LinkWatch,
    pub(super) features: XdpFeatureWatch,
    pub(super) routes: RouteWatch,
    pub(super) neighbours: NeighbourWatch,
    pub(super) events: EventStream,
    pub(super) file: StateFile,

    /// The state in force.
    pub(super) state: Option<Arc<State>>,
    /// A valid state that does not fit this host at the moment.
    pub(super) unfit: Option<State>,
    pub(super) sync: SyncStatus,
    /// What went wrong when the state was applied, by what it is about; shown until it goes right.
    pub(super) problems: BTreeMap<&'static str, Vec<String>>,
    /// Policy routing rules that are not obeyed.
    pub(super) extra_rules: usize,

    pub(super) contents: Known,
    /// Which entries of the tables belong to the objects of the state.
    pub(super) assigned: Arc<Assigned>,
    /// New objects that wait for an index to rest.
    pub(super) waiting: usize,
    /// What the tables were last made of, if nothing was left to do then.
    pub(super) filled: Option<Filled>,
    pub(super) resting: Resting,
    pub(super) names: Arc<TableNames>,
    pub(super) durations: Durations,
    pub(super) words: Words,
    pub(super) uplink: Option<Uplink>,
    /// The interface that the uplink's programs are attached to.
    pub(super) uplink_attached: Option<u32>,
    /// The VLAN interfaces of EIP networks that the uplink's TC program is attached to, by this process.
    pub(super) vlans_attached: BTreeSet<u32>,
    /// The interfaces that the port program is attached to, by this process.
    pub(super) attached: BTreeSet<u32>,
    /// Whether those that an earlier process attached it to were looked at.
    pub(super) strays_removed: bool,
    pub(super) next_hops: NextHops,
    /// The ways to the other hosts.
    pub(super) ways: Ways,
    pub(super) fdb: fdb::Made,
    /// `None`: the configuration has no `peers`.
    pub(super) peers: Option<Peers>,
    pub(super) announcer: Announcer,
    /// EIPs in networks that the uplink is in, with their targets.
    pub(super) announceable: Vec<(Ipv4Addr, Target)>,
    pub(super) silent: SilentOwners,
    pub(super) conflicts: Conflicts,
    /// Nothing is decided about several masters before this.
    pub(super) judges_from: Instant,
    pub(super) late: LateClaims,
    pub(super) quiet: Quiet<Refusal>,
    pub(super) lost: u64,

    pub(super) look_at: Instant,
    pub(super) keep_alive_at: Instant,
    pub(super) retry_at: Option<Instant>,
}

impl Agent {
    /// Waits for the next happening. Cancel-safe, because all that it waits for is.
    async fn next(&mut self) -> Happening {
        let due = self.due();
        let Self { links, features, routes, neighbours, events, file, peers, .. } = self;
        tokio::select! {
            links = links.next() => Happening::Links(links.map(drop)),
            features = features.next() => Happening::Features(features.map(drop)),
            routes = routes.next() => Happening::Routes(routes.map(drop)),
            neighbour = neighbours.next() => Happening::Neighbour(neighbour),
            event = events.next() => {
                match event {
                    Ok(first) => {
                        let others = std::iter::from_fn(|| events.try_next()).take(EVENTS_AT_ONCE);
                        Happening::Events(std::iter::once(first).chain(others).collect())
                    }
                    Err(error) => Happening::EventsFailed(error),
                }
            }
            readable = Peers::readable(peers.as_ref()) => Happening::Peers(readable),
            read = file.next() => Happening::File(Box::new(read)),
            () = sleep_until(due.into()) => Happening::Time,
        }
    }

    /// When something is due if nothing happens.
    fn due(&self) -> Instant {
        [
            self.announcer.next(),
            self.silent.next(),
            self.late.next(),
            self.resting.ends(),
            self.retry_at,
            self.peers.as_ref().and_then(Peers::next),
            Some(self.keep_alive_at),
        ]
        .into_iter()
        .flatten()
        .fold(self.look_at, Instant::min)
    }

    /// Reacts.
    async fn take(&mut self, happening: Happening) {
        match happening {
            Happening::Links(result) | Happening::Features(result) => {
                if self.followed("interfaces", result) {
                    self.interfaces_changed().await;
                }
            }
            Happening::Routes(result) => {
                if self.followed("routes", result) {
                    self.routes_changed().await;
                }
            }
            Happening::Neighbour(Ok(event)) => self.neighbour_changed(&event).await,
            Happening::Neighbour(Err(error)) => {
                self.followed("neighbours", Err(error));
            }
            Happening::Events(batch) => {
                self.set_problems("events", Vec::new());
                self.take_events(&batch).await;
            }
            Happening::EventsFailed(error) => {
                self.set_problems("events", vec![chain(&error)]);
                // The regular look finds what they would have told; nothing else is gained by haste.
                sleep(LOOK).await;
            }
            Happening::Peers(readable) => self.take_datagrams(readable).await,
            Happening::File(read) => self.file_changed(*read).await,
            Happening::Time => self.take_time().await,
        }
    }

    /// Whether a watch works; if not, that is a problem until it does, and the watch takes a new look by itself.
    fn followed(&mut self, what: &'static str, result: Result<(), NetError>) -> bool {
        match result {
            Ok(()) => {
                self.set_problems(what, Vec::new());
                true
            }
            Err(error) => {
                self.set_problems(what, vec![chain(&error)]);
                self.retry_at = Some(Instant::now() + RETRY);
                false
            }
        }
    }

    async fn take_time(&mut self) {
        let now = Instant::now();
        // After a long time with a large state: who has spoken meanwhile is not silent.
        self.take_datagrams(Ok(())).await;
        self.tend_peers(now).await;
        if self.keep_alive_at <= now {
            self.keep_alive_at = now + KEEP_ALIVE;
            self.vouch_for_neighbours();
            self.keep_neighbours_alive().await;
        }
        if self.look_at <= now {
            self.look_at = now + LOOK;
            self.look_at_owners().await;
            self.look_at_conflicts();
            if self.notice_detached() {
                self.converge().await;
            }
        }
        self.take_late_claims(now).await;
        self.ask_silent_owners(now);
        self.announce(now);
        let rested = self.resting.ends().is_some_and(|end| end <= now);
        let retry = self.retry_at.is_some_and(|at| at <= now);
        if rested || retry {
            self.retry_at = None;
            self.converge().await;
        }
    }

    async fn file_changed(&mut self, read: Result<State, StateError>) {
        self.durations.parse_ms = self.file.parse_ms();
        let judged = judge(&self.config, Some(read), self.links.links(), self.routes.table());
        self.take_judged(judged);
        self.converge().await;
    }

    /// Looks again whether a state that did not fit fits now.
    pub(super) fn reconsider(&mut self) {
        if let Some(state) = self.unfit.take() {
            let judged = judge(&self.config, Some(Ok(state)), self.links.links(), self.routes.table());
            self.take_judged(judged);
        }
    }

    /// Puts a new state in force, or notes why not.
    pub(super) fn take_judged(&mut self, judged: Judged) {
        let (state, text) = match judged {
            Judged::Fits(state) => {
                tracing::info!(
                    ports = state.ports.len(),
                    vips = state.vips.len(),
                    eips = state.eips.len(),
                    "the state of {} is in force",
                    self.file.path().display()
                );
                self.unfit = None;
                self.state = Some(Arc::new(state));
                self.sync.loaded_at = Some(Timestamp::new(SystemTime::now()));
                (SyncState::InSync, None)
            }
            Judged::Unfit { state, error } => {
                self.unfit = Some(state);
                (SyncState::Refused, Some(chain(&error)))
            }
            Judged::Refused(error) => {
                self.unfit = None;
                let missing = self.state.is_none()
                    && matches!(&error, AgentError::State(StateError::Read { source, .. })
                        if source.kind() == ErrorKind::NotFound);
                let state = if missing { SyncState::Waiting } else { SyncState::Refused };
                (state, Some(chain(&error)))
            }
        };
        if let Some(text) = text.as_ref().filter(|text| self.sync.error.as_ref() != Some(text)) {
            tracing::error!("the state is refused, what was in force stays: {text}");
        }
        self.sync.state = state;
        self.sync.error = text;
    }

    /// CONFIG as it shall be.
    pub(super) fn write_host_entry(&self, entry: HostEntry) -> Result<(), kernel::KernelError> {
        let present = self.tables.config.get(0)?;
        if present == entry { Ok(()) } else { self.tables.config.set(0, entry) }
    }

    /// The mode that XDP runs in on the uplink; `None`: it does not.
    pub(super) fn xdp_mode(&self) -> Option<XdpMode> {
        match (self.config.uplink_path, self.config.xdp_mode) {
            (UplinkPath::Tc, _) => None,
            (UplinkPath::Xdp | UplinkPath::Split, config::XdpMode::Native) => Some(XdpMode::Native),
            (UplinkPath::Xdp | UplinkPath::Split, config::XdpMode::Generic) => Some(XdpMode::Generic),
        }
    }
}
