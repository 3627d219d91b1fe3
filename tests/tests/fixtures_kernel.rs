//! The fixture table through the loaded programs: needs root and a built object. Each case is a test of its own name, and must
//! do what the table says and, in every byte, what the host engine does.

use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
use vip_common::pipeline::Stage;
use vip_lab::{
    Lab,
    fixtures::{
        self, Fixture, Program,
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
    let from_outside: Vec<Fixture> = fixtures
        .iter()
        .filter(|fixture| fixture.program == Program::Uplink(Stage::Tc) && fixture.engine_only().is_none())
        .cloned()
        .collect();
    let shared = Arc::clone(kernel);
    let in_buffers = Trial::test("frames_in_several_buffers_come_out_as_whole_ones", move || {
        all_in_buffers(&from_outside, &shared)
    });
    let trials = fixtures
        .into_iter()
        .filter(|fixture| fixture.engine_only().is_none())
        .map(|fixture| {
            let kernel = Arc::clone(kernel);
            Trial::test(fixture.name.clone(), move || both(&fixture, &kernel))
        })
        .chain([in_buffers])
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

/// Runs all frames with their first buffer ending everywhere where a header, or what is read of it, does.
fn all_in_buffers(fixtures: &[Fixture], kernel: &Shared) -> Result<(), Failed> {
    /// Ethernet, IPv4, ports, VXLAN, checksums of UDP and TCP, options, and what is inside VXLAN; one byte less; and nearly all.
    const ENDS: [usize; 19] = [14, 15, 33, 34, 35, 41, 42, 49, 50, 51, 52, 54, 64, 74, 83, 84, 91, 94, 123];
    let mut kernel = kernel.lock().unwrap_or_else(PoisonError::into_inner);
    let kernel = kernel.as_mut().ok_or("the programs are not loaded")?;
    let (mut by_xdp, mut by_tc) = (0, 0);
    for fixture in fixtures {
        let length = end_of_packet(&fixture.frame);
        for near in
            ENDS.into_iter().chain([length.saturating_sub(1)]).filter(|near| (14..length).contains(near))
        {
            match kernel.judge_in_buffers(fixture, u32::try_from(near)?)? {
                Some(true) => by_xdp += 1,
                Some(false) => by_tc += 1,
                None => {
                    println!(
                        "skipped: frames in several buffers: this kernel's test run does not make them (Linux 6.18 does)"
                    );
                    return Ok(());
                }
            }
        }
    }
    // Otherwise one of the two ways was never gone.
    if by_xdp == 0 || by_tc == 0 {
        return Err(Failed::from(format!("XDP decided {by_xdp} times, and left {by_tc} frames to TC")));
    }
    Ok(())
}

/// Where the frame ends without the padding behind an IPv4 packet: no driver has a buffer for that alone.
fn end_of_packet(frame: &[u8]) -> usize {
    match (frame.get(12..14), frame.get(16..18)) {
        (Some([8, 0]), Some(&[high, low])) => {
            frame.len().min(14 + usize::from(u16::from_be_bytes([high, low])))
        }
        _ => frame.len(),
    }
}
