//! Who receives a packet, and by which MAC.

use super::{fragments::Fit, tables::Tables, tunnel::has_way, verdict::Decision};
use crate::{
    DropReason,
    tables::{OwnerWord, PortFlags},
    wire::{Ipv4, Mac},
};

/// A port that is to receive a packet, here or on another host.
pub(super) struct Receiver<T: Tables> {
    pub(super) index: u32,
    pub(super) entry: T::Port,
    /// VRID by whose virtual router MAC it owns the VIP; 0: by its own.
    vrid: u8,
    /// The VIP that it receives the packet as the owner of; unspecified: none.
    vip: Ipv4,
}

impl<T: Tables> Receiver<T> {
    /// The port with this index, which must belong to the VPC: an index that was freed and given to another tenant
    /// must never deliver to it.
    #[inline(always)]
    pub(super) fn port(tables: &T, vni: u32, index: u32) -> Result<Self, DropReason> {
        let entry = tables.port(index).ok_or(DropReason::TableInconsistent)?;
        if entry.vni != vni {
            return Err(DropReason::TableInconsistent);
        }
        Self::of(index, entry)
    }

    /// The port with this record.
    #[inline(always)]
    pub(super) fn of(index: u32, entry: T::Port) -> Result<Self, DropReason> {
        if entry.ifindex == 0 {
            return Err(DropReason::NoInterface);
        }
        Ok(Self { index, entry, vrid: 0, vip: Ipv4::UNSPECIFIED })
    }

    /// The owner of a VIP.
    #[inline(always)]
    pub(super) fn owner(tables: &T, vni: u32, vip: Ipv4, owner: OwnerWord) -> Result<Self, DropReason> {
        if owner.port() == 0 {
            return Err(DropReason::Unowned);
        }
        let receiver = Self::port(tables, vni, owner.port())?;
        Ok(Self { vrid: owner.vrid(), vip, ..receiver })
    }

    /// Whether it is on another host.
    #[inline(always)]
    pub(super) fn is_remote(&self) -> bool {
        self.entry.flags.has(PortFlags::REMOTE)
    }

    /// Whether a packet that fits so can be sent to it, if it is on another host. Asked before the packet is counted.
    #[inline(always)]
    pub(super) fn check_way(&self, tables: &T, fit: Fit) -> Result<(), DropReason> {
        if self.is_remote() && !has_way(tables, self.entry.ifindex, fit == Fit::IN_FRAGMENTS) {
            return Err(DropReason::NoWayToHost);
        }
        Ok(())
    }

    /// The MAC by which it receives the packet. Another host finds the owner of a VIP by the VIP's constant MAC, so that what is under way
    /// when the VIP moves still reaches it.
    #[inline(always)]
    pub(super) fn mac(&self) -> Mac {
        if self.is_remote() && !self.vip.is_unspecified() {
            Mac::of_address(self.vip)
        } else if self.vrid == 0 {
            self.entry.mac
        } else {
            Mac::of_vrid(self.vrid)
        }
    }

    /// Ethernet destination and source of a packet that comes through its gateway.
    #[inline(always)]
    pub(super) fn macs(&self) -> (Mac, Mac) {
        (self.mac(), Mac::of_address(self.entry.gateway))
    }

    #[inline(always)]
    pub(super) fn decision(&self) -> Decision {
        if self.is_remote() {
            Decision::tunnel(self.entry.ifindex, self.entry.vni)
        } else {
            Decision::deliver(self.index, self.entry.ifindex)
        }
    }

    /// Delivery of a packet that fits its interface so.
    #[inline(always)]
    pub(super) fn decision_for(&self, fit: Fit) -> Decision {
        if fit == Fit::IN_FRAGMENTS {
            if self.is_remote() {
                Decision::tunnel_fragments(self.entry.ifindex, self.entry.vni)
            } else {
                Decision::fragments(self.entry.ifindex, self.entry.mtu)
            }
        } else {
            self.decision()
        }
    }
}
