//! The machine that the figures are of.

use std::{collections::BTreeMap, fs, thread};

/// What tells machines apart.
pub(super) fn describe() -> BTreeMap<&'static str, String> {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned());
    let processors = read("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = thread::available_parallelism().map_or(0, std::num::NonZero::get);
    BTreeMap::from([
        ("kernel", read("/proc/sys/kernel/osrelease").unwrap_or_default()),
        ("processor", model.map(|(_, name)| name.to_owned()).unwrap_or_default()),
        ("cores", cores.to_string()),
    ])
}
