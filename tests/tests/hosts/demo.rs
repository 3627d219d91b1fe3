//! The demo of several hosts, which judges what it shows.

use vip_lab::{
    Binaries,
    demo::hosts::{self, Options},
    virtio,
};

#[test]
fn under_ten_thousand_datagrams_a_second_nothing_is_lost_once_a_host_has_applied_a_move() {
    // An emulated machine takes a fiftieth of it.
    let rate = if virtio::is_emulated() { 200 } else { 10_000 };
    let shown = Binaries::from_env().and_then(|Binaries { vipd, vipctl }| {
        hosts::run(Options { hosts: 3, moves: 8, rate, keep: false }, &vipd, &vipctl)
    });
    if let Err(error) = shown {
        panic!("{error:#}");
    }
}
