//! Guests behind taps that leave checksums and cutting to their device, as virtio-net's drivers do, on every way on which the port
//! program changes a packet.
#![cfg(feature = "kernel")]

mod errors;
mod stage;
mod ways;

use anyhow::Result;
use vip_lab::{
    Lab, skip,
    tap::{Large, Offers, Tap},
};

use crate::{
    stage::Stage,
    ways::{Form, all},
};

/// Runs a test on a stage of its own.
fn with(offers: Offers, body: impl FnOnce(&Stage) -> Result<()>) {
    Lab::run(|lab| body(&Stage::start(lab, offers)?));
}

/// The same, unless this kernel's taps know no large UDP packets.
fn with_large_udp(test: &str, offers: Offers, body: impl FnOnce(&Stage) -> Result<()>) {
    Lab::run(|lab| {
        if Tap::takes_large_udp(&lab.add_netns("asked")?)? {
            body(&Stage::start(lab, offers)?)
        } else {
            skip(test, "needs taps that know large UDP packets (Linux 6.2)");
            Ok(())
        }
    });
}

#[test]
fn a_large_tcp_packet_is_right_on_every_way() {
    with(Offers::LargeTcp, |stage| all(stage, Form::Large(Large::Tcp)));
}

#[test]
fn a_large_tcp_packet_is_cut_right_on_every_way_for_guests_that_take_none() {
    with(Offers::Nothing, |stage| all(stage, Form::Large(Large::Tcp)));
}

#[test]
fn a_large_udp_packet_is_right_on_every_way() {
    with_large_udp("a_large_udp_packet_is_right_on_every_way", Offers::LargeUdp, |stage| {
        all(stage, Form::Large(Large::Udp))
    });
}

#[test]
fn a_large_udp_packet_is_cut_right_on_every_way_for_guests_that_take_none() {
    let test = "a_large_udp_packet_is_cut_right_on_every_way_for_guests_that_take_none";
    with_large_udp(test, Offers::LargeTcp, |stage| all(stage, Form::Large(Large::Udp)));
}

#[test]
fn a_datagram_whose_checksum_is_left_is_right_on_every_way() {
    with(Offers::LargeTcp, |stage| all(stage, Form::Partial));
}

#[test]
fn a_datagram_whose_checksum_is_left_is_completed_on_every_way_for_guests_that_complete_none() {
    with(Offers::Nothing, |stage| all(stage, Form::Partial));
}

#[test]
fn complete_checksums_stay_right_on_every_way() {
    with(Offers::LargeTcp, |stage| {
        all(stage, Form::CompleteTcp)?;
        all(stage, Form::CompleteUdp)
    });
}

#[test]
fn a_datagram_without_a_checksum_gets_none_on_any_way() {
    with(Offers::LargeTcp, |stage| all(stage, Form::Without));
}

#[test]
fn errors_from_outside_quote_what_the_guest_had_sent() {
    with(Offers::LargeTcp, errors::come_in);
}
