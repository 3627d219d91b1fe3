//! The corpus on the host engine: no privileges, no kernel. Each class of packets is a test; with a filter that is part of no class, each
//! packet is one.

use libtest_mimic::{Arguments, Failed, Trial};
use vip_lab::{corpus, fixtures::engine};

fn main() {
    let arguments = Arguments::from_args();
    let trials = match corpus::tests(arguments.filter.as_deref()) {
        Ok(tests) => tests
            .into_iter()
            .map(|(name, fixtures)| {
                Trial::test(name, move || corpus::judge(&fixtures, engine::judge).map_err(Failed::from))
            })
            .collect(),
        Err(error) => vec![Trial::test("corpus", move || Err(Failed::from(format!("{error:#}"))))],
    };
    libtest_mimic::run(&arguments, trials).exit();
}
