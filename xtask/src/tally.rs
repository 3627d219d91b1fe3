//! The sum of what several runs of `cargo test` report.

use std::fmt;

/// Counted results of test programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Tests that held.
    pub(crate) passed: u32,
    /// Tests that did not.
    pub(crate) failed: u32,
    /// Tests that are marked to be left out.
    pub(crate) ignored: u32,
    /// Tests that ended at once because something that they need is not here; test programs call them passed.
    pub(crate) skipped: u32,
    /// Test programs that ended with a report.
    pub(crate) suites: u32,
}

impl Tally {
    /// Takes in a line of output, which counts if it is a test program's report.
    pub(crate) fn read(&mut self, line: &str) {
        // A line of its own, whatever the test program does with the output of tests ([`vip_lab::skip`]).
        if line.starts_with(vip_lab::SKIPPED) {
            self.skipped += 1;
        }
        let Some(report) = line.trim_start().strip_prefix("test result: ") else { return };
        self.suites += 1;
        // "ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s"
        for part in report.split(['.', ';']) {
            let Some((count, what)) = part.trim().split_once(' ') else { continue };
            let Ok(count) = count.parse::<u32>() else { continue };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, ignored, skipped, suites } = self;
        let passed = passed.saturating_sub(*skipped);
        write!(f, "{passed} passed; {failed} failed; {ignored} ignored; ")?;
        if *skipped > 0 {
            write!(f, "{skipped} skipped; ")?;
        }
        write!(f, "{suites} suites")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_add_up_and_other_lines_do_not_count() {
        let mut tally = Tally::default();
        for line in [
            "running 6 tests",
            "test a ... ok",
            "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "",
            "test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.50s",
        ] {
            tally.read(line);
        }
        assert_eq!(tally, Tally { passed: 7, failed: 3, ignored: 1, skipped: 0, suites: 2 });
        assert_eq!(tally.to_string(), "7 passed; 3 failed; 1 ignored; 2 suites");
        tally.read("skipped: a: needs a network card of its own");
        assert_eq!(tally.to_string(), "6 passed; 3 failed; 1 ignored; 1 skipped; 2 suites");
    }
}
