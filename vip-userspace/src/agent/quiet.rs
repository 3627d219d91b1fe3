//! Keeps the log readable while a guest misbehaves.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Lines that a subject may have in a window.
const LINES: u32 = 3;

/// How long a window is.
const WINDOW: Duration = Duration::from_secs(10);

/// Subjects that are told apart; a guest cannot make more, but a mistake here must not fill the memory.
const SUBJECTS: usize = 4096;

#[derive(Clone, Copy, Debug)]
struct Window {
    since: Instant,
    lines: u32,
    suppressed: u64,
}

/// Lets a few lines per subject through and counts the rest.
#[derive(Clone, Debug, Default)]
pub(super) struct Quiet<K> {
    windows: BTreeMap<K, Window>,
}

impl<K: Ord> Quiet<K> {
    /// Whether to log a line about the subject. `Some(n)`: yes, and n lines before it were kept back.
    pub(super) fn admit(&mut self, subject: K, now: Instant) -> Option<u64> {
        if self.windows.len() >= SUBJECTS {
            self.windows.retain(|_, window| now < window.since + WINDOW);
        }
        if self.windows.len() >= SUBJECTS && !self.windows.contains_key(&subject) {
            return None;
        }
        let window = self.windows.entry(subject).or_insert(Window { since: now, lines: 0, suppressed: 0 });
        let mut before = 0;
        if now >= window.since + WINDOW {
            before = window.suppressed;
            *window = Window { since: now, lines: 0, suppressed: 0 };
        }
        if window.lines < LINES {
            window.lines += 1;
            Some(before)
        } else {
            window.suppressed += 1;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_a_few_lines_and_a_number() {
        let start = Instant::now();
        let mut quiet = Quiet::default();
        let lines = (0..100).filter(|_| quiet.admit(1, start).is_some()).count();
        assert_eq!(lines, 3);
        assert_eq!(quiet.admit(1, start + WINDOW), Some(97));
        assert_eq!(quiet.admit(1, start + WINDOW), Some(0));
    }

    #[test]
    fn one_subject_does_not_silence_another() {
        let start = Instant::now();
        let mut quiet = Quiet::default();
        assert!((0..100).any(|_| quiet.admit(1, start).is_none()));
        assert_eq!(quiet.admit(2, start), Some(0));
    }

    #[test]
    fn the_memory_is_bounded_and_heals() {
        let start = Instant::now();
        let mut quiet = Quiet::default();
        let admitted = (0..2 * SUBJECTS).filter(|subject| quiet.admit(*subject, start).is_some()).count();
        assert_eq!(admitted, SUBJECTS);
        assert_eq!(quiet.admit(usize::MAX, start + WINDOW), Some(0));
    }
}
