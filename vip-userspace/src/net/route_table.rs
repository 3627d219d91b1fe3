//! The host's IPv4 routing table, reduced to what the forwarder needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnetwork::Ipv4Network;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteType},
};

use super::{NetError, Netlink, route::Route};

const LIST: &str = "list the IPv4 routes";
const LIST_LOCAL: &str = "list the host's own IPv4 addresses";

/// `RT_TABLE_LOCAL`.
const LOCAL_TABLE: u8 = 255;

/// The IPv4 tables `main` and `local` of the namespace at one moment.
///
/// Not followed: other tables and the policy rules that lead to them ([`Netlink::extra_rules`] counts these), and routes
/// for one type of service (`tos`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteTable {
    /// By prefix, the route of the lowest metric that leads somewhere.
    pub entries: BTreeMap<Ipv4Network, Route>,
    /// The MTU in bytes of those of `entries` that have one of their own (`mtu`, locked or not).
    pub mtus: BTreeMap<Ipv4Network, u32>,
    /// What the host itself answers for, on all interfaces: its addresses as /32, and whole prefixes such as 127.0.0.0/8.
    pub local: BTreeSet<Ipv4Network>,
}

impl RouteTable {
    /// Longest prefix match in `entries`, as the kernel does it; the prefix tells which route it was. `None`: no route.
    ///
    /// Addresses of the host itself come first in the kernel; ask [`Self::holds_address`].
    pub fn lookup(&self, destination: Ipv4Addr) -> Option<(Ipv4Network, Route)> {
        prefixes_of(destination).find_map(|prefix| self.entries.get(&prefix).map(|route| (prefix, *route)))
    }

    /// The MTU in bytes of the route to an address, if it has one of its own; it may be more than the interface's.
    pub fn mtu_to(&self, destination: Ipv4Addr) -> Option<u32> {
        let (prefix, _) = self.lookup(destination)?;
        self.mtus.get(&prefix).copied()
    }

    /// Whether the host itself holds the address, on whichever interface.
    pub fn holds_address(&self, address: Ipv4Addr) -> bool {
        prefixes_of(address).any(|prefix| self.local.contains(&prefix))
    }
}

/// All prefixes that hold an address, the longest first.
fn prefixes_of(address: Ipv4Addr) -> impl Iterator<Item = Ipv4Network> {
    (0..=32).rev().filter_map(move |length| {
        let host = Ipv4Network::new(address, length).ok()?;
        Ipv4Network::new(host.network(), length).ok()
    })
}

/// A table while it is read, route by route.
struct Builder<'a> {
    uplink: &'a BTreeSet<u32>,
    /// With metric and MTU.
    entries: BTreeMap<Ipv4Network, (u32, Route, Option<u32>)>,
    local: BTreeSet<Ipv4Network>,
}

impl<'a> Builder<'a> {
    fn new(uplink: &'a BTreeSet<u32>) -> Self {
        Self { uplink, entries: BTreeMap::new(), local: BTreeSet::new() }
    }

    fn add(&mut self, message: &RouteMessage) {
        let Some(prefix) = prefix(message) else {
            return;
        };
        if message.header.kind == RouteType::Local {
            self.local.insert(prefix);
            return;
        }
        if message.header.tos != 0 {
            return;
        }
        let Some(route) = Route::from_message(message, self.uplink) else {
            return;
        };
        let metric = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                RouteAttribute::Priority(metric) => Some(*metric),
                _ => None,
            })
            .unwrap_or_default();
        // Of equal metrics the kernel uses the one that it lists first.
        let better = self.entries.get(&prefix).is_none_or(|(best, ..)| metric < *best);
        if better {
            self.entries.insert(prefix, (metric, route, mtu(message)));
        }
    }

    fn finish(self) -> RouteTable {
        let mtus = self.entries.iter().filter_map(|(prefix, (.., mtu))| Some((*prefix, (*mtu)?))).collect();
        let entries = self.entries.into_iter().map(|(prefix, (_, route, _))| (prefix, route)).collect();
        RouteTable { entries, mtus, local: self.local }
    }
}

