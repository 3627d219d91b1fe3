//! VLANs on the uplink and on ports: the tags are the kernel's own, at both ends of every cable.
#![cfg(feature = "kernel")]

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use vip_lab::{
    Announcement, Binaries, EipReach, Guest, GuestConfig, Host, Lab, Mac, Netns, Nginx, Outside, RawSender,
    Vipd, VipdConfig,
    capture::Capture,
    frame::{Arp, Frame, udp},
    poll_until,
    scene::page_of,
    skip,
};

const SOON: Duration = Duration::from_secs(20);

const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 4, 1);
const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 246);

/// The EIP of the VIP, on VLAN 100.
const VIP_EIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The EIP of `red`, on the same network.
const RED_EIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);
/// The client on that network.
const CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 254);
/// The EIP of `plain`, on VLAN 7 inside a provider's 200.
const STACKED_EIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The client on that network.
const STACKED_CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
/// The EIP of `green`, on no VLAN.
const GREEN_EIP: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 10);
/// The client on that network.
const UNTAGGED_CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 254);

const NETWORKS: &str = "eip_networks:
  - { id: isp, cidr: 203.0.113.0/24, gateway: 203.0.113.254, vlan: 100 }
  - { id: carrier, cidr: 192.0.2.0/24, gateway: 192.0.2.254, vlan: [200, 7] }
  - { id: untagged, cidr: 198.18.0.0/24, gateway: 198.18.0.254 }";

/// `plain` has an interface of its own; `trunk`, `red` and `green` share one.
const STATE: &str = r#"hosts:   [{ id: hv1, vtep: 198.51.100.1 }]
vpcs:    [{ id: blue, vni: 4001 }]
subnets: [{ id: web, vpc: blue, cidr: 192.168.4.0/22, gateway: 192.168.4.1 }]
ports:
  - { id: plain, subnet: web, address: 192.168.7.247, mac: "02:00:00:00:07:f7", host: hv1, interface: tap0 }
  - { id: trunk, subnet: web, address: 192.168.7.248, mac: "02:00:00:00:07:f8", host: hv1, interface: tap1 }
  - { id: red, subnet: web, address: 192.168.7.249, mac: "02:00:00:00:07:f9", host: hv1, interface: tap1, vlan: 200 }
  - { id: green, subnet: web, address: 192.168.7.250, mac: "02:00:00:00:07:fa", host: hv1, interface: tap1, vlan: [201, 9] }
vips:    [{ id: web-vip, subnet: web, address: 192.168.7.246, ports: [plain, red, green] }]
eips:
  - { id: vip-eip, address: 203.0.113.10, vip: web-vip }
  - { id: red-eip, address: 203.0.113.11, port: red }
  - { id: stacked-eip, address: 192.0.2.10, port: plain }
  - { id: green-eip, address: 198.18.0.10, port: green }
"#;

/// A guest behind a VLAN of another one's cable.
#[derive(Debug)]
struct Tagged {
    netns: Netns,
    mac: Mac,
    address: Ipv4Addr,
}

/// Fields are dropped from the first to the last: vipd before what it serves.
struct Stage {
    vipd: Vipd,
    plain: Guest,
    trunk: Guest,
    red: Tagged,
    green: Tagged,
    outside: Outside,
    host: Host,
}

/// Runs a test's body in a lab, if the kernel has VLAN interfaces.
#[track_caller]
fn run(test: &str, body: impl FnOnce(&Lab) -> Result<()>) {
    Lab::run(|lab| {
        let netns = lab.add_netns("probe")?;
        netns.ip("link add name probe0 type veth peer name probe1")?;
        let tried = netns
            .run(&["ip", "link", "add", "link", "probe0", "name", "vlan1", "type", "vlan", "id", "1"])?;
        if tried.stderr.contains("Unknown device type") {
            skip(test, "needs a kernel with VLAN interfaces (CONFIG_VLAN_8021Q)");
            return Ok(());
        }
        ensure!(tried.status.success(), "no VLAN interface can be made: {tried}");
        body(lab)
    });
}

