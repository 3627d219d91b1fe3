//! Who receives a packet, and by which MAC.

use super::{fragments::Fit, tables::Tables, verdict::Decision};
use crate::{DropReason, tables::OwnerWord, wire::Mac};

/// A port of this host that is to receive a packet.
pub(super) struct Receiver<T: Tables> {
    pub(super) index: u32,
    pub(super) entry: T::Port,
    /// VRID by whose virtual router MAC it owns the VIP; 0: by its own.
    vrid: u8,
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
        Ok(Self { index, entry, vrid: 0 })
    }

    /// The owner of a VIP.
    #[inline(always)]
    pub(super) fn owner(tables: &T, vni: u32, owner: OwnerWord) -> Result<Self, DropReason> {
        if owner.port() == 0 {
            return Err(DropReason::Unowned);
        }
        let receiver = Self::port(tables, vni, owner.port())?;
        Ok(Self { vrid: owner.vrid(), ..receiver })
    }

    /// The MAC by which it receives the packet.
    #[inline(always)]
    pub(super) fn mac(&self) -> Mac {
        if self.vrid == 0 { self.entry.mac } else { Mac::of_vrid(self.vrid) }
    }

    /// Ethernet destination and source of a packet that comes through its gateway.
    #[inline(always)]
    pub(super) fn macs(&self) -> (Mac, Mac) {
        (self.mac(), Mac::of_address(self.entry.gateway))
    }

    #[inline(always)]
    pub(super) fn decision(&self) -> Decision {
        Decision::deliver(self.index, self.entry.ifindex)
    }

    /// Delivery of a packet that fits its interface so.
    #[inline(always)]
    pub(super) fn decision_for(&self, fit: Fit) -> Decision {
        if fit == Fit::IN_FRAGMENTS {
            Decision::fragments(self.entry.ifindex, self.entry.mtu)
        } else {
            self.decision()
        }
    }
}
