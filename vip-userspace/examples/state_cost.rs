//! What a large state costs without a kernel: time and memory to read it, to plan it, and to plan a change of one object.
//!
//! `state_cost EIPS lines|block|json` writes the file first. Each figure of memory is that of the whole process.

use std::{
    env, fs,
    io::{BufWriter, Write as _},
    time::Instant,
};

use anyhow::{Context as _, Result};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::{TimeVal, TimeValLike as _},
};
use vip_lab::big_state::{BigState, Form};
use vip_userspace::{
    config::Capacity,
    memory,
    plan::{Contents, Indexes, Resting, Site, compile, diff},
    state,
};

const CAPACITY: Capacity =
    Capacity { ports: (1 << 20) - 1, vips: 1 << 20, eips: 1 << 20, subnets: 4096, hosts: 1024 };

/// A figure of /proc/self/status in MiB.
fn resident(key: &str) -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)).context("no such figure")?;
    let kib: u64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024)
}

/// CPU time of the process so far in milliseconds: other programs on the machine do not count.
fn cpu_ms() -> Result<u64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let ms = |time: TimeVal| u64::try_from(time.num_milliseconds()).unwrap_or_default();
    Ok(ms(usage.user_time()) + ms(usage.system_time()))
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> Result<T> {
    let (start, cpu) = (Instant::now(), cpu_ms()?);
    let done = work();
    let (ms, cpu) = (start.elapsed().as_millis(), cpu_ms()? - cpu);
    let (now, peak) = (resident("VmRSS")?, resident("VmHWM")?);
    println!("{what:<12}{ms:>7} ms{cpu:>7} ms CPU{now:>7} MiB now{peak:>7} MiB peak");
    Ok(done)
}

fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let eips: u32 = arguments.next().context("how many EIPs?")?.parse()?;
    let form = match arguments.next().as_deref() {
        Some("lines") => Form::Lines,
        Some("block") => Form::Block,
        Some("json") => Form::Json,
        other => anyhow::bail!("lines, block or json, not {other:?}"),
    };
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("state");
    let mut file = BufWriter::new(fs::File::create(&path)?);
    BigState::of_eips(eips).write(form, &mut file)?;
    file.flush()?;
    println!("{eips} EIPs, {} MiB of text", fs::metadata(&path)?.len() >> 20);

    let state = timed("parse", || state::load(&path, Some(BigState::HOST)))??;
    timed("settled", memory::give_back)?;
    let mut contents = Contents::default();
    let site = Site { host: BigState::HOST.to_owned(), ..Site::default() };
    for round in ["first", "again"] {
        let indexes = timed("indexes", || Indexes::of(&contents, &CAPACITY, &Resting::default()))?;
        let desired = timed("compile", || compile(&state, &site, &indexes))?;
        drop(indexes);
        let steps = timed("diff", || diff(&contents, &desired.contents))?;
        println!("{round}: {} steps, {} refused", steps.len(), desired.refused.len());
        contents = desired.contents;
        drop(steps);
        drop(desired.assigned);
        timed("settled", memory::give_back)?;
    }
    println!("{} EIPs in the tables", contents.eips.len());
    Ok(())
}
