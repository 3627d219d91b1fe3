//! What a configuration may say.

use std::path::{Path, PathBuf};

use super::*;

const SMALL: &str = "host: hv1\nuplink: eth0\nsource: { file: /etc/vip/state.yaml }\n";

fn read(text: &str) -> Result<Config, ConfigError> {
    parse(text, "vipd.yaml", Path::new("/etc/vip"))
}

/// Refused for one reason: on a line, about a field, saying why.
#[track_caller]
fn refused(text: &str, line: Option<u32>, field: &str, what: &str) {
    let error = read(text).expect_err("a bad configuration");
    let [problem] = error.problems() else { panic!("not one problem but {error}") };
    assert_eq!((problem.line, problem.subject.as_str()), (line, field), "{problem:?}");
    assert!(problem.what.contains(what), "{problem:?}");
    assert!(!problem.advice.is_empty());
}

/// The small configuration with a fourth line, refused for it.
#[track_caller]
fn fourth_line_refused(line: &str, field: &str, what: &str) {
    refused(&format!("{SMALL}{line}\n"), Some(4), field, what);
}

#[test]
fn defaults_fill_in_what_is_not_said() {
    let config = read(SMALL).expect("a good configuration");
    let expected = Config {
        host: "hv1".to_owned(),
        uplink: "eth0".to_owned(),
        source: PathBuf::from("/etc/vip/state.yaml"),
        socket: PathBuf::from("/run/vip/vipd.sock"),
        bpffs: PathBuf::from("/sys/fs/bpf/vip"),
        xdp_mode: XdpMode::Native,
        uplink_path: UplinkPath::Xdp,
        eip_networks: Vec::new(),
        announce_eips: true,
        peers: None,
        capacity: Capacity { ports: 4096, vips: 16_384, eips: 16_384, subnets: 4096, hosts: 1024 },
    };
    assert_eq!(config, expected);
}

#[test]
fn everything_that_is_said_is_taken() {
    let text = format!(
        "{SMALL}socket: /tmp/vipd.sock\nbpffs: /tmp/bpf\nxdp_mode: generic\nprofile: default\nannounce_eips: false\n\
         eip_networks: [{{ id: isp, cidr: 203.0.113.0/24, gateway: 203.0.113.1 }}]\n\
         capacity: {{ ports: 1048575, vips: 1, eips: 1000000, subnets: 5, hosts: 65535 }}\n"
    );
    let config = read(&text).expect("a good configuration");
    assert_eq!(config.socket, Path::new("/tmp/vipd.sock"));
    assert_eq!(config.bpffs, Path::new("/tmp/bpf"));
    assert_eq!(config.xdp_mode, XdpMode::Generic);
    assert!(!config.announce_eips);
    let networks: Vec<_> =
        config.eip_networks.iter().map(|net| format!("{} {} {}", net.id, net.cidr, net.gateway)).collect();
    assert_eq!(networks, ["isp 203.0.113.0/24 203.0.113.1"]);
    let capacity = Capacity { ports: 1_048_575, vips: 1, eips: 1_000_000, subnets: 5, hosts: 65_535 };
    assert_eq!(config.capacity, capacity);
}

#[test]
fn relative_paths_start_at_the_configurations_directory() {
    let config = read("host: hv1\nuplink: eth0\nsource: { file: state.yaml }\nsocket: s\n").expect("good");
    assert_eq!(config.source, Path::new("/etc/vip/state.yaml"));
    assert_eq!(config.socket, Path::new("/etc/vip/s"));
}

#[test]
fn what_has_no_default_has_to_be_said_and_all_of_it_is_reported() {
    let error = read("announce_eips: true\n").expect_err("nothing is said");
    let fields: Vec<_> = error.problems().iter().map(|problem| problem.subject.as_str()).collect();
    assert_eq!(fields, ["host", "uplink", "source"]);
    assert!(read("").is_err());
}

