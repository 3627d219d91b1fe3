//! Nothing of a flow overtakes anything else of it, although a split uplink holds some packets back and not others.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use vip_lab::{
    RawSender,
    capture::Capture,
    etherparse::{PacketBuilder, TransportSlice},
    frame::{Frame, udp},
};

use crate::stage::{CLIENT, EIP, LONGEST_PLAIN_FRAME, SOON, Stage};

/// Where both flows go.
const PORT: u16 = 7001;

/// Where they come from.
const CLIENT_PORT: u16 = 40_000;

/// Segments of the stream.
const SEGMENTS: u32 = 3000;

/// Lengths of segments and datagrams, in words of four bytes: shorter ones end what GRO gathers, longer ones begin anew.
const LENGTHS: [usize; 11] = [362, 362, 1, 25, 362, 100, 2, 362, 362, 362, 200];

/// Every so many segments one is pushed, which ends what GRO gathers too.
const PUSHED: u32 = 13;

/// How long GRO waits for more: longer than many frames take to send.
const PATIENCE: Duration = Duration::from_millis(2);

/// The header of an unfragmented segment without options: Ethernet, IPv4, TCP up to its flags.
const FLAGS: usize = 14 + 20 + 13;

/// What is sent, and what each flow must look like at its receiver.
struct Sent {
    frames: Vec<Vec<u8>>,
    tcp: Vec<u32>,
    udp: Vec<u32>,
    /// The number of the segment sent last before each datagram.
    behind: Vec<u32>,
}

/// A stream of numbered segments of one connection, with numbered datagrams between them. The payload is the number, again and
/// again: whatever GRO puts together, the numbers can be read off.
fn stream(stage: &Stage) -> Result<Sent> {
    let macs = (stage.outside.mac(), stage.uplink_mac()?);
    let mut sent = Sent { frames: Vec::new(), tcp: Vec::new(), udp: Vec::new(), behind: Vec::new() };
    let mut sequence: u32 = u32::MAX - 500_000;
    let mut lengths = LENGTHS.into_iter().cycle();
    for number in 0..SEGMENTS {
        let payload = vec![number; lengths.next().unwrap_or(1)];
        let bytes: Vec<u8> = payload.iter().flat_map(|word| word.to_be_bytes()).collect();
        let mut builder = PacketBuilder::ethernet2(macs.0.0, macs.1.0)
            .ipv4(CLIENT.octets(), EIP.octets(), 64)
            .tcp(CLIENT_PORT, PORT, sequence, 1000)
            .ack(1);
        if number % PUSHED == 0 {
            builder = builder.psh();
        }
        let mut frame = Vec::new();
        builder.write(&mut frame, &bytes).context("cannot build a segment")?;
        sequence = sequence.wrapping_add(u32::try_from(bytes.len())?);
        sent.frames.push(frame);
        sent.tcp.extend(payload);
        if number % 3 == 0 {
            let datagram = u32::try_from(sent.behind.len())?;
            let payload = vec![datagram; lengths.next().unwrap_or(1)];
            let bytes: Vec<u8> = payload.iter().flat_map(|word| word.to_be_bytes()).collect();
            sent.frames.push(udp(macs, (CLIENT, CLIENT_PORT), (EIP, PORT), &bytes)?);
            sent.udp.extend(payload);
            sent.behind.push(number);
        }
    }
    Ok(sent)
}

/// A flow of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Tcp,
    Udp,
}

/// The flow that a frame belongs to, and the numbers in it.
fn numbers(frame: &Frame) -> Option<(Flow, Vec<u32>)> {
    let packet = frame.packet()?;
    let (flow, payload) = match packet.transport.as_ref()? {
        TransportSlice::Tcp(tcp) if tcp.destination_port() == PORT => (Flow::Tcp, tcp.payload()),
        TransportSlice::Udp(udp) if udp.destination_port() == PORT => (Flow::Udp, udp.payload()),
        _ => return None,
    };
    Some((flow, payload.as_chunks().0.iter().copied().map(u32::from_be_bytes).collect()))
}

