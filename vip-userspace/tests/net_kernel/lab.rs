//! A network namespace for one test.

use std::{
    future::Future,
    process::{Child, Command},
    thread,
    time::Duration,
};

use nix::sched::{CloneFlags, unshare};
use tokio::{runtime, time::timeout};

/// Longer than anything here takes on a slow machine; only a broken test reaches it.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a test in a network namespace of its own, on a thread of its own, with the loopback interface up. The namespace and
/// all in it are gone with the thread.
pub(crate) fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace (root is needed)");
        run("ip link set lo up");
        let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { timeout(LIMIT, test()).await.expect("the test ends in time") });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a command line (split at spaces) in the calling thread's namespaces and returns what it printed.
pub(crate) fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let program = words.next().expect("a program");
    let output = Command::new(program).args(words).output().expect("the program runs");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The ifindex that iproute2 sees.
pub(crate) fn ifindex(name: &str) -> u32 {
    let line = run(&format!("ip -o link show dev {name}"));
    line.split(':').next().and_then(|number| number.parse().ok()).expect("iproute2 prints the ifindex first")
}

/// The MAC that iproute2 sees.
pub(crate) fn mac(name: &str) -> [u8; 6] {
    parse_mac(
        run(&format!("ip -br link show dev {name}")).split_whitespace().nth(2).expect("the third column"),
    )
}

/// Six bytes from their usual notation.
pub(crate) fn parse_mac(text: &str) -> [u8; 6] {
    let bytes: Vec<u8> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("a byte in hex")).collect();
    bytes.try_into().expect("six bytes")
}

/// Another namespace, for what must not share the host's: a process that does nothing there keeps it alive.
pub(crate) struct Peer {
    keeper: Child,
}

impl Peer {
    pub(crate) fn new() -> Self {
        let mut command = Command::new("unshare");
        let keeper = command.args(["--net", "sleep", "600"]).spawn().expect("unshare runs");
        let peer = Self { keeper };
        let own = std::fs::read_link("/proc/thread-self/ns/net").expect("our namespace");
        let theirs = format!("/proc/{}/ns/net", peer.pid());
        // unshare(1) becomes sleep(1) after it has left our namespace.
        while std::fs::read_link(&theirs).expect("their namespace") == own {
            thread::yield_now();
        }
        peer.run("ip link set lo up");
        peer
    }

    pub(crate) fn pid(&self) -> u32 {
        self.keeper.id()
    }

    /// As [`run`], in the other namespace.
    pub(crate) fn run(&self, line: &str) -> String {
        run(&format!("nsenter --net=/proc/{}/ns/net {line}", self.pid()))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Both fail only if the process has ended already.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}
