//! Hosts, and the network between them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{AGREED, KEY, name, vip, vtep, word};
use crate::peers::{
    Exchange, Key, Nonce, Owners, PeerReport, PeerState, Refusal, Replaced, Vip, Word, word::BUCKETS,
};

/// Numbers that look random and are the same in every run.
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ mixed >> 31
    }

    pub(super) fn below(&mut self, limit: u32) -> u32 {
        u32::try_from(self.next() % u64::from(limit)).expect("less than the limit")
    }

    pub(super) fn nonce(&mut self) -> Nonce {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.next().to_le_bytes());
        nonce[8..].copy_from_slice(&self.next().to_le_bytes());
        nonce
    }
}

/// The words on one host.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    pub(super) by_vip: BTreeMap<Vip, Word>,
    /// Ports that the state of this host does not know.
    pub(super) unknown: BTreeSet<String>,
    /// VIPs that a claim waits for.
    pub(super) waiting: BTreeSet<Vip>,
    /// How often a word was replaced because of a peer.
    pub(super) replaced: u32,
}

impl Owners for Words {
    fn word(&self, vip: Vip) -> Option<Word> {
        self.by_vip.get(&vip).cloned()
    }

    fn replace(&mut self, vip: Vip, old: &Word, new: &Word) -> Replaced {
        if new.holder.as_ref().is_some_and(|holder| self.unknown.contains(&*holder.port)) {
            return Replaced::Unknown;
        }
        match self.by_vip.get_mut(&vip) {
            Some(word) if word == old => {
                *word = new.clone();
                self.replaced += 1;
                Replaced::Done
            }
            Some(_) => Replaced::Changed,
            None => Replaced::Unknown,
        }
    }

    fn overtake(&mut self, vip: Vip) {
        self.waiting.remove(&vip);
    }

    fn sums(&self) -> [u64; BUCKETS] {
        let mut sums = [0_u64; BUCKETS];
        for (vip, word) in &self.by_vip {
            sums[vip.bucket()] = sums[vip.bucket()].wrapping_add(word.print(*vip));
        }
        sums
    }

    fn next(&self, place: u32) -> Option<(u32, Vip)> {
        let found = *self.by_vip.range(vip(place)..).next()?.0;
        Some((found.address.to_bits() - vip(0).address.to_bits() + 1, found))
    }
}

/// A datagram on its way.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) arrives: Instant,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) bytes: Vec<u8>,
}

/// What the network does to datagrams: of a hundred so many.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weather {
    pub(super) lost: u32,
    pub(super) repeated: u32,
    /// Most milliseconds that one takes longer than another.
    pub(super) jitter: u32,
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) hosts: Vec<(Option<Exchange>, Words)>,
    pub(super) flights: Vec<Flight>,
    /// Everything that was ever sent.
    pub(super) sent: Vec<Flight>,
    /// Pairs of hosts that do not reach each other.
    pub(super) cut: BTreeSet<(usize, usize)>,
    pub(super) weather: Weather,
    pub(super) random: Random,
    pub(super) refused: Vec<(usize, Refusal)>,
}

impl World {
    /// Hosts whose vipds run, with tables that are not new, and which know each VIP below `vips`.
    pub(super) fn new(hosts: usize, vips: u32, seed: u64) -> Self {
        let words = Words {
            by_vip: (0..vips).map(|number| (vip(number), Word::default())).collect(),
            ..Words::default()
        };
        let mut world = Self {
            now: Instant::now(),
            hosts: (0..hosts).map(|_| (None, words.clone())).collect(),
            flights: Vec::new(),
            sent: Vec::new(),
            cut: BTreeSet::new(),
            weather: Weather::default(),
            random: Random(seed),
            refused: Vec::new(),
        };
        (0..hosts).for_each(|host| world.start(host, false));
        world
    }

    /// Starts a host's vipd (again).
    pub(super) fn start(&mut self, host: usize, fresh: bool) {
        self.start_with(host, fresh, KEY);
    }

    pub(super) fn start_with(&mut self, host: usize, fresh: bool, key: &[u8]) {
        let mut random = Random(self.random.next());
        let key = Key::of(key).expect("a key");
        let mut exchange = Exchange::new(name(host).into(), key, fresh, Box::new(move || random.nonce()));
        let others = (0..self.hosts.len()).filter(|other| *other != host);
        exchange.set_peers(others.map(|other| (name(other).into(), vtep(other))), self.now);
        exchange.reachable(self.now);
        self.hosts[host].0 = Some(exchange);
    }

    pub(super) fn stop(&mut self, host: usize) {
        self.hosts[host].0 = None;
    }

    pub(super) fn cut(&mut self, one: usize, other: usize) {
        self.cut.extend([(one, other), (other, one)]);
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
    }

    pub(super) fn words(&self, host: usize) -> &BTreeMap<Vip, Word> {
        &self.hosts[host].1.by_vip
    }

    pub(super) fn word(&self, host: usize, number: u32) -> Word {
        self.words(host)[&vip(number)].clone()
    }

