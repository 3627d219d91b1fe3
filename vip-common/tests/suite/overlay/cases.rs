//! One example for each way of a frame from one host to another.

use vip_common::{
    DropReason, engine,
    pipeline::{Stage, Verdict},
    tables::{OwnerWord, Target, VniAddress},
    wire::{Ipv4, Mac},
};

use super::{Cluster, End, Opened, opened, overlay, sent, spread, tunnelled};
use crate::{
    frame::{ArpFrame, Ipv4Frame, Reading, tcp, udp, vrrp},
    rules::ArpReading,
    world::{
        CLIENT, HOSTS, NEIGHBOUR_MAC, UPLINK, World, gateway, host_mac, ifindex, port_address, port_eip,
        port_mac, vip_address, vip_eip, vtep,
    },
};

/// A packet of port 2, whose TTL is 64.
fn packet(to: Mac, destination: Ipv4) -> Ipv4Frame {
    Ipv4Frame::new((port_mac(2), port_address(2)), (to, destination), tcp(4000, 80, b"GET /"))
}

fn to_port(port: u32) -> Verdict {
    Verdict::Deliver { port, ifindex: ifindex(port) }
}

/// The one end of a frame's way.
fn only(mut ends: Vec<End>) -> End {
    assert_eq!(ends.len(), 1, "{ends:?}");
    ends.pop().expect("one")
}

/// Lets a port own the VIP in a slot, on one host.
fn own(cluster: &Cluster, host: u32, slot: u32, port: u32, vrid: u8) {
    cluster.at(host).vips[&slot].update(|entry| entry.word = OwnerWord::new(9, true, port, vrid));
}

#[test]
fn a_neighbour_on_another_host_is_reached_by_its_own_mac() {
    let cluster = Cluster::of(&spread(&[(1, 2)]));
    let frame = packet(port_mac(1), port_address(1)).bytes();
    let outcome = engine::port(cluster.at(1), ifindex(2), false, &frame);
    assert_eq!(outcome.verdict, Verdict::Uplink { ifindex: UPLINK, mtu: 0 });
    let is = opened(&outcome.frame, 1, 2);
    assert_eq!((is.vni(), is.inner, is.is_fresh()), (4001, frame.as_slice(), true));
    let end = only(cluster.port(1, 2, &frame));
    assert_eq!((end.host, end.hops, end.outcome.verdict), (2, 1, to_port(1)));
    assert_eq!(end.outcome.frame, frame, "no TTL less");
}

#[test]
fn the_owner_of_a_vip_on_another_host_is_reached_by_the_vips_mac() {
    let cluster = Cluster::of(&spread(&[(1, 3)]));
    let vip = vip_address(0);
    // Also by whom still knows a former owner's MAC.
    for mac in [Mac::of_address(vip), port_mac(3)] {
        let frame = packet(mac, vip).bytes();
        let outcome = engine::port(cluster.at(1), ifindex(2), false, &frame);
        let (to, tunnel) = sent(&outcome, 1);
        assert_eq!(to, 3);
        let inside = Reading::of(opened(&tunnel, 1, 3).inner).expect("a packet").to;
        assert_eq!(inside, Mac::of_address(vip), "whoever owns it by then");
        let end = only(cluster.port(1, 2, &frame));
        assert_eq!((end.host, end.outcome.verdict), (3, to_port(1)));
        assert_eq!(end.outcome.frame[..6], port_mac(1).octets());
        assert_eq!(end.outcome.frame[6..], frame[6..]);
    }
}

#[test]
fn an_owner_by_a_virtual_router_mac_receives_by_it_on_another_host_too() {
    let mut world = spread(&[(1, 3)]);
    world.vip_mut(0).vrids = vec![66];
    let cluster = Cluster::of(&world);
    (1..=HOSTS).for_each(|host| own(&cluster, host, 0, 1, 66));
    let vip = vip_address(0);
    let end = only(cluster.port(1, 2, &packet(Mac::of_address(vip), vip).bytes()));
    assert_eq!((end.host, end.outcome.verdict), (3, to_port(1)));
    assert_eq!(end.outcome.frame[..6], Mac::of_vrid(66).octets());
}

