//! Two guests claim the same VIPs as fast as they can.

use std::{
    fmt::Write as _,
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    super::{
        Options, clang,
        generator::{Generator, while_sending},
        harness::{FRAME, State},
        progress,
        report::Section,
        stats::Spread,
    },
    CPU, RATE,
    process::{processor_share, settle},
};
use crate::{
    Binaries, EipReach, Guest, GuestConfig, Host, Lab, Mac, RawSender, Vipd, VipdConfig, frame::Arp,
    poll_until,
};

/// VIPs, as many as one port may own.
const VIPS: u32 = 10;

/// How long a claim may wait in the end.
const SETTLE: Duration = Duration::from_secs(30);

fn vip(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(192, 168, 5, 1)) + number)
}

pub(super) fn run(options: &Options, lab: &Lab, section: &mut Section) -> Result<()> {
    let object = clang::build(clang::HARNESS, lab.directory())?;
    let host = lab.add_host("storm")?;
    let _outside = host.add_outside(EipReach::OnLink)?;
    let guests = [
        ("a", "tap0", "02:00:00:00:09:01", "192.168.4.11/22"),
        ("b", "tap1", "02:00:00:00:09:02", "192.168.4.12/22"),
    ];
    let mut made = Vec::new();
    let mut state = String::from(
        "hosts:   [{ id: storm, vtep: 198.51.100.1 }]\nvpcs:    [{ id: blue, vni: 4001 }]\n\
         subnets: [{ id: web, vpc: blue, cidr: 192.168.4.0/22, gateway: 192.168.4.1 }]\nports:\n",
    );
    for (name, interface, mac, address) in guests {
        made.push(host.add_guest(&GuestConfig::new(&format!("storm-{name}"), interface, mac, address)?)?);
        // The host's end takes the generator's frames then.
        host.netns().check(&["ethtool", "-K", interface, "gro", "on"])?;
        let (address, _) = address.split_once('/').context("a prefix")?;
        writeln!(
            state,
            "  - {{ id: {name}, subnet: web, address: {address}, mac: \"{mac}\", host: storm, interface: {interface} }}"
        )?;
    }
    state.push_str("vips:\n");
    for number in 0..VIPS {
        writeln!(state, "  - {{ id: vip-{number}, subnet: web, address: {}, ports: [a, b] }}", vip(number))?;
    }
    let mut vipd = Vipd::start(&host, &Binaries::from_env()?, &VipdConfig::new("storm"), &state)?;
    vipd.ready()?;
    let pid = vipd.id().context("vipd was not started")?;
    let (idle, busy) = if options.short { (2, 1) } else { (10, 4) };

    progress!("d: an idle vipd, for {idle} s");
    settle(pid, Duration::from_secs(1))?;
    let (share, ()) = processor_share(pid, || {
        thread::sleep(Duration::from_secs(idle));
        Ok(())
    })?;
    section.tell("processor time of an idle vipd", &format!("{idle} s"), CPU, [share])?;

    progress!("d: two guests claim {VIPS} VIPs as fast as they can, for {busy} s");
    let generators = made.iter().map(generator).collect::<Result<Vec<_>>>()?;
    let before = (received(&host)?, epochs(&vipd)?);
    let begin = Instant::now();
    let (share, time) = processor_share(pid, || {
        while_sending(&object, &generators, || {
            thread::sleep(Duration::from_secs(busy));
            Ok(())
        })?;
        Ok(begin.elapsed().as_secs_f64())
    })?;
    let after = (received(&host)?, epochs(&vipd)?);
    let per_second = |from: u64, to: u64| {
        Spread::of(
            [to.saturating_sub(from)]
                .map(|number| f64::from(u32::try_from(number).unwrap_or(u32::MAX)) / time),
        )
    };
    let claims = per_second(before.0, after.0).context("no claims")?.median;
    let moves = per_second(before.1, after.1).context("no moves")?.median;
    let size = format!("{VIPS} VIPs");
    section.tell("claims handled, two guests on one core", &size, RATE, [claims])?;
    section.tell(
        "moves under that storm (damping lets one a second and VIP through)",
        &size,
        RATE,
        [moves],
    )?;
    section.tell("processor time of vipd under that storm", &size, CPU, [share])?;
    ensure!(claims > 0.0 && moves > 0.0, "the storm moved nothing: {before:?} to {after:?}");

    // The last claim wins in the end.
    let last = made.first().context("a guest")?;
    let sender = RawSender::new(last.netns(), "eth0")?;
    for number in 0..VIPS {
        sender.send(&Arp::gratuitous_request(last.mac(), vip(number)).frame(last.mac(), Mac::BROADCAST))?;
    }
    poll_until(SETTLE, "the last claimant to own all VIPs", || {
        // A packet or claim after the due time takes a waiting claim: this is one, and changes nothing else.
        let probe = Arp::gratuitous_request(last.mac(), vip(0)).frame(last.mac(), Mac::BROADCAST);
        sender.send(&probe).ok()?;
        (0..VIPS)
            .all(|number| {
                vipd.owner(&format!("vip-{number}")).is_ok_and(|owner| owner.as_deref() == Some("a"))
            })
            .then_some(())
    })?;
    section.verified.push(format!(
        "storm: {} claims reached the ports, epochs grew by {}; afterwards one claim for each of {VIPS} VIPs, the last, won",
        after.0 - before.0,
        after.1 - before.1
    ));
    Ok(())
}

/// Claims of all VIPs in turn by a guest.
fn generator(guest: &Guest) -> Result<Generator> {
    let mut frame =
        Arp::gratuitous_request(guest.mac(), Ipv4Addr::UNSPECIFIED).frame(guest.mac(), Mac::BROADCAST);
    frame.resize(FRAME, 0);
    let mut state = State::new(&frame)?;
    (state.count, state.stride, state.first) = (VIPS, 1, vip(0).into());
    let netns = guest.netns().clone();
    let shown: Value = serde_json::from_str(&netns.ip("-json link show dev eth0")?)?;
    let ifindex = shown.pointer("/0/ifindex").and_then(Value::as_u64).context("eth0 has no index")?;
    Ok(Generator { netns, ifindex: u32::try_from(ifindex)?, program: "send_claimed", state, core: 0 })
}

/// Frames that the host received from its guests.
fn received(host: &Host) -> Result<u64> {
    let shown: Value = serde_json::from_str(&host.netns().ip("-json -statistics link show")?)?;
    let links = shown.as_array().context("no interfaces")?.iter();
    let taps =
        links.filter(|link| link.get("ifname").and_then(Value::as_str).is_some_and(|n| n.starts_with("tap")));
    taps.map(|link| link.pointer("/stats64/rx/packets").and_then(Value::as_u64).context("no statistics"))
        .sum()
}

/// Moves of all VIPs so far.
fn epochs(vipd: &Vipd) -> Result<u64> {
    let listed = vipd.vipctl(&["get", "vips", "-o", "json"])?;
    Ok(listed
        .as_array()
        .context("no VIPs")?
        .iter()
        .filter_map(|vip| vip.pointer("/owner/epoch")?.as_u64())
        .sum())
}