    /// A program on the host changes a word, and its vipd, if it runs, hears of it.
    pub(super) fn set(&mut self, host: usize, number: u32, word: Word) {
        self.hosts[host].1.by_vip.insert(vip(number), word);
        let (exchange, words) = &mut self.hosts[host];
        if let Some(exchange) = exchange {
            exchange.changed(&[vip(number)], words, self.now);
        }
        self.collect(host);
    }

    /// A guest of the host claims a VIP, as the program does it.
    pub(super) fn claim(&mut self, host: usize, number: u32, port: &str) {
        let before = self.word(host, number);
        let same = before.holder.as_ref().is_some_and(|holder| *holder.port == *port);
        let epoch = if same { before.epoch } else { before.epoch + 1 };
        self.set(host, number, word(epoch, true, host, port));
    }

    /// Sends what the host wants to send.
    pub(super) fn collect(&mut self, host: usize) {
        let outgoing = self.hosts[host].0.as_mut().map(Exchange::take_outgoing).unwrap_or_default();
        for (to, bytes) in outgoing {
            let to = usize::from(to.octets()[3]);
            let flight = Flight { arrives: self.now, from: host, to, bytes };
            self.sent.push(flight.clone());
            if self.cut.contains(&(host, to)) || self.random.below(100) < self.weather.lost {
                continue;
            }
            let copies = 1 + usize::from(self.random.below(100) < self.weather.repeated);
            for _ in 0..copies {
                let delay = 100 + self.random.below(self.weather.jitter * 1000 + 1);
                let arrives = self.now + Duration::from_micros(delay.into());
                self.flights.push(Flight { arrives, ..flight.clone() });
            }
        }
    }

    /// Gives a host a datagram that seems to come from another one.
    pub(super) fn deliver(&mut self, from: usize, to: usize, bytes: &[u8]) -> Result<(), Refusal> {
        let now = self.now;
        let (exchange, words) = &mut self.hosts[to];
        let Some(exchange) = exchange else { return Ok(()) };
        let taken = exchange.receive(vtep(from), bytes, words, now);
        if let Err(refusal) = taken {
            self.refused.push((to, refusal));
        }
        self.collect(to);
        taken
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let due = self.hosts.iter().filter_map(|(exchange, _)| exchange.as_ref()?.next());
            let arrivals = self.flights.iter().map(|flight| flight.arrives);
            match due.chain(arrivals).min() {
                Some(at) if at <= end => self.now = self.now.max(at),
                _ => break,
            }
            let (arrived, on) = std::mem::take(&mut self.flights)
                .into_iter()
                .partition(|flight: &Flight| flight.arrives <= self.now);
            self.flights = on;
            let mut arrived: Vec<Flight> = arrived;
            arrived.sort_by_key(|flight| flight.arrives);
            for Flight { from, to, bytes, .. } in arrived {
                let _counted = self.deliver(from, to, &bytes);
            }
            for host in 0..self.hosts.len() {
                let now = self.now;
                let (exchange, words) = &mut self.hosts[host];
                if let Some(exchange) = exchange.as_mut().filter(|one| one.next().is_some_and(|at| at <= now))
                {
                    exchange.tick(words, now);
                    self.collect(host);
                }
            }
        }
        self.now = end;
    }

    /// How a host sees another one.
    pub(super) fn report(&self, host: usize, of: usize) -> PeerReport {
        let exchange = self.hosts[host].0.as_ref().expect("a vipd");
        let mut reports = exchange.report(self.now).into_iter();
        reports.find(|report| report.vtep == vtep(of)).expect("a peer")
    }

    pub(super) fn take_upheld(&mut self, host: usize) -> BTreeSet<Vip> {
        self.hosts[host].0.as_mut().expect("a vipd").take_upheld()
    }

    #[track_caller]
    pub(super) fn assert_all_up(&self) {
        for host in 0..self.hosts.len() {
            for other in (0..self.hosts.len()).filter(|other| *other != host) {
                assert_eq!(self.report(host, other).state, PeerState::Up, "{other} as {host} sees it");
            }
        }
    }

    #[track_caller]
    pub(super) fn assert_agreed(&self) {
        for host in 1..self.hosts.len() {
            assert_eq!(self.words(host), self.words(0), "host {} and host {}", name(host), name(0));
        }
    }

    /// Nothing is told, applied or refused any more.
    #[track_caller]
    pub(super) fn assert_at_rest(&mut self) {
        let replaced: Vec<u32> = self.hosts.iter().map(|(_, words)| words.replaced).collect();
        self.run(AGREED);
        assert_eq!(self.hosts.iter().map(|(_, words)| words.replaced).collect::<Vec<_>>(), replaced);
        for host in 0..self.hosts.len() {
            for other in (0..self.hosts.len()).filter(|other| *other != host) {
                assert_eq!(self.report(host, other).unacked, 0, "from {host} to {other}");
            }
        }
    }
}
