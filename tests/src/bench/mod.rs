//! The benchmark: what the forwarder costs, beside what it is compared with, in one run on one machine.
//!
//! Nothing is asserted about time. What is asserted is that the real path was measured: see each part. Programs that are
//! compared take turns, so a figure of one and the other stand for the same moments, and every ratio is made of two
//! neighbours in time.

mod clang;
mod end_to_end;
mod forwarder;
mod generator;
mod harness;
mod machine;
mod moves;
mod outer;
mod peers;
mod per_packet;
mod report;
mod stats;
mod tcp;
mod world;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

pub use self::per_packet::Path;
use self::report::Report;
use crate::{Lab, interrupt};

/// Tells on standard error what is being done.
macro_rules! progress {
    ($($words:tt)*) => { eprintln!("bench: {}", format_args!($($words)*)) };
}
use progress;

/// What to measure, and how.
#[derive(Debug, clap::Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
pub struct Options {
    /// Only show that the harness measures the real path, in less than a minute: few samples, no figures to rely on
    #[arg(long)]
    pub short: bool,
    /// Only these parts
    #[arg(long, value_enum)]
    pub only: Vec<Part>,
    /// Only these ways of a packet in part a
    #[arg(long = "path", value_enum)]
    pub paths: Vec<Path>,
    /// Only these numbers of entries
    #[arg(long = "entries")]
    pub entries: Vec<u32>,
    /// How to print what was found
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// The eBPF object
    #[arg(long, env = "VIP_EBPF_OBJECT", hide = true)]
    pub ebpf_object: PathBuf,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Cost per packet in the kernel's test run
    A,
    /// Packets per second from end to end
    B,
    /// TCP throughput and time of a transaction
    C,
    /// Moves, and what a million EIPs take
    D,
}

/// How to print what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

impl Options {
    fn has(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    /// Numbers of entries.
    fn sizes(&self) -> Vec<u32> {
        match (self.entries.is_empty(), self.short) {
            (false, _) => self.entries.clone(),
            (true, false) => vec![1, 1000, 100_000, 1_000_000],
            (true, true) => vec![1, 1000],
        }
    }

    fn object(&self) -> Result<Vec<u8>> {
        fs::read(&self.ebpf_object).with_context(|| format!("cannot read {}", self.ebpf_object.display()))
    }
}

/// Measures, and prints what was found.
pub fn run(options: &Options) -> Result<()> {
    interrupt::remove_labs_on_signal();
    let lab = Lab::new()?;
    let mut report = Report { machine: machine::describe(), sections: Vec::new() };
    if options.has(Part::A) {
        report.sections.push(per_packet::run(options, &lab)?);
    }
    if options.has(Part::B) {
        report.sections.push(end_to_end::run(options, &lab)?);
    }
    if options.has(Part::C) {
        report.sections.push(tcp::run(options, &lab)?);
    }
    if options.has(Part::D) {
        report.sections.push(moves::run(options, &lab)?);
    }
    drop(lab);
    match options.output {
        Format::Table => {
            for section in &report.sections {
                println!("{}", section.text());
            }
        }
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(())
}
