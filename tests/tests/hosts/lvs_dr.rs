//! LVS-DR: directors share the VIP, real servers on other hosts hold it on `lo` and answer by themselves.
//!
//! Where the kernel has no IPVS, nftables does what its DR method does: the frame goes on with the real server's MAC, from the
//! director's, and is otherwise as it came.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use vip_lab::{
    Cluster, ClusterConfig, EipReach, Guest, Lab, Netns, Nginx,
    cluster::{Placed, VIP_ID, WEB},
    http, poll_until,
    scene::{EIP, VIP, page_of},
    skip,
    underlay::{CLIENT, UnderlayConfig},
};

use crate::{
    connection::{Connection, SERVICE, watch_service},
    stage::{PORT, SOON, claim_at_once, is_between, stream, take, tunnelled, wait_for_more, watch},
};

/// A real server on a host without director, and one beside the second director.
const REAL: [Placed; 2] = [
    Placed::new("real", 3, WEB, [192, 168, 7, 251]),
    Placed { gro: true, ..Placed::new("real2", 2, WEB, [192, 168, 7, 252]) },
];

const EVERYBODY: [&str; 4] = ["first", "second", "real", "real2"];

/// A datagram crosses the underlay to the director's host, to the real server's, and once more where a host does not know yet that the
/// director has changed.
const MOST_CROSSINGS: usize = 3;

/// How a director hands packets on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Director {
    Nftables,
    Ipvs,
}

impl Director {
    /// Makes a guest hand on what comes to the VIP: by nftables every second pair of source ports to each server, by IPVS as its source
    /// hashing wants.
    fn begin(self, guest: &Guest) -> Result<()> {
        let netns = guest.netns();
        guest.add_vip_address(VIP)?;
        for interface in ["all", "eth0"] {
            netns.sysctl(&format!("net/ipv4/conf/{interface}/send_redirects"), "0")?;
        }
        match self {
            Self::Nftables => {
                netns.nft("add table netdev lvs")?;
                netns.nft("add chain netdev lvs in { type filter hook ingress device eth0 priority 0 ; }")?;
                for protocol in ["tcp", "udp"] {
                    for (real, bits) in REAL.iter().zip([0, 2]) {
                        let (from, to) = (guest.mac(), real.mac());
                        netns.nft(&format!(
                            "add rule netdev lvs in ip daddr {VIP} {protocol} sport & 2 == {bits} \
                             ether saddr set {from} ether daddr set {to} fwd to eth0"
                        ))?;
                    }
                }
            }
            Self::Ipvs => {
                for (kind, port) in [("-t", 80), ("-t", SERVICE), ("-u", PORT)] {
                    let service = format!("{VIP}:{port}");
                    netns.check(&["ipvsadm", "-A", kind, &service, "-s", "sh"])?;
                    for real in REAL {
                        let server = format!("{}:{port}", real.address);
                        netns.check(&["ipvsadm", "-a", kind, &service, "-r", &server, "-g"])?;
                    }
                }
                // What another director has begun goes on here.
                netns.sysctl("net/ipv4/vs/sloppy_tcp", "1")?;
            }
        }
        Ok(())
    }
}

/// A real server as LVS' howto has it: the VIP on `lo`, and not a word about it by ARP.
fn serve(guest: &Guest) -> Result<Nginx> {
    let netns = guest.netns();
    netns.sysctl("net/ipv4/conf/all/arp_ignore", "1")?;
    netns.sysctl("net/ipv4/conf/all/arp_announce", "2")?;
    netns.ip(&format!("address add {VIP}/32 dev lo"))?;
    Nginx::start(guest, guest.name())
}

struct Stage {
    pages: Vec<Nginx>,
    cluster: Cluster,
}

impl Stage {
    fn start(lab: &Lab, director: Director, underlay: UnderlayConfig) -> Result<Self> {
        let mut config = ClusterConfig { underlay, ..ClusterConfig::usual().with(REAL[0]).with(REAL[1]) };
        config.objects = config.objects.replace("group: web }", "group: web, real_servers: [real, real2] }");
        ensure!(config.objects.contains("real_servers"), "no VIP in {}", config.objects);
        let cluster = Cluster::start(lab, config)?;
        let pages = REAL.iter().map(|real| serve(cluster.guest(real.name)?)).collect::<Result<_>>()?;
        ["first", "second"].iter().try_for_each(|name| director.begin(cluster.guest(name)?))?;
        take(&cluster, "first")?;
        Ok(Self { pages, cluster })
    }
}

