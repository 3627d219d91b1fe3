//! What a host refuses of the underlay, and of guests that would like to speak there: each reason by examples.

use vip_common::{
    DropReason, engine,
    engine::MemoryTables,
    pipeline::{Stage, Verdict},
    tables::{ConfigFlags, PortFlags, Target, VniAddress},
    wire::{Ipv4, Mac},
};

use super::{OUTER, Wrapped, spread};
use crate::{
    frame::{ArpFrame, Ipv4Frame, ethernet, tcp, udp},
    world::{
        CLIENT, HOSTS, NEIGHBOUR, NEIGHBOUR_MAC, UPLINK, UPLINK_MAC, World, gateway, ifindex, port_address,
        port_mac, vip_address, vtep,
    },
};

fn world() -> World {
    spread(&[(2, 2), (3, 3)])
}

/// What both hooks come to; drops are counted once by each.
fn verdict(tables: &MemoryTables, frame: &[u8]) -> Verdict {
    tables.drops.borrow_mut().clear();
    let first = engine::uplink(tables, Stage::Xdp, frame);
    assert_eq!(first.verdict, engine::uplink(tables, Stage::Tc, frame).verdict);
    if let Verdict::Drop(reason) = first.verdict {
        assert_eq!(tables.drops.borrow().get(&reason), Some(&2));
    } else {
        assert!(tables.drops.borrow().is_empty());
    }
    if first.verdict == Verdict::NotOurs {
        assert_eq!(first.frame, frame, "as it came");
    }
    first.verdict
}

fn drop(reason: DropReason) -> Verdict {
    Verdict::Drop(reason.index())
}

fn to_port(port: u32) -> Verdict {
    Verdict::Deliver { port, ifindex: ifindex(port) }
}

/// A packet from port 2 to port 1, through the tunnel.
fn good() -> Wrapped {
    let from = (port_mac(2), port_address(2));
    let packet = Ipv4Frame::new(from, (port_mac(1), port_address(1)), tcp(4000, 80, b"GET /"));
    Wrapped::new(2, 1, 4001, packet.bytes())
}

#[test]
fn vxlan_of_nobodys_vpc_is_not_ours() {
    let tables = world().tables();
    assert_eq!(verdict(&tables, &good().bytes()), to_port(1));
    for wrapped in [
        Wrapped { vni: 4999, ..good() },
        Wrapped { vni: 0, ..good() },
        Wrapped { vni: 0xff_ffff, ..good() },
        // The VNI is not valid.
        Wrapped { flags: 0, ..good() },
        Wrapped { flags: 0xf7, ..good() },
        Wrapped { ports: (50_000, 4790), ..good() },
        Wrapped { ports: (4789, 50_000), ..good() },
    ] {
        assert_eq!(verdict(&tables, &wrapped.bytes()), Verdict::NotOurs);
    }
    // Flags that mean nothing are ignored (RFC 7348 section 5).
    assert_eq!(verdict(&tables, &Wrapped { flags: 0xff, ..good() }.bytes()), to_port(1));
    let mut reserved = good().bytes();
    for at in [43, 44, 45, 49] {
        reserved[at] = 0xff;
    }
    assert_eq!(verdict(&tables, &reserved), to_port(1));
}

#[test]
fn vxlan_to_a_host_without_vtep_is_not_ours() {
    let tables = World::default().tables();
    assert_eq!(verdict(&tables, &good().bytes()), Verdict::NotOurs);
    // Nor to one that has one by mistake of the sender, at another MAC.
    let tables = world().tables();
    let other = Wrapped { outer: Ipv4Frame { to: NEIGHBOUR_MAC, ..good().outer }, ..good() };
    assert_eq!(verdict(&tables, &other.bytes()), Verdict::NotOurs);
    let all = Wrapped { outer: Ipv4Frame { to: Mac::BROADCAST, ..good().outer }, ..good() };
    assert_eq!(verdict(&tables, &all.bytes()), Verdict::NotOurs);
}

