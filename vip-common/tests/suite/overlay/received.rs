//! What a host does with each kind of frame that comes through VXLAN, at both hooks of its uplink.

use vip_common::{
    DropReason, engine,
    engine::MemoryTables,
    pipeline::{Stage, Verdict},
    tables::{ConfigFlags, OwnerWord},
    wire::{Ipv4, Mac, VRRP_GROUP},
};

use super::{Cluster, Opened, Wrapped, opened, overlay, spread};
use crate::{
    frame::{ArpFrame, Ipv4Frame, Reading, tcp, udp, vrrp},
    rules::ArpReading,
    world::{
        CLIENT, UPLINK, VipSpec, World, gateway, host_mac, ifindex, port_address, port_mac, vip_address, vtep,
    },
};

/// Ports 2 and 3 are on the second and third host, 1 here.
fn world() -> World {
    spread(&[(2, 2), (3, 3)])
}

/// A packet from port 2, to be received by this MAC.
fn from_second(to: Mac, destination: Ipv4) -> Vec<u8> {
    Ipv4Frame::new((port_mac(2), port_address(2)), (to, destination), tcp(4000, 80, b"GET /")).bytes()
}

/// What both hooks come to.
fn verdict(tables: &MemoryTables, frame: &[u8]) -> Verdict {
    let first = engine::uplink(tables, Stage::Xdp, frame);
    assert_eq!(first.verdict, engine::uplink(tables, Stage::Tc, frame).verdict);
    first.verdict
}

fn drop(reason: DropReason) -> Verdict {
    Verdict::Drop(reason.index())
}

fn to_port(port: u32) -> Verdict {
    Verdict::Deliver { port, ifindex: ifindex(port) }
}

fn own(tables: &MemoryTables, slot: u32, port: u32) {
    tables.vips[&slot].update(|entry| entry.word = OwnerWord::new(9, true, port, 0));
}

#[test]
fn a_packet_by_the_macs_that_stand_for_a_receiver_is_delivered() {
    let tables = world().tables();
    for (mac, destination) in
        [(port_mac(1), port_address(1)), (Mac::of_address(vip_address(0)), vip_address(0))]
    {
        let inner = from_second(mac, destination);
        for wrapped in [Wrapped::new(2, 1, 4001, inner.clone()), Wrapped::new(2, 1, 4001, inner).sent_on()] {
            for stage in [Stage::Xdp, Stage::Tc] {
                let outcome = engine::uplink(&tables, stage, &wrapped.bytes());
                assert_eq!(outcome.verdict, to_port(1));
                assert_eq!(outcome.frame[..6], port_mac(1).octets());
                assert_eq!(outcome.frame[6..], wrapped.inner[6..]);
            }
        }
    }
}

#[test]
fn a_packet_that_is_not_for_its_receiver_is_dropped() {
    let tables = world().tables();
    let stranger = Mac::new([2, 9, 9, 9, 9, 9]);
    for (mac, destination, reason) in [
        (port_mac(1), CLIENT, DropReason::DestinationNotOwn),
        (port_mac(1), port_address(3), DropReason::DestinationNotOwn),
        (Mac::of_address(vip_address(0)), CLIENT, DropReason::DestinationNotOwn),
        (Mac::of_address(vip_address(0)), port_address(1), DropReason::DestinationNotOwn),
        (stranger, port_address(1), DropReason::NoSuchAddress),
        (Mac::of_address(gateway(1)), port_address(4), DropReason::NoSuchAddress),
        (Mac::of_address(vip_address(1)), vip_address(1), DropReason::NoSuchAddress),
    ] {
        let frame = Wrapped::new(2, 1, 4001, from_second(mac, destination)).bytes();
        assert_eq!(verdict(&tables, &frame), drop(reason), "{mac:?} {destination}");
    }
    own(&tables, 0, 0);
    let frame =
        Wrapped::new(2, 1, 4001, from_second(Mac::of_address(vip_address(0)), vip_address(0))).bytes();
    assert_eq!(verdict(&tables, &frame), drop(DropReason::Unowned));
}

