//! What became of each VIP.
//!
//! The table MOVES remembers the last few moves of a VIP, by port indexes, also while no agent runs. The agent keeps more of
//! them, with the names that the ports had then.

use std::collections::{BTreeMap, VecDeque};

use vip_common::tables::{ClaimForm, Move, OwnerWord};

use crate::state::Id;

/// Moves kept per VIP.
const KEPT: usize = 64;

/// One change of a VIP's owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Epoch that it began.
    pub(super) epoch: u64,
    /// Nanoseconds since boot.
    pub(super) at: u64,
    /// The new owner; `None`: released.
    pub(super) port: Option<Id>,
    /// The owner before; `None`: nobody.
    pub(super) previous: Option<Id>,
    /// How it came.
    pub(super) form: ClaimForm,
}

impl Record {
    /// Reads an entry of MOVES that belongs to a slot whose word is `word`; `None` for one that was never written, that the
    /// word cannot have had, or that is being written. `name` gives a port's id.
    pub(super) fn of(entry: &Move, word: OwnerWord, name: impl Fn(u32) -> Id) -> Option<Self> {
        let port = |index| (index != 0).then(|| name(index));
        (entry.at != 0 && entry.epoch != 0 && entry.epoch <= word.epoch()).then_some(())?;
        Some(Self {
            epoch: entry.epoch,
            at: entry.at,
            port: port(entry.port),
            previous: port(entry.previous),
            form: ClaimForm::from_number(entry.form)?,
        })
    }

    /// Whether it is of the same epoch, and another host's owner won over the one of that record.
    fn overrules(&self, other: &Self) -> bool {
        self.epoch == other.epoch
            && self.form == ClaimForm::Peer
            && self.at > other.at
            && self.port != other.port
    }
}

/// The moves of all VIPs, by slot, the oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    slots: BTreeMap<u32, VecDeque<Record>>,
}

impl History {
    /// Takes records in; those of an epoch that is known already are left as they were first told, unless a peer's owner of the same
    /// epoch won. Tells which are new, the oldest first.
    pub(super) fn merge(&mut self, slot: u32, records: impl IntoIterator<Item = Record>) -> Vec<Record> {
        let kept = self.slots.entry(slot).or_default();
        let mut new: Vec<Record> = Vec::new();
        for record in records {
            let place = match kept.binary_search_by_key(&record.epoch, |kept| kept.epoch) {
                Err(place) => place,
                Ok(place) => {
                    if let Some(before) = kept.get_mut(place).filter(|before| record.overrules(before)) {
                        before.clone_from(&record);
                        new.push(record);
                    }
                    continue;
                }
            };
            let forgotten = place == 0 && kept.len() >= KEPT;
            if !forgotten {
                new.push(record.clone());
                kept.insert(place, record);
                if kept.len() > KEPT {
                    kept.pop_front();
                }
            }
        }
        new.sort_by_key(|record| record.epoch);
        new
    }

    /// A slot belongs to another VIP from now on.
    pub(super) fn forget(&mut self, slot: u32) {
        self.slots.remove(&slot);
    }

    /// What is known of one slot.
    pub(super) fn copy_of(&self, slot: u32) -> Self {
        Self { slots: self.slots.get(&slot).map(|kept| (slot, kept.clone())).into_iter().collect() }
    }

    /// The moves of a slot, the newest first.
    pub(super) fn of(&self, slot: u32) -> impl Iterator<Item = &Record> {
        self.slots.get(&slot).into_iter().flat_map(|kept| kept.iter().rev())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(epoch: u64) -> Record {
        Record {
            epoch,
            at: epoch * 10,
            port: Some(Id::from("a")),
            previous: None,
            form: ClaimForm::GarpRequest,
        }
    }

    fn epochs(history: &History) -> Vec<u64> {
        history.of(0).map(|record| record.epoch).collect()
    }

    #[test]
    fn moves_told_twice_or_late_stand_once_and_in_order() {
        let mut history = History::default();
        assert_eq!(history.merge(0, [record(1), record(3)]), [record(1), record(3)]);
        assert_eq!(history.merge(0, [record(3), record(2), record(1)]), [record(2)]);
        assert_eq!(epochs(&history), [3, 2, 1]);
    }

    #[test]
    fn an_owner_of_the_same_epoch_that_a_peer_told_of_stands_instead_once() {
        let mut history = History::default();
        history.merge(0, [record(1), record(2)]);
        let other = Record { port: Some(Id::from("b")), form: ClaimForm::Peer, at: 99, ..record(2) };
        assert_eq!(history.merge(0, [other.clone()]), std::slice::from_ref(&other));
        assert_eq!(history.merge(0, [record(2), other.clone()]), []);
        assert_eq!(history.of(0).next(), Some(&other));
    }

    #[test]
    fn the_oldest_are_forgotten_and_stay_so() {
        let mut history = History::default();
        history.merge(0, (1..=100).map(record));
        assert_eq!(epochs(&history).len(), KEPT);
        assert_eq!(history.merge(0, [record(5)]), []);
        assert_eq!(epochs(&history).first(), Some(&100));
    }

    #[test]
    fn an_entry_is_believed_only_if_the_word_can_have_had_its_epoch() {
        let name = |index: u32| Id::from(format!("port{index}"));
        let word = OwnerWord::new(9, true, 2, 0);
        let entry = Move { epoch: 9, at: 77, port: 2, previous: 1, form: 1, zero: 0 };
        let read = Record::of(&entry, word, name).expect("a move");
        assert_eq!((read.port.as_deref(), read.previous.as_deref()), (Some("port2"), Some("port1")));
        assert_eq!(Record::of(&Move { epoch: 10, ..entry }, word, name), None);
        assert_eq!(Record::of(&Move::default(), word, name), None);
        assert_eq!(Record::of(&Move { form: 99, ..entry }, word, name), None);
        let released = Record::of(&Move { port: 0, ..entry }, word, name).expect("a release");
        assert_eq!(released.port, None);
    }
}
