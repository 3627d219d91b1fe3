//! A stream of numbered datagrams, and who received which when: what a move of a VIP loses is counted with it.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    process,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sys::prctl::set_timerslack;

use crate::{Netns, packet_socket::StampedSocket};

/// Traffic of a lab is bounded: datagrams a second,
const FASTEST: u32 = 50_000;
/// and time.
const LONGEST_STREAM: Duration = Duration::from_secs(120);

/// A sender that was kept from running catches up with this many datagrams at once, then with the rest of the
/// schedule shifted: no burst that a small queue would lose.
const CATCH_UP: u32 = 32;

/// Stream id and number, eight bytes each, big-endian.
const PAYLOAD: usize = 16;

/// A stream is over when nothing more arrived for so long after the last datagram was sent,
const QUIET: Duration = Duration::from_millis(200);
/// but it is not waited for longer than this.
const LAST_ARRIVAL: Duration = Duration::from_secs(3);

/// Tells this process's streams apart.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A datagram that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its number in the stream, from 0.
    pub number: u64,
    /// When the receiver's stack saw it.
    pub at: Instant,
}

/// What one receiver got.
#[derive(Clone, Debug)]
pub struct ReceiverReport {
    /// The label of its namespace.
    pub namespace: String,
    /// In the order of their arrival; a duplicate stands here twice.
    pub arrivals: Vec<Arrival>,
}

/// What became of a stream.
#[derive(Clone, Debug)]
pub struct StreamReport {
    /// When each datagram was handed to the sender's stack, by number.
    pub sent: Vec<Instant>,
    /// In the order of the receivers' namespaces at the start.
    pub receivers: Vec<ReceiverReport>,
}

impl StreamReport {
    /// Datagrams a second that the sender reached; 0 for fewer than two.
    pub fn rate(&self) -> f64 {
        let (Some(first), Some(last)) = (self.sent.first(), self.sent.last()) else { return 0.0 };
        let gaps = u32::try_from(self.sent.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let time = last.duration_since(*first);
        if time.is_zero() { 0.0 } else { f64::from(gaps) / time.as_secs_f64() }
    }

    /// The numbers that no receiver got, with their times of sending.
    pub fn lost(&self) -> Vec<(u64, Instant)> {
        let arrived: HashSet<u64> = self
            .receivers
            .iter()
            .flat_map(|receiver| &receiver.arrivals)
            .map(|arrival| arrival.number)
            .collect();
        (0..).zip(self.sent.iter().copied()).filter(|(number, _)| !arrived.contains(number)).collect()
    }

    /// How many arrivals were one too many: the same number again, wherever.
    pub fn duplicates(&self) -> usize {
        let mut arrived = HashSet::new();
        let arrivals = self.receivers.iter().flat_map(|receiver| &receiver.arrivals);
        arrivals.filter(|arrival| !arrived.insert(arrival.number)).count()
    }

    /// What the receiver in a namespace got.
    pub fn receiver(&self, netns: &Netns) -> Result<&ReceiverReport> {
        let found = self.receivers.iter().find(|receiver| receiver.namespace == netns.label());
        found.with_context(|| format!("the stream had no receiver in {}", netns.label()))
    }
}

/// What the sender of a stream is told.
#[derive(Debug)]
struct Orders {
    stop: AtomicBool,
    /// To which of its destinations it sends; [`IDLE`]: to none.
    aim: AtomicUsize,
}

/// An aim beyond all destinations.
const IDLE: usize = usize::MAX;

/// How long an idle sender sleeps before it looks for a destination again.
const IDLE_TIME: Duration = Duration::from_millis(1);

/// A running stream: one sender, any number of receivers on the destination's port, whatever address they have.
#[derive(Debug)]
pub struct UdpStream {
    orders: Arc<Orders>,
    sender: Option<JoinHandle<Result<Vec<Instant>>>>,
    receivers: Vec<Receiver>,
}

#[derive(Debug)]
struct Receiver {
    namespace: String,
    shared: Arc<Inbox>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct Inbox {
    arrivals: Mutex<Vec<Arrival>>,
    /// Datagrams lost for want of room in the socket: the receiver's own fault, not the path's.
    overflowed: AtomicU32,
    stop: AtomicBool,
}

impl Inbox {
    fn arrivals(&self) -> MutexGuard<'_, Vec<Arrival>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UdpStream {
    /// Starts a receiver in each of `receivers` and then a sender in `from` that sends `rate` datagrams a second to
    /// `to` for `time`. A machine too busy for the rate sends as many, in more time: see [`StreamReport::rate`].
    pub fn start(
        from: &Netns,
        to: SocketAddrV4,
        rate: u32,
        time: Duration,
        receivers: &[&Netns],
    ) -> Result<Self> {
        let stream = Self::start_idle(from, &[to], rate, time, receivers)?;
        stream.aim(Some(0));
        Ok(stream)
    }

