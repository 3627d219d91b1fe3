//! The test programs that run in the machine, and which of their tests.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};

use crate::artifacts::{self, Artifacts};
use crate::test;
use crate::vm::image::HOME;
use crate::vm::plan::Command;
use crate::workspace::Workspace;

/// The suite whose uplink is the machine's own network card, and which shows in a minute that a kernel forwards.
const SMOKE: &str = "virtio";

/// Test programs that would find nothing in the machine that differs from here.
const WITHOUT_KERNEL: [&str; 5] = ["api", "corpus_engine", "fixtures_engine", "plan_steps", "state"];

/// A test program.
pub(crate) struct Suite {
    /// Its name.
    pub(crate) name: String,
    /// Its file on this machine.
    pub(crate) executable: PathBuf,
}

impl Suite {
    /// Its file in the machine.
    pub(crate) fn place(&self) -> String {
        format!("{HOME}/tests/{}", self.name)
    }

    fn command(&self, filter: Option<&str>) -> Command {
        let mut words = vec![self.place(), "--test-threads=1".to_owned()];
        words.extend(filter.map(str::to_owned));
        Command { name: self.name.clone(), words }
    }
}

/// Builds all tests that need a kernel: the same programs that `cargo xtask test` runs.
pub(crate) fn build(workspace: &Workspace, built: &Artifacts) -> Result<Vec<Suite>> {
    let suites: Vec<_> = artifacts::tests(test::kernel_tests(workspace, built).arg("--no-run"))?
        .into_iter()
        .filter(|(name, _)| !WITHOUT_KERNEL.contains(&name.as_str()))
        .map(|(name, executable)| Suite { name, executable })
        .collect();
    ensure!(!suites.is_empty(), "cargo built no tests");
    Ok(suites)
}

/// What to run: all suites; or those that `tests` names, and in the others the tests whose names contain one of the rest.
pub(crate) fn commands(suites: &[Suite], tests: &[String], smoke: bool) -> Result<Vec<Command>> {
    if smoke {
        let suite = suites.iter().find(|suite| suite.name == SMOKE);
        let Some(suite) = suite else { bail!("there is no suite {SMOKE}") };
        return Ok(vec![suite.command(None)]);
    }
    if let Some(test) = tests.iter().find(|test| test.is_empty() || test.contains(char::is_whitespace)) {
        bail!("\"{test}\" is part of no test's name");
    }
    let named = |name: &String| suites.iter().any(|suite| suite.name == *name);
    let parts: Vec<&String> = tests.iter().filter(|test| !named(test)).collect();
    let mut commands = Vec::new();
    for suite in suites {
        if tests.is_empty() || tests.contains(&suite.name) {
            commands.push(suite.command(None));
        } else {
            // One at a time: not every test program takes several.
            commands.extend(parts.iter().map(|part| suite.command(Some(part))));
        }
    }
    Ok(commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suites() -> Vec<Suite> {
        ["lab", "virtio"].map(|name| Suite { name: name.to_owned(), executable: PathBuf::new() }).into()
    }

    fn words(tests: &[&str], smoke: bool) -> Vec<String> {
        let tests: Vec<_> = tests.iter().map(|&test| test.to_owned()).collect();
        let commands = commands(&suites(), &tests, smoke).expect("a plan");
        commands.iter().map(|command| command.words.join(" ")).collect()
    }

    #[test]
    fn tests_are_chosen_by_suite_or_by_part_of_their_name() {
        let (lab, virtio) = ("/vm/tests/lab --test-threads=1", "/vm/tests/virtio --test-threads=1");
        assert_eq!(words(&[], false), [lab, virtio]);
        assert_eq!(words(&[], true), [virtio]);
        assert_eq!(words(&["lab"], false), [lab]);
        assert_eq!(words(&["ping"], false), [format!("{lab} ping"), format!("{virtio} ping")]);
        assert_eq!(words(&["virtio", "ping"], false), [format!("{lab} ping"), virtio.to_owned()]);
    }

    #[test]
    fn a_filter_that_no_name_can_contain_is_refused() {
        assert!(commands(&suites(), &["two words".to_owned()], false).is_err());
    }
}
