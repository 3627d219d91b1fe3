//! What VRRP advertisements tell: which members take themselves for the master (RFC 9568).

use super::{
    claim::{present_owner, report},
    tables::Tables,
};
use crate::{
    tables::{Advert, EventKind, GrantKey},
    wire::Ipv4,
};

/// An advertisement that goes to the members of a VIP.
#[derive(Clone, Copy, Debug)]
pub struct Advertised {
    /// VIP slot.
    pub slot: u32,
    /// Port index of the member.
    pub port: u32,
    /// Its source.
    pub address: Ipv4,
    /// Interval in milliseconds.
    pub interval: u32,
    /// Virtual router id.
    pub vrid: u8,
    /// Priority; 0: the member ends being master.
    pub priority: u8,
}

/// Remembers what a member advertises, and tells the agent, now and then, that one does so lastingly which does not own the VIP.
#[inline(always)]
pub fn advertised<T: Tables>(tables: &T, advertised: &Advertised) {
    let &Advertised { slot, port, address, interval, vrid, priority } = advertised;
    let key = GrantKey { port, slot };
    if priority == 0 {
        tables.remove_advert(&key);
        return;
    }
    let now = tables.now();
    let mut advert = Advert { since: now, at: now, address, interval, vrid, priority, zero: [0; 6] };
    if let Some(before) = tables.advert(&key)
        && before.vrid == vrid
        && before.is_heard(now)
    {
        advert.since = before.since;
    }
    tables.put_advert(&key, &advert);
    if advert.is_lasting(now) && present_owner(tables, slot).port() != port {
        report(tables, slot, port, EventKind::Advertises);
    }
}
