//! The dataplane on this machine's kernel. Needs root, and programs built by `cargo xtask build`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod hosts;
mod index;
mod lab;
mod lifecycle;
mod tables;
