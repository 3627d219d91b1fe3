//! Tables, events, and single packets through the loaded programs.

use std::time::Duration;

use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
};
use vip_common::{
    pipeline::Verdict,
    tables::{
        ClaimForm, Event, EventKind, Grant, GrantKey, MacKey, Members, MeterClass, OwnerWord, Pending,
        PortEntry, Rights, RouteEntry, RouteKind, SourceEip, SubnetEntry, Target, VipEntry, VniAddress,
    },
    wire::{Ipv4, Mac},
};
use vip_userspace::{
    kernel::{KernelError, OBJECT, Runner, RunnerProgram, Tables, report_programs},
    net::{PacketSocket, announcement},
};

use crate::lab::{CAPACITY, Lab};

const TC_ACT_SHOT: u32 = 2;
const XDP_PASS: u32 = 2;

const VNI: u32 = 4001;
const GUEST: [u8; 6] = [2, 0, 0, 0, 7, 1];
const VIP: Ipv4 = Ipv4::new([192, 168, 7, 246]);

/// One port, behind an interface, that may own one VIP.
fn fill(tables: &Tables, ifindex: u32) {
    let address = Ipv4::new([192, 168, 7, 1]);
    let port = PortEntry {
        ifindex,
        vni: VNI,
        subnet: 1,
        address,
        gateway: Ipv4::new([192, 168, 4, 1]),
        mask: Ipv4::new([255, 255, 252, 0]),
        mac: Mac::new(GUEST),
        ..PortEntry::default()
    };
    let root = tables.index.root(VNI).unwrap();
    tables.ports.set(1, PortEntry { root, ..port }).unwrap();
    tables.vips.set(0, VipEntry { vni: VNI, address: VIP, ..VipEntry::default() }).unwrap();
    let mut members = Members { vni: VNI, address: VIP, subnet: 1, ..Members::default() };
    members.ports[0] = 1;
    tables.members.set(0, members).unwrap();
    let grant = Grant { rights: Rights::OWN, ..Grant::default() };
    tables.grants.insert(GrantKey { port: 1, slot: 0 }, grant).unwrap();
    let of = |address| VniAddress { vni: VNI, address };
    tables.index.apply(&[(of(address), Some(Target::port(1))), (of(VIP), Some(Target::vip(0)))]).unwrap();
    tables.macs.insert(MacKey::new(VNI, Mac::new(GUEST)), 1).unwrap();
    tables.ifports.insert(ifindex, 1).unwrap();
}

fn claim() -> Vec<u8> {
    announcement(GUEST, VIP.into()).to_vec()
}

#[test]
fn entries_come_back_as_they_were_written() {
    let lab = Lab::new();
    let dataplane = lab.start();
    let tables = dataplane.tables();
    let (key, macs) = (MacKey::new(VNI, Mac::new(GUEST)), &tables.macs);
    assert_eq!(macs.get(&key).unwrap(), None);
    macs.insert(key, 3).unwrap();
    assert_eq!(macs.get(&key).unwrap(), Some(3));
    assert_eq!(macs.entries().unwrap(), [(key, 3)]);
    assert!(macs.remove(&key).unwrap());
    assert!(!macs.remove(&key).unwrap());
    macs.insert_all([(key, 4), (MacKey::new(VNI + 1, Mac::new(GUEST)), 5)]).unwrap();
    assert_eq!((macs.get(&key).unwrap(), macs.entries().unwrap().len()), (Some(4), 2));

    assert_eq!(tables.ports.get(8).unwrap(), PortEntry::default());
    let port = PortEntry { ifindex: 7, vni: VNI, ..PortEntry::default() };
    tables.ports.set(8, port).unwrap();
    assert_eq!(tables.ports.get(8).unwrap(), port);
    let eip = SourceEip::new(Ipv4::new([203, 0, 113, 10]), 1);
    tables.ports.set_eip(8, eip).unwrap();
    tables.ports.set(8, PortEntry { ifindex: 8, ..port }).unwrap();
    assert_eq!(tables.ports.get(8).unwrap(), PortEntry { ifindex: 8, eip, ..port }, "the EIP is kept");
    let error = tables.ports.get(9).expect_err("ports 0 to 8");
    assert!(matches!(error, KernelError::OutOfRange { table: "PORTS", index: 9, capacity: 9 }), "{error}");
}

