//! What compilers, linkers and `ldd` say about versions, as values.

use std::fmt;
use std::path::{Path, PathBuf};

/// A version of Rust, patch level left out: `1.95`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Release {
    /// `1` of `1.95`.
    pub(crate) major: u32,
    /// `95` of `1.95`.
    pub(crate) minor: u32,
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What `rustc -vV` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rustc {
    /// The version of Rust.
    pub(crate) release: Release,
    /// The major version of the LLVM inside; a linker of an older one cannot read this compiler's bitcode.
    pub(crate) llvm: u32,
}

impl Rustc {
    /// Reads the output of `rustc -vV`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let (major, minor) = first_two(field("release")?)?;
        let llvm = leading_number(field("LLVM version")?)?;
        Some(Self { release: Release { major, minor }, llvm })
    }
}

/// A shared LLVM that a program is linked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LlvmLibrary {
    /// The file, as the dynamic linker finds it.
    pub(crate) path: PathBuf,
    /// Its major version.
    pub(crate) major: u32,
}

/// Finds LLVM among the libraries that `ldd` lists; none when LLVM is linked statically or not found.
pub(crate) fn llvm_library(ldd: &str) -> Option<LlvmLibrary> {
    ldd.lines().find_map(|line| {
        let (name, rest) = line.trim().split_once(" => ")?;
        let major = llvm_major(name)?;
        // "libLLVM.so.22.1 => /usr/lib/libLLVM.so.22.1 (0x00007f…)", or "… => not found".
        let path = rest.split(" (").next()?.trim();
        path.starts_with('/').then(|| LlvmLibrary { path: Path::new(path).to_path_buf(), major })
    })
}

/// The major version in the name of LLVM's library: `libLLVM.so.22.1` since LLVM 18, `libLLVM-17.so.1` before.
fn llvm_major(name: &str) -> Option<u32> {
    let rest = name.strip_prefix("libLLVM")?;
    leading_number(rest.strip_prefix(".so.").or_else(|| rest.strip_prefix('-'))?)
}

/// `(1, 95)` of `1.95.0-nightly`.
fn first_two(version: &str) -> Option<(u32, u32)> {
    let (major, rest) = version.split_once('.')?;
    Some((major.parse().ok()?, leading_number(rest)?))
}

/// The digits that a text begins with.
fn leading_number(text: &str) -> Option<u32> {
    text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STABLE: &str = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\n\
                          release: 1.95.0\nLLVM version: 22.1.2\n";

    #[test]
    fn a_stable_compiler_is_read() {
        let rustc = Rustc::parse(STABLE).expect("a full answer");
        assert_eq!(rustc, Rustc { release: Release { major: 1, minor: 95 }, llvm: 22 });
        assert_eq!(rustc.release.to_string(), "1.95");
    }

    #[test]
    fn a_nightly_compiler_is_read() {
        let rustc = Rustc::parse(&STABLE.replace("release: 1.95.0", "release: 1.97.0-nightly"));
        assert_eq!(rustc.expect("a full answer").release, Release { major: 1, minor: 97 });
    }

    #[test]
    fn an_answer_without_llvm_is_no_answer() {
        assert_eq!(Rustc::parse("rustc 1.95.0\nrelease: 1.95.0\n"), None);
        assert_eq!(Rustc::parse(""), None);
        assert_eq!(Rustc::parse("release: one.two\nLLVM version: 22.1\n"), None);
    }

    #[test]
    fn releases_order_by_number_and_not_by_text() {
        assert!(Release { major: 1, minor: 100 } > Release { major: 1, minor: 88 });
    }

    #[test]
    fn llvm_is_found_under_each_of_its_names() {
        for (name, major) in
            [("libLLVM.so.22.1", 22), ("libLLVM.so.22.1-rust-1.95.0-stable", 22), ("libLLVM-15.so.1", 15)]
        {
            let ldd = format!(
                "\tlinux-vdso.so.1 (0x00007ffe)\n\t{name} => /opt/lib/{name} (0x00007f)\n\tlibc.so.6 => /lib/libc.so.6 (0x1)\n"
            );
            let expected = LlvmLibrary { path: Path::new("/opt/lib").join(name), major };
            assert_eq!(llvm_library(&ldd), Some(expected));
        }
    }

    #[test]
    fn a_missing_or_static_llvm_is_none() {
        assert_eq!(llvm_library("\tlibLLVM.so.22.1 => not found\n"), None);
        assert_eq!(llvm_library("\tlibc.so.6 => /lib/libc.so.6 (0x1)\n"), None);
        assert_eq!(llvm_library("\tstatically linked\n"), None);
    }
}
