//! Documents and fields that are refused: each with the line, the object and the reason, and nothing else.

use std::{fs, path::Path};

use vip_userspace::state::{StateError, load, parse};

use crate::refusal::{changed, full, problems, refused, refused_for};

#[test]
fn an_empty_document_is_not_a_wish_to_delete_everything() {
    for empty in ["", "\n", "# nothing\n", "---\n", "{}", "null\n", "hosts:\n", "\u{feff}"] {
        refused_for(empty, None, "document", "it is empty: refused, never read as a wish to delete", None);
    }
}

#[test]
fn a_document_without_one_of_the_first_four_lists_is_refused() {
    for list in ["hosts", "vpcs", "subnets", "ports"] {
        let text = "hosts: []\nvpcs: []\nsubnets: []\nports: []\n".replace(&format!("{list}: []\n"), "");
        refused_for(&text, None, "document", &format!("`{list}` is missing"), None);
    }
}

#[test]
fn a_document_without_hosts_is_refused() {
    let text = "hosts: []\nvpcs: []\nsubnets: []\nports: []\n";
    refused_for(text, None, "document", "`hosts` is empty", None);
}

#[test]
fn a_document_that_ends_inside_a_line_is_refused_wherever_it_was_cut() {
    let full = full();
    for end in
        full.char_indices().map(|(at, _)| at).filter(|at| !full.get(..*at).is_some_and(|s| s.ends_with('\n')))
    {
        let cut = full.get(..end).unwrap_or_default();
        assert!(parse(cut, "cut", None).is_err(), "cut after {end} bytes: …{:?}", cut.lines().last());
    }
}

#[test]
fn a_json_document_that_was_cut_off_is_refused_wherever_it_was_cut() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/full.json");
    let full = fs::read_to_string(path).expect("the fixture");
    for end in 0..full.len() {
        let cut = full.get(..end).expect("an ASCII fixture");
        assert!(parse(cut, "cut", None).is_err(), "cut after {end} bytes");
    }
}

#[test]
fn a_second_document_in_the_file_is_refused() {
    refused_for(&(full() + "---\nhosts: []\n"), Some("hosts: []"), "document", "a second document", None);
}

#[test]
fn a_list_that_stands_twice_is_refused() {
    refused(
        &(full() + "groups: []\n"),
        "groups: []",
        "document",
        "the key `groups` stands here for the second",
    );
}

#[test]
fn a_document_that_is_no_mapping_is_refused() {
    for text in ["[]", "just words\n", "7\n"] {
        assert!(parse(text, "state.yaml", None).is_err(), "{text}");
    }
}

#[test]
fn broken_yaml_is_refused_with_its_line() {
    let problems = problems("hosts: []\nvpcs: [\nsubnets: ]]\n", None);
    assert_eq!(problems.first().and_then(|problem| problem.line), Some(3));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = load(Path::new("/nowhere/state.yaml"), None).expect_err("there is no such file");
    assert!(matches!(error, StateError::Read { .. }));
    assert!(error.to_string().starts_with("/nowhere/state.yaml: "), "{error}");
}

#[test]
fn all_problems_are_listed_each_on_its_line_of_the_message_and_in_the_files_order() {
    let text = full()
        .replace("vni: 4003", "vni: 0")
        .replace("host: hv1, interface: tap3", "host: hv9, interface: tap3");
    let error = parse(&text, "state.yaml", Some("hv1")).expect_err("a bad state");
    let message = error.to_string();
    let [first, second] = message.lines().collect::<Vec<_>>()[..] else { panic!("{message}") };
    assert_eq!(first, "state.yaml:8: vpc grey: vni: 0 is not a VNI; use a number from 1 to 16777215");
    assert_eq!(
        second,
        "state.yaml:26: port router: there is no host `hv9`; add it to `hosts` or correct the name"
    );
}

#[test]
fn an_unknown_list_is_refused_by_name() {
    refused(&(full() + "routes: []\n"), "routes: []", "document", "unknown field `routes`");
}

