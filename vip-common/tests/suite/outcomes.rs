//! A verdict is one of three outcomes; drops are counted, what is not ours is left alone, and what is handled changes only in
//! the fields that handling it is about.

use std::collections::BTreeMap;

use proptest::prelude::*;
use vip_common::{
    DropReason,
    engine::{self, MemoryTables, Outcome},
    pipeline::{Stage, Verdict},
};

use crate::{
    cases,
    frame::{Reading, guest_frame, outside_frame, outside_packet, whole_guest_packet},
    rules::{ArpReading, is_eip},
    world::{SLOTS, any_world, ifindex, vip_address},
};

/// Whether a packet from EIP to EIP ended at the second hop, and what reached its sender is the error that tells it.
fn came_back_as_error(tables: &MemoryTables, frame: &[u8], outcome: &Outcome) -> bool {
    let expired = BTreeMap::from([(DropReason::TtlExpired.index(), 1)]);
    matches!(outcome.verdict, Verdict::Deliver { .. })
        && Reading::of(frame).is_some_and(|packet| is_eip(packet.destination))
        && *tables.drops.borrow() == expired
}

/// Whether a packet from EIP to EIP ended at the second hop, and the error that tells it found no interface of its sender.
fn was_told_in_vain(tables: &MemoryTables, frame: &[u8], outcome: &Outcome) -> bool {
    let gone = DropReason::NoInterface.index();
    outcome.verdict == Verdict::Drop(gone)
        && Reading::of(frame).is_some_and(|packet| is_eip(packet.destination))
        && *tables.drops.borrow() == BTreeMap::from([(DropReason::TtlExpired.index(), 1), (gone, 1)])
}

/// What holds for every verdict. `tables` are those that the frame alone ran through.
fn check(tables: &MemoryTables, frame: &[u8], outcome: &Outcome) -> Result<(), TestCaseError> {
    if came_back_as_error(tables, frame, outcome) {
        return check_returned(frame, outcome);
    }
    if was_told_in_vain(tables, frame, outcome) {
        return Ok(());
    }
    let mut drops = BTreeMap::new();
    match outcome.verdict {
        Verdict::NotOurs | Verdict::PassOn | Verdict::LeaveToTc | Verdict::Members { .. } => {
            prop_assert_eq!(&outcome.frame, frame, "{:?} leaves the bytes as they came", outcome.verdict);
        }
        Verdict::Drop(reason) | Verdict::Tell { reason, .. } => {
            prop_assert!((reason as usize) < DropReason::COUNT);
            drops.insert(reason, 1);
        }
        Verdict::Consumed
        | Verdict::Deliver { .. }
        | Verdict::DeliverFragments { .. }
        | Verdict::TunnelFragments { .. }
        | Verdict::Return
        | Verdict::Uplink { .. }
        | Verdict::ComeBack { .. }
        | Verdict::Resolve { .. } => {}
    }
    prop_assert_eq!(&*tables.drops.borrow(), &drops, "{:?}", outcome.verdict);
    let forwarded = matches!(
        outcome.verdict,
        Verdict::Deliver { .. }
            | Verdict::DeliverFragments { .. }
            | Verdict::TunnelFragments { .. }
            | Verdict::Uplink { .. }
            | Verdict::Resolve { .. }
    );
    // What went out for another EIP has left, whatever becomes of it there.
    let forwarded = forwarded || Reading::of(frame).is_some_and(|packet| is_eip(packet.destination));
    let is_counted = !tables.eip_traffic.borrow().is_empty() || !tables.vip_traffic.borrow().is_empty();
    prop_assert!(
        forwarded || !is_counted,
        "traffic counters count what was forwarded, not {:?}",
        outcome.verdict
    );
    match outcome.verdict {
        Verdict::Consumed | Verdict::Drop(_) => Ok(()),
        Verdict::Tell { .. } => check_quote(frame, outcome),
        _ => check_untouched(frame, outcome),
    }
}

/// An error goes back to the sender, from the MAC that it had sent to, and quotes the packet as it was, up to 576 bytes in all.
fn check_quote(frame: &[u8], outcome: &Outcome) -> Result<(), TestCaseError> {
    let (Some(packet), Some(error)) = (Reading::of(frame), Reading::of(&outcome.frame)) else {
        return Err(TestCaseError::fail("only packets are told of, by packets"));
    };
    prop_assert_eq!(&outcome.frame[..6], &frame[6..12]);
    prop_assert_eq!(&outcome.frame[6..12], &frame[..6]);
    prop_assert_eq!(error.destination, packet.source);
    prop_assert!(error.has_valid_header_checksum());
    prop_assert_eq!(error.has_valid_transport_checksum(), Some(true));
    let quote = &outcome.frame[42..];
    prop_assert!(outcome.frame.len() <= 14 + 576);
    prop_assert!(frame[14..].starts_with(quote), "the quote is the packet's start");
    prop_assert!(quote.len() >= 28.min(packet.start - 14 + packet.payload.len()));
    Ok(())
}

