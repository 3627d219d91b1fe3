//! Whatever the state was and becomes, no packet between two steps of the plan meets a wrong entry.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use proptest::{collection::vec, option, prelude::*};
use vip_common::{
    tables::{AddressKind, EipNetwork, OwnerWord, PortFlags},
    wire::Mac,
};
use vip_userspace::{
    config::Capacity,
    plan::{
        Assigned, Contents, Desired, Indexes, Interface, Interfaces, REST, Reason, Resting, Site, Step,
        compile, diff, host_of, interface_of, unjustified,
    },
    state::{Kind, Port, Ref, State, parse},
    vlan::Vlan,
};

const CAPACITY: Capacity = Capacity { ports: 12, vips: 8, eips: 8, subnets: 6, hosts: 5 };

// ---- Worlds: a state and the interfaces of its host ----------------------------------------------------------------

#[derive(Clone, Debug)]
struct World {
    text: String,
    state: State,
    interfaces: Interfaces,
}

impl World {
    fn of(text: String, interfaces: Interfaces) -> Self {
        let state = parse(&text, "world", None).unwrap_or_else(|error| panic!("{error}\n{text}"));
        Self { text, state, interfaces }
    }
}

/// A port by numbers small enough that two worlds often disagree about who has what.
#[derive(Clone, Debug)]
struct PortSeed {
    subnet: u8,
    address: u8,
    mac: u8,
    host: u8,
    interface: u8,
    bypass: bool,
}

#[derive(Clone, Debug)]
struct VipSeed {
    subnet: u8,
    address: u8,
    bindings: Vec<(u8, bool, bool)>,
    vrid: Option<u8>,
}

fn port_seed() -> impl Strategy<Value = PortSeed> {
    (0..4_u8, 0..6_u8, 0..6_u8, 1..4_u8, 0..6_u8, any::<bool>()).prop_map(
        |(subnet, address, mac, host, interface, bypass)| PortSeed {
            subnet,
            address,
            mac,
            host,
            interface,
            bypass,
        },
    )
}

fn vip_seed() -> impl Strategy<Value = VipSeed> {
    (0..4_u8, 0..6_u8, vec((0..8_u8, any::<bool>(), any::<bool>()), 0..5), option::of(66..68_u8))
        .prop_map(|(subnet, address, bindings, vrid)| VipSeed { subnet, address, bindings, vrid })
}

/// Two VPCs with two subnets each; the second VPC has the addresses of the first. Seeds that no valid state holds (an
/// address or MAC twice in a VPC, an interface twice on the host) are left out.
fn world() -> impl Strategy<Value = World> {
    (
        vec(port_seed(), 0..8),
        vec(vip_seed(), 0..5),
        vec((0..4_u8, any::<bool>(), 0..8_u8), 0..4),
        vec(option::weighted(0.8, (1..9_u32, any::<bool>(), any::<bool>())), 6),
        any::<bool>(),
        0..2_u8,
        (any::<bool>(), any::<bool>()),
    )
        .prop_map(|(ports, vips, eips, interfaces, peered, routers, (lists_all, renumbered))| {
            let World { mut text, interfaces, .. } =
                build(&ports, &vips, &eips, &interfaces, peered, routers);
            if renumbered {
                text = text.replace("172.31.0.2", "172.31.0.12");
            }
            if !lists_all && !text.contains("host: hv3") {
                text = text.replace(", { id: hv3, vtep: 172.31.0.3 }", "");
            }
            World::of(text, interfaces)
        })
}

