//! The harness: a program that makes a packet anew and enters the program under test, run by the kernel's test run.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    Ebpf,
    maps::{Array, MapData, ProgramArray},
    programs::{ProgramFd, SchedClassifier, TestRun as _, TestRunOptions, TestRunResult, Xdp},
};
use nix::time::{ClockId, clock_gettime};
use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes as _};

/// Bytes of a frame without FCS.
pub(super) const FRAME: usize = 60;

/// Bytes that VXLAN puts before it.
pub(super) const OUTER: usize = 50;

/// Bytes of the longest frame that the harness makes.
const LONGEST: usize = OUTER + FRAME;

/// Bytes of `struct state`.
pub(super) const STATE: usize = size_of::<State>();

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
    frame: [u8; 112],
}

impl State {
    /// The bytes of a map's value, with another start of the random numbers.
    pub(super) fn seeded(self, random: u64) -> Result<[u8; STATE]> {
        let state = Self { random: random | 1, ..self };
        state.as_bytes().try_into().context("the state's size")
    }

    /// A frame with address 0 in its place, otherwise whole, perhaps inside VXLAN; its checksums are taken as those of the address 0.
    pub(super) fn new(frame: &[u8]) -> Result<Self> {
        let stored = |offset: usize| -> Option<u32> {
            let bytes: [u8; 2] = frame.get(offset..offset + 2)?.try_into().ok()?;
            Some(u32::from(!u16::from_ne_bytes(bytes)))
        };
        let before = match frame.len() {
            FRAME => 0,
            LONGEST => OUTER,
            length => bail!("the harness makes frames of {FRAME} and {LONGEST} bytes, not of {length}"),
        };
        let mut state = Self::new_zeroed();
        state.frame.get_mut(..frame.len()).context("a frame's room")?.copy_from_slice(frame);
        let (ip_sum, transport_sum) =
            stored(before + 24).zip(stored(before + 40)).context("a frame's checksums")?;
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

/// A program of the harness, and how it is run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Its name.
    pub(super) name: &'static str,
    /// Bytes of the frames that it makes.
    pub(super) length: usize,
    /// How often one call runs it.
    pub(super) runs: Runs,
}

/// How the kernel runs a program many times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runs {
    /// All on one packet, which the harness makes anew: time is the thread's.
    Repeated,
    /// Each on a packet of its own, timed by the kernel: for programs of TC that encapsulate. The kernel remembers that a packet is in a tunnel,
    /// refuses to put it into another one, and nothing takes that back.
    Single,
}

impl Entry {
    /// Makes frames without VXLAN, one of which serves all runs.
    pub(super) const fn new(name: &'static str) -> Self {
        Self { name, length: FRAME, runs: Runs::Repeated }
    }

    /// Makes frames in VXLAN.
    pub(super) const fn tunnelled(name: &'static str) -> Self {
        Self { length: LONGEST, ..Self::new(name) }
    }

    /// The same, with a packet for each run.
    pub(super) const fn single(self) -> Self {
        Self { runs: Runs::Single, ..self }
    }
}

/// What runs of a program left.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// Return code of the last run.
    pub(super) code: u32,
    /// The packet after the last run.
    pub(super) packet: Vec<u8>,
    /// Time of all runs, in nanoseconds: what others take of the machine is not in it.
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

    /// Runs it `repeat` times with packets of a state, through this program of the harness. A TC program sees them as received by
    /// the interface `ifindex`.
    pub(super) fn run(&mut self, entry: Entry, state: &State, ifindex: u32, repeat: u32) -> Result<Outcome> {
        let Entry { name, length, runs } = entry;
        // Any odd number in this place has the generator pass through all numbers in the end (Steele et al., SplitMix).
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(0, state.seeded(self.seed)?, 0)?;
        // As it is received, because the kernel takes a packet's protocol from what it is given.
        let frame = state.frame.get(..length).context("a frame's length")?;
        let mut packet = vec![0; length + OUTER];
        let (result, time) = match runs {
            Runs::Repeated => {
                let begin = thread_time()?;
                let result = self.call(name, frame, ifindex, repeat, Some(&mut packet))?;
                (result, thread_time()? - begin)
            }
            Runs::Single => {
                let mut times = Vec::new();
                for _ in 1..repeat {
                    times.push(self.call(name, frame, ifindex, 1, None)?.duration);
                }
                let last = self.call(name, frame, ifindex, 1, Some(&mut packet))?;
                times.push(last.duration);
                (last, undisturbed(&mut times) * f64::from(repeat))
            }
        };
        packet.truncate(usize::try_from(result.data_size_out)?);
        let after = self.state.get(&0, 0)?;
        let state = State::read_from_bytes(&after).ok().context("the state's size")?;
        ensure!(state.failed == 0, "{} of {repeat} runs did not enter the program under test", state.failed);
        Ok(Outcome { code: result.return_value, packet, time, state })
    }

    /// One call of the kernel's test run.
    fn call(
        &mut self,
        name: &str,
        frame: &[u8],
        ifindex: u32,
        repeat: u32,
        out: Option<&mut [u8]>,
    ) -> Result<TestRunResult> {
        let context = SkBuffHead { ingress_ifindex: ifindex, ifindex, ..SkBuffHead::default() };
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.data_out = out;
        options.repeat = repeat;
        let program = self.ebpf.program_mut(name).with_context(|| format!("the harness has no {name}"))?;
        match self.hook {
            Hook::Xdp => <&mut Xdp>::try_from(program)?.test_run(options),
            Hook::Tc => {
                options.ctx_in = Some(context.as_bytes());
                <&mut SchedClassifier>::try_from(program)?.test_run(options)
            }
        }
        .with_context(|| format!("the kernel does not run {name} of the harness"))
    }
}

/// The mean in nanoseconds, without the longest hundredth: those are the runs that something interrupted.
fn undisturbed(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    let kept = times.get(..times.len() - times.len() / 100).unwrap_or_default();
    let sum: Duration = kept.iter().sum();
    #[expect(clippy::cast_precision_loss, reason = "runs are millions")]
    let number = kept.len() as f64;
    sum.as_secs_f64() * 1e9 / number
}

/// Processor time of this thread, in nanoseconds.
fn thread_time() -> Result<f64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("cannot read the thread's clock")?;
    #[expect(clippy::cast_precision_loss, reason = "52 bits of nanoseconds are 52 days")]
    Ok(time.tv_sec() as f64 * 1e9 + time.tv_nsec() as f64)
}