#[test]
fn an_unknown_field_is_refused_by_name() {
    fourth_line_refused("colour: red", "document", "unknown field `colour`");
    fourth_line_refused("capacity: { colours: 7 }", "document", "unknown field `colours`");
    let text = "host: hv1\nuplink: eth0\nsource: { file: f, url: u }\n";
    refused(text, Some(3), "document", "unknown field `url`");
}

#[test]
fn etcd_is_refused_by_name() {
    let text = "host: hv1\nuplink: eth0\nsource:\n  etcd: { endpoints: [a], prefix: /vip }\n";
    refused(text, Some(4), "source.etcd", "this build does not read etcd yet");
}

#[test]
fn a_source_without_a_file_is_refused() {
    refused("host: hv1\nuplink: eth0\nsource: {}\n", Some(3), "source", "names no file");
}

#[test]
fn metrics_are_refused_by_name() {
    fourth_line_refused("metrics: 127.0.0.1:9477", "metrics", "this build does not serve metrics yet");
}

#[test]
fn peers_have_a_key_and_a_port() {
    let read = |line: &str| read(&format!("{SMALL}{line}\n")).expect("a good configuration").peers;
    let peers = |key_file: &str, port| Some(Peers { key_file: PathBuf::from(key_file), port });
    assert_eq!(read("peers: { key_file: peers.key }"), peers("/etc/vip/peers.key", 4790));
    assert_eq!(read("peers: { key_file: /run/key, port: 9 }"), peers("/run/key", 9));
    assert_eq!(read("peers: null"), None);
}

#[test]
fn peers_without_a_key_or_with_an_impossible_port_are_refused() {
    fourth_line_refused("peers: { port: 4790 }", "peers.key_file", "it is missing");
    fourth_line_refused("peers: { key_file: \"\" }", "peers.key_file", "it is missing");
    for port in [0, 65_536] {
        let line = format!("peers: {{ key_file: k, port: {port} }}");
        fourth_line_refused(&line, "peers.port", &format!("{port} is no UDP port"));
    }
    let text = format!("{SMALL}peers: {{ key_file: k, key: secret }}\n");
    assert!(read(&text).expect_err("an unknown field").to_string().contains("key"));
}

#[test]
fn an_eip_network_is_on_one_vlan_or_on_one_inside_another() {
    for (written, vlan) in [("4094", Vlan::tag(4094)), ("[200, 7]", Vlan::stacked(200, 7)), ("null", None)] {
        let line = format!(
            "eip_networks: [{{ id: isp, cidr: 203.0.113.0/24, gateway: 203.0.113.1, vlan: {written} }}]"
        );
        let config = read(&format!("{SMALL}{line}\n")).expect("good");
        assert_eq!(config.eip_networks.first().map(|network| network.vlan), Some(vlan), "{written}");
    }
}

#[test]
fn what_is_no_vlan_is_refused_by_name() {
    for (written, what) in [
        ("0", "0 is not a VLAN"),
        ("4095", "4095 is not a VLAN"),
        ("[0, 7]", "[0, 7] is not a VLAN"),
        ("[7]", "a list of 1 numbers is not a VLAN"),
        ("[1, 2, 3]", "a list of 3 numbers is not a VLAN"),
    ] {
        let line = format!(
            "eip_networks: [{{ id: isp, cidr: 203.0.113.0/24, gateway: 203.0.113.1, vlan: {written} }}]"
        );
        fourth_line_refused(&line, "eip_networks[].vlan", what);
    }
    let line = "eip_networks: [{ id: isp, cidr: 203.0.113.0/24, gateway: 203.0.113.1, vlan: blue }]";
    fourth_line_refused(line, "document", "the number of a VLAN, or [outer, inner]");
}

#[test]
fn a_profile_other_than_default_is_refused_by_name() {
    for profile in ["ucloud", "cloudpods", "otc", "ucloudstack", "huawei"] {
        let what = format!("this build does not obey profile {profile} yet");
        fourth_line_refused(&format!("profile: {profile}"), "profile", &what);
    }
    fourth_line_refused("profile: mine", "profile", "there is no profile `mine`");
}

