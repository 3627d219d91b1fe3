//! `redirect_err` and `devmap_xmit`: count what the kernel loses after an XDP verdict.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use crate::maps;

/// Argument of `xdp_devmap_xmit` that holds the frames which the driver did not take (`drops` in the kernel's
/// include/trace/events/xdp.h, an `int`).
const DROPS: usize = 3;

/// Entry of the program, on the tracepoints of failed redirects: one frame each.
#[raw_tracepoint(tracepoint = "xdp_redirect_err")]
pub(crate) fn redirect_err(_ctx: RawTracePointContext) -> i32 {
    count(1);
    0
}

/// Entry of the program, on the tracepoint `xdp_devmap_xmit`: frames were handed to a driver, perhaps not all of them taken.
#[raw_tracepoint(tracepoint = "xdp_devmap_xmit")]
pub(crate) fn devmap_xmit(ctx: RawTracePointContext) -> i32 {
    let drops: i32 = ctx.arg(DROPS);
    if drops > 0 {
        count(u64::from(drops.cast_unsigned()));
    }
    0
}

#[inline(always)]
fn count(lost: u64) {
    if let Some(packets) = maps::XMIT_ERRORS.get_ptr_mut(0) {
        // SAFETY: the element belongs to this CPU.
        unsafe { *packets += lost };
    }
}
