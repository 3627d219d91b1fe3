//! Three namespaces in a row: generator, hypervisor, guests.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use aya::programs::xdp::XdpLink;

use super::super::{
    generator::{Generator, while_sending},
    harness::State,
    peers::{Peers, Seen},
    world,
};
use crate::{Lab, Netns, poll_until};

/// Interface index of the generator's end of the uplink.
const GENERATOR: u32 = 91;

/// Before a window begins: caches and queues settle.
const SETTLE: Duration = Duration::from_millis(150);

/// How long frames may be under way once nothing is sent any more.
const LAST_ARRIVAL: Duration = Duration::from_secs(5);

/// The namespaces.
pub(super) struct Wire {
    generator: Netns,
    /// The hypervisor.
    pub(super) host: Netns,
    guests: Netns,
    /// Keeps the sink at the guests' ends.
    sinks: Vec<XdpLink>,
}

/// A queue for each of two processors.
const QUEUES: &str = "numtxqueues 2 numrxqueues 2";

impl Wire {
    /// Makes namespaces and cables. Each interface has a queue for each of two processors, as NICs have.
    pub(super) fn build(lab: &Lab) -> Result<Self> {
        let [generator, host, guests] = ["generator", "hypervisor", "guests"].map(|name| lab.add_netns(name));
        let (generator, host, guests) = (generator?, host?, guests?);
        for netns in [&generator, &host, &guests] {
            // An interface that comes up would speak IPv6 by itself.
            netns.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        }
        host.ip(&format!(
            "link add eth0 index {} address {} {QUEUES} type veth peer name eth0 index {GENERATOR} address {} {QUEUES} netns {}",
            world::UPLINK, world::UPLINK_MAC, world::ROUTER_MAC, generator.name()
        ))?;
        for port in 0..world::PORTS {
            let index = world::port_interface(port);
            host.ip(&format!(
                "link add port{port} index {index} {QUEUES} type veth peer name guest{port} index {index} address {} {QUEUES} netns {}",
                world::port_mac(port), guests.name()
            ))?;
            host.ip(&format!("link set port{port} up"))?;
            guests.ip(&format!("link set guest{port} up"))?;
        }
        host.ip("link set eth0 up")?;
        generator.ip("link set eth0 up")?;
        Ok(Self { generator, host, guests, sinks: Vec::new() })
    }

    /// Puts the sink at all guests' ends.
    pub(super) fn add_sinks(&mut self, peers: &mut Peers) -> Result<()> {
        self.sinks.clear();
        self.sinks = self.guests.exec(|| {
            (0..world::PORTS).map(|port| peers.attach("sink", world::port_interface(port))).collect()
        })?;
        Ok(())
    }

    /// Lets `cores` generators send for a while, and gives what the sink saw in `window`, per second, and in all.
    pub(super) fn measure(
        &self,
        object: &[u8],
        state: &State,
        cores: usize,
        window: Duration,
        seen: impl Fn() -> Result<Seen>,
    ) -> Result<(f64, Seen)> {
        let begin = seen()?;
        let generators: Vec<_> = (0..cores)
            .map(|core| Generator {
                netns: self.generator.clone(),
                ifindex: GENERATOR,
                program: "send_to",
                state: *state,
                core,
            })
            .collect();
        let rate = while_sending(object, &generators, || count(window, &seen))?;
        let all = settled(&seen)?.since(begin);
        ensure!(rate > 0.0, "nothing arrived at the guests: {all:?}");
        Ok((rate, all))
    }
}

/// What the sink saw once nothing is under way any more: two looks agree.
fn settled(seen: &impl Fn() -> Result<Seen>) -> Result<Seen> {
    let mut before = None;
    poll_until(LAST_ARRIVAL, "the last frames to arrive at the sink", || match seen() {
        Ok(now) => (before.replace(now) == Some(now)).then_some(Ok(now)),
        error => Some(error),
    })?
}

/// Frames per second that arrive in a window of time.
fn count(window: Duration, seen: &impl Fn() -> Result<Seen>) -> Result<f64> {
    let total = |seen: Seen| seen.routed + seen.unchanged + seen.wrong;
    thread::sleep(SETTLE);
    // The clock last: this thread may have to wait for a processor.
    let (first, from) = (total(seen()?), Instant::now());
    thread::sleep(window);
    let (last, to) = (total(seen()?), Instant::now());
    #[expect(clippy::cast_precision_loss, reason = "some millions of frames")]
    Ok((last - first) as f64 / (to - from).as_secs_f64())
}
