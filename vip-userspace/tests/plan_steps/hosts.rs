//! Other hosts, and ports and VIPs that are there.

use std::{net::Ipv4Addr, time::Instant};

use vip_common::tables::PortFlags;
use vip_userspace::{
    config::Capacity,
    plan::{Assigned, Contents, Desired, Indexes, Resting, Step, compile, diff, host_of, interface_of},
};

use crate::{
    CAPACITY, desire, reach, site,
    world::{VipSeed, World, build, seed_on},
};

/// Three members of one VIP, on these hosts; the first host's interfaces exist.
fn spread(hosts: [u8; 3]) -> World {
    let [a, b, c] = hosts;
    let ports = [seed_on(a, 0, 0, 0), seed_on(b, 0, 1, 1), seed_on(c, 0, 2, 2)];
    let bindings = (0..3).map(|port| (port, true, false)).collect();
    let vip = VipSeed { subnet: 0, address: 5, bindings, vrid: None };
    let interface = |ifindex| Some((ifindex, false, true));
    build(&ports, &[vip], &[], &[interface(2), interface(3), interface(4)], false, 0)
}

#[test]
fn ports_of_other_hosts_lead_to_their_hosts_and_members_name_each_once() {
    let world = spread([1, 2, 2]);
    let desired = desire(&world, &Contents::default(), &Resting::default());
    assert_eq!(desired.refused, []);
    let index_of = |id: &str| desired.assigned.hosts.get(world.state.hosts.find(id).expect("a host"));
    // This host is the first to get an index, whatever the order of the others.
    assert_eq!(["hv1", "hv2", "hv3"].map(index_of), [Some(1), Some(2), Some(3)]);
    let ports: Vec<_> = desired.contents.ports.values().collect();
    let places: Vec<_> = ports.iter().map(|port| (interface_of(port), host_of(port), port.mtu)).collect();
    assert_eq!(places, [(Some(2), None, 1500), (None, Some(2), 1450), (None, Some(2), 1450)]);
    let of_this_host = [PortFlags::BRIDGED, PortFlags::TAKES_XDP, PortFlags::TAKES_XDP_FRAGS];
    assert!(ports.iter().skip(1).all(|port| !of_this_host.iter().any(|flag| port.flags.has(*flag))));
    // A name means an interface of its own host alone.
    assert_eq!(desired.contents.interfaces, [(2, 1)].into());
    assert_eq!(desired.contents.port_devs, [(1, 2)].into());
    let members = desired.contents.members.values().next().expect("the VIP");
    assert_eq!((&members.ports[..4], &members.hosts[..2]), (&[1, 2, 3, 0][..], &[2, 0][..]));
    assert_eq!(desired.contents.vteps.len(), 3);
    assert_eq!(desired.contents.vnis, [100, 101].into());
}

#[test]
fn ports_of_a_host_that_a_narrower_route_leads_to_take_less() {
    let desired = desire(&spread([1, 2, 3]), &Contents::default(), &Resting::default());
    let mtus: Vec<_> = desired.contents.ports.values().map(|port| (host_of(port), port.mtu)).collect();
    assert_eq!(mtus, [(None, 1500), (Some(2), 1450), (Some(3), 1350)]);
}

#[test]
fn a_vip_goes_with_its_owners_port_to_another_host_where_it_begins_another_epoch() {
    for (from, to, rehomed, also) in [
        // Away: the interface here is let go of.
        ([1, 2, 3], [2, 2, 3], false, vec![Step::RemoveInterface(2), Step::RemovePortDev(1)]),
        // Here.
        ([2, 2, 3], [1, 2, 3], true, vec![Step::SetInterface(2, 1), Step::SetPortDev(1, 2)]),
        // From one to another, by one change of the port.
        ([2, 2, 3], [3, 2, 3], false, vec![]),
    ] {
        let mut contents = Contents::default();
        reach(&spread(from), &mut contents);
        let desired = desire(&spread(to), &contents, &Resting::default());
        let steps = diff(&contents, &desired.contents);
        let last = steps.last() == Some(&Step::Rehome { slot: 0, port: 1 });
        let any = steps.iter().any(|step| matches!(step, Step::Rehome { .. }));
        assert_eq!((last, any), (rehomed, rehomed), "{from:?} {to:?}: {steps:?}");
        assert!(!steps.iter().any(|step| matches!(step, Step::Release { .. })), "{from:?} {to:?}: {steps:?}");
        assert!(also.iter().all(|step| steps.contains(step)), "{from:?} {to:?}: {steps:?}");
        if also.is_empty() {
            let ports = steps.iter().filter(|step| matches!(step, Step::SetPort(..)));
            assert_eq!(ports.count(), 1, "{steps:?}");
        }
    }
}

