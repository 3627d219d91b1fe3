//! What is believed, and in which session.

use std::time::Duration;

use super::{
    AGREED, MILLISECOND, word,
    world::{Flight, World},
};
use crate::peers::{PeerState, Refusal, Word};

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
fn a_lost_last_greeting_of_a_restart_leaves_nobody_deaf() {
    for restarted in [0, 1] {
        let other = 1 - restarted;
        let mut world = World::new(2, 2, 1);
        world.run(Duration::from_secs(3));
        world.start(restarted, false);
        while world.report(restarted, other).state != PeerState::Up {
            world.run(MILLISECOND / 10);
        }
        // It has answered the challenge of the other one, which still believes in the session of before.
        let answer = world.flights.iter().position(|flight| flight.from == restarted).expect("an answer");
        world.flights.remove(answer);
        world.run(MILLISECOND);
        world.claim(0, 0, "p");
        world.claim(1, 1, "q");
        world.run(MILLISECOND * 50);
        assert_eq!([world.word(1, 0), world.word(0, 1)], [word(1, true, 0, "p"), word(1, true, 1, "q")]);
    }
}

#[test]
fn recorded_datagrams_of_an_unknown_session_make_a_host_greet_at_most_every_hundred_milliseconds() {
    let mut world = World::new(2, 1, 1);
    world.run(MILLISECOND * 100);
    world.claim(0, 0, "p");
    let told = world.sent.last().expect("news").clone();
    world.start(0, false);
    world.run(Duration::from_secs(1));
    let before = world.sent.len();
    for _ in 0..100 {
        assert_eq!(world.deliver(0, 1, &told.bytes), Err(Refusal::Session));
        world.run(MILLISECOND);
    }
    let by_host = |host| world.sent[before..].iter().filter(move |flight| flight.from == host).count();
    // Greetings, a comparison at most, and what they are answered by.
    assert!((1..=3).contains(&by_host(1)) && (1..=3).contains(&by_host(0)), "{:?}", [by_host(0), by_host(1)]);
    world.assert_at_rest();
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
