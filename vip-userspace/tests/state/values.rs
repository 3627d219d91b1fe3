//! Values and references that are refused: each with the line, the object and the reason, and nothing else.

use vip_userspace::state::parse;

use crate::refusal::{added, changed, refused, refused_for};

#[test]
fn one_id_twice_in_a_kind_is_refused() {
    for (list, line, subject) in [
        ("hosts", "{ id: hv2, vtep: 172.31.0.9 }", "host hv2"),
        ("vpcs", "{ id: grey, vni: 9 }", "vpc grey"),
        ("subnets", "{ id: db, vpc: grey, cidr: 10.9.0.0/24, gateway: 10.9.0.1 }", "subnet db"),
        (
            "ports",
            "{ id: real, subnet: db, address: 192.168.8.7, mac: 02:00:00:00:08:07, host: hv1, interface: t }",
            "port real",
        ),
        ("groups", "{ id: empty, members: [] } #", "group empty"),
        ("vips", "{ id: idle-vip, subnet: db, address: 192.168.8.7 }", "vip idle-vip"),
        ("eips", "{ id: web-eip, address: 203.0.113.9, port: real }", "eip web-eip"),
    ] {
        refused(&added(list, line), line, subject, "already");
    }
}

#[test]
fn one_id_in_two_kinds_is_fine() {
    let text = added("groups", "{ id: nginx-vip, members: [] }");
    assert!(parse(&text, "state.yaml", Some("hv1")).is_ok());
}

#[test]
fn one_address_twice_in_a_vpc_is_refused_for_ports_and_vips() {
    let text = changed("192.168.7.10,", "192.168.7.248,");
    refused(
        &text,
        "id: real",
        "port real",
        "192.168.7.248 is that of port nginx-slave in the same VPC already",
    );
    let text = changed("192.168.7.245", "192.168.7.10");
    refused(&text, "id: listed-vip", "vip listed-vip", "192.168.7.10 is that of port real");
    let text = changed("192.168.7.245", "192.168.7.246");
    refused(&text, "id: listed-vip", "vip listed-vip", "192.168.7.246 is that of vip nginx-vip");
}

#[test]
fn a_gateways_address_is_refused_for_ports_and_vips() {
    let text = changed("192.168.7.10,", "192.168.4.1,");
    refused(&text, "id: real", "port real", "192.168.4.1 is the gateway of subnet web");
    let text = changed("192.168.8.10", "192.168.8.1");
    refused(&text, "id: idle-vip", "vip idle-vip", "192.168.8.1 is the gateway of subnet db");
}

#[test]
fn one_mac_twice_in_a_vpc_is_refused_even_across_subnets() {
    let text = changed("02:00:00:00:08:09", "02:00:00:00:07:F7");
    refused(&text, "id: router,", "port router", "02:00:00:00:07:f7 is that of port nginx-master");
}

#[test]
fn ports_may_share_an_interface_on_different_vlans() {
    for (first, other) in
        [("", ", vlan: 7"), (", vlan: 7", ""), (", vlan: 8", ", vlan: 7"), (", vlan: [8, 7]", ", vlan: 7")]
    {
        let text = changed("interface: tap1", &format!("interface: tap1{first}"));
        let text = text.replace("interface: tap3", &format!("interface: tap1{other}"));
        let state = parse(&text, "state.yaml", Some("hv1")).expect("a good state");
        let vlan = |id: &str| state.ports.named(id).and_then(|port| port.vlan).map(|vlan| vlan.to_string());
        let written = |text: &str| text.strip_prefix(", vlan: ").map(str::to_owned);
        assert_eq!([vlan("nginx-slave"), vlan("router")], [written(first), written(other)]);
    }
    for (vlan, shown) in [("7", "7"), ("[8, 7]", "[8, 7]")] {
        let text = changed("interface: tap1", &format!("interface: tap1, vlan: {vlan}"));
        let text = text.replace("interface: tap3", &format!("interface: tap1, vlan: {vlan}"));
        let what = format!("vlan: {shown} on `tap1` of host hv1 is that of port nginx-slave already");
        refused(&text, "id: router,", "port router", &what);
    }
}

