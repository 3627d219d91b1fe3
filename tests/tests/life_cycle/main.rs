//! The life of vipd, and of what it leaves behind: killed, restarted, reconfigured, detached, all under traffic.
#![cfg(feature = "kernel")]

mod detach;
mod interfaces;
mod kill;
mod next_hops;
mod pins;
mod reload;
mod stage;
mod while_dead;