#[test]
fn prefixes_are_found_listed_and_removed_by_their_own_length() {
    let lab = Lab::new();
    let dataplane = lab.start();
    let subnets = &dataplane.tables().subnets;
    let prefix = VniAddress { vni: VNI, address: Ipv4::new([192, 168, 4, 0]) };
    let subnet = SubnetEntry { vni: VNI, subnet: 1, root: 2 };
    subnets.insert(prefix, 22, subnet).unwrap();
    assert_eq!(subnets.covering(VniAddress { vni: VNI, address: VIP }).unwrap(), Some(subnet));
    assert_eq!(subnets.covering(VniAddress { vni: VNI + 1, address: VIP }).unwrap(), None);
    assert_eq!(subnets.entries().unwrap(), [(prefix, 22, subnet)]);
    assert!(!subnets.remove(prefix, 23).unwrap());
    assert!(subnets.remove(prefix, 22).unwrap());

    let routes = &dataplane.tables().routes;
    let default = RouteEntry::new(RouteKind::Gateway(Ipv4::new([198, 51, 100, 1])));
    routes.insert(Ipv4::UNSPECIFIED, 0, default).unwrap();
    routes.insert(Ipv4::new([10, 0, 0, 0]), 8, RouteEntry::new(RouteKind::Elsewhere)).unwrap();
    assert_eq!(routes.covering(VIP).unwrap(), Some(default));
    assert_eq!(
        routes.covering(Ipv4::new([10, 1, 2, 3])).unwrap().map(|route| route.kind()),
        Some(RouteKind::Elsewhere)
    );
    assert_eq!(routes.entries().unwrap().len(), 2);
}

#[test]
fn a_full_table_refuses_the_new_entry_and_keeps_the_old_ones() {
    let lab = Lab::new();
    let dataplane = lab.start();
    let (ifports, subnets) = (&dataplane.tables().ifports, &dataplane.tables().subnets);
    let mut kept = 0;
    let error = loop {
        match ifports.insert(kept + 1, 1) {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, KernelError::TableFull { table: "IFPORTS", capacity: 8 }), "{error}");
    assert_eq!(ifports.entries().unwrap().len(), 8);
    ifports.insert(1, 2).expect("replacing needs no room");

    let subnet = SubnetEntry { vni: VNI, subnet: 1, root: 2 };
    let prefix = |vni| VniAddress { vni, address: VIP };
    for vni in 0..subnets.capacity() {
        subnets.insert(prefix(vni), 32, subnet).unwrap();
    }
    let error = subnets.insert(prefix(subnets.capacity()), 32, subnet).expect_err("no room");
    assert!(matches!(error, KernelError::TableFull { table: "SUBNETS", capacity: 16 }), "{error}");
    assert_eq!(subnets.entries().unwrap().len(), 16);
}

#[test]
fn owners_change_by_compare_and_swap_in_the_programs_memory() {
    let lab = Lab::new();
    let first = lab.start();
    let owners = &first.tables().vips;
    let owned = OwnerWord::default().moved_to(5, 66, true);
    assert!(owners.swap_word(3, OwnerWord::default(), owned).unwrap());
    assert!(!owners.swap_word(3, OwnerWord::default(), owned).unwrap(), "the word is another one now");
    let pending = Pending::new(6, 0, ClaimForm::GarpReply, 1);
    assert!(owners.swap_pending(3, Pending::NONE, pending).unwrap());
    let entry = owners.load(3).unwrap();
    assert_eq!((entry.word, entry.pending, entry.damped_until), (owned, pending, 0));
    assert_eq!(owners.load(2).unwrap().word, OwnerWord::default());
    let error = owners.load(4).expect_err("slots 0 to 3");
    assert!(matches!(error, KernelError::OutOfRange { table: "VIPS", index: 4, capacity: 4 }), "{error}");
    drop(first);
    // What was written through the mapping is what the kernel has: another mapping sees it.
    assert_eq!(lab.start().tables().vips.load(3).unwrap(), entry);
}

