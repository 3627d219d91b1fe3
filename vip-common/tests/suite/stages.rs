//! One example for each thing that a stage decides, and for each reason to stop.

use vip_common::{
    DropReason,
    engine::{self, MemoryTables},
    pipeline::{Stage, Verdict},
    tables::{Target, VniAddress},
    wire::{Ipv4, Mac},
};

use crate::{
    frame::{ArpFrame, ETHERNET, Ipv4Frame, Reading, ethernet, icmp, tcp, udp, vrrp},
    rules::ArpReading,
    world::{
        CLIENT, HOST_ADDRESS, NEIGHBOUR, NEIGHBOUR_MAC, ROUTER, UNLISTED, UPLINK, UPLINK_MAC, gateway,
        ifindex, port_address, port_eip, port_mac, vip_address, vip_eip, world,
    },
};

fn drop(reason: DropReason) -> Verdict {
    Verdict::Drop(reason.index())
}

fn to_port(port: u32) -> Verdict {
    Verdict::Deliver { port, ifindex: ifindex(port) }
}

/// Verdict about a frame of port 2.
fn guest(tables: &MemoryTables, frame: &[u8]) -> Verdict {
    engine::port(tables, ifindex(2), false, frame).verdict
}

fn uplink(tables: &MemoryTables, frame: &[u8]) -> Verdict {
    engine::uplink(tables, Stage::Xdp, frame).verdict
}

/// A packet of port 2 to its gateway's MAC.
fn routed(destination: Ipv4) -> Ipv4Frame {
    let gateway_mac = Mac::of_address(gateway(0));
    Ipv4Frame::new((port_mac(2), port_address(2)), (gateway_mac, destination), tcp(1, 2, b"data"))
}

/// A packet of port 2 inside its subnet.
fn switched(mac: Mac, destination: Ipv4) -> Ipv4Frame {
    Ipv4Frame::new((port_mac(2), port_address(2)), (mac, destination), udp(1, 2, b"data"))
}

/// A packet of the client to an EIP.
fn inbound(eip: Ipv4) -> Ipv4Frame {
    Ipv4Frame::new((NEIGHBOUR_MAC, CLIENT), (UPLINK_MAC, eip), tcp(1, 2, b"data"))
}

// The uplink.

#[test]
fn packets_to_eips_reach_ports_and_owners() {
    let tables = world(|_| ());
    assert_eq!(uplink(&tables, &inbound(port_eip(2)).bytes()), to_port(2));
    assert_eq!(uplink(&tables, &inbound(vip_eip(0)).bytes()), to_port(1));
    assert_eq!(uplink(&tables, &inbound(CLIENT).bytes()), Verdict::NotOurs);
}

#[test]
fn frames_for_other_macs_on_the_uplink_are_not_ours() {
    for mac in [Mac::BROADCAST, NEIGHBOUR_MAC] {
        let frame = Ipv4Frame { to: mac, ..inbound(vip_eip(0)) };
        assert_eq!(uplink(&world(|_| ()), &frame.bytes()), Verdict::NotOurs);
    }
}

#[test]
fn tagged_and_foreign_frames_on_the_uplink_are_not_ours() {
    let tables = world(|_| ());
    for ether_type in [0x8100, 0x86dd, 0x88cc] {
        let frame = [ethernet(UPLINK_MAC, NEIGHBOUR_MAC, ether_type), vec![0; 46]].concat();
        assert_eq!(uplink(&tables, &frame), Verdict::NotOurs);
    }
    assert_eq!(uplink(&tables, &[]), Verdict::NotOurs);
    let mut packet = engine::FramePacket::new(&inbound(vip_eip(0)).bytes());
    packet.set_tagged(true);
    assert_eq!(vip_common::pipeline::uplink(&mut packet, &&tables, Stage::Tc), Verdict::NotOurs);
}

#[test]
fn xdp_leaves_ports_that_take_no_xdp_frames_to_tc() {
    let tables = world(|world| world.port_mut(1).takes_xdp = false);
    let frame = inbound(vip_eip(0)).bytes();
    let outcome = engine::uplink(&tables, Stage::Xdp, &frame);
    assert_eq!((outcome.verdict, outcome.frame), (Verdict::LeaveToTc, frame.clone()));
    assert_eq!(engine::uplink(&tables, Stage::Tc, &frame).verdict, to_port(1));
}

