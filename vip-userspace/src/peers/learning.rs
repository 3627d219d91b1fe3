//! The time in which a host with new tables learns what the others know.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::word::Vip;

/// How long a host with new tables waits for what the others know.
const WAIT: Duration = Duration::from_secs(3);

/// How long it waits until it can ask them at all: the underlay may come up later than vipd.
const WAIT_FOR_UNDERLAY: Duration = Duration::from_secs(30);

/// That time.
#[derive(Debug, Default)]
pub(super) struct Learning {
    /// Its end; `None`: the other hosts are not known yet.
    until: Option<Instant>,
    /// Whether they can be asked.
    is_reachable: bool,
    /// VIPs that guests of this host have claimed, with the highest epoch that the others told of.
    held: BTreeMap<Vip, u64>,
}

impl Learning {
    /// The other hosts are known.
    pub(super) fn begin(&mut self, now: Instant) {
        self.until.get_or_insert(now + WAIT_FOR_UNDERLAY);
    }

    /// They can be asked from now on.
    pub(super) fn reachable(&mut self, now: Instant) {
        if !self.is_reachable {
            self.is_reachable = true;
            self.end_by(now + WAIT);
        }
    }

    /// It ends then at the latest, if it has begun.
    pub(super) fn end_by(&mut self, latest: Instant) {
        self.until = self.until.map(|until| until.min(latest));
    }

    /// Another host remembers this epoch of a VIP that a guest of this host has claimed.
    pub(super) fn hear(&mut self, vip: Vip, epoch: u64) {
        let highest = self.held.entry(vip).or_default();
        *highest = (*highest).max(epoch);
    }

    /// When it ends.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Whether it has ended.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// VIPs that guests of this host have claimed meanwhile, with the highest epoch that the others told of.
    pub(super) fn into_held(self) -> BTreeMap<Vip, u64> {
        self.held
    }
}
