//! What one host knows of the others: the ways to them, as routes, neighbours and the uplink change, and their ports.
#![cfg(feature = "kernel")]

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use vip_lab::{
    Announcement, Binaries, EipReach, Guest, GuestConfig, Host, Lab, Outside, UNDERLAY_OUTSIDE, Vipd,
    VipdConfig, poll_until,
};

const SOON: Duration = Duration::from_secs(20);

const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 246);
const VIP_ID: &str = "web-vip";

/// `hv2` is where the outside client is, and `hv3` behind a router. `here` and `there` call their interfaces alike.
const STATE: &str = r#"hosts:
  - { id: hv1, vtep: 198.51.100.1 }
  - { id: hv2, vtep: 198.51.100.7 }
  - { id: hv3, vtep: 192.0.2.3 }
vpcs:    [{ id: blue, vni: 4001 }]
subnets: [{ id: web, vpc: blue, cidr: 192.168.4.0/22, gateway: 192.168.4.1 }]
ports:
  - { id: here, subnet: web, address: 192.168.7.247, mac: "02:00:00:00:07:f7", host: hv1, interface: tap0 }
  - { id: there, subnet: web, address: 192.168.7.248, mac: "02:00:00:00:07:f8", host: hv2, interface: tap0 }
  - { id: far, subnet: web, address: 192.168.7.249, mac: "02:00:00:00:07:f9", host: hv3, interface: tap0 }
groups:  [{ id: web, members: [here, there, far] }]
vips:    [{ id: web-vip, subnet: web, address: 192.168.7.246, group: web }]
eips:
  - { id: web-eip, address: 203.0.113.10, vip: web-vip }
  - { id: there-eip, address: 203.0.113.11, port: there }
"#;

/// What stands at a place in an answer; `null`: nothing.
fn at<'v>(value: &'v Value, place: &str) -> &'v Value {
    value.pointer(place).unwrap_or(&Value::Null)
}

struct Stage {
    vipd: Vipd,
    guest: Guest,
    outside: Outside,
    host: Host,
}

impl Stage {
    fn start(lab: &Lab) -> Result<Self> {
        let host = lab.add_host("hv1")?;
        let outside = host.add_outside(EipReach::OnLink)?;
        let config = GuestConfig::new("here", "tap0", "02:00:00:00:07:f7", "192.168.7.247/22")?;
        let guest = host.add_guest(&config)?;
        let config = VipdConfig::new("hv1")
            .with("eip_networks: [{ id: public, cidr: 203.0.113.0/24, gateway: 203.0.113.254 }]")
            .with("capacity: { hosts: 4 }");
        let mut vipd = Vipd::start(&host, &Binaries::from_env()?, &config, STATE)?;
        vipd.ready()?;
        Ok(Self { vipd, guest, outside, host })
    }

    fn get(&self, kind: &str, id: &str) -> Result<Value> {
        self.vipd.vipctl(&["get", kind, id, "-o", "json"])
    }

    fn status(&self) -> Result<Value> {
        self.vipd.vipctl(&["status", "-o", "json"])
    }

    /// Waits until a host is reached through a neighbour with this MAC.
    fn must_reach(&self, host: &str, mac: &str, mtu: u64) -> Result<()> {
        let wanted = json!([true, UNDERLAY_OUTSIDE, mac, mtu, null]);
        let mut seen = Value::Null;
        poll_until(SOON, &format!("a way to {host} by {mac}"), || {
            let view = self.get("hosts", host).ok()?;
            seen = ["reachable", "next_hop", "next_hop_mac", "mtu", "why"]
                .map(|field| at(&view, &format!("/{field}")).clone())
                .into();
            (seen == wanted).then_some(())
        })
        .with_context(|| format!("{seen} instead of {wanted}"))
    }

    /// Waits until the status says of a host why it is not reached; `None`: it is.
    fn wait_for_why(&self, host: &str, words: Option<&str>) -> Result<()> {
        poll_until(SOON, &format!("{host} to be reported: {words:?}"), || {
            let status = self.status().ok()?;
            let unreachable = at(&status, "/overlay/unreachable").as_array()?;
            let why = unreachable
                .iter()
                .find(|one| *at(one, "/host") == host)
                .and_then(|one| at(one, "/why").as_str());
            match (why, words) {
                (None, None) => Some(()),
                (Some(why), Some(words)) => why.contains(words).then_some(()),
                _ => None,
            }
        })
    }
}