/// Makes the VLAN interface, or the one on another, for tags from the outermost on.
fn add_vlan(netns: &Netns, on: &str, tags: &[u16]) -> Result<String> {
    let mut under = on.to_owned();
    for (depth, tag) in tags.iter().enumerate() {
        let name = format!("{under}.{tag}");
        let protocol = if depth + 1 < tags.len() { "802.1ad" } else { "802.1Q" };
        netns.ip(&format!("link add link {under} name {name} type vlan proto {protocol} id {tag}"))?;
        netns.ip(&format!("link set {name} up"))?;
        under = name;
    }
    Ok(under)
}

/// Puts a guest behind a VLAN of the trunk.
fn add_tagged(
    lab: &Lab,
    trunk: &Guest,
    name: &str,
    tags: &[u16],
    (mac, address): (&str, Ipv4Addr),
) -> Result<Tagged> {
    let netns = lab.add_netns(name)?;
    let made = add_vlan(trunk.netns(), "eth0", tags)?;
    trunk.netns().ip(&format!("link set {made} address {mac} netns {}", netns.name()))?;
    netns.ip(&format!("link set {made} name eth0"))?;
    netns.ip(&format!("address add {address}/22 dev eth0"))?;
    netns.ip("link set eth0 up")?;
    netns.ip(&format!("route add default via {GATEWAY}"))?;
    Ok(Tagged { netns, mac: mac.parse()?, address })
}

impl Stage {
    /// Everything but the host's own VLAN interfaces, and vipd waits for those.
    fn start_without_vlans(lab: &Lab) -> Result<Self> {
        let host = lab.add_host("hv1")?;
        let outside = host.add_outside(EipReach::Routed)?;
        let client = outside.netns();
        client.ip("route delete 203.0.113.0/24")?;
        client.ip(&format!("address add {UNTAGGED_CLIENT}/24 dev eth0"))?;
        for (tags, address) in [(&[100][..], CLIENT), (&[200, 7], STACKED_CLIENT)] {
            let name = add_vlan(client, "eth0", tags)?;
            client.ip(&format!("address add {address}/24 dev {name}"))?;
        }
        let guest = |name, interface, mac, address| {
            host.add_guest(&GuestConfig::new(name, interface, mac, address)?.with_gro())
        };
        let plain = guest("plain", "tap0", "02:00:00:00:07:f7", "192.168.7.247/22")?;
        let trunk = guest("trunk", "tap1", "02:00:00:00:07:f8", "192.168.7.248/22")?;
        let red = ("02:00:00:00:07:f9", Ipv4Addr::new(192, 168, 7, 249));
        let red = add_tagged(lab, &trunk, "red", &[200], red)?;
        let green = ("02:00:00:00:07:fa", Ipv4Addr::new(192, 168, 7, 250));
        let green = add_tagged(lab, &trunk, "green", &[201, 9], green)?;
        let config = VipdConfig::new("hv1").with(NETWORKS);
        let mut vipd = Vipd::start(&host, &Binaries::from_env()?, &config, STATE)?;
        vipd.ready()?;
        Ok(Self { vipd, plain, trunk, red, green, outside, host })
    }

    /// Everything, and vipd serves it.
    fn start(lab: &Lab) -> Result<Self> {
        let stage = Self::start_without_vlans(lab)?;
        for (on, tags) in [("eth0", &[100][..]), ("eth0", &[200, 7]), ("tap1", &[200]), ("tap1", &[201, 9])] {
            add_vlan(stage.host.netns(), on, tags)?;
        }
        stage.wait_for("all to be served", |status| {
            let attached = |list: &str| {
                let list = status.get(list).and_then(Value::as_array);
                list.is_some_and(|list| list.iter().all(|it| text(it, "/attached") != Some("none")))
            };
            attached("eip_networks") && attached("ports")
        })?;
        Ok(stage)
    }

    fn client(&self) -> &Netns {
        self.outside.netns()
    }

