//! Hosts that tell each other over a network which loses, repeats and reorders.

#![allow(clippy::indexing_slicing, reason = "a test that indexes out of bounds has failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use super::{
    Exchange, Holder, Key, Nonce, Owners, PeerReport, PeerSocket, PeerState, Refusal, Replaced, Vip, Word,
    word::BUCKETS,
};

const MILLISECOND: Duration = Duration::from_millis(1);

/// What hosts need at most to agree, once they can reach each other: the longest pause between greetings, and two comparisons.
const AGREED: Duration = Duration::from_secs(12);

const KEY: &[u8] = b"the secret that all of the hosts share";

fn vip(number: u32) -> Vip {
    Vip { vni: 4001, address: Ipv4Addr::from_bits(0xc0a8_0400 + number) }
}

fn vtep(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(172, 31, 0, u8::try_from(host).expect("few hosts"))
}

/// Hosts are called a, b, c, …, from 0 on.
fn name(host: usize) -> String {
    char::from(b'a' + u8::try_from(host).expect("few hosts")).to_string()
}

fn word(epoch: u64, claimed: bool, host: usize, port: &str) -> Word {
    Word { epoch, claimed, holder: Some(Holder { port: port.into(), host: name(host).into(), vrid: 0 }) }
}

fn nobody(epoch: u64) -> Word {
    Word { epoch, ..Word::default() }
}

/// Numbers that look random and are the same in every run.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: u32) -> u32 {
        u32::try_from(self.next() % u64::from(limit)).expect("less than the limit")
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.next().to_le_bytes());
        nonce[8..].copy_from_slice(&self.next().to_le_bytes());
        nonce
    }
}

