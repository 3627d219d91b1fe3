//! The life of pins and links: start, restart, replacement, refusal, crash, detachment.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    process::{self, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use aya::{
    maps::MapInfo,
    programs::{
        ProgramInfo,
        links::{FdLink, PinnedLink},
    },
};
use etherparse::PacketBuilder;
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, Socket, Type};
use vip_common::{
    DropReason,
    tables::{
        Config, LAYOUT_VERSION, Members, OwnerWord, PortEntry, SourceEip, Target, VipEntry, VniAddress,
    },
    wire::{Ipv4, Mac},
};
use vip_userspace::{
    kernel::{Attached, Capacity, Dataplane, KernelError, LossTracing, PinDir, TcHook, XdpMode, detach},
    net::PacketSocket,
};

use crate::lab::{CAPACITY, Lab, names, run, wait_for};

/// Tables that are pinned.
const TABLES: usize = 25;

/// Ids of a pinned link and of its program. A filter at clsact is no link: its pin is the program's.
fn link(lab: &Lab, name: &str) -> (Option<u32>, u32) {
    let path = lab.pins().join("links").join(name);
    if name.starts_with("clsact_") {
        return (None, ProgramInfo::from_pin(path).expect("the filter's program is pinned").id());
    }
    let info = FdLink::from(PinnedLink::from_pin(path).expect("the link is pinned")).info();
    let info = info.expect("the link has info");
    (Some(info.id()), info.program_id())
}

/// Name of the pin of a TC program at an interface, as this kernel attaches it.
fn tc_pin(program: &str, ifindex: u32) -> String {
    match TcHook::of_kernel() {
        TcHook::Tcx => format!("{program}_{ifindex}"),
        TcHook::Clsact => format!("clsact_{program}_{ifindex}"),
    }
}

/// In the order of [`Lab::links`].
fn sorted<const N: usize>(mut names: [String; N]) -> [String; N] {
    names.sort();
    names
}

/// Ids of all pinned tables, by name.
fn table_ids(lab: &Lab) -> Vec<(String, u32)> {
    let tables = names(lab.pins()).into_iter().filter(|name| name != "links");
    tables
        .map(|name| {
            let id = MapInfo::from_pin(lab.pins().join(&name)).expect("a table").id();
            (name, id)
        })
        .collect()
}

fn word(port: u32) -> OwnerWord {
    OwnerWord::default().moved_to(port, 0, true)
}

#[test]
fn a_first_start_pins_every_table_and_link() {
    let lab = Lab::new();
    let uplink = lab.veth("eth0", "far");
    let port = lab.veth("tap0", "guest");
    let mut dataplane = lab.start();
    assert!(!dataplane.adopted());
    assert_eq!(dataplane.attach_uplink(uplink, "eth0", XdpMode::Native).unwrap(), Attached::New);
    assert_eq!(dataplane.attach_uplink_tc(uplink, "eth0").unwrap(), Attached::New);
    assert_eq!(dataplane.attach_port(port, "tap0").unwrap(), Attached::New);
    assert_eq!(table_ids(&lab).len(), TABLES);
    assert_eq!(
        lab.links(),
        sorted([tc_pin("port", port), format!("uplink_{uplink}"), tc_pin("uplink_tc", uplink)])
    );
    let config = dataplane.tables().config.get(0).unwrap();
    assert_eq!((config.layout, config.agent_pid), (LAYOUT_VERSION, process::id()));
    assert!(lab.ip("-details link show eth0").contains("prog/xdp"));
    let reports = dataplane.programs();
    let names: Vec<_> = reports.iter().map(|report| report.name).collect();
    assert_eq!(names, ["uplink", "uplink_tc", "uplink_rest", "port", "port_rest"]);
    assert!(reports.iter().all(|report| report.verified_instructions > Some(0)));
}