    /// The MAC by which the host is reached from outside.
    fn uplink_mac(&self) -> Result<Mac> {
        let status = self.status()?;
        text(&status, "/uplink/mac").context("the uplink has no MAC")?.parse()
    }

    fn status(&self) -> Result<Value> {
        self.vipd.vipctl(&["status", "-o", "json"])
    }

    /// Waits until the status satisfies a condition, and gives it.
    fn wait_for(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut last = None;
        let waited = poll_until(SOON, what, || {
            last = self.status().ok();
            last.clone().filter(&holds)
        });
        waited.with_context(|| format!("the status is {last:#?}"))
    }

    fn wait_for_warning(&self, words: &[&str]) -> Result<()> {
        self.wait_for(&format!("a warning of {words:?}"), |status| {
            let warnings = status.get("warnings").and_then(Value::as_array);
            warnings
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .any(|warning| words.iter().all(|word| warning.contains(word)))
        })
        .map(drop)
    }

    fn drops(&self) -> Result<Vec<(String, u64)>> {
        let status = self.status()?;
        let drops = status.get("drops").and_then(Value::as_array).context("no drops")?;
        let drops = drops.iter().filter_map(|drop| {
            Some((text(drop, "/reason")?.to_owned(), drop.get("packets")?.as_u64().filter(|it| *it > 0)?))
        });
        Ok(drops.collect())
    }
}

fn text<'v>(value: &'v Value, pointer: &str) -> Option<&'v str> {
    value.pointer(pointer).and_then(Value::as_str)
}

/// A guest takes the VIP by gratuitous ARP.
fn claim(netns: &Netns) -> Result<()> {
    netns.ip(&format!("address replace {VIP}/22 dev eth0"))?;
    // By its path: the other arping of Debian, in /usr/sbin, has other options.
    let output = netns.run(&["/usr/bin/arping", "-U", "-c", "1", "-I", "eth0", &VIP.to_string()])?;
    ensure!(output.stdout.contains("Sent 1 probes"), "arping sent nothing: {output}");
    Ok(())
}

#[track_caller]
fn must_ping(from: &Netns, to: Ipv4Addr) -> Result<()> {
    let report = from.ping(to, 3)?;
    ensure!(report.sent == report.received, "{} reaches {to} not always: {}", from.label(), report.text);
    Ok(())
}

fn must_not_ping(from: &Netns, to: Ipv4Addr) -> Result<()> {
    let report = from.ping(to, 2)?;
    ensure!(report.received == 0, "{} reaches {to}: {}", from.label(), report.text);
    Ok(())
}

fn must_show(from: &Netns, address: Ipv4Addr, body: &str) -> Result<()> {
    let page = format!("http://{}/", page_of(address));
    let shown = from.check(&["curl", "--silent", "--show-error", "--max-time", "10", &page])?;
    ensure!(shown.trim() == body, "{page} shows {shown:?} instead of {body:?}");
    Ok(())
}

/// Whether a frame carries a payload.
fn carries(frame: &Frame, payload: &[u8]) -> bool {
    frame.bytes.ends_with(payload)
}

/// A frame with 802.1Q tags behind its MACs, from the outermost on.
fn tagged(frame: &[u8], tags: &[u16]) -> Vec<u8> {
    let (macs, rest) = frame.split_at(12);
    let tags: Vec<u8> = tags.iter().flat_map(|tag| [[0x81, 0], tag.to_be_bytes()].concat()).collect();
    [macs, &tags, rest].concat()
}

