//! One answer, four forms that say the same.

use std::{collections::BTreeMap, net::Ipv4Addr};

use crate::fake::{eip, host, moves, owned_vip, port, status, subnet, unowned_vip, vpc};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use vip_common::DropReason;
use vip_userspace::{
    api::{
        model::VipView,
        render::{self, Format, Tabular},
        status::{
            Attachment, DeliveryPath, EipNetworkStatus, LossSource, OverlayStatus, PeerView, PeersStatus,
            StatusView, SyncState, UnreachableHost, UplinkStatus, XdpView,
        },
        summary,
    },
    config::UplinkPath,
    vlan::Vlan,
};

/// The leaves of a JSON value by their names with dots, as CSV names them; lists and their bindings as CSV writes them.
fn leaves(prefix: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    let text = match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                leaves(&name, field, into);
            }
            return;
        }
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(item).collect::<Vec<_>>().join(" "),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    };
    into.insert(prefix.to_owned(), text);
}

fn item(value: &Value) -> String {
    let Value::Object(binding) = value else {
        return value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    };
    let id = binding.get("port").or_else(|| binding.get("vip")).and_then(Value::as_str).expect("an id");
    let rights = binding.get("rights").and_then(Value::as_array).expect("rights");
    let rights: Vec<&str> = rights.iter().filter_map(Value::as_str).collect();
    format!("{id}={}", rights.join("+"))
}

fn forms_agree<T: Tabular + DeserializeOwned + PartialEq + std::fmt::Debug>(object: T) {
    let items = [object];
    let [object] = &items;

    let json = render::one(Format::Json, object).expect("JSON");
    assert_eq!(&serde_json::from_str::<T>(&json).expect("the same object"), object);
    let yaml = render::one(Format::Yaml, object).expect("YAML");
    assert_eq!(&serde_saphyr::from_str::<T>(&yaml).expect("the same object"), object, "{yaml}");
    let listed: Vec<T> =
        serde_json::from_str(&render::list(Format::Json, &items).expect("JSON")).expect("a list");
    assert_eq!(listed, items);
    let yaml = render::list(Format::Yaml, &items).expect("YAML");
    assert_eq!(serde_saphyr::from_str::<Vec<T>>(&yaml).expect("a list"), items, "{yaml}");

    let mut expected = BTreeMap::new();
    leaves("", &serde_json::from_str(&json).expect("JSON"), &mut expected);
    let text = render::list(Format::Csv, &items).expect("CSV");
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let rows: Vec<BTreeMap<String, String>> = reader.deserialize().map(|row| row.expect("a row")).collect();
    let [row] = rows.as_slice() else { panic!("not one row: {text}") };
    // The owner's columns are there without an owner, too.
    let row: BTreeMap<_, _> = row
        .iter()
        .filter(|(name, text)| {
            expected.contains_key(*name) || !(name.starts_with("owner.") && text.is_empty())
        })
        .map(|(name, text)| (name.clone(), text.clone()))
        .collect();
    expected.remove("owner");
    assert_eq!(row, expected);

    let table = render::one(Format::Table, object).expect("a table");
    assert_eq!(table.lines().count(), 2, "{table}");
    let cells =
        table.lines().nth(1).expect("the object").split("  ").map(str::trim).filter(|cell| !cell.is_empty());
    for cell in cells {
        assert!(cell == "-" || row.values().any(|text| text == cell), "{cell:?} is not in {row:?}");
    }
}

#[test]
fn all_forms_of_an_object_say_the_same() {
    forms_agree(host());
    forms_agree(vpc());
    forms_agree(subnet());
    forms_agree(port("nginx-master", 247));
    forms_agree(owned_vip());
    forms_agree(unowned_vip("spare", 245));
    forms_agree(eip());
    for change in moves() {
        forms_agree(change);
    }
}

