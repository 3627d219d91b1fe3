//! The corpus: some thousand packets whose translations an independent implementation tells, scapy.
//!
//! `tests/corpus/corpus.py` makes them, from the fixtures' world ([`world`]), as a file of JSON lines that `cargo xtask test` has
//! written and names in [`VARIABLE`]. Each line becomes fixtures ([`Case`]): the packet itself, and, if it is translated, its
//! answer, which must become the packet again. Nothing here knows how a packet is translated.

use std::{
    collections::{BTreeMap, HashSet},
    env, fs,
    net::Ipv4Addr,
    path::Path,
};

use anyhow::{Context as _, Result, bail, ensure};
use etherparse::Ipv4Header;
use serde_json::{Map, Value, json};
use vip_common::DropReason;

use crate::{
    Mac,
    fixtures::{
        Expect, Fixture, Table, World,
        world::{CLIENT, CLIENT_EIP, Guest, MASTER, ROUTER, UPLINK_MAC, WEB, WEB_EIP, WEB_VIP, constant_mac},
    },
};

/// The variable that names the corpus file.
pub const VARIABLE: &str = "VIP_CORPUS";

/// A packet of the corpus.
#[derive(Debug)]
pub struct Case {
    /// What it is an example of.
    pub class: String,
    /// The packet, and its answer if it has one, at each hook that they may meet.
    pub fixtures: Vec<Fixture>,
}

/// Where a packet is: MACs (source, destination) and addresses. None: anybody outside.
#[derive(Clone, Copy)]
struct Side {
    macs: (Mac, Mac),
    source: Option<Ipv4Addr>,
    destination: Option<Ipv4Addr>,
}

/// A way through the forwarder.
struct Way {
    name: &'static str,
    /// The guest that sends; None: it comes from outside.
    sender: Option<Guest>,
    before: Side,
    after: Side,
    hops: u8,
    /// What comes of a packet that is translated to this frame.
    arrives: fn(Vec<u8>) -> Expect,
    /// What else comes of a packet that is dropped at the second hop.
    dropped_late: fn(Expect) -> Expect,
    /// The way of what tells its sender at the second hop.
    told_late: &'static str,
    /// The way of answers.
    back: &'static str,
}

const GATEWAY: Mac = constant_mac(WEB.gateway);

const fn side(from: Mac, to: Mac, source: Option<Ipv4Addr>, destination: Option<Ipv4Addr>) -> Side {
    Side { macs: (from, to), source, destination }
}

/// All ways, in the order of the corpus.
static WAYS: [Way; 6] = [
    Way {
        name: "to_vip",
        sender: None,
        before: side(ROUTER.1, UPLINK_MAC, None, Some(WEB_EIP.address)),
        after: side(GATEWAY, MASTER.mac, None, Some(WEB_VIP.address)),
        hops: 1,
        arrives: |frame| Expect::deliver(MASTER, frame).eip_in(WEB_EIP).vip_in(WEB_VIP),
        dropped_late: |expect| expect,
        told_late: "",
        back: "from_vip",
    },
    Way {
        name: "to_fixed",
        sender: None,
        before: side(ROUTER.1, UPLINK_MAC, None, Some(CLIENT_EIP.address)),
        after: side(GATEWAY, CLIENT.mac, None, Some(CLIENT.address)),
        hops: 1,
        arrives: |frame| Expect::deliver(CLIENT, frame).eip_in(CLIENT_EIP),
        dropped_late: |expect| expect,
        told_late: "",
        back: "from_fixed",
    },
    Way {
        name: "from_vip",
        sender: Some(MASTER),
        before: side(MASTER.mac, GATEWAY, Some(WEB_VIP.address), None),
        after: side(UPLINK_MAC, ROUTER.1, Some(WEB_EIP.address), None),
        hops: 1,
        arrives: |frame| Expect::uplink(frame).eip_out(WEB_EIP).vip_out(WEB_VIP),
        dropped_late: |expect| expect,
        told_late: "",
        back: "to_vip",
    },
    Way {
        name: "from_fixed",
        sender: Some(CLIENT),
        before: side(CLIENT.mac, GATEWAY, Some(CLIENT.address), None),
        after: side(UPLINK_MAC, ROUTER.1, Some(CLIENT_EIP.address), None),
        hops: 1,
        arrives: |frame| Expect::uplink(frame).eip_out(CLIENT_EIP),
        dropped_late: |expect| expect,
        told_late: "",
        back: "to_fixed",
    },
    Way {
        name: "fixed_to_vip",
        sender: Some(CLIENT),
        before: side(CLIENT.mac, GATEWAY, Some(CLIENT.address), Some(WEB_EIP.address)),
        after: side(GATEWAY, MASTER.mac, Some(CLIENT_EIP.address), Some(WEB_VIP.address)),
        hops: 2,
        arrives: |frame| Expect::deliver(MASTER, frame).eip_out(CLIENT_EIP).eip_in(WEB_EIP).vip_in(WEB_VIP),
        dropped_late: |expect| expect.eip_out(CLIENT_EIP),
        told_late: "to_fixed",
        back: "vip_to_fixed",
    },
    Way {
        name: "vip_to_fixed",
        sender: Some(MASTER),
        before: side(MASTER.mac, GATEWAY, Some(WEB_VIP.address), Some(CLIENT_EIP.address)),
        after: side(GATEWAY, CLIENT.mac, Some(WEB_EIP.address), Some(CLIENT.address)),
        hops: 2,
        arrives: |frame| Expect::deliver(CLIENT, frame).eip_out(WEB_EIP).vip_out(WEB_VIP).eip_in(CLIENT_EIP),
        dropped_late: |expect| expect.eip_out(WEB_EIP).vip_out(WEB_VIP),
        told_late: "to_vip",
        back: "fixed_to_vip",
    },
];

