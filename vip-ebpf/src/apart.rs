//! Functions that the verifier looks at once, apart from who calls them (global functions, kernel 5.6): it knows nothing of what they
//! are given, and nothing of what they return. Functions in line, and those that are only out of line, it follows from each call anew,
//! with all that it knows there.
//!
//! They take and give numbers only, at most five, and never the packet.

use vip_common::{
    pipeline::{self, Advertised, Claim, ClaimOutcome, SourceQuestion},
    tables::{ClaimForm, Target, VniAddress, index},
    wire::Ipv4,
};

use crate::tables::{Maps, node, scattered};

/// [`index::find`] of a VPC's address: the target's word, or 0.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn find_address(root: u32, vni: u32, address: u32) -> u32 {
    let key = VniAddress { vni, address: Ipv4::from_raw(address) };
    index::find(&root, &key, node, scattered).map_or(0, Target::word)
}

/// [`pipeline::take_pending`]. Returns 0: kernels want a number.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn take_pending(slot: u32) -> u32 {
    pipeline::take_pending(&Maps, slot);
    0
}

/// [`pipeline::take_claim`]: 0 if the claim was accepted.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn take_claim(slot: u32, port: u32, vrid: u32, form: u32) -> u32 {
    match claim(slot, port, vrid, form).map(|claim| pipeline::take_claim(&Maps, &claim)) {
        Some(ClaimOutcome::Accepted) => 0,
        _ => 1,
    }
}

/// [`pipeline::learn_unowned`]. Returns 0.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn learn_unowned(slot: u32, port: u32, vrid: u32, form: u32) -> u32 {
    if let Some(claim) = claim(slot, port, vrid, form) {
        pipeline::learn_unowned(&Maps, &claim);
    }
    0
}

#[inline(always)]
fn claim(slot: u32, port: u32, vrid: u32, form: u32) -> Option<Claim> {
    Some(Claim { slot, port, vrid: vrid as u8, form: ClaimForm::from_number(form)? })
}

/// [`pipeline::report_use`]. Returns 0.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn report_use(slot: u32, port: u32) -> u32 {
    pipeline::report_use(&Maps, slot, port);
    0
}

/// [`pipeline::advertised`]; `which`: VRID in the second byte, priority in the lowest. Returns 0.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn advertised(slot: u32, port: u32, address: u32, interval: u32, which: u32) -> u32 {
    let address = Ipv4::from_raw(address);
    let (vrid, priority) = ((which >> 8) as u8, which as u8);
    pipeline::advertised(&Maps, &Advertised { slot, port, address, interval, vrid, priority });
    0
}

/// [`pipeline::source_of`].
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn source_of(port: u32, source: u32, destination: u32, vrid: u32, unicast: u32) -> u32 {
    let question = SourceQuestion {
        port,
        source: Ipv4::from_raw(source),
        destination: Ipv4::from_raw(destination),
        vrid: vrid as u8,
        unicast: unicast != 0,
    };
    pipeline::source_of(&Maps, &question)
}
