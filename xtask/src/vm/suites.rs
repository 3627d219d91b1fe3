//! The test programs that run in the machine, and which of their tests.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};

use crate::artifacts::{self, Artifacts};
use crate::test;
use crate::vm::image::HOME;
use crate::vm::plan::Command;
use crate::workspace::Workspace;

/// What shows soon that a kernel forwards: the suite whose uplink is the machine's own network card, and of the labs of several hosts the test
/// that speaks TCP with a VIP on another host, by VXLAN and from outside, before and after the VIP has moved to a third one.
pub(crate) const SMOKE: [&str; 2] =
    ["virtio", "hosts::connections_end_by_a_reset_or_go_on_when_the_vip_moves"];

/// Between a suite's name and a part of the names of its tests, also in the name of the command that runs these.
const OF_SUITE: &str = "::";

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

    /// Runs the tests whose names contain `part`, some of which must be of this suite.
    fn command_of(&self, part: &str) -> Command {
        Command { name: format!("{}{OF_SUITE}{part}", self.name), ..self.command(Some(part)) }
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

/// What to run: all suites without `tests`; or those that `tests` names, of those it names with a part (`hosts::moves`) the tests whose
/// names contain that, and in the others the tests whose names contain one of the rest.
pub(crate) fn commands(suites: &[Suite], tests: &[String]) -> Result<Vec<Command>> {
    if let Some(test) = tests.iter().find(|test| test.is_empty() || test.contains(char::is_whitespace)) {
        bail!("\"{test}\" is part of no test's name");
    }
    let named = |name: &str| suites.iter().any(|suite| suite.name == name);
    let mut commands = Vec::new();
    for suite in suites {
        if tests.is_empty() || tests.contains(&suite.name) {
            commands.push(suite.command(None));
            continue;
        }
        // One at a time: not every test program takes several.
        commands.extend(tests.iter().filter(|test| !named(test)).filter_map(|test| {
            match test.split_once(OF_SUITE) {
                Some((name, part)) if named(name) => (name == suite.name).then(|| suite.command_of(part)),
                _ => Some(suite.command(Some(test))),
            }
        }));
    }
    Ok(commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suites() -> Vec<Suite> {
        ["hosts", "lab", "virtio"]
            .map(|name| Suite { name: name.to_owned(), executable: PathBuf::new() })
            .into()
    }

    fn words(tests: &[&str]) -> Vec<String> {
        let tests: Vec<_> = tests.iter().map(|&test| test.to_owned()).collect();
        let commands = commands(&suites(), &tests).expect("a plan");
        commands.iter().map(|command| command.words.join(" ")).collect()
    }

    #[test]
    fn tests_are_chosen_by_suite_or_by_part_of_their_name() {
        let [hosts, lab, virtio] =
            ["hosts", "lab", "virtio"].map(|name| format!("/vm/tests/{name} --test-threads=1"));
        assert_eq!(words(&[]), [hosts.as_str(), &lab, &virtio]);
        assert_eq!(words(&["lab"]), [lab.as_str()]);
        let ping = [&hosts, &lab, &virtio].map(|suite| format!("{suite} ping"));
        assert_eq!(words(&["ping"]), ping);
        let [hosts_ping, lab_ping, _] = ping;
        assert_eq!(words(&["virtio", "ping"]), [hosts_ping.as_str(), &lab_ping, &virtio]);
        assert_eq!(words(&["hosts::ping", "virtio"]), [hosts_ping.as_str(), &virtio]);
        // A path of a test's module is no suite's name.
        assert_eq!(
            words(&["moves::ping", "lab", "virtio"]),
            [format!("{hosts} moves::ping").as_str(), &lab, &virtio]
        );
    }

    #[test]
    fn a_smoke_test_runs_of_two_suites() {
        let [hosts, virtio] = words(&SMOKE).try_into().expect("two commands");
        assert!(hosts.starts_with("/vm/tests/hosts --test-threads=1 connections_end"), "{hosts}");
        assert_eq!(virtio, "/vm/tests/virtio --test-threads=1");
    }

    #[test]
    fn a_filter_that_no_name_can_contain_is_refused() {
        assert!(commands(&suites(), &["two words".to_owned()]).is_err());
    }
}
