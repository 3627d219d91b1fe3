//! One run of one program, with everything that it did.

use std::collections::BTreeMap;

use vip_common::{
    engine::{self, FramePacket, Hook, MemoryTables, Outcome},
    pipeline::Verdict,
    tables::{Event, Move, OwnerEntry, Traffic},
    wire,
};

use crate::Variation;

/// A run of a program.
#[derive(Clone, Debug)]
pub struct Step {
    /// The program.
    pub hook: Hook,
    /// The interface that the frame came through.
    pub interface: u32,
    /// Whether it had a VLAN tag beside the bytes.
    pub tagged: bool,
    /// The frame.
    pub frame: Vec<u8>,
    /// What becomes of it.
    pub verdict: Verdict,
    /// The frame afterwards.
    pub after: Vec<u8>,
    /// The frames that leave in its place, if it is cut.
    pub fragments: Vec<Vec<u8>>,
    /// Interfaces that a copy went to.
    pub receivers: Vec<u32>,
    /// Frames that left for members on other hosts.
    pub tunnelled: Vec<Vec<u8>>,
    /// What claims change of the VIPs, before.
    pub owners: BTreeMap<u32, OwnerEntry>,
    /// What the tables have counted and kept.
    pub left: Left,
}

/// What a run, or several, left in the tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Packets by number of the reason.
    pub drops: BTreeMap<u32, u64>,
    /// Traffic by EIP.
    pub eips: BTreeMap<wire::Ipv4, Traffic>,
    /// Traffic by VIP slot.
    pub vips: BTreeMap<u32, Traffic>,
    /// What claims change of the VIPs.
    pub owners: BTreeMap<u32, OwnerEntry>,
    /// Moves by index.
    pub moves: BTreeMap<u32, Move>,
    /// Events.
    pub events: Vec<Event>,
}

/// A world in which frames run.
pub struct Wire {
    tables: MemoryTables,
    /// As the world began.
    owners: BTreeMap<u32, OwnerEntry>,
}

impl Wire {
    /// The world of a variation.
    pub fn new(variation: Variation) -> Self {
        let tables = variation.world().tables;
        let owners = owners(&tables);
        Self { tables, owners }
    }

    /// Its tables.
    pub const fn tables(&self) -> &MemoryTables {
        &self.tables
    }

    /// Runs one program on a frame, with empty counters.
    pub fn run(&self, hook: Hook, interface: u32, tagged: bool, frame: &[u8]) -> Step {
        self.clear();
        let owners = owners(&self.tables);
        let mut packet = FramePacket::new(frame);
        packet.set_ingress(interface);
        packet.set_tagged(tagged);
        let outcome = engine::run(&self.tables, hook, packet);
        let (frame, fragments) = (frame.to_vec(), outcome.fragments());
        let Outcome { verdict, frame: after, receivers, tunnelled, .. } = outcome;
        Step {
            hook,
            interface,
            tagged,
            frame,
            verdict,
            after,
            fragments,
            receivers,
            tunnelled,
            owners,
            left: self.left(),
        }
    }

    /// Lets the world be as it began.
    pub fn restore(&self) {
        for (slot, cell) in &self.tables.vips {
            if let Some(owner) = self.owners.get(slot) {
                cell.update(|entry| *entry = *owner);
            }
        }
    }

    fn clear(&self) {
        let tables = &self.tables;
        tables.drops.borrow_mut().clear();
        tables.eip_traffic.borrow_mut().clear();
        tables.vip_traffic.borrow_mut().clear();
        tables.moves.borrow_mut().clear();
        tables.events.borrow_mut().clear();
        *tables.meters.borrow_mut() = Default::default();
    }

    fn left(&self) -> Left {
        let tables = &self.tables;
        Left {
            drops: tables.drops.borrow().clone(),
            eips: tables.eip_traffic.borrow().clone(),
            vips: tables.vip_traffic.borrow().clone(),
            owners: owners(tables),
            moves: tables.moves.borrow().clone(),
            events: tables.events.borrow().clone(),
        }
    }
}

fn owners(tables: &MemoryTables) -> BTreeMap<u32, OwnerEntry> {
    tables.vips.iter().map(|(slot, cell)| (*slot, cell.get())).collect()
}