#[test]
fn a_port_whose_check_is_off_takes_all_that_is_for_its_mac_or_its_vips() {
    let mut world = world();
    world.port_mut(1).bypass = true;
    let tables = world.tables();
    for mac in [port_mac(1), Mac::of_address(vip_address(0))] {
        let frame = Wrapped::new(2, 1, 4001, from_second(mac, CLIENT)).bytes();
        assert_eq!(verdict(&tables, &frame), to_port(1));
    }
}

#[test]
fn a_real_server_takes_the_vip_by_its_mac() {
    let mut world = spread(&[(1, 2)]);
    world.vip_mut(0).rights = [1, 2, 0];
    let tables = world.tables();
    let by_mac = |port| {
        let handed_on =
            Ipv4Frame::new((port_mac(1), CLIENT), (port_mac(port), vip_address(0)), tcp(1, 80, b"GET"));
        verdict(&tables, &Wrapped::new(2, 1, 4001, handed_on.bytes()).bytes())
    };
    assert_eq!(by_mac(2), to_port(2));
    assert_eq!(by_mac(3), drop(DropReason::DestinationNotOwn), "without a right");
}

#[test]
fn what_is_for_a_receiver_elsewhere_goes_on_once() {
    let tables = world().tables();
    own(&tables, 0, 3);
    for (mac, destination) in
        [(port_mac(3), port_address(3)), (Mac::of_address(vip_address(0)), vip_address(0))]
    {
        let fresh = Wrapped::new(2, 1, 4001, from_second(mac, destination));
        for (stage, verdict) in
            [(Stage::Xdp, Verdict::Return), (Stage::Tc, Verdict::Uplink { ifindex: UPLINK, mtu: 0 })]
        {
            let outcome = engine::uplink(&tables, stage, &fresh.bytes());
            assert_eq!(outcome.verdict, verdict);
            let is = opened(&outcome.frame, 1, 3);
            assert_eq!((is.inner, is.vni(), is.is_fresh()), (fresh.inner.as_slice(), 4001, false));
        }
        assert_eq!(verdict(&tables, &fresh.sent_on().bytes()), drop(DropReason::ForwardedTwice));
    }
    // All of the range, and nothing beside it.
    for (port, twice) in [(16_383, false), (16_384, true), (32_767, true), (32_768, false)] {
        let frame = Wrapped::new(2, 1, 4001, from_second(port_mac(3), port_address(3)));
        let frame = Wrapped { ports: (port, 4789), ..frame }.bytes();
        let is_dropped = verdict_at_tc(&tables, &frame) == drop(DropReason::ForwardedTwice);
        assert_eq!(is_dropped, twice, "{port}");
    }
}

fn verdict_at_tc(tables: &MemoryTables, frame: &[u8]) -> Verdict {
    engine::uplink(tables, Stage::Tc, frame).verdict
}

#[test]
fn a_question_of_a_host_without_forwarder_is_answered_through_the_tunnel() {
    // Port 2 is on a host that has a kernel's vxlan device and nothing else; it asks all others.
    let tables = world().tables();
    for (target, mac) in [
        (port_address(1), port_mac(1)),
        (vip_address(0), Mac::of_address(vip_address(0))),
        (gateway(0), Mac::of_address(gateway(0))),
    ] {
        let question = ArpFrame::question((port_mac(2), port_address(2)), target);
        let frame = Wrapped::new(2, 1, 4001, question.bytes()).bytes();
        for (stage, verdict) in
            [(Stage::Xdp, Verdict::Return), (Stage::Tc, Verdict::Uplink { ifindex: UPLINK, mtu: 0 })]
        {
            let outcome = engine::uplink(&tables, stage, &frame);
            assert_eq!(outcome.verdict, verdict);
            let is = opened(&outcome.frame, 1, 2);
            assert!(is.is_fresh(), "the asker may not be sent on from");
            let answer = ArpReading::of(is.inner).expect("ARP");
            assert_eq!((answer.operation, answer.to, answer.from), (2, port_mac(2), mac));
            assert_eq!((answer.sender, answer.sender_mac), (target, mac));
            assert_eq!(answer.target, port_address(2));
        }
    }
    // Whoever is elsewhere is answered for there.
    for target in [port_address(3), Ipv4::new([10, 0, 0, 200]), vip_address(1)] {
        let question = ArpFrame::question((port_mac(2), port_address(2)), target);
        let frame = Wrapped::new(2, 1, 4001, question.bytes()).bytes();
        assert_eq!(verdict(&tables, &frame), Verdict::Consumed);
    }
    own(&tables, 0, 3);
    let question = ArpFrame::question((port_mac(2), port_address(2)), vip_address(0));
    let frame = Wrapped::new(2, 1, 4001, question.bytes()).bytes();
    assert_eq!(verdict(&tables, &frame), Verdict::Consumed);
}

