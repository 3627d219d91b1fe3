//! This host's ways to the outside, as the programs look them up: ROUTES and NEXTHOPS follow the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnetwork::Ipv4Network;
use vip_common::{
    tables::{NextHop, RouteEntry, RouteKind},
    wire::{Ipv4, Mac},
};

use super::error::chain;
use crate::{
    kernel::{KernelError, Tables},
    net::{Neighbour, NeighbourState, Route, RouteTable},
};

/// Neighbours beside the gateways that are kept alive at once. With more, they take turns.
const KEPT_ALIVE: usize = 512;

type Routes = BTreeMap<(Ipv4, u8), RouteEntry>;

/// What the two tables contain.
#[derive(Debug, Default)]
pub(super) struct NextHops {
    routes: Routes,
    neighbours: BTreeMap<Ipv4, [u8; 6]>,
    /// Where the last turn of keeping alive ended.
    turn: Option<Ipv4>,
}

impl NextHops {
    /// Reads the tables.
    pub(super) fn read(tables: &Tables) -> Result<Self, KernelError> {
        let routes =
            tables.routes.entries()?.into_iter().map(|(address, length, route)| ((address, length), route));
        let neighbours =
            tables.nexthops.entries()?.into_iter().map(|(address, hop)| (address, hop.mac.octets()));
        Ok(Self { routes: routes.collect(), neighbours: neighbours.collect(), turn: None })
    }

    /// Makes ROUTES what the kernel's table says. Returns what went wrong; the rest is done.
    pub(super) fn set_routes(&mut self, tables: &Tables, table: &RouteTable) -> Vec<String> {
        let desired = entries_of(table);
        let mut problems = Vec::new();
        // New ones first, so that no destination is without a route in between.
        for (&(address, length), &route) in &desired {
            if self.routes.get(&(address, length)) != Some(&route) {
                match tables.routes.insert(address, length, route) {
                    Ok(()) => drop(self.routes.insert((address, length), route)),
                    Err(error) => problems.push(chain(&error)),
                }
            }
        }
        self.routes.retain(|&(address, length), _| {
            desired.contains_key(&(address, length))
                || tables
                    .routes
                    .remove(address, length)
                    .map_err(|error| problems.push(chain(&error)))
                    .is_err()
        });
        // A full table complains of each route alike.
        problems.dedup();
        problems
    }

    /// Makes NEXTHOPS what the kernel knows of these neighbours, of whom no two have one address.
    pub(super) fn set_neighbours<'a>(
        &mut self,
        tables: &Tables,
        neighbours: impl Iterator<Item = &'a Neighbour>,
    ) -> Vec<String> {
        let desired: BTreeMap<Ipv4, [u8; 6]> =
            neighbours.filter_map(|one| Some((one.address.into(), usable_mac(one)?))).collect();
        let gone: Vec<Ipv4> =
            self.neighbours.keys().filter(|one| !desired.contains_key(one)).copied().collect();
        let mut problems: Vec<String> =
            gone.into_iter().filter_map(|one| self.set_neighbour(tables, one, None)).collect();
        problems
            .extend(desired.into_iter().filter_map(|(one, mac)| self.set_neighbour(tables, one, Some(mac))));
        problems.dedup();
        problems
    }

    /// Sets or removes one neighbour; what went wrong, if anything.
    pub(super) fn set_neighbour(
        &mut self,
        tables: &Tables,
        address: Ipv4,
        mac: Option<[u8; 6]>,
    ) -> Option<String> {
        if self.neighbours.get(&address) == mac.as_ref() {
            return None;
        }
        let done = match mac {
            Some(mac) => tables.nexthops.insert(address, NextHop { mac: Mac::new(mac), zero: 0 }),
            None => tables.nexthops.remove(&address).map(drop),
        };
        match (done, mac) {
            (Ok(()), Some(mac)) => drop(self.neighbours.insert(address, mac)),
            (Ok(()), None) => drop(self.neighbours.remove(&address)),
            (Err(error), _) => return Some(chain(&error)),
        }
        None
    }

    /// Gateways of the routes.
    pub(super) fn gateways(&self) -> BTreeSet<Ipv4Addr> {
        self.routes
            .values()
            .filter_map(|route| match route.kind() {
                RouteKind::Gateway(gateway) => Some(gateway.into()),
                RouteKind::OnLink | RouteKind::Local | RouteKind::Elsewhere => None,
            })
            .collect()
    }

    /// The neighbours whose turn it is to be kept alive, gateways not counted: they always are.
    pub(super) fn next_turn(&mut self) -> Vec<Ipv4Addr> {
        turn_of(self.neighbours.keys().copied(), &mut self.turn)
    }

    /// Entries of ROUTES and of NEXTHOPS.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.routes.len(), self.neighbours.len())
    }
}

