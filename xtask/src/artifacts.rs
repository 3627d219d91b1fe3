//! The build: first the eBPF object, then the host programs that embed it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::compiler::Compiler;
use crate::workspace::Workspace;
use crate::{linker, process};

/// The target of the eBPF programs; big-endian hosts are not served.
const TARGET: &str = "bpfel-unknown-none";
/// Between two flags in `CARGO_ENCODED_RUSTFLAGS`, so that a flag may hold spaces.
const FLAG_SEPARATOR: &str = "\u{1f}";

/// How to build.
#[derive(Args)]
pub(crate) struct Options {
    /// The cargo profile of vipd and vipctl; the eBPF programs are always optimised
    #[arg(long, default_value = "release")]
    profile: String,
    /// Programs that log each decision, for debugging only
    #[arg(long)]
    log: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { profile: "release".to_owned(), log: false }
    }
}

/// What a build makes.
pub(crate) struct Artifacts {
    /// The eBPF object.
    pub(crate) object: PathBuf,
    /// The agent, with the object inside.
    pub(crate) vipd: PathBuf,
    /// The operator's tool.
    pub(crate) vipctl: PathBuf,
}

impl fmt::Display for Artifacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, vipd, vipctl } = self;
        write!(f, "{}\n{}\n{}", object.display(), vipd.display(), vipctl.display())
    }
}

/// Builds everything that runs on a host.
pub(crate) fn build(workspace: &Workspace, options: &Options) -> Result<Artifacts> {
    process::heading("eBPF programs");
    let toolchain = Toolchain::prepare()?;
    let object = toolchain.build(workspace, options.log)?;

    process::heading("vipd and vipctl");
    let mut command = workspace.cargo("build");
    command
        .args(["--package", "vip-userspace", "--bins", "--profile", &options.profile])
        .env("VIP_EBPF_OBJECT", &object);
    let built = executables(&mut command)?;
    Ok(Artifacts { object, vipd: named(&built, "vipd")?, vipctl: named(&built, "vipctl")? })
}

/// Compiler and linker for the eBPF programs.
pub(crate) struct Toolchain {
    compiler: Compiler,
    linker: PathBuf,
}

impl Toolchain {
    /// Finds both, installing what is missing.
    pub(crate) fn prepare() -> Result<Self> {
        let compiler = Compiler::find_or_install()?;
        let linker = linker::find_or_build(&compiler)?;
        Ok(Self { compiler, linker })
    }

    /// The compiler alone.
    pub(crate) fn compiler(&self) -> &Compiler {
        &self.compiler
    }

    /// Gives a command of the compiler's cargo the eBPF crate and everything that its target needs.
    pub(crate) fn configure(&self, workspace: &Workspace, mut command: Command) -> Command {
        let flags = [
            format!("-Clinker={}", self.linker.display()),
            // BTF, which names maps, functions and lines to the kernel, is made from the debug information.
            "-Cdebuginfo=2".to_owned(),
            "-Clink-arg=--btf".to_owned(),
            // Otherwise LLVM calls a function to clear even a few bytes, whose frame takes 32 bytes of the stack on Linux 6.1.
            "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
            // Compare-and-swap (kernel 5.12) and 32-bit jumps.
            "-Ctarget-cpu=v3".to_owned(),
        ];
        command
            .args(["--package", "vip-ebpf", "--release", "--target", TARGET, "-Zbuild-std=core"])
            .current_dir(&workspace.root)
            .env("CARGO_TARGET_DIR", bpf_dir(workspace))
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join(FLAG_SEPARATOR))
            // `-Zbuild-std` on a stable compiler.
            .env("RUSTC_BOOTSTRAP", "1")
            // The profile is the workspace's for the host; programs cannot unwind, and the verifier wants one
            // inlined, optimised unit.
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
            .env("CARGO_PROFILE_RELEASE_LTO", "fat")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3")
            .env("CARGO_PROFILE_RELEASE_PANIC", "abort");
        command
    }

    /// Builds the object and gives its lasting path, `bpf/vip-ebpf` in the target folder.
    fn build(&self, workspace: &Workspace, log: bool) -> Result<PathBuf> {
        let mut command = self.configure(workspace, self.compiler.cargo("build"));
        if log {
            command.args(["--features", "log"]);
        }
        let linked = named(&executables(&mut command)?, "vip-ebpf")?;
        let object = bpf_dir(workspace).join("vip-ebpf");
        copy_if_changed(&linked, &object)?;
        Ok(object)
    }
}

