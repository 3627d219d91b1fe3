//! Fetching pages, once or again and again.

use std::{
    fmt,
    io::{Read as _, Write as _},
    net::{SocketAddrV4, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::Netns;

/// Pages of labs are small; more than this is an error.
const LARGEST_ANSWER: u64 = 1 << 20;

/// A page as the server sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The status code, e.g. 200.
    pub status: u16,
    /// The body; bytes that are no UTF-8 replaced.
    pub body: String,
}

/// One attempt to fetch a page.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// When it began.
    pub at: Instant,
    /// How long it took, to the page or to the error.
    pub latency: Duration,
    /// The page, or why there is none.
    pub outcome: Result<Page, FetchError>,
}

/// Why a page did not come: the text of the error and its causes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchError(pub String);

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FetchError {}

impl Fetch {
    /// Whether the page came, with status 200.
    pub fn succeeded(&self) -> bool {
        self.outcome.as_ref().is_ok_and(|page| page.status == 200)
    }
}

/// Fetches `path` from a namespace over a new connection (HTTP/1.0), all within `limit`.
pub fn get(netns: &Netns, server: SocketAddrV4, path: &str, limit: Duration) -> Result<Page> {
    netns.exec(|| attempt(server, path, limit))
}

/// In the namespace of the calling thread.
fn attempt(server: SocketAddrV4, path: &str, limit: Duration) -> Result<Page> {
    let deadline = Instant::now() + limit;
    let mut stream = TcpStream::connect_timeout(&server.into(), limit)
        .with_context(|| format!("cannot connect to {server}"))?;
    stream.set_write_timeout(Some(limit)).context("cannot limit a write")?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", server.ip());
    stream.write_all(request.as_bytes()).with_context(|| format!("cannot send a request to {server}"))?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "{server} did not finish its answer within {limit:?}");
        stream.set_read_timeout(Some(left)).context("cannot limit a read")?;
        let count = stream.read(&mut chunk).with_context(|| format!("no answer from {server}"))?;
        if count == 0 {
            return parse(&answer).with_context(|| format!("from {server}"));
        }
        answer.extend_from_slice(chunk.get(..count).unwrap_or_default());
        ensure!(
            answer.len() as u64 <= LARGEST_ANSWER,
            "the answer of {server} is larger than {LARGEST_ANSWER} bytes"
        );
    }
}

fn parse(answer: &[u8]) -> Result<Page> {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { bail!("the answer has no header: {text:?}") };
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("the answer has no status: {head:?}"))?;
    Ok(Page { status, body: body.to_owned() })
}

/// Fetches one page again and again, each time over a new connection, until stopped or dropped.
#[derive(Debug)]
pub struct Fetcher {
    fetches: Arc<Mutex<Vec<Fetch>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Fetcher {
    /// Starts a fetch every `interval`, or as soon as the last one is over; each may take `limit`.
    pub fn start(
        netns: &Netns,
        server: SocketAddrV4,
        path: &str,
        interval: Duration,
        limit: Duration,
    ) -> Result<Self> {
        let fetches = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (theirs, stopped, path) = (Arc::clone(&fetches), Arc::clone(&stop), path.to_owned());
        let thread = netns.thread("fetcher", move || {
            while !stopped.load(Ordering::Relaxed) {
                let at = Instant::now();
                let outcome = attempt(server, &path, limit).map_err(|error| FetchError(format!("{error:#}")));
                let latency = at.elapsed();
                theirs.lock().unwrap_or_else(PoisonError::into_inner).push(Fetch { at, latency, outcome });
                thread::sleep(interval.saturating_sub(latency));
            }
            Ok(())
        })?;
        Ok(Self { fetches, stop, thread: Some(thread) })
    }

    /// The fetches that are over, oldest first.
    pub fn fetches(&self) -> Vec<Fetch> {
        self.fetches.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops after the fetch under way and gives them all.
    pub fn stop(mut self) -> Result<Vec<Fetch>> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(self.fetches())
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_split_into_status_and_body() {
        let page = parse(b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\nhello\r\n\r\nworld").expect("well formed");
        assert_eq!(page, Page { status: 200, body: "hello\r\n\r\nworld".to_owned() });
    }

    #[test]
    fn an_answer_cut_short_is_an_error() {
        assert!(parse(b"HTTP/1.1 200 OK\r\nServer").is_err());
        assert!(parse(b"").is_err());
    }
}