/// What `corpus.py` reads: for each way, what a packet has before and after it, and the number of hops.
pub fn world() -> Value {
    let side = |side: &Side| {
        let (from, to) = side.macs;
        json!({
            "macs": [from.to_string(), to.to_string()],
            "source": side.source.map(|address| address.to_string()),
            "destination": side.destination.map(|address| address.to_string()),
        })
    };
    let ways = WAYS.iter().map(|way| {
        let gateway = way.sender.map(|guest| guest.subnet.gateway.to_string());
        let (before, after) = (side(&way.before), side(&way.after));
        let told = json!({ "before": before, "after": after, "hops": way.hops, "gateway": gateway });
        (way.name.to_owned(), told)
    });
    Value::Object(ways.collect::<Map<_, _>>())
}

/// The corpus that [`VARIABLE`] names.
///
/// # Errors
///
/// There is none, or its lines are not those of `corpus.py`.
pub fn load() -> Result<Vec<Case>> {
    let path = env::var_os(VARIABLE)
        .with_context(|| format!("{VARIABLE} names no corpus: `cargo xtask test` makes it and sets this"))?;
    let path = Path::new(&path);
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let cases = (1..).zip(text.lines()).map(|(number, line)| {
        parse(line).with_context(|| format!("line {number} of {} is no packet", path.display()))
    });
    let cases = cases.collect::<Result<Vec<_>>>()?;
    ensure!(!cases.is_empty(), "{} is empty", path.display());
    Ok(cases)
}

/// The corpus as tests, by name: one for each class, or, if `filter` is part of no class's name, for each packet.
///
/// # Errors
///
/// Those of [`load`], and two packets of one name.
pub fn tests(filter: Option<&str>) -> Result<Vec<(String, Vec<Fixture>)>> {
    let mut names = HashSet::new();
    let mut classes: BTreeMap<String, Vec<Fixture>> = BTreeMap::new();
    for Case { class, fixtures } in load()? {
        for fixture in &fixtures {
            ensure!(names.insert(fixture.name.clone()), "there are two packets {}", fixture.name);
        }
        classes.entry(class).or_default().extend(fixtures);
    }
    if filter.is_some_and(|filter| !classes.keys().any(|class| class.contains(filter))) {
        let fixtures = classes.into_values().flatten();
        return Ok(fixtures.map(|fixture| (fixture.name.clone(), vec![fixture])).collect());
    }
    Ok(classes.into_iter().collect())
}

/// Failures of one test that are shown in full.
const SHOWN: usize = 3;