#[test]
fn vxlan_from_an_address_that_is_no_other_hosts_is_dropped() {
    let tables = world().tables();
    for source in [CLIENT, NEIGHBOUR, vtep(1), Ipv4::UNSPECIFIED, port_address(2)] {
        let wrapped = Wrapped { outer: Ipv4Frame { source, ..good().outer }, ..good() };
        assert_eq!(verdict(&tables, &wrapped.bytes()), drop(DropReason::VtepUnknown));
        // Of a VPC that is not ours it is somebody else's.
        let wrapped = Wrapped { vni: 4999, ..wrapped };
        assert_eq!(verdict(&tables, &wrapped.bytes()), Verdict::NotOurs);
    }
}

#[test]
fn vxlan_from_the_vlan_of_an_eip_network_is_dropped_whoever_it_says_it_is_from() {
    /// The VLAN interface on the uplink.
    const VLAN: u32 = 40;
    let mut tables = world().tables();
    let config = tables.config.as_mut().expect("a host");
    config.flags = config.flags.with(ConfigFlags::VLANS);
    let at_tc = |interface, tagged, frame: &[u8]| {
        let outcome = engine::uplink_by(&tables, Stage::Tc, interface, tagged, frame);
        assert!(outcome.verdict != Verdict::NotOurs || outcome.frame == frame, "as it came");
        outcome.verdict
    };
    let foreign = Wrapped { vni: 4999, ..good() }.bytes();
    let good = good().bytes();
    assert_eq!(at_tc(UPLINK, false, &good), to_port(1));
    assert_eq!(at_tc(VLAN, false, &good), drop(DropReason::VtepNotOurs));
    assert_eq!(at_tc(UPLINK, true, &good), Verdict::NotOurs, "it is for the VLAN interface");
    assert_eq!(at_tc(VLAN, false, &foreign), Verdict::NotOurs);
    // XDP does not see a tag that the NIC has taken off.
    let outcome = engine::uplink(&tables, Stage::Xdp, &good);
    assert_eq!((outcome.verdict, outcome.frame), (Verdict::LeaveToTc, good));
}

#[test]
fn vxlan_of_a_vpc_to_another_address_is_dropped() {
    let tables = world().tables();
    for destination in [vtep(2), CLIENT, crate::world::HOST_ADDRESS] {
        let wrapped = Wrapped { outer: Ipv4Frame { destination, ..good().outer }, ..good() };
        assert_eq!(verdict(&tables, &wrapped.bytes()), drop(DropReason::VtepNotOurs));
        let wrapped = Wrapped { vni: 4999, ..wrapped };
        assert_eq!(verdict(&tables, &wrapped.bytes()), Verdict::NotOurs);
    }
}

#[test]
fn vxlan_that_is_cut_or_ends_too_early_is_dropped() {
    let tables = world().tables();
    let malformed = drop(DropReason::VxlanMalformed);
    let first = Wrapped { outer: Ipv4Frame { fragment: 0x2000, ..good().outer }, ..good() };
    assert_eq!(verdict(&tables, &first.bytes()), malformed);
    for inner in [vec![], vec![0; 13], ethernet(port_mac(1), port_mac(2), 0x0806)] {
        assert_eq!(verdict(&tables, &Wrapped { inner, ..good() }.bytes()), malformed);
    }
    let whole = good();
    for length in [14, 33] {
        let inner = whole.inner[..length].to_vec();
        assert_eq!(verdict(&tables, &Wrapped { inner, ..good() }.bytes()), malformed, "{length}");
    }
    // Lengths outside that the frame does not have, and lengths inside that those do not leave.
    let mut long = whole.bytes();
    long.pop();
    assert_eq!(verdict(&tables, &long), malformed);
    let inner = whole.inner[..whole.inner.len() - 1].to_vec();
    assert_eq!(verdict(&tables, &Wrapped { inner, ..good() }.bytes()), drop(DropReason::Ipv4Malformed));
    let probe = ArpFrame::question((port_mac(2), Ipv4::UNSPECIFIED), vip_address(0)).bytes();
    let (inner, behind) = probe.split_at(41);
    let padded = [Wrapped { inner: inner.to_vec(), ..good() }.bytes(), behind.to_vec()].concat();
    assert_eq!(verdict(&tables, &padded), malformed, "ARP that ends behind the outer packet");
    for change in [1_u8, 0xff] {
        let mut contradicting = good().bytes();
        // The low byte of the UDP length: the outer header has no options.
        contradicting[39] = contradicting[39].wrapping_add(change);
        assert_eq!(verdict(&tables, &contradicting), malformed, "UDP as long as IP says");
    }
    // Bytes that are behind the outer packet are not the inner one's.
    let inner = whole.inner[..whole.inner.len() - 1].to_vec();
    let padded = [Wrapped { inner, ..good() }.bytes(), vec![0]].concat();
    assert_eq!(verdict(&tables, &padded), drop(DropReason::Ipv4Malformed));
}

