//! Guests of a host without forwarder: any other host is their gateway.

use proptest::{prelude::*, sample::select};
use vip_common::{
    DropReason,
    engine::{self, MemoryTables},
    pipeline::{Stage, Verdict},
    tables::OwnerWord,
    wire::{Ipv4, Mac},
};

use super::{Cluster, Wrapped, on_one_host, opened, overlay, spread, tunnelled};
use crate::{
    cases,
    frame::{Bytes, Ipv4Frame, Reading, icmp, tcp, udp, whole_guest_packet},
    world::{
        CLIENT, HOSTS, PORTS, SLOTS, SUBNETS, World, any_overlay_world, gateway, ifindex, port_address,
        port_mac, subnet_of_port, vip_address, vni_of, vtep,
    },
};

/// Port 2 is on the far host, which is the second; ports 4 and 13 are here, 5 on the third.
fn world() -> World {
    World { peered: true, ..spread(&[(2, 2), (5, 3)]) }
}

/// Port 2's packet to its gateway.
fn to_gateway(destination: Ipv4) -> Ipv4Frame {
    let to = (Mac::of_address(gateway(0)), destination);
    Ipv4Frame::new((port_mac(2), port_address(2)), to, tcp(4000, 80, b"GET /"))
}

fn wrapped(packet: &Ipv4Frame) -> Wrapped {
    Wrapped::new(2, 1, 4001, packet.bytes())
}

/// What both hooks come to.
fn verdict(tables: &MemoryTables, wrapped: &Wrapped) -> Verdict {
    let first = engine::uplink(tables, Stage::Xdp, &wrapped.bytes());
    assert_eq!(first.verdict, engine::uplink(tables, Stage::Tc, &wrapped.bytes()).verdict);
    first.verdict
}

/// The packet one hop further, behind this gateway.
fn routed(packet: &Ipv4Frame, subnet: u32, to: Mac) -> Vec<u8> {
    Ipv4Frame { from: Mac::of_address(gateway(subnet)), to, ttl: packet.ttl - 1, ..packet.clone() }.bytes()
}

#[test]
fn a_packet_to_another_subnet_or_a_peer_is_routed_to_a_guest_here() {
    let tables = world().tables();
    for (port, subnet) in [(4, 1), (13, 4)] {
        let packet = to_gateway(port_address(port));
        for stage in [Stage::Xdp, Stage::Tc] {
            let outcome = engine::uplink(&tables, stage, &wrapped(&packet).bytes());
            assert_eq!(outcome.verdict, Verdict::Deliver { port, ifindex: ifindex(port) });
            assert_eq!(Bytes(outcome.frame), Bytes(routed(&packet, subnet, port_mac(port))));
        }
    }
}

#[test]
fn a_packet_for_a_third_host_goes_there_fresh_and_in_the_receivers_vpc() {
    let mut world = world();
    overlay(&mut world).places[12] = 3;
    let tables = world.tables();
    for (port, subnet, vni) in [(5, 1, 4001), (13, 4, 4003)] {
        let packet = to_gateway(port_address(port));
        let outcome = engine::uplink(&tables, Stage::Tc, &wrapped(&packet).bytes());
        let is = opened(&outcome.frame, 1, 3);
        assert_eq!((is.vni(), is.is_fresh()), (vni, true));
        assert_eq!(is.inner, routed(&packet, subnet, port_mac(port)));
    }
}

#[test]
fn a_packet_to_a_vip_of_another_subnet_reaches_its_owner_and_counts() {
    let tables = world().tables();
    let packet = to_gateway(vip_address(2));
    let by = |port| tables.vips[&2].update(|entry| entry.word = OwnerWord::new(9, true, port, 0));
    by(4);
    let outcome = engine::uplink(&tables, Stage::Xdp, &wrapped(&packet).bytes());
    assert_eq!(outcome.frame, routed(&packet, 1, port_mac(4)));
    by(5);
    let outcome = engine::uplink(&tables, Stage::Xdp, &wrapped(&packet).bytes());
    let is = opened(&outcome.frame, 1, 3);
    assert!(is.is_fresh());
    assert_eq!(is.inner, routed(&packet, 1, Mac::of_address(vip_address(2))));
    let traffic = tables.vip_traffic.borrow();
    assert_eq!(traffic.len(), 1, "{traffic:?}");
    by(0);
    drop(traffic);
    assert_eq!(verdict(&tables, &wrapped(&packet)), Verdict::Drop(DropReason::Unowned.index()));
}

#[test]
fn the_gateway_answers_echo_through_the_tunnel() {
    let tables = world().tables();
    for subnet in [0, 1, 4] {
        let (protocol, payload) = icmp(8, b"hello");
        let question = Ipv4Frame { protocol, payload, ..to_gateway(gateway(subnet)) };
        for stage in [Stage::Xdp, Stage::Tc] {
            let outcome = engine::uplink(&tables, stage, &wrapped(&question).bytes());
            let is = opened(&outcome.frame, 1, 2);
            assert!(is.is_fresh());
            let answer = Reading::of(is.inner).expect("IPv4");
            assert_eq!((answer.to, answer.from), (port_mac(2), Mac::of_address(gateway(0))));
            assert_eq!((answer.source, answer.destination), (gateway(subnet), port_address(2)));
            assert_eq!(answer.payload[0], 0, "an echo reply");
            assert!(answer.has_valid_header_checksum());
        }
    }
    let other = to_gateway(gateway(1));
    assert_eq!(verdict(&tables, &wrapped(&other)), Verdict::Drop(DropReason::GatewayService.index()));
}

