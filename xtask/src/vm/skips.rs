//! Tests that were skipped in the machine: where a kernel has all that they ask for, only its age is a reason.

use vip_lab::virtio;

/// Begins the kernel's version in a reason, e.g. "needs … (Linux 6.3)".
const SINCE: &str = "(Linux ";

/// Whether a skipped test, as its line tells of it, cannot run on a kernel of this release.
pub(crate) fn is_excused(skipped: &str, release: &str) -> bool {
    if skipped.ends_with(virtio::NEEDS_REAL_PROCESSOR) {
        return true;
    }
    let since = skipped.rsplit_once(SINCE).and_then(|(_, rest)| version(rest.strip_suffix(')')?));
    since.zip(version(release)).is_some_and(|(since, release)| release < since)
}

/// Major and minor number of a release, e.g. (6, 1) of `6.1.0-40-cloud-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_kernel_is_too_old_for_is_excused() {
        let skipped = format!("lab: {}", vip_lab::NEEDS_XDP_FEATURES);
        assert!(is_excused(&skipped, "6.1.0-40-cloud-amd64"));
        assert!(is_excused(&skipped, "6.2.16"));
        assert!(!is_excused(&skipped, "6.3.0") && !is_excused(&skipped, "6.12.9+deb12-cloud-amd64"));
        assert!(!is_excused(&skipped, "unknown"));
    }

    #[test]
    fn what_a_kernel_could_have_is_not_excused() {
        assert!(!is_excused("lab: needs IPVS in the kernel", "6.1.0-40-cloud-amd64"));
        assert!(!is_excused("lab: needs IPVS (Linux always)", "6.1.0-40-cloud-amd64"));
    }

    #[test]
    fn nobody_measures_speed_under_emulation() {
        assert!(is_excused(&format!("lab: {}", virtio::NEEDS_REAL_PROCESSOR), "6.12.9"));
    }
}
