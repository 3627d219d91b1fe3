//! `cargo xtask`: the one entry point for building, demonstrating and testing the forwarder.
//!
//! Every command sets up what it needs: it says what it installs before it does so, and keeps tools outside the
//! repository (see [`linker::tools_dir`]). What it cannot set up ends in an error of one line that says what to do.

mod artifacts;
mod bench;
mod budget;
mod compiler;
mod corpus;
mod demo;
mod fuzz;
mod linker;
mod lint;
mod packages;
mod preflight;
mod process;
mod services;
mod tally;
mod test;
mod versions;
mod vm;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::artifacts::Options;
use crate::budget::Mode;
use crate::workspace::Workspace;

/// Build, demonstrate and test the VIP/EIP forwarder
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the eBPF programs, then vipd with the programs inside, and vipctl
    Build(Options),
    /// Show a VIP move between two real keepalived guests, on one host or several, in network namespaces of its own (needs root)
    Demo(demo::Demo),
    /// Run all tests: on the host, in the kernel, and in labs of network namespaces (needs root)
    Test(TestArgs),
    /// Run the tests in virtual machines, on other kernels than this machine's (needs root)
    Vm(vm::Options),
    /// Show what the programs cost on the running kernel, against what they may (needs root)
    Budget {
        /// Write the figures into the repository's file
        #[arg(long)]
        update: bool,
    },
    /// Measure the forwarder beside what it is compared with, on this machine (needs root); `--help` tells how
    #[command(disable_help_flag = true)]
    Bench {
        /// What to measure and how to print it
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Search for frames for which what must hold does not: coverage-guided, for a bounded time
    Fuzz(fuzz::Options),
    /// Check formatting, lints and documentation, warnings being errors
    Lint,
    /// Format all sources
    Fmt,
    /// What the server runs: lint, test, a short fuzzing, the short benchmark, and a smoke test on other kernels
    Ci,
}

/// Which tests to run.
#[derive(Args)]
struct TestArgs {
    /// Leave out what needs root: the kernel's fixtures and the labs
    #[arg(long)]
    no_lab: bool,
    /// Run only tests whose name contains this
    filter: Option<String>,
}

fn main() -> ExitCode {
    packages::extend_path();
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let workspace = Workspace::locate()?;
    match command {
        Command::Build(options) => artifacts::build(&workspace, &options).map(|built| {
            process::heading("built");
            println!("{built}");
        }),
        Command::Demo(options) => demo::run(&workspace, &options),
        Command::Bench { arguments } => bench::run(&workspace, &arguments),
        Command::Test(args) => test::run(&workspace, args.no_lab, args.filter.as_deref()),
        Command::Budget { update } => {
            preflight::check()?;
            let built = artifacts::build(&workspace, &Options::default())?;
            process::heading("budget");
            budget::of_this_kernel(&workspace, &built.vipd, Mode::of(update))
        }
        Command::Vm(options) => vm::run(&workspace, &options),
        Command::Fuzz(options) => fuzz::run(&workspace, &options),
        Command::Lint => lint::run(&workspace),
        Command::Fmt => lint::format(&workspace),
        Command::Ci => {
            lint::run(&workspace)?;
            test::run(&workspace, false, None)?;
            fuzz::run(&workspace, &fuzz::Options::short())?;
            bench::run(&workspace, &["--short".into()])?;
            vm::run(&workspace, &vm::Options::smoke())
        }
    }
}
