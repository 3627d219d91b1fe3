//! Packets that are too long for the underlay once they are inside VXLAN.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use vip_lab::{
    Cluster, ClusterConfig, EipReach, Lab, Netns,
    cluster::{APP, FIRST, Placed, SECOND},
    poll_until,
    scene::EIP,
    underlay::UnderlayConfig,
};

use crate::stage::{SOON, take};

/// What is left of an underlay of 1500.
const LEFT: u32 = 1450;

/// ICMP and IPv4 headers of an echo.
const HEADERS: u32 = 28;

const APPLICATION: Placed = Placed {
    name: "application",
    host: 2,
    subnet: APP,
    address: Ipv4Addr::new(192, 168, 8, 5),
    gro: false,
    checked: true,
};

fn narrow(lab: &Lab, takes_xdp_frames: bool) -> Result<Cluster> {
    let underlay = UnderlayConfig { mtu: 1500, takes_xdp_frames, eips: EipReach::Routed };
    let cluster =
        Cluster::start(lab, ClusterConfig { underlay, ..ClusterConfig::usual().with(APPLICATION) })?;
    for guest in cluster.config().guests.iter().map(|guest| guest.name) {
        cluster.guest(guest)?.netns().sysctl("net/ipv4/icmp_ratelimit", "0")?;
    }
    Ok(cluster)
}

/// Echoes with packets of so many bytes; whether all came back, and what ping says.
fn echo(from: &Netns, to: Ipv4Addr, packet: u32, discovery: &str) -> Result<(bool, String)> {
    let (to, bytes) = (to.to_string(), (packet - HEADERS).to_string());
    let report =
        from.run(&["ping", "-c", "2", "-i", "0.2", "-W", "2", "-M", discovery, "-s", &bytes, &to])?;
    let whole = report.stdout.contains("2 packets transmitted, 2 received");
    Ok((whole, report.to_string()))
}

/// One that is too long is told what fits; that fits; and what may be cut arrives.
fn told(from: &Netns, to: Ipv4Addr, teller: Ipv4Addr) -> Result<()> {
    let (came_back, said) = echo(from, to, 1500, "do")?;
    ensure!(!came_back, "1500 bytes and VXLAN passed 1500: {said}");
    ensure!(said.contains(&format!("From {teller}")), "somebody else than {teller} told it: {said}");
    poll_until(SOON, &format!("the path's MTU in {}", from.label()), || {
        from.ip(&format!("route get {to}")).ok()?.contains(&format!("mtu {LEFT} ")).then_some(())
    })
    .context(said)?;
    let (came_back, said) = echo(from, to, LEFT, "do")?;
    ensure!(came_back, "{LEFT} bytes do not fit: {said}");
    let (came_back, said) = echo(from, to, 4000, "dont")?;
    ensure!(came_back, "what may be cut does not arrive: {said}");
    Ok(())
}

fn guests_are_told(lab: &Lab, takes_xdp_frames: bool) -> Result<()> {
    let cluster = narrow(lab, takes_xdp_frames)?;
    let first = cluster.guest("first")?.netns();
    // From one subnet to another it is the gateway that tells.
    told(first, APPLICATION.address, FIRST.subnet.gateway)?;
    // Inside the subnet there is none on the way, but a packet that vanishes would be worse.
    told(first, SECOND.address, FIRST.subnet.gateway)
}

#[test]
fn guests_are_told_what_fits_into_vxlan_and_the_rest_is_cut() {
    Lab::run(|lab| guests_are_told(lab, true));
}

#[test]
fn clients_are_told_by_the_eip_what_fits_on_the_way_to_the_owners_host() {
    for takes_xdp_frames in [true, false] {
        Lab::run(|lab| {
            let cluster = narrow(lab, takes_xdp_frames)?;
            take(&cluster, "first")?;
            // It enters at the third host, and goes on to the first.
            cluster.underlay().route_eips(&[3])?;
            told(cluster.client(), EIP, EIP)
        });
    }
}

#[test]
fn a_roomy_underlay_takes_all_that_guests_send() {
    Lab::run(|lab| {
        let cluster = Cluster::start(lab, ClusterConfig::usual().with(APPLICATION))?;
        for to in [SECOND.address, APPLICATION.address] {
            let (came_back, said) = echo(cluster.guest("first")?.netns(), to, 1500, "do")?;
            ensure!(came_back, "1500 bytes do not fit into 1550: {said}");
        }
        // vipd follows the uplink's MTU.
        cluster.set_underlay_mtu(1500)?;
        poll_until(SOON, "the guest to be told of a smaller MTU", || {
            let (came_back, _) =
                echo(cluster.guest("first").ok()?.netns(), SECOND.address, 1500, "do").ok()?;
            let route =
                cluster.guest("first").ok()?.netns().ip(&format!("route get {}", SECOND.address)).ok()?;
            (!came_back && route.contains(&format!("mtu {LEFT} "))).then_some(())
        })
    });
}
