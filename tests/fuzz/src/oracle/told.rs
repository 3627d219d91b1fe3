//! What is refused on its way, and what its sender hears of it (RFC 792, RFC 1191, RFC 1812 section 4.3).

use std::net::Ipv4Addr;

use vip_common::{
    DropReason,
    engine::{Hook, MemoryTables},
    pipeline::{Stage, Verdict},
};

use super::{Judgement, Oracle, Violation, fitting, hold, overlay, violation};
use crate::{
    Step,
    facts::Facts,
    frame::{ETHERNET, ICMP, ICMP_ERROR, IPV4, Ipv4, TYPE_IPV4, VRRP, hex, mac, put, sum},
};

const TOLD: Oracle = Oracle::Told;

/// Longest error in bytes of IP (RFC 1812 section 4.3.2.3).
const LONGEST: usize = 576;
/// Least MTU that is told, in bytes.
const LEAST_MTU: u32 = 576;

pub(super) fn check(facts: Facts<'_>, step: &Step) -> Judgement {
    let (Verdict::Drop(reason) | Verdict::Tell { reason, .. }) = step.verdict else { return Ok(()) };
    let is = |candidate: DropReason| candidate.index() == reason;
    let (expired, too_big) = (is(DropReason::TtlExpired), is(DropReason::TooBig));
    let (vrrp, martian) = (is(DropReason::VrrpRouted), is(DropReason::MartianSource));
    let can_be_told = expired || too_big;
    hold(TOLD, can_be_told || matches!(step.verdict, Verdict::Drop(_)), || {
        "nobody is told of that".to_owned()
    })?;
    if !(can_be_told || vrrp || martian) {
        return Ok(());
    }
    let Some(ip) = Ipv4::of(&step.frame) else {
        return Err((Oracle::Refused, "it is no packet".to_owned()));
    };
    if vrrp {
        return hold(Oracle::Refused, ip.protocol == VRRP, || "it is no VRRP".to_owned());
    }
    if martian {
        return hold(Oracle::Refused, !ip.is_from_host(), || "its source may be a host".to_owned());
    }
    if too_big {
        fitting::check_too_big(facts, step, &ip)?;
    } else {
        hold(Oracle::Refused, ip.ttl <= 1, || format!("its TTL is {}", ip.ttl))?;
    }
    let may = may_be_told(&step.frame, &ip);
    match step.verdict {
        Verdict::Tell { ifindex, .. } => {
            hold(TOLD, may, || "there may be no error about it".to_owned())?;
            way(facts, step, ifindex)?;
            let mtu = fitting::limit(facts, step, &ip).filter(|_| too_big);
            error(facts, step, &ip, mtu)
        }
        _ => hold(TOLD, !may, || "nobody is told".to_owned()),
    }
}

/// Whether there may be an error about a packet (RFC 1122 section 3.2.2): it begins with its transport header, it is from one host,
/// and no message of a kind that is not answered by an error.
fn may_be_told(frame: &[u8], ip: &Ipv4) -> bool {
    // Of an ICMP message less than its first four bytes, nobody knows what it is.
    let may_be_error = ip.protocol == ICMP
        && (ip.end < ip.payload + 4 || matches!(ip.icmp_type(frame), None | Some(3 | 4 | 5 | 11 | 12)));
    ip.fragment == 0 && ip.is_from_host() && !may_be_error
}

/// An error goes back to where the packet came from. What came to TC from the uplink's own MAC is a guest's, on its way to an EIP.
fn way(facts: Facts<'_>, step: &Step, ifindex: u32) -> Judgement {
    let own = facts.uplink().filter(|(_, own)| Some(*own) == mac(&step.frame, 6)).map(|(uplink, _)| uplink);
    let expected = match step.hook {
        Hook::Uplink(Stage::Tc) => own.unwrap_or_default(),
        Hook::Uplink(Stage::Xdp) => {
            hold(TOLD, own.is_none(), || "XDP cannot tell a guest".to_owned())?;
            0
        }
        Hook::Port => 0,
    };
    hold(TOLD, ifindex == expected, || format!("the error goes to {ifindex} instead of {expected}"))
}

