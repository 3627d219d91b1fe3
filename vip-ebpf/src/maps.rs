//! The maps. The agent sets their sizes to the configured capacity when it loads the programs; the sizes here are the least.

use aya_ebpf::{
    Global,
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, DevMap, HashMap, LpmTrie, PerCpuArray, ProgramArray, RingBuf},
};
use vip_common::{
    DropReason,
    tables::{
        Advert, Config, EipNetwork, Event, Grant, GrantKey, HostEntry, MacKey, Members, Meter, MeterClass,
        Move, NextHop, RouteEntry, SubnetEntry, Target, VniAddress, VniEntry, index::Node,
    },
    wire::Ipv4,
};

use crate::copy::{Copied, Cutting};

/// Allocates entries as they come: an empty table of a million entries costs its buckets only.
const ON_DEMAND: u32 = aya_ebpf::bindings::BPF_F_NO_PREALLOC;

#[map]
pub(crate) static CONFIG: Array<Config> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static NODES: Array<Node> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(crate) static SCATTERED: HashMap<VniAddress, Target> = HashMap::with_max_entries(1, ON_DEMAND);
#[map]
pub(crate) static MACS: HashMap<MacKey, u32> = HashMap::with_max_entries(1, 0);
#[map]
pub(crate) static GRANTS: HashMap<GrantKey, Grant> = HashMap::with_max_entries(1, ON_DEMAND);
/// Chunks of records: the agent makes this map itself, as an array of maps, and the loader finds it.
#[map]
pub(crate) static VIPS: Array<u32> = Array::with_max_entries(1, 0);
/// Chunks of records, like VIPS.
#[map]
pub(crate) static VIPS_ASIDE: Array<u32> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static MOVES: Array<Move> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static ADVERTS: HashMap<GrantKey, Advert> = HashMap::with_max_entries(1, ON_DEMAND);
#[map]
pub(crate) static MEMBERS: Array<Members> = Array::with_max_entries(1, 0);
/// Chunks of records, like VIPS.
#[map]
pub(crate) static PORTS: Array<u32> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static PORT_DEVS: DevMap = DevMap::with_max_entries(1, 0);
#[map]
pub(crate) static IFPORTS: HashMap<u32, u32> = HashMap::with_max_entries(1, ON_DEMAND);
#[map]
pub(crate) static SUBNETS: LpmTrie<[u32; 2], SubnetEntry> = LpmTrie::with_max_entries(1, ON_DEMAND);
#[map]
pub(crate) static ROUTES: LpmTrie<Ipv4, RouteEntry> = LpmTrie::with_max_entries(1, ON_DEMAND);
#[map]
pub(crate) static HOSTS: Array<HostEntry> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static VTEPS: HashMap<Ipv4, u32> = HashMap::with_max_entries(1, 0);
#[map]
pub(crate) static VNIS: HashMap<u32, VniEntry> = HashMap::with_max_entries(1, ON_DEMAND);
#[map]
pub(crate) static NEXTHOPS: HashMap<Ipv4, NextHop> = HashMap::with_max_entries(1, 0);
#[map]
pub(crate) static NETWORKS: Array<EipNetwork> = Array::with_max_entries(64, 0);
/// More than there are reasons today, so that one can be added without another layout.
#[map]
pub(crate) static DROPS: PerCpuArray<u64> = PerCpuArray::with_max_entries(64, 0);
#[map]
pub(crate) static METERS: PerCpuArray<Meter> = PerCpuArray::with_max_entries(MeterClass::COUNT, 0);
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);
#[map]
pub(crate) static XMIT_ERRORS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Where a CPU makes a frame anew.
#[map]
pub(crate) static COPIED: PerCpuArray<Copied> = PerCpuArray::with_max_entries(1, 0);

/// What a CPU cuts into fragments.
#[map]
pub(crate) static CUTTING: PerCpuArray<Cutting> = PerCpuArray::with_max_entries(1, 0);

/// The second programs of TC, which the agent puts in.
#[map]
pub(crate) static RESTS: ProgramArray = ProgramArray::with_max_entries(2, 0);

#[map]
pub(crate) static VERDICTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Whether each verdict is kept in VERDICTS: set by tests when they load the programs. Otherwise the verifier removes the code.
#[unsafe(no_mangle)]
pub(crate) static OBSERVED: Global<u32> = Global::new(0);

/// CPUs that a record has counters for: those that the machine can have. Set when the programs are loaded.
#[unsafe(no_mangle)]
pub(crate) static CPUS: Global<u32> = Global::new(1);

const _: () = assert!(DropReason::COUNT <= 64 && size_of::<Event>().is_multiple_of(8));
