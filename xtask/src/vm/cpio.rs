//! The archive that a kernel takes as its first file system: cpio's `newc` form (kernel documentation,
//! `driver-api/early-userspace/buffer-format.rst`).

use std::collections::BTreeSet;
use std::path::{Component, Path};

use anyhow::{Context as _, Result};

/// File types of `stat(2)`, with the rights that every entry of a type has here.
const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// Ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// An archive under construction. All files belong to root and may be executed.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    present: BTreeSet<String>,
}

impl Archive {
    /// Whether an absolute path is in it.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.present.contains(path)
    }

    /// Adds a file at an absolute path, with the folders above it.
    pub(crate) fn file(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.parents(path)?;
        self.entry(path, PROGRAM, content)
    }

    /// Adds a symbolic link at an absolute path.
    pub(crate) fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.parents(path)?;
        self.entry(path, LINK, target.as_bytes())
    }

    /// Adds a folder and those above it, unless they are there.
    pub(crate) fn directory(&mut self, path: &str) -> Result<()> {
        self.parents(path)?;
        if !self.has(path) {
            self.entry(path, DIRECTORY, &[])?;
        }
        Ok(())
    }

    /// The archive's bytes. Several archives one after another are one to the kernel.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>> {
        self.write(TRAILER, 0, &[])?;
        Ok(self.bytes)
    }

    fn parents(&mut self, path: &str) -> Result<()> {
        let mut above = String::new();
        let parent = Path::new(path).parent().with_context(|| format!("{path} is no absolute path"))?;
        for component in parent.components() {
            let Component::Normal(name) = component else { continue };
            above.push('/');
            above.push_str(name.to_str().with_context(|| format!("{path} is no UTF-8"))?);
            if !self.has(&above) {
                self.entry(&above, DIRECTORY, &[])?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.write(path.trim_start_matches('/'), mode, content)?;
        self.present.insert(path.to_owned());
        Ok(())
    }

    fn write(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entries += 1;
        let size = u32::try_from(content.len()).with_context(|| format!("{name} is too large for cpio"))?;
        let name_size = u32::try_from(name.len() + 1)?;
        // Magic; inode, mode, owner, group, links, time, size, device (2), device it stands for (2), name's length,
        // checksum, which this form leaves at 0.
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
        Ok(())
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn an_archive_has_the_form_that_the_kernel_reads() {
        let mut archive = Archive::default();
        archive.file("/a/b", b"hello").expect("a file");
        assert!(archive.has("/a") && archive.has("/a/b"));
        let bytes = archive.finish().expect("an archive");
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("07070100000001000041ed"), "{text}");
        assert!(text.contains("a/b\0") && text.contains("hello") && text.contains(TRAILER), "{text}");
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn cpio_itself_lists_what_was_put_in() {
        let Some(cpio) = crate::packages::find_command("cpio") else {
            vip_lab::skip("cpio_itself_lists_what_was_put_in", "this machine has no cpio");
            return;
        };
        let mut archive = Archive::default();
        archive.directory("/tmp").expect("a folder");
        archive.link("/bin", "usr/bin").expect("a link");
        archive.file("/usr/bin/tool", &[7; 4097]).expect("a file");
        let bytes = archive.finish().expect("an archive");
        let mut child = Command::new(cpio)
            .args(["--list", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cpio runs");
        child.stdin.take().expect("its input").write_all(&bytes).expect("written");
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success());
        assert_eq!(String::from_utf8_lossy(&output.stdout), "tmp\nbin\nusr\nusr/bin\nusr/bin/tool\n");
    }
}
