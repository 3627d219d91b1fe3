//! Owners that left without a word.
//!
//! When a member uses a VIP that another one owns, the owner is asked three times within a second whether it is still
//! there. If it stays silent and a member uses the VIP once more, that member is to become the owner. Nothing here
//! touches the network or the tables.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use vip_common::tables::OwnerWord;

/// How often an owner is asked.
const QUESTIONS: u32 = 3;

/// From one question to the next, and from the last one to the verdict: all within a second.
const BETWEEN: Duration = Duration::from_millis(330);

/// How long silence counts. A member that uses the VIP later than that starts anew.
const MEMORY: Duration = Duration::from_secs(10);

/// What the use of a VIP by a member that does not own it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// The owner is being asked, or is now: see [`SilentOwners::due`].
    Asking,
    /// The owner was silent: the member takes over, if the word is still this one.
    TakesOver(OwnerWord),
}

#[derive(Clone, Copy, Debug)]
struct Case {
    /// The owner's word when the case was opened; another word closes it.
    word: OwnerWord,
    asked: u32,
    /// When the next question, the verdict, or the end of the memory is due.
    next: Instant,
}

impl Case {
    fn is_silent(&self) -> bool {
        self.asked > QUESTIONS
    }
}

/// The questions that are open, by VIP slot.
#[derive(Clone, Debug, Default)]
pub(super) struct SilentOwners {
    cases: BTreeMap<u32, Case>,
    /// Members here that used a VIP whose owner is on another host, which was told: with the owner's word then.
    elsewhere: BTreeMap<u32, (OwnerWord, u32)>,
    /// Events that were lost.
    lost: u64,
}

impl SilentOwners {
    /// A member that does not own the VIP used it; `word` is the VIP's present word.
    pub(super) fn member_uses(&mut self, slot: u32, word: OwnerWord, now: Instant) -> Use {
        match self.cases.get(&slot) {
            Some(case) if case.word == word && case.is_silent() && now < case.next => {
                self.cases.remove(&slot);
                Use::TakesOver(word)
            }
            Some(case) if case.word == word && !case.is_silent() => Use::Asking,
            _ => {
                self.cases.insert(slot, Case { word, asked: 0, next: now });
                Use::Asking
            }
        }
    }

    /// A member here uses a VIP whose owner is on another host, and that host is told.
    pub(super) fn uses_elsewhere(&mut self, slot: u32, word: OwnerWord, member: u32) {
        self.elsewhere.insert(slot, (word, member));
    }

    /// The owner of an epoch is silent, says its host. The member that uses the VIP, and the word that it takes over from; `None`: nobody
    /// has used it since that one became the owner.
    pub(super) fn silent_elsewhere(&mut self, slot: u32, epoch: u64) -> Option<(OwnerWord, u32)> {
        let (word, member) = self.elsewhere.remove(&slot)?;
        (word.epoch() == epoch).then_some((word, member))
    }

    /// The port with this index answered for the VIP.
    pub(super) fn answered(&mut self, slot: u32, port: u32) {
        if self.cases.get(&slot).is_some_and(|case| case.word.port() == port) {
            self.cases.remove(&slot);
        }
    }

    /// A question could not be sent: silence means nothing, and the next use asks anew.
    pub(super) fn not_asked(&mut self, slot: u32) {
        self.cases.remove(&slot);
    }

    /// So many events were lost until now. If there are more than at the last call, an answer may be among them: all cases are forgotten.
    pub(super) fn events_lost(&mut self, lost: u64) {
        if std::mem::replace(&mut self.lost, lost) != lost {
            self.cases.clear();
        }
    }

    /// The questions to ask now, as (slot, word of the owner to ask). Call again at [`Self::next`].
    pub(super) fn due(&mut self, now: Instant) -> Vec<(u32, OwnerWord)> {
        self.cases.retain(|_, case| !(case.is_silent() && case.next <= now));
        let mut questions = Vec::new();
        for (&slot, case) in self.cases.iter_mut().filter(|(_, case)| case.next <= now) {
            case.asked += 1;
            if case.is_silent() {
                case.next = now + MEMORY;
            } else {
                case.next = now + BETWEEN;
                questions.push((slot, case.word));
            }
        }
        questions
    }

