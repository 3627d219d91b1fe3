//! The operator's interface: server, client, forms of the answers, and the binary that prints them.

mod fake;
mod render;
mod server;
mod vipctl;
