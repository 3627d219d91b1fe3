//! What the search has found so far: a file each in `tests/fuzz/regressions`, and here the sentence that tells its story.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{Input, check};

/// Every finding: its file's name, and what was wrong.
pub const ALL: [(&str, &str); 5] = [
    (
        "quote-from-a-private-address",
        "An ICMP error left that was about another guest's packet, and the quote told that guest's address.",
    ),
    (
        "quote-to-no-address",
        "An ICMP error about a packet to 0.0.0.0 was taken for no error and left with its quote as it was.",
    ),
    (
        "told-from-the-uplinks-mac",
        "XDP told a sender with the uplink's own MAC out of the uplink: it is a guest's, and TC tells it into the uplink.",
    ),
    (
        "cut-behind-the-last-offset",
        "A fragment that reached farther than a packet can was cut, and what lay behind the last offset left as a first fragment.",
    ),
    (
        "arp-behind-the-tunnels-end",
        "ARP through VXLAN was read behind the end of the outer packet, from what is padding there, and delivered.",
    ),
];

/// Where the files are.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions")
}

/// Runs a finding again.
///
/// # Errors
///
/// It is found again, or its file is none.
pub fn replay(name: &str) -> Result<()> {
    let path = folder().join(name);
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let Some(input) = Input::read(&bytes) else { bail!("{} is too short for an input", path.display()) };
    check(&input).map_err(|violation| anyhow::anyhow!("{violation}\n{input:?}"))
}

/// Checks that the folder holds the files that are listed, and no other: none would be run.
///
/// # Errors
///
/// It does not.
pub fn check_folder() -> Result<()> {
    let folder = folder();
    let mut files = BTreeSet::new();
    if !ALL.is_empty() || folder.exists() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            files.insert(entry?.file_name().to_string_lossy().into_owned());
        }
    }
    let listed: BTreeSet<_> = ALL.iter().map(|(name, _)| (*name).to_owned()).collect();
    if files != listed {
        let odd: Vec<_> = files.symmetric_difference(&listed).cloned().collect();
        bail!("{} and the list of regressions differ in {}", folder.display(), odd.join(", "));
    }
    if listed.len() < ALL.len() {
        bail!("the list of regressions has a name twice");
    }
    Ok(())
}
