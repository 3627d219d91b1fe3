//! When a VIP changes hands: rules 1 and 2, and the epoch.

use proptest::{collection::vec, prelude::*};
use vip_common::{
    DropReason,
    engine::{self, MemoryTables},
    pipeline::{Stage, Verdict, present_owner},
    tables::{
        ClaimForm, DAMPING_BURST, DAMPING_INTERVAL_NS, Event, EventKind, GrantKey, OwnerEntry, OwnerWord,
        Pending,
    },
    wire::{Ipv4, Mac, Protocol, VRRP_GROUP},
};

use crate::{
    cases,
    frame::{ArpFrame, GuestFrame, Ipv4Frame, ethernet, guest_frame, udp, vrrp},
    rules::{ArpReading, Speaker, owner_entry, teaches},
    world::{self, SECOND, SLOTS, World, any_world, gateway, ifindex, port_address, port_mac, vip_address},
};

/// Runs a guest's frame and holds every change of OWNERS against rules 1 to 3.
fn run_and_check(world: &World, tables: &MemoryTables, guest: &GuestFrame) -> Result<(), TestCaseError> {
    let speaker = Speaker::new(world, guest.port);
    let frame = &guest.bytes.0;
    let before: Vec<OwnerEntry> = (0..SLOTS).map(|slot| owner_entry(tables, slot)).collect();
    tables.moves.borrow_mut().clear();
    let outcome = engine::port(tables, ifindex(guest.port), guest.tagged, frame);
    let now = tables.now.get();
    let mut moves = 0;
    for (slot, before) in (0..SLOTS).zip(before) {
        let after = owner_entry(tables, slot);
        let (old, new) = (before.word, after.word);
        let claims = !guest.tagged && ArpReading::of(frame).is_some_and(|arp| arp.claims(speaker, slot));
        let is_damped = old.port() != 0
            && old.port() != guest.port
            && before.damped_until > now + (DAMPING_BURST - 1) * DAMPING_INTERVAL_NS;
        if claims {
            prop_assert!(matches!(outcome.verdict, Verdict::Consumed | Verdict::PassOn));
            let expected = if is_damped { old.port() } else { guest.port };
            prop_assert_eq!(new.port(), expected, "an undamped claim takes the VIP on its own packet");
            let waits = if is_damped { guest.port } else { 0 };
            prop_assert_eq!(
                after.pending.port(),
                waits,
                "a newer claim replaces or clears the one that waits"
            );
            prop_assert!(is_damped || new.claimed());
        }
        prop_assert_eq!(new.epoch() - old.epoch(), u64::from(new.port() != old.port()));
        prop_assert!(new.order() >= old.order());
        if new.port() == old.port() {
            continue;
        }
        moves += 1;
        prop_assert!(new.port() != 0, "no packet takes a VIP from everybody");
        prop_assert!(world.may_own(new.port(), slot));
        let was_due = before.pending != Pending::NONE
            && before.pending.is_due(now)
            && new.port() == before.pending.port();
        let was_learned =
            old.port() == 0 && new.port() == guest.port && !guest.tagged && teaches(speaker, frame, slot);
        prop_assert!(claims || was_due || was_learned, "{:?} became {:?}", old, new);
        let last = tables.moves.borrow().values().copied().find(|record| record.epoch == new.epoch());
        let last = last.expect("a move is recorded");
        prop_assert_eq!((last.port, last.previous, last.at), (new.port(), old.port(), now));
    }
    prop_assert_eq!(tables.moves.borrow().len(), moves);
    Ok(())
}

proptest! {
    #![proptest_config(cases(600))]

    #[test]
    fn owners_change_by_the_rules_only(
        world in any_world(),
        frames in vec((guest_frame(), 0..2 * SECOND), 1..12),
    ) {
        let tables = world.tables();
        for (guest, pause) in frames {
            run_and_check(&world, &tables, &guest)?;
            tables.now.set(tables.now.get() + pause);
        }
    }
}

/// A world in which ports 1 and 2 may own VIP 0 with VRID 66, port 3 may not; port 1 owns it.
fn two_members() -> World {
    let mut world = World::default();
    let vip = world.vip_mut(0);
    vip.rights = [1, 1, 0];
    vip.vrids = vec![66];
    world
}

fn run(tables: &MemoryTables, port: u32, frame: &[u8]) -> Verdict {
    engine::port(tables, ifindex(port), false, frame).verdict
}

fn owner(tables: &MemoryTables) -> (u32, u64, bool, u8) {
    let word = owner_entry(tables, 0).word;
    (word.port(), word.epoch(), word.claimed(), word.vrid())
}