fn bpf_dir(workspace: &Workspace) -> PathBuf {
    workspace.target.join("bpf")
}

/// Copies unless the bytes are the same: a newer date alone would have cargo build vipd again.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    fs::write(to, bytes).with_context(|| format!("cannot write {}", to.display()))
}

/// Runs a cargo build of tests and gives each test program with its name.
pub(crate) fn tests(command: &mut Command) -> Result<Vec<(String, PathBuf)>> {
    each_artifact(command, test)
}

/// Builds the first process of the machine for `cargo xtask vm`: static, because it starts where no library is, and so in
/// a target folder of its own, whose dependencies the other builds do not share.
pub(crate) fn vm_init(workspace: &Workspace) -> Result<PathBuf> {
    process::heading("init of the machine");
    let mut command = workspace.cargo("build");
    command
        // Naming a target keeps the flags from build scripts and macros, which cannot be static.
        .args(["--package", "vip-vm-init", "--release", "--target", "x86_64-unknown-linux-gnu"])
        .env("CARGO_TARGET_DIR", workspace.target.join("vm"))
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");
    named(&executables(&mut command)?, "vip-vm-init")
}

/// Runs a cargo build and gives the executables that it made or found up to date.
pub(crate) fn executables(command: &mut Command) -> Result<Vec<PathBuf>> {
    each_artifact(command, executable)
}

/// Runs a cargo build and gives what `take` finds in its messages.
fn each_artifact<T>(command: &mut Command, take: impl Fn(&str) -> Option<T>) -> Result<Vec<T>> {
    let mut found = Vec::new();
    // The compiler's messages still go to the terminal, as text.
    command.arg("--message-format=json-render-diagnostics");
    let done = process::each_line(command, |line| found.extend(take(line)))?;
    if !done {
        bail!("the build failed; its messages are above");
    }
    Ok(found)
}

/// The executable that one of cargo's messages tells of.
fn executable(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    message.get("executable")?.as_str().map(PathBuf::from)
}

/// The test program, with its name, that one of cargo's messages tells of. Programs that tests start are built too.
fn test(message: &str) -> Option<(String, PathBuf)> {
    let parsed: Value = serde_json::from_str(message).ok()?;
    let is_test = parsed.pointer("/target/kind/0")?.as_str()? == "test";
    let name = parsed.pointer("/target/name")?.as_str()?;
    is_test.then(|| Some((name.to_owned(), executable(message)?)))?
}

pub(crate) fn named(executables: &[PathBuf], name: &str) -> Result<PathBuf> {
    executables
        .iter()
        .find(|path| path.file_name().is_some_and(|file| file == name))
        .cloned()
        .with_context(|| format!("cargo built no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_read_from_cargos_messages() {
        let artifact =
            r#"{"reason":"compiler-artifact","target":{"name":"vipd"},"executable":"/t/release/vipd"}"#;
        let library = r#"{"reason":"compiler-artifact","target":{"name":"anyhow"},"executable":null}"#;
        let end = r#"{"reason":"build-finished","success":true}"#;
        let found: Vec<_> =
            [artifact, library, end, "not json"].iter().filter_map(|line| executable(line)).collect();
        assert_eq!(found, [PathBuf::from("/t/release/vipd")]);
        assert_eq!(named(&found, "vipd").expect("it was built"), Path::new("/t/release/vipd"));
        assert!(named(&found, "vip").is_err());
        let lab = r#"{"reason":"compiler-artifact","target":{"name":"lab","kind":["test"]},"executable":"/t/lab-1f"}"#;
        let tests: Vec<_> = [artifact, lab, end].iter().filter_map(|line| test(line)).collect();
        assert_eq!(tests, [("lab".to_owned(), PathBuf::from("/t/lab-1f"))]);
    }

    #[test]
    fn an_unchanged_object_keeps_its_date() {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let date = || fs::metadata(&to).and_then(|file| file.modified()).expect("a date");
        fs::write(&from, "one").expect("a file");
        copy_if_changed(&from, &to).expect("copied");
        let past = std::time::SystemTime::UNIX_EPOCH;
        fs::File::options().write(true).open(&to).and_then(|file| file.set_modified(past)).expect("dated");
        copy_if_changed(&from, &to).expect("left alone");
        assert_eq!(date(), past);
        fs::write(&from, "two").expect("a file");
        copy_if_changed(&from, &to).expect("copied");
        assert_eq!(fs::read(&to).expect("a copy"), b"two");
    }
}
