//! VIPs move between two hosts under a stream of datagrams from a third one, beside what a plain kernel does: bridges and vxlan devices that
//! learn, and the client's neighbour cache.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddrV4},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Array, Map, MapData};
use vip_common::{
    tables::{ClaimForm, MOVES_PER_VIP, Members, Move, names},
    wire::Ipv4,
};
use zerocopy::FromBytes as _;

use super::{
    super::{
        Options, progress,
        report::{Row, Section},
        stats::{Spread, percentile},
    },
    MS, P99, TO_KERNEL,
};
use crate::{
    Cluster, ClusterConfig, Guest, GuestConfig, Lab, Mac, RawSender,
    capture::Capture,
    frame::{Arp, Frame},
    stream::UdpStream,
    underlay::vtep,
    vxlan,
};

/// Datagrams a second: one each 50 microseconds, which is how fine a move can be measured.
const RATE: u32 = 20_000;

const PORT: u16 = 7007;

/// How long the streams may send, all in all.
const STREAM_TIME: Duration = Duration::from_secs(60);

/// VIPs, as many as one port may own.
const VIPS: usize = 10;

/// How often each VIP has its turn, and its moves then: with the first claim within what damping lets through at once.
const ROUNDS: usize = 3;
const MOVES: usize = 4;

/// Time between two turns of a VIP in which damping forgets a turn: a second for each move, and something.
const REST: Duration = Duration::from_millis(4500);

/// Between two of them.
const PAUSE: Duration = Duration::from_millis(60);

/// How long a move may take.
const LIMIT: Duration = Duration::from_secs(20);

/// The host of the client.
const CLIENT_HOST: u8 = 3;

/// UDP port and VNI of the plain kernel's tunnels, which are not vipd's.
const PLAIN_PORT: u16 = 8472;
const PLAIN_VNI: u32 = 99;

fn vip(number: usize) -> Result<Ipv4Addr> {
    Ok(Ipv4Addr::from(u32::from(Ipv4Addr::new(192, 168, 6, 1)) + u32::try_from(number)?))
}

fn vip_id(number: usize) -> String {
    format!("vip-{number}")
}