#[test]
fn a_reply_reaches_the_port_that_asked_unchanged() {
    let tables = world().tables();
    let reply = ArpFrame {
        to: port_mac(1),
        from: port_mac(2),
        operation: 2,
        sender: (port_mac(2), port_address(2)),
        target: (port_mac(1), port_address(1)),
    };
    let frame = Wrapped::new(2, 1, 4001, reply.bytes()).bytes();
    assert_eq!(verdict(&tables, &frame), to_port(1));
    assert_eq!(engine::uplink(&tables, Stage::Tc, &frame).frame, reply.bytes());
    // Nobody here has that MAC.
    let astray = ArpFrame { to: Mac::new([2, 9, 9, 9, 9, 9]), ..reply };
    let frame = Wrapped::new(2, 1, 4001, astray.bytes()).bytes();
    assert_eq!(verdict(&tables, &frame), drop(DropReason::NoSuchAddress));
}

#[test]
fn a_probe_goes_to_the_owner_here_or_on_once() {
    let tables = world().tables();
    let probe = ArpFrame::question((port_mac(2), Ipv4::UNSPECIFIED), vip_address(0)).bytes();
    let fresh = Wrapped::new(2, 1, 4001, probe.clone());
    assert_eq!(verdict(&tables, &fresh.bytes()), to_port(1));
    assert_eq!(engine::uplink(&tables, Stage::Tc, &fresh.bytes()).frame, probe);
    own(&tables, 0, 3);
    let outcome = engine::uplink(&tables, Stage::Tc, &fresh.bytes());
    assert_eq!(opened(&outcome.frame, 1, 3).inner, probe);
    assert_eq!(verdict(&tables, &fresh.sent_on().bytes()), drop(DropReason::ForwardedTwice));
}

#[test]
fn an_advertisement_goes_to_all_members_here_and_no_further() {
    let mut world = spread(&[(3, 2)]);
    world.vip_mut(0).vrids = vec![66];
    let tables = world.tables();
    let group = (Mac::new([1, 0, 0x5e, 0, 0, 18]), Ipv4::new([224, 0, 0, 18]));
    let advert = |ttl, addresses: &[Ipv4]| {
        let from = (port_mac(3), port_address(3));
        let frame = Ipv4Frame { ttl, ..Ipv4Frame::new(from, group, vrrp(66, addresses)) };
        Wrapped::new(2, 1, 4001, frame.bytes())
    };
    let whole = advert(255, &[vip_address(0)]);
    let left = engine::uplink(&tables, Stage::Xdp, &whole.bytes());
    assert_eq!((left.verdict, left.frame), (Verdict::LeaveToTc, whole.bytes()));
    let outcome = engine::uplink(&tables, Stage::Tc, &whole.bytes());
    assert_eq!(outcome.verdict, Verdict::Members { slot: 0, sender: 0 });
    assert_eq!((outcome.receivers, outcome.frame), (vec![ifindex(1), ifindex(2)], whole.inner.clone()));
    assert!(outcome.tunnelled.is_empty());
    let refused = |frame: Wrapped| verdict_at_tc(&tables, &frame.bytes());
    assert_eq!(refused(advert(254, &[vip_address(0)])), drop(DropReason::VrrpTtl));
    assert_eq!(refused(advert(255, &[vip_address(1)])), drop(DropReason::VrrpNotMember));
    assert_eq!(refused(advert(255, &[])), drop(DropReason::VrrpNotMember));
    // Of the other VPC with the same addresses nobody hears.
    let other = Wrapped { vni: 4002, ..whole };
    let outcome = engine::uplink(&tables, Stage::Tc, &other.bytes());
    assert_eq!(outcome.receivers, [ifindex(7), ifindex(8), ifindex(9)]);
}

