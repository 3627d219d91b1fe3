//! Static forwarding entries on Linux bridges: which ones there shall be.
//!
//! Frames that the port program takes never reach the bridge, which therefore would not learn where a port's MAC is. A virtual router
//! MAC has no entry: it moves with its owner, whose accepted claims go on to the bridge and teach it, without an agent too.

use std::collections::BTreeSet;

use crate::{
    net::{LinkKind, Links},
    plan::Contents,
};

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

/// The entries that there shall be: one for each port whose interface is a member of a Linux bridge.
pub(super) fn entries(contents: &Contents, links: &Links) -> BTreeSet<Entry> {
    let of_ports = contents.interfaces.iter().filter_map(|(&ifindex, index)| {
        let (port, link) = (contents.ports.get(index)?, links.get(ifindex)?);
        let master = link.master.as_ref().filter(|master| master.kind == LinkKind::Bridge)?;
        Some(Entry { bridge: master.ifindex, ifindex: link.ifindex, mac: port.mac.octets() })
    });
    of_ports.collect()
}

/// The entries that this agent and those before it made, and no others: only these are ever deleted.
#[derive(Clone, Debug, Default)]
pub(super) struct Made {
    entries: BTreeSet<Entry>,
    /// What an earlier agent should have made. Nobody knows whether it did, so what is still wanted is made anew.
    inherited: BTreeSet<Entry>,
}

impl Made {
    /// Begins with the entries that an earlier agent should have made.
    pub(super) fn inherit(inherited: BTreeSet<Entry>) -> Self {
        Self { entries: BTreeSet::new(), inherited }
    }

    /// The way to the desired entries: deletions first, because a MAC may pass from one member to another. What the kernel
    /// did is told by [`Self::done`].
    pub(super) fn changes(&self, desired: &BTreeSet<Entry>) -> Vec<Change> {
        let made = self.entries.union(&self.inherited);
        let gone = made.filter(|entry| !desired.contains(entry)).copied().map(Change::Delete);
        let new = desired.difference(&self.entries).copied().map(Change::Make);
        gone.chain(new).collect()
    }

    /// The change was made.
    pub(super) fn done(&mut self, change: Change) {
        match change {
            Change::Delete(entry) => {
                self.inherited.remove(&entry);
                self.entries.remove(&entry);
            }
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
    fn what_an_earlier_agent_made_is_deleted_or_made_anew() {
        let left = Entry { bridge: 1, ifindex: 2, mac: MAC };
        let stays = Entry { bridge: 1, ifindex: 3, mac: [2; 6] };
        let mut made = Made::inherit([left, stays].into());
        assert_eq!(made.changes(&[stays].into()), [Change::Delete(left), Change::Make(stays)]);
        made.done(Change::Delete(left));
        made.done(Change::Make(stays));
        assert_eq!(made.changes(&[stays].into()), []);
        assert_eq!(made.changes(&BTreeSet::new()), [Change::Delete(stays)]);
        made.done(Change::Delete(stays));
        assert_eq!(made.changes(&BTreeSet::new()), []);
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
