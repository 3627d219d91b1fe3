//! Kernels to boot: Debian's, or one that is given.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail, ensure};

use crate::vm::apt::Apt;
use crate::vm::modules::Modules;
use crate::{linker, process};

/// The package that stands for a suite's newest kernel for virtual machines.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// What `--kernel` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// A kernel of Debian 12.
    Debian(Debian),
    /// A kernel image, with its modules beside it if it has any, or a Debian package of one.
    File(PathBuf),
}

/// Kernels of Debian 12.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Debian {
    /// The release's own.
    V6_1,
    /// That of its backports.
    V6_12,
}

impl Debian {
    /// Both, oldest first.
    pub(crate) const ALL: [Self; 2] = [Self::V6_1, Self::V6_12];

    fn series(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }

    fn suite(self) -> &'static str {
        match self {
            Self::V6_1 => "bookworm-security",
            Self::V6_12 => "bookworm-backports",
        }
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(&debian) = Debian::ALL.iter().find(|debian| debian.series() == text) {
            return Ok(Self::Debian(debian));
        }
        let path = PathBuf::from(text);
        if path.is_file() {
            return Ok(Self::File(path));
        }
        Err("is neither 6.1 nor 6.12 nor a file (a kernel image or a Debian package of one)".to_owned())
    }
}

/// A kernel that can be booted.
pub(crate) struct Kernel {
    /// How people call it: `6.1`, or the file's name.
    pub(crate) name: String,
    /// The image that QEMU loads.
    pub(crate) image: PathBuf,
    /// Its modules; none: all it can do is built in.
    pub(crate) modules: Option<Modules>,
}

impl Kernel {
    /// Fetches and unpacks what is not there yet.
    pub(crate) fn prepare(choice: &Choice) -> Result<Self> {
        match choice {
            Choice::Debian(debian) => Self::debian(*debian)
                .with_context(|| format!("cannot get Debian's kernel {}", debian.series())),
            Choice::File(path) if path.extension().is_some_and(|extension| extension == "deb") => {
                let name = stem(path)?;
                let folder = kernels_dir()?.join(&name);
                unpack(path, &folder)?;
                Self::unpacked(name, &folder)
            }
            Choice::File(path) => {
                // As in an unpacked package or an installed system: boot/vmlinuz-… beside lib/modules.
                let image = fs::canonicalize(path)?;
                let system = image.parent().and_then(Path::parent).context("an image in no folder")?;
                let release = image
                    .file_name()
                    .and_then(|name| name.to_str()?.split_once('-'))
                    .map(|(_, release)| system.join("lib/modules").join(release));
                let modules = release.filter(|folder| folder.is_dir()).map(|folder| Modules::read(&folder));
                Ok(Self { name: stem(path)?, image, modules: modules.transpose()? })
            }
        }
    }

    fn debian(debian: Debian) -> Result<Self> {
        let kernels = kernels_dir()?;
        let apt = Apt::update(&kernels.join("apt"))?;
        let package = apt.dependency(META_PACKAGE, debian.suite())?;
        ensure!(
            package.starts_with(&format!("linux-image-{}.", debian.series())),
            "{} has {package} now, which is another series: this script must name the suite that has it",
            debian.suite()
        );
        let folder = kernels.join(&package);
        if folder.is_dir() {
            println!("kernel: {package} ({})", folder.display());
        } else {
            println!(
                "kernel: downloading {package} (30 MB, unpacked into {}, not installed)",
                folder.display()
            );
            let file = apt.download(&package, &kernels)?;
            unpack(&file, &folder)?;
            fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        }
        Self::unpacked(debian.series().to_owned(), &folder)
    }

    /// A kernel in the layout of Debian's package.
    fn unpacked(name: String, folder: &Path) -> Result<Self> {
        let image = only(&folder.join("boot"), |name| name.starts_with("vmlinuz-"))?;
        let modules = only(&folder.join("lib/modules"), |_| true)?;
        Ok(Self { name, image, modules: Some(Modules::read(&modules)?) })
    }
}

fn kernels_dir() -> Result<PathBuf> {
    let folder = linker::tools_dir()?.join("kernels");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// Unpacks a Debian package; a folder that exists was unpacked whole.
fn unpack(package: &Path, folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let partial = folder.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("cannot renew {}", partial.display()))?;
    }
    process::output(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&partial))
        .with_context(|| format!("cannot unpack {}", package.display()))?;
    fs::rename(&partial, folder).with_context(|| format!("cannot make {}", folder.display()))
}

/// The one entry of a folder whose name fits.
fn only(folder: &Path, fits: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut found = entries
        .filter_map(Result::ok)
        .filter(|entry| fits(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path());
    match (found.next(), found.next()) {
        (Some(path), None) => Ok(path),
        _ => bail!("{} holds not exactly one kernel", folder.display()),
    }
}

fn stem(path: &Path) -> Result<String> {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    stem.map(str::to_owned).with_context(|| format!("{} has no UTF-8 name", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_named_by_series_or_by_file() {
        assert_eq!("6.1".parse(), Ok(Choice::Debian(Debian::V6_1)));
        assert_eq!("6.12".parse(), Ok(Choice::Debian(Debian::V6_12)));
        assert!("6.99".parse::<Choice>().is_err());
        assert_eq!("/bin/sh".parse(), Ok(Choice::File(PathBuf::from("/bin/sh"))));
    }

    #[test]
    fn a_folder_with_two_kernels_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("vmlinuz-1"), "").expect("a file");
        assert!(only(folder.path(), |name| name.starts_with("vmlinuz-")).is_ok());
        fs::write(folder.path().join("vmlinuz-2"), "").expect("a file");
        assert!(only(folder.path(), |name| name.starts_with("vmlinuz-")).is_err());
    }
}
