//! What the other hosts are told of owners, and what they tell.

use std::{collections::BTreeSet, future, io, net::Ipv4Addr, sync::Arc, time::Instant};

use hashbrown::HashMap;
use vip_common::tables::{ConfigFlags, Move, OwnerWord};

use super::{
    error::chain,
    owners,
    run::{Agent, RETRY},
    table_names::TableNames,
};
use crate::{
    api::status::{PeerStatus, PeersStatus, RefusedCounts},
    kernel::{KernelError, Tables},
    peers::{
        BUCKETS, Call, Exchange, Holder, Key, Nonce, Owners, Ownership, PeerReport, PeerSocket, PeerState,
        RefusedDatagrams, Replaced, Vip, Word,
    },
    plan::{Assigned, Contents},
    state::State,
};

/// Datagrams taken at once, so that a storm does not keep the other happenings waiting.
const DATAGRAMS_AT_ONCE: usize = 256;

/// A VIP in the tables.
#[derive(Clone, Copy, Debug)]
struct Place {
    slot: u32,
    /// Of its word, when that was last told or heard.
    print: u64,
}

/// Where VIPs are in the tables, and what their words were when they were last told or heard.
#[derive(Debug)]
struct Places {
    by_vip: HashMap<Vip, Place>,
    /// The sum of the prints of each bucket.
    sums: [u64; BUCKETS],
    /// What the places were made of.
    of: Option<(Arc<State>, Arc<Assigned>)>,
}

impl Default for Places {
    fn default() -> Self {
        Self { by_vip: HashMap::new(), sums: [0; BUCKETS], of: None }
    }
}

impl Places {
    fn is_of(&self, state: &Arc<State>, assigned: &Arc<Assigned>) -> bool {
        self.of.as_ref().is_some_and(|of| Arc::ptr_eq(&of.0, state) && Arc::ptr_eq(&of.1, assigned))
    }

    /// Notes a VIP's word, as this host names it: its sums are to be of what it would tell. It names a port that has moved after its former host
    /// until its own state says so. `None`: it has no name. Tells whether it is another one.
    fn note(&mut self, vip: Vip, word: Option<&Word>) -> bool {
        let print = word.map_or(0, |word| word.print(vip));
        let Some(place) = self.by_vip.get_mut(&vip) else { return false };
        let before = std::mem::replace(&mut place.print, print);
        if let Some(sum) = self.sums.get_mut(vip.bucket()) {
            *sum = sum.wrapping_sub(before).wrapping_add(print);
        }
        before != print
    }
}

/// The tables, as the other hosts understand them.
struct TableWords<'a> {
    tables: &'a Tables,
    contents: &'a Contents,
    names: &'a TableNames,
    state: &'a State,
    assigned: &'a Assigned,
    places: &'a mut Places,
    /// Slots whose words the other hosts changed.
    replaced: BTreeSet<u32>,
}