#[test]
fn an_empty_list_still_has_its_columns() {
    let none: [VipView; 0] = [];
    assert_eq!(render::list(Format::Json, &none).expect("JSON"), "[]\n");
    assert!(
        render::list(Format::Csv, &none).expect("CSV").starts_with("id,vpc,subnet,address,state,owner.port,")
    );
    let table = render::list(Format::Table, &none).expect("a table");
    assert!(table.starts_with("VIP  VPC  ADDRESS  STATE  OWNER"), "{table}");
    let yaml = render::list(Format::Yaml, &none).expect("YAML");
    assert_eq!(serde_saphyr::from_str::<Vec<String>>(&yaml).expect("a list"), Vec::<String>::new());
}

#[test]
fn the_json_of_a_vip_keeps_its_shape() {
    let text = serde_json::to_string(&owned_vip()).expect("JSON");
    let expected = concat!(
        r#"{"id":"nginx-vip","vpc":"blue","subnet":"web","address":"192.168.7.246","state":"owned","#,
        r#""owner":{"port":"nginx-master","host":"hv1","mac":"02:00:00:00:07:17","epoch":3,"#,
        r#""since":"2025-06-01T12:00:09.000Z","learned_from":"garp_request"},"epoch":3,"#,
        r#""bound":[{"port":"nginx-master","rights":["own"]},"#,
        r#"{"port":"nginx-slave","rights":["own","source"]}],"eip":"web-eip","vrids":[66,67],"packets_in":10,"#,
        r#""bytes_in":1000,"packets_out":9,"bytes_out":18446744073709551615,"packets_onward":5,"#,
        r#""bytes_onward":500,"name":"yes","#,
        r#""remark":"a, b\n\"c\""}"#,
    );
    assert_eq!(text, expected);
    let unowned = serde_json::to_value(unowned_vip("spare", 245)).expect("JSON");
    assert_eq!(unowned.get("owner"), Some(&Value::Null));
    assert_eq!(unowned.get("state"), Some(&Value::from("unowned")));
}

fn word<T: Serialize>(value: T) -> Value {
    serde_json::to_value(value).expect("JSON")
}

#[test]
fn the_words_of_the_status_keep_their_shape() {
    let json = serde_json::to_value(status()).expect("JSON");
    let at = |pointer: &str| json.pointer(pointer).cloned().unwrap_or_else(|| panic!("no {pointer}"));
    assert_eq!(at("/sync/state"), "refused");
    assert_eq!(at("/ports/0/path"), "uplink-tc");
    assert_eq!(at("/ports/0/attached"), "tcx");
    assert_eq!(at("/losses/source"), "interface statistics");
    assert_eq!(at("/uplink/xdp"), "native");
    assert_eq!(at("/uplink/path"), "xdp");
    assert_eq!(at("/started_at"), "2025-06-01T12:00:00.000Z");
    assert_eq!(word(SyncState::InSync), "in_sync");
    assert_eq!(word(DeliveryPath::Xdp), "xdp");
    assert_eq!(word(DeliveryPath::Split), "split");
    assert_eq!(word(Attachment::None), "none");
    assert_eq!(word(LossSource::Tracepoint), "tracepoint");
}

#[test]
fn the_status_lists_every_reason_by_name() {
    let names: Vec<String> = status().drops.into_iter().map(|drop| drop.reason).collect();
    let expected: Vec<&str> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(names, expected);
    let text = summary(&status());
    for name in expected {
        assert!(text.contains(name), "{name} is not in {text}");
    }
}

#[test]
fn drops_that_happened_come_first_and_the_most_frequent_before_the_others() {
    let text = summary(&status());
    let place = |word: &str| text.find(word).unwrap_or_else(|| panic!("no {word} in {text}"));
    assert!(place("claim_not_member") < place("\nunowned"), "{text}");
    assert!(place("\nunowned") < place("frame_truncated"), "{text}");
    assert!(place("REFUSED") < place("line 7: no such port"), "{text}");
    assert!(text.contains("veth whose guest end has no GRO"), "{text}");
    assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
}

