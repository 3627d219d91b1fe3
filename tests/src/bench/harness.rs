//! The harness: a program that makes a packet anew and enters the program under test, run by the kernel's test run.

use std::io::ErrorKind;

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf,
    maps::{Array, MapData, ProgramArray},
    programs::{
        ProgramError, ProgramFd, SchedClassifier, TestRun as _, TestRunAttrs, TestRunOptions, TestRunResult,
        Xdp,
    },
};
use nix::time::{ClockId, clock_gettime};
use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes as _};

/// Bytes of a frame without FCS.
pub(super) const FRAME: usize = 60;

/// Bytes of `struct state`.
const STATE: usize = size_of::<State>();

/// `struct state` of harness.bpf.c, where its fields are explained.
#[derive(
    Clone, Copy, Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
)]
#[repr(C)]
pub(super) struct State {
    random: u64,
    failed: u64,
    pub(super) count: u32,
    pub(super) offset: u32,
    pub(super) step: u32,
    pub(super) first: u32,
    pub(super) multiplier: u32,
    pub(super) mask: u32,
    pub(super) next: u32,
    pub(super) stride: u32,
    ip_sum: u32,
    transport_sum: u32,
    frame: [u8; 64],
}

impl State {
    /// A frame with address 0 in its place, otherwise whole; its checksums are taken as those of the address 0.
    pub(super) fn new(frame: &[u8]) -> Result<Self> {
        let stored = |offset: usize| -> Option<u32> {
            let bytes: [u8; 2] = frame.get(offset..offset + 2)?.try_into().ok()?;
            Some(u32::from(!u16::from_ne_bytes(bytes)))
        };
        let mut state = Self::new_zeroed();
        state.frame.get_mut(..FRAME).zip(Some(frame)).context("a frame's room")?.0.copy_from_slice(
            frame.get(..FRAME).filter(|whole| whole.len() == frame.len()).with_context(|| {
                format!("the harness makes frames of {FRAME} bytes, not of {}", frame.len())
            })?,
        );
        let (ip_sum, transport_sum) = stored(24).zip(stored(40)).context("a frame's checksums")?;
        Ok(Self { step: 1, multiplier: 1, mask: u32::MAX, ip_sum, transport_sum, ..state })
    }

    /// The same, for entry `number` alone.
    pub(super) const fn only(self, number: u32) -> Self {
        Self { count: 1, offset: number, next: 0, stride: 0, ..self }
    }
}

/// Which kind of program is under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// XDP.
    Xdp,
    /// TC.
    Tc,
}

/// What runs of a program left.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// Return code of the last run.
    pub(super) code: u32,
    /// The packet after the last run.
    pub(super) packet: Vec<u8>,
    /// Processor time of all runs, in nanoseconds.
    pub(super) time: f64,
    /// The harness's state after the last run.
    pub(super) state: State,
}

/// `struct __sk_buff` of linux/bpf.h as far as this goes; the kernel takes the rest as zero.
#[derive(Default, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C)]
struct SkBuffHead {
    /// len, pkt_type, mark, queue_mapping, protocol, vlan_present, vlan_tci, vlan_proto, priority.
    before: [u32; 9],
    ingress_ifindex: u32,
    ifindex: u32,
}

/// The loaded harness of one hook.
pub(super) struct Harness {
    hook: Hook,
    ebpf: Ebpf,
    state: Array<MapData, [u8; STATE]>,
    under_test: ProgramArray<MapData>,
    /// So that no two samples draw the same addresses.
    seed: u64,
}

impl Harness {
    /// Loads the harness's programs of a hook. A table of programs serves one kind of program, so each hook has its own.
    pub(super) fn load(object: &[u8], hook: Hook) -> Result<Self> {
        let mut ebpf = Ebpf::load(object).context("the kernel refuses the harness")?;
        let state = ebpf.take_map("STATE").context("the harness has no map STATE")?.try_into()?;
        let under_test =
            ebpf.take_map("UNDER_TEST").context("the harness has no map UNDER_TEST")?.try_into()?;
        let prefix = if hook == Hook::Xdp { "xdp_" } else { "tc_" };
        for (name, program) in ebpf.programs_mut().filter(|(name, _)| name.starts_with(prefix)) {
            match hook {
                Hook::Xdp => <&mut Xdp>::try_from(program)?.load(),
                Hook::Tc => <&mut SchedClassifier>::try_from(program)?.load(),
            }
            .with_context(|| format!("the verifier refuses {name} of the harness"))?;
        }
        Ok(Self { hook, ebpf, state, under_test, seed: 0x9e37_79b9_7f4a_7c15 })
    }