fn build(
    ports: &[PortSeed],
    vips: &[VipSeed],
    eips: &[(u8, bool, u8)],
    interfaces: &[Option<(u32, bool, bool)>],
    peered: bool,
    routers: u8,
) -> World {
    // Writing to a string cannot fail.
    let mut text = String::from(
        "hosts: [{ id: hv1, vtep: 172.31.0.1 }, { id: hv2, vtep: 172.31.0.2 }, { id: hv3, vtep: 172.31.0.3 }]\nvpcs:\n",
    );
    for vpc in 0..2 {
        let _ = writeln!(text, "  - {{ id: vpc{vpc}, vni: {} }}", 100 + vpc);
    }
    // Peers reach each other and must not overlap.
    let second = |vpc: u8| if peered { vpc } else { 0 };
    text += "subnets:\n";
    for (vpc, half) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let (number, net) = (vpc * 2 + half, second(vpc));
        let router = if routers == half { "vip" } else { "external" };
        let _ = writeln!(
            text,
            "  - {{ id: subnet{number}, vpc: vpc{vpc}, cidr: 10.{net}.{half}.0/24, gateway: 10.{net}.{half}.1, router: {router} }}"
        );
    }
    let mut addresses = BTreeSet::new();
    let mut macs = BTreeSet::new();
    let mut taken = BTreeSet::new();
    let mut known = BTreeMap::new();
    text += "ports:\n";
    for (number, seed) in ports.iter().enumerate() {
        let vpc = seed.subnet / 2;
        let address = Ipv4Addr::new(10, second(vpc), seed.subnet % 2, 10 + seed.address);
        if !addresses.insert((vpc, address))
            || !macs.insert((vpc, seed.mac))
            || !taken.insert((seed.host, seed.interface))
        {
            continue;
        }
        known.insert(number, seed.subnet);
        let _ = writeln!(
            text,
            "  - {{ id: port{number}, subnet: subnet{}, address: {address}, mac: 02:00:00:00:00:{:02x}, host: hv{}, interface: tap{}, source_dest_check: {} }}",
            seed.subnet, seed.mac, seed.host, seed.interface, !seed.bypass
        );
    }
    if known.is_empty() {
        text += "  []\n";
    }
    let mut vip_lines = String::new();
    let mut known_vips = BTreeSet::new();
    for (number, seed) in vips.iter().enumerate() {
        let vpc = seed.subnet / 2;
        let address = Ipv4Addr::new(10, second(vpc), seed.subnet % 2, 10 + seed.address);
        if !addresses.insert((vpc, address)) {
            continue;
        }
        known_vips.insert(number);
        // The last binding of a port counts.
        let bindings: BTreeMap<u8, (bool, bool)> =
            seed.bindings.iter().map(|&(port, own, source)| (port, (own || !source, source))).collect();
        let mut bound =
            bindings.iter().filter(|(port, _)| known.get(&usize::from(**port)) == Some(&seed.subnet));
        let owners = list(bound.clone().filter(|(_, (own, _))| *own).map(|(port, _)| port));
        let sources = list(bound.by_ref().filter(|(_, (_, source))| *source).map(|(port, _)| port));
        let vrids = seed.vrid.map_or_else(String::new, |vrid| vrid.to_string());
        let _ = writeln!(
            vip_lines,
            "  - {{ id: vip{number}, subnet: subnet{}, address: {address}, ports: [{owners}], real_servers: [{sources}], vrids: [{vrids}] }}",
            seed.subnet
        );
    }
    let mut targets = BTreeSet::new();
    let mut publics = BTreeSet::new();
    let mut eip_lines = String::new();
    for &(last, to_vip, target) in eips {
        let number = usize::from(target);
        let known = if to_vip { known_vips.contains(&number) } else { known.contains_key(&number) };
        let kind = if to_vip { "vip" } else { "port" };
        if known && publics.insert(last) && targets.insert((to_vip, target)) {
            let _ = writeln!(
                eip_lines,
                "  - {{ id: eip{last}, address: 203.0.113.{last}, {kind}: {kind}{target} }}"
            );
        }
    }
    for (list, lines) in [("vips", vip_lines), ("eips", eip_lines)] {
        let lines = if lines.is_empty() { "  []\n".to_owned() } else { lines };
        let _ = write!(text, "{list}:\n{lines}");
    }
    if peered {
        text += "peerings: [{ vpcs: [vpc0, vpc1] }]\n";
    }
    let mut numbers = BTreeSet::new();
    let interfaces = interfaces
        .iter()
        .enumerate()
        .filter_map(|(number, interface)| Some((format!("tap{number}"), (*interface)?)))
        .filter(|(_, (ifindex, ..))| numbers.insert(*ifindex))
        .map(|(name, (ifindex, bridged, takes_xdp))| {
            (name, Interface { ifindex, bridged, takes_xdp, takes_xdp_frags: takes_xdp, mtu: 1500 })
        })
        .collect();
    World::of(text, interfaces)
}

fn list<'p>(ports: impl Iterator<Item = &'p u8>) -> String {
    ports.map(|port| format!("port{port}")).collect::<Vec<_>>().join(", ")
}

