//! The protocol, without sockets and clocks.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use super::{
    datagrams::Datagrams,
    key::Key,
    learning::Learning,
    message::{Body, Call, MOST_ACKS, Message, NO_NONCE, News, Nonce, Refusal},
    owners::{Owners, Replaced},
    parked::{Parked, ParkedWords},
    peer::{Answer, Bulk, Peer, PeerReport, PeerState, Session, Told},
    word::{Vip, Word},
};
use crate::state::Id;

/// A host that was not heard for so long is down.
const SILENCE: Duration = Duration::from_secs(7);

/// How long a host that was greeted counts as connecting.
const CONNECTING: Duration = Duration::from_secs(5);

/// How often words are compared with a host; that also keeps silence away.
const COMPARE: Duration = Duration::from_secs(2);

/// How often a host with new tables asks one that has not told it yet what that knows.
const ASK: Duration = Duration::from_millis(200);

/// Datagrams with words that go to a host at once, and the pause after them: more would overrun its socket.
const BURST: usize = 16;
const PAUSE: Duration = Duration::from_millis(2);

/// VIPs that are looked at at once when many are told, and those that may wait for a host meanwhile.
const BULK_STEP: usize = 4096;
const BULK_WAITING: usize = 1024;

/// Words of its own that this host has given up for a host's, of which that one is told when it is up.
const CEDED: usize = 4096;

/// Draws random numbers.
type Random = Box<dyn FnMut() -> Nonce + Send>;

/// What came of a word that was told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// It is this host's word now, instead of this one, if that was of a guest of this host.
    Applied(Option<Word>),
    /// It need not be told again.
    Settled,
    /// This host's own word is higher: the other has to hear it.
    Answered,
    /// A guest of this host is the owner, from a higher epoch on.
    Raised,
    /// It waits until the state knows what it is about.
    Parked,
    /// It has to be told again.
    Unheard,
}

/// One host's part in the protocol.
///
/// Whoever has it calls [`Self::tick`] at [`Self::next`] and sends [`Self::take_outgoing`] after every call.
pub struct Exchange {
    host: Id,
    key: Key,
    random: Random,
    peers: BTreeMap<Ipv4Addr, Peer>,
    /// Words for later.
    parked: ParkedWords,
    /// `None`: it is over.
    learning: Option<Learning>,
    unlisted: u64,
    outgoing: Vec<(Ipv4Addr, Vec<u8>)>,
    /// Claims that were told of.
    claims: u64,
    /// Calls that came, each with the host that made it.
    calls: Vec<(Id, Call)>,
    /// VIPs that stay here though another host took itself for the owner's.
    upheld: BTreeSet<Vip>,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, peers, parked, learning, .. } = self;
        let mut shown = f.debug_struct("Exchange");
        shown.field("host", host).field("peers", peers).field("parked", parked).field("learning", learning);
        shown.finish_non_exhaustive()
    }
}

impl Exchange {
    /// A host that knows no others yet. `fresh`: its tables are new, so it asks the others for everything. `random` draws numbers that
    /// nobody can guess and that never come twice.
    pub fn new(host: Id, key: Key, fresh: bool, random: Random) -> Self {
        Self {
            host,
            key,
            random,
            peers: BTreeMap::new(),
            parked: ParkedWords::default(),
            learning: fresh.then(Learning::default),
            unlisted: 0,
            outgoing: Vec::new(),
            claims: 0,
            calls: Vec::new(),
            upheld: BTreeSet::new(),
        }
    }

    /// Tells which other hosts there are, with their VTEPs. Those that stay are not disturbed.
    pub fn set_peers(&mut self, hosts: impl IntoIterator<Item = (Id, Ipv4Addr)>, now: Instant) {
        let mut before = std::mem::take(&mut self.peers);
        for (id, vtep) in hosts {
            let stays = before.remove(&vtep).filter(|peer| peer.id == id);
            let peer = stays.unwrap_or_else(|| Peer::new(id, vtep, [(self.random)(), (self.random)()], now));
            self.peers.insert(vtep, peer);
        }
        if let Some(learning) = &mut self.learning {
            learning.begin(now);
        }
        self.note_answers(now);
    }

    /// Datagrams can be sent and received from now on: the others can be asked.
    pub fn reachable(&mut self, now: Instant) {
        if let Some(learning) = &mut self.learning {
            learning.reachable(now);
        }
    }