/// The pages that a client gets by so many connections.
fn pages(from: &Netns, address: std::net::Ipv4Addr, count: usize) -> Result<BTreeSet<String>> {
    let page = |_| -> Result<String> {
        let page = http::get(from, page_of(address), "/", SOON)?;
        ensure!(page.status == 200, "{page:?}");
        Ok(page.body)
    };
    (0..count).map(page).collect()
}

/// Whether this kernel has IPVS, in namespaces too. Where it is a module, the tool that asks has it loaded.
fn has_ipvs(lab: &Lab) -> Result<bool> {
    let asked = lab.add_netns("asked")?.run(&["ipvsadm", "-L", "-n"])?;
    let lacks = asked.stderr.contains("Can't initialize ipvs");
    ensure!(
        asked.status.success() != lacks,
        "ipvsadm says neither that there is IPVS nor that there is none: {asked}"
    );
    Ok(!lacks)
}

fn replies_leave_by_the_servers_hosts(stage: &Stage) -> Result<()> {
    let cluster = &stage.cluster;
    let cables = [1, 2, 3].map(|host| watch(cluster, host)).into_iter().collect::<Result<Vec<_>>>()?;
    let from_outside = pages(cluster.client(), EIP, 24)?;
    ensure!(
        !from_outside.is_empty() && from_outside.iter().all(|page| page.starts_with("real")),
        "{from_outside:?}"
    );
    for (number, cable) in (1..).zip(&cables) {
        let answers = cable.count(|frame| !frame.outgoing && is_between(frame, EIP, CLIENT))?;
        let serves = REAL.iter().any(|real| real.host == number && from_outside.contains(real.name));
        ensure!((answers > 0) == serves, "{answers} answers left by hv{number} for {from_outside:?}");
    }
    // From inside, too: from the same subnet they come by MAC, straight from the server.
    let inside = pages(cluster.guest("third")?.netns(), VIP, 8)?;
    ensure!(inside.iter().all(|page| page.starts_with("real")), "{inside:?}");
    Ok(())
}

/// Directors change twice in the middle of a stream: all arrives, once, at a real server, and nothing goes around. What a director still has in
/// hand when it loses the VIP, on a slow machine more than nothing, is refused: it speaks for clients no longer.
fn fail_over(stage: &Stage) -> Result<()> {
    let cluster = &stage.cluster;
    let refused = || (1..=3).map(|host| cluster.drops(host, "source_address")).sum::<Result<u64>>();
    for (from, to) in [(cluster.client(), EIP), (cluster.guest("third")?.netns(), VIP)] {
        let before = refused()?;
        let cables = [1, 2, 3].map(|host| watch(cluster, host)).into_iter().collect::<Result<Vec<_>>>()?;
        let running = stream(cluster, from, to, &EVERYBODY)?;
        let received = |name: &str| Ok::<_, anyhow::Error>(running.received(cluster.guest(name)?.netns()));
        poll_until(SOON, "datagrams at a real server", || {
            (received("real").ok()? + received("real2").ok()? > 200).then_some(())
        })?;
        let server = cluster.guest(if received("real")? > 0 { "real" } else { "real2" })?;
        for director in ["second", "first"] {
            claim_at_once(cluster.guest(director)?)?;
            cluster.wait_for_owner(VIP_ID, director, SOON)?;
            wait_for_more(&running, server, 500)?;
        }
        running.stop_sending();
        let report = running.finish()?;
        let (arrived, sent) = (report.receiver(server.netns())?.arrivals.len(), report.sent.len());
        let (lost, doubled) = (report.lost().len(), report.duplicates());
        let refused = usize::try_from(refused()? - before)?;
        ensure!(
            arrived + lost == sent && lost <= refused + report.no_room && doubled == 0,
            "{} got {arrived} of {sent}; {lost} were lost, {refused} were refused, the lab's queues had no room for {}, and {doubled} doubled",
            server.name(),
            report.no_room
        );
        let mut crossings: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for cable in &cables {
            for found in tunnelled(cable)? {
                if let Some((_, PORT, payload)) = found.inner.udp() {
                    *crossings.entry(payload.to_vec()).or_default() += 1;
                }
            }
        }
        let most = crossings.values().max().copied().context("nothing crossed the underlay")?;
        ensure!(most <= MOST_CROSSINGS, "a datagram has crossed the underlay {most} times");
        let forwarded_twice: u64 =
            (1..=3).map(|host| cluster.drops(host, "forwarded_twice")).sum::<Result<u64>>()?;
        ensure!(forwarded_twice == 0, "{forwarded_twice} frames went around");
    }
    Ok(())
}

