//! One move of the VIP as the wires saw it.

use std::time::Instant;

use anyhow::{Context as _, Result};

use super::{scene::DATAGRAM_PORT, stage::VIP};
use crate::frame::Frame;

/// When the VIP changed hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Handover {
    /// When the new owner's claim reached the host.
    pub(super) claim: Instant,
    /// When the client sent the datagram that was the first to be delivered to the new owner.
    pub(super) sent: Instant,
    /// When that datagram left the host towards the new owner.
    pub(super) delivered: Instant,
    /// Datagrams that left the host towards the old owner nevertheless, after the claim.
    pub(super) late: usize,
}

impl Handover {
    /// Finds the first move after `since`, in what passed the client's interface and the host's ends of the cables to
    /// the old and the new owner.
    pub(super) fn find(since: Instant, client: &[Frame], old: &[Frame], new: &[Frame]) -> Result<Self> {
        let mut after = new.iter().filter(|frame| frame.at >= since);
        let claim = after.find(|frame| !frame.outgoing && frame.announces(VIP));
        let claim = claim.context("the new owner claimed nothing")?.at;
        let mut delivered = new.iter().filter(|frame| frame.at >= claim);
        let delivered = delivered.find(|frame| delivered_datagram(frame).is_some());
        let delivered = delivered.context("no datagram reached the new owner")?;
        let payload = delivered_datagram(delivered);
        let sent = client
            .iter()
            .find(|frame| frame.outgoing && datagram(frame).is_some() && datagram(frame) == payload);
        let sent = sent.context("the client never sent the first datagram that reached the new owner")?;
        let late = old.iter().filter(|frame| frame.at > claim && delivered_datagram(frame).is_some()).count();
        Ok(Self { claim, sent: sent.at, delivered: delivered.at, late })
    }
}

/// The payload of one of the client's datagrams, wherever it is on its way.
fn datagram(frame: &Frame) -> Option<&[u8]> {
    frame.udp().filter(|(_, port, _)| *port == DATAGRAM_PORT).map(|(_, _, payload)| payload)
}

/// The payload of one of the client's datagrams on its last way, from the host to a guest.
fn delivered_datagram(frame: &Frame) -> Option<&[u8]> {
    let to_vip = frame.outgoing && frame.ipv4().is_some_and(|ipv4| ipv4.destination == VIP);
    if to_vip { datagram(frame) } else { None }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;
    use crate::{
        Mac,
        frame::{self, Arp},
    };

    const OWNER: Mac = Mac([2, 0, 0, 0, 7, 0xf8]);
    const CLIENT: (Ipv4Addr, u16) = (Ipv4Addr::new(203, 0, 113, 254), 40_000);

    fn udp(at: Instant, to: Ipv4Addr, payload: &[u8]) -> Frame {
        let bytes =
            frame::udp((Mac::ZERO, OWNER), CLIENT, (to, DATAGRAM_PORT), payload).expect("it is short");
        Frame { at, outgoing: true, bytes }
    }

    #[test]
    fn a_move_is_found_between_the_claim_and_the_first_datagram_after_it() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let eip = Ipv4Addr::new(203, 0, 113, 10);
        let claim = |millis| Frame {
            at: at(millis),
            outgoing: false,
            bytes: Arp::gratuitous_request(OWNER, VIP).frame(OWNER, Mac::BROADCAST),
        };
        let client = [udp(at(8), eip, b"8"), udp(at(12), eip, b"12"), udp(at(14), eip, b"14")];
        let old = [udp(at(9), VIP, b"8"), udp(at(11), VIP, b"late")];
        // A claim of an earlier ownership does not count; nor does a datagram before the claim.
        let new = [
            claim(1),
            udp(at(9), VIP, b"8"),
            claim(10),
            udp(at(13), VIP, b"12"),
            claim(14),
            udp(at(15), VIP, b"14"),
        ];
        let found = Handover::find(at(5), &client, &old, &new).expect("the frames hold a move");
        assert_eq!(found, Handover { claim: at(10), sent: at(12), delivered: at(13), late: 1 });
        assert!(Handover::find(at(20), &client, &old, &new).is_err(), "there is no later move");
    }
}
