//! `uplink_tc` and `port`: TC ingress on the uplink and on guests' interfaces.

use core::ptr::read_volatile;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        __sk_buff, BPF_F_INGRESS, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, TC_ACT_SHOT, TC_ACT_UNSPEC,
        bpf_redir_neigh, bpf_redir_neigh__bindgen_ty_1,
    },
    helpers::generated::{bpf_clone_redirect, bpf_redirect, bpf_redirect_neigh},
    macros::classifier,
    programs::TcContext,
};
use vip_common::{
    DropReason,
    checksum::Sum,
    pipeline::{
        self, EditFailed, IcmpErrorHeaders, Packet, Stage, Tables as _, Verdict, for_each_receiver,
        neighbours_interface,
    },
    wire::{Header, Ipv4},
};

use crate::{copy, log::log_verdict, sum::sum, tables::Maps};

/// Bytes from the frame's start that the pipeline may look at: Ethernet, IPv4 with all options, VRRP with eight addresses.
const LINEAR: u32 = 14 + 60 + 8 + 8 * 4;

/// The VLAN's number in a tag (IEEE 802.1Q §9.6).
const VLAN_ID: u32 = 0xfff;

/// `gso_size` of a large packet whose parts are buffers of their own, as SCTP's are (`GSO_BY_FRAGS`).
const IN_PARTS: u32 = 0xffff;

/// `AF_INET`.
const IPV4_NEIGHBOUR: u32 = 2;

struct SkbPacket<'c>(&'c TcContext);

impl SkbPacket<'_> {
    #[inline(always)]
    fn skb(&self) -> *mut __sk_buff {
        self.0.as_ptr().cast()
    }
}

impl Packet for SkbPacket<'_> {
    #[inline(always)]
    fn length(&self) -> usize {
        self.0.len() as usize
    }

    #[inline(always)]
    fn near(&self) -> usize {
        self.length()
    }

    #[inline(always)]
    fn gso_size(&self) -> usize {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.skb()).gso_size as usize }
    }

    #[inline(always)]
    fn ingress(&self) -> u32 {
        // SAFETY: the context is valid while the program runs. Read each time: kept, it would take stack, which is short.
        unsafe { read_volatile(&raw const (*self.skb()).ifindex) }
    }

    #[inline(always)]
    fn is_tagged(&self) -> bool {
        // A tag with VLAN 0 carries a priority only: the stack and bridges treat the frame as untagged, so it must be checked
        // like one.
        // SAFETY: the context is valid while the program runs.
        let (present, tci) = unsafe { ((*self.skb()).vlan_present, (*self.skb()).vlan_tci) };
        present != 0 && tci & VLAN_ID != 0
    }

    #[inline(always)]
    fn header<H: Header>(&mut self, offset: usize) -> Option<&mut H> {
        let start = self.0.data() + offset;
        if start + H::LEN > self.0.data_end() {
            return None;
        }
        // SAFETY: the bytes lie inside the packet's linear part, `H` has no invalid bit patterns, frames start at an even
        // address and the offset is even; `&mut self` keeps the reference alone.
        Some(unsafe { &mut *(start as *mut H) })
    }

    #[inline(always)]
    fn pull(&mut self, end: usize) -> Result<(), EditFailed> {
        if self.0.data_end() - self.0.data() < end {
            self.0.pull_data(end as u32).map_err(|_| EditFailed)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn quote(&mut self, end: usize, headers: &IcmpErrorHeaders) -> Result<(), EditFailed> {
        copy::quote(self.skb(), end, headers)
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
        const ADDRESS: u64 = 4;
        let keep_zero = if optional { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 };
        let flags = u64::from(BPF_F_PSEUDO_HDR) | keep_zero | ADDRESS;
        self.0
            .l4_csum_replace(offset, u64::from(from.raw()), u64::from(to.raw()), flags)
            .map_err(|_| EditFailed)
    }
}

/// Entry of the program on the uplink.
#[classifier]
pub(crate) fn uplink_tc(ctx: TcContext) -> i32 {
    let mut packet = linear(&ctx);
    let verdict = pipeline::uplink(&mut packet, &Maps, Stage::Tc);
    log_verdict!(&ctx, "uplink_tc", verdict);
    carry_out(&packet, verdict)
}

/// Entry of the program on a guest's interface.
#[classifier]
pub(crate) fn port(ctx: TcContext) -> i32 {
    let mut packet = linear(&ctx);
    let verdict = pipeline::port(&mut packet, &Maps);
    log_verdict!(&ctx, "port", verdict);
    carry_out(&packet, verdict)
}

/// Makes the headers readable in place: a large frame may have them outside the linear part.
#[inline(always)]
fn linear(ctx: &TcContext) -> SkbPacket<'_> {
    let length = ctx.len();
    let wanted = if length < LINEAR { length } else { LINEAR };
    // SAFETY: the context is valid while the program runs.
    let gso_size = unsafe { (*ctx.as_ptr().cast::<__sk_buff>()).gso_size };
    // A large SCTP packet has its headers in the linear part, and nothing else. It is cut where its parts begin, and receivers take it
    // apart there: what was pulled from the first part would be missing in it.
    if gso_size != IN_PARTS && ((ctx.data_end() - ctx.data()) as u32) < wanted {
        // If memory is short, the pipeline sees a truncated frame and says so.
        let _short = ctx.pull_data(wanted);
    }
    SkbPacket(ctx)
}

