//! The operator's tool and vipd's configuration: what they print, what they refuse, and with which status they end.
#![cfg(feature = "kernel")]

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vip_lab::{
    Announcement, Binaries, Lab, Netns, Output, Vipd, VipdConfig,
    scene::{Scene, Setting, VIP, VIP_ID},
};

const SOON: Duration = Duration::from_secs(20);

/// A state of one host without guests.
const STATE: &str = "hosts: [{ id: hv1, vtep: 198.51.100.1 }]\nvpcs: []\nsubnets: []\nports: []\n";

/// Every kind, one of its ids in the scene, and some columns of its CSV.
const KINDS: [(&str, &str, &str); 6] = [
    ("hosts", "hv1", "id,vtep,this"),
    ("vpcs", "blue", "id,vni"),
    ("subnets", "web", "id,vpc,cidr,gateway,router"),
    ("ports", "nginx-slave", "id,vpc,subnet,address,mac,host,interface"),
    ("vips", VIP_ID, "id,vpc,subnet,address,state,owner.port"),
    ("eips", "web-eip", "id,address,vpc,vip,port,inner,served_by"),
];

/// The scene with an owned VIP.
fn owned(lab: &Lab) -> Result<Scene> {
    let scene = Scene::start(lab, Setting::default())?;
    scene.first.add_vip_address(VIP)?;
    scene.first.arping(Announcement::Request, VIP)?;
    scene.vipd.wait_for_owner(VIP_ID, "nginx-master", SOON)?;
    Ok(scene)
}

fn done(vipd: &Vipd, arguments: &[&str]) -> Result<String> {
    let output = vipd.vipctl_output(arguments)?;
    ensure!(output.status.code() == Some(0), "`vipctl {}`: {output}", arguments.join(" "));
    ensure!(output.stderr.is_empty(), "`vipctl {}` complains: {output}", arguments.join(" "));
    Ok(output.stdout)
}

/// It ended with this status and said these words on standard error.
fn must_end(output: &Output, status: i32, words: &[&str]) -> Result<()> {
    ensure!(output.status.code() == Some(status), "it should end with {status}: {output}");
    for word in words {
        ensure!(output.stderr.contains(word), "\"{word}\" is not in: {output}");
    }
    ensure!(output.stdout.is_empty(), "a refusal is no answer: {output}");
    Ok(())
}

#[test]
fn every_kind_is_printed_in_every_format() {
    Lab::run(|lab| {
        let scene = owned(lab)?;
        for (kind, id, columns) in KINDS {
            let list = scene.vipd.vipctl(&["get", kind, "-o", "json"])?;
            let list = list.as_array().with_context(|| format!("{kind} is no array"))?;
            let is_asked = |object: &&Value| object.pointer("/id").and_then(Value::as_str) == Some(id);
            let in_list = list.iter().find(is_asked).with_context(|| format!("no {id} in {list:?}"))?;
            let one = scene.vipd.vipctl(&["get", kind, id, "-o", "json"])?;
            ensure!(&one == in_list, "{kind}: {one} is not {in_list}");

            let yaml = done(&scene.vipd, &["get", kind, "-o", "yaml"])?;
            ensure!(yaml.lines().any(|line| line.contains("id:") && line.contains(id)), "{yaml}");
            let yaml = done(&scene.vipd, &["get", kind, id, "--output", "yaml"])?;
            ensure!(yaml.lines().next().is_some_and(|line| line.starts_with("id:")), "{yaml}");

            let csv = done(&scene.vipd, &["get", kind, "-o", "csv"])?;
            ensure!(csv.starts_with(columns), "{csv}");
            ensure!(csv.lines().count() == list.len() + 1, "{csv}");
            let csv = done(&scene.vipd, &["get", kind, id, "-o", "csv"])?;
            ensure!(csv.lines().nth(1).is_some_and(|line| line.starts_with(&format!("{id},"))), "{csv}");

            let table = done(&scene.vipd, &["get", kind])?;
            ensure!(table == done(&scene.vipd, &["get", kind, "-o", "table"])?, "tables are the default");
            ensure!(table.lines().count() == list.len() + 1, "{table}");
            ensure!(table.lines().any(|line| line.starts_with(id)), "{table}");
            ensure!(!table.contains('\u{1b}'), "no colours in a pipe: {table}");
        }
        Ok(())
    });
}