    /// When [`Self::due`] has something to do.
    pub(super) fn next(&self) -> Option<Instant> {
        self.cases.values().map(|case| case.next).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORD: OwnerWord = OwnerWord::new(7, true, 1, 0);

    /// Lets the time pass until nothing is asked any more; returns the questions and when they were over.
    fn run(silent: &mut SilentOwners, start: Instant) -> (usize, Instant) {
        let mut now = start;
        let mut questions = 0;
        while let Some(next) = silent.next().filter(|next| *next < start + Duration::from_secs(2)) {
            now = next.max(now);
            questions += silent.due(now).len();
        }
        (questions, now)
    }

    #[test]
    fn three_questions_within_a_second_and_then_the_member_that_goes_on_takes_over() {
        let start = Instant::now();
        let mut silent = SilentOwners::default();
        assert_eq!(silent.member_uses(4, WORD, start), Use::Asking);
        let (questions, over) = run(&mut silent, start);
        assert_eq!(questions, 3);
        assert!(over - start <= Duration::from_secs(1));
        assert_eq!(silent.member_uses(4, WORD, over), Use::TakesOver(WORD));
        assert_eq!(silent.next(), None);
    }

    #[test]
    fn nobody_takes_over_while_questions_are_open() {
        let start = Instant::now();
        let mut silent = SilentOwners::default();
        for elapsed in [0, 200, 400, 800] {
            let now = start + Duration::from_millis(elapsed);
            assert_eq!(silent.member_uses(4, WORD, now), Use::Asking);
            silent.due(now);
        }
    }

    #[test]
    fn an_answer_ends_the_case_and_the_next_use_asks_again() {
        let start = Instant::now();
        let mut silent = SilentOwners::default();
        silent.member_uses(4, WORD, start);
        assert_eq!(silent.due(start), [(4, WORD)]);
        silent.answered(4, 1);
        assert_eq!(silent.next(), None);
        assert_eq!(silent.member_uses(4, WORD, start + Duration::from_secs(2)), Use::Asking);
        assert_eq!(run(&mut silent, start + Duration::from_secs(2)).0, 3);
    }

    #[test]
    fn an_owner_that_could_not_be_asked_is_not_silent() {
        let start = Instant::now();
        let mut silent = SilentOwners::default();
        silent.member_uses(4, WORD, start);
        assert_eq!(silent.due(start), [(4, WORD)]);
        silent.not_asked(4);
        assert_eq!(silent.next(), None);
        let later = start + Duration::from_secs(2);
        assert_eq!(silent.member_uses(4, WORD, later), Use::Asking);
        assert_eq!(run(&mut silent, later).0, 3);
    }

    #[test]
    fn an_answer_by_somebody_else_does_not_count() {
        let start = Instant::now();
        let mut silent = SilentOwners::default();
        silent.member_uses(4, WORD, start);
        silent.answered(4, 2);
        assert_eq!(silent.due(start), [(4, WORD)]);
    }

    #[test]
    fn another_owner_is_asked_anew() {
        let start = Instant::now();
        let mut silent = SilentOwners::default();
        silent.member_uses(4, WORD, start);
        let (_, over) = run(&mut silent, start);
        let other = OwnerWord::new(8, true, 2, 0);
        assert_eq!(silent.member_uses(4, other, over), Use::Asking);
        assert_eq!(silent.due(over), [(4, other)]);
    }

    #[test]
    fn silence_while_events_were_lost_does_not_count() {
        let start = Instant::now();
        let mut silent = SilentOwners::default();
        silent.events_lost(3);
        silent.member_uses(4, WORD, start);
        let (_, over) = run(&mut silent, start);
        silent.events_lost(3);
        assert_eq!(silent.clone().member_uses(4, WORD, over), Use::TakesOver(WORD));
        silent.events_lost(4);
        assert_eq!(silent.member_uses(4, WORD, over), Use::Asking);
        assert_eq!(run(&mut silent, over).0, 3);
    }

    #[test]
    fn silence_of_long_ago_does_not_count() {
        let start = Instant::now();
        let mut silent = SilentOwners::default();
        silent.member_uses(4, WORD, start);
        let (_, over) = run(&mut silent, start);
        assert_eq!(silent.member_uses(4, WORD, over + MEMORY), Use::Asking);
    }

    #[test]
    fn silence_of_long_ago_is_forgotten() {
        let start = Instant::now();
        let mut silent = SilentOwners::default();
        silent.member_uses(4, WORD, start);
        let (_, over) = run(&mut silent, start);
        assert_eq!(silent.due(over + MEMORY), []);
        assert_eq!(silent.next(), None);
    }
}
