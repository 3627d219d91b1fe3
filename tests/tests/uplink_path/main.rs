//! `uplink_path`: which of the uplink's programs handles what, that nobody at either end can tell, and how to change it.
#![cfg(feature = "kernel")]

mod connections;
mod echo;
mod large_frames;
mod order;
mod restart;
mod stage;