#[test]
fn an_advertisement_is_heard_if_its_sender_may_own_the_first_vip_that_it_names_wherever_it_is() {
    let [first, second] = [0, 1].map(vip_address);
    let group = Mac::new([1, 0, 0x5e, 0, 0, 18]);
    let fixed = port_address(2);
    // Of the sender: its rights on both VIPs, none, to own or to send from. Whether the first one's members hear it.
    for (rights, source, addresses, to, heard) in [
        ([1, 0], fixed, &[first][..], group, true),
        ([1, 0], fixed, &[first, second], group, true),
        ([1, 0], fixed, &[crate::world::UNLISTED, first], group, true),
        ([1, 0], fixed, &[first], port_mac(1), true),
        ([0, 1], fixed, &[first, second], group, false),
        ([2, 1], fixed, &[first, second], group, false),
        ([0, 0], fixed, &[first], group, false),
        ([2, 0], fixed, &[first], group, false),
        ([1, 0], first, &[first], group, false),
    ] {
        for host in [1, 2] {
            let mut world = spread(&[(2, host)]);
            for (vip, right) in world.vips.iter_mut().zip(rights) {
                *vip = Some(VipSpec { rights: [1, right, 1], ..VipSpec::default() });
            }
            let advert = Ipv4Frame {
                ttl: 255,
                ..Ipv4Frame::new((port_mac(2), source), (to, VRRP_GROUP), vrrp(66, addresses))
            };
            let cluster = Cluster::of(&world);
            let ends = cluster.port(host, 2, &advert.bytes());
            let mut receivers: Vec<_> = ends.iter().flat_map(|end| end.outcome.receivers.clone()).collect();
            receivers.sort_unstable();
            let expected = if heard { vec![ifindex(1), ifindex(3)] } else { vec![] };
            let what = format!("{rights:?} {source} {addresses:?} on host {host}");
            assert_eq!(receivers, expected, "{what}");
            // What a host without forwarder lets through is judged here alike.
            let alone =
                engine::uplink(cluster.at(1), Stage::Tc, &Wrapped::new(3, 1, 4001, advert.bytes()).bytes());
            if heard {
                assert_eq!(alone.verdict, Verdict::Members { slot: 0, sender: 0 }, "{what}");
            } else {
                assert_eq!(alone.verdict, drop(DropReason::VrrpNotMember), "{what}");
                assert_eq!(ends[0].outcome.verdict, alone.verdict, "{what}");
            }
        }
    }
}

#[test]
fn an_advertisement_never_reaches_members_of_another_vpc_whose_slot_it_was() {
    // The agent is at work: the slot's members are another tenant's already, the VIP still is the old one.
    let mut tables = world().tables();
    let group = (Mac::new([1, 0, 0x5e, 0, 0, 18]), Ipv4::new([224, 0, 0, 18]));
    let from = (port_mac(2), port_address(2));
    let advert = Ipv4Frame { ttl: 255, ..Ipv4Frame::new(from, group, vrrp(66, &[vip_address(0)])) };
    let of_other = tables.members[&4];
    assert_eq!(of_other.vni, 4002);
    tables.members.insert(0, of_other);
    let outcome = engine::uplink(&tables, Stage::Tc, &Wrapped::new(2, 1, 4001, advert.bytes()).bytes());
    assert_eq!(outcome.receivers, Vec::<u32>::new(), "{:?}", outcome.verdict);
}

