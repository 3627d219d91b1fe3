//! The corpus: packets and what must come of them, as scapy tells it, in a virtual environment that nobody else uses.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use vip_lab::corpus;

use crate::workspace::Workspace;
use crate::{linker, packages, process};

/// The variable that names the file to the tests.
pub(crate) const VARIABLE: &str = corpus::VARIABLE;

/// Packets for this machine's kernel.
pub(crate) const PACKETS: u32 = 3000;
/// Packets for a kernel whose processor may be emulated: each class and way is there.
pub(crate) const FEW_PACKETS: u32 = 500;

/// Where the parts of it are in the repository.
const FOLDER: &str = "tests/corpus";

/// Makes the corpus, unless the one from last time is of the same script, world and scapy, and gives its path.
pub(crate) fn make(workspace: &Workspace, packets: u32) -> Result<PathBuf> {
    process::heading("corpus");
    let script = workspace.root.join(FOLDER).join("corpus.py");
    let requirements = workspace.root.join(FOLDER).join("requirements.txt");
    let world = corpus::world().to_string();
    let made_of = [read(&requirements)?, world.clone(), packets.to_string(), read(&script)?].join("\n");

    let folder = workspace.target.join("corpus");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let file = |kind: &str| folder.join(format!("{packets}.{kind}"));
    let (path, made_of_path, world_path) = (file("jsonl"), file("made-of"), file("world.json"));
    if path.exists() && fs::read_to_string(&made_of_path).is_ok_and(|last| last == made_of) {
        println!("as it was: {}", path.display());
        return Ok(path);
    }
    let python = environment(&requirements)?;
    println!("making {packets} packets with scapy (some seconds): {}", path.display());
    write(&world_path, &world)?;
    let world = File::open(&world_path).with_context(|| format!("cannot read {}", world_path.display()))?;
    let mut command = isolated(&python);
    command.arg(&script).args(["--packets", &packets.to_string()]).stdin(world);
    let lines = process::output(&mut command).context("the corpus cannot be made")?;
    write(&path, &lines)?;
    // Last: it says that the rest is there.
    write(&made_of_path, &made_of)?;
    Ok(path)
}

/// The interpreter of an environment with what `requirements` pin, which is made if there is none.
fn environment(requirements: &Path) -> Result<PathBuf> {
    let environment = linker::tools_dir()?.join("scapy");
    let (python, installed) = (environment.join("bin/python"), environment.join("requirements.txt"));
    let pinned = read(requirements)?;
    // The interpreter that it was made with may be gone.
    let runs = || process::output(isolated(&python).args(["-c", "import scapy"])).is_ok();
    if fs::read_to_string(&installed).is_ok_and(|last| last == pinned) && runs() {
        return Ok(python);
    }
    println!("making a virtual environment with scapy in {} (once, some seconds)", environment.display());
    let maker = maker()?;
    process::run(isolated(&maker).args(["-m", "venv", "--clear"]).arg(&environment))?;
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--require-hashes",
        "--requirement",
    ];
    process::run(isolated(&python).args(pip).arg(requirements)).context(
        "cannot install scapy: pypi.org, or the index that pip is configured for, must be reachable",
    )?;
    write(&installed, &pinned)?;
    Ok(python)
}

/// A Python that can make virtual environments; Debian has that part in a package of its own.
fn maker() -> Result<PathBuf> {
    if let Some(python) = able() {
        return Ok(python);
    }
    packages::install(&["python3-venv"], "the virtual environment of scapy")?;
    match able() {
        Some(python) => Ok(python),
        None => bail!("no python3 here can make virtual environments, though python3-venv was installed"),
    }
}

fn able() -> Option<PathBuf> {
    // The first may be one that its user has built without.
    ["python3", "/usr/bin/python3"]
        .into_iter()
        .filter_map(packages::find_command)
        .find(|python| process::output(isolated(python).args(["-c", "import ensurepip, venv"])).is_ok())
}

/// A command of an interpreter that sees nothing of its user's Python.
fn isolated(python: &Path) -> Command {
    let mut command = Command::new(python);
    command
        .arg("-I")
        // The calling cargo names libraries of the compiler's there.
        .env_remove("LD_LIBRARY_PATH");
    command
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
