//! Rounds of samples: every program once in each, so that what changes on the machine changes for all.

use std::ops::{Range, RangeInclusive};

use anyhow::{Context as _, Result, ensure};

use super::{
    super::{
        Options,
        harness::Runs,
        report::{Row, count},
        stats::Spread,
    },
    Bench, NET, NS, Path, TO_ONE_HASH,
    path::Slice,
    row,
};

/// Entries whose packets are compared byte by byte.
const COMPARED: u32 = 16;

/// What a path's measurement gives.
pub(super) struct Measured {
    /// A row for each program.
    pub(super) rows: Vec<Row>,
    /// What was checked.
    pub(super) verified: String,
}

/// A program in the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Empty,
    Redirect,
    OneHash,
    TwoHashes,
    Forwarder,
}

impl Subject {
    const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty program",
            Self::Redirect => "bare redirect",
            Self::OneHash => "C, one hash",
            Self::TwoHashes => "C, two hashes",
            Self::Forwarder => "forwarder",
        }
    }

    fn of(path: Path) -> Vec<Self> {
        let one = path.one_hash().map(|_| Self::OneHash);
        let two = path.two_hashes().map(|_| Self::TwoHashes);
        let peers = one.into_iter().chain(two);
        [Self::Empty, Self::Redirect].into_iter().chain(peers).chain([Self::Forwarder]).collect()
    }

    /// Puts the program behind the harness.
    fn enter(self, bench: &mut Bench, path: Path) -> Result<()> {
        let hook = path.hook();
        let tc = hook == super::Hook::Tc;
        let Bench { xdp, tc: tc_harness, peers, forwarder, .. } = bench;
        let program = match self {
            Self::Empty => peers.program(if tc { "tc_empty" } else { "xdp_empty" })?,
            Self::Redirect => peers.program(if tc { "tc_redirect" } else { "xdp_redirect" })?,
            Self::OneHash => peers.program(path.one_hash().context("no C program")?)?,
            Self::TwoHashes => peers.program(path.two_hashes().context("no C program")?)?,
            Self::Forwarder => forwarder.program(path.program())?,
        };
        if tc { tc_harness.enter(program) } else { xdp.enter(program) }
    }

    /// Whether its packets must come out like the forwarder's.
    const fn does_the_job(self) -> bool {
        matches!(self, Self::OneHash | Self::TwoHashes | Self::Forwarder)
    }
}

/// Measures a path.
pub(super) fn measure(bench: &mut Bench, path: Path, options: &Options) -> Result<Measured> {
    let world = bench.world;
    let subjects = Subject::of(path);
    let mut slices = path.slices(world)?;
    if path == Path::ClaimWaits {
        exhaust(bench, &mut slices)?;
    }
    bench.forwarder.set_owners(path.owners())?;
    let before = bench.forwarder.counted()?;
    let mut runs = 0;
    if path != Path::ClaimMoves {
        for subject in subjects.iter().filter(|subject| subject.does_the_job()) {
            subject.enter(bench, path)?;
            let compared = compare(bench, path, &slices)
                .with_context(|| format!("the packets of {}", subject.name()))?;
            runs += if *subject == Subject::Forwarder { u64::from(compared) } else { 0 };
        }
    }
    let budget = Budget::of(path, world.entries, options.short);
    let mut samples: Vec<Vec<f64>> = vec![Vec::new(); subjects.len()];
    for round in 0..budget.rounds {
        if path == Path::ClaimMoves && round % budget.rounds_per_sweep == 0 && round > 0 {
            runs += take_back(bench)?;
        }
        for (subject, samples) in subjects.iter().zip(&mut samples) {
            subject.enter(bench, path)?;
            let keep = slices.iter().map(|slice| slice.state).collect::<Vec<_>>();
            if budget.warm_up > 0 {
                sample(bench, path, &mut slices, budget.warm_up)?;
            }
            samples.push(sample(bench, path, &mut slices, budget.repeat)?);
            if *subject == Subject::Forwarder {
                let each = |repeat| u64::from(share(repeat, slices.len())) * slices.len() as u64;
                runs += each(budget.repeat) + if budget.warm_up > 0 { each(budget.warm_up) } else { 0 };
            } else {
                // Others must not take the forwarder's turn.
                slices.iter_mut().zip(keep).for_each(|(slice, state)| slice.state = state);
            }
        }
    }
    let after = bench.forwarder.counted()?;
    let accounted = path.account(world, &before, &after, runs)?;
    let verified = format!("{}, {} entries: {accounted}", path.name(), count(world.entries));
    Ok(Measured { rows: rows(path, bench, &subjects, &samples)?, verified })
}

/// How much is run.
struct Budget {
    rounds: u32,
    /// Packets of a sample.
    repeat: u32,
    /// Packets before a sample that are not counted in its time: they bring the caches into the state of going on for ever.
    warm_up: u32,
    /// Claims that move go around all VIPs in so many rounds.
    rounds_per_sweep: u32,
}

impl Budget {
    fn of(path: Path, entries: u32, short: bool) -> Self {
        let rounds = if short { 3 } else { 11 };
        if path == Path::ClaimMoves {
            // A bucket of eight moves lasts for four sweeps, there and back. The rounds of a sweep divide the entries, so that each
            // VIP moves once in it.
            let rounds_per_sweep = (entries / 100_000).max(4);
            return Self { rounds, repeat: entries / rounds_per_sweep, warm_up: 0, rounds_per_sweep };
        }
        let single = path.harness().runs == Runs::Single;
        let repeat = match (single, short) {
            (false, false) => 200_000,
            (false, true) => 20_000,
            // A call of the kernel each.
            (true, false) => 50_000,
            (true, true) => 5_000,
        };
        Self { rounds, repeat, warm_up: repeat, rounds_per_sweep: 1 }
    }
}