#[test]
fn xdp_leaves_what_it_cannot_reach_as_it_came() {
    let to_here = Wrapped::new(2, 1, 4001, from_second(port_mac(1), port_address(1)));
    let to_third = Wrapped::new(2, 1, 4001, from_second(port_mac(3), port_address(3)));
    let question = ArpFrame::question((port_mac(2), port_address(2)), port_address(1)).bytes();
    let question = Wrapped::new(2, 1, 4001, question);
    let deaf = {
        let mut world = world();
        world.port_mut(1).takes_xdp = false;
        world
    };
    let stranger = |host| {
        let mut world = world();
        overlay(&mut world).strangers = vec![host];
        world
    };
    let no_return = World { returns: false, ..world() };
    let stale = {
        let mut world = world();
        overlay(&mut world).believed = false;
        world
    };
    for (world, frame, at_tc) in [
        (&deaf, &to_here, to_port(1)),
        (&stranger(3), &to_third, Verdict::Resolve { next_hop: vtep(3), network: 0 }),
        (&stranger(2), &question, Verdict::Resolve { next_hop: vtep(2), network: 0 }),
        (&no_return, &to_third, Verdict::Uplink { ifindex: UPLINK, mtu: 0 }),
        (&no_return, &question, Verdict::Uplink { ifindex: UPLINK, mtu: 0 }),
        (&stale, &to_third, Verdict::Resolve { next_hop: vtep(3), network: 0 }),
        (&stale, &question, Verdict::Resolve { next_hop: vtep(2), network: 0 }),
    ] {
        let (tables, bytes) = (world.tables(), frame.bytes());
        let outcome = engine::uplink(&tables, Stage::Xdp, &bytes);
        assert_eq!((outcome.verdict, outcome.frame), (Verdict::LeaveToTc, bytes.clone()));
        assert!(tables.drops.borrow().is_empty() && tables.vip_traffic.borrow().is_empty());
        assert_eq!(engine::uplink(&tables, Stage::Tc, &bytes).verdict, at_tc);
    }
    // What is delivered here needs no next hop.
    for world in [no_return, stale] {
        assert_eq!(engine::uplink(&world.tables(), Stage::Xdp, &to_here.bytes()).verdict, to_port(1));
    }
}

#[test]
fn xdp_leaves_a_packet_to_an_eip_of_a_host_that_it_cannot_reach() {
    let inbound = |eip| {
        Ipv4Frame::new((crate::world::NEIGHBOUR_MAC, CLIENT), (host_mac(1), eip), tcp(1, 2, b"data")).bytes()
    };
    let frame = inbound(crate::world::port_eip(2));
    for change in [
        |world: &mut World| overlay(world).strangers = vec![2],
        |world: &mut World| {
            overlay(world).believed = false;
        },
    ] {
        let mut world = world();
        change(&mut world);
        let tables = world.tables();
        let outcome = engine::uplink(&tables, Stage::Xdp, &frame);
        assert_eq!((outcome.verdict, outcome.frame), (Verdict::LeaveToTc, frame.clone()));
        let outcome = engine::uplink(&tables, Stage::Tc, &frame);
        assert_eq!(outcome.verdict, Verdict::Resolve { next_hop: vtep(2), network: 0 });
        assert!(Opened::of(&outcome.frame).is_some());
    }
}

