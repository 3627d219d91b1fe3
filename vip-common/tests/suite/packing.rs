//! Words and records of the tables: what goes in comes out, orders and sizes are those of the design, names fit the kernel.

use std::collections::HashSet;

use proptest::prelude::*;
use vip_common::{
    DropReason,
    tables::{
        AddressKind, AsideRecord, AsideTraffic, ClaimForm, Config, Count, Direction, EipNetwork, Event,
        EventKind, Grant, GrantKey, MOVES_PER_VIP, MacKey, Members, Meter, MeterClass, Move, NextHop,
        OwnerEntry, OwnerWord, Pending, PortEntry, PortFlags, Rights, RouteEntry, RouteKind, SubnetEntry,
        Target, Traffic, VipRecord, VniAddress, VridSet,
        index::Node,
        names,
        record::{CHUNK, LINE, Ports, Shape, Vips, VipsAside},
    },
    wire::{Ipv4, Mac},
};

use crate::cases;

const EPOCHS: u64 = 1 << 35;
const PORTS: u32 = 1 << 20;

fn any_word() -> impl Strategy<Value = OwnerWord> {
    (0..EPOCHS, any::<bool>(), 0..PORTS, any::<u8>())
        .prop_map(|(epoch, claimed, port, vrid)| OwnerWord::new(epoch, claimed, port, vrid))
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn an_owner_word_keeps_its_parts(
        epoch in 0..EPOCHS,
        claimed in any::<bool>(),
        port in 0..PORTS,
        vrid in any::<u8>(),
    ) {
        let word = OwnerWord::new(epoch, claimed, port, vrid);
        prop_assert_eq!((word.epoch(), word.claimed(), word.port(), word.vrid()), (epoch, claimed, port, vrid));
        prop_assert_eq!(word.0, epoch << 29 | u64::from(claimed) << 28 | u64::from(port) << 8 | u64::from(vrid));
        prop_assert_eq!(word.order(), word.0 >> 28);
    }

    #[test]
    fn owner_words_are_ordered_by_epoch_and_then_by_claim(left in any_word(), right in any_word()) {
        let parts = |word: OwnerWord| (word.epoch(), word.claimed());
        prop_assert_eq!(left.order().cmp(&right.order()), parts(left).cmp(&parts(right)));
    }

    #[test]
    fn a_move_to_another_port_is_one_epoch_later(
        epoch in 0..EPOCHS - 1,
        (was_claimed, claimed) in any::<(bool, bool)>(),
        (from, to) in (0..PORTS, 0..PORTS),
        (old_vrid, vrid) in any::<(u8, u8)>(),
    ) {
        let old = OwnerWord::new(epoch, was_claimed, from, old_vrid);
        let new = old.moved_to(to, vrid, claimed);
        prop_assert_eq!((new.port(), new.vrid()), (to, vrid));
        if from == to {
            prop_assert_eq!((new.epoch(), new.claimed()), (epoch, was_claimed || claimed));
        } else {
            prop_assert_eq!((new.epoch(), new.claimed()), (epoch + 1, claimed));
        }
        prop_assert!(new.order() >= old.order());
    }

    #[test]
    fn a_waiting_claim_keeps_its_parts_and_is_due_within_a_millisecond(
        port in 1..PORTS,
        vrid in any::<u8>(),
        form in prop::sample::select(ClaimForm::ALL),
        due in 0..1_u64 << 62,
    ) {
        let pending = Pending::new(port, vrid, form, due);
        prop_assert_eq!((pending.port(), pending.vrid(), pending.form()), (port, vrid, Some(form)));
        prop_assert_ne!(pending, Pending::NONE);
        prop_assert!(!pending.is_due(due), "never early");
        prop_assert!(pending.is_due(due + 1_000_000));
        // The stamp wraps after 49 days; half of them are the future.
        prop_assert!(pending.is_due(due + 1_000_000 + 24 * 86_400 * 1_000_000_000));
        prop_assert!(!pending.is_due(due.saturating_sub(24 * 86_400 * 1_000_000_000)));
    }

    #[test]
    fn a_target_is_what_it_was_made(number in 0..1_u32 << 29) {
        for kind in [
            AddressKind::Fixed(number),
            AddressKind::Vip(number),
            AddressKind::Gateway(number),
            AddressKind::ExternalGateway(number),
        ] {
            let target = Target::new(kind);
            prop_assert_eq!(target.kind(), Some(kind));
            prop_assert_eq!(Target::from_word(target.word()), target);
            prop_assert!(target.word() != 0);
        }
        prop_assert_eq!((Target::vip(number).as_vip(), Target::vip(number).as_port()), (Some(number), None));
        prop_assert_eq!((Target::port(number).as_vip(), Target::port(number).as_port()), (None, Some(number)));
    }

    #[test]
    fn records_share_no_byte(index in 0..1_u32 << 20, other in 0..1_u32 << 20, cpus in 1..200_u32) {
        prop_assume!(index != other);
        shares_no_byte::<Ports>(index, other, cpus)?;
        shares_no_byte::<Vips>(index, other, cpus)?;
        shares_no_byte::<VipsAside>(index, other, cpus)?;
    }

    #[test]
    fn moves_of_one_vip_share_no_index_with_those_of_another(slot in 0..1000_u32, epoch in 0..EPOCHS) {
        let index = Move::index(slot, epoch);
        prop_assert_eq!(index / MOVES_PER_VIP, slot);
        let distinct: HashSet<u32> =
            (epoch..epoch + u64::from(MOVES_PER_VIP)).map(|epoch| Move::index(slot, epoch)).collect();
        prop_assert_eq!(distinct.len(), MOVES_PER_VIP as usize, "the last moves are all kept");
    }

    #[test]
    fn a_set_of_vrids_has_what_was_inserted(inserted in prop::collection::hash_set(1..=u8::MAX, 0..20)) {
        let mut set = VridSet::default();
        let mut has = HashSet::new();
        for vrid in inserted {
            let is_in = set.insert(vrid);
            prop_assert_eq!(is_in, has.len() < VridSet::CAPACITY);
            if is_in {
                has.insert(vrid);
            }
        }
        for vrid in 0..=u8::MAX {
            prop_assert_eq!(set.contains(vrid), has.contains(&vrid));
        }
    }

    #[test]
    fn a_meter_admits_its_burst_and_then_its_rate(pauses in prop::collection::vec(0..20_000_000_u64, 1..200)) {
        let (mut meter, mut now, mut admitted) = (Meter::default(), 0, 0_u64);
        for pause in &pauses {
            now += pause;
            admitted += u64::from(meter.admit(MeterClass::Refusal, now));
            prop_assert!(admitted <= 64 + now / 10_000_000);
        }
        prop_assert_eq!(meter.lost, pauses.len() as u64 - admitted);
    }
}

