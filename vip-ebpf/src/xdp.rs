//! `uplink`: XDP on the uplink.

use core::ptr::{from_ref, read_volatile};

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX},
    helpers::generated::{bpf_redirect_map, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len},
    macros::xdp,
    programs::XdpContext,
};
use vip_common::{
    DropReason,
    checksum::Sum,
    pipeline::{self, EditFailed, IcmpErrorHeaders, Packet, Stage, Tables as _, Verdict, mend_in_place},
    wire::{Header, Ipv4, Outer},
};

use crate::{log::log_verdict, maps, sum::sum, tables::Maps};

struct XdpPacket<'c>(&'c XdpContext);

impl XdpPacket<'_> {
    /// End of the packet, read anew each time: a value that the compiler can relate to the packet's length lets it drop the
    /// check in `header`, which the verifier insists on.
    #[inline(always)]
    fn end(&self) -> usize {
        // SAFETY: the context is valid while the program runs.
        unsafe { read_volatile(&raw const (*self.0.ctx).data_end) as usize }
    }

    /// Takes bytes from the start of the frame, or, if negative, puts some there.
    #[inline(always)]
    fn move_start(&mut self, bytes: i32) -> Result<(), EditFailed> {
        // SAFETY: the context is valid while the program runs, and no reference into the packet is left.
        if unsafe { bpf_xdp_adjust_head(self.0.ctx, bytes) } == 0 { Ok(()) } else { Err(EditFailed) }
    }
}

impl Packet for XdpPacket<'_> {
    #[inline(always)]
    fn length(&self) -> usize {
        // SAFETY: the context is valid while the program runs.
        unsafe { bpf_xdp_get_buff_len(self.0.ctx) as usize }
    }

    #[inline(always)]
    fn near(&self) -> usize {
        self.end() - self.0.data()
    }

    #[inline(always)]
    fn gso_size(&self) -> usize {
        0
    }

    #[inline(always)]
    fn ingress(&self) -> u32 {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.0.ctx).ingress_ifindex }
    }

    #[inline(always)]
    fn is_tagged(&self) -> bool {
        // XDP sees tags in the bytes: as an EtherType that the pipeline does not know.
        false
    }

    #[inline(always)]
    fn header<H: Header>(&mut self, offset: usize) -> Option<&mut H> {
        let start = self.0.data() + offset;
        if start + H::LEN > self.end() {
            return None;
        }
        // SAFETY: the bytes lie inside the packet, `H` has no invalid bit patterns, frames start at an even address and
        // the offset is even; `&mut self` keeps the reference alone.
        Some(unsafe { &mut *(start as *mut H) })
    }

    #[inline(always)]
    fn pull(&mut self, end: usize) -> Result<(), EditFailed> {
        // The other buffers stay where they are.
        if end <= self.near() { Ok(()) } else { Err(EditFailed) }
    }

    #[inline(always)]
    fn quote(&mut self, end: usize, headers: &IcmpErrorHeaders) -> Result<(), EditFailed> {
        const SHIFT: i32 = IcmpErrorHeaders::SHIFT as i32;
        let ctx = self.0.ctx;
        let cut = end as i32 - self.length() as i32;
        // SAFETY: the context is valid while the program runs, and no reference into the packet is left.
        if unsafe { bpf_xdp_adjust_tail(ctx, cut) != 0 || bpf_xdp_adjust_head(ctx, -SHIFT) != 0 } {
            return Err(EditFailed);
        }
        *self.header(0).ok_or(EditFailed)? = *headers;
        Ok(())
    }

    #[inline(always)]
    fn trim(&mut self, end: usize) -> Result<(), EditFailed> {
        let cut = end as i32 - self.length() as i32;
        // SAFETY: the context is valid while the program runs, and no reference into the packet is left.
        if unsafe { bpf_xdp_adjust_tail(self.0.ctx, cut) } == 0 { Ok(()) } else { Err(EditFailed) }
    }

    #[inline(always)]
    fn encapsulate(&mut self, outer: &Outer) -> Result<(), EditFailed> {
        self.move_start(-(Outer::LEN as i32))?;
        *self.header(0).ok_or(EditFailed)? = *outer;
        Ok(())
    }

    #[inline(always)]
    fn decapsulate(&mut self) -> Result<(), EditFailed> {
        self.move_start(Outer::LEN as i32)
    }

    #[inline(always)]
    fn sum<const N: usize>(&mut self, offset: usize) -> Option<Sum> {
        self.header::<[u8; N]>(offset).map(sum)
    }

    #[inline(always)]
    fn mend_transport_checksum(
        &mut self,
        offset: usize,
        optional: bool,
        from: Ipv4,
        to: Ipv4,
    ) -> Result<(), EditFailed> {
        mend_in_place(self, offset, optional, from, to)
    }
}

/// Entry of the program. It takes frames in several buffers (kernel 5.18), so that drivers let the MTU exceed a page.
#[xdp(frags)]
pub(crate) fn uplink(ctx: XdpContext) -> u32 {
    let verdict = pipeline::uplink(&mut XdpPacket(&ctx), &Maps, Stage::Xdp);
    log_verdict!(&ctx, "uplink", verdict);
    match verdict {
        Verdict::NotOurs | Verdict::PassOn | Verdict::LeaveToTc => XDP_PASS,
        Verdict::Deliver { port, .. } => deliver(port),
        Verdict::Return | Verdict::Tell { .. } => XDP_TX,
        Verdict::Drop(_) | Verdict::Consumed => XDP_DROP,
        // What goes to several receivers, or is to be cut, was left to TC; nothing else leaves by the uplink but by being returned.
        Verdict::Members { .. }
        | Verdict::DeliverFragments { .. }
        | Verdict::TunnelFragments { .. }
        | Verdict::Uplink { .. }
        | Verdict::ComeBack { .. }
        | Verdict::Resolve { .. } => refused(DropReason::RedirectFailed),
    }
}

#[inline(always)]
fn deliver(port: u32) -> u32 {
    let devices = from_ref(&maps::PORT_DEVS).cast_mut().cast();
    // SAFETY: the map is one of this object's. A port that it does not have makes the action that of the flags.
    let action = unsafe { bpf_redirect_map(devices, u64::from(port), u64::from(XDP_DROP)) };
    if action == i64::from(XDP_REDIRECT) { XDP_REDIRECT } else { refused(DropReason::RedirectFailed) }
}

#[inline(always)]
fn refused(reason: DropReason) -> u32 {
    Maps.count_drop(reason.index());
    XDP_DROP
}
