//! Three namespaces in a row: generator, hypervisor, guests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::xdp::XdpLink;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    sys::{
        pthread::{pthread_kill, pthread_self},
        signal::Signal,
    },
    unistd::Pid,
};

use super::super::{
    harness::{Generator, State},
    peers::{Peers, Seen},
    world,
};
use crate::{Lab, Netns};

/// Interface index of the generator's end of the uplink.
const GENERATOR: u32 = 91;

/// Frames of one call, some seconds of them: each call begins and ends with a pause, so a window must lie within one. A signal
/// ends it earlier.
const FRAMES: u32 = 50_000_000;

/// The signal that ends a generator's call.
const STOP: Signal = Signal::SIGUSR1;

/// Before a window begins: caches and queues settle.
const SETTLE: Duration = Duration::from_millis(150);

/// The namespaces.
pub(super) struct Wire {
    generator: Netns,
    /// The hypervisor.
    pub(super) host: Netns,
    guests: Netns,
    /// Keeps the sink at the guests' ends.
    sinks: Vec<XdpLink>,
}

impl Wire {
    /// Makes namespaces and cables. Each interface has a queue for each of two processors, as NICs have.
    pub(super) fn build(lab: &Lab) -> Result<Self> {
        let [generator, host, guests] = ["generator", "hypervisor", "guests"].map(|name| lab.add_netns(name));
        let (generator, host, guests) = (generator?, host?, guests?);
        for netns in [&generator, &host, &guests] {
            // An interface that comes up would speak IPv6 by itself.
            netns.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        }
        const QUEUES: &str = "numtxqueues 2 numrxqueues 2";
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
        let stop = Arc::new(AtomicBool::new(false));
        // A handler, because a signal without one would end the process or not interrupt the call.
        let handler = signal_hook::flag::register(STOP as i32, Arc::new(AtomicBool::new(false)))?;
        let begin = seen()?;
        let rate = thread::scope(|scope| {
            let senders: Vec<_> = (0..cores)
                .map(|core| {
                    let stop = &stop;
                    let (tell, told) = mpsc::channel();
                    let sender = scope.spawn(move || {
                        self.generator.exec(move || {
                            pin(core)?;
                            let mut generator = Generator::load(object, state, core as u64 + 1)?;
                            tell.send(pthread_self()).context("nobody waits for the generator")?;
                            while !stop.load(Ordering::Relaxed) {
                                generator.send(GENERATOR, FRAMES)?;
                            }
                            Ok(())
                        })
                    });
                    (sender, told)
                })
                .collect();
            let mut threads = Vec::new();
            let mut started = Ok(());
            for (_, told) in &senders {
                // One that fails hangs up.
                match told.recv() {
                    Ok(thread) => threads.push(thread),
                    Err(error) => started = Err(error),
                }
            }
            let counted = started.map_err(anyhow::Error::from).and_then(|()| count(window, &seen));
            stop.store(true, Ordering::Relaxed);
            for (thread, (sender, _)) in threads.into_iter().zip(&senders) {
                // Again and again: a signal may arrive just before a call begins.
                while !sender.is_finished() {
                    pthread_kill(thread, STOP).context("cannot stop a generator")?;
                    thread::sleep(Duration::from_millis(2));
                }
            }
            for (sender, _) in senders {
                sender.join().map_err(|_| anyhow::anyhow!("a generator panicked"))??;
            }
            counted
        });
        signal_hook::low_level::unregister(handler);
        let rate = rate?;
        // What is under way still arrives.
        thread::sleep(Duration::from_millis(10));
        let all = seen()?.since(begin);
        ensure!(rate > 0.0, "nothing arrived at the guests: {all:?}");
        Ok((rate, all))
    }
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

/// Keeps the calling thread on one processor.
fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("no processor {core} for a generator"))
}
