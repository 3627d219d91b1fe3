//! Sums of many bytes, by the kernel.

use core::ptr::null_mut;

use aya_ebpf::helpers::generated::bpf_csum_diff;
use vip_common::checksum::Sum;

/// The sum of bytes of a packet: a multiple of four, and no more than the helper copies (512, `net/core/filter.c`).
#[inline(always)]
pub(crate) fn sum<const N: usize>(bytes: &mut [u8; N]) -> Sum {
    const { assert!(N.is_multiple_of(4) && N <= 512) };
    // SAFETY: the bytes are borrowed, and nothing is subtracted: there is no `from`.
    let sum = unsafe { bpf_csum_diff(null_mut(), 0, bytes.as_mut_ptr().cast(), N as u32, 0) };
    // Negative only for lengths that the helper refuses.
    Sum::of_words(sum.cast_unsigned() as u32)
}
