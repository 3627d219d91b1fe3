//! Debian packages without installing them, from Debian's own servers, with lists of our own: `/etc/apt` and the
//! machine's lists stay as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process;

/// The release whose kernels are tested, and its newer kernels.
const SUITES: [(&str, &str); 3] = [
    ("http://deb.debian.org/debian", "bookworm"),
    ("http://deb.debian.org/debian", "bookworm-backports"),
    ("http://deb.debian.org/debian-security", "bookworm-security"),
];

/// Debian's keys, as its package `debian-archive-keyring` installs them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A package manager's view of Debian in a folder of our own.
pub(crate) struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Fetches the lists.
    pub(crate) fn update(folder: &Path) -> Result<Self> {
        if !Path::new(KEYRING).exists() {
            bail!(
                "{KEYRING} is missing: install debian-archive-keyring, or give a kernel by `--kernel PATH`"
            );
        }
        let apt = Self { folder: folder.to_path_buf() };
        for part in ["lists/partial", "cache/archives/partial"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
        }
        let sources = SUITES
            .map(|(server, suite)| format!("deb [arch=amd64 signed-by={KEYRING}] {server} {suite} main\n"));
        fs::write(apt.sources(), sources.concat()).context("cannot write the list of package servers")?;
        process::output(apt.command("apt-get").arg("update"))
            .context("cannot fetch Debian's package lists")?;
        Ok(apt)
    }

    /// The version of a package in a suite that a package of the same suite names as its newest kernel: Debian's
    /// `linux-image-cloud-amd64` holds nothing but a dependency on the kernel of the day.
    pub(crate) fn dependency(&self, package: &str, suite: &str) -> Result<String> {
        let shown = process::output(
            self.command("apt-cache").args(["depends", "--important"]).arg(format!("{package}/{suite}")),
        )?;
        first_dependency(&shown).with_context(|| format!("{package} of {suite} depends on nothing: {shown}"))
    }

    /// Downloads a package into a folder and gives its file.
    pub(crate) fn download(&self, package: &str, folder: &Path) -> Result<PathBuf> {
        let into = folder.join("download");
        fs::create_dir_all(&into).with_context(|| format!("cannot make {}", into.display()))?;
        process::output(self.command("apt-get").args(["download", package]).current_dir(&into))
            .with_context(|| format!("cannot download {package}"))?;
        let file = fs::read_dir(&into)?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with(&format!("{package}_")))
            })
            .with_context(|| format!("apt-get downloaded {package}, but it is not in {}", into.display()))?;
        Ok(file)
    }

    fn sources(&self) -> PathBuf {
        self.folder.join("sources.list")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let options = [
            format!("Dir::Etc::SourceList={}", self.sources().display()),
            "Dir::Etc::SourceParts=-".to_owned(),
            format!("Dir::State::Lists={}", self.folder.join("lists").display()),
            format!("Dir::Cache={}", self.folder.join("cache").display()),
            "Acquire::Languages=none".to_owned(),
            // As root, apt fetches as a user of its own, which need not be able to reach our folder.
            "APT::Sandbox::User=root".to_owned(),
            // Nothing but the lists of packages is of use here.
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        ];
        for option in options {
            command.arg("-o").arg(option);
        }
        command.arg("-q").env("LC_ALL", "C").env_remove("LD_LIBRARY_PATH");
        command
    }
}

/// The first package that `apt-cache depends` lists.
fn first_dependency(shown: &str) -> Option<String> {
    shown.lines().find_map(|line| line.trim().strip_prefix("Depends: ").map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_of_the_day_is_read_from_its_meta_package() {
        let shown = "linux-image-cloud-amd64\n  Depends: linux-image-6.12.95+deb12-cloud-amd64\n";
        assert_eq!(first_dependency(shown).as_deref(), Some("linux-image-6.12.95+deb12-cloud-amd64"));
        assert_eq!(first_dependency("linux-image-cloud-amd64\n"), None);
    }
}