#[test]
fn what_the_gateway_does_not_route_is_dropped_and_counted() {
    let tables = world().tables();
    let good = to_gateway(port_address(4));
    let from = |mac, address| Ipv4Frame { from: mac, source: address, ..good.clone() };
    let (protocol, payload) = udp(67, 68, b"an address");
    let dhcp = Ipv4Frame { protocol, payload, ..good.clone() };
    let cases: Vec<(Wrapped, DropReason, &str)> = vec![
        (wrapped(&good).sent_on(), DropReason::ForwardedTwice, "what was sent on"),
        (wrapped(&from(port_mac(1), port_address(1))), DropReason::SourceMac, "a guest here"),
        (wrapped(&from(port_mac(5), port_address(5))), DropReason::SourceMac, "a guest of a third host"),
        (wrapped(&from(Mac::new([2, 9, 9, 9, 9, 9]), CLIENT)), DropReason::SourceMac, "nobody"),
        (wrapped(&from(port_mac(2), port_address(1))), DropReason::SourceAddress, "another's address"),
        (wrapped(&from(port_mac(2), vip_address(2))), DropReason::SourceAddress, "another subnet's VIP"),
        (Wrapped { vni: 4002, ..wrapped(&good) }, DropReason::SourceMac, "another VPC"),
        (wrapped(&to_gateway(CLIENT)), DropReason::NoRoute, "out, as nobody's EIP is this host's to use"),
        (wrapped(&to_gateway(Ipv4::new([127, 0, 0, 1]))), DropReason::NoRoute, "to the host itself"),
        (wrapped(&to_gateway(crate::world::port_eip(4))), DropReason::Hairpin, "to an EIP"),
        (wrapped(&to_gateway(Ipv4::new([10, 0, 1, 200]))), DropReason::NoSuchAddress, "to nobody"),
        (wrapped(&to_gateway(port_address(2))), DropReason::Reflected, "to itself"),
        (wrapped(&Ipv4Frame { ttl: 1, ..good.clone() }), DropReason::TtlExpired, "the last hop"),
        (wrapped(&Ipv4Frame { protocol: 112, ..good.clone() }), DropReason::VrrpRouted, "VRRP"),
        (wrapped(&dhcp), DropReason::DhcpServer, "a DHCP server's answer"),
        (
            wrapped(&Ipv4Frame { to: Mac::of_address(gateway(1)), ..good.clone() }),
            DropReason::NoSuchAddress,
            "by another subnet's gateway",
        ),
    ];
    for (wrapped, reason, what) in cases {
        tables.drops.borrow_mut().clear();
        assert_eq!(verdict(&tables, &wrapped), Verdict::Drop(reason.index()), "{what}");
        assert_eq!(tables.drops.borrow().get(&reason.index()), Some(&2), "{what}");
    }
    assert!(tables.vip_traffic.borrow().is_empty());
}

#[test]
fn a_guest_whose_check_is_off_may_be_a_router_but_no_vtep() {
    let mut world = world();
    world.port_mut(2).bypass = true;
    let tables = world.tables();
    let from = |source| wrapped(&Ipv4Frame { source, ..to_gateway(port_address(4)) });
    assert_eq!(verdict(&tables, &from(CLIENT)), Verdict::Deliver { port: 4, ifindex: ifindex(4) });
    assert_eq!(verdict(&tables, &from(vtep(1))), Verdict::Drop(DropReason::VtepAddress.index()));
}

proptest! {
    #![proptest_config(cases(2500))]

    /// Whichever host it comes to.
    #[test]
    fn guests_of_a_far_end_are_routed_as_by_their_own_host(
        world in any_overlay_world(),
        (port, packet) in whole_guest_packet(),
        target in prop_oneof![
            4 => (1..=PORTS).prop_map(port_address),
            4 => (0..SLOTS).prop_map(vip_address),
            1 => (0..SUBNETS).prop_map(gateway),
        ],
        by in select((1..=HOSTS).collect::<Vec<_>>()),
    ) {
        let far = world.place(port);
        let subnet = subnet_of_port(port);
        if far == by || world.is_external(subnet) {
            return Ok(());
        }
        let to = Mac::of_address(gateway(subnet));
        let packet = Ipv4Frame { to, from: port_mac(port), destination: target, ..packet };
        let alone_tables = on_one_host(&world, far);
        let alone = engine::port(&alone_tables, ifindex(port), false, &packet.bytes());
        let cluster = Cluster::of(&world);
        let frame = Wrapped::new(far, by, vni_of(subnet), packet.bytes()).bytes();
        let first = engine::uplink(cluster.at(by), Stage::Tc, &frame);
        for (to, next) in tunnelled(by, &first) {
            prop_assert!(opened(&next, by, to).is_fresh());
        }
        let ends = cluster.uplink(by, &frame);
        prop_assert_eq!(ends.len(), 1);
        let end = &ends[0];
        match alone.verdict {
            Verdict::Deliver { .. } => {
                if end.outcome.verdict != Verdict::Drop(DropReason::NoWayToHost.index()) {
                    prop_assert_eq!(end.outcome.verdict, alone.verdict);
                    prop_assert_eq!(Bytes(end.outcome.frame.clone()), Bytes(alone.frame));
                }
            }
            // The gateway's answer.
            Verdict::Return => {
                let back = matches!(end.outcome.verdict, Verdict::Deliver { .. });
                prop_assert!(back || matches!(end.outcome.verdict, Verdict::Drop(_)), "{:?}", end);
                if back {
                    prop_assert_eq!(end.host, far);
                    prop_assert_eq!(Bytes(end.outcome.frame.clone()), Bytes(alone.frame));
                }
            }
            // Its own host would tell it, cut it, or let it out.
            _ => {
                prop_assert!(matches!(end.outcome.verdict, Verdict::Drop(_)), "{:?} {:?}", alone.verdict, end);
            }
        }
    }
}
