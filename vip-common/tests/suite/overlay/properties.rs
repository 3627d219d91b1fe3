//! What holds for every frame between hosts, whatever the state is.

use proptest::{collection::vec, prelude::*, sample::select};
use vip_common::{
    DropReason,
    engine::{self, MemoryTables, Outcome},
    pipeline::{Stage, Verdict},
    tables::OwnerWord,
    wire::Mac,
};

use super::{
    Cluster, End, FRESH, ONWARD, Opened, VXLAN, Wrapped, is_gateway_mac, is_vtep, on_one_host, opened,
    receives_by, tunnelled,
};
use crate::{
    cases,
    frame::{
        Bytes, GuestFrame, Ipv4Frame, Reading, any_address, any_mac, bent, guest_frame, outside_packet,
        whole_guest_packet,
    },
    rules::{ArpReading, is_eip},
    world::{
        CLIENT, HOST_ADDRESS, HOSTS, VNIS, World, any_overlay_world, any_stale_tables, host_mac, ifindex,
        subnet_of_port, vni_of, vtep,
    },
};

fn words(tables: &MemoryTables) -> Vec<(u32, OwnerWord)> {
    tables.vips.iter().map(|(slot, cell)| (*slot, cell.get().word)).collect()
}

/// Whether ARP says something of which the tables know nothing, which no other host believes, so that it does not leave its own: a guest
/// whose check is off, about an address that is not listed; or a port that says it is at a virtual router MAC.
fn is_hearsay(world: &World, port: u32, frame: &[u8]) -> bool {
    ArpReading::of(frame).is_some_and(|arp| {
        let vni = vni_of(subnet_of_port(port));
        let is_listed = world.slot_at(vni, arp.sender).is_some() || World::port_at(vni, arp.sender).is_some();
        arp.operation == 2 && (!is_listed || arp.sender_mac.vrid().is_some())
    })
}

/// That hosts together do with a frame what one host would have done.
fn check_as_one(alone: &Outcome, ends: &[End], frame: &[u8]) -> Result<(), TestCaseError> {
    if matches!(alone.verdict, Verdict::Members { .. }) {
        let mut receivers: Vec<u32> = Vec::new();
        for end in ends {
            prop_assert!(matches!(end.outcome.verdict, Verdict::Members { .. }), "{:?}", end);
            receivers.extend(&end.outcome.receivers);
        }
        let mut expected = alone.receivers.clone();
        expected.sort_unstable();
        receivers.sort_unstable();
        prop_assert_eq!(receivers, expected, "each member once, wherever it is");
        return Ok(());
    }
    prop_assert_eq!(ends.len(), 1);
    let End { outcome, hops, .. } = &ends[0];
    prop_assert!(*hops <= 1, "tables that agree need no second hop");
    if alone.verdict == Verdict::Drop(DropReason::NoInterface.index()) {
        // Only the port's own host knows that it has no interface, and it may find another reason first.
        prop_assert!(!matches!(outcome.verdict, Verdict::Deliver { .. }), "{:?}", outcome.verdict);
        return Ok(());
    }
    prop_assert_eq!(outcome.verdict, alone.verdict, "of {:?}", Bytes(frame.to_vec()));
    if !matches!(alone.verdict, Verdict::Drop(_) | Verdict::Consumed) {
        prop_assert_eq!(Bytes(outcome.frame.clone()), Bytes(alone.frame.clone()));
    }
    Ok(())
}

/// Frames inside VXLAN: of guests, and of nobody.
fn inner() -> BoxedStrategy<Vec<u8>> {
    let packet = whole_guest_packet().prop_map(|(_, packet)| packet.bytes());
    prop_oneof![
        4 => packet,
        6 => guest_frame().prop_map(|guest: GuestFrame| guest.bytes.0),
        1 => vec(any::<u8>(), 0..100),
    ]
    .boxed()
}