#[test]
fn a_packet_through_the_gateway_is_routed_where_it_begins() {
    let cluster = Cluster::of(&spread(&[(4, 2)]));
    for (destination, receiver_mac) in
        [(port_address(4), port_mac(4)), (vip_address(2), Mac::of_address(vip_address(2)))]
    {
        let frame = packet(Mac::of_address(gateway(0)), destination).bytes();
        let outcome = engine::port(cluster.at(1), ifindex(2), false, &frame);
        let (_, tunnel) = sent(&outcome, 1);
        let is = opened(&tunnel, 1, 2);
        let inside = Reading::of(is.inner).expect("a packet");
        assert_eq!((inside.to, inside.from), (receiver_mac, Mac::of_address(gateway(1))));
        assert_eq!((inside.ip.ttl(), inside.has_valid_header_checksum()), (63, true));
        let end = only(cluster.port(1, 2, &frame));
        assert_eq!((end.host, end.outcome.verdict), (2, to_port(4)));
        let received = Reading::of(&end.outcome.frame).expect("a packet");
        assert_eq!((received.ip.ttl(), received.to), (63, port_mac(4)), "one TTL in all");
    }
}

#[test]
fn a_packet_to_a_peer_travels_in_the_receivers_vpc() {
    let mut world = spread(&[(13, 2)]);
    world.peered = true;
    let cluster = Cluster::of(&world);
    let frame = packet(Mac::of_address(gateway(0)), port_address(13)).bytes();
    let outcome = engine::port(cluster.at(1), ifindex(2), false, &frame);
    assert_eq!(opened(&sent(&outcome, 1).1, 1, 2).vni(), 4003);
    let end = only(cluster.port(1, 2, &frame));
    assert_eq!((end.host, end.outcome.verdict), (2, to_port(13)));
    assert_eq!(Reading::of(&end.outcome.frame).expect("a packet").from, Mac::of_address(gateway(4)));
}

#[test]
fn two_vpcs_with_the_same_addresses_stay_apart() {
    // Ports 1 and 7 have the same address and MAC, and so have 2 and 8.
    let cluster = Cluster::of(&spread(&[(1, 2), (7, 2), (8, 3)]));
    for (from, sender, receiver, vni) in [(1, 2, 1, 4001), (3, 8, 7, 4002)] {
        let frame = packet(port_mac(1), port_address(1)).bytes();
        let outcome = engine::port(cluster.at(from), ifindex(sender), false, &frame);
        assert_eq!(opened(&sent(&outcome, from).1, from, 2).vni(), vni);
        assert_eq!(only(cluster.port(from, sender, &frame)).outcome.verdict, to_port(receiver));
        let frame = packet(Mac::of_address(vip_address(0)), vip_address(0)).bytes();
        assert_eq!(only(cluster.port(from, sender, &frame)).outcome.verdict, to_port(receiver));
    }
}

#[test]
fn a_packet_to_an_eip_is_translated_where_it_comes_in() {
    let cluster = Cluster::of(&spread(&[(1, 2), (2, 3)]));
    for (eip, address, port, host, mac) in [
        (vip_eip(0), vip_address(0), 1, 2, Mac::of_address(vip_address(0))),
        (port_eip(2), port_address(2), 2, 3, port_mac(2)),
    ] {
        let inbound = Ipv4Frame::new((NEIGHBOUR_MAC, CLIENT), (host_mac(1), eip), tcp(1, 2, b"data"));
        for (stage, verdict) in
            [(Stage::Xdp, Verdict::Return), (Stage::Tc, Verdict::Uplink { ifindex: UPLINK, mtu: 0 })]
        {
            let outcome = engine::uplink(cluster.at(1), stage, &inbound.bytes());
            assert_eq!(outcome.verdict, verdict);
            let is = opened(&outcome.frame, 1, host);
            let inside = Reading::of(is.inner).expect("a packet");
            assert_eq!((inside.source, inside.destination, inside.to), (CLIENT, address, mac));
            assert_eq!((inside.ip.ttl(), inside.has_valid_transport_checksum()), (63, Some(true)));
            assert!(inside.has_valid_header_checksum());
        }
        let end = only(cluster.uplink(1, &inbound.bytes()));
        assert_eq!((end.host, end.outcome.verdict), (host, to_port(port)));
        let received = Reading::of(&end.outcome.frame).expect("a packet");
        assert_eq!((received.to, received.ip.ttl()), (port_mac(port), 63));
        assert_eq!(received.from, Mac::of_address(gateway(0)));
    }
}

