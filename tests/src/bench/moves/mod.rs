//! Part d: moves, what a million EIPs take, and what vipd itself takes.

mod handover;
mod hosts;
mod process;
mod scale;
mod storm;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use super::{
    Options,
    report::{Column, Row, Section},
    stats::Spread,
};
use crate::Lab;

const MS: Column = Column { name: "ms", digits: 3 };
const P99: Column = Column { name: "p99 ms", digits: 3 };
const TO_KERNEL: Column = Column { name: "× kernel", digits: 2 };
const RATE: Column = Column { name: "per second", digits: 0 };
const MEMORY: Column = Column { name: "MB", digits: 0 };
const CPU: Column = Column { name: "% of a core", digits: 2 };

/// Runs the part.
pub(super) fn run(options: &Options, lab: &Lab) -> Result<Section> {
    let mut section = Section {
        part: 'd',
        title: "moves, tables of many EIPs, vipd itself".to_owned(),
        columns: vec![MS, P99, TO_KERNEL, RATE, MEMORY, CPU],
        rows: Vec::new(),
        verified: Vec::new(),
    };
    handover::run(options, lab, &mut section).context("moves under a stream")?;
    hosts::run(options, &mut section).context("moves between hosts")?;
    storm::run(options, lab, &mut section).context("a storm of claims")?;
    scale::run(options, lab, &mut section).context("many EIPs")?;
    Ok(section)
}

impl Section {
    /// Adds a row of one figure.
    fn tell(
        &mut self,
        what: &str,
        size: &str,
        column: Column,
        samples: impl IntoIterator<Item = f64>,
    ) -> Result<()> {
        let spread = Spread::of(samples).with_context(|| format!("{what}: nothing was measured"))?;
        self.rows.push(Row {
            path: what.to_owned(),
            size: size.to_owned(),
            subject: "vipd".to_owned(),
            values: BTreeMap::from([(column.name, spread)]),
        });
        Ok(())
    }
}