#[test]
fn the_ways_to_other_hosts_follow_routes_neighbours_and_the_uplink() {
    Lab::run(|lab| {
        let mut stage = Stage::start(lab)?;
        let (inside, gateway) = (stage.host.netns().clone(), stage.outside.netns().clone());
        let mac = stage.outside.mac().to_string();
        // Nobody has talked to it: vipd has the kernel ask.
        stage.must_reach("hv2", &mac, 1450)?;
        stage.wait_for_why("hv3", Some("there is no route to 192.0.2.3"))?;
        let own = stage.get("hosts", "hv1")?;
        ensure!(
            *at(&own, "/reachable") == true && at(&own, "/next_hop").is_null() && at(&own, "/mtu").is_null(),
            "{own}"
        );
        let status = stage.status()?;
        ensure!(*at(&status, "/overlay/vtep") == "198.51.100.1", "{status}");
        ensure!(
            *at(&status, "/overlay/hosts") == 2 && *at(&status, "/overlay/guest_mtu") == 1450,
            "{status}"
        );
        ensure!(
            at(&status, "/warnings")
                .to_string()
                .contains("larger MTU than the 1450 bytes that go to other hosts: tap0 (1500)"),
            "{status}"
        );
        let text = stage.vipd.vipctl_output(&["status"])?.stdout;
        ensure!(text.contains("host hv3 is NOT REACHABLE"), "{text}");

        // A route appears, leads elsewhere, and comes back.
        inside.ip(&format!("route add 192.0.2.0/24 via {UNDERLAY_OUTSIDE}"))?;
        stage.must_reach("hv3", &mac, 1450)?;
        stage.wait_for_why("hv3", None)?;
        inside.ip("link add name other type veth peer name nobody")?;
        inside.ip("link set dev other up")?;
        inside.ip("route add 192.0.2.3/32 dev other")?;
        stage.wait_for_why("hv3", Some("another interface than the uplink"))?;
        inside.ip("link delete dev other")?;
        stage.wait_for_why("hv3", None)?;

        // The neighbour gets another MAC, and tells nobody: vipd has the kernel confirm it.
        let new_mac = "02:00:00:00:aa:02";
        gateway.ip(&format!("link set dev eth0 address {new_mac}"))?;
        inside.ip("neighbour flush all")?;
        stage.must_reach("hv2", new_mac, 1450)?;
        stage.must_reach("hv3", new_mac, 1450)?;

        // The uplink takes less.
        inside.ip("link set dev eth0 mtu 1400")?;
        stage.must_reach("hv2", new_mac, 1350)?;
        ensure!(*at(&stage.status()?, "/overlay/guest_mtu") == 1350);

        // Another vipd takes over what is there.
        stage.vipd.kill9()?;
        stage.vipd.begin()?;
        stage.vipd.ready()?;
        stage.must_reach("hv3", new_mac, 1350)?;

        // A neighbour that is gone is told of, and found when it returns.
        gateway.ip("link set dev eth0 arp off")?;
        inside.ip("neighbour flush all")?;
        stage.wait_for_why("hv2", Some("the neighbour 198.51.100.7 does not answer"))?;
        gateway.ip("link set dev eth0 arp on")?;
        stage.must_reach("hv2", new_mac, 1350)?;
        Ok(())
    });
}