#[test]
fn a_storm_of_refusals_is_cut_and_counted() {
    let mut meter = Meter::default();
    let admitted = (0..1000).filter(|_| meter.admit(MeterClass::Refusal, 5)).count();
    assert_eq!((admitted, meter.lost), (64, 936));
    assert!(meter.admit(MeterClass::Refusal, 5 + 10_000_000), "one more every ten milliseconds");
    assert!(!meter.admit(MeterClass::Refusal, 5 + 10_000_000));
}

#[test]
fn port_0_and_a_word_of_zeros_mean_nobody() {
    assert_eq!(OwnerWord::default().port(), 0);
    assert_eq!(OwnerWord::default().moved_to(3, 0, true), OwnerWord::new(1, true, 3, 0));
    assert_eq!(Pending::NONE.port(), 0);
    assert_eq!(OwnerEntry::default().pending, Pending::NONE);
}

#[test]
fn keys_and_values_have_the_sizes_of_the_layout() {
    assert_eq!((size_of::<OwnerWord>(), size_of::<Pending>(), size_of::<Target>()), (8, 8, 4));
    assert_eq!((size_of::<OwnerEntry>(), align_of::<OwnerEntry>()), (32, 8));
    assert_eq!((size_of::<VniAddress>(), size_of::<MacKey>(), size_of::<GrantKey>()), (8, 12, 8));
    assert_eq!((size_of::<VipRecord>(), size_of::<AsideRecord>()), (32, 16));
    assert_eq!((size_of::<Node>(), size_of::<Grant>()), (1024, 8));
    assert_eq!((size_of::<PortEntry>(), size_of::<Members>(), size_of::<Move>()), (64, 112, 32));
    assert_eq!((size_of::<SubnetEntry>(), size_of::<RouteEntry>(), size_of::<NextHop>()), (12, 8, 8));
    assert_eq!((size_of::<EipNetwork>(), size_of::<Config>(), size_of::<Event>()), (20, 40, 56));
    assert_eq!((size_of::<Traffic>(), size_of::<AsideTraffic>(), size_of::<Count>()), (32, 64, 16));
    assert_eq!(size_of::<Meter>(), 16);
}

