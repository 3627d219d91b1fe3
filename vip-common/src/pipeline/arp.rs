//! ARP of guests: claims, questions and replies (RFC 826, RFC 5227).
//!
//! A guest that asks for a VIP or for the gateway is told a constant MAC ([`Mac::of_address`]), one that asks for a port's fixed
//! address is told that port's real MAC. So the caches of listed guests never go stale. Who says in ARP that it is an address
//! that it has no right to is dropped and counted, whatever else the frame is: it never reaches a neighbour.

use super::{
    claim::{Claim, ClaimOutcome, learn, present_owner},
    deliver::Receiver,
    guest::{Sender, leave_alone},
    packet::Packet,
    tables::{Tables, VipCell as _},
    verdict::{Decision, attempt},
};
use crate::{
    DropReason,
    tables::{
        AddressKind, ClaimForm, Event, EventKind, Grant, GrantKey, MacKey, OwnerWord, PortFlags, Target,
    },
    wire::{Arp, ArpOperation, EtherType, Ethernet, Header as _, Ipv4, Mac},
};

/// Ethernet and ARP together, 42 bytes: one bounds check for both.
#[derive(
    Clone, Copy, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
)]
#[repr(C)]
pub(super) struct ArpFrame {
    pub(super) ethernet: Ethernet,
    pub(super) arp: Arp,
}

/// Whether the sender is nobody that could be answered or believed: a group's MAC, or a group's address.
#[inline(always)]
pub(super) fn has_impossible_sender(arp: &Arp) -> bool {
    let address = arp.sender_ip.get();
    arp.sender_mac.is_multicast()
        || arp.sender_mac.is_zero()
        || address.is_multicast()
        || address == Ipv4::BROADCAST
}

/// Turns a request into the reply that the target is at `mac`, sent back where the request came from.
#[inline(always)]
pub(super) fn answer<P: Packet>(packet: &mut P, question: &Arp, mac: Mac) -> Decision {
    if answer_at(packet, 0, question, mac) { Decision::RETURN } else { Decision::NOT_OURS }
}

/// Writes the reply over the request that begins at an offset of the packet; false: it ends before.
#[inline(always)]
pub(super) fn answer_at<P: Packet>(packet: &mut P, offset: usize, question: &Arp, mac: Mac) -> bool {
    let Some(frame) = packet.header::<ArpFrame>(offset) else { return false };
    frame.ethernet = Ethernet { destination: question.sender_mac, source: mac, ether_type: EtherType::ARP };
    frame.arp =
        Arp::new(ArpOperation::Reply, (mac, question.target_ip), (question.sender_mac, question.sender_ip));
    true
}

#[inline(always)]
pub(super) fn decide<P: Packet, T: Tables>(packet: &mut P, tables: &T, sender: &Sender<T>) -> Decision {
    let Some(&mut arp) = packet.header::<Arp>(Ethernet::LEN) else {
        return Decision::drop(DropReason::FrameTruncated);
    };
    let decision = decide_parsed(packet, tables, sender, &arp);
    // Addresses inside a VPC may be those of VTEPs: a bridge would show the underlay who says so.
    let decision = if decision == Decision::NOT_OURS { leave_alone(packet, tables) } else { decision };
    if let Some(reason) = decision.drop_index() {
        tables.notify(&Event {
            at: tables.now(),
            kind: EventKind::Refused as u32,
            port: sender.index,
            reason,
            address: if arp.sender_ip.get().is_unspecified() {
                arp.target_ip.get()
            } else {
                arp.sender_ip.get()
            },
            mac: arp.sender_mac,
            vni: sender.port.vni,
            ..Event::default()
        });
    }
    decision
}

