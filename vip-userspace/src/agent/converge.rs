//! Makes the tables, the programs' places and the bridges what they shall be, as far as they are not.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use vip_common::tables::PortFlags;

use super::{
    error::chain,
    fdb,
    fitness::{held_addresses, ports_on_vlans, unchecked_trunks},
    interfaces,
    known::{Known, Origin},
    run::{Agent, RETRY},
    shared::{InterfaceFacts, Published},
    table_steps,
};
use crate::{
    api::status::{Attachment, DeliveryPath, SyncState},
    config::UplinkPath,
    kernel::{KernelError, TcHook},
    memory,
    net::NetError,
    plan::{Contents, Desired, Indexes, Site, Step, compile, diff},
    state::{Port, State},
    vlan::Vlan,
};

/// What the tables were made of. While it stays as it is, they stay as they are.
#[derive(Clone, Debug)]
pub(super) struct Filled {
    state: Arc<State>,
    site: Site,
}

impl PartialEq for Filled {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state) && self.site == other.site
    }
}

/// What became of steps.
enum Outcome {
    /// Each was carried out.
    All,
    /// All but those with these numbers, rising.
    AllBut(Vec<usize>),
    /// One failed in a way that ended it; what the tables contain was read again.
    Ended,
}

/// What came of steps so far.
#[derive(Debug, Default)]
struct Tried {
    problems: Vec<String>,
    /// Numbers of steps that were not carried out, rising.
    skipped: Vec<usize>,
    ended: bool,
}

