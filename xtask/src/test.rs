//! `cargo xtask test`: from what needs nothing to what needs a kernel and root, each step on top of the last.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, anyhow, bail};

use crate::artifacts::{self, Artifacts, Options};
use crate::packages::{self, Task};
use crate::tally::Tally;
use crate::workspace::Workspace;
use crate::{budget, corpus, preflight, process};

/// Runs the tests whose names contain `filter`; `no_lab` leaves out those that need root.
///
/// The last line sums up in the form of `cargo test`.
pub(crate) fn run(workspace: &Workspace, no_lab: bool, filter: Option<&str>) -> Result<()> {
    let begin = Instant::now();
    if !no_lab {
        // What stops the last step is told before the first one.
        preflight::check()?;
        packages::ensure(Task::Test)?;
    }
    let mut tally = Tally::default();
    let mut done = steps(workspace, no_lab, filter, &mut tally);
    if done.is_ok() && tally.passed == 0 {
        done = Err(match filter {
            Some(filter) => anyhow!("no test has `{filter}` in its name"),
            None => anyhow!("no test ran"),
        });
    }
    process::heading("summary");
    println!(
        "test result: {}. {tally}; finished in {} s",
        if done.is_ok() { "ok" } else { "FAILED" },
        begin.elapsed().as_secs()
    );
    done
}

fn steps(workspace: &Workspace, no_lab: bool, filter: Option<&str>, tally: &mut Tally) -> Result<()> {
    let corpus = corpus::make(workspace, corpus::PACKETS)?;

    process::heading("host tests");
    // The workspace's default members; the labs' tests are behind a feature of theirs.
    let mut host = workspace.cargo("test");
    host.arg("--no-fail-fast").args(filter).env(corpus::VARIABLE, &corpus);
    suites(&mut host, tally, "host tests")?;

    let built = artifacts::build(workspace, &Options::default())?;
    if no_lab {
        return Ok(());
    }

    process::heading("programs, as this kernel's verifier has them");
    budget::of_this_kernel(workspace, &built.vipd, budget::Mode::Check)?;

    process::heading("kernel fixtures and labs");
    suites(labs(workspace, &built, &corpus).args(filter), tally, "kernel fixtures and labs")
}

/// Builds the tests that need root: integration tests behind the feature `kernel`. Unit tests are left out.
pub(crate) fn kernel_tests(workspace: &Workspace, built: &Artifacts) -> Command {
    let mut command = workspace.cargo("test");
    command
        .args(["--package", "vip-lab", "--package", "vip-userspace", "--features", "kernel", "--test", "*"])
        .env("VIPD", &built.vipd)
        .env("VIPCTL", &built.vipctl)
        .env("VIP_EBPF_OBJECT", &built.object);
    command
}

/// Runs them, one at a time, because a lab's streams and timers want the machine to themselves.
fn labs(workspace: &Workspace, built: &Artifacts, corpus: &Path) -> Command {
    let mut command = kernel_tests(workspace, built);
    command.env(corpus::VARIABLE, corpus).args(["--no-fail-fast", "--", "--test-threads=1"]);
    command
}

/// Runs `cargo test`, showing its output and counting its reports.
fn suites(command: &mut Command, tally: &mut Tally, name: &str) -> Result<()> {
    let passed = process::each_line(command, |line| {
        println!("{line}");
        tally.read(line);
    })?;
    if !passed {
        bail!("{name} failed; their messages are above");
    }
    Ok(())
}
