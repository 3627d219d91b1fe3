//! Keeps packages from starting their services while they are installed: keepalived and nginx are wanted as
//! programs for the guests of a lab, not as services of this machine.
//!
//! Debian asks `/usr/sbin/policy-rc.d` before any service is started. Ours refuses for as long as this process
//! lives and otherwise leaves the answer to the one that was there, so that even one left behind by a killed xtask
//! does no harm. It is taken away, and the former one put back, when [`Quiet`] is dropped.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context as _, Result};

const POLICY: &str = "/usr/sbin/policy-rc.d";

/// No service is started while this exists.
pub(crate) struct Quiet {
    policy: PathBuf,
}

impl Quiet {
    /// Puts our policy in place.
    pub(crate) fn begin() -> Result<Self> {
        Self::at(Path::new(POLICY)).with_context(|| {
            format!("cannot keep packages from starting their services: {POLICY} cannot be written")
        })
    }

    fn at(policy: &Path) -> io::Result<Self> {
        let former = former(policy);
        // One that is there already was left by a killed xtask, and what lies at the policy's place is ours.
        if policy.symlink_metadata().is_ok() && former.symlink_metadata().is_err() {
            fs::rename(policy, &former)?;
        }
        let quiet = Self { policy: policy.to_path_buf() };
        let script = script(process::id(), &former);
        fs::write(policy, script)?;
        fs::set_permissions(policy, fs::Permissions::from_mode(0o755))?;
        Ok(quiet)
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let former = former(&self.policy);
        let restored = match former.symlink_metadata() {
            Ok(_) => fs::rename(&former, &self.policy),
            Err(_) => fs::remove_file(&self.policy),
        };
        if let Err(error) = restored {
            eprintln!("warning: cannot restore {}: {error}", self.policy.display());
        }
    }
}

/// Where the machine's own policy waits.
fn former(policy: &Path) -> PathBuf {
    policy.with_extension("d.before-vip-forwarder")
}

/// 101 is "forbidden", 0 is "allowed" to the tools that ask.
fn script(pid: u32, former: &Path) -> String {
    format!(
        "#!/bin/sh\n\
         # Written by `cargo xtask` for the time of an installation; harmless, and safe to remove, afterwards.\n\
         if kill -0 {pid} 2>/dev/null; then exit 101; fi\n\
         if [ -x '{former}' ]; then exec '{former}' \"$@\"; fi\n\
         exit 0\n",
        former = former.display()
    )
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn ask(policy: &Path) -> Option<i32> {
        Command::new("sh").arg(policy).args(["nginx", "start"]).status().expect("it runs").code()
    }

    #[test]
    fn services_are_refused_while_we_install_and_the_former_policy_returns() {
        let folder = tempfile::tempdir().expect("a folder");
        let policy = folder.path().join("policy-rc.d");
        fs::write(&policy, "#!/bin/sh\nexit 7\n").expect("a policy");
        let quiet = Quiet::at(&policy).expect("ours");
        assert_eq!(ask(&policy), Some(101));
        drop(quiet);
        assert_eq!(ask(&policy), Some(7));
        assert!(!former(&policy).exists());
    }

    #[test]
    fn nothing_stays_where_there_was_no_policy() {
        let folder = tempfile::tempdir().expect("a folder");
        let policy = folder.path().join("policy-rc.d");
        drop(Quiet::at(&policy).expect("ours"));
        assert_eq!(fs::read_dir(folder.path()).expect("a list").count(), 0);
    }

    #[test]
    fn a_policy_left_behind_answers_as_the_former_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let policy = folder.path().join("policy-rc.d");
        fs::write(&policy, "#!/bin/sh\nexit 7\n").expect("a policy");
        fs::set_permissions(&policy, fs::Permissions::from_mode(0o755)).expect("a mode");
        std::mem::forget(Quiet::at(&policy).expect("ours"));
        // As if its writer had been killed: the greatest process id is below 2^22.
        fs::write(&policy, script(1 << 22, &former(&policy))).expect("rewritten");
        assert_eq!(ask(&policy), Some(7));
        drop(Quiet::at(&policy).expect("ours again"));
        assert_eq!(fs::read_to_string(&policy).expect("the former one"), "#!/bin/sh\nexit 7\n");
    }
}
