//! The fixture table on the host engine: no privileges, no kernel. Each case is a test of its own name.

use std::collections::HashSet;

use libtest_mimic::{Arguments, Failed, Trial};
use vip_lab::fixtures::{self, engine};

fn main() {
    let arguments = Arguments::from_args();
    let fixtures = fixtures::all();
    let names: Vec<String> = fixtures.iter().map(|fixture| fixture.name.clone()).collect();
    let mut trials: Vec<Trial> = fixtures
        .into_iter()
        .map(|fixture| {
            Trial::test(fixture.name.clone(), move || engine::judge(&fixture).map_err(Failed::from))
        })
        .collect();
    trials.push(Trial::test("the_table_has_every_case_once", move || {
        let distinct: HashSet<_> = names.iter().collect();
        if distinct.len() < names.len() {
            return Err(Failed::from(format!("{} cases, {} names", names.len(), distinct.len())));
        }
        Ok(())
    }));
    libtest_mimic::run(&arguments, trials).exit();
}
