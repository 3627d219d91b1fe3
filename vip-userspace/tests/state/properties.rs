//! Any text: never a panic, and never a good state out of nothing.

use std::path::Path;

use proptest::prelude::*;
use vip_userspace::{config, state::parse};

const FULL: &str = include_str!("../data/full.yaml");

/// Pieces of which states are made, right and wrong ones.
const PIECES: [&str; 32] = [
    "hosts:",
    "vpcs:",
    "subnets:",
    "ports:",
    "groups:",
    "vips:",
    "eips:",
    "peerings:",
    "\n",
    "\n  - ",
    "{ ",
    " }",
    "[",
    "]",
    ", ",
    "id: a",
    "vpc: a",
    "vni: 7",
    "subnet: a",
    "address: 10.0.0.9",
    "cidr: 10.0.0.0/24",
    "gateway: 10.0.0.1",
    "mac: 02:00:00:00:00:01",
    "host: a",
    "interface: a",
    "vtep: 172.31.0.1",
    "members: [a]",
    "vip: a",
    "vrids: [1]",
    "&x",
    "*x",
    "<<: ",
];

proptest! {
    #[test]
    fn no_panic_on_any_text(text: String) {
        let _ = parse(&text, "any", Some("hv1"));
        let _ = config::parse(&text, "any", Path::new("/etc/vip"));
    }

    #[test]
    fn no_panic_on_text_made_of_likely_pieces(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..60)) {
        let _ = parse(&pieces.concat(), "pieces", None);
    }

    #[test]
    fn no_panic_on_a_good_state_with_a_piece_replaced(at in 0..FULL.len(), len in 0_usize..40, with in "\\PC{0,8}") {
        let end = (at + len).min(FULL.len());
        if let (Some(before), Some(after)) = (FULL.get(..at), FULL.get(end..)) {
            let _ = parse(&format!("{before}{with}{after}"), "mutated", Some("hv1"));
        }
    }

    #[test]
    fn every_refusal_says_where_and_what_to_do(at in 0..FULL.len(), with in "[a-z0-9:,{}\n-]{1,3}") {
        let (Some(before), Some(after)) = (FULL.get(..at), FULL.get(at + 1..)) else { return Ok(()) };
        if let Err(error) = parse(&format!("{before}{with}{after}"), "f.yaml", Some("hv1")) {
            prop_assert!(!error.problems().is_empty());
            for line in error.to_string().lines() {
                prop_assert!(line.starts_with("f.yaml:") && line.contains("; "), "{}", line);
            }
        }
    }
}
