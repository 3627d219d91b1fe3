//! Where this workspace and its build products lie.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::process;

/// The workspace that xtask was called in.
pub(crate) struct Workspace {
    /// The folder of the workspace's `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// The target folder, as cargo's configuration and environment decide it.
    pub(crate) target: PathBuf,
    /// The cargo that runs xtask: the host programs are built with the same one.
    cargo: OsString,
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn locate() -> Result<Self> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        // `cargo run` names the package's folder, so that xtask works from every folder below the workspace.
        let manifest = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
        let metadata = process::output(
            Command::new(&cargo).args(["metadata", "--no-deps", "--format-version=1"]).current_dir(&manifest),
        )
        .context("xtask runs as `cargo xtask` inside the workspace")?;
        let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata wrote no JSON")?;
        let folder = |key: &str| {
            metadata.get(key).and_then(Value::as_str).map(PathBuf::from).with_context(|| {
                format!("cargo metadata names no {key}: this cargo is too old or too new for xtask")
            })
        };
        Ok(Self { root: folder("workspace_root")?, target: folder("target_directory")?, cargo })
    }

    /// A cargo command for the host, run in the workspace's root.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.cargo);
        command.arg(subcommand).current_dir(&self.root);
        command
    }
}
