//! The host engine: the pipeline over a byte vector and tables in memory.
//!
//! The same functions as in the kernel run here, for tests, property tests and fuzzing: what the engine says of a packet is what
//! the programs do with it. The fixtures run through both and demand equal verdicts, bytes and counters.

mod packet;
mod tables;

use std::vec::Vec;

pub use self::{
    packet::FramePacket,
    tables::{MemoryTables, Slot},
};
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::{
    DropReason,
    pipeline::{
        self, Fragment, Fragments, Stage, Tables as _, TunnelHeaders, Verdict, for_each_host,
        for_each_receiver,
    },
    wire::{Ethernet, Header as _, Ipv4Header},
};

/// What the pipeline made of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// Interfaces that receive a copy, of [`Verdict::Members`].
    pub receivers: Vec<u32>,
    /// Frames that leave by the uplink for members on other hosts, of [`Verdict::Members`].
    pub tunnelled: Vec<Vec<u8>>,
    /// What each fragment gets before it, of [`Verdict::TunnelFragments`].
    pub headers: Option<TunnelHeaders>,
}

impl Outcome {
    /// The frames that leave in place of the frame, if it is cut.
    pub fn fragments(&self) -> Vec<Vec<u8>> {
        let mtu = match (self.verdict, self.headers) {
            (Verdict::Uplink { mtu, .. } | Verdict::DeliverFragments { mtu, .. }, _) => mtu,
            (Verdict::TunnelFragments { .. }, Some(headers)) => u32::from(headers.mtu),
            _ => return Vec::new(),
        };
        let Some((ethernet, packet)) = self.frame.split_at_checked(Ethernet::LEN) else { return Vec::new() };
        let Ok((header, payload)) = Ipv4Header::read_from_prefix(packet) else { return Vec::new() };
        let Some(fragments) = Fragments::of(&header, mtu) else { return Vec::new() };
        (0..Fragments::MOST)
            .map_while(|number| fragments.get(number))
            .filter_map(|Fragment { header, from, length }| {
                let fragment = [ethernet, header.as_bytes(), payload.get(from..from + length)?].concat();
                let outer = self.headers.map(|headers| headers.outer(fragment.len()));
                Some([outer.as_ref().map_or(&[][..], |outer| outer.as_bytes()), &fragment].concat())
            })
            .collect()
    }
}

/// Which program a frame meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// One of the uplink's.
    Uplink(Stage),
    /// The guest's port that the frame came through.
    Port,
}

/// Runs the pipeline of one program on a packet.
pub fn run(tables: &MemoryTables, hook: Hook, mut packet: FramePacket) -> Outcome {
    let verdict = match hook {
        Hook::Uplink(stage) => pipeline::uplink(&mut packet, &tables, stage),
        Hook::Port => pipeline::port(&mut packet, &tables),
    };
    let mut receivers = Vec::new();
    let mut tunnelled = Vec::new();
    let mut headers = None;
    match verdict {
        Verdict::Members { slot, sender } => {
            for_each_receiver(&tables, slot, sender, |receiver| receivers.push(receiver));
            let sent = for_each_host(&mut packet, &tables, slot, sender, |packet, _| {
                tunnelled.push(packet.clone().into_bytes());
            });
            if sent.is_err() {
                tables.count_drop(DropReason::EditFailed.index());
            }
        }
        Verdict::TunnelFragments { host, vni } => {
            headers = TunnelHeaders::of(&mut packet, &tables, host, vni);
            if headers.is_none() {
                tables.count_drop(DropReason::NoWayToHost.index());
            }
        }
        _ => {}
    }
    Outcome { verdict, frame: packet.into_bytes(), receivers, tunnelled, headers }
}

/// Runs the pipeline of the uplink on a frame that came through the uplink itself.
pub fn uplink(tables: &MemoryTables, stage: Stage, frame: &[u8]) -> Outcome {
    let ifindex = tables.config.map_or(0, |config| config.uplink);
    uplink_by(tables, stage, ifindex, false, frame)
}

/// Runs the pipeline of the uplink on a frame that came through the interface `ifindex`: the uplink, or a VLAN interface on it.
/// `tagged`: with a VLAN tag beside the bytes.
pub fn uplink_by(tables: &MemoryTables, stage: Stage, ifindex: u32, tagged: bool, frame: &[u8]) -> Outcome {
    let mut packet = FramePacket::new(frame);
    packet.set_ingress(ifindex);
    packet.set_tagged(tagged);
    let outcome = run(tables, Hook::Uplink(stage), packet);
    match outcome.verdict {
        // A guest that sent to an EIP is told: the error comes back to it.
        Verdict::Tell { ifindex: ifindex @ 1.., .. } => {
            uplink_by(tables, Stage::Tc, ifindex, false, &outcome.frame)
        }
        _ => outcome,
    }
}

/// Runs the pipeline of a guest's port on a frame that came through the interface `ifindex`; `tagged`: with a VLAN tag beside
/// the bytes. What comes back is run through the uplink's too, as in the kernel.
pub fn port(tables: &MemoryTables, ifindex: u32, tagged: bool, frame: &[u8]) -> Outcome {
    let mut packet = FramePacket::new(frame);
    packet.set_ingress(ifindex);
    packet.set_tagged(tagged);
    let outcome = run(tables, Hook::Port, packet);
    if let Verdict::ComeBack { ifindex } = outcome.verdict {
        return uplink_by(tables, Stage::Tc, ifindex, false, &outcome.frame);
    }
    outcome
}
