//! Frames that are really sent, from within the kernel (BPF_F_TEST_XDP_LIVE_FRAMES, Linux 5.18).

use std::{
    io::ErrorKind,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Ebpf,
    maps::Array,
    programs::{ProgramError, TestRun as _, TestRunAttrs, TestRunOptions, Xdp},
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    sys::{
        pthread::{pthread_kill, pthread_self},
        signal::Signal,
    },
    unistd::Pid,
};
use zerocopy::IntoBytes as _;

use super::harness::{FRAME, STATE, State};
use crate::Netns;

/// Frames of one call, some seconds of them: each call begins and ends with a pause, so what is measured must lie within
/// one. A signal ends it earlier.
const FRAMES: u32 = 50_000_000;

/// Frames of a batch: as many as a network driver takes at once.
const BATCH: u32 = 64;

/// The signal that ends a call.
const STOP: Signal = Signal::SIGUSR1;

/// Who sends what, and where from.
#[derive(Clone, Debug)]
pub(super) struct Generator {
    /// The namespace.
    pub(super) netns: Netns,
    /// The interface there (ifindex), a veth whose other end takes XDP frames.
    pub(super) ifindex: u32,
    /// Program of the harness's object.
    pub(super) program: &'static str,
    /// The frames.
    pub(super) state: State,
    /// The processor that sends, and handles what it sent.
    pub(super) core: usize,
}

/// `struct xdp_md` of linux/bpf.h.
#[derive(Default, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C)]
struct XdpMd {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

/// Does `work` while all generators send.
pub(super) fn while_sending<T>(
    object: &[u8],
    generators: &[Generator],
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    // A handler, because a signal without one would end the process or not interrupt the call.
    let handler = signal_hook::flag::register(STOP as i32, Arc::new(AtomicBool::new(false)))?;
    let stop = AtomicBool::new(false);
    let done = thread::scope(|scope| {
        let stop = &stop;
        let mut senders = Vec::new();
        let mut started = Vec::new();
        for (number, generator) in (1_u64..).zip(generators) {
            let (tell, told) = mpsc::channel();
            let send = move || {
                generator.netns.exec(move || {
                    let mut loaded = generator.load(object, number)?;
                    pin(generator.core)?;
                    tell.send(pthread_self()).context("nobody waits for the generator")?;
                    while !stop.load(Ordering::Relaxed) {
                        generator.send(&mut loaded)?;
                    }
                    Ok(())
                })
            };
            senders.push(scope.spawn(send));
            started.push(told);
        }
        let threads: Result<Vec<_>, _> = started.into_iter().map(|told| told.recv()).collect();
        let done = match &threads {
            Ok(_) => work(),
            // It hung up: its own error says more.
            Err(_) => Err(anyhow!("a generator did not start")),
        };
        stop.store(true, Ordering::Relaxed);
        for (thread, sender) in threads.into_iter().flatten().zip(&senders) {
            // Again and again: a signal may arrive just before a call begins.
            while !sender.is_finished() {
                pthread_kill(thread, STOP).context("cannot stop a generator")?;
                thread::sleep(Duration::from_millis(2));
            }
        }
        for sender in senders {
            sender.join().map_err(|_| anyhow!("a generator panicked"))??;
        }
        done
    });
    signal_hook::low_level::unregister(handler);
    done
}

impl Generator {
    /// Loads the program, with random numbers of its own for each `number`.
    fn load(&self, object: &[u8], number: u64) -> Result<Ebpf> {
        let mut ebpf = Ebpf::load(object).context("the kernel refuses the generator")?;
        let mut state: Array<_, [u8; STATE]> =
            ebpf.map_mut("STATE").context("the generator has no map STATE")?.try_into()?;
        state.set(0, self.state.seeded(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))?, 0)?;
        self.of(&mut ebpf)?.load().context("the verifier refuses the generator")?;
        Ok(ebpf)
    }

    fn of<'e>(&self, ebpf: &'e mut Ebpf) -> Result<&'e mut Xdp> {
        let program = ebpf.program_mut(self.program);
        Ok(program.with_context(|| format!("the harness has no {}", self.program))?.try_into()?)
    }

    /// Sends until a signal comes.
    fn send(&self, ebpf: &mut Ebpf) -> Result<()> {
        let blank = [0; FRAME];
        let length = u32::try_from(FRAME)?;
        let context = XdpMd { data_end: length, ingress_ifindex: self.ifindex, ..XdpMd::default() };
        let mut options = TestRunOptions::new();
        options.data_in = Some(&blank);
        options.ctx_in = Some(context.as_bytes());
        options.repeat = FRAMES;
        options.attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
        match self.of(ebpf)?.test_run(options) {
            Ok(_) => Ok(()),
            Err(ProgramError::SyscallError(error)) if error.io_error.kind() == ErrorKind::Interrupted => {
                Ok(())
            }
            Err(error) => Err(error).context("the kernel sends no live frames (Linux 5.18 or later does)"),
        }
    }
}

/// Keeps the calling thread on one processor.
fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("no processor {core} for a generator"))
}
