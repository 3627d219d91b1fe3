//! Rule 3 against a model of it: a bucket of eight moves that regains one a second, and a claim that waits for the next one.

use proptest::{collection::vec, prelude::*};
use vip_common::{
    engine::{self, MemoryTables},
    pipeline::{Stage, Verdict},
    tables::EventKind,
};

use crate::{
    cases,
    frame::{ArpFrame, Ipv4Frame, udp},
    rules::owner_entry,
    world::{self, CLIENT, NEIGHBOUR_MAC, SECOND, UPLINK_MAC, World, ifindex, port_mac, vip_address},
};

const MILLISECOND: u64 = 1_000_000;

/// What happens to the VIP.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A member claims it.
    Claim(u32),
    /// A client sends a packet to it.
    Packet,
}

/// The rule in plain words: times in milliseconds, the bucket in thousandths of a move.
struct Model {
    owner: u32,
    moves: u64,
    bucket: u64,
    filled_at: u64,
    /// Who waits, and until when.
    waiting: Option<(u32, u64)>,
}

impl Model {
    const FULL: u64 = 8000;
    const MOVE: u64 = 1000;

    fn fill(&mut self, now: u64) {
        self.bucket = (self.bucket + now - self.filled_at).min(Self::FULL);
        self.filled_at = now;
    }

    fn move_to(&mut self, port: u32) {
        self.bucket = self.bucket.saturating_sub(Self::MOVE);
        self.owner = port;
        self.moves += 1;
        self.waiting = None;
    }

    fn step(&mut self, now: u64, step: Step) {
        self.fill(now);
        match step {
            Step::Claim(port) if port == self.owner => self.waiting = None,
            Step::Claim(port) if self.bucket >= Self::MOVE => self.move_to(port),
            Step::Claim(port) => self.waiting = Some((port, now + Self::MOVE - self.bucket)),
            // The stamp of a due time is rounded up to the next millisecond.
            Step::Packet => match self.waiting {
                Some((port, due)) if now > due => self.move_to(port),
                _ => {}
            },
        }
    }
}

fn carry_out(tables: &MemoryTables, step: Step) {
    match step {
        Step::Claim(port) => {
            let claim = ArpFrame::garp(port_mac(port), vip_address(0)).bytes();
            assert_eq!(engine::port(tables, ifindex(port), false, &claim).verdict, Verdict::Consumed);
        }
        Step::Packet => {
            let packet =
                Ipv4Frame::new((NEIGHBOUR_MAC, CLIENT), (UPLINK_MAC, world::vip_eip(0)), udp(1, 2, b"x"));
            let outcome = engine::uplink(tables, Stage::Tc, &packet.bytes());
            let owner = owner_entry(tables, 0).word.port();
            assert_eq!(outcome.verdict, Verdict::Deliver { port: owner, ifindex: ifindex(owner) });
        }
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![4 => (1..=3_u32).prop_map(Step::Claim), 1 => Just(Step::Packet)]
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn ownership_follows_the_model_and_the_last_claim_wins(
        steps in vec((prop_oneof![5 => 0..50_u64, 1 => 0..3000_u64], any_step()), 1..80),
    ) {
        let tables = World::default().tables();
        let mut now = tables.now.get() / MILLISECOND;
        let mut model = Model { owner: 1, moves: 0, bucket: Model::FULL, filled_at: now, waiting: None };
        let mut times_of_moves = Vec::new();
        let mut last_claim = 1;
        for (pause, step) in steps {
            now += pause;
            tables.now.set(now * MILLISECOND);
            let moves_before = model.moves;
            model.step(now, step);
            carry_out(&tables, step);
            let word = owner_entry(&tables, 0).word;
            prop_assert_eq!(word.port(), model.owner);
            prop_assert_eq!(word.epoch(), 1 + model.moves);
            prop_assert_eq!(
                owner_entry(&tables, 0).pending.port(),
                model.waiting.map_or(0, |(port, _)| port)
            );
            if model.moves > moves_before {
                times_of_moves.push(now);
            }
            if let Step::Claim(port) = step {
                last_claim = port;
            }
        }
        for (first, start) in times_of_moves.iter().enumerate() {
            for (last, end) in times_of_moves.iter().enumerate().skip(first) {
                prop_assert!((last - first + 1) as u64 <= 8 + (end - start) / 1000, "more moves than rule 3 allows");
            }
        }
        // No timer and no agent: the first packet after the due time is enough.
        tables.now.set((now + 1001) * MILLISECOND);
        carry_out(&tables, Step::Packet);
        prop_assert_eq!(owner_entry(&tables, 0).word.port(), last_claim);
        prop_assert_eq!(owner_entry(&tables, 0).pending.port(), 0);
    }
}

#[test]
fn the_first_eight_moves_are_immediate_and_the_ninth_waits_a_second() {
    let tables = World::default().tables();
    for number in 0..8 {
        carry_out(&tables, Step::Claim(2 - number % 2));
        assert_eq!(owner_entry(&tables, 0).word.port(), 2 - number % 2);
    }
    carry_out(&tables, Step::Claim(3));
    assert_eq!(owner_entry(&tables, 0).word.port(), 1);
    tables.now.set(tables.now.get() + SECOND - MILLISECOND);
    carry_out(&tables, Step::Packet);
    assert_eq!(owner_entry(&tables, 0).word.port(), 1, "not before its time");
    tables.now.set(tables.now.get() + 2 * MILLISECOND);
    carry_out(&tables, Step::Packet);
    assert_eq!(owner_entry(&tables, 0).word.port(), 3);
}

#[test]
fn a_claim_by_the_present_owner_clears_the_one_that_waits() {
    let tables = World::default().tables();
    for number in 0..8 {
        carry_out(&tables, Step::Claim(2 - number % 2));
    }
    carry_out(&tables, Step::Claim(3));
    carry_out(&tables, Step::Claim(1));
    tables.now.set(tables.now.get() + 60 * SECOND);
    carry_out(&tables, Step::Packet);
    assert_eq!(owner_entry(&tables, 0).word.port(), 1);
}

#[test]
fn a_repeated_claim_is_told_as_long_as_a_claim_could_wait_on_another_host() {
    let tables = World::default().tables();
    let told =
        || tables.events.borrow().last().and_then(|event| Some((event.kind()?, event.port, event.epoch)));
    carry_out(&tables, Step::Claim(1));
    assert_eq!(told(), None, "nothing has moved for long");
    carry_out(&tables, Step::Claim(2));
    assert_eq!(told(), Some((EventKind::Moved, 2, 2)));
    carry_out(&tables, Step::Claim(2));
    assert_eq!(told(), Some((EventKind::Repeated, 2, 2)));
    tables.now.set(tables.now.get() + SECOND);
    tables.events.borrow_mut().clear();
    carry_out(&tables, Step::Claim(2));
    assert_eq!(told(), None, "what could have waited has taken effect");
}

#[test]
fn an_unowned_vip_is_never_damped() {
    let mut world = World::default();
    world.vip_mut(0).owner = None;
    world.vip_mut(0).damped = 8 * SECOND;
    let tables = world.tables();
    carry_out(&tables, Step::Claim(2));
    assert_eq!(owner_entry(&tables, 0).word.port(), 2);
}
