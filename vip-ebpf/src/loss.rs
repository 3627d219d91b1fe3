//! `redirect_err`: counts what the kernel loses after an XDP verdict.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use crate::maps;

/// Entry of the program, on the tracepoint `xdp_redirect_err`.
#[raw_tracepoint(tracepoint = "xdp_redirect_err")]
pub(crate) fn redirect_err(_ctx: RawTracePointContext) -> i32 {
    if let Some(packets) = maps::XMIT_ERRORS.get_ptr_mut(0) {
        // SAFETY: the element belongs to this CPU.
        unsafe { *packets += 1 };
    }
    0
}