/// The host that the plan is for.
fn site(world: &World) -> Site {
    let network = EipNetwork {
        network: Ipv4Addr::new(203, 0, 113, 0).into(),
        mask: Ipv4Addr::new(255, 255, 255, 254).into(),
        gateway: Ipv4Addr::new(203, 0, 113, 1).into(),
        ..EipNetwork::default()
    };
    Site {
        host: "hv1".to_owned(),
        networks: [network].into(),
        interfaces: world.interfaces.clone(),
        tunnel_mtu: 1450,
    }
}

fn desire(world: &World, contents: &Contents, resting: &Resting) -> Desired {
    compile(&world.state, &site(world), &Indexes::of(contents, &CAPACITY, resting))
}

fn carry_out(contents: &mut Contents, desired: &Desired) {
    for step in diff(contents, &desired.contents) {
        contents.apply(&step);
    }
}

/// The desired contents once everything that had to rest has rested.
fn reach(world: &World, contents: &mut Contents) -> Desired {
    for _ in 0..2 {
        let desired = desire(world, contents, &Resting::default());
        carry_out(contents, &desired);
    }
    desire(world, contents, &Resting::default())
}

// ---- What must hold between any two steps --------------------------------------------------------------------------

fn assert_sound(contents: &Contents, after: &str) {
    let port = |index: &u32| contents.ports.get(index);
    for (&(vni, address), entry) in &contents.addresses {
        match entry.kind {
            AddressKind::Fixed(index) => {
                let port =
                    port(&index).unwrap_or_else(|| panic!("{address} leads to an empty port after {after}"));
                assert_eq!((port.vni, port.address), (vni, address), "after {after}");
            }
            AddressKind::Vip(slot) => {
                let vip =
                    contents.members.get(&slot).unwrap_or_else(|| panic!("{address} is empty after {after}"));
                assert_eq!((vip.vni, vip.address), (vni, address), "after {after}");
            }
            AddressKind::Gateway(_) | AddressKind::ExternalGateway(_) => {}
        }
    }
    for (&(vni, mac), index) in &contents.macs {
        let port = port(index).unwrap_or_else(|| panic!("a MAC leads to an empty port after {after}"));
        assert_eq!((port.vni, port.mac), (vni, Mac::new(mac)), "after {after}");
    }
    for (eip, target) in &contents.eips {
        let place = match (target.as_vip(), target.as_port()) {
            (Some(slot), _) => contents.members.get(&slot).map(|vip| (vip.vni, vip.address)),
            (_, Some(index)) => port(&index).map(|port| (port.vni, port.address)),
            _ => None,
        };
        let address = place.and_then(|place| contents.addresses.get(&place));
        assert_eq!(address.map(|entry| entry.eip.address), Some(*eip), "after {after}");
    }
    for (ifindex, index) in &contents.interfaces {
        assert_eq!(port(index).and_then(interface_of), Some(*ifindex), "after {after}");
    }
    for (index, slot) in contents.grants.keys() {
        let vni = contents.members.get(slot).map(|vip| vip.vni);
        assert!(vni.is_some() && vni == port(index).map(|port| port.vni), "a stray grant after {after}");
    }
    for members in contents.members.values() {
        for index in members.ports.iter().filter(|index| **index != 0) {
            assert_eq!(port(index).map(|port| port.vni), Some(members.vni), "after {after}");
        }
        for host in members.hosts.iter().filter(|host| **host != 0) {
            assert!(contents.hosts.contains_key(&u32::from(*host)), "members on an empty host after {after}");
        }
    }
    for (vtep, index) in &contents.vteps {
        assert_eq!(contents.hosts.get(index), Some(vtep), "after {after}");
    }
    let mut ifindexes = BTreeSet::new();
    for (index, port) in &contents.ports {
        let interface = interface_of(port);
        assert!(
            interface.is_none_or(|interface| ifindexes.insert(interface)),
            "two ports share an interface after {after}"
        );
        let host = host_of(port);
        assert!(
            host.is_none_or(|host| contents.hosts.contains_key(&host)),
            "a port is on an empty host after {after}"
        );
        if port.flags.has(PortFlags::TAKES_XDP) {
            assert_eq!(contents.port_devs.get(index), Some(&port.ifindex), "after {after}");
        }
    }
    let mut eips = BTreeSet::new();
    for entry in contents.addresses.values().filter(|entry| entry.eip.is_some()) {
        assert!(eips.insert(entry.eip.address), "two addresses leave as {} after {after}", entry.eip.address);
    }
}

