//! What happens to the host's IPv4 routes and addresses.

use std::collections::BTreeSet;

use netlink_sys::protocols::NETLINK_ROUTE;
use tokio::time::Instant;

use super::{NetError, Netlink, RouteTable, link_watch::LINK_GROUP, listener::Listener, pacer::Pacer};

const FOLLOW: &str = "follow the IPv4 routes";

/// `RTNLGRP_IPV4_IFADDR`.
const ADDRESS_GROUP: u32 = 5;

/// `RTNLGRP_IPV4_ROUTE`.
const ROUTE_GROUP: u32 = 7;

/// `RTNLGRP_NEXTHOP` (kernel 5.3).
const NEXTHOP_GROUP: u32 = 32;

/// Follows the IPv4 tables `main` and `local` of a namespace.
///
/// The kernel does not notify of every route that it takes away: those of an interface that goes down, and those whose
/// preferred source address is deleted, vanish silently. So changes of interfaces, addresses and nexthop objects lead to a
/// new snapshot as well, and only a different table is reported. The first change is read at once, those that follow it
/// within 20 ms (more where the table is so large that reading it takes longer than 2 ms) together.
pub struct RouteWatch {
    netlink: Netlink,
    listener: Listener,
    uplink: BTreeSet<u32>,
    table: RouteTable,
    pacer: Pacer,
    /// A notification was seen whose change no snapshot holds yet; kept here so that a dropped `next()` loses nothing.
    stale: bool,
}

impl RouteWatch {
    /// Starts to follow, with the ifindexes that [`Netlink::routes`] takes; the present table is in [`Self::table`].
    pub async fn open(netlink: &Netlink, uplink: BTreeSet<u32>) -> Result<Self, NetError> {
        let groups = [LINK_GROUP, ADDRESS_GROUP, ROUTE_GROUP, NEXTHOP_GROUP];
        let listener = Listener::join(NETLINK_ROUTE, &groups, FOLLOW)?;
        let table = netlink.routes(&uplink).await?;
        Ok(Self { netlink: netlink.clone(), listener, uplink, table, pacer: Pacer::new(), stale: false })
    }

    /// The table as of the last change.
    pub fn table(&self) -> &RouteTable {
        &self.table
    }

    /// Sets other ifindexes, when the uplink joins or leaves a bridge or bond. The next [`Self::next`] reads the table anew.
    pub fn set_uplink(&mut self, uplink: BTreeSet<u32>) {
        self.stale |= self.uplink != uplink;
        self.uplink = uplink;
    }

    /// Waits until the table is another one, and returns the one before it; the present one is [`Self::table`].
    /// Cancel-safe.
    pub async fn next(&mut self) -> Result<RouteTable, NetError> {
        loop {
            if !self.stale {
                self.listener.next().await?;
                self.stale = true;
            }
            self.pacer.ready().await;
            self.listener.drain().await?;
            let started = Instant::now();
            let read = self.netlink.routes(&self.uplink).await;
            self.pacer.spent(started);
            let table = read?;
            self.stale = false;
            if table != self.table {
                return Ok(std::mem::replace(&mut self.table, table));
            }
        }
    }
}
