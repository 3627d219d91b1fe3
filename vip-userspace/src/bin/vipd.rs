//! vipd: the agent of one host.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use vip_userspace::{agent, config};

/// Forwards the traffic of VIPs and EIPs on this host.
///
/// Ends on SIGTERM and SIGINT; forwarding goes on then, until `vipctl detach`. RUST_LOG sets what is logged, to standard error.
#[derive(Debug, Parser)]
#[command(name = "vipd", version)]
struct Arguments {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/vip/vipd.yaml")]
    config: PathBuf,
}

fn main() -> ExitCode {
    // Wrong usage exits with 2, which is clap's own number for it.
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
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
        agent::run(config, shutdown).await.map_err(anyhow::Error::from)
    })
}
