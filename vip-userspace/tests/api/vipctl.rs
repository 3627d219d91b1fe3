//! The binary: what it prints, and how it ends.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use crate::fake::{FakeHost, FakeVipd, moves, owned_vip, status};
use tempfile::TempDir;
use vip_userspace::api::{
    Unavailable,
    model::{MoveView, VipView},
};

fn vipctl(socket: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vipctl"))
        .env("VIPCTL_SOCKET", socket)
        .args(arguments)
        .output()
        .expect("vipctl runs")
}

#[track_caller]
fn succeeds(socket: &Path, arguments: &[&str]) -> String {
    let output = vipctl(socket, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {errors}");
    assert_eq!(errors, "", "{arguments:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[track_caller]
fn fails(socket: &Path, arguments: &[&str], code: i32) -> String {
    let output = vipctl(socket, arguments);
    let errors = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{arguments:?}");
    errors
}

#[test]
fn a_kind_is_an_array_and_an_id_is_an_object() {
    let vipd = FakeVipd::start(FakeHost::default());
    let socket = vipd.socket();
    for kind in ["hosts", "vpcs", "subnets", "ports", "vips", "eips"] {
        let json = succeeds(&socket, &["get", kind, "-o", "json"]);
        assert!(
            serde_json::from_str::<Vec<serde_json::Value>>(&json).is_ok_and(|list| !list.is_empty()),
            "{json}"
        );
        for format in ["table", "yaml", "csv"] {
            assert!(!succeeds(&socket, &["get", kind, "-o", format]).is_empty());
        }
    }
    let json = succeeds(&socket, &["get", "vips", "nginx-vip", "-o", "json"]);
    assert_eq!(serde_json::from_str::<VipView>(&json).expect("a VIP"), owned_vip());
    let yaml = succeeds(&socket, &["get", "vips", "nginx-vip", "--output", "yaml"]);
    assert_eq!(serde_saphyr::from_str::<VipView>(&yaml).expect("a VIP"), owned_vip());
}

#[test]
fn a_pipe_gets_a_table_without_colours() {
    let vipd = FakeVipd::start(FakeHost::default());
    let table = succeeds(&vipd.socket(), &["get", "vips"]);
    assert!(!table.contains('\u{1b}'), "{table}");
    let expected = "\
VIP        VPC   ADDRESS        STATE    OWNER         HOST  SINCE                     LEARNED FROM  EPOCH  EIP
nginx-vip  blue  192.168.7.246  owned    nginx-master  hv1   2025-06-01T12:00:09.000Z  garp_request  3      web-eip
spare:vip  blue  192.168.7.245  unowned  -             -     -                         -             3      web-eip
";
    assert_eq!(table, expected);
}

#[test]
fn status_and_history_come_in_every_form() {
    let vipd = FakeVipd::start(FakeHost::default());
    let socket = vipd.socket();
    assert!(succeeds(&socket, &["status"]).starts_with("host hv1: vipd 0.1.0, process 4711"));
    let json = succeeds(&socket, &["status", "-o", "json"]);
    assert_eq!(
        serde_json::to_value(status()).expect("JSON"),
        serde_json::from_str::<serde_json::Value>(&json).expect("JSON")
    );
    assert!(succeeds(&socket, &["status", "-o", "yaml"]).contains("host: hv1"));
    let json = succeeds(&socket, &["history", "nginx-vip", "-o", "json"]);
    assert_eq!(serde_json::from_str::<Vec<MoveView>>(&json).expect("moves"), moves());
    assert!(succeeds(&socket, &["history", "nginx-vip"]).starts_with("EPOCH  AT "));
}

#[test]
fn what_is_not_there_is_a_failure_that_says_what_is() {
    let vipd = FakeVipd::start(FakeHost::default());
    let socket = vipd.socket();
    let known = "vipctl: no vip `x`: there are nginx-vip, spare:vip\n";
    assert_eq!(fails(&socket, &["get", "vips", "x"], 1), known);
    assert_eq!(fails(&socket, &["history", "x"], 1), known);
    assert!(fails(&socket, &["get", "vips", "a/b"], 1).contains("no vip `a/b`"));
}

#[test]
fn without_a_state_there_is_an_error_instead_of_an_empty_world() {
    let unavailable = Some(Unavailable::NoState { reason: "line 7: no such port".into() });
    let vipd = FakeVipd::start(FakeHost { unavailable, ..FakeHost::default() });
    let socket = vipd.socket();
    let expected = "vipctl: no valid state has been read: line 7: no such port; forwarding goes on by the pinned tables\n";
    for arguments in [&["get", "vips"] as &[&str], &["get", "ports", "x"], &["history", "nginx-vip"]] {
        assert_eq!(fails(&socket, arguments, 1), expected, "{arguments:?}");
    }
    succeeds(&socket, &["status"]);
}

#[test]
fn the_option_wins_over_the_environment() {
    let vipd = FakeVipd::start(FakeHost::default());
    let socket = vipd.socket();
    let socket = socket.to_str().expect("UTF-8");
    let nowhere = Path::new("/nonexistent/vipd.sock");
    assert!(
        fails(nowhere, &["get", "vips"], 1)
            .starts_with("vipctl: no vipd at /nonexistent/vipd.sock: is it running?")
    );
    succeeds(nowhere, &["--socket", socket, "get", "vips"]);
    succeeds(nowhere, &["get", "vips", "--socket", socket]);
}

#[test]
fn what_this_build_lacks_is_refused_by_name() {
    let nowhere = Path::new("/nonexistent/vipd.sock");
    for (command, arguments) in [
        ("monitor", &["monitor", "--since", "1h"] as &[&str]),
        ("trace", &["trace", "in", "203.0.113.10"]),
        ("doctor", &["doctor"]),
    ] {
        let expected = format!("vipctl: this build does not have `vipctl {command}` yet\n");
        assert_eq!(fails(nowhere, arguments, 1), expected);
    }
}

#[test]
fn wrong_usage_ends_with_code_2() {
    let nowhere = Path::new("/nonexistent/vipd.sock");
    for arguments in [
        &[] as &[&str],
        &["frobnicate"],
        &["get"],
        &["get", "groups"],
        &["get", "vips", ""],
        &["get", "vips", "-o", "xml"],
        &["get", "vips", "a", "b"],
        &["status", "-o", "csv"],
        &["history"],
        &["check"],
    ] {
        assert_ne!(fails(nowhere, arguments, 2), "", "{arguments:?}");
    }
}

#[test]
fn a_state_file_is_judged_without_vipd() {
    let nowhere = Path::new("/nonexistent/vipd.sock");
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("state.yaml");
    let name = file.to_str().expect("UTF-8");
    fs::write(&file, "hosts: [{ id: hv1, vtep: 172.31.0.1 }]\nvpcs: []\nsubnets: []\nports: []\n")
        .expect("a file");
    assert_eq!(
        succeeds(nowhere, &["check", name]),
        format!("{name}: good: hosts 1, vpcs 0, subnets 0, ports 0, groups 0, vips 0, eips 0, peerings 0\n")
    );
    succeeds(nowhere, &["check", name, "--host", "hv1"]);
    assert!(fails(nowhere, &["check", name, "--host", "hv9"], 1).contains("hv9"));
    fs::write(&file, "hosts: [{ id: hv1, vtep: 172.31.0.1 }]\nvpcs: []\nsubnets: []\nports: [{ id: a }]\n")
        .expect("a file");
    let error = fails(nowhere, &["check", name], 1);
    assert!(error.contains(&format!("{name}:4")), "{error}");
    assert!(fails(nowhere, &["check", "/nonexistent/state.yaml"], 1).contains("/nonexistent/state.yaml"));
}

#[test]
fn a_reader_who_has_seen_enough_is_no_failure() {
    let vipd = FakeVipd::start(FakeHost { extra_ports: 5000, ..FakeHost::default() });
    let script = format!(
        "set -o pipefail; '{}' --socket '{}' get ports -o json | head -n 1",
        env!("CARGO_BIN_EXE_vipctl"),
        vipd.socket().display()
    );
    let output = Command::new("bash").args(["-c", &script]).output().expect("bash runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), errors.as_ref()), (Some(0), ""));
    assert_eq!(output.stdout, b"[\n");
}
