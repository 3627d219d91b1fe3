//! How fast a guest sends through its EIP, against plain kernel routing in the same lab.

use anyhow::{Context as _, Result, ensure};
use vip_lab::{
    Announcement, EipReach, IperfServer, Lab, UNDERLAY_HOST,
    scene::{EIP, GATEWAY, PREFIX, Scene, VIP},
    skip, virtio,
};

use crate::{claim, ensure_default_offloads, ensure_pings, reached, say, throughput};

/// Runs of each kind that a median is taken of.
const RUNS: usize = 5;

/// A machine that does other things meanwhile gets another chance.
const ROUNDS: usize = 3;

/// What the forwarder has to reach of plain kernel routing.
const WANTED: f64 = 0.9;

#[test]
fn a_guest_sends_through_the_eip_nearly_as_fast_as_through_plain_kernel_routing() {
    if virtio::is_emulated() {
        skip(
            "a_guest_sends_through_the_eip_nearly_as_fast_as_through_plain_kernel_routing",
            virtio::NEEDS_REAL_PROCESSOR,
        );
        return;
    }
    Lab::run(|lab| {
        let mut scene = Scene::start(lab, reached(EipReach::Routed))?;
        scene.host.enable_forwarding()?;
        scene.outside.netns().ip(&format!("route add 192.168.4.0/{PREFIX} via {UNDERLAY_HOST}"))?;
        ensure_default_offloads(&scene.second)?;
        scene.second.add_vip_address(VIP)?;
        claim(&scene, &scene.second, Announcement::Request)?;
        let server = IperfServer::start(scene.second.netns(), 5201)?;

        let mut ratios = Vec::new();
        for _ in 0..ROUNDS {
            let (mut through_eip, mut routed) = (Vec::new(), Vec::new());
            // One, two, two, … of each in turn: interleaved, with half the changes.
            while routed.len() < RUNS {
                through_eip.push(throughput(&scene, &server, EIP, true)?);
                route_plainly(&mut scene)?;
                routed.push(throughput(&scene, &server, VIP, true)?);
                if routed.len() < RUNS {
                    routed.push(throughput(&scene, &server, VIP, true)?);
                }
                forward_again(&mut scene)?;
                if through_eip.len() < RUNS {
                    through_eip.push(throughput(&scene, &server, EIP, true)?);
                }
            }
            let (forwarded, plain) = (median(through_eip), median(routed));
            let ratio = forwarded / plain;
            say(&format!(
                "guest to client: {:.0} Mbit/s through the EIP, {:.0} Mbit/s by plain kernel routing: {ratio:.2}",
                forwarded / 1e6,
                plain / 1e6
            ))?;
            ratios.push(ratio);
            if ratio >= WANTED {
                return server.stop();
            }
        }
        anyhow::bail!("the forwarder reached {ratios:.2?} of plain kernel routing, not {WANTED}")
    });
}

/// Takes the forwarder away and lets the host's kernel route to the second guest.
fn route_plainly(scene: &mut Scene) -> Result<()> {
    scene.vipd.stop()?;
    let pins = scene.vipd.bpffs();
    let output = scene.vipd.vipctl_output(&["detach", "--bpffs", pins.to_str().context("UTF-8")?])?;
    ensure!(output.status.success(), "`vipctl detach` failed with {output}");
    scene.host.netns().ip(&format!("address add {GATEWAY}/{PREFIX} dev {}", scene.second.interface()))?;
    scene.second.netns().ip("neighbour flush all")?;
    ensure_pings(scene.outside.netns(), VIP).context("plain kernel routing")
}

/// The reverse of [`route_plainly`].
fn forward_again(scene: &mut Scene) -> Result<()> {
    scene.host.netns().ip(&format!("address delete {GATEWAY}/{PREFIX} dev {}", scene.second.interface()))?;
    scene.second.netns().ip("neighbour flush all")?;
    scene.vipd.begin()?;
    scene.vipd.ready()?;
    claim(scene, &scene.second, Announcement::Request)?;
    ensure_pings(scene.outside.netns(), EIP).context("through the EIP")
}

/// The value in the middle; of an even number the higher one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
