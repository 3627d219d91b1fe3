//! `cargo xtask demo`.

use anyhow::Result;

use crate::artifacts::{self, Options};
use crate::packages::{self, Task};
use crate::preflight;
use crate::workspace::Workspace;

/// Sets up what the demo needs, builds, and shows it; `keep` leaves its lab up.
pub(crate) fn run(workspace: &Workspace, keep: bool) -> Result<()> {
    preflight::check()?;
    packages::ensure(Task::Demo)?;
    let built = artifacts::build(workspace, &Options::default())?;
    vip_lab::demo::run(keep, &built.vipd, &built.vipctl)
}