#[test]
fn an_eip_on_a_vlan_is_served_there_with_tags_beside_the_bytes_and_in_them() {
    run("an_eip_on_a_vlan_is_served_there_with_tags_beside_the_bytes_and_in_them", |lab| {
        let stage = Stage::start(lab)?;
        let _page = Nginx::start(&stage.plain, "plain's")?;
        stage.plain.add_vip_address(VIP)?;
        stage.plain.arping(Announcement::Request, VIP)?;
        stage.vipd.wait_for_owner("web-vip", "plain", SOON)?;
        for offload in ["on", "off"] {
            stage.client().check(&["ethtool", "-K", "eth0", "txvlan", offload])?;
            stage.outside.flush_neighbours()?;
            must_ping(stage.client(), VIP_EIP)?;
            must_show(stage.client(), VIP_EIP, "plain's")?;
            // And from inside: as the EIP, by the VLAN.
            let capture = Capture::start(stage.client(), "eth0.100")?;
            let reached = stage.plain.netns().ping_from(VIP, CLIENT, 3)?;
            ensure!(reached.received == 3, "the client is not reached: {}", reached.text);
            capture.wait_for(SOON, "an echo request from the EIP", |frame| {
                !frame.outgoing
                    && frame.ipv4().is_some_and(|ip| (ip.source, ip.destination) == (VIP_EIP, CLIENT))
            })?;
            // Beside it, what has no tag is served without one.
            must_ping(stage.client(), GREEN_EIP)?;
        }
        let status = stage.status()?;
        ensure!(text(&status, "/eip_networks/0/interface") == Some("eth0.100"), "{status:#}");
        ensure!(text(&status, "/eip_networks/1/interface") == Some("eth0.200.7"), "{status:#}");
        ensure!(text(&status, "/eip_networks/2/interface") == Some("eth0"), "{status:#}");
        let shown = stage.vipd.vipctl_output(&["status"])?.stdout;
        ensure!(shown.contains("EIP network carrier, VLAN [200, 7]: eth0.200.7,"), "{shown}");
        ensure!(stage.drops()?.is_empty(), "{:?}", stage.drops());
        Ok(())
    });
}

#[test]
fn an_eip_on_a_vlan_inside_a_providers_is_served_there() {
    run("an_eip_on_a_vlan_inside_a_providers_is_served_there", |lab| {
        let stage = Stage::start(lab)?;
        let _page = Nginx::start(&stage.plain, "plain's")?;
        for offload in ["on", "off"] {
            stage.client().check(&["ethtool", "-K", "eth0", "txvlan", offload])?;
            stage.outside.flush_neighbours()?;
            must_ping(stage.client(), STACKED_EIP)?;
            must_show(stage.client(), STACKED_EIP, "plain's")?;
            must_ping(stage.plain.netns(), STACKED_CLIENT)?;
        }
        ensure!(stage.drops()?.is_empty(), "{:?}", stage.drops());
        Ok(())
    });
}

#[test]
fn frames_without_the_tag_or_with_another_are_not_ours() {
    run("frames_without_the_tag_or_with_another_are_not_ours", |lab| {
        let stage = Stage::start(lab)?;
        stage.plain.add_vip_address(VIP)?;
        stage.plain.arping(Announcement::Request, VIP)?;
        stage.vipd.wait_for_owner("web-vip", "plain", SOON)?;
        let stranger = add_vlan(stage.host.netns(), "eth0", &[300])?;
        let macs = (stage.outside.mac(), stage.uplink_mac()?);
        let (at_guest, at_client) =
            (Capture::start(stage.plain.netns(), "eth0")?, Capture::start(stage.client(), "eth0")?);
        let (at_uplink, at_stranger) =
            (Capture::start(stage.host.netns(), "eth0")?, Capture::start(stage.host.netns(), &stranger)?);
        let sender = RawSender::new(stage.client(), "eth0")?;
        let datagram = |eip, words: &str| udp(macs, (CLIENT, 4000), (eip, 9000), words.as_bytes());
        let question = |eip| Arp::question(macs.0, CLIENT, eip).frame(macs.0, Mac::BROADCAST);
        let unknown = datagram(VIP_EIP, "of another VLAN")?;
        sender.send_in_order(&[
            &datagram(VIP_EIP, "without a tag")?,
            &question(VIP_EIP),
            &tagged(&unknown, &[300]),
            &tagged(&question(VIP_EIP), &[300]),
            &tagged(&datagram(GREEN_EIP, "with a tag too many")?, &[100]),
            &tagged(&question(GREEN_EIP), &[100]),
            &tagged(&datagram(VIP_EIP, "of two customers")?, &[100, 100]),
            // Behind the others in the same queue.
            &tagged(&datagram(VIP_EIP, "as it should be")?, &[100]),
        ])?;
        at_guest.wait_for(SOON, "the last datagram", |frame| carries(frame, b"as it should be"))?;
        for words in ["without a tag", "of another VLAN", "with a tag too many", "of two customers"] {
            let seen = at_guest.matching(|frame| carries(frame, words.as_bytes()))?;
            ensure!(seen.is_empty(), "the guest has got what came {words}: {seen:?}");
        }
        // The stack has them, as they came.
        at_uplink.wait_for(SOON, "the untagged one", |frame| carries(frame, b"without a tag"))?;
        let seen = at_stranger
            .wait_for(SOON, "the one of another VLAN", |frame| carries(frame, b"of another VLAN"))?;
        ensure!(seen.bytes == unknown, "{:02x?} has become {:02x?}", unknown, seen.bytes);
        let answers = at_client.matching(|frame| {
            !frame.outgoing && frame.arp().is_some_and(|arp| [VIP_EIP, GREEN_EIP].contains(&arp.sender))
        })?;
        ensure!(answers.is_empty(), "questions on the wrong network were answered: {answers:?}");
        ensure!(stage.drops()?.is_empty(), "{:?}", stage.drops());
        Ok(())
    });
}

