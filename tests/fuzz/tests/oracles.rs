//! Each oracle can fail: a step that holds is spoiled, and the right one tells.

use std::collections::BTreeSet;

use vip_common::{
    DropReason,
    engine::Hook,
    pipeline::{Stage, Verdict},
    tables::OwnerWord,
};
use vip_fuzz::{
    Input, Oracle, Step, Target, Variation, Violation, Wire,
    frame::{DCCP, ICMP, Ipv4, TCP, put},
    mutate,
    oracle::{self, judge, stages, way_back},
    seeds,
};

const TC: Hook = Hook::Uplink(Stage::Tc);

fn run(input: &Input, wire: &Wire, hook: Hook) -> Step {
    wire.run(hook, input.entry.interface(), input.tagged, &input.frame)
}

/// The first step of a seed's that is wanted, and its world.
fn first(target: Target, wanted: impl Fn(&Step) -> bool) -> (Wire, Step) {
    first_in(Variation::default(), target, wanted)
}

/// The same in a world with this variation.
fn first_in(variation: Variation, target: Target, wanted: impl Fn(&Step) -> bool) -> (Wire, Step) {
    let hook = if target == Target::Uplink { TC } else { Hook::Port };
    seeds::all()
        .iter()
        .filter(|input| target.takes(input) && input.variation == variation)
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

/// What is refused for this reason, and told, in a world with this variation.
fn refused(variation: Variation, target: Target, reason: DropReason) -> (Wire, Step) {
    let told = |verdict| matches!(verdict, Verdict::Tell { reason: index, .. } if index == reason.index());
    first_in(variation, target, |step| told(step.verdict))
}

/// What is cut for this target's way.
fn cut(target: Target) -> (Wire, Step) {
    first_in(Variation::NARROW, target, |step| step.fragments.len() > 2)
}

/// The fragment with this number.
fn fragment(step: &mut Step, number: usize) -> &mut Vec<u8> {
    step.fragments.get_mut(number).expect("a fragment")
}

/// Makes a refusal one of which nobody is told, of a frame with other bytes in one place.
fn silent(step: &mut Step, at: usize, bytes: &[u8]) {
    let Verdict::Tell { reason, .. } = step.verdict else { panic!("{:?}", step.verdict) };
    step.verdict = Verdict::Drop(reason);
    assert!(put(&mut step.frame, at, bytes), "a byte of the frame");
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

/// Those that the tests below are of.
const BELOW: [Oracle; 6] =
    [Oracle::Overlay, Oracle::Stages, Oracle::WayBack, Oracle::Refused, Oracle::Told, Oracle::Fragments];

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
    tested.extend(BELOW);
    assert_eq!(tested, Oracle::ALL.into_iter().collect(), "each oracle is here");
}

/// What a guest, or somebody outside, sends to a guest of another host; what comes from there; and an advertisement to both.
fn among_hosts(target: Target, wanted: impl Fn(&Step) -> bool) -> (Wire, Step) {
    let [first, ..] = Variation::HOSTS;
    first_in(first, target, |step| concerns(&Wire::new(first), step) && wanted(step))
}

fn concerns(wire: &Wire, step: &Step) -> bool {
    oracle::overlay::concerns(vip_fuzz::facts::Facts(wire.tables()), step)
}

#[test]
fn what_travels_between_hosts_and_should_not_is_told() {
    let leaves =
        |step: &Step| matches!(step.verdict, Verdict::Uplink { .. }) && step.frame.len() < step.after.len();
    let arrives = |step: &Step| matches!(step.verdict, Verdict::Deliver { .. });
    for target in Target::ALL {
        // MACs, TTL, sum, VTEPs, source port, length, checksum, the VNI, and the receiver's MAC.
        for at in [5, 11, 22, 25, 33, 39, 41, 48, 55] {
            let of = spoiled(among_hosts(target, leaves), |step| flip(&mut step.after, at));
            assert_eq!(of, Some(Oracle::Overlay), "byte {at}, {target:?}");
        }
        let of = spoiled(among_hosts(target, leaves), |step| {
            assert!(put(&mut step.after, 34, &[0x40]), "marked as sent on");
        });
        assert_eq!(of, Some(Oracle::Overlay), "{target:?}");
        let of = spoiled(among_hosts(target, leaves), |step| flip(&mut step.after, 50 + 14 + 3));
        assert!(of.is_some(), "what is inside has changed, {target:?}");
    }
    let of = spoiled(among_hosts(Target::Uplink, arrives), |step| flip(&mut step.after, 5));
    assert_eq!(of, Some(Oracle::Overlay), "another MAC");
    let of = spoiled(among_hosts(Target::Uplink, arrives), |step| flip(&mut step.after, 40));
    assert_eq!(of, Some(Oracle::Fields), "another byte");
    let of = spoiled(among_hosts(Target::Uplink, arrives), |step| {
        let Verdict::Deliver { port, .. } = step.verdict else { panic!("{:?}", step.verdict) };
        let other = if port == 13 { 10 } else { 13 };
        step.verdict = Verdict::Deliver { port: other, ifindex: 100 + other };
    });
    assert_eq!(of, Some(Oracle::Overlay), "another guest");
    let of = spoiled(among_hosts(Target::Uplink, arrives), |step| {
        assert!(put(&mut step.frame, 26, &[8, 8, 4, 4]), "an address that is no host's");
    });
    assert_eq!(of, Some(Oracle::Overlay), "from nobody");
    let of = spoiled(
        among_hosts(Target::Uplink, |step| step.verdict == Verdict::Drop(DropReason::VtepUnknown.index())),
        |step| step.verdict = Verdict::NotOurs,
    );
    assert_eq!(of, Some(Oracle::Overlay), "it is left to the host");
    let of = spoiled(among_hosts(Target::Uplink, arrives), |step| {
        step.hook = Hook::Uplink(Stage::Tc);
        step.interface += 1;
    });
    assert_eq!(of, Some(Oracle::Overlay), "it came in by a VLAN");
    for reason in [DropReason::OverlayGroup, DropReason::DestinationNotOwn, DropReason::VxlanMalformed] {
        let of = spoiled(among_hosts(Target::Uplink, arrives), |step| {
            step.verdict = Verdict::Drop(reason.index());
            step.left.drops = [(reason.index(), 1)].into();
        });
        assert_eq!(of, Some(Oracle::Overlay), "an honest frame is dropped: {reason:?}");
    }
    let advertised = |step: &Step| !step.tunnelled.is_empty();
    let of = spoiled(among_hosts(Target::Port, advertised), |step| step.tunnelled.clear());
    assert_eq!(of, Some(Oracle::Untouched), "no other host hears it, and it is changed all the same");
    let of = spoiled(among_hosts(Target::Port, advertised), |step| {
        let again = step.tunnelled.clone();
        step.tunnelled.extend(again);
    });
    assert_eq!(of, Some(Oracle::Overlay), "a host hears it twice");
    // A guest's packet to a VTEP.
    let [first, ..] = Variation::HOSTS;
    let passed = |step: &Step| step.verdict == Verdict::NotOurs && carries(step, TCP);
    let of = spoiled(first_in(first, Target::Port, passed), |step| {
        let fits = put(&mut step.frame, 30, &[172, 31, 0, 12]) && put(&mut step.after, 30, &[172, 31, 0, 12]);
        assert!(fits, "an address");
    });
    assert_eq!(of, Some(Oracle::Overlay), "to a VTEP");
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

/// What is said of a step when nobody is told any more of what is refused, whose frame has these other bytes; `None`: rightly so.
fn kept_silent(target: Target, at: usize, bytes: &[u8]) -> Option<Oracle> {
    spoiled(refused(Variation::default(), target, DropReason::TtlExpired), |step| silent(step, at, bytes))
}

#[test]
fn an_error_that_says_something_else_is_told() {
    let expired = |target| refused(Variation::default(), target, DropReason::TtlExpired);
    let too_big = |target| refused(Variation::NARROW, target, DropReason::TooBig);
    for target in Target::ALL {
        for refusal in [expired, too_big] {
            // MACs, ports of the header from its first byte to its addresses, ICMP's type, code and MTU, and the quote.
            for at in [0, 6, 13, 14, 15, 17, 19, 20, 22, 23, 29, 33, 34, 35, 38, 41, 42, 60] {
                let of = spoiled(refusal(target), |step| flip(&mut step.after, at));
                assert_eq!(of, Some(Oracle::Told), "byte {at}, {target:?}");
            }
            for at in [25, 37] {
                let of = spoiled(refusal(target), |step| flip(&mut step.after, at));
                assert_eq!(of, Some(Oracle::Checksums), "byte {at}, {target:?}");
            }
            let of = spoiled(refusal(target), |step| assert!(step.after.pop().is_some(), "a quote"));
            assert_eq!(of, Some(Oracle::Told), "a quote that ends too soon");
            let of = spoiled(refusal(target), |step| step.left.drops.clear());
            assert_eq!(of, Some(Oracle::Counted), "what is told is counted");
        }
    }
    // Back out of the uplink, or into it.
    let of = spoiled(expired(Target::Uplink), |step| {
        step.verdict = Verdict::Tell { reason: DropReason::TtlExpired.index(), ifindex: step.interface };
    });
    assert_eq!(of, Some(Oracle::Told));
    let of = spoiled(expired(Target::Port), |step| {
        step.verdict = Verdict::Tell { reason: DropReason::TtlExpired.index(), ifindex: step.interface };
    });
    assert_eq!(of, Some(Oracle::Outcome));
}

#[test]
fn who_is_told_is_who_may_be() {
    for target in Target::ALL {
        // As it was: TTL 1.
        assert_eq!(kept_silent(target, 22, &[1]), Some(Oracle::Told), "nobody is told");
        assert_eq!(kept_silent(target, 20, &[0, 3]), None, "of a later fragment");
        assert_eq!(kept_silent(target, 20, &[0x20, 0]), Some(Oracle::Told), "of a first one");
        assert_eq!(kept_silent(target, 26, &[127, 0, 0, 1]), None, "of what is from this host");
        assert_eq!(kept_silent(target, 26, &[0, 0, 0, 0]), None, "of what is from nobody");
        assert_eq!(kept_silent(target, 26, &[224, 0, 0, 1]), None, "of what is from a group");
        assert_eq!(kept_silent(target, 26, &[255; 4]), None, "of what is from everybody");
        for (kind, may) in
            [(0, true), (3, false), (4, false), (5, false), (8, true), (11, false), (12, false)]
        {
            let expired = || refused(Variation::default(), target, DropReason::TtlExpired);
            let turn = |step: &mut Step| {
                let fits = put(&mut step.frame, 23, &[ICMP]) && put(&mut step.frame, 34, &[kind]);
                assert!(fits, "a byte of the frame");
            };
            let of = spoiled(expired(), |step| {
                turn(step);
                silent(step, 22, &[1]);
            });
            assert_eq!(of, may.then_some(Oracle::Told), "of ICMP type {kind} nobody is told");
            // The error is of the frame as it was before, of which the oracle speaks only if there may be one.
            let (wire, mut step) = expired();
            turn(&mut step);
            let violation = judge(wire.tables(), &step).expect_err("another frame");
            assert_eq!(told(&violation), Oracle::Told, "of ICMP type {kind}");
            assert_eq!(violation.what.starts_with("there may be no error about it"), !may, "{violation}");
        }
    }
}

#[test]
fn a_reason_that_is_none_is_told() {
    for target in Target::ALL {
        let of = spoiled(refused(Variation::default(), target, DropReason::TtlExpired), |step| {
            assert!(put(&mut step.frame, 22, &[2]), "a TTL");
        });
        assert_eq!(of, Some(Oracle::Refused), "it lives");
        // What may be cut, what fits, and what is for a place of which nobody knows what fits.
        let of = spoiled(refused(Variation::NARROW, target, DropReason::TooBig), |step| {
            assert!(put(&mut step.frame, 20, &[0, 0]), "DF");
        });
        assert_eq!(of, Some(Oracle::Refused), "it may be cut");
        let of = spoiled(refused(Variation::NARROW, target, DropReason::TooBig), |step| {
            assert!(put(&mut step.frame, 16, &[0, 128]), "a length");
        });
        assert_eq!(of, Some(Oracle::Refused), "it fits");
        let (_, step) = refused(Variation::NARROW, target, DropReason::TooBig);
        let of = judge(Wire::new(Variation::default()).tables(), &step).expect_err("another world");
        assert_eq!(told(&of), Oracle::Refused, "anything fits");
        for reason in [DropReason::VrrpRouted, DropReason::MartianSource] {
            let of = spoiled(refused(Variation::default(), target, DropReason::TtlExpired), |step| {
                (step.verdict, step.left.drops) =
                    (Verdict::Drop(reason.index()), [(reason.index(), 1)].into());
            });
            assert_eq!(of, Some(Oracle::Refused), "{reason:?}");
            let of = spoiled(refused(Variation::default(), target, DropReason::TtlExpired), |step| {
                step.verdict = Verdict::Tell { reason: reason.index(), ifindex: 0 };
                step.left.drops = [(reason.index(), 1)].into();
            });
            assert_eq!(of, Some(Oracle::Told), "of {reason:?}");
        }
    }
    let of = spoiled(arrives(TCP), |step| assert!(put(&mut step.frame, 26, &[224, 0, 0, 9]), "a source"));
    assert_eq!(of, Some(Oracle::Delivery), "what is from a group is delivered");
    let vrrp = |step: &mut Step| {
        let fits = put(&mut step.frame, 23, &[112]) && put(&mut step.after, 23, &[112]);
        assert!(fits, "a protocol");
    };
    assert_eq!(spoiled(arrives(132), vrrp), Some(Oracle::Ttl), "VRRP comes in");
    assert_eq!(spoiled(leaves(132), vrrp), Some(Oracle::Ttl), "VRRP leaves");
}

#[test]
fn fragments_that_are_not_the_packet_are_told() {
    for target in Target::ALL {
        // MACs, the rest of the first fragment's header, its payload; the offset, MF and DF.
        for at in [5, 11, 13, 15, 18, 20, 21, 22, 23, 29, 33, 34, 60] {
            let of = spoiled(cut(target), |step| flip(fragment(step, 0), at));
            assert_eq!(of, Some(Oracle::Fragments), "byte {at}, {target:?}");
        }
        for flags in [0x40, 0x60, 0xa0, 0] {
            let of = spoiled(cut(target), |step| {
                assert!(put(fragment(step, 0), 20, &[flags]), "flags");
            });
            assert_eq!(of, Some(Oracle::Fragments), "flags {flags:02x}, {target:?}");
        }
        let of = spoiled(cut(target), |step| flip(fragment(step, 1), 25));
        assert_eq!(of, Some(Oracle::Checksums), "{target:?}");
        let of = spoiled(cut(target), |step| assert!(step.fragments.pop().is_some(), "a fragment"));
        assert_eq!(of, Some(Oracle::Fragments), "the last is missing");
        let of = spoiled(cut(target), |step| step.fragments.swap(0, 1));
        assert_eq!(of, Some(Oracle::Fragments), "the order, which says what the offsets are");
        let of = spoiled(cut(target), |step| {
            let whole = step.after.clone();
            step.fragments = vec![whole];
        });
        assert_eq!(of, Some(Oracle::Fragments), "it is one");

        // What leaves whole, or cut for another way; what may not be cut.
        let of = spoiled(cut(target), |step| {
            step.fragments.clear();
            step.verdict = match step.verdict {
                Verdict::Uplink { ifindex, .. } => Verdict::Uplink { ifindex, mtu: 0 },
                Verdict::DeliverFragments { ifindex, .. } => {
                    Verdict::Deliver { port: ifindex - 100, ifindex }
                }
                other => panic!("{other:?}"),
            };
        });
        assert_eq!(of, Some(Oracle::Fragments), "it is not cut");
        let of = spoiled(cut(target), |step| match &mut step.verdict {
            Verdict::Uplink { mtu, .. } | Verdict::DeliverFragments { mtu, .. } => *mtu -= 8,
            other => panic!("{other:?}"),
        });
        assert_eq!(of, Some(Oracle::Fragments), "another MTU");
        let (_, step) = cut(target);
        let of = judge(Wire::new(Variation::default()).tables(), &step).expect_err("another world");
        assert_eq!(told(&of), Oracle::Fragments, "it fits");
        let of = spoiled(cut(target), |step| flip_df(&mut step.frame));
        assert_eq!(of, Some(Oracle::Fragments), "it may not be cut");

        // The whole of them is judged like what goes on uncut.
        let of = spoiled(cut(target), |step| step.left.eips.clear());
        assert_eq!(of, Some(Oracle::Traffic), "{target:?}");
    }
    let of = spoiled(arrives(TCP), |step| step.fragments.push(step.after.clone()));
    assert_eq!(of, Some(Oracle::Fragments), "a second one of what is whole");
}

fn flip_df(frame: &mut [u8]) {
    *frame.get_mut(20).expect("flags") ^= 0x40;
}

#[test]
fn an_error_that_does_not_reach_the_guest_is_told() {
    let variation = Variation::LEAST;
    let comes_back = first_in(variation, Target::Port, |step| {
        matches!(step.verdict, Verdict::ComeBack { .. }) && Ipv4::of(&step.frame).is_some_and(|ip| ip.whole)
    });
    let (wire, sent) = comes_back;
    let Verdict::ComeBack { ifindex } = sent.verdict else { panic!("{:?}", sent.verdict) };
    let back = wire.run(TC, ifindex, false, &sent.after);
    let Verdict::Tell { ifindex, .. } = back.verdict else { panic!("{:?}", back.verdict) };
    assert_eq!(judge(wire.tables(), &back), Ok(()));
    let error = wire.run(TC, ifindex, false, &back.after);
    assert!(matches!(error.verdict, Verdict::Deliver { .. }), "{:?}", error.verdict);
    let judged = |error: &Step| {
        oracle::told::reaches_sender(wire.tables(), &sent, error).map_err(|violation| told(&violation))
    };
    assert_eq!(judged(&error), Ok(()));

    let mut other = error.clone();
    other.verdict = Verdict::Drop(DropReason::IcmpError.index());
    assert_eq!(judged(&other), Err(Oracle::Told), "it is dropped");
    let mut other = error.clone();
    other.verdict = Verdict::Deliver { port: 2, ifindex: 102 };
    assert_eq!(judged(&other), Err(Oracle::Told), "somebody else has it");
    let mut other = error.clone();
    flip(&mut other.after, 33);
    assert_eq!(judged(&other), Err(Oracle::Told), "it is to somebody else");
    let mut other = error;
    flip(&mut other.after, 14 + 20 + 8 + 15);
    assert_eq!(judged(&other), Err(Oracle::Told), "it is about somebody else's packet");

    // The way that the error takes next.
    let mut other = back;
    other.verdict = Verdict::Tell { reason: DropReason::TooBig.index(), ifindex: 0 };
    assert_eq!(judge(wire.tables(), &other).map_err(|violation| told(&violation)), Err(Oracle::Told));
}

#[test]
fn an_absurd_mtu_that_passes_is_told() {
    let is_error = |step: &Step| {
        matches!(step.verdict, Verdict::Deliver { .. })
            && Ipv4::of(&step.frame).is_some_and(|ip| ip.icmp_type(&step.frame) == Some(3))
    };
    let tell = |mtu: u8| {
        spoiled(first(Target::Uplink, is_error), |step| {
            for frame in [&mut step.frame, &mut step.after] {
                let fits = put(frame, 35, &[4]) && put(frame, 38, &[0, 0, 0, mtu]);
                assert!(fits, "a code and an MTU");
                mutate::repair(frame);
            }
        })
    };
    assert_eq!(tell(67), Some(Oracle::Fields));
    assert_eq!(tell(68), None);
    assert_eq!(tell(0), None, "nobody knows it");
}

#[test]
fn xdp_that_leaves_an_error_to_tc_is_told() {
    let (wire, alone) = refused(Variation::default(), Target::Uplink, DropReason::TtlExpired);
    wire.restore();
    let same = wire.run(Hook::Uplink(Stage::Xdp), alone.interface, false, &alone.frame);
    assert_eq!(stages::check(wire.tables(), &alone, &same, None), Ok(()));
    let mut left = same;
    (left.verdict, left.after) = (Verdict::LeaveToTc, alone.frame.clone());
    left.left = vip_fuzz::step::Left { owners: alone.owners.clone(), ..Default::default() };
    assert_eq!(
        stages::check(wire.tables(), &alone, &left, Some(&alone)).map_err(|violation| told(&violation)),
        Err(Oracle::Stages)
    );
    // Fragments are TC's.
    let (wire, alone) = cut(Target::Uplink);
    wire.restore();
    let left = wire.run(Hook::Uplink(Stage::Xdp), alone.interface, false, &alone.frame);
    assert_eq!(left.verdict, Verdict::LeaveToTc);
    assert_eq!(stages::check(wire.tables(), &alone, &left, Some(&alone)), Ok(()));
    let mut other = alone.clone();
    flip(fragment(&mut other, 1), 60);
    assert_eq!(
        stages::check(wire.tables(), &alone, &left, Some(&other)).map_err(|violation| told(&violation)),
        Err(Oracle::Stages)
    );
    let by_xdp = Step { hook: Hook::Uplink(Stage::Xdp), ..alone };
    assert_eq!(judge(wire.tables(), &by_xdp).map_err(|violation| told(&violation)), Err(Oracle::Outcome));
}
