//! Every finding of the fuzz targets, by its name. Needs no privileges and no other compiler.

use libtest_mimic::{Arguments, Failed, Trial};
use vip_fuzz::regressions;

fn main() {
    let arguments = Arguments::from_args();
    let failed = |error: anyhow::Error| Failed::from(format!("{error:#}"));
    let mut trials: Vec<Trial> = regressions::ALL
        .iter()
        .map(|(name, _)| Trial::test(*name, move || regressions::replay(name).map_err(failed)))
        .collect();
    trials.push(Trial::test("every_file_is_a_regression_that_runs", move || {
        regressions::check_folder().map_err(failed)
    }));
    libtest_mimic::run(&arguments, trials).exit();
}
