//! EIPs on VLANs: a packet to one counts only where its network is, and what leaves as one leaves there.

use vip_common::{
    DropReason,
    engine::{self, MemoryTables, Outcome},
    pipeline::{Stage, Verdict, neighbours_interface},
    tables::{ConfigFlags, EipNetwork},
    wire::{Ipv4, Mac},
};

use crate::{
    frame::{ArpFrame, Ipv4Frame, icmp, tcp, udp},
    world::{
        CLIENT, NEIGHBOUR, NEIGHBOUR_MAC, ROUTER, UPLINK, UPLINK_MAC, World, gateway, ifindex, port_address,
        port_eip, port_mac, subnet_of_port, vip_eip,
    },
};

/// The VLAN interface on the uplink.
const VLAN: u32 = 40;

/// The VIP in slot 0 has an EIP of the network on the VLAN, the one in slot 2 and all ports have routed ones.
fn tables(ifindex: u32) -> MemoryTables {
    let mut world = World::default();
    world.vip_mut(0).network = true;
    let mut tables = world.tables();
    let config = tables.config.as_mut().expect("a host");
    config.flags = config.flags.with(ConfigFlags::VLANS);
    let network: &mut EipNetwork = tables.networks.get_mut(&1).expect("a network");
    network.ifindex = ifindex;
    tables
}

fn from_outside(tables: &MemoryTables, stage: Stage, ifindex: u32, frame: &[u8]) -> Outcome {
    engine::uplink_by(tables, stage, ifindex, false, frame)
}

/// A frame that is not handled is left as it came, and counts nowhere.
#[track_caller]
fn must_pass(tables: &MemoryTables, (stage, ifindex): (Stage, u32), frame: &[u8], verdict: Verdict) {
    let outcome = from_outside(tables, stage, ifindex, frame);
    assert_eq!((outcome.verdict, outcome.frame.as_slice()), (verdict, frame));
    assert!(tables.drops.borrow().is_empty() && tables.eip_traffic.borrow().is_empty());
}

fn inbound(eip: Ipv4) -> Vec<Vec<u8>> {
    [tcp(1, 2, b"data"), udp(1, 2, b"data"), icmp(8, b"data")]
        .map(|payload| Ipv4Frame::new((NEIGHBOUR_MAC, CLIENT), (UPLINK_MAC, eip), payload).bytes())
        .into()
}

/// A packet of a port to its gateway.
fn leaving(port: u32, destination: Ipv4) -> Vec<u8> {
    let to = (Mac::of_address(gateway(subnet_of_port(port))), destination);
    Ipv4Frame::new((port_mac(port), port_address(port)), to, udp(1, 2, b"data")).bytes()
}

/// A packet of the owner of the VIP in slot 0, from the VIP, to its gateway.
fn leaving_as_vip(destination: Ipv4) -> Vec<u8> {
    let to = (Mac::of_address(gateway(0)), destination);
    Ipv4Frame::new((port_mac(1), crate::world::vip_address(0)), to, udp(1, 2, b"data")).bytes()
}

#[test]
fn an_eip_on_a_vlan_is_served_on_its_vlan_interface_alone() {
    let tables = tables(VLAN);
    for frame in inbound(vip_eip(0)) {
        must_pass(&tables, (Stage::Xdp, UPLINK), &frame, Verdict::LeaveToTc);
        must_pass(&tables, (Stage::Tc, UPLINK), &frame, Verdict::NotOurs);
        must_pass(&tables, (Stage::Tc, VLAN + 1), &frame, Verdict::NotOurs);
    }
    for frame in inbound(vip_eip(0)) {
        let verdict = from_outside(&tables, Stage::Tc, VLAN, &frame).verdict;
        assert_eq!(verdict, Verdict::Deliver { port: 1, ifindex: ifindex(1) });
    }
}

#[test]
fn an_eip_on_no_vlan_is_served_on_the_uplink_alone() {
    let tables = tables(VLAN);
    for eip in [vip_eip(2), port_eip(5)] {
        for frame in inbound(eip) {
            must_pass(&tables, (Stage::Tc, VLAN), &frame, Verdict::NotOurs);
        }
    }
    for stage in [Stage::Xdp, Stage::Tc] {
        for frame in inbound(vip_eip(2)) {
            let verdict = from_outside(&tables, stage, UPLINK, &frame).verdict;
            assert_eq!(verdict, Verdict::Deliver { port: 4, ifindex: ifindex(4) });
        }
    }
}

#[test]
fn a_tagged_frame_on_the_uplink_is_not_ours() {
    let tables = tables(VLAN);
    for eip in [vip_eip(0), vip_eip(2)] {
        for frame in inbound(eip) {
            let outcome = engine::uplink_by(&tables, Stage::Tc, UPLINK, true, &frame);
            assert_eq!((outcome.verdict, outcome.frame), (Verdict::NotOurs, frame));
        }
    }
}