#[inline(always)]
fn decide_parsed<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    sender: &Sender<T>,
    arp: &Arp,
) -> Decision {
    let operation = attempt!(arp.operation().ok_or(DropReason::ArpMalformed));
    let (speaker, target) = (arp.sender_ip.get(), arp.target_ip.get());
    if has_impossible_sender(arp) {
        return Decision::drop(DropReason::ArpMalformed);
    }
    let vrid = attempt!(sender.vrid_of(arp.sender_mac).ok_or(DropReason::ArpSenderMac));
    if speaker.is_unspecified() {
        return match operation {
            ArpOperation::Request => probe(packet, tables, sender, arp),
            ArpOperation::Reply => Decision::drop(DropReason::ArpMalformed),
        };
    }
    if speaker == sender.port.address {
        return match operation {
            _ if target == speaker => Decision::NOT_OURS,
            ArpOperation::Request => question(packet, tables, sender, arp),
            ArpOperation::Reply if vrid == 0 => reply(packet, tables, sender, None),
            ArpOperation::Reply => hearsay(packet, tables, sender, DropReason::ArpSenderMac),
        };
    }
    match sender.look_up(tables, speaker).map(Target::kind) {
        Some(Some(AddressKind::Vip(slot))) => {
            let grant = tables.grant(&GrantKey { port: sender.index, slot });
            let Some(grant) = grant.filter(|grant| grant.rights.may_own()) else {
                return Decision::drop(DropReason::ClaimNotMember);
            };
            member_speaks(packet, tables, sender, arp, operation, vrid, slot, grant)
        }
        Some(Some(AddressKind::Gateway(_) | AddressKind::ExternalGateway(_))) => {
            Decision::drop(DropReason::ArpGateway)
        }
        Some(Some(AddressKind::Fixed(_))) => Decision::drop(DropReason::ArpFixedAddress),
        Some(None) => Decision::drop(DropReason::TableInconsistent),
        None if !sender.has_bypass() => Decision::drop(DropReason::ArpForeignSender),
        // Unlisted neighbours on the underlay would believe it.
        None if tables.vtep(speaker).is_some() => Decision::drop(DropReason::VtepAddress),
        None if target == speaker => Decision::NOT_OURS,
        None => match operation {
            ArpOperation::Request => question(packet, tables, sender, arp),
            ArpOperation::Reply => hearsay(packet, tables, sender, DropReason::ArpForeignSender),
        },
    }
}

/// [`reply`] that says something else than the tables: no other host would believe it, so it goes to none.
#[inline(always)]
fn hearsay<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    sender: &Sender<T>,
    reason: DropReason,
) -> Decision {
    let decision = reply(packet, tables, sender, None);
    if decision.is_tunnel() { Decision::drop(reason) } else { decision }
}

/// A port with the *own* right says that it is the VIP in `slot`.
#[expect(
    clippy::too_many_arguments,
    reason = "inlined into one caller: everything that the frame's parsing found"
)]
#[inline(always)]
fn member_speaks<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    sender: &Sender<T>,
    arp: &Arp,
    operation: ArpOperation,
    vrid: u8,
    slot: u32,
    grant: &Grant,
) -> Decision {
    let allowed = |mac: Mac| mac == sender.port.mac || mac.vrid().is_some_and(|vrid| grant.allows_vrid(vrid));
    if !allowed(arp.sender_mac) || !allowed(sender.mac) {
        return Decision::drop(DropReason::ArpSenderMac);
    }
    let vip = arp.sender_ip.get();
    if arp.target_ip.get() == vip {
        let form = match operation {
            ArpOperation::Reply => ClaimForm::GarpReply,
            ArpOperation::Request if arp.target_mac.is_zero() => ClaimForm::Announcement,
            ArpOperation::Request => ClaimForm::GarpRequest,
        };
        let outcome = tables.take_claim(&Claim { slot, port: sender.index, vrid, form });
        let shown = outcome == ClaimOutcome::Accepted
            && sender.port.flags.has(PortFlags::BRIDGED)
            && tables.vtep(vip).is_none();
        return if shown { Decision::PASS_ON } else { Decision::CONSUMED };
    }
    match operation {
        ArpOperation::Request => {
            let owner = learn(tables, &Claim { slot, port: sender.index, vrid, form: ClaimForm::Arp });
            let verdict = question(packet, tables, sender, arp);
            if owner.port() == sender.index {
                return verdict;
            }
            tables.report_use(slot, sender.index);
            // An unlisted neighbour would learn from the question where the VIP is not.
            if verdict == Decision::NOT_OURS { Decision::drop(DropReason::ArpNotOwner) } else { verdict }
        }
        ArpOperation::Reply => {
            let owner = present_owner(tables, slot);
            if owner.port() != sender.index {
                return Decision::drop(DropReason::ArpNotOwner);
            }
            if sender.to == Mac::of_address(vip) {
                owner_answered(tables, slot, owner);
                return Decision::CONSUMED;
            }
            reply(packet, tables, sender, Some(Mac::of_address(vip)))
        }
    }
}

