//! Frames made anew from a copy of their bytes: ICMP errors and fragments. An skb that is changed in place would keep what its sender
//! left to the NIC, a sum or the cutting.

use core::ptr::{from_ref, null_mut, read_volatile, write_volatile};

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_PSEUDO_HDR, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC},
    helpers::generated::{
        bpf_clone_redirect, bpf_csum_diff, bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_change_tail,
        bpf_skb_load_bytes, bpf_skb_store_bytes,
    },
};
use vip_common::{
    DropReason,
    checksum::Sum,
    pipeline::{EditFailed, Fragment, Fragments, IcmpErrorHeaders, Tables as _, TunnelHeaders},
    wire::{Be16, Ethernet, Header, Ipv4Header, Outer, Protocol},
};

use crate::{
    maps,
    tables::Maps,
    tc::{drop, redirect},
};

/// Room for the copy of a frame of [`Fragments::LONGEST`] bytes, and as much again: the verifier takes the longest part to be where the
/// last one begins.
#[repr(C, align(8))]
pub(crate) struct Copied([u8; 2 * (Fragments::LONGEST + 1)]);

/// What is cut, and how far it is. Kept in a map, because of what it reads there the verifier knows nothing, and so sees that one fragment is
/// made as the others are; of values at hand it would follow each through all sizes.
pub(crate) struct Cutting {
    ifindex: u32,
    mtu: u32,
    /// Of each fragment, if it goes through a tunnel.
    headers: TunnelHeaders,
    /// Bytes that stand before each fragment: those of the tunnel, or none.
    before: usize,
    fragments: Fragments,
    number: usize,
}

/// All offsets and lengths of parts of the copy.
const WITHIN: usize = Fragments::LONGEST;

/// Bytes that are taken out of a frame so that the kernel no longer finds the place from which a NIC was to sum: more than stand
/// before any transport header (`skb_postpull_rcsum` in `include/linux/skbuff.h`, kernel 4.3).
const REMOVED: u32 = 256;

/// The copy of this CPU.
#[inline(always)]
fn copied() -> Result<*mut u8, EditFailed> {
    maps::COPIED.get_ptr_mut(0).map(<*mut Copied>::cast).ok_or(EditFailed)
}

/// A header's place in the copy, at an even offset: the copy begins at a multiple of eight.
#[inline(always)]
const fn header_at<H: Header>(copy: *mut u8, offset: usize) -> *mut H {
    copy.wrapping_add(offset).cast()
}

/// Offset and length of a part of the copy, 1 byte at least: both as the verifier sees that they are.
#[inline(always)]
const fn part(at: usize, length: usize) -> (usize, usize) {
    (at & WITHIN, (length.wrapping_sub(1) & WITHIN) + 1)
}

/// Copies bytes of the frame; 1 at least.
#[inline(always)]
fn load(
    skb: *mut __sk_buff,
    offset: usize,
    copy: *mut u8,
    at: usize,
    length: usize,
) -> Result<(), EditFailed> {
    let (at, length) = part(at, length);
    // SAFETY: the context is valid while the program runs; the bytes lie within the copy.
    match unsafe { bpf_skb_load_bytes(skb.cast(), offset as u32, copy.add(at).cast(), length as u32) } {
        0 => Ok(()),
        _ => Err(EditFailed),
    }
}

/// Writes copied bytes into the frame; 1 at least.
#[inline(always)]
fn store(
    skb: *mut __sk_buff,
    offset: usize,
    copy: *mut u8,
    at: usize,
    length: usize,
) -> Result<(), EditFailed> {
    let (at, length) = part(at, length);
    // SAFETY: as in `load`.
    match unsafe { bpf_skb_store_bytes(skb.cast(), offset as u32, copy.add(at).cast(), length as u32, 0) } {
        0 => Ok(()),
        _ => Err(EditFailed),
    }
}

/// Writes the frame's first bytes.
#[inline(always)]
fn write<H: Header>(skb: *mut __sk_buff, header: &H) -> Result<(), EditFailed> {
    // SAFETY: as in `load`; the bytes are those of the header.
    match unsafe { bpf_skb_store_bytes(skb.cast(), 0, from_ref(header).cast(), H::LEN as u32, 0) } {
        0 => Ok(()),
        _ => Err(EditFailed),
    }
}

/// Makes the frame `length` bytes long; ends its cutting by the NIC, and a sum over all its bytes that the NIC told.
#[inline(always)]
fn resize(skb: *mut __sk_buff, length: usize) -> Result<(), EditFailed> {
    // SAFETY: the context is valid while the program runs, and no reference into the packet is left.
    match unsafe { bpf_skb_change_tail(skb.cast(), length as u32, 0) } {
        0 => Ok(()),
        _ => Err(EditFailed),
    }
}