    /// The same with several destinations, all of one port, of which [`UdpStream::aim`] chooses one after the other. While none is chosen
    /// nothing is sent, and `time` does not pass; but rests included the stream ends two minutes after its start.
    pub fn start_idle(
        from: &Netns,
        to: &[SocketAddrV4],
        rate: u32,
        time: Duration,
        receivers: &[&Netns],
    ) -> Result<Self> {
        ensure!(
            (1..=FASTEST).contains(&rate),
            "a stream of {rate} datagrams a second is not within 1..={FASTEST}"
        );
        ensure!(time <= LONGEST_STREAM, "a stream of {time:?} is longer than {LONGEST_STREAM:?}");
        let port = to.first().context("a stream without destination")?.port();
        ensure!(to.iter().all(|to| to.port() == port), "a stream has one port: {to:?}");
        let id = u64::from(process::id()) << 32 | u64::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let receivers =
            receivers.iter().map(|netns| Receiver::start(netns, port, id)).collect::<Result<Vec<_>>>()?;
        let orders = Arc::new(Orders { stop: AtomicBool::new(false), aim: AtomicUsize::new(IDLE) });
        let (obeyed, to) = (Arc::clone(&orders), to.to_vec());
        // A second for each datagram of each second.
        let count = (time * rate).as_secs();
        let sender = from.thread("stream", move || send(&to, id, rate, count, &obeyed))?;
        Ok(Self { orders, sender: Some(sender), receivers })
    }

    /// Sends to another one of its destinations from now on, by its place among them; to none: rests.
    pub fn aim(&self, destination: Option<usize>) {
        self.orders.aim.store(destination.unwrap_or(IDLE), Ordering::Relaxed);
    }

    /// How many datagrams the receiver in a namespace has got so far.
    pub fn received(&self, netns: &Netns) -> usize {
        let of = self.receivers.iter().filter(|receiver| receiver.namespace == netns.label());
        of.map(|receiver| receiver.shared.arrivals().len()).sum()
    }

    /// Ends the sending before its time.
    pub fn stop_sending(&self) {
        self.orders.stop.store(true, Ordering::Relaxed);
    }

    /// Waits until all is sent and nothing more arrives. A receiver that lost datagrams for want of room is an error:
    /// the report would blame the path.
    pub fn finish(mut self) -> Result<StreamReport> {
        let sent = match self.sender.take() {
            Some(sender) => joined(sender)?,
            None => Vec::new(),
        };
        self.wait_for_quiet(sent.len());
        let mut reports = Vec::new();
        for receiver in &mut self.receivers {
            receiver.stop()?;
            let overflowed = receiver.shared.overflowed.load(Ordering::Relaxed);
            let namespace = receiver.namespace.clone();
            ensure!(overflowed == 0, "the receiver in {namespace} was too slow for {overflowed} datagrams");
            reports.push(ReceiverReport { namespace, arrivals: receiver.shared.arrivals().clone() });
        }
        Ok(StreamReport { sent, receivers: reports })
    }

    fn wait_for_quiet(&self, sent: usize) {
        let arrived =
            || self.receivers.iter().map(|receiver| receiver.shared.arrivals().len()).sum::<usize>();
        let deadline = Instant::now() + LAST_ARRIVAL;
        let (mut before, mut since) = (arrived(), Instant::now());
        while before < sent && since.elapsed() < QUIET && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
            let now = arrived();
            if now != before {
                (before, since) = (now, Instant::now());
            }
        }
    }
}

impl Drop for UdpStream {
    fn drop(&mut self) {
        self.stop_sending();
        if let Some(sender) = self.sender.take() {
            let _ = sender.join();
        }
    }
}

impl Receiver {
    fn start(netns: &Netns, port: u16, id: u64) -> Result<Self> {
        let shared = Arc::<Inbox>::default();
        let theirs = Arc::clone(&shared);
        let socket = netns.exec(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))
                .with_context(|| format!("cannot bind UDP port {port}"))?;
            StampedSocket::new(socket)
        })?;
        let thread = thread::Builder::new()
            .name("receiver".to_owned())
            .spawn(move || receive(&socket, id, &theirs))
            .context("cannot start a receiver's thread")?;
        Ok(Self { namespace: netns.label().to_owned(), shared, thread: Some(thread) })
    }

    fn stop(&mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.take().map_or(Ok(()), joined)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // Whoever wanted to know has called finish().
        let _ = self.stop();
    }
}

