//! Long pages by curl across a narrow link outside, whose router tells of it or keeps it to itself.

use std::{fs, net::Ipv4Addr, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use vip_lab::{EipReach, Lab, Netns, Nginx, poll_until, scene::Scene};

use crate::stage::{FAR, Far, Inside, NARROW, SOON, insides, start};

/// Lines of the page: it takes many segments.
const LINES: usize = 10_000;

/// How long a transfer may take: with a few timeouts of TCP in it.
const TRANSFER: Duration = Duration::from_secs(60);

/// Timeouts of one connection after which a sender that looks for the path's MTU has long begun to (see [`probe`]).
const TIMEOUTS: u64 = 5;

/// A text that is the same at no two places.
fn page() -> String {
    let lines: Vec<_> = (0..LINES).map(|line| format!("This is line {line} of a long page.")).collect();
    lines.join("\n")
}

fn curl(from: &Netns, source: Ipv4Addr, words: &[&str]) -> Result<()> {
    let source = source.to_string();
    let common = ["curl", "--silent", "--show-error", "--fail", "--interface", &source, "--max-time", "50"];
    let output = from.run_within(TRANSFER, &[&common, words].concat())?;
    ensure!(output.status.success(), "curl from {} failed: {output}", from.label());
    Ok(())
}

/// Fetches the page of a server and fails unless it is the one.
fn download(from: &Netns, source: Ipv4Addr, server: Ipv4Addr, page: &str) -> Result<()> {
    let file = from.directory().join(format!("{}-page", from.label()));
    curl(from, source, &["--output", text(&file)?, &format!("http://{server}/")])?;
    let shown = fs::read(&file).context("curl wrote no file")?;
    ensure!(shown == page.as_bytes(), "{} bytes came from {server}, and not the page", shown.len());
    fs::remove_file(&file).context("cannot remove what curl wrote")
}

/// Puts the page on a server and fails unless it is there.
fn upload(from: &Netns, source: Ipv4Addr, server: (&Nginx, Ipv4Addr), page: &str) -> Result<()> {
    let name = format!("by-{}-{source}", from.label());
    let file = from.directory().join(&name);
    fs::write(&file, page).context("cannot write what is to be uploaded")?;
    curl(from, source, &["--upload-file", text(&file)?, &format!("http://{}/put/{name}", server.1)])?;
    let there = server.0.uploaded(&name)?;
    ensure!(there == page.as_bytes(), "{} bytes came to {}, and not the page", there.len(), server.1);
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is no UTF-8 path", path.display()))
}

/// Whether the guest knows what the way to the far client carries.
fn has_learned(inside: Inside<'_>) -> Result<bool> {
    let route = inside.guest.netns().ip(&format!("route get {FAR} from {}", inside.address))?;
    Ok(route.contains(&format!("mtu {NARROW}")))
}

fn forget(inside: Inside<'_>) -> Result<()> {
    inside.guest.netns().ip("route flush cache")?;
    ensure!(!has_learned(inside)?, "{} has forgotten nothing", inside.guest.name());
    Ok(())
}

/// Sets what a guest does when nothing it sends is acknowledged: look for the path's MTU (RFC 4821), or not. It takes the second
/// timeout for a reason, not the third.
fn probe(inside: Inside<'_>, mode: &str) -> Result<()> {
    inside.guest.netns().sysctl("net/ipv4/tcp_mtu_probing", mode)?;
    inside.guest.netns().sysctl("net/ipv4/tcp_retries1", "1")
}

/// The scene, a far client, and the page on servers of all ends.
fn run(body: impl FnOnce(&Scene, &Far, &str) -> Result<()>) {
    Lab::run(|lab| {
        let scene = start(lab, EipReach::Routed)?;
        let far = Far::add(lab, &scene)?;
        body(&scene, &far, &page())
    });
}

#[test]
fn pages_cross_a_narrow_link_that_is_told_of_both_ways() {
    run(|scene, far, page| {
        let there = Nginx::start_in(&far.netns, page)?;
        for inside in insides(scene) {
            let netns = inside.guest.netns();
            let here = Nginx::start(inside.guest, page)?;
            probe(inside, "0")?;

            ensure!(!has_learned(inside)?, "{} knew before", inside.guest.name());
            download(&far.netns, FAR, inside.eip, page).context("from the guest's server")?;
            ensure!(has_learned(inside)?, "{} served without learning", inside.guest.name());
            forget(inside)?;
            upload(netns, inside.address, (&there, FAR), page).context("from the guest")?;
            ensure!(has_learned(inside)?, "{} uploaded without learning", inside.guest.name());

            upload(&far.netns, FAR, (&here, inside.eip), page).context("to the guest's server")?;
            download(netns, inside.address, FAR, page).context("to the guest")?;
        }
        Ok(())
    });
}

#[test]
fn a_guest_that_probes_gets_pages_across_a_narrow_link_that_nobody_tells_of() {
    run(|scene, far, page| {
        far.silence()?;
        let there = Nginx::start_in(&far.netns, page)?;
        for inside in insides(scene) {
            let _here = Nginx::start(inside.guest, page)?;
            probe(inside, "1")?;
            let before = far.untold()?;
            download(&far.netns, FAR, inside.eip, page).context("from the guest's server")?;
            let between = far.untold()?;
            upload(inside.guest.netns(), inside.address, (&there, FAR), page).context("from the guest")?;
            ensure!(before < between && between < far.untold()?, "the link was wide enough");
            ensure!(!has_learned(inside)?, "{} was told", inside.guest.name());
        }
        Ok(())
    });
}

#[test]
fn a_guest_that_does_not_probe_gets_nothing_across_a_narrow_link_that_nobody_tells_of() {
    run(|scene, far, page| {
        far.silence()?;
        for inside in insides(scene) {
            let netns = inside.guest.netns();
            let _here = Nginx::start(inside.guest, page)?;
            probe(inside, "0")?;
            let file = far.netns.directory().join(format!("nothing-{}", inside.guest.name()));
            let before = netns.counter("TcpExt", "TCPTimeouts")?;
            let address = format!("http://{}/", inside.eip);
            let mut curl =
                far.netns.spawn("curl", &["curl", "--silent", "--output", text(&file)?, &address])?;
            poll_until(TRANSFER, "timeouts of the guest's connection", || {
                (netns.counter("TcpExt", "TCPTimeouts").ok()? >= before + TIMEOUTS).then_some(())
            })?;
            curl.must_run().context("curl has ended")?;
            ensure!(far.untold()? >= TIMEOUTS, "the link was wide enough");
            ensure!(!has_learned(inside)?, "{} was told", inside.guest.name());
            let length = file.metadata().map_or(0, |file| file.len());
            ensure!(length == 0, "{length} bytes came across");
            curl.stop(SOON)?;
        }
        Ok(())
    });
}
