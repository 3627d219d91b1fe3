//! Interfaces that vanish, and VLANs on them.

use vip_common::tables::PortFlags;
use vip_userspace::{
    plan::{Contents, Interface, Interfaces, Resting, Step, diff},
    vlan::Vlan,
};

use crate::{
    desire, reach,
    world::{VipSeed, World, build, seed},
};

#[test]
fn a_vanished_interface_ends_what_its_guest_owned_and_nothing_else() {
    let ports = [seed(0, 5, 5, 0)];
    let vips = [VipSeed { subnet: 0, address: 4, bindings: vec![(0, true, false)], vrid: None }];
    let there = build(&ports, &vips, &[], &[Some((7, false, true))], false, 0);
    let gone = build(&ports, &vips, &[], &[None], false, 0);
    let mut contents = Contents::default();
    let desired = reach(&there, &mut contents);
    let (_, index) = desired.assigned.ports.iter().next().expect("a port");
    let (_, slot) = desired.assigned.vips.iter().next().expect("a VIP");
    let steps = diff(&contents, &desire(&gone, &contents, &Resting::default()).contents);
    assert!(steps.contains(&Step::Release { slot, port: Some(index) }), "{steps:?}");
    assert!(steps.contains(&Step::RemovePortDev(index)), "{steps:?}");
    assert!(steps.contains(&Step::RemoveInterface(7)), "{steps:?}");
    assert_eq!(steps.len(), 4, "{steps:?}");
}

#[test]
fn a_port_on_a_vlan_has_the_vlan_interface_and_its_neighbour_without_one_knows_of_it() {
    let ports = [seed(0, 5, 5, 0), seed(0, 6, 6, 1), seed(0, 7, 7, 2)];
    let text = build(&ports, &[], &[], &[None], false, 0).text;
    // The first two share tap0; the third is alone on tap2.
    let text = text.replace("interface: tap1", "interface: tap0, vlan: [200, 7]");
    let interface = |ifindex| Interface {
        ifindex,
        bridged: false,
        takes_xdp: false,
        takes_xdp_frags: false,
        mtu: 1500 + ifindex,
    };
    let mut interfaces: Interfaces =
        [("tap0".to_owned(), interface(7)), ("tap2".to_owned(), interface(9))].into_iter().collect();
    let entries = |interfaces: &Interfaces| {
        let world = World::of(text.clone(), interfaces.clone());
        let contents = desire(&world, &Contents::default(), &Resting::default()).contents;
        let port = |number: u8| {
            let port = contents.ports.values().find(|port| port.mac.octets().last() == Some(&number));
            let port = port.expect("the port");
            (port.ifindex, port.mtu, port.flags.has(PortFlags::TRUNK))
        };
        ([5, 6, 7].map(port), contents.interfaces.keys().copied().collect::<Vec<_>>())
    };
    let missing = ([(7, 1507, true), (0, 0, false), (9, 1509, false)], vec![7, 9]);
    assert_eq!(entries(&interfaces), missing);
    interfaces.insert("tap0".to_owned(), Vlan::tag(7), interface(8));
    assert_eq!(entries(&interfaces), missing, "another VLAN's interface");
    interfaces.insert("tap0".to_owned(), Vlan::stacked(200, 7), interface(8));
    assert_eq!(entries(&interfaces), ([(7, 1507, true), (8, 1508, false), (9, 1509, false)], vec![7, 8, 9]));
}