impl Tried {
    fn outcome(mut self) -> (Vec<String>, Outcome) {
        self.problems.dedup();
        let outcome = match self.skipped {
            _ if self.ended => Outcome::Ended,
            skipped if skipped.is_empty() => Outcome::All,
            skipped => Outcome::AllBut(skipped),
        };
        (self.problems, outcome)
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Agent {
    /// Does all that is to be done. What fails is shown, and tried again.
    pub(super) async fn converge(&mut self) {
        self.retry_at = None;
        self.resting.expire(Instant::now());
        self.place_uplink();
        // The programs come after the tables: each is at work as soon as it is attached.
        self.fill_tables();
        self.place_hosts().await;
        self.attach_programs_of_uplink();
        self.attach_programs_of_vlans();
        if self.state.is_some() {
            self.attach_ports();
            self.look_at_words();
            self.follow_peers().await;
            self.tend_bridges().await;
            self.find_announceable();
        }
        self.note_dropped_before().await;
        if self.problems.values().any(|problems| !problems.is_empty()) {
            self.retry_at = Some(Instant::now() + RETRY);
        }
        self.publish();
    }

    /// Notes what is wrong about a subject, or that nothing is any more. Each problem is logged once.
    pub(super) fn set_problems(&mut self, subject: &'static str, problems: Vec<String>) {
        let before = self.problems.get(subject).map_or(&[][..], Vec::as_slice);
        for problem in problems.iter().filter(|problem| !before.contains(problem)) {
            tracing::error!("{problem}");
        }
        if problems.is_empty() && !before.is_empty() {
            tracing::info!("{subject}: all is well again");
        }
        if problems.is_empty() {
            self.problems.remove(subject);
        } else {
            self.problems.insert(subject, problems);
        }
    }

    fn attach_programs_of_uplink(&mut self) {
        let Some(ifindex) = self.uplink.as_ref().map(|uplink| uplink.ifindex) else { return };
        let failed =
            if self.uplink_attached == Some(ifindex) { None } else { self.attach_uplink(ifindex).err() };
        // One that went just now is waited for like one that is not there yet.
        let problem = failed.filter(|error| !error.is_interface_gone()).map(|error| chain(&error));
        self.set_problems("programs of the uplink", problem.into_iter().collect());
    }

    /// Applies the state to the tables.
    fn fill_tables(&mut self) {
        let Some(state) = self.state.clone() else { return };
        let begun = Instant::now();
        let mut problems = held_addresses(&state, self.routes.table());
        problems.extend(ports_on_vlans(&state, &self.config, self.links.links()));
        let now = Filled { state: Arc::clone(&state), site: self.site(&state) };
        if self.filled.as_ref() != Some(&now) {
            self.filled = None;
            let present = self.contents.whole();
            let indexes = Indexes::of(present, &self.capacity, &self.resting);
            let Desired { contents, assigned, refused } = compile(&state, &now.site, &indexes);
            let steps = diff(present, &contents);
            let planned = Instant::now();
            let (failed, outcome) = self.try_all(&steps);
            let written = Instant::now();
            let reached = self.note_outcome(outcome, &steps, contents);
            self.words.judge_all();
            self.note_durations(steps.len(), planned - begun, written - planned);
            let present = self.contents.whole();
            self.resting.note(&indexes, present, written);
            let of_subnets = present.subnets.values().map(|entry| entry.vni);
            self.tables.index.retain_roots(&of_subnets.chain(present.vnis.iter().copied()).collect());
            self.waiting = refused.iter().filter(|refused| refused.resting).count();
            for refused in &refused {
                if refused.resting {
                    tracing::debug!("{refused}");
                }
            }
            let all_done = reached && refused.is_empty();
            problems.splice(
                0..0,
                failed
                    .into_iter()
                    .chain(refused.iter().filter(|refused| !refused.resting).map(ToString::to_string)),
            );
            self.names = Arc::new(self.names.follow(&state, &assigned));
            self.assigned = Arc::clone(&assigned);
            drop((steps, indexes));
            if all_done {
                let Filled { state, site } = now.clone();
                self.contents.spare(Origin { state, site, assigned });
                self.filled = Some(now);
            }
            memory::give_back();
        }
        self.set_problems("state", problems);
    }

    /// What the plan needs to know of this host.
    fn site(&self, state: &State) -> Site {
        let (host, links, features) = (&self.config.host, self.links.links(), self.features.features());
        Site {
            host: host.clone(),
            networks: Arc::clone(&self.networks.entries),
            interfaces: interfaces::of_ports(state, host, links, features),
            tunnel_mtu: self.ways.mtu(),
            tunnel_mtus: self.narrower_ways(state),
        }
    }

    /// Notes and logs how long it took until the difference was known, and from then on to the last write.
    fn note_durations(&mut self, steps: usize, plan: Duration, apply: Duration) {
        self.durations.plan_ms = milliseconds(plan);
        self.durations.apply_ms = milliseconds(apply);
        let exact = |duration: Duration| format!("{:.3}", duration.as_secs_f64() * 1e3);
        let (plan_ms, apply_ms) = (exact(plan), exact(apply));
        tracing::info!(steps, %plan_ms, %apply_ms, "the tables follow the state");
    }

    /// Notes what became of steps that lead to `goal`. Tells whether it is reached.
    fn note_outcome(&mut self, outcome: Outcome, steps: &[Step], goal: Contents) -> bool {
        match outcome {
            Outcome::All => {
                // Not step by step: the goal was built as a whole and has no gaps.
                self.contents = Known::new(goal);
                return true;
            }
            Outcome::AllBut(skipped) => self.apply_all_but(steps, &skipped),
            Outcome::Ended => {}
        }
        false
    }

    /// Carries steps out in their order; what went wrong. A full table and an interface that went just now concern one entry; any
    /// other failure ends it there, and the tables are read anew.
    pub(super) fn carry_out(&mut self, steps: &[Step]) -> Vec<String> {
        let (problems, outcome) = self.try_all(steps);
        match outcome {
            Outcome::All => self.apply_all_but(steps, &[]),
            Outcome::AllBut(skipped) => self.apply_all_but(steps, &skipped),
            Outcome::Ended => {}
        }
        problems
    }

    fn try_all(&mut self, steps: &[Step]) -> (Vec<String>, Outcome) {
        let mut tried = Tried::default();
        if let Err(error) = table_steps::prepare(&self.tables, steps) {
            return (vec![chain(&error)], Outcome::Ended);
        }
        let mut first = 0;
        for batch in table_steps::batches(steps) {
            match table_steps::carry_out(&self.tables, batch) {
                Ok(()) => self.note_done(batch),
                // Which of them has no room, they find out one by one: doing a step twice is doing it once.
                Err(KernelError::TableFull { .. }) if batch.len() > 1 => {
                    for (number, step) in (first..).zip(batch) {
                        let step = std::slice::from_ref(step);
                        match table_steps::carry_out(&self.tables, step) {
                            Ok(()) => self.note_done(step),
                            Err(error) => self.failed(&mut tried, (number, step), &error),
                        }
                        if tried.ended {
                            return tried.outcome();
                        }
                    }
                }
                Err(error) => self.failed(&mut tried, (first, batch), &error),
            }
            if tried.ended {
                break;
            }
            first += batch.len();
        }
        tried.outcome()
    }

    /// Does what follows from steps that were carried out, before the next ones are.
    fn note_done(&mut self, done: &[Step]) {
        for step in done {
            match *step {
                Step::FreshSlot(slot) => {
                    self.shared.history().forget(slot);
                    self.words.forget(slot);
                }
                Step::SetHost(index, vtep) => self.host_was_reset(index, Some(vtep)),
                Step::ClearHost(index) => self.host_was_reset(index, None),
                _ => {}
            }
        }
    }

    /// Notes why steps, of which the first has the number, were not carried out.
    fn failed(&mut self, tried: &mut Tried, (first, steps): (usize, &[Step]), error: &KernelError) {
        if error.is_interface_gone() {
            tracing::debug!("{steps:?}: {}", chain(error));
            tried.skipped.extend(first..first + steps.len());
            return;
        }
        tried.problems.push(chain(error));
        if matches!(error, KernelError::TableFull { .. }) {
            tried.skipped.extend(first..first + steps.len());
            return;
        }
        tried.ended = true;
        self.filled = None;
        match table_steps::read(&self.tables) {
            Ok(contents) => self.contents = Known::new(contents),
            Err(error) => tried.problems.push(chain(&error)),
        }
    }

    /// Notes that steps were carried out, except those with the (rising) numbers.
    fn apply_all_but(&mut self, steps: &[Step], skipped: &[usize]) {
        let done = steps.iter().enumerate().filter(|(number, _)| skipped.binary_search(number).is_err());
        self.contents.apply(done.map(|(_, step)| step));
    }

    /// Has the port program on every interface of a port, and on no other.
    fn attach_ports(&mut self) {
        if !self.strays_removed && self.uplink.is_some() && self.uplink_attached.is_none() {
            // An uplink that is refused, because it is another vipd's for example, says that its ports are not ours either.
            return;
        }
        let mut problems = Vec::new();
        let desired: BTreeSet<u32> = self.contents.near().interfaces.keys().copied().collect();
        let mut present = self.attached.clone();
        if !self.strays_removed {
            match self.dataplane.attached_ports() {
                Ok(earlier) => present.extend(earlier),
                Err(error) => problems.push(chain(&error)),
            }
        }
        for ifindex in present.difference(&desired) {
            match self.dataplane.detach_port(*ifindex) {
                Ok(()) => drop(self.attached.remove(ifindex)),
                Err(error) => problems.push(chain(&error)),
            }
        }
        self.strays_removed = problems.is_empty();
        for ifindex in desired.difference(&self.attached.clone()) {
            let Some(link) = self.links.links().get(*ifindex) else { continue };
            match self.dataplane.attach_port(*ifindex, &link.name) {
                Ok(_) => drop(self.attached.insert(*ifindex)),
                Err(error) if error.is_interface_gone() => tracing::debug!("{}", chain(&error)),
                Err(error) => problems.push(chain(&error)),
            }
        }
        self.set_problems("programs of ports", problems);
    }

    /// Has static entries on Linux bridges for the ports' MACs.
    pub(super) async fn tend_bridges(&mut self) {
        let desired = fdb::entries(self.contents.near(), self.links.links());
        let mut problems = Vec::new();
        for change in self.fdb.changes(&desired) {
            let done = match change {
                fdb::Change::Delete(fdb::Entry { ifindex, mac, .. }) => {
                    self.netlink.fdb_delete(ifindex, mac).await.map(drop)
                }
                fdb::Change::Make(fdb::Entry { ifindex, mac, .. }) => {
                    self.netlink.fdb_replace(ifindex, mac).await
                }
            };
            match done {
                Ok(()) => self.fdb.done(change),
                Err(NetError::NoSuchInterface { .. }) => {}
                Err(error) => problems.push(chain(&error)),
            }
        }
        self.set_problems("bridges", problems);
    }

    /// Shows the operator what is.
    pub(super) fn publish(&mut self) {
        let problems: Vec<String> = self.problems.values().flatten().cloned().collect();
        let mut sync = self.sync.clone();
        if sync.state == SyncState::InSync && !problems.is_empty() {
            sync.state = SyncState::Error;
            sync.error = Some(problems.join("\n"));
        }
        let resting = self.waiting;
        if sync.state == SyncState::InSync && resting > 0 {
            sync.state = SyncState::Waiting;
            sync.error = Some(format!("{resting} new objects wait a second for indexes that others had"));
        }
        let mut warnings = Vec::new();
        if sync.state != SyncState::Error {
            warnings.extend(problems);
        }
        warnings.extend(self.limits());
        self.shared.publish(Published {
            state: self.state.clone(),
            assigned: Arc::clone(&self.assigned),
            names: Arc::clone(&self.names),
            durations: self.durations,
            interfaces: self.interface_facts(),
            vlan_names: self.vlan_names(),
            networks: self.network_statuses(),
            uplink: self.uplink_status(),
            sync,
            warnings,
            tables: self.table_uses(),
            vtep: Some(self.ways.vtep().into()).filter(|vtep: &Ipv4Addr| !vtep.is_unspecified()),
            tunnel_mtu: Some(self.ways.mtu()).filter(|mtu| *mtu != 0),
            missing_ways: self.missing_ways(),
        });
    }

    /// What this build does not do, as far as it touches this host.
    fn limits(&self) -> Vec<String> {
        let mut limits = vec![
            "IPv6 is not forwarded by this build: of guests' IPv6 only the source MAC is checked".to_owned(),
        ];
        if self.uplink.is_none() {
            limits.push(format!("the uplink {} does not exist; vipd waits for it", self.config.uplink));
        }
        limits.extend(self.networks.missing.iter().cloned());
        limits.extend(self.tunnel_warnings());
        let trunks = |state| unchecked_trunks(state, &self.config.host, self.links.links());
        limits.extend(self.state.as_deref().map(trunks).unwrap_or_default());
        if self.peers.is_none() && self.state.as_ref().is_some_and(|state| state.hosts.len() > 1) {
            limits.push(
                "other hosts are not told of claims, nor heard: the configuration has no `peers`".to_owned(),
            );
        }
        if self.extra_rules > 0 {
            limits.push(format!(
                "{} policy routing rules are not obeyed: EIP traffic and VXLAN follow the tables local and main",
                self.extra_rules
            ));
        }
        limits
    }

    /// How TC programs are attached.
    pub(super) fn tc_attachment(&self) -> Attachment {
        match self.dataplane.tc_hook() {
            TcHook::Tcx => Attachment::Tcx,
            TcHook::Clsact => Attachment::Clsact,
        }
    }

    /// The VLAN interfaces of ports, by what the ports call them.
    fn vlan_names(&self) -> BTreeMap<(String, Vlan), Option<String>> {
        let Some(state) = self.state.as_deref() else { return BTreeMap::new() };
        let links = self.links.links();
        let (by_name, vlans) = (interfaces::by_name(links), links.vlans());
        let of_port = |(port, what): (_, &Port)| {
            let vlan = what.vlan?;
            let name = state.interface(port);
            let link = vlans.find(by_name.get(name)?.ifindex, vlan);
            Some(((name.to_owned(), vlan), link.map(|link| link.name.clone())))
        };
        interfaces::ports_on(state, &self.config.host).filter_map(of_port).collect()
    }

    fn interface_facts(&self) -> BTreeMap<String, InterfaceFacts> {
        let hook = self.tc_attachment();
        let ports = self.contents.near().interfaces.iter().filter_map(|(&ifindex, index)| {
            Some((self.contents.near().ports.get(index)?, self.links.links().get(ifindex)?))
        });
        ports
            .map(|(port, link)| {
                let takes_xdp = port.flags.has(PortFlags::TAKES_XDP);
                let (path, why) = match self.config.uplink_path {
                    UplinkPath::Tc => (DeliveryPath::UplinkTc, "the uplink's path is tc"),
                    UplinkPath::Split if takes_xdp => (
                        DeliveryPath::Split,
                        "the uplink's path is split: established TCP by TC, everything else by XDP",
                    ),
                    UplinkPath::Xdp | UplinkPath::Split => (
                        if takes_xdp { DeliveryPath::Xdp } else { DeliveryPath::UplinkTc },
                        interfaces::takes_xdp(link, self.features.features()).1,
                    ),
                };
                let facts = InterfaceFacts {
                    ifindex: link.ifindex,
                    mtu: link.mtu,
                    bridged: port.flags.has(PortFlags::BRIDGED),
                    path,
                    why,
                    attached: if self.attached.contains(&link.ifindex) { hook } else { Attachment::None },
                };
                (link.name.clone(), facts)
            })
            .collect()
    }

    fn table_uses(&self) -> Vec<(&'static str, u64, u64)> {
        let Self { tables, .. } = self;
        let (counts, contents) = (self.contents.counts(), self.contents.near());
        let (routes, neighbours) = self.next_hops.len();
        let (pages, pages_used) = tables.index.pages();
        let uses = [
            ("EIPs", counts.eips, self.capacity.eips),
            ("NODES", pages_used as usize, pages),
            ("SCATTERED", tables.index.scattered(), tables.index.capacity()),
            ("MACS", counts.macs, tables.macs.capacity()),
            ("GRANTS", contents.grants.len(), tables.grants.capacity()),
            ("VIPS", contents.members.len(), tables.vips.len()),
            ("PORTS", counts.ports, self.capacity.ports),
            ("SUBNETS", contents.subnets.len(), tables.subnets.capacity()),
            ("HOSTS", contents.hosts.len(), self.capacity.hosts),
            ("VTEPS", contents.vteps.len(), tables.vteps.capacity()),
            ("VNIS", contents.vnis.len(), tables.vnis.capacity()),
            ("ROUTES", routes, tables.routes.capacity()),
            ("NEXTHOPS", neighbours, tables.nexthops.capacity()),
        ];
        uses.map(|(table, used, capacity)| (table, used as u64, u64::from(capacity))).to_vec()
    }
}
