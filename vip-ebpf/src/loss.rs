//! `redirect_err`, `devmap_xmit`, `bulk_tx` and `exception`: count what the kernel loses after an XDP verdict.

use aya_ebpf::{bindings::xdp_action::XDP_TX, macros::raw_tracepoint, programs::RawTracePointContext};

use crate::maps;

/// Argument of `xdp_devmap_xmit` that holds the frames which the driver did not take (`drops` in the kernel's
/// include/trace/events/xdp.h, an `int`).
const DROPS: usize = 3;

/// Argument of `xdp_bulk_tx` that holds the frames which the driver did not take back from XDP (likewise).
const RETURN_DROPS: usize = 2;

/// Argument of `xdp_exception` that holds the action which failed (likewise, a `u32`).
const ACTION: usize = 2;

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

/// Entry of the program, on the tracepoint `xdp_bulk_tx` (kernel 5.3): frames were returned to a driver that takes several at once, as
/// veth does, perhaps not all of them taken.
#[raw_tracepoint(tracepoint = "xdp_bulk_tx")]
pub(crate) fn bulk_tx(ctx: RawTracePointContext) -> i32 {
    let drops: i32 = ctx.arg(RETURN_DROPS);
    if drops > 0 {
        count(u64::from(drops.cast_unsigned()));
    }
    0
}

/// Entry of the program, on the tracepoint `xdp_exception`: how other drivers tell of a frame that they could not return.
#[raw_tracepoint(tracepoint = "xdp_exception")]
pub(crate) fn exception(ctx: RawTracePointContext) -> i32 {
    let action: u32 = ctx.arg(ACTION);
    if action == XDP_TX {
        count(1);
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
