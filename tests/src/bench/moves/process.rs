//! What a process and its maps take, as the kernel tells it.

use std::{
    collections::BTreeSet,
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::maps::loaded_maps;

use crate::poll_until;

/// How long a process may take to be done with what it began.
const LIMIT: Duration = Duration::from_secs(240);

/// Processor time of all threads of a process so far.
fn processor_time(pid: u32) -> Result<Duration> {
    let directory = format!("/proc/{pid}/task");
    let mut nanoseconds = 0;
    for task in fs::read_dir(&directory).with_context(|| format!("cannot read {directory}"))? {
        let file = task?.path().join("schedstat");
        // A thread may have ended meanwhile.
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let time = text.split_whitespace().next().and_then(|time| time.parse::<u64>().ok());
        nanoseconds += time.with_context(|| format!("{}: {text}", file.display()))?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Percent of one processor that a process takes while `work` is done.
pub(super) fn processor_share<T>(pid: u32, work: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let (before, begin) = (processor_time(pid)?, Instant::now());
    let done = work()?;
    let (after, time) = (processor_time(pid)?, begin.elapsed());
    Ok(((after.saturating_sub(before)).as_secs_f64() / time.as_secs_f64() * 100.0, done))
}

/// A field of /proc/PID/status that is told in kB, in MB.
pub(super) fn memory(pid: u32, field: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).context("cannot read a process's status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    Ok(kilobytes.with_context(|| format!("no {field} in a process's status"))? * 1024.0 / 1e6)
}

/// Waits until a process's memory has stayed within a hundredth for a while: what only a plan needs is given back after it.
pub(super) fn settle(pid: u32, quiet: Duration) -> Result<()> {
    let (mut level, mut since) = (memory(pid, "RssAnon")?, Instant::now());
    poll_until(LIMIT, "a process's memory to settle", || match memory(pid, "RssAnon") {
        Ok(now) if (now - level).abs() <= level * 0.01 => (since.elapsed() >= quiet).then_some(Ok(())),
        Ok(now) => {
            (level, since) = (now, Instant::now());
            None
        }
        Err(error) => Some(Err(error)),
    })?
}

/// Numbers of all maps of the kernel.
pub(super) fn maps() -> Result<BTreeSet<u32>> {
    Ok(loaded_maps()
        .collect::<Result<Vec<_>, _>>()
        .context("cannot list maps")?
        .iter()
        .map(aya::maps::MapInfo::id)
        .collect())
}

/// Memory of the maps that there were not `before`, in MB, and how many they are. The kernel itself says how much each takes:
/// all processors' parts of it, elements and buckets.
pub(super) fn map_memory(before: &BTreeSet<u32>) -> Result<(f64, usize)> {
    let (mut bytes, mut number) = (0.0, 0);
    for map in loaded_maps() {
        let map = map.context("cannot list maps")?;
        if before.contains(&map.id()) {
            continue;
        }
        // It may have gone meanwhile.
        let Ok(fd) = map.fd() else { continue };
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd()))?;
        let memory = text.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse::<f64>().ok());
        bytes += memory.with_context(|| format!("the kernel tells no memory of a map: {text}"))?;
        number += 1;
    }
    Ok((bytes / 1e6, number))
}
