//! The programs that demo and tests run, and the Debian packages they come from.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, anyhow, bail};

use crate::preflight;
use crate::process;
use crate::services::Quiet;

/// Where administrators' programs are: not on everybody's PATH, not even on that of every root shell.
const SYSTEM_DIRS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// A command of xtask that needs programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Task {
    /// `cargo xtask demo`.
    Demo,
    /// `cargo xtask test`, which needs all that the demo needs and more.
    Test,
    /// `cargo xtask bench`, which needs all that the tests need and more.
    Bench,
    /// `cargo xtask vm`, which runs the tests in a machine and needs all that they need and more.
    Vm,
    /// `cargo xtask fuzz`, which runs nobody's programs, and the lints of its targets.
    Fuzz,
}

impl Task {
    /// Whether it needs what another task is the least to need.
    fn needs(self, least: Self) -> bool {
        if self == Self::Fuzz {
            return least == self;
        }
        // Benchmark and machine need the tests' programs, and neither those of the other.
        least == self || least <= self.min(Self::Test)
    }
}

/// A program that is run, and where it comes from.
struct Program {
    /// Its name on PATH, or its path where programs of the same name differ.
    command: &'static str,
    package: &'static str,
    /// What it is run for, told before it is installed.
    purpose: &'static str,
    /// The least task that needs it.
    task: Task,
}

const fn program(command: &'static str, package: &'static str, task: Task, purpose: &'static str) -> Program {
    Program { command, package, purpose, task }
}

/// All programs that are run, by name.
const PROGRAMS: [Program; 21] = [
    // By its path: Debian's other arping has different options and lies in /usr/sbin.
    program("/usr/bin/arping", "iputils-arping", Task::Demo, "gratuitous ARP"),
    program("bridge", "iproute2", Task::Demo, "bridges of the lab"),
    program("c++", "g++", Task::Fuzz, "libFuzzer, which is C++"),
    program("clang", "clang", Task::Bench, "the programs that the benchmark compares with"),
    program("curl", "curl", Task::Demo, "the outside client"),
    program("dig", "bind9-dnsutils", Task::Test, "answers in fragments"),
    program("ethtool", "ethtool", Task::Demo, "offloads of the outside sender"),
    program("ip", "iproute2", Task::Demo, "namespaces and links of the lab"),
    program("iperf3", "iperf3", Task::Test, "TCP and UDP streams"),
    program("ipvsadm", "ipvsadm", Task::Test, "LVS directors, where the kernel has IPVS"),
    program("keepalived", "keepalived", Task::Demo, "VRRP in the guests"),
    program("ldd", "libc-bin", Task::Vm, "the libraries of what runs in the machine"),
    program(
        "nft",
        "nftables",
        Task::Test,
        "routers that keep errors to themselves, DNAT as the kernel does it",
    ),
    program("nginx", "nginx-light", Task::Demo, "the page behind the VIP"),
    program("nsd", "nsd", Task::Test, "a name server with long answers"),
    program("objcopy", "binutils", Task::Vm, "test programs without debugging information"),
    program("ping", "iputils-ping", Task::Demo, "reachability"),
    program("qemu-system-x86_64", "qemu-system-x86", Task::Vm, "the machine"),
    program("tcpdump", "tcpdump", Task::Test, "what a wire carries"),
    program("traceroute", "traceroute", Task::Test, "routers on the way"),
    program("xz", "xz-utils", Task::Vm, "compressed modules of kernels"),
];

/// Installs what the task needs and this machine lacks.
pub(crate) fn ensure(task: Task) -> Result<()> {
    let missing: Vec<_> = PROGRAMS
        .iter()
        .filter(|program| task.needs(program.task) && find_command(program.command).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let purposes: Vec<_> =
        missing.iter().map(|program| format!("{} for {}", program.command, program.purpose)).collect();
    let packages: BTreeSet<_> = missing.iter().map(|program| program.package).collect();
    install(&packages.into_iter().collect::<Vec<_>>(), &purposes.join(", "))?;
    for program in missing {
        if find_command(program.command).is_none() {
            bail!("{} is still missing after {} was installed", program.command, program.package);
        }
    }
    Ok(())
}

/// The programs that a task runs, by name or path.
pub(crate) fn commands(task: Task) -> impl Iterator<Item = &'static str> {
    PROGRAMS.iter().filter(move |program| task.needs(program.task)).map(|program| program.command)
}

