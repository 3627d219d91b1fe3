//! The operator's interface: what vipd answers on its unix socket, who asks there, and how answers are shown.
//!
//! The agent implements [`Source`]; [`server`] speaks HTTP with JSON for it; [`client`] asks, and [`render`] shows the
//! answers as table, JSON, YAML or CSV. [`model`] and [`status`] are the JSON.

pub use self::{
    kind::{Kind, KindError, Object},
    source::{Source, Unavailable},
    summary::summary,
    time::Timestamp,
};

pub mod client;
mod columns;
mod kind;
pub mod model;
pub mod render;
pub mod server;
mod source;
pub mod status;
mod summary;
mod time;
