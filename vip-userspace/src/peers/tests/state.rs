//! Hosts whose states differ for a while, and states that change.

use std::time::Duration;

use super::{AGREED, MILLISECOND, name, vip, vtep, word, world::World};
use crate::peers::{PeerState, Word};

#[test]
fn a_word_about_what_the_state_does_not_know_waits_for_it() {
    let mut world = World::new(2, 2, 1);
    world.hosts[1].1.by_vip.remove(&vip(0));
    world.hosts[1].1.unknown.insert("new".to_owned());
    world.run(MILLISECOND * 100);
    world.claim(0, 0, "p");
    world.claim(0, 1, "new");
    world.run(MILLISECOND * 700);
    // It is put aside there.
    assert_eq!(world.report(0, 1).unacked, 0);
    assert_eq!(world.hosts[1].0.as_ref().expect("a vipd").parked(), 2);
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
fn what_waits_for_the_state_is_forgotten_when_nobody_knows_it_any_more() {
    let mut world = World::new(2, 2, 1);
    (0..2).for_each(|number| drop(world.hosts[1].1.by_vip.remove(&vip(number))));
    world.run(MILLISECOND * 100);
    world.claim(0, 0, "p");
    world.claim(0, 1, "p");
    world.run(Duration::from_secs(10));
    let parked = |world: &World| world.hosts[1].0.as_ref().expect("a vipd").parked();
    assert_eq!(parked(&world), 2);
    // One of the VIPs is deleted there too, the other one stays.
    world.hosts[0].1.by_vip.remove(&vip(0));
    world.run(Duration::from_secs(300));
    assert_eq!(parked(&world), 1);
    for (_, words) in &mut world.hosts {
        for number in 0..2 {
            words.by_vip.entry(vip(number)).or_default();
        }
    }
    let now = world.now;
    let (exchange, words) = &mut world.hosts[1];
    exchange.as_mut().expect("a vipd").state_changed(words, now);
    world.run(AGREED);
    assert_eq!([world.word(1, 0), world.word(1, 1)], [Word::default(), word(1, true, 0, "p")]);
    world.assert_agreed();
}

#[test]
fn what_waits_for_the_state_is_too_old_for_it_though_no_host_was_up_since() {
    let mut world = World::new(2, 1, 1);
    world.hosts[1].1.by_vip.clear();
    world.run(MILLISECOND * 100);
    world.claim(0, 0, "p");
    world.run(MILLISECOND * 100);
    world.stop(0);
    world.run(Duration::from_secs(300));
    world.hosts[1].1.by_vip.insert(vip(0), Word::default());
    let now = world.now;
    let (exchange, words) = &mut world.hosts[1];
    exchange.as_mut().expect("a vipd").state_changed(words, now);
    assert_eq!(world.word(1, 0), Word::default());
    assert_eq!(world.hosts[1].0.as_ref().expect("a vipd").parked(), 0);
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
    assert_eq!(world.report(0, 1).unacked, many as usize - parked);
    world.hosts[1].1.by_vip = words;
    let now = world.now;
    let (exchange, words) = &mut world.hosts[1];
    exchange.as_mut().expect("a vipd").state_changed(words, now);
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

#[test]
fn a_host_that_comes_back_into_the_state_is_told_and_believed_again() {
    let mut world = World::new(2, 1, 1);
    // Numbers of datagrams that those of the new acquaintance stay below.
    world.run(Duration::from_secs(60));
    let now = world.now;
    world.hosts[0].0.as_mut().expect("a vipd").set_peers([], now);
    world.run(Duration::from_secs(1));
    let now = world.now;
    world.hosts[0].0.as_mut().expect("a vipd").set_peers([(name(1).into(), vtep(1))], now);
    world.run(AGREED);
    world.claim(0, 0, "p");
    world.run(MILLISECOND);
    assert_eq!(world.word(1, 0), word(1, true, 0, "p"));
    world.claim(1, 0, "q");
    world.run(MILLISECOND);
    assert_eq!(world.word(0, 0), word(2, true, 1, "q"));
    world.assert_at_rest();
}

#[test]
fn many_vips_that_a_host_does_not_know_keep_nothing_else_from_it() {
    let (unknown, known) = (8000, 100);
    let mut world = World::new(2, unknown + known, 1);
    (0..unknown).for_each(|number| drop(world.hosts[1].1.by_vip.remove(&vip(number))));
    for number in 0..unknown + known {
        world.hosts[0].1.by_vip.insert(vip(number), word(1, true, 0, "p"));
    }
    world.run(AGREED);
    let told = (unknown..unknown + known).filter(|number| world.word(1, *number) == word(1, true, 0, "p"));
    assert_eq!(told.count(), known as usize);
}

#[test]
fn what_differs_for_good_is_told_ever_more_seldom() {
    let many = 3200;
    let mut world = World::new(2, many, 1);
    world.hosts[1].1.by_vip.clear();
    for number in 0..many {
        world.hosts[0].1.by_vip.insert(vip(number), word(1, true, 0, "p"));
    }
    world.run(AGREED);
    assert_eq!(world.hosts[1].0.as_ref().expect("a vipd").parked(), many as usize);
    let before = world.sent.len();
    world.run(Duration::from_secs(60));
    let told = world.sent[before..].iter().filter(|flight| flight.from == 0 && flight.bytes.len() > 650);
    // Words are compared thirty times meanwhile.
    let rounds = told.count() / (many as usize / 32);
    assert!((1..8).contains(&rounds), "told {rounds} times");
}
