//! The two stages of the uplink do the same.

use vip_common::{
    DropReason,
    engine::{Hook, MemoryTables},
    pipeline::{Stage, Verdict},
    tables::{ConfigFlags, PortEntry, PortFlags},
};

use super::{Oracle, Violation, hold, violation};
use crate::{
    Step,
    facts::Facts,
    frame::{Ipv4, TCP, byte},
    step::Left,
};

/// Compares TC alone with XDP, and with TC behind XDP if XDP left the frame to it.
///
/// # Errors
///
/// They differ, or XDP left what it could have done.
pub fn check(
    tables: &MemoryTables,
    alone: &Step,
    first: &Step,
    second: Option<&Step>,
) -> Result<(), Violation> {
    let last = second.unwrap_or(first);
    let told = |what: String| violation(Oracle::Stages, &what, last);
    let verdict = match (alone.verdict, last.hook, last.verdict) {
        // XDP sends to other hosts by returning the frame.
        (Verdict::Uplink { mtu: 0, .. }, Hook::Uplink(Stage::Xdp), Verdict::Return) => alone.verdict,
        (_, _, verdict) => verdict,
    };
    let same = (alone.verdict, &alone.after, &alone.fragments, &alone.receivers)
        == (verdict, &last.after, &last.fragments, &last.receivers);
    hold(Oracle::Stages, same, || {
        format!("TC alone: {:?}, {}", alone.verdict, crate::frame::hex(&alone.after))
    })
    .map_err(|(_, what)| told(what))?;
    let mut left = first.left.clone();
    if let Some(second) = second {
        append(&mut left, &second.left);
    }
    hold(Oracle::Stages, left == alone.left, || format!("TC alone left {:?}, both {left:?}", alone.left))
        .map_err(|(_, what)| told(what))?;
    hold(Oracle::Stages, second.is_none() || has_cause(tables, alone), || "XDP could have done it".to_owned())
        .map_err(|(_, what)| told(what))
}

/// What two runs left together.
fn append(left: &mut Left, more: &Left) {
    // A frame is counted by the one that decides.
    left.drops.extend(&more.drops);
    left.eips.extend(&more.eips);
    left.vips.extend(&more.vips);
    left.owners.clone_from(&more.owners);
    left.moves.extend(&more.moves);
    left.events.extend(&more.events);
}

/// Why XDP may leave a frame to TC.
fn has_cause(tables: &MemoryTables, alone: &Step) -> bool {
    let Some(config) = &tables.config else { return false };
    let tcp_by_tc = config.flags.has(ConfigFlags::TCP_BY_TC) && byte(&alone.frame, 23) == Some(TCP);
    let facts = Facts(tables);
    let takes_none = |port: &PortEntry| !port.flags.has(PortFlags::TAKES_XDP);
    let out_of_reach = match alone.verdict {
        Verdict::Deliver { port, .. } => facts.port(port).is_some_and(takes_none),
        // To another host; a MAC that the kernel has to find it finds in TC only.
        Verdict::Uplink { .. } | Verdict::Return => !config.flags.has(ConfigFlags::UPLINK_RETURNS),
        // It cannot send into the uplink, only back out of it; and what cannot reach its receiver is not measured.
        Verdict::Tell { reason, ifindex } => {
            let receiver = Ipv4::of(&alone.frame)
                .and_then(|ip| facts.inner(ip.destination))
                .and_then(|inner| facts.port_for(inner.holder));
            ifindex != 0
                || !config.flags.has(ConfigFlags::UPLINK_RETURNS)
                || (reason == DropReason::TooBig.index()
                    && receiver.is_some_and(|(_, port)| takes_none(port)))
        }
        // It cannot make several frames of one; and what is wrong with a quote is told by who delivers.
        Verdict::DeliverFragments { .. }
        | Verdict::Drop(_)
        | Verdict::Members { .. }
        | Verdict::Resolve { .. } => true,
        _ => false,
    };
    tcp_by_tc || out_of_reach
}