/// Frames in VXLAN, nearly all of them as a host sends them.
fn any_wrapped() -> BoxedStrategy<Wrapped> {
    let hosts = (
        prop_oneof![14 => select(vec![vtep(2), vtep(3)]), 1 => select(vec![vtep(1), HOST_ADDRESS, CLIENT])],
        prop_oneof![14 => Just(vtep(1)), 1 => any_address()],
        prop_oneof![14 => Just(host_mac(1)), 1 => any_mac()],
    );
    let ports = (
        prop_oneof![4 => Just(FRESH), 3 => Just(ONWARD), 1 => any::<u16>()],
        prop_oneof![14 => Just(VXLAN), 1 => any::<u16>()],
    );
    let header = (
        prop_oneof![14 => Just(8_u8), 1 => any::<u8>()],
        prop_oneof![14 => select(VNIS.to_vec()), 1 => select(vec![0, 4999, 0xff_ffff])],
    );
    let shape = prop_oneof![
        20 => Just((Ipv4Frame::DONT_FRAGMENT, 0)),
        1 => Just((0, 0)),
        1 => (select(vec![0x2000_u16, 0x2001, 5]), Just(0_u8)),
        1 => (Just(0_u16), 1..=10_u8),
    ];
    (hosts, ports, header, shape, inner())
        .prop_map(|((from, to, mac), ports, (flags, vni), (fragment, option_words), inner)| {
            let plain = Wrapped::new(2, 1, vni, inner);
            let outer =
                Ipv4Frame { source: from, destination: to, to: mac, fragment, option_words, ..plain.outer };
            Wrapped { outer, ports, flags, ..plain }
        })
        .boxed()
}

/// What a host is told through VXLAN, for tables of the first host.
fn received(tables: &MemoryTables, stage: Stage, frame: &[u8]) -> Outcome {
    engine::uplink(tables, stage, frame)
}

/// Whether a frame in VXLAN is to a gateway: what becomes of it is [`far_end`](super::far_end)'s matter.
fn is_to_gateway(wrapped: &Wrapped) -> bool {
    Reading::of(&wrapped.inner).is_some_and(|packet| is_gateway_mac(packet.to))
}

fn drops(tables: &MemoryTables) -> Vec<(u32, u64)> {
    tables.drops.borrow().iter().map(|(reason, packets)| (*reason, *packets)).collect()
}

