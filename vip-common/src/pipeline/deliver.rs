//! Who receives a packet, and by which MAC.

use super::{tables::Tables, verdict::Decision};
use crate::{DropReason, tables::OwnerWord, wire::Mac};

/// A port of this host that is to receive a packet.
pub(super) struct Receiver<T: Tables> {
    pub(super) index: u32,
    pub(super) entry: T::Port,
    /// The port's own MAC, or the virtual router MAC by which it owns the VIP.
    pub(super) mac: Mac,
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
        Ok(Self { index, mac: entry.mac, entry })
    }

    /// The owner of a VIP.
    #[inline(always)]
    pub(super) fn owner(tables: &T, vni: u32, owner: OwnerWord) -> Result<Self, DropReason> {
        if owner.port() == 0 {
            return Err(DropReason::Unowned);
        }
        let receiver = Self::port(tables, vni, owner.port())?;
        let mac = if owner.vrid() == 0 { receiver.mac } else { Mac::of_vrid(owner.vrid()) };
        Ok(Self { mac, ..receiver })
    }

    #[inline(always)]
    pub(super) fn decision(&self) -> Decision {
        Decision::deliver(self.index, self.entry.ifindex)
    }
}
