//! Kernels to boot: Debian's, or one that is given.

use std::fs;
use std::io::ErrorKind;
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

    /// How the names of its packages begin.
    fn prefix(self) -> String {
        format!("linux-image-{}.", self.series())
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
    /// Whether it is one of Debian's, which have all that tests ask for: a test is skipped there for the kernel's age, or is broken.
    pub(crate) is_complete: bool,
}

impl Kernel {
    /// Fetches and unpacks what is not there yet.
    pub(crate) fn prepare(choice: &Choice) -> Result<Self> {
        match choice {
            Choice::Debian(debian) => Self::debian(*debian)
                .map(|kernel| Self { is_complete: true, ..kernel })
                .with_context(|| format!("cannot get Debian's kernel {}", debian.series())),
            Choice::File(path) if path.extension().is_some_and(|extension| extension == "deb") => {
                let name = file_name(path)?;
                let folder = kernels_dir()?.join(&name);
                // Unlike Debian's, a package of one name may come in several makes.
                remove(&folder)?;
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
                Ok(Self { name: file_name(path)?, image, modules: modules.transpose()?, is_complete: false })
            }
        }
    }

    fn debian(debian: Debian) -> Result<Self> {
        let kernels = kernels_dir()?;
        let apt = match Apt::update(&kernels.join("apt")) {
            Ok(apt) => apt,
            // No reason to test nothing where the servers cannot be reached.
            Err(error) => {
                let Some(package) = latest_unpacked(&kernels, debian)? else { return Err(error) };
                println!("warning: {error:#}\nkernel: {package}, which was fetched before");
                return Self::unpacked(debian.series().to_owned(), &kernels.join(package));
            }
        };
        let package = apt.dependency(META_PACKAGE, debian.suite())?;
        ensure!(
            package.starts_with(&debian.prefix()),
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
        // Debian 13 packs them below /usr.
        let places = ["lib/modules", "usr/lib/modules"].map(|place| folder.join(place));
        let modules = places.iter().find(|place| place.is_dir()).context("the package has no modules")?;
        let modules = only(modules, |_| true)?;
        Ok(Self { name, image, modules: Some(Modules::read(&modules)?), is_complete: false })
    }
}

fn kernels_dir() -> Result<PathBuf> {
    let folder = linker::tools_dir()?.join("kernels");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// The package of a series that was unpacked last.
fn latest_unpacked(kernels: &Path, debian: Debian) -> Result<Option<String>> {
    let entries = fs::read_dir(kernels).with_context(|| format!("cannot read {}", kernels.display()))?;
    let found = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let name = entry.file_name().into_string().ok()?;
        let fits =
            name.starts_with(&debian.prefix()) && name.ends_with("-cloud-amd64") && entry.path().is_dir();
        fits.then_some((entry.metadata().ok()?.modified().ok()?, name))
    });
    Ok(found.max().map(|(_, name)| name))
}

/// Unpacks a Debian package; the folder appears when it is whole.
fn unpack(package: &Path, folder: &Path) -> Result<()> {
    let partial = folder.with_file_name(format!("{}.partial", file_name(folder)?));
    remove(&partial)?;
    process::output(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&partial))
        .with_context(|| format!("cannot unpack {}", package.display()))?;
    fs::rename(&partial, folder).with_context(|| format!("cannot make {}", folder.display()))
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
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

fn file_name(path: &Path) -> Result<String> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).with_context(|| format!("{} has no UTF-8 name", path.display()))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn kernels_are_named_by_series_or_by_file() {
        assert_eq!("6.1".parse(), Ok(Choice::Debian(Debian::V6_1)));
        assert_eq!("6.12".parse(), Ok(Choice::Debian(Debian::V6_12)));
        assert!("6.99".parse::<Choice>().is_err());
        assert_eq!("/bin/sh".parse(), Ok(Choice::File(PathBuf::from("/bin/sh"))));
    }

    #[test]
    fn without_servers_the_last_kernel_of_the_series_is_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(latest_unpacked(folder.path(), Debian::V6_1).expect("read"), None);
        for (name, seconds) in [
            ("linux-image-6.1.0-9-cloud-amd64", 1),
            ("linux-image-6.1.0-10-cloud-amd64", 2),
            ("linux-image-6.1.0-11-cloud-amd64.partial", 3),
            ("linux-image-6.12.9-cloud-amd64", 4),
        ] {
            let kernel = folder.path().join(name);
            fs::create_dir(&kernel).expect("a folder");
            let date = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            fs::File::open(&kernel).and_then(|kernel| kernel.set_modified(date)).expect("dated");
        }
        let latest = latest_unpacked(folder.path(), Debian::V6_1).expect("read");
        assert_eq!(latest.as_deref(), Some("linux-image-6.1.0-10-cloud-amd64"));
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