#[test]
fn vxlan_may_end_anywhere() {
    let tables = world().tables();
    let whole = good().bytes();
    for length in 0..whole.len() {
        let outcome = verdict(&tables, &whole[..length]);
        let expected = if length < OUTER { Verdict::NotOurs } else { drop(DropReason::VxlanMalformed) };
        assert_eq!(outcome, expected, "{length}");
    }
}

#[test]
fn arp_through_vxlan_never_claims() {
    let tables = world().tables();
    let vip = vip_address(0);
    let claim = drop(DropReason::OverlayClaim);
    let says = |operation, sender, target: (Mac, Ipv4)| ArpFrame {
        to: if operation == 2 { port_mac(1) } else { Mac::BROADCAST },
        from: port_mac(2),
        operation,
        sender,
        target,
    };
    let stranger = Mac::new([2, 9, 9, 9, 9, 9]);
    let asks = (Mac::ZERO, port_address(1));
    for arp in [
        // Gratuitous: requests, replies, announcements, of VIPs, fixed addresses, gateways and strangers.
        ArpFrame::garp(port_mac(2), vip),
        ArpFrame { operation: 2, ..ArpFrame::garp(port_mac(2), vip) },
        ArpFrame::garp(Mac::of_address(vip), vip),
        says(1, (port_mac(2), vip), (Mac::ZERO, vip)),
        ArpFrame::garp(Mac::of_vrid(66), vip),
        ArpFrame::garp(port_mac(2), port_address(2)),
        ArpFrame::garp(port_mac(2), port_address(1)),
        ArpFrame::garp(port_mac(2), gateway(0)),
        ArpFrame::garp(stranger, Ipv4::new([10, 0, 0, 200])),
        ArpFrame::garp(port_mac(2), Ipv4::UNSPECIFIED),
        // Questions and replies in the name of somebody else, or by another MAC than the tables know.
        says(1, (port_mac(2), vip), asks),
        says(1, (port_mac(2), port_address(3)), asks),
        says(1, (port_mac(2), gateway(0)), asks),
        says(1, (stranger, port_address(2)), asks),
        says(1, (stranger, Ipv4::new([10, 0, 0, 200])), asks),
        says(2, (port_mac(2), vip), (port_mac(1), port_address(1))),
        says(2, (port_mac(2), port_address(3)), (port_mac(1), port_address(1))),
        says(2, (port_mac(2), gateway(0)), (port_mac(1), port_address(1))),
        says(2, (stranger, port_address(2)), (port_mac(1), port_address(1))),
    ] {
        let outcome = verdict(&tables, &Wrapped { inner: arp.bytes(), ..good() }.bytes());
        assert_eq!(outcome, claim, "{arp:?}");
    }
    assert_eq!(tables.vips[&0].get().word.port(), 1);
    assert!(tables.events.borrow().is_empty() && tables.moves.borrow().is_empty());
}

