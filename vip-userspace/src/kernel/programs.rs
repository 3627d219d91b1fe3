//! The programs of the object, and what the verifier made of them.

use std::collections::BTreeMap;

use aya::{
    Ebpf, EbpfLoader,
    maps::ProgramArray,
    programs::{Program, ProgramError, ProgramInfo, RawTracePoint, SchedClassifier, Xdp},
};
use aya_obj::Object;
use serde::Serialize;
use vip_common::tables::names;

use super::{
    Capacity, KernelError,
    chunked::{self, TemporaryPins},
    tables::cpus,
    verifier,
};

/// XDP on the uplink.
pub(super) const UPLINK: &str = "uplink";
/// TC ingress on the uplink.
pub(super) const UPLINK_TC: &str = "uplink_tc";
/// TC ingress on each port.
pub(super) const PORT: &str = "port";
/// TC: goes on where [`UPLINK_TC`] leaves off.
pub(super) const UPLINK_REST: &str = "uplink_rest";
/// TC: goes on where [`PORT`] leaves off.
pub(super) const PORT_REST: &str = "port_rest";
/// Raw tracepoint that counts packets lost after the verdict.
pub(super) const REDIRECT_ERRORS: &str = "redirect_err";
/// Raw tracepoint that counts packets which a driver did not take from XDP.
pub(super) const DEVMAP_XMIT: &str = "devmap_xmit";

/// Raw tracepoint that counts packets which a driver did not take back from XDP, of several at once.
pub(super) const BULK_TX: &str = "bulk_tx";
/// The same of one packet.
pub(super) const EXCEPTION: &str = "exception";

/// Those that count what is lost after the verdict. The kernel may refuse them.
pub(super) const LOSSES: [&str; 4] = [REDIRECT_ERRORS, DEVMAP_XMIT, BULK_TX, EXCEPTION];

/// All programs.
const ALL: [&str; 9] =
    [UPLINK, UPLINK_TC, UPLINK_REST, PORT, PORT_REST, REDIRECT_ERRORS, DEVMAP_XMIT, BULK_TX, EXCEPTION];

/// The second programs, by their index in [RESTS](names::RESTS).
const RESTS: [&str; 2] = [UPLINK_REST, PORT_REST];

/// What a program costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProgramReport {
    /// Its name.
    pub name: &'static str,
    /// Where it runs: `xdp`, `tc`, `raw tracepoint`.
    pub kind: &'static str,
    /// Instructions that the verifier went through; the kernel's limit is a million. `None`: kernels before 5.16.
    pub verified_instructions: Option<u32>,
    /// Bytes after the verifier's rewriting; `None` without the privilege to know.
    pub translated_bytes: Option<u32>,
    /// Bytes of machine code; 0 without the just-in-time compiler.
    pub jited_bytes: u32,
    /// Bytes of stack that its functions use together; the kernel's limit for a chain of calls is 512. `None` but from
    /// [`report_programs`]: the verifier has to go through the program once more.
    pub stack_bytes: Option<u32>,
    /// Bytes of its own function in the object; functions that it calls are shared, and not counted.
    pub object_bytes: usize,
}

/// Parses an object; without bytes there is none.
pub(super) fn parse(object: &[u8]) -> Result<Object, KernelError> {
    if object.is_empty() {
        return Err(KernelError::NoObject);
    }
    Object::parse(object).map_err(|source| KernelError::Object { source: Box::new(source) })
}

/// Loads all programs that packets meet into the kernel, and makes the second ones reachable for the first.
pub(super) fn load_forwarding(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    for name in RESTS.into_iter().chain([UPLINK, UPLINK_TC, PORT]) {
        load(ebpf, name)?;
    }
    let mut programs = Vec::new();
    for name in RESTS {
        let fd = classifier(ebpf, name)?.fd().map_err(failed("refer to", name))?;
        programs.push(fd.try_clone().map_err(|source| failed("refer to", name)(source.into()))?);
    }
    // It stays with the object: without a descriptor or pin of its own, the kernel empties it.
    let table = ebpf
        .map_mut(names::RESTS)
        .ok_or(KernelError::ObjectLacks { kind: "table of programs", name: names::RESTS })?;
    let not_written =
        |source| KernelError::Table { operation: "write", table: names::RESTS, source: Box::new(source) };
    let mut table = ProgramArray::try_from(table).map_err(not_written)?;
    for (index, program) in (0..).zip(&programs) {
        table.set(index, program, 0).map_err(not_written)?;
    }
    Ok(())
}

