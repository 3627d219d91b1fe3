//! A neighbour as the kernel knows it: which MAC an IPv4 address has on an interface.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr};

use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState as Nud,
    },
};

use super::{NetError, Netlink};

const LIST: &str = "list the neighbours";
const READ: &str = "read a neighbour";
const RESOLVE: &str = "resolve a neighbour";

/// How sure the kernel is of a neighbour (`NUD_…` of linux/neighbour.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeighbourState {
    /// Being asked for the first time.
    Incomplete,
    /// Confirmed lately.
    Reachable,
    /// Not confirmed lately; right until proven wrong.
    Stale,
    /// Used while stale: it will be asked soon.
    Delay,
    /// Being asked again.
    Probe,
    /// Did not answer.
    Failed,
    /// Needs no ARP.
    NoArp,
    /// Set by the administrator.
    Permanent,
    /// Nothing known.
    None,
}

impl NeighbourState {
    /// Whether the kernel would send to the MAC it has (`NUD_VALID`).
    pub fn is_valid(self) -> bool {
        match self {
            Self::Reachable | Self::Stale | Self::Delay | Self::Probe | Self::NoArp | Self::Permanent => true,
            Self::Incomplete | Self::Failed | Self::None => false,
        }
    }
}

impl fmt::Display for NeighbourState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Incomplete => "incomplete",
            Self::Reachable => "reachable",
            Self::Stale => "stale",
            Self::Delay => "delay",
            Self::Probe => "probe",
            Self::Failed => "failed",
            Self::NoArp => "noarp",
            Self::Permanent => "permanent",
            Self::None => "none",
        })
    }
}

/// An IPv4 neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// On which interface.
    pub ifindex: u32,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its MAC in wire order, if the kernel has one; to be used only while the state [is valid](NeighbourState::is_valid).
    pub mac: Option<[u8; 6]>,
    /// How sure that is.
    pub state: NeighbourState,
}

impl Neighbour {
    /// Reads the kernel's description; `None` for proxy entries and other protocols.
    pub(super) fn from_message(message: &NeighbourMessage) -> Option<Self> {
        if message.header.family != AddressFamily::Inet
            || message.header.flags.contains(NeighbourFlags::Proxy)
        {
            return None;
        }
        let mut address = None;
        let mut mac = None;
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(value)) => address = Some(*value),
                NeighbourAttribute::LinkLayerAddress(value) => mac = value.as_slice().try_into().ok(),
                _ => {}
            }
        }
        let state = match message.header.state {
            Nud::Incomplete => NeighbourState::Incomplete,
            Nud::Reachable => NeighbourState::Reachable,
            Nud::Stale => NeighbourState::Stale,
            Nud::Delay => NeighbourState::Delay,
            Nud::Probe => NeighbourState::Probe,
            Nud::Failed => NeighbourState::Failed,
            Nud::Noarp => NeighbourState::NoArp,
            Nud::Permanent => NeighbourState::Permanent,
            _ => NeighbourState::None,
        };
        Some(Self { ifindex: message.header.ifindex, address: address?, mac, state })
    }
}

/// Neighbours by interface and address.
pub(super) type Neighbours = BTreeMap<(u32, Ipv4Addr), Neighbour>;

impl Netlink {
    /// Lists the IPv4 neighbours on one interface.
    pub async fn neighbours(&self, ifindex: u32) -> Result<Vec<Neighbour>, NetError> {
        let mut query = NeighbourMessage::default();
        query.header.family = AddressFamily::Inet;
        query.attributes.push(NeighbourAttribute::IfIndex(ifindex));
        self.requester
            .dump(LIST, RouteNetlinkMessage::GetNeighbour(query), Vec::new, |all, message| {
                if let RouteNetlinkMessage::NewNeighbour(message) = message {
                    all.extend(Neighbour::from_message(&message).filter(|one| one.ifindex == ifindex));
                }
            })
            .await
    }

    /// What the kernel knows of one neighbour; `None`: nothing.
    pub async fn neighbour(&self, ifindex: u32, address: Ipv4Addr) -> Result<Option<Neighbour>, NetError> {
        let query = RouteNetlinkMessage::GetNeighbour(about(ifindex, address));
        match self.requester.get(READ, Some(ifindex), query).await {
            Ok(RouteNetlinkMessage::NewNeighbour(message)) => Ok(Neighbour::from_message(&message)),
            Ok(_) => Err(NetError::Incomplete { operation: READ, missing: "the neighbour" }),
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Has the kernel find out, or confirm, a neighbour's MAC, as if a packet had just been sent to it.
    ///
    /// The forwarder's packets bypass the kernel's neighbour table, which therefore believes that nobody uses the entry,
    /// lets it go stale and collects it. This is an `RTM_NEWNEIGH` with `NTF_USE`: the kernel calls the very function
    /// that its own output path calls (`neigh_event_send`). An unknown or failed neighbour is created and asked at once by
    /// broadcast; a stale one is asked by unicast after the usual delay (`delay_first_probe_time`, 5 s). In every other state
    /// there is nothing to do and nothing is sent, so calling often costs no ARP.
    ///
    /// Why the state is read first: `NTF_USE` takes the mark `NUD_PERMANENT` off an entry (kernel 5.16 to 6.18 at least), and
    /// what the administrator has set is not ours to touch.
    ///
    /// Why not a state, `NUD_PROBE` or `NUD_DELAY`: that *writes* the entry. It needs the MAC, so it cannot start
    /// from nothing, and it would overwrite what a faster announcement has just put there.
    ///
    /// Returns when the kernel has taken the order, not when the neighbour has answered: [`super::NeighbourWatch`] tells.
    pub async fn keep_alive(&self, ifindex: u32, address: Ipv4Addr) -> Result<(), NetError> {
        let state = self.neighbour(ifindex, address).await?.map(|known| known.state);
        match state {
            None | Some(NeighbourState::None | NeighbourState::Stale | NeighbourState::Failed) => {}
            Some(_) => return Ok(()),
        }
        let mut order = about(ifindex, address);
        order.header.flags = NeighbourFlags::Use;
        self.requester
            .order(RESOLVE, Some(ifindex), NLM_F_CREATE, RouteNetlinkMessage::NewNeighbour(order))
            .await
    }
}

/// A message about one neighbour.
fn about(ifindex: u32, address: Ipv4Addr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = ifindex;
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(address)));
    message
}
