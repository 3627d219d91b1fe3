//! The agent's first steps: the lock, what there is already, the first state, the programs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use vip_common::tables::{ConfigFlags, MeterClass, names};

use super::{
    AgentError,
    announce::Announcer,
    conflicts::Conflicts,
    eip_networks::EipNetworks,
    fdb,
    fitness::judge,
    hosts::Ways,
    interfaces::Uplink,
    known::Known,
    late_claims::LateClaims,
    next_hops::NextHops,
    peers::Peers,
    quiet::Quiet,
    reload::StateFile,
    run::Agent,
    server_task::ServerTask,
    shared::{Published, Shared},
    silent_owner::SilentOwners,
    table_steps,
    words::Words,
};
use crate::{
    api::{
        Timestamp,
        server::{SOCKET_MODE, Socket},
        status::{Durations, SyncState, SyncStatus, UplinkStatus},
    },
    config::{Capacity, Config},
    kernel::{self, Dataplane, EventStream, LossTracing, PinDir},
    net::{LinkWatch, NeighbourWatch, Netdev, Netlink, RouteWatch, XdpFeatureWatch},
    peers::Key,
    plan::Resting,
};

/// Entries of NETWORKS, the unused first one included.
const NETWORKS: usize = 64;

/// How long after a start other hosts are heard before anything is decided about several masters: one that was told of before has claimed
/// meanwhile, perhaps.
const HEARING: Duration = Duration::from_secs(3);

/// Everything that the kernel tells.
struct Watches {
    netlink: Netlink,
    links: LinkWatch,
    features: XdpFeatureWatch,
    routes: RouteWatch,
    neighbours: NeighbourWatch,
    extra_rules: usize,
}

impl Watches {
    /// Looks at everything once, the uplink's routes and neighbours included: what an earlier vipd wrote of them stands in the tables
    /// and must not be taken for gone.
    async fn open(config: &Config) -> Result<Self, AgentError> {
        let netlink = Netlink::open()?;
        let links = LinkWatch::open(&netlink).await?;
        let uplink = Uplink::find(&config.uplink, links.links())?;
        let networks = EipNetworks::find(&config.eip_networks, uplink.as_ref(), links.links());
        let mut with_neighbours = networks.interfaces();
        with_neighbours.extend(uplink.iter().map(|uplink| uplink.routed_by));
        let both = uplink.iter().flat_map(|uplink| [uplink.ifindex, uplink.routed_by]).collect();
        Ok(Self {
            links,
            features: XdpFeatureWatch::open(&Netdev::open().await?).await?,
            routes: RouteWatch::open(&netlink, both).await?,
            neighbours: NeighbourWatch::open(&netlink, with_neighbours).await?,
            extra_rules: netlink.extra_rules().await?,
            netlink,
        })
    }
}

/// The programs, and when the lock on them was taken.
struct Programs {
    dataplane: Dataplane,
    events: EventStream,
    losses: LossTracing,
    locked_at: Instant,
}

impl Agent {
    /// Takes the lock, loads or takes over, applies, attaches and serves. `fresh` becomes true once there are tables that this
    /// start made.
    pub(super) async fn start(config: Config, fresh: &mut bool) -> Result<(Self, ServerTask), AgentError> {
        let started_at = Timestamp::new(SystemTime::now());
        let most = NETWORKS - 1;
        if config.eip_networks.len() > most {
            return Err(AgentError::TooManyNetworks { configured: config.eip_networks.len(), most });
        }
        let key = config.peers.as_ref().map(|peers| Key::read(&peers.key_file)).transpose()?;
        let pins = PinDir::open(&config.bpffs)?;
        let locked_at = Instant::now();
        let watches = Watches::open(&config).await?;
        let mut file = StateFile::open(&config.source, &config.host)?;
        let first = file.read().await;
        let judged = judge(&config, first, watches.links.links(), watches.routes.table());
        // Without tables there is nothing that could go on while the file is mended.
        let tables_exist = config.bpffs.join(names::CONFIG).exists();
        let judged = if tables_exist { judged } else { judged.or_error()? };

        let Capacity { ports, vips, eips, subnets, hosts } = config.capacity;
        let mut dataplane = Dataplane::load(pins, &kernel::Capacity { ports, vips, eips, subnets, hosts })?;
        let adopted = dataplane.adopted();
        *fresh = !adopted;
        let judged = if adopted { judged } else { judged.or_error()? };
        let events = dataplane.events()?;
        if dataplane.follow_log() {
            tracing::warn!("these programs log each decision: for debugging only");
        }
        let losses = dataplane.attach_loss_tracing()?;
        let socket = Socket::bind(&config.socket, SOCKET_MODE)?;

        let programs = Programs { dataplane, events, losses, locked_at };
        let mut agent = Self::assemble(config, started_at, watches, file, programs)?;
        if adopted {
            tracing::info!("took over the tables and programs pinned in {}", agent.config.bpffs.display());
        }
        if let Some((peers, key)) = agent.config.peers.as_ref().zip(key) {
            // An earlier vipd may have ended before it had heard the others.
            let unheard = agent.tables.config.get(0)?.flags.has(ConfigFlags::LEARNING_WAITS);
            let peers = Peers::new(&agent.config.host, key, peers.port, !adopted || unheard);
            *agent.shared.peers() = Some(peers.facts());
            agent.peers = Some(peers);
        }
        agent.take_judged(judged);
        agent.first_pass().await?;
        let server = ServerTask::start(socket, Arc::clone(&agent.shared));
        tracing::info!(host = agent.config.host, uplink = agent.config.uplink, "forwards");
        Ok((agent, server))
    }