/// Makes the frame one of `length` bytes that nothing is left to do about; what they are must be stored then.
#[inline(always)]
fn renew(skb: *mut __sk_buff, length: usize) -> Result<(), EditFailed> {
    resize(skb, length + REMOVED as usize)?;
    // SAFETY: as in `resize`.
    match unsafe { bpf_skb_adjust_room(skb.cast(), -(REMOVED as i32), BPF_ADJ_ROOM_MAC, 0) } {
        0 => Ok(()),
        _ => Err(EditFailed),
    }
}

/// [`Packet::quote`](vip_common::pipeline::Packet::quote).
#[inline(never)]
pub(crate) fn quote(skb: *mut __sk_buff, end: usize, headers: &IcmpErrorHeaders) -> Result<(), EditFailed> {
    let copy = copied()?;
    let quoted = end - Ethernet::LEN;
    load(skb, Ethernet::LEN, copy, IcmpErrorHeaders::LEN, quoted)?;
    // SAFETY: the copy is longer, and its alignment that of the headers or more.
    unsafe { *header_at(copy, 0) = *headers };
    let length = end + IcmpErrorHeaders::SHIFT;
    renew(skb, length)?;
    store(skb, 0, copy, 0, length)
}

/// Sends the frame's IPv4 packet out of an interface in fragments for an MTU. What to return to the kernel.
#[inline(always)]
pub(crate) fn send_in_fragments(skb: *mut __sk_buff, ifindex: u32, mtu: u32) -> i32 {
    if let Some(cutting) = maps::CUTTING.get_ptr_mut(0) {
        // SAFETY: the element belongs to this CPU, which runs one program at a time here; the same below.
        unsafe {
            write_volatile(&raw mut (*cutting).ifindex, ifindex);
            write_volatile(&raw mut (*cutting).mtu, mtu);
            write_volatile(&raw mut (*cutting).before, 0);
        }
    }
    cut(skb)
}

/// Sends the frame's IPv4 packet in fragments through a tunnel. What to return to the kernel.
#[inline(always)]
pub(crate) fn tunnel_in_fragments(skb: *mut __sk_buff, headers: &TunnelHeaders) -> i32 {
    let uplink = Maps.config().map_or(0, |config| config.uplink);
    if let Some(cutting) = maps::CUTTING.get_ptr_mut(0) {
        // SAFETY: as above.
        unsafe {
            write_volatile(&raw mut (*cutting).ifindex, uplink);
            write_volatile(&raw mut (*cutting).mtu, u32::from(headers.mtu));
            write_volatile(&raw mut (*cutting).before, Outer::LEN);
            write_volatile(&raw mut (*cutting).headers, *headers);
        }
    }
    cut(skb)
}

/// Sends the fragments that were asked for last. What to return to the kernel.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn cut(skb: *mut __sk_buff) -> i32 {
    if let Ok(ifindex) = send_all_but_last(skb) { redirect(ifindex, 0) } else { drop(DropReason::EditFailed) }
}

