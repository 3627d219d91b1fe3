//! The directory of pins, and the lock on it.
//!
//! `DIR/TABLE` is a table. `DIR/links/PROGRAM_IFINDEX` is the link that holds a program to an interface; removing that file
//! detaches the program. On kernels without tcx there is `DIR/links/clsact_PROGRAM_IFINDEX` instead: a program, by whose
//! tag our filter is recognised. The BPF file system reserves dots in names.
//!
//! The lock is a flock(2) on the directory itself, so it vanishes with its process, however that ends.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    fcntl::{Flock, FlockArg},
    sys::stat::{major, minor},
};

use super::{KernelError, dataplane::pinned_config, syscall};
use crate::net::mount_bpffs;

/// Name of the directory of links below the pin directory.
const LINKS: &str = "links";

/// How long a process that is ending may take to give up the lock: it goes with the tables' memory, which takes a while to free.
const LAST_WILL: Duration = Duration::from_secs(2);

/// How long any other may: one that was killed just now does not show it before it runs once more.
const COURTESY: Duration = Duration::from_millis(100);

/// Time between two tries.
const STEP: Duration = Duration::from_millis(20);

/// `PF_EXITING` of Linux' sched.h.
const EXITING: u64 = 0x4;

/// A pin directory that belongs to this process until it is dropped.
#[derive(Debug)]
pub struct PinDir {
    path: PathBuf,
    _lock: Flock<File>,
}

/// A file below `links`, named after a program and an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LinkPin {
    /// The program, with `clsact_` in front for pins that are no links.
    pub(super) program: String,
    /// The interface.
    pub(super) ifindex: u32,
    /// The file.
    pub(super) path: PathBuf,
}

impl PinDir {
    /// Makes the directory if need be, mounts the BPF file system on its usual place if nobody did, and takes the lock.
    ///
    /// Waits up to two seconds for a process that is just ending. [`KernelError::Locked`] names the one that has the lock.
    pub fn open(path: &Path) -> Result<Self, KernelError> {
        mount_bpffs(path)?;
        let links = path.join(LINKS);
        let started = Instant::now();
        loop {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&links)
                .map_err(failed("make", &links))?;
            match Self::lock(path) {
                // `vipctl detach` removed the directory after we found it: make it again.
                Err(KernelError::NothingPinned { .. }) => {}
                // A holder without a number is in another PID namespace, where CONFIG says its number, or has just died.
                Err(KernelError::Locked { path, holder }) => {
                    let agent = || pinned_config(&path).ok().map(|config| config.agent_pid);
                    let holder = holder.or_else(agent).filter(|pid| *pid != 0);
                    let patience = if holder.is_some_and(is_ending) { LAST_WILL } else { COURTESY };
                    if started.elapsed() >= patience {
                        return Err(KernelError::Locked { path, holder });
                    }
                    thread::sleep(STEP);
                }
                result => return result,
            }
        }
    }

    /// Takes the lock of a directory that exists; [`KernelError::NothingPinned`] if it does not.
    pub(super) fn lock(path: &Path) -> Result<Self, KernelError> {
        let gone = || KernelError::NothingPinned { path: path.to_owned() };
        let directory = match File::open(path) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(gone()),
            Err(error) => return Err(failed("open", path)(error)),
        };
        let lock = match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((directory, nix::Error::EWOULDBLOCK)) => {
                return Err(KernelError::Locked { path: path.to_owned(), holder: holder(&directory) });
            }
            Err((_, errno)) => return Err(failed("lock", path)(errno.into())),
        };
        // The lock is on the directory that was opened: only if that is still the one at the path does it mean anything.
        let locked = lock.metadata().map_err(failed("inspect", path))?;
        match fs::metadata(path) {
            Ok(now) if (now.dev(), now.ino()) == (locked.dev(), locked.ino()) => {
                Ok(Self { path: path.to_owned(), _lock: lock })
            }
            Ok(_) => Err(gone()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(gone()),
            Err(error) => Err(failed("inspect", path)(error)),
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The pin of a table.
    pub(super) fn table(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The pin of a program's link to an interface.
    pub(super) fn link(&self, program: &str, ifindex: u32) -> PathBuf {
        self.path.join(LINKS).join(format!("{program}_{ifindex}"))
    }

    /// Every pin below `links` that is named after a program and an interface.
    pub(super) fn links(&self) -> Result<Vec<LinkPin>, KernelError> {
        let links = self.path.join(LINKS);
        let pins = files(&links)?.into_iter().filter_map(|path| {
            let (program, ifindex) = path.file_name()?.to_str()?.rsplit_once('_')?;
            Some(LinkPin { program: program.to_owned(), ifindex: ifindex.parse().ok()?, path: path.clone() })
        });
        Ok(pins.collect())
    }

    /// Removes every pin and the directories: links first, so that no program is left without its tables. Returns how
    /// many links and tables there were.
    pub(super) fn remove(self) -> Result<(usize, usize), KernelError> {
        let links = self.path.join(LINKS);
        let link_files = files(&links)?;
        for file in &link_files {
            detach_link(file)?;
        }
        let table_files = files(&self.path)?;
        for file in &table_files {
            unpin(file)?;
        }
        for directory in [&links, &self.path] {
            match fs::remove_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", directory)(error));
                }
                _ => {}
            }
        }
        Ok((link_files.len(), table_files.len()))
    }
}