impl TableWords<'_> {
    /// The VIP in a slot.
    fn vip_in(&self, slot: u32) -> Option<Vip> {
        let members = self.contents.members.get(&slot)?;
        Some(Vip { vni: members.vni, address: members.address.into() })
    }

    /// The slot of a VIP, unless it has become another one's meanwhile.
    fn slot_of(&self, vip: Vip) -> Option<u32> {
        let slot = self.places.by_vip.get(&vip)?.slot;
        (self.vip_in(slot) == Some(vip)).then_some(slot)
    }

    /// The word of a slot without indexes; `None`: its port has no name.
    fn named(&self, slot: u32, word: OwnerWord) -> Option<Word> {
        let holder = match word.port() {
            // The epoch is of another VIP that had the slot before: of this one nobody has ever owned anything.
            0 if !self.has_moved(slot, word.epoch()) => return Some(Word::default()),
            0 => None,
            index => {
                let port = self.names.present_port(index)?;
                let host = self.state.ports[port].host;
                Some(Holder {
                    port: self.state.ports.id(port).into(),
                    host: self.state.hosts.id(host).into(),
                    vrid: word.vrid(),
                })
            }
        };
        Some(Word { epoch: word.epoch(), claimed: word.claimed(), holder })
    }

    /// Whether the VIP in a slot came to its present word by a move.
    fn has_moved(&self, slot: u32, epoch: u64) -> bool {
        let last = self.tables.moves.get(Move::index(slot, epoch));
        // If it cannot be told, it is told as it is.
        epoch != 0 && last.is_ok_and(|last| last.epoch == epoch)
    }

    /// A word with indexes; `None`: its port is not known here, or not that it may own the VIP.
    fn indexed(&self, slot: u32, word: &Word) -> Option<OwnerWord> {
        let Some(Holder { port, vrid, .. }) = &word.holder else {
            return Some(OwnerWord::new(word.epoch, word.claimed, 0, 0));
        };
        let index = self.state.ports.find(port).and_then(|port| self.assigned.ports.get(port))?;
        let grant = self.contents.grants.get(&(index, slot))?;
        let may = grant.rights.may_own() && (*vrid == 0 || grant.allows_vrid(*vrid));
        may.then(|| OwnerWord::new(word.epoch, word.claimed, index, *vrid))
    }

    /// Finds the VIPs in the tables. Those that were known keep what was last told or heard of them.
    fn find_places(&mut self, of: (Arc<State>, Arc<Assigned>)) {
        let before = std::mem::take(self.places);
        let (mut by_vip, mut sums) = (HashMap::new(), [0_u64; BUCKETS]);
        for (&slot, members) in &self.contents.members {
            let vip = Vip { vni: members.vni, address: members.address.into() };
            let print = before.by_vip.get(&vip).map_or(0, |place| place.print);
            if let Some(sum) = sums.get_mut(vip.bucket()) {
                *sum = sum.wrapping_add(print);
            }
            by_vip.insert(vip, Place { slot, print });
        }
        *self.places = Places { by_vip, sums, of: Some(of) };
    }

    fn try_replace(&mut self, vip: Vip, old: &Word, new: &Word) -> Result<Replaced, KernelError> {
        let Some((slot, word)) = self.slot_of(vip).and_then(|slot| Some((slot, self.indexed(slot, new)?)))
        else {
            return Ok(Replaced::Unknown);
        };
        let entry = self.tables.vips.load(slot)?;
        if self.named(slot, entry.word).as_ref() != Some(old) {
            return Ok(Replaced::Changed);
        }
        if entry.word != word {
            if !owners::accept(self.tables, slot, &entry, word)? {
                return Ok(Replaced::Changed);
            }
            self.replaced.insert(slot);
        }
        // Not the word in the table, which may be a claim of just now that nobody was told of.
        let named = self.named(slot, word);
        self.places.note(vip, named.as_ref());
        Ok(Replaced::Done)
    }
}

impl Owners for TableWords<'_> {
    fn word(&self, vip: Vip) -> Option<Word> {
        let slot = self.slot_of(vip)?;
        let entry = self.tables.vips.load(slot).ok()?;
        self.named(slot, entry.word)
    }

    fn replace(&mut self, vip: Vip, old: &Word, new: &Word) -> Replaced {
        self.try_replace(vip, old, new).unwrap_or_else(|error| {
            tracing::error!("what another host told was not written: {}", chain(&error));
            // It is told again.
            Replaced::Unknown
        })
    }

    fn overtake(&mut self, vip: Vip) {
        let Some(slot) = self.slot_of(vip) else { return };
        if let Err(error) = owners::overtake(self.tables, slot) {
            tracing::error!("a claim that was overtaken still waits: {}", chain(&error));
        }
    }

    fn sums(&self) -> [u64; BUCKETS] {
        self.places.sums
    }

    fn next(&self, place: u32) -> Option<(u32, Vip)> {
        let (slot, members) = self.contents.members.range(place..).next()?;
        Some((slot + 1, Vip { vni: members.vni, address: members.address.into() }))
    }
}

/// This host's part in telling.
pub(super) struct Peers {
    exchange: Exchange,
    port: u16,
    /// The socket, and the VTEP that it is bound to. `None`: there are no other hosts, or it cannot be had at the moment.
    socket: Option<(Ipv4Addr, PeerSocket)>,
    places: Places,
}

impl Peers {
    /// `fresh`: the tables are new, or no vipd has heard the other hosts since they were made.
    pub(super) fn new(host: &str, key: Key, port: u16, fresh: bool) -> Self {
        let exchange = Exchange::new(host.into(), key, fresh, Box::new(random));
        Self { exchange, port, socket: None, places: Places::default() }
    }

