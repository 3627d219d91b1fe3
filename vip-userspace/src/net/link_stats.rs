//! Counters that the kernel keeps for each interface.

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage, Stats64},
};

use super::{NetError, Netlink};

const READ: &str = "read the interface's statistics";

/// What an interface has carried since it was made, by `rtnl_link_stats64`; as the host sees it, so the *received* packets
/// of a guest's port are what the guest sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received, Ethernet header included.
    pub rx_bytes: u64,
    /// Broken packets received.
    pub rx_errors: u64,
    /// Packets received and dropped for want of room or of somebody who wants them.
    pub rx_dropped: u64,
    /// Packets the driver had no buffer for.
    pub rx_missed: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent, Ethernet header included.
    pub tx_bytes: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Packets dropped before they were sent: a full queue or ring, or an interface that is down.
    pub tx_dropped: u64,
}

impl From<&Stats64> for LinkStats {
    fn from(stats: &Stats64) -> Self {
        Self {
            rx_packets: stats.rx_packets,
            rx_bytes: stats.rx_bytes,
            rx_errors: stats.rx_errors,
            rx_dropped: stats.rx_dropped,
            rx_missed: stats.rx_missed_errors,
            tx_packets: stats.tx_packets,
            tx_bytes: stats.tx_bytes,
            tx_errors: stats.tx_errors,
            tx_dropped: stats.tx_dropped,
        }
    }
}

impl Netlink {
    /// Reads the counters of one interface.
    pub async fn link_stats(&self, ifindex: u32) -> Result<LinkStats, NetError> {
        let mut query = LinkMessage::default();
        query.header.interface_family = AddressFamily::Unspec;
        query.header.index = ifindex;
        let answer = self.requester.get(READ, Some(ifindex), RouteNetlinkMessage::GetLink(query)).await?;
        let RouteNetlinkMessage::NewLink(link) = answer else {
            return Err(NetError::Incomplete { operation: READ, missing: "the interface" });
        };
        link.attributes
            .iter()
            .find_map(|attribute| match attribute {
                LinkAttribute::Stats64(stats) => Some(stats.into()),
                _ => None,
            })
            .ok_or(NetError::Incomplete { operation: READ, missing: "64-bit counters" })
    }
}