#[test]
fn arp_that_is_none_is_dropped() {
    let tables = world().tables();
    let good_one = ArpFrame::question((port_mac(2), port_address(2)), port_address(1));
    let group = Mac::new([1, 0, 0x5e, 0, 0, 1]);
    for arp in [
        ArpFrame { operation: 3, ..good_one },
        // An answer in nobody's name.
        ArpFrame { operation: 2, to: port_mac(1), sender: (port_mac(2), Ipv4::UNSPECIFIED), ..good_one },
        ArpFrame { sender: (group, port_address(2)), ..good_one },
        ArpFrame { sender: (Mac::ZERO, port_address(2)), ..good_one },
        ArpFrame { sender: (port_mac(2), Ipv4::BROADCAST), ..good_one },
        ArpFrame { sender: (port_mac(2), Ipv4::new([224, 0, 0, 1])), ..good_one },
    ] {
        let outcome = verdict(&tables, &Wrapped { inner: arp.bytes(), ..good() }.bytes());
        assert_eq!(outcome, drop(DropReason::ArpMalformed), "{arp:?}");
    }
}

#[test]
fn groups_other_than_vrrps_are_dropped() {
    let tables = world().tables();
    for (to, destination) in [
        (Mac::BROADCAST, Ipv4::BROADCAST),
        (Mac::BROADCAST, port_address(1)),
        (Mac::new([1, 0, 0x5e, 0, 0, 18]), Ipv4::new([224, 0, 0, 18])),
        (Mac::new([1, 0, 0x5e, 0, 0, 1]), Ipv4::new([224, 0, 0, 1])),
    ] {
        let packet = Ipv4Frame::new((port_mac(2), port_address(2)), (to, destination), udp(4000, 53, b"x"));
        let outcome = verdict(&tables, &Wrapped { inner: packet.bytes(), ..good() }.bytes());
        assert_eq!(outcome, drop(DropReason::OverlayGroup), "{destination}");
    }
}

#[test]
fn what_is_neither_ipv4_nor_arp_is_dropped() {
    let tables = world().tables();
    for kind in [0x86dd, 0x8035, 0x8100, 0x88a8, 0x88cc, 0] {
        let inner = [ethernet(port_mac(1), port_mac(2), kind), vec![0; 46]].concat();
        let outcome = verdict(&tables, &Wrapped { inner, ..good() }.bytes());
        assert_eq!(outcome, drop(DropReason::OverlayType), "{kind:04x}");
    }
}

/// What becomes of a frame of port 1, with its check on and off.
fn by_guest(frame: &[u8], mut check: impl FnMut(bool, Verdict)) {
    for bypass in [false, true] {
        let mut world = world();
        world.port_mut(1).bypass = bypass;
        check(bypass, engine::port(&world.tables(), ifindex(1), false, frame).verdict);
    }
}

#[test]
fn no_guest_reaches_a_vtep() {
    let from = (port_mac(1), port_address(1));
    let refused = drop(DropReason::VtepAddress);
    for host in 1..=HOSTS {
        for payload in [udp(4000, 4789, b"x"), tcp(4000, 22, b"x"), crate::frame::icmp(8, b"x")] {
            // As its EIP, by the gateway; and by the MAC of somebody on the host's own bridge.
            for to in [Mac::of_address(gateway(0)), UPLINK_MAC, Mac::new([2, 9, 9, 9, 9, 9])] {
                let frame = Ipv4Frame::new(from, (to, vtep(host)), payload.clone());
                by_guest(&frame.bytes(), |bypass, verdict| assert_eq!(verdict, refused, "{bypass} {to:?}"));
            }
        }
        // What is always allowed is not, to a VTEP.
        let frame = Ipv4Frame::new(
            (port_mac(1), Ipv4::UNSPECIFIED),
            (UPLINK_MAC, vtep(host)),
            udp(68, 67, b"discover"),
        );
        by_guest(&frame.bytes(), |_, verdict| assert_eq!(verdict, refused));
    }
}

