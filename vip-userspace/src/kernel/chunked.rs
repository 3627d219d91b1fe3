//! The tables that aya cannot make: arrays of maps, found by the loader where they are pinned.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use aya::EbpfLoader;
use vip_common::tables::{
    names,
    record::{Ports, Vips, VipsAside},
};

use super::{Capacity, KernelError, syscall, tables::records};
use crate::net::mount_bpffs;

/// Global of the object: CPUs that a record has counters for.
const CPUS: &str = "CPUS";

/// Makes a table: its name, objects that it has room for, CPUs.
type Create = fn(&'static str, u32, u32) -> Result<OwnedFd, KernelError>;

/// Makes and pins the chunked tables that are not there yet, and lets the loader find them at `path`. `cpus`: how many the
/// machine can have.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the loader keeps the reference until it loads")]
pub(super) fn provide<'p>(
    loader: &mut EbpfLoader<'p>,
    capacity: &Capacity,
    cpus: &'p u32,
    path: impl Fn(&str) -> PathBuf,
) -> Result<(), KernelError> {
    loader.override_global(CPUS, cpus, true);
    let (vips, ports) = (capacity.vips, capacity.ports + 1);
    let tables: [(_, Create, _); 3] = [
        (names::VIPS, records::create::<Vips>, vips),
        (names::VIPS_ASIDE, records::create::<VipsAside>, vips),
        (names::PORTS, records::create::<Ports>, ports),
    ];
    for (name, create, capacity) in tables {
        let path = path(name);
        let failed = |action| {
            let path = path.clone();
            move |source| KernelError::Pin { action, path, source }
        };
        if !path.try_exists().map_err(failed("look for"))? {
            let map = create(name, capacity, *cpus)?;
            syscall::pin(&map, &path).map_err(failed("pin the table"))?;
        }
        loader.map_pin_path(name, path);
    }
    Ok(())
}

/// A directory of pins for as long as a load takes.
pub(super) struct TemporaryPins(PathBuf);

impl TemporaryPins {
    /// Makes it, and mounts the BPF file system on its usual place if nobody did.
    pub(super) fn new() -> Result<Self, KernelError> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // The BPF file system reserves dots in names.
        let path = PathBuf::from(format!("/sys/fs/bpf/vip-load-{}-{number}", process::id()));
        mount_bpffs(&path)?;
        fs::create_dir(&path).map_err(|source| KernelError::Pin {
            action: "make",
            path: path.clone(),
            source,
        })?;
        Ok(Self(path))
    }

    /// Where a table is pinned.
    pub(super) fn table(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TemporaryPins {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            tracing::warn!("cannot remove the pins in {}: {error}", self.0.display());
        }
    }
}

fn remove(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        fs::remove_file(entry?.path())?;
    }
    fs::remove_dir(directory)
}