#[test]
fn a_guests_packet_to_an_eip_of_another_host_goes_there_as_if_from_outside() {
    let cluster = Cluster::of(&spread(&[(1, 2)]));
    let frame = packet(Mac::of_address(gateway(0)), vip_eip(0)).bytes();
    let end = only(cluster.port(1, 2, &frame));
    assert_eq!((end.host, end.outcome.verdict), (2, to_port(1)));
    let received = Reading::of(&end.outcome.frame).expect("a packet");
    assert_eq!((received.source, received.destination), (port_eip(2), vip_address(0)));
    assert_eq!(received.ip.ttl(), 62, "two hops");
    assert_eq!(received.has_valid_transport_checksum(), Some(true));
}

#[test]
fn a_director_hands_on_to_real_servers_and_unchecked_ports_of_other_hosts() {
    let mut world = spread(&[(2, 2), (3, 3)]);
    world.vip_mut(0).rights = [1, 2, 0];
    world.port_mut(3).bypass = true;
    let cluster = Cluster::of(&world);
    for (server, host) in [(2, 2), (3, 3)] {
        let client = Ipv4Frame::new(
            (port_mac(1), CLIENT),
            (port_mac(server), vip_address(0)),
            tcp(4000, 80, b"GET /"),
        );
        let end = only(cluster.port(1, 1, &client.bytes()));
        assert_eq!((end.host, end.outcome.verdict), (host, to_port(server)));
        assert_eq!(end.outcome.frame, client.bytes());
    }
    // The answer leaves as the EIP, from its own host.
    let answer = Ipv4Frame::new(
        (port_mac(2), vip_address(0)),
        (Mac::of_address(gateway(0)), CLIENT),
        tcp(80, 4000, b"200"),
    );
    let end = only(cluster.port(2, 2, &answer.bytes()));
    assert_eq!((end.host, end.hops), (2, 0));
    assert_eq!(Reading::of(&end.outcome.frame).expect("a packet").source, vip_eip(0));
}

#[test]
fn a_vip_is_a_next_hop_on_another_host_while_its_owner_routes() {
    let mut world = spread(&[(1, 2)]);
    world.port_mut(1).bypass = true;
    let cluster = Cluster::of(&world);
    let frame = packet(Mac::of_address(vip_address(0)), CLIENT).bytes();
    let end = only(cluster.port(1, 2, &frame));
    assert_eq!((end.host, end.outcome.verdict), (2, to_port(1)));
    assert_eq!(end.outcome.frame[..6], port_mac(1).octets());
    // By its own MAC likewise.
    let end = only(cluster.port(1, 2, &packet(port_mac(1), CLIENT).bytes()));
    assert_eq!((end.host, end.outcome.verdict), (2, to_port(1)));
}

#[test]
fn what_is_on_the_way_when_a_vip_moves_is_sent_on_once() {
    let cluster = Cluster::of(&spread(&[(1, 2), (3, 3)]));
    let vip = vip_address(0);
    let frame = packet(Mac::of_address(vip), vip).bytes();
    // The first host has not heard of it yet.
    own(&cluster, 2, 0, 3, 0);
    own(&cluster, 3, 0, 3, 0);
    let end = only(cluster.port(1, 2, &frame));
    assert_eq!((end.host, end.hops, end.outcome.verdict), (3, 2, to_port(3)));
    assert_eq!(end.outcome.frame[..6], port_mac(3).octets());
    assert_eq!(end.outcome.frame[6..], frame[6..]);
    // Hosts that each take another one for the owner's do not throw it to and fro.
    own(&cluster, 3, 0, 1, 0);
    let end = only(cluster.port(1, 2, &frame));
    assert_eq!(end.outcome.verdict, Verdict::Drop(DropReason::ForwardedTwice.index()));
    assert_eq!((end.host, end.hops), (3, 2));
}

#[test]
fn a_port_that_has_moved_to_another_host_gets_what_is_on_the_way() {
    let before = Cluster::of(&spread(&[(1, 2)]));
    let after = Cluster::of(&spread(&[(1, 3)]));
    let frame = packet(port_mac(1), port_address(1)).bytes();
    let (_, on_its_way) = sent(&engine::port(before.at(1), ifindex(2), false, &frame), 1);
    let end = only(after.uplink(2, &on_its_way));
    assert_eq!((end.host, end.hops, end.outcome.verdict), (3, 1, to_port(1)));
    assert_eq!(end.outcome.frame, frame);
}