/// The owner's answer to the agent, which asked from the VIP's constant MAC whether the owner still holds it.
#[inline(never)]
fn owner_answered<T: Tables>(tables: &T, slot: u32, owner: OwnerWord) {
    tables.notify(&Event {
        at: tables.now(),
        epoch: owner.epoch(),
        kind: EventKind::OwnerAnswered as u32,
        slot,
        port: owner.port(),
        ..Event::default()
    });
}

/// A probe (RFC 5227 §2.1.1): never a claim.
///
/// For a VIP, a member's goes to the present owner, which defends the address or is gone; a probe is never answered in the
/// owner's place. For other listed addresses the forwarder defends.
#[inline(always)]
fn probe<P: Packet, T: Tables>(packet: &mut P, tables: &T, sender: &Sender<T>, arp: &Arp) -> Decision {
    let target = arp.target_ip.get();
    let Some(AddressKind::Vip(slot)) = sender.look_up(tables, target).and_then(Target::kind) else {
        return question(packet, tables, sender, arp);
    };
    let grant = tables.grant(&GrantKey { port: sender.index, slot });
    if !grant.is_some_and(|grant| grant.rights.may_own()) {
        return Decision::drop(DropReason::ProbeNotMember);
    }
    let owner = present_owner(tables, slot);
    if owner.port() == sender.index {
        return Decision::CONSUMED;
    }
    match Receiver::owner(tables, sender.port.vni, target, owner) {
        Ok(receiver) => receiver.decision(),
        // Nobody is there to defend the address.
        Err(_) => Decision::CONSUMED,
    }
}

/// A request for somebody's MAC. Addresses of other subnets are not asked for by ARP: not ours, like unlisted ones.
#[inline(never)]
fn question<P: Packet, T: Tables>(packet: &mut P, tables: &T, sender: &Sender<T>, arp: &Arp) -> Decision {
    let target = arp.target_ip.get();
    if !sender.is_neighbour(target) {
        return Decision::NOT_OURS;
    }
    match sender.look_up(tables, target).and_then(Target::kind) {
        Some(AddressKind::Fixed(index)) if index == sender.index => Decision::NOT_OURS,
        Some(AddressKind::Fixed(index)) => match tables.port(index) {
            Some(port) if port.vni == sender.port.vni => answer(packet, arp, port.mac),
            _ => Decision::NOT_OURS,
        },
        Some(AddressKind::Vip(slot)) => {
            if tables.vip(slot).is_some_and(|cell| cell.word().port() == sender.index) {
                return Decision::CONSUMED;
            }
            answer(packet, arp, Mac::of_address(target))
        }
        Some(AddressKind::Gateway(_)) => answer(packet, arp, Mac::of_address(target)),
        Some(AddressKind::ExternalGateway(_)) | None => Decision::NOT_OURS,
    }
}

/// A reply to somebody's question goes to the asker. Of a VIP, a listed asker is told the constant MAC instead of the owner's.
#[inline(never)]
fn reply<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    sender: &Sender<T>,
    constant_mac: Option<Mac>,
) -> Decision {
    if sender.to.is_of_address() {
        return Decision::CONSUMED;
    }
    let Some(index) = tables.port_by_mac(&MacKey::new(sender.port.vni, sender.to)) else {
        return Decision::NOT_OURS;
    };
    let Ok(receiver) = Receiver::port(tables, sender.port.vni, index) else { return Decision::NOT_OURS };
    if receiver.entry.subnet != sender.port.subnet || index == sender.index {
        return Decision::NOT_OURS;
    }
    if let (Some(mac), Some(frame)) = (constant_mac, packet.header::<ArpFrame>(0)) {
        frame.ethernet.source = mac;
        frame.arp.sender_mac = mac;
    }
    receiver.decision()
}
