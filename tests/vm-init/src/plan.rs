//! What to do: a file in the image, one word list a line, written by `cargo xtask vm`.

use std::fs;

use anyhow::{Context as _, Result, bail};

/// Where the plan lies.
const PATH: &str = "/vm/plan";

/// The whole plan.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Modules to load, in this order, by path.
    pub(crate) modules: Vec<String>,
    /// What every command finds in its environment.
    pub(crate) environment: Vec<(String, String)>,
    /// What to run, in this order.
    pub(crate) commands: Vec<Command>,
}

/// One command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// Its name in reports.
    pub(crate) name: String,
    /// The program, by path.
    pub(crate) program: String,
    /// Its arguments, none of which holds a blank.
    pub(crate) arguments: Vec<String>,
}

/// Reads the plan of this boot.
pub(crate) fn read() -> Result<Plan> {
    let text = fs::read_to_string(PATH).with_context(|| format!("cannot read {PATH}"))?;
    parse(&text)
}

fn parse(text: &str) -> Result<Plan> {
    let mut plan = Plan::default();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["module", path] => plan.modules.push((*path).to_owned()),
            ["environment", name, value] => plan.environment.push(((*name).to_owned(), (*value).to_owned())),
            ["run", name, program, arguments @ ..] => plan.commands.push(Command {
                name: (*name).to_owned(),
                program: (*program).to_owned(),
                arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            }),
            _ => bail!("{PATH}: nobody understands \"{line}\""),
        }
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_line_by_line() {
        let text = "module /m/a.ko\nenvironment VIPD /vm/vipd\nrun lab /vm/tests/lab --test-threads=1 ping\n";
        let plan = parse(text).expect("a plan");
        assert_eq!(plan.modules, ["/m/a.ko"]);
        assert_eq!(plan.environment, [("VIPD".to_owned(), "/vm/vipd".to_owned())]);
        let [command] = plan.commands.as_slice() else { panic!("one command: {plan:?}") };
        assert_eq!((command.name.as_str(), command.program.as_str()), ("lab", "/vm/tests/lab"));
        assert_eq!(command.arguments, ["--test-threads=1", "ping"]);
    }

    #[test]
    fn an_unknown_line_is_refused() {
        assert!(parse("walk lab\n").is_err());
        assert!(parse("run lab\n").is_err());
    }
}
