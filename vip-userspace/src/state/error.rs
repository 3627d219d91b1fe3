//! What is wrong with a file, one line per problem.

use std::{
    fmt::{self, Write as _},
    io,
    path::PathBuf,
};

/// One thing that is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, counted from 1; none where no line is to blame.
    pub line: Option<u32>,
    /// What it is about: kind and id of an object (`port nginx-master`), a field, or the document.
    pub subject: String,
    /// What is wrong, and why.
    pub what: String,
    /// What to do.
    pub advice: String,
}

/// All problems of one file, in the order of their lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    /// Where the text came from, as errors show it: a path.
    origin: String,
    list: Vec<Problem>,
}

impl Problems {
    /// Sorts the problems by line; those without a line stand first.
    pub(crate) fn new(origin: &str, mut list: Vec<Problem>) -> Self {
        list.sort_by_key(|problem| problem.line);
        Self { origin: origin.to_owned(), list }
    }

    /// The problems in the order of their lines.
    pub fn list(&self) -> &[Problem] {
        &self.list
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Problem { line, subject, what, advice }) in self.list.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:", self.origin)?;
            if let Some(line) = line {
                write!(f, "{line}:")?;
            }
            write!(f, " {}: {}; {}", OneLine(subject), OneLine(what), OneLine(advice))?;
        }
        Ok(())
    }
}

/// Text whose control characters are escaped: it quotes what somebody wrote, and must neither begin a new line
/// nor steer a terminal.
struct OneLine<'t>(&'t str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            c if c.is_control() => write!(f, "{}", c.escape_default()),
            c => f.write_char(c),
        })
    }
}

/// Why a [`State`](super::State) was refused. A refused state changes nothing.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file cannot be read as text.
    #[error("{}: the state cannot be read; correct the path, or the file's permissions or encoding (UTF-8)", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The text was read and is wrong: each line of the message is one problem.
    #[error("{0}")]
    Invalid(Problems),
}

impl StateError {
    /// The problems of a text that was read; none where it could not be read.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Read { .. } => &[],
            Self::Invalid(problems) => problems.list(),
        }
    }
}

/// Collects problems, so that one look shows an operator all of them.
#[derive(Debug, Default)]
pub(crate) struct Report {
    problems: Vec<Problem>,
}

impl Report {
    /// Notes one problem.
    pub(crate) fn add(
        &mut self,
        line: impl Into<Option<u32>>,
        subject: impl fmt::Display,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.problems.push(Problem {
            line: line.into(),
            subject: subject.to_string(),
            what: what.into(),
            advice: advice.into(),
        });
    }

    /// The value, if nothing was noted; else all that was. No value without a note is the caller's mistake.
    pub(crate) fn finish<T>(self, origin: &str, value: Option<T>) -> Result<T, Problems> {
        debug_assert!(value.is_some() || !self.problems.is_empty(), "a refusal without a reason");
        match value {
            Some(value) if self.problems.is_empty() => Ok(value),
            _ => Err(Problems::new(origin, self.problems)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_line_end_begins_no_new_line() {
        let mut report = Report::default();
        report.add(7, "vip a\nb", "it has \u{1b}[31m", "correct it");
        let problems = report.finish("f.yaml", None::<()>).expect_err("a problem was noted");
        assert_eq!(problems.to_string(), "f.yaml:7: vip a\\nb: it has \\u{1b}[31m; correct it");
    }
}