#[test]
fn ports_on_vlans_of_one_interface_claim_and_stay_apart() {
    run("ports_on_vlans_of_one_interface_claim_and_stay_apart", |lab| {
        let stage = Stage::start(lab)?;
        let Stage { red, green, trunk, plain, .. } = &stage;
        // One subnet, so each reaches each, through the forwarder.
        for (from, to) in [
            (&red.netns, green.address),
            (&green.netns, red.address),
            (trunk.netns(), red.address),
            (&green.netns, trunk.address()),
            (plain.netns(), green.address),
            (&red.netns, GATEWAY),
        ] {
            must_ping(from, to)?;
        }
        for (owner, netns) in [("red", &red.netns), ("green", &green.netns), ("plain", plain.netns())] {
            claim(netns)?;
            stage.vipd.wait_for_owner("web-vip", owner, SOON)?;
            must_ping(stage.client(), VIP_EIP)?;
        }
        ensure!(stage.drops()?.is_empty(), "{:?}", stage.drops());

        // What one of them may say, another may not on its own VLAN, nor the trunk without a tag.
        let theft = Arp::gratuitous_request(red.mac, VIP).frame(red.mac, Mac::BROADCAST);
        for netns in [&green.netns, trunk.netns()] {
            RawSender::new(netns, "eth0")?.send(&theft)?;
        }
        stage.wait_for("both to be dropped", |status| {
            let drops = status.get("drops").and_then(Value::as_array);
            let stopped =
                drops.into_iter().flatten().find(|drop| text(drop, "/reason") == Some("source_mac"));
            stopped.and_then(|drop| drop.get("packets")?.as_u64()) == Some(2)
        })?;
        let owner = stage.vipd.owner("web-vip")?;
        ensure!(owner.as_deref() == Some("plain"), "the VIP has passed to {owner:?}");

        let shown = stage.vipd.vipctl(&["get", "ports", "-o", "json"])?;
        let vlan = |number: usize| shown.pointer(&format!("/{number}/vlan")).cloned().unwrap_or_default();
        // By id: green, plain, red, trunk.
        ensure!(vlan(0) == serde_json::json!([201, 9]) && vlan(2) == 200, "{shown:#}");
        ensure!(vlan(1).is_null() && vlan(3).is_null(), "{shown:#}");
        Ok(())
    });
}

