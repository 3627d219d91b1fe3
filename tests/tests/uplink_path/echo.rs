//! TCP servers that say who they are and then send back what they get, and what a client of theirs does.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use vip_lab::{Netns, poll_until};

use crate::stage::SOON;

const PORT: u16 = 7000;

/// Bytes of a server's name, filled up with blanks.
const NAME: usize = 16;

/// How long a server sleeps before it looks whether it should end.
const STEP: Duration = Duration::from_millis(20);

/// What a talk sends before it waits for the answer: less than the sockets hold.
const PORTION: usize = 64 << 10;

/// A server in a namespace, on all its addresses. Ends when dropped.
pub(crate) struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    pub(crate) fn start(netns: &Netns) -> Result<Self> {
        let listener = netns.exec(|| {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })?;
        let stop = Arc::<AtomicBool>::default();
        let (stopped, name) = (Arc::clone(&stop), format!("{:NAME$}", netns.label()));
        let thread = thread::spawn(move || {
            thread::scope(|scope| {
                while !stopped.load(Ordering::Relaxed) {
                    match listener.accept() {
                        // Its client sees what goes wrong.
                        Ok((stream, _)) => drop(scope.spawn(|| answer(stream, &name, &stopped))),
                        Err(_) => thread::sleep(STEP),
                    }
                }
            });
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(mut stream: TcpStream, name: &str, stopped: &AtomicBool) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(STEP))?;
    stream.set_write_timeout(Some(SOON))?;
    stream.write_all(name.as_bytes())?;
    let mut buffer = vec![0; PORTION];
    while !stopped.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return stream.shutdown(Shutdown::Write),
            Ok(length) => stream.write_all(buffer.get(..length).unwrap_or_default())?,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A connection from a namespace to a server, and the server's name.
pub(crate) fn connect(from: &Netns, address: Ipv4Addr) -> Result<(TcpStream, String)> {
    let mut stream = from.exec(|| {
        TcpStream::connect_timeout(&SocketAddr::from((address, PORT)), SOON)
            .with_context(|| format!("cannot connect to {address}"))
    })?;
    stream.set_read_timeout(Some(SOON))?;
    stream.set_write_timeout(Some(SOON))?;
    let mut name = [0; NAME];
    stream.read_exact(&mut name).with_context(|| format!("{address} does not say who it is"))?;
    Ok((stream, String::from_utf8_lossy(&name).trim().to_owned()))
}

/// Sends this many bytes and receives them again at the same time; they must come back as they were.
pub(crate) fn exchange(stream: &TcpStream, length: usize) -> Result<()> {
    let sent: Vec<u8> = (0..length).map(|at| (at ^ at >> 8 ^ at >> 16).to_le_bytes()[0]).collect();
    let received = thread::scope(|scope| {
        let sender = scope.spawn(|| (&*stream).write_all(&sent).context("cannot send"));
        let mut received = vec![0; length];
        let read = (&*stream).read_exact(&mut received).context("the bytes do not come back");
        sender.join().unwrap_or_else(|_| Err(anyhow!("the sender panicked")))?;
        read.map(|()| received)
    })?;
    ensure!(received == sent, "the bytes came back changed");
    Ok(())
}

/// A connection that is never silent: portion after portion, there and back.
pub(crate) struct Talk {
    stop: Arc<AtomicBool>,
    portions: Arc<AtomicUsize>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Talk {
    pub(crate) fn start(stream: TcpStream) -> Self {
        let (stop, portions) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (stopped, done) = (Arc::clone(&stop), Arc::clone(&portions));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                exchange(&stream, PORTION)?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        Self { stop, portions, thread: Some(thread) }
    }

    /// Waits until more has gone there and back since now.
    pub(crate) fn goes_on(&self) -> Result<()> {
        let before = self.portions.load(Ordering::Relaxed);
        poll_until(SOON, "more of the talk", || {
            (self.portions.load(Ordering::Relaxed) > before + 2).then_some(())
        })
    }

    /// Ends it; an error if anything was lost or changed.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.end().context("the connection that was open all the time")
    }

    fn end(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|_| Err(anyhow!("a talk panicked")))
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        // Whoever wanted to know has called finish().
        let _ = self.end();
    }
}
