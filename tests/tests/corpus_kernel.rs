//! The corpus through the loaded programs: needs root and a built object. Each class of packets is a test; with a filter that is part
//! of no class, each packet is one.

use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
use vip_lab::{
    Lab, corpus,
    fixtures::{
        Fixture,
        kernel::{Addresses, Kernel},
    },
};

/// Loaded before the first case runs; not when tests are only listed, which needs no privileges.
type Shared = Arc<Mutex<Option<Kernel>>>;

fn main() {
    let arguments = Arguments::from_args();
    if arguments.list {
        run(&arguments, &Shared::default()).exit();
    }
    let mut conclusion = None;
    Lab::run(|lab| {
        let kernel = Arc::new(Mutex::new(Some(Kernel::load(lab)?)));
        conclusion = Some(run(&arguments, &kernel));
        // The object goes before the namespace does.
        *kernel.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    });
    if let Some(conclusion) = conclusion {
        conclusion.exit();
    }
}

fn run(arguments: &Arguments, kernel: &Shared) -> Conclusion {
    let trials = match corpus::tests(arguments.filter.as_deref()) {
        Ok(tests) => tests
            .into_iter()
            .map(|(name, fixtures)| {
                let kernel = Arc::clone(kernel);
                Trial::test(name, move || judge(&fixtures, &kernel))
            })
            .collect(),
        Err(error) => vec![Trial::test("corpus", move || Err(Failed::from(format!("{error:#}"))))],
    };
    libtest_mimic::run(arguments, trials)
}

fn judge(fixtures: &[Fixture], kernel: &Shared) -> Result<(), Failed> {
    let mut kernel = kernel.lock().unwrap_or_else(PoisonError::into_inner);
    let kernel = kernel.as_mut().ok_or("the programs are not loaded")?;
    // How addresses lie in the tables is the fixtures' business.
    corpus::judge(fixtures, |fixture| kernel.judge(fixture, Addresses::Scattered))?;
    Ok(())
}
