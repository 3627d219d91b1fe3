//! Claims that take effect long after their own packet.
//!
//! An accepted claim goes on to the bridge of its port and teaches the neighbours there. One that waits does not: when it takes
//! effect at last, they have to be told by the agent.

use std::collections::BTreeMap;

/// The claims that wait, by VIP slot.
#[derive(Clone, Debug, Default)]
pub(super) struct LateClaims {
    claimants: BTreeMap<u32, u32>,
}

impl LateClaims {
    /// A claim by the port with this index waits. A later claim replaces it.
    pub(super) fn waits(&mut self, slot: u32, port: u32) {
        self.claimants.insert(slot, port);
    }

    /// The VIP moved to a port. Tells whether by a claim that had waited.
    pub(super) fn moved(&mut self, slot: u32, port: u32) -> bool {
        self.claimants.remove(&slot) == Some(port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_move_that_a_waiting_claim_leads_to_is_late() {
        let mut late = LateClaims::default();
        assert!(!late.moved(4, 1));
        late.waits(4, 2);
        assert!(late.moved(4, 2));
        assert!(!late.moved(4, 2));
    }

    #[test]
    fn a_claim_that_was_overtaken_is_not_waited_for_any_more() {
        let mut late = LateClaims::default();
        late.waits(4, 2);
        late.waits(4, 3);
        late.waits(5, 2);
        assert!(!late.moved(4, 1));
        assert!(!late.moved(4, 3));
        assert!(late.moved(5, 2));
    }
}