#[test]
fn questions_are_answered_on_the_eips_own_network() {
    let tables = tables(VLAN);
    let question = |eip| ArpFrame::question((NEIGHBOUR_MAC, ROUTER), eip).bytes();
    must_pass(&tables, (Stage::Xdp, UPLINK), &question(vip_eip(0)), Verdict::LeaveToTc);
    must_pass(&tables, (Stage::Tc, UPLINK), &question(vip_eip(0)), Verdict::NotOurs);
    must_pass(&tables, (Stage::Tc, VLAN), &question(vip_eip(2)), Verdict::NotOurs);
    let verdict = |stage, ifindex, eip| from_outside(&tables, stage, ifindex, &question(eip)).verdict;
    assert_eq!(verdict(Stage::Tc, VLAN, vip_eip(0)), Verdict::Return);
    assert_eq!(verdict(Stage::Xdp, UPLINK, vip_eip(2)), Verdict::Return);
}

#[test]
fn what_leaves_as_an_eip_on_a_vlan_leaves_by_the_vlan_interface() {
    let tables = tables(VLAN);
    let verdict = |frame: &[u8]| engine::port(&tables, ifindex(1), false, frame).verdict;
    // By the network's gateway, and to a neighbour that the kernel has to find.
    assert_eq!(verdict(&leaving_as_vip(CLIENT)), Verdict::Uplink { ifindex: VLAN, mtu: 0 });
    let resolve = |network| Verdict::Resolve { next_hop: NEIGHBOUR, network };
    assert_eq!(verdict(&leaving_as_vip(NEIGHBOUR)), resolve(1));
    assert_eq!(verdict(&leaving(1, CLIENT)), Verdict::Uplink { ifindex: UPLINK, mtu: 0 });
    assert_eq!(verdict(&leaving(1, NEIGHBOUR)), resolve(0));
    assert_eq!([1, 0].map(|network| neighbours_interface(&&tables, network)), [VLAN, UPLINK]);
}

#[test]
fn a_packet_between_eips_comes_back_by_the_network_of_the_one_that_it_goes_to() {
    let tables = tables(VLAN);
    let verdict = |port, frame: &[u8]| engine::port(&tables, ifindex(port), false, frame).verdict;
    let to = |port| Verdict::Deliver { port, ifindex: ifindex(port) };
    // From no VLAN to one, from one to none, and to itself.
    assert_eq!(verdict(2, &leaving(2, vip_eip(0))), to(1));
    assert_eq!(verdict(1, &leaving_as_vip(port_eip(2))), to(2));
    assert_eq!(verdict(1, &leaving_as_vip(vip_eip(0))), to(1));
}

#[test]
fn nothing_comes_or_goes_while_the_vlan_interface_is_missing() {
    let tables = tables(EipNetwork::MISSING);
    for frame in inbound(vip_eip(0)) {
        must_pass(&tables, (Stage::Xdp, UPLINK), &frame, Verdict::LeaveToTc);
        must_pass(&tables, (Stage::Tc, UPLINK), &frame, Verdict::NotOurs);
    }
    let question = ArpFrame::question((NEIGHBOUR_MAC, ROUTER), vip_eip(0)).bytes();
    must_pass(&tables, (Stage::Tc, UPLINK), &question, Verdict::NotOurs);
    let no_next_hop = Verdict::Drop(DropReason::NoNextHop.index());
    for destination in [CLIENT, NEIGHBOUR] {
        let outcome = engine::port(&tables, ifindex(1), false, &leaving_as_vip(destination));
        assert_eq!(outcome.verdict, no_next_hop);
    }
    let hairpin = engine::port(&tables, ifindex(2), false, &leaving(2, vip_eip(0)));
    assert_eq!(hairpin.verdict, no_next_hop);
}

#[test]
fn tagged_frames_of_other_ports_on_the_same_interface_are_not_stopped_there() {
    let mut world = World::default().tables();
    let frame =
        Ipv4Frame::new((port_mac(3), port_address(3)), (port_mac(1), port_address(1)), tcp(1, 2, b""));
    let verdict =
        |tables: &MemoryTables, tagged| engine::port(tables, ifindex(2), tagged, &frame.bytes()).verdict;
    let source_mac = Verdict::Drop(DropReason::SourceMac.index());
    assert_eq!(verdict(&world, true), source_mac, "a port alone on its interface");
    let port = world.ports.get_mut(&2).expect("port 2");
    port.flags = port.flags.with(vip_common::tables::PortFlags::TRUNK);
    assert_eq!(verdict(&world, true), Verdict::NotOurs);
    assert_eq!(verdict(&world, false), source_mac, "an untagged frame is the port's own");
}
