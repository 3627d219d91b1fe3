//! How the demo's words look: colours on a terminal, none in a pipe (anstream sees to that, and to `NO_COLOR`).

use std::time::Duration;

use anstyle::{AnsiColor, Style};

/// What the eye should find first.
pub(super) const BOLD: Style = Style::new().bold();

/// What it may skip.
pub(super) const DIM: Style = Style::new().dimmed();

/// Good news.
pub(super) const GOOD: Style = AnsiColor::Green.on_default().bold();

/// Bad news.
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();

/// A duration as a person reads it: three digits or so, in the unit that fits.
pub(super) fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds >= 1.0 {
        format!("{seconds:.2} s")
    } else if seconds >= 0.001 {
        format!("{:.2} ms", seconds * 1e3)
    } else {
        format!("{:.0} µs", seconds * 1e6)
    }
}

/// "1 page", "2 pages".
pub(super) fn count(number: usize, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_the_unit_that_fits() {
        for (micros, text) in [(31, "31 µs"), (412, "412 µs"), (1412, "1.41 ms"), (2_412_345, "2.41 s")] {
            assert_eq!(time(Duration::from_micros(micros)), text);
        }
    }

    #[test]
    fn one_is_singular() {
        assert_eq!((count(0, "page"), count(1, "page")), ("0 pages".to_owned(), "1 page".to_owned()));
    }
}
