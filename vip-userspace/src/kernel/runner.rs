//! Runs one packet through one program inside the kernel, attached to nothing (BPF_PROG_TEST_RUN).

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, RingBuf},
    programs::{ProgramError, ProgramFd, TestRun as _, TestRunOptions, TestRunResult, XdpMode, xdp::XdpLink},
};
use vip_common::{
    pipeline::Verdict,
    tables::{Event, names},
};
use zerocopy::IntoBytes as _;

use super::{
    Capacity, KernelError, OBJECT, Tables,
    chunked::{self, TemporaryPins},
    dataplane::take_events,
    events::next_event,
    programs::{self, PORT, UPLINK, UPLINK_TC},
    shape,
    tables::{PerCpuTable, cpus},
};

/// Global of the object that makes its programs show their verdicts.
const OBSERVED: &str = "OBSERVED";

/// Room for what a program puts in front of a packet.
const GROWTH: usize = 512;

/// `struct __sk_buff` of linux/bpf.h as far as this goes; the kernel takes the rest as zero, and refuses values in fields
/// that it does not let through to the packet.
#[derive(Default, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C)]
struct SkBuffHead {
    /// len, pkt_type, mark, queue_mapping, protocol, vlan_present, vlan_tci, vlan_proto, priority.
    before: [u32; 9],
    ingress_ifindex: u32,
    ifindex: u32,
}

/// `struct xdp_md` of linux/bpf.h.
#[derive(Default, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C)]
struct XdpContext {
    /// Where the packet begins behind its metadata: there is none.
    data: u32,
    /// Bytes of the packet in its first buffer (kernel 6.18).
    data_end: u32,
    /// data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    rest: [u32; 4],
}

/// Which program to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunnerProgram {
    /// XDP on the uplink.
    Uplink,
    /// TC ingress on the uplink.
    UplinkTc,
    /// TC ingress on a port.
    Port,
}

/// What a program did with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its return code: `XDP_*` or `TC_ACT_*`.
    pub code: u32,
    /// The packet afterwards.
    pub packet: Vec<u8>,
    /// What the pipeline decided, which the code does not tell whole: a redirection does not say where to.
    pub verdict: Verdict,
}

/// The programs with tables of their own, pinned nowhere.
pub struct Runner {
    ebpf: Ebpf,
    tables: Tables,
    verdicts: PerCpuTable<u64>,
    events: RingBuf<MapData>,
}

impl Runner {
    /// Loads the programs that this binary carries.
    pub fn load(capacity: &Capacity) -> Result<Self, KernelError> {
        Self::load_object(OBJECT, capacity)
    }

    /// Loads the programs of an object.
    pub fn load_object(object: &[u8], capacity: &Capacity) -> Result<Self, KernelError> {
        Self::load_observed(object, capacity, 1)
    }

    /// Loads the programs of an object as a host runs them, to the last instruction: no verdict is kept, so [`Self::run`]
    /// tells [`Verdict::NotOurs`] always. For measuring.
    pub fn load_unobserved(object: &[u8], capacity: &Capacity) -> Result<Self, KernelError> {
        Self::load_observed(object, capacity, 0)
    }

    fn load_observed(object: &[u8], capacity: &Capacity, observed: u32) -> Result<Self, KernelError> {
        let cpus = cpus()?;
        let mut loader = EbpfLoader::new();
        for (name, shape) in shape::expected(&programs::parse(object)?, capacity)? {
            loader.map_max_entries(name, shape.entries());
        }
        let pins = TemporaryPins::new()?;
        chunked::provide(&mut loader, capacity, &cpus, |name| pins.table(name))?;
        loader.override_global(OBSERVED, &observed, true);
        let mut ebpf =
            loader.load(object).map_err(|source| KernelError::Load { source: Box::new(source) })?;
        let tables = Tables::take(&mut ebpf, capacity.sizes()?)?;
        programs::load_forwarding(&mut ebpf)?;
        let verdicts = ebpf
            .take_map(names::VERDICTS)
            .ok_or(KernelError::ObjectLacks { kind: "table", name: names::VERDICTS })?;
        let verdicts = PerCpuTable::new(names::VERDICTS, verdicts)?;
        let events = take_events(&mut ebpf)?;
        Ok(Self { ebpf, tables, verdicts, events })
    }

