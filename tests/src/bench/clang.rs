//! The benchmark's own programs, in C: built with clang when they are needed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

/// A program in C, and the header that it includes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    name: &'static str,
    text: &'static str,
}

const HEADER: Source = Source { name: "bpf.h", text: include_str!("../../bench/bpf.h") };

/// Restores packets and enters the program under test.
pub(super) const HARNESS: Source =
    Source { name: "harness.bpf.c", text: include_str!("../../bench/harness.bpf.c") };

/// What the forwarder is compared with.
pub(super) const PEERS: Source =
    Source { name: "peers.bpf.c", text: include_str!("../../bench/peers.bpf.c") };

/// A wire between namespaces.
pub(super) const WIRE: Source = Source { name: "wire.bpf.c", text: include_str!("../../bench/wire.bpf.c") };

/// Builds an object in a directory and gives its bytes.
pub(super) fn build(source: Source, directory: &Path) -> Result<Vec<u8>> {
    let place = |name: &str| -> PathBuf { directory.join(name) };
    for Source { name, text } in [HEADER, source] {
        fs::write(place(name), text).with_context(|| format!("cannot write {}", place(name).display()))?;
    }
    let object = place(source.name).with_extension("o");
    let output = Command::new("clang")
        // The same instruction set as the forwarder's own programs.
        .args(["-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-mcpu=v3", "-c"])
        .arg(place(source.name))
        .arg("-o")
        .arg(&object)
        .output()
        .context("cannot run clang (`cargo xtask bench` installs it)")?;
    if !output.status.success() {
        bail!("clang does not build {}: {}", source.name, String::from_utf8_lossy(&output.stderr).trim());
    }
    fs::read(&object).with_context(|| format!("cannot read {}", object.display()))
}
