//! vipd: the agent of one host.

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use vip_userspace::{agent, config, kernel};

/// What is logged without RUST_LOG. The netlink library warns of answers that nobody waits for any more, which is no fault.
const DEFAULT_LOG: &str = "info,netlink_proto=error";

/// Forwards the traffic of VIPs and EIPs on this host.
///
/// Ends on SIGTERM and SIGINT; forwarding goes on then, until `vipctl detach`. RUST_LOG sets what is logged, to standard error.
#[derive(Debug, Parser)]
#[command(name = "vipd", version)]
struct Arguments {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/vip/vipd.yaml")]
    config: PathBuf,
    /// Loads the programs without attaching them, prints what this kernel's verifier made of each, and ends.
    #[arg(long, conflicts_with = "config")]
    check_programs: bool,
    /// Prints that as one line of JSON, with the kernel's release.
    #[arg(long, requires = "check_programs")]
    json: bool,
}

fn main() -> ExitCode {
    // Wrong usage exits with 2, which is clap's own number for it.
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    let done = if arguments.check_programs { check_programs(arguments.json) } else { run(&arguments) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check_programs(json: bool) -> Result<()> {
    let reports = kernel::report_programs(kernel::OBJECT)?;
    if json {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")
            .context("cannot read the kernel's release")?;
        println!("{}", serde_json::json!({ "kernel": release.trim(), "programs": reports }));
        return Ok(());
    }
    println!(
        "{:<14}{:<16}{:>21}{:>13}{:>18}{:>16}",
        "PROGRAM", "HOOK", "VERIFIED INSTRUCTIONS", "STACK BYTES", "TRANSLATED BYTES", "MACHINE BYTES"
    );
    for report in reports {
        let known =
            |number: Option<u32>| number.map_or_else(|| "unknown".to_owned(), |number| number.to_string());
        println!(
            "{:<14}{:<16}{:>21}{:>13}{:>18}{:>16}",
            report.name,
            report.kind,
            known(report.verified_instructions),
            known(report.stack_bytes),
            known(report.translated_bytes),
            report.jited_bytes
        );
    }
    Ok(())
}

fn run(arguments: &Arguments) -> Result<()> {
    let config = config::load(&arguments.config)?;
    // One thread: everything that opens sockets stays in one network namespace.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
        let shutdown = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        Box::pin(agent::run(config, shutdown)).await.map_err(anyhow::Error::from)
    })
}