#[test]
fn a_restart_adopts_tables_and_replaces_programs_inside_their_links() {
    let lab = Lab::new();
    let uplink = lab.veth("eth0", "far");
    let port = lab.veth("tap0", "guest");
    let mut first = lab.start();
    first.attach_uplink(uplink, "eth0", XdpMode::Native).unwrap();
    first.attach_uplink_tc(uplink, "eth0").unwrap();
    first.attach_port(port, "tap0").unwrap();
    assert!(first.tables().vips.swap_word(2, OwnerWord::default(), word(5)).unwrap());
    first.tables().ifports.insert(port, 5).unwrap();
    let names = [format!("uplink_{uplink}"), tc_pin("uplink_tc", uplink), tc_pin("port", port)];
    let links = names.clone().map(|name| link(&lab, &name));
    let tables = table_ids(&lab);
    drop(first);
    assert_eq!(names.clone().map(|name| link(&lab, &name)), links, "links outlive their process");

    let mut second = lab.start();
    assert!(second.adopted());
    assert_eq!(second.tables().vips.load(2).unwrap().word, word(5));
    assert_eq!(second.tables().ifports.entries().unwrap(), [(port, 5)]);
    assert_eq!(second.attached_ports().unwrap(), [port]);
    assert_eq!(names.clone().map(|name| link(&lab, &name)), links, "loading replaces no program yet");
    assert_eq!(second.attach_uplink(uplink, "eth0", XdpMode::Native).unwrap(), Attached::Replaced);
    assert_eq!(second.attach_uplink_tc(uplink, "eth0").unwrap(), Attached::Replaced);
    assert_eq!(second.attach_port(port, "tap0").unwrap(), Attached::Replaced);
    for (name, (old_link, old_program)) in names.into_iter().zip(links) {
        let (new_link, new_program) = link(&lab, &name);
        assert_eq!(
            new_link, old_link,
            "{name}: the link stays, so no packet meets an interface without program"
        );
        assert_ne!(new_program, old_program, "{name}: the program is the new one");
    }
    assert_eq!(table_ids(&lab), tables);
}

#[test]
fn no_packet_passes_an_uplink_without_program_during_restarts() {
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    let lab = Lab::new();
    let uplink = lab.veth("eth0", "far");
    lab.ip("link set eth0 address 02:00:00:00:00:01");
    let far = if_nametoindex("far").unwrap();
    let mut dataplane = lab.start();
    // An EIP of a VIP that nobody owns: each packet to it is dropped by the program, and counted.
    let (eip, inner) = ([203, 0, 113, 10], Ipv4::new([192, 168, 7, 246]));
    let tables = dataplane.tables();
    tables.vips.set(0, VipEntry { vni: 4001, address: inner, ..VipEntry::default() }).unwrap();
    tables.vips.set_eip(0, SourceEip::new(Ipv4::new(eip), 0)).unwrap();
    tables.index.apply(&[(VniAddress::eip(Ipv4::new(eip)), Some(Target::vip(0)))]).unwrap();
    let config = dataplane.tables().config.get(0).unwrap();
    let host = Config { uplink, routed_by: uplink, uplink_mac: Mac::new(MAC), ..config };
    dataplane.tables().config.set(0, host).unwrap();
    dataplane.attach_uplink(uplink, "eth0", XdpMode::Native).unwrap();

    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], MAC)
        .ipv4([198, 51, 100, 2], eip, 64)
        .udp(1000, 2000)
        .write(&mut frame, &[0; 26])
        .unwrap();
    let enough = Arc::new(AtomicBool::new(false));
    let sender = thread::spawn({
        let (socket, enough) = (PacketSocket::open(far).unwrap(), Arc::clone(&enough));
        move || {
            let mut sent = 0_u64;
            while !enough.load(Ordering::Relaxed) {
                socket.send(&frame).unwrap();
                sent += 1;
                // The receiving end takes turns with this thread, and has room for 256 frames.
                thread::sleep(Duration::from_micros(20));
            }
            sent
        }
    });
    let counted = |dataplane: &Dataplane| dataplane.tables().drops.sum(DropReason::Unowned.index()).unwrap();
    for _ in 0..5 {
        let before = counted(&dataplane);
        wait_for("traffic", || counted(&dataplane) > before + 100);
        drop(dataplane);
        dataplane = lab.start();
        assert_eq!(dataplane.attach_uplink(uplink, "eth0", XdpMode::Native).unwrap(), Attached::Replaced);
    }
    enough.store(true, Ordering::Relaxed);
    let sent = sender.join().unwrap();
    wait_for("the last packet", || counted(&dataplane) == sent);
}