/// The owners' words, of which only the port matters here.
type Owners = BTreeMap<u32, u32>;

/// Every VIP is owned by a port that may.
fn settle_owners(contents: &Contents, choice: usize) -> Owners {
    let mut candidates: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (&(port, slot), grant) in &contents.grants {
        if grant.rights.may_own() {
            candidates.entry(slot).or_default().push(port);
        }
    }
    candidates
        .into_iter()
        .filter_map(|(slot, ports)| Some((slot, *ports.get(choice % ports.len())?)))
        .collect()
}

fn apply_to_owners(owners: &mut Owners, step: &Step) {
    let ends = match *step {
        Step::Release { slot, port: Some(port) } => {
            owners.get(&slot).filter(|owner| **owner == port).map(|_| slot)
        }
        Step::Release { slot, port: None } | Step::FreshSlot(slot) => Some(slot),
        _ => None,
    };
    if let Some(slot) = ends {
        owners.remove(&slot);
    }
}

/// Whether a port is on one host before and on another after.
fn changes_hosts(before: &Contents, after: &Contents, port: u32) -> bool {
    let place = |contents: &Contents| {
        let port = contents.ports.get(&port)?;
        Some(if port.flags.has(PortFlags::REMOTE) { host_of(port) } else { None })
    };
    place(before).zip(place(after)).is_some_and(|(before, after)| before != after)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_step_leads_a_packet_astray_and_the_last_one_reaches_the_goal(from in world(), to in world(), owner in 0..4_usize) {
        let mut contents = Contents::default();
        reach(&from, &mut contents);
        assert_sound(&contents, "the first world");
        let before = contents.clone();
        let mut owners = settle_owners(&contents, owner);

        let desired = desire(&to, &contents, &Resting::default());
        let mut rehomed = BTreeSet::new();
        for step in diff(&contents, &desired.contents) {
            contents.apply(&step);
            apply_to_owners(&mut owners, &step);
            if let Step::Rehome { slot, port } = step {
                prop_assert!(rehomed.insert((port, slot)), "an epoch too many of slot {slot}");
            }
            assert_sound(&contents, &format!("{step:?}"));
            for (slot, port) in &owners {
                prop_assert!(contents.ports.contains_key(port), "slot {slot} is owned by an empty port after {step:?}");
            }
        }
        prop_assert_eq!(&contents, &desired.contents);
        prop_assert_eq!(diff(&contents, &desired.contents), []);

        let words = owners.iter().map(|(&slot, &port)| (slot, OwnerWord::new(1, true, port, 0)));
        prop_assert_eq!(unjustified(&contents, words), []);
        for (slot, port) in settle_owners(&before, owner) {
            let moves = changes_hosts(&before, &contents, port);
            let same = before.ports.get(&port).and_then(interface_of)
                == contents.ports.get(&port).and_then(interface_of);
            let keeps = contents.grants.get(&(port, slot)).is_some_and(|grant| grant.rights.may_own());
            prop_assert!(
                !(same || moves) || !keeps || owners.get(&slot) == Some(&port),
                "slot {slot} lost its owner for nothing"
            );
        }
        let may_own = contents.grants.iter().filter(|(_, grant)| grant.rights.may_own()).map(|(key, _)| *key);
        let moved: BTreeSet<_> = may_own.filter(|(port, _)| changes_hosts(&before, &contents, *port)).collect();
        prop_assert_eq!(rehomed, moved);
    }

    #[test]
    fn every_step_may_be_carried_out_twice(from in world(), to in world()) {
        let mut contents = Contents::default();
        reach(&from, &mut contents);
        let desired = desire(&to, &contents, &Resting::default());
        for step in diff(&contents, &desired.contents) {
            contents.apply(&step);
            let once = contents.clone();
            contents.apply(&step);
            prop_assert_eq!(&once, &contents);
        }
    }

    #[test]
    fn an_agent_that_died_between_two_steps_is_taken_over(
        from in world(), to in world(), later in world(), died_after in 0..40_usize,
    ) {
        let mut contents = Contents::default();
        reach(&from, &mut contents);
        let desired = desire(&to, &contents, &Resting::default());
        for step in diff(&contents, &desired.contents).iter().take(died_after) {
            contents.apply(step);
        }
        for _ in 0..2 {
            let desired = desire(&later, &contents, &Resting::default());
            for step in diff(&contents, &desired.contents) {
                contents.apply(&step);
                assert_sound(&contents, &format!("{step:?}"));
            }
            prop_assert_eq!(&contents, &desired.contents);
        }
        prop_assert_eq!(desire(&later, &contents, &Resting::default()).refused, []);
    }

    #[test]
    fn what_stays_keeps_its_index_and_what_was_freed_rests(from in world(), to in world()) {
        let mut contents = Contents::default();
        let first = reach(&from, &mut contents);
        let now = Instant::now();
        let second = desire(&to, &contents, &Resting::default());
        let port_of = |World { state, .. }: &World, port: Ref<Port>| {
            let port = &state.ports[port];
            (state.vpcs.id(state.vpc_of_port(port)).to_owned(), port.mac)
        };
        for (port, index) in second.assigned.ports.iter() {
            for (old, old_index) in first.assigned.ports.iter() {
                let same = port_of(&from, old) == port_of(&to, port);
                prop_assert_eq!(same, index == old_index, "indexes {} and {}", old_index, index);
            }
        }
        let before = contents.clone();
        carry_out(&mut contents, &second);
        let mut resting = Resting::default();
        resting.note(&Indexes::of(&before, &CAPACITY, &Resting::default()), &contents, now);
        resting.expire(now + REST.saturating_sub(Duration::from_millis(1)));
        let freed: Vec<u32> =
            before.members.keys().filter(|slot| !contents.members.contains_key(slot)).copied().collect();
        let third = desire(&from, &contents, &resting);
        for slot in freed {
            prop_assert!(!third.contents.members.contains_key(&slot), "slot {} did not rest", slot);
        }
    }

    #[test]
    fn names_and_ids_make_no_step(world in world()) {
        let mut contents = Contents::default();
        reach(&world, &mut contents);
        let text = world.text.replace("id: eip", "id: another-eip");
        let text = text.replace("source_dest_check:", "name: new, remark: words, source_dest_check:");
        let renamed = World::of(text, world.interfaces.clone());
        let labelled = |port| renamed.state.ports.label(port).remark == Some("words");
        prop_assert!(renamed.state.ports.refs().all(labelled));
        let desired = desire(&renamed, &contents, &Resting::default());
        prop_assert_eq!(diff(&contents, &desired.contents), []);
    }
}

