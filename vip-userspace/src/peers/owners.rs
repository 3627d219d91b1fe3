//! Who owns what on this host, as the protocol sees it.

use super::word::{BUCKETS, Vip, Word};

/// What became of a word that was to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// It was.
    Done,
    /// It had become another word meanwhile.
    Changed,
    /// The VIP is not known here, or not that its new owner may own it: it can be later.
    Unknown,
}

/// The owners' words on this host.
pub trait Owners {
    /// The present word of a VIP; `None`: the VIP is not known here, or its owner has no name.
    fn word(&self, vip: Vip) -> Option<Word>;

    /// Replaces the word of a VIP, if it is still `old`.
    fn replace(&mut self, vip: Vip, old: &Word, new: &Word) -> Replaced;

    /// A claim that waits here was overtaken by one on another host.
    fn overtake(&mut self, vip: Vip);

    /// For each bucket the sum of the prints of all VIPs in it, wrapping.
    fn sums(&self) -> [u64; BUCKETS];

    /// The next VIP at or behind a place, and the place behind it; places begin at 0.
    fn next(&self, place: u32) -> Option<(u32, Vip)>;
}