    /// Ends the time of learning early when everybody has answered.
    fn note_answers(&mut self, now: Instant) {
        if let Some(learning) = &mut self.learning
            && self.peers.values().all(|peer| peer.answered)
        {
            learning.end_by(now);
        }
    }

    /// Whether guests' ordinary traffic must not make them owners yet: the others have not told what they know.
    pub fn learning_waits(&self) -> bool {
        self.learning.is_some()
    }

    /// The datagrams to send, each to the VTEP of a host.
    pub fn take_outgoing(&mut self) -> Vec<(Ipv4Addr, Vec<u8>)> {
        let due: Vec<Ipv4Addr> =
            self.peers.values().filter(|peer| !peer.acks.is_empty()).map(|peer| peer.vtep).collect();
        for vtep in due {
            let acks =
                self.peers.get_mut(&vtep).map(|peer| std::mem::take(&mut peer.acks)).unwrap_or_default();
            for acks in acks.chunks(MOST_ACKS) {
                self.send(vtep, Body::Ack(acks.to_vec()));
            }
        }
        std::mem::take(&mut self.outgoing)
    }

    /// The calls that have come, each with the host that made it. To be asked after every datagram.
    pub fn take_calls(&mut self) -> Vec<(Id, Call)> {
        std::mem::take(&mut self.calls)
    }

    /// VIPs that guests of this host own, and of which another host has told a lower word of its own: it may have announced itself as
    /// the owner's host. To be asked after every datagram.
    pub fn take_upheld(&mut self) -> BTreeSet<Vip> {
        std::mem::take(&mut self.upheld)
    }

    /// Calls a host, if it is up.
    pub fn call(&mut self, host: &str, call: Call) {
        let peer = self.peers.values().find(|peer| *peer.id == *host && peer.up);
        if let Some(vtep) = peer.map(|peer| peer.vtep) {
            self.send(vtep, Body::Call(call));
        }
    }

    /// Puts a datagram to a host among those to send. Its number; `None`: there is no such host.
    fn send(&mut self, vtep: Ipv4Addr, body: Body) -> Option<u64> {
        let peer = self.peers.get_mut(&vtep)?;
        peer.number += 1;
        let message = Message {
            sender: self.host.to_string(),
            receiver: peer.id.to_string(),
            session: peer.own_session,
            other_session: peer.session.as_ref().map_or(NO_NONCE, |session| session.nonce),
            number: peer.number,
            body,
        };
        let number = peer.number;
        self.outgoing.push((vtep, message.encode(&self.key)));
        Some(number)
    }

    /// VIPs have new words here, by a claim of a guest of this host or because ownership ended: all others are told at once.
    pub fn changed(&mut self, vips: &[Vip], owners: &impl Owners, now: Instant) {
        let by_claim =
            |vip: &Vip| owners.word(*vip).is_some_and(|word| word.claimed && word.is_held_on(&self.host));
        let (claimed, others): (Vec<Vip>, Vec<Vip>) = vips.iter().partition(|vip| by_claim(vip));
        self.claimed(&claimed, owners, now);
        self.spread(&others, 0, owners, now);
    }

    /// Guests of this host claimed VIPs just now, whether that changed the owner or not: claims that wait on the others are overtaken.
    pub fn claimed(&mut self, vips: &[Vip], owners: &impl Owners, now: Instant) {
        self.claims += 1;
        self.spread(vips, self.claims, owners, now);
    }

    fn spread(&mut self, vips: &[Vip], claim: u64, owners: &impl Owners, now: Instant) {
        if vips.is_empty() {
            return;
        }
        let up: Vec<Ipv4Addr> = self.peers.values().filter(|peer| peer.up).map(|peer| peer.vtep).collect();
        for vtep in up {
            if let Some(peer) = self.peers.get_mut(&vtep) {
                for vip in vips {
                    peer.queue.push(*vip, claim, now);
                }
            }
            self.tell(vtep, vips, owners, now);
        }
    }

    /// The state is another: what was put aside may be understood now.
    pub fn state_changed(&mut self, owners: &mut impl Owners, now: Instant) {
        let mut raised = Vec::new();
        for (vip, Parked { word, sender, at }) in self.parked.take(now) {
            match self.merge(News { vip, word, claim: 0 }, &sender, false, owners, at) {
                Outcome::Raised => raised.push(vip),
                Outcome::Applied(before) => {
                    self.cede(vip, before, owners);
                    self.note_applied(vip, &sender);
                }
                Outcome::Settled | Outcome::Answered | Outcome::Parked | Outcome::Unheard => {}
            }
        }
        self.tell_ceded();
        self.spread(&raised, 0, owners, now);
    }