#[test]
fn a_number_of_a_host_is_never_an_interfaces_in_between() {
    // hv2 has index 2 and the interface of the port here as well.
    let mut contents = Contents::default();
    reach(&spread([2, 2, 2]), &mut contents);
    let desired = desire(&spread([1, 2, 2]), &contents, &Resting::default());
    let seen: Vec<_> = diff(&contents, &desired.contents)
        .iter()
        .filter_map(|step| match step {
            Step::SetPort(1, port) => Some((port.ifindex, port.flags.has(PortFlags::REMOTE))),
            _ => None,
        })
        .collect();
    assert_eq!(seen, [(0, true), (2, false)]);
}

#[test]
fn a_host_that_gets_another_vtep_is_reached_by_another_index() {
    let old = spread([1, 2, 3]);
    let new = World::of(old.text.replace("172.31.0.2", "172.31.0.12"), old.interfaces.clone());
    let mut contents = Contents::default();
    let before = reach(&old, &mut contents).assigned;
    let desired = desire(&new, &contents, &Resting::default());
    let index = |assigned: &Assigned| assigned.hosts.get(new.state.hosts.find("hv2").expect("hv2"));
    assert_eq!((index(&before), index(&desired.assigned)), (Some(2), Some(4)));
    let steps = diff(&contents, &desired.contents);
    let place = |wanted: &Step| steps.iter().position(|step| step == wanted).expect("the step");
    let vtep = |last| Ipv4Addr::new(172, 31, 0, last).into();
    let first = [Step::RemoveVtep(vtep(2)), Step::SetHost(4, vtep(12))].map(|step| place(&step));
    let last = [Step::SetVtep(vtep(12), 4), Step::ClearHost(2)].map(|step| place(&step));
    let port = steps.iter().position(|step| matches!(step, Step::SetPort(2, _))).expect("the port");
    assert!(first.is_sorted() && first[1] < port && port < last[0] && last.is_sorted(), "{steps:?}");
}

#[test]
fn ports_of_a_host_whose_index_rests_lead_nowhere_for_a_second_and_keep_what_they_own() {
    let old = spread([1, 2, 3]);
    let new = World::of(old.text.replace("172.31.0.2", "172.31.0.12"), old.interfaces.clone());
    let mut contents = Contents::default();
    let before = reach(&old, &mut contents).assigned;
    // After a start nothing that is free may be had for a second.
    let rests = Resting::everything(Instant::now());
    let Desired { contents: between, assigned, refused } = desire(&new, &contents, &rests);
    let hv2 = new.state.hosts.find("hv2").expect("hv2");
    assert_eq!((before.hosts.get(hv2), assigned.hosts.get(hv2)), (Some(2), None));
    assert!(!refused.is_empty() && refused.iter().all(|refused| refused.resting), "{refused:?}");
    let port = between.ports.get(&2).expect("the port on hv2");
    assert_eq!((host_of(port), interface_of(port), port.flags.has(PortFlags::REMOTE)), (None, None, true));
    let steps = diff(&contents, &between);
    let ends = |step: &Step| {
        matches!(
            step,
            Step::Release { .. } | Step::RemoveGrant(_) | Step::RemoveAddress(_) | Step::ClearPort(_)
        )
    };
    assert!(!steps.iter().any(ends), "{steps:?}");
    for step in &steps {
        contents.apply(step);
    }
    let then = desire(&new, &contents, &Resting::default());
    assert_eq!((&then.refused[..], then.assigned.hosts.get(hv2)), (&[][..], Some(2)));
    let steps = diff(&contents, &then.contents);
    assert!(!steps.iter().any(ends), "{steps:?}");
}

#[test]
fn ports_of_a_host_that_has_no_room_are_refused_and_those_here_are_not() {
    let capacity = Capacity { hosts: 2, ..CAPACITY };
    let world = spread([1, 2, 3]);
    let indexes = Indexes::of(&Contents::default(), &capacity, &Resting::default());
    let refused: Vec<_> =
        compile(&world.state, &site(&world), &indexes).refused.iter().map(ToString::to_string).collect();
    assert_eq!(
        refused,
        [
            "host hv3: not applied, HOSTS is full (2 entries); remove objects that are not needed",
            "port port2: not applied, because host hv3 is not",
            "vip vip0: port port2 has no rights yet, because it is not applied",
        ]
    );
}
