//! One lab: its name, its directory, its life.

use std::{
    fmt, fs,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::geteuid;

use crate::{Host, Netns, interrupt, leftovers};

/// First letters of everything that a lab leaves in a place shared with others.
pub(crate) const PREFIX: &str = "vip-";

/// Numbers the labs of this process.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Labs of this process that a signal has to remove.
static LIVE: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

/// A lab's name: unique on the machine also when a process id comes around again.
///
/// Written `vip-PID-STARTTIME-NUMBER`, where STARTTIME is field 22 of `/proc/PID/stat` (proc(5): clock ticks since
/// boot). Whoever finds it can tell whether its process still lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LabName {
    pid: u32,
    started: u64,
    number: u32,
}

impl LabName {
    fn next() -> Result<Self> {
        let pid = process::id();
        let started =
            start_time(pid).context("cannot read this process's start time from /proc/self/stat")?;
        Ok(Self { pid, started, number: NEXT.fetch_add(1, Ordering::Relaxed) })
    }

    /// The lab that a namespace, directory or pin belongs to, by the name of that; None for foreign ones.
    pub(crate) fn of(file_name: &str) -> Option<Self> {
        let mut parts = file_name.strip_prefix(PREFIX)?.splitn(4, '-');
        let pid = parts.next()?.parse().ok()?;
        let started = parts.next()?.parse().ok()?;
        let number = parts.next()?.parse().ok()?;
        Some(Self { pid, started, number })
    }

    /// Whether the process that made the lab still runs.
    pub(crate) fn alive(self) -> bool {
        start_time(self.pid) == Some(self.started)
    }
}

impl fmt::Display for LabName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}-{}-{}", self.pid, self.started, self.number)
    }
}

/// Start time of a running process; None when there is none or only its zombie.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name stands in parentheses and may itself hold blanks and parentheses: count from the last one.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// What the parts of a lab share.
#[derive(Debug)]
pub(crate) struct Shared {
    name: LabName,
    directory: PathBuf,
    /// Held while the lab is taken down: the signal thread and the owner's drop may both want to.
    removed: Mutex<bool>,
}

impl Shared {
    pub(crate) fn name(&self) -> LabName {
        self.name
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    fn remove(&self, failed: bool) {
        let mut removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        if *removed {
            return;
        }
        *removed = true;
        leftovers::remove_network(self.name);
        if failed {
            leftovers::keep_directory(&self.directory);
        } else {
            leftovers::remove_directory(&self.directory);
        }
    }
}

/// A fresh lab. Its namespaces, processes, pins and files go when it is dropped; when that happens in a panic, the
/// files are kept and their place is printed.
#[derive(Debug)]
pub struct Lab {
    shared: Arc<Shared>,
}

impl Lab {
    /// Starts an empty lab, after removing what labs of dead processes have left behind.
    ///
    /// Needs root: network namespaces, BPF and raw sockets all do.
    pub fn new() -> Result<Self> {
        ensure!(
            geteuid().is_root(),
            "labs need root (network namespaces, BPF, raw sockets): run this as root"
        );
        leftovers::sweep();
        let name = LabName::next()?;
        let directory = std::env::temp_dir().join(name.to_string());
        fs::DirBuilder::new()
            .mode(0o755)
            .create(&directory)
            .with_context(|| format!("cannot make the lab's directory {}", directory.display()))?;
        let shared = Arc::new(Shared { name, directory, removed: Mutex::new(false) });
        let mut live = LIVE.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|lab| lab.strong_count() > 0);
        live.push(Arc::downgrade(&shared));
        Ok(Self { shared })
    }

    /// Runs a test's body in a lab of its own and panics with the body's error.
    ///
    /// Whatever the body made is dropped before the lab is.
    ///
    /// # Panics
    ///
    /// When the lab cannot start (no root) or the body fails.
    #[track_caller]
    pub fn run(body: impl FnOnce(&Self) -> Result<()>) {
        interrupt::remove_labs_on_signal();
        let lab = match Self::new() {
            Ok(lab) => lab,
            Err(error) => panic!("{error:#}"),
        };
        if let Err(error) = body(&lab) {
            panic!("{error:#}");
        }
    }

    /// The lab's name: the first part of its namespaces' names.
    pub fn name(&self) -> String {
        self.shared.name.to_string()
    }

    /// The directory of the lab's configurations, logs and captures.
    pub fn directory(&self) -> &Path {
        &self.shared.directory
    }

    /// A bare namespace, with nothing but `lo` up. `name` is unique in the lab and part of the namespace's full name.
    pub fn add_netns(&self, name: &str) -> Result<Netns> {
        Netns::create(&self.shared, name)
    }

    /// A hypervisor host without uplink and guests, see [`Host`].
    pub fn add_host(&self, name: &str) -> Result<Host> {
        Host::create(&self.shared, name)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.shared.remove(thread::panicking());
    }
}

/// Removes every lab of this process, whoever still uses it.
pub(crate) fn remove_all() {
    let labs: Vec<_> = {
        let live = LIVE.lock().unwrap_or_else(PoisonError::into_inner);
        live.iter().filter_map(Weak::upgrade).collect()
    };
    for lab in labs {
        lab.remove(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_again_in_whatever_carries_it() {
        let name = LabName { pid: 12, started: 345, number: 6 };
        assert_eq!(LabName::of("vip-12-345-6"), Some(name));
        assert_eq!(LabName::of("vip-12-345-6-hv1-b"), Some(name));
        assert_eq!(name.to_string(), "vip-12-345-6");
    }

    #[test]
    fn foreign_names_are_nobodys_lab() {
        for name in
            ["vip", "vip-", "vip-lab-kept", "vip-12-345", "vip-12-345-", "eth0", "vip-a-1-2", "cni-12-345-6"]
        {
            assert_eq!(LabName::of(name), None, "{name}");
        }
    }

    #[test]
    fn this_process_is_alive_and_its_pid_at_another_time_is_not() {
        let name = LabName::next().expect("proc is mounted");
        assert!(name.alive());
        assert!(!LabName { started: name.started + 1, ..name }.alive());
    }
}