fn prefix(message: &RouteMessage) -> Option<Ipv4Network> {
    let address = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
            _ => None,
        })
        .unwrap_or(Ipv4Addr::UNSPECIFIED);
    Ipv4Network::new(address, message.header.destination_prefix_length).ok()
}

/// What the operator lets through a route at most, in bytes; the kernel has 0 for "the interface's MTU".
fn mtu(message: &RouteMessage) -> Option<u32> {
    let metrics = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Metrics(metrics) => Some(metrics),
        _ => None,
    })?;
    metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) if *mtu != 0 => Some(*mtu),
        _ => None,
    })
}

impl Netlink {
    /// Reads the tables `main` and `local`. `uplink` holds the ifindexes through which the forwarder sends: the uplink
    /// itself and, if it is a bridge or bond member, its master; routes through others become [`Route::Elsewhere`].
    pub async fn routes(&self, uplink: &BTreeSet<u32>) -> Result<RouteTable, NetError> {
        let mut query = RouteMessage::default();
        query.header.address_family = AddressFamily::Inet;
        query.header.table = RouteHeader::RT_TABLE_MAIN;
        let main = self.route_dump(LIST, query.clone(), uplink).await?;

        query.header.table = LOCAL_TABLE;
        query.header.kind = RouteType::Local;
        let mut table = main;
        table.local.extend(self.route_dump(LIST_LOCAL, query, uplink).await?.local);
        Ok(table)
    }

    /// Whether the host itself holds the address, on whichever interface of the namespace. For one question; who asks often
    /// keeps a [`RouteTable`].
    pub async fn holds_address(&self, address: Ipv4Addr) -> Result<bool, NetError> {
        Ok(self.routes(&BTreeSet::new()).await?.holds_address(address))
    }

