//! Whatever the worlds are.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use vip_common::tables::OwnerWord;
use vip_userspace::{
    plan::{Contents, Indexes, REST, Resting, Step, diff, interface_of, unjustified},
    state::{Port, Ref},
};

use crate::{
    CAPACITY, carry_out, desire, reach,
    soundness::{apply_to_owners, assert_sound, changes_hosts, comes_here, settle_owners},
    world::{World, world},
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_step_leads_a_packet_astray_and_the_last_one_reaches_the_goal(from in world(), to in world(), owner in 0..4_usize) {
        let mut contents = Contents::default();
        reach(&from, &mut contents);
        assert_sound(&contents, "the first world");
        let before = contents.clone();
        let mut owners = settle_owners(&contents, owner);

        let desired = desire(&to, &contents, &Resting::default());
        let mut rehomed = BTreeSet::new();
        for step in diff(&contents, &desired.contents) {
            contents.apply(&step);
            apply_to_owners(&mut owners, &step);
            if let Step::Rehome { slot, port } = step {
                prop_assert!(rehomed.insert((port, slot)), "an epoch too many of slot {slot}");
            }
            assert_sound(&contents, &format!("{step:?}"));
            for (slot, port) in &owners {
                prop_assert!(contents.ports.contains_key(port), "slot {slot} is owned by an empty port after {step:?}");
            }
        }
        prop_assert_eq!(&contents, &desired.contents);
        prop_assert_eq!(diff(&contents, &desired.contents), []);

        let words = owners.iter().map(|(&slot, &port)| (slot, OwnerWord::new(1, true, port, 0)));
        prop_assert_eq!(unjustified(&contents, words), []);
        for (slot, port) in settle_owners(&before, owner) {
            let moves = changes_hosts(&before, &contents, port);
            let same = before.ports.get(&port).and_then(interface_of)
                == contents.ports.get(&port).and_then(interface_of);
            let keeps = contents.grants.get(&(port, slot)).is_some_and(|grant| grant.rights.may_own());
            prop_assert!(
                !(same || moves) || !keeps || owners.get(&slot) == Some(&port),
                "slot {slot} lost its owner for nothing"
            );
        }
        let may_own = contents.grants.iter().filter(|(_, grant)| grant.rights.may_own()).map(|(key, _)| *key);
        let moved: BTreeSet<_> = may_own.filter(|(port, _)| comes_here(&before, &contents, *port)).collect();
        prop_assert_eq!(rehomed, moved);
    }

    #[test]
    fn every_step_may_be_carried_out_twice(from in world(), to in world()) {
        let mut contents = Contents::default();
        reach(&from, &mut contents);
        let desired = desire(&to, &contents, &Resting::default());
        for step in diff(&contents, &desired.contents) {
            contents.apply(&step);
            let once = contents.clone();
            contents.apply(&step);
            prop_assert_eq!(&once, &contents);
        }
    }

    #[test]
    fn an_agent_that_died_between_two_steps_is_taken_over(
        from in world(), to in world(), later in world(), died_after in 0..40_usize,
    ) {
        let mut contents = Contents::default();
        reach(&from, &mut contents);
        let desired = desire(&to, &contents, &Resting::default());
        for step in diff(&contents, &desired.contents).iter().take(died_after) {
            contents.apply(step);
        }
        for _ in 0..2 {
            let desired = desire(&later, &contents, &Resting::default());
            for step in diff(&contents, &desired.contents) {
                contents.apply(&step);
                assert_sound(&contents, &format!("{step:?}"));
            }
            prop_assert_eq!(&contents, &desired.contents);
        }
        prop_assert_eq!(desire(&later, &contents, &Resting::default()).refused, []);
    }

    #[test]
    fn what_stays_keeps_its_index_and_what_was_freed_rests(from in world(), to in world()) {
        let mut contents = Contents::default();
        let first = reach(&from, &mut contents);
        let now = Instant::now();
        let second = desire(&to, &contents, &Resting::default());
        let port_of = |World { state, .. }: &World, port: Ref<Port>| {
            let port = &state.ports[port];
            (state.vpcs.id(state.vpc_of_port(port)).to_owned(), port.mac)
        };
        for (port, index) in second.assigned.ports.iter() {
            for (old, old_index) in first.assigned.ports.iter() {
                let same = port_of(&from, old) == port_of(&to, port);
                prop_assert_eq!(same, index == old_index, "indexes {} and {}", old_index, index);
            }
        }
        let before = contents.clone();
        carry_out(&mut contents, &second);
        let mut resting = Resting::default();
        resting.note(&Indexes::of(&before, &CAPACITY, &Resting::default()), &contents, now);
        resting.expire(now + REST.saturating_sub(Duration::from_millis(1)));
        let freed: Vec<u32> =
            before.members.keys().filter(|slot| !contents.members.contains_key(slot)).copied().collect();
        let third = desire(&from, &contents, &resting);
        for slot in freed {
            prop_assert!(!third.contents.members.contains_key(&slot), "slot {} did not rest", slot);
        }
    }

    #[test]
    fn names_and_ids_make_no_step(world in world()) {
        let mut contents = Contents::default();
        reach(&world, &mut contents);
        let text = world.text.replace("id: eip", "id: another-eip");
        let text = text.replace("source_dest_check:", "name: new, remark: words, source_dest_check:");
        let renamed = World::of(text, world.interfaces.clone());
        let labelled = |port| renamed.state.ports.label(port).remark == Some("words");
        prop_assert!(renamed.state.ports.refs().all(labelled));
        let desired = desire(&renamed, &contents, &Resting::default());
        prop_assert_eq!(diff(&contents, &desired.contents), []);
    }
}
