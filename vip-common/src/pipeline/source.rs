//! The source check of a guest's packet, and what it teaches.

use super::{
    claim::{Claim, learn, present_owner},
    guest::Sender,
    packet::Ipv4Packet,
    tables::Tables,
};
use crate::{
    DropReason,
    tables::{AddressKind, ClaimForm, GrantKey, PortFlags, Target, VniAddress},
    wire::Ipv4,
};

/// The source of a packet, after the source check.
///
/// One number, not an enum: to the verifier, the slot of a source that is no VIP would be an undefined register.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Source(u32);

impl Source {
    /// The port's fixed address.
    pub(super) const FIXED: Self = Self(u32::MAX);
    /// An address that is not the port's own, by a port whose check is off: never translated.
    pub(super) const FOREIGN: Self = Self(u32::MAX - 1);
    /// An address that the port may not send from.
    const REFUSED: Self = Self(u32::MAX - 2);

    /// A VIP that the port may send from.
    #[inline(always)]
    pub(super) const fn vip(slot: u32) -> Self {
        Self(slot)
    }

    /// The VIP's slot, if it is one.
    #[inline(always)]
    pub(super) const fn as_vip(self) -> Option<u32> {
        if self.0 < Self::REFUSED.0 { Some(self.0) } else { None }
    }
}

/// What the source check needs to know of a packet whose source is not its port's fixed address.
#[derive(Clone, Copy, Debug)]
pub struct SourceQuestion {
    /// Index of the port that sent it.
    pub port: u32,
    /// Its source.
    pub source: Ipv4,
    /// Its destination.
    pub destination: Ipv4,
    /// VRID of the virtual router MAC that it came from; 0: another MAC.
    pub vrid: u8,
    /// Whether it is to one MAC, and no group's.
    pub unicast: bool,
}

/// The source check: a packet from a VIP by a member lets an unowned VIP be learned, and one by a member that does not own it is
/// reported.
#[inline(always)]
pub(super) fn check_source<T: Tables>(
    tables: &T,
    sender: &Sender<T>,
    ip: &Ipv4Packet,
) -> Result<Source, DropReason> {
    if ip.source == sender.port.address {
        return Ok(Source::FIXED);
    }
    let source = Source(tables.source_of(&SourceQuestion {
        port: sender.index,
        source: ip.source,
        destination: ip.destination,
        vrid: sender.mac.vrid().unwrap_or(0),
        unicast: !sender.to.is_multicast(),
    }));
    if source == Source::REFUSED { Err(DropReason::SourceAddress) } else { Ok(source) }
}

/// The source check of an address that is not the port's fixed one; the source as a number.
#[inline(always)]
pub fn source_of<T: Tables>(tables: &T, question: &SourceQuestion) -> u32 {
    let &SourceQuestion { port: index, source, destination, vrid, unicast } = question;
    let Some(port) = tables.port(index) else { return Source::REFUSED.0 };
    let look_up = |address| tables.address(port.root, &VniAddress { vni: port.vni, address });
    if let Some(slot) = look_up(source).and_then(Target::as_vip)
        && let Some(grant) = tables.grant(&GrantKey { port: index, slot })
        && grant.rights.may_source()
    {
        if grant.rights.may_own() {
            let vrid = if grant.allows_vrid(vrid) { vrid } else { 0 };
            let owner = learn(tables, &Claim { slot, port: index, vrid, form: ClaimForm::Data });
            if owner.port() != index {
                tables.report_use(slot, index);
            }
        }
        return Source::vip(slot).0;
    }
    // The owner of a VIP hands a client's packet to the VIP on to a real server, as LVS-DR does: from the client's address. `to_vip`
    // lets it reach the VIP's members and real servers only.
    let is_from_director = || match look_up(destination).and_then(Target::kind) {
        Some(AddressKind::Vip(slot)) => unicast && present_owner(tables, slot).port() == index,
        _ => false,
    };
    if port.flags.has(PortFlags::BYPASS) || is_from_director() {
        Source::FOREIGN.0
    } else {
        Source::REFUSED.0
    }
}
