//! The route netlink socket through which vipd asks the kernel.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::{NetError, requester::Requester};

/// A route netlink socket: interfaces, routes, neighbours and bridge forwarding entries of one network namespace.
///
/// What it can do stands beside the noun it does it to: interfaces, statistics, routes, neighbours, forwarding entries.
/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Netlink {
    pub(super) requester: Requester<RouteNetlinkMessage>,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace. Needs a tokio runtime; reading needs no privilege,
    /// changing anything needs `CAP_NET_ADMIN`.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn open() -> Result<Self, NetError> {
        Ok(Self { requester: Requester::open(NETLINK_ROUTE, "follow interfaces, routes and neighbours")? })
    }
}