#[test]
fn every_form_of_announcement_moves_the_vip_and_is_seen_by_nobody() {
    let vip = vip_address(0);
    let garp = ArpFrame::garp(port_mac(2), vip);
    for (form, frame) in [
        (ClaimForm::GarpRequest, garp),
        (ClaimForm::GarpReply, ArpFrame { operation: 2, ..garp }),
        (ClaimForm::Announcement, ArpFrame::question((port_mac(2), vip), vip)),
    ] {
        let tables = two_members().tables();
        assert_eq!(run(&tables, 2, &frame.bytes()), Verdict::Consumed);
        assert_eq!(owner(&tables), (2, 2, true, 0));
        let events = tables.events.borrow();
        let event = events.first().expect("the agent hears of it");
        assert_eq!((event.kind(), event.slot, event.port), (Some(EventKind::Moved), 0, 2));
        assert_eq!((event.previous, event.epoch, event.form), (1, 2, form.number()));
    }
}

#[test]
fn an_accepted_claim_on_a_bridge_goes_on_unchanged_and_a_damped_one_does_not() {
    let mut world = two_members();
    world.port_mut(2).bridged = true;
    let frame = ArpFrame::garp(port_mac(2), vip_address(0)).bytes();
    assert_eq!(run(&world.tables(), 2, &frame), Verdict::PassOn);
    world.vip_mut(0).damped = 8 * SECOND;
    let tables = world.tables();
    assert_eq!(run(&tables, 2, &frame), Verdict::Consumed);
    assert_eq!(owner(&tables), (1, 1, true, 0));
}

#[test]
fn a_virtual_router_mac_claims_where_its_vrid_is_allowed_only() {
    let claim = |vrid| ArpFrame::garp(Mac::of_vrid(vrid), vip_address(0));
    let tables = two_members().tables();
    assert_eq!(run(&tables, 2, &claim(66).bytes()), Verdict::Consumed);
    assert_eq!(owner(&tables), (2, 2, true, 66));
    // Sent with the port's own MAC around it, as `vmac_xmit_base` does.
    let tables = two_members().tables();
    let frame = ArpFrame { from: port_mac(2), ..claim(66) };
    assert_eq!(run(&tables, 2, &frame.bytes()), Verdict::Consumed);
    assert_eq!(owner(&tables), (2, 2, true, 66));
    let tables = two_members().tables();
    assert_eq!(run(&tables, 2, &claim(67).bytes()), Verdict::Drop(DropReason::SourceMac.index()));
    assert_eq!(owner(&tables), (1, 1, true, 0));
}

#[test]
fn a_vrid_of_another_vip_does_not_claim_this_one() {
    let mut world = two_members();
    world.vips[1] = Some(world::VipSpec { rights: [0, 1, 0], vrids: vec![67], ..world::VipSpec::default() });
    let tables = world.tables();
    let frame = ArpFrame { from: port_mac(2), ..ArpFrame::garp(Mac::of_vrid(67), vip_address(0)) };
    assert_eq!(run(&tables, 2, &frame.bytes()), Verdict::Drop(DropReason::ArpSenderMac.index()));
    assert_eq!(owner(&tables), (1, 1, true, 0));
}

#[test]
fn a_repeated_claim_changes_nothing_and_is_no_event() {
    let tables = two_members().tables();
    let frame = ArpFrame::garp(port_mac(1), vip_address(0)).bytes();
    for _ in 0..20 {
        assert_eq!(run(&tables, 1, &frame), Verdict::Consumed);
    }
    assert_eq!(owner(&tables), (1, 1, true, 0));
    assert!(tables.events.borrow().is_empty() && tables.moves.borrow().is_empty());
}

#[test]
fn the_owner_that_was_learned_becomes_the_one_that_claimed_without_a_new_epoch() {
    let mut world = two_members();
    world.vip_mut(0).claimed = false;
    let tables = world.tables();
    assert_eq!(owner(&tables), (1, 1, false, 0));
    let _ = run(&tables, 1, &ArpFrame::garp(port_mac(1), vip_address(0)).bytes());
    assert_eq!(owner(&tables), (1, 1, true, 0));
}

#[test]
fn a_probe_goes_to_the_owner_and_never_claims() {
    let probe = |port| ArpFrame::question((port_mac(port), Ipv4::UNSPECIFIED), vip_address(0)).bytes();
    let tables = two_members().tables();
    assert_eq!(run(&tables, 2, &probe(2)), Verdict::Deliver { port: 1, ifindex: ifindex(1) });
    assert_eq!(run(&tables, 1, &probe(1)), Verdict::Consumed, "the owner never hears itself");
    assert_eq!(run(&tables, 3, &probe(3)), Verdict::Drop(DropReason::ProbeNotMember.index()));
    assert_eq!(owner(&tables), (1, 1, true, 0));
    let mut world = two_members();
    world.vip_mut(0).owner = None;
    let tables = world.tables();
    assert_eq!(run(&tables, 2, &probe(2)), Verdict::Consumed);
    assert_eq!(owner(&tables).0, 0, "not even an unowned VIP");
}

