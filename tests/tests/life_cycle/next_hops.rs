//! The EIPs' side: neighbours and routes that change.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use vip_lab::{
    Binaries, EipReach, Lab, Mac, Netns, UNDERLAY_OUTSIDE, Vipd, VipdConfig, capture::Capture, poll_until,
};

use crate::stage::{EIP, FIRST, SOON, STATE, Stage, VIP, VIP_ID, claim, first_guest, second_guest};

/// A client behind routers.
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

/// Another router beside the outside client.
const OTHER_ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 8);

fn answers(from: &Netns, what: &str) -> Result<()> {
    poll_until(SOON, what, || from.ping(EIP, 1).ok().filter(|report| report.received == 1))?;
    Ok(())
}

#[test]
fn a_gateway_that_changes_its_mac_is_followed() {
    Lab::run(|lab| {
        let mut stage = Stage::start(lab)?;
        let gateway = stage.outside.netns();
        for (mac, vipd_lives) in [("02:00:00:00:aa:01", true), ("02:00:00:00:aa:02", false)] {
            if !vipd_lives {
                stage.vipd.kill9()?;
            }
            let capture = Capture::start(gateway, "eth0")?;
            gateway.ip(&format!("link set dev eth0 address {mac}"))?;
            // A router tells its neighbours, as VRRP and the like do.
            gateway.check(&["/usr/bin/arping", "-U", "-c", "1", "-I", "eth0", "203.0.113.254"]).or_else(
                |error| {
                    // Its exit status says that nobody has answered.
                    if format!("{error:#}").contains("Sent 1 probes") {
                        Ok(String::new())
                    } else {
                        Err(error)
                    }
                },
            )?;
            if !vipd_lives {
                stage.vipd.begin()?;
                stage.vipd.ready()?;
            }
            answers(gateway, &format!("answers to {mac}"))?;
            let mac: Mac = mac.parse()?;
            capture.wait_for(SOON, "a reply to the new MAC", |frame| {
                frame.destination() == Some(mac) && frame.ipv4().is_some_and(|ip| ip.source == EIP)
            })?;
        }
        Ok(())
    });
}

/// The EIP is routed, and so is the way back.
fn routed(lab: &Lab) -> Result<Stage> {
    let host = lab.add_host("hv1")?;
    let outside = host.add_outside(EipReach::Routed)?;
    let first = host.add_guest(&first_guest()?)?;
    let second = host.add_guest(&second_guest()?)?;
    let mut vipd = Vipd::start(&host, &Binaries::from_env()?, &VipdConfig::new("hv1"), STATE)?;
    vipd.ready()?;
    let stage = Stage { vipd, first, second, outside, host };
    stage.first.add_vip_address(VIP)?;
    claim(&stage.first)?;
    stage.vipd.wait_for_owner(VIP_ID, "first", SOON)?;
    Ok(stage)
}

/// Another router on the uplink's link, which has the far address as well.
fn other_router(lab: &Lab, stage: &Stage) -> Result<(Netns, Mac)> {
    let router = lab.add_netns("router")?;
    stage.outside.netns().ip("link add link eth0 name new0 type macvlan mode bridge")?;
    stage.outside.netns().ip(&format!("link set dev new0 netns {}", router.name()))?;
    let mac = "02:00:00:00:aa:08";
    router.ip(&format!("link set dev new0 address {mac}"))?;
    router.ip(&format!("address add {OTHER_ROUTER}/24 dev new0"))?;
    router.ip("link set dev new0 up")?;
    Ok((router, mac.parse()?))
}

/// A ping to the EIP from the far address.
fn far_ping(netns: &Netns) -> Result<()> {
    netns.check(&["ping", "-n", "-c", "1", "-W", "2", "-I", &FAR.to_string(), &EIP.to_string()])?;
    Ok(())
}

#[test]
fn a_route_that_changes_is_followed() {
    Lab::run(|lab| {
        let stage = routed(lab)?;
        let (router, router_mac) = other_router(lab, &stage)?;
        let (host, outside) = (stage.host.netns(), stage.outside.netns());
        outside.ip(&format!("address add {FAR}/32 dev lo"))?;
        host.ip(&format!("route add {FAR}/32 via {UNDERLAY_OUTSIDE}"))?;
        poll_until(SOON, "the first route to lead back", || far_ping(outside).ok())?;

        let capture = Capture::start(&router, "new0")?;
        host.ip(&format!("route replace {FAR}/32 via {OTHER_ROUTER}"))?;
        poll_until(SOON, "replies by the other router", || {
            // Nobody waits for the answer where it goes now.
            far_ping(outside).is_err().then_some(())?;
            let seen = capture.count(|frame| {
                frame.destination() == Some(router_mac)
                    && frame.ipv4().is_some_and(|ip| ip.destination == FAR)
            });
            seen.ok().filter(|count| *count > 0)
        })?;

        host.ip(&format!("route replace {FAR}/32 via {UNDERLAY_OUTSIDE}"))?;
        poll_until(SOON, "the first route again", || far_ping(outside).ok())?;
        host.ip(&format!("route delete {FAR}/32"))?;
        poll_until(SOON, "no way back", || far_ping(outside).err())?;
        Ok(())
    });
}

#[test]
fn a_default_route_that_comes_later_leads_back() {
    Lab::run(|lab| {
        let stage = routed(lab)?;
        let (host, outside) = (stage.host.netns(), stage.outside.netns());
        outside.ip(&format!("address add {FAR}/32 dev lo"))?;
        ensure!(far_ping(outside).is_err(), "there is no way back to {FAR} yet");
        host.ip(&format!("route add default via {UNDERLAY_OUTSIDE}"))?;
        poll_until(SOON, "the default route to lead back", || far_ping(outside).ok())?;
        // A guest's own traffic from an address without EIP is not let out by it.
        let report = stage.first.netns().run(&[
            "ping",
            "-c",
            "1",
            "-W",
            "1",
            "-I",
            &FIRST.to_string(),
            &FAR.to_string(),
        ])?;
        ensure!(!report.status.success(), "{report}");
        let shown = stage.status().context("vipd serves")?;
        ensure!(shown.pointer("/sync/state").is_some(), "{shown}");
        Ok(())
    });
}