/// Says what is installed, and installs it. Nothing is ever removed, and no service is started.
pub(crate) fn install(packages: &[&str], purpose: &str) -> Result<()> {
    let list = packages.join(" ");
    if find_command("apt-get").is_none() {
        bail!(
            "missing on this machine, which has no apt-get: {list} ({purpose}); install them by its own means"
        );
    }
    if !preflight::is_root()? {
        bail!("missing on this machine: {list} ({purpose}); run `apt-get install {list}` as root");
    }
    println!("installing with apt-get: {list} ({purpose})");
    let _quiet = Quiet::begin()?;
    // An unreachable list of somebody else's packages must not stop ours: only the installation decides.
    if let Err(error) = process::run(apt_get().arg("update")) {
        println!("going on with the lists that are here: {error:#}");
    }
    let mut command = apt_get();
    command.args(["install", "--yes", "--no-install-recommends", "--no-remove"]).args(packages);
    // The command with all its options would bury what to do; apt-get's messages name the cause.
    process::run(&mut command).map_err(|_| {
        anyhow!(
            "apt-get cannot install {list}: make the package servers in /etc/apt reachable and run this again, or \
             install them by hand; its messages are above"
        )
    })
}

/// Finds a program on PATH or in the folders of administrators' programs; a path stands for itself.
pub(crate) fn find_command(command: &str) -> Option<PathBuf> {
    find_in(command, &search_path())
}

/// Puts the administrators' folders on PATH, for the programs that demo and tests start by name.
pub(crate) fn extend_path() {
    if let Ok(path) = env::join_paths(search_path()) {
        // SAFETY: called first in main, before any other thread exists that could read the environment.
        unsafe { env::set_var("PATH", path) };
    }
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .args(["--quiet", "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"])
        .env("DEBIAN_FRONTEND", "noninteractive")
        // The calling cargo's libraries are no business of the packages' scripts.
        .env_remove("LD_LIBRARY_PATH");
    command
}

/// PATH, and behind it those administrators' folders that it lacks.
fn search_path() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    let mut folders: Vec<_> = env::split_paths(&path).collect();
    for folder in SYSTEM_DIRS.map(PathBuf::from) {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

fn find_in(command: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    // Joining a path that begins with a slash gives that path.
    folders.iter().map(|folder| folder.join(command)).find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn tests_need_all_that_the_demo_needs() {
        let test: Vec<_> = commands(Task::Test).collect();
        assert!(commands(Task::Demo).all(|command| test.contains(&command)));
        assert!(test.contains(&"iperf3"));
        assert!(commands(Task::Demo).all(|command| command != "iperf3"));
        let vm: Vec<_> = commands(Task::Vm).collect();
        assert!(test.iter().all(|command| vm.contains(command)));
        assert_eq!(commands(Task::Fuzz).collect::<Vec<_>>(), ["c++"]);
        assert!(!vm.contains(&"c++") && !test.contains(&"c++"));
        assert!(!vm.contains(&"clang") && commands(Task::Bench).all(|command| command != "xz"));
    }

    #[test]
    fn the_table_is_sorted_and_names_each_program_once() {
        assert!(PROGRAMS.is_sorted_by(|a, b| a.command < b.command));
    }

    #[test]
    fn only_executable_files_are_commands_and_the_first_folder_wins() {
        let root = tempfile::tempdir().expect("a folder");
        let folders = ["a", "b", "c"].map(|name| root.path().join(name));
        for (folder, mode) in folders.iter().zip([0o644, 0o755, 0o755]) {
            fs::create_dir(folder).expect("a folder");
            let file = folder.join("tool");
            fs::write(&file, "").expect("a file");
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("a mode");
        }
        assert_eq!(find_in("tool", &folders), Some(folders[1].join("tool")));
        assert_eq!(find_in("other", &folders), None);
    }

    #[test]
    fn a_path_stands_for_itself_whatever_is_on_path() {
        assert_eq!(find_in("/bin/sh", &[PathBuf::from("/nowhere")]), Some(PathBuf::from("/bin/sh")));
        assert_eq!(find_in("/no/such/sh", &[PathBuf::from("/bin")]), None);
    }

    #[test]
    fn administrators_programs_are_found_without_their_folder_on_path() {
        assert!(search_path().contains(&PathBuf::from("/usr/sbin")));
    }
}
