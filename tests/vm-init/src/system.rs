//! File systems and modules.

use std::{
    ffi::CString,
    fs::{self, File},
    os::{fd::AsRawFd as _, unix::fs::symlink},
    path::Path,
};

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};

/// What a system has mounted: kind, place.
const MOUNTS: [(&str, &str); 7] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
    ("bpf", "/sys/fs/bpf"),
    ("tracefs", "/sys/kernel/tracing"),
];

/// Where processes look for their open files; the kernel's own /dev has no such link.
const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

/// Mounts what a system needs.
pub(crate) fn prepare() -> Result<()> {
    for (kind, place) in MOUNTS {
        // Those below /sys exist already, and nobody can make them.
        if !Path::new(place).exists() {
            fs::create_dir_all(place).with_context(|| format!("cannot make {place}"))?;
        }
        mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount {kind} at {place}"))?;
    }
    for (target, link) in LINKS {
        symlink(target, link).with_context(|| format!("cannot link {link}"))?;
    }
    fs::create_dir_all("/run/netns").context("cannot make /run/netns")
}

/// The kernel's release, e.g. `6.1.0-40-cloud-amd64`.
pub(crate) fn kernel() -> Result<String> {
    let release =
        fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot read the kernel's release")?;
    Ok(release.trim().to_owned())
}

/// Loads modules. One that fails is told, and the rest goes on: what lacks it will say so.
pub(crate) fn load_modules(paths: &[String]) {
    for path in paths {
        if let Err(error) = load(path) {
            println!("warning: cannot load the module {path}: {error:#}");
        }
    }
}

fn load(path: &str) -> Result<()> {
    let file = File::open(path)?;
    let options = CString::default();
    // SAFETY: finit_module(2) reads the file of a descriptor that is open here and a terminated string that lives here.
    // std and nix offer it nowhere without the feature set of a whole kernel interface.
    let result = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), options.as_ptr(), 0) };
    match nix::errno::Errno::result(result) {
        Ok(_) | Err(nix::Error::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