#[test]
fn rarp_never_claims() {
    let tables = two_members().tables();
    let mut frame = ArpFrame { operation: 3, ..ArpFrame::garp(port_mac(2), vip_address(0)) }.bytes();
    frame[12..14].copy_from_slice(&[0x80, 0x35]);
    assert_eq!(run(&tables, 2, &frame), Verdict::NotOurs);
    assert_eq!(owner(&tables), (1, 1, true, 0));
}

#[test]
fn a_reply_to_somebodys_question_never_claims() {
    let tables = two_members().tables();
    let reply = |port| ArpFrame {
        to: port_mac(3),
        from: port_mac(port),
        operation: 2,
        sender: (port_mac(port), vip_address(0)),
        target: (port_mac(3), port_address(3)),
    };
    assert_eq!(run(&tables, 2, &reply(2).bytes()), Verdict::Drop(DropReason::ArpNotOwner.index()));
    assert_eq!(owner(&tables), (1, 1, true, 0));
    // The owner's own reply is heard, with the constant MAC.
    let outcome = engine::port(&tables, ifindex(1), false, &reply(1).bytes());
    assert_eq!(outcome.verdict, Verdict::Deliver { port: 3, ifindex: ifindex(3) });
    let heard = ArpReading::of(&outcome.frame).expect("an ARP packet");
    assert_eq!(heard.sender_mac, Mac::of_address(vip_address(0)));
    assert_eq!((heard.from, heard.to), (Mac::of_address(vip_address(0)), port_mac(3)));
}

#[test]
fn the_owners_answer_to_the_agent_is_told_and_seen_by_nobody() {
    let tables = two_members().tables();
    let constant = Mac::of_address(vip_address(0));
    let answer = ArpFrame {
        to: constant,
        from: port_mac(1),
        operation: 2,
        sender: (port_mac(1), vip_address(0)),
        target: (constant, gateway(0)),
    };
    assert_eq!(run(&tables, 1, &answer.bytes()), Verdict::Consumed);
    assert_eq!(tables.events.borrow().first().and_then(Event::kind), Some(EventKind::OwnerAnswered));
}

#[test]
fn ordinary_use_lets_an_unowned_vip_be_learned_and_moves_no_owned_one() {
    let vip = vip_address(0);
    let question = ArpFrame::question((port_mac(2), vip), port_address(3)).bytes();
    let data = Ipv4Frame::new((port_mac(2), vip), (port_mac(3), port_address(3)), udp(1, 2, b"x")).bytes();
    for (form, frame) in [(ClaimForm::Arp, &question), (ClaimForm::Data, &data)] {
        let mut world = two_members();
        let tables = world.tables();
        let _ = run(&tables, 2, frame);
        assert_eq!(owner(&tables), (1, 1, true, 0));
        let uses: Vec<_> = tables.events.borrow().iter().map(Event::kind).collect();
        assert_eq!(uses, [Some(EventKind::MemberUses)], "but the agent hears of it");
        world.vip_mut(0).owner = None;
        let tables = world.tables();
        let _ = run(&tables, 2, frame);
        assert_eq!(owner(&tables), (2, 2, false, 0));
        assert_eq!(tables.moves.borrow().values().next().map(|last| last.form), Some(form.number()));
    }
}

#[test]
fn a_real_servers_packet_from_the_vip_teaches_nothing() {
    let mut world = two_members();
    world.vip_mut(0).rights = [1, 2, 0];
    world.vip_mut(0).owner = None;
    let tables = world.tables();
    let data = Ipv4Frame::new((port_mac(2), vip_address(0)), (port_mac(3), port_address(3)), udp(1, 2, b"x"));
    assert_eq!(run(&tables, 2, &data.bytes()), Verdict::Deliver { port: 3, ifindex: ifindex(3) });
    assert_eq!(owner(&tables).0, 0);
    assert!(tables.events.borrow().is_empty());
}