fn joined<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| Err(anyhow!("a thread of the stream panicked")))
}

/// Takes datagrams until told to stop, and then what is still in the socket.
fn receive(socket: &StampedSocket<UdpSocket>, id: u64, inbox: &Inbox) -> Result<()> {
    let mut buffer = [0; PAYLOAD];
    loop {
        let stopping = inbox.stop.load(Ordering::Relaxed);
        match socket.receive(&mut buffer)? {
            Some(received) => {
                inbox.overflowed.store(received.overflowed, Ordering::Relaxed);
                if let Some(number) = number(&buffer, id).filter(|_| received.length == PAYLOAD) {
                    inbox.arrivals().push(Arrival { number, at: received.at });
                }
            }
            None if stopping => return Ok(()),
            None => {}
        }
    }
}

fn number(payload: &[u8; PAYLOAD], id: u64) -> Option<u64> {
    let (theirs, number) = payload.split_first_chunk::<8>()?;
    (u64::from_be_bytes(*theirs) == id).then_some(u64::from_be_bytes(*number.first_chunk()?))
}

/// Sends by the clock: number n is due n / rate seconds after the start, rests not counted.
fn send(to: &[SocketAddrV4], id: u64, rate: u32, count: u64, orders: &Orders) -> Result<Vec<Instant>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot bind a UDP socket")?;
    // The default of 50 µs (prctl(2), PR_SET_TIMERSLACK) is half the distance of two datagrams at 10 000 a second.
    set_timerslack(1).context("cannot sharpen the sender's timer")?;
    let distance = Duration::from_secs(1) / rate;
    let start = Instant::now();
    let mut due = start;
    let mut sent = Vec::new();
    let mut number = 0;
    while number < count {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if orders.stop.load(Ordering::Relaxed) || start.elapsed() > LONGEST_STREAM {
            break;
        }
        let at = Instant::now();
        let Some(to) = to.get(orders.aim.load(Ordering::Relaxed)) else {
            due = at + IDLE_TIME;
            continue;
        };
        due = due.max(at.checked_sub(distance * CATCH_UP).unwrap_or(due)) + distance;
        let payload = [id.to_be_bytes(), number.to_be_bytes()].concat();
        socket.send_to(&payload, to).with_context(|| format!("cannot send datagram {number} to {to}"))?;
        sent.push(at);
        number += 1;
    }
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(sent: usize, numbers: &[&[u64]]) -> StreamReport {
        let at = Instant::now();
        let receivers = numbers.iter().enumerate().map(|(index, numbers)| ReceiverReport {
            namespace: index.to_string(),
            arrivals: numbers.iter().map(|&number| Arrival { number, at }).collect(),
        });
        StreamReport { sent: vec![at; sent], receivers: receivers.collect() }
    }

    #[test]
    fn lost_is_what_no_receiver_got() {
        let lost: Vec<u64> =
            report(5, &[&[0, 1], &[4, 1]]).lost().into_iter().map(|(number, _)| number).collect();
        assert_eq!(lost, [2, 3]);
    }

    #[test]
    fn the_same_number_at_two_receivers_is_a_duplicate() {
        assert_eq!(report(5, &[&[0, 1, 1], &[4, 1]]).duplicates(), 2);
        assert_eq!(report(2, &[&[0], &[1]]).duplicates(), 0);
    }

    #[test]
    fn the_rate_is_that_of_the_gaps() {
        let start = Instant::now();
        let sent = (0..5).map(|number| start + Duration::from_millis(10) * number).collect();
        let report = StreamReport { sent, receivers: Vec::new() };
        assert!((report.rate() - 100.0).abs() < 0.001, "{}", report.rate());
        assert!(StreamReport { sent: vec![start], receivers: Vec::new() }.rate() < 0.001);
    }

    #[test]
    fn datagrams_of_another_stream_do_not_count() {
        let mut payload = [0; PAYLOAD];
        payload[7] = 9;
        payload[15] = 5;
        assert_eq!(number(&payload, 9), Some(5));
        assert_eq!(number(&payload, 8), None);
    }
}