#[test]
fn an_advertisement_reaches_members_on_all_hosts_once() {
    let mut world = spread(&[(2, 2), (3, 3)]);
    world.vip_mut(0).vrids = vec![66];
    let cluster = Cluster::of(&world);
    let group = (Mac::new([1, 0, 0x5e, 0, 0, 18]), Ipv4::new([224, 0, 0, 18]));
    let advert = Ipv4Frame {
        ttl: 255,
        ..Ipv4Frame::new((port_mac(1), port_address(1)), group, vrrp(66, &[vip_address(0)]))
    };
    let outcome = engine::port(cluster.at(1), ifindex(1), false, &advert.bytes());
    assert_eq!(outcome.verdict, Verdict::Members { slot: 0, sender: 1 });
    assert!(outcome.receivers.is_empty(), "no other member is here");
    let sent = tunnelled(1, &outcome);
    assert_eq!(sent.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [2, 3]);
    for (to, frame) in &sent {
        let is = opened(frame, 1, *to);
        assert_eq!((is.vni(), is.inner), (4001, advert.bytes().as_slice()));
    }
    let ends = cluster.port(1, 1, &advert.bytes());
    let heard: Vec<_> = ends.iter().flat_map(|end| end.outcome.receivers.clone()).collect();
    assert_eq!(heard, [ifindex(2), ifindex(3)]);
    for end in ends.iter().filter(|end| end.hops > 0) {
        assert_eq!(end.outcome.frame, advert.bytes(), "unchanged");
        assert!(end.outcome.tunnelled.is_empty(), "and no further");
    }
}

#[test]
fn an_advertisement_goes_to_two_members_of_one_host_in_one_frame() {
    let cluster = Cluster::of(&spread(&[(2, 2), (3, 2)]));
    let group = (Mac::new([1, 0, 0x5e, 0, 0, 18]), Ipv4::new([224, 0, 0, 18]));
    let from = (port_mac(1), port_address(1));
    let advert = Ipv4Frame { ttl: 255, ..Ipv4Frame::new(from, group, vrrp(66, &[vip_address(0)])) };
    let outcome = engine::port(cluster.at(1), ifindex(1), false, &advert.bytes());
    let sent = tunnelled(1, &outcome);
    assert_eq!(sent.len(), 1);
    let (_, frame) = &sent[0];
    assert_eq!(engine::uplink(cluster.at(2), Stage::Xdp, frame).verdict, Verdict::LeaveToTc);
    let received = engine::uplink(cluster.at(2), Stage::Tc, frame);
    assert_eq!(received.verdict, Verdict::Members { slot: 0, sender: 0 });
    assert_eq!(received.receivers, [ifindex(2), ifindex(3)]);
}

#[test]
fn a_members_probe_finds_the_owner_on_another_host() {
    let cluster = Cluster::of(&spread(&[(1, 2)]));
    let probe = ArpFrame::question((port_mac(2), Ipv4::UNSPECIFIED), vip_address(0)).bytes();
    let end = only(cluster.port(1, 2, &probe));
    assert_eq!((end.host, end.outcome.verdict), (2, to_port(1)));
    assert_eq!(end.outcome.frame, probe, "to everybody, as it was asked");
    // The owner defends its address, to the MAC that probed.
    let defence = ArpFrame {
        to: port_mac(2),
        from: port_mac(1),
        operation: 2,
        sender: (port_mac(1), vip_address(0)),
        target: (port_mac(2), Ipv4::UNSPECIFIED),
    };
    let end = only(cluster.port(2, 1, &defence.bytes()));
    assert_eq!((end.host, end.outcome.verdict), (1, to_port(2)));
    let heard = ArpReading::of(&end.outcome.frame).expect("ARP");
    assert_eq!((heard.sender, heard.sender_mac), (vip_address(0), Mac::of_address(vip_address(0))));
    // Nobody is there who could.
    own(&cluster, 2, 0, 0, 0);
    assert_eq!(only(cluster.port(1, 2, &probe)).outcome.verdict, Verdict::Consumed);
}

#[test]
fn questions_of_guests_are_answered_where_they_are_asked() {
    let cluster = Cluster::of(&spread(&[(1, 2), (3, 3)]));
    for (target, mac) in [
        (port_address(1), port_mac(1)),
        (vip_address(0), Mac::of_address(vip_address(0))),
        (gateway(0), Mac::of_address(gateway(0))),
    ] {
        let question = ArpFrame::question((port_mac(2), port_address(2)), target).bytes();
        let outcome = engine::port(cluster.at(1), ifindex(2), false, &question);
        assert_eq!(outcome.verdict, Verdict::Return);
        let answer = ArpReading::of(&outcome.frame).expect("ARP");
        assert_eq!((answer.sender, answer.sender_mac, answer.to), (target, mac, port_mac(2)));
    }
}