#[test]
fn each_malformation_of_a_claim_is_refused() {
    let good = ArpFrame::garp(port_mac(2), vip_address(0)).bytes();
    let malformed = Verdict::Drop(DropReason::ArpMalformed.index());
    for (what, at, value, expected) in [
        ("hardware type", 15, 6, malformed),
        ("protocol type", 16, 0x86, malformed),
        ("hardware length", 18, 8, malformed),
        ("protocol length", 19, 16, malformed),
        ("operation", 21, 3, malformed),
        ("group sender MAC", 22, 3, malformed),
        ("group sender address", 28, 224, malformed),
        ("foreign sender MAC", 27, 0x77, Verdict::Drop(DropReason::ArpSenderMac.index())),
        ("foreign Ethernet source", 11, 0x77, Verdict::Drop(DropReason::SourceMac.index())),
    ] {
        let tables = two_members().tables();
        let mut bent = good.clone();
        bent[at] = value;
        assert_eq!(run(&tables, 2, &bent), expected, "{what}");
        assert_eq!(owner(&tables), (1, 1, true, 0), "{what}");
    }
    for (what, range) in [("zero sender MAC", 22..28), ("zero Ethernet source", 6..12)] {
        let tables = two_members().tables();
        let mut bent = good.clone();
        bent[range].fill(0);
        assert!(matches!(run(&tables, 2, &bent), Verdict::Drop(_)), "{what}");
        assert_eq!(owner(&tables), (1, 1, true, 0), "{what}");
    }
    for length in 14..good.len() {
        let tables = two_members().tables();
        let truncated = Verdict::Drop(DropReason::FrameTruncated.index());
        assert_eq!(run(&tables, 2, &good[..length]), truncated, "{length} bytes");
        assert_eq!(owner(&tables), (1, 1, true, 0));
    }
}

#[test]
fn a_waiting_claim_ends_with_the_right_of_its_port() {
    let mut world = two_members();
    world.vip_mut(0).waiting = Some((1, -5));
    let mut tables = world.tables();
    tables.grants.remove(&GrantKey { port: 2, slot: 0 });
    let _ = present_owner(&&tables, 0);
    assert_eq!(owner(&tables), (1, 1, true, 0));
    assert_eq!(owner_entry(&tables, 0).pending, Pending::NONE);
}

#[test]
fn a_packet_from_outside_takes_a_claim_that_is_due_and_goes_to_the_new_owner() {
    let mut world = two_members();
    world.vip_mut(0).waiting = Some((1, -5));
    let tables = world.tables();
    let packet = Ipv4Frame::new(
        (world::NEIGHBOUR_MAC, world::CLIENT),
        (world::UPLINK_MAC, world::vip_eip(0)),
        udp(1, 2, b"x"),
    );
    let outcome = engine::uplink(&tables, Stage::Tc, &packet.bytes());
    assert_eq!(outcome.verdict, Verdict::Deliver { port: 2, ifindex: ifindex(2) });
    assert_eq!(owner(&tables), (2, 2, true, 66 * u8::from(world.vip_mut(0).by_vrid)));
}

#[test]
fn refusals_are_told_with_their_reason() {
    let tables = two_members().tables();
    let frame = ArpFrame::garp(port_mac(3), vip_address(0)).bytes();
    assert_eq!(run(&tables, 3, &frame), Verdict::Drop(DropReason::ClaimNotMember.index()));
    let events = tables.events.borrow();
    let event = events.first().expect("the agent hears of it");
    assert_eq!((event.kind(), event.port), (Some(EventKind::Refused), 3));
    assert_eq!(event.reason(), Some(DropReason::ClaimNotMember));
    assert_eq!((event.address, event.mac, event.vni), (vip_address(0), port_mac(3), 4001));
}

#[test]
fn a_claim_of_the_largest_epoch_that_is_ever_reached_keeps_its_order() {
    let tables = two_members().tables();
    let word = OwnerWord::new((1 << 35) - 2, true, 1, 0);
    tables.vips[&0].update(|entry| entry.word = word);
    let _ = run(&tables, 2, &ArpFrame::garp(port_mac(2), vip_address(0)).bytes());
    assert_eq!(owner(&tables), (2, (1 << 35) - 1, true, 0));
    assert!(owner_entry(&tables, 0).word.order() > word.order());
}

#[test]
fn an_advertisement_is_no_claim() {
    let tables = two_members().tables();
    let group = (Mac::new([1, 0, 0x5e, 0, 0, 18]), VRRP_GROUP);
    let advert = Ipv4Frame {
        ttl: 255,
        ..Ipv4Frame::new((port_mac(2), port_address(2)), group, vrrp(66, &[vip_address(0)]))
    };
    assert_eq!(advert.protocol, Protocol::VRRP);
    let outcome = engine::port(&tables, ifindex(2), false, &advert.bytes());
    assert_eq!(outcome.verdict, Verdict::Members { slot: 0, sender: 2 });
    assert_eq!(outcome.receivers, [ifindex(1)]);
    assert_eq!(owner(&tables), (1, 1, true, 0));
}

#[test]
fn an_ethernet_header_alone_is_not_a_claim() {
    let tables = two_members().tables();
    let frame = ethernet(Mac::BROADCAST, port_mac(2), 0x0806);
    assert_eq!(run(&tables, 2, &frame), Verdict::Drop(DropReason::FrameTruncated.index()));
}
