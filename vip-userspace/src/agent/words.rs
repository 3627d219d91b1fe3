//! The owners' words as they were last seen.

use std::collections::BTreeSet;

use vip_common::tables::OwnerWord;

/// Words by slot, and which of them nobody has judged since they changed. There may be a hundred thousand, and they are compared
/// every second.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// By slot. Nobody has ever owned what is not in the tables.
    seen: Vec<OwnerWord>,
    /// How many of them are in the tables.
    present: usize,
    unjudged: BTreeSet<u32>,
    /// The rights have changed: all words are to be judged.
    judge_all: bool,
}

/// Whose words are to be judged.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unjudged {
    /// Those in all slots.
    All,
    /// Those in these slots.
    Slots(BTreeSet<u32>),
}

impl Words {
    /// The word of a slot when it was last seen.
    pub(super) fn get(&self, slot: u32) -> OwnerWord {
        self.seen.get(slot as usize).copied().unwrap_or_default()
    }

    /// Whether none was seen.
    pub(super) fn is_empty(&self) -> bool {
        self.present == 0
    }

    /// Forgets the word of a slot, which begins another life.
    pub(super) fn forget(&mut self, slot: u32) {
        self.set(slot, OwnerWord::default());
    }

    /// Takes the word of one slot. Tells whether it changed.
    pub(super) fn see(&mut self, slot: u32, word: OwnerWord) -> bool {
        let changed = self.set(slot, word);
        if changed {
            self.unjudged.insert(slot);
        }
        changed
    }

    /// Takes all words that there are, by rising slot; all others are gone. Returns the slots whose words changed, and whether any
    /// came, changed or went.
    pub(super) fn see_all(&mut self, all: impl Iterator<Item = (u32, OwnerWord)>) -> (Vec<u32>, bool) {
        let (mut changed, mut present, mut next) = (Vec::new(), 0, 0);
        for (slot, word) in all {
            self.clear(next, slot as usize);
            next = slot as usize + 1;
            present += 1;
            if self.see(slot, word) {
                changed.push(slot);
            }
        }
        self.clear(next, self.seen.len());
        let any = !changed.is_empty() || present != self.present;
        self.present = present;
        (changed, any)
    }

    /// The rights have changed, or judging failed.
    pub(super) fn judge_all(&mut self) {
        self.judge_all = true;
    }

    /// Whose words are to be judged; they count as judged from now on.
    pub(super) fn take_unjudged(&mut self) -> Unjudged {
        let slots = std::mem::take(&mut self.unjudged);
        if std::mem::take(&mut self.judge_all) { Unjudged::All } else { Unjudged::Slots(slots) }
    }

    fn clear(&mut self, first: usize, end: usize) {
        let end = end.min(self.seen.len());
        self.seen.get_mut(first..end).unwrap_or_default().fill(OwnerWord::default());
    }

    fn set(&mut self, slot: u32, word: OwnerWord) -> bool {
        let slot = slot as usize;
        if self.seen.len() <= slot {
            self.seen.resize(slot + 1, OwnerWord::default());
        }
        self.seen.get_mut(slot).is_some_and(|seen| std::mem::replace(seen, word) != word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(port: u32) -> OwnerWord {
        OwnerWord::new(3, true, port, 0)
    }

    #[test]
    fn words_that_change_come_and_go_are_noticed_once() {
        let mut words = Words::default();
        let nobody = OwnerWord::default();
        assert_eq!(words.see_all([(1, word(7)), (4, nobody)].into_iter()), (vec![1], true));
        assert_eq!(words.see_all([(1, word(7)), (4, nobody)].into_iter()), (vec![], false));
        assert_eq!(words.see_all([(1, word(7)), (4, word(8))].into_iter()), (vec![4], true));
        assert_eq!(words.see_all([(4, word(8))].into_iter()), (vec![], true));
        assert_eq!([words.get(1), words.get(4), words.get(9)], [nobody, word(8), nobody]);
    }

    #[test]
    fn what_changed_is_judged_once_and_all_when_rights_changed() {
        let mut words = Words::default();
        words.see_all([(1, word(7)), (4, word(8))].into_iter());
        words.see(4, word(9));
        assert_eq!(words.take_unjudged(), Unjudged::Slots([1, 4].into()));
        assert_eq!(words.take_unjudged(), Unjudged::Slots([].into()));
        words.judge_all();
        assert_eq!(words.take_unjudged(), Unjudged::All);
        assert_eq!(words.take_unjudged(), Unjudged::Slots([].into()));
    }
}
