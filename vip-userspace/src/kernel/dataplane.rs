//! The programs and their tables, loaded and pinned.

use std::{collections::BTreeMap, path::Path, process, sync::Arc};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, RingBuf},
};
use vip_common::tables::{Config, LAYOUT_VERSION, names};

use super::{
    Capacity, EventStream, KernelError, MapShape, PinDir, ProgramReport, Tables, TcHook, chunked,
    pin_dir::unpin,
    programs, shape,
    tables::{ArrayTable, cpus},
};

/// The programs, built by `cargo xtask build`; empty if the binary was built without them.
pub const OBJECT: &[u8] = aya::include_bytes_aligned!(env!("VIP_EBPF_OBJECT_PATH"));

/// The loaded programs, their pinned tables, and the directory that holds both.
///
/// Dropping it changes nothing for packets: tables and links are pinned.
#[derive(Debug)]
pub struct Dataplane {
    pub(super) pins: PinDir,
    pub(super) ebpf: Ebpf,
    pub(super) tc_hook: TcHook,
    object: aya_obj::Object,
    tables: Arc<Tables>,
    adopted: bool,
}

impl Dataplane {
    /// Loads the programs that this binary carries, see [`Self::load_object`].
    pub fn load(pins: PinDir, capacity: &Capacity) -> Result<Self, KernelError> {
        Self::load_object(OBJECT, pins, capacity)
    }

    /// Loads the programs of an object and makes its tables, or takes over those that are pinned already.
    ///
    /// A pinned table of another shape ([`KernelError::Shape`]) or of another layout ([`KernelError::Layout`]) is refused
    /// before anything is loaded, and a start that fails takes back what it pinned: nothing has changed then, neither for
    /// packets nor on the file system. CONFIG names this process from then on. Programs of an earlier start go on until
    /// they are replaced by `attach_*`: fill the tables before.
    pub fn load_object(object: &[u8], pins: PinDir, capacity: &Capacity) -> Result<Self, KernelError> {
        let parsed = programs::parse(object)?;
        let expected = shape::expected(&parsed, capacity)?;
        check_layout(&pins, &expected)?;
        let missing = check_shapes(&pins, &expected)?;
        match Self::create(object, parsed, &pins, &expected, capacity) {
            Ok((ebpf, object, tables, adopted)) => {
                if adopted && !missing.is_empty() {
                    tracing::warn!("tables {missing:?} were not pinned any more; they begin empty");
                }
                let tables = Arc::new(tables);
                Ok(Self { pins, ebpf, tc_hook: TcHook::of_kernel(), object, tables, adopted })
            }
            Err(error) => {
                for name in missing {
                    unpin(&pins.table(name))?;
                }
                Err(error)
            }
        }
    }

    fn create(
        object: &[u8],
        parsed: aya_obj::Object,
        pins: &PinDir,
        expected: &BTreeMap<&'static str, MapShape>,
        capacity: &Capacity,
    ) -> Result<(Ebpf, aya_obj::Object, Tables, bool), KernelError> {
        let cpus = cpus()?;
        let mut loader = EbpfLoader::new();
        chunked::provide(&mut loader, capacity, &cpus, |name| pins.table(name))?;
        for (&name, shape) in expected {
            loader.map_max_entries(name, shape.entries());
            loader.map_pin_path(name, pins.table(name));
        }
        let mut ebpf =
            loader.load(object).map_err(|source| KernelError::Load { source: Box::new(source) })?;
        let tables = Tables::take(&mut ebpf, capacity.sizes()?)?;
        programs::load_forwarding(&mut ebpf)?;
        let config = tables.config.get(0)?;
        // The last step: tables without a layout were left by a start that did not come this far.
        tables.config.set(0, Config { layout: LAYOUT_VERSION, agent_pid: process::id(), ..config })?;
        Ok((ebpf, parsed, tables, config.layout == LAYOUT_VERSION))
    }

    /// Whether the tables are those of an earlier start.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// The tables; clones of the `Arc` may be used by other threads.
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// The pin directory.
    pub fn pins(&self) -> &PinDir {
        &self.pins
    }

    /// Where TC programs are attached.
    pub fn tc_hook(&self) -> TcHook {
        self.tc_hook
    }

    /// Attaches TC programs elsewhere than the kernel's version suggests. For programs that are not attached yet.
    pub fn set_tc_hook(&mut self, hook: TcHook) {
        self.tc_hook = hook;
    }

    /// The programs' events. Once: there is one reader of the ring. Needs a tokio runtime with I/O.
    pub fn events(&mut self) -> Result<EventStream, KernelError> {
        EventStream::new(take_events(&mut self.ebpf)?)
    }

    /// What each loaded program costs.
    pub fn programs(&self) -> Vec<ProgramReport> {
        programs::reports(&self.ebpf, &self.object)
    }
}

/// The ring of events of a loaded object, which gives it away.
pub(super) fn take_events(ebpf: &mut Ebpf) -> Result<RingBuf<MapData>, KernelError> {
    let ring = ebpf.take_map(names::EVENTS).ok_or(KernelError::EventsTaken)?;
    let failed =
        |source| KernelError::Table { operation: "use", table: names::EVENTS, source: Box::new(source) };
    RingBuf::try_from(ring).map_err(failed)
}

/// CONFIG as it is pinned in a directory; all zero if no start has come to write it.
pub(super) fn pinned_config(directory: &Path) -> Result<Config, KernelError> {
    let failed = |source| KernelError::Table {
        operation: "open the pinned",
        table: names::CONFIG,
        source: Box::new(source),
    };
    let map =
        MapData::from_pin(directory.join(names::CONFIG)).and_then(Map::from_map_data).map_err(failed)?;
    ArrayTable::new(names::CONFIG, map)?.get(0)
}

/// Refuses pinned tables of another layout. A CONFIG of another shape is left to [`check_shapes`].
fn check_layout(pins: &PinDir, expected: &BTreeMap<&'static str, MapShape>) -> Result<(), KernelError> {
    let pinned = MapShape::of_pin(names::CONFIG, &pins.table(names::CONFIG))?;
    if pinned.is_none() || pinned.as_ref() != expected.get(names::CONFIG) {
        return Ok(());
    }
    match pinned_config(pins.path())?.layout {
        0 | LAYOUT_VERSION => Ok(()),
        pinned => Err(KernelError::Layout { path: pins.path().to_owned(), pinned, expected: LAYOUT_VERSION }),
    }
}

/// Refuses pinned tables of another shape; returns the names of those that are not pinned.
fn check_shapes(
    pins: &PinDir,
    expected: &BTreeMap<&'static str, MapShape>,
) -> Result<Vec<&'static str>, KernelError> {
    let mut missing = Vec::new();
    for (&table, &expected) in expected {
        match MapShape::of_pin(table, &pins.table(table))? {
            None => missing.push(table),
            Some(pinned) if pinned == expected => {}
            Some(pinned) => {
                return Err(KernelError::Shape { table, path: pins.path().to_owned(), pinned, expected });
            }
        }
    }
    Ok(missing)
}
