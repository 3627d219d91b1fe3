//! Running one command, and burying whoever else dies meanwhile.

use std::process::{Command as Process, Stdio};

use anyhow::{Context as _, Result};
use nix::{
    sys::wait::{WaitStatus, wait},
    unistd::Pid,
};

use crate::plan::Command;

/// Where programs are.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs a command to its end and gives its exit status; one that a signal ended has 128 + that, as in a shell.
pub(crate) fn run(command: &Command, environment: &[(String, String)]) -> Result<i32> {
    let child = Process::new(&command.program)
        .args(&command.arguments)
        .env_clear()
        .envs([("PATH", PATH), ("HOME", "/root"), ("LC_ALL", "C")])
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir("/tmp")
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", command.program))?;
    let child = i32::try_from(child.id()).map(Pid::from_raw)?;
    loop {
        // Orphans of everybody become children of the first process; only the command's own end counts.
        match wait().context("cannot wait for children")? {
            WaitStatus::Exited(pid, status) if pid == child => return Ok(status),
            WaitStatus::Signaled(pid, signal, _) if pid == child => return Ok(128 + signal as i32),
            _ => {}
        }
    }
}
