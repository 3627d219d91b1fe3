//! `cargo xtask vm`: the tests that need a kernel, on kernels that this machine does not run.

mod apt;
mod cpio;
mod image;
mod kernel;
mod machine;
mod modules;
mod plan;
mod report;
mod skips;
mod suites;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use vip_lab::virtio;

use crate::budget::{self, Mode};
use crate::packages::{self, Task};
use crate::vm::image::{Base, HOME};
use crate::vm::kernel::{Choice, Debian, Kernel};
use crate::vm::machine::Limits;
use crate::vm::plan::{Command, Plan};
use crate::vm::report::Report;
use crate::workspace::Workspace;
use crate::{artifacts, corpus, preflight, process};

/// Software emulation, two processors, every lab: bounds for what hangs, not for what is slow.
const FULL: Limits = Limits { total: Duration::from_secs(180 * 60), silence: Duration::from_secs(10 * 60) };
/// The smoke test takes about two minutes.
const SMOKE: Limits = Limits { total: Duration::from_secs(10 * 60), silence: Duration::from_secs(5 * 60) };

/// What to boot and what to run there.
#[derive(Args)]
pub(crate) struct Options {
    /// Debian's kernel 6.1 or 6.12, a kernel image, or a Debian package of one; both of Debian's without it
    #[arg(long, value_name = "6.1|6.12|PATH")]
    kernel: Vec<Choice>,
    /// Only what shows in a minute that a kernel loads, attaches, forwards and moves
    #[arg(long, conflicts_with = "tests")]
    smoke: bool,
    /// Write what the programs cost into the repository's budget instead of comparing it
    #[arg(long)]
    update_budget: bool,
    /// Test programs (`hosts`), parts of the names of one's tests (`hosts::moves`), or of all tests (`ping`); all without it
    #[arg(last = true)]
    tests: Vec<String>,
}

impl Options {
    /// The short form on both kernels of Debian, as part of `cargo xtask ci`.
    pub(crate) fn smoke() -> Self {
        Self { kernel: Vec::new(), smoke: true, update_budget: false, tests: Vec::new() }
    }

    /// The tests to run; all if there are none.
    fn chosen(&self) -> Vec<String> {
        if self.smoke { suites::SMOKE.map(str::to_owned).into() } else { self.tests.clone() }
    }
}

/// Boots each kernel, one after another, and sums up.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the machine's processor is that of this one, which must be x86-64"
    );
    preflight::check()?;
    packages::ensure(Task::Vm)?;
    vip_lab::interrupt::remove_labs_on_signal();

    let corpus = corpus::make(workspace, corpus::FEW_PACKETS)?;
    let built = artifacts::build(workspace, &artifacts::Options::default())?;
    process::heading("tests");
    let suites = suites::build(workspace, &built)?;
    let tests = suites::commands(&suites, &options.chosen())?;
    ensure!(
        !options.smoke || tests.len() == suites::SMOKE.len(),
        "a suite of the smoke test is missing: {}",
        suites::SMOKE.join(", ")
    );
    let commands = [vec![programs()], tests].concat();
    let init = artifacts::vm_init(workspace)?;

    process::heading("kernels");
    let debian = Debian::ALL.map(Choice::Debian);
    let choices = if options.kernel.is_empty() { &debian[..] } else { &options.kernel };
    let kernels = choices.iter().map(Kernel::prepare).collect::<Result<Vec<_>>>()?;
    println!("processor: {}", if machine::has_kvm() { "lent by KVM" } else { "emulated, which is slow" });

    let base = Base::build(&init, &built, &corpus, &suites)?;
    let limits = if options.smoke { SMOKE } else { FULL };
    let mut failed = Vec::new();
    let mut summary = Vec::new();
    for kernel in &kernels {
        process::heading(&format!("Linux {}", kernel.name));
        let begin = Instant::now();
        let judged = boot(workspace, kernel, &base, &commands, limits).and_then(|report| {
            let tally = report.to_string();
            println!();
            judge(workspace, kernel, &report, options).map(|()| tally)
        });
        let seconds = begin.elapsed().as_secs();
        match judged {
            Ok(tally) => summary.push(format!("Linux {}: ok. {tally}; finished in {seconds} s", kernel.name)),
            Err(error) => {
                summary.push(format!("Linux {}: FAILED after {seconds} s. {error:#}", kernel.name));
                failed.push(kernel.name.as_str());
            }
        }
    }
    process::heading("summary");
    for line in summary {
        println!("{line}");
    }
    if !failed.is_empty() {
        bail!("tests failed on Linux {}; their messages are above", failed.join(" and "));
    }
    Ok(())
}

/// The programs' costs as the kernel's verifier has them.
fn programs() -> Command {
    let words = [&format!("{HOME}/vipd"), "--check-programs", "--json"].map(str::to_owned);
    Command { name: "programs".to_owned(), words: words.into() }
}

fn boot(
    workspace: &Workspace,
    kernel: &Kernel,
    base: &Base,
    commands: &[Command],
    limits: Limits,
) -> Result<Report> {
    let mut modules = Vec::new();
    if let Some(available) = &kernel.modules {
        let (chosen, lacking) = available.wanted()?;
        if !lacking.is_empty() {
            println!("this kernel has no {}", lacking.join(", "));
        }
        modules = chosen;
    }
    let mut environment: Vec<_> = [
        ("VIPD", "vipd"),
        ("VIPCTL", "vipctl"),
        ("VIP_EBPF_OBJECT", "vip-ebpf"),
        (corpus::VARIABLE, "corpus"),
    ]
    .map(|(name, file)| (name, format!("{HOME}/{file}")))
    .into();
    environment.push((virtio::VARIABLE, "2".to_owned()));
    if !machine::has_kvm() {
        environment.push((virtio::EMULATED, "1".to_owned()));
    }
    let plan = Plan { modules: Vec::new(), environment, commands: commands.to_vec() };
    let folder = workspace.target.join("vm");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let image = folder.join(format!("{}.cpio", kernel.name));
    base.write(&modules, plan, &image)?;
    let report = machine::boot(&kernel.image, &image, limits);
    fs::remove_file(&image).with_context(|| format!("cannot remove {}", image.display()))?;
    report
}

/// Whether a boot's report is that of a kernel that passes.
fn judge(workspace: &Workspace, kernel: &Kernel, report: &Report, options: &Options) -> Result<()> {
    if !report.failures.is_empty() {
        let names: Vec<_> =
            report.failures.iter().map(|(name, status)| format!("{name} (status {status})")).collect();
        bail!("{}; failed: {}", report.tally, names.join(", "));
    }
    ensure!(report.tally.passed > 0, "no test ran: {} is part of no test's name", options.tests.join(" or "));
    let chosen = options.chosen();
    let idle: Vec<_> = report.idle.iter().filter(|name| chosen.contains(name)).map(String::as_str).collect();
    ensure!(idle.is_empty(), "{}; there is no test {}", report.tally, idle.join(" or "));
    if kernel.is_complete {
        let release = report.release.as_deref().unwrap_or_default();
        let left_out: Vec<_> = report
            .skipped
            .iter()
            .filter(|skipped| !skips::is_excused(skipped, release))
            .map(String::as_str)
            .collect();
        ensure!(left_out.is_empty(), "{}; skipped without need: {}", report.tally, left_out.join("; "));
    }
    let programs = report.programs.as_deref().context("vipd told nothing of its programs")?;
    budget::judge(workspace, programs, Mode::of(options.update_budget))
}
