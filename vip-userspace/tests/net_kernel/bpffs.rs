//! The BPF file system, in a mount namespace of its own.

use std::{path::Path, thread};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use vip_userspace::net::{BPFFS, Mounted, NetError, mount_bpffs};

/// Runs a test on a thread with its own mounts, in which nothing is mounted on /sys/fs/bpf.
fn without_bpffs(test: fn()) {
    let thread = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace (root is needed)");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("the mounts are ours alone");
        while is_bpffs() {
            umount2(BPFFS, MntFlags::MNT_DETACH).expect("the file system is unmounted here");
        }
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn is_bpffs() -> bool {
    statfs(BPFFS).expect("/sys/fs/bpf exists").filesystem_type() == BPF_FS_MAGIC
}

#[test]
fn the_file_system_is_mounted_once() {
    without_bpffs(|| {
        let pins = Path::new(BPFFS).join("vip/of-this-test");
        assert_eq!(mount_bpffs(&pins).expect("mounted"), Mounted::Now);
        assert!(is_bpffs());
        assert_eq!(mount_bpffs(&pins).expect("looked at"), Mounted::Already);
        assert_eq!(mount_bpffs(Path::new(BPFFS)).expect("looked at"), Mounted::Already);
    });
}

#[test]
fn a_path_elsewhere_mounts_nothing() {
    without_bpffs(|| {
        assert!(matches!(mount_bpffs(Path::new("/tmp")), Err(NetError::NotBpffs { .. })));
        assert!(!is_bpffs());
    });
}
