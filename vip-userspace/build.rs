//! Hands the built eBPF object to the crate that embeds it.
//!
//! `cargo xtask build` builds the object first and names it in `VIP_EBPF_OBJECT`. Only that variable counts: an
//! object that lies about in the target folder may be older than the sources and is never taken up silently.
//! Without the variable (a plain `cargo test` or `cargo check`, no eBPF compiler) the crate embeds an empty file
//! and compiles without the cfg `vip_ebpf_embedded`, so that `vipd` can say what is missing.
//!
//! Sets for the crate: the environment variable `VIP_EBPF_OBJECT_PATH` (always a file, absolute path).

use std::path::{Path, PathBuf};
use std::{env, fs};

const OBJECT: &str = "VIP_EBPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={OBJECT}");
    println!("cargo::rustc-check-cfg=cfg(vip_ebpf_embedded)");
    match object() {
        Ok(path) => println!("cargo::rustc-env=VIP_EBPF_OBJECT_PATH={}", path.display()),
        Err(message) => println!("cargo::error={message}"),
    }
}

/// The file to embed: the built object, or an empty one.
fn object() -> Result<PathBuf, String> {
    let Some(named) = env::var_os(OBJECT).filter(|value| !value.is_empty()) else {
        let out = env::var_os("OUT_DIR").ok_or("cargo did not set OUT_DIR")?;
        let empty = Path::new(&out).join("no-ebpf-object");
        fs::write(&empty, []).map_err(|error| format!("cannot write {}: {error}", empty.display()))?;
        return Ok(empty);
    };
    let path = PathBuf::from(named);
    println!("cargo::rerun-if-changed={}", path.display());
    match fs::metadata(&path) {
        Ok(file) if path.is_absolute() && file.is_file() && file.len() > 0 => {
            println!("cargo::rustc-cfg=vip_ebpf_embedded");
            Ok(path)
        }
        Ok(_) => Err(format!(
            "{OBJECT}={} is not the absolute path of a built object: run `cargo xtask build`",
            path.display()
        )),
        Err(error) => {
            Err(format!("cannot read {OBJECT}={}: {error}: run `cargo xtask build`", path.display()))
        }
    }
}
