//! `cargo xtask bench`.

use std::ffi::OsString;

use anyhow::Result;

use crate::artifacts::{self, Options, executables, named};
use crate::packages::{self, Task};
use crate::workspace::Workspace;
use crate::{preflight, process};

/// Sets up what the benchmark needs, builds it as it is meant to run, and runs it with its own arguments.
pub(crate) fn run(workspace: &Workspace, arguments: &[OsString]) -> Result<()> {
    preflight::check()?;
    packages::ensure(Task::Bench)?;
    let built = artifacts::build(workspace, &Options::default())?;
    process::heading("benchmark");
    let mut command = workspace.cargo("build");
    command
        .args(["--package", "vip-lab", "--features", "bench", "--bin", "vip-bench", "--release"])
        // What it is for vipd as well, or cargo would build the library anew each time.
        .env("VIP_EBPF_OBJECT", &built.object);
    let bench = named(&executables(&mut command)?, "vip-bench")?;
    process::run(
        std::process::Command::new(bench)
            .args(arguments)
            .env("VIPD", &built.vipd)
            .env("VIPCTL", &built.vipctl)
            .env("VIP_EBPF_OBJECT", &built.object),
    )
}
