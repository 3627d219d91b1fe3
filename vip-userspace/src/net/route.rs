//! What the host's routing says about one prefix, as far as it concerns the uplink.

use std::{collections::BTreeSet, net::Ipv4Addr};

use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteNextHopFlags, RouteType,
};

/// Why the host's routing table says no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `unreachable`: the sender is told "host unreachable".
    Unreachable,
    /// `prohibit`: the sender is told "administratively prohibited".
    Prohibit,
    /// `blackhole`: dropped silently.
    Blackhole,
    /// `throw`: this table gives no answer; no further table is followed here, so there is no route.
    Throw,
}

/// What about a route through the uplink the forwarder does not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsupported {
    /// The next hop is an IPv6 address (RFC 5549).
    Ipv6Gateway,
    /// Packets are to be encapsulated on the way (`encap mpls`, `encap ip`, …).
    Encapsulation,
    /// The kernel names the next hop only by the id of a nexthop object (`net.ipv4.nexthop_compat_mode` is 0).
    NexthopObject,
}

/// Where packets to a prefix go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// The destination itself is a neighbour on the interface.
    OnLink {
        /// The uplink's or its master's ifindex.
        oif: u32,
    },
    /// Through a router.
    Via {
        /// The uplink's or its master's ifindex.
        oif: u32,
        /// The router, a neighbour on the interface.
        gateway: Ipv4Addr,
    },
    /// Through another interface of the host. Kept, because it shadows shorter prefixes that lead through the uplink.
    Elsewhere,
    /// Nowhere.
    Refused(Refusal),
    /// Through the uplink, but in a way that the forwarder does not do.
    Unsupported(Unsupported),
}

impl Route {
    /// Reads a route of type unicast, unreachable, prohibit, blackhole or throw. `uplink` holds the ifindexes of the uplink
    /// and its master.
    ///
    /// Of several next hops the first usable one through the uplink counts. `None` if the route leads nowhere at the moment
    /// (all its next hops are dead), so that one of a higher metric applies, or is of another type.
    pub(super) fn from_message(message: &RouteMessage, uplink: &BTreeSet<u32>) -> Option<Self> {
        match message.header.kind {
            RouteType::Unicast => {}
            RouteType::Unreachable => return Some(Self::Refused(Refusal::Unreachable)),
            RouteType::Prohibit => return Some(Self::Refused(Refusal::Prohibit)),
            RouteType::BlackHole => return Some(Self::Refused(Refusal::Blackhole)),
            RouteType::Throw => return Some(Self::Refused(Refusal::Throw)),
            _ => return None,
        }
        let several = message.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::MultiPath(hops) => Some(hops),
            _ => None,
        });
        let Some(several) = several else {
            let hop = NextHop::from_attributes(None, &message.attributes);
            let dead = message.header.flags.contains(RouteFlags::Dead);
            return (!dead).then(|| hop.route(uplink));
        };
        several
            .iter()
            .filter(|hop| !hop.flags.contains(RouteNextHopFlags::Dead))
            .map(|hop| NextHop::from_attributes(Some(hop.interface_index), &hop.attributes).route(uplink))
            // The first of the best: `min_by_key` keeps the earlier of equals.
            .min_by_key(|route| match route {
                Self::OnLink { .. } | Self::Via { .. } => 0,
                Self::Unsupported(_) => 1,
                Self::Elsewhere | Self::Refused(_) => 2,
            })
    }
}

/// One way out, as the kernel describes it.
#[derive(Debug, Default)]
struct NextHop {
    oif: Option<u32>,
    gateway: Option<Ipv4Addr>,
    unsupported: Option<Unsupported>,
}

impl NextHop {
    fn from_attributes(oif: Option<u32>, attributes: &[RouteAttribute]) -> Self {
        let mut hop = Self { oif, ..Self::default() };
        for attribute in attributes {
            match attribute {
                RouteAttribute::Oif(oif) => hop.oif = Some(*oif),
                RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => hop.gateway = Some(*gateway),
                RouteAttribute::Via(_) => hop.unsupported = Some(Unsupported::Ipv6Gateway),
                RouteAttribute::EncapType(_) | RouteAttribute::Encap(_) => {
                    hop.unsupported = Some(Unsupported::Encapsulation);
                }
                _ => {}
            }
        }
        let object = attributes.iter().any(|attribute| matches!(attribute, RouteAttribute::NhId(_)));
        if object && hop.oif.is_none() {
            hop.unsupported = Some(Unsupported::NexthopObject);
        }
        hop
    }

    fn route(&self, uplink: &BTreeSet<u32>) -> Route {
        let ours = self.oif.filter(|oif| uplink.contains(oif));
        match (ours, self.unsupported, self.gateway) {
            (Some(_), Some(what), _) => Route::Unsupported(what),
            (Some(oif), None, Some(gateway)) => Route::Via { oif, gateway },
            (Some(oif), None, None) => Route::OnLink { oif },
            // It may lead through the uplink; the kernel does not say.
            (None, Some(Unsupported::NexthopObject), _) => Route::Unsupported(Unsupported::NexthopObject),
            (None, _, _) => Route::Elsewhere,
        }
    }
}