#[test]
fn only_the_owners_host_answers_for_an_eip() {
    let cluster = Cluster::of(&spread(&[(1, 2)]));
    let question = ArpFrame::question((NEIGHBOUR_MAC, CLIENT), vip_eip(0)).bytes();
    for (host, verdict) in [(1, Verdict::NotOurs), (2, Verdict::Return), (3, Verdict::NotOurs)] {
        assert_eq!(engine::uplink(cluster.at(host), Stage::Xdp, &question).verdict, verdict);
    }
}

#[test]
fn a_claim_counts_on_the_claimants_host_at_once() {
    let cluster = Cluster::of(&spread(&[(2, 2)]));
    let claim = ArpFrame::garp(port_mac(2), vip_address(0)).bytes();
    let end = only(cluster.port(2, 2, &claim));
    assert_eq!((end.host, end.outcome.verdict), (2, Verdict::Consumed), "nobody else sees it");
    let word = |host| cluster.at(host).vips[&0].get().word;
    assert_eq!((word(2).port(), word(2).epoch()), (2, word(1).epoch() + 1));
    assert_eq!(word(1).port(), 1, "the others are told by vipd");
}

#[test]
fn a_host_that_has_not_heard_the_others_learns_nobody() {
    let mut world = spread(&[(1, 2)]);
    world.vip_mut(0).owner = None;
    let from_vip =
        Ipv4Frame::new((port_mac(2), vip_address(0)), (port_mac(3), port_address(3)), udp(1, 2, b"x"));
    let question = ArpFrame::question((port_mac(2), vip_address(0)), port_address(3));
    for (waits, learned) in [(true, 0), (false, 2)] {
        overlay(&mut world).learning_waits = waits;
        for frame in [from_vip.bytes(), question.bytes()] {
            let tables = world.tables();
            let _ = engine::port(&tables, ifindex(2), false, &frame);
            assert_eq!(tables.vips[&0].get().word.port(), learned);
        }
        // A claim is no guess.
        let tables = world.tables();
        let claim = ArpFrame::garp(port_mac(2), vip_address(0)).bytes();
        let _ = engine::port(&tables, ifindex(2), false, &claim);
        assert_eq!(tables.vips[&0].get().word.port(), 2);
    }
}

#[test]
fn a_tenant_may_have_the_addresses_of_vteps_inside() {
    let mut world = spread(&[(1, 2)]);
    world.port_mut(2).eip = false;
    let cluster = Cluster::of(&world);
    // Port 1's address is a VTEP's too, and so is that of port 4, in another subnet.
    let renamed = |cluster: Cluster| {
        let mut cluster = cluster;
        for tables in &mut cluster.tables {
            tables.ports.get_mut(&1).expect("it is there").address = vtep(3);
            tables.addresses.insert(VniAddress { vni: 4001, address: vtep(3) }, Target::port(1));
            let (_, _, _, entry) = *tables.subnets.iter().find(|(from, ..)| *from == 4001).expect("a subnet");
            tables.subnets.push((4001, vtep(3), Ipv4::BROADCAST, entry));
        }
        cluster
    };
    let cluster = renamed(cluster);
    let frame = packet(Mac::of_address(gateway(0)), vtep(3)).bytes();
    let end = only(cluster.port(1, 2, &frame));
    assert_eq!((end.host, end.outcome.verdict), (2, to_port(1)), "inside the VPC, to the guest");
    assert!(Opened::of(&end.outcome.frame).is_none());
}

#[test]
fn frames_between_hosts_count_for_the_vip_at_both() {
    let world: World = spread(&[(1, 2), (3, 3)]);
    let cluster = Cluster::of(&world);
    let vip = vip_address(0);
    let frame = packet(Mac::of_address(vip), vip).bytes();
    let _ = cluster.port(1, 2, &frame);
    for host in [1, 2] {
        let all = cluster.at(host).vip_traffic.borrow();
        let traffic = all.get(&0).expect("counted");
        assert_eq!((traffic.packets_in, traffic.bytes_in), (1, frame.len() as u64), "host {host}");
    }
    assert!(cluster.at(3).vip_traffic.borrow().is_empty());
}
