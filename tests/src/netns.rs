//! Network namespaces, and running things in them.

use std::{
    fs::File,
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    panic,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sched::{CloneFlags, setns},
    sys::{prctl::set_pdeathsig, signal::Signal},
    unistd::{Pid, getppid},
};

use crate::{
    Log, Output, Process,
    lab::Shared,
    process::{run, started},
};

/// Where iproute2 keeps the names of namespaces.
pub(crate) const RUN_NETNS: &str = "/run/netns";

/// Time limit of a command whose caller names none.
const COMMAND_TIME: Duration = Duration::from_secs(30);

/// A network namespace of a lab. Clones are the same namespace.
#[derive(Clone, Debug)]
pub struct Netns {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    label: String,
    /// Open as long as somebody may enter; also what `setns` takes.
    handle: File,
    lab: Arc<Shared>,
}

impl Netns {
    pub(crate) fn create(lab: &Arc<Shared>, label: &str) -> Result<Self> {
        let name = format!("{}-{label}", lab.name());
        let mut command = Command::new("ip");
        command.args(["netns", "add", &name]);
        succeed(run(command, COMMAND_TIME)?, &["ip", "netns", "add", &name])?;
        let path = Path::new(RUN_NETNS).join(&name);
        let handle =
            File::open(&path).with_context(|| format!("cannot open the new namespace {}", path.display()))?;
        let namespace =
            Self { inner: Arc::new(Inner { name, label: label.to_owned(), handle, lab: Arc::clone(lab) }) };
        namespace.ip("link set dev lo up")?;
        Ok(namespace)
    }

    /// The full name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The name inside the lab, e.g. `hv1`.
    pub fn label(&self) -> &str {
        &self.inner.label
    }

    /// The file that stands for the namespace, e.g. for `nsenter --net=PATH`.
    pub fn path(&self) -> PathBuf {
        Path::new(RUN_NETNS).join(&self.inner.name)
    }

    /// The lab's directory of configurations, logs and captures.
    pub fn directory(&self) -> &Path {
        self.inner.lab.directory()
    }