    /// An agent that knows what the tables contain, and has done nothing yet.
    fn assemble(
        config: Config,
        started_at: Timestamp,
        watches: Watches,
        file: StateFile,
        programs: Programs,
    ) -> Result<Self, AgentError> {
        let Watches { netlink, links, features, routes, neighbours, extra_rules } = watches;
        let Programs { dataplane, events, losses, locked_at } = programs;
        let adopted = dataplane.adopted();
        let tables = Arc::clone(dataplane.tables());
        let sync = SyncStatus {
            state: SyncState::Waiting,
            file: config.source.clone(),
            loaded_at: None,
            error: Some("no valid state was read yet".to_owned()),
        };
        let shared = Arc::new(Shared::new(
            config.clone(),
            Arc::clone(&tables),
            netlink.clone(),
            started_at,
            adopted,
            losses,
            nothing_published(&config, sync.clone()),
        ));
        let networks = EipNetworks::find(&config.eip_networks, None, links.links());
        let contents = table_steps::read(&tables)?;
        let durations = Durations { parse_ms: file.parse_ms(), ..Durations::default() };
        let judges_from = Instant::now() + config.peers.as_ref().map_or(Duration::ZERO, |_| HEARING);
        Ok(Self {
            capacity: config.capacity,
            networks,
            fdb: fdb::Made::inherit(fdb::entries(&contents, links.links())),
            contents: Known::new(contents),
            next_hops: NextHops::read(&tables)?,
            ways: Ways::read(&tables)?,
            resting: if adopted { Resting::everything(locked_at) } else { Resting::default() },
            lost: tables.meters.lost(MeterClass::Ownership)?,
            config,
            dataplane,
            tables,
            shared,
            netlink,
            links,
            features,
            routes,
            neighbours,
            events,
            file,
            state: None,
            unfit: None,
            sync,
            problems: BTreeMap::new(),
            extra_rules,
            assigned: Arc::default(),
            waiting: 0,
            filled: None,
            names: Arc::default(),
            durations,
            words: Words::default(),
            uplink: None,
            uplink_attached: None,
            vlans_attached: BTreeSet::new(),
            attached: BTreeSet::new(),
            strays_removed: false,
            peers: None,
            announcer: Announcer::default(),
            announceable: Vec::new(),
            silent: SilentOwners::default(),
            conflicts: Conflicts::default(),
            judges_from,
            late: LateClaims::default(),
            quiet: Quiet::default(),
            look_at: Instant::now(),
            keep_alive_at: Instant::now(),
            retry_at: None,
        })
    }

    /// Applies and attaches for the first time. What can only get worse by waiting is an error: somebody else's program on the
    /// uplink, or a driver without XDP.
    async fn first_pass(&mut self) -> Result<(), AgentError> {
        self.find_uplink()?;
        if self.uplink.is_none() {
            tracing::warn!(name = self.config.uplink, "the uplink does not exist yet; waits for it");
        }
        self.find_networks();
        self.follow_uplink();
        self.converge().await;
        let missing =
            self.uplink.as_ref().map(|uplink| uplink.ifindex).filter(|_| self.uplink_attached.is_none());
        if let Some(ifindex) = missing
            && let Err(error) = self.attach_uplink(ifindex)
            && !error.is_interface_gone()
        {
            return Err(error.into());
        }
        Ok(())
    }
}

/// What there is to see before anything was done.
fn nothing_published(config: &Config, sync: SyncStatus) -> Published {
    Published {
        state: None,
        assigned: Arc::default(),
        names: Arc::default(),
        durations: Durations::default(),
        interfaces: BTreeMap::new(),
        vlan_names: BTreeMap::new(),
        networks: Vec::new(),
        uplink: UplinkStatus {
            name: config.uplink.clone(),
            ifindex: None,
            mac: None,
            mtu: None,
            xdp: None,
            path: config.uplink_path,
            link: config.bpffs.join("links"),
            routed_by: None,
        },
        sync,
        warnings: Vec::new(),
        tables: Vec::new(),
        vtep: None,
        tunnel_mtu: None,
        missing_ways: BTreeMap::new(),
    }
}
