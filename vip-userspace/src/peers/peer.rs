//! One other host: whether it lives, and what it has not acknowledged yet.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use super::{
    message::{Nonce, Refusal},
    window::Window,
    word::{BUCKETS, Vip, Word},
};
use crate::state::Id;

/// First repetition of news that were not acknowledged, and the longest time between two; it doubles in between.
const FIRST_REPEAT: Duration = Duration::from_millis(10);
const LAST_REPEAT: Duration = Duration::from_secs(1);

/// The same of greetings to a host that does not answer.
const FIRST_HELLO: Duration = Duration::from_millis(100);
const LAST_HELLO: Duration = Duration::from_secs(2);

/// How long words that differ are not told once more, at first and at most; it doubles in between.
const FIRST_PAUSE: Duration = Duration::from_secs(3);
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// Datagrams of which acknowledgements are still understood.
const IN_FLIGHT: usize = 512;

/// How a host is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// It answers.
    Up,
    /// It was greeted a moment ago.
    Connecting,
    /// It does not answer.
    Down,
}

/// Datagrams refused, by reason. Those from unlisted addresses belong to no host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefusedDatagrams {
    /// See [`Refusal::Malformed`].
    pub malformed: u64,
    /// See [`Refusal::Version`].
    pub version: u64,
    /// See [`Refusal::Auth`].
    pub auth: u64,
    /// See [`Refusal::Identity`].
    pub identity: u64,
    /// See [`Refusal::Session`].
    pub session: u64,
    /// See [`Refusal::Replay`].
    pub replay: u64,
}

impl RefusedDatagrams {
    pub(super) fn count(&mut self, refusal: Refusal) {
        match refusal {
            Refusal::Unlisted => {}
            Refusal::Malformed => self.malformed += 1,
            Refusal::Version => self.version += 1,
            Refusal::Auth => self.auth += 1,
            Refusal::Identity => self.identity += 1,
            Refusal::Session => self.session += 1,
            Refusal::Replay => self.replay += 1,
        }
    }
}

/// One other host, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerReport {
    /// Its id.
    pub host: Id,
    /// Its VTEP.
    pub vtep: Ipv4Addr,
    /// How it is doing.
    pub state: PeerState,
    /// When it was last heard; `None`: never.
    pub heard: Option<Instant>,
    /// VIPs whose words it has not acknowledged.
    pub unacked: usize,
    /// Its words that were applied here.
    pub applied: u64,
    /// Datagrams from its address that were not believed.
    pub refused: RefusedDatagrams,
}

/// The other's present session.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) nonce: Nonce,
    /// Which of its datagrams were taken. It lives as long as the session is believed in, silent or not.
    pub(super) window: Window,
    /// Whether it was told everything.
    pub(super) sync: Answer,
    /// Number of the last claim that it told, by VIP.
    claims: BTreeMap<Vip, u64>,
}

impl Session {
    pub(super) fn new(nonce: Nonce) -> Self {
        Self { nonce, window: Window::default(), sync: Answer::None, claims: BTreeMap::new() }
    }

    /// Notes that the other told a claim. `false`: it was known already.
    pub(super) fn note_claim(&mut self, vip: Vip, claim: u64) -> bool {
        let last = self.claims.entry(vip).or_default();
        let is_new = *last < claim;
        *last = claim.max(*last);
        is_new
    }
}

/// What became of a request for everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Answer {
    /// There was none.
    #[default]
    None,
    /// It is being answered.
    Begun,
    /// It was answered.
    Done,
}

/// The words of many VIPs that are to be told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bulk {
    /// Where to go on.
    pub(super) cursor: u32,
    /// A bit for each bucket: which VIPs.
    pub(super) buckets: u64,
    /// When to go on.
    pub(super) at: Instant,
}

const _: () = assert!(BUCKETS == 64);

impl Bulk {
    /// Every VIP.
    pub(super) const ALL: u64 = u64::MAX;

    pub(super) fn contains(&self, vip: Vip) -> bool {
        self.buckets >> vip.bucket() & 1 != 0
    }
}

/// In what the words of two hosts differ, and for how long it is no use to tell them again: one of them may not know the VIPs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Difference {
    /// A bit for each bucket.
    buckets: u64,
    pause: Duration,
    /// `None`: there is none.
    again: Option<Instant>,
}

impl Difference {
    /// Whether words in these buckets, a bit for each, are to be told because they differ at the moment.
    pub(super) fn is_to_be_told(&mut self, buckets: u64, now: Instant) -> bool {
        if buckets == 0 {
            *self = Self::default();
            return false;
        }
        let is_new = buckets & !self.buckets != 0;
        if !is_new && self.again.is_some_and(|again| now < again) {
            return false;
        }
        let pause = if is_new { FIRST_PAUSE } else { (self.pause * 2).min(LAST_PAUSE) };
        *self = Self { buckets, pause, again: Some(now + pause) };
        true
    }
}