#[test]
fn names_of_tables_fit_the_kernel_and_are_unique() {
    let all = [
        names::CONFIG,
        names::NODES,
        names::SCATTERED,
        names::MACS,
        names::GRANTS,
        names::VIPS,
        names::VIPS_ASIDE,
        names::MOVES,
        names::MEMBERS,
        names::PORTS,
        names::PORT_DEVS,
        names::IFPORTS,
        names::SUBNETS,
        names::ROUTES,
        names::HOSTS,
        names::VTEPS,
        names::VNIS,
        names::NEXTHOPS,
        names::NETWORKS,
        names::DROPS,
        names::METERS,
        names::EVENTS,
        names::VERDICTS,
        names::XMIT_ERRORS,
    ];
    assert!(all.iter().all(|name| !name.is_empty() && name.len() <= 15), "longer ones are cut silently");
    assert_eq!(HashSet::from(all).len(), all.len());
}

#[test]
fn drop_reasons_are_dense_and_their_names_unique() {
    assert_eq!(DropReason::COUNT, DropReason::ALL.len());
    for (number, reason) in (0_u32..).zip(DropReason::ALL) {
        assert_eq!(reason.index(), number, "{}", reason.name());
        assert!(
            reason
                .name()
                .chars()
                .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
        );
        assert!(reason.description().ends_with('.'), "{} is described by a sentence", reason.name());
    }
    let unique: HashSet<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(unique.len(), DropReason::COUNT);
}

#[test]
fn reasons_that_operators_know_keep_their_names() {
    for (reason, name) in [
        (DropReason::OwnerLoop, "owner_loop"),
        (DropReason::NoRoute, "no_route"),
        (DropReason::NoSuchAddress, "no_such_address"),
    ] {
        assert_eq!(reason.name(), name);
    }
}

#[test]
fn forms_of_claims_are_named_as_the_interface_names_them() {
    let names: Vec<_> = ClaimForm::ALL.iter().map(|form| form.name()).collect();
    let interface = [
        "garp_request",
        "garp_reply",
        "announcement",
        "arp",
        "data",
        "silent_owner",
        "vrrp",
        "peer",
        "state",
    ];
    assert_eq!(names, interface);
    for (number, form) in (0_u32..).zip(ClaimForm::ALL) {
        assert_eq!(form.number(), number);
        assert_eq!(ClaimForm::from_number(number), Some(*form));
        assert!(number < 16, "four bits of a waiting claim");
        assert_eq!(form.is_claim(), number < 3);
    }
    assert_eq!(ClaimForm::from_number(9), None);
}

#[test]
fn events_are_known_by_their_numbers() {
    for kind in [
        EventKind::Moved,
        EventKind::Damped,
        EventKind::Refused,
        EventKind::MemberUses,
        EventKind::OwnerAnswered,
        EventKind::Advertises,
        EventKind::Repeated,
    ] {
        assert_eq!(EventKind::from_number(kind as u32), Some(kind));
    }
    assert_eq!(EventKind::from_number(0), None);
    let event = Event { reason: DropReason::Unowned.index(), ..Event::default() };
    assert_eq!((event.kind(), event.reason()), (None, Some(DropReason::Unowned)));
    assert_eq!(Event { reason: u32::MAX, ..event }.reason(), None);
    assert_eq!(EventKind::Refused.class(), MeterClass::Refusal);
    assert_eq!(EventKind::Moved.class(), MeterClass::Ownership, "a storm of refusals never hides a move");
}

#[test]
fn rights_say_what_a_binding_allows() {
    let (own, source) = (Rights::OWN, Rights::SOURCE);
    let both = own.with(source);
    assert!(own.may_own() && own.may_source() && !own.is_real_server());
    assert!(!source.may_own() && source.may_source() && source.is_real_server());
    assert!(both.may_own() && both.may_source() && !both.is_real_server());
    let none = Rights::default();
    assert!(!none.may_own() && !none.may_source() && !none.is_real_server());
}