    /// When something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.exchange.next()
    }

    /// Whether guests' ordinary traffic must not make them owners yet.
    pub(super) fn learning_waits(&self) -> bool {
        self.exchange.learning_waits()
    }

    /// Waits until there may be a datagram. Cancel-safe.
    pub(super) async fn readable(peers: Option<&Self>) -> io::Result<()> {
        match peers.and_then(|peers| peers.socket.as_ref()) {
            Some((_, socket)) => socket.readable().await,
            None => future::pending().await,
        }
    }

    /// Has a socket on this host's VTEP, or none.
    fn bind(&mut self, vtep: Option<Ipv4Addr>) -> io::Result<()> {
        if self.socket.as_ref().map(|(bound, _)| *bound) != vtep {
            self.socket = None;
            if let Some(vtep) = vtep {
                self.socket = Some((vtep, PeerSocket::bind(vtep, self.port)?));
            }
        }
        Ok(())
    }

    /// Sends what there is to send.
    fn send(&mut self) {
        for (vtep, datagram) in self.exchange.take_outgoing() {
            if let Some((_, socket)) = &self.socket
                && let Err(error) = socket.send(vtep, &datagram)
            {
                tracing::debug!(%vtep, %error, "a host was not told; it is told again");
            }
        }
    }

    /// What the operator is shown.
    pub(super) fn facts(&self) -> PeersFacts {
        PeersFacts {
            port: self.port,
            learning: self.exchange.learning_waits(),
            reports: self.exchange.report(Instant::now()),
            waiting: self.exchange.parked(),
            unlisted: self.exchange.unlisted(),
        }
    }
}

/// A number that nobody can guess.
///
/// # Panics
///
/// If the kernel has no random numbers, which it always has once it has started.
fn random() -> Nonce {
    let mut nonce = Nonce::default();
    getrandom::fill(&mut nonce).expect("the kernel's random numbers");
    nonce
}

/// How the other hosts are doing, when it was last looked at.
#[derive(Clone, Debug)]
pub(super) struct PeersFacts {
    port: u16,
    learning: bool,
    reports: Vec<PeerReport>,
    waiting: usize,
    unlisted: u64,
}

impl PeersFacts {
    /// For the operator.
    pub(super) fn status(&self) -> PeersStatus {
        let now = Instant::now();
        let milliseconds = |since: Instant| {
            u64::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(u64::MAX)
        };
        let peer = |report: &PeerReport| {
            let PeerReport { host, vtep, state, heard, unacked, applied, refused } = report;
            let RefusedDatagrams { malformed, version, auth, identity, session, replay } = *refused;
            PeerStatus {
                host: host.to_string(),
                vtep: *vtep,
                state: (*state).into(),
                heard_ms_ago: heard.map(milliseconds),
                unacked: *unacked as u64,
                applied: *applied,
                refused: RefusedCounts { malformed, version, auth, identity, session, replay },
            }
        };
        PeersStatus {
            port: self.port,
            learning: self.learning,
            hosts: self.reports.iter().map(peer).collect(),
            waiting: self.waiting as u64,
            unlisted: self.unlisted,
        }
    }

    /// What an operator should know. A host that is down is not this host's fault.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> + '_ {
        let down = self.reports.iter().filter(|report| report.state == PeerState::Down);
        down.map(|PeerReport { host, vtep, .. }| {
            format!(
                "host {host} ({vtep}) does not answer on UDP port {}: it is not told of claims until it does",
                self.port
            )
        })
    }
}