/// Words that a connection carries by each director.
const WORDS: usize = 10;

/// A connection to a real server goes on when the other director gets the VIP, which hands it on to the same server, and when the first
/// one has it back.
fn connections_go_on(stage: &Stage) -> Result<()> {
    let cluster = &stage.cluster;
    for (from, to) in [(cluster.client(), EIP), (cluster.guest("third")?.netns(), VIP)] {
        let mut connection = Connection::open(cluster, from, to, &REAL.map(|real| real.name))?;
        connection.ensure_alive()?;
        for (director, other) in [("second", "first"), ("first", "second")] {
            claim_at_once(cluster.guest(director)?)?;
            cluster.wait_for_owner(VIP_ID, director, SOON)?;
            let (came, strays) =
                (watch_service(cluster.guest(director)?)?, watch_service(cluster.guest(other)?)?);
            for _ in 0..WORDS {
                connection.ensure_alive().with_context(|| format!("to {to} by {director}"))?;
            }
            came.wait_for_count(SOON, "each word at the director", WORDS, |_| true)?;
            let strays = strays.count(|_| true)?;
            ensure!(strays == 0, "{director} has the VIP, and {other} got {strays} segments to {to}");
        }
    }
    Ok(())
}

#[test]
fn real_servers_on_other_hosts_answer_straight_out_as_the_eip() {
    Lab::run(|lab| {
        let stage = Stage::start(lab, Director::Nftables, UnderlayConfig::default())?;
        replies_leave_by_the_servers_hosts(&stage)?;
        // Both servers have a share.
        let pages = pages(stage.cluster.client(), EIP, 24)?;
        ensure!(pages.len() == stage.pages.len(), "only {pages:?} answered");
        let drops = stage.cluster.all_drops()?;
        ensure!(drops.is_empty(), "honest traffic was dropped: {drops:?}");
        Ok(())
    });
}

#[test]
fn real_servers_are_found_where_xdp_cannot_return_frames_and_eips_enter_anywhere() {
    Lab::run(|lab| {
        let underlay =
            UnderlayConfig { eips: EipReach::Routed, takes_xdp_frames: false, ..UnderlayConfig::default() };
        let stage = Stage::start(lab, Director::Nftables, underlay)?;
        for host in 1..=3 {
            stage.cluster.underlay().route_eips(&[host])?;
            replies_leave_by_the_servers_hosts(&stage).with_context(|| format!("in by hv{host}"))?;
        }
        Ok(())
    });
}

#[test]
fn a_director_that_fails_over_in_the_middle_of_a_stream_makes_no_loop() {
    Lab::run(|lab| fail_over(&Stage::start(lab, Director::Nftables, UnderlayConfig::default())?));
}

#[test]
fn a_connection_goes_on_when_the_director_fails_over_to_another_host() {
    Lab::run(|lab| connections_go_on(&Stage::start(lab, Director::Nftables, UnderlayConfig::default())?));
}

#[test]
fn ipvs_directs_to_real_servers_on_other_hosts_and_fails_over() {
    Lab::run(|lab| {
        if !has_ipvs(lab)? {
            let test = "ipvs_directs_to_real_servers_on_other_hosts_and_fails_over";
            skip(test, "needs IPVS in the kernel (`cargo xtask vm` has it)");
            return Ok(());
        }
        let stage = Stage::start(lab, Director::Ipvs, UnderlayConfig::default())?;
        replies_leave_by_the_servers_hosts(&stage)?;
        connections_go_on(&stage)?;
        fail_over(&stage)
    });
}

#[test]
fn a_real_server_takes_nothing_and_claims_nothing() {
    Lab::run(|lab| {
        let stage = Stage::start(lab, Director::Nftables, UnderlayConfig::default())?;
        let cluster = &stage.cluster;
        let real = cluster.guest("real")?;
        let before = cluster.drops(3, "claim_not_member")?;
        claim_at_once(real)?;
        poll_until(SOON, "the claim to be dropped", || {
            (cluster.drops(3, "claim_not_member").ok()? > before).then_some(())
        })?;
        ensure!(cluster.vipd(3)?.owner(VIP_ID)?.as_deref() == Some("first"), "a real server owns the VIP");
        Ok(())
    });
}