// ---- By example ----------------------------------------------------------------------------------------------------

fn seed(subnet: u8, address: u8, mac: u8, interface: u8) -> PortSeed {
    PortSeed { subnet, address, mac, host: 1, interface, bypass: false }
}

#[test]
fn full_tables_refuse_only_what_is_new_and_say_what() {
    let capacity = Capacity { ports: 1, ..CAPACITY };
    let desire = |world: &World, contents: &Contents| {
        compile(&world.state, &site(world), &Indexes::of(contents, &capacity, &Resting::default()))
    };
    let one = build(&[seed(0, 5, 5, 0)], &[], &[], &[None], false, 0);
    let mut contents = Contents::default();
    let desired = desire(&one, &contents);
    carry_out(&mut contents, &desired);

    // The new port comes first in the order of ids, and has an EIP.
    let two = build(&[seed(0, 4, 4, 1), seed(0, 5, 5, 0)], &[], &[(10, false, 0)], &[None], false, 0);
    let desired = desire(&two, &contents);
    let served = desired.assigned.ports.iter().map(|(port, _)| two.state.ports.id(port));
    assert_eq!(served.collect::<Vec<_>>(), ["port1"]);
    let refused: Vec<String> = desired.refused.iter().map(ToString::to_string).collect();
    assert_eq!(
        refused,
        [
            "port port0: not applied, PORTS is full (1 entries); remove objects that are not needed",
            "eip eip10: not applied, because port port0 is not",
        ]
    );
    assert!(desired.refused.iter().all(|refused| !refused.resting));
    assert_eq!(desired.contents, contents);
}

#[test]
fn what_only_waits_for_a_resting_index_of_another_object_is_no_fault() {
    let vip = VipSeed { subnet: 0, address: 9, bindings: vec![(0, true, false)], vrid: None };
    let world = build(&[seed(0, 4, 4, 0)], &[vip], &[(10, false, 0)], &[None], false, 0);
    let desired = desire(&world, &Contents::default(), &Resting::everything(Instant::now()));
    assert!(desired.refused.iter().any(|refused| refused.kind == Kind::Eip));
    assert!(desired.refused.iter().all(|refused| refused.resting), "{:?}", desired.refused);
}

