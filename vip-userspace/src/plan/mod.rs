//! From the desired state to steps that change the tables, without touching any: everything here is pure.
//!
//! [`compile`] turns a [`State`](crate::state::State) into the [`Contents`] that the tables shall have, [`diff`] finds
//! the [`Step`]s that lead there from what they have now, and [`Contents::apply`] is what a step means.
//!
//! # Contract
//!
//! Packets are looked up between any two steps. Whatever the two states are, at none of these moments does
//!
//! - a look-up (the index, MACS, IFPORTS) lead to a slot or port that is empty or belongs to another address or MAC;
//! - a grant or a list of members name an empty port;
//! - a port, a list of members or VTEPS name an empty host;
//! - one interface or one EIP belong to two;
//! - a port own a VIP without the right to.
//!
//! Every step may be carried out twice. A process that dies between two steps leaves contents from which [`Indexes::of`]
//! and [`diff`] go on; only the epoch of a port that comes from another host is then not begun, if its entry was changed already: it
//! keeps what it owns by the old one.

mod compile;
mod contents;
mod diff;
mod indexes;
mod rights;
mod step;

pub use self::{
    compile::{Assigned, Desired, Given, Interface, Interfaces, Reason, Refused, Site, compile, contents_of},
    contents::{AddressEntry, Contents, MacPlace, Place, Prefix, host_of, interface_of},
    diff::diff,
    indexes::{Indexes, REST, Resting},
    rights::unjustified,
    step::Step,
};