#[test]
fn the_status_tells_the_uplinks_path_and_misses_xdp_only_where_it_should_be() {
    let shown = |path, xdp| {
        let status = status();
        let uplink = UplinkStatus { path, xdp, ..status.uplink };
        let text = summary(&StatusView { uplink, ..status });
        text.lines().find(|line| line.starts_with("uplink ")).map(ToOwned::to_owned).expect("an uplink")
    };
    let line = shown(UplinkPath::Split, Some(XdpView::Native));
    assert!(line.contains("XDP native") && line.ends_with("path split"), "{line}");
    let line = shown(UplinkPath::Xdp, None);
    assert!(line.contains("XDP NOT ATTACHED") && line.ends_with("path xdp"), "{line}");
    let line = shown(UplinkPath::Tc, None);
    assert!(line.contains("no XDP") && line.ends_with("path tc"), "{line}");
}

#[test]
fn the_status_tells_which_interface_an_eip_network_on_a_vlan_has() {
    let shown = |vlan, interface: Option<&str>| {
        let network = EipNetworkStatus {
            id: "isp".into(),
            vlan,
            interface: interface.map(Into::into),
            ifindex: interface.map(|_| 7),
            mtu: interface.map(|_| 1500),
            attached: if interface.is_some() { Attachment::Tcx } else { Attachment::None },
        };
        let text = summary(&StatusView { eip_networks: vec![network], ..status() });
        text.lines().filter(|line| line.starts_with("EIP network ")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(
        shown(Vlan::stacked(200, 7), Some("eth0.200.7")),
        "EIP network isp, VLAN [200, 7]: eth0.200.7, ifindex 7, MTU 1500, TC by tcx"
    );
    assert_eq!(
        shown(Vlan::tag(100), None),
        "EIP network isp, VLAN 100: NO INTERFACE at the moment, TC NOT ATTACHED"
    );
    assert_eq!(shown(None, Some("eth0")), "", "it is where the uplink is");
}

#[test]
fn the_status_tells_what_goes_between_hosts_and_which_are_not_reached() {
    let overlay = OverlayStatus {
        vtep: Ipv4Addr::new(172, 31, 0, 1),
        guest_mtu: Some(1450),
        hosts: 2,
        unreachable: vec![UnreachableHost { host: "hv3".into(), why: "there is no route".into() }],
    };
    let text = summary(&StatusView { overlay: Some(overlay), ..status() });
    let lines: Vec<_> = text.lines().skip_while(|line| !line.starts_with("between hosts")).take(2).collect();
    assert_eq!(
        lines,
        [
            "between hosts: VTEP 172.31.0.1, 2 other hosts, MTU 1450 for guests",
            "  host hv3 is NOT REACHABLE: there is no route",
        ]
    );
    assert!(!summary(&status()).contains("between hosts"), "there are no others");
}

#[test]
fn the_status_tells_of_the_other_hosts_if_there_are_any() {
    let text = summary(&status());
    let peer = text.lines().find(|line| line.starts_with("hv2")).expect("a peer");
    let cells: Vec<&str> = peer.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    assert_eq!(cells, ["hv2", "172.31.0.2", "DOWN", "8123 ms ago", "3", "17", "auth 5"]);
    assert!(text.contains("1 words wait for a state"), "{text}");
    assert!(text.contains("2 datagrams from addresses that are no host's"), "{text}");
    let alone = status().peers.map(|peers| PeersStatus { hosts: Vec::new(), ..peers });
    for peers in [None, alone] {
        assert!(!summary(&StatusView { peers, ..status() }).contains("UNACKED"));
    }
    assert_eq!(word(PeerView::Up), "up");
    assert_eq!(word(PeerView::Connecting), "connecting");
}

#[test]
fn the_status_survives_yaml() {
    let text = render::yaml(&status()).expect("YAML");
    let back: StatusView = serde_saphyr::from_str(&text).expect("the same status");
    assert_eq!(back, status());
}