#[test]
fn a_second_instance_is_refused_by_the_pid_of_the_first() {
    let lab = Lab::new();
    let first = lab.start();
    let error = lab.try_start().expect_err("the directory is in use");
    assert!(
        matches!(error, KernelError::Locked { holder: Some(pid), .. } if pid == process::id()),
        "{error}"
    );
    assert!(error.to_string().contains(&lab.pins().display().to_string()), "{error}");
    drop(first);
    assert!(lab.start().adopted());
}

#[test]
fn tables_of_another_capacity_are_refused_and_left_as_they_are() {
    let lab = Lab::new();
    let uplink = lab.veth("eth0", "far");
    let mut first = lab.start();
    first.attach_uplink(uplink, "eth0", XdpMode::Native).unwrap();
    first.tables().ifports.insert(7, 5).unwrap();
    drop(first);
    let (tables, before) = (table_ids(&lab), link(&lab, &format!("uplink_{uplink}")));

    let other = Capacity { vips: CAPACITY.vips + 1, ..CAPACITY };
    let error = Dataplane::load(PinDir::open(lab.pins()).unwrap(), &other).expect_err("another capacity");
    let text = error.to_string();
    assert!(matches!(error, KernelError::Shape { .. }), "{text}");
    // ADVERTS is the first by name of those whose room grows with the VIPs.
    assert!(
        text.contains("ADVERTS") && text.contains("of 48 entries") && text.contains("of 58 entries"),
        "{text}"
    );
    assert!(text.contains("vipctl detach"), "{text}");
    assert_eq!(table_ids(&lab), tables);
    assert_eq!(link(&lab, &format!("uplink_{uplink}")), before);
    assert_eq!(lab.start().tables().ifports.entries().unwrap(), [(7, 5)]);
}

#[test]
fn tables_of_another_layout_are_refused_and_left_as_they_are() {
    let lab = Lab::new();
    let first = lab.start();
    let config = first.tables().config.get(0).unwrap();
    let other = Config { layout: LAYOUT_VERSION + 1, ..config };
    first.tables().config.set(0, other).unwrap();
    drop(first);
    let tables = table_ids(&lab);
    let error = lab.try_start().expect_err("another layout");
    let (pinned, expected) = (LAYOUT_VERSION + 1, LAYOUT_VERSION);
    assert!(
        matches!(error, KernelError::Layout { pinned: is, expected: wants, .. } if (is, wants) == (pinned, expected)),
        "{error}"
    );
    assert_eq!(table_ids(&lab), tables);
    // Taking it away is what the error advises, so it must work with tables that cannot be read.
    let report = detach(lab.pins()).unwrap();
    assert_eq!(report.tables, TABLES);
    assert!(report.told.failures.iter().any(|failure| failure.contains("layout")), "{report:?}");
}

#[test]
fn a_start_that_died_half_way_is_completed_by_the_next() {
    let lab = Lab::new();
    let first = lab.start();
    first.tables().config.set(0, Config::default()).unwrap();
    drop(first);
    // As if it had died after some tables, before CONFIG had its layout.
    for table in ["VIPS", "PORTS", "EVENTS"] {
        fs::remove_file(lab.pins().join(table)).unwrap();
    }
    let second = lab.start();
    assert!(!second.adopted());
    assert_eq!(table_ids(&lab).len(), TABLES);
    drop(second);
    assert!(lab.start().adopted());
}

