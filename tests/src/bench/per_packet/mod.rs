//! Part a: what one packet costs, in the kernel's test run.

mod path;
mod sampling;

use anyhow::{Context as _, Result};

pub use self::path::Path;
use self::sampling::{Measured, measure};
use super::{
    Options, clang,
    forwarder::Forwarder,
    harness::{Harness, Hook},
    peers::Peers,
    progress,
    report::{Column, Row, Section, count},
    world::{self, World},
};
use crate::{Lab, Netns};

/// Everything that is run for one number of entries.
struct Bench {
    world: World,
    /// Numbers of the VIPs, by that of their EIP.
    vips: Vec<u32>,
    xdp: Harness,
    tc: Harness,
    peers: Peers,
    forwarder: Forwarder,
}

impl Bench {
    const fn harness(&mut self, hook: Hook) -> &mut Harness {
        match hook {
            Hook::Xdp => &mut self.xdp,
            Hook::Tc => &mut self.tc,
        }
    }
}

/// Runs the part.
pub(super) fn run(options: &Options, lab: &Lab) -> Result<Section> {
    let harness = clang::build(clang::HARNESS, lab.directory())?;
    let peers = clang::build(clang::PEERS, lab.directory())?;
    let object = options.object()?;
    let netns = lab.add_netns("per-packet")?;
    add_interfaces(&netns)?;
    let paths: Vec<Path> = Path::ALL
        .into_iter()
        .filter(|path| options.paths.is_empty() || options.paths.contains(path))
        .collect();
    let mut section = Section {
        part: 'a',
        title: "cost per packet in the kernel's test run, 64-byte frames, random entries (ns of one core)"
            .to_owned(),
        columns: COLUMNS.to_vec(),
        rows: Vec::new(),
        verified: Vec::new(),
    };
    for &entries in &options.sizes() {
        let world = World { entries, owners: world::OWNERS };
        let measured: Vec<Measured> = netns.exec(|| {
            progress!("a: {} entries: filling the tables", count(entries));
            let mut bench = Bench {
                world,
                vips: world.vips_by_eip(),
                xdp: Harness::load(&harness, Hook::Xdp)?,
                tc: Harness::load(&harness, Hook::Tc)?,
                peers: Peers::load(&peers, world)?,
                forwarder: Forwarder::load(&object, world).context("the forwarder's tables")?,
            };
            let mut all = Vec::new();
            for &path in &paths {
                if let Err(why) = path.possible(world) {
                    progress!("a: {} entries: {}: left out: {why}", count(entries), path.name());
                    continue;
                }
                progress!("a: {} entries: {}", count(entries), path.name());
                let measured = measure(&mut bench, path, options)
                    .with_context(|| format!("{}, {} entries", path.name(), count(entries)))?;
                all.push(measured);
            }
            Ok(all)
        })?;
        for Measured { rows, verified } in measured {
            section.rows.extend(rows);
            section.verified.push(verified);
        }
    }
    Ok(section)
}

const NS: Column = Column { name: "ns", digits: 1 };
const NET: Column = Column { name: "net of empty", digits: 1 };
const TO_ONE_HASH: Column = Column { name: "× C, one hash", digits: 2 };
const COLUMNS: [Column; 3] = [NS, NET, TO_ONE_HASH];

fn add_interfaces(netns: &Netns) -> Result<()> {
    // An interface that comes up would speak IPv6 by itself.
    netns.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
    let add = |name: &str, index: u32| -> Result<()> {
        let peer = index + 1000;
        netns.ip(&format!("link add {name} index {index} type veth peer name peer{index} index {peer}"))?;
        netns.ip(&format!("link set {name} up")).map(drop)
    };
    add("uplink", world::UPLINK)?;
    for port in 0..world::PORTS {
        add(&format!("port{port}"), world::port_interface(port))?;
    }
    Ok(())
}

/// One row of a path.
fn row(path: Path, world: World, subject: &str) -> Row {
    Row {
        path: path.name().to_owned(),
        size: count(world.entries),
        subject: subject.to_owned(),
        values: std::collections::BTreeMap::new(),
    }
}