/// A segment of the client to a VIP's EIP, with these flags.
fn segment(flags: u8) -> Ipv4Frame {
    let mut frame = inbound(vip_eip(0));
    frame.payload[13] = flags;
    frame
}

#[test]
fn xdp_that_leaves_tcp_to_tc_keeps_segments_with_syn_and_everything_else() {
    const FIN: u8 = 1;
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const PSH: u8 = 8;
    const ACK: u8 = 16;
    let split = world(|world| world.tcp_by_tc = true);
    let left = |frame: &Ipv4Frame| {
        let bytes = frame.bytes();
        let outcome = engine::uplink(&split, Stage::Xdp, &bytes);
        assert_eq!(uplink(&world(|_| ()), &bytes), to_port(1), "everything is XDP's otherwise");
        assert_eq!(engine::uplink(&split, Stage::Tc, &bytes).verdict, to_port(1));
        match outcome.verdict {
            Verdict::LeaveToTc => outcome.frame == bytes,
            verdict => {
                assert_eq!(verdict, to_port(1));
                false
            }
        }
    };
    for flags in [0, ACK, ACK | PSH, ACK | FIN, RST, RST | ACK, !SYN] {
        assert!(left(&segment(flags)), "flags {flags:#x}");
        let long = Ipv4Frame { payload: vec![0; 1400], ..segment(flags) };
        assert!(left(&long), "never by size");
    }
    for flags in [SYN, SYN | ACK, SYN | FIN, 0xff] {
        assert!(!left(&segment(flags)), "flags {flags:#x}");
    }
    let fragment = |fragment, payload| Ipv4Frame { fragment, payload, ..segment(ACK) };
    assert!(left(&fragment(0x2000, segment(ACK).payload)), "a first fragment");
    assert!(left(&fragment(5, vec![2; 40])), "a later one, whatever its bytes say");
    assert!(left(&fragment(0x2000, vec![0; 18])), "one that ends before the header does");
    for (protocol, payload) in [udp(1, 2, b"data"), icmp(8, b"data"), (132, vec![0; 40])] {
        assert!(!left(&Ipv4Frame { protocol, payload, ..segment(0) }));
    }
}

#[test]
fn xdp_that_leaves_tcp_to_tc_does_so_before_it_looks_anything_up() {
    let split = world(|world| world.tcp_by_tc = true);
    let strange = Ipv4Frame { destination: UNLISTED, ..segment(16) }.bytes();
    let short = Ipv4Frame { payload: vec![0; 17], ..segment(16) }.bytes();
    let mut malformed = segment(16).bytes();
    // Version 6.
    malformed[14] = 0x65;
    for (frame, verdict) in [
        (strange, Verdict::NotOurs),
        (short, drop(DropReason::TinyFragment)),
        (malformed, drop(DropReason::Ipv4Malformed)),
    ] {
        assert_eq!(uplink(&split, &frame), Verdict::LeaveToTc);
        assert_eq!(engine::uplink(&split, Stage::Tc, &frame).verdict, verdict);
    }
    let to_others = Ipv4Frame { to: NEIGHBOUR_MAC, ..segment(16) };
    assert_eq!(uplink(&split, &to_others.bytes()), Verdict::NotOurs);
}

#[test]
fn packets_to_eips_stop_with_their_reasons() {
    let tables = world(|world| {
        world.vip_mut(2).owner = None;
        world.port_mut(3).unplugged = true;
    });
    let eip = vip_eip(0);
    let with = |payload| Ipv4Frame { protocol: 1, payload, ..inbound(eip) };
    for (reason, frame) in [
        (DropReason::Unowned, inbound(vip_eip(2)).bytes()),
        (DropReason::NoInterface, inbound(port_eip(3)).bytes()),
        (DropReason::IcmpRedirect, with(icmp(5, &[0; 20]).1).bytes()),
        (DropReason::IcmpError, with(icmp(3, &[0; 20]).1).bytes()),
        (DropReason::IcmpError, with(icmp(4, &[0; 20]).1).bytes()),
        (DropReason::IcmpError, with(icmp(11, &[0; 20]).1).bytes()),
        (DropReason::IcmpError, with(icmp(12, &[0; 20]).1).bytes()),
        (DropReason::TinyFragment, with(vec![8, 0, 0]).bytes()),
        (DropReason::TinyFragment, Ipv4Frame { payload: vec![0; 17], ..inbound(eip) }.bytes()),
        (
            DropReason::TinyFragment,
            Ipv4Frame { fragment: 0x2000, payload: vec![0; 8], ..inbound(eip) }.bytes(),
        ),
    ] {
        assert_eq!(uplink(&tables, &frame), drop(reason));
    }
    let mut malformed = inbound(eip).bytes();
    // Version 6.
    malformed[14] = 0x65;
    assert_eq!(uplink(&tables, &malformed), drop(DropReason::Ipv4Malformed));
    let whole = inbound(eip).bytes();
    assert_eq!(uplink(&tables, &whole[..whole.len() - 1]), drop(DropReason::Ipv4Malformed));
}