/// News that wait or were not acknowledged.
#[derive(Clone, Debug)]
struct Waiting {
    due: Instant,
    /// How long the next repetition waits; `None`: it was not sent yet.
    repeat: Option<Duration>,
    /// Number of the claim that is the reason; 0: none is.
    claim: u64,
}

impl Waiting {
    /// Whether it was sent so often that only a host which cannot or does not want to know has not acknowledged it.
    fn is_stale(&self) -> bool {
        self.repeat.is_some_and(|repeat| repeat > FIRST_REPEAT * 8)
    }
}

/// What a host was told of a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Print of the word.
    pub(super) print: u64,
    /// Number of the claim.
    pub(super) claim: u64,
}

/// What a host is to be told: VIPs, each once. Their words are looked up when they are sent, so what is sent is the newest.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    waiting: BTreeMap<Vip, Waiting>,
    /// Those that are not stale.
    lively: usize,
    /// The same by due time.
    due: BTreeSet<(Instant, Vip)>,
    /// What datagrams contained.
    in_flight: BTreeMap<u64, Vec<(Vip, Told)>>,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// A VIP has a new word, or was claimed again; `claim`: the number of the claim, or 0.
    pub(super) fn push(&mut self, vip: Vip, claim: u64, now: Instant) {
        let claim = claim.max(self.claim(vip));
        self.put(vip, Waiting { due: now, repeat: None, claim });
    }

    /// No claim is the reason to tell of a VIP any more.
    pub(super) fn forget_claim(&mut self, vip: Vip) {
        if let Some(waiting) = self.waiting.get_mut(&vip) {
            waiting.claim = 0;
        }
    }

    /// Number of the claim that is the reason to tell of a VIP; 0: none is.
    pub(super) fn claim(&self, vip: Vip) -> u64 {
        self.waiting.get(&vip).map_or(0, |waiting| waiting.claim)
    }

    pub(super) fn contains(&self, vip: Vip) -> bool {
        self.waiting.contains_key(&vip)
    }

    /// A VIP is to be told, if it is not on its way already.
    pub(super) fn push_unless_there(&mut self, vip: Vip, now: Instant) {
        if !self.contains(vip) {
            self.push(vip, 0, now);
        }
    }

    fn put(&mut self, vip: Vip, waiting: Waiting) {
        self.remove(vip);
        self.due.insert((waiting.due, vip));
        self.lively += usize::from(!waiting.is_stale());
        self.waiting.insert(vip, waiting);
    }

    pub(super) fn remove(&mut self, vip: Vip) {
        if let Some(waiting) = self.waiting.remove(&vip) {
            self.due.remove(&(waiting.due, vip));
            self.lively -= usize::from(!waiting.is_stale());
        }
    }

    /// A host knows what it was told of a VIP, unless there was another claim since.
    pub(super) fn known(&mut self, vip: Vip, told: Told) {
        if self.claim(vip) <= told.claim {
            self.remove(vip);
        }
    }

    /// The VIP that is due first, if it is.
    pub(super) fn first_due(&self, now: Instant) -> Option<Vip> {
        self.due.first().filter(|(due, _)| *due <= now).map(|(_, vip)| *vip)
    }

    /// When something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// The word of a VIP goes out now.
    pub(super) fn sent(&mut self, vip: Vip, now: Instant) {
        let repeat = self.waiting.get(&vip).and_then(|waiting| waiting.repeat).unwrap_or(FIRST_REPEAT);
        let claim = self.claim(vip);
        self.put(vip, Waiting { due: now + repeat, repeat: Some((repeat * 2).min(LAST_REPEAT)), claim });
    }

    /// Notes what a datagram contains.
    pub(super) fn departed(&mut self, number: u64, contents: Vec<(Vip, Told)>) {
        self.in_flight.insert(number, contents);
        if self.in_flight.len() > IN_FLIGHT {
            self.in_flight.pop_first();
        }
    }

    /// What of a datagram was acknowledged: a bit for each word.
    pub(super) fn acked(&mut self, number: u64, words: u32) -> Vec<(Vip, Told)> {
        let Some(contents) = self.in_flight.get_mut(&number) else { return Vec::new() };
        let bits =
            (0..).zip(contents.iter()).filter(|(bit, _)| words.checked_shr(*bit).unwrap_or(0) & 1 != 0);
        let acked: Vec<(Vip, Told)> = bits.map(|(_, word)| *word).collect();
        if acked.len() == contents.len() {
            self.in_flight.remove(&number);
        }
        acked
    }

    /// Those that were not sent so often yet that there is no use in waiting for them to be acknowledged.
    pub(super) fn lively(&self) -> usize {
        self.lively
    }
}

