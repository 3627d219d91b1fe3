//! The verifier's budget: what each program may cost on each kernel, in a file of the repository.
//!
//! A program's cost on a kernel is measured wherever it is loaded (`vipd --check-programs --json`). More than a tenth above
//! the file's figure is an error until somebody changes the file on purpose, by `cargo xtask budget --update`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::process;
use crate::workspace::Workspace;

/// The file, in the repository.
const FILE: &str = "vip-ebpf/budget.toml";

/// What a figure may grow by, in percent of the file's.
const GROWTH: u32 = 10;

/// Begins the file.
const PREFACE: &str = "\
# What each program costs, by kernel: instructions that the verifier went through, bytes of stack of all its functions,
# bytes of machine code. Tests fail when a figure grows by more than 10 %. After a change that is worth its cost:
# `cargo xtask budget --update` for the kernel that runs, `cargo xtask vm --smoke --update-budget` for those of the machine.
";

/// The figures of a program on a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cost {
    instructions: u32,
    stack: u32,
    machine_code: u32,
}

impl Cost {
    /// Each figure with its name.
    fn figures(self) -> [(&'static str, u32); 3] {
        let Self { instructions, stack, machine_code } = self;
        [
            ("verified instructions", instructions),
            ("bytes of stack", stack),
            ("bytes of machine code", machine_code),
        ]
    }
}

/// By program.
type Costs = BTreeMap<String, Cost>;

/// What vipd prints; of each program more than is of use here.
#[derive(Deserialize)]
struct Measured {
    kernel: String,
    programs: Vec<Program>,
}

#[derive(Deserialize)]
struct Program {
    name: String,
    verified_instructions: Option<u32>,
    stack_bytes: Option<u32>,
    jited_bytes: u32,
}

/// What to do with a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Compare it with the file.
    Check,
    /// Write it into the file.
    Update,
}

impl Mode {
    /// As a flag asks for.
    pub(crate) fn of(update: bool) -> Self {
        if update { Self::Update } else { Self::Check }
    }
}

/// Measures on the kernel that runs, with a vipd that is built.
pub(crate) fn of_this_kernel(workspace: &Workspace, vipd: &Path, mode: Mode) -> Result<()> {
    let measured = process::output(Command::new(vipd).args(["--check-programs", "--json"]))?;
    judge(workspace, &measured, mode)
}

/// Compares a measurement, one line of JSON, with the file, or puts it there.
pub(crate) fn judge(workspace: &Workspace, measured: &str, mode: Mode) -> Result<()> {
    let measured: Measured = serde_json::from_str(measured).context("vipd --check-programs wrote no JSON")?;
    let series = series(&measured.kernel)
        .with_context(|| format!("\"{}\" begins with no version of Linux", measured.kernel))?;
    let costs = costs(&measured.programs)?;
    let path = workspace.root.join(FILE);
    let mut budget = read(&path)?;
    show(&series, &costs, budget.get(&series));
    if mode == Mode::Update {
        budget.insert(series.clone(), costs);
        fs::write(&path, text(&budget)?).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{FILE} has these figures for Linux {series} now");
        return Ok(());
    }
    let Some(allowed) = budget.get(&series) else {
        println!("Linux {series} is not in {FILE}: nothing to compare with");
        return Ok(());
    };
    let above = above(&costs, allowed);
    if !above.is_empty() {
        bail!(
            "over the verifier's budget on Linux {series}: {}. Make the programs cheaper; or, if the change is worth it, \
             run `cargo xtask budget --update` (on the kernels of the machine: `cargo xtask vm --smoke \
             --update-budget`) and commit {FILE}",
            above.join("; ")
        );
    }
    Ok(())
}

/// `6.12` of `6.12.95+deb12-cloud-amd64`.
fn series(release: &str) -> Option<String> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    let (major, minor): (u32, u32) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some(format!("{major}.{minor}"))
}

fn costs(programs: &[Program]) -> Result<Costs> {
    programs
        .iter()
        .map(|program| {
            let Program { name, verified_instructions, stack_bytes, jited_bytes } = program;
            let cost = Cost {
                instructions: verified_instructions
                    .with_context(|| format!("this kernel does not tell {name}'s verified instructions"))?,
                stack: stack_bytes.with_context(|| format!("this kernel does not tell {name}'s stack"))?,
                machine_code: *jited_bytes,
            };
            Ok((name.clone(), cost))
        })
        .collect()
}

fn read(path: &Path) -> Result<BTreeMap<String, Costs>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is not what it should be", path.display()))
}