#[test]
fn fragments_need_no_state() {
    let tables = world(|_| ());
    let datagram = udp(1, 2, &[7; 24]);
    let first = Ipv4Frame {
        fragment: 0x2000,
        ..Ipv4Frame { payload: datagram.1, protocol: 17, ..inbound(vip_eip(0)) }
    };
    let later = Ipv4Frame { fragment: 4, payload: vec![7; 3], protocol: 17, ..inbound(vip_eip(0)) };
    let frame = later.bytes();
    let outcome = engine::uplink(&tables, Stage::Xdp, &frame);
    assert_eq!(outcome.verdict, to_port(1));
    assert_eq!(outcome.frame[34..], frame[34..], "a later fragment has no checksum to mend");
    assert_eq!(uplink(&tables, &first.bytes()), to_port(1));
}

#[test]
fn a_udp_datagram_without_checksum_stays_without() {
    let mut frame = Ipv4Frame { fragment: 0, ..inbound(vip_eip(0)) };
    (frame.protocol, frame.payload) = udp(1, 2, b"x");
    let mut bytes = frame.bytes();
    bytes[40..42].fill(0);
    let outcome = engine::uplink(&world(|_| ()), Stage::Xdp, &bytes);
    assert_eq!(outcome.verdict, to_port(1));
    assert_eq!(outcome.frame[40..42], [0, 0]);
}

#[test]
fn eips_whose_owner_is_here_are_answered_for() {
    let question = ArpFrame::question((NEIGHBOUR_MAC, ROUTER), vip_eip(0)).bytes();
    let tables = world(|_| ());
    let outcome = engine::uplink(&tables, Stage::Xdp, &question);
    assert_eq!(outcome.verdict, Verdict::Return);
    let answer = ArpReading::of(&outcome.frame).expect("an ARP packet");
    assert_eq!((answer.operation, answer.sender_mac, answer.sender), (2, UPLINK_MAC, vip_eip(0)));
    assert_eq!((answer.from, answer.to, answer.target), (UPLINK_MAC, NEIGHBOUR_MAC, ROUTER));
    assert_eq!(uplink(&world(|world| world.announces = false), &question), Verdict::NotOurs);
    assert_eq!(uplink(&world(|world| world.returns = false), &question), Verdict::LeaveToTc);
    let silent =
        [world(|world| world.vip_mut(0).owner = None), world(|world| world.port_mut(1).unplugged = true)];
    for tables in silent {
        assert_eq!(uplink(&tables, &question), Verdict::NotOurs);
    }
    for not_a_question in [
        ArpFrame::question((NEIGHBOUR_MAC, ROUTER), HOST_ADDRESS),
        ArpFrame { operation: 2, ..ArpFrame::question((NEIGHBOUR_MAC, ROUTER), vip_eip(0)) },
        ArpFrame::garp(NEIGHBOUR_MAC, vip_eip(0)),
    ] {
        assert_eq!(uplink(&tables, &not_a_question.bytes()), Verdict::NotOurs);
    }
}

// The responder.

#[test]
fn guests_are_told_constant_macs_of_vips_and_gateways_and_real_ones_of_guests() {
    let tables = world(|world| world.vip_mut(0).owner = None);
    let own = (port_mac(2), port_address(2));
    for (target, mac) in [
        (gateway(0), Mac::of_address(gateway(0))),
        (vip_address(0), Mac::of_address(vip_address(0))),
        (port_address(3), port_mac(3)),
    ] {
        let outcome = engine::port(&tables, ifindex(2), false, &ArpFrame::question(own, target).bytes());
        assert_eq!(outcome.verdict, Verdict::Return);
        let answer = ArpReading::of(&outcome.frame).expect("an ARP packet");
        assert_eq!((answer.operation, answer.sender_mac, answer.sender), (2, mac, target));
        assert_eq!((answer.from, answer.to), (mac, port_mac(2)));
        assert_eq!(answer.target, port_address(2));
    }
}

