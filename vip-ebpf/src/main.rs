//! The programs: XDP and TC contexts and maps around the pipeline of `vip-common`. No decision is made here.
#![no_std]
#![no_main]
#![expect(internal_features, reason = "compare-and-swap: core's atomics offer none on this target")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "helpers return actions and take sizes as wider numbers than they are; a checked conversion is a panic path"
)]
#![allow(clippy::needless_pass_by_value, reason = "the macros call entries with their context by value")]
#![feature(core_intrinsics)]

mod apart;
mod copy;
mod log;
mod loss;
mod maps;
mod record;
mod sum;
mod tables;
mod tc;
mod xdp;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses the loop: a reachable panic never loads.
    loop {}
}

/// The helpers that redirect are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
