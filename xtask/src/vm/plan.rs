//! What the machine's first process is to do, in the words that it reads (`tests/vm-init`).

use std::fmt;

/// A plan; none of its words holds a blank.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// Modules to load, in this order, by path.
    pub(crate) modules: Vec<String>,
    /// What every command finds in its environment.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// What to run, in this order.
    pub(crate) commands: Vec<Command>,
}

/// One command of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// Its name in reports.
    pub(crate) name: String,
    /// Program and arguments.
    pub(crate) words: Vec<String>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { modules, environment, commands } = self;
        for module in modules {
            writeln!(f, "module {module}")?;
        }
        for (name, value) in environment {
            writeln!(f, "environment {name} {value}")?;
        }
        for Command { name, words } in commands {
            writeln!(f, "run {name} {}", words.join(" "))?;
        }
        Ok(())
    }
}
