//! `vip-bench`: the benchmark, built and started by `cargo xtask bench`.

use std::process::ExitCode;

use clap::Parser as _;
use vip_lab::bench::{Options, run};

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
