//! From EIP to EIP: what a guest sends to an EIP is what would leave as its own and come in again, one hop further.

use proptest::{prelude::*, sample::select};
use vip_common::{
    DropReason,
    engine::{self, MemoryTables},
    pipeline::{Stage, Verdict},
    tables::Traffic,
    wire::{Ipv4, Mac},
};

use crate::{
    cases,
    frame::{Ipv4Frame, Reading, whole_guest_packet},
    world::{
        PORTS, SLOTS, UPLINK_MAC, World, any_world, gateway, ifindex, port_eip, subnet_of_port, vip_eip,
    },
};

/// A guest's packet to an EIP, by its gateway.
fn packet_to_eip() -> impl Strategy<Value = (u32, Ipv4Frame)> {
    let eips: Vec<Ipv4> = (1..=PORTS).map(port_eip).chain((0..SLOTS).map(vip_eip)).collect();
    (whole_guest_packet(), select(eips)).prop_map(|((port, packet), destination)| {
        (port, Ipv4Frame { to: Mac::of_address(gateway(subnet_of_port(port))), destination, ..packet })
    })
}

/// What leaves while nobody here has the EIP, and comes in again when somebody has; `None` if nothing leaves. With the tables, which
/// have learned from both.
fn there_and_back(world: &World, port: u32, packet: &Ipv4Frame) -> Option<(engine::Outcome, MemoryTables)> {
    let mut tables = world.tables();
    let target = tables.eips.remove(&packet.destination);
    let mut left = engine::port(&tables, ifindex(port), false, &packet.bytes());
    if !matches!(left.verdict, Verdict::Uplink { .. } | Verdict::Resolve { .. }) {
        return None;
    }
    if Reading::of(&left.frame)?.source == packet.destination {
        // Its own EIP, which counts what leaves, was not there.
        return None;
    }
    tables.eips.extend(target.map(|target| (packet.destination, target)));
    left.frame[..6].copy_from_slice(&UPLINK_MAC.octets());
    let came = engine::uplink(&tables, Stage::Tc, &left.frame);
    Some((came, tables))
}

fn traffic(tables: &MemoryTables) -> Vec<(Ipv4, Traffic)> {
    tables.eip_traffic.borrow().iter().map(|(eip, traffic)| (*eip, *traffic)).collect()
}

proptest! {
    #![proptest_config(cases(2500))]

    #[test]
    fn a_packet_to_an_eip_is_one_that_left_and_came_in_again(
        world in any_world(),
        (port, packet) in packet_to_eip(),
    ) {
        let Some((expected, by_itself)) = there_and_back(&world, port, &packet) else { return Ok(()) };
        if !by_itself.eips.contains_key(&packet.destination) {
            // An EIP that nobody has is outside, and the packet goes there.
            return Ok(());
        }
        let tables = world.tables();
        let seen = engine::port(&tables, ifindex(port), false, &packet.bytes());
        prop_assert_eq!(seen.verdict, expected.verdict);
        if matches!(seen.verdict, Verdict::Deliver { .. }) {
            prop_assert_eq!(&seen.frame, &expected.frame);
        }
        prop_assert_eq!(traffic(&tables), traffic(&by_itself));
    }
}

#[test]
fn it_happens() {
    let world = World::default();
    let mac = Mac::of_address(gateway(subnet_of_port(2)));
    let packet = Ipv4Frame::new(
        (crate::world::port_mac(2), crate::world::port_address(2)),
        (mac, vip_eip(0)),
        crate::frame::udp(1, 2, b"x"),
    );
    let seen = engine::port(&world.tables(), ifindex(2), false, &packet.bytes());
    assert_eq!(seen.verdict, Verdict::Deliver { port: 1, ifindex: ifindex(1) });
    let expected = there_and_back(&world, 2, &packet).expect("a way out").0;
    assert_eq!(seen.frame, expected.frame);
    let mut private = World::default();
    private.port_mut(2).eip = false;
    let seen = engine::port(&private.tables(), ifindex(2), false, &packet.bytes());
    assert_eq!(seen.verdict, Verdict::Drop(DropReason::Hairpin.index()));
}
