//! `uplink_tc` and `port`: TC ingress on the uplink and on guests' interfaces.

use core::ptr::read_volatile;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        __sk_buff, BPF_ADJ_ROOM_ENCAP_L2_SHIFT, BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
        BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_INGRESS, BPF_F_MARK_MANGLED_0,
        BPF_F_PSEUDO_HDR, TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, bpf_redir_neigh,
        bpf_redir_neigh__bindgen_ty_1,
    },
    helpers::generated::{
        bpf_clone_redirect, bpf_redirect, bpf_redirect_neigh, bpf_skb_adjust_room, bpf_skb_change_head,
        bpf_skb_change_tail, bpf_skb_vlan_pop,
    },
    macros::classifier,
    programs::TcContext,
};
use vip_common::{
    DropReason,
    checksum::Sum,
    pipeline::{
        self, EditFailed, IcmpErrorHeaders, Origin, Packet, Step, Tables as _, TunnelHeaders, Verdict,
        for_each_host, for_each_receiver, neighbours_interface,
    },
    wire::{Ethernet, Header, Ipv4, Outer},
};

use crate::{copy, log::log_verdict, maps, sum::sum, tables::Maps};

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

    /// Takes off a priority tag, which the kernel keeps beside the bytes: it would stand before whatever the frame begins with then.
    #[inline(always)]
    fn remove_tag(&mut self) -> Result<(), EditFailed> {
        // SAFETY: the context is valid while the program runs, and no reference into the packet is left.
        let failed = unsafe { (*self.skb()).vlan_present != 0 && bpf_skb_vlan_pop(self.skb()) != 0 };
        if failed { Err(EditFailed) } else { Ok(()) }
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
    fn trim(&mut self, end: usize) -> Result<(), EditFailed> {
        // SAFETY: the context is valid while the program runs, and no reference into the packet is left.
        if unsafe { bpf_skb_change_tail(self.skb(), end as u32, 0) } == 0 { Ok(()) } else { Err(EditFailed) }
    }

    #[inline(always)]
    fn encapsulate(&mut self, outer: &Outer) -> Result<(), EditFailed> {
        const LENGTH: i32 = Outer::LEN as i32;
        // Only so does the kernel know what is inside, for the sum and the cutting that are left to the NIC.
        const FLAGS: u64 = (BPF_F_ADJ_ROOM_ENCAP_L3_IPV4
            | BPF_F_ADJ_ROOM_ENCAP_L4_UDP
            | BPF_F_ADJ_ROOM_ENCAP_L2_ETH
            | BPF_F_ADJ_ROOM_FIXED_GSO) as u64
            | (Ethernet::LEN as u64) << BPF_ADJ_ROOM_ENCAP_L2_SHIFT;
        let inner = *self.header::<Ethernet>(0).ok_or(EditFailed)?;
        // SAFETY: the context is valid while the program runs, and no reference into the packet is left.
        if unsafe { bpf_skb_adjust_room(self.skb(), LENGTH, BPF_ADJ_ROOM_MAC, FLAGS) } == 0 {
            // The room is behind the Ethernet header, which becomes the outer one.
            *self.header(Outer::LEN).ok_or(EditFailed)? = inner;
        } else if self.gso_size() != 0
            // Not IP, or in a tunnel of the guest's own already: it is put before all of it.
            // SAFETY: as above.
            || unsafe { bpf_skb_change_head(self.skb(), LENGTH as u32, 0) } != 0
        {
            return Err(EditFailed);
        }
        *self.header(0).ok_or(EditFailed)? = *outer;
        Ok(())
    }

    #[inline(always)]
    fn decapsulate(&mut self) -> Result<(), EditFailed> {
        // The tunnel's own.
        self.remove_tag()?;
        let inner = *self.header::<Ethernet>(Outer::LEN).ok_or(EditFailed)?;
        let flags = u64::from(BPF_F_ADJ_ROOM_FIXED_GSO);
        // SAFETY: as in `encapsulate`.
        if unsafe { bpf_skb_adjust_room(self.skb(), -(Outer::LEN as i32), BPF_ADJ_ROOM_MAC, flags) } != 0 {
            return Err(EditFailed);
        }
        // What is taken is behind the outer Ethernet header, which becomes the inner one.
        *self.header(0).ok_or(EditFailed)? = inner;
        Ok(())
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
    // Twice: inside a tunnel there are headers too.
    let mut packet = linear(&ctx, Outer::LEN as u32 + LINEAR);
    match pipeline::begin_uplink(&mut packet, &Maps) {
        Step::Done(verdict) => {
            log_verdict!(&ctx, "uplink_tc", verdict);
            carry_out_simple(&packet, verdict)
        }
        Step::Rest(word) => leave_rest(&ctx, UPLINK_REST, word),
    }
}

/// Entry of the program on a guest's interface.
#[classifier]
pub(crate) fn port(ctx: TcContext) -> i32 {
    let mut packet = linear(&ctx, LINEAR);
    match pipeline::begin_port(&mut packet, &Maps) {
        Step::Done(verdict) => {
            log_verdict!(&ctx, "port", verdict);
            carry_out_simple(&packet, verdict)
        }
        Step::Rest(word) => leave_rest(&ctx, PORT_REST, word),
    }
}

/// Entry of the program that goes on where `uplink_tc` leaves off.
#[classifier]
pub(crate) fn uplink_rest(ctx: TcContext) -> i32 {
    let mut packet = SkbPacket(&ctx);
    if packet.remove_tag().is_err() {
        return drop(DropReason::EditFailed);
    }
    let verdict = pipeline::resume(&mut packet, &Maps, rest(&ctx), Origin::Uplink);
    log_verdict!(&ctx, "uplink_rest", verdict);
    carry_out(&mut packet, verdict)
}

/// Entry of the program that goes on where `port` leaves off.
#[classifier]
pub(crate) fn port_rest(ctx: TcContext) -> i32 {
    let mut packet = SkbPacket(&ctx);
    // The guest's own: what leaves the host has none.
    if packet.remove_tag().is_err() {
        return drop(DropReason::EditFailed);
    }
    let verdict = pipeline::resume(&mut packet, &Maps, rest(&ctx), Origin::Port);
    log_verdict!(&ctx, "port_rest", verdict);
    carry_out(&mut packet, verdict)
}

/// Index in RESTS of the program behind `uplink_tc`.
const UPLINK_REST: u32 = 0;
/// Index in RESTS of the program behind `port`.
const PORT_REST: u32 = 1;

/// Leaves the rest to a second program, which finds the word in the packet's control block.
#[inline(always)]
fn leave_rest(ctx: &TcContext, program: u32, word: u64) -> i32 {
    let skb = ctx.as_ptr().cast::<__sk_buff>();
    // SAFETY: the context is valid while the program runs.
    unsafe {
        (*skb).cb[0] = (word >> 32) as u32;
        (*skb).cb[1] = word as u32;
    }
    // SAFETY: the second programs take what the first leave.
    unsafe { maps::RESTS.tail_call(ctx, program) };
    // It returns only if the program is not there.
    drop(DropReason::TableInconsistent)
}

/// The word that was left.
#[inline(always)]
fn rest(ctx: &TcContext) -> u64 {
    let skb = ctx.as_ptr().cast::<__sk_buff>();
    // SAFETY: the context is valid while the program runs.
    unsafe { u64::from((*skb).cb[0]) << 32 | u64::from((*skb).cb[1]) }
}

/// Makes the headers readable in place: a large frame may have them outside the linear part.
#[inline(always)]
fn linear(ctx: &TcContext, most: u32) -> SkbPacket<'_> {
    let length = ctx.len();
    let wanted = if length < most { length } else { most };
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

/// Carries out what the first programs come to by themselves.
#[inline(always)]
fn carry_out_simple(packet: &SkbPacket<'_>, verdict: Verdict) -> i32 {
    match verdict {
        // Not TC_ACT_OK: programs and filters behind this one still decide.
        Verdict::NotOurs | Verdict::PassOn | Verdict::LeaveToTc => TC_ACT_UNSPEC,
        Verdict::Deliver { ifindex, .. } => redirect(ifindex, 0),
        Verdict::Return => redirect(packet.ingress(), 0),
        _ => TC_ACT_SHOT,
    }
}

#[inline(always)]
fn carry_out(packet: &mut SkbPacket<'_>, verdict: Verdict) -> i32 {
    match verdict {
        Verdict::Uplink { ifindex, mtu: 0 } => redirect(ifindex, 0),
        Verdict::DeliverFragments { ifindex, mtu } | Verdict::Uplink { ifindex, mtu } => {
            copy::send_in_fragments(packet.skb(), ifindex, mtu)
        }
        Verdict::Tell { ifindex: 0, .. } => redirect(packet.ingress(), 0),
        Verdict::ComeBack { ifindex } | Verdict::Tell { ifindex, .. } => {
            redirect(ifindex, u64::from(BPF_F_INGRESS))
        }
        Verdict::Resolve { next_hop, network } => resolve(next_hop, network),
        Verdict::TunnelFragments { host, vni } => match TunnelHeaders::of(packet, &Maps, host, vni) {
            Some(headers) => copy::tunnel_in_fragments(packet.skb(), &headers),
            None => drop(DropReason::NoWayToHost),
        },
        Verdict::Members { slot, sender } => {
            for_each_receiver(&Maps, slot, sender, |ifindex| send_copy(packet.skb(), ifindex));
            let sent = for_each_host(packet, &Maps, slot, sender, |packet, ifindex| {
                send_copy(packet.skb(), ifindex);
            });
            if sent.is_err() { drop(DropReason::EditFailed) } else { TC_ACT_SHOT }
        }
        simple => carry_out_simple(packet, simple),
    }
}

/// Sends a copy of the frame out of an interface.
#[inline(always)]
fn send_copy(skb: *mut __sk_buff, ifindex: u32) {
    // SAFETY: the context is valid while the program runs, and no reference into the packet is left.
    if unsafe { bpf_clone_redirect(skb, ifindex, 0) } != 0 {
        Maps.count_drop(DropReason::RedirectFailed.index());
    }
}

/// Counts a packet that goes no further. What to return to the kernel.
#[inline(always)]
pub(crate) fn drop(reason: DropReason) -> i32 {
    Maps.count_drop(reason.index());
    TC_ACT_SHOT
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
