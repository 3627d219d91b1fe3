//! Each oracle can fail: a step that holds is spoiled, and the right one tells.

use std::collections::BTreeSet;

use vip_common::{
    DropReason,
    engine::Hook,
    pipeline::{Stage, Verdict},
    tables::OwnerWord,
};
use vip_fuzz::{
    Input, Oracle, Step, Target, Violation, Wire,
    frame::{DCCP, ICMP, Ipv4, TCP, put},
    oracle::{judge, stages, way_back},
    seeds,
};

const TC: Hook = Hook::Uplink(Stage::Tc);

fn run(input: &Input, wire: &Wire, hook: Hook) -> Step {
    wire.run(hook, input.entry.interface(), input.tagged, &input.frame)
}

/// The first step of a seed's that is wanted, and its world.
fn first(target: Target, wanted: impl Fn(&Step) -> bool) -> (Wire, Step) {
    let hook = if target == Target::Uplink { TC } else { Hook::Port };
    seeds::all()
        .iter()
        .filter(|input| target.takes(input))
        .find_map(|input| {
            let wire = Wire::new(input.variation);
            let step = run(input, &wire, hook);
            wanted(&step).then_some((wire, step))
        })
        .expect("a seed for each outcome")
}

fn carries(step: &Step, protocol: u8) -> bool {
    Ipv4::of(&step.frame).is_some_and(|ip| ip.protocol == protocol && ip.fragment == 0)
}

fn leaves(protocol: u8) -> (Wire, Step) {
    first(Target::Port, |step| matches!(step.verdict, Verdict::Uplink { .. }) && carries(step, protocol))
}

fn arrives(protocol: u8) -> (Wire, Step) {
    first(Target::Uplink, |step| matches!(step.verdict, Verdict::Deliver { .. }) && carries(step, protocol))
}

/// A translated ICMP error with a quote of TCP.
fn error() -> (Wire, Step) {
    first(Target::Port, |step| {
        let quote = Ipv4::of(&step.frame).and_then(|ip| ip.quote(&step.frame));
        matches!(step.verdict, Verdict::Uplink { .. })
            && quote
                .is_some_and(|quote| quote.protocol == TCP && quote.transport_checksum(&step.frame).is_some())
    })
}

/// What the oracles say of a step that somebody has spoiled.
fn spoiled((wire, mut step): (Wire, Step), spoil: impl FnOnce(&mut Step)) -> Option<Oracle> {
    assert_eq!(judge(wire.tables(), &step), Ok(()), "before it is spoiled");
    spoil(&mut step);
    judge(wire.tables(), &step).err().as_ref().map(told)
}

fn told(violation: &Violation) -> Oracle {
    violation.oracle
}

/// Flips the lowest bit of a byte.
fn flip(bytes: &mut [u8], at: usize) {
    *bytes.get_mut(at).expect("a byte of the frame") ^= 1;
}

