//! bpf-linker: one that is on PATH, else one built once into a folder outside the repository.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::compiler::{Compiler, llvm_of};
use crate::packages;
use crate::process;
use crate::versions::LlvmLibrary;

/// The release that is built; it knows LLVM 21 to 23.
const RELEASE: &str = "0.13.0";

/// Finds a bpf-linker that reads this compiler's bitcode, else builds one, and says which it is.
pub(crate) fn find_or_build(compiler: &Compiler) -> Result<PathBuf> {
    let tools = tools_dir()?;
    let cached = tools.join("bin/bpf-linker");
    let on_path = packages::find_command("bpf-linker");
    for candidate in on_path.iter().chain([&cached]) {
        match judge(candidate, compiler.version.llvm) {
            Ok(version) => {
                println!("bpf-linker: {version} ({})", candidate.display());
                return Ok(candidate.clone());
            }
            Err(unfit) if candidate.exists() => {
                println!("bpf-linker: {} is left alone: {unfit:#}", candidate.display());
            }
            Err(_) => {}
        }
    }
    build(compiler, &tools)?;
    judge(&cached, compiler.version.llvm)
        .with_context(|| format!("the bpf-linker just built, {}, does not work", cached.display()))?;
    Ok(cached)
}

/// Where tools are kept that every clone of the repository shares: `$XDG_CACHE_HOME/vip-forwarder/tools`, or the
/// same below `~/.cache`.
pub(crate) fn tools_dir() -> Result<PathBuf> {
    let cache = match env::var_os("XDG_CACHE_HOME").filter(|folder| Path::new(folder).is_absolute()) {
        Some(folder) => PathBuf::from(folder),
        None => env::home_dir()
            .filter(|home| home.is_absolute())
            .context("no home folder to keep tools in: set HOME or XDG_CACHE_HOME")?
            .join(".cache"),
    };
    Ok(cache.join("vip-forwarder/tools"))
}

/// The linker's own version, or why it does not fit a compiler of that LLVM.
fn judge(linker: &Path, llvm: u32) -> Result<String> {
    let version = process::output(Command::new(linker).arg("--version").env_remove("LD_LIBRARY_PATH"))?;
    let version = version.trim().trim_start_matches("bpf-linker ").to_owned();
    match llvm_of(linker) {
        Some(library) if library.major < llvm => {
            bail!("its LLVM {} is older than the compiler's {llvm}", library.major)
        }
        Some(library) => Ok(format!("{version} with LLVM {}", library.major)),
        // A release binary links LLVM statically and tells its version nowhere; the link itself will tell.
        None => Ok(format!("{version} with an LLVM of its own")),
    }
}

fn build(compiler: &Compiler, tools: &Path) -> Result<()> {
    let Some(llvm) = compiler.llvm() else {
        bail!(
            "{} has its LLVM linked statically, so bpf-linker cannot be built against it: put a bpf-linker with LLVM \
             {} or later on PATH",
            compiler.rustc.display(),
            compiler.version.llvm
        );
    };
    println!(
        "building bpf-linker {RELEASE} against {} into {} (once, about a minute)",
        llvm.path.display(),
        tools.display()
    );
    let prefix = llvm_prefix(tools, &llvm)?;
    let mut install = compiler.cargo("install");
    install
        .args([
            "bpf-linker",
            "--version",
            RELEASE,
            "--locked",
            "--force",
            "--no-default-features",
            "--features",
        ])
        .arg(format!("llvm-{}", llvm.major))
        .arg("--root")
        .arg(tools)
        .env("LLVM_PREFIX", prefix)
        // Not in a workspace, whose configuration is none of the linker's business.
        .current_dir(tools);
    process::run(&mut install).context(
        "cannot build bpf-linker: crates.io must be reachable and `cc` installed; or put a bpf-linker on PATH",
    )
}

/// Makes the folder that stands for an installed LLVM: `lib/` with the library under the name that `-lLLVM`
/// looks for and under the one it is loaded by. The compiler's own folder has at most the second.
fn llvm_prefix(tools: &Path, llvm: &LlvmLibrary) -> Result<PathBuf> {
    let prefix = tools.join(format!("llvm-{}", llvm.major));
    let lib = prefix.join("lib");
    if lib.exists() {
        fs::remove_dir_all(&lib).with_context(|| format!("cannot renew {}", lib.display()))?;
    }
    fs::create_dir_all(&lib).with_context(|| format!("cannot make {}", lib.display()))?;
    // Through links of the toolchain itself to the file, so that only the toolchain's removal breaks the linker.
    let file = fs::canonicalize(&llvm.path)
        .with_context(|| format!("the compiler's LLVM {} cannot be found", llvm.path.display()))?;
    let loaded_as = llvm.path.file_name().context("an LLVM without a file name")?;
    for name in ["libLLVM.so".as_ref(), loaded_as] {
        let link = lib.join(name);
        symlink(&file, &link).with_context(|| format!("cannot link {}", link.display()))?;
    }
    Ok(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_folder_has_the_library_under_both_names_and_can_be_renewed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("libLLVM.so.22.1");
        fs::write(&path, "library").expect("a file");
        let llvm = LlvmLibrary { path: path.clone(), major: 22 };
        for _ in 0..2 {
            let prefix = llvm_prefix(folder.path(), &llvm).expect("links");
            for name in ["libLLVM.so", "libLLVM.so.22.1"] {
                assert_eq!(fs::read(prefix.join("lib").join(name)).expect("the library"), b"library");
            }
        }
    }

    #[test]
    fn a_linker_that_does_not_run_does_not_fit() {
        assert!(judge(Path::new("/no/such/bpf-linker"), 22).is_err());
        assert!(judge(Path::new("/bin/false"), 22).is_err());
    }
}