#[test]
fn a_start_that_fails_takes_back_its_pins() {
    let lab = Lab::new();
    let error = Dataplane::load_object(&[], PinDir::open(lab.pins()).unwrap(), &CAPACITY)
        .expect_err("there is no object");
    assert!(matches!(error, KernelError::NoObject), "{error}");
    let huge = Capacity { ports: 1 << 20, ..CAPACITY };
    let error = Dataplane::load(PinDir::open(lab.pins()).unwrap(), &huge).expect_err("too many ports");
    assert!(matches!(error, KernelError::Capacity { what: "ports", .. }), "{error}");
    assert!(table_ids(&lab).is_empty());
}

#[test]
fn a_pin_whose_interface_is_gone_is_replaced() {
    let lab = Lab::new();
    let old = lab.veth("tap0", "guest");
    let mut dataplane = lab.start();
    dataplane.attach_port(old, "tap0").unwrap();
    lab.ip("link del tap0");
    let error = dataplane.attach_port(old, "tap0").expect_err("the interface is gone");
    assert!(error.is_interface_gone(), "{error}");
    let new = lab.veth("tap0", "guest");
    assert_ne!(new, old);
    assert_eq!(dataplane.attach_port(new, "tap0").unwrap(), Attached::New);
    assert_eq!(dataplane.attached_ports().unwrap(), [new]);
    assert_eq!(lab.links(), [tc_pin("port", new)]);

    // The number of a dead pin may come back with another interface.
    lab.ip("link del tap0");
    lab.ip(&format!("link add tap0 index {new} type veth peer name guest"));
    assert_eq!(dataplane.attach_port(new, "tap0").unwrap(), Attached::New);
    assert_eq!(dataplane.attached_ports().unwrap(), [new]);
    dataplane.detach_port(new).unwrap();
    dataplane.detach_port(new).unwrap();
    assert_eq!(lab.links(), Vec::<String>::new());
}

#[test]
fn another_vipd_on_the_uplink_is_refused_by_name() {
    let lab = Lab::new();
    let other = Lab::new();
    let uplink = lab.veth("eth0", "far");
    let mut first = lab.start();
    first.attach_uplink(uplink, "eth0", XdpMode::Native).unwrap();
    let mut second = other.start();
    let error = second.attach_uplink(uplink, "eth0", XdpMode::Native).expect_err("the uplink is taken");
    assert!(
        matches!(&error, KernelError::ForeignXdp { name, like_ours: true, .. } if name == "uplink"),
        "{error}"
    );
    assert_eq!(other.links(), Vec::<String>::new());
    assert!(lab.ip("-details link show eth0").contains("prog/xdp"));
}

#[test]
fn the_mode_is_the_one_asked_for_and_can_change() {
    let lab = Lab::new();
    let uplink = lab.veth("eth0", "far");
    let mut dataplane = lab.start();
    assert_eq!(dataplane.attach_uplink(uplink, "eth0", XdpMode::Generic).unwrap(), Attached::New);
    assert!(lab.ip("link show eth0").contains("xdpgeneric"));
    assert_eq!(dataplane.attach_uplink(uplink, "eth0", XdpMode::Native).unwrap(), Attached::ModeChanged);
    assert!(!lab.ip("link show eth0").contains("xdpgeneric"));
    assert_eq!(dataplane.attach_uplink(uplink, "eth0", XdpMode::Native).unwrap(), Attached::Replaced);
}