#[test]
fn one_interface_twice_on_a_host_is_refused() {
    let text = changed("interface: tap3", "interface: tap0");
    refused(&text, "id: router,", "port router", "`tap0` of host hv1 is that of port nginx-master");
}

#[test]
fn one_tunnel_address_on_two_hosts_is_refused() {
    refused(&changed("172.31.0.2", "172.31.0.1"), "id: hv2", "host hv2", "172.31.0.1 is that of host hv1");
}

#[test]
fn one_vni_twice_is_refused() {
    refused(&changed("vni: 4003", "vni: 4001"), "id: grey,", "vpc grey", "4001 is that of vpc blue");
}

#[test]
fn a_member_listed_twice_is_refused() {
    let text = changed("members: [nginx-master, nginx-slave]", "members: [nginx-master, nginx-master]");
    refused(&text, "members: [nginx-master", "group nginx", "port nginx-master is listed twice");
    let text = changed("ports: [nginx-master, real]", "ports: [real, real]");
    refused(&text, "ports: [real", "vip listed-vip", "port real is listed twice");
    let text = changed("real_servers: [real, nginx-slave]", "real_servers: [real, real]");
    refused(&text, "real_servers", "vip nginx-vip", "port real is listed twice");
}

#[test]
fn an_unknown_reference_is_refused_and_named() {
    for (from, to, subject, what) in [
        ("id: db, vpc: blue", "id: db, vpc: bleu", "subnet db", "there is no vpc `bleu`"),
        ("id: real, subnet: web", "id: real, subnet: wbe", "port real", "there is no subnet `wbe`"),
        ("host: hv1, interface: tap2", "host: hv7, interface: tap2", "port real", "there is no host `hv7`"),
        ("members: []", "members: [ghost]", "group empty", "there is no port `ghost`"),
        ("group: nginx, ", "group: ngnix, ", "vip nginx-vip", "there is no group `ngnix`"),
        ("ports: [nginx-master, real]", "ports: [ghost]", "vip listed-vip", "there is no port `ghost`"),
        ("real_servers: [real, ", "real_servers: [ghost, ", "vip nginx-vip", "there is no port `ghost`"),
        (
            "id: idle-vip, subnet: db",
            "id: idle-vip, subnet: ghost",
            "vip idle-vip",
            "there is no subnet `ghost`",
        ),
        ("vip: nginx-vip", "vip: ghost", "eip web-eip", "there is no vip `ghost`"),
        ("port: router", "port: ghost", "eip router-eip", "there is no port `ghost`"),
        ("vpcs: [green, blue]", "vpcs: [ghost, blue]", "peering ghost+blue", "there is no vpc `ghost`"),
    ] {
        refused(&changed(from, to), to, subject, what);
    }
}

#[test]
fn what_refers_to_a_wrong_object_is_not_reported_on_top() {
    let text = changed("id: db, vpc: blue, cidr: 192.168.8.0/24", "id: db, vpc: blue, cidr: 192.168.8.0/33");
    refused(&text, "/33", "subnet db", "cidr: `192.168.8.0/33` is not an IPv4 prefix");
}

#[test]
fn a_port_may_live_on_any_listed_host_and_on_no_other() {
    let elsewhere = changed("host: hv1, interface: tap2", "host: hv2, interface: tap1");
    let state = parse(&elsewhere, "state.yaml", Some("hv1")).expect("each host has its own interfaces");
    let port = state.ports.find("real").expect("the port");
    assert_eq!(state.hosts.id(state.ports[port].host), "hv2");
    let text = changed("host: hv1, interface: tap2", "host: hv7, interface: tap2");
    refused(&text, "host: hv7", "port real", "there is no host `hv7`");
}

#[test]
fn an_own_host_that_is_not_listed_is_refused() {
    let text = "hosts: [{ id: hv1, vtep: 172.31.0.1 }]\nvpcs: []\nsubnets: []\nports: []\n";
    refused_for(text, None, "host hv9", "this host is not listed", Some("hv9"));
    assert!(parse(text, "state.yaml", Some("hv1")).is_ok());
}