#[test]
fn an_unknown_field_of_any_kind_is_refused_by_name() {
    for (before, kind) in [
        ("{ id: hv2, ", "host"),
        ("{ id: green, ", "vpc"),
        ("{ id: db, ", "subnet"),
        ("{ id: real, ", "port"),
        ("{ id: empty, ", "group"),
        ("{ id: idle-vip, ", "vip"),
        ("{ id: router-eip, ", "eip"),
        ("{ vpcs: [green, blue], ", "peering"),
    ] {
        let text = changed(before, &format!("{before}colour: {kind}, "));
        refused(&text, "colour: ", "document", "unknown field `colour`");
    }
}

#[test]
fn a_missing_field_is_refused_by_name() {
    refused(&changed("vni: 4002", ""), "{ id: green, ", "document", "the field `vni` is missing");
    refused(&changed("{ id: hv2, ", "{ "), "172.31.0.2", "document", "the field `id` is missing");
}

#[test]
fn a_value_of_the_wrong_type_is_refused_with_its_field() {
    let text = changed("source_dest_check: false", "source_dest_check: off");
    refused(&text, "off", "field `source_dest_check`", "no boolean");
    let text = changed("vni: 4003", "vni: many");
    refused(&text, "many", "field `vni`", "");
    let text = changed("vni: 4003", "vni: -1");
    refused(&text, "-1", "field `vni`", "");
    let text = changed("members: []", "members: nginx-slave");
    refused(&text, "members: nginx-slave", "field `members`", "");
}

#[test]
fn bandwidth_is_refused_by_name() {
    let text = changed("vip: nginx-vip, name: www", "vip: nginx-vip, bandwidth_mbps: 100");
    refused(
        &text,
        "bandwidth_mbps",
        "eip web-eip",
        "bandwidth_mbps: this build does not limit bandwidth yet",
    );
}

#[test]
fn what_is_no_vlan_is_refused_on_a_port() {
    for (written, what) in [
        ("0", "vlan: 0 is not a VLAN"),
        ("4095", "vlan: 4095 is not a VLAN"),
        ("[7, 4095]", "vlan: [7, 4095] is not a VLAN"),
        ("[7]", "vlan: a list of 1 numbers is not a VLAN"),
    ] {
        let text = changed("interface: tap2", &format!("interface: tap2, vlan: {written}"));
        refused(&text, "vlan", "port real", what);
    }
    let text = changed("interface: tap2", "interface: tap2, vlan: blue");
    refused(&text, "vlan", "document", "the number of a VLAN, or [outer, inner]");
}

#[test]
fn ipv6_is_refused_by_name_wherever_it_stands() {
    for (from, to, subject, field) in [
        ("vtep: 172.31.0.2", "vtep: \"fd00::2\"", "host hv2", "vtep"),
        ("192.168.8.0/24, ", "\"fd00::/64\", ", "subnet db", "cidr"),
        ("gateway: 192.168.8.1", "gateway: \"fd00::1\"", "subnet db", "gateway"),
        ("192.168.8.9", "\"fd00::9\"", "port router", "address"),
        ("address: 192.168.8.10", "address: \"fd00::a\"", "vip idle-vip", "address"),
        ("203.0.113.10", "\"2001:db8::a\"", "eip web-eip", "address"),
    ] {
        let text = changed(from, to);
        refused(&text, to, subject, "this build does not forward IPv6 yet");
        assert!(problems(&text, None).iter().all(|problem| problem.what.starts_with(field)), "{field}");
    }
}

#[test]
fn an_unusable_id_is_refused() {
    refused(&changed("id: idle-vip", "id: idle/vip"), "idle/vip", "vip idle/vip", "not usable");
    refused(&changed("id: idle-vip", "id: \"\""), "id: \"\"", "vip ", "not usable");
}

#[test]
fn an_unusable_interface_name_is_refused() {
    let text = changed("interface: tap2", "interface: a-name-of-15-by");
    assert!(parse(&text, "fifteen", None).is_ok());
    let text = changed("interface: tap2", "interface: a-name-of-16-byt");
    refused(&text, "16-byt", "port real", "not an interface name");
}