#[test]
fn an_unknown_xdp_mode_is_refused() {
    fourth_line_refused("xdp_mode: auto", "xdp_mode", "there is no mode `auto`");
}

#[test]
fn every_uplink_path_is_taken_and_another_one_is_refused_with_the_choices() {
    for (word, path) in [("xdp", UplinkPath::Xdp), ("tc", UplinkPath::Tc), ("split", UplinkPath::Split)] {
        let config = read(&format!("{SMALL}uplink_path: {word}\n")).expect("a good configuration");
        assert_eq!(config.uplink_path, path);
    }
    let error = read(&format!("{SMALL}uplink_path: both\n")).expect_err("a bad configuration");
    let message = "vipd.yaml:4: uplink_path: there is no path `both`; write xdp, tc or split";
    assert_eq!(error.to_string(), message);
}

#[test]
fn words_the_kernel_or_the_state_cannot_have_are_refused() {
    let text = SMALL.replace("eth0", "an-interface-name-too-long");
    refused(&text, Some(2), "uplink", "not an interface name");
    refused(&SMALL.replace("hv1", "h v"), Some(1), "host", "not usable");
}

#[test]
fn a_capacity_without_room_or_beyond_the_tables_is_refused() {
    for name in ["ports", "vips", "eips", "subnets"] {
        let field = format!("capacity.{name}");
        fourth_line_refused(&format!("capacity: {{ {name}: 0 }}"), &field, "0 entries");
        fourth_line_refused(&format!("capacity: {{ {name}: 4294967296 }}"), &field, "4294967296 entries");
    }
    fourth_line_refused("capacity: { ports: 1048576 }", "capacity.ports", "1048576 entries are not possible");
}

#[test]
fn eip_networks_have_good_prefixes_and_gateways_and_their_own_ids_and_addresses() {
    let line = |networks: &str| {
        format!("eip_networks: [{{ id: a, cidr: 203.0.113.0/25, gateway: 203.0.113.1 }}, {networks}]")
    };
    for (network, field, what) in [
        ("{ id: b, cidr: 203.0.113.64/26, gateway: 203.0.113.65 }", "cidr", "overlaps"),
        ("{ id: a, cidr: 203.0.113.128/25, gateway: 203.0.113.129 }", "id", "used already"),
        ("{ id: b, cidr: 203.0.113.128/25, gateway: 203.0.113.1 }", "gateway", "lies outside"),
        ("{ id: b, cidr: 203.0.113.128/25, gateway: 203.0.113.255 }", "gateway", "broadcast"),
        ("{ id: b, cidr: 203.0.113.129/25, gateway: 203.0.113.130 }", "cidr", "bits set"),
        ("{ id: b, cidr: \"2001:db8::/64\", gateway: 203.0.113.130 }", "cidr", "IPv6"),
        ("{ id: b/c, cidr: 203.0.113.128/25, gateway: 203.0.113.130 }", "id", "not usable"),
    ] {
        fourth_line_refused(&line(network), &format!("eip_networks[].{field}"), what);
    }
}

#[test]
fn a_wrong_type_is_refused_with_its_line_and_field() {
    fourth_line_refused("announce_eips: maybe", "field `announce_eips`", "no boolean");
    fourth_line_refused("capacity: { ports: many }", "field `ports`", "");
}

#[test]
fn the_message_names_file_line_field_reason_and_remedy() {
    let error = read(&format!("{SMALL}xdp_mode: auto\n")).expect_err("a bad configuration");
    assert_eq!(error.to_string(), "vipd.yaml:4: xdp_mode: there is no mode `auto`; write native or generic");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = load(Path::new("/nowhere/vipd.yaml")).expect_err("there is no such file");
    assert!(error.to_string().starts_with("/nowhere/vipd.yaml: "), "{error}");
}