/// The frame is the error: from the gateway, or from the EIP that the packet was to, with as much of the packet as fits.
fn error(facts: Facts<'_>, step: &Step, ip: &Ipv4, mtu: Option<u32>) -> Judgement {
    let (before, after) = (&step.frame, &step.after);
    let from = match step.hook {
        Hook::Port => facts.port_of(step.interface).map(|(_, port)| Ipv4Addr::from(port.gateway)),
        Hook::Uplink(_) => Some(ip.destination),
    };
    let Some(from) = from else { return Err((TOLD, "nobody tells it".to_owned())) };
    let quote: Vec<_> =
        before.iter().take(ip.end).skip(ip.start).take(LONGEST - IPV4 - ICMP_ERROR).copied().collect();
    let length = u16::try_from(IPV4 + ICMP_ERROR + quote.len()).unwrap_or_default();
    let told = u16::try_from(mtu.unwrap_or_default().max(LEAST_MTU)).unwrap_or(u16::MAX);
    let (kind, code, told) = if mtu.is_some() { (3, 4, told) } else { (11, 0, 0) };

    let mut expected: Vec<u8> = before.iter().take(12).copied().collect();
    expected.rotate_left(6);
    expected.extend(TYPE_IPV4.to_be_bytes());
    // Internetwork control (RFC 1812 section 4.3.2.5), and DF.
    expected.extend([0x45, 0xc0]);
    expected.extend(length.to_be_bytes());
    expected.extend([0, 0, 0x40, 0, 64, ICMP, 0, 0]);
    expected.extend(from.octets());
    expected.extend(ip.source.octets());
    expected.extend([kind, code, 0, 0, 0, 0]);
    expected.extend(told.to_be_bytes());
    expected.extend(quote);
    // Judged by their sums.
    for at in [ETHERNET + 10, ETHERNET + IPV4 + 2] {
        put(&mut expected, at, after.get(at..at + 2).unwrap_or_default());
    }
    hold(TOLD, *after == expected, || format!("the error should be {}", hex(&expected)))?;
    let header = after.get(ETHERNET..ETHERNET + IPV4).map(sum);
    let message = after.get(ETHERNET + IPV4..).map(sum);
    hold(Oracle::Checksums, (header, message) == (Some(0), Some(0)), || "a checksum of an error".to_owned())
}

/// Checks that the error about a guest's packet to an EIP, which came in by the uplink, reached who receives what is for the
/// packet's source.
///
/// # Errors
///
/// It did not.
pub fn reaches_sender(tables: &MemoryTables, sent: &Step, error: &Step) -> Result<(), Violation> {
    let facts = Facts(tables);
    if overlay::concerns(facts, error) {
        // It goes on to another host, of which that oracle knows more.
        return Ok(());
    }
    let judged = || {
        let (Some(first), Some(came)) = (Ipv4::of(&sent.frame), Ipv4::of(&error.frame)) else {
            return false;
        };
        let Some(inner) = facts.inner(came.destination) else { return false };
        let receiver = facts.port_for(inner.holder).filter(|(_, port)| port.ifindex != 0);
        match (receiver, facts.receiver(error.verdict)) {
            (Some((index, _)), Some((reached, _))) => {
                let now = Ipv4::of(&error.after);
                let about = now.and_then(|ip| ip.quote(&error.after));
                reached == index
                    && now.is_some_and(|ip| ip.destination == first.source)
                    && about.is_some_and(|quote| quote.source == first.source)
            }
            // Of what is too long for its receiver, another oracle knows whether it is.
            (Some(_), None) => error.verdict == Verdict::Drop(DropReason::TooBig.index()),
            (None, None) => matches!(error.verdict, Verdict::Drop(_)),
            (None, Some(_)) => false,
        }
    };
    hold(TOLD, judged(), || "the error does not reach who sent".to_owned())
        .map_err(|(oracle, what)| violation(oracle, &what, error))
}