#[test]
fn no_guest_sends_from_a_vtep() {
    for host in 1..=HOSTS {
        for (to, destination) in [
            (Mac::of_address(gateway(0)), CLIENT),
            (UPLINK_MAC, vtep(2)),
            (Mac::new([2, 9, 9, 9, 9, 9]), CLIENT),
            (port_mac(2), port_address(2)),
        ] {
            let frame = Ipv4Frame::new((port_mac(1), vtep(host)), (to, destination), udp(4000, 4789, b"x"));
            by_guest(&frame.bytes(), |bypass, verdict| {
                let reason = if bypass { DropReason::VtepAddress } else { DropReason::SourceAddress };
                assert_eq!(verdict, drop(reason), "{bypass} {destination}");
            });
        }
        let group = (Mac::new([1, 0, 0x5e, 0, 0, 22]), Ipv4::new([224, 0, 0, 22]));
        let frame = Ipv4Frame::new((port_mac(1), vtep(host)), group, (2, vec![0x22; 16]));
        by_guest(&frame.bytes(), |bypass, verdict| {
            assert_ne!(verdict, Verdict::NotOurs, "IGMP from a VTEP, bypass {bypass}");
        });
    }
}

#[test]
fn no_guest_says_in_arp_that_it_is_a_vtep() {
    for host in 1..=HOSTS {
        for arp in [
            ArpFrame::garp(port_mac(1), vtep(host)),
            ArpFrame { operation: 2, ..ArpFrame::garp(port_mac(1), vtep(host)) },
            ArpFrame::question((port_mac(1), vtep(host)), CLIENT),
            ArpFrame {
                to: NEIGHBOUR_MAC,
                from: port_mac(1),
                operation: 2,
                sender: (port_mac(1), vtep(host)),
                target: (NEIGHBOUR_MAC, CLIENT),
            },
        ] {
            by_guest(&arp.bytes(), |bypass, verdict| {
                assert!(matches!(verdict, Verdict::Drop(_)), "{verdict:?} of {arp:?}, bypass {bypass}");
            });
        }
    }
}

/// The frame with a tag in its bytes.
fn with_tag(frame: &[u8], tag: [u8; 4]) -> Vec<u8> {
    let (macs, rest) = frame.split_at(12);
    [macs, &tag, rest].concat()
}

#[test]
fn no_tag_takes_a_guest_to_a_vtep() {
    let from = (port_mac(1), port_address(1));
    let bridge = Mac::new([2, 9, 9, 9, 9, 9]);
    let payload = || udp(4000, 4789, b"x");
    let (refused, nested) = (drop(DropReason::VtepAddress), drop(DropReason::NestedTag));
    let honest = Ipv4Frame::new(from, (bridge, CLIENT), payload()).bytes();
    for bypass in [false, true] {
        let mut world = world();
        world.port_mut(1).bypass = bypass;
        let mut tables = world.tables();
        let tagged = |tables: &MemoryTables, frame: &[u8]| {
            let outcome = engine::port(tables, ifindex(1), true, frame);
            assert_eq!(outcome.frame, frame, "as it came");
            outcome.verdict
        };
        for trunk in [false, true] {
            if trunk {
                let port = tables.ports.get_mut(&1).expect("the port");
                port.flags = port.flags.with(PortFlags::TRUNK);
            }
            for host in 1..=HOSTS {
                for frame in [
                    Ipv4Frame::new(from, (bridge, vtep(host)), payload()).bytes(),
                    Ipv4Frame::new((port_mac(1), vtep(host)), (bridge, CLIENT), payload()).bytes(),
                    ArpFrame::garp(port_mac(1), vtep(host)).bytes(),
                    ArpFrame { operation: 2, ..ArpFrame::garp(port_mac(1), vtep(host)) }.bytes(),
                    ArpFrame::question((port_mac(1), vtep(host)), CLIENT).bytes(),
                ] {
                    assert_eq!(tagged(&tables, &frame), refused, "{host} {frame:02x?}");
                    for tag in [[0x81, 0, 0, 5], [0x88, 0xa8, 0, 5], [0x81, 0, 0, 0]] {
                        assert_eq!(tagged(&tables, &with_tag(&frame, tag)), refused, "{host} {frame:02x?}");
                        let third = with_tag(&with_tag(&frame, tag), tag);
                        assert_eq!(tagged(&tables, &third), nested, "{host} {frame:02x?}");
                    }
                }
            }
            let inner = with_tag(&honest, [0x81, 0, 0, 5]);
            for frame in [honest.as_slice(), &inner, &honest[..20], &inner[..20], &inner[..16], &honest[..14]]
            {
                assert_eq!(tagged(&tables, frame), Verdict::NotOurs, "{frame:02x?}");
            }
        }
        // A host that is alone has no VTEP, and leaves all of it alone.
        tables.config.as_mut().expect("a host").vtep = Ipv4::UNSPECIFIED;
        let third = with_tag(&with_tag(&honest, [0x81, 0, 0, 5]), [0x81, 0, 0, 6]);
        assert_eq!(tagged(&tables, &third), Verdict::NotOurs);
    }
}