    async fn route_dump(
        &self,
        operation: &'static str,
        query: RouteMessage,
        uplink: &BTreeSet<u32>,
    ) -> Result<RouteTable, NetError> {
        let dumped = self
            .requester
            .dump(
                operation,
                RouteNetlinkMessage::GetRoute(query),
                || Builder::new(uplink),
                |builder, message| {
                    if let RouteNetlinkMessage::NewRoute(route) = message {
                        builder.add(&route);
                    }
                },
            )
            .await;
        match dumped {
            Ok(builder) => Ok(builder.finish()),
            // A namespace in which nothing was ever configured has no tables.
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(RouteTable::default()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
impl RouteTable {
    /// A table of these prefixes and local addresses.
    pub(crate) fn of(routes: &[(&str, Route)], local: &[&str]) -> Self {
        let prefix = |text: &str| text.parse().expect("a prefix");
        Self {
            entries: routes.iter().map(|(text, route)| (prefix(text), *route)).collect(),
            mtus: BTreeMap::new(),
            local: local.iter().map(|text| prefix(text)).collect(),
        }
    }

    /// A table with a route of each kind: by 192.0.2.1 to everywhere, on the link to 192.0.2.0/24, of which 192.0.2.7 is the host's,
    /// through another interface to 10.0.0.0/8, and none to 10.1.0.0/16.
    pub(crate) fn of_each_kind() -> Self {
        let gateway = Ipv4Addr::new(192, 0, 2, 1);
        Self::of(
            &[
                ("0.0.0.0/0", Route::Via { oif: 2, gateway }),
                ("192.0.2.0/24", Route::OnLink { oif: 2 }),
                ("10.0.0.0/8", Route::Elsewhere),
                ("10.1.0.0/16", Route::Refused(crate::net::Refusal::Blackhole)),
            ],
            &["192.0.2.7/32"],
        )
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use netlink_packet_route::route::{RouteFlags, RouteNextHop, RouteNextHopFlags, RouteVia};

    use super::*;
    use crate::net::{Refusal, Unsupported};

    const UPLINK: u32 = 3;
    const MASTER: u32 = 4;
    const OTHER: u32 = 5;

    fn network(text: &str) -> Ipv4Network {
        text.parse().expect("a prefix")
    }

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().expect("an address")
    }

    fn route(prefix: &str, kind: RouteType, attributes: &[RouteAttribute]) -> RouteMessage {
        let prefix = network(prefix);
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.kind = kind;
        message.header.destination_prefix_length = prefix.prefix();
        if prefix.prefix() != 0 {
            message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(prefix.ip())));
        }
        message.attributes.extend_from_slice(attributes);
        message
    }

    fn gateway(text: &str) -> RouteAttribute {
        RouteAttribute::Gateway(RouteAddress::Inet(ip(text)))
    }

    fn hop(oif: u32, flags: RouteNextHopFlags, attributes: &[RouteAttribute]) -> RouteNextHop {
        let mut hop = RouteNextHop::default();
        hop.interface_index = oif;
        hop.flags = flags;
        hop.attributes = attributes.to_vec();
        hop
    }

    fn table(messages: &[RouteMessage]) -> RouteTable {
        let uplink = BTreeSet::from([UPLINK, MASTER]);
        let mut builder = Builder::new(&uplink);
        for message in messages {
            builder.add(message);
        }
        builder.finish()
    }

    fn only(message: RouteMessage) -> Option<Route> {
        table(&[message]).entries.into_values().next()
    }

    #[test]
    fn the_longest_prefix_wins_also_when_it_leads_elsewhere() {
        let table = table(&[
            route("0.0.0.0/0", RouteType::Unicast, &[RouteAttribute::Oif(UPLINK), gateway("192.0.2.1")]),
            route("192.0.2.0/24", RouteType::Unicast, &[RouteAttribute::Oif(MASTER)]),
            route("10.0.0.0/8", RouteType::Unicast, &[RouteAttribute::Oif(OTHER)]),
            route("10.9.0.0/16", RouteType::BlackHole, &[]),
        ]);
        let found = |address| table.lookup(ip(address)).map(|(_, route)| route);
        assert_eq!(found("198.51.100.7"), Some(Route::Via { oif: UPLINK, gateway: ip("192.0.2.1") }));
        assert_eq!(found("192.0.2.9"), Some(Route::OnLink { oif: MASTER }));
        assert_eq!(found("10.1.2.3"), Some(Route::Elsewhere));
        assert_eq!(found("10.9.2.3"), Some(Route::Refused(Refusal::Blackhole)));
        assert_eq!(table.lookup(ip("192.0.2.9")).map(|(prefix, _)| prefix), Some(network("192.0.2.0/24")));
    }

    #[test]
    fn without_a_default_route_an_unknown_destination_has_none() {
        assert_eq!(RouteTable::default().lookup(ip("198.51.100.7")), None);
    }

    #[test]
    fn the_lower_metric_wins_in_whichever_order_they_are_listed() {
        let metric = |metric, oif| {
            route(
                "192.0.2.0/24",
                RouteType::Unicast,
                &[RouteAttribute::Priority(metric), RouteAttribute::Oif(oif)],
            )
        };
        for messages in [[metric(100, OTHER), metric(50, UPLINK)], [metric(50, UPLINK), metric(100, OTHER)]] {
            assert_eq!(
                table(&messages).entries.get(&network("192.0.2.0/24")),
                Some(&Route::OnLink { oif: UPLINK })
            );
        }
        // No metric is metric 0.
        let messages = [
            metric(1, OTHER),
            route("192.0.2.0/24", RouteType::Unicast, &[RouteAttribute::Oif(UPLINK), gateway("192.0.2.1")]),
        ];
        assert_eq!(
            table(&messages).entries.get(&network("192.0.2.0/24")),
            Some(&Route::Via { oif: UPLINK, gateway: ip("192.0.2.1") })
        );
    }

    #[test]
    fn the_mtu_is_that_of_the_route_that_is_used() {
        let metrics = |mtu| RouteAttribute::Metrics(vec![RouteMetric::Window(7), RouteMetric::Mtu(mtu)]);
        let on_uplink = |prefix, more: &[RouteAttribute]| {
            let attributes = [&[RouteAttribute::Oif(UPLINK)], more].concat();
            route(prefix, RouteType::Unicast, &attributes)
        };
        let table = table(&[
            on_uplink("192.0.2.0/24", &[metrics(1400)]),
            // Another metric, and so not used.
            on_uplink("192.0.2.0/24", &[RouteAttribute::Priority(9), metrics(1300)]),
            on_uplink("192.0.2.7/32", &[]),
            on_uplink("198.51.100.0/24", &[metrics(0)]),
        ]);
        let found = ["192.0.2.9", "192.0.2.7", "198.51.100.1", "203.0.113.1"].map(|to| table.mtu_to(ip(to)));
        assert_eq!(found, [Some(1400), None, None, None]);
    }

    #[test]
    fn of_several_next_hops_the_first_live_one_through_the_uplink_counts() {
        let live = RouteNextHopFlags::empty();
        let several = route(
            "0.0.0.0/0",
            RouteType::Unicast,
            &[RouteAttribute::MultiPath(vec![
                hop(OTHER, live, &[gateway("10.0.0.1")]),
                hop(UPLINK, RouteNextHopFlags::Dead, &[gateway("192.0.2.1")]),
                hop(UPLINK, live, &[gateway("192.0.2.2")]),
                hop(MASTER, live, &[gateway("192.0.2.3")]),
            ])],
        );
        assert_eq!(only(several), Some(Route::Via { oif: UPLINK, gateway: ip("192.0.2.2") }));
    }

    #[test]
    fn a_dead_route_gives_way_to_one_of_a_higher_metric() {
        let mut dead = route("0.0.0.0/0", RouteType::Unicast, &[RouteAttribute::Oif(UPLINK)]);
        dead.header.flags = RouteFlags::Dead | RouteFlags::Linkdown;
        let spare = route(
            "0.0.0.0/0",
            RouteType::Unicast,
            &[RouteAttribute::Priority(9), RouteAttribute::Oif(MASTER), gateway("192.0.2.1")],
        );
        assert_eq!(
            table(&[dead, spare]).lookup(ip("8.8.8.8")).map(|(_, route)| route),
            Some(Route::Via { oif: MASTER, gateway: ip("192.0.2.1") })
        );
    }

    #[test]
    fn what_the_forwarder_cannot_do_is_named_and_not_mistaken_for_on_link() {
        let ipv6 = RouteAttribute::Via(RouteVia::Inet6(Ipv6Addr::LOCALHOST));
        let via = route("0.0.0.0/0", RouteType::Unicast, &[RouteAttribute::Oif(UPLINK), ipv6.clone()]);
        assert_eq!(only(via), Some(Route::Unsupported(Unsupported::Ipv6Gateway)));
        let object = route("0.0.0.0/0", RouteType::Unicast, &[RouteAttribute::NhId(7)]);
        assert_eq!(only(object), Some(Route::Unsupported(Unsupported::NexthopObject)));
        let elsewhere = route("0.0.0.0/0", RouteType::Unicast, &[RouteAttribute::Oif(OTHER), ipv6]);
        assert_eq!(only(elsewhere), Some(Route::Elsewhere));
    }

    #[test]
    fn refusals_keep_their_kind() {
        for (kind, refusal) in [
            (RouteType::Unreachable, Refusal::Unreachable),
            (RouteType::Prohibit, Refusal::Prohibit),
            (RouteType::BlackHole, Refusal::Blackhole),
            (RouteType::Throw, Refusal::Throw),
        ] {
            assert_eq!(only(route("10.0.0.0/8", kind, &[])), Some(Route::Refused(refusal)));
        }
        assert_eq!(only(route("10.0.0.255/32", RouteType::Broadcast, &[])), None);
    }

    #[test]
    fn the_hosts_own_addresses_and_prefixes_are_held_and_their_neighbours_are_not() {
        let table = table(&[
            route("127.0.0.0/8", RouteType::Local, &[]),
            route("192.0.2.5/32", RouteType::Local, &[RouteAttribute::Oif(OTHER)]),
        ]);
        assert!(table.holds_address(ip("127.8.8.8")));
        assert!(table.holds_address(ip("192.0.2.5")));
        assert!(!table.holds_address(ip("192.0.2.6")));
        assert!(table.entries.is_empty());
    }

    #[test]
    fn routes_for_one_type_of_service_are_not_followed() {
        let mut special = route("0.0.0.0/0", RouteType::Unicast, &[RouteAttribute::Oif(UPLINK)]);
        special.header.tos = 0x10;
        assert_eq!(only(special), None);
    }
}
