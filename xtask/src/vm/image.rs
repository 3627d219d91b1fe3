//! The first file system of the machine: init, modules, tests, and the real tools that the labs run, with their libraries.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::artifacts::Artifacts;
use crate::packages::{self, Task};
use crate::process;
use crate::vm::cpio::Archive;
use crate::vm::modules::Module;
use crate::vm::plan::Plan;
use crate::vm::suites::Suite;

/// Programs of every Debian system that tests and the programs they start call by name.
const BASE_TOOLS: [&str; 30] = [
    "bash", "cat", "cut", "date", "dirname", "echo", "env", "flock", "grep", "head", "id", "kill", "ln",
    "ls", "mkdir", "mount", "nsenter", "ps", "readlink", "rm", "sed", "setpriv", "sh", "sleep", "sysctl",
    "tail", "tc", "touch", "true", "unshare",
];

/// Folders that are links on a system with a merged `/usr`, as Debian's is.
const MERGED: [(&str, &str); 4] =
    [("/bin", "usr/bin"), ("/sbin", "usr/sbin"), ("/lib", "usr/lib"), ("/lib64", "usr/lib64")];

/// Folders that programs expect and nothing else makes.
const FOLDERS: [&str; 12] = [
    "/root",
    "/var/log/nginx",
    "/var/lib/nginx",
    "/var/run",
    "/var/tmp",
    "/usr/lib64",
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/tmp",
    "/etc/vip",
];

/// Users that programs turn into when they give up root's rights.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
                      www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n\
                      tcpdump:x:101:101::/nonexistent:/usr/sbin/nologin\n\
                      nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nwww-data:x:33:\ntcpdump:x:101:\nnogroup:x:65534:\n";

/// Where the project's own files lie in the machine.
pub(crate) const HOME: &str = "/vm";

/// What does not differ between kernels.
pub(crate) struct Base {
    archive: Vec<u8>,
}

impl Base {
    /// Gathers programs, libraries and tests.
    pub(crate) fn build(init: &Path, built: &Artifacts, corpus: &Path, suites: &[Suite]) -> Result<Self> {
        let mut image = Image::default();
        for folder in FOLDERS {
            image.archive.directory(folder)?;
        }
        for (link, target) in MERGED {
            image.archive.link(link, target)?;
        }
        for (path, text) in
            [("/etc/passwd", PASSWD), ("/etc/group", GROUP), ("/etc/hosts", "127.0.0.1 localhost\n")]
        {
            image.archive.file(path, text.as_bytes())?;
        }
        image.archive.file("/init", &read(init)?)?;
        for tool in packages::commands(Task::Test).chain(BASE_TOOLS) {
            let Some(path) = packages::find_command(tool) else {
                bail!("{tool} is missing on this machine, and the labs in the machine need it");
            };
            image.tool(&path)?;
        }
        for (name, path) in [("vipd", &built.vipd), ("vipctl", &built.vipctl)] {
            image.own(&format!("{HOME}/{name}"), path)?;
        }
        for (name, path) in [("vip-ebpf", built.object.as_path()), ("corpus", corpus)] {
            image.archive.file(&format!("{HOME}/{name}"), &read(path)?)?;
        }
        for suite in suites {
            image.own(&suite.place(), &suite.executable)?;
        }
        Ok(Self { archive: image.archive.finish()? })
    }

    /// Writes the whole image for one kernel and one plan, whose modules are put in and named in the plan.
    pub(crate) fn write(&self, modules: &[Module], mut plan: Plan, path: &Path) -> Result<()> {
        let mut archive = Archive::default();
        for module in modules {
            let place = format!("{HOME}/modules/{}.ko", module.name);
            archive.file(&place, &module.content)?;
            plan.modules.push(place);
        }
        archive.file(&format!("{HOME}/plan"), plan.to_string().as_bytes())?;
        let mut bytes = self.archive.clone();
        bytes.extend_from_slice(&archive.finish()?);
        fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
    }
}

#[derive(Default)]
struct Image {
    archive: Archive,
    /// Programs that are in it, by place, so that none is asked for its libraries twice.
    programs: BTreeMap<String, PathBuf>,
}

impl Image {
    /// Adds a program of this machine at its own place, and what it is linked to.
    fn tool(&mut self, path: &Path) -> Result<()> {
        let place = unmerged(path)?;
        if self.programs.contains_key(&place) {
            return Ok(());
        }
        self.archive.file(&place, &read(path)?)?;
        self.programs.insert(place, path.to_path_buf());
        self.libraries(path)
    }

    /// Adds a program that was built here, without its debugging information, and what it is linked to.
    fn own(&mut self, place: &str, path: &Path) -> Result<()> {
        let folder = path.parent().context("a program in no folder")?;
        let name = path.file_name().context("a program without a name")?.to_string_lossy();
        let stripped = folder.join(format!("{name}.stripped"));
        process::output(Command::new("objcopy").arg("--strip-debug").args([path, stripped.as_path()]))?;
        self.archive.file(place, &read(&stripped)?)?;
        fs::remove_file(&stripped).with_context(|| format!("cannot remove {}", stripped.display()))?;
        self.libraries(path)
    }

    fn libraries(&mut self, program: &Path) -> Result<()> {
        let mut ldd = Command::new("ldd");
        // The calling cargo names libraries of the compiler's there.
        let output = ldd.arg(program).env_remove("LD_LIBRARY_PATH").output().context("cannot run ldd")?;
        // A script, or a static program, is linked to nothing, which ldd calls a failure.
        for library in libraries(&String::from_utf8_lossy(&output.stdout))? {
            let place = unmerged(&library)?;
            if !self.archive.has(&place) {
                self.archive.file(&place, &read(&library)?)?;
            }
        }
        Ok(())
    }
}

/// The files in what `ldd` prints; one that was not found is an error.
fn libraries(ldd: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in ldd.lines() {
        // "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)", "/lib64/ld-linux-x86-64.so.2 (0x…)", "linux-vdso.so.1 (0x…)"
        let file = line.rsplit(" => ").next().unwrap_or(line).trim();
        if file.starts_with("not found") {
            bail!("a library is missing: {}", line.trim());
        }
        if let Some((path, _)) = file.split_once(" (").filter(|(path, _)| path.starts_with('/')) {
            found.push(PathBuf::from(path));
        }
    }
    Ok(found)
}

/// The path with `/usr` before it where a merged system has a link.
fn unmerged(path: &Path) -> Result<String> {
    let text = path.to_str().with_context(|| format!("{} is no UTF-8 path", path.display()))?;
    let merged =
        MERGED.iter().any(|(link, _)| text.strip_prefix(link).is_some_and(|rest| rest.starts_with('/')));
    Ok(if merged { format!("/usr{text}") } else { text.to_owned() })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let ldd = "\tlinux-vdso.so.1 (0x00007ffe)\n\
                   \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                   \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(libraries(ldd).expect("all are there"), expected);
        assert_eq!(libraries("\tstatically linked\n").expect("none"), Vec::<PathBuf>::new());
        assert!(libraries("\tlibx.so.1 => not found\n").is_err());
    }

    #[test]
    fn files_lie_below_usr_as_the_links_say() {
        let place = |path: &str| unmerged(Path::new(path)).expect("UTF-8");
        assert_eq!(place("/lib64/ld.so"), "/usr/lib64/ld.so");
        assert_eq!(place("/bin/sh"), "/usr/bin/sh");
        assert_eq!(place("/usr/sbin/ip"), "/usr/sbin/ip");
        assert_eq!(place("/library/x"), "/library/x");
    }
}