#[inline(always)]
fn carry_out(packet: &SkbPacket<'_>, verdict: Verdict) -> i32 {
    match verdict {
        // Not TC_ACT_OK: programs and filters behind this one still decide.
        Verdict::NotOurs | Verdict::PassOn | Verdict::LeaveToTc => TC_ACT_UNSPEC,
        Verdict::Drop(_) | Verdict::Consumed => TC_ACT_SHOT,
        Verdict::Deliver { ifindex, .. } | Verdict::Uplink { ifindex, mtu: 0 } => redirect(ifindex, 0),
        Verdict::DeliverFragments { ifindex, mtu } | Verdict::Uplink { ifindex, mtu } => {
            copy::send_in_fragments(packet.skb(), ifindex, mtu)
        }
        Verdict::Return | Verdict::Tell { ifindex: 0, .. } => redirect(packet.ingress(), 0),
        Verdict::ComeBack { ifindex } | Verdict::Tell { ifindex, .. } => {
            redirect(ifindex, u64::from(BPF_F_INGRESS))
        }
        Verdict::Resolve { next_hop, network } => resolve(next_hop, network),
        Verdict::Members { slot, sender } => {
            for_each_receiver(&Maps, slot, sender, |ifindex| {
                // SAFETY: the context is valid while the program runs, and no reference into the packet is left.
                if unsafe { bpf_clone_redirect(packet.skb(), ifindex, 0) } != 0 {
                    Maps.count_drop(DropReason::RedirectFailed.index());
                }
            });
            TC_ACT_SHOT
        }
    }
}

#[inline(always)]
pub(crate) fn redirect(ifindex: u32, flags: u64) -> i32 {
    // SAFETY: the helper has no preconditions.
    let action = unsafe { bpf_redirect(ifindex, flags) } as i32;
    if action == TC_ACT_SHOT {
        Maps.count_drop(DropReason::RedirectFailed.index());
    }
    action
}

/// Sends to a neighbour whose MAC the kernel knows or finds (kernel 5.10); it keeps the packet meanwhile.
#[inline(always)]
fn resolve(next_hop: Ipv4, network: u16) -> i32 {
    let ifindex = neighbours_interface(&Maps, network);
    let mut neighbour = bpf_redir_neigh {
        nh_family: IPV4_NEIGHBOUR,
        __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 { ipv4_nh: next_hop.raw() },
    };
    // SAFETY: the structure lives on the stack during the call.
    let action =
        unsafe { bpf_redirect_neigh(ifindex, &raw mut neighbour, size_of::<bpf_redir_neigh>() as i32, 0) }
            as i32;
    if action == TC_ACT_SHOT {
        Maps.count_drop(DropReason::RedirectFailed.index());
    }
    action
}
