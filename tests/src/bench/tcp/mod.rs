//! Part c: TCP from a client through the host to a guest and back, throughput and time of a transaction.

mod flow;
mod place;
mod wire;

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};

use self::{
    flow::{From, requests, throughput},
    place::{Frames, Place, Subject},
};
use super::{
    Options, clang, progress,
    report::{Column, Row, Section},
    stats::Spread,
};
use crate::Lab;

const GBIT: Column = Column { name: "Gbit/s", digits: 2 };
const MICROS: Column = Column { name: "µs", digits: 2 };
const TO_ROUTING: Column = Column { name: "× routing", digits: 2 };
const TO_CONNTRACK: Column = Column { name: "× conntrack", digits: 2 };

/// What is done through each subject.
#[derive(Clone, Copy, Debug)]
enum Load {
    /// So many streams.
    Streams(usize),
    /// One request after the other.
    Requests,
}

/// A row of figures: one load of all subjects in turn.
#[derive(Clone, Copy, Debug)]
struct Case {
    load: Load,
    from: From,
}

impl Case {
    const ALL: [Self; 6] = [
        Self { load: Load::Streams(1), from: From::Client },
        Self { load: Load::Streams(1), from: From::Guest },
        Self { load: Load::Streams(4), from: From::Client },
        Self { load: Load::Streams(4), from: From::Guest },
        Self { load: Load::Requests, from: From::Client },
        Self { load: Load::Requests, from: From::Guest },
    ];

    /// Whether it is enough to show that the harness works: one of each kind and direction.
    const fn is_basic(self) -> bool {
        matches!((self.load, self.from), (Load::Streams(1), _) | (Load::Requests, From::Client))
    }

    fn name(self) -> String {
        let way = match self.from {
            From::Client => "client → guest",
            From::Guest => "guest → client",
        };
        match self.load {
            Load::Streams(1) => format!("{way}, 1 stream"),
            Load::Streams(streams) => format!("{way}, {streams} streams"),
            Load::Requests => format!("{way}, request and response"),
        }
    }

    /// Gigabits per second, or microseconds of one transaction.
    fn measure(self, place: &mut Place, window: Duration) -> Result<f64> {
        let Self { load, from } = self;
        match load {
            Load::Streams(streams) => {
                Ok(place.measure(streams, |flows| throughput(flows, from, window))? / 1e9)
            }
            Load::Requests => {
                let rate = place
                    .measure(1, |flows| requests(flows.first().context("a connection")?, from, window))?;
                Ok(1e6 / rate)
            }
        }
    }

    const fn column(self) -> Column {
        match self.load {
            Load::Streams(_) => GBIT,
            Load::Requests => MICROS,
        }
    }
}

/// Runs the part.
pub(super) fn run(options: &Options, lab: &Lab) -> Result<Section> {
    let mut section = Section {
        part: 'c',
        title: "TCP between a client outside and a guest".to_owned(),
        columns: vec![GBIT, MICROS, TO_ROUTING, TO_CONNTRACK],
        rows: Vec::new(),
        verified: vec![
            "whole segments: to an uplink with XDP the client sends as on a wire all the same, for native XDP on a veth takes \
             nothing else"
                .to_owned(),
        ],
    };
    let wire = clang::build(clang::WIRE, lab.directory())?;
    let mut places = Vec::new();
    for subject in Subject::ALL {
        progress!("c: starts {}", subject.name());
        match Place::build(lab, subject, &wire) {
            Ok(place) => places.push(place),
            // A kernel need not have nftables; what is ours must work.
            Err(error) if matches!(subject, Subject::Conntrack | Subject::Stateless) => {
                section.verified.push(format!("left out: {}: {error:#}", subject.name()));
            }
            Err(error) => return Err(error.context(subject.name())),
        }
    }
    let rounds = if options.short { 1 } else { 5 };
    let window = Duration::from_millis(if options.short { 60 } else { 250 });
    for (frames, size) in [(Frames::Whole, "whole segments"), (Frames::Mtu, "MTU frames, GRO")] {
        for place in &mut places {
            place.set(frames)?;
        }
        for case in Case::ALL.into_iter().filter(|case| !options.short || case.is_basic()) {
            let mut samples: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
            for round in 1..=rounds {
                progress!("c: {size}, {}: round {round}/{rounds}", case.name());
                for place in &mut places {
                    let name = place.subject.name();
                    let figure =
                        case.measure(place, window).with_context(|| format!("{name}, {}", case.name()))?;
                    samples.entry(name).or_default().push(figure);
                }
            }
            for place in &places {
                section.rows.push(row(case, size, place.subject, &samples)?);
            }
        }
    }
    for place in &places {
        section.verified.push(place.account()?);
    }
    Ok(section)
}

fn row(case: Case, size: &str, subject: Subject, samples: &BTreeMap<&str, Vec<f64>>) -> Result<Row> {
    let of = |subject: Subject| samples.get(subject.name());
    let own = of(subject).context("no samples")?;
    let mut values = BTreeMap::new();
    values.extend(Spread::of(own.iter().copied()).map(|spread| (case.column().name, spread)));
    for (column, peer) in [(TO_ROUTING, Subject::Routing), (TO_CONNTRACK, Subject::Conntrack)] {
        if let Some(peer) = of(peer) {
            let ratios = own.iter().zip(peer).map(|(own, peer)| own / peer);
            values.extend(Spread::of(ratios).map(|spread| (column.name, spread)));
        }
    }
    Ok(Row { path: case.name(), size: size.to_owned(), subject: subject.name().to_owned(), values })
}
