//! TCP connections between two namespaces, and what goes through them.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use crate::Netns;

const PORT: u16 = 7100;

/// A connection that stands still for so long is broken.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a sender writes and a receiver reads at once.
const PORTION: usize = 256 << 10;

/// A request, and its response.
const MESSAGE: [u8; 64] = [7; 64];

/// A connection, with an end in each of two namespaces.
pub(super) struct Flow {
    /// The end of whoever opened it.
    pub(super) client: TcpStream,
    /// The other one.
    pub(super) guest: TcpStream,
}

/// What went through connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    /// Bits per second, or transactions per second.
    pub(super) rate: f64,
    /// Bytes of payload from the client to the guest, from the first to the last.
    pub(super) to_guest: u64,
    /// Bytes of payload from the guest to the client.
    pub(super) to_client: u64,
}

/// Who sends, or asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Client,
    Guest,
}

impl Flow {
    /// Opens a connection to an address that leads to the guest.
    pub(super) fn open(client: &Netns, guest: &Netns, address: Ipv4Addr) -> Result<Self> {
        let listener = guest.exec(|| {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))
                .with_context(|| format!("cannot listen on {PORT}"))
        })?;
        let client = client.exec(|| {
            TcpStream::connect_timeout(&SocketAddr::from((address, PORT)), PATIENCE)
                .with_context(|| format!("cannot connect to {address}"))
        })?;
        let (guest, _) = listener.accept().context("cannot accept a connection")?;
        for stream in [&client, &guest] {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            stream.set_nodelay(true)?;
        }
        Ok(Self { client, guest })
    }

    fn ends(&self, from: From) -> (&TcpStream, &TcpStream) {
        match from {
            From::Client => (&self.client, &self.guest),
            From::Guest => (&self.guest, &self.client),
        }
    }
}

/// Bits per second that arrive in a window of time while one side sends as fast as it can. Each side has a processor of its own
/// where there are two.
pub(super) fn throughput(flows: &[Flow], from: From, window: Duration) -> Result<Measured> {
    let (first, last) = processors()?;
    let (stop, arrived) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let mut senders = Vec::new();
        let mut receivers = Vec::new();
        for flow in flows {
            let (sender, receiver) = flow.ends(from);
            senders.push(scope.spawn(|| send(sender, first, &stop)));
            receivers.push(scope.spawn(|| receive(receiver, last, &arrived)));
        }
        // TCP's own windows and the queues grow first.
        thread::sleep(window / 2);
        // The clock last: this thread may have to wait for a processor.
        let (before, begin) = (arrived.load(Ordering::Relaxed), Instant::now());
        let (after, end) = loop {
            thread::sleep(window);
            let (after, end) = (arrived.load(Ordering::Relaxed), Instant::now());
            // On a busy machine TCP may stand still for longer than a short window.
            if after > before || begin.elapsed() > PATIENCE {
                break (after, end);
            }
        };
        stop.store(true, Ordering::Relaxed);
        let mut sent = 0;
        for sender in senders {
            sent += sender.join().unwrap_or_else(|_| Err(anyhow!("a sender panicked")))?;
        }
        for receiver in receivers {
            receiver.join().unwrap_or_else(|_| Err(anyhow!("a receiver panicked")))?;
        }
        let received = arrived.load(Ordering::Relaxed);
        ensure!(received == sent, "{sent} bytes were sent and {received} arrived");
        ensure!(after > before, "nothing arrived in {PATIENCE:?}");
        #[expect(clippy::cast_precision_loss, reason = "some gigabytes")]
        let rate = (after - before) as f64 * 8.0 / (end - begin).as_secs_f64();
        let (to_guest, to_client) = if from == From::Client { (sent, 0) } else { (0, sent) };
        Ok(Measured { rate, to_guest, to_client })
    })
}

/// Transactions per second in a window of time, one after the other, both sides on one processor: no other has to be woken.
pub(super) fn requests(flow: &Flow, from: From, window: Duration) -> Result<Measured> {
    let (first, _) = processors()?;
    let (asker, answerer) = flow.ends(from);
    thread::scope(|scope| {
        let answering = scope.spawn(|| -> Result<()> {
            stay_on(first)?;
            let mut stream = answerer;
            let mut message = MESSAGE;
            while stream.read_exact(&mut message).is_ok() {
                stream.write_all(&message).context("cannot answer")?;
            }
            Ok(())
        });
        let asking = scope.spawn(|| -> Result<(u64, u64, Duration)> {
            stay_on(first)?;
            let (mut all, mut counted, mut begin) = (0, 0, None);
            let start = Instant::now();
            let time = loop {
                transact(asker)?;
                all += 1;
                match begin {
                    None if start.elapsed() >= window / 8 => begin = Some(Instant::now()),
                    None => {}
                    Some(begin) => {
                        counted += 1;
                        let time = begin.elapsed();
                        if time >= window {
                            break time;
                        }
                    }
                }
            };
            asker.shutdown(Shutdown::Both).context("cannot end a connection")?;
            Ok((all, counted, time))
        });
        let outcome = asking.join().unwrap_or_else(|_| Err(anyhow!("the asker panicked")));
        if outcome.is_err() {
            // The other one would wait for more.
            let _ = asker.shutdown(Shutdown::Both);
        }
        answering.join().unwrap_or_else(|_| Err(anyhow!("the answerer panicked")))?;
        let (all, counted, time) = outcome?;
        let bytes = all * MESSAGE.len() as u64;
        #[expect(clippy::cast_precision_loss, reason = "some hundred thousand")]
        Ok(Measured { rate: counted as f64 / time.as_secs_f64(), to_guest: bytes, to_client: bytes })
    })
}

fn transact(mut asker: &TcpStream) -> Result<()> {
    let mut message = MESSAGE;
    asker.write_all(&message).context("cannot ask")?;
    asker.read_exact(&mut message).context("no answer came")
}

/// Sends until told to stop; how many bytes.
fn send(mut stream: &TcpStream, processor: usize, stop: &AtomicBool) -> Result<u64> {
    stay_on(processor)?;
    let portion = vec![7; PORTION];
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        sent += stream.write(&portion).context("cannot send")? as u64;
    }
    stream.shutdown(Shutdown::Write).context("cannot end a stream")?;
    Ok(sent)
}

/// Receives to the end.
fn receive(mut stream: &TcpStream, processor: usize, arrived: &AtomicU64) -> Result<()> {
    stay_on(processor)?;
    let mut portion = vec![0; PORTION];
    loop {
        match stream.read(&mut portion).context("nothing more arrives")? {
            0 => return Ok(()),
            bytes => arrived.fetch_add(bytes as u64, Ordering::Relaxed),
        };
    }
}

/// The first and the last processor that this process may use.
fn processors() -> Result<(usize, usize)> {
    let set = sched_getaffinity(Pid::from_raw(0)).context("cannot tell the processors")?;
    let mut usable = (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false));
    let first = usable.next().context("there is no processor")?;
    Ok((first, usable.next_back().unwrap_or(first)))
}

/// Keeps the calling thread on a processor.
fn stay_on(processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor).context("no such processor")?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("cannot stay on processor {processor}"))
}
