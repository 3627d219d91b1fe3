//! Agent.

pub mod agent;
pub mod api;
pub mod config;
pub mod kernel;
pub mod memory;
pub mod net;
pub mod peers;
pub mod plan;
pub mod state;
pub mod vlan;
