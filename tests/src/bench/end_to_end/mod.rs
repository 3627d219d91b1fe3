//! Part b: packets per second from a generator through the host to a guest, every frame a real one.

mod rival;
mod wire;

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use aya::programs::xdp::XdpLink;
use etherparse::PacketBuilder;

use self::{rival::Rival, wire::Wire};
use super::{
    Options, clang,
    forwarder::Forwarder,
    harness::State,
    peers::{Peers, Seen},
    progress,
    report::{Column, Row, Section, count},
    stats::Spread,
    world::{self, World},
};
use crate::Lab;

const MPPS: Column = Column { name: "Mpps", digits: 2 };
const TO_REDIRECT: Column = Column { name: "× bare redirect", digits: 2 };
const TO_CONNTRACK: Column = Column { name: "× conntrack", digits: 1 };

/// A way from the generator to a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Redirect,
    OneHash,
    Forwarder,
    Rival(Rival),
}

impl Subject {
    const fn name(self) -> &'static str {
        match self {
            Self::Redirect => "bare XDP redirect",
            Self::OneHash => "C, one hash",
            Self::Forwarder => "forwarder",
            Self::Rival(rival) => rival.name(),
        }
    }

    /// Those that are measured with so many entries.
    fn at(entries: u32) -> Vec<Self> {
        let rivals: &[Rival] = match entries {
            0..=1000 => &[Rival::Routing, Rival::Conntrack, Rival::Stateless, Rival::Ingress],
            // More connections than this do not fit into the kernel's table as it is by default.
            1001..=100_000 => &[Rival::Conntrack, Rival::Stateless, Rival::Ingress],
            _ => &[],
        };
        let rivals = rivals.iter().map(|rival| Self::Rival(*rival));
        [Self::Redirect, Self::OneHash, Self::Forwarder].into_iter().chain(rivals).collect()
    }

    /// The first address that the generator sends to.
    const fn first(self) -> std::net::Ipv4Addr {
        match self {
            Self::Rival(Rival::Routing) => world::FIRST_VIP,
            _ => world::FIRST_EIP,
        }
    }
}

/// Everything that is run for one number of entries.
struct Bench {
    world: World,
    generator: Vec<u8>,
    peers: Peers,
    forwarder: Forwarder,
    wire: Wire,
}

/// Runs the part.
pub(super) fn run(options: &Options, lab: &Lab) -> Result<Section> {
    let generator = clang::build(clang::HARNESS, lab.directory())?;
    let peers = clang::build(clang::PEERS, lab.directory())?;
    let object = options.object()?;
    let mut section = Section {
        part: 'b',
        title: "end to end through namespaces, 64-byte UDP, random entries, counted at the guest".to_owned(),
        columns: vec![MPPS, TO_REDIRECT, TO_CONNTRACK],
        rows: Vec::new(),
        verified: Vec::new(),
    };
    let mut wire = Some(Wire::build(lab)?);
    rival::enable_routing(&wire.as_ref().context("no wire")?.host)?;
    for &entries in options.sizes().iter().filter(|entries| !options.entries.is_empty() || **entries != 1000)
    {
        progress!("b: {} entries: filling the tables", count(entries));
        let world = World { entries, owners: 1 };
        let mut this = wire.take().context("no wire")?;
        let host = this.host.clone();
        let (mut peers, forwarder) =
            host.exec(|| Ok((Peers::load(&peers, world)?, Forwarder::load(&object, world)?)))?;
        this.add_sinks(&mut peers)?;
        let mut bench = Bench { world, generator: generator.clone(), peers, forwarder, wire: this };
        for cores in [1, 2] {
            if cores > std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
                section.verified.push("left out: two cores, for the machine has one".to_owned());
                continue;
            }
            let rows = measure(&mut bench, cores, options, &mut section.verified)
                .with_context(|| format!("{} entries", count(entries)))?;
            section.rows.extend(rows);
        }
        wire = Some(bench.wire);
    }
    Ok(section)
}