#[test]
fn questions_that_are_not_ours_go_on_unchanged() {
    let own = (port_mac(2), port_address(2));
    let tables = world(|_| ());
    // Unlisted, of another subnet, and its own address announced or probed.
    for question in [
        ArpFrame::question(own, UNLISTED),
        ArpFrame::question(own, port_address(5)),
        ArpFrame::question(own, port_address(2)),
        ArpFrame::question((port_mac(2), Ipv4::UNSPECIFIED), port_address(2)),
    ] {
        assert_eq!(guest(&tables, &question.bytes()), Verdict::NotOurs);
    }
    let external = world(|world| world.external[0] = true);
    assert_eq!(guest(&external, &ArpFrame::question(own, gateway(0)).bytes()), Verdict::NotOurs);
}

#[test]
fn listed_addresses_are_defended_against_probes() {
    let probe = ArpFrame::question((port_mac(2), Ipv4::UNSPECIFIED), port_address(3)).bytes();
    let outcome = engine::port(&world(|_| ()), ifindex(2), false, &probe);
    assert_eq!(outcome.verdict, Verdict::Return);
    assert_eq!(ArpReading::of(&outcome.frame).map(|answer| answer.sender_mac), Some(port_mac(3)));
}

#[test]
fn the_owner_is_not_told_where_its_own_vip_is() {
    let question = ArpFrame::question((port_mac(1), port_address(1)), vip_address(0)).bytes();
    assert_eq!(engine::port(&world(|_| ()), ifindex(1), false, &question).verdict, Verdict::Consumed);
}

#[test]
fn the_gateway_answers_echo_and_nothing_else() {
    let tables = world(|_| ());
    let mut echo = routed(gateway(0));
    (echo.protocol, echo.payload) = icmp(8, b"0123456789");
    let outcome = engine::port(&tables, ifindex(2), false, &echo.bytes());
    assert_eq!(outcome.verdict, Verdict::Return);
    let reply = Reading::of(&outcome.frame).expect("a whole packet");
    assert_eq!((reply.source, reply.destination), (gateway(0), port_address(2)));
    assert_eq!((reply.from, reply.to), (Mac::of_address(gateway(0)), port_mac(2)));
    assert_eq!((reply.payload[0], &reply.payload[8..]), (0, &b"0123456789"[..]));
    assert!(reply.has_valid_header_checksum());
    assert_eq!(reply.has_valid_transport_checksum(), Some(true));
    assert_eq!(guest(&tables, &routed(gateway(0)).bytes()), drop(DropReason::GatewayService));
    (echo.protocol, echo.payload) = icmp(13, &[0; 12]);
    assert_eq!(guest(&tables, &echo.bytes()), drop(DropReason::GatewayService));
}

// Inside the VPC.

#[test]
fn delivery_in_the_subnet_takes_no_ttl_and_changes_the_destination_mac_alone() {
    let tables = world(|_| ());
    let frame = Ipv4Frame { ttl: 1, ..switched(Mac::of_address(vip_address(0)), vip_address(0)) }.bytes();
    let outcome = engine::port(&tables, ifindex(2), false, &frame);
    assert_eq!(outcome.verdict, to_port(1));
    assert_eq!(outcome.frame[..6], port_mac(1).octets());
    assert_eq!(outcome.frame[6..], frame[6..]);
}

#[test]
fn what_the_tables_do_not_know_in_the_subnet_is_not_ours() {
    let tables = world(|_| ());
    let frame = switched(Mac::new([2, 9, 9, 9, 9, 9]), UNLISTED).bytes();
    let outcome = engine::port(&tables, ifindex(2), false, &frame);
    assert_eq!((outcome.verdict, outcome.frame), (Verdict::NotOurs, frame));
    let multicast = switched(Mac::new([1, 0, 0x5e, 0, 0, 251]), Ipv4::new([224, 0, 0, 251])).bytes();
    assert_eq!(guest(&tables, &multicast), Verdict::NotOurs);
}

#[test]
fn a_guest_gets_its_own_addresses_only() {
    let frame = switched(port_mac(3), UNLISTED).bytes();
    assert_eq!(guest(&world(|_| ()), &frame), drop(DropReason::DestinationNotOwn));
    assert_eq!(guest(&world(|world| world.port_mut(3).bypass = true), &frame), to_port(3));
}