#[test]
fn the_vip_is_told_as_promised() {
    Lab::run(|lab| {
        let scene = owned(lab)?;
        let vip = scene.vipd.vip(VIP_ID)?;
        for (pointer, value) in [
            ("/id", VIP_ID),
            ("/vpc", "blue"),
            ("/address", "192.168.7.246"),
            ("/state", "owned"),
            ("/owner/port", "nginx-master"),
            ("/owner/host", "hv1"),
            ("/owner/mac", "02:00:00:00:07:f7"),
            ("/owner/learned_from", "garp_request"),
            ("/eip", "web-eip"),
        ] {
            ensure!(vip.pointer(pointer).and_then(Value::as_str) == Some(value), "{pointer} in {vip:#}");
        }
        ensure!(vip.pointer("/owner/epoch").is_some_and(Value::is_u64), "{vip:#}");
        let since = vip.pointer("/owner/since").and_then(Value::as_str).context("no since")?;
        ensure!(since.ends_with('Z') && humantime::parse_rfc3339(since).is_ok(), "since {since}");
        ensure!(
            vip.pointer("/bound").and_then(Value::as_array).is_some_and(|bound| bound.len() == 2),
            "{vip:#}"
        );

        scene.second.add_vip_address(VIP)?;
        scene.second.arping(Announcement::Reply, VIP)?;
        scene.vipd.wait_for_owner(VIP_ID, "nginx-slave", SOON)?;
        let history = scene.vipd.vipctl(&["history", VIP_ID, "-o", "json"])?;
        let field = |index: usize, name: &str| {
            history.pointer(&format!("/{index}/{name}")).and_then(Value::as_str).map(str::to_owned)
        };
        let newest = (field(0, "port"), field(0, "previous"), field(0, "learned_from"));
        let expected = ("nginx-slave", "nginx-master", "garp_reply");
        ensure!(
            newest == (Some(expected.0.into()), Some(expected.1.into()), Some(expected.2.into())),
            "{history:#}"
        );
        ensure!(field(1, "port").as_deref() == Some("nginx-master"), "{history:#}");
        for format in ["table", "yaml", "csv"] {
            let text = done(&scene.vipd, &["history", VIP_ID, "-o", format])?;
            ensure!(text.contains("nginx-slave") && text.contains("garp_reply"), "{text}");
        }
        Ok(())
    });
}

#[test]
fn the_status_names_modes_paths_drops_and_sync() {
    Lab::run(|lab| {
        let scene = owned(lab)?;
        let status = scene.status()?;
        for (pointer, value) in [("/host", "hv1"), ("/uplink/xdp", "native"), ("/sync/state", "in_sync")] {
            ensure!(
                status.pointer(pointer).and_then(Value::as_str) == Some(value),
                "{pointer} in {status:#}"
            );
        }
        let path = |index: usize| status.pointer(&format!("/ports/{index}/path")).and_then(Value::as_str);
        // In the order of their ids: the first has GRO on, which not every kernel tells; the others have not.
        let first = if scene.xdp_features_are_told()? { "xdp" } else { "uplink-tc" };
        ensure!(
            (path(0), path(1), path(2)) == (Some(first), Some("uplink-tc"), Some("uplink-tc")),
            "{status:#}"
        );
        for port in status.pointer("/ports").and_then(Value::as_array).into_iter().flatten() {
            ensure!(
                port.pointer("/why").and_then(Value::as_str).is_some_and(|why| !why.is_empty()),
                "{port}"
            );
            ensure!(port.pointer("/mtu").is_some_and(Value::is_u64), "{port}");
        }
        ensure!(scene.drops()?.len() > 20, "every reason is named, also those that never happened");
        ensure!(
            status.to_string().contains("IPv6"),
            "what this build does not do with IPv6 is said: {status:#}"
        );
        let text = done(&scene.vipd, &["status"])?;
        for word in ["hv1", "XDP native", "in force", "nginx-master", "tap0", "uplink-tc"] {
            ensure!(text.contains(word), "\"{word}\" is not in:\n{text}");
        }
        let yaml = done(&scene.vipd, &["status", "-o", "yaml"])?;
        ensure!(yaml.contains("host: hv1"), "{yaml}");
        Ok(())
    });
}

