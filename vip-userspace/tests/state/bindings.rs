//! Objects that are refused together: each with the line, the object and the reason, and nothing else.

use vip_userspace::state::parse;

use crate::refusal::{added, changed, crowd, problems, refused, refused_for};

#[test]
fn overlapping_subnets_of_a_vpc_are_refused() {
    let text = added("subnets", "{ id: more, vpc: blue, cidr: 192.168.6.0/24, gateway: 192.168.6.1 }");
    refused(&text, "id: more", "subnet more", "192.168.6.0/24 overlaps 192.168.4.0/22 of subnet web");
}

#[test]
fn overlapping_subnets_of_peers_are_refused() {
    let text = added("subnets", "{ id: more, vpc: green, cidr: 192.168.0.0/16, gateway: 192.168.0.1 }");
    let problems = problems(&text, Some("hv1"));
    assert_eq!(problems.len(), 2, "{problems:#?}");
    for problem in problems {
        assert_eq!(problem.subject, "subnet more");
        assert!(problem.what.contains("the VPCs blue and green are peered"), "{problem:#?}");
    }
}

#[test]
fn overlapping_subnets_of_two_peers_of_one_vpc_are_refused() {
    let text = added("peerings", "{ vpcs: [green, grey] }");
    let what = "vpc green is peered with both blue and grey";
    refused(&text, "id: grey-net", "subnet grey-net", what);
}

#[test]
fn a_vip_bound_to_a_port_of_another_subnet_is_refused() {
    let what = "port router is in subnet db, the VIP in web";
    let text = changed("ports: [nginx-master, real]", "ports: [router]");
    refused(&text, "ports: [router]", "vip listed-vip", what);
    let text = changed("real_servers: [real, nginx-slave]", "real_servers: [router]");
    refused(&text, "real_servers", "vip nginx-vip", what);
    let text =
        changed("members: []", "members: [router]").replace("ports: [nginx-master, real]", "group: empty");
    refused(&text, "group: empty", "vip listed-vip", what);
}

#[test]
fn a_group_with_members_in_several_subnets_is_refused() {
    let text = changed("members: []", "members: [real, router]");
    refused(&text, "id: empty", "group empty", "in several subnets: db, web");
}

#[test]
fn a_vip_with_a_group_and_ports_is_refused() {
    let text = changed("group: nginx, ", "group: nginx, ports: [real], ");
    refused(&text, "group: nginx", "vip nginx-vip", "both `group` and `ports`");
}

#[test]
fn an_eip_without_a_target_or_with_two_is_refused() {
    refused(&changed("port: router }", "}"), "id: router-eip", "eip router-eip", "it has no target");
    let text = changed("port: router }", "port: router, vip: idle-vip }");
    refused(&text, "id: router-eip", "eip router-eip", "both `vip` and `port`");
}

#[test]
fn one_address_for_two_eips_is_refused() {
    let text = changed("203.0.113.11", "203.0.113.10");
    refused(&text, "id: router-eip", "eip router-eip", "203.0.113.10 is that of eip web-eip");
}

#[test]
fn two_eips_for_one_target_are_refused() {
    let text = changed("port: router }", "vip: nginx-vip }");
    refused(&text, "id: router-eip", "eip router-eip", "eip web-eip leads to vip nginx-vip already");
    let text = added("eips", "{ id: again, address: 203.0.113.12, port: router }");
    refused(&text, "id: again", "eip again", "eip router-eip leads to port router already");
}

#[test]
fn an_eip_inside_a_subnet_of_any_vpc_is_refused() {
    for address in ["192.168.5.5", "10.0.0.77"] {
        let text = changed("203.0.113.10", address);
        refused(&text, address, "eip web-eip", "lies in subnet");
    }
}

#[test]
fn an_eip_that_is_a_hosts_tunnel_address_is_refused() {
    let text = changed("203.0.113.10", "172.31.0.2");
    refused(&text, "id: web-eip", "eip web-eip", "172.31.0.2 is the tunnel address of host hv2");
}

#[test]
fn a_peering_of_other_than_two_different_vpcs_is_refused() {
    let peering = |vpcs: &str| changed("vpcs: [green, blue]", &format!("vpcs: [{vpcs}]"));
    refused(&peering("green"), "vpcs: [green", "peering green", "it has 1 VPCs");
    refused(&peering(""), "vpcs: []", "peering ", "it has 0 VPCs");
    refused(&peering("a, b, c"), "vpcs: [a", "peering a+b+c", "it has 3 VPCs");
    refused(&peering("blue, blue"), "vpcs: [blue", "peering blue+blue", "a VPC with itself");
}

#[test]
fn a_peering_that_stands_twice_is_refused_in_either_order() {
    let text = added("peerings", "{ vpcs: [blue, green] }");
    refused(&text, "vpcs: [blue, green]", "peering blue+green", "are peered already");
}

#[test]
fn more_than_ten_vips_on_a_port_are_refused() {
    let text = crowd(11, |_| "ports: [p3]".to_owned());
    let what = "it may own 11 VIPs; profile default allows 10";
    refused_for(&text, Some("id: p3,"), "port p3", what, None);
}

#[test]
fn more_than_ten_owners_of_a_vip_are_refused() {
    let all = (0..11).map(|i| format!("p{i}")).collect::<Vec<_>>().join(", ");
    let text = crowd(11, |i| if i == 4 { format!("ports: [{all}]") } else { String::new() });
    let what = "11 ports may own it; profile default allows 10";
    refused_for(&text, Some("id: v4,"), "vip v4", what, None);
}

#[test]
fn real_servers_do_not_count_for_the_quotas() {
    let all = (0..20).map(|i| format!("p{i}")).collect::<Vec<_>>().join(", ");
    let text = crowd(20, |_| format!("real_servers: [{all}]"));
    assert!(parse(&text, "state.yaml", None).is_ok());
}
