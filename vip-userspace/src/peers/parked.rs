//! Words about VIPs and ports that the state does not know, which are kept for when it does.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::word::{Vip, Word};
use crate::state::Id;

/// Most of them.
const MOST: usize = 4096;

/// How long they are kept: as long as any host that is up knows one, comparing tells it again more often. One that nobody knows any more may
/// be of a VIP's former life.
const FOR: Duration = Duration::from_secs(120);

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Parked {
    pub(super) word: Word,
    /// The host that told it last, and when.
    pub(super) sender: Id,
    pub(super) at: Instant,
}

/// All of them, the highest of each VIP.
#[derive(Debug, Default)]
pub(super) struct ParkedWords(BTreeMap<Vip, Parked>);

impl ParkedWords {
    /// Keeps a word, or the one that is there if that is higher. Tells whether there was room.
    pub(super) fn put(&mut self, vip: Vip, parked: Parked) -> bool {
        match self.0.get(&vip) {
            Some(before) if before.word.order() > parked.word.order() => {}
            None if self.0.len() >= MOST => return false,
            Some(_) | None => {
                self.0.insert(vip, parked);
            }
        }
        true
    }

    /// All that were told not long ago; none is kept.
    pub(super) fn take(&mut self, now: Instant) -> BTreeMap<Vip, Parked> {
        self.forget_old(now);
        std::mem::take(&mut self.0)
    }

    /// Forgets those that were told long ago.
    pub(super) fn forget_old(&mut self, now: Instant) {
        self.0.retain(|_, parked| now < parked.at + FOR);
    }

    /// Forgets what is kept about a VIP, unless it is higher than `word`.
    pub(super) fn overtaken(&mut self, vip: Vip, word: &Word) {
        if self.0.get(&vip).is_some_and(|parked| parked.word.order() <= word.order()) {
            self.0.remove(&vip);
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