#[test]
fn devices_are_set_cleared_and_vanish_with_their_interface() {
    let lab = Lab::new();
    let ifindex = lab.veth("tap0", "guest");
    let dataplane = lab.start();
    let devices = &dataplane.tables().port_devs;
    assert_eq!(devices.get(1).unwrap(), None);
    devices.set(1, ifindex).unwrap();
    assert_eq!(devices.get(1).unwrap(), Some(ifindex));
    devices.clear(1).unwrap();
    assert_eq!(devices.get(1).unwrap(), None);
    devices.set(1, ifindex).unwrap();
    lab.ip("link del tap0");
    assert_eq!(devices.get(1).unwrap(), None);
    let error = devices.set(1, ifindex).expect_err("the interface is gone");
    assert!(error.is_interface_gone(), "{error}");
}

#[test]
fn a_claim_on_the_wire_moves_the_vip_and_is_told() {
    let lab = Lab::new();
    let port = lab.veth("tap0", "guest");
    let guest = if_nametoindex("guest").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut dataplane = lab.start();
        fill(dataplane.tables(), port);
        let mut events = dataplane.events().unwrap();
        assert!(matches!(dataplane.events(), Err(KernelError::EventsTaken)));
        dataplane.attach_port(port, "tap0").unwrap();

        PacketSocket::open(guest).unwrap().send(&claim()).unwrap();
        let event = tokio::time::timeout(Duration::from_secs(10), async {
            loop {
                let event = events.next().await.unwrap();
                if event.kind() == Some(EventKind::Moved) {
                    return event;
                }
            }
        });
        let event = event.await.expect("the programs tell of the move");
        assert_eq!((event.slot, event.port, event.previous, event.epoch), (0, 1, 0, 1));
        assert_eq!(ClaimForm::from_number(event.form), Some(ClaimForm::Announcement));
        assert_eq!(dataplane.tables().vips.load(0).unwrap().word, OwnerWord::new(1, true, 1, 0));
        assert_eq!(dataplane.tables().meters.lost(MeterClass::Ownership).unwrap(), 0);
        assert_eq!(events.malformed(), 0);
    });
}

#[test]
fn a_single_packet_runs_through_each_program() {
    unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
    // TC programs are run as if on an interface, and every namespace has the loopback.
    let loopback = 1;
    let mut runner = Runner::load(&CAPACITY).unwrap();
    fill(runner.tables(), loopback);
    let run = runner.run(RunnerProgram::Port, &claim(), loopback).unwrap();
    assert_eq!((run.code, run.verdict), (TC_ACT_SHOT, Verdict::Consumed), "only members see a claim");
    assert_eq!(run.packet, claim());
    assert_eq!(runner.tables().vips.load(0).unwrap().word.port(), 1);
    let kinds: Vec<_> = runner.events().iter().map(Event::kind).collect();
    assert_eq!(kinds, [Some(EventKind::Moved)]);
    assert_eq!(runner.events(), []);

    let spoofed = announcement([2, 0, 0, 0, 7, 2], VIP.into());
    let run = runner.run(RunnerProgram::Port, &spoofed, loopback).unwrap();
    let Verdict::Drop(reason) = run.verdict else { panic!("{run:?}") };
    assert_eq!(runner.tables().drops.sum(reason).unwrap(), 1);
    runner.tables().drops.clear(reason).unwrap();
    assert_eq!(runner.tables().drops.sum(reason).unwrap(), 0);

    let run = runner.run(RunnerProgram::Uplink, &claim(), 0).unwrap();
    assert_eq!((run.code, run.verdict), (XDP_PASS, Verdict::NotOurs));
    runner.run(RunnerProgram::UplinkTc, &claim(), loopback).unwrap();
}

#[test]
fn every_program_loads_and_is_measured() {
    let reports = report_programs(OBJECT).unwrap();
    let names: Vec<_> = reports.iter().map(|report| report.name).collect();
    let ours = ["uplink", "uplink_tc", "uplink_rest", "port", "port_rest"];
    assert_eq!(names.get(..5), Some(&ours[..]));
    for report in reports {
        assert!(report.object_bytes > 0 && report.verified_instructions > Some(0), "{report:?}");
        println!("{report:?}");
    }
}
