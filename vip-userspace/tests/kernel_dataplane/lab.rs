//! A network namespace and a pin directory for one test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
};
use vip_userspace::kernel::{Capacity, Dataplane, KernelError, PinDir, detach};

/// Room for the tests' few entries.
pub(crate) const CAPACITY: Capacity = Capacity { ports: 8, vips: 4, eips: 4, subnets: 2, hosts: 3 };

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A fresh network namespace for this thread, and a pin directory that goes with the lab.
pub(crate) struct Lab {
    pins: PathBuf,
}

impl Lab {
    /// The thread stays in the namespace, which ends with the thread.
    pub(crate) fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { pins: format!("/sys/fs/bpf/vip-kernel-test-{}-{number}", process::id()).into() }
    }

    /// The pin directory.
    pub(crate) fn pins(&self) -> &Path {
        &self.pins
    }

    /// Loads the programs like a start of vipd.
    pub(crate) fn start(&self) -> Dataplane {
        self.try_start().expect("the dataplane starts")
    }

    /// Likewise, for starts that are refused.
    pub(crate) fn try_start(&self) -> Result<Dataplane, KernelError> {
        Dataplane::load(PinDir::open(&self.pins)?, &CAPACITY)
    }

    /// Makes a veth pair, both ends up, and returns the ifindex of the first end.
    pub(crate) fn veth(&self, name: &str, peer: &str) -> u32 {
        self.ip(&format!("link add {name} type veth peer name {peer}"));
        self.ip(&format!("link set {name} up"));
        self.ip(&format!("link set {peer} up"));
        if_nametoindex(name).expect("the veth exists")
    }

    /// Runs ip(8).
    #[expect(
        clippy::unused_self,
        reason = "the namespace is that of the lab's thread: without a lab it would be the host's"
    )]
    pub(crate) fn ip(&self, arguments: &str) -> String {
        run("ip", arguments)
    }

    /// Names of the pins below `links`.
    pub(crate) fn links(&self) -> Vec<String> {
        names(&self.pins.join("links"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        match detach(&self.pins) {
            Ok(_) | Err(KernelError::NothingPinned { .. }) => {}
            Err(error) => eprintln!("{} stays: {error}", self.pins.display()),
        }
    }
}

/// Runs a command that must succeed.
pub(crate) fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split(' ')).output().expect("the command runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// File names in a directory, sorted; none if there is none.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Polls until a condition holds.
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
