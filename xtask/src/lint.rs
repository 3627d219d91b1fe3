//! `cargo xtask lint` and `cargo xtask fmt`.

use anyhow::{Context as _, Result};

use crate::artifacts::Toolchain;
use crate::packages::{self, Task};
use crate::process;
use crate::workspace::Workspace;

/// Formatting, lints of the host's and of the eBPF crate, documentation: warnings are errors.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    process::heading("formatting");
    process::run(workspace.cargo("fmt").args(["--all", "--check"]))
        .context("sources are not formatted: run `cargo xtask fmt`")?;

    process::heading("lints of the host crates");
    // With all features, of which one builds libFuzzer.
    packages::ensure(Task::Fuzz)?;
    process::run(workspace.cargo("clippy").args(["--all-targets", "--all-features", "--", "-Dwarnings"]))?;

    process::heading("lints of the eBPF crate");
    ebpf(workspace)?;

    process::heading("documentation");
    process::run(workspace.cargo("doc").arg("--no-deps").env("RUSTDOCFLAGS", "-Dwarnings"))
}

/// Formats all sources.
pub(crate) fn format(workspace: &Workspace) -> Result<()> {
    process::run(workspace.cargo("fmt").arg("--all"))
}

/// Clippy for the eBPF target, from the toolchain that compiles for it.
fn ebpf(workspace: &Workspace) -> Result<()> {
    let toolchain = Toolchain::prepare()?;
    let compiler = toolchain.compiler();
    if compiler.clippy().is_none() && compiler.is_debian() {
        packages::install(&["rust-web-clippy"], "lints of the eBPF crate")?;
    }
    let clippy = compiler.clippy().with_context(|| {
        format!(
            "{} has no clippy: run `rustup component add clippy` for its toolchain",
            compiler.rustc.display()
        )
    })?;
    process::run(toolchain.configure(workspace, clippy).args(["--all-features", "--", "-Dwarnings"]))
}
