//! A good neighbour: what is not in the state works as it did before vipd came.
#![cfg(feature = "kernel")]

mod adverts;
mod as_before;
mod bridge;
mod stage;
mod uplink;