/// Those of all neighbours, rising, whose turn it is to be kept alive. `turn`: where the last one ended, and then where this one does.
pub(super) fn turn_of(all: impl Iterator<Item = Ipv4>, turn: &mut Option<Ipv4>) -> Vec<Ipv4Addr> {
    let from = turn.take();
    let now: Vec<Ipv4> = all.filter(|one| from.is_none_or(|from| *one > from)).take(KEPT_ALIVE).collect();
    *turn = now.last().copied().filter(|_| now.len() == KEPT_ALIVE);
    now.into_iter().map(Ipv4Addr::from).collect()
}

/// The MAC to send to, if the kernel would.
pub(super) fn usable_mac(neighbour: &Neighbour) -> Option<[u8; 6]> {
    match neighbour.state {
        NeighbourState::Reachable
        | NeighbourState::Stale
        | NeighbourState::Delay
        | NeighbourState::Probe
        | NeighbourState::Permanent => neighbour.mac,
        NeighbourState::NoArp
        | NeighbourState::Incomplete
        | NeighbourState::Failed
        | NeighbourState::None => None,
    }
}

/// Routes that the forwarder does not do although they lead through the uplink, in words for the operator.
pub(super) fn unsupported(table: &RouteTable) -> Vec<String> {
    let routes = table.entries.iter().filter_map(|(prefix, route)| match route {
        Route::Unsupported(why) => {
            Some(format!("route to {prefix}: {why:?} is not supported; packets to it are dropped"))
        }
        _ => None,
    });
    routes.collect()
}

fn entries_of(table: &RouteTable) -> Routes {
    let routes = table.entries.iter().map(|(prefix, route)| {
        let kind = match route {
            Route::OnLink { .. } => RouteKind::OnLink,
            Route::Via { gateway, .. } => RouteKind::Gateway((*gateway).into()),
            Route::Elsewhere | Route::Refused(_) | Route::Unsupported(_) => RouteKind::Elsewhere,
        };
        (prefix, kind)
    });
    // Nothing is broadcast to a neighbouring network.
    let broadcasts = table.entries.iter().filter_map(|(prefix, route)| match route {
        Route::OnLink { .. } if prefix.prefix() <= 30 => {
            let last = Ipv4Network::new(prefix.broadcast(), 32).ok()?;
            Some((last, RouteKind::Elsewhere))
        }
        _ => None,
    });
    // The kernel asks for its own addresses first.
    routes
        .map(|(prefix, kind)| (*prefix, kind))
        .chain(broadcasts)
        .chain(table.local.iter().map(|prefix| (*prefix, RouteKind::Local)))
        .map(|(prefix, kind)| ((prefix.network().into(), prefix.prefix()), RouteEntry::new(kind)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_through_other_interfaces_shadow_shorter_ones() {
        let gateway = Ipv4Addr::new(192, 0, 2, 1);
        let table = RouteTable::of_each_kind();
        let kind = |address: [u8; 4], length| {
            entries_of(&table).get(&(Ipv4::new(address), length)).map(RouteEntry::kind)
        };
        assert_eq!(kind([0; 4], 0), Some(RouteKind::Gateway(gateway.into())));
        assert_eq!(kind([192, 0, 2, 0], 24), Some(RouteKind::OnLink));
        assert_eq!(kind([10, 0, 0, 0], 8), Some(RouteKind::Elsewhere));
        assert_eq!(kind([10, 1, 0, 0], 16), Some(RouteKind::Elsewhere));
        assert_eq!(kind([192, 0, 2, 7], 32), Some(RouteKind::Local));
    }

    #[test]
    fn an_address_of_the_host_is_local_even_if_a_route_to_it_exists() {
        let table = RouteTable::of(&[("192.0.2.7/32", Route::OnLink { oif: 2 })], &["192.0.2.7/32"]);
        assert_eq!(entries_of(&table).values().map(RouteEntry::kind).collect::<Vec<_>>(), [RouteKind::Local]);
    }

    #[test]
    fn only_neighbours_that_answered_are_sent_to() {
        let neighbour =
            |state| Neighbour { ifindex: 2, address: Ipv4Addr::LOCALHOST, mac: Some([2; 6]), state };
        for state in [NeighbourState::Reachable, NeighbourState::Stale, NeighbourState::Permanent] {
            assert_eq!(usable_mac(&neighbour(state)), Some([2; 6]), "{state}");
        }
        for state in [NeighbourState::Failed, NeighbourState::Incomplete, NeighbourState::None] {
            assert_eq!(usable_mac(&neighbour(state)), None, "{state}");
        }
    }

    #[test]
    fn with_many_neighbours_every_one_gets_its_turn() {
        let all = KEPT_ALIVE * 2 + 10;
        let neighbours = (0..).map(|n| (Ipv4::from(Ipv4Addr::from_bits(n)), [2; 6])).take(all);
        let mut next_hops = NextHops { neighbours: neighbours.collect(), ..NextHops::default() };
        let mut seen = BTreeSet::new();
        for _ in 0..3 {
            let turn = next_hops.next_turn();
            assert!(turn.len() <= KEPT_ALIVE);
            seen.extend(turn);
        }
        assert_eq!(seen.len(), all);
        assert_eq!(next_hops.next_turn().len(), KEPT_ALIVE);
    }
}