/// Measures all subjects on so many cores.
fn measure(
    bench: &mut Bench,
    cores: usize,
    options: &Options,
    verified: &mut Vec<String>,
) -> Result<Vec<Row>> {
    let rounds = if options.short { 1 } else { 5 };
    let window = Duration::from_millis(if options.short { 100 } else { 400 });
    let mut subjects = Subject::at(bench.world.entries);
    let mut samples: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let before = bench.forwarder.counted()?;
    let mut forwarded = Seen::default();
    for round in 0..rounds {
        let mut possible = Vec::new();
        for subject in subjects {
            progress!(
                "b: {} entries, {cores} core(s), round {}/{rounds}: {}",
                count(bench.world.entries),
                round + 1,
                subject.name()
            );
            match sample(bench, subject, cores, window) {
                Ok((rate, seen)) => {
                    check(subject, seen).with_context(|| subject.name())?;
                    if subject == Subject::Forwarder {
                        forwarded.routed += seen.routed;
                    }
                    samples.entry(subject.name()).or_default().push(rate / 1e6);
                    possible.push(subject);
                }
                // A kernel need not have nftables; what is ours must work.
                Err(error) if matches!(subject, Subject::Rival(_)) && round == 0 => {
                    verified.push(format!("left out: {}: {error:#}", subject.name()));
                }
                Err(error) => return Err(error.context(subject.name())),
            }
        }
        subjects = possible;
    }
    let after = bench.forwarder.counted()?;
    verified.push(account(&before, &after, forwarded, bench.world, cores)?);
    subjects.iter().map(|subject| row(*subject, bench.world, cores, &samples)).collect()
}

/// One sample: frames per second, and what arrived in all.
fn sample(bench: &mut Bench, subject: Subject, cores: usize, window: Duration) -> Result<(f64, Seen)> {
    let Bench { world, generator, peers, forwarder, wire } = bench;
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(world::ROUTER_MAC.0, world::UPLINK_MAC.0)
        .ipv4(world::CLIENT.octets(), [0; 4], 64)
        .udp(40_000, 7)
        .write(&mut frame, b"eighteen bytes....")?;
    let mut state = State::new(&frame)?;
    (state.count, state.first) = (world.entries, subject.first().into());
    let host = wire.host.clone();
    let link: XdpLink = host.exec(|| match subject {
        Subject::Redirect => peers.attach("xdp_redirect", world::UPLINK),
        Subject::OneHash => peers.attach("one_hash", world::UPLINK),
        Subject::Forwarder => forwarder.attach(world::UPLINK),
        // A veth takes the generator's frames only while it has a program.
        Subject::Rival(_) => peers.attach("xdp_empty", world::UPLINK),
    })?;
    if let Subject::Rival(rival) = subject {
        rival.add(&host, *world)?;
    }
    let measured = wire.measure(generator, &state, cores, window, || peers.seen());
    if let Subject::Rival(rival) = subject {
        rival.remove(&host)?;
    }
    drop(link);
    measured
}

/// Whether what arrived is what the subject makes of the generator's frames.
fn check(subject: Subject, seen: Seen) -> Result<()> {
    let Seen { routed, unchanged, wrong } = seen;
    match subject {
        Subject::Redirect => {
            ensure!(routed == 0 && wrong == 0, "not only redirected frames arrived: {seen:?}");
        }
        _ => ensure!(unchanged == 0 && wrong == 0, "not only translated, routed frames arrived: {seen:?}"),
    }
    Ok(())
}

/// Whether the forwarder's counters say the same as the sink.
fn account(
    before: &super::forwarder::Counted,
    after: &super::forwarder::Counted,
    seen: Seen,
    world: World,
    cores: usize,
) -> Result<String> {
    let counted = after.eips.packets_in - before.eips.packets_in;
    ensure!(before.drops == after.drops, "packets were dropped: {:?}", after.drops);
    ensure!(counted >= seen.routed, "{} frames arrived, EIPs counted {counted}", seen.routed);
    Ok(format!(
        "{} entries, {cores} core(s): EIPs counted {counted} frames, {} arrived translated, with good headers; the \
         difference found the guest's queue full",
        count(world.entries),
        seen.routed
    ))
}

fn row(subject: Subject, world: World, cores: usize, samples: &BTreeMap<&str, Vec<f64>>) -> Result<Row> {
    let of = |subject: Subject| samples.get(subject.name());
    let own = of(subject).context("no samples")?;
    let mut values = BTreeMap::new();
    values.extend(Spread::of(own.iter().copied()).map(|spread| (MPPS.name, spread)));
    for (column, peer) in [(TO_REDIRECT, Subject::Redirect), (TO_CONNTRACK, Subject::Rival(Rival::Conntrack))]
    {
        if let Some(peer) = of(peer) {
            let ratios = own.iter().zip(peer).map(|(own, peer)| own / peer);
            values.extend(Spread::of(ratios).map(|spread| (column.name, spread)));
        }
    }
    let path = format!("EIP in, {cores} core{}", if cores == 1 { "" } else { "s" });
    Ok(Row { path, size: count(world.entries), subject: subject.name().to_owned(), values })
}