#[test]
fn a_frame_to_the_senders_own_mac_is_reflected_to_nobody() {
    let frame = switched(port_mac(2), port_address(2)).bytes();
    assert_eq!(guest(&world(|_| ()), &frame), drop(DropReason::Reflected));
}

#[test]
fn routing_reaches_other_subnets_and_peers_for_one_ttl() {
    let tables = world(|world| world.peered = true);
    for to in [4, 13] {
        let outcome = engine::port(&tables, ifindex(2), false, &routed(port_address(to)).bytes());
        assert_eq!(outcome.verdict, to_port(to));
        let received = Reading::of(&outcome.frame).expect("a whole packet");
        assert_eq!((received.ip.ttl(), received.to), (63, port_mac(to)));
        assert!(received.has_valid_header_checksum());
    }
    assert_eq!(
        guest(&tables, &Ipv4Frame { ttl: 1, ..routed(port_address(4)) }.bytes()),
        Verdict::Tell { reason: DropReason::TtlExpired.index(), ifindex: 0 }
    );
    let apart = world(|_| ());
    assert_eq!(guest(&apart, &routed(port_address(4)).bytes()), to_port(4));
    // Without the peering the address is outside; the port's EIP takes the packet there.
    assert_eq!(guest(&apart, &routed(port_address(13)).bytes()), Verdict::Uplink { ifindex: UPLINK, mtu: 0 });
}

#[test]
fn an_unassigned_address_of_the_vpc_is_said_so() {
    assert_eq!(guest(&world(|_| ()), &routed(UNLISTED).bytes()), drop(DropReason::NoSuchAddress));
}

#[test]
fn the_owner_of_a_vip_does_not_reach_it_through_the_gateway_either() {
    let frame = Ipv4Frame::new(
        (port_mac(1), port_address(1)),
        (Mac::of_address(gateway(0)), vip_address(0)),
        tcp(1, 2, b""),
    );
    let outcome = engine::port(&world(|_| ()), ifindex(1), false, &frame.bytes());
    assert_eq!(outcome.verdict, drop(DropReason::OwnerLoop));
}

// Out of the host.

#[test]
fn packets_leave_by_the_way_to_their_destination() {
    let tables = world(|_| ());
    assert_eq!(guest(&tables, &routed(CLIENT).bytes()), Verdict::Uplink { ifindex: UPLINK, mtu: 0 });
    assert_eq!(
        guest(&tables, &routed(NEIGHBOUR).bytes()),
        Verdict::Resolve { next_hop: NEIGHBOUR, network: 0 }
    );
    let unrouted = world(|world| world.default_route = false);
    assert_eq!(guest(&unrouted, &routed(CLIENT).bytes()), drop(DropReason::NoNextHop));
}

#[test]
fn packets_that_may_not_leave_stop_with_their_reasons() {
    let tables = world(|_| ());
    assert_eq!(guest(&tables, &routed(HOST_ADDRESS).bytes()), drop(DropReason::HostAddress));
    let mut redirect = routed(CLIENT);
    (redirect.protocol, redirect.payload) = icmp(5, &[0; 20]);
    assert_eq!(guest(&tables, &redirect.bytes()), drop(DropReason::IcmpRedirect));
    let tiny = Ipv4Frame { fragment: 0x2000, payload: vec![0; 8], ..routed(CLIENT) };
    assert_eq!(guest(&tables, &tiny.bytes()), drop(DropReason::TinyFragment));
    let private = world(|world| world.port_mut(2).eip = false);
    assert_eq!(guest(&private, &routed(CLIENT).bytes()), drop(DropReason::NoRoute));
    assert_eq!(guest(&private, &routed(vip_eip(0)).bytes()), drop(DropReason::Hairpin));
}

#[test]
fn an_external_router_gets_what_needs_no_translation() {
    let tables = world(|world| {
        world.external[0] = true;
        world.port_mut(3).eip = false;
    });
    let router = Mac::new([2, 9, 9, 9, 9, 9]);
    let through = |port, destination| {
        Ipv4Frame::new((port_mac(port), port_address(port)), (router, destination), tcp(1, 2, b"")).bytes()
    };
    let verdict =
        |port, destination| engine::port(&tables, ifindex(port), false, &through(port, destination)).verdict;
    assert_eq!(verdict(2, CLIENT), Verdict::Uplink { ifindex: UPLINK, mtu: 0 }, "translation is ours");
    assert_eq!(verdict(3, CLIENT), Verdict::NotOurs);
    assert_eq!(verdict(2, port_address(4)), Verdict::NotOurs, "another subnet of the VPC is the router's");
    assert_eq!(verdict(2, HOST_ADDRESS), Verdict::NotOurs);
}

