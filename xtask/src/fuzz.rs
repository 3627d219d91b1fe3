//! `cargo xtask fuzz`: libFuzzer on the pipeline, for a bounded time.
//!
//! The targets are programs of `tests/fuzz`, built by the compiler that builds the rest. What LLVM must do for them stands behind
//! unstable options, which are allowed by `RUSTC_BOOTSTRAP`: only the pipeline's crate is instrumented, so that `cov` counts its
//! edges and no others; AddressSanitizer watches everything, if the compiler has it. All that is made lies in the target folder.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use vip_fuzz::{Target, seeds};

use crate::artifacts::{executables, named};
use crate::packages::{self, Task};
use crate::process;
use crate::workspace::Workspace;

/// Turns the targets' own changes of inputs off.
const PLAIN: &str = vip_fuzz::PLAIN;
/// Longest input in bytes: an ICMP error that is too long to be translated.
const LONGEST: usize = vip_fuzz::mutate::LONGEST + vip_fuzz::Input::HEADER;
/// What LLVM's coverage pass is to count, in the crate of the pipeline: edges, and values that are compared.
const COVERAGE: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    // Branches that are folded into one are no edges that could be counted.
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
];

/// How to search.
#[derive(Args)]
pub(crate) struct Options {
    /// How long to search, all targets together
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// One target only: uplink or port
    #[arg(long)]
    target: Option<String>,
    /// Search four times from nothing, with and without seeds and changes that know packets, and compare the coverage
    #[arg(long)]
    compare: bool,
    /// More for libFuzzer: options, or inputs to run instead of searching
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

impl Options {
    /// The search of `cargo xtask ci`.
    pub(crate) fn short() -> Self {
        Self { seconds: 30, target: None, compare: false, arguments: Vec::new() }
    }

    fn targets(&self) -> Result<Vec<Target>> {
        let Some(name) = &self.target else { return Ok(Target::ALL.to_vec()) };
        let names = Target::ALL.map(Target::name).join(", ");
        let target = Target::ALL.into_iter().find(|target| target.name() == name);
        Ok(vec![target.with_context(|| format!("there is no target {name}: {names}"))?])
    }

    /// Whether inputs are named, which libFuzzer then runs instead of searching.
    fn names_inputs(&self) -> bool {
        self.arguments.iter().any(|argument| !argument.to_string_lossy().starts_with('-'))
    }
}

/// Builds the targets, and searches or runs what is named.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let targets = options.targets()?;
    packages::ensure(Task::Fuzz)?;
    let programs = build(workspace)?;
    let seconds = options.seconds.div_ceil(targets.len() as u64).max(1);
    for target in targets {
        let search = Search::of(workspace, &programs, target, options)?;
        if options.compare {
            search.compare(seconds)?;
        } else if options.names_inputs() {
            process::heading(&format!("fuzz target {}", target.name()));
            process::run(search.program().args(&options.arguments))?;
        } else {
            process::heading(&format!("fuzz target {}, {seconds} s", target.name()));
            let seeds = search.write_seeds()?;
            let corpus = search.folder("corpus")?;
            println!("{seeds} seeds from the fixtures, more of earlier runs in {}", corpus.display());
            let coverage = search.run(seconds, &corpus, true, false, true)?;
            println!("{}: no finding; {coverage}", target.name());
        }
    }
    Ok(())
}

/// Builds all targets and gives their programs.
fn build(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    process::heading("fuzz targets");
    let rustc = Rustc::ask(workspace)?;
    let sanitizer = rustc.has_address_sanitizer();
    println!(
        "for {} with libFuzzer, which is built once (about a minute), and {} AddressSanitizer",
        rustc.host,
        if sanitizer { "with" } else { "without, because the compiler has none," }
    );
    let quoted: Vec<_> = COVERAGE.iter().map(|flag| format!("\"{flag}\"")).collect();
    let mut command = workspace.cargo("build");
    command
        .args(["--package", "vip-fuzz", "--features", "libfuzzer", "--bins", "--profile", "fuzz"])
        // Naming a target keeps the flags from build scripts and macros.
        .args(["--target", &rustc.host, "-Zprofile-rustflags", "--config"])
        .arg(format!("profile.fuzz.package.vip-common.rustflags=[{}]", quoted.join(",")))
        .env("CARGO_ENCODED_RUSTFLAGS", if sanitizer { "-Zsanitizer=address" } else { "" })
        .env("RUSTC_BOOTSTRAP", "1");
    executables(&mut command)
}

/// The compiler that cargo calls.
struct Rustc {
    /// The target that it compiles for by itself.
    host: String,
    /// Its libraries of that target.
    libraries: PathBuf,
}

impl Rustc {
    fn ask(workspace: &Workspace) -> Result<Self> {
        let rustc = || {
            let mut command = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
            command.current_dir(&workspace.root);
            command
        };
        let version = process::output(rustc().arg("-vV"))?;
        let host = version.lines().find_map(|line| line.strip_prefix("host: "));
        let libraries = process::output(rustc().args(["--print", "target-libdir"]))?;
        Ok(Self {
            host: host.context("rustc tells no host")?.to_owned(),
            libraries: PathBuf::from(libraries.trim_end()),
        })
    }

    fn has_address_sanitizer(&self) -> bool {
        let files = fs::read_dir(&self.libraries).into_iter().flatten().flatten();
        files.map(|file| file.file_name()).any(|name| name.to_string_lossy().ends_with("_rt.asan.a"))
    }
}

/// What a search has reached, as libFuzzer's last line tells it.
#[derive(Debug, PartialEq, Eq)]
struct Coverage {
    /// Inputs that ran.
    runs: u64,
    /// Edges of the pipeline's crate.
    edges: u64,
}

