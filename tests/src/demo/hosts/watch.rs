//! Moving the VIPs under streams of datagrams, and watching.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    judge::{Fate, Move, Stale},
    stage::{BESIDE, ELSEWHERE, MEMBERS, Stage, VIPS, eip, vip, vip_id},
};
use crate::{
    Netns,
    capture::Capture,
    frame::Frame,
    poll_until,
    stream::{StreamReport, UdpStream},
};

/// Where they go: each client's to a port of its own, those of the clients beside the members first.
const PORTS: [u16; 4] = [9001, 9002, 9003, 9004];

/// Moves of one round: then streams and captures end and are counted, and others begin.
pub(super) const ROUND: usize = 20;

/// A round lasts longer than its moves on the slowest machine.
const ROUND_TIME: Duration = Duration::from_secs(100);

/// How long a move may take: keepalived waits for three adverts.
const MOVE_TIME: Duration = Duration::from_secs(20);

/// The streams go on for so long before a move is asked for, and after every host has applied it.
const CALM: Duration = Duration::from_millis(60);

/// From where datagrams come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    /// A guest on the new owner's host.
    SameHost,
    /// The guest on the third host.
    OtherHost,
    /// The client outside, by the EIP.
    Outside,
}

impl Client {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::SameHost, Self::OtherHost, Self::Outside];

    /// From when on none of its datagrams may be lost: its host had applied the move. Those from outside enter at whatever host the
    /// router chooses, so all must have.
    fn known(self, it: &Move) -> Instant {
        match self {
            Self::SameHost => it.applied_by(it.to),
            Self::OtherHost => it.applied_by(usize::from(ELSEWHERE.host) - 1),
            Self::Outside => it.applied_everywhere(),
        }
    }
}

/// A move, and what became of each client's datagrams and of each host's frames.
#[derive(Debug)]
pub(super) struct Observed {
    /// The move.
    pub(super) it: Move,
    /// In the order of [`Client::ALL`].
    pub(super) fates: [Fate; 3],
    /// In the order of the hosts.
    pub(super) stale: Vec<Stale>,
}

/// The streams of a round. Those beside the members take turns.
struct Streams {
    beside: Vec<UdpStream>,
    elsewhere: UdpStream,
    outside: UdpStream,
}

impl Streams {
    fn start(stage: &Stage, rate: u32) -> Result<Self> {
        let cluster = &stage.cluster;
        let receivers = MEMBERS.map(|member| cluster.guest(member.name).map(crate::Guest::netns));
        let receivers: Vec<&Netns> = receivers.into_iter().collect::<Result<_>>()?;
        let [beside1, beside2, elsewhere, outside] = PORTS;
        let start = |from: &Netns, address: fn(usize) -> Ipv4Addr, port: u16| {
            let to: Vec<_> = (0..VIPS).map(|number| SocketAddrV4::new(address(number), port)).collect();
            UdpStream::start_idle(from, &to, rate, ROUND_TIME, &receivers)
        };
        let beside = BESIDE.iter().zip([beside1, beside2]);
        let beside = beside.map(|(guest, port)| start(cluster.guest(guest.name)?.netns(), vip, port));
        Ok(Self {
            beside: beside.collect::<Result<_>>()?,
            elsewhere: start(cluster.guest(ELSEWHERE.name)?.netns(), vip, elsewhere)?,
            outside: start(cluster.client(), eip, outside)?,
        })
    }

    /// All send to a VIP from now on, of those beside the members that on the host of `member`.
    fn aim(&self, vip: usize, member: usize) {
        for (index, stream) in self.beside.iter().enumerate() {
            stream.aim((index == member).then_some(vip));
        }
        self.elsewhere.aim(Some(vip));
        self.outside.aim(Some(vip));
    }

    /// How much a member has got from elsewhere and from outside.
    fn received(&self, member: &Netns) -> (usize, usize) {
        (self.elsewhere.received(member), self.outside.received(member))
    }

    fn finish(self) -> Result<Reports> {
        let finish = |stream: UdpStream| {
            stream.stop_sending();
            stream.finish()
        };
        Ok(Reports {
            beside: self.beside.into_iter().map(finish).collect::<Result<_>>()?,
            elsewhere: finish(self.elsewhere)?,
            outside: finish(self.outside)?,
        })
    }
}

struct Reports {
    beside: Vec<StreamReport>,
    elsewhere: StreamReport,
    outside: StreamReport,
}

/// Does so many moves, at most [`ROUND`], after so many before, under streams of so many datagrams a second.
pub(super) fn round(stage: &Stage, before: usize, count: usize, rate: u32) -> Result<Vec<Observed>> {
    let cluster = &stage.cluster;
    let hosts = 1..=cluster.config().hosts;
    let claims: Vec<Capture> = MEMBERS
        .iter()
        .map(|member| {
            let interface = cluster.guest(member.name)?.interface();
            Capture::start_keeping(cluster.host(member.host)?.netns(), interface, is_arp)
        })
        .collect::<Result<_>>()?;
    let cables: Vec<Capture> = hosts
        .map(|host| Capture::start_keeping(cluster.underlay().segment(), cluster.cable(host)?, is_tunnelled))
        .collect::<Result<_>>()?;
    let streams = Streams::start(stage, rate)?;
    let mut done = Vec::new();
    for number in before..before + count {
        // All VIPs go to the second member, then all come back.
        let to = (number / VIPS + 1) % MEMBERS.len();
        done.push(
            one_move(stage, &streams, &claims, number % VIPS, to)
                .with_context(|| format!("move {}", number + 1))?,
        );
    }
    let reports = streams.finish()?;
    let sent: Vec<Vec<Frame>> = cables.iter().map(Capture::frames).collect::<Result<_>>()?;
    done.into_iter()
        .map(|it| {
            let beside = reports.beside.get(it.to).context("a stream of the new owner's host")?;
            let [same, other, outside] = Client::ALL.map(|client| client.known(&it));
            let fates = [
                Fate::of(&it, same, beside),
                Fate::of(&it, other, &reports.elsewhere),
                Fate::of(&it, outside, &reports.outside),
            ];
            let to_old = sent.iter().enumerate().map(|(host, sent)| Stale::of(&it, host, sent)).collect();
            Ok(Observed { it, fates, stale: to_old })
        })
        .collect()
}