#[test]
fn a_port_on_a_vlan_reaches_eips_on_other_networks_and_its_own() {
    run("a_port_on_a_vlan_reaches_eips_on_other_networks_and_its_own", |lab| {
        let stage = Stage::start(lab)?;
        let _page = Nginx::start(&stage.plain, "plain's")?;
        stage.plain.add_vip_address(VIP)?;
        stage.plain.arping(Announcement::Request, VIP)?;
        stage.vipd.wait_for_owner("web-vip", "plain", SOON)?;
        let capture = Capture::start(stage.plain.netns(), "eth0")?;
        for netns in [&stage.red.netns, &stage.green.netns] {
            for eip in [VIP_EIP, STACKED_EIP] {
                must_ping(netns, eip)?;
                must_show(netns, eip, "plain's")?;
            }
        }
        for eip in [RED_EIP, GREEN_EIP] {
            capture.wait_for(SOON, "a packet from the sender's EIP", |frame| {
                !frame.outgoing && frame.ipv4().is_some_and(|ip| (ip.source, ip.destination) == (eip, VIP))
            })?;
        }
        must_ping(&stage.red.netns, RED_EIP)?;
        must_ping(stage.plain.netns(), GREEN_EIP)?;
        ensure!(stage.drops()?.is_empty(), "{:?}", stage.drops());
        Ok(())
    });
}

#[test]
fn vlan_interfaces_that_come_go_and_come_again_are_followed() {
    run("vlan_interfaces_that_come_go_and_come_again_are_followed", |lab| {
        let stage = Stage::start_without_vlans(lab)?;
        let host = stage.host.netns();
        claim(stage.plain.netns())?;
        stage.vipd.wait_for_owner("web-vip", "plain", SOON)?;
        let remedy = "ip link add link eth0 name eth0.100 type vlan id 100 && ip link set eth0.100 up";
        for _ in 0..2 {
            stage.wait_for_warning(&["EIP network isp", remedy])?;
            stage.wait_for("a port to be waited for", |status| {
                let ports = status.get("ports").and_then(Value::as_array);
                let red = ports.into_iter().flatten().find(|port| text(port, "/id") == Some("red"));
                red.is_some_and(|port| {
                    text(port, "/attached") == Some("none")
                        && text(port, "/why")
                            .is_some_and(|why| why.contains("name tap1.200 type vlan id 200"))
                })
            })?;
            // Neither is served untagged instead.
            must_not_ping(stage.client(), VIP_EIP)?;
            must_ping(stage.client(), UNTAGGED_CLIENT)?;
            let announced = Capture::start(stage.client(), "eth0.100")?;
            for command in remedy.split(" && ") {
                host.ip(command.trim_start_matches("ip "))?;
            }
            add_vlan(host, "tap1", &[200])?;
            announced.wait_for(SOON, "the EIP's announcement", |frame| {
                !frame.outgoing
                    && frame.arp().is_some_and(|arp| arp.sender == VIP_EIP && arp.target == VIP_EIP)
            })?;
            must_ping(stage.client(), VIP_EIP)?;
            stage.wait_for("the port to be served", |status| {
                let ports = status.get("ports").and_then(Value::as_array);
                let red = ports.into_iter().flatten().find(|port| text(port, "/id") == Some("red"));
                red.is_some_and(|port| text(port, "/attached") != Some("none"))
            })?;
            must_ping(stage.client(), RED_EIP)?;
            must_ping(&stage.red.netns, CLIENT)?;
            host.ip("link delete eth0.100")?;
            host.ip("link delete tap1.200")?;
        }
        Ok(())
    });
}

#[test]
fn a_vlan_interface_with_another_mac_is_a_problem_by_name_until_it_has_the_uplinks() {
    run("a_vlan_interface_with_another_mac_is_a_problem_by_name_until_it_has_the_uplinks", |lab| {
        let stage = Stage::start(lab)?;
        let host = stage.host.netns();
        must_ping(stage.client(), RED_EIP)?;
        let mac = stage.uplink_mac()?;
        host.ip("link set eth0.100 address 02:00:00:00:ff:01")?;
        stage.wait_for("the problem", |status| {
            let remedy = format!("ip link set eth0.100 address {mac}");
            text(status, "/sync/error")
                .is_some_and(|it| it.contains("EIP network isp") && it.contains(&remedy))
        })?;
        host.ip(&format!("link set eth0.100 address {mac}"))?;
        stage.wait_for("it to be solved", |status| text(status, "/sync/state") == Some("in_sync"))?;
        must_ping(stage.client(), RED_EIP)
    });
}

