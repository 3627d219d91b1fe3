//! Full tables, and indexes that rest.

use std::time::Instant;

use vip_userspace::{
    config::Capacity,
    plan::{Contents, Indexes, REST, Reason, Resting, compile},
    state::Kind,
};

use crate::{
    CAPACITY, carry_out, desire, site,
    world::{VipSeed, World, build, seed},
};

#[test]
fn full_tables_refuse_only_what_is_new_and_say_what() {
    let capacity = Capacity { ports: 1, ..CAPACITY };
    let desire = |world: &World, contents: &Contents| {
        compile(&world.state, &site(world), &Indexes::of(contents, &capacity, &Resting::default()))
    };
    let one = build(&[seed(0, 5, 5, 0)], &[], &[], &[None], false, 0);
    let mut contents = Contents::default();
    let desired = desire(&one, &contents);
    carry_out(&mut contents, &desired);

    // The new port comes first in the order of ids, and has an EIP.
    let two = build(&[seed(0, 4, 4, 1), seed(0, 5, 5, 0)], &[], &[(10, false, 0)], &[None], false, 0);
    let desired = desire(&two, &contents);
    let served = desired.assigned.ports.iter().map(|(port, _)| two.state.ports.id(port));
    assert_eq!(served.collect::<Vec<_>>(), ["port1"]);
    let refused: Vec<String> = desired.refused.iter().map(ToString::to_string).collect();
    assert_eq!(
        refused,
        [
            "port port0: not applied, PORTS is full (1 entries); remove objects that are not needed",
            "eip eip10: not applied, because port port0 is not",
        ]
    );
    assert!(desired.refused.iter().all(|refused| !refused.resting));
    assert_eq!(desired.contents, contents);
}

#[test]
fn what_only_waits_for_a_resting_index_of_another_object_is_no_fault() {
    let vip = VipSeed { subnet: 0, address: 9, bindings: vec![(0, true, false)], vrid: None };
    let world = build(&[seed(0, 4, 4, 0)], &[vip], &[(10, false, 0)], &[None], false, 0);
    let desired = desire(&world, &Contents::default(), &Resting::everything(Instant::now()));
    assert!(desired.refused.iter().any(|refused| refused.kind == Kind::Eip));
    assert!(desired.refused.iter().all(|refused| refused.resting), "{:?}", desired.refused);
}

#[test]
fn a_vip_without_one_of_its_members_is_applied_and_says_so() {
    let capacity = Capacity { ports: 1, ..CAPACITY };
    let vip =
        VipSeed { subnet: 0, address: 9, bindings: vec![(0, true, false), (1, true, false)], vrid: None };
    let world = build(&[seed(0, 4, 4, 0), seed(0, 5, 5, 1)], &[vip], &[], &[None], false, 0);
    let indexes = Indexes::of(&Contents::default(), &capacity, &Resting::default());
    let desired = compile(&world.state, &site(&world), &indexes);
    assert_eq!(desired.assigned.vips.iter().count(), 1);
    let of_vip = desired.refused.iter().filter(|refused| refused.kind == Kind::Vip);
    let said: Vec<String> = of_vip.map(ToString::to_string).collect();
    assert_eq!(said, ["vip vip0: port port1 has no rights yet, because it is not applied"]);
}

#[test]
fn an_object_that_replaces_another_in_a_full_table_follows_after_the_rest() {
    let capacity = Capacity { ports: 1, ..CAPACITY };
    let now = Instant::now();
    let mut resting = Resting::default();
    let old = build(&[seed(0, 5, 5, 0)], &[], &[], &[None], false, 0);
    let new = build(&[seed(2, 5, 4, 0)], &[], &[], &[None], false, 0);
    let mut contents = Contents::default();
    let mut apply = |world: &World, resting: &Resting| {
        let desired = compile(&world.state, &site(world), &Indexes::of(&contents, &capacity, resting));
        let before = Indexes::of(&contents, &capacity, resting);
        carry_out(&mut contents, &desired);
        (before, contents.clone(), desired.refused)
    };
    assert_eq!(apply(&old, &resting).2, []);
    let (before, after, refused) = apply(&new, &resting);
    assert!(matches!(refused.as_slice(), [refused] if refused.reason == Reason::Resting));
    assert!(after.ports.is_empty());
    resting.note(&before, &after, now);
    assert_eq!(apply(&new, &resting).2.len(), 1);
    resting.expire(now + REST);
    assert_eq!(apply(&new, &resting).2, []);
}
