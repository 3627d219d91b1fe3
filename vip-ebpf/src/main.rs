//! The programs: XDP and TC contexts and maps around the pipeline of `vip-common`. No decision is made here.
#![no_std]
#![no_main]
#![expect(internal_features, reason = "compare-and-swap: core's atomics offer none on this target")]
#![feature(core_intrinsics)]

mod log;
mod loss;
mod maps;
mod owner;
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
