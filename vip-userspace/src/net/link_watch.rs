//! The interfaces of the network namespace, and what happens to them.

use std::collections::BTreeMap;

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkExtentMask, LinkMessage},
};
use netlink_sys::protocols::NETLINK_ROUTE;
use tokio::time::Instant;

use super::{
    NetError, Netlink,
    link::{Link, LinkKind, Master, VlanTag},
    listener::Listener,
    pacer::Pacer,
};
use crate::vlan::Vlan;

const LIST: &str = "list the interfaces";
const FOLLOW: &str = "follow the interfaces";

/// `RTNLGRP_LINK`.
pub(super) const LINK_GROUP: u32 = 1;

/// All interfaces of the namespace at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Links {
    by_index: BTreeMap<u32, Link>,
}

impl Links {
    /// Puts the kernel's descriptions together; masters get their kind from their own.
    fn from_descriptions(descriptions: Vec<(Link, Option<u32>)>) -> Self {
        let kinds: BTreeMap<u32, LinkKind> =
            descriptions.iter().map(|(link, _)| (link.ifindex, link.kind.clone())).collect();
        let by_index = descriptions
            .into_iter()
            .map(|(mut link, master)| {
                link.master = master.and_then(|ifindex| {
                    kinds.get(&ifindex).map(|kind| Master { ifindex, kind: kind.clone() })
                });
                (link.ifindex, link)
            })
            .collect();
        Self { by_index }
    }

    /// Interfaces that a test makes up.
    #[cfg(test)]
    pub(crate) fn of(links: impl IntoIterator<Item = Link>) -> Self {
        Self { by_index: links.into_iter().map(|link| (link.ifindex, link)).collect() }
    }

    /// The interface of this number.
    pub fn get(&self, ifindex: u32) -> Option<&Link> {
        self.by_index.get(&ifindex)
    }

    /// The interface that bears this name now.
    pub fn by_name(&self, name: &str) -> Option<&Link> {
        self.iter().find(|link| link.name == name)
    }

    /// All of them, by ascending ifindex.
    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        self.by_index.values()
    }

    /// The VLAN interfaces, to be found by what they are on.
    pub fn vlans(&self) -> VlanLinks<'_> {
        VlanLinks { by_tag: self.iter().filter_map(|link| Some((link.vlan?, link))).collect() }
    }

    /// What must have happened between this snapshot and a later one. Removals come first, so that a name which passed to
    /// a new interface is free before it is taken.
    fn events_until(&self, later: &Self) -> Vec<LinkEvent> {
        let removed = self
            .iter()
            .filter(|link| !later.by_index.contains_key(&link.ifindex))
            .map(|link| LinkEvent::Removed(link.clone()));
        let others = later.iter().filter_map(|link| match self.get(link.ifindex) {
            None => Some(LinkEvent::Added(link.clone())),
            Some(before) if before == link => None,
            Some(before) => Some(LinkEvent::Changed { before: before.clone(), after: link.clone() }),
        });
        removed.chain(others).collect()
    }
}

/// The VLAN interfaces of the namespace. On one interface the kernel lets no two of them have the same tag.
#[derive(Debug, Clone)]
pub struct VlanLinks<'l> {
    by_tag: BTreeMap<VlanTag, &'l Link>,
}

impl<'l> VlanLinks<'l> {
    /// The interface with the frames of a VLAN of the interface `on` (ifindex).
    pub fn find(&self, on: u32, vlan: Vlan) -> Option<&'l Link> {
        let at = |on, provider, id| self.by_tag.get(&VlanTag { on, provider, id }).copied();
        let on = match vlan.outer() {
            None => on,
            Some(outer) => at(on, true, outer)?.ifindex,
        };
        at(on, false, vlan.inner())
    }
}

/// Something that happened to an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// It appeared in this namespace.
    Added(Link),
    /// Name, address, MTU, state, master or XDP program changed.
    Changed {
        /// What it was.
        before: Link,
        /// What it is.
        after: Link,
    },
    /// It was deleted or moved to another namespace; its last known state.
    Removed(Link),
}

