//! Several hosts: what travels between them, who owns a VIP on all of them, and what happens when one of them is gone.
#![cfg(feature = "kernel")]

mod connection;
mod demo;
mod eip;
mod far_end;
mod firewall;
mod flows;
mod kill;
mod learning;
mod lvs_dr;
mod masters;
mod members;
mod moves;
mod mtu;
mod offloads;
mod overlay;
mod partition;
mod refused;
mod silent;
mod split_brain;
mod stage;
mod underlay;
mod vmac;
mod wire;