#[test]
fn vlans_go_on_without_vipd_and_end_with_detaching() {
    run("vlans_go_on_without_vipd_and_end_with_detaching", |lab| {
        let mut stage = Stage::start(lab)?;
        let pins = |stage: &Stage| -> Result<usize> {
            let links = std::fs::read_dir(stage.vipd.bpffs().join("links"))?;
            let names = links.filter_map(|link| link.ok()?.file_name().into_string().ok());
            Ok(names.filter(|name| name.contains("uplink_tc_")).count())
        };
        must_ping(stage.client(), RED_EIP)?;
        ensure!(pins(&stage)? == 3, "uplink_tc is on {} interfaces", pins(&stage)?);
        stage.vipd.stop()?;
        must_ping(stage.client(), RED_EIP)?;
        must_not_ping(&stage.green.netns, VIP_EIP)?;
        stage.vipd.begin()?;
        stage.vipd.ready()?;
        must_ping(stage.client(), RED_EIP)?;
        must_ping(stage.client(), STACKED_EIP)?;
        ensure!(pins(&stage)? == 3, "uplink_tc is on {} interfaces", pins(&stage)?);
        // Somebody detaches one of them.
        let status = stage.status()?;
        let vlan =
            status.pointer("/eip_networks/0/ifindex").and_then(Value::as_u64).context("no interface")?;
        for name in [format!("uplink_tc_{vlan}"), format!("clsact_uplink_tc_{vlan}")] {
            let pin = stage.vipd.bpffs().join("links").join(name);
            if pin.exists() {
                std::fs::remove_file(pin)?;
            }
        }
        poll_until(SOON, "it to be attached again", || pins(&stage).ok().filter(|count| *count == 3))?;
        poll_until(SOON, "the EIP to be served again", || must_ping(stage.client(), RED_EIP).ok())?;
        let bpffs = stage.vipd.bpffs();
        let output =
            stage.vipd.vipctl_output(&["detach", "--bpffs", bpffs.to_str().context("a path of UTF-8")?])?;
        ensure!(output.status.success(), "{output}");
        stage.outside.flush_neighbours()?;
        must_not_ping(stage.client(), RED_EIP)?;
        ensure!(!bpffs.exists(), "detaching has left {}", bpffs.display());
        Ok(())
    });
}

#[test]
fn an_eip_network_may_be_on_a_vlan_of_the_uplinks_bridge() {
    run("an_eip_network_may_be_on_a_vlan_of_the_uplinks_bridge", |lab| {
        let stage = Stage::start_without_vlans(lab)?;
        let host = stage.host.netns();
        let mac = stage.uplink_mac()?;
        stage.host.add_bridge("br0", None)?;
        host.ip(&format!("link set br0 address {mac}"))?;
        stage.host.enslave("eth0", "br0")?;
        stage.wait_for_warning(&["EIP network isp", "ip link add link br0 name br0.100 type vlan id 100"])?;
        add_vlan(host, "br0", &[100])?;
        add_vlan(host, "tap1", &[200])?;
        stage.wait_for("the network to be served", |status| {
            text(status, "/eip_networks/0/interface") == Some("br0.100")
                && text(status, "/eip_networks/0/attached") != Some("none")
        })?;
        poll_until(SOON, "the EIP to be served", || must_ping(stage.client(), RED_EIP).ok())?;
        must_ping(&stage.red.netns, CLIENT)?;
        // A member of a bridge would not see its neighbours' answers.
        stage.host.add_bridge("br1", None)?;
        stage.host.enslave("br0.100", "br1")?;
        stage.wait_for("the problem", |status| {
            text(status, "/sync/error").is_some_and(|it| it.contains("ip link set br0.100 nomaster"))
        })?;
        Ok(())
    });
}
