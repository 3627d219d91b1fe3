//! What holds for the wire formats, the checksums, the tables and the pipeline, whatever the packet and the tables are.
//!
//! `frame` builds frames and `world` builds tables, with strategies for arbitrary ones; `rules` says again, independently of
//! the pipeline, what the pipeline is to do. Checksums are judged by etherparse. Everything runs without privileges.
#![allow(clippy::indexing_slicing, reason = "a test that indexes out of bounds has failed")]

mod checksum;
mod claims;
mod damping;
mod delivery;
mod frame;
mod hairpin;
mod isolation;
mod never_panics;
mod outcomes;
mod overlay;
mod packing;
mod round_trip;
mod rules;
mod source_check;
mod stages;
mod tell;
mod traffic;
mod vlans;
mod wire;
mod world;

use proptest::test_runner::Config;

/// Configuration of a property: this many cases, or `PROPTEST_CASES` for a longer search.
fn cases(count: u32) -> Config {
    let wished = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    Config { cases: wished.unwrap_or(count), failure_persistence: None, ..Config::default() }
}
