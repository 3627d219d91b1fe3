//! What the machine says on its serial console, as values.

use std::fmt;

use crate::tally::Tally;

/// Begins each line of the machine's first process.
const MARK: &str = "@@vm ";

/// What came out of one boot so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// The kernel's release, once it has booted.
    pub(crate) release: Option<String>,
    /// Results of all test programs.
    pub(crate) tally: Tally,
    /// Tests that were skipped, each with its reason.
    pub(crate) skipped: Vec<String>,
    /// Commands that ended with another status than 0, with that.
    pub(crate) failures: Vec<(String, i32)>,
    /// Commands that ran no test.
    pub(crate) idle: Vec<String>,
    /// How many tests had ended before the command that runs at this moment.
    before: u32,
    /// The command that runs at this moment.
    pub(crate) running: Option<String>,
    /// Why the first process gave up.
    pub(crate) broken: Option<String>,
    /// What `vipd --check-programs --json` printed.
    pub(crate) programs: Option<String>,
    /// Whether every command was run to its end.
    pub(crate) done: bool,
}

impl Report {
    /// Takes in a line, and says what of it is for people.
    pub(crate) fn read<'a>(&mut self, line: &'a str) -> Shown<'a> {
        // The kernel's own messages may precede the mark on a line that they interrupted.
        let Some((_, message)) = line.split_once(MARK) else {
            self.tally.read(line);
            self.skipped.extend(line.strip_prefix(vip_lab::SKIPPED).map(str::to_owned));
            if line.starts_with("{\"kernel\":") {
                self.programs = Some(line.to_owned());
                return Shown::Nothing;
            }
            return Shown::Line(line);
        };
        let (word, rest) = message.split_once(' ').unwrap_or((message, ""));
        match word {
            "booted" => {
                self.release = Some(rest.to_owned());
                Shown::Booted(rest)
            }
            "begin" => {
                self.running = Some(rest.to_owned());
                self.before = self.ended();
                Shown::Begin(rest)
            }
            "end" => {
                self.running = None;
                let (name, status) = rest.rsplit_once(' ').unwrap_or((rest, ""));
                match status.parse() {
                    Ok(0) => {}
                    Ok(status) => self.failures.push((name.to_owned(), status)),
                    Err(_) => self.broken = Some(format!("nobody understands \"{line}\"")),
                }
                if self.ended() == self.before {
                    self.idle.push(name.to_owned());
                }
                Shown::Nothing
            }
            "broken" => {
                self.broken = Some(rest.to_owned());
                Shown::Line(line)
            }
            "done" => {
                self.done = true;
                Shown::Nothing
            }
            _ => Shown::Line(line),
        }
    }

    /// How many tests have ended so far.
    fn ended(&self) -> u32 {
        self.tally.passed + self.tally.failed
    }
}

/// What people see of a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Shown<'a> {
    /// The line itself.
    Line(&'a str),
    /// That the kernel of this release has booted.
    Booted(&'a str),
    /// That a command of this name begins.
    Begin(&'a str),
    /// Nothing.
    Nothing,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.tally)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_is_read_to_its_end() {
        let mut report = Report::default();
        assert_eq!(report.read("[    0.1] x@@vm booted 6.1.0"), Shown::Booted("6.1.0"));
        assert_eq!(report.read("@@vm begin lab"), Shown::Begin("lab"));
        assert_eq!(report.running.as_deref(), Some("lab"));
        let result = "test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(report.read(result), Shown::Line(result));
        let skipped = "skipped: a: needs a kernel of tomorrow";
        assert_eq!(report.read(skipped), Shown::Line(skipped));
        assert_eq!(report.skipped, ["a: needs a kernel of tomorrow"]);
        assert_eq!(report.read("@@vm end lab 0"), Shown::Nothing);
        assert_eq!(report.read("@@vm begin traffic"), Shown::Begin("traffic"));
        assert_eq!(report.read("@@vm end traffic 101"), Shown::Nothing);
        assert!(!report.done);
        assert_eq!(report.read("@@vm done"), Shown::Nothing);
        assert!(report.done && report.running.is_none() && report.broken.is_none());
        assert_eq!(report.failures, [("traffic".to_owned(), 101)]);
        assert_eq!(report.idle, ["traffic"]);
        assert_eq!((report.tally.passed, report.tally.skipped), (5, 1));
        assert_eq!(report.release.as_deref(), Some("6.1.0"));
    }

    #[test]
    fn a_machine_that_gives_up_says_why() {
        let mut report = Report::default();
        report.read("@@vm broken cannot mount bpf");
        assert_eq!(report.broken.as_deref(), Some("cannot mount bpf"));
        report.read("@@vm end lab");
        assert!(report.broken.is_some());
    }
}
