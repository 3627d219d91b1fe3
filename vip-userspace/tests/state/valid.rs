//! Good states: what they resolve to.

use std::path::{Path, PathBuf};

use vip_userspace::{
    config,
    state::{EipTarget, Label, Rights, Router, State, check, load, parse},
};

use crate::refusal::crowd;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn full() -> State {
    load(&data("full.yaml"), Some("hv1")).expect("a good state")
}

const OWN: Rights = Rights { own: true, source: false };
const SOURCE: Rights = Rights { own: false, source: true };
const BOTH: Rights = Rights { own: true, source: true };

fn bindings(state: &State, vip: &str) -> Vec<(String, Rights)> {
    let vip = state.vips.named(vip).expect("the VIP");
    let bindings = state.bindings(vip).iter();
    bindings.map(|binding| (state.ports.id(binding.port).to_owned(), binding.rights)).collect()
}

#[test]
fn every_kind_is_counted() {
    let summary = check::check(&data("full.yaml"), None).expect("a good state");
    assert_eq!(
        summary.to_string(),
        "hosts 2, vpcs 3, subnets 4, ports 5, groups 2, vips 3, eips 2, peerings 1"
    );
}

#[test]
fn a_port_is_resolved_to_its_vpc_and_has_its_checks_on_unless_told_otherwise() {
    let state = full();
    let id = state.ports.find("nginx-slave").expect("the port");
    let port = &state.ports[id];
    assert_eq!(state.subnets.id(port.subnet), "web");
    assert_eq!(state.vpcs.id(state.vpc_of_port(port)), "blue");
    assert_eq!(state.hosts.id(port.host), "hv1");
    assert_eq!(port.address.to_string(), "192.168.7.248");
    assert_eq!(port.mac.to_string(), "02:00:00:00:07:f8");
    assert_eq!(state.interface(id), "tap1");
    assert!(port.source_dest_check);
    assert!(!state.ports.named("router").expect("the port").source_dest_check);
}

#[test]
fn a_group_gives_own_and_real_servers_give_source_and_a_port_can_have_both() {
    let state = full();
    let bound = bindings(&state, "nginx-vip");
    assert_eq!(bound, [("nginx-master".into(), OWN), ("nginx-slave".into(), BOTH), ("real".into(), SOURCE)]);
}

#[test]
fn listed_ports_own_and_a_vip_without_any_is_owned_by_nobody() {
    let state = full();
    assert_eq!(bindings(&state, "listed-vip"), [("nginx-master".into(), OWN), ("real".into(), OWN)]);
    assert_eq!(bindings(&state, "idle-vip"), []);
    let vrids = |vip| state.vips.named(vip).map(|vip| vip.vrids().collect::<Vec<_>>());
    assert_eq!(vrids("nginx-vip"), Some(vec![66, 255]));
    assert_eq!(vrids("listed-vip"), Some(vec![]));
}

#[test]
fn eips_know_their_target_and_subnets_their_router_and_vpcs_their_peers() {
    let state = full();
    let target = |eip| state.eips.named(eip).map(|eip| eip.target);
    assert_eq!(target("web-eip"), state.vips.find("nginx-vip").map(EipTarget::Vip));
    assert_eq!(target("router-eip"), state.ports.find("router").map(EipTarget::Port));
    assert!(target("web-eip").is_some() && target("router-eip").is_some());
    let router = |subnet| state.subnets.named(subnet).map(|subnet| subnet.router);
    assert_eq!((router("db"), router("green-net")), (Some(Router::Vip), Some(Router::External)));
    let peers = |vpc| {
        let peers = &state.vpcs.named(vpc)?.peers;
        Some(peers.iter().map(|peer| state.vpcs.id(*peer)).collect::<Vec<_>>())
    };
    assert_eq!(peers("blue"), Some(vec!["green"]));
    assert_eq!(peers("green"), Some(vec!["blue"]));
    assert_eq!(peers("grey"), Some(vec![]));
}