    /// The tables.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// A loaded program, for a table of programs of somebody else's.
    pub fn program(&mut self, program: RunnerProgram) -> Result<&ProgramFd, KernelError> {
        let (name, fd) = match program {
            RunnerProgram::Uplink => (UPLINK, programs::xdp(&mut self.ebpf)?.fd()),
            RunnerProgram::UplinkTc => (UPLINK_TC, programs::classifier(&mut self.ebpf, UPLINK_TC)?.fd()),
            RunnerProgram::Port => (PORT, programs::classifier(&mut self.ebpf, PORT)?.fd()),
        };
        fd.map_err(programs::failed("refer to", name))
    }

    /// Puts the XDP program on an interface of this network namespace, in its driver, until the link is dropped.
    pub fn attach_uplink(&mut self, ifindex: u32) -> Result<XdpLink, KernelError> {
        let program = programs::xdp(&mut self.ebpf)?;
        program
            .attach_to_if_index(ifindex, XdpMode::Driver)
            .and_then(|link| program.take_link(link))
            .map_err(programs::failed("attach", UPLINK))
    }

    /// Runs a packet (from its Ethernet header on, at least 14 bytes) through a program once. A TC program sees it as received
    /// by the interface `ifindex` of the thread's network namespace; to XDP it comes from the loopback interface.
    pub fn run(&mut self, program: RunnerProgram, packet: &[u8], ifindex: u32) -> Result<Run, KernelError> {
        self.verdicts.clear(0)?;
        let mut out = vec![0; packet.len() + GROWTH];
        let context = SkBuffHead { ingress_ifindex: ifindex, ifindex, ..SkBuffHead::default() };
        let mut options = TestRunOptions::new();
        options.data_in = Some(packet);
        options.data_out = Some(&mut out);
        let (name, result): (_, Result<TestRunResult, ProgramError>) = match program {
            RunnerProgram::Uplink => (UPLINK, programs::xdp(&mut self.ebpf)?.test_run(options)),
            RunnerProgram::UplinkTc | RunnerProgram::Port => {
                let name = if program == RunnerProgram::Port { PORT } else { UPLINK_TC };
                options.ctx_in = Some(context.as_bytes());
                (name, programs::classifier(&mut self.ebpf, name)?.test_run(options))
            }
        };
        let result = result.map_err(programs::failed("run", name))?;
        self.ran(&result, out)
    }

    fn ran(&self, result: &TestRunResult, mut out: Vec<u8>) -> Result<Run, KernelError> {
        out.truncate(usize::try_from(result.data_size_out).unwrap_or(usize::MAX));
        // The run took place on one CPU; the others' words are 0.
        let word = self.verdicts.values(0)?.into_iter().find(|word| *word != 0).unwrap_or(0);
        Ok(Run { code: result.return_value, packet: out, verdict: Verdict::from_word(word) })
    }

    /// Runs a packet through XDP once, as a driver has it that puts its first `near` bytes (14 at least, and fewer than all) into a buffer
    /// of their own. `None`: the kernel cannot make such a packet (before 6.18).
    pub fn run_in_buffers(&mut self, packet: &[u8], near: u32) -> Result<Option<Run>, KernelError> {
        self.verdicts.clear(0)?;
        let mut out = vec![0; packet.len() + GROWTH];
        let context = XdpContext { data_end: near, ..XdpContext::default() };
        let mut options = TestRunOptions::new();
        options.data_in = Some(packet);
        options.data_out = Some(&mut out);
        options.ctx_in = Some(context.as_bytes());
        let result = match programs::xdp(&mut self.ebpf)?.test_run(options) {
            Err(ProgramError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EINVAL) => {
                return Ok(None);
            }
            result => result.map_err(programs::failed("run", UPLINK))?,
        };
        self.ran(&result, out).map(Some)
    }

    /// The events that the programs told since the last call.
    pub fn events(&mut self) -> Vec<Event> {
        let mut malformed = 0;
        std::iter::from_fn(|| next_event(&mut self.events, &mut malformed)).collect()
    }
}
