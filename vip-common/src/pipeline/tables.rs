//! How the pipeline looks things up.

use core::ops::Deref;

use super::{
    advert::{self, Advertised},
    claim::{self, Claim, ClaimOutcome},
    source::{self, SourceQuestion},
};
use crate::{
    tables::{
        Advert, Config, Direction, EipNetwork, Event, Grant, GrantKey, HostEntry, MacKey, Members, Move,
        NextHop, OwnerWord, Pending, PortEntry, PortFlags, RouteEntry, SubnetEntry, Target, VipEntry,
        VniAddress, VniEntry, Way,
    },
    wire::Ipv4,
};

/// The record of one VIP, shared with other CPUs and with the agent.
pub trait VipCell: Copy {
    /// What the state says of it.
    fn entry(self) -> VipEntry;
    /// The owner.
    fn word(self) -> OwnerWord;
    /// The claim that waits.
    fn pending(self) -> Pending;
    /// Shows `update` the nanoseconds since boot until which the bucket of moves is used up, and sets what it returns. A concurrent
    /// writer may win: damping is then off by one move.
    fn update_damped_until(self, update: impl FnOnce(u64) -> Option<u64>);
    /// Shows `update` the nanoseconds since boot of the last report of a member's use, and sets what it returns. A concurrent writer
    /// may win: the agent then hears the same twice.
    fn update_reported(self, update: impl FnOnce(u64) -> Option<u64>);
    /// Replaces the owner if it still is `old`; whether it was.
    #[must_use]
    fn swap_word(self, old: OwnerWord, new: OwnerWord) -> bool;
    /// Replaces the claim that waits if it still is `old`; whether it was.
    #[must_use]
    fn swap_pending(self, old: Pending, new: Pending) -> bool;
}

/// The tables of one host.
pub trait Tables {
    /// See [`VipCell`].
    type Vip: VipCell;
    /// The record of one port.
    type Port: Copy + Deref<Target = PortEntry>;

    /// Nanoseconds since boot (CLOCK_BOOTTIME): the same clock for all CPUs and for the agent.
    fn now(&self) -> u64;
    /// CONFIG.
    fn config(&self) -> Option<&Config>;
    /// NODES and SCATTERED: where packets to an EIP go, a VIP or a port.
    fn eip(&self, address: Ipv4) -> Option<Target>;
    /// NODES and SCATTERED: what an address of a VPC is. `root`: the root page of the VPC's addresses.
    fn address(&self, root: u32, key: &VniAddress) -> Option<Target>;
    /// MACS: port index.
    fn port_by_mac(&self, key: &MacKey) -> Option<u32>;
    /// IFPORTS: port index.
    fn port_by_interface(&self, ifindex: u32) -> Option<u32>;
    /// PORTS.
    fn port(&self, index: u32) -> Option<Self::Port>;
    /// GRANTS.
    fn grant(&self, key: &GrantKey) -> Option<&Grant>;
    /// VIPS.
    fn vip(&self, slot: u32) -> Option<Self::Vip>;
    /// ADVERTS.
    fn advert(&self, key: &GrantKey) -> Option<Advert>;
    /// Writes ADVERTS; without room, nothing is remembered.
    fn put_advert(&self, key: &GrantKey, advert: &Advert);
    /// Removes from ADVERTS.
    fn remove_advert(&self, key: &GrantKey);
    /// MEMBERS.
    fn members(&self, slot: u32) -> Option<&Members>;
    /// SUBNETS, longest prefix.
    fn subnet(&self, key: &VniAddress) -> Option<&SubnetEntry>;
    /// ROUTES, longest prefix.
    fn route(&self, destination: Ipv4) -> Option<&RouteEntry>;
    /// NEXTHOPS.
    fn next_hop(&self, address: Ipv4) -> Option<&NextHop>;
    /// HOSTS.
    fn host(&self, index: u32) -> Option<&HostEntry>;
    /// VTEPS: host index.
    fn vtep(&self, address: Ipv4) -> Option<u32>;
    /// VNIS.
    fn vni(&self, vni: u32) -> Option<&VniEntry>;
    /// NETWORKS.
    fn network(&self, index: u16) -> Option<&EipNetwork>;
    /// Writes MOVES at an index of [`Move::index`].
    fn record_move(&self, index: u32, record: &Move);
    /// [`take_pending`](super::take_pending). The verifier looks at this and the next five apart from who asks, and so once only, where
    /// the programs' tables have them as functions of their own.
    fn take_pending(&self, slot: u32)
    where
        Self: Sized,
    {
        claim::take_pending(self, slot);
    }
    /// [`take_claim`](super::take_claim).
    fn take_claim(&self, claim: &Claim) -> ClaimOutcome
    where
        Self: Sized,
    {
        claim::take_claim(self, claim)
    }
    /// [`learn_unowned`](super::learn_unowned).
    fn learn_unowned(&self, claim: &Claim)
    where
        Self: Sized,
    {
        claim::learn_unowned(self, claim);
    }
    /// [`report_use`](super::report_use).
    fn report_use(&self, slot: u32, port: u32)
    where
        Self: Sized,
    {
        claim::report_use(self, slot, port);
    }
    /// [`advertised`](super::advertised).
    fn advertised(&self, advertised: &Advertised)
    where
        Self: Sized,
    {
        advert::advertised(self, advertised);
    }
    /// [`source_of`](super::source_of).
    fn source_of(&self, question: &SourceQuestion) -> u32
    where
        Self: Sized,
    {
        source::source_of(self, question)
    }
    /// Sends an event to the agent, if its meter admits it and the ring has room.
    fn notify(&self, event: &Event);
    /// Whether this CPU's meter admits one more ICMP error; counts it if not.
    #[must_use]
    fn may_send_error(&self) -> bool;
    /// Shows a decision to an observer, if there is one: the word of [`Verdict::from_word`](super::Verdict::from_word).
    fn observe(&self, decision: u64);
    /// Counts a packet in DROPS, at the index of its [`DropReason`](crate::DropReason).
    fn count_drop(&self, reason: u32);
    /// Counts a frame that goes through the EIP of a port.
    fn count_port(&self, port: Self::Port, direction: Direction, bytes: usize);
    /// Counts a frame of a VIP.
    fn count_vip(&self, vip: Self::Vip, way: Way, direction: Direction, bytes: usize);
}

/// Calls `deliver` with the interface of every member of the VIP in `slot` that has one on this host, except `sender`.
#[inline(always)]
pub fn for_each_receiver<T: Tables>(tables: &T, slot: u32, sender: u32, mut deliver: impl FnMut(u32)) {
    let Some(members) = members_of(tables, slot, sender) else { return };
    for &member in &members.ports {
        if member == 0 || member == sender {
            continue;
        }
        if let Some(port) = tables.port(member)
            && port.vni == members.vni
            && port.ifindex != 0
            && !port.flags.has(PortFlags::REMOTE)
        {
            deliver(port.ifindex);
        }
    }
}

/// The members of the VIP in `slot`, which must be of the sender's VPC.
#[inline(always)]
pub(super) fn members_of<T: Tables>(tables: &T, slot: u32, sender: u32) -> Option<&Members> {
    let members = tables.members(slot)?;
    let is_strange = sender != 0 && tables.port(sender).is_none_or(|port| port.vni != members.vni);
    (!is_strange).then_some(members)
}