    /// A command that will run in this namespace, with the mount namespace of the caller: bpffs and /etc are those of
    /// the machine, which `ip netns exec` would hide.
    ///
    /// It leads a process group of its own, reads nothing, speaks English, and is killed when the *thread* that
    /// started it ends (`PR_SET_PDEATHSIG`, prctl(2)): start what must live from a thread that lives as long.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.process_group(0).stdin(Stdio::null()).env("LC_ALL", "C");
        let inner = Arc::clone(&self.inner);
        let parent = i32::try_from(process::id()).map(Pid::from_raw).ok();
        let enter = move || {
            setns(inner.handle.as_fd(), CloneFlags::CLONE_NEWNET)?;
            set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before the line above: nobody would ever kill this child.
            if Some(getppid()) == parent { Ok(()) } else { Err(nix::Error::ESRCH.into()) }
        };
        // SAFETY: the closure runs between fork and exec, where only async-signal-safe work is allowed. It makes three
        // system calls on values made before the fork and allocates nothing. std offers no safe way into a namespace.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Runs a program to its end, within 30 seconds, whatever its exit status.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        self.run_within(COMMAND_TIME, arguments)
    }

    /// Runs a program to its end, whatever its exit status. One that takes longer than `limit` is killed, and that is
    /// an error.
    pub fn run_within(&self, limit: Duration, arguments: &[&str]) -> Result<Output> {
        run(self.command_of(arguments)?, limit).with_context(|| format!("in {}", self.inner.label))
    }

    /// Runs a program that must succeed within 30 seconds, and gives its standard output.
    pub fn check(&self, arguments: &[&str]) -> Result<String> {
        succeed(self.run(arguments)?, arguments).with_context(|| format!("in {}", self.inner.label))
    }

    /// Runs `ip WORDS` in the namespace, e.g. `ip("address add 192.0.2.1/24 dev eth0")`, and gives its output.
    pub fn ip(&self, words: &str) -> Result<String> {
        self.check_words("ip", words)
    }

    /// Runs `nft WORDS` in the namespace, e.g. `nft("add table ip lab")`, and gives its output.
    pub fn nft(&self, words: &str) -> Result<String> {
        self.check_words("nft", words)
    }

    fn check_words(&self, program: &str, words: &str) -> Result<String> {
        let arguments: Vec<&str> = [program].into_iter().chain(words.split_whitespace()).collect();
        self.check(&arguments)
    }

    /// Frames that an interface was given to send and dropped: of a veth, those for which its other end had no room.
    pub fn send_drops(&self, interface: &str) -> Result<u64> {
        let shown = self.ip(&format!("-json -statistics link show dev {interface}"))?;
        let shown: serde_json::Value = serde_json::from_str(&shown).context("ip wrote no JSON")?;
        let drops = shown.pointer("/0/stats64/tx/dropped").and_then(serde_json::Value::as_u64);
        drops.with_context(|| format!("ip tells no drops of {interface}: {shown}"))
    }

    /// Starts a program that goes on, with its output in the lab's directory as `NAMESPACE-NAME.log`.
    pub fn spawn(&self, name: &str, arguments: &[&str]) -> Result<Process> {
        let log = self.log(name)?;
        self.spawn_logging_to(&log, arguments)
    }

    /// Starts a program that goes on, with its output at the end of `log`: for one that is started again.
    pub fn spawn_logging_to(&self, log: &Log, arguments: &[&str]) -> Result<Process> {
        Process::start(self.command_of(arguments)?, log).with_context(|| format!("in {}", self.inner.label))
    }

    /// A log file in the lab's directory, `NAMESPACE-NAME.log`.
    pub fn log(&self, name: &str) -> Result<Log> {
        Log::create(&self.directory().join(format!("{}-{name}.log", self.inner.label)))
    }

    /// Runs `work` in this namespace, in a thread that ends with it. Sockets made there belong to the namespace
    /// wherever they are used afterwards.
    ///
    /// # Panics
    ///
    /// When `work` panics.
    pub fn exec<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let outcome = thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter()?;
                    work()
                })
                .join()
        });
        outcome
            .unwrap_or_else(|panic| panic::resume_unwind(panic))
            .with_context(|| format!("in {}", self.inner.label))
    }

    /// Starts a thread that does all its work in this namespace.
    pub(crate) fn thread<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<thread::JoinHandle<Result<T>>> {
        let namespace = self.clone();
        let thread = thread::Builder::new().name(name.to_owned());
        let handle = thread.spawn(move || {
            namespace.enter()?;
            work()
        });
        handle.with_context(|| format!("cannot start the thread {name}"))
    }

    /// Moves the calling thread, which must be one of the lab's own, into this namespace for good.
    fn enter(&self) -> Result<()> {
        setns(self.inner.handle.as_fd(), CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("cannot enter the namespace {}", self.inner.name))
    }

    /// Sets a sysctl of this namespace, e.g. `("net/ipv4/ip_forward", "1")`: the name with slashes, because an
    /// interface's name may hold dots.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        ensure!(
            name.starts_with("net/"),
            "sysctl {name} is not of a network namespace: a lab changes no other"
        );
        let path = Path::new("/proc/sys").join(name);
        self.exec(|| {
            std::fs::write(&path, value)
                .with_context(|| format!("cannot write {value} to {}", path.display()))
        })
    }

    fn command_of(&self, arguments: &[&str]) -> Result<Command> {
        let (program, arguments) = arguments.split_first().context("no program to run was named")?;
        let mut command = self.command(program);
        command.args(arguments);
        Ok(command)
    }
}

fn succeed(output: Output, arguments: &[&str]) -> Result<String> {
    ensure!(output.status.success(), "{} failed with {output}", started(arguments));
    Ok(output.stdout)
}

/// Another namespace of the lab that `netns` belongs to.
pub(crate) fn sibling(netns: &Netns, label: &str) -> Result<Netns> {
    Netns::create(&netns.inner.lab, label)
}
