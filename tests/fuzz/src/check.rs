//! An input on its way, every step of it judged.

use vip_common::{
    engine::{self, Hook},
    pipeline::{Stage, Verdict},
};

use crate::{
    Entry, Input, Step, Violation, Wire,
    facts::Facts,
    oracle::{self, stages, way_back},
};

/// Runs an input and everything that it brings about.
///
/// # Errors
///
/// The first oracle that does not hold.
pub fn check(input: &Input) -> Result<(), Violation> {
    let wire = Wire::new(input.variation);
    let interface = input.entry.interface();
    match input.entry {
        Entry::Uplink => both_stages(&wire, interface, input.tagged, &input.frame),
        Entry::Port(_) => by_port(&wire, interface, input.tagged, &input.frame),
    }
}

/// A frame at the uplink: TC alone, whose delivery is answered, and XDP, which leaves it to TC or does the same.
fn both_stages(wire: &Wire, interface: u32, tagged: bool, frame: &[u8]) -> Result<(), Violation> {
    let alone = judged(wire, Hook::Uplink(Stage::Tc), interface, tagged, frame)?;
    answered(wire, &alone)?;
    told(wire, &alone)?;
    wire.restore();
    let first = judged(wire, Hook::Uplink(Stage::Xdp), interface, tagged, frame)?;
    let second = match first.verdict {
        Verdict::LeaveToTc => Some(wire.run(Hook::Uplink(Stage::Tc), interface, tagged, &first.after)),
        _ => None,
    };
    stages::check(wire.tables(), &alone, &first, second.as_ref())
}

/// A frame of a guest: what leaves is answered, and what comes back comes in again, as does the error about it.
fn by_port(wire: &Wire, interface: u32, tagged: bool, frame: &[u8]) -> Result<(), Violation> {
    let out = judged(wire, Hook::Port, interface, tagged, frame)?;
    let Verdict::ComeBack { ifindex } = out.verdict else { return answered(wire, &out) };
    let mut back = judged(wire, Hook::Uplink(Stage::Tc), ifindex, false, &out.after)?;
    if let Some(error) = told(wire, &back)? {
        oracle::told::reaches_sender(wire.tables(), &out, &error)?;
        back = error;
    }
    wire.restore();
    let whole = engine::port(wire.tables(), interface, tagged, frame);
    oracle::same_end(&back, &whole)
}

fn judged(wire: &Wire, hook: Hook, interface: u32, tagged: bool, frame: &[u8]) -> Result<Step, Violation> {
    let step = wire.run(hook, interface, tagged, frame);
    oracle::judge(wire.tables(), &step)?;
    Ok(step)
}

/// Lets an error for a guest that sent to an EIP come in.
fn told(wire: &Wire, step: &Step) -> Result<Option<Step>, Violation> {
    match step.verdict {
        Verdict::Tell { ifindex: uplink @ 1.., .. } => {
            judged(wire, Hook::Uplink(Stage::Tc), uplink, false, &step.after).map(Some)
        }
        _ => Ok(None),
    }
}

/// Lets whoever received a translated packet answer it.
fn answered(wire: &Wire, step: &Step) -> Result<(), Violation> {
    if oracle::overlay::concerns(Facts(wire.tables()), step) {
        // Whoever answers is on another host, or answers to it.
        return Ok(());
    }
    let Some(answer) = way_back::answer(wire.tables(), step) else { return Ok(()) };
    let back = judged(wire, answer.hook, answer.interface, false, &answer.frame)?;
    way_back::check(wire.tables(), step, &answer, &back)
}