impl Coverage {
    /// Of a line like `#4194304 DONE cov: 912 ft: 3011 corp: 801/88Kb …`.
    fn parse(line: &str) -> Option<Self> {
        let runs = line.strip_prefix('#')?.split_once('\t')?.0.parse().ok()?;
        let (_, rest) = line.split_once("cov: ")?;
        Some(Self { runs, edges: rest.split(' ').next()?.parse().ok()? })
    }
}

impl std::fmt::Display for Coverage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} inputs, {} edges of the pipeline", self.runs, self.edges)
    }
}

/// A target with its folders.
struct Search {
    target: Target,
    program: PathBuf,
    /// All that it makes.
    folder: PathBuf,
    arguments: Vec<OsString>,
}

impl Search {
    fn of(workspace: &Workspace, programs: &[PathBuf], target: Target, options: &Options) -> Result<Self> {
        Ok(Self {
            target,
            program: named(programs, target.program())?,
            folder: workspace.target.join("fuzz").join(target.name()),
            arguments: options.arguments.clone(),
        })
    }

    fn program(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            // The calling cargo's libraries are of no use to it.
            .env_remove("LD_LIBRARY_PATH")
            .env("RUST_BACKTRACE", "0");
        command
    }

    /// A folder of the target's, made if it is not there.
    fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }

    /// The same without anything in it.
    fn empty_folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        self.folder(name)
    }

    /// Writes the seeds anew, those of before the last change of the fixtures being of no use.
    fn write_seeds(&self) -> Result<usize> {
        let written = seeds::write(self.target, &self.empty_folder("seeds")?)?;
        ensure!(written > 0, "the target {} has no seeds", self.target.name());
        Ok(written)
    }

    /// Searches, and tells how to go on with what is found, which is an error.
    fn run(&self, seconds: u64, corpus: &Path, seeded: bool, plain: bool, told: bool) -> Result<Coverage> {
        let findings = self.folder("findings")?;
        let mut command = self.program();
        command
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={LONGEST}"))
            .arg(format!("-artifact_prefix={}/", findings.display()))
            // A frame is through in less than a millisecond.
            .args(["-timeout=10", "-detect_leaks=0"])
            .args(&self.arguments)
            .arg(corpus);
        if seeded {
            command.arg(self.folder("seeds")?);
        }
        if plain {
            command.env(PLAIN, "1");
        }
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        let (mut coverage, mut finding) = (None, None);
        let (mut panicked, mut silent) = (false, !told);
        for line in BufReader::new(child.stderr.take().context("no messages")?).split(b'\n') {
            let line = line.context("cannot read what libFuzzer writes")?;
            let line = String::from_utf8_lossy(&line);
            if let Some((_, path)) = line.split_once("Test unit written to ") {
                finding = Some(path.to_owned());
            }
            if line.contains("\tDONE") {
                coverage = Coverage::parse(&line);
            }
            // An oracle tells all that is to know; libFuzzer then tells where the program was, and the same bytes thrice.
            panicked |= line.contains(" panicked at ");
            silent |= panicked && line.starts_with("==");
            // Each new input has a line.
            let is_new = line.starts_with('#')
                && !["\tINITED", "\tpulse", "\tDONE"].iter().any(|word| line.contains(word));
            if !silent && !is_new {
                println!("{line}");
            }
        }
        let status = child.wait().context("cannot wait for libFuzzer")?;
        if let Some(finding) = finding {
            bail!("{}", self.how_to_go_on(&finding));
        }
        ensure!(status.success(), "the target {} ended with {status}", self.target.name());
        coverage.context("libFuzzer has told no coverage")
    }

    fn how_to_go_on(&self, finding: &str) -> String {
        let again = format!("cargo xtask fuzz --target {} --", self.target.name());
        let smaller = self.folder.join("findings/smaller");
        let smaller = smaller.display();
        format!(
            "a finding: {finding}\n  run it again:    {again} {finding}\n  make it smaller: {again} -minimize_crash=1 \
             -max_total_time=60 -exact_artifact_path={smaller} {finding}\n  keep it:         cp {smaller} \
             tests/fuzz/regressions/NAME, and tell its story in tests/fuzz/src/regressions.rs"
        )
    }

    /// Shows what seeds and changes that know packets are worth.
    fn compare(&self, seconds: u64) -> Result<()> {
        process::heading(&format!("fuzz target {}, four times {seconds} s from nothing", self.target.name()));
        self.write_seeds()?;
        for (name, seeded, plain) in [
            ("with seeds and changes that know packets", true, false),
            ("without seeds", false, false),
            ("without changes that know packets", true, true),
            ("without both", false, true),
        ] {
            let coverage = self.run(seconds, &self.empty_folder("compared")?, seeded, plain, false)?;
            println!("{name:>42}: {coverage}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coverage_is_read_from_the_last_line() {
        let line = "#1234\tDONE   cov: 912 ft: 3011 corp: 801/88Kb lim: 9606 exec/s: 61 rss: 92Mb";
        assert_eq!(Coverage::parse(line), Some(Coverage { runs: 1234, edges: 912 }));
        assert_eq!(Coverage::parse("#1234\tDONE   ft: 1"), None);
        assert_eq!(Coverage::parse("Done 1234 runs in 2 second(s)"), None);
    }

    #[test]
    fn inputs_are_told_from_options() {
        let mut options = Options::short();
        options.arguments = vec!["-runs=1".into()];
        assert!(!options.names_inputs());
        options.arguments.push("file".into());
        assert!(options.names_inputs());
    }

    #[test]
    fn a_target_that_does_not_exist_is_refused() {
        let options = Options { target: Some("both".to_owned()), ..Options::short() };
        assert!(options.targets().is_err());
        assert_eq!(Options::short().targets().expect("all"), Target::ALL);
    }
}