#[test]
fn labels_are_kept_apart_and_found_by_kind_and_id() {
    let state = full();
    let host = |id| state.hosts.label(state.hosts.find(id).expect("the host"));
    assert_eq!(host("hv1").remark, Some("rack 7"));
    let vpc = state.vpcs.find("blue").expect("the VPC");
    assert_eq!(state.vpcs.label(vpc).name, Some("Blue Ltd"));
    let peering = state.peerings.find("blue+green").expect("the peering");
    assert_eq!(state.peerings.label(peering).remark, Some("until the merger"));
    assert_eq!(host("hv2"), Label::default());
}

#[test]
fn json_is_read_like_yaml_also_without_a_last_line_end() {
    let state = load(&data("full.json"), Some("hv1")).expect("a good state");
    assert_eq!(bindings(&state, "nginx-vip"), [("nginx-master".into(), OWN)]);
    let eip = state.eips.find("web-eip").expect("the EIP");
    assert_eq!(state.eips.label(eip).name, Some("über 😀"));
}

#[test]
fn a_changed_name_or_remark_is_another_state_but_the_same_traffic() {
    let text = std::fs::read_to_string(data("full.yaml")).expect("the fixture");
    let renamed =
        text.replace("name: www", "name: shop").replace("rack 7", "rack 8").replace("Blue Ltd", "B");
    let (before, after) = (full(), parse(&renamed, "renamed", Some("hv1")).expect("a good state"));
    assert_ne!(before, after);
    assert!(before.traffic_eq(&after));
}

#[test]
fn any_other_change_is_other_traffic() {
    let text = std::fs::read_to_string(data("full.yaml")).expect("the fixture");
    for (from, to) in [
        ("172.31.0.2", "172.31.0.3"),
        ("vni: 4003", "vni: 4004"),
        ("router: external", "router: vip"),
        ("interface: tap3", "interface: tap9"),
        ("source_dest_check: false", "source_dest_check: true"),
        ("members: [nginx-master, nginx-slave]", "members: [nginx-master]"),
        ("vrids: [66, 255]", "vrids: [66]"),
        ("203.0.113.11", "203.0.113.12"),
        ("  - { vpcs: [green, blue], remark: until the merger }", "  []"),
    ] {
        assert!(text.contains(from), "{from}");
        let after = parse(&text.replace(from, to), "changed", Some("hv1")).expect("a good state");
        assert!(!full().traffic_eq(&after), "{from} -> {to}");
    }
}

#[test]
fn the_order_of_objects_does_not_matter() {
    let text = std::fs::read_to_string(data("full.yaml")).expect("the fixture");
    let swapped = text.replace("[nginx-master, nginx-slave]", "[nginx-slave, nginx-master]");
    assert_eq!(parse(&swapped, "swapped", Some("hv1")).expect("a good state"), full());
}

#[test]
fn ten_vips_on_a_port_and_ten_owners_of_a_vip_are_allowed() {
    let all = (0..10).map(|i| format!("p{i}")).collect::<Vec<_>>().join(", ");
    let text = crowd(10, |_| format!("ports: [{all}]"));
    let state = parse(&text, "ten", Some("h")).expect("a good state");
    assert!(state.vips.values().all(|vip| state.bindings(vip).len() == 10));
}

#[test]
fn the_demo_files_are_good_and_belong_together() {
    let config = config::load(&data("demo/vipd.yaml")).expect("a good configuration");
    assert_eq!((config.host.as_str(), config.uplink.as_str()), ("hv1", "eth0"));
    let state = load(&config.source, Some(&config.host)).expect("a good state");
    assert_eq!(bindings(&state, "nginx-vip"), [("nginx-master".into(), OWN), ("nginx-slave".into(), OWN)]);
    assert_eq!(state.eips.values().map(|eip| eip.address.to_string()).collect::<Vec<_>>(), ["203.0.113.10"]);
}
