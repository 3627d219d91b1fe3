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
use crate::pipeline::{self, Stage, Verdict, for_each_receiver};

/// What the pipeline made of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// Interfaces that receive a copy, of [`Verdict::Members`].
    pub receivers: Vec<u32>,
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
    let verdict = pipeline::uplink(&mut packet, &tables, stage);
    Outcome { verdict, frame: packet.into_bytes(), receivers: Vec::new() }
}

/// Runs the pipeline of a guest's port on a frame that came through the interface `ifindex`; `tagged`: with a VLAN tag beside
/// the bytes. What comes back is run through the uplink's too, as in the kernel.
pub fn port(tables: &MemoryTables, ifindex: u32, tagged: bool, frame: &[u8]) -> Outcome {
    let mut packet = FramePacket::new(frame);
    packet.set_ingress(ifindex);
    packet.set_tagged(tagged);
    let verdict = pipeline::port(&mut packet, &tables);
    if let Verdict::ComeBack { ifindex } = verdict {
        return uplink_by(tables, Stage::Tc, ifindex, false, &packet.into_bytes());
    }
    let mut receivers = Vec::new();
    if let Verdict::Members { slot, sender } = verdict {
        for_each_receiver(&tables, slot, sender, |receiver| receivers.push(receiver));
    }
    Outcome { verdict, frame: packet.into_bytes(), receivers }
}
