//! What cannot be installed but must be: rights, eBPF in the kernel, its file system. Checked before anything
//! that takes time, and told in one line with what to do.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use aya::programs::ProgramType;
use aya::sys::is_program_supported;

use crate::process;

const BPFFS: &str = "/sys/fs/bpf";

/// The rights that labs and programs take, by number and name (`linux/capability.h`).
const CAPABILITIES: [(u32, &str); 4] =
    [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];

/// Checks all that labs with loaded programs need, and mounts the BPF file system if it is not there.
pub(crate) fn check() -> Result<()> {
    let rights = Rights::read()?;
    if !rights.is_root() {
        bail!(
            "not root: eBPF programs and network namespaces need it; run this as root, for example by `sudo -E env \
             \"PATH=$PATH\" cargo xtask …`"
        );
    }
    let missing = rights.missing();
    if !missing.is_empty() {
        bail!(
            "root without {}: this container is confined; start it privileged (docker: `--privileged`), or use the \
             machine itself",
            missing.join(", ")
        );
    }
    let missing = "no eBPF on this kernel: Linux 6.1 or later with CONFIG_BPF_SYSCALL is needed, and no seccomp \
                   filter that forbids bpf()";
    for program in [ProgramType::Xdp, ProgramType::SchedClassifier] {
        if !is_program_supported(program).context(missing)? {
            bail!("{missing} ({program:?} programs are refused)");
        }
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        bail!("no BTF on this kernel: one with CONFIG_DEBUG_INFO_BTF is needed, as distributions build it");
    }
    mount_bpffs()
}

/// Whether this process is root, as far as apt-get is concerned.
pub(crate) fn is_root() -> Result<bool> {
    Ok(Rights::read()?.is_root())
}

fn mount_bpffs() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    if is_bpffs(&mounts, BPFFS) {
        return Ok(());
    }
    println!("mounting the BPF file system at {BPFFS}");
    process::output(Command::new("mount").args(["-t", "bpf", "bpf", BPFFS]))
        .with_context(|| format!("no BPF file system: mount it by `mount -t bpf bpf {BPFFS}`"))?;
    Ok(())
}

/// Whether a list of mounts (`/proc/self/mounts`) has the BPF file system there, uncovered by another.
fn is_bpffs(mounts: &str, place: &str) -> bool {
    let mut kinds = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        (fields.next()? == place).then(|| fields.next())?
    });
    kinds.next_back() == Some("bpf")
}

/// What the kernel lets this process do.
#[derive(Debug, PartialEq, Eq)]
struct Rights {
    /// The effective user.
    user: u32,
    /// The effective capabilities, one bit each.
    capabilities: u64,
}

impl Rights {
    fn read() -> Result<Self> {
        let status = fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
        Self::parse(&status).context("/proc/self/status names no user or no capabilities")
    }

    fn parse(status: &str) -> Option<Self> {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        // Real, effective, saved and file system user.
        let user = field("Uid:")?.split_whitespace().nth(1)?.parse().ok()?;
        let capabilities = u64::from_str_radix(field("CapEff:")?.trim(), 16).ok()?;
        Some(Self { user, capabilities })
    }

    fn is_root(&self) -> bool {
        self.user == 0
    }

    fn missing(&self) -> Vec<&'static str> {
        CAPABILITIES
            .iter()
            .filter(|(bit, _)| self.capabilities & (1 << bit) == 0)
            .map(|(_, name)| *name)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_rights_are_read() {
        let rights = Rights::parse("Name:\tx\nUid:\t1000\t0\t0\t0\nCapEff:\t000001ffffffffff\n");
        let rights = rights.expect("both fields");
        assert!(rights.is_root());
        assert!(rights.missing().is_empty());
    }

    #[test]
    fn a_confined_root_lacks_rights_by_name() {
        // The default set of a container.
        let rights = Rights::parse("Uid:\t0\t0\t0\t0\nCapEff:\t00000000a80425fb\n").expect("both fields");
        assert_eq!(rights.missing(), ["CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_PERFMON", "CAP_BPF"]);
    }

    #[test]
    fn a_user_is_not_root() {
        let rights = Rights::parse("Uid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000000000\n");
        assert!(!rights.expect("both fields").is_root());
        assert_eq!(Rights::parse("Uid:\t1000\n"), None);
    }

    #[test]
    fn the_bpf_file_system_counts_only_when_it_is_on_top() {
        let mounted = "sysfs /sys sysfs rw 0 0\nbpf /sys/fs/bpf bpf rw,relatime 0 0\n";
        assert!(is_bpffs(mounted, BPFFS));
        assert!(!is_bpffs(&format!("{mounted}tmpfs /sys/fs/bpf tmpfs rw 0 0\n"), BPFFS));
        assert!(!is_bpffs("bpf /run/other bpf rw 0 0\n", BPFFS));
        assert!(!is_bpffs("", BPFFS));
    }
}