/// Judges all fixtures of a test; the error shows the first that fail.
///
/// # Errors
///
/// Some fail.
pub fn judge(
    fixtures: &[Fixture],
    mut judge: impl FnMut(&Fixture) -> Result<(), String>,
) -> Result<(), String> {
    let mut failed = Vec::new();
    for (number, fixture) in (1..).zip(fixtures) {
        failed.extend(judge(fixture).err());
        if failed.len() == SHOWN {
            failed.push(format!("given up after {number} of {} packets", fixtures.len()));
            break;
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
}

fn parse(line: &str) -> Result<Case> {
    let line: Value = serde_json::from_str(line)?;
    let text = |key: &str| {
        line.get(key).and_then(Value::as_str).with_context(|| format!("it has no text \"{key}\""))
    };
    let name = text("name")?;
    let way = way(text("way")?)?;
    let frame = bytes(text("frame")?)?;
    let mut table = Table::default();
    let class = text("class")?;
    if let Some(drop) = line.get("drop").filter(|drop| !drop.is_null()) {
        let change = if class == "corpus_too_big" { narrow } else { |_: &mut World| () };
        match way.sender {
            Some(guest) => table.sent_in(change, guest, name, frame, refused(way, drop)?),
            None => table.uplink_in(change, name, frame, refused(way, drop)?),
        }
    } else {
        let out = bytes(text("out")?)?;
        let back = self::way(way.back)?;
        let answered = answer(&out, back.before.macs, TTL)?;
        // What the packet must be again: its own answer, at the end of the way back.
        let restored = answer(&frame, back.after.macs, TTL - back.hops)?;
        // Who answers an error by a router tells the router what happened to a packet of somebody else's.
        let expect = if back.sender.is_some() && is_for_another(&answered)? {
            Expect::drop(DropReason::IcmpError)
        } else {
            (back.arrives)(restored)
        };
        add(&mut table, way, name, frame, (way.arrives)(out));
        add(&mut table, back, &format!("{name} and back"), answered, expect);
    }
    Ok(Case { class: class.to_owned(), fixtures: table.into_fixtures() })
}

fn add(table: &mut Table, way: &Way, name: &str, frame: Vec<u8>, expect: Expect) {
    match way.sender {
        Some(guest) => table.sent(guest, name, frame, expect),
        None => table.uplink(name, frame, expect),
    }
}

/// Interfaces take as little as `corpus.py` has it.
fn narrow(world: &mut World) {
    world.set_mtu(1000);
}

fn way(name: &str) -> Result<&'static Way> {
    WAYS.iter().find(|way| way.name == name).with_context(|| format!("{name} is no way"))
}

/// What comes of a packet that the corpus wants dropped.
fn refused(way: &Way, drop: &Value) -> Result<Expect> {
    let name = drop.get("reason").and_then(Value::as_str).context("a drop without reason")?;
    let reason = DropReason::ALL.iter().find(|reason| reason.name() == name);
    let reason = *reason.with_context(|| format!("{name} is no reason"))?;
    let told = drop.get("told").and_then(Value::as_str).map(bytes).transpose()?;
    match (drop.get("hop").and_then(Value::as_u64), told) {
        (Some(1), None) => Ok(Expect::drop(reason)),
        (Some(1), Some(told)) => Ok(Expect::tell(reason, told)),
        (Some(hop), told) if hop == u64::from(way.hops) => Ok((way.dropped_late)(match told {
            None => Expect::drop(reason),
            Some(told) => (self::way(way.told_late)?.arrives)(told).dropped(reason),
        })),
        (hop, _) => bail!("{} has no hop {hop:?}", way.name),
    }
}

fn bytes(hex: &str) -> Result<Vec<u8>> {
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    ensure!(rest.is_empty(), "half a byte in {hex}");
    let byte = |pair: &[u8; 2]| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?);
    pairs.iter().map(byte).collect()
}

/// TTL of answers, which is their own.
const TTL: u8 = 64;

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// Bytes of an ICMP error before its quote.
const ICMP_HEADER: usize = 8;

/// Offset in the frame of the quote, of an ICMP error with that header and payload.
fn quote(header: &Ipv4Header, payload: &[u8]) -> Option<usize> {
    let is_error = header.protocol.0 == 1
        && header.fragment_offset.value() == 0
        && matches!(payload.first(), Some(3 | 11 | 12));
    is_error.then(|| ETHERNET + header.header_len() + ICMP_HEADER)
}

/// Whether it is an ICMP error about a packet that its receiver did not send.
fn is_for_another(frame: &[u8]) -> Result<bool> {
    let (header, payload) = Ipv4Header::from_slice(frame.get(ETHERNET..).context("no packet")?)?;
    let Some(quote) = quote(&header, payload) else { return Ok(false) };
    let sender = frame.get(quote + 12..quote + 16).context("an error without quote")?;
    Ok(sender != header.destination)
}

/// The same bytes the other way round: addresses of the packet and, in an ICMP error, of its quote change places, which no
/// checksum over them sees.
fn answer(frame: &[u8], macs: (Mac, Mac), ttl: u8) -> Result<Vec<u8>> {
    /// Source and destination, in an IPv4 header.
    const ADDRESSES: std::ops::Range<usize> = 12..20;
    let mut answer = frame.to_vec();
    let (from, to) = macs;
    let packet = frame.get(ETHERNET..).context("no packet")?;
    let (mut header, payload) = Ipv4Header::from_slice(packet)?;
    let (source, destination) = (header.source, header.destination);
    (header.source, header.destination, header.time_to_live) = (destination, source, ttl);
    header.header_checksum = header.calc_header_checksum();
    let head = [&to.0, &from.0, [8, 0].as_slice(), &header.to_bytes()].concat();
    answer.get_mut(..head.len()).context("no room for the header")?.copy_from_slice(&head);
    if let Some(quote) = quote(&header, payload) {
        let addresses = answer.get_mut(quote + ADDRESSES.start..quote + ADDRESSES.end);
        addresses.context("an error without quote")?.rotate_left(4);
    }
    Ok(answer)
}