/// Detaches a pinned link and removes its pin; one that is not there is no error, and neither is a pin of something else.
pub(super) fn detach_link(path: &Path) -> Result<(), KernelError> {
    if let Err(error) = syscall::detach_pinned_link(path) {
        // Removing the pin detaches as well, only later: a link that cannot be detached by itself is no reason to keep it.
        tracing::debug!("{} is not detached at once: {error}", path.display());
    }
    unpin(path)
}

/// Removes a pin; one that is not there is no error.
pub(super) fn unpin(path: &Path) -> Result<(), KernelError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Makes the error of an operation on a path.
pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KernelError {
    move |source| KernelError::Pin { action, path: path.to_owned(), source }
}

/// The files of a directory, without its directories; none if it does not exist.
fn files(directory: &Path) -> Result<Vec<PathBuf>, KernelError> {
    let list = || -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                found.push(entry.path());
            }
        }
        found.sort();
        Ok(found)
    };
    match list() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        result => result.map_err(failed("list", directory)),
    }
}

/// The process that has the lock, from /proc/locks (proc(5)); `None` if that process is in another PID namespace.
fn holder(directory: &File) -> Option<u32> {
    let metadata = directory.metadata().ok()?;
    let (device, inode) = (metadata.dev(), metadata.ino());
    holder_in(&fs::read_to_string("/proc/locks").ok()?, major(device), minor(device), inode)
}

/// Whether a process has ended or is about to.
fn is_ending(pid: u32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => is_ending_in(&stat),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Looks for the state and the flags in a line of proc_pid_stat(5), the third and the ninth field. The second, the name in
/// parentheses, may contain anything.
fn is_ending_in(stat: &str) -> bool {
    let Some((_, after_name)) = stat.rsplit_once(')') else { return false };
    let mut fields = after_name.split_whitespace();
    let state = fields.next();
    let flags: Option<u64> = fields.nth(5).and_then(|flags| flags.parse().ok());
    matches!(state, Some("Z" | "X")) || flags.is_some_and(|flags| flags & EXITING != 0)
}

/// Looks for a flock in lines such as `1: FLOCK  ADVISORY  WRITE 4711 00:2a:12345 0 EOF`; the device is hexadecimal.
/// Waiters have `->` before the word FLOCK and are passed over.
fn holder_in(locks: &str, major: u64, minor: u64, inode: u64) -> Option<u32> {
    let file = format!("{major:02x}:{minor:02x}:{inode}");
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let is_flock = words.next()? == "FLOCK";
        let mut words = words.skip(2);
        let (pid, of) = (words.next()?, words.next()?);
        (is_flock && of == file).then(|| pid.parse().ok().filter(|pid| *pid != 0))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCKS: &str = "1: POSIX  ADVISORY  WRITE 10 00:2a:77 0 EOF\n\
                         2: FLOCK  ADVISORY  WRITE 11 00:2a:77 0 EOF\n\
                         2: -> FLOCK  ADVISORY  WRITE 12 00:2a:78 0 EOF\n\
                         3: FLOCK  ADVISORY  WRITE 0 00:2a:79 0 EOF\n";

    #[test]
    fn the_holder_of_a_flock_is_found_by_device_and_inode() {
        assert_eq!(holder_in(LOCKS, 0, 0x2a, 77), Some(11));
        assert_eq!(holder_in(LOCKS, 0, 0x2b, 77), None);
    }

    #[test]
    fn a_process_that_ends_is_told_from_one_that_lives_whatever_its_name() {
        assert!(!is_ending_in("11 (vipd) S 1 11 11 0 -1 4194560 90 0"));
        assert!(!is_ending_in("11 (a) Z b) S 1 11 11 0 -1 4194560 90 0"));
        assert!(is_ending_in("11 (vipd) Z 1 11 11 0 -1 4194560 90 0"));
        assert!(is_ending_in("11 (vipd) R 1 11 11 0 -1 4194564 90 0"));
        assert!(!is_ending(std::process::id()));
        assert!(is_ending(u32::MAX));
    }

    #[test]
    fn a_waiter_is_no_holder() {
        assert_eq!(holder_in(LOCKS, 0, 0x2a, 78), None);
    }

    #[test]
    fn a_process_of_another_pid_namespace_has_no_number() {
        assert_eq!(holder_in(LOCKS, 0, 0x2a, 79), None);
    }
}