/// Whether a guest sent it, and it is ARP.
fn is_arp(frame: &Frame) -> bool {
    !frame.outgoing && frame.ether_type() == Some(0x0806)
}

/// Whether a host sent it, and it is UDP to the port of VXLAN; looked at for each frame, so at fixed places only.
fn is_tunnelled(frame: &Frame) -> bool {
    !frame.outgoing
        && frame.bytes.get(12..14) == Some(&[0x08, 0x00])
        && frame.bytes.get(36..38) == Some(&crate::vxlan::PORT.to_be_bytes())
}

/// One move of a VIP, with all streams on it.
fn one_move(
    stage: &Stage,
    streams: &Streams,
    claims: &[Capture],
    vip_number: usize,
    to: usize,
) -> Result<Move> {
    let (cluster, id, from) = (&stage.cluster, vip_id(vip_number), MEMBERS.len() - 1 - to);
    let (new, old) = (member(to)?, member(from)?);
    let epoch = epoch_of(&cluster.vipd(1)?.vip(&id)?)?;
    let (new_netns, old_netns) = (cluster.guest(new.name)?.netns(), cluster.guest(old.name)?.netns());
    let begin = Instant::now();
    let before = streams.received(old_netns);
    streams.aim(vip_number, to);
    poll_until(MOVE_TIME, &format!("datagrams at {}", old.name), || {
        let now = streams.received(old_netns);
        (now.0 > before.0 && now.1 > before.1).then_some(())
    })?;
    thread::sleep(CALM);

    let asked = Instant::now();
    stage.prefer(vip_number, to)?;
    let capture = claims.get(to).context("a capture of claims")?;
    let claim = capture.wait_for(MOVE_TIME, &format!("the claim of {}", new.name), |frame| {
        frame.at >= asked && frame.announces(vip(vip_number))
    })?;
    let applied = (1_u8..).zip(cluster.vipds()).map(|(host, vipd)| {
        let entry = poll_until(MOVE_TIME, &format!("hv{host} to apply the move"), || {
            let shown = vipd.vipctl(&["history", &id, "-o", "json"]).ok()?;
            let epoch_of = |entry: &&Value| entry.get("epoch").and_then(Value::as_u64);
            let last = shown.as_array()?.iter().max_by_key(epoch_of)?;
            (epoch_of(&last) > Some(epoch)).then(|| last.clone())
        })?;
        let port = entry.get("port").and_then(Value::as_str);
        ensure!(port == Some(new.name), "hv{host} tells of another move: {entry}");
        entry.get("at").and_then(Value::as_str).and_then(instant).context("a move without time")
    });
    let applied = applied.collect::<Result<Vec<_>>>()?;
    let before = streams.received(new_netns);
    poll_until(MOVE_TIME, &format!("datagrams at {}", new.name), || {
        let now = streams.received(new_netns);
        (now.0 > before.0 && now.1 > before.1).then_some(())
    })?;
    thread::sleep(CALM);
    Ok(Move { from, to, claim: claim.at, applied, window: begin..Instant::now() })
}

fn member(number: usize) -> Result<&'static crate::cluster::Placed> {
    MEMBERS.get(number).context("there are two members")
}

fn epoch_of(vip: &Value) -> Result<u64> {
    vip.pointer("/owner/epoch").and_then(Value::as_u64).with_context(|| format!("nobody owns {vip}"))
}

/// The moment of a time of the recent past that vipd tells: the last one that it may mean, since digits are cut off.
fn instant(rfc3339: &str) -> Option<Instant> {
    let at = humantime::parse_rfc3339(rfc3339).ok()?;
    let (_, fraction) = rfc3339.trim_end_matches('Z').split_once('.').unwrap_or((rfc3339, ""));
    let digits = u32::try_from(fraction.len()).ok()?.min(9);
    let unit = Duration::from_nanos(10_u64.pow(9 - digits));
    let (now, wall) = (Instant::now(), SystemTime::now());
    Some(match wall.duration_since(at + unit) {
        Ok(age) => now.checked_sub(age)?,
        Err(ahead) => now + ahead.duration(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_the_last_moment_that_its_digits_may_mean() {
        let now = SystemTime::now();
        let text = humantime::format_rfc3339_millis(now).to_string();
        let (coarse, fine) = (
            instant(&text).expect("a time"),
            instant(&humantime::format_rfc3339_micros(now).to_string()).expect("a time"),
        );
        assert!(coarse >= fine, "{text}");
        assert!(coarse - fine <= Duration::from_millis(2), "{text}");
        assert_eq!(instant("yesterday"), None);
    }
}