    /// Puts a program under test.
    pub(super) fn enter(&mut self, program: &ProgramFd) -> Result<()> {
        self.under_test.set(0, program, 0).context("the program under test cannot be entered")
    }

    /// Runs it `repeat` times with packets of a state, through the harness's program of this name. A TC program sees them as
    /// received by the interface `ifindex`.
    pub(super) fn run(&mut self, name: &str, state: &State, ifindex: u32, repeat: u32) -> Result<Outcome> {
        // Any odd number in this place has the generator pass through all numbers in the end (Steele et al., SplitMix).
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let state = State { random: self.seed | 1, ..*state };
        let bytes: [u8; STATE] = state.as_bytes().try_into().context("the state's size")?;
        self.state.set(0, bytes, 0)?;
        let mut packet = vec![0; FRAME * 2];
        let blank = [0; FRAME];
        let context = SkBuffHead { ingress_ifindex: ifindex, ifindex, ..SkBuffHead::default() };
        let mut options = TestRunOptions::new();
        options.data_in = Some(&blank);
        options.data_out = Some(&mut packet);
        options.repeat = repeat;
        let program = self.ebpf.program_mut(name).with_context(|| format!("the harness has no {name}"))?;
        let begin = thread_time()?;
        let result: Result<TestRunResult, _> = match self.hook {
            Hook::Xdp => <&mut Xdp>::try_from(program)?.test_run(options),
            Hook::Tc => {
                options.ctx_in = Some(context.as_bytes());
                <&mut SchedClassifier>::try_from(program)?.test_run(options)
            }
        };
        let time = thread_time()? - begin;
        let result = result.with_context(|| format!("the kernel does not run {name} of the harness"))?;
        packet.truncate(usize::try_from(result.data_size_out)?);
        let after = self.state.get(&0, 0)?;
        let state = State::read_from_bytes(&after).ok().context("the state's size")?;
        ensure!(state.failed == 0, "{} of {repeat} runs did not enter the program under test", state.failed);
        Ok(Outcome { code: result.return_value, packet, time, state })
    }
}

/// A generator: sends frames of its own out of an interface of the calling thread's namespace.
pub(super) struct Generator {
    ebpf: Ebpf,
    state: Array<MapData, [u8; STATE]>,
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

/// Frames of a batch: as many as a network driver takes at once.
const BATCH: u32 = 64;

impl Generator {
    /// Loads a generator of frames of a state, in an order of its own for each `seed`.
    pub(super) fn load(object: &[u8], state: &State, seed: u64) -> Result<Self> {
        let mut ebpf = Ebpf::load(object).context("the kernel refuses the generator")?;
        let map = ebpf.take_map("STATE").context("the generator has no map STATE")?;
        let mut generator = Self { state: map.try_into()?, ebpf };
        let state = State { random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, ..*state };
        generator.state.set(0, <[u8; STATE]>::try_from(state.as_bytes())?, 0)?;
        generator.program()?.load().context("the verifier refuses the generator")?;
        Ok(generator)
    }

    fn program(&mut self) -> Result<&mut Xdp> {
        let program = self.ebpf.program_mut("generator").context("the harness has no generator")?;
        Ok(program.try_into()?)
    }

    /// Sends frames out of an interface that has a receiver for them, until a signal comes.
    pub(super) fn send(&mut self, ifindex: u32, frames: u32) -> Result<()> {
        let blank = [0; FRAME];
        let length = u32::try_from(FRAME)?;
        let context = XdpMd { data_end: length, ingress_ifindex: ifindex, ..XdpMd::default() };
        let mut options = TestRunOptions::new();
        options.data_in = Some(&blank);
        options.ctx_in = Some(context.as_bytes());
        options.repeat = frames;
        options.attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
        match self.program()?.test_run(options) {
            Ok(_) => Ok(()),
            Err(ProgramError::SyscallError(error)) if error.io_error.kind() == ErrorKind::Interrupted => {
                Ok(())
            }
            Err(error) => Err(error).context("the kernel sends no live frames (Linux 5.18 or later does)"),
        }
    }
}

/// Processor time of this thread, in nanoseconds: what others take of the machine is not in it.
fn thread_time() -> Result<f64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("cannot read the thread's clock")?;
    #[expect(clippy::cast_precision_loss, reason = "52 bits of nanoseconds are 52 days")]
    Ok(time.tv_sec() as f64 * 1e9 + time.tv_nsec() as f64)
}