/// What arrived at the guest, in the order of its arrival.
fn arrivals(stage: &Stage, frames: &[Vec<u8>], words: usize) -> Result<Vec<(Flow, Vec<u32>)>> {
    let cable = Capture::start(stage.first.netns(), "eth0")?;
    let sender = RawSender::new(stage.outside.netns(), "eth0")?;
    let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    sender.send_in_order(&frames)?;
    let mut arrived = Vec::new();
    let waited = vip_lab::poll_until(SOON, "everything that was sent", || {
        let seen = cable.matching(|frame| !frame.outgoing && numbers(frame).is_some()).ok()?;
        arrived = seen.iter().filter_map(numbers).collect();
        let count: usize = arrived.iter().map(|(_, words)| words.len()).sum();
        (count >= words).then_some(())
    });
    waited.map(|()| arrived)
}

/// Fails unless the numbers of a flow arrived as they were sent.
fn must_be_in_order(flow: Flow, sent: &[u32], arrived: &[(Flow, Vec<u32>)]) -> Result<()> {
    let of_flow = arrived.iter().filter(|(of, _)| *of == flow);
    let numbers: Vec<u32> = of_flow.flat_map(|(_, numbers)| numbers).copied().collect();
    let place = sent.iter().zip(&numbers).position(|(sent, arrived)| sent != arrived);
    ensure!(
        numbers == sent,
        "{flow:?}: {} words were sent and {} arrived; the first that differs is at {place:?}: {:?}",
        sent.len(),
        numbers.len(),
        place.and_then(|place| Some((sent.get(place)?, numbers.get(place)?)))
    );
    Ok(())
}

/// How many datagrams arrived before a segment that was sent before them.
fn overtakings(sent: &Sent, arrived: &[(Flow, Vec<u32>)]) -> usize {
    let mut last_segment = None;
    let mut overtaken = 0;
    for (flow, numbers) in arrived {
        match (flow, numbers.first(), numbers.last()) {
            (Flow::Tcp, _, last) => last_segment = last.copied().max(last_segment),
            (Flow::Udp, Some(&datagram), _) => {
                let behind = sent.behind.get(datagram as usize).copied();
                overtaken += usize::from(behind > last_segment);
            }
            _ => {}
        }
    }
    overtaken
}

/// The guest's kernel answers such segments with resets, which nobody needs to see.
fn silence(stage: &Stage) -> Result<()> {
    let guest = stage.first.netns();
    guest.ip(&format!("route add prohibit {CLIENT}/32")).map(drop)
}

#[test]
fn a_split_uplink_reorders_no_flow() {
    let test = "a_split_uplink_reorders_no_flow";
    Stage::run(test, "split", |stage| {
        stage.hold_segments(PATIENCE)?;
        silence(&stage)?;
        let sent = stream(&stage)?;
        let uplink = Capture::start(stage.host.netns(), "eth0")?;
        let arrived = arrivals(&stage, &sent.frames, sent.tcp.len() + sent.udp.len())?;
        must_be_in_order(Flow::Tcp, &sent.tcp, &arrived)?;
        must_be_in_order(Flow::Udp, &sent.udp, &arrived)?;

        // The flows went two ways, of which one was held up: had a flow been split between them, it would have shown.
        let of = |flow: Flow| {
            move |frame: &Frame| !frame.outgoing && numbers(frame).is_some_and(|it| it.0 == flow)
        };
        ensure!(uplink.count(of(Flow::Udp))? == 0, "TC saw datagrams");
        let large = |frame: &Frame| of(Flow::Tcp)(frame) && frame.bytes.len() > LONGEST_PLAIN_FRAME;
        ensure!(uplink.count(large)? > 0, "GRO put no segments together");
        ensure!(overtakings(&sent, &arrived) > 0, "no datagram overtook a segment");
        Ok(())
    });
}

#[test]
fn segments_sent_by_two_ways_would_be_seen_out_of_order() {
    let test = "segments_sent_by_two_ways_would_be_seen_out_of_order";
    Stage::run(test, "split", |stage| {
        stage.hold_segments(PATIENCE)?;
        silence(&stage)?;
        let mut sent = stream(&stage)?;
        // As if size decided: short ones get a SYN, which no segment of an open connection has, and go by XDP.
        for frame in sent.frames.iter_mut().filter(|frame| frame.len() < 200) {
            if frame.get(23) == Some(&6) {
                let flags = frame.get_mut(FLAGS).context("a segment has flags")?;
                *flags |= 2;
            }
        }
        let arrived = arrivals(&stage, &sent.frames, sent.tcp.len() + sent.udp.len())?;
        must_be_in_order(Flow::Udp, &sent.udp, &arrived)?;
        ensure!(
            must_be_in_order(Flow::Tcp, &sent.tcp, &arrived).is_err(),
            "the order hides what it should show"
        );
        Ok(())
    });
}
