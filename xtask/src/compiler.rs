//! The compiler for `bpfel-unknown-none`: a rustc whose own `core` sources are installed, since nobody ships
//! that target's standard library built.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::versions::{LlvmLibrary, Release, Rustc, llvm_library};
use crate::{packages, process};

/// Names a compiler that is taken instead of searching for one.
const OVERRIDE: &str = "VIP_BPF_RUSTC";
/// The oldest compiler that builds the workspace (`rust-version` of `Cargo.toml`).
const OLDEST: Release = Release { major: 1, minor: 88 };
/// Where Debian puts its compiler.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// Debian's compiler of the browser team: recent in every release, and shipped with its sources.
const DEBIAN_PACKAGES: [&str; 3] = ["cargo-web", "rust-web-src", "rustc-web"];

/// A compiler with sources, and the cargo that goes with it.
pub(crate) struct Compiler {
    /// The compiler itself, never a proxy that picks one.
    pub(crate) rustc: PathBuf,
    /// The cargo beside it.
    pub(crate) cargo: PathBuf,
    /// What it says of itself.
    pub(crate) version: Rustc,
    /// How it was found, for the reader.
    origin: String,
}

impl Compiler {
    /// Finds a compiler, else installs Debian's, and says which it is.
    pub(crate) fn find_or_install() -> Result<Self> {
        let compiler = match Self::find()? {
            Some(compiler) => compiler,
            None => Self::install()?,
        };
        println!(
            "eBPF compiler: rustc {} with LLVM {} ({}, {})",
            compiler.version.release,
            compiler.version.llvm,
            compiler.origin,
            compiler.rustc.display()
        );
        Ok(compiler)
    }

    /// A command of this compiler's cargo.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut command = self.program(&self.cargo);
        command.arg(subcommand);
        command
    }

    /// This compiler's clippy, if it is installed: by its path, because cargo would look for it in
    /// `~/.cargo/bin` first and find another compiler's.
    pub(crate) fn clippy(&self) -> Option<Command> {
        let path = self.cargo.with_file_name("cargo-clippy");
        path.is_file().then(|| {
            let mut command = self.program(&path);
            command.arg("clippy");
            command
        })
    }

    /// A program of this compiler's toolchain, kept clear of the calling cargo's settings for the host: they reach
    /// xtask through `cargo run` and its callers, and none of them fits another compiler and target.
    fn program(&self, path: &Path) -> Command {
        let mut command = Command::new(path);
        command.env("CARGO", &self.cargo).env("RUSTC", &self.rustc);
        for name in [
            "CARGO_BUILD_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_TARGET_DIR",
            "LD_LIBRARY_PATH",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTDOCFLAGS",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// The shared LLVM inside this compiler, to link bpf-linker to; none when it is linked statically.
    pub(crate) fn llvm(&self) -> Option<LlvmLibrary> {
        llvm_of(&self.rustc)
    }

    /// Whether this is Debian's compiler, whose missing parts apt-get can install.
    pub(crate) fn is_debian(&self) -> bool {
        self.rustc == Path::new(DEBIAN_RUSTC)
    }

    fn find() -> Result<Option<Self>> {
        if let Some(named) = env::var_os(OVERRIDE) {
            return match Self::inspect(Path::new(&named), OVERRIDE) {
                Ok(Ok(compiler)) => Ok(Some(compiler)),
                Ok(Err(unfit)) => bail!("{OVERRIDE}={}: {unfit}", named.display()),
                Err(error) => Err(error).with_context(|| format!("{OVERRIDE}={}", named.display())),
            };
        }
        let rustup = rustup_compilers().into_iter().map(|(path, name)| (path, format!("rustup's {name}")));
        let system = [(PathBuf::from(DEBIAN_RUSTC), "the system's".to_owned())];
        // A toolchain that does not even run is no candidate; the next one may be.
        Ok(rustup.chain(system).find_map(|(path, origin)| Self::inspect(&path, &origin).ok()?.ok()))
    }

    fn install() -> Result<Self> {
        println!("no rustc here has its own core sources, which eBPF programs are built from");
        packages::install(&DEBIAN_PACKAGES, "the eBPF compiler and its sources").context(
            "no eBPF compiler: add sources to a rustup toolchain by `rustup component add rust-src`, or install \
             Debian's rustc-web, cargo-web and rust-web-src",
        )?;
        match Self::inspect(Path::new(DEBIAN_RUSTC), "Debian's, just installed")? {
            Ok(compiler) => Ok(compiler),
            Err(unfit) => bail!(
                "{DEBIAN_RUSTC} {unfit}: enable the distribution's security updates, or run `rustup component add \
                 rust-src`"
            ),
        }
    }

    /// Looks at a compiler: an error when it does not run, an inner one, for the reader, when it does not fit.
    fn inspect(rustc: &Path, origin: &str) -> Result<Result<Self, String>> {
        let ask = |argument: &[&str]| {
            process::output(Command::new(rustc).args(argument).env_remove("LD_LIBRARY_PATH"))
        };
        let text = ask(&["-vV"])?;
        let version = Rustc::parse(&text).with_context(|| format!("rustc -vV answers {text:?}"))?;
        if version.release < OLDEST {
            return Ok(Err(format!("is Rust {}, and {OLDEST} or later is needed", version.release)));
        }
        let sysroot = PathBuf::from(ask(&["--print", "sysroot"])?.trim_end());
        if !sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file() {
            return Ok(Err("has no core sources (rust-src)".to_owned()));
        }
        let cargo = sysroot.join("bin/cargo");
        if !cargo.is_file() {
            return Ok(Err(format!("has no cargo beside it ({})", cargo.display())));
        }
        let rustc = rustc.to_path_buf();
        Ok(Ok(Self { rustc, cargo, version, origin: origin.to_owned() }))
    }
}

/// The shared LLVM that a program is linked to.
pub(crate) fn llvm_of(program: &Path) -> Option<LlvmLibrary> {
    let ldd = process::output(Command::new("ldd").arg(program).env_remove("LD_LIBRARY_PATH")).ok()?;
    llvm_library(&ldd)
}

/// The compilers of rustup's toolchains with their names; none without rustup.
fn rustup_compilers() -> Vec<(PathBuf, String)> {
    let rustup = |arguments: &[&str]| {
        // Asking for a toolchain must not make rustup download one.
        process::output(Command::new("rustup").args(arguments).env("RUSTUP_AUTO_INSTALL", "0"))
    };
    let Ok(list) = rustup(&["toolchain", "list"]) else { return Vec::new() };
    list.lines()
        .filter_map(|line| {
            let name = line.split_whitespace().next()?;
            let path = rustup(&["which", "--toolchain", name, "rustc"]).ok()?;
            Some((PathBuf::from(path.trim_end()), name.to_owned()))
        })
        .collect()
}