/// Sends all fragments but the last, which the frame is then, and tells the interface.
#[inline(always)]
fn send_all_but_last(skb: *mut __sk_buff) -> Result<u32, EditFailed> {
    const HEADERS: usize = Ethernet::LEN + Ipv4Header::LEN;
    let copy = copied()?;
    let cutting = maps::CUTTING.get_ptr_mut(0).ok_or(EditFailed)?;
    // SAFETY: as above.
    let (ifindex, mtu) =
        unsafe { (read_volatile(&raw const (*cutting).ifindex), read_volatile(&raw const (*cutting).mtu)) };
    load(skb, 0, copy, 0, HEADERS)?;
    // SAFETY: the copy is longer than the headers, and the offset even, as the header's alignment wants it.
    let header = unsafe { *header_at::<Ipv4Header>(copy, Ethernet::LEN) };
    let fragments = Fragments::of(&header, mtu).ok_or(EditFailed)?;
    let payload = header.total_length() - Ipv4Header::LEN;
    load(skb, HEADERS, copy, HEADERS, payload)?;
    complete_sum(skb, copy, &header, payload)?;
    // SAFETY: as above.
    unsafe {
        write_volatile(&raw mut (*cutting).fragments, fragments);
        write_volatile(&raw mut (*cutting).number, 0);
    }
    for _ in 0..Fragments::MOST {
        // SAFETY: as above.
        let (fragments, number, before) = unsafe {
            (
                read_volatile(&raw const (*cutting).fragments),
                read_volatile(&raw const (*cutting).number),
                read_volatile(&raw const (*cutting).before),
            )
        };
        // SAFETY: as above.
        unsafe { write_volatile(&raw mut (*cutting).number, number + 1) };
        let Fragment { header, from, length } = fragments.get(number).ok_or(EditFailed)?;
        if number == 0 {
            renew(skb, before + HEADERS + length)?;
        } else {
            resize(skb, before + HEADERS + length)?;
        }
        // SAFETY: as above.
        unsafe { *header_at(copy, Ethernet::LEN) = header };
        if before != 0 {
            // SAFETY: as above.
            let outer = unsafe { read_volatile(&raw const (*cutting).headers) }.outer(HEADERS + length);
            write(skb, &outer)?;
        }
        store(skb, before, copy, 0, HEADERS)?;
        store(skb, before + HEADERS, copy, HEADERS + from, length)?;
        if fragments.is_last(number) {
            return Ok(ifindex);
        }
        // SAFETY: the context is valid while the program runs, and no reference into the packet is left.
        if unsafe { bpf_clone_redirect(skb, ifindex, 0) } != 0 {
            Maps.count_drop(DropReason::RedirectFailed.index());
        }
    }
    Err(EditFailed)
}

/// Completes, in the copy, the checksum of a whole packet if it was left to the NIC.
#[inline(always)]
fn complete_sum(
    skb: *mut __sk_buff,
    copy: *mut u8,
    header: &Ipv4Header,
    payload: usize,
) -> Result<(), EditFailed> {
    const PART: usize = 512;
    const START: usize = Ethernet::LEN + Ipv4Header::LEN;
    let offset = match header.protocol() {
        Protocol::TCP => START + 16,
        Protocol::UDP => START + 6,
        _ => return Ok(()),
    };
    if header.is_later_fragment() || header.has_more_fragments() || !is_left_to_nic(skb, copy, offset)? {
        return Ok(());
    }
    let end = START + payload;
    // SAFETY: the copy is longer than any frame in it. The zeros after its end do not count.
    unsafe { *copy.add(end & WITHIN).cast::<[u8; 4]>() = [0; 4] };
    let mut sum = 0;
    let mut at = START;
    for _ in 0..=WITHIN / PART {
        if at >= end {
            break;
        }
        let left = end - at;
        let part = if left > PART { PART } else { (left + 3) & !3 & (2 * PART - 1) };
        // SAFETY: the bytes lie within the copy, and nothing is subtracted: there is no `from`.
        let more = unsafe { bpf_csum_diff(null_mut(), 0, copy.add(at & WITHIN).cast(), part as u32, sum) };
        // Negative only for lengths that the helper refuses.
        sum = more.cast_unsigned() as u32;
        at += PART;
    }
    let sum = Sum::of_words(sum).checksum();
    // The sender computed one: 0 would say that it did not (RFC 768); to TCP both are the same.
    let sum = if sum.raw() == 0 { Be16::from_raw(0xffff) } else { sum };
    // SAFETY: the checksum lies within the copy, at an even offset.
    unsafe { *header_at(copy, offset) = sum };
    Ok(())
}

/// Whether the transport checksum at an offset is the sum of the pseudo-header, and the rest left to the NIC (CHECKSUM_PARTIAL).
///
/// The kernel does not say so, but mends the two kinds of field in opposite ways. The frame's own field is changed.
#[inline(always)]
fn is_left_to_nic(skb: *mut __sk_buff, copy: *mut u8, offset: usize) -> Result<bool, EditFailed> {
    const WORD: u64 = 4;
    const ONE: u64 = 1;
    // SAFETY: the checksum lies within the copy, at an even offset.
    let field = unsafe { &mut *header_at::<Be16>(copy, offset) };
    let before = *field;
    let flags = u64::from(BPF_F_PSEUDO_HDR) | WORD;
    // SAFETY: the context is valid while the program runs, and no reference into the packet is left.
    if unsafe { bpf_l4_csum_replace(skb, offset as u32, 0, ONE, flags) } != 0 {
        return Err(EditFailed);
    }
    load(skb, offset, copy, offset, Be16::LEN)?;
    let after = *field;
    *field = before;
    // A sum grows with what it is of; a checksum, its complement, gets less.
    Ok(Sum::default().add(before).add(Be16::from_raw(ONE as u16)).checksum()
        == Sum::default().add(after).checksum())
}
