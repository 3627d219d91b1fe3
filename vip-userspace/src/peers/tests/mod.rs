//! Hosts that tell each other over a network which loses, repeats and reorders.

#![allow(clippy::indexing_slicing, reason = "a test that indexes out of bounds has failed")]

mod absence;
mod fresh_tables;
mod news;
mod sessions;
mod sockets;
mod state;
mod world;

use std::{net::Ipv4Addr, time::Duration};

use super::{Holder, Vip, Word};

const MILLISECOND: Duration = Duration::from_millis(1);

/// What hosts need at most to agree, once they can reach each other: the longest pause between greetings, and two comparisons.
const AGREED: Duration = Duration::from_secs(12);

const KEY: &[u8] = b"the secret that all of the hosts share";

fn vip(number: u32) -> Vip {
    Vip { vni: 4001, address: Ipv4Addr::from_bits(0xc0a8_0400 + number) }
}

fn vtep(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(172, 31, 0, u8::try_from(host).expect("few hosts"))
}

/// Hosts are called a, b, c, …, from 0 on.
fn name(host: usize) -> String {
    char::from(b'a' + u8::try_from(host).expect("few hosts")).to_string()
}

fn word(epoch: u64, claimed: bool, host: usize, port: &str) -> Word {
    Word { epoch, claimed, holder: Some(Holder { port: port.into(), host: name(host).into(), vrid: 0 }) }
}

fn nobody(epoch: u64) -> Word {
    Word { epoch, ..Word::default() }
}
