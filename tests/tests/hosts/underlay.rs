//! The underlay itself, without any vipd: what the other labs rely on.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use vip_lab::{
    Cluster, ClusterConfig, EipReach, Lab,
    capture::Capture,
    cluster::{FIRST, PEERS_PORT, SECOND, WEB},
    far_end::{self, Finding},
    underlay::{CLIENT, Cut, ROUTER, UnderlayConfig, vtep},
};

use crate::stage::{SOON, ensure_pings, ensure_silent, wait_for_ping};

fn two_plain_hosts(lab: &Lab, finding: Finding) -> Result<Cluster> {
    let config = ClusterConfig { hosts: 2, ..ClusterConfig::usual().of_guests(&[FIRST, SECOND]) };
    let cluster = Cluster::build(lab, config)?;
    far_end::serve(&cluster, 1, WEB, finding)?;
    far_end::serve(&cluster, 2, WEB, finding)?;
    Ok(cluster)
}

#[test]
fn two_plain_hosts_talk_by_the_kernels_vxlan_and_a_cut_host_is_silent_until_it_is_healed() {
    Lab::run(|lab| {
        let cluster = two_plain_hosts(lab, Finding::Learning)?;
        let (first, second) = (cluster.guest("first")?, cluster.guest("second")?);
        let capture = Capture::start(cluster.underlay().segment(), cluster.cable(1)?)?;
        ensure_pings(first.netns(), second.address())?;
        let frame = capture.wait_for(SOON, "an echo inside VXLAN", |frame| {
            frame.tunnelled().is_some_and(|found| {
                found.inner.ipv4().is_some_and(|ip| ip.source == first.address()) && found.vni == WEB.vni
            })
        })?;
        // The kernel sends without DF and with any port, so that the judge of honest headers has something to refuse.
        ensure!(frame.check_outer().is_err(), "the judge took {frame:?}");

        let (underlay, host) = (cluster.underlay(), cluster.host(1)?.netns());
        for cut in [Cut::Hosts, Cut::Carrier] {
            underlay.cut(host, cut)?;
            ensure_silent(first.netns(), second.address())?;
            if cut == Cut::Hosts {
                ensure_pings(host, ROUTER)?;
            }
            underlay.heal()?;
            wait_for_ping(first.netns(), second.address())?;
        }
        underlay.cut(host, Cut::Peers(PEERS_PORT))?;
        ensure_pings(first.netns(), second.address())
    });
}

#[test]
fn a_static_far_end_reaches_its_peers_without_learning() {
    Lab::run(|lab| {
        let cluster = two_plain_hosts(lab, Finding::Static)?;
        ensure_pings(cluster.guest("first")?.netns(), cluster.guest("second")?.address())
    });
}

#[test]
fn the_client_reaches_hosts_through_the_router_and_eips_by_its_routes() {
    Lab::run(|lab| {
        let underlay = UnderlayConfig { eips: EipReach::Routed, ..UnderlayConfig::default() };
        let config = ClusterConfig { underlay, hosts: 2, ..ClusterConfig::usual().of_guests(&[]) };
        let cluster = Cluster::build(lab, config)?;
        let (client, eip) = (cluster.client(), Ipv4Addr::new(203, 0, 113, 10));
        for host in [1, 2] {
            ensure_pings(client, vtep(host))?;
            cluster.underlay().route_eips(&[host])?;
            let capture = Capture::start(cluster.underlay().segment(), cluster.cable(host)?)?;
            ensure_silent(client, eip)?;
            capture.wait_for(SOON, "the request for the EIP", |frame| {
                frame.outgoing && frame.ipv4().is_some_and(|ip| (ip.source, ip.destination) == (CLIENT, eip))
            })?;
        }
        // Flow by flow, which shows in that both hosts get some of many.
        cluster.underlay().route_eips(&[1, 2])?;
        let captures = [1, 2].map(|host| Capture::start(cluster.underlay().segment(), cluster.cable(host)?));
        for _ in 0..32 {
            let socket = crate::stage::socket(client, Ipv4Addr::UNSPECIFIED, 0)?;
            socket.send_to(b"hello", (eip, 9000))?;
        }
        for capture in captures {
            capture?.wait_for(SOON, "one of many flows", |frame| {
                frame.outgoing && frame.ipv4().is_some_and(|ip| (ip.destination, ip.protocol) == (eip, 17))
            })?;
        }
        Ok(())
    });
}
