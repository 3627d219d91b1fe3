//! The first process of the machine that `cargo xtask vm` boots: it makes the system usable, loads modules, runs the
//! plan's commands one after another, and switches the machine off with a status that only it can give.
//!
//! Linked statically, because it is what finds the rest. What it says to `cargo xtask vm` stands on lines of the serial
//! console that begin with [`MARK`]; everything else there is output of the commands or of the kernel.

mod off;
mod plan;
mod run;
mod system;

use std::process::ExitCode;

use anyhow::{Context as _, Result};

/// Begins each line that is meant for `cargo xtask vm`.
const MARK: &str = "@@vm ";

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("error: this is the first process of a test machine, which `cargo xtask vm` boots");
        return ExitCode::FAILURE;
    }
    let status = match boot() {
        Ok(()) => off::PASSED,
        Err(error) => {
            println!("{MARK}broken {error:#}");
            off::BROKEN
        }
    };
    off::switch_off(status)
}

/// Everything up to the last command's end. A command that fails is no error: its status is told.
fn boot() -> Result<()> {
    system::prepare()?;
    println!("{MARK}booted {}", system::kernel()?);
    let plan = plan::read()?;
    system::load_modules(&plan.modules);
    for command in &plan.commands {
        println!("{MARK}begin {}", command.name);
        let status =
            run::run(command, &plan.environment).with_context(|| format!("cannot run {}", command.name))?;
        println!("{MARK}end {} {status}", command.name);
    }
    println!("{MARK}done");
    Ok(())
}
