//! The programs that the forwarder is compared with, with tables for the same [`World`].

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, DevMap, HashMap, MapData, PerCpuArray},
    programs::{ProgramFd, SchedClassifier, Xdp, XdpMode, xdp::XdpLink},
};

use super::{
    harness::{Hook, OUTER},
    outer::Outer,
    world::{self, World},
};

/// The loaded programs.
pub(super) struct Peers {
    ebpf: Ebpf,
    seen: PerCpuArray<MapData, u64>,
    /// Keeps the devices where the programs find them.
    _devices: DevMap<MapData>,
}

/// What the sink saw so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// To an inner address, one hop older, with a good header.
    pub(super) routed: u64,
    /// As the generator sent it.
    pub(super) unchanged: u64,
    /// Anything else that the generator may have sent.
    pub(super) wrong: u64,
}

impl Seen {
    /// What came since `before`.
    pub(super) const fn since(self, before: Self) -> Self {
        Self {
            routed: self.routed - before.routed,
            unchanged: self.unchanged - before.unchanged,
            wrong: self.wrong - before.wrong,
        }
    }
}

/// Bytes of `struct whole`: VNI, inner address, port, MAC, the gateway's MAC.
const WHOLE: usize = 24;
/// Bytes of `struct place`: VNI, inner address.
const PLACE: usize = 8;
/// Bytes of `struct receiver`: port, MAC, the gateway's MAC.
const RECEIVER: usize = 16;

/// Bytes of `struct host`: the headers, and two that are not used.
const HOST: usize = OUTER + 2;

/// The hash tables.
const TABLES: [&str; 5] = ["WHOLE", "PLACES", "RECEIVERS", "FAR", "FAR_RECEIVERS"];

impl Peers {
    /// Loads the programs with tables of exactly the world's size, and fills them. The calling thread's namespace has the
    /// world's interfaces.
    pub(super) fn load(object: &[u8], world: World) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        for name in TABLES {
            loader.map_max_entries(name, world.entries);
        }
        let mut ebpf = loader.load(object).context("the kernel refuses the peers' programs")?;
        let mut devices: DevMap<_> = ebpf.take_map("DEVICES").context("no map DEVICES")?.try_into()?;
        for port in 0..world::PORTS {
            devices.set(device(port), world::port_interface(port), None, 0)?;
        }
        for (name, program) in ebpf.programs_mut() {
            match hook_of(name) {
                Hook::Tc => <&mut SchedClassifier>::try_from(program)?.load(),
                Hook::Xdp => <&mut Xdp>::try_from(program)?.load(),
            }
            .with_context(|| format!("the verifier refuses {name}"))?;
        }
        // Only now: a map that is dropped before its program is loaded is gone.
        fill(&mut ebpf, world)?;
        let seen = ebpf.take_map("SEEN").context("no map SEEN")?.try_into()?;
        Ok(Self { ebpf, seen, _devices: devices })
    }

    /// Puts an XDP program on an interface of the calling thread's namespace, in its driver, until the link is dropped.
    pub(super) fn attach(&mut self, name: &str, ifindex: u32) -> Result<XdpLink> {
        let program = self.ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
        let program: &mut Xdp = program.try_into()?;
        let link = program
            .attach_to_if_index(ifindex, XdpMode::Driver)
            .with_context(|| format!("{name} cannot be attached"))?;
        Ok(program.take_link(link)?)
    }

    /// What the sink saw, over all processors.
    pub(super) fn seen(&self) -> Result<Seen> {
        let of = |index: u32| -> Result<u64> { Ok(self.seen.get(&index, 0)?.iter().sum()) };
        Ok(Seen { routed: of(0)?, unchanged: of(1)?, wrong: of(2)? })
    }

    /// A program by name.
    pub(super) fn program(&self, name: &str) -> Result<&ProgramFd> {
        let program = self.ebpf.program(name).with_context(|| format!("no program {name}"))?;
        Ok(match hook_of(name) {
            Hook::Tc => <&SchedClassifier>::try_from(program)?.fd()?,
            Hook::Xdp => <&Xdp>::try_from(program)?.fd()?,
        })
    }
}

fn hook_of(name: &str) -> Hook {
    if name.starts_with("tc_") { Hook::Tc } else { Hook::Xdp }
}

/// Index of a port in DEVICES: those of the forwarder begin at 1 as well.
const fn device(port: u32) -> u32 {
    port + 1
}

fn fill(ebpf: &mut Ebpf, world: World) -> Result<()> {
    let mut maps: BTreeMap<&str, _> = BTreeMap::new();
    for name in TABLES.into_iter().chain(["HOSTS"]) {
        maps.insert(name, ebpf.take_map(name).with_context(|| format!("no map {name}"))?);
    }
    let mut take = |name| maps.remove(name).with_context(|| format!("no map {name}"));
    let mut whole: HashMap<MapData, [u8; 4], [u8; WHOLE]> = take("WHOLE")?.try_into()?;
    let mut places: HashMap<MapData, [u8; 4], [u8; PLACE]> = take("PLACES")?.try_into()?;
    let mut receivers: HashMap<MapData, [u8; PLACE], [u8; RECEIVER]> = take("RECEIVERS")?.try_into()?;
    let mut far: HashMap<MapData, [u8; 4], [u8; WHOLE]> = take("FAR")?.try_into()?;
    let mut far_receivers: HashMap<MapData, [u8; PLACE], u32> = take("FAR_RECEIVERS")?.try_into()?;
    let mut hosts: Array<MapData, [u8; HOST]> = take("HOSTS")?.try_into()?;
    for host in 0..world::HOSTS {
        hosts.set(
            host,
            sized::<HOST>(&[&Outer::to(host).without_lengths(), [0; 2].as_slice()].concat())?,
            0,
        )?;
    }
    for vip in 0..world.entries {
        let eip = world::nth(world::FIRST_EIP, world.eip_of(vip)).octets();
        let port = world.owner_of(vip);
        let place = [world::VNI.to_ne_bytes(), world::nth(world::FIRST_VIP, vip).octets()].concat();
        let both = [world::port_mac(port).0, world::vip_mac(world::GATEWAY).0].concat();
        let receiver = [device(port).to_ne_bytes().as_slice(), &both].concat();
        let both = [place.as_slice(), &receiver].concat();
        whole.insert(eip, sized::<WHOLE>(&both)?, 0)?;
        places.insert(eip, sized::<PLACE>(&place)?, 0)?;
        receivers.insert(sized::<PLACE>(&place)?, sized::<RECEIVER>(&receiver)?, 0)?;
        let host = world::host_of(world::far_owner_of(vip));
        let vip_mac = world::vip_mac(world::nth(world::FIRST_VIP, vip)).0;
        let both = [vip_mac, world::vip_mac(world::GATEWAY).0].concat();
        let whole = [place.as_slice(), &host.to_ne_bytes(), &both].concat();
        far.insert(eip, sized::<WHOLE>(&whole)?, 0)?;
        far_receivers.insert(sized::<PLACE>(&place)?, host, 0)?;
    }
    Ok(())
}

fn sized<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().with_context(|| format!("{} bytes for {N}", bytes.len()))
}
