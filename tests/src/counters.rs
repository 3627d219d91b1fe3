//! What a namespace's own stack has counted.

use std::fs;

use anyhow::{Context as _, Result};

use crate::Netns;

impl Netns {
    /// A counter of this namespace's stack since its begin, as `nstat` shows them: `("Ip", "ReasmOKs")`, `("TcpExt", "TCPTimeouts")`.
    pub fn counter(&self, group: &str, name: &str) -> Result<u64> {
        // `/proc/net` is the main thread's, whose namespace is another.
        let files = ["/proc/thread-self/net/snmp", "/proc/thread-self/net/netstat"];
        let texts = self.exec(|| {
            let text = |file| fs::read_to_string(file).with_context(|| format!("cannot read {file}"));
            files.map(text).into_iter().collect::<Result<Vec<_>>>()
        })?;
        let found = texts.iter().find_map(|text| find(text, group, name));
        found.with_context(|| format!("the kernel counts no {group}{name}"))
    }
}

/// Names stand in one line and numbers in the next, both behind the group's name.
fn find(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(':'));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let (_, number) =
        names.split_whitespace().zip(numbers.split_whitespace()).find(|(own, _)| *own == name)?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_group_and_name() {
        let text = "Ip: Forwarding ReasmOKs\nIp: 1 23\nIcmp: ReasmOKs\nIcmp: 4\n";
        assert_eq!(find(text, "Ip", "ReasmOKs"), Some(23));
        assert_eq!(find(text, "Icmp", "ReasmOKs"), Some(4));
        assert_eq!(find(text, "Ip", "Reasm"), None);
        assert_eq!(find(text, "Tcp", "ReasmOKs"), None);
    }
}