#[test]
fn a_vni_of_other_than_24_bits_or_zero_is_refused() {
    for (vni, good) in [(0_u64, false), (1, true), ((1 << 24) - 1, true), (1 << 24, false), (1 << 40, false)]
    {
        let text = changed("vni: 4003", &format!("vni: {vni}"));
        assert_eq!(parse(&text, "state.yaml", Some("hv1")).is_ok(), good, "{vni}");
    }
    refused(&changed("vni: 4003", "vni: 16777216"), "id: grey,", "vpc grey", "16777216 is not a VNI");
}

#[test]
fn what_is_no_address_is_refused() {
    for bad in ["192.168.8", "192.168.8.9/24", "router.example.net", "192.168.8.256", "192.168.08.9"] {
        let text = changed("192.168.8.9,", &format!("{bad},"));
        refused(&text, "id: router,", "port router", "is not an IPv4 address");
    }
}

#[test]
fn an_address_no_station_can_have_is_refused() {
    let text = changed("203.0.113.10", "224.0.0.18");
    refused(&text, "224.0.0.18", "eip web-eip", "loopback, multicast, broadcast or reserved");
}

#[test]
fn an_address_outside_its_subnet_is_refused() {
    let outside = "lies outside of subnet db (192.168.8.0/24)";
    refused(&changed("192.168.8.9,", "192.168.9.9,"), "id: router,", "port router", outside);
    refused(&changed("192.168.8.10", "192.168.9.10"), "id: idle-vip", "vip idle-vip", outside);
    refused(&changed("gateway: 192.168.8.1", "gateway: 192.168.9.1"), "id: db,", "subnet db", outside);
}

#[test]
fn a_network_or_broadcast_address_is_refused() {
    for (address, what) in
        [("192.168.8.0", "is the network address"), ("192.168.8.255", "is the broadcast address")]
    {
        refused(&changed("192.168.8.9,", &format!("{address},")), "id: router,", "port router", what);
        refused(&changed("192.168.8.10", address), "id: idle-vip", "vip idle-vip", what);
        refused(
            &changed("gateway: 192.168.8.1", &format!("gateway: {address}")),
            "id: db,",
            "subnet db",
            what,
        );
    }
}

#[test]
fn a_prefix_that_is_none_or_cannot_hold_guests_is_refused() {
    for (cidr, what) in [
        ("192.168.8.4/24", "has bits set after its prefix"),
        ("192.168.8.0/31", "has no room"),
        ("192.168.8.0/99", "is not an IPv4 prefix"),
        ("here", "is not an IPv4 prefix"),
        ("0.0.0.0/0", "holds loopback"),
    ] {
        let text = changed("cidr: 192.168.8.0/24", &format!("cidr: {cidr}"));
        refused(&text, "id: db,", "subnet db", what);
    }
}

#[test]
fn a_router_other_than_vip_or_external_is_refused() {
    refused(
        &changed("router: external", "router: none"),
        "id: green-net,",
        "subnet green-net",
        "router: `none`",
    );
}

#[test]
fn a_mac_no_guest_can_have_is_refused() {
    for (mac, what) in [
        ("00:00:00:00:00:00", "no station sends from"),
        ("01:00:5e:00:00:12", "no station sends from"),
        ("ff:ff:ff:ff:ff:ff", "no station sends from"),
        ("06:56:c0:a8:07:f6", "VIPs and gateways"),
        ("00:00:5e:00:01:42", "virtual router"),
        ("02-00-00-00-08-09", "not a MAC address"),
        ("nonsense", "not a MAC address"),
    ] {
        let text = changed("02:00:00:00:08:09", mac);
        refused(&text, "id: router,", "port router", what);
    }
}

#[test]
fn vrids_are_four_numbers_from_1_to_255_at_most() {
    let with = |vrids: &str| changed("vrids: [66, 255]", &format!("vrids: [{vrids}]"));
    assert!(parse(&with("1, 2, 3, 255"), "state.yaml", None).is_ok());
    for (vrids, what) in [
        ("0", "0 is not a VRID"),
        ("256", "256 is not a VRID"),
        ("66, 66", "66 is listed twice"),
        ("1, 2, 3, 4, 5", "5 of them, but a VIP can allow 4"),
    ] {
        refused(&with(vrids), "vrids", "vip nginx-vip", what);
    }
}
