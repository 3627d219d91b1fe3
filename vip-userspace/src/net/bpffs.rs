//! The BPF file system that holds the pins.

use std::{
    io,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use super::NetError;

/// Where the BPF file system is mounted by convention.
pub const BPFFS: &str = "/sys/fs/bpf";

/// What had to be done for a path to be on a BPF file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mounted {
    /// Nothing.
    Already,
    /// It was mounted on [`BPFFS`] now.
    Now,
}

/// Makes sure that `path`, or the part of it that exists, is on a BPF file system: mounts one on [`BPFFS`] if the path lies
/// there and nobody has done it yet. The path itself is not created.
///
/// The mount belongs to the calling thread's mount namespace, and pins vanish with the last such namespace: not in
/// one that is made for a single command (`ip netns exec` does that).
pub fn mount_bpffs(path: &Path) -> Result<Mounted, NetError> {
    if is_on_bpffs(path)? {
        return Ok(Mounted::Already);
    }
    if !path.starts_with(BPFFS) {
        return Err(NetError::NotBpffs { path: path.to_path_buf() });
    }
    let failed = |source| NetError::Mount { path: PathBuf::from(BPFFS), source };
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), BPFFS, Some("bpf"), flags, Some("mode=0700"))
        .map_err(|errno| failed(io::Error::from(errno)))?;
    // A path that leads out again by a symbolic link is on something else still.
    if is_on_bpffs(path)? { Ok(Mounted::Now) } else { Err(NetError::NotBpffs { path: path.to_path_buf() }) }
}

/// Looks at the nearest part of the path that exists.
fn is_on_bpffs(path: &Path) -> Result<bool, NetError> {
    let failed = |source| NetError::FileSystem { path: path.to_path_buf(), source };
    for part in path.ancestors().filter(|part| !part.as_os_str().is_empty()) {
        match statfs(part) {
            Ok(found) => return Ok(found.filesystem_type() == BPF_FS_MAGIC),
            Err(nix::Error::ENOENT) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
    }
    Err(failed(io::ErrorKind::NotFound.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_elsewhere_is_refused_and_nothing_is_mounted() {
        let folder = std::env::temp_dir().join("no-such-folder/pins");
        let error = mount_bpffs(&folder).expect_err("not a BPF file system");
        assert!(matches!(error, NetError::NotBpffs { .. }), "{error}");
        assert!(error.to_string().contains("no-such-folder/pins"), "{error}");
    }

    #[test]
    fn a_relative_path_without_any_part_that_exists_is_an_error() {
        assert!(matches!(mount_bpffs(Path::new("no-such-folder")), Err(NetError::FileSystem { .. })));
    }
}