    /// A word of another host counts here now: what waits to be told of the VIP is that word, and no claim of a guest here is the reason.
    fn note_applied(&mut self, vip: Vip, sender: &Id) {
        for peer in self.peers.values_mut() {
            peer.queue.forget_claim(vip);
            peer.applied += u64::from(peer.id == *sender);
        }
    }

    /// Takes a datagram that came from an address.
    pub fn receive(
        &mut self,
        from: Ipv4Addr,
        datagram: &[u8],
        owners: &mut impl Owners,
        now: Instant,
    ) -> Result<(), Refusal> {
        let taken = self.take(from, datagram, owners, now);
        if let Err(refusal) = taken {
            match self.peers.get_mut(&from) {
                Some(peer) => peer.refused.count(refusal),
                None => self.unlisted += 1,
            }
            if refusal == Refusal::Session {
                self.greet_again(from, now);
            }
        }
        taken
    }

    /// Greets a host that is up but speaks in another session than the one known here, or to another one of this host: the last greeting
    /// of a restart was lost. Else neither would greet until it takes the other for dead.
    fn greet_again(&mut self, vtep: Ipv4Addr, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&vtep)
            && peer.is_to_be_greeted_again(now)
        {
            let challenge = peer.challenge;
            self.send(vtep, Body::Hello { challenge, echo: NO_NONCE });
        }
    }

    fn take(
        &mut self,
        from: Ipv4Addr,
        datagram: &[u8],
        owners: &mut impl Owners,
        now: Instant,
    ) -> Result<(), Refusal> {
        let peer = self.peers.get_mut(&from).ok_or(Refusal::Unlisted)?;
        let message = Message::decode(datagram, &self.key)?;
        if *message.sender != *peer.id || *message.receiver != *self.host {
            return Err(Refusal::Identity);
        }
        if let Body::Hello { challenge, echo } = message.body {
            return self.take_hello(from, message.session, challenge, echo, now);
        }
        let session = peer
            .session
            .as_mut()
            .filter(|session| session.nonce == message.session && message.other_session == peer.own_session)
            .ok_or(Refusal::Session)?;
        if !session.window.take(message.number) {
            return Err(Refusal::Replay);
        }
        let newest = session.window.is_highest(message.number);
        peer.heard = Some(now);
        if !peer.up {
            peer.come_up(now);
        }
        match message.body {
            Body::Hello { .. } => {}
            Body::News(news) => self.take_news(from, message.number, news, newest, owners, now),
            Body::Ack(acks) => {
                for (number, words) in acks {
                    for (vip, told) in peer.queue.acked(number, words) {
                        // What has changed since is on its way as another word.
                        if owners.word(vip).is_none_or(|word| word.print(vip) == told.print) {
                            peer.queue.known(vip, told);
                        }
                    }
                }
                self.end_answer(from);
            }
            Body::Digest(sums) => {
                let ours = owners.sums();
                let differ =
                    (0_u32..).zip(ours.iter().zip(sums.iter())).filter(|(_, (ours, theirs))| ours != theirs);
                let buckets = differ.fold(0, |buckets, (bucket, _)| buckets | 1 << bucket);
                peer.agreed |= buckets == 0;
                if peer.difference.is_to_be_told(buckets, now) {
                    peer.add_bulk(buckets, now);
                }
            }
            Body::Sync => {
                let sync = peer.session.as_mut().map(|session| &mut session.sync);
                match sync {
                    Some(sync @ Answer::None) => {
                        *sync = Answer::Begun;
                        peer.add_bulk(Bulk::ALL, now);
                    }
                    Some(Answer::Done) => {
                        self.send(from, Body::Synced);
                    }
                    Some(Answer::Begun) | None => {}
                }
            }
            Body::Synced => {
                peer.answered = true;
                self.note_answers(now);
            }
            Body::Call(call) => self.calls.push((peer.id.clone(), call)),
        }
        Ok(())
    }

    /// A greeting: the other's session is believed in once it has returned the challenge, which is good once.
    fn take_hello(
        &mut self,
        from: Ipv4Addr,
        nonce: Nonce,
        challenge: Nonce,
        echo: Nonce,
        now: Instant,
    ) -> Result<(), Refusal> {
        let Some(peer) = self.peers.get_mut(&from) else { return Err(Refusal::Unlisted) };
        if nonce == NO_NONCE {
            return Err(Refusal::Malformed);
        }
        let mut known = peer.session.as_ref().is_some_and(|session| session.nonce == nonce);
        if echo == peer.challenge {
            peer.challenge = (self.random)();
            if !known {
                peer.session = Some(Session::new(nonce));
            }
            if !known || !peer.up {
                peer.come_up(now);
            }
            peer.heard = Some(now);
            known = true;
        } else if echo != NO_NONCE && !known {
            return Err(Refusal::Session);
        }
        if challenge != NO_NONCE {
            let mine = if known { NO_NONCE } else { peer.challenge };
            self.send(from, Body::Hello { challenge: mine, echo: challenge });
        }
        Ok(())
    }

    fn take_news(
        &mut self,
        from: Ipv4Addr,
        number: u64,
        news: Vec<News>,
        newest: bool,
        owners: &mut impl Owners,
        now: Instant,
    ) {
        let Some(sender) = self.peers.get(&from).map(|peer| peer.id.clone()) else { return };
        let (mut acked, mut raised) = (0_u32, Vec::new());
        for (place, news) in news.into_iter().enumerate() {
            let News { vip, claim, .. } = news;
            let outcome = self.merge(news, &sender, newest, owners, now);
            let Some(peer) = self.peers.get_mut(&from) else { return };
            // Only a claim that knew what is known here is later than what waits here, and it is later once.
            if claim != 0
                && matches!(outcome, Outcome::Applied(_) | Outcome::Settled)
                && peer.session.as_mut().is_some_and(|session| session.note_claim(vip, claim))
            {
                owners.overtake(vip);
            }
            if outcome != Outcome::Parked
                && let Some(word) = owners.word(vip)
            {
                self.parked.overtaken(vip, &word);
            }
            let Some(peer) = self.peers.get_mut(&from) else { return };
            match outcome {
                Outcome::Applied(before) => {
                    self.cede(vip, before, owners);
                    self.note_applied(vip, &sender);
                    let Some(peer) = self.peers.get_mut(&from) else { return };
                    // What was to be told of it has been overtaken.
                    peer.queue.remove(vip);
                }
                Outcome::Settled | Outcome::Parked => {}
                Outcome::Answered => peer.queue.push_unless_there(vip, now),
                Outcome::Raised => raised.push(vip),
                Outcome::Unheard => continue,
            }
            acked |= 1 << place;
        }
        if let Some(peer) = self.peers.get_mut(&from).filter(|_| acked != 0) {
            peer.acks.push((number, acked));
        }
        self.tell_ceded();
        self.spread(&raised, 0, owners, now);
    }

    /// A word of a guest of this host, if there was one, was replaced by another host's. That host may have made its own without knowing
    /// of this one, whose guest may have been announced meanwhile: it is to hear of it.
    fn cede(&mut self, vip: Vip, before: Option<Word>, owners: &impl Owners) {
        let Some(before) = before else { return };
        let Some(holder) = owners.word(vip).and_then(|word| word.holder) else { return };
        if let Some(peer) = self.peers.values_mut().find(|peer| peer.id == holder.host)
            && !peer.knows(vip)
            && peer.ceded.len() < CEDED
        {
            peer.ceded.insert(vip, before);
        }
    }

    /// Tells hosts that are up, once, which words they have replaced unknowingly.
    fn tell_ceded(&mut self) {
        let mut told = Vec::new();
        for peer in self.peers.values_mut().filter(|peer| peer.up && !peer.ceded.is_empty()) {
            let mut datagrams = Datagrams::new(&self.host, &peer.id);
            for (vip, word) in std::mem::take(&mut peer.ceded) {
                datagrams.add(News { vip, word, claim: 0 });
            }
            told.extend(datagrams.filled.into_iter().map(|news| (peer.vtep, news)));
        }
        for (vtep, news) in told {
            self.send(vtep, Body::News(news));
        }
    }

    /// Takes a word that a host has told at a moment. `newest`: no later datagram of that host was taken before.
    fn merge(
        &mut self,
        news: News,
        sender: &Id,
        newest: bool,
        owners: &mut impl Owners,
        at: Instant,
    ) -> Outcome {
        let News { vip, word, claim } = news;
        loop {
            let Some(mine) = owners.word(vip) else { return self.park(vip, word, sender, at) };
            let is_mine = mine.is_held_on(&self.host);
            let new = match word.order().cmp(&mine.order()) {
                Ordering::Less => {
                    if is_mine && word.is_held_on(sender) {
                        self.upheld.insert(vip);
                    }
                    return Outcome::Answered;
                }
                Ordering::Equal if word == mine => return Outcome::Settled,
                // One owner's host tells different things one after the other: the last one counts.
                Ordering::Equal if word.is_held_on(sender) && newest => word.clone(),
                Ordering::Equal if word.is_held_on(sender) => return Outcome::Unheard,
                Ordering::Equal if is_mine => return Outcome::Answered,
                Ordering::Equal => return Outcome::Settled,
                // What the other remembers may be older than this host's tables; a claim since it knows this session is not.
                Ordering::Greater if is_mine && mine.claimed && claim == 0 && self.learning.is_some() => {
                    if let Some(learning) = &mut self.learning {
                        learning.hear(vip, word.epoch);
                    }
                    return Outcome::Settled;
                }
                // Who says that nobody owns it does not know of the guest here, whose right is this host's to judge.
                Ordering::Greater if is_mine && word.holder.is_none() => mine.raised_to(word.epoch + 1),
                Ordering::Greater => word.clone(),
            };
            let raised = new != word;
            match owners.replace(vip, &mine, &new) {
                Replaced::Done if raised => return Outcome::Raised,
                Replaced::Done => return Outcome::Applied(Some(mine).filter(|_| is_mine)),
                Replaced::Changed => {}
                Replaced::Unknown => return self.park(vip, word, sender, at),
            }
        }
    }

    /// Keeps a word for later, if there is room.
    fn park(&mut self, vip: Vip, word: Word, sender: &Id, at: Instant) -> Outcome {
        let parked = Parked { word, sender: sender.clone(), at };
        if self.parked.put(vip, parked) { Outcome::Parked } else { Outcome::Unheard }
    }

    /// Does what is due.
    pub fn tick(&mut self, owners: &mut impl Owners, now: Instant) {
        self.end_learning(owners, now);
        self.tell_ceded();
        let vteps: Vec<Ipv4Addr> = self.peers.keys().copied().collect();
        for vtep in vteps {
            self.tend(vtep, owners, now);
        }
    }

    fn tend(&mut self, vtep: Ipv4Addr, owners: &impl Owners, now: Instant) {
        let Some(peer) = self.peers.get_mut(&vtep) else { return };
        if peer.up && peer.heard.is_none_or(|heard| heard + SILENCE <= now) {
            peer.go_down(now);
        }
        if !peer.up {
            if peer.hello_at <= now {
                peer.greet(now);
                let challenge = peer.challenge;
                self.send(vtep, Body::Hello { challenge, echo: NO_NONCE });
            }
            return;
        }
        if peer.digest_at <= now {
            peer.digest_at = now + COMPARE;
            self.send(vtep, Body::Digest(Box::new(owners.sums())));
            self.parked.forget_old(now);
        }
        let learns = self.learning.is_some();
        let Some(peer) = self.peers.get_mut(&vtep) else { return };
        if learns && !peer.answered && peer.ask_at <= now {
            peer.ask_at = now + ASK;
            self.send(vtep, Body::Sync);
        }
        self.feed(vtep, owners, now);
        self.tell(vtep, &[], owners, now);
        self.end_answer(vtep);
    }

    /// Tells a host that wanted to know everything that it does.
    fn end_answer(&mut self, vtep: Ipv4Addr) {
        let Some(peer) = self.peers.get_mut(&vtep) else { return };
        if let Some(session) = &mut peer.session
            && session.sync == Answer::Begun
            && peer.bulk.is_none()
            && peer.queue.lively() == 0
        {
            session.sync = Answer::Done;
            self.send(vtep, Body::Synced);
        }
    }

    /// Puts some more of many VIPs among those that wait for a host.
    fn feed(&mut self, vtep: Ipv4Addr, owners: &impl Owners, now: Instant) {
        let Some(peer) = self.peers.get_mut(&vtep) else { return };
        let Some(mut bulk) = peer.bulk.filter(|bulk| bulk.at <= now) else { return };
        for _ in 0..BULK_STEP {
            if peer.queue.lively() >= BULK_WAITING {
                break;
            }
            let Some((cursor, vip)) = owners.next(bulk.cursor) else {
                peer.bulk = None;
                return;
            };
            bulk.cursor = cursor;
            if bulk.contains(vip) {
                peer.queue.push_unless_there(vip, now);
            }
        }
        peer.bulk = Some(Bulk { at: now + PAUSE, ..bulk });
    }

    /// Tells a host that is up the words of `urgent` VIPs, and of those that are due, as many as go at once.
    fn tell(&mut self, vtep: Ipv4Addr, urgent: &[Vip], owners: &impl Owners, now: Instant) {
        let Some(peer) = self.peers.get_mut(&vtep).filter(|peer| peer.up) else { return };
        let mut urgent = urgent.iter().copied();
        let mut datagrams = Datagrams::new(&self.host, &peer.id);
        let rests = peer.rests_until.is_some_and(|until| now < until);
        // All of them are in the queue already: what does not go now goes after the pause.
        while let Some(vip) = (urgent.next().filter(|_| datagrams.filled.len() < BURST))
            .or_else(|| peer.queue.first_due(now).filter(|_| !rests && datagrams.filled.len() < BURST))
        {
            let Some(word) = owners.word(vip).filter(|word| *word != Word::default()) else {
                peer.queue.remove(vip);
                continue;
            };
            datagrams.add(News { vip, word, claim: peer.queue.claim(vip) });
            peer.queue.sent(vip, now);
        }
        if datagrams.filled.len() >= BURST {
            peer.rests_until = Some(now + PAUSE);
        }
        for news in datagrams.filled {
            let told =
                |News { vip, word, claim }: &News| (*vip, Told { print: word.print(*vip), claim: *claim });
            let contents = news.iter().map(told).collect();
            let number = self.send(vtep, Body::News(news));
            if let (Some(number), Some(peer)) = (number, self.peers.get_mut(&vtep)) {
                peer.queue.departed(number, contents);
            }
        }
    }

    /// Ends the time of learning when everybody has answered or it has been long enough: what guests of this host have claimed
    /// meanwhile is theirs, above all that was heard.
    fn end_learning(&mut self, owners: &mut impl Owners, now: Instant) {
        let Some(learning) = self.learning.take_if(|learning| learning.is_over(now)) else { return };
        let mut raised = Vec::new();
        for (vip, highest) in learning.into_held() {
            while let Some(mine) = owners.word(vip).filter(|word| word.is_held_on(&self.host)) {
                if mine.epoch > highest {
                    break;
                }
                match owners.replace(vip, &mine, &mine.raised_to(highest + 1)) {
                    Replaced::Done => {
                        raised.push(vip);
                        break;
                    }
                    Replaced::Changed => {}
                    Replaced::Unknown => break,
                }
            }
        }
        self.spread(&raised, 0, owners, now);
    }

    /// When [`Self::tick`] has something to do.
    pub fn next(&self) -> Option<Instant> {
        let learning = self.learning.as_ref().and_then(Learning::until);
        let of_peer = |peer: &Peer| {
            if !peer.up {
                return peer.hello_at;
            }
            let queued = peer.queue.next().map(|at| peer.rests_until.map_or(at, |until| until.max(at)));
            let bulk = peer.bulk.filter(|_| peer.queue.lively() < BULK_WAITING).map(|bulk| bulk.at);
            let silence = peer.heard.map(|heard| heard + SILENCE);
            let ask = self.learning.as_ref().filter(|_| !peer.answered).map(|_| peer.ask_at);
            [queued, bulk, silence, ask].into_iter().flatten().fold(peer.digest_at, Instant::min)
        };
        self.peers.values().map(of_peer).chain(learning).min()
    }

    /// Hosts and how they are doing, in the order of their VTEPs.
    pub fn report(&self, now: Instant) -> Vec<PeerReport> {
        let report = |peer: &Peer| PeerReport {
            host: peer.id.clone(),
            vtep: peer.vtep,
            state: match peer.up {
                true => PeerState::Up,
                false if now < peer.greeted + CONNECTING => PeerState::Connecting,
                false => PeerState::Down,
            },
            heard: peer.heard,
            unacked: peer.queue.len(),
            applied: peer.applied,
            refused: peer.refused,
        };
        self.peers.values().map(report).collect()
    }

    /// Words that wait until the state knows what they are about.
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    /// Datagrams from addresses that are no other host's VTEP.
    pub fn unlisted(&self) -> u64 {
        self.unlisted
    }
}
