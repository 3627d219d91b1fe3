//! A state that changed while vipd was dead: nothing stale is left, and nothing reaches another tenant.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use anyhow::{Result, ensure};
use serde_json::Value;
use vip_lab::{
    Announcement, Binaries, EipReach, GuestConfig, Lab, Vipd, capture::Capture, stream::UdpStream,
};

use crate::stage::{
    EIP, FIRST, PORT, SOON, Stage, VIP, claim, config, first_guest, second_guest, wait_for_more,
};

/// Leads to the first guest's fixed address before, to the other tenant's afterwards.
const FIXED_EIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);

/// Leads to the other tenant's VIP.
const NEW_EIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 12);

/// Two tenants with the same prefix. The first guest belongs to blue, and so does the VIP.
const BEFORE: &str = r#"hosts:   [{ id: hv1, vtep: 198.51.100.1 }]
vpcs:    [{ id: blue, vni: 4001 }, { id: green, vni: 4002 }]
subnets:
  - { id: web, vpc: blue, cidr: 192.168.4.0/22, gateway: 192.168.4.1 }
  - { id: db, vpc: green, cidr: 192.168.4.0/22, gateway: 192.168.4.1 }
ports:
  - { id: first, subnet: web, address: 192.168.7.247, mac: "02:00:00:00:07:f7", host: hv1, interface: tap0 }
  - { id: second, subnet: web, address: 192.168.7.248, mac: "02:00:00:00:07:f8", host: hv1, interface: tap1 }
vips:    [{ id: web-vip, subnet: web, address: 192.168.7.246, ports: [first, second] }]
eips:
  - { id: web-eip, address: 203.0.113.10, vip: web-vip }
  - { id: fixed-eip, address: 203.0.113.11, port: first }
"#;

/// The first port is gone and its address is the other tenant's now; the VIP is gone and another tenant has one with its
/// address.
const AFTER: &str = r#"hosts:   [{ id: hv1, vtep: 198.51.100.1 }]
vpcs:    [{ id: blue, vni: 4001 }, { id: green, vni: 4002 }]
subnets:
  - { id: web, vpc: blue, cidr: 192.168.4.0/22, gateway: 192.168.4.1 }
  - { id: db, vpc: green, cidr: 192.168.4.0/22, gateway: 192.168.4.1 }
ports:
  - { id: second, subnet: web, address: 192.168.7.248, mac: "02:00:00:00:07:f8", host: hv1, interface: tap1 }
  - { id: tenant, subnet: db, address: 192.168.7.247, mac: "02:00:00:00:09:f7", host: hv1, interface: tap2 }
vips:    [{ id: db-vip, subnet: db, address: 192.168.7.246, ports: [tenant] }]
eips:
  - { id: fixed-eip, address: 203.0.113.11, port: tenant }
  - { id: db-eip, address: 203.0.113.12, vip: db-vip }
"#;

#[test]
fn a_state_that_changed_meanwhile_delivers_nothing_to_the_wrong_tenant() {
    Lab::run(|lab| {
        let host = lab.add_host("hv1")?;
        let outside = host.add_outside(EipReach::OnLink)?;
        let first = host.add_guest(&first_guest()?)?;
        let second = host.add_guest(&second_guest()?)?;
        let tenant = GuestConfig::new("tenant", "tap2", "02:00:00:00:09:f7", "192.168.7.247/22")?;
        let tenant = host.add_guest(&tenant.with_gro())?;
        let vipd = Vipd::start(&host, &Binaries::from_env()?, &config(), BEFORE)?;
        let mut stage = Stage { vipd, first, second, outside, host };
        stage.vipd.ready()?;
        for guest in [&stage.first, &tenant] {
            guest.add_vip_address(VIP)?;
        }
        claim(&stage.first)?;
        stage.vipd.wait_for_owner("web-vip", "first", SOON)?;

        let (client, all) = (stage.outside.netns(), [&stage.first, &stage.second, &tenant]);
        let start = |eip: Ipv4Addr, port: u16, rate: u32| {
            let receivers = all.map(vip_lab::Guest::netns);
            UdpStream::start(client, SocketAddrV4::new(eip, port), rate, Duration::from_secs(100), &receivers)
        };
        // Blue's traffic to the VIP, through all of it.
        let of_blue = start(EIP, PORT, 1_000)?;
        let fixed = start(FIXED_EIP, PORT + 1, 500)?;
        wait_for_more(&of_blue, &stage.first, 100)?;
        wait_for_more(&fixed, &stage.first, 100)?;

        stage.vipd.kill9()?;
        stage.vipd.write_state(AFTER)?;
        let to_tenant = Capture::start(stage.host.netns(), "tap2")?;
        stage.vipd.begin()?;
        stage.vipd.ready()?;
        stage.wait_for_sync("in_sync")?;

        let shown = stage.vipd.vipctl(&["get", "vips", "-o", "json"])?;
        let ids: Vec<_> = shown.as_array().into_iter().flatten().map(|vip| vip.pointer("/id")).collect();
        ensure!(ids == [Some(&Value::from("db-vip"))], "{shown}");
        let vip = stage.vipd.vip("db-vip")?;
        ensure!(vip.pointer("/owner") == Some(&Value::Null), "a stale owner: {vip}");
        ensure!(vip.pointer("/packets_in") == Some(&Value::from(0)), "stale counters: {vip}");

        wait_for_more(&fixed, &tenant, 100)?;
        tenant.arping(Announcement::Request, VIP)?;
        stage.vipd.wait_for_owner("db-vip", "tenant", SOON)?;
        let of_green = start(NEW_EIP, PORT + 2, 500)?;
        wait_for_more(&of_green, &tenant, 100)?;
        // The first guest is nobody any more; the second has no VIP to claim.
        stage.second.add_vip_address(VIP)?;
        claim(&stage.second)?;
        wait_for_more(&of_green, &tenant, 100)?;
        for stream in [&of_blue, &fixed, &of_green] {
            stream.stop_sending();
        }

        let (of_blue, fixed, of_green) = (of_blue.finish()?, fixed.finish()?, of_green.finish()?);
        let got = |report: &vip_lab::stream::StreamReport, guest: &vip_lab::Guest| -> Result<usize> {
            Ok(report.receiver(guest.netns())?.arrivals.len())
        };
        ensure!(got(&of_blue, &tenant)? == 0, "green got {} packets of blue's EIP", got(&of_blue, &tenant)?);
        ensure!(got(&of_blue, &stage.second)? == 0, "the second guest never owned the VIP");
        ensure!(
            got(&of_green, &stage.first)? == 0 && got(&of_green, &stage.second)? == 0,
            "green's packets went to blue"
        );
        ensure!(got(&fixed, &stage.second)? == 0, "the second guest never had the fixed address");
        // Not even as frames that its stack dropped.
        let strays = to_tenant
            .matching(|frame| frame.outgoing && frame.udp().is_some_and(|(_, port, _)| port == PORT))?;
        ensure!(strays.is_empty(), "{strays:?}");

        // Inside the VPC the address is nobody's: blue's second guest does not reach green's.
        to_tenant.clear();
        let report = stage.second.netns().ping(FIRST, 2)?;
        ensure!(report.received == 0, "{report:?}");
        let second = stage.second.address();
        let strays =
            to_tenant.count(|frame| frame.outgoing && frame.ipv4().is_some_and(|ip| ip.source == second))?;
        ensure!(strays == 0, "{strays} frames of the other tenant");
        Ok(())
    });
}