/// An error that comes back to a guest through the translation quotes the guest's own packet, one hop on its way.
fn check_returned(frame: &[u8], outcome: &Outcome) -> Result<(), TestCaseError> {
    let (Some(packet), Some(error)) = (Reading::of(frame), Reading::of(&outcome.frame)) else {
        return Err(TestCaseError::fail("only packets are told of, by packets"));
    };
    // What a member sends from a VIP is answered to its owner.
    let from_vip = (0..SLOTS).any(|slot| vip_address(slot) == packet.source);
    prop_assert!(error.to == packet.from || from_vip, "{:?} is told what {:?} sent", error.to, packet.from);
    prop_assert_eq!((error.source, error.destination), (packet.destination, packet.source));
    prop_assert!(error.has_valid_header_checksum());
    prop_assert_eq!(error.has_valid_transport_checksum(), Some(true));
    let mut quoted = frame[14..].to_vec();
    quoted[8] -= 1;
    let quote = &error.payload[8..];
    prop_assert!(quote.len() >= 20 && quote.len() <= quoted.len());
    for (at, (is, was)) in quote.iter().zip(&quoted).enumerate() {
        prop_assert!(is == was || (10..12).contains(&at), "byte {} of the quote", at);
    }
    Ok(())
}

/// Bytes outside the fields that the verdict is about are as they came.
fn check_untouched(frame: &[u8], outcome: &Outcome) -> Result<(), TestCaseError> {
    prop_assert_eq!(outcome.frame.len(), frame.len());
    let may_change = |at: usize| match (Reading::of(frame), ArpReading::of(frame)) {
        (Some(packet), _) => {
            let checksum = packet.checksum_at();
            let is_echo_type = outcome.verdict == Verdict::Return && at == packet.start;
            // MACs; TTL; header checksum and addresses.
            (0..12).contains(&at)
                || at == 22
                || (24..34).contains(&at)
                || checksum.is_some_and(|field| (field..field + 2).contains(&at))
                || is_echo_type
        }
        // An answer is made of the question; of a reply the sender's MAC may become the constant one.
        (_, Some(_)) if outcome.verdict == Verdict::Return => at < 42,
        (_, Some(_)) => (0..12).contains(&at) || (22..28).contains(&at),
        _ => false,
    };
    for (at, (before, after)) in frame.iter().zip(&outcome.frame).enumerate() {
        prop_assert!(before == after || may_change(at), "byte {} of {:?}", at, outcome.verdict);
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn every_frame_of_a_guest_has_one_outcome(world in any_world(), guest in guest_frame()) {
        let tables = world.tables();
        let outcome = engine::port(&tables, ifindex(guest.port), guest.tagged, &guest.bytes.0);
        check(&tables, &guest.bytes.0, &outcome)?;
    }

    #[test]
    fn every_frame_on_the_uplink_has_one_outcome(world in any_world(), frame in outside_frame(), tc in any::<bool>()) {
        let tables = world.tables();
        let outcome = engine::uplink(&tables, if tc { Stage::Tc } else { Stage::Xdp }, &frame.0);
        let is_for_ports_only = matches!(outcome.verdict, Verdict::Members { .. } | Verdict::PassOn);
        prop_assert!(!is_for_ports_only, "{:?}", outcome.verdict);
        prop_assert!(!tc || outcome.verdict != Verdict::LeaveToTc, "TC is the last one");
        check(&tables, &frame.0, &outcome)?;
    }

    #[test]
    fn valid_packets_of_guests_keep_valid_checksums(world in any_world(), (port, packet) in whole_guest_packet()) {
        let tables = world.tables();
        let outcome = engine::port(&tables, ifindex(port), false, &packet.bytes());
        if !came_back_as_error(&tables, &packet.bytes(), &outcome) {
            check_checksums(&packet.bytes(), &outcome)?;
        }
    }

    #[test]
    fn valid_packets_from_outside_keep_valid_checksums(world in any_world(), packet in outside_packet()) {
        let outcome = engine::uplink(&world.tables(), Stage::Tc, &packet.bytes());
        check_checksums(&packet.bytes(), &outcome)?;
    }

    #[test]
    fn what_xdp_leaves_to_tc_is_what_tc_alone_would_have_done(world in any_world(), packet in outside_packet()) {
        let (both, alone) = (world.tables(), world.tables());
        let mut outcome = engine::uplink(&both, Stage::Xdp, &packet.bytes());
        if outcome.verdict == Verdict::LeaveToTc {
            outcome = engine::uplink(&both, Stage::Tc, &outcome.frame);
        }
        prop_assert_eq!(outcome, engine::uplink(&alone, Stage::Tc, &packet.bytes()));
        prop_assert_eq!(&*both.drops.borrow(), &*alone.drops.borrow());
        prop_assert_eq!(&*both.eip_traffic.borrow(), &*alone.eip_traffic.borrow());
        prop_assert_eq!(&*both.vip_traffic.borrow(), &*alone.vip_traffic.borrow());
    }
}

fn check_checksums(frame: &[u8], outcome: &Outcome) -> Result<(), TestCaseError> {
    if matches!(outcome.verdict, Verdict::Tell { .. }) {
        return Ok(());
    }
    let (Some(before), Some(after)) = (Reading::of(frame), Reading::of(&outcome.frame)) else {
        return Err(TestCaseError::fail("a whole packet stays whole"));
    };
    prop_assert!(before.has_valid_header_checksum());
    prop_assert!(after.has_valid_header_checksum(), "{:?}", outcome.verdict);
    // Arbitrary payloads of protocols that carry a checksum may carry a wrong one: wrong it stays.
    prop_assert_eq!(
        before.has_valid_transport_checksum(),
        after.has_valid_transport_checksum(),
        "{:?}",
        outcome.verdict
    );
    Ok(())
}
