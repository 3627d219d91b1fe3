//! Hosts that did not reach each other for a while.

use std::{collections::BTreeSet, time::Duration};

use super::{AGREED, MILLISECOND, name, vip, word, world::World};
use crate::peers::PeerState;

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
        // Whoever had announced itself, the winner is to be announced after it.
        let of_winner = |host| if host == winner { [vip(0)].into() } else { BTreeSet::new() };
        assert_eq!([0, 1, 2].map(|host| world.take_upheld(host)), [0, 1, 2].map(of_winner));
    }
}

#[test]
fn who_wins_hears_that_it_did_even_where_the_other_is_told_first() {
    for (winner, loser) in [(0, 1), (1, 0)] {
        let mut world = World::new(2, 40, 1);
        world.run(MILLISECOND * 100);
        world.cut(0, 1);
        for number in 0..40 {
            world.claim(loser, number, "l");
            world.claim(winner, number, "w");
            world.claim(winner, number, "w2");
        }
        world.run(Duration::from_secs(20));
        world.heal();
        // The one that greets has its answer and the other's words before it has compared its own.
        world.start(loser, false);
        world.run(AGREED);
        world.assert_agreed();
        assert!(world.word(loser, 0).is_held_on(&name(winner)));
        assert_eq!(world.take_upheld(winner), (0..40).map(vip).collect());
        assert_eq!(world.take_upheld(loser), [].into());
        world.assert_at_rest();
    }
}

#[test]
fn who_wins_hears_that_it_did_even_if_it_could_not_tell_so_itself() {
    let mut world = World::new(3, 1, 1);
    world.run(MILLISECOND * 100);
    world.cut(0, 2);
    world.cut(1, 2);
    world.run(Duration::from_secs(20));
    world.claim(2, 0, "l");
    world.claim(0, 0, "w");
    world.claim(0, 0, "w2");
    world.run(MILLISECOND * 100);
    // Only the third one reaches the one that loses.
    world.cut.retain(|(one, other)| *one == 0 || *other == 0);
    world.run(AGREED);
    assert!(world.word(2, 0).is_held_on("a"));
    assert_eq!(world.take_upheld(0), [].into());
    world.heal();
    world.run(AGREED);
    assert_eq!([0, 1, 2].map(|host| world.take_upheld(host)), [[vip(0)].into(), [].into(), [].into()]);
    world.assert_at_rest();
}

#[test]
fn who_moves_an_owner_that_it_knows_of_upholds_nothing() {
    let mut world = World::new(2, 1, 1);
    world.run(Duration::from_secs(3));
    for claim in 0..20 {
        world.claim(claim % 2, 0, ["p", "q"][claim % 2]);
        let before = world.sent.len();
        world.run(MILLISECOND * 10);
        assert_eq!([0, 1].map(|host| world.take_upheld(host)), [[].into(), [].into()]);
        assert!(world.sent.len() - before <= 3, "an acknowledgement, and maybe a comparison");
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