#[test]
fn each_oracle_of_one_step_tells_what_it_is_for() {
    let tells = [
        (Oracle::Outcome, spoiled(arrives(TCP), |step| step.verdict = Verdict::Consumed)),
        (
            Oracle::Untouched,
            spoiled(
                first(Target::Port, |step| step.verdict == Verdict::NotOurs && step.frame.len() > 40),
                |step| flip(&mut step.after, 40),
            ),
        ),
        (
            Oracle::Counted,
            spoiled(first(Target::Uplink, |step| matches!(step.verdict, Verdict::Drop(_))), |step| {
                step.left.drops.values_mut().for_each(|packets| *packets += 1);
            }),
        ),
        (
            Oracle::Counted,
            spoiled(first(Target::Uplink, |step| matches!(step.verdict, Verdict::Drop(_))), |step| {
                let reason = DropReason::EditFailed.index();
                step.verdict = Verdict::Drop(reason);
                step.left.drops = [(reason, 1)].into();
            }),
        ),
        (Oracle::Traffic, spoiled(leaves(TCP), |step| step.left.eips.clear())),
        (Oracle::Traffic, spoiled(arrives(TCP), |step| step.left.vips.clear())),
        (
            Oracle::Ownership,
            spoiled(first(Target::Port, |step| step.verdict == Verdict::NotOurs), |step| {
                let entry = step.left.owners.get_mut(&1).expect("a VIP");
                entry.word = OwnerWord::new(entry.word.epoch() + 1, true, 3, 0);
            }),
        ),
        (
            Oracle::Ownership,
            spoiled(first(Target::Port, |step| step.left.moves.len() == 1), |step| step.left.moves.clear()),
        ),
        (
            Oracle::Ownership,
            spoiled(
                first(Target::Port, |step| step.left.moves.len() == 1 && step.verdict == Verdict::Consumed),
                |step| {
                    step.left.owners.clone_from(&step.owners);
                    step.left.moves.clear();
                    step.left.events.clear();
                },
            ),
        ),
        (Oracle::Rights, spoiled(leaves(DCCP), |step| flip(&mut step.frame, 11))),
        (Oracle::Delivery, spoiled(arrives(TCP), |step| flip(&mut step.after, 5))),
        (
            Oracle::Delivery,
            spoiled(arrives(TCP), |step| step.verdict = Verdict::Deliver { port: 2, ifindex: 102 }),
        ),
        (
            Oracle::Delivery,
            spoiled(first(Target::Port, |step| matches!(step.verdict, Verdict::Members { .. })), |step| {
                step.receivers.push(103);
            }),
        ),
        (Oracle::Leaving, spoiled(leaves(TCP), |step| flip(&mut step.after, 11))),
        (Oracle::Leaving, spoiled(leaves(TCP), |step| flip(&mut step.after, 5))),
        (
            Oracle::Private,
            spoiled(leaves(TCP), |step| assert!(put(&mut step.after, 30, &[192, 168, 7, 247]))),
        ),
        (
            Oracle::Private,
            spoiled(error(), |step| assert!(put(&mut step.after, 14 + 20 + 8 + 16, &[192, 168, 7, 247]))),
        ),
        (
            Oracle::Returned,
            spoiled(first(Target::Uplink, |step| step.verdict == Verdict::Return), |step| {
                flip(&mut step.after, 27);
            }),
        ),
        (
            Oracle::Returned,
            spoiled(
                first(Target::Port, |step| step.verdict == Verdict::Return && carries(step, ICMP)),
                |step| flip(&mut step.after, 27),
            ),
        ),
        // A byte of SCTP, which no sum covers.
        (Oracle::Fields, spoiled(arrives(132), |step| flip(&mut step.after, 40))),
        (Oracle::Ttl, spoiled(leaves(TCP), |step| flip(&mut step.after, 22))),
        // The header's checksum, TCP's, that of an error, of its quote and of the quoted TCP.
        (Oracle::Checksums, spoiled(leaves(TCP), |step| flip(&mut step.after, 25))),
        (Oracle::Checksums, spoiled(leaves(TCP), |step| flip(&mut step.after, 34 + 17))),
        (Oracle::Checksums, spoiled(error(), |step| flip(&mut step.after, 34 + 3))),
        (Oracle::Checksums, spoiled(error(), |step| flip(&mut step.after, 42 + 11))),
        (Oracle::Checksums, spoiled(error(), |step| flip(&mut step.after, 42 + 20 + 17))),
    ];
    for (number, (oracle, told)) in tells.iter().enumerate() {
        assert_eq!(*told, Some(*oracle), "number {number}");
    }
    let mut tested: BTreeSet<_> = tells.iter().map(|(oracle, _)| *oracle).collect();
    // The tests below.
    tested.extend([Oracle::Stages, Oracle::WayBack]);
    assert_eq!(tested, Oracle::ALL.into_iter().collect(), "each oracle is here");
}

#[test]
fn stages_that_differ_are_told() {
    let (wire, alone) = arrives(TCP);
    wire.restore();
    let same = wire.run(Hook::Uplink(Stage::Xdp), alone.interface, false, &alone.frame);
    assert_eq!(stages::check(wire.tables(), &alone, &same, None), Ok(()));

    let mut other = same.clone();
    flip(&mut other.after, 40);
    assert_eq!(
        stages::check(wire.tables(), &alone, &other, None).map_err(|violation| told(&violation)),
        Err(Oracle::Stages)
    );
    let mut other = same.clone();
    other.left.eips.clear();
    assert_eq!(
        stages::check(wire.tables(), &alone, &other, None).map_err(|violation| told(&violation)),
        Err(Oracle::Stages)
    );
    // XDP leaves what it could have delivered.
    let mut left = same.clone();
    (left.verdict, left.after) = (Verdict::LeaveToTc, alone.frame.clone());
    left.left = vip_fuzz::step::Left { owners: alone.owners.clone(), ..Default::default() };
    assert_eq!(
        stages::check(wire.tables(), &alone, &left, Some(&alone)).map_err(|violation| told(&violation)),
        Err(Oracle::Stages)
    );
}

#[test]
fn an_answer_that_goes_astray_is_told() {
    for (wire, step) in [arrives(TCP), leaves(TCP)] {
        let answer = way_back::answer(wire.tables(), &step).expect("it was translated");
        let back = wire.run(answer.hook, answer.interface, false, &answer.frame);
        let judged = |back: &Step| {
            way_back::check(wire.tables(), &step, &answer, back).map_err(|violation| told(&violation))
        };
        assert_eq!(judged(&back), Ok(()));

        let mut other = back.clone();
        flip(&mut other.after, 29);
        assert_eq!(judged(&other), Err(Oracle::WayBack), "from another address");
        let mut other = back.clone();
        flip(&mut other.after, 33);
        assert_eq!(judged(&other), Err(Oracle::WayBack), "to another address");
        let mut other = back;
        other.verdict = Verdict::Drop(DropReason::SourceAddress.index());
        assert_eq!(judged(&other), Err(Oracle::WayBack), "to nobody");
    }
}