/// Loads one program into the kernel. Its tables are those of the object it came from.
pub(super) fn load(ebpf: &mut Ebpf, name: &'static str) -> Result<(), KernelError> {
    match program(ebpf, name)? {
        Program::Xdp(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        Program::RawTracePoint(program) => program.load(),
        _ => return Err(KernelError::ObjectLacks { kind: "program of the right kind", name }),
    }
    .map_err(failed("load", name))
}

/// The XDP program.
pub(super) fn xdp(ebpf: &mut Ebpf) -> Result<&mut Xdp, KernelError> {
    match program(ebpf, UPLINK)? {
        Program::Xdp(program) => Ok(program),
        _ => Err(KernelError::ObjectLacks { kind: "XDP program", name: UPLINK }),
    }
}

/// A TC program.
pub(super) fn classifier<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, KernelError> {
    match program(ebpf, name)? {
        Program::SchedClassifier(program) => Ok(program),
        _ => Err(KernelError::ObjectLacks { kind: "TC program", name }),
    }
}

/// A raw tracepoint program.
pub(super) fn raw_tracepoint<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut RawTracePoint, KernelError> {
    match program(ebpf, name)? {
        Program::RawTracePoint(program) => Ok(program),
        _ => Err(KernelError::ObjectLacks { kind: "raw tracepoint program", name }),
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Program, KernelError> {
    ebpf.program_mut(name).ok_or(KernelError::ObjectLacks { kind: "program", name })
}

/// Makes the error of an operation on a program.
pub(super) fn failed(
    action: &'static str,
    program: &'static str,
) -> impl FnOnce(ProgramError) -> KernelError {
    move |source| KernelError::Program { action, program, source: Box::new(source) }
}

/// Reports on the programs that are loaded.
pub(super) fn reports(ebpf: &Ebpf, object: &Object) -> Vec<ProgramReport> {
    ALL.into_iter().filter_map(|name| report(ebpf, object, name)).collect()
}

/// Where a program of ours runs, and what the kernel says of it once it is loaded.
fn loaded(ebpf: &Ebpf, name: &'static str) -> Option<(&'static str, ProgramInfo)> {
    let (kind, info) = match ebpf.program(name)? {
        Program::Xdp(program) => ("xdp", program.info()),
        Program::SchedClassifier(program) => ("tc", program.info()),
        Program::RawTracePoint(program) => ("raw tracepoint", program.info()),
        _ => return None,
    };
    Some((kind, info.ok()?))
}

fn report(ebpf: &Ebpf, object: &Object, name: &'static str) -> Option<ProgramReport> {
    let (kind, info) = loaded(ebpf, name)?;
    let function = object.functions.get(&object.programs.get(name)?.function_key())?;
    Some(ProgramReport {
        name,
        kind,
        verified_instructions: info.verified_instruction_count(),
        translated_bytes: info.size_translated(),
        jited_bytes: info.size_jitted(),
        stack_bytes: None,
        object_bytes: size_of_val(function.instructions.as_slice()),
    })
}

/// Loads the programs of an object into the kernel without pinning or attaching anything, and reports on them. A program
/// that the kernel may refuse to some (`redirect_err` and others) is left out if it does.
pub fn report_programs(object: &[u8]) -> Result<Vec<ProgramReport>, KernelError> {
    let parsed = parse(object)?;
    let cpus = cpus()?;
    let mut loader = EbpfLoader::new();
    let pins = TemporaryPins::new()?;
    let least = Capacity { ports: 1, vips: 1, eips: 1, subnets: 1, hosts: 1 };
    chunked::provide(&mut loader, &least, &cpus, |name| pins.table(name))?;
    let mut ebpf = loader.load(object).map_err(|source| KernelError::Load { source: Box::new(source) })?;
    load_forwarding(&mut ebpf)?;
    for name in LOSSES {
        if let Err(error) = load(&mut ebpf, name) {
            tracing::debug!("no report on {name}: {error}");
        }
    }
    let accepted: BTreeMap<_, _> =
        ALL.into_iter().filter_map(|name| Some((name, loaded(&ebpf, name)?.1))).collect();
    let stacks =
        verifier::stack_bytes(object, &accepted).map_err(|source| KernelError::Statistics { source })?;
    let reports = reports(&ebpf, &parsed).into_iter();
    Ok(reports
        .map(|report| ProgramReport { stack_bytes: stacks.get(report.name).copied(), ..report })
        .collect())
}