/// The words on one host.
#[derive(Clone, Debug, Default)]
struct Words {
    by_vip: BTreeMap<Vip, Word>,
    /// Ports that the state of this host does not know.
    unknown: BTreeSet<String>,
    /// How often a word was replaced because of a peer.
    replaced: u32,
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
struct Flight {
    arrives: Instant,
    from: usize,
    to: usize,
    bytes: Vec<u8>,
}

/// What the network does to datagrams: of a hundred so many.
#[derive(Clone, Copy, Debug, Default)]
struct Weather {
    lost: u32,
    repeated: u32,
    /// Most milliseconds that one takes longer than another.
    jitter: u32,
}

struct World {
    now: Instant,
    hosts: Vec<(Option<Exchange>, Words)>,
    flights: Vec<Flight>,
    /// Everything that was ever sent.
    sent: Vec<Flight>,
    /// Pairs of hosts that do not reach each other.
    cut: BTreeSet<(usize, usize)>,
    weather: Weather,
    random: Random,
    refused: Vec<(usize, Refusal)>,
}

impl World {
    /// Hosts whose vipds run, with tables that are not new, and which know each VIP below `vips`.
    fn new(hosts: usize, vips: u32, seed: u64) -> Self {
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
    fn start(&mut self, host: usize, fresh: bool) {
        self.start_with(host, fresh, KEY);
    }

    fn start_with(&mut self, host: usize, fresh: bool, key: &[u8]) {
        let mut random = Random(self.random.next());
        let key = Key::of(key).expect("a key");
        let mut exchange = Exchange::new(name(host).into(), key, fresh, Box::new(move || random.nonce()));
        let others = (0..self.hosts.len()).filter(|other| *other != host);
        exchange.set_peers(others.map(|other| (name(other).into(), vtep(other))), self.now);
        self.hosts[host].0 = Some(exchange);
    }

    fn stop(&mut self, host: usize) {
        self.hosts[host].0 = None;
    }

    fn cut(&mut self, one: usize, other: usize) {
        self.cut.extend([(one, other), (other, one)]);
    }

    fn heal(&mut self) {
        self.cut.clear();
    }

    fn words(&self, host: usize) -> &BTreeMap<Vip, Word> {
        &self.hosts[host].1.by_vip
    }

    fn word(&self, host: usize, number: u32) -> Word {
        self.words(host)[&vip(number)].clone()
    }

    /// A program on the host changes a word, and its vipd, if it runs, hears of it.
    fn set(&mut self, host: usize, number: u32, word: Word) {
        self.hosts[host].1.by_vip.insert(vip(number), word);
        let (exchange, words) = &mut self.hosts[host];
        if let Some(exchange) = exchange {
            exchange.changed(&[vip(number)], words, self.now);
        }
        self.collect(host);
    }

    /// A guest of the host claims a VIP, as the program does it.
    fn claim(&mut self, host: usize, number: u32, port: &str) {
        let before = self.word(host, number);
        let same = before.holder.as_ref().is_some_and(|holder| *holder.port == *port);
        let epoch = if same { before.epoch } else { before.epoch + 1 };
        self.set(host, number, word(epoch, true, host, port));
    }

    /// Sends what the host wants to send.
    fn collect(&mut self, host: usize) {
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
    fn deliver(&mut self, from: usize, to: usize, bytes: &[u8]) -> Result<(), Refusal> {
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
    fn run(&mut self, time: Duration) {
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
    fn report(&self, host: usize, of: usize) -> PeerReport {
        let exchange = self.hosts[host].0.as_ref().expect("a vipd");
        let mut reports = exchange.report(self.now).into_iter();
        reports.find(|report| report.vtep == vtep(of)).expect("a peer")
    }

    #[track_caller]
    fn assert_all_up(&self) {
        for host in 0..self.hosts.len() {
            for other in (0..self.hosts.len()).filter(|other| *other != host) {
                assert_eq!(self.report(host, other).state, PeerState::Up, "{other} as {host} sees it");
            }
        }
    }

    #[track_caller]
    fn assert_agreed(&self) {
        for host in 1..self.hosts.len() {
            assert_eq!(self.words(host), self.words(0), "host {} and host {}", name(host), name(0));
        }
    }

    /// Nothing is told, applied or refused any more.
    #[track_caller]
    fn assert_at_rest(&mut self) {
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

#[test]
fn a_claim_reaches_every_host_by_its_first_datagram_and_is_acknowledged() {
    let mut world = World::new(3, 4, 1);
    world.run(MILLISECOND * 100);
    world.assert_all_up();
    world.claim(0, 2, "p");
    assert_eq!(world.report(0, 1).unacked, 1);
    world.run(MILLISECOND);
    assert_eq!(world.word(1, 2), word(1, true, 0, "p"));
    assert_eq!(world.word(2, 2), word(1, true, 0, "p"));
    assert_eq!((world.report(0, 1).unacked, world.report(1, 0).applied), (0, 1));
    world.assert_at_rest();
    assert_eq!(world.refused, []);
}

#[test]
fn a_release_travels_too() {
    let mut world = World::new(2, 1, 1);
    world.run(MILLISECOND * 100);
    world.claim(0, 0, "p");
    world.run(MILLISECOND);
    world.set(0, 0, nobody(2));
    world.run(MILLISECOND);
    assert_eq!(world.word(1, 0), nobody(2));
    world.assert_at_rest();
}

#[test]
fn what_is_lost_is_told_again_soon_and_then_less_often() {
    let mut world = World::new(2, 1, 1);
    world.run(MILLISECOND * 100);
    world.cut(0, 1);
    let before = world.sent.len();
    let begun = world.now;
    world.claim(0, 0, "p");
    world.run(Duration::from_secs(5));
    let told = world.sent[before..].iter().filter(|flight| flight.from == 0);
    let after: Vec<Duration> = told.map(|flight| flight.arrives - begun).collect();
    let expected = [0, 10, 30, 70, 150, 310, 630, 1270].map(Duration::from_millis);
    for time in expected {
        assert!(after.contains(&time), "not told after {time:?} but after {after:?}");
    }
    assert!(after.len() < 16, "told {} times", after.len());
    world.heal();
    world.run(Duration::from_secs(1));
    assert_eq!(world.word(1, 0), word(1, true, 0, "p"));
}

#[test]
fn the_newest_word_is_told_and_the_older_ones_are_not_any_more() {
    let mut world = World::new(2, 1, 1);
    world.run(MILLISECOND * 100);
    world.cut(0, 1);
    for port in ["p", "q", "r"] {
        world.claim(0, 0, port);
    }
    assert_eq!(world.report(0, 1).unacked, 1);
    world.heal();
    world.run(MILLISECOND * 20);
    assert_eq!(world.word(1, 0), word(3, true, 0, "r"));
    assert_eq!(world.hosts[1].1.replaced, 1);
}

#[test]
fn another_virtual_mac_of_the_same_owner_is_told() {
    let mut world = World::new(3, 1, 1);
    world.run(MILLISECOND * 100);
    world.claim(0, 0, "p");
    world.run(MILLISECOND * 10);
    for vrid in [66, 0] {
        let mut other = word(1, true, 0, "p");
        other.holder.as_mut().expect("an owner").vrid = vrid;
        world.set(0, 0, other.clone());
        world.run(MILLISECOND * 10);
        assert_eq!([world.word(1, 0), world.word(2, 0)], [other.clone(), other]);
    }
    world.assert_at_rest();
}

#[test]
fn hosts_agree_whatever_the_network_loses_repeats_and_reorders() {
    for seed in 0..100 {
        let mut world = World::new(3, 6, seed);
        let weather = [60, 50, 40].map(|most| world.random.below(most));
        world.weather = Weather { lost: weather[0], repeated: weather[1], jitter: weather[2] };
        let begin = world.random.below(400);
        world.run(MILLISECOND * begin);
        for step in 0..40 {
            let (host, number) = (world.random.below(3) as usize, world.random.below(6));
            match world.random.below(10) {
                0 => {
                    let before = world.word(host, number);
                    if before.is_held_on(&name(host)) {
                        world.set(host, number, nobody(before.epoch + 1));
                    }
                }
                1 => world.start(host, false),
                2 => world.cut(host, (host + 1) % 3),
                3 => world.heal(),
                _ => world.claim(host, number, &format!("{}{}", name(host), step % 3)),
            }
            let pause = world.random.below(30);
            world.run(MILLISECOND * pause);
        }
        world.heal();
        world.weather = Weather { lost: world.weather.lost / 3, ..world.weather };
        world.run(AGREED * 3);
        world.weather = Weather::default();
        world.run(AGREED);
        world.assert_agreed();
        world.assert_all_up();
        world.assert_at_rest();
    }
}

#[test]
fn a_datagram_counts_once() {
    let mut world = World::new(2, 1, 1);
    world.run(MILLISECOND * 100);
    world.claim(0, 0, "p");
    let told = world.sent.last().expect("news").clone();
    world.run(MILLISECOND);
    for _ in 0..3 {
        assert_eq!(world.deliver(0, 1, &told.bytes), Err(Refusal::Replay));
    }
    assert_eq!(world.report(1, 0).refused.replay, 3);
    assert_eq!(world.hosts[1].1.replaced, 1);
}

#[test]
fn nothing_of_before_a_restart_counts_after_it_whoever_restarted() {
    for restarted in [0, 1] {
        let mut world = World::new(2, 2, 1);
        world.run(MILLISECOND * 100);
        world.claim(0, 0, "p");
        world.claim(0, 0, "q");
        world.run(AGREED);
        let recorded = world.sent.clone();
        // All words are lost, so that old ones would do harm.
        for (_, words) in &mut world.hosts {
            words.by_vip.values_mut().for_each(|word| *word = Word::default());
        }
        world.start(restarted, false);
        world.run(MILLISECOND * 200);
        world.assert_all_up();
        for Flight { from, to, bytes, .. } in &recorded {
            let _refused = world.deliver(*from, *to, bytes);
            world.run(MILLISECOND / 10);
        }
        world.run(AGREED);
        assert_eq!(world.word(1, 0), Word::default());
        assert_eq!(world.word(0, 0), Word::default());
        world.assert_all_up();
        assert!(world.report(1, 0).refused.session > 0);
        world.claim(0, 1, "p");
        world.run(MILLISECOND);
        assert_eq!(world.word(1, 1), word(1, true, 0, "p"));
    }
}

#[test]
fn an_old_session_cannot_be_brought_back_by_its_greetings() {
    let mut world = World::new(2, 1, 1);
    world.run(MILLISECOND * 100);
    let recorded = world.sent.clone();
    world.start(0, false);
    world.run(MILLISECOND * 200);
    // The greetings are authentic, so they are answered; but nobody returns the new challenges.
    for Flight { bytes, .. } in recorded.iter().filter(|flight| (flight.from, flight.to) == (0, 1)) {
        let _answered = world.deliver(0, 1, bytes);
    }
    world.claim(0, 0, "p");
    world.run(MILLISECOND);
    assert_eq!(world.word(1, 0), word(1, true, 0, "p"));
}

#[test]
fn another_key_is_not_believed_and_harms_nobody_else() {
    let mut world = World::new(3, 1, 1);
    world.start_with(2, false, b"quite another secret, as long as it has to be");
    world.run(Duration::from_secs(6));
    world.claim(2, 0, "intruder");
    world.claim(0, 0, "p");
    world.run(Duration::from_secs(6));
    assert_eq!(world.word(1, 0), word(1, true, 0, "p"));
    assert_eq!(world.word(2, 0), word(1, true, 2, "intruder"));
    assert!(world.report(0, 2).refused.auth > 0 && world.report(2, 0).refused.auth > 0);
    assert_eq!((world.report(0, 2).state, world.report(0, 1).state), (PeerState::Down, PeerState::Up));
}

#[test]
fn what_is_reflected_or_led_astray_is_not_believed() {
    let mut world = World::new(3, 1, 1);
    world.run(MILLISECOND * 100);
    world.claim(0, 0, "p");
    let told = world.sent.last().expect("news").clone();
    assert_eq!((told.from, told.to), (0, 2));
    // Back to its sender, as if the receiver had sent it; to another host; from another address.
    assert_eq!(world.deliver(2, 0, &told.bytes), Err(Refusal::Identity));
    assert_eq!(world.deliver(0, 1, &told.bytes), Err(Refusal::Identity));
    assert_eq!(world.deliver(1, 2, &told.bytes), Err(Refusal::Identity));
    assert_eq!(world.report(0, 2).refused.identity, 1);
    assert_eq!(world.deliver(9, 2, &told.bytes), Err(Refusal::Unlisted));
    assert_eq!(world.hosts[2].0.as_ref().expect("a vipd").unlisted(), 1);
    assert_eq!(world.deliver(0, 2, &told.bytes), Ok(()));
}

#[test]
fn a_partition_leaves_each_side_its_owner_and_the_higher_one_wins_once_on_healing() {
    for (claims_of_a, claims_of_b, winner) in [(1, 1, 1), (3, 1, 0), (1, 3, 1), (2, 2, 1)] {
        let mut world = World::new(3, 1, 1);
        world.run(MILLISECOND * 100);
        world.claim(2, 0, "c");
        world.run(MILLISECOND * 10);
        world.cut(0, 1);
        world.cut(2, 1);
        world.run(Duration::from_secs(20));
        assert_eq!(world.report(0, 1).state, PeerState::Down);
        (0..claims_of_a).for_each(|claim| world.claim(0, 0, ["a", "a2"][claim % 2]));
        (0..claims_of_b).for_each(|claim| world.claim(1, 0, ["b", "b2"][claim % 2]));
        world.run(Duration::from_secs(5));
        assert!(world.word(0, 0).is_held_on("a") && world.word(2, 0).is_held_on("a"));
        assert!(world.word(1, 0).is_held_on("b"));
        let before: Vec<u32> = world.hosts.iter().map(|(_, words)| words.replaced).collect();
        world.heal();
        world.run(AGREED);
        world.assert_agreed();
        assert!(world.word(0, 0).is_held_on(&name(winner)), "{:?}", world.word(0, 0));
        let moves = world.hosts.iter().zip(before).map(|((_, words), before)| words.replaced - before);
        let expected = if winner == 1 { [1, 0, 1] } else { [0, 1, 0] };
        assert_eq!(moves.collect::<Vec<_>>(), expected);
        world.assert_at_rest();
    }
}

#[test]
fn hosts_that_were_away_are_told_what_happened_and_tell_what_they_did() {
    let mut world = World::new(3, 40, 1);
    world.run(MILLISECOND * 100);
    world.stop(2);
    (0..10).for_each(|number| world.claim(0, number, "p"));
    // The programs go on without vipd.
    (20..30).for_each(|number| world.claim(2, number, "r"));
    world.run(AGREED);
    assert_eq!(world.report(0, 2).state, PeerState::Down);
    assert_eq!(world.report(0, 2).unacked, 0);
    world.start(2, false);
    world.run(MILLISECOND * 500 + AGREED);
    world.assert_agreed();
    assert_eq!([world.word(1, 5), world.word(1, 25)], [word(1, true, 0, "p"), word(1, true, 2, "r")]);
}

#[test]
fn a_word_that_nobody_told_of_is_found_by_comparing() {
    let mut world = World::new(3, 40, 1);
    world.run(MILLISECOND * 100);
    world.hosts[1].1.by_vip.insert(vip(7), word(4, false, 1, "q"));
    world.run(Duration::from_secs(3));
    world.assert_agreed();
    assert_eq!(world.word(0, 7), word(4, false, 1, "q"));
}

#[test]
fn what_a_dead_host_had_said_is_told_to_a_fresh_one_by_those_who_know() {
    let mut world = World::new(3, 3000, 1);
    world.run(MILLISECOND * 100);
    (0..3000).for_each(|number| world.claim(0, number, "p"));
    world.run(AGREED);
    world.assert_agreed();
    world.stop(0);
    world.hosts[2].1.by_vip.values_mut().for_each(|word| *word = Word::default());
    world.start(2, true);
    assert!(world.hosts[2].0.as_ref().is_some_and(Exchange::learning_waits));
    world.run(Duration::from_secs(2));
    assert_eq!(world.words(2), world.words(1));
    // One host does not answer: the time is up.
    assert!(world.hosts[2].0.as_ref().is_some_and(Exchange::learning_waits));
    world.run(Duration::from_secs(2));
    assert!(!world.hosts[2].0.as_ref().is_some_and(Exchange::learning_waits));
}

#[test]
fn a_fresh_host_knows_everything_as_soon_as_all_have_answered() {
    for lost in [0, 30] {
        let mut world = World::new(3, 500, 1);
        world.run(MILLISECOND * 100);
        (0..500).for_each(|number| world.claim(number as usize % 3, number, "p"));
        world.run(AGREED);
        let before = world.words(2).clone();
        world.hosts[2].1.by_vip.values_mut().for_each(|word| *word = Word::default());
        world.weather.lost = lost;
        let started = world.now;
        world.start(2, true);
        while world.hosts[2].0.as_ref().is_some_and(Exchange::learning_waits) {
            world.run(MILLISECOND * 10);
        }
        // Of the world's time.
        assert!(lost > 0 || world.now - started < MILLISECOND * 100, "{:?}", world.now - started);
        assert_eq!(*world.words(2), before, "{lost} % lost");
    }
}

#[test]
fn a_claim_before_the_answers_holds_and_is_issued_again_above_them() {
    let mut world = World::new(3, 3, 1);
    world.run(MILLISECOND * 100);
    (0..100).for_each(|claim| world.claim(0, 0, ["p", "q"][claim % 2]));
    world.set(0, 1, word(50, true, 0, "p"));
    world.run(AGREED);
    world.hosts[2].1.by_vip.values_mut().for_each(|word| *word = Word::default());
    world.start(2, true);
    world.claim(2, 0, "r");
    world.run(MILLISECOND * 500);
    assert!(!world.hosts[2].0.as_ref().is_some_and(Exchange::learning_waits));
    world.assert_agreed();
    assert_eq!(world.word(0, 0), word(101, true, 2, "r"));
    assert_eq!(world.word(2, 1), word(50, true, 0, "p"));
    world.assert_at_rest();
}

#[test]
fn a_claim_before_the_answers_is_the_hosts_own_while_one_of_them_is_missing() {
    let mut world = World::new(3, 1, 1);
    world.run(MILLISECOND * 100);
    (0..9).for_each(|claim| world.claim(0, 0, ["p", "q"][claim % 2]));
    world.run(MILLISECOND * 10);
    world.stop(1);
    world.hosts[2].1.by_vip.insert(vip(0), Word::default());
    world.start(2, true);
    world.claim(2, 0, "r");
    world.run(Duration::from_secs(2));
    assert_eq!(world.word(2, 0), word(1, true, 2, "r"));
    world.run(Duration::from_secs(2));
    assert_eq!([world.word(2, 0), world.word(0, 0)], [word(10, true, 2, "r"), word(10, true, 2, "r")]);
}

#[test]
fn hosts_that_are_all_new_agree_too() {
    for seed in 0..50 {
        let mut world = World::new(3, 4, seed);
        let lost = world.random.below(50);
        world.weather = Weather { lost, repeated: 10, jitter: 20 };
        (0..3).for_each(|host| world.start(host, true));
        for _ in 0..20 {
            let (host, number) = (world.random.below(3) as usize, world.random.below(4));
            world.claim(host, number, &name(host));
            let pause = world.random.below(300);
            world.run(MILLISECOND * pause);
        }
        world.weather = Weather::default();
        world.run(AGREED * 2);
        world.assert_agreed();
        world.assert_at_rest();
    }
}

#[test]
fn a_lone_fresh_host_waits_for_nobody() {
    let mut world = World::new(1, 1, 1);
    world.start(0, true);
    world.run(MILLISECOND);
    assert!(!world.hosts[0].0.as_ref().is_some_and(Exchange::learning_waits));
}

#[test]
fn a_port_that_lost_its_hosts_tables_gets_its_vips_back() {
    let mut world = World::new(2, 1, 1);
    world.run(MILLISECOND * 100);
    world.set(0, 0, word(7, true, 0, "p"));
    world.run(MILLISECOND * 10);
    world.hosts[0].1.by_vip.insert(vip(0), Word::default());
    world.start(0, true);
    world.run(MILLISECOND * 500);
    assert_eq!(world.word(0, 0), word(7, true, 0, "p"));
}

#[test]
fn who_says_that_nobody_owns_it_does_not_take_it_from_a_guest_here() {
    let mut world = World::new(2, 1, 1);
    world.run(MILLISECOND * 100);
    // A slot that was another VIP's before keeps its epoch.
    world.hosts[0].1.by_vip.insert(vip(0), nobody(40));
    world.claim(1, 0, "q");
    world.run(AGREED);
    world.assert_agreed();
    assert_eq!(world.word(1, 0), word(41, true, 1, "q"));
    world.assert_at_rest();
}

#[test]
fn a_word_about_what_the_state_does_not_know_waits_for_it() {
    let mut world = World::new(2, 2, 1);
    world.hosts[1].1.by_vip.remove(&vip(0));
    world.hosts[1].1.unknown.insert("new".to_owned());
    world.run(MILLISECOND * 100);
    world.claim(0, 0, "p");
    world.claim(0, 1, "new");
    world.run(MILLISECOND * 700);
    assert_eq!(world.report(0, 1).unacked, 2);
    assert_eq!(world.word(1, 1), Word::default());
    world.hosts[1].1.by_vip.insert(vip(0), Word::default());
    world.hosts[1].1.unknown.clear();
    let now = world.now;
    let (exchange, words) = &mut world.hosts[1];
    exchange.as_mut().expect("a vipd").state_changed(words, now);
    assert_eq!([world.word(1, 0), world.word(1, 1)], [word(1, true, 0, "p"), word(1, true, 0, "new")]);
    assert_eq!(world.report(1, 0).applied, 2);
    world.run(Duration::from_secs(2));
    world.assert_at_rest();
}

#[test]
fn what_waits_for_the_state_is_bounded_and_told_again_all_the_same() {
    let many = 6000;
    let mut world = World::new(2, many, 1);
    let words = std::mem::take(&mut world.hosts[1].1.by_vip);
    world.run(MILLISECOND * 100);
    (0..many).for_each(|number| world.claim(0, number, "p"));
    world.run(Duration::from_secs(3));
    let parked = world.hosts[1].0.as_ref().expect("a vipd").parked();
    assert_eq!(parked, 4096);
    assert_eq!(world.report(0, 1).unacked, many as usize);
    world.hosts[1].1.by_vip = words;
    world.run(AGREED);
    world.assert_agreed();
}

#[test]
fn a_host_that_is_down_costs_nothing_but_greetings() {
    let mut world = World::new(2, 1000, 1);
    world.run(MILLISECOND * 100);
    world.stop(1);
    for round in 0..20 {
        (0..1000).for_each(|number| world.claim(0, number, ["p", "q"][round % 2]));
        assert!(world.report(0, 1).unacked <= 1000);
        world.run(Duration::from_secs(1));
    }
    assert_eq!((world.report(0, 1).unacked, world.report(0, 1).state), (0, PeerState::Down));
    let before = world.sent.len();
    world.run(Duration::from_secs(60));
    assert!((20..=40).contains(&(world.sent.len() - before)), "{}", world.sent.len() - before);
    world.start(1, false);
    world.run(AGREED);
    world.assert_agreed();
}

#[test]
fn a_claim_is_told_before_what_waits_already() {
    let mut world = World::new(2, 20_000, 1);
    (0..20_000).for_each(|number| drop(world.hosts[0].1.by_vip.insert(vip(number), word(3, true, 0, "p"))));
    // Until the first words are on their way.
    while world.hosts[1].1.replaced == 0 {
        world.run(MILLISECOND / 5);
    }
    assert!(world.hosts[1].1.replaced < 5000);
    world.claim(0, 19_999, "q");
    world.run(MILLISECOND / 5);
    assert_eq!(world.word(1, 19_999), word(4, true, 0, "q"));
    world.run(AGREED);
    world.assert_agreed();
}

#[test]
fn hosts_that_leave_the_state_are_not_told_any_more() {
    let mut world = World::new(3, 1, 1);
    world.run(MILLISECOND * 100);
    let now = world.now;
    let (exchange, _) = &mut world.hosts[0];
    exchange.as_mut().expect("a vipd").set_peers([(name(1).into(), vtep(1))], now);
    let before = world.sent.len();
    world.claim(0, 0, "p");
    world.run(Duration::from_secs(3));
    assert!(world.sent[before..].iter().all(|flight| (flight.from, flight.to) != (0, 2)));
    assert_eq!(world.report(0, 1).state, PeerState::Up);
    // Host b still tells host c, and c learns of a's claim by comparing with b.
    world.run(AGREED);
    assert_eq!(world.word(2, 0), word(1, true, 0, "p"));
}

/// A host on the machine's loopback interface, with its socket.
struct Station {
    exchange: Exchange,
    words: Words,
    socket: PeerSocket,
}

impl Station {
    fn address(host: usize) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, 0, 100 + u8::try_from(host).expect("few hosts"))
    }

    /// Three of them, on one port that is free on all of their addresses.
    fn three() -> Vec<Self> {
        let sockets = || {
            let free = std::net::UdpSocket::bind((Self::address(0), 0)).expect("a free port");
            let port = free.local_addr().expect("an address").port();
            drop(free);
            (0..3).map(|host| PeerSocket::bind(Self::address(host), port)).collect::<Result<Vec<_>, _>>()
        };
        // Somebody else may take the port on one of them.
        let sockets = (0..20).find_map(|_| sockets().ok()).expect("a port that is free on three addresses");
        let station = |(host, socket)| {
            let mut random = Random(host as u64);
            let key = Key::of(KEY).expect("a key");
            let mut exchange = Exchange::new(name(host).into(), key, false, Box::new(move || random.nonce()));
            let others = (0..3).filter(|other| *other != host);
            exchange
                .set_peers(others.map(|other| (name(other).into(), Self::address(other))), Instant::now());
            let by_vip = (0..40).map(|number| (vip(number), Word::default())).collect();
            Self { exchange, words: Words { by_vip, ..Words::default() }, socket }
        };
        sockets.into_iter().enumerate().map(station).collect()
    }

    fn send(&mut self) {
        for (to, datagram) in self.exchange.take_outgoing() {
            self.socket.send(to, &datagram).expect("loopback takes it");
        }
    }

    /// Does what is due and takes what has come.
    fn turn(&mut self) {
        let now = Instant::now();
        if self.exchange.next().is_some_and(|due| due <= now) {
            self.exchange.tick(&mut self.words, now);
        }
        while let Some((from, datagram)) = self.socket.receive().expect("a socket") {
            self.exchange.receive(from, datagram, &mut self.words, now).expect("an honest datagram");
        }
        self.send();
    }
}

async fn until(stations: &mut [Station], done: impl Fn(&[Station]) -> bool) {
    let begun = Instant::now();
    while !done(stations) {
        assert!(begun.elapsed() < Duration::from_secs(30), "they do not agree");
        stations.iter_mut().for_each(Station::turn);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn hosts_with_sockets_agree() {
    let mut stations = Station::three();
    let all_up = |stations: &[Station]| {
        let reports = stations.iter().flat_map(|station| station.exchange.report(Instant::now()));
        reports.into_iter().all(|report| report.state == PeerState::Up)
    };
    until(&mut stations, all_up).await;
    for number in 0..40 {
        let host = number as usize % 3;
        let Station { exchange, words, .. } = &mut stations[host];
        words.by_vip.insert(vip(number), word(1, true, host, "p"));
        exchange.changed(&[vip(number)], words, Instant::now());
    }
    stations.iter_mut().for_each(Station::send);
    until(&mut stations, |stations| {
        stations.iter().all(|station| {
            (0..40)
                .all(|number| station.words.by_vip[&vip(number)] == word(1, true, number as usize % 3, "p"))
                && station.exchange.report(Instant::now()).iter().all(|report| report.unacked == 0)
        })
    })
    .await;
    assert!(stations.iter().all(|station| station.exchange.unlisted() == 0));
}

#[tokio::test]
async fn a_socket_wakes_its_host_and_takes_no_longer_datagram_for_a_good_one() {
    let mut stations = Station::three();
    let to = stations[1].socket.local_address().expect("an address");
    let stranger = std::net::UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 99), 0)).expect("a socket");
    stranger.send_to(&[0; 3000], to).expect("sent");
    stations[1].socket.readable().await.expect("readable");
    let (from, datagram) = stations[1].socket.receive().expect("a socket").expect("a datagram");
    assert_eq!((from, datagram.len()), (Ipv4Addr::new(127, 0, 0, 99), super::LONGEST + 1));
    assert!(stations[1].socket.receive().expect("a socket").is_none());
    let taken = stations[1].exchange.receive(from, &[0; 1201], &mut Words::default(), Instant::now());
    assert_eq!(taken, Err(Refusal::Unlisted));
}
