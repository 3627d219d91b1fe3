//! Taking labs down: processes, pins, namespaces, files. Works on names alone, so that it does for a lab whose process
//! was killed what a live lab does for itself.
//!
//! Nothing here fails: each step does what it can, says what it could not, and the rest goes on. Several processes may
//! sweep at once; what is gone already is no error.

use std::{
    collections::BTreeSet,
    fs, io,
    os::{linux::fs::MetadataExt as _, unix::fs::DirBuilderExt as _},
    path::{Path, PathBuf},
    process,
    time::{Duration, SystemTime},
};

use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{host::BPFFS, lab::LabName, netns::RUN_NETNS, poll_until};

/// Directories of failed labs below the temporary directory: each a lab's name.
const KEPT: &str = "vip-lab-kept";

/// So many failed labs' directories are kept; older ones go.
const KEPT_AT_MOST: usize = 20;

/// Last lines of each log that a failed lab prints.
const LAST_LINES: usize = 15;

/// How long killed processes may take to let go of their namespace.
const KILL_TIME: Duration = Duration::from_secs(3);

/// Removes all that labs of dead processes left behind.
pub(crate) fn sweep() {
    let temporary = std::env::temp_dir();
    let dead: BTreeSet<LabName> = [Path::new(RUN_NETNS), Path::new(BPFFS), &temporary]
        .into_iter()
        .flat_map(entries)
        .filter_map(|path| LabName::of(path.file_name()?.to_str()?))
        .filter(|name| !name.alive())
        .collect();
    for name in dead {
        remove_network(name);
        remove_directory(&temporary.join(name.to_string()));
    }
}

/// Kills what runs in the lab's namespaces, removes its pins and then the namespaces.
pub(crate) fn remove_network(name: LabName) {
    let belongs =
        |path: &PathBuf| path.file_name().and_then(|f| f.to_str()).and_then(LabName::of) == Some(name);
    let namespaces: Vec<PathBuf> = entries(Path::new(RUN_NETNS)).filter(belongs).collect();
    kill_processes(&namespaces);
    // Pins first: a link that is still pinned would hold its program in a namespace that is about to go.
    for pins in entries(Path::new(BPFFS)).filter(belongs) {
        report(&pins, fs::remove_dir_all(&pins));
    }
    for namespace in namespaces {
        let unmounted = umount2(&namespace, MntFlags::MNT_DETACH);
        if !matches!(unmounted, Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT)) {
            report(&namespace, unmounted.map_err(io::Error::from));
        }
        report(&namespace, fs::remove_file(&namespace));
    }
}

/// Kills every process whose namespace is one of `namespaces` (files below /run/netns), except this one, and waits
/// until they are gone: a live process would keep the namespace and its interfaces.
fn kill_processes(namespaces: &[PathBuf]) {
    let identities: BTreeSet<(u64, u64)> = namespaces.iter().filter_map(|path| identity(path)).collect();
    if identities.is_empty() {
        return;
    }
    let gone = poll_until(KILL_TIME, "the lab's processes to end", || {
        let members = members(&identities);
        for pid in &members {
            // A failure means that it ended by itself.
            let _ = kill(*pid, Signal::SIGKILL);
        }
        members.is_empty().then_some(())
    });
    if let Err(error) = gone {
        eprintln!("{error:#}");
    }
}

fn members(identities: &BTreeSet<(u64, u64)>) -> Vec<Pid> {
    entries(Path::new("/proc"))
        .filter_map(|path| path.file_name()?.to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != process::id())
        // A zombie has no namespaces any more: its stat fails.
        .filter(|pid| {
            identity(Path::new(&format!("/proc/{pid}/ns/net"))).is_some_and(|id| identities.contains(&id))
        })
        .filter_map(|pid| i32::try_from(pid).ok().map(Pid::from_raw))
        .collect()
}

/// Device and inode: two paths of one namespace have the same.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.st_dev(), metadata.st_ino()))
}

/// Removes a lab's directory, but only a real directory of root's: names in a temporary directory are anybody's.
pub(crate) fn remove_directory(directory: &Path) {
    if is_roots_directory(directory) {
        report(directory, fs::remove_dir_all(directory));
    }
}

/// Moves a failed lab's directory to where no sweep takes it, and prints where it is and how its logs end.
pub(crate) fn keep_directory(directory: &Path) {
    let kept = std::env::temp_dir().join(KEPT);
    let target = directory.file_name().map(|name| kept.join(name));
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(&kept);
    let place = match target {
        Some(target)
            if made.is_ok() && is_roots_directory(&kept) && fs::rename(directory, &target).is_ok() =>
        {
            target
        }
        _ => directory.to_owned(),
    };
    forget_oldest(&kept);
    eprintln!("the lab's files are kept in {}", place.display());
    for file in entries(&place) {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("log") => print_end(&file),
            Some("pcap") => eprintln!("capture: {}", file.display()),
            _ => {}
        }
    }
}

fn forget_oldest(kept: &Path) {
    let modified = |path: &PathBuf| {
        fs::symlink_metadata(path).and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
    };
    let mut directories: Vec<PathBuf> = entries(kept).filter(|path| is_roots_directory(path)).collect();
    directories.sort_by_key(|path| std::cmp::Reverse(modified(path)));
    for old in directories.iter().skip(KEPT_AT_MOST) {
        report(old, fs::remove_dir_all(old));
    }
}

fn print_end(log: &Path) {
    let Ok(bytes) = fs::read(log) else { return };
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    eprintln!("--- the end of {}", log.display());
    for line in lines.iter().skip(lines.len().saturating_sub(LAST_LINES)) {
        eprintln!("{line}");
    }
}

fn is_roots_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|data| data.is_dir() && data.st_uid() == 0)
}

/// The paths in a directory; none when it does not exist.
fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(directory).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

fn report(path: &Path, done: io::Result<()>) {
    match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            eprintln!("cannot remove {}: {error}", path.display());
        }
        _ => {}
    }
}