#[test]
fn exit_statuses_tell_refusal_from_wrong_usage() {
    Lab::run(|lab| {
        let scene = Scene::start(lab, Setting::default())?;
        let ask = |arguments: &[&str]| scene.vipd.vipctl_output(arguments);
        for kind in KINDS.map(|(kind, ..)| kind) {
            must_end(&ask(&["get", kind, "nobody"])?, 1, &["nobody"])?;
        }
        must_end(&ask(&["history", "nobody"])?, 1, &["nobody"])?;
        for command in ["monitor", "trace", "doctor"] {
            must_end(&ask(&[command])?, 1, &[command, "does not have"])?;
            must_end(&ask(&[command, "--any", "thing"])?, 1, &[command, "does not have"])?;
        }
        for wrong in [
            &["get"][..],
            &["get", "routers"],
            &["get", "vips", "-o", "xml"],
            &["get", "vips", VIP_ID, "more"],
            &["status", "-o", "csv"],
            &["history"],
            &["check"],
            &["fly"],
            &[],
        ] {
            let output = ask(wrong)?;
            ensure!(output.status.code() == Some(2), "`vipctl {}`: {output}", wrong.join(" "));
        }
        for (arguments, word) in [(&["--help"][..], "history"), (&["--version"], "vipctl")] {
            let output = ask(arguments)?;
            ensure!(output.status.success() && output.stdout.contains(word), "{output}");
        }
        Ok(())
    });
}

/// Runs a program of the project where no vipd is.
fn alone(netns: &Netns, program: &Path, arguments: &[&str]) -> Result<Output> {
    let mut all = vec![program.to_str().context("a path that is text")?];
    all.extend_from_slice(arguments);
    netns.run(&all)
}

#[test]
fn without_vipd_the_error_says_so_and_where_it_was_sought() {
    Lab::run(|lab| {
        let netns = lab.add_netns("alone")?;
        let vipctl = Binaries::from_env()?.vipctl;
        let socket = lab.directory().join("nowhere.sock");
        let socket = socket.to_str().context("a path that is text")?;
        for arguments in [&["status"][..], &["get", "vips"], &["history", VIP_ID]] {
            let arguments: Vec<_> = ["--socket", socket].iter().chain(arguments).copied().collect();
            must_end(&alone(&netns, &vipctl, &arguments)?, 1, &["no vipd", socket, "VIPCTL_SOCKET"])?;
        }
        // The variable names a socket as well, and the option wins.
        let vipctl = vipctl.to_str().context("a path that is text")?;
        let by_variable = ["env", "VIPCTL_SOCKET=/nonexistent/one.sock", vipctl];
        let output = netns.run(&[&by_variable[..], &["status"]].concat())?;
        must_end(&output, 1, &["/nonexistent/one.sock"])?;
        let output = netns.run(&[&by_variable[..], &["status", "--socket", socket]].concat())?;
        must_end(&output, 1, &[socket])
    });
}

