//! `cargo xtask demo`.

use anyhow::Result;
use clap::Args;

use crate::artifacts::{self, Options};
use crate::packages::{self, Task};
use crate::preflight;
use crate::workspace::Workspace;

/// Datagrams a second of each client, with several hosts.
const RATE: u32 = 10_000;

/// What to show.
#[derive(Args)]
pub(crate) struct Demo {
    /// Leave the lab up and print how to look around
    #[arg(long)]
    keep: bool,
    /// How many hosts: with three or more, VIPs move between two of them, under streams from a third one and from outside
    #[arg(long, value_parser = parse_hosts, default_value = "1")]
    hosts: u8,
    /// How many moves, with several hosts
    #[arg(long, default_value_t = 100, requires = "hosts")]
    moves: usize,
}

/// One, or as many as the demo of several hosts takes.
fn parse_hosts(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(number @ (1 | 3..=8)) => Ok(number),
        _ => Err("it is 1, or 3 to 8".to_owned()),
    }
}

/// Sets up what the demo needs, builds, and shows it.
pub(crate) fn run(workspace: &Workspace, demo: &Demo) -> Result<()> {
    let Demo { keep, hosts, moves } = *demo;
    preflight::check()?;
    packages::ensure(Task::Demo)?;
    let built = artifacts::build(workspace, &Options::default())?;
    if hosts == 1 {
        return vip_lab::demo::run(keep, &built.vipd, &built.vipctl);
    }
    let options = vip_lab::demo::hosts::Options { hosts, moves, rate: RATE, keep };
    vip_lab::demo::hosts::run(options, &built.vipd, &built.vipctl)
}
