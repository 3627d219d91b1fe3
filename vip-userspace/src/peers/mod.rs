//! The hosts tell each other who owns what.
//!
//! A claim takes effect on its own host at once; this is how the others hear of it. Each host's words (who owns a VIP, since which
//! epoch) travel as UDP datagrams between the hosts' VTEPs, are acknowledged, and are repeated until they are. Of two words of one
//! VIP the higher wins, by [`Word::order`]: epoch, claimed before learned, the id of the owner's host. So it does not matter
//! in which order, how often or how late words arrive, and no clock is compared with another host's.
//!
//! [`Exchange`] is the protocol alone: datagrams and moments in, datagrams and changed words out. [`PeerSocket`] is its socket.
//!
//! # What is authenticated
//!
//! Each datagram ends with an HMAC-SHA256 (RFC 2104) under the shared key over all that stands before it, the sender's and the
//! receiver's id included: it can be neither changed nor reflected nor led to another host. A vipd draws a random session number for each
//! other host whenever that becomes known to it, at its start or by a change of the state, and a datagram that says something names the
//! sessions of both ends, so nothing survives a restart of either. A host believes in another's session when that one has returned a random
//! challenge of this session, so an old session cannot be brought back. Inside a pair of sessions datagrams are numbered, and each
//! number is taken once. Whoever speaks in an unknown session is greeted, at most every 100 ms: the last greeting may have been lost. Nothing is
//! encrypted: who owns what can be seen on the underlay, as the encapsulated traffic itself can.

mod datagrams;
mod exchange;
mod key;
mod learning;
mod message;
mod owners;
mod parked;
mod peer;
mod socket;
mod window;
mod word;

#[cfg(test)]
mod tests;

pub use self::{
    exchange::Exchange,
    key::{Key, KeyError},
    message::{Call, LONGEST, Nonce, Ownership, Refusal},
    owners::{Owners, Replaced},
    peer::{PeerReport, PeerState, RefusedDatagrams},
    socket::PeerSocket,
    word::{BUCKETS, Holder, Vip, Word},
};
