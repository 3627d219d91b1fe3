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