impl Netlink {
    /// Lists the interfaces of the namespace.
    pub async fn links(&self) -> Result<Links, NetError> {
        let mut query = LinkMessage::default();
        // The counters make up half of each description, and nobody reads them here.
        query.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let descriptions = self
            .requester
            .dump(LIST, RouteNetlinkMessage::GetLink(query), Vec::new, |descriptions, message| {
                if let RouteNetlinkMessage::NewLink(link) = message {
                    descriptions.extend(Link::from_message(&link));
                }
            })
            .await?;
        Ok(Links::from_descriptions(descriptions))
    }
}

/// Follows the interfaces of a namespace.
///
/// A notification only says *that* something changed; what changed is the difference between two snapshots. So nothing can
/// be lost or seen in the wrong order, and an interface that came and went in between is not reported at all. The
/// first change is reported at once, those that follow it within 20 ms together.
pub struct LinkWatch {
    netlink: Netlink,
    listener: Listener,
    links: Links,
    pacer: Pacer,
    /// A notification was seen whose change no snapshot holds yet; kept here so that a dropped `next()` loses nothing.
    stale: bool,
}

impl LinkWatch {
    /// Starts to follow; the interfaces that exist already are in [`Self::links`], not in events.
    pub async fn open(netlink: &Netlink) -> Result<Self, NetError> {
        let listener = Listener::join(NETLINK_ROUTE, &[LINK_GROUP], FOLLOW)?;
        let links = netlink.links().await?;
        Ok(Self { netlink: netlink.clone(), listener, links, pacer: Pacer::new(), stale: false })
    }