proptest! {
    #![proptest_config(cases(2500))]

    #[test]
    fn guests_on_several_hosts_are_served_as_on_one(world in any_overlay_world(), guest in guest_frame()) {
        let (port, frame) = (guest.port, &guest.bytes.0);
        let here = world.place(port);
        let tables = on_one_host(&world, here);
        let alone = engine::port(&tables, ifindex(port), guest.tagged, frame);
        let cluster = Cluster::of(&world);
        let before: Vec<_> = (1..=HOSTS).map(|host| words(cluster.at(host))).collect();
        let ends = cluster.port_by(here, port, guest.tagged, frame);
        if is_hearsay(&world, port, frame) && matches!(alone.verdict, Verdict::Deliver { port, .. } if world.place(port) != here) {
            prop_assert_eq!((ends.len(), ends[0].hops), (1, 0));
            let Verdict::Drop(reason) = ends[0].outcome.verdict else {
                return Err(TestCaseError::fail(format!("{:?}", ends[0])));
            };
            let reasons = [DropReason::ArpForeignSender, DropReason::ArpSenderMac];
            prop_assert!(reasons.map(DropReason::index).contains(&reason), "{}", reason);
        } else {
            check_as_one(&alone, &ends, frame)?;
        }
        prop_assert_eq!(words(cluster.at(here)), words(&tables), "a claim counts as on one host");
        for host in (1..=HOSTS).filter(|host| *host != here) {
            prop_assert_eq!(&words(cluster.at(host)), &before[host as usize - 1], "and on no other");
        }
    }

    #[test]
    fn a_packet_to_an_eip_may_come_in_anywhere(
        world in any_overlay_world(),
        packet in outside_packet(),
        host in 1..=HOSTS,
    ) {
        let packet = Ipv4Frame { to: host_mac(host), ..packet };
        let frame = packet.bytes();
        let alone_tables = on_one_host(&world, host);
        let alone = engine::uplink(&alone_tables, Stage::Tc, &frame);
        let cluster = Cluster::of(&world);
        let ends = cluster.uplink(host, &frame);
        // XDP returns what TC sends to where it came from.
        check_as_one(&alone, &ends, &frame)?;
        if alone.verdict != Verdict::Drop(DropReason::NoInterface.index()) {
            // Only the port's own host knows that it has no interface.
            prop_assert_eq!(&*cluster.at(host).eip_traffic.borrow(), &*alone_tables.eip_traffic.borrow());
        }
        for other in (1..=HOSTS).filter(|other| *other != host) {
            prop_assert!(cluster.at(other).eip_traffic.borrow().is_empty(), "it counts where it came in");
        }
    }

    #[test]
    fn what_leaves_for_another_host_is_vxlan_of_the_receivers_vpc(
        world in any_overlay_world(),
        (port, packet) in whole_guest_packet(),
    ) {
        let here = world.place(port);
        let cluster = Cluster::of(&world);
        let outcome = engine::port(cluster.at(here), ifindex(port), false, &packet.bytes());
        for (to, frame) in tunnelled(here, &outcome) {
            let is = opened(&frame, here, to);
            prop_assert!(is.is_fresh());
            let ends = cluster.uplink(to, &frame);
            for end in ends {
                if let Verdict::Deliver { port: receiver, ifindex: interface } = end.outcome.verdict {
                    prop_assert_eq!((world.place(receiver), interface), (to, ifindex(receiver)));
                    prop_assert_eq!(is.vni(), vni_of(subnet_of_port(receiver)));
                    // But for the receiver's MAC, which its own host knows best.
                    prop_assert_eq!(&end.outcome.frame[6..], &is.inner[6..]);
                    let after = Reading::of(&end.outcome.frame).expect("a whole packet");
                    prop_assert!(receives_by(after.to, receiver));
                    let to_vip = Mac::of_address(after.destination) == Reading::of(is.inner).expect("a packet").to;
                    prop_assert!(to_vip || is.inner[..6] == end.outcome.frame[..6] || is.inner[..2] == [6, 0x56]);
                }
            }
        }
    }

    #[test]
    fn no_guest_reaches_a_vtep_or_sends_from_one(
        world in any_overlay_world(),
        (port, packet) in whole_guest_packet(),
        to_host in prop::option::of(1..=HOSTS),
        from_host in prop::option::weighted(0.3, 1..=HOSTS),
        tagged in any::<bool>(),
    ) {
        let mut packet = packet;
        if let Some(host) = to_host {
            packet.destination = vtep(host);
        }
        if let Some(host) = from_host {
            packet.source = vtep(host);
        }
        if to_host.is_none() && from_host.is_none() {
            return Ok(());
        }
        let here = world.place(port);
        let cluster = Cluster::of(&world);
        let outcome = engine::port(cluster.at(here), ifindex(port), tagged, &packet.bytes());
        let leaves = matches!(
            outcome.verdict,
            Verdict::NotOurs | Verdict::PassOn | Verdict::Uplink { .. } | Verdict::Resolve { .. }
        );
        if leaves && tunnelled(here, &outcome).is_empty() {
            let after = Reading::of(&outcome.frame).expect("a whole packet");
            prop_assert!(!is_vtep(after.destination), "{:?} to a VTEP", outcome.verdict);
            prop_assert!(!is_vtep(after.source), "{:?} from a VTEP", outcome.verdict);
        }
        for end in cluster.port_by(here, port, tagged, &packet.bytes()) {
            if let Verdict::Deliver { port: receiver, .. } = end.outcome.verdict {
                // A neighbour whose own check is off may be sent anything; it gets no further.
                let takes_all = world.port(receiver).bypass;
                prop_assert!(takes_all || !is_vtep(Reading::of(&end.outcome.frame).expect("a packet").destination));
            }
        }
    }

    #[test]
    fn what_comes_through_vxlan_reaches_ports_of_that_vpc_only(world in any_overlay_world(), wrapped in any_wrapped()) {
        let tables = world.tables();
        let frame = wrapped.bytes();
        let outcome = received(&tables, Stage::Tc, &frame);
        if let Verdict::Deliver { port, ifindex: interface } = outcome.verdict
            && !is_eip(wrapped.outer.destination)
            && !is_to_gateway(&wrapped)
        {
            prop_assert_eq!((world.place(port), interface), (1, ifindex(port)), "on this host");
            prop_assert_eq!(vni_of(subnet_of_port(port)), wrapped.vni);
            prop_assert_eq!(&outcome.frame[6..], &wrapped.inner[6..], "nothing but the receiver's MAC changes");
            prop_assert!([vtep(2), vtep(3)].contains(&wrapped.outer.source), "from a host");
            prop_assert_eq!((wrapped.outer.destination, wrapped.outer.to), (vtep(1), host_mac(1)));
        }
        let ports_of_vpc = |interface: &u32| vni_of(subnet_of_port(*interface - 100)) == wrapped.vni;
        prop_assert!(outcome.receivers.iter().all(ports_of_vpc), "{:?}", outcome.receivers);
        prop_assert!(outcome.tunnelled.is_empty(), "what came through a tunnel is not spread through tunnels");
    }

    #[test]
    fn nobody_gains_an_address_through_vxlan(world in any_overlay_world(), wrapped in any_wrapped()) {
        let tables = world.tables();
        let before = words(&tables);
        let outcome = received(&tables, Stage::Tc, &wrapped.bytes());
        prop_assert_eq!(words(&tables), before);
        prop_assert!(tables.events.borrow().is_empty() && tables.moves.borrow().is_empty());
        // Nor does a guest hear such a thing.
        if let (Verdict::Deliver { .. }, Some(arp)) = (outcome.verdict, ArpReading::of(&outcome.frame)) {
            let vni = wrapped.vni;
            prop_assert!(arp.sender != arp.target);
            let holder = World::port_at(vni, arp.sender).map(crate::world::port_mac);
            let vip = world.slot_at(vni, arp.sender).map(|_| Mac::of_address(arp.sender));
            let truth = if arp.sender.is_unspecified() && arp.operation == 1 { Some(arp.sender_mac) } else { holder.or(vip) };
            prop_assert_eq!(Some(arp.sender_mac), truth, "what the tables know of {}", arp.sender);
        }
    }

    #[test]
    fn a_frame_is_sent_on_once_and_as_it_is(world in any_overlay_world(), wrapped in any_wrapped()) {
        if is_eip(wrapped.outer.destination) || is_to_gateway(&wrapped) {
            return Ok(());
        }
        let frame = Wrapped { flags: 8, ..wrapped.clone() }.bytes();
        let outcome = received(&world.tables(), Stage::Tc, &frame);
        for (to, next) in tunnelled(1, &outcome) {
            let (is, was) = (opened(&next, 1, to), Opened::of(&frame).expect("it came through VXLAN"));
            prop_assert_eq!(is.vni(), was.vni());
            if is.is_fresh() {
                let (asked, answer) = (ArpReading::of(was.inner), ArpReading::of(is.inner));
                let (Some(asked), Some(answer)) = (asked, answer) else {
                    return Err(TestCaseError::fail("only answers to ARP questions begin here"));
                };
                prop_assert_eq!((asked.operation, answer.operation), (1, 2));
                prop_assert_eq!((answer.sender, answer.target), (asked.target, asked.sender));
                prop_assert_eq!(vtep(to), wrapped.outer.source, "to who asked");
            } else {
                prop_assert!(Opened::of(&frame).is_some_and(|was| !(16_384..32_768).contains(&was.source_port())));
                prop_assert_eq!(is.source_port() & 0x3fff, was.source_port() & 0x3fff, "of the same flow");
                prop_assert_eq!(is.inner, was.inner);
            }
        }
    }

    #[test]
    fn only_hosts_are_believed(world in any_overlay_world(), wrapped in any_wrapped()) {
        let tables = world.tables();
        let frame = wrapped.bytes();
        let outcome = received(&tables, Stage::Tc, &frame);
        let Wrapped { outer, ports: (_, port), flags, vni, .. } = &wrapped;
        let is_plain = outer.option_words == 0 && matches!(outer.fragment, 0 | Ipv4Frame::DONT_FRAGMENT);
        if !is_plain || outer.to != host_mac(1) || is_eip(outer.destination) {
            return Ok(());
        }
        let is_ours = *port == VXLAN && flags & 8 != 0 && VNIS.contains(vni);
        let must = if !is_ours {
            Some(Verdict::NotOurs)
        } else if outer.destination != vtep(1) {
            Some(Verdict::Drop(DropReason::VtepNotOurs.index()))
        } else if ![vtep(2), vtep(3)].contains(&outer.source) {
            Some(Verdict::Drop(DropReason::VtepUnknown.index()))
        } else {
            None
        };
        match must {
            Some(verdict) => {
                prop_assert_eq!(outcome.verdict, verdict);
                prop_assert_eq!(outcome.frame, frame, "as it came");
            }
            None => prop_assert!(outcome.verdict != Verdict::NotOurs, "a frame of a VPC is never the host's own"),
        }
    }

    #[test]
    fn xdp_and_tc_do_the_same_with_what_comes_through_vxlan(
        world in any_overlay_world(),
        bytes in bent(any_wrapped().prop_map(|wrapped| wrapped.bytes())),
    ) {
        let (both, alone) = (world.tables(), world.tables());
        let first = received(&both, Stage::Xdp, &bytes);
        let left = first.verdict == Verdict::LeaveToTc;
        if matches!(first.verdict, Verdict::LeaveToTc | Verdict::NotOurs) {
            prop_assert_eq!(&first.frame, &bytes);
        }
        let mut together = if left { received(&both, Stage::Tc, &first.frame) } else { first };
        let tc = received(&alone, Stage::Tc, &bytes);
        if together.verdict == Verdict::Return && !left {
            // XDP sends to other hosts by returning it.
            let is_sent = matches!(tc.verdict, Verdict::Uplink { .. } | Verdict::Return);
            prop_assert!(is_sent, "{:?}", tc.verdict);
            together.verdict = tc.verdict;
        }
        prop_assert_eq!(together, tc);
        prop_assert_eq!(drops(&both), drops(&alone));
        prop_assert_eq!(&*both.vip_traffic.borrow(), &*alone.vip_traffic.borrow());
    }

    #[test]
    fn what_is_refused_is_counted_once_and_what_is_not_is_not(
        world in any_overlay_world(),
        bytes in bent(any_wrapped().prop_map(|wrapped| wrapped.bytes())),
    ) {
        let tables = world.tables();
        let outcome = received(&tables, Stage::Tc, &bytes);
        let expected = match outcome.verdict {
            Verdict::Drop(reason) | Verdict::Tell { reason, .. } => vec![(reason, 1)],
            _ => Vec::new(),
        };
        prop_assert_eq!(drops(&tables), expected);
        let is_forwarded = matches!(
            outcome.verdict,
            Verdict::Deliver { .. } | Verdict::Uplink { .. } | Verdict::Resolve { .. }
        );
        prop_assert!(is_forwarded || tables.vip_traffic.borrow().is_empty());
    }

    #[test]
    fn nothing_that_comes_through_vxlan_makes_a_panic(
        world in any_overlay_world(),
        stale in any_stale_tables(),
        bytes in bent(any_wrapped().prop_map(|wrapped| wrapped.bytes())),
        cut in 0..200_usize,
    ) {
        let mut stale = stale;
        let tables = world.tables();
        // Everything that is stale, with hosts.
        stale.config = tables.config;
        stale.hosts.clone_from(&tables.hosts);
        stale.vteps.clone_from(&tables.vteps);
        stale.vnis.clone_from(&tables.vnis);
        for tables in [&tables, &stale] {
            for stage in [Stage::Xdp, Stage::Tc] {
                let outcome = received(tables, stage, &bytes);
                if let Verdict::Deliver { port, .. } = outcome.verdict {
                    let vni = Opened::of(&bytes).map(|is| is.vni());
                    let is_eip = Reading::of(&bytes).is_some_and(|packet| is_eip(packet.destination));
                    // A peer's, perhaps.
                    let is_routed = Opened::of(&bytes)
                        .and_then(|is| Reading::of(is.inner))
                        .is_some_and(|packet| is_gateway_mac(packet.to));
                    prop_assert!(is_eip || is_routed || tables.ports.get(&port).map(|port| port.vni) == vni);
                }
                let _ = received(tables, stage, &bytes[..cut.min(bytes.len())]);
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(600))]

    #[test]
    fn all_packets_of_a_flow_have_one_source_port(
        (ports, lengths) in ((any::<u16>(), any::<u16>()), vec(0..900_usize, 2..5)),
        tcp in any::<bool>(),
    ) {
        let world = super::spread(&[(2, 2)]);
        let tables = world.tables();
        let mut seen = Vec::new();
        for length in lengths {
            let data = vec![7; length];
            let (from, to) = ports;
            let payload = if tcp { crate::frame::tcp(from, to, &data) } else { crate::frame::udp(from, to, &data) };
            let (protocol, mut payload) = payload;
            if tcp {
                payload[..2].copy_from_slice(&from.to_be_bytes());
                payload[2..4].copy_from_slice(&to.to_be_bytes());
            }
            if !tcp && matches!(ports, (67, 68) | (68, 67)) {
                return Ok(());
            }
            let frame = Ipv4Frame::new(
                (crate::world::port_mac(1), crate::world::port_address(1)),
                (crate::world::port_mac(2), crate::world::port_address(2)),
                (protocol, payload),
            );
            let outcome = engine::port(&tables, ifindex(1), false, &frame.bytes());
            let (_, sent) = super::sent(&outcome, 1);
            seen.push(opened(&sent, 1, 2).source_port());
        }
        prop_assert!(seen.iter().all(|port| *port == seen[0]), "{:?}", seen);
    }
}

#[test]
fn flows_are_spread_over_source_ports() {
    let tables = super::spread(&[(2, 2)]).tables();
    let mut seen = std::collections::BTreeSet::new();
    for port in 0..256 {
        let frame = Ipv4Frame::new(
            (crate::world::port_mac(1), crate::world::port_address(1)),
            (crate::world::port_mac(2), crate::world::port_address(2)),
            crate::frame::udp(1000 + port, 53, b"x"),
        );
        let outcome = engine::port(&tables, ifindex(1), false, &frame.bytes());
        let (_, sent) = super::sent(&outcome, 1);
        seen.insert(opened(&sent, 1, 2).source_port());
    }
    assert!(seen.len() > 200, "{} ports for 256 flows", seen.len());
}