#[test]
fn ports_of_other_hosts_are_in_the_tables_and_announced_by_nobody_here() {
    Lab::run(|lab| {
        let stage = Stage::start(lab)?;
        stage.guest.add_vip_address(VIP)?;
        stage.guest.arping(Announcement::Request, VIP)?;
        stage.vipd.wait_for_owner(VIP_ID, "here", SOON)?;
        let there = stage.get("ports", "there")?;
        ensure!(*at(&there, "/host") == "hv2" && at(&there, "/ifindex").is_null(), "{there}");
        let status = stage.status()?;
        let ports = at(&status, "/ports").as_array().context("no ports")?;
        ensure!(
            ports.len() == 1
                && *at(&status, "/ports/0/id") == "here"
                && *at(&status, "/ports/0/attached") != "none",
            "{status}"
        );
        let used = |table: &str| {
            let tables = at(&status, "/tables").as_array()?;
            tables
                .iter()
                .find(|one| *at(one, "/table") == table)
                .map(|one| (at(one, "/used").clone(), at(one, "/capacity").clone()))
        };
        for (table, entries, capacity) in
            [("PORTS", 3, 4096), ("HOSTS", 3, 4), ("VTEPS", 3, 4), ("VNIS", 1, 4096)]
        {
            ensure!(used(table) == Some((entries.into(), capacity.into())), "{table}: {status}");
        }
        // The EIP of the VIP is answered for here, where its owner is; that of a port elsewhere is not.
        let asker = stage.outside.netns();
        asker.check(&["/usr/bin/arping", "-c", "1", "-w", "5", "-I", "eth0", "203.0.113.10"])?;
        let other = asker.check(&["/usr/bin/arping", "-c", "1", "-w", "1", "-I", "eth0", "203.0.113.11"]);
        ensure!(other.is_err(), "somebody answers for the EIP of another host's port");
        Ok(())
    });
}

#[test]
fn a_vip_stays_with_its_owner_when_the_state_moves_the_owners_port_to_another_host_and_back() {
    Lab::run(|lab| {
        let stage = Stage::start(lab)?;
        stage.guest.add_vip_address(VIP)?;
        stage.guest.arping(Announcement::Request, VIP)?;
        stage.vipd.wait_for_owner(VIP_ID, "here", SOON)?;
        let before = stage.vipd.vip(VIP_ID)?;
        let epoch = at(&before, "/owner/epoch").as_u64().context("no epoch")?;
        // `there` has its name for itself on hv2.
        let away = STATE.replace("host: hv1, interface: tap0", "host: hv2, interface: tap1");
        // The host that it comes to begins another epoch.
        for (state, host, epoch, learned) in
            [(away.as_str(), "hv2", epoch, "garp_request"), (STATE, "hv1", epoch + 1, "state")]
        {
            stage.vipd.write_state(state)?;
            let wanted = json!(["here", host, epoch, learned]);
            let mut seen = Value::Null;
            poll_until(SOON, &format!("the owner on {host}"), || {
                let owner = at(&stage.vipd.vip(VIP_ID).ok()?, "/owner").clone();
                seen = ["port", "host", "epoch", "learned_from"]
                    .map(|field| at(&owner, &format!("/{field}")).clone())
                    .into();
                (seen == wanted).then_some(())
            })
            .with_context(|| format!("{seen} instead of {wanted}"))?;
            let attached = host == "hv1";
            poll_until(SOON, "the port's program to follow", || {
                let ports = at(&stage.status().ok()?, "/ports").as_array()?.len();
                ((ports == 1) == attached).then_some(())
            })?;
        }
        Ok(())
    });
}

#[test]
fn a_vtep_that_is_none_of_this_hosts_addresses_is_told_of() {
    Lab::run(|lab| {
        let stage = Stage::start(lab)?;
        let says = |words: &str| {
            stage.status().is_ok_and(|status| at(&status, "/warnings").to_string().contains(words))
        };
        ensure!(!says("VTEP"), "the VTEP is this host's");
        stage.vipd.write_state(&STATE.replace("vtep: 198.51.100.1 ", "vtep: 198.51.100.99 "))?;
        let warning = "this host's VTEP 198.51.100.99 is none of its addresses";
        poll_until(SOON, "a warning", || says(warning).then_some(()))?;
        stage.host.netns().ip("address add 198.51.100.99/32 dev eth0")?;
        poll_until(SOON, "no warning", || (!says(warning)).then_some(()))?;
        // Alone, there is nothing to reach and to warn of.
        let alone = "hosts: [{ id: hv1, vtep: 198.51.100.98 }]\nvpcs: []\nsubnets: []\nports: []\n";
        stage.vipd.write_state(alone)?;
        poll_until(SOON, "no overlay", || at(&stage.status().ok()?, "/overlay").is_null().then_some(()))?;
        ensure!(!says("VTEP"), "a host that is alone needs no VTEP");
        Ok(())
    });
}