    /// The interfaces as of the last event.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Waits until something happens and tells what, never an empty list. Cancel-safe.
    pub async fn next(&mut self) -> Result<Vec<LinkEvent>, NetError> {
        loop {
            if !self.stale {
                self.listener.next().await?;
                self.stale = true;
            }
            self.pacer.ready().await;
            self.listener.drain().await?;
            let started = Instant::now();
            let read = self.netlink.links().await;
            self.pacer.spent(started);
            let links = read?;
            self.stale = false;
            let events = self.links.events_until(&links);
            self.links = links;
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::{
        InfoData, InfoKind, InfoVlan, LinkFlags, LinkInfo, LinkXdp, VlanProtocol, XdpAttached,
    };

    use super::*;
    use crate::net::{XdpAttachment, XdpAttachmentMode};

    fn message(ifindex: u32, name: &str, attributes: &[LinkAttribute]) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        message.header.flags = LinkFlags::Up | LinkFlags::Running | LinkFlags::LowerUp;
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.extend_from_slice(attributes);
        message
    }

    fn links(messages: &[LinkMessage]) -> Links {
        Links::from_descriptions(messages.iter().filter_map(Link::from_message).collect())
    }

    fn kind(kind: InfoKind) -> LinkAttribute {
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])
    }

    #[test]
    fn a_member_knows_its_master_and_the_masters_kind_whichever_is_listed_first() {
        let links = links(&[
            message(
                2,
                "tap0",
                &[kind(InfoKind::Tun), LinkAttribute::Controller(9), LinkAttribute::Mtu(1500)],
            ),
            message(3, "vport", &[kind(InfoKind::Veth), LinkAttribute::Controller(8)]),
            message(8, "ovs-system", &[kind(InfoKind::Other("openvswitch".to_owned()))]),
            message(9, "br0", &[kind(InfoKind::Bridge)]),
        ]);
        let tap = links.by_name("tap0").expect("tap0 is listed");
        assert_eq!(tap.kind, LinkKind::Tun);
        assert_eq!(tap.mtu, 1500);
        assert_eq!(tap.master, Some(Master { ifindex: 9, kind: LinkKind::Bridge }));
        let port = links.get(3).expect("the port is listed");
        assert_eq!(port.master, Some(Master { ifindex: 8, kind: LinkKind::OpenVSwitch }));
        assert_eq!(links.get(9).and_then(|bridge| bridge.master.clone()), None);
    }

    #[test]
    fn vlan_interfaces_are_found_by_what_they_are_on() {
        let vlan = |on, provider, id| {
            let protocol = if provider { VlanProtocol::Ieee8021Ad } else { VlanProtocol::Ieee8021Q };
            let data = InfoData::Vlan(vec![InfoVlan::Protocol(protocol), InfoVlan::Id(id)]);
            let info = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(data)]);
            [LinkAttribute::Link(on), info]
        };
        let mut foreign = vlan(2, false, 300).to_vec();
        foreign.push(LinkAttribute::LinkNetNsId(0));
        let links = links(&[
            message(2, "eth0", &[]),
            message(3, "eth0.100", &vlan(2, false, 100)),
            message(4, "eth0.200", &vlan(2, true, 200)),
            message(5, "eth0.200.7", &vlan(4, false, 7)),
            // Its other end is ifindex 2 of another namespace.
            message(6, "eth9.300", &foreign),
            // The other end of a veth stands in the same attribute.
            message(7, "veth0", &[kind(InfoKind::Veth), LinkAttribute::Link(2)]),
        ]);
        let vlans = links.vlans();
        let find =
            |on, vlan: Option<Vlan>| vlans.find(on, vlan.expect("a VLAN")).map(|link| link.name.as_str());
        assert_eq!(find(2, Vlan::tag(100)), Some("eth0.100"));
        assert_eq!(find(2, Vlan::stacked(200, 7)), Some("eth0.200.7"));
        for missing in
            [Vlan::tag(200), Vlan::tag(7), Vlan::tag(300), Vlan::stacked(100, 7), Vlan::stacked(200, 8)]
        {
            assert_eq!(find(2, missing), None, "{missing:?}");
        }
        assert_eq!(find(3, Vlan::tag(100)), None);
    }

    #[test]
    fn an_attached_xdp_program_and_its_mode_are_seen() {
        let xdp = vec![LinkXdp::Attached(XdpAttached::SocketBuffer), LinkXdp::ProgId(77)];
        let links = links(&[message(2, "eth0", &[LinkAttribute::Xdp(xdp)])]);
        assert_eq!(
            links.get(2).and_then(|link| link.xdp),
            Some(XdpAttachment { mode: XdpAttachmentMode::Generic, program: Some(77) })
        );
    }

    #[test]
    fn a_description_without_a_name_is_no_interface() {
        assert_eq!(Link::from_message(&LinkMessage::default()), None);
    }

    #[test]
    fn a_link_address_of_another_length_is_no_mac() {
        let links = links(&[message(2, "ipoib", &[LinkAttribute::Address(vec![1; 20])])]);
        assert_eq!(links.get(2).and_then(|link| link.mac), None);
    }

    #[test]
    fn a_name_that_passes_to_a_new_interface_is_removed_before_it_is_added() {
        let before = links(&[message(5, "tap0", &[])]);
        let after = links(&[message(4, "tap0", &[])]);
        let events = before.events_until(&after);
        assert!(matches!(events.as_slice(), [LinkEvent::Removed(_), LinkEvent::Added(_)]), "{events:?}");
    }

    #[test]
    fn equal_snapshots_give_no_event_and_a_change_gives_one() {
        let before = links(&[message(2, "eth0", &[LinkAttribute::Mtu(1500)]), message(3, "eth1", &[])]);
        let after = links(&[message(2, "eth0", &[LinkAttribute::Mtu(9000)]), message(3, "eth1", &[])]);
        assert_eq!(before.events_until(&before), []);
        let events = before.events_until(&after);
        assert!(
            matches!(events.as_slice(), [LinkEvent::Changed { before, after }] if before.mtu == 1500 && after.mtu == 9000),
            "{events:?}"
        );
    }
}