#[test]
fn a_guest_whose_address_is_a_vteps_is_heard_in_its_vpc_alone() {
    let mut tables = world().tables();
    let port = tables.ports.get_mut(&1).expect("the port");
    (port.address, port.flags) = (vtep(3), port.flags.with(PortFlags::BRIDGED));
    let by_port = |frame: &[u8]| engine::port(&tables, ifindex(1), false, frame).verdict;
    let own = (port_mac(1), vtep(3));
    let stranger = (Mac::new([2, 9, 9, 9, 9, 9]), Ipv4::new([10, 0, 0, 200]));
    for arp in [
        ArpFrame::garp(own.0, own.1),
        ArpFrame { operation: 2, ..ArpFrame::garp(own.0, own.1) },
        ArpFrame::question(own, stranger.1),
        ArpFrame { to: stranger.0, from: own.0, operation: 2, sender: own, target: stranger },
    ] {
        assert_eq!(by_port(&arp.bytes()), drop(DropReason::VtepAddress), "{arp:?}");
    }
    let refusals = tables.events.borrow().len();
    assert_eq!(refusals, 4, "each is told");
}

#[test]
fn a_claim_of_a_vip_whose_address_is_a_vteps_counts_and_is_shown_to_no_bridge() {
    for (address, shown) in [(vip_address(0), true), (vtep(3), false)] {
        let mut world = world();
        world.vip_mut(0).owner = None;
        let mut tables = world.tables();
        let port = tables.ports.get_mut(&1).expect("the port");
        port.flags = port.flags.with(PortFlags::BRIDGED);
        let key = |address| VniAddress { vni: 4001, address };
        tables.addresses.insert(key(address), Target::vip(0));
        let garp = ArpFrame::garp(port_mac(1), address).bytes();
        let verdict = engine::port(&tables, ifindex(1), false, &garp).verdict;
        assert_eq!(verdict, if shown { Verdict::PassOn } else { Verdict::Consumed });
        assert_eq!(tables.vips[&0].get().word.port(), 1, "it owns {address}");
    }
}

#[test]
fn an_eip_hides_no_vtep() {
    // A director's packet, from a client's address that is a VTEP: refused before it is handed on.
    let mut world = world();
    world.vip_mut(0).rights = [1, 2, 0];
    let handed_on =
        Ipv4Frame::new((port_mac(1), vtep(3)), (port_mac(2), vip_address(0)), tcp(4000, 80, b"GET /"));
    let outcome = engine::port(&world.tables(), ifindex(1), false, &handed_on.bytes());
    assert_eq!(outcome.verdict, drop(DropReason::VtepAddress));
}