/// What grew too far, is not in the file at all, or is there and was not measured.
fn above(costs: &Costs, allowed: &Costs) -> Vec<String> {
    let missing = allowed.keys().filter(|name| !costs.contains_key(*name));
    let mut above: Vec<_> = missing.map(|name| format!("{name} was not measured")).collect();
    for (name, cost) in costs {
        let Some(allowed) = allowed.get(name) else {
            above.push(format!("{name} has no figures"));
            continue;
        };
        for ((figure, now), (_, then)) in cost.figures().into_iter().zip(allowed.figures()) {
            if u64::from(now) * 100 > u64::from(then) * u64::from(100 + GROWTH) {
                above.push(format!("{name} has {now} {figure} instead of {then}"));
            }
        }
    }
    above
}

fn show(series: &str, costs: &Costs, allowed: Option<&Costs>) {
    println!("programs on Linux {series} (change against {FILE}):");
    for (name, cost) in costs {
        let then = allowed.and_then(|allowed| allowed.get(name));
        let figures = cost.figures().into_iter().enumerate().map(|(index, (figure, now))| {
            let then = then.and_then(|then| then.figures().get(index).map(|(_, then)| *then));
            match then {
                Some(then) if then != now && then > 0 => {
                    let percent = (f64::from(now) - f64::from(then)) * 100.0 / f64::from(then);
                    format!("{now} {figure} ({percent:+.1} %)")
                }
                _ => format!("{now} {figure}"),
            }
        });
        println!("  {name}: {}", figures.collect::<Vec<_>>().join(", "));
    }
}

/// The file's text: kernels by version, programs by name.
fn text(budget: &BTreeMap<String, Costs>) -> Result<String> {
    let mut kernels: Vec<_> = budget.iter().collect();
    kernels.sort_by_key(|(series, _)| {
        series.split('.').map(|part| part.parse::<u32>().unwrap_or(u32::MAX)).collect::<Vec<_>>()
    });
    let mut text = PREFACE.to_owned();
    for (series, costs) in kernels {
        writeln!(text, "\n[\"{series}\"]")?;
        for (name, Cost { instructions, stack, machine_code }) in costs {
            writeln!(
                text,
                "{name} = {{ instructions = {instructions}, stack = {stack}, machine_code = {machine_code} }}"
            )?;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(instructions: u32, stack: u32) -> Costs {
        Costs::from([("port".to_owned(), Cost { instructions, stack, machine_code: 1000 })])
    }

    #[test]
    fn a_tenth_is_allowed_and_more_is_not() {
        assert!(above(&one(1100, 100), &one(1000, 100)).is_empty());
        assert_eq!(
            above(&one(1101, 100), &one(1000, 100)),
            ["port has 1101 verified instructions instead of 1000"]
        );
        assert_eq!(above(&one(900, 120), &one(1000, 100)).len(), 1);
        assert_eq!(above(&one(1, 1), &Costs::new()), ["port has no figures"]);
        assert_eq!(above(&Costs::new(), &one(1, 1)), ["port was not measured"]);
    }

    #[test]
    fn the_file_is_read_as_it_was_written_with_kernels_in_order() {
        let budget = BTreeMap::from([
            ("6.12".to_owned(), one(2, 2)),
            ("6.1".to_owned(), one(1, 1)),
            ("6.9".to_owned(), one(3, 3)),
        ]);
        let text = text(&budget).expect("a text");
        assert_eq!(toml::from_str::<BTreeMap<String, Costs>>(&text).expect("a budget"), budget);
        let at = |series: &str| text.find(&format!("[\"{series}\"]")).expect("the kernel");
        assert!(at("6.1") < at("6.9") && at("6.9") < at("6.12"), "{text}");
    }

    #[test]
    fn a_release_belongs_to_its_series() {
        assert_eq!(series("6.12.95+deb12-cloud-amd64").as_deref(), Some("6.12"));
        assert_eq!(series("6.1.0-56-cloud-amd64").as_deref(), Some("6.1"));
        assert_eq!(series("next"), None);
    }

    #[test]
    fn a_kernel_that_tells_nothing_is_an_error() {
        let program = |name: &str, figure| Program {
            name: name.to_owned(),
            verified_instructions: figure,
            stack_bytes: figure,
            jited_bytes: 1,
        };
        assert!(costs(&[program("uplink", Some(1)), program("port", Some(1))]).is_ok());
        let error =
            costs(&[program("uplink", Some(1)), program("port", None)]).expect_err("port's are not known");
        assert!(error.to_string().contains("port"), "{error}");
    }
}
