//! Static forwarding entries of Linux bridges.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
};

use super::{NetError, Netlink};

const REPLACE: &str = "set a bridge forwarding entry";
const DELETE: &str = "delete a bridge forwarding entry";

impl Netlink {
    /// Has the bridge deliver frames for `mac` to its port `ifindex` (`bridge fdb replace MAC dev PORT master static`): the
    /// entry is made, or moved from another port, and neither ages nor is learned anew elsewhere until deleted.
    ///
    /// Only for a port of a Linux bridge; the kernel refuses it (`EOPNOTSUPP`) for any other interface, members of an Open
    /// vSwitch included. On a bridge that filters VLANs it holds for all VLANs of the port.
    pub async fn fdb_replace(&self, ifindex: u32, mac: [u8; 6]) -> Result<(), NetError> {
        let order = RouteNetlinkMessage::NewNeighbour(entry(ifindex, mac));
        self.requester.order(REPLACE, Some(ifindex), NLM_F_CREATE | NLM_F_REPLACE, order).await
    }

    /// Deletes the bridge's entry for `mac` on its port `ifindex`, whoever made it. `false`: there was none on that port,
    /// or the interface is gone or in no bridge any more, and its entries with it.
    pub async fn fdb_delete(&self, ifindex: u32, mac: [u8; 6]) -> Result<bool, NetError> {
        let order = RouteNetlinkMessage::DelNeighbour(entry(ifindex, mac));
        match self.requester.order(DELETE, Some(ifindex), 0, order).await {
            Ok(()) => Ok(true),
            Err(NetError::NoSuchInterface { .. }) => Ok(false),
            Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::EOPNOTSUPP)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn entry(ifindex: u32, mac: [u8; 6]) -> NeighbourMessage {
    let mut entry = NeighbourMessage::default();
    entry.header.family = AddressFamily::Bridge;
    entry.header.ifindex = ifindex;
    // In a forwarding table NOARP means static, PERMANENT would mean the bridge's own address.
    entry.header.state = NeighbourState::Noarp;
    // NTF_MASTER: the table of the bridge, not the port's own filter.
    entry.header.flags = NeighbourFlags::Controller;
    entry.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    entry
}
