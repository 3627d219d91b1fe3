//! The kernel's receive times on the scale of [`Instant`].
//!
//! The kernel stamps packets with the wall clock; a test compares times of several namespaces and threads and needs
//! the steady one. A packet's stamp says when the receiving stack saw it, not when a reader thread woke up.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::time::TimeSpec;

/// Readings of both clocks are taken this often, and the pair read within the shortest time counts.
const READINGS: usize = 16;

/// One moment, read from both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    steady: Instant,
    wall: Duration,
}

impl Clock {
    /// Reads both clocks. The pair drifts apart only if somebody sets the wall clock meanwhile.
    pub(crate) fn read() -> Self {
        let mut best: Option<(Duration, Instant, SystemTime)> = None;
        for _ in 0..READINGS {
            let before = Instant::now();
            let wall = SystemTime::now();
            let width = before.elapsed();
            if best.is_none_or(|(narrowest, ..)| width < narrowest) {
                best = Some((width, before, wall));
            }
        }
        let (_, steady, wall) = best.unwrap_or((Duration::ZERO, Instant::now(), SystemTime::now()));
        Self { steady, wall: wall.duration_since(UNIX_EPOCH).unwrap_or_default() }
    }

    /// The steady time of a packet's stamp.
    pub(crate) fn instant(&self, stamp: TimeSpec) -> Instant {
        let stamp = Duration::from(stamp);
        match stamp.checked_sub(self.wall) {
            Some(later) => self.steady + later,
            None => self.steady.checked_sub(self.wall.saturating_sub(stamp)).unwrap_or(self.steady),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_keep_their_distances() {
        let clock = Clock::read();
        let early =
            clock.instant(TimeSpec::from_duration(clock.wall.saturating_sub(Duration::from_millis(5))));
        let late = clock.instant(TimeSpec::from_duration(clock.wall + Duration::from_millis(7)));
        assert_eq!(late.duration_since(early), Duration::from_millis(12));
    }
}
