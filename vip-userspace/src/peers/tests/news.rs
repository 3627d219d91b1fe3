//! What one host's words become on the others.

use std::time::Duration;

use super::{
    AGREED, MILLISECOND, name, nobody, vip, word,
    world::{Weather, World},
};
use crate::peers::{Call, Ownership};

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
fn a_repeated_claim_overtakes_what_waits_on_other_hosts_once() {
    let mut world = World::new(2, 2, 1);
    world.run(MILLISECOND * 100);
    world.claim(0, 0, "p");
    world.run(MILLISECOND);
    world.hosts[1].1.waiting = [vip(0), vip(1)].into();
    world.claim(0, 0, "p");
    // The acknowledgement is lost, so it is told again and again.
    world.cut.insert((1, 0));
    world.run(MILLISECOND);
    assert_eq!(world.hosts[1].1.waiting, [vip(1)].into());
    world.hosts[1].1.waiting.insert(vip(0));
    world.run(Duration::from_secs(1));
    assert_eq!(
        world.hosts[1].1.waiting,
        [vip(0), vip(1)].into(),
        "a later claim was overtaken by an earlier one"
    );
    world.heal();
    world.claim(0, 0, "p");
    world.run(MILLISECOND);
    assert_eq!(world.hosts[1].1.waiting, [vip(1)].into());
}

#[test]
fn the_number_of_a_claim_does_not_travel_with_a_later_word_of_another_host() {
    let mut world = World::new(3, 1, 1);
    world.run(MILLISECOND * 100);
    world.cut.insert((1, 2));
    world.claim(1, 0, "q");
    world.run(MILLISECOND);
    world.claim(0, 0, "p");
    world.run(MILLISECOND);
    assert_eq!([world.word(1, 0), world.word(2, 0)], [word(2, true, 0, "p"), word(2, true, 0, "p")]);
    // A claim that knows of both of these.
    world.hosts[2].1.waiting.insert(vip(0));
    world.heal();
    world.run(Duration::from_secs(3));
    assert_eq!(world.hosts[2].1.waiting, [vip(0)].into());
    // A claim on the host that the lost one was made on is later again.
    world.claim(1, 0, "q");
    world.run(MILLISECOND);
    assert!(world.hosts[2].1.waiting.is_empty());
    world.assert_at_rest();
}

#[test]
fn a_claim_that_was_lost_is_told_again_though_an_older_one_is_acknowledged() {
    let mut world = World::new(2, 1, 1);
    world.run(MILLISECOND * 100);
    world.claim(0, 0, "p");
    // On its way, and the second one is not.
    world.cut.insert((0, 1));
    world.claim(0, 0, "p");
    world.run(MILLISECOND);
    assert_eq!(world.word(1, 0), word(1, true, 0, "p"));
    world.hosts[1].1.waiting.insert(vip(0));
    world.heal();
    world.run(MILLISECOND * 50);
    assert!(world.hosts[1].1.waiting.is_empty());
    world.assert_at_rest();
}

#[test]
fn a_waiting_claim_elsewhere_does_not_end_by_what_a_host_remembers() {
    let mut world = World::new(2, 1, 1);
    world.run(MILLISECOND * 100);
    world.claim(0, 0, "p");
    world.run(MILLISECOND);
    world.hosts[1].1.waiting.insert(vip(0));
    world.start(0, false);
    world.run(AGREED);
    assert_eq!(world.hosts[1].1.waiting, [vip(0)].into());
}

#[test]
fn calls_reach_the_host_that_they_are_for() {
    let mut world = World::new(3, 1, 1);
    world.run(MILLISECOND * 100);
    let call = Call::InUse(Ownership { vip: vip(0), epoch: 7 });
    world.hosts[0].0.as_mut().expect("a vipd").call(&name(2), call);
    world.collect(0);
    world.run(MILLISECOND);
    let mut calls = |host: usize| world.hosts[host].0.as_mut().expect("a vipd").take_calls();
    assert_eq!(calls(1), []);
    assert_eq!(calls(2), [(name(0).into(), call)]);
    assert_eq!(calls(2), []);
}
