//! Everything of the VIP/EIP forwarder that decides about a packet.
//!
//! The crate knows no kernel and no allocator. [`wire`] has the header formats, [`checksum`] their arithmetic,
//! [`tables`] the keys and values that the agent and the programs share, and [`pipeline`] the decisions, generic over
//! [`pipeline::Packet`] (how bytes are reached) and [`pipeline::Tables`] (how entries are looked up). The same functions run
//!
//! *In* is towards a guest, *out* is from a guest, everywhere.
#![no_std]
#![allow(
    clippy::cast_possible_truncation,
    reason = "numbers are masked or bounded where they are cut; a checked conversion would be a branch or a panic in BPF"
)]
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[cfg(feature = "engine")]
extern crate std;

pub mod checksum;
mod drop_reason;
#[cfg(feature = "engine")]
pub mod engine;
pub mod pipeline;
pub mod tables;
pub mod wire;

pub use drop_reason::DropReason;
