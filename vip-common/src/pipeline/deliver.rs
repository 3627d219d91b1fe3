//! Who receives a packet, and by which MAC.

use super::{tables::Tables, verdict::Decision};
use crate::{
    DropReason,
    tables::{OwnerWord, PortEntry},
    wire::Mac,
};

/// A port of this host that is to receive a packet.
#[derive(Clone, Copy)]
pub(super) struct Receiver<'t> {
    pub(super) index: u32,
    pub(super) entry: &'t PortEntry,
    /// The port's own MAC, or the virtual router MAC by which it owns the VIP.
    pub(super) mac: Mac,
}

impl<'t> Receiver<'t> {
    /// The port with this index, which must belong to the VPC: an index that was freed and given to another tenant
    /// must never deliver to it.
    #[inline(always)]
    pub(super) fn port<T: Tables>(tables: &'t T, vni: u32, index: u32) -> Result<Self, DropReason> {
        let entry = tables.port(index).ok_or(DropReason::TableInconsistent)?;
        if entry.vni != vni {
            return Err(DropReason::TableInconsistent);
        }
        if entry.ifindex == 0 {
            return Err(DropReason::NoInterface);
        }
        Ok(Self { index, entry, mac: entry.mac })
    }

    /// The owner of a VIP.
    #[inline(always)]
    pub(super) fn owner<T: Tables>(tables: &'t T, vni: u32, owner: OwnerWord) -> Result<Self, DropReason> {
        if owner.port() == 0 {
            return Err(DropReason::Unowned);
        }
        let receiver = Self::port(tables, vni, owner.port())?;
        let mac = if owner.vrid() == 0 { receiver.mac } else { Mac::of_vrid(owner.vrid()) };
        Ok(Self { mac, ..receiver })
    }

    #[inline(always)]
    pub(super) const fn decision(&self) -> Decision {
        Decision::deliver(self.index, self.entry.ifindex)
    }
}

/// Whether the port is one of the VPC and has an interface on this host.
#[inline(always)]
pub(super) fn is_on_this_host<T: Tables>(tables: &T, vni: u32, index: u32) -> bool {
    index != 0 && Receiver::port(tables, vni, index).is_ok()
}