/// One other host.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) id: Id,
    pub(super) vtep: Ipv4Addr,
    /// This host's session with it: another one whenever it becomes known anew, because its numbers begin anew then.
    pub(super) own_session: Nonce,
    /// What the other has to return so that this host believes in its session. It is good once.
    pub(super) challenge: Nonce,
    pub(super) session: Option<Session>,
    pub(super) up: bool,
    pub(super) heard: Option<Instant>,
    /// When it was greeted first since it was last up.
    pub(super) greeted: Instant,
    /// When it is greeted next: by itself while it is not up, and at the earliest if it speaks in an unknown session while it is.
    pub(super) hello_at: Instant,
    hello_wait: Duration,
    pub(super) digest_at: Instant,
    /// Number of the last datagram to it.
    pub(super) number: u64,
    pub(super) queue: Queue,
    /// Nothing is told before this: a burst was sent.
    pub(super) rests_until: Option<Instant>,
    pub(super) bulk: Option<Bulk>,
    pub(super) difference: Difference,
    /// Whether the words were the same since it is up: of what was told since, the queue knows what it has not heard.
    pub(super) agreed: bool,
    /// What guests of this host owned until words of the other replaced it, which it made maybe without knowing of these.
    pub(super) ceded: BTreeMap<Vip, Word>,
    pub(super) acks: Vec<(u64, u32)>,
    /// Whether it has told this host everything, at its start.
    pub(super) answered: bool,
    /// When it is asked for everything next.
    pub(super) ask_at: Instant,
    pub(super) applied: u64,
    pub(super) refused: RefusedDatagrams,
}

impl Peer {
    /// `nonces`: two that were never drawn before.
    pub(super) fn new(id: Id, vtep: Ipv4Addr, nonces: [Nonce; 2], now: Instant) -> Self {
        let [own_session, challenge] = nonces;
        Self {
            id,
            vtep,
            own_session,
            challenge,
            session: None,
            up: false,
            heard: None,
            greeted: now,
            hello_at: now,
            hello_wait: FIRST_HELLO,
            digest_at: now,
            number: 0,
            queue: Queue::default(),
            rests_until: None,
            bulk: None,
            difference: Difference::default(),
            agreed: false,
            ceded: BTreeMap::new(),
            acks: Vec::new(),
            answered: false,
            ask_at: now,
            applied: 0,
            refused: RefusedDatagrams::default(),
        }
    }

    /// It answers now, maybe as another session: whatever it was told before, words are compared anew.
    pub(super) fn come_up(&mut self, now: Instant) {
        self.forget_told();
        self.up = true;
        self.heard = Some(now);
        self.rests_until = None;
        self.digest_at = now;
        self.ask_at = now;
        self.hello_at = now;
        self.hello_wait = FIRST_HELLO;
    }

    /// It does not answer any more: nothing is kept for it, because words are compared when it does again.
    pub(super) fn go_down(&mut self, now: Instant) {
        self.forget_told();
        self.up = false;
        self.acks.clear();
        self.greeted = now;
        self.hello_at = now;
    }

    /// Forgets what it was to be told. If it still wants to know everything, it asks again.
    fn forget_told(&mut self) {
        self.queue.clear();
        self.bulk = None;
        self.difference = Difference::default();
        self.agreed = false;
        if let Some(session) = &mut self.session
            && session.sync == Answer::Begun
        {
            session.sync = Answer::None;
        }
    }

    /// Whether it surely knows the word that this host has of a VIP.
    pub(super) fn knows(&self, vip: Vip) -> bool {
        self.up && self.agreed && !self.queue.contains(vip)
    }

    /// A greeting goes out.
    pub(super) fn greet(&mut self, now: Instant) {
        self.hello_at = now + self.hello_wait;
        self.hello_wait = (self.hello_wait * 2).min(LAST_HELLO);
    }

    /// Whether it is greeted although it is up, which it is at most once in [`FIRST_HELLO`]; it counts as greeted then.
    pub(super) fn is_to_be_greeted_again(&mut self, now: Instant) -> bool {
        let is_due = self.up && self.hello_at <= now;
        if is_due {
            self.hello_at = now + FIRST_HELLO;
        }
        is_due
    }

    /// Words in these buckets are to be told, beside those that are being told.
    pub(super) fn add_bulk(&mut self, buckets: u64, now: Instant) {
        let before = self.bulk.map_or(0, |bulk| bulk.buckets);
        // Those that are half told already begin anew: that is simple, and what is told twice does no harm.
        if buckets & !before != 0 {
            self.bulk = Some(Bulk { cursor: 0, buckets: buckets | before, at: now });
        }
    }
}