#[test]
fn a_member_that_does_not_own_the_vip_may_drain_as_its_eip() {
    let tables = world(|_| ());
    let outcome = engine::port(
        &tables,
        ifindex(2),
        false,
        &Ipv4Frame { source: vip_address(0), ..routed(CLIENT) }.bytes(),
    );
    assert_eq!(outcome.verdict, Verdict::Uplink { ifindex: UPLINK, mtu: 0 });
    assert_eq!(Reading::of(&outcome.frame).map(|packet| packet.source), Some(vip_eip(0)));
}

// VRRP and malformed frames.

#[test]
fn advertisements_pass_between_members_only() {
    let tables = world(|world| world.vip_mut(0).rights = [1, 1, 0]);
    let group = (Mac::new([1, 0, 0x5e, 0, 0, 18]), Ipv4::new([224, 0, 0, 18]));
    let advert = |port, addresses: &[Ipv4]| Ipv4Frame {
        ttl: 255,
        ..Ipv4Frame::new((port_mac(port), port_address(port)), group, vrrp(66, addresses))
    };
    let from = |port, frame: &Ipv4Frame| engine::port(&tables, ifindex(port), false, &frame.bytes());
    let vip = vip_address(0);
    let outcome = from(2, &advert(2, &[vip]));
    assert_eq!(outcome.verdict, Verdict::Members { slot: 0, sender: 2 });
    assert_eq!(outcome.receivers, [ifindex(1)]);
    assert_eq!(from(2, &advert(2, &[UNLISTED, vip])).verdict, Verdict::Members { slot: 0, sender: 2 });
    assert_eq!(from(3, &advert(3, &[vip])).verdict, drop(DropReason::VrrpNotMember));
    let near = Ipv4Frame { ttl: 254, ..advert(2, &[vip]) };
    assert_eq!(from(2, &near).verdict, drop(DropReason::VrrpTtl));
    assert_eq!(from(2, &advert(2, &[UNLISTED])).verdict, Verdict::NotOurs);
    let short = Ipv4Frame { payload: vec![0x21, 66, 100, 1], ..advert(2, &[vip]) };
    assert_eq!(from(2, &short).verdict, drop(DropReason::FrameTruncated));
}

#[test]
fn truncated_and_malformed_frames_of_guests_stop_with_their_reasons() {
    let tables = world(|_| ());
    let whole = routed(CLIENT).bytes();
    for length in 0..ETHERNET + 20 {
        assert_eq!(guest(&tables, &whole[..length]), drop(DropReason::FrameTruncated), "{length} bytes");
    }
    for length in ETHERNET + 20..whole.len() {
        assert_eq!(guest(&tables, &whole[..length]), drop(DropReason::Ipv4Malformed), "{length} bytes");
    }
    let padded = [whole, vec![0; 9]].concat();
    assert_eq!(guest(&tables, &padded), Verdict::Uplink { ifindex: UPLINK, mtu: 0 });
}

#[test]
fn frames_of_other_protocols_are_not_ours() {
    let tables = world(|_| ());
    for ether_type in [0x86dd, 0x888e, 0x88cc, 0x8035] {
        let frame = [ethernet(Mac::BROADCAST, port_mac(2), ether_type), vec![0; 46]].concat();
        assert_eq!(guest(&tables, &frame), Verdict::NotOurs);
    }
}

#[test]
fn interfaces_that_are_no_ports_are_not_ours() {
    let outcome = engine::port(&world(|_| ()), 9999, false, &routed(CLIENT).bytes());
    assert_eq!(outcome.verdict, Verdict::NotOurs);
}

#[test]
fn entries_that_name_missing_ones_are_told_as_such() {
    let mut tables = world(|_| ());
    tables.ports.remove(&3);
    let key = VniAddress { vni: 4001, address: UNLISTED };
    tables.addresses.insert(key, Target::port(77));
    assert_eq!(guest(&tables, &routed(port_address(3)).bytes()), drop(DropReason::TableInconsistent));
    assert_eq!(guest(&tables, &routed(UNLISTED).bytes()), drop(DropReason::TableInconsistent));
    tables.ports.remove(&2);
    assert_eq!(guest(&tables, &routed(CLIENT).bytes()), drop(DropReason::TableInconsistent));
}
