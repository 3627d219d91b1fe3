//! What happens to the host's IPv4 neighbours.

use std::{
    collections::{BTreeSet, VecDeque},
    net::Ipv4Addr,
};

use netlink_packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::{
    NetError, Netlink,
    listener::{Listener, Notice},
    neighbour::{Neighbour, Neighbours},
};

const FOLLOW: &str = "follow the neighbours";

/// `RTNLGRP_NEIGH`.
const NEIGHBOUR_GROUP: u32 = 3;

/// Netlink messages start at multiples of four bytes.
const ALIGNMENT: usize = 4;

/// Something that happened to a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeighbourEvent {
    /// It is new, or its MAC or state is another.
    Updated(Neighbour),
    /// The kernel forgot it: collected as unused, deleted, or its interface went down.
    Removed {
        /// On which interface it was.
        ifindex: u32,
        /// Its address.
        address: Ipv4Addr,
    },
}

/// Follows the IPv4 neighbours on some interfaces.
///
/// Unlike the other watches this one reads the notifications themselves: a busy host's neighbours change state all the
/// time, and there may be thousands. The kernel tells nothing when a neighbour becomes `Incomplete` or `Delay`; every
/// other state follows by an event of its own. Right after [`Self::open`] (and after lost notifications) an event may
/// be older than the snapshot; the newer one then follows at once, because the kernel sends them in order.
pub struct NeighbourWatch {
    netlink: Netlink,
    listener: Listener,
    ifindexes: BTreeSet<u32>,
    neighbours: Neighbours,
    /// Events that were found and not yet returned.
    pending: VecDeque<NeighbourEvent>,
    /// Notifications were lost and no snapshot has been taken since.
    stale: bool,
}

impl NeighbourWatch {
    /// Starts to follow the neighbours on the interfaces; those that are known already are in [`Self::get`], not in events.
    pub async fn open(netlink: &Netlink, ifindexes: BTreeSet<u32>) -> Result<Self, NetError> {
        let listener = Listener::join(NETLINK_ROUTE, &[NEIGHBOUR_GROUP], FOLLOW)?;
        let mut watch = Self {
            netlink: netlink.clone(),
            listener,
            ifindexes,
            neighbours: Neighbours::new(),
            pending: VecDeque::new(),
            stale: false,
        };
        watch.neighbours = watch.snapshot().await?;
        Ok(watch)
    }

    /// What is known of a neighbour, as of the last event.
    pub fn get(&self, ifindex: u32, address: Ipv4Addr) -> Option<&Neighbour> {
        self.neighbours.get(&(ifindex, address))
    }

    /// All known neighbours, as of the last event, by interface and address.
    pub fn iter(&self) -> impl Iterator<Item = &Neighbour> {
        self.neighbours.values()
    }

    /// Sets other interfaces, when the uplink joins or leaves a bridge or bond. What changes by that comes as events.
    pub fn set_interfaces(&mut self, ifindexes: BTreeSet<u32>) {
        self.stale |= self.ifindexes != ifindexes;
        self.ifindexes = ifindexes;
    }

    /// Waits until something happens and tells what. Cancel-safe.
    pub async fn next(&mut self) -> Result<NeighbourEvent, NetError> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(event);
            }
            if self.stale {
                let later = self.snapshot().await?;
                self.pending.extend(events_between(&self.neighbours, &later));
                self.neighbours = later;
                self.stale = false;
                continue;
            }
            match self.listener.next().await? {
                Notice::Lost => self.stale = true,
                Notice::Messages(datagram) => self.apply(&datagram),
            }
        }
    }

    async fn snapshot(&self) -> Result<Neighbours, NetError> {
        let mut all = Neighbours::new();
        for &ifindex in &self.ifindexes {
            let listed = self.netlink.neighbours(ifindex).await?;
            all.extend(listed.into_iter().map(|one| ((ifindex, one.address), one)));
        }
        Ok(all)
    }

    fn apply(&mut self, datagram: &[u8]) {
        let Some(messages) = messages(datagram) else {
            // Not understood: what it said is in the next snapshot.
            self.stale = true;
            return;
        };
        for message in messages {
            let changed =
                change(&message).filter(|(neighbour, _)| self.ifindexes.contains(&neighbour.ifindex));
            if let Some((neighbour, removed)) = changed {
                self.pending.extend(update(&mut self.neighbours, neighbour, removed));
            }
        }
    }
}

/// Takes a datagram apart; `None` if it is malformed.
fn messages(datagram: &[u8]) -> Option<Vec<RouteNetlinkMessage>> {
    let mut messages = Vec::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        let length = usize::try_from(NetlinkBuffer::new_checked(rest).ok()?.length()).ok()?;
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).ok()?;
        if let NetlinkPayload::InnerMessage(message) = message.payload {
            messages.push(message);
        }
        rest = rest.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
    }
    Some(messages)
}

