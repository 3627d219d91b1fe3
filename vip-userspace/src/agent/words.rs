//! The owners' words as they were last seen.

use std::{collections::BTreeSet, ops::Range};

use vip_common::tables::OwnerWord;

/// Slots that are looked at at once, regularly: few enough to cost next to nothing every second.
pub(super) const PART: usize = 1 << 12;

/// Words by slot, and which of them nobody has judged since they changed.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// By slot. Nobody has ever owned what is not in the tables.
    seen: Vec<OwnerWord>,
    /// Where the next part begins.
    next: u32,
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

    /// Whether none was ever seen.
    pub(super) fn is_empty(&self) -> bool {
        self.seen.is_empty()
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

    /// The slots to look at now, of those in the tables, rising, and the range that they are all of. After as many calls as it
    /// takes, each was looked at once.
    pub(super) fn next_part(&mut self, slots: impl FnOnce(u32) -> Vec<u32>) -> (Vec<u32>, Range<u32>) {
        let first = self.next;
        let slots = slots(first);
        let end = slots.get(PART - 1).map_or(u32::MAX, |last| last + 1);
        self.next = if end == u32::MAX { 0 } else { end };
        (slots, first..end)
    }

    /// Takes all words that there are in a range of slots, rising; all others in it are gone. Returns the slots whose words changed,
    /// and whether any changed or went.
    pub(super) fn see_all(
        &mut self,
        range: Range<u32>,
        words: impl Iterator<Item = (u32, OwnerWord)>,
    ) -> (Vec<u32>, bool) {
        let (mut changed, mut went, mut next) = (Vec::new(), false, range.start);
        for (slot, word) in words {
            went |= self.clear(next..slot);
            next = slot + 1;
            if self.see(slot, word) {
                changed.push(slot);
            }
        }
        went |= self.clear(next..range.end);
        let any = went || !changed.is_empty();
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

    /// Forgets the words in a range. Tells whether there were any.
    fn clear(&mut self, range: Range<u32>) -> bool {
        let end = self.seen.len().min(range.end as usize);
        let seen = self.seen.get_mut(range.start as usize..end).unwrap_or_default();
        let any = seen.iter().any(|word| *word != OwnerWord::default());
        seen.fill(OwnerWord::default());
        any
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

    const ALL: Range<u32> = 0..u32::MAX;

    #[test]
    fn words_that_change_and_go_are_noticed_once() {
        let mut words = Words::default();
        let nobody = OwnerWord::default();
        assert_eq!(words.see_all(ALL, [(1, word(7)), (4, nobody)].into_iter()), (vec![1], true));
        assert_eq!(words.see_all(ALL, [(1, word(7)), (4, nobody)].into_iter()), (vec![], false));
        assert_eq!(words.see_all(ALL, [(1, word(7)), (4, word(8))].into_iter()), (vec![4], true));
        assert_eq!(words.see_all(2..9, [(4, word(8))].into_iter()), (vec![], false));
        assert_eq!(words.see_all(ALL, [(4, word(8))].into_iter()), (vec![], true));
        assert_eq!([words.get(1), words.get(4), words.get(9)], [nobody, word(8), nobody]);
    }

    #[test]
    fn every_slot_has_its_turn() {
        let mut words = Words::default();
        let many: Vec<u32> = (10..).take(PART + 2).collect();
        let part = |first: u32| many.iter().copied().filter(|slot| *slot >= first).take(PART).collect();
        let (first, range) = words.next_part(part);
        let (second, rest) = words.next_part(part);
        assert_eq!([first, second].concat(), many);
        assert_eq!((range.start, range.end, rest.end), (0, rest.start, u32::MAX));
        assert_eq!(words.next_part(part).1, range);
    }

    #[test]
    fn what_changed_is_judged_once_and_all_when_rights_changed() {
        let mut words = Words::default();
        words.see_all(ALL, [(1, word(7)), (4, word(8))].into_iter());
        words.see(4, word(9));
        assert_eq!(words.take_unjudged(), Unjudged::Slots([1, 4].into()));
        assert_eq!(words.take_unjudged(), Unjudged::Slots([].into()));
        words.judge_all();
        assert_eq!(words.take_unjudged(), Unjudged::All);
        assert_eq!(words.take_unjudged(), Unjudged::Slots([].into()));
    }
}
