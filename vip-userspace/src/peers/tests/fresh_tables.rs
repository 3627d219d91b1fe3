//! Hosts whose tables are new.

use std::time::Duration;

use super::{
    AGREED, KEY, MILLISECOND, name, nobody, vip, vtep, word,
    world::{Random, Weather, World},
};
use crate::peers::{Exchange, Key, Word};

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
fn a_claim_by_a_host_that_knows_of_the_start_is_newer_than_one_before_the_answers() {
    let mut world = World::new(3, 1, 1);
    world.run(MILLISECOND * 100);
    world.stop(1);
    world.start(2, true);
    world.run(MILLISECOND * 10);
    world.claim(2, 0, "r");
    world.run(MILLISECOND * 10);
    world.claim(0, 0, "p");
    world.run(MILLISECOND * 10);
    assert!(world.hosts[2].0.as_ref().is_some_and(Exchange::learning_waits));
    assert_eq!([world.word(0, 0), world.word(2, 0)], [word(2, true, 0, "p"), word(2, true, 0, "p")]);
    world.run(AGREED);
    assert_eq!([world.word(0, 0), world.word(2, 0)], [word(2, true, 0, "p"), word(2, true, 0, "p")]);
}

#[test]
fn the_time_for_answers_begins_when_questions_can_be_asked() {
    let mut world = World::new(2, 1, 1);
    world.stop(1);
    let key = Key::of(KEY).expect("a key");
    let mut random = Random(7);
    let mut exchange = Exchange::new(name(0).into(), key, true, Box::new(move || random.nonce()));
    exchange.set_peers([(name(1).into(), vtep(1))], world.now);
    world.hosts[0].0 = Some(exchange);
    world.run(Duration::from_secs(10));
    let waits = |world: &World| world.hosts[0].0.as_ref().is_some_and(Exchange::learning_waits);
    assert!(waits(&world));
    let now = world.now;
    world.hosts[0].0.as_mut().expect("a vipd").reachable(now);
    world.run(Duration::from_secs(2));
    assert!(waits(&world));
    world.run(Duration::from_secs(2));
    assert!(!waits(&world));
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
