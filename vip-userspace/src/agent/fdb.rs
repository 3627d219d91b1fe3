//! Static forwarding entries on Linux bridges: which ones there shall be.
//!
//! An accepted claim goes on to the bridge, which then learns the owner's MAC; a claim that was not accepted must not move it. So
//! the MAC of each port, and the virtual router MAC by which a port owns a VIP, stand fast.

use std::collections::BTreeSet;

/// One entry: frames to this MAC leave the bridge by this member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// The bridge. An entry goes when its member leaves the bridge, also for another one.
    pub(super) bridge: u32,
    /// The member.
    pub(super) ifindex: u32,
    /// The MAC, in wire order.
    pub(super) mac: [u8; 6],
}

/// A change of a bridge's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Delete an entry that was made here.
    Delete(Entry),
    /// Make one.
    Make(Entry),
}

/// The entries that this agent made, and no others: only these are ever deleted.
#[derive(Clone, Debug, Default)]
pub(super) struct Made {
    entries: BTreeSet<Entry>,
}

impl Made {
    /// The way to the desired entries: deletions first, because a MAC may pass from one member to another. What the kernel
    /// did is told by [`Self::done`].
    pub(super) fn changes(&self, desired: &BTreeSet<Entry>) -> Vec<Change> {
        let gone = self.entries.difference(desired).copied().map(Change::Delete);
        let new = desired.difference(&self.entries).copied().map(Change::Make);
        gone.chain(new).collect()
    }

    /// The change was made.
    pub(super) fn done(&mut self, change: Change) {
        match change {
            Change::Delete(entry) => drop(self.entries.remove(&entry)),
            Change::Make(entry) => drop(self.entries.insert(entry)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0, 0, 0x5e, 0, 1, 66];

    #[test]
    fn a_mac_that_passes_to_another_member_is_deleted_before_it_is_made() {
        let old = Entry { bridge: 1, ifindex: 2, mac: MAC };
        let new = Entry { bridge: 1, ifindex: 3, mac: MAC };
        let mut made = Made::default();
        made.done(Change::Make(old));
        assert_eq!(made.changes(&[new].into()), [Change::Delete(old), Change::Make(new)]);
    }

    #[test]
    fn only_what_was_made_is_deleted_and_what_failed_is_tried_again() {
        let entry = Entry { bridge: 1, ifindex: 2, mac: MAC };
        let mut made = Made::default();
        assert_eq!(made.changes(&BTreeSet::new()), []);
        assert_eq!(made.changes(&[entry].into()), [Change::Make(entry)]);
        assert_eq!(made.changes(&[entry].into()), [Change::Make(entry)]);
        made.done(Change::Make(entry));
        assert_eq!(made.changes(&[entry].into()), []);
        assert_eq!(made.changes(&BTreeSet::new()), [Change::Delete(entry)]);
    }

    #[test]
    fn an_entry_is_made_again_when_its_member_changes_bridges() {
        let entry = Entry { bridge: 1, ifindex: 2, mac: MAC };
        let moved = Entry { bridge: 9, ..entry };
        let mut made = Made::default();
        made.done(Change::Make(entry));
        assert_eq!(made.changes(&[moved].into()), [Change::Delete(entry), Change::Make(moved)]);
    }
}