/// Packets of each slice.
fn share(repeat: u32, slices: usize) -> u32 {
    (repeat / u32::try_from(slices).unwrap_or(u32::MAX)).max(1)
}

/// One sample: nanoseconds per packet.
fn sample(bench: &mut Bench, path: Path, slices: &mut [Slice], repeat: u32) -> Result<f64> {
    let share = share(repeat, slices.len());
    let mut time = 0.0;
    let mut packets = 0.0;
    for Slice { ifindex, state } in slices {
        let outcome = bench.harness(path.hook()).run(path.harness(), state, *ifindex, share)?;
        time += outcome.time;
        packets += f64::from(share);
        state.next = outcome.state.next;
    }
    Ok(time / packets)
}

/// Runs packets of some entries once each, and compares verdict and bytes with what they must be.
fn compare(bench: &mut Bench, path: Path, slices: &[Slice]) -> Result<u32> {
    let mut compared = 0;
    for Slice { ifindex, state } in slices {
        let last = state.count - 1;
        let picks = COMPARED.min(state.count);
        for pick in 0..picks {
            let place = if picks > 1 { u64::from(pick) * u64::from(last) / u64::from(picks - 1) } else { 0 };
            let number = state.offset + state.step * u32::try_from(place)?;
            let mut expected = path.expected(bench.world, &bench.vips, number)?;
            let only = state.only(number);
            let outcome = bench.harness(path.hook()).run(path.harness(), &only, *ifindex, 1)?;
            ensure!(
                outcome.code == expected.code,
                "entry {number}: verdict {} instead of {}",
                outcome.code,
                expected.code
            );
            if let Some(ports) = &expected.source_ports {
                take_source_port(&outcome.packet, &mut expected.packet, ports)
                    .with_context(|| format!("entry {number}"))?;
            }
            ensure!(
                outcome.packet == expected.packet,
                "entry {number}:\n  came out {:02x?}\n  expected {:02x?}",
                outcome.packet,
                expected.packet
            );
            compared += 1;
        }
    }
    Ok(compared)
}

/// Expects the outer source port that came out, if it is one of these.
fn take_source_port(packet: &[u8], expected: &mut [u8], ports: &RangeInclusive<u16>) -> Result<()> {
    const PORT: Range<usize> = 34..36;
    let found = packet.get(PORT).and_then(|bytes| bytes.first_chunk()).context("the packet is too short")?;
    let port = u16::from_be_bytes(*found);
    ensure!(ports.contains(&port), "from port {port}, which is not within {ports:?}");
    expected.get_mut(PORT).context("too short a packet is expected")?.copy_from_slice(found);
    Ok(())
}

/// The owners claim their VIPs back from the standby. Gives the number of claims.
fn take_back(bench: &mut Bench) -> Result<u64> {
    let path = Path::ClaimMoves;
    let slices = path.by_owner(bench.world)?;
    Subject::Forwarder.enter(bench, path)?;
    for Slice { ifindex, state } in &slices {
        bench.tc.run(path.harness(), state, *ifindex, state.count)?;
    }
    Ok(u64::from(bench.world.entries))
}

/// Lets each VIP move until it may not any more.
fn exhaust(bench: &mut Bench, slices: &mut [Slice]) -> Result<()> {
    const MOVES: u32 = 8;
    Subject::Forwarder.enter(bench, Path::ClaimWaits)?;
    for _ in 0..=MOVES / 2 {
        for Slice { ifindex, state } in &mut *slices {
            bench.tc.run(Path::ClaimWaits.harness(), state, *ifindex, state.count)?;
        }
        take_back(bench)?;
    }
    // Owned by their owners, or a move short of it: from now on the standby's claims wait.
    Ok(())
}

/// The rows of a path: times, and ratios of one round each.
fn rows(path: Path, bench: &Bench, subjects: &[Subject], samples: &[Vec<f64>]) -> Result<Vec<Row>> {
    let of = |wanted: Subject| -> Option<&Vec<f64>> {
        subjects.iter().zip(samples).find(|(subject, _)| **subject == wanted).map(|(_, samples)| samples)
    };
    let empty = of(Subject::Empty).context("no empty program")?;
    let one_hash = of(Subject::OneHash);
    let net = |samples: &[f64]| -> Vec<f64> {
        samples.iter().zip(empty).map(|(sample, empty)| sample - empty).collect()
    };
    subjects
        .iter()
        .zip(samples)
        .map(|(subject, samples)| {
            let mut row = row(path, bench.world, subject.name());
            row.values.insert(NS.name, Spread::of(samples.iter().copied()).context("no samples")?);
            if *subject != Subject::Empty {
                row.values.extend(Spread::of(net(samples)).map(|spread| (NET.name, spread)));
                if let Some(one_hash) = one_hash {
                    let ratios = net(samples).into_iter().zip(net(one_hash)).map(|(own, peer)| own / peer);
                    row.values.extend(Spread::of(ratios).map(|spread| (TO_ONE_HASH.name, spread)));
                }
            }
            Ok(row)
        })
        .collect()
}