#[test]
fn a_vip_without_one_of_its_members_is_applied_and_says_so() {
    let capacity = Capacity { ports: 1, ..CAPACITY };
    let vip =
        VipSeed { subnet: 0, address: 9, bindings: vec![(0, true, false), (1, true, false)], vrid: None };
    let world = build(&[seed(0, 4, 4, 0), seed(0, 5, 5, 1)], &[vip], &[], &[None], false, 0);
    let indexes = Indexes::of(&Contents::default(), &capacity, &Resting::default());
    let desired = compile(&world.state, &site(&world), &indexes);
    assert_eq!(desired.assigned.vips.iter().count(), 1);
    let of_vip = desired.refused.iter().filter(|refused| refused.kind == Kind::Vip);
    let said: Vec<String> = of_vip.map(ToString::to_string).collect();
    assert_eq!(said, ["vip vip0: port port1 has no rights yet, because it is not applied"]);
}

#[test]
fn an_object_that_replaces_another_in_a_full_table_follows_after_the_rest() {
    let capacity = Capacity { ports: 1, ..CAPACITY };
    let now = Instant::now();
    let mut resting = Resting::default();
    let old = build(&[seed(0, 5, 5, 0)], &[], &[], &[None], false, 0);
    let new = build(&[seed(2, 5, 4, 0)], &[], &[], &[None], false, 0);
    let mut contents = Contents::default();
    let mut apply = |world: &World, resting: &Resting| {
        let desired = compile(&world.state, &site(world), &Indexes::of(&contents, &capacity, resting));
        let before = Indexes::of(&contents, &capacity, resting);
        carry_out(&mut contents, &desired);
        (before, contents.clone(), desired.refused)
    };
    assert_eq!(apply(&old, &resting).2, []);
    let (before, after, refused) = apply(&new, &resting);
    assert!(matches!(refused.as_slice(), [refused] if refused.reason == Reason::Resting));
    assert!(after.ports.is_empty());
    resting.note(&before, &after, now);
    assert_eq!(apply(&new, &resting).2.len(), 1);
    resting.expire(now + REST);
    assert_eq!(apply(&new, &resting).2, []);
}

#[test]
fn an_eip_that_passes_to_another_tenant_is_nobodys_in_between() {
    let ports = [seed(0, 5, 5, 0), seed(2, 5, 5, 1)];
    let blue = build(&ports, &[], &[(10, false, 0)], &[None], false, 0);
    let green = build(&ports, &[], &[(10, false, 1)], &[None], false, 0);
    let mut contents = Contents::default();
    reach(&blue, &mut contents);
    let desired = desire(&green, &contents, &Resting::default());
    let steps = diff(&contents, &desired.contents);
    assert!(matches!(steps.first(), Some(Step::RemoveEip(_))), "{steps:?}");
    assert!(matches!(steps.last(), Some(Step::SetEip(..))), "{steps:?}");
}

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

// ---- Other hosts ---------------------------------------------------------------------------------------------------

fn seed_on(host: u8, subnet: u8, address: u8, interface: u8) -> PortSeed {
    PortSeed { host, ..seed(subnet, address, address, interface) }
}

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
fn a_vip_goes_with_its_owners_port_to_another_host_and_begins_another_epoch() {
    for (from, to, also) in [
        // Away: the interface here is let go of.
        ([1, 2, 3], [2, 2, 3], vec![Step::RemoveInterface(2), Step::RemovePortDev(1)]),
        // Here.
        ([2, 2, 3], [1, 2, 3], vec![Step::SetInterface(2, 1), Step::SetPortDev(1, 2)]),
        // From one to another, by one change of the port.
        ([2, 2, 3], [3, 2, 3], vec![]),
    ] {
        let mut contents = Contents::default();
        reach(&spread(from), &mut contents);
        let desired = desire(&spread(to), &contents, &Resting::default());
        let steps = diff(&contents, &desired.contents);
        assert_eq!(steps.last(), Some(&Step::Rehome { slot: 0, port: 1 }), "{from:?} {to:?}: {steps:?}");
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
