//! Agent.

pub mod agent;
pub mod api;
pub mod config;
pub mod kernel;
pub mod net;
pub mod plan;
pub mod state;
