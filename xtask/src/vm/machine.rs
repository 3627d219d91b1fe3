//! One boot in QEMU.
//!
//! The machine has two network cards that are wired to each other through a bridge in a network namespace of this
//! machine, which is made for the boot and vanishes with it. Nothing the machine sends leaves that namespace.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use vip_lab::{Lab, Netns, virtio};

use crate::vm::report::{Report, Shown};

const QEMU: &str = "qemu-system-x86_64";

/// Processors of the machine.
const PROCESSORS: u32 = 2;
/// Queue pairs of each card: one for each processor, and one more for each that native XDP sends on.
const QUEUES: u32 = 2 * PROCESSORS;
/// Interrupts of each card: two for each queue pair, control queue, configuration.
const VECTORS: u32 = 2 * QUEUES + 2;

/// The processor that is emulated. Without cmpxchg16b, for which kernels have a substitute: QEMU 7.2 computes flags from a
/// stale state after it, and kernels die of that in kmem_cache_alloc (seen with 6.12).
const EMULATED: &str = "max,-cx16";

/// Emulation by one thread for both processors: with a thread for each, QEMU before 8.1 may run code for ever as it was while
/// another processor rewrote it, and kernels die of a breakpoint of their own (`Oops: int3`, seen with 6.12 in
/// bpf_dispatcher_xdp_func, which is rewritten whenever an XDP program changes).
const EMULATION: &str = "tcg,thread=single";

/// What makes a card deliver what a real wire carries: complete checksums, and frames of the MTU's size.
const AS_A_WIRE: &str = ",guest_csum=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off";

/// What QEMU ends with when the machine was switched off with status 16, that of a plan run to its end: (16 << 1) | 1.
const SWITCHED_OFF: i32 = 33;

/// How long a boot may take in all, and how long nothing may be heard of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// From start to end.
    pub(crate) total: Duration,
    /// Between two lines.
    pub(crate) silence: Duration,
}

/// Boots a kernel with its first file system, shows what it says, and gives the report of a plan that was run to its end.
pub(crate) fn boot(kernel: &Path, image: &Path, limits: Limits) -> Result<Report> {
    let lab = Lab::new()?;
    let wires = wires(&lab)?;
    let begin = Instant::now();
    let mut machine = Machine(start(&wires, kernel, image)?);
    let stdout = machine.0.stdout.take().context("QEMU without an output")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            // A receiver that is gone has seen enough.
            let _ = sender.send(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned());
        }
    });
    let mut report = Report::default();
    loop {
        let left = limits.total.saturating_sub(begin.elapsed());
        match lines.recv_timeout(limits.silence.min(left)) {
            Ok(line) => show(&report.read(&line), begin),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let running = report.running.as_deref().unwrap_or("the kernel");
                if left.is_zero() {
                    bail!("{running} ran when the machine's {} s were over", limits.total.as_secs());
                }
                bail!("{running} hangs: nothing was heard for {} s", limits.silence.as_secs());
            }
        }
    }
    let status = machine.0.wait().context("cannot wait for QEMU")?;
    if let Some(broken) = &report.broken {
        bail!("the machine gave up: {broken}");
    }
    if !report.done || status.code() != Some(SWITCHED_OFF) {
        let running = report.running.as_deref().unwrap_or("nothing of ours");
        bail!(
            "QEMU ended with {status} while {running} ran: a crash of the kernel, whose last lines are above, or an \
             error of QEMU's own"
        );
    }
    Ok(report)
}

/// Whether this machine's processor can be lent to the guest: only where the module of its maker is loaded. A kernel with
/// another implementation has `/dev/kvm` too, and does not boot everything.
pub(crate) fn has_kvm() -> bool {
    let modules = fs::read_to_string("/proc/modules").unwrap_or_default();
    modules.lines().any(|line| line.starts_with("kvm_intel ") || line.starts_with("kvm_amd "))
        && fs::File::options().read(true).write(true).open("/dev/kvm").is_ok()
}

/// A namespace with two tap devices, one for each card, in a bridge.
fn wires(lab: &Lab) -> Result<Netns> {
    let netns = lab.add_netns("wires")?;
    netns.ip("link add name br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0")?;
    netns.sysctl("net/ipv6/conf/br0/disable_ipv6", "1")?;
    netns.ip("link set dev br0 up")?;
    for tap in ["card0", "card1"] {
        netns.ip(&format!("tuntap add dev {tap} mode tap multi_queue vnet_hdr"))?;
        netns.sysctl(&format!("net/ipv6/conf/{tap}/disable_ipv6"), "1")?;
        netns.ip(&format!("link set dev {tap} master br0 up"))?;
    }
    Ok(netns)
}

fn start(wires: &Netns, kernel: &Path, image: &Path) -> Result<Child> {
    let accelerator: &[&str] =
        if has_kvm() { &["-accel", "kvm", "-cpu", "host"] } else { &["-accel", EMULATION, "-cpu", EMULATED] };
    let mut qemu = wires.command(QEMU);
    qemu.args(accelerator)
        .args(["-machine", "q35", "-m", "2G", "-display", "none", "-serial", "stdio", "-monitor", "none"])
        .args(["-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-smp", &PROCESSORS.to_string()])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"])
        .args([
            "-append",
            "console=ttyS0 panic=-1 oops=panic net.ifnames=0 quiet loglevel=4 mitigations=off tsc=reliable",
        ])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(image);
    let cards = [(virtio::UPLINK_MAC, ""), (virtio::OUTSIDE_MAC, AS_A_WIRE)];
    for (number, (mac, features)) in cards.into_iter().enumerate() {
        qemu.arg("-netdev").arg(format!(
            "tap,id=n{number},ifname=card{number},script=no,downscript=no,vhost=off,queues={QUEUES}"
        ));
        qemu.arg("-device")
            .arg(format!("virtio-net-pci,netdev=n{number},mac={mac},mq=on,vectors={VECTORS}{features}"));
    }
    qemu.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run {QEMU}"))
}

fn show(shown: &Shown<'_>, begin: Instant) {
    let seconds = begin.elapsed().as_secs();
    match shown {
        Shown::Line(line) => println!("{line}"),
        Shown::Booted(release) => println!("Linux {release} has booted after {seconds} s"),
        Shown::Begin(name) => println!("\n--> {name} (at {seconds} s)"),
        Shown::Nothing => {}
    }
}

/// QEMU, which does not outlive the look at it.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // An error means that it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
