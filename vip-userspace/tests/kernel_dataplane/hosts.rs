//! Other hosts in the kernel's tables: what the plan of a state of three hosts writes there, and what a start finds again.

use std::{collections::BTreeMap, net::Ipv4Addr};

use vip_common::{
    tables::{HostEntry, OwnerWord, PortFlags, Target, VniAddress},
    wire::{Ipv4, Ipv4Header, Mac},
};
use vip_userspace::{
    agent::fill,
    config,
    kernel::Tables,
    plan::{Contents, Indexes, Interface, Resting, Site, compile, diff},
    state,
};

use crate::lab::{CAPACITY, Lab};

const STATE: &str = r#"
hosts:   [{ id: hv1, vtep: 172.31.0.1 }, { id: hv2, vtep: 172.31.0.2 }, { id: hv3, vtep: 172.31.0.3 }]
vpcs:    [{ id: blue, vni: 4001 }, { id: green, vni: 4002 }]
subnets: [{ id: web, vpc: blue, cidr: 192.168.4.0/22, gateway: 192.168.4.1 }]
ports:
  - { id: a, subnet: web, address: 192.168.7.1, mac: "02:00:00:00:07:01", host: hv1, interface: tap0 }
  - { id: b, subnet: web, address: 192.168.7.2, mac: "02:00:00:00:07:02", host: hv3, interface: tap0 }
  - { id: c, subnet: web, address: 192.168.7.3, mac: "02:00:00:00:07:03", host: hv3, interface: tap1 }
vips:    [{ id: web-vip, subnet: web, address: 192.168.7.246, ports: [a, b, c] }]
"#;

/// The contents of this host, `hv1`, whose tap0 is the interface.
fn contents(text: &str, present: &Contents, ifindex: u32) -> Contents {
    let state = state::parse(text, "test", Some("hv1")).expect("a state");
    let interface =
        Interface { ifindex, bridged: false, takes_xdp: false, takes_xdp_frags: false, mtu: 1500 };
    let site = Site {
        host: "hv1".to_owned(),
        interfaces: [("tap0".to_owned(), interface)].into_iter().collect(),
        tunnel_mtu: 1450,
        ..Site::default()
    };
    let capacity = config::Capacity { ports: 8, vips: 4, eips: 4, subnets: 2, hosts: CAPACITY.hosts };
    let desired = compile(&state, &site, &Indexes::of(present, &capacity, &Resting::default()));
    assert_eq!(desired.refused, []);
    desired.contents
}

/// Index of the only host with a VTEP.
fn host_of(tables: &Tables, last: u8) -> u32 {
    tables.vteps.get(&Ipv4::new([172, 31, 0, last])).expect("a look").expect("an entry")
}

#[test]
fn a_plan_of_three_hosts_is_written_as_the_programs_read_it_and_found_again() {
    let lab = Lab::new();
    let ifindex = lab.veth("tap0", "guest0");
    let dataplane = lab.start();
    let tables = dataplane.tables();
    assert_eq!((tables.hosts.len(), tables.vteps.capacity()), (CAPACITY.hosts + 1, CAPACITY.hosts));
    let planned = contents(STATE, &Contents::default(), ifindex);
    fill(tables, &diff(&Contents::default(), &planned)).expect("room");

    let hosts = [1, 2, 3].map(|last| host_of(tables, last));
    assert_eq!(hosts, [1, 2, 3]);
    for (index, last) in hosts.into_iter().zip([1, 2, 3]) {
        // The way follows the kernel; until it is known the header alone leads there.
        let header = Ipv4Header::tunnel(Ipv4::UNSPECIFIED, Ipv4::new([172, 31, 0, last]));
        let entry = tables.hosts.get(index).expect("an entry");
        assert_eq!(entry, HostEntry { ip: header, ..HostEntry::default() });
    }
    let port = |last| tables.ports.get(last).expect("an entry");
    assert_eq!((port(1).ifindex, port(1).flags.has(PortFlags::REMOTE)), (ifindex, false));
    for index in [2, 3] {
        let port = port(index);
        assert_eq!((port.ifindex, port.flags.has(PortFlags::REMOTE), port.mtu), (3, true, 1450));
    }
    assert_eq!(tables.ifports.entries().expect("a list"), [(ifindex, 1)]);
    let members = tables.members.get(0).expect("an entry");
    assert_eq!((&members.ports[..4], &members.hosts[..2]), (&[1, 2, 3, 0][..], &[3, 0][..]));
    // A VPC without a subnet has nothing to carry.
    let vnis = tables.vnis.entries().expect("a list");
    let root = tables.index.root(4001).expect("a root");
    assert_eq!(vnis.iter().map(|(vni, entry)| (*vni, entry.root)).collect::<Vec<_>>(), [(4001, root)]);

    drop(dataplane);
    let dataplane = lab.start();
    let tables = dataplane.tables();
    assert!(dataplane.adopted());
    assert_eq!(tables.index.root(4001).expect("a root"), root);
    let mac = |index| tables.ports.get(index).expect("an entry").mac;
    assert_eq!(mac(2), Mac::new([2, 0, 0, 0, 7, 2]));
    let address = VniAddress { vni: 4001, address: Ipv4::new([192, 168, 7, 3]) };
    assert_eq!(tables.index.get(&address).and_then(Target::as_port), Some(3));
}

#[test]
fn an_owner_that_passes_to_another_host_keeps_the_vip_by_the_next_epoch() {
    let lab = Lab::new();
    let ifindex = lab.veth("tap0", "guest0");
    let dataplane = lab.start();
    let tables = dataplane.tables();
    let before = contents(STATE, &Contents::default(), ifindex);
    fill(tables, &diff(&Contents::default(), &before)).expect("room");
    let word = || tables.vips.load(0).expect("the VIP").word;
    let claimed = OwnerWord::new(7, true, 1, 66);
    assert!(tables.vips.swap_word(0, word(), claimed).expect("a swap"));

    let after = contents(
        &STATE.replace("host: hv1, interface: tap0", "host: hv2, interface: tap0"),
        &before,
        ifindex,
    );
    fill(tables, &diff(&before, &after)).expect("room");
    // Its new host begins the epoch, and tells the others.
    assert_eq!(word(), claimed);
    let port = tables.ports.get(1).expect("the port");
    assert_eq!((port.ifindex, port.flags.has(PortFlags::REMOTE)), (host_of(tables, 2), true));
    assert_eq!(tables.ifports.entries().expect("a list"), []);

    let back = contents(STATE, &after, ifindex);
    fill(tables, &diff(&after, &back)).expect("room");
    // It counts as assigned, so that a claim of the same epoch, made elsewhere meanwhile, wins.
    assert_eq!(word(), OwnerWord::new(8, false, 1, 66));
    let record = tables.moves.get(8 % 8).expect("a move");
    assert_eq!((record.epoch, record.port, record.previous), (8, 1, 1));

    // Not the owner's port: nothing about the VIP.
    let last =
        contents(&STATE.replace("host: hv3, interface: tap1", "host: hv2, interface: tap1"), &back, ifindex);
    fill(tables, &diff(&back, &last)).expect("room");
    assert_eq!(word().epoch(), 8);
    let hosts: BTreeMap<Ipv4Addr, u32> =
        tables.vteps.entries().expect("a list").into_iter().map(|(vtep, host)| (vtep.into(), host)).collect();
    for number in 2..=3 {
        assert_eq!(hosts.get(&Ipv4Addr::new(172, 31, 0, number)), Some(&host_of(tables, number)));
    }
}