/// The neighbour a message is about, and whether it is gone.
fn change(message: &RouteNetlinkMessage) -> Option<(Neighbour, bool)> {
    match message {
        RouteNetlinkMessage::NewNeighbour(message) => Some((Neighbour::from_message(message)?, false)),
        RouteNetlinkMessage::DelNeighbour(message) => Some((Neighbour::from_message(message)?, true)),
        _ => None,
    }
}

fn update(neighbours: &mut Neighbours, neighbour: Neighbour, removed: bool) -> Option<NeighbourEvent> {
    let key = (neighbour.ifindex, neighbour.address);
    if removed {
        neighbours.remove(&key)?;
        return Some(NeighbourEvent::Removed { ifindex: neighbour.ifindex, address: neighbour.address });
    }
    let before = neighbours.insert(key, neighbour);
    (before != Some(neighbour)).then_some(NeighbourEvent::Updated(neighbour))
}

fn events_between(before: &Neighbours, after: &Neighbours) -> Vec<NeighbourEvent> {
    let removed = before
        .keys()
        .filter(|key| !after.contains_key(key))
        .map(|&(ifindex, address)| NeighbourEvent::Removed { ifindex, address });
    let updated = after
        .iter()
        .filter(|(key, neighbour)| before.get(key) != Some(neighbour))
        .map(|(_, &neighbour)| NeighbourEvent::Updated(neighbour));
    removed.chain(updated).collect()
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NetlinkHeader;
    use netlink_packet_route::{
        AddressFamily,
        neighbour::{
            NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState as Nud,
        },
    };

    use super::*;
    use crate::net::NeighbourState;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn description(state: Nud) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = 3;
        message.header.state = state;
        message.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ADDRESS)),
            NeighbourAttribute::LinkLayerAddress(MAC.to_vec()),
        ];
        message
    }

    fn datagram(inner: &[RouteNetlinkMessage]) -> Vec<u8> {
        let mut datagram = Vec::new();
        for message in inner {
            let mut message = NetlinkMessage::new(NetlinkHeader::default(), message.clone().into());
            message.finalize();
            let mut bytes = vec![0; message.buffer_len()];
            message.serialize(&mut bytes);
            datagram.append(&mut bytes);
        }
        datagram
    }

    fn neighbour(state: NeighbourState) -> Neighbour {
        Neighbour { ifindex: 3, address: ADDRESS, mac: Some(MAC), state }
    }

    #[test]
    fn a_datagram_with_several_messages_is_read_to_its_end() {
        let bytes = datagram(&[
            RouteNetlinkMessage::NewNeighbour(description(Nud::Stale)),
            RouteNetlinkMessage::DelNeighbour(description(Nud::Stale)),
        ]);
        let read = messages(&bytes).expect("well-formed");
        let changes: Vec<_> = read.iter().filter_map(change).collect();
        assert_eq!(
            changes,
            [(neighbour(NeighbourState::Stale), false), (neighbour(NeighbourState::Stale), true)]
        );
    }

    #[test]
    fn a_truncated_datagram_is_not_believed_in_part() {
        let bytes = datagram(&[RouteNetlinkMessage::NewNeighbour(description(Nud::Stale))]);
        for len in 1..bytes.len() {
            assert_eq!(messages(bytes.get(..len).expect("shorter")), None, "{len} bytes");
        }
    }

    #[test]
    fn proxy_entries_and_other_families_are_no_neighbours() {
        let mut proxy = description(Nud::Permanent);
        proxy.header.flags = NeighbourFlags::Proxy;
        assert_eq!(Neighbour::from_message(&proxy), None);
        let mut bridge = description(Nud::Reachable);
        bridge.header.family = AddressFamily::Bridge;
        assert_eq!(Neighbour::from_message(&bridge), None);
    }

    #[test]
    fn repetitions_and_removals_of_the_unknown_are_no_events() {
        let mut known = Neighbours::new();
        let stale = neighbour(NeighbourState::Stale);
        assert_eq!(update(&mut known, stale, true), None);
        assert_eq!(update(&mut known, stale, false), Some(NeighbourEvent::Updated(stale)));
        assert_eq!(update(&mut known, stale, false), None);
        assert_eq!(
            update(&mut known, stale, true),
            Some(NeighbourEvent::Removed { ifindex: 3, address: ADDRESS })
        );
    }

    #[test]
    fn after_a_loss_the_difference_is_told() {
        let before = Neighbours::from([((3, ADDRESS), neighbour(NeighbourState::Stale))]);
        let after = Neighbours::from([((3, ADDRESS), neighbour(NeighbourState::Reachable))]);
        assert_eq!(
            events_between(&before, &after),
            [NeighbourEvent::Updated(neighbour(NeighbourState::Reachable))]
        );
        assert_eq!(
            events_between(&before, &Neighbours::new()),
            [NeighbourEvent::Removed { ifindex: 3, address: ADDRESS }]
        );
    }

    #[test]
    fn only_states_with_a_mac_that_the_kernel_would_use_are_valid() {
        assert!(NeighbourState::Stale.is_valid());
        assert!(NeighbourState::Permanent.is_valid());
        assert!(!NeighbourState::Failed.is_valid());
        assert!(!NeighbourState::Incomplete.is_valid());
    }
}