impl Agent {
    /// Has the exchange do something with the tables' words and sends what it wants to send. The slots whose words the other hosts
    /// changed by that.
    fn exchange(&mut self, act: impl FnOnce(&mut Exchange, &mut TableWords<'_>)) -> BTreeSet<u32> {
        let (Some(peers), Some(state)) = (&mut self.peers, self.state.as_deref()) else {
            return BTreeSet::new();
        };
        let mut words = TableWords {
            tables: &self.tables,
            contents: self.contents.near(),
            names: &self.names,
            state,
            assigned: &self.assigned,
            places: &mut peers.places,
            replaced: BTreeSet::new(),
        };
        act(&mut peers.exchange, &mut words);
        let replaced = words.replaced;
        peers.send();
        *self.shared.peers() = Some(peers.facts());
        replaced
    }

    /// Does what follows from what the other hosts told.
    async fn take_replaced(&mut self, replaced: BTreeSet<u32>) {
        self.follow_learning();
        if !replaced.is_empty() {
            self.look_at_words_of(&replaced);
            self.owners_changed().await;
        }
    }

    /// Tells the other hosts of slots whose words are not what was last told or heard.
    pub(super) fn tell_peers(&mut self, slots: impl IntoIterator<Item = u32>) {
        if self.peers.is_none() {
            return;
        }
        let (host, now) = (self.config.host.clone(), Instant::now());
        let replaced = self.exchange(|exchange, words| {
            let mut changed = Vec::new();
            for slot in slots {
                let Some(vip) = words.vip_in(slot) else { continue };
                let word = words.word(vip);
                let is_other = words.places.note(vip, word.as_ref());
                // What is another host's is that host's to tell.
                let ours = word.is_some_and(|word| word.holder.is_none() || word.is_held_on(&host));
                if is_other && ours {
                    changed.push(vip);
                }
            }
            exchange.changed(&changed, words, now);
        });
        debug_assert!(replaced.is_empty(), "telling changes nothing here");
    }

    /// Tells the other hosts that guests of this one claimed VIPs, though that changed no word.
    pub(super) fn tell_claims(&mut self, slots: &[u32]) {
        if slots.is_empty() {
            return;
        }
        let now = Instant::now();
        let replaced = self.exchange(|exchange, words| {
            let vips: Vec<Vip> = slots.iter().filter_map(|slot| words.vip_in(*slot)).collect();
            exchange.claimed(&vips, words, now);
        });
        debug_assert!(replaced.is_empty(), "telling changes nothing here");
    }

    /// Has EIPs of VIPs that stay here announced again where another host may have announced them.
    fn announce_upheld(&mut self) {
        let upheld = self.peers.as_mut().map(|peers| peers.exchange.take_upheld()).unwrap_or_default();
        if upheld.is_empty() {
            return;
        }
        let mut slots = BTreeSet::new();
        self.exchange(|_, words| slots.extend(upheld.into_iter().filter_map(|vip| words.slot_of(vip))));
        self.announce_again(&slots);
    }

    /// Takes the datagrams that have come.
    pub(super) async fn take_datagrams(&mut self, readable: io::Result<()>) {
        let mut arrived = Vec::new();
        let received = readable.and_then(|()| {
            let Some((_, socket)) = self.peers.as_mut().and_then(|peers| peers.socket.as_mut()) else {
                return Ok(());
            };
            while arrived.len() < DATAGRAMS_AT_ONCE
                && let Some((from, datagram)) = socket.receive()?
            {
                arrived.push((from, datagram.to_vec()));
            }
            Ok(())
        });
        if let Err(error) = received {
            // Another socket may do: `follow_peers` makes one.
            self.set_problems("peers", vec![format!("other hosts cannot be heard: {error}")]);
            self.retry_at = Some(Instant::now() + RETRY);
            if let Some(peers) = &mut self.peers {
                peers.socket = None;
            }
        }
        if arrived.is_empty() {
            return;
        }
        let now = Instant::now();
        let replaced = self.exchange(|exchange, words| {
            for (from, datagram) in &arrived {
                if let Err(refusal) = exchange.receive(*from, datagram, words, now) {
                    tracing::debug!(%from, ?refusal, "a datagram is not believed");
                }
            }
        });
        self.take_replaced(replaced).await;
        self.announce_upheld();
        let calls = self.peers.as_mut().map(|peers| peers.exchange.take_calls()).unwrap_or_default();
        for (host, call) in calls {
            self.take_call(&host, call, now).await;
        }
    }

    /// Another host says something about an owner that may have left without a word.
    async fn take_call(&mut self, host: &str, call: Call, now: Instant) {
        let (Call::InUse(Ownership { vip, epoch }) | Call::Silent(Ownership { vip, epoch })) = call;
        let mut found = None;
        self.exchange(|_, words| found = words.slot_of(vip));
        let Some(slot) = found else { return };
        match call {
            Call::InUse(ownership) => {
                if self.is_silent(slot, epoch, now) {
                    self.exchange(|exchange, _| exchange.call(host, Call::Silent(ownership)));
                }
            }
            Call::Silent(_) => self.take_silent(slot, epoch).await,
        }
    }

    /// Tells the host of a VIP's owner, if that is another one, that a member here uses the VIP. Tells whether it is another one.
    pub(super) fn tell_of_use(&mut self, slot: u32, word: OwnerWord) -> bool {
        let this = self.config.host.clone();
        let mut is_elsewhere = false;
        self.exchange(|exchange, words| {
            let holder = words.named(slot, word).and_then(|word| word.holder);
            if let (Some(holder), Some(vip)) =
                (holder.filter(|holder| *holder.host != *this), words.vip_in(slot))
            {
                is_elsewhere = true;
                exchange.call(&holder.host, Call::InUse(Ownership { vip, epoch: word.epoch() }));
            }
        });
        is_elsewhere
    }

    /// Does what is due.
    pub(super) async fn tend_peers(&mut self, now: Instant) {
        if self.peers.as_ref().and_then(Peers::next).is_none_or(|due| now < due) {
            return;
        }
        let replaced = self.exchange(|exchange, words| exchange.tick(words, now));
        self.take_replaced(replaced).await;
    }

    /// Follows the state: which hosts there are, and where VIPs are in the tables.
    pub(super) async fn follow_peers(&mut self) {
        let (Some(peers), Some(state)) = (&mut self.peers, self.state.clone()) else { return };
        let this = state.hosts.find(&self.config.host);
        let others: Vec<_> = state.hosts.iter().filter(|(host, _)| Some(*host) != this).collect();
        let vtep = this.filter(|_| !others.is_empty()).map(|this| state.hosts[this].vtep);
        let problem = peers.bind(vtep).err().map(|error| {
            format!(
                "other hosts are not told of claims: UDP port {} of this host's VTEP{} cannot be had: {error}; give the \
                 address to an interface, or correct `vtep` in the state",
                peers.port,
                vtep.map(|vtep| format!(" {vtep}")).unwrap_or_default()
            )
        });
        let now = Instant::now();
        let is_known = peers.places.is_of(&state, &self.assigned);
        if !is_known {
            peers.exchange.set_peers(
                others.into_iter().map(|(host, what)| (state.hosts.id(host).into(), what.vtep)),
                now,
            );
        }
        if problem.is_none() {
            peers.exchange.reachable(now);
        }
        self.set_problems("peers", problem.into_iter().collect());
        if !is_known {
            let of = (state, Arc::clone(&self.assigned));
            self.exchange(|_, words| words.find_places(of));
            let slots: Vec<u32> = self.contents.near().members.keys().copied().collect();
            self.tell_peers(slots);
            let replaced = self.exchange(|exchange, words| exchange.state_changed(words, now));
            self.take_replaced(replaced).await;
        }
    }

    /// Has the programs learn as soon as the other hosts were heard.
    fn follow_learning(&mut self) {
        let waits = self.learning_flag();
        let written = self.tables.config.get(0).and_then(|entry| {
            let flags = entry.flags.without(ConfigFlags::LEARNING_WAITS).with(waits);
            if flags == entry.flags {
                Ok(())
            } else {
                self.tables.config.set(0, vip_common::tables::Config { flags, ..entry })
            }
        });
        if let Err(error) = written {
            tracing::warn!("{}", chain(&error));
        }
    }

    /// Whether the programs wait with learning owners from ordinary traffic.
    pub(super) fn learning_flag(&self) -> ConfigFlags {
        if self.peers.as_ref().is_some_and(Peers::learning_waits) {
            ConfigFlags::LEARNING_WAITS
        } else {
            ConfigFlags::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_of_the_words_as_this_host_names_them() {
        let vip = Vip { vni: 4001, address: Ipv4Addr::new(192, 168, 7, 246) };
        let held_on = |host: &str| {
            let holder = Holder { port: "p".into(), host: host.into(), vrid: 0 };
            Word { epoch: 5, claimed: false, holder: Some(holder) }
        };
        let mut places = Places::default();
        places.by_vip.insert(vip, Place { slot: 3, print: 0 });
        let sum = |places: &Places| places.sums.iter().fold(0_u64, |sum, part| sum.wrapping_add(*part));
        // What the other host told named the port's former host, and this one does not.
        assert!(places.note(vip, Some(&held_on("b"))));
        assert_eq!(sum(&places), held_on("b").print(vip));
        assert!(!places.note(vip, Some(&held_on("b"))));
        assert!(places.note(vip, Some(&held_on("a"))));
        assert_eq!(sum(&places), held_on("a").print(vip));
        assert!(places.note(vip, None));
        assert_eq!(sum(&places), 0);
    }
}
