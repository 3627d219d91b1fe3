//! What XDP can do with an interface, and when that changes.

use std::{collections::BTreeMap, fmt, future::pending};

use netlink_sys::protocols::NETLINK_GENERIC;
use tokio::time::Instant;

use super::{NetError, Netdev, listener::Listener, pacer::Pacer};

const FOLLOW: &str = "follow the interfaces' XDP features";

bitflags::bitflags! {
    /// `enum netdev_xdp_act` of linux/netdev.h (kernel 6.3).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct XdpFeatures: u64 {
        /// Native XDP programs run and may pass, drop and send back.
        const BASIC = 1;
        /// `XDP_REDIRECT` from this interface works.
        const REDIRECT = 2;
        /// Frames redirected *to* this interface are sent: always so for a tap, for a veth only while its other end has GRO
        /// or an XDP program.
        const NDO_XMIT = 4;
        /// AF_XDP without copying.
        const XSK_ZEROCOPY = 8;
        /// Programs can run in the NIC.
        const HW_OFFLOAD = 16;
        /// Frames of several buffers are received.
        const RX_SG = 32;
        /// Frames of several buffers may be redirected to it.
        const NDO_XMIT_SG = 64;
        // Bits of later kernels are kept, so that a change in them is no surprise.
        const _ = !0;
    }
}

impl fmt::Display for XdpFeatures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        bitflags::parser::to_writer(self, out)
    }
}

/// An interface's XDP features became known, changed, or went away with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XdpFeatureEvent {
    /// The interface.
    pub ifindex: u32,
    /// Its features now; `None`: the interface is gone.
    pub features: Option<XdpFeatures>,
}

/// Follows the XDP features of all interfaces of a namespace: a guest that turns GRO on or off changes what its veth's
/// host end can do.
///
/// Works like [`super::LinkWatch`]: each notification leads to a new snapshot, at most one in 20 ms.
pub struct XdpFeatureWatch {
    netdev: Netdev,
    /// `None`: a kernel without the netdev family, where nothing will ever be told.
    listener: Option<Listener>,
    features: BTreeMap<u32, XdpFeatures>,
    pacer: Pacer,
    /// As in [`super::LinkWatch`]: a notification was seen whose change no snapshot holds yet.
    stale: bool,
}

impl XdpFeatureWatch {
    /// Starts to follow; features of interfaces that exist already are in [`Self::features`], not in events.
    pub async fn open(netdev: &Netdev) -> Result<Self, NetError> {
        let listener = match netdev.management_group() {
            Some(group) => Some(Listener::join(NETLINK_GENERIC, &[group], FOLLOW)?),
            None => None,
        };
        let features = netdev.all_xdp_features().await?;
        Ok(Self { netdev: netdev.clone(), listener, features, pacer: Pacer::new(), stale: false })
    }

    /// All interfaces' features by ifindex, as of the last event; empty on a kernel before 6.3.
    pub fn features(&self) -> &BTreeMap<u32, XdpFeatures> {
        &self.features
    }

    /// Waits until something changes and tells what, never an empty list. Never returns on a kernel before 6.3.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Result<Vec<XdpFeatureEvent>, NetError> {
        let Some(listener) = self.listener.as_mut() else {
            return pending().await;
        };
        loop {
            if !self.stale {
                listener.next().await?;
                self.stale = true;
            }
            self.pacer.ready().await;
            listener.drain().await?;
            let started = Instant::now();
            let read = self.netdev.all_xdp_features().await;
            self.pacer.spent(started);
            let features = read?;
            self.stale = false;
            let events = events_between(&self.features, &features);
            self.features = features;
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }
}

fn events_between(
    before: &BTreeMap<u32, XdpFeatures>,
    after: &BTreeMap<u32, XdpFeatures>,
) -> Vec<XdpFeatureEvent> {
    let gone = before
        .keys()
        .filter(|ifindex| !after.contains_key(ifindex))
        .map(|&ifindex| XdpFeatureEvent { ifindex, features: None });
    let others = after
        .iter()
        .filter(|(ifindex, features)| before.get(ifindex) != Some(features))
        .map(|(&ifindex, &features)| XdpFeatureEvent { ifindex, features: Some(features) });
    gone.chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_of_two_snapshots_names_each_change_once() {
        let before =
            BTreeMap::from([(2, XdpFeatures::BASIC), (3, XdpFeatures::BASIC), (4, XdpFeatures::empty())]);
        let both = XdpFeatures::BASIC | XdpFeatures::NDO_XMIT;
        let after = BTreeMap::from([(2, XdpFeatures::BASIC), (3, both), (5, both)]);
        assert_eq!(
            events_between(&before, &after),
            [
                XdpFeatureEvent { ifindex: 4, features: None },
                XdpFeatureEvent { ifindex: 3, features: Some(both) },
                XdpFeatureEvent { ifindex: 5, features: Some(both) },
            ]
        );
    }

    #[test]
    fn features_are_shown_by_name_and_unknown_bits_by_number() {
        let features = XdpFeatures::BASIC | XdpFeatures::NDO_XMIT | XdpFeatures::from_bits_retain(1 << 20);
        assert_eq!(features.to_string(), "BASIC | NDO_XMIT | 0x100000");
    }
}