/// Guests that share the VIPs, on the first host and on the second, and how they are reached.
struct System<'g> {
    members: [(&'g Guest, RawSender); 2],
    stream: UdpStream,
    /// UDP port of its tunnels.
    port: u16,
}

pub(super) fn run(options: &Options, section: &mut Section) -> Result<()> {
    let (vips, rounds) = if options.short { (2, 1) } else { (VIPS, ROUNDS) };
    progress!("d: {} moves between hosts, and as many by a plain kernel", rounds * vips * MOVES);
    let mut objects = String::from("vips:\n");
    for number in 0..vips {
        let (id, address) = (vip_id(number), vip(number)?);
        writeln!(objects, "  - {{ id: {id}, subnet: web, address: {address}, ports: [first, second] }}")?;
    }
    // Of its own: the names of its hosts are those of other measurements' hosts, too.
    let lab = Lab::new()?;
    let cluster = Cluster::start(&lab, ClusterConfig { objects, ..ClusterConfig::usual() })?;
    let plain = plain_guests(&cluster)?;
    let [a, b, c] = plain.as_slice() else { bail!("{} plain guests", plain.len()) };
    let guest = |name| cluster.guest(name);
    let ours = [guest("first")?, guest("second")?, guest("third")?];
    let capture = watch(&cluster)?;
    let systems = [System::start(ours, vips, vxlan::PORT)?, System::start([a, b, c], vips, PLAIN_PORT)?];
    for system in &systems {
        (0..vips).try_for_each(|number| system.claim(0, vip(number)?))?;
    }
    (0..vips).try_for_each(|number| cluster.wait_for_owner(&vip_id(number), "first", LIMIT).map(drop))?;
    let mut times = [Vec::new(), Vec::new()];
    let mut words = Vec::new();
    for round in 0..rounds {
        let begin = Instant::now();
        for number in 0..vips {
            for (system, times) in systems.iter().zip(&mut times) {
                times.extend(system.moves(number, &capture)?);
            }
            // An even number of moves.
            cluster.wait_for_owner(&vip_id(number), "first", LIMIT)?;
            words.extend(word_times(&cluster, vip(number)?)?);
        }
        if round + 1 < rounds {
            // Each VIP's next turn is a round after its last one.
            thread::sleep(REST.saturating_sub(begin.elapsed()));
        }
    }
    for system in systems {
        system.stream.stop_sending();
        system.stream.finish()?;
    }
    let [ours, kernel] = times;
    let size = format!("{} moves", ours.len());
    let ratios = ours.iter().zip(&kernel).map(|(own, peer)| own / peer);
    let ratio = Spread::of(ratios).context("no moves")?;
    let told = "claim handled on its host to the owner's word on another";
    let seen = "claim sent to first frame from another host to the new owner's";
    section.rows.push(row(told, &size, "vipd", words.clone())?);
    let mut of_vipd = row(seen, &size, "vipd", ours)?;
    of_vipd.values.insert(TO_KERNEL.name, ratio);
    section.rows.push(of_vipd);
    section.rows.push(row(seen, &size, "kernel bridges, vxlan", kernel)?);
    section.verified.push(format!(
        "moves between hosts: {} words were told by the claimant's host to the client's, each in the epoch of its claim; each claim led the \
         stream to the other VTEP; every host has the last claimants as owners",
        words.len()
    ));
    Ok(())
}

fn row(path: &str, size: &str, subject: &str, samples: Vec<f64>) -> Result<Row> {
    let p99 = percentile(&samples, 0.99).context("no samples")?;
    let spread = Spread::of(samples).context("no samples")?;
    let p99 = Spread::of([p99]).context("no samples")?;
    Ok(Row {
        path: path.to_owned(),
        size: size.to_owned(),
        subject: subject.to_owned(),
        values: BTreeMap::from([(MS.name, spread), (P99.name, p99)]),
    })
}

impl<'g> System<'g> {
    /// Both members have all VIPs; the client sends to none yet.
    fn start([first, second, client]: [&'g Guest; 3], vips: usize, port: u16) -> Result<Self> {
        let members = [first, second];
        let addresses = (0..vips).map(vip).collect::<Result<Vec<_>>>()?;
        for (guest, address) in members.iter().flat_map(|guest| addresses.iter().map(move |vip| (guest, vip)))
        {
            guest.add_vip_address(*address)?;
        }
        let to: Vec<_> = addresses.iter().map(|vip| SocketAddrV4::new(*vip, PORT)).collect();
        let receivers = members.map(Guest::netns);
        let stream = UdpStream::start_idle(client.netns(), &to, RATE, STREAM_TIME, &receivers)?;
        // Opened beforehand: opening takes longer than a move.
        let open = |guest: &'g Guest| Ok::<_, anyhow::Error>((guest, RawSender::new(guest.netns(), "eth0")?));
        Ok(Self { members: [open(first)?, open(second)?], stream, port })
    }

    fn claim(&self, member: usize, vip: Ipv4Addr) -> Result<()> {
        let (guest, sender) = self.members.get(member).context("two members")?;
        sender.send(&Arp::gratuitous_request(guest.mac(), vip).frame(guest.mac(), Mac::BROADCAST))
    }

    /// Moves a VIP of the first member there and back under a stream. Milliseconds from each claim to the first frame to the VTEP of its host.
    fn moves(&self, number: usize, capture: &Capture) -> Result<Vec<f64>> {
        let begin = Instant::now();
        self.stream.aim(Some(number));
        self.arrival(0, begin, capture)?;
        let mut times = Vec::new();
        for turn in 1..=MOVES {
            thread::sleep(PAUSE);
            let claimed = Instant::now();
            self.claim(turn % 2, vip(number)?)?;
            times.push((self.arrival(turn % 2, claimed, capture)? - claimed).as_secs_f64() * 1e3);
        }
        self.stream.aim(None);
        Ok(times)
    }

    /// When the client's host first sent a datagram to a member's host since then.
    fn arrival(&self, member: usize, since: Instant, capture: &Capture) -> Result<Instant> {
        let to = (vtep(u8::try_from(member)? + 1), self.port);
        let what = format!("a datagram in a tunnel to {}:{}", to.0, to.1);
        let found = capture.wait_for(LIMIT, &what, |frame| {
            frame.at >= since && receiver(&frame.bytes).is_some_and(|found| found == to)
        })?;
        Ok(found.at)
    }
}

/// Where a stream's datagram goes to in a tunnel. By offset: twenty thousand frames a second are looked at.
fn receiver(bytes: &[u8]) -> Option<(Ipv4Addr, u16)> {
    const DESTINATION: usize = 30;
    const TUNNEL_PORT: usize = 36;
    const INNER_PORT: usize = 50 + TUNNEL_PORT;
    let number = |offset: usize| bytes.get(offset..)?.first_chunk().map(|two| u16::from_be_bytes(*two));
    let address: [u8; 4] = *bytes.get(DESTINATION..)?.first_chunk()?;
    let port = number(TUNNEL_PORT).filter(|port| [vxlan::PORT, PLAIN_PORT].contains(port))?;
    (number(INNER_PORT)? == PORT).then(|| (address.into(), port))
}

/// What the client's host sends, as its cable has it: of the streams' frames the ones that go elsewhere than the one before.
fn watch(cluster: &Cluster) -> Result<Capture> {
    let from = vtep(CLIENT_HOST).octets();
    let last = AtomicU64::new(0);
    let turns = move |frame: &Frame| {
        const SOURCE: usize = 26;
        if frame.bytes.get(SOURCE..).and_then(|rest| rest.first_chunk()) != Some(&from) {
            return false;
        }
        receiver(&frame.bytes).is_some_and(|(address, port)| {
            let now = u64::from(u32::from(address)) << 16 | u64::from(port);
            last.swap(now, Ordering::Relaxed) != now
        })
    };
    Capture::start_keeping(cluster.underlay().segment(), cluster.cable(CLIENT_HOST)?, turns)
}

/// A guest on each host behind a bridge with the kernel's own vxlan device, which learns; vipd does not know them.
fn plain_guests(cluster: &Cluster) -> Result<Vec<Guest>> {
    const BRIDGE: &str = "plain";
    const DEVICE: &str = "plain-vxlan";
    const INTERFACE: &str = "plain-tap";
    let hosts = 1..=cluster.config().hosts;
    let mut guests = Vec::new();
    for number in hosts.clone() {
        let host = cluster.host(number)?;
        let netns = host.netns();
        host.add_bridge(BRIDGE, None)?;
        netns.ip(&format!(
            "link add name {DEVICE} type vxlan id {PLAIN_VNI} local {} dstport {PLAIN_PORT}",
            vtep(number)
        ))?;
        netns.ip(&format!("link set dev {DEVICE} mtu {} up", cluster.underlay().config().mtu - 50))?;
        host.enslave(DEVICE, BRIDGE)?;
        for other in hosts.clone().filter(|other| *other != number) {
            let (all, to) = ("00:00:00:00:00:00", vtep(other).to_string());
            netns.check(&["bridge", "fdb", "append", all, "dev", DEVICE, "dst", &to, "self", "permanent"])?;
        }
        let mac = format!("02:00:00:00:09:0{number}");
        let address = format!("192.168.7.{}/22", 100 + number);
        let guest =
            host.add_guest(&GuestConfig::new(&format!("plain-{number}"), INTERFACE, &mac, &address)?)?;
        host.enslave(INTERFACE, BRIDGE)?;
        // Owners are known by their claims alone: both members would answer a question.
        guest.netns().sysctl("net/ipv4/conf/eth0/arp_accept", "1")?;
        guests.push(guest);
    }
    Ok(guests)
}

/// Milliseconds from each of a VIP's last moves on its claimant's host to the owner's word on the client's host, by the tables' own records.
fn word_times(cluster: &Cluster, vip: Ipv4Addr) -> Result<Vec<f64>> {
    let mut claims = BTreeMap::new();
    for host in 1..CLIENT_HOST {
        claims.extend(records(&cluster.vipd(host)?.bpffs(), vip, |form| form != ClaimForm::Peer)?);
    }
    let told = records(&cluster.vipd(CLIENT_HOST)?.bpffs(), vip, |form| form == ClaimForm::Peer)?;
    let mut times = Vec::new();
    for (epoch, told) in told.into_iter().rev().take(MOVES) {
        let claimed = claims.get(&epoch).with_context(|| format!("nobody claimed {vip} in epoch {epoch}"))?;
        let time = told
            .checked_sub(*claimed)
            .with_context(|| format!("epoch {epoch} was known before its claim"))?;
        times.push(Duration::from_nanos(time).as_secs_f64() * 1e3);
    }
    ensure!(times.len() == MOVES, "{} of {MOVES} moves of {vip} were told", times.len());
    Ok(times)
}

/// The moves of a VIP that came in such a form: nanoseconds since boot by epoch.
fn records(pins: &Path, vip: Ipv4Addr, wanted: impl Fn(ClaimForm) -> bool) -> Result<BTreeMap<u64, u64>> {
    let members: Array<_, [u8; size_of::<Members>()]> = table(pins, names::MEMBERS)?;
    let moves: Array<_, [u8; size_of::<Move>()]> = table(pins, names::MOVES)?;
    let vip = Ipv4::from(vip);
    let mut slot = None;
    for index in 0..members.len() {
        let entry =
            Members::read_from_bytes(&members.get(&index, 0)?).ok().context("the size of an entry")?;
        if entry.address == vip && entry.vni != 0 {
            slot = Some(index);
            break;
        }
    }
    let first = slot.with_context(|| format!("no slot is {vip:?}"))? * MOVES_PER_VIP;
    let mut found = BTreeMap::new();
    for index in first..first + MOVES_PER_VIP {
        let entry = Move::read_from_bytes(&moves.get(&index, 0)?).ok().context("the size of an entry")?;
        if entry.epoch != 0 && ClaimForm::from_number(entry.form).is_some_and(&wanted) {
            found.insert(entry.epoch, entry.at);
        }
    }
    Ok(found)
}

fn table<V: aya::Pod>(pins: &Path, name: &str) -> Result<Array<MapData, V>> {
    let data = MapData::from_pin(pins.join(name)).with_context(|| format!("cannot open the table {name}"))?;
    Ok(Array::try_from(Map::Array(data))?)
}
