//! The agent: keeps the tables what the desired state, the interfaces, the routes and the guests say.
//!
//! [`run`] is the whole of `vipd`. It loads the programs or takes over the pinned ones, follows the state's file, the
//! host's interfaces, routes and neighbours and the programs' events, and answers on the operator's socket, until it is told
//! to end. Then it just ends: what is pinned goes on forwarding.
//!
//! One task does all of it, one happening after the other, so nothing here is shared but what the server's threads
//! are shown. The tables are the truth: they are read at the start, and again after a step that failed.

mod announce;
mod attachments;
mod conflicts;
mod converge;
mod eip_networks;
mod error;
mod events;
mod fdb;
mod fitness;
mod history;
mod hosts;
mod interfaces;
mod known;
mod late_claims;
mod next_hops;
mod owners;
mod peers;
mod quiet;
mod reload;
mod run;
mod server_task;
mod shared;
mod silent_owner;
mod start;
mod status;
mod table_names;
mod table_steps;
mod uplink;
mod view;
mod words;

pub use self::{error::AgentError, run::run, table_steps::fill};