#[test]
fn a_way_that_is_missing_is_a_reason_of_its_own() {
    let mut world = world();
    overlay(&mut world).lost = vec![2, 3];
    let tables = world.tables();
    let reason = drop(DropReason::NoWayToHost);
    let to_second = Ipv4Frame::new(
        (port_mac(1), port_address(1)),
        (port_mac(2), port_address(2)),
        udp(4000, 53, b"question"),
    );
    assert_eq!(engine::port(&tables, ifindex(1), false, &to_second.bytes()).verdict, reason);
    let eip = crate::world::port_eip(2);
    let inbound =
        Ipv4Frame::new((crate::world::NEIGHBOUR_MAC, CLIENT), (host_mac(1), eip), tcp(1, 2, b"data"));
    assert_eq!(verdict_at_tc(&tables, &inbound.bytes()), reason);
    let onward = Wrapped::new(2, 1, 4001, from_second(port_mac(3), port_address(3)));
    assert_eq!(verdict_at_tc(&tables, &onward.bytes()), reason);
    let question = ArpFrame::question((port_mac(2), port_address(2)), port_address(1)).bytes();
    assert_eq!(verdict_at_tc(&tables, &Wrapped::new(2, 1, 4001, question).bytes()), reason);
    // To a VIP, from one, through a gateway, and to the EIP of one.
    own(&tables, 0, 2);
    own(&tables, 2, 4);
    let web = (Mac::of_address(vip_address(0)), vip_address(0));
    let by_gateway = |port| (Mac::of_address(gateway(port)), vip_address(0));
    for (port, source, to) in [
        (1, port_address(1), web),
        (1, vip_address(0), (port_mac(2), port_address(2))),
        (4, port_address(4), by_gateway(1)),
        (4, vip_address(2), by_gateway(1)),
    ] {
        let frame = Ipv4Frame::new((port_mac(port), source), to, udp(4000, 53, b"question"));
        assert_eq!(engine::port(&tables, ifindex(port), false, &frame.bytes()).verdict, reason);
    }
    let eip = crate::world::vip_eip(0);
    let inbound =
        Ipv4Frame::new((crate::world::NEIGHBOUR_MAC, CLIENT), (host_mac(1), eip), tcp(1, 2, b"data"));
    assert_eq!(verdict_at_tc(&tables, &inbound.bytes()), reason);
    assert_eq!(tables.drops.borrow().get(&DropReason::NoWayToHost.index()), Some(&9));
    assert!(tables.vip_traffic.borrow().is_empty() && tables.eip_traffic.borrow().is_empty());
    // Of an advertisement each host that is not reached counts.
    let group = (Mac::new([1, 0, 0x5e, 0, 0, 18]), Ipv4::new([224, 0, 0, 18]));
    let from = (port_mac(1), port_address(1));
    let advert = Ipv4Frame { ttl: 255, ..Ipv4Frame::new(from, group, vrrp(66, &[vip_address(0)])) };
    let outcome = engine::port(&tables, ifindex(1), false, &advert.bytes());
    assert!(outcome.tunnelled.is_empty());
    assert_eq!(tables.drops.borrow().get(&DropReason::NoWayToHost.index()), Some(&11));
}

#[test]
fn a_frame_that_no_kernel_could_send_is_not_sent_to_nobody() {
    // ARP cannot wait for the neighbour's MAC to be found, so it needs one that is known.
    let mut world = spread(&[(1, 2)]);
    overlay(&mut world).strangers = vec![2];
    let tables = world.tables();
    let probe = ArpFrame::question((port_mac(2), Ipv4::UNSPECIFIED), vip_address(0)).bytes();
    let outcome = engine::port(&tables, ifindex(2), false, &probe);
    assert_eq!(outcome.verdict, drop(DropReason::NoWayToHost), "{:02x?}", &outcome.frame[..6]);
    // With one that is old it goes.
    let mut world = spread(&[(1, 2)]);
    overlay(&mut world).believed = false;
    let outcome = engine::port(&world.tables(), ifindex(2), false, &probe);
    assert_eq!(outcome.verdict, Verdict::Uplink { ifindex: UPLINK, mtu: 0 });
    assert_eq!(opened(&outcome.frame, 1, 2).inner, probe);
}

#[test]
fn tc_waits_for_a_mac_that_is_old() {
    let mut world = spread(&[(1, 2)]);
    overlay(&mut world).believed = false;
    let tables = world.tables();
    assert!(tables.config.expect("a host").flags.has(ConfigFlags::UPLINK_RETURNS));
    let frame = Ipv4Frame::new(
        (port_mac(2), port_address(2)),
        (port_mac(1), port_address(1)),
        udp(4000, 53, b"question"),
    );
    let outcome = engine::port(&tables, ifindex(2), false, &frame.bytes());
    assert_eq!(outcome.verdict, Verdict::Resolve { next_hop: vtep(2), network: 0 });
    let is = Opened::of(&outcome.frame).expect("VXLAN");
    assert_eq!(is.inner, frame.bytes());
    assert!(Reading::of(&outcome.frame).expect("IPv4").has_valid_header_checksum());
}