#[test]
fn a_driver_without_xdp_is_refused_in_native_mode_and_keeps_its_generic_program() {
    let lab = Lab::new();
    let uplink = if_nametoindex("lo").unwrap();
    let mut dataplane = lab.start();
    let error = dataplane.attach_uplink(uplink, "lo", XdpMode::Native).expect_err("loopback has no XDP");
    assert!(matches!(error, KernelError::XdpMode { mode: XdpMode::Native, .. }), "{error}");
    assert!(error.to_string().contains("xdp_mode: generic"), "{error}");
    assert!(!lab.ip("link show lo").contains("xdp"), "never silently the other mode");
    dataplane.attach_uplink(uplink, "lo", XdpMode::Generic).unwrap();
    dataplane.attach_uplink(uplink, "lo", XdpMode::Native).expect_err("still none");
    assert!(lab.ip("link show lo").contains("xdpgeneric"));
}

#[test]
fn another_uplink_frees_the_former() {
    let lab = Lab::new();
    let (old, new) = (lab.veth("eth0", "far0"), lab.veth("eth1", "far1"));
    let mut dataplane = lab.start();
    dataplane.attach_uplink(old, "eth0", XdpMode::Native).unwrap();
    dataplane.attach_uplink_tc(old, "eth0").unwrap();
    drop(dataplane);
    let mut dataplane = lab.start();
    assert_eq!(dataplane.attach_uplink(new, "eth1", XdpMode::Native).unwrap(), Attached::New);
    assert_eq!(dataplane.attach_uplink_tc(new, "eth1").unwrap(), Attached::New);
    assert!(lab.links().contains(&tc_pin("uplink_tc", old)), "it may be on several interfaces");
    dataplane.detach_uplink_tc_elsewhere(&[new].into()).unwrap();
    assert_eq!(lab.links(), sorted([format!("uplink_{new}"), tc_pin("uplink_tc", new)]));
    assert!(!lab.ip("link show eth0").contains("xdp"));
}

#[test]
fn filters_at_clsact_live_like_links() {
    let lab = Lab::new();
    let port = lab.veth("tap0", "guest");
    let filters = || run("tc", "filter show dev tap0 ingress");
    let mut first = lab.start();
    first.set_tc_hook(TcHook::Clsact);
    assert_eq!(first.attach_port(port, "tap0").unwrap(), Attached::New);
    assert!(filters().contains("handle 0x7669 port"), "{}", filters());
    drop(first);
    assert!(filters().contains("handle 0x7669 port"), "filters outlive their process");

    let mut second = lab.start();
    second.set_tc_hook(TcHook::Clsact);
    assert_eq!(second.attached_ports().unwrap(), [port]);
    assert_eq!(second.attach_port(port, "tap0").unwrap(), Attached::Replaced);
    assert_eq!(filters().matches("direct-action").count(), 1, "{}", filters());
    assert_eq!(lab.links(), [format!("clsact_port_{port}")]);
    second.detach_port(port).unwrap();
    assert_eq!(filters(), "");
    assert!(run("tc", "qdisc show dev tap0").contains("clsact"), "others may have come to use the qdisc");

    // A filter that we cannot recognise is not ours.
    second.attach_port(port, "tap0").unwrap();
    fs::remove_file(lab.pins().join(format!("links/clsact_port_{port}"))).unwrap();
    second.attach_port(port, "tap0").expect("our own tag is recognised without a pin");
    second.attach_uplink_tc(port, "tap0").expect_err("the place is taken by another program");
    lab.ip("link del tap0");
    assert!(second.attached_ports().unwrap().is_empty());
    assert_eq!(lab.links(), Vec::<String>::new());
}

#[test]
fn loss_tracing_is_attached_or_its_refusal_explained() {
    let lab = Lab::new();
    let mut dataplane = lab.start();
    for _ in 0..2 {
        match dataplane.attach_loss_tracing().unwrap() {
            LossTracing::Attached => {}
            LossTracing::Refused(reason) => {
                assert!(reason.contains("redirect_err"), "{reason}");
                println!("refused: {reason}");
            }
        }
    }
}

