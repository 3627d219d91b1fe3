//! What of a packet changes, byte by byte.

use std::{net::Ipv4Addr, ops::Range};

use super::{Judgement, Oracle, hold};
use crate::{
    Step,
    frame::{ICMP, Ipv4, VRRP, add, address, byte, sum, word},
};

/// Which address of a quote becomes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Translated {
    /// The source.
    Source(Ipv4Addr),
    /// The destination.
    Destination(Ipv4Addr),
}

/// What becomes of a packet, its MACs aside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edit {
    /// Its source becomes this one.
    pub(super) source: Option<Ipv4Addr>,
    /// Its destination does.
    pub(super) destination: Option<Ipv4Addr>,
    /// If it is an ICMP error, an address of its quote does.
    pub(super) quote: Option<Translated>,
    /// Routers that it has passed.
    pub(super) hops: u8,
}

impl Edit {
    /// Nothing.
    pub(super) const NONE: Self = Self { source: None, destination: None, quote: None, hops: 0 };
}

/// Checks that the packet is what the edit makes of it.
pub(super) fn check(step: &Step, edit: &Edit) -> Judgement {
    let (before, after) = (&step.frame, &step.after);
    hold(Oracle::Fields, before.len() == after.len(), || "the frame has another length".to_owned())?;
    let (Some(was), Some(is)) = (Ipv4::of(before), Ipv4::of(after)) else {
        return Err((Oracle::Fields, "a packet that is handled is malformed".to_owned()));
    };
    hold(Oracle::Ttl, edit.hops == 0 || was.ttl > edit.hops, || "its TTL had run out".to_owned())?;
    hold(Oracle::Ttl, u16::from(is.ttl) + u16::from(edit.hops) == u16::from(was.ttl), || {
        format!("the TTL is {} after {} and {} hops", is.ttl, was.ttl, edit.hops)
    })?;
    // RFC 9568 section 5.1.1.3: it never leaves its link.
    hold(Oracle::Ttl, edit.hops == 0 || was.protocol != VRRP, || "VRRP is routed".to_owned())?;
    let expected = (edit.source.unwrap_or(was.source), edit.destination.unwrap_or(was.destination));
    hold(Oracle::Fields, (is.source, is.destination) == expected, || {
        format!("the addresses are {}, {} instead of {expected:?}", is.source, is.destination)
    })?;
    hold(Oracle::Checksums, was.header_sum(before) == is.header_sum(after), || {
        "the header's checksum".to_owned()
    })?;

    // MACs, TTL, checksum and addresses of the header.
    let mut changed = vec![0..12, 22..23, 24..34];
    let translated = edit.source.is_some() || edit.destination.is_some();
    if let Some(at) = was.transport_checksum(before).filter(|_| translated) {
        changed.push(at..at + 2);
        hold(Oracle::Checksums, is.transport_checksum(after) == Some(at), || {
            "a checksum became none".to_owned()
        })?;
        hold(Oracle::Checksums, was.covered_sum(before) == is.covered_sum(after), || {
            "the transport's checksum".to_owned()
        })?;
    }
    if let (Some(translated), Some(11 | 12 | 3)) = (edit.quote, was.icmp_type(before)) {
        changed.extend(quote(before, after, &was, translated)?);
    }
    for (at, (was, is)) in before.iter().zip(after).enumerate() {
        hold(Oracle::Fields, was == is || changed.iter().any(|range| range.contains(&at)), || {
            format!("byte {at} was {was:02x} and is {is:02x}")
        })?;
    }
    Ok(())
}

/// Checks the quote of an ICMP error, and gives the bytes that may have changed.
fn quote(
    before: &[u8],
    after: &[u8],
    ip: &Ipv4,
    translated: Translated,
) -> Result<Vec<Range<usize>>, (Oracle, String)> {
    let (Some(was), Some(is)) = (ip.quote(before), ip.quote(after)) else {
        return Err((Oracle::Fields, "an error without a quote is translated".to_owned()));
    };
    let message = |frame: &[u8]| frame.get(ip.payload..ip.end).map(sum);
    hold(Oracle::Checksums, message(before) == Some(0), || {
        "an error whose checksum is wrong passes".to_owned()
    })?;
    hold(Oracle::Checksums, message(after) == Some(0), || "the error's checksum".to_owned())?;
    // RFC 791 section 3.2: every link takes 68 bytes. Routers that know of no MTU tell 0.
    let absurd = word(before, ip.payload) == Some(0x0304)
        && word(before, ip.payload + 6).is_some_and(|mtu| (1..68).contains(&mtu));
    hold(Oracle::Fields, !absurd, || "an MTU that no link has passes".to_owned())?;
    let (place, expected) = match translated {
        Translated::Source(to) => (was.start + 12, to),
        Translated::Destination(to) => (was.start + 16, to),
    };
    hold(Oracle::Fields, address(after, place) == Some(expected), || {
        format!("the quote's address is {:?} instead of {expected}", address(after, place))
    })?;
    let header = |ip: &Ipv4, frame: &[u8]| ip.header_sum(frame);
    hold(Oracle::Checksums, header(&was, before) == header(&is, after), || {
        "the quoted header's checksum".to_owned()
    })?;
    let mut changed = vec![ip.payload + 2..ip.payload + 4, was.start + 10..was.start + 12, place..place + 4];
    if let Some(at) = was.transport_checksum(before) {
        changed.push(at..at + 2);
        // The payload may be cut off, but it is as it was.
        let covered = |frame: &[u8]| {
            Some(add(sum(frame.get(was.start + 12..was.start + 20)?), word(frame, at)? % 0xffff))
        };
        hold(Oracle::Checksums, covered(before) == covered(after), || {
            "the quoted transport's checksum".to_owned()
        })?;
        hold(Oracle::Checksums, is.transport_checksum(after) == Some(at), || {
            "a quoted checksum became none".to_owned()
        })?;
    }
    // RFC 1122 section 3.2.2: there are no errors about errors, whose quotes would stay as they are.
    let about_error = was.protocol == ICMP
        && was.fragment == 0
        && matches!(
            byte(before, was.payload).filter(|_| was.payload + 4 <= ip.end),
            Some(3 | 4 | 5 | 11 | 12)
        );
    hold(Oracle::Fields, !about_error, || "an error about an error is translated".to_owned())?;
    Ok(changed)
}