#[test]
fn check_judges_a_state_without_vipd() {
    Lab::run(|lab| {
        let netns = lab.add_netns("alone")?;
        let vipctl = Binaries::from_env()?.vipctl;
        let file = lab.directory().join("judged.yaml");
        let path = file.to_str().context("a path that is text")?;
        fs::write(&file, STATE)?;
        let output = alone(&netns, &vipctl, &["check", path])?;
        ensure!(output.status.code() == Some(0) && output.stdout.contains("good"), "{output}");
        ensure!(output.stdout.contains("hosts 1"), "{output}");
        let output = alone(&netns, &vipctl, &["check", path, "--host", "hv9"])?;
        must_end(&output, 1, &["hv9"])?;

        // Several problems at once, each with its line.
        let bad = "hosts: [{ id: hv1, vtep: 198.51.100.1 }]\n\
                   vpcs: [{ id: blue, vni: 99999999 }]\n\
                   subnets:\n\
                   \x20 - { id: web, vpc: red, cidr: 192.168.4.0/22, gateway: 10.0.0.1 }\n\
                   ports:\n\
                   \x20 - { id: a, subnet: web, address: 192.168.7.1, mac: \"02:00:00:00:00\", host: hv1, interface: tap0 }\n";
        fs::write(&file, bad)?;
        let lines = [2, 4, 6].map(|line| format!("{path}:{line}:"));
        must_end(&alone(&netns, &vipctl, &["check", path])?, 1, &lines.each_ref().map(String::as_str))?;

        for (text, words) in [
            ("", &["empty"][..]),
            ("hosts: [", &[]),
            ("hosts: []\nvpcs: []\nsubnets: []\nports: []\n", &["hosts"]),
            (&STATE.replace("ports: []", "ports: []\nrouters: []"), &["routers", ":5:"]),
            (
                &STATE.replace("ports: []", "ports: []\neips: [{ id: e, address: 2001:db8::1, vip: v }]"),
                &["IPv6", ":5:"],
            ),
            (
                &STATE.replace(
                    "ports: []",
                    "ports: []\neips: [{ id: e, address: 192.0.2.1, bandwidth_mbps: 5 }]",
                ),
                &["bandwidth_mbps", ":5:"],
            ),
        ] {
            fs::write(&file, text)?;
            must_end(&alone(&netns, &vipctl, &["check", path])?, 1, &[&[path], words].concat())
                .with_context(|| text.to_owned())?;
        }
        fs::remove_file(&file)?;
        must_end(&alone(&netns, &vipctl, &["check", path])?, 1, &[path, "cannot be read"])
    });
}

#[test]
fn what_this_build_does_not_obey_is_refused_by_name() {
    Lab::run(|lab| {
        let host = lab.add_host("hv1")?;
        let mut vipd =
            Vipd::start(&host, &Binaries::from_env()?, &VipdConfig::new("hv1").with("metrics: 1"), STATE)?;
        vipd.wait_for_end(SOON)?;
        for (line, words) in [
            ("metrics: 127.0.0.1:9477", &["metrics", "yet"][..]),
            ("profile: cloudpods", &["profile", "cloudpods", "yet"]),
            ("profile: nebula", &["profile", "nebula"]),
            ("xdp_mode: offloaded", &["xdp_mode", "offloaded"]),
            (
                "eip_networks: [{ id: p, cidr: 203.0.113.0/24, gateway: 203.0.113.254, vlan: 4095 }]",
                &["vlan", "4095", "1 to 4094"],
            ),
            ("eip_networks: [{ id: p, cidr: 203.0.113.0/24, gateway: 198.51.100.1 }]", &["gateway"]),
            ("capacity: { vips: 0 }", &["capacity.vips"]),
            ("colour: blue", &["colour"]),
        ] {
            vipd.write_config(&VipdConfig::new("hv1").with(line))?;
            let mark = vipd.log().mark();
            vipd.begin()?;
            let status = vipd.wait_for_end(SOON)?;
            ensure!(status.code() == Some(1), "{line}: vipd ended with {status}");
            vipd.log().wait_for_line(mark, "vipd.yaml:6:", SOON).with_context(|| line.to_owned())?;
            let log: String = vipd.log().lines_since(mark).into_iter().map(|line| line.text).collect();
            for word in words {
                ensure!(log.contains(word), "{line}: \"{word}\" is not in: {log}");
            }
            ensure!(!vipd.bpffs().exists(), "{line}: a refused start has left {}", vipd.bpffs().display());
        }
        fs::write(
            vipd.config_file(),
            "host: hv1\nuplink: eth0\nsource: { etcd: { endpoints: [\"http://192.0.2.1:2379\"] } }\n",
        )?;
        let mark = vipd.log().mark();
        vipd.begin()?;
        vipd.wait_for_end(SOON)?;
        vipd.log().wait_for_line(mark, "etcd", SOON)?;

        // A first start without a good state has nothing that could go on meanwhile.
        vipd.write_config(&VipdConfig::new("hv1"))?;
        for state in ["", "hosts: [\n"] {
            vipd.write_state(state)?;
            let mark = vipd.log().mark();
            vipd.begin()?;
            let status = vipd.wait_for_end(SOON)?;
            ensure!(status.code() == Some(1), "vipd ended with {status}");
            vipd.log().wait_for_line(mark, "state.yaml", SOON)?;
        }
        Ok(())
    });
}