#[test]
fn detaching_tells_guests_the_owners_mac_and_leaves_nothing() {
    let lab = Lab::new();
    let uplink = lab.veth("eth0", "far");
    let (asker, owner) = (lab.veth("tap0", "guest0"), lab.veth("tap1", "guest1"));
    let mut dataplane = lab.start();
    dataplane.attach_uplink(uplink, "eth0", XdpMode::Native).unwrap();
    dataplane.attach_uplink_tc(uplink, "eth0").unwrap();
    dataplane.attach_port(asker, "tap0").unwrap();
    dataplane.attach_port(owner, "tap1").unwrap();
    let port = |ifindex, last| PortEntry {
        ifindex,
        vni: 4001,
        subnet: 1,
        address: Ipv4::new([192, 168, 7, last]),
        mac: Mac::new([2, 0, 0, 0, 7, last]),
        ..PortEntry::default()
    };
    let tables = dataplane.tables();
    tables.ports.set(1, port(asker, 1)).unwrap();
    tables.ports.set(2, port(owner, 2)).unwrap();
    let vip = Ipv4::new([192, 168, 7, 246]);
    let members = Members { vni: 4001, address: vip, subnet: 1, ..Members::default() };
    tables.members.set(0, members).unwrap();
    assert!(tables.vips.swap_word(0, OwnerWord::default(), word(2)).unwrap());
    drop(dataplane);

    let guests = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0x0608))).unwrap();
    guests.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let report = detach(lab.pins()).unwrap();
    assert_eq!((report.ended, report.links, report.tables), (None, 4, TABLES));
    assert_eq!((report.told.ports, report.told.replies, report.told.gateways), (1, 1, 2));
    assert_eq!(report.told.failures, Vec::<String>::new());

    let mut frame = [0; 64];
    let len = io::Read::read(&mut &guests, &mut frame).expect("an ARP frame arrives");
    let expected = [
        &[2, 0, 0, 0, 7, 1][..],
        &[2, 0, 0, 0, 7, 2],
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2],
        &[2, 0, 0, 0, 7, 2],
        &[192, 168, 7, 246],
        &[2, 0, 0, 0, 7, 1],
        &[192, 168, 7, 1],
    ]
    .concat();
    assert_eq!(frame.get(..len), Some(&expected[..]));

    assert!(!lab.pins().exists());
    assert!(!lab.ip("link show eth0").contains("xdp"));
    let error = detach(lab.pins()).expect_err("nothing is left");
    assert!(matches!(error, KernelError::NothingPinned { .. }), "{error}");
}

#[test]
fn detaching_ends_the_vipd_that_holds_the_lock_and_nobody_else() {
    let lab = Lab::new();
    let dataplane = lab.start();
    let tables = dataplane.tables().clone();
    let inode = fs::metadata(lab.pins()).unwrap().ino();
    drop(dataplane);
    // flock(1) stands for vipd: it holds the lock until it is told to end.
    let mut holder = Command::new("flock")
        .arg("--close")
        .arg(lab.pins())
        .args(["tail", "--follow", "/dev/null", "--pid"])
        .arg(process::id().to_string())
        .stdout(Stdio::null())
        .spawn()
        .expect("flock(1) runs");
    wait_for("the lock to be taken", || {
        fs::read_to_string("/proc/locks").unwrap().contains(&format!(":{inode} "))
    });
    let error = detach(lab.pins()).expect_err("CONFIG names another process");
    assert!(
        matches!(error, KernelError::NotAgent { holder: Some(pid), .. } if pid == holder.id()),
        "{error}"
    );
    assert_eq!(holder.try_wait().unwrap(), None, "it was left alone");

    let config = tables.config.get(0).unwrap();
    tables.config.set(0, Config { agent_pid: holder.id(), ..config }).unwrap();
    let report = detach(lab.pins());
    holder.wait().unwrap();
    assert_eq!(report.unwrap().ended, Some(holder.id()));
    assert!(!lab.pins().exists());
}
