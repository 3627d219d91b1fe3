//! The fixture table through the loaded programs: needs root and a built object. Each case is a test of its own name, and must
//! do what the table says and, in every byte, what the host engine does.

use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
use vip_lab::{
    Lab,
    fixtures::{
        self, Fixture,
        kernel::{Addresses, Kernel},
    },
};

/// Loaded by the first case that runs, so that listing needs no privileges.
type Shared = Arc<Mutex<Option<Kernel>>>;

fn main() {
    let arguments = Arguments::from_args();
    let fixtures = fixtures::all();
    for (fixture, why) in fixtures.iter().filter_map(|fixture| Some((fixture, fixture.engine_only()?))) {
        println!("on the engine only: {}: {why}", fixture.name);
    }
    if arguments.list {
        run(&arguments, fixtures, &Shared::default()).exit();
    }
    let mut conclusion = None;
    Lab::run(|lab| {
        let kernel = Arc::new(Mutex::new(Some(Kernel::load(lab)?)));
        conclusion = Some(run(&arguments, fixtures, &kernel));
        // The object goes before the namespace does.
        *kernel.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    });
    if let Some(conclusion) = conclusion {
        conclusion.exit();
    }
}

fn run(arguments: &Arguments, fixtures: Vec<Fixture>, kernel: &Shared) -> Conclusion {
    let trials = fixtures
        .into_iter()
        .filter(|fixture| fixture.engine_only().is_none())
        .map(|fixture| {
            let kernel = Arc::clone(kernel);
            Trial::test(fixture.name.clone(), move || both(&fixture, &kernel))
        })
        .collect();
    libtest_mimic::run(arguments, trials)
}

fn both(fixture: &Fixture, kernel: &Shared) -> Result<(), Failed> {
    let mut kernel = kernel.lock().unwrap_or_else(PoisonError::into_inner);
    let kernel = kernel.as_mut().ok_or("the programs are not loaded")?;
    for addresses in [Addresses::Scattered, Addresses::Crowded] {
        kernel
            .judge(fixture, addresses)
            .map_err(|error| Failed::from(format!("addresses {addresses:?}: {error}")))?;
    }
    Ok(())
}
