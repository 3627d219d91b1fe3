//! Tools that people use, through EIPs and both ways: what they say is what users would see.
#![cfg(feature = "kernel")]

mod curl;
mod dig;
mod iperf;
mod ping;
mod stage;