#[test]
fn a_grant_allows_its_vrids_and_never_vrid_0() {
    let grant = Grant { vrids: [66, 0, 7, 255], ..Grant::default() };
    for vrid in 0..=u8::MAX {
        assert_eq!(grant.allows_vrid(vrid), [66, 7, 255].contains(&vrid));
    }
}

#[test]
fn flags_of_ports_are_told_apart() {
    let flags = PortFlags::BYPASS.with(PortFlags::EXTERNAL_ROUTER);
    assert!(flags.has(PortFlags::BYPASS) && flags.has(PortFlags::EXTERNAL_ROUTER));
    assert!(!flags.has(PortFlags::BRIDGED) && !flags.has(PortFlags::TAKES_XDP));
    assert!(!flags.has(PortFlags::BYPASS.with(PortFlags::BRIDGED)), "all or not");
}

#[test]
fn routes_lead_where_they_were_made_to() {
    let gateway = Ipv4::new([198, 51, 100, 1]);
    for kind in [RouteKind::Gateway(gateway), RouteKind::OnLink, RouteKind::Local, RouteKind::Elsewhere] {
        assert_eq!(RouteEntry::new(kind).kind(), kind);
    }
    let network = EipNetwork {
        network: Ipv4::new([203, 0, 113, 0]),
        mask: Ipv4::new([255, 255, 255, 0]),
        gateway,
        ..EipNetwork::default()
    };
    let inside = Ipv4::new([203, 0, 113, 9]);
    assert_eq!(network.next_hop(inside), inside);
    assert_eq!(network.next_hop(Ipv4::new([192, 0, 2, 1])), gateway);
}

#[test]
fn trie_keys_begin_with_the_highest_bit_of_the_vni() {
    let [vni, address] = VniAddress { vni: 0x00ab_cdef, address: Ipv4::new([10, 0, 0, 1]) }.trie_key();
    assert_eq!(vni.to_ne_bytes(), [0, 0xab, 0xcd, 0xef]);
    assert_eq!(address.to_ne_bytes(), [10, 0, 0, 1]);
}

#[test]
fn keys_of_macs_differ_by_tenant() {
    let mac = Mac::new([2, 0, 0, 0, 0, 1]);
    assert_ne!(MacKey::new(1, mac), MacKey::new(2, mac));
    assert_eq!(MacKey::new(1, mac).zero, 0);
}

#[test]
fn traffic_is_counted_by_direction() {
    let mut traffic = Traffic::default();
    traffic.count(Direction::In, 100);
    traffic.count(Direction::Out, 60);
    traffic.count(Direction::Out, 60);
    let expected = Traffic { packets_in: 1, bytes_in: 100, packets_out: 2, bytes_out: 120 };
    assert_eq!(traffic, expected);
}

/// The bytes of a record, and the lines that each CPU writes, are apart from those of others.
fn shares_no_byte<S: Shape>(index: u32, other: u32, cpus: u32) -> Result<(), TestCaseError> {
    let (entry, counters) = (size_of::<S::Entry>(), size_of::<S::Counters>());
    let bytes = |index: u32| {
        let place = S::place(index);
        let element =
            (u64::from(place.chunk) << 40) | (u64::from(place.element) * u64::from(S::element_size(cpus)));
        let start = S::entry(place.lane);
        (0..cpus)
            .flat_map(|cpu| S::counters(place.lane, cpu)..S::counters(place.lane, cpu) + counters)
            .chain(start..start + entry)
            .map(|offset| element + offset as u64)
            .collect::<HashSet<u64>>()
    };
    let mine = bytes(index);
    prop_assert_eq!(mine.len(), entry + counters * cpus as usize);
    prop_assert!(mine.is_disjoint(&bytes(other)) && mine.is_disjoint(&bytes(index ^ 1)));
    let place = S::place(index);
    prop_assert!(S::counters(place.lane, cpus - 1) + counters <= S::element_size(cpus) as usize);
    prop_assert!(place.chunk < S::chunks(index + 1) && place.element < CHUNK && place.lane < S::LANES);
    let lines = |cpu: u32| {
        (0..S::LANES).flat_map(move |lane| {
            let start = S::counters(lane, cpu);
            start / LINE..(start + counters).div_ceil(LINE)
        })
    };
    let first: HashSet<usize> = lines(0).collect();
    prop_assert!(cpus == 1 || lines(1).all(|line| !first.contains(&line)));
    Ok(())
}
