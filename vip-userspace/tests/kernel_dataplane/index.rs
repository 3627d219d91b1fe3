//! The index of addresses, against a map in memory: whatever is added and removed, the same is found, by the agent and by the
//! programs, and by the next agent.

use std::{cell::RefCell, collections::BTreeMap};

use nix::sched::{CloneFlags, unshare};
use proptest::{prelude::*, test_runner::TestRunner};
use vip_common::{
    tables::{Target, VniAddress},
    wire::Ipv4,
};
use vip_userspace::kernel::{
    Capacity, Runner,
    tables::{AddressIndex, Change},
};

use crate::lab::Lab;

const CAPACITY: Capacity = Capacity { ports: 8, vips: 4, eips: 4000, subnets: 2, hosts: 2 };

/// Addresses that share all, some or none of their octets with others.
fn addresses() -> impl Strategy<Value = VniAddress> {
    let octet = || prop_oneof![Just(0_u8), Just(10), Just(255)];
    (0..2_u32, octet(), octet(), octet(), 0..40_u8).prop_map(|(vpc, a, b, c, d)| VniAddress {
        vni: if vpc == 0 { 0 } else { 4000 + vpc },
        address: Ipv4::new([a, b, c, d]),
    })
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let target = prop::option::weighted(0.7, (1..8_u32).prop_map(Target::port));
    prop::collection::vec((addresses(), target), 1..150)
}

#[test]
fn whatever_changes_the_same_addresses_are_found() {
    unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
    let runner = Runner::load(&CAPACITY).unwrap();
    let index = &runner.tables().index;
    index.root(4001).unwrap();
    let present = RefCell::new(BTreeMap::new());
    TestRunner::new(ProptestConfig::with_cases(60))
        .run(&changes(), |mut batch| {
            // As the agent does it: in the order of the addresses, so that neighbours meet.
            batch.sort_by_key(|(address, _)| (address.vni, address.address.octets()));
            let mut model = present.borrow().clone();
            for (address, target) in &batch {
                match target {
                    Some(target) => drop(model.insert(*address, *target)),
                    None => drop(model.remove(address)),
                }
            }
            index.apply(&batch).unwrap();
            let found: BTreeMap<VniAddress, Target> = index.entries().into_iter().collect();
            prop_assert_eq!(&found, &model);
            for (address, _) in &batch {
                prop_assert_eq!(index.get(address), model.get(address).copied());
            }
            present.replace(model);
            Ok(())
        })
        .unwrap();
}

#[test]
fn neighbours_get_pages_and_give_them_back() {
    unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
    let runner = Runner::load(&CAPACITY).unwrap();
    let index = &runner.tables().index;
    let eip = |last| VniAddress::eip(Ipv4::new([203, 0, 113, last]));
    take_spare_pages(index);
    let (alone, (all, before)) = (index.scattered(), index.pages());
    assert!(all > before + 3);
    let add = |range: std::ops::Range<u8>| {
        index.apply(&range.map(|last| (eip(last), Some(Target::port(1)))).collect::<Vec<_>>()).unwrap();
    };
    add(0..15);
    assert_eq!((index.scattered(), index.pages().1), (alone + 15, before), "too few for a page");
    add(15..16);
    assert_eq!((index.scattered(), index.pages().1), (alone, before + 3), "the sixteenth makes it a crowd");
    add(16..200);
    assert_eq!(index.pages().1, before + 3, "the pages have room for all");
    index.apply(&(0..200).map(|last| (eip(last), None)).collect::<Vec<_>>()).unwrap();
    assert_eq!((index.scattered(), index.pages().1), (alone, before));
}

#[test]
fn single_addresses_have_pages_of_their_own_while_there_are_many() {
    unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
    let runner = Runner::load(&CAPACITY).unwrap();
    let index = &runner.tables().index;
    let (all, before) = index.pages();
    let address = VniAddress::eip(Ipv4::new([203, 0, 113, 7]));
    index.apply(&[(address, Some(Target::port(1)))]).unwrap();
    assert_eq!((index.scattered(), index.pages().1), (0, before + 3));
    take_spare_pages(index);
    let in_use = index.pages().1;
    assert!((all / 5..=all / 4 + 1).contains(&in_use), "{in_use} of {all} pages are for single addresses");
    index.apply(&[(address, None)]).unwrap();
    assert_eq!(index.pages().1, in_use - 3);
}

/// Adds single addresses until they get no pages any more.
fn take_spare_pages(index: &AddressIndex) {
    let alone = (1..=u8::MAX).map(|first| VniAddress::eip(Ipv4::new([first, 0, 0, 1])));
    for address in alone.take_while(|_| index.scattered() == 0) {
        index.apply(&[(address, Some(Target::port(1)))]).unwrap();
    }
    assert!(index.scattered() > 0);
}

#[test]
fn addresses_without_a_page_left_are_found_all_the_same() {
    unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
    let runner = Runner::load(&CAPACITY).unwrap();
    let index = &runner.tables().index;
    // Sixteen in each of more prefixes than there are pages.
    let all: Vec<Change> = (0..=249_u8)
        .flat_map(|net| (0..16_u8).map(move |last| (net, last)))
        .map(|(net, last)| (VniAddress::eip(Ipv4::new([net, net, net, last])), Some(Target::port(1))))
        .collect();
    index.apply(&all).unwrap();
    let (pages, in_use) = index.pages();
    assert!(index.scattered() > 0, "the {pages} pages are not enough");
    assert!(in_use < pages, "roots of VPCs are kept back");
    assert_eq!(index.entries().len(), all.len());
    index.root(4001).expect("a VPC always has its root");
}

#[test]
fn the_next_agent_finds_the_index_as_it_was_left() {
    let lab = Lab::new();
    let first = lab.start();
    let crowd =
        (0..20_u8).map(|last| (VniAddress::eip(Ipv4::new([203, 0, 113, last])), Some(Target::vip(1))));
    let alone = [(VniAddress::eip(Ipv4::new([198, 51, 100, 7])), Some(Target::port(2)))];
    first.tables().index.apply(&crowd.chain(alone).collect::<Vec<_>>()).unwrap();
    let entries = first.tables().index.entries();
    drop(first);
    let second = lab.start();
    assert_eq!(second.tables().index.entries(), entries);
    second.tables().index.apply(&[(VniAddress::eip(Ipv4::new([203, 0, 113, 1])), None)]).unwrap();
    assert_eq!(second.tables().index.entries().len(), entries.len() - 1);
}
