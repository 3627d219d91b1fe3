//! Watching an interface.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    Netns,
    frame::Frame,
    packet_socket::{LONGEST, StampedSocket, Taking, lost_frames, open},
};

/// Collects every frame on one interface, both ways, with the kernel's times, until dropped.
///
/// On a host's `tap0` it sees a guest's frames before the programs at TC ingress do; it sees nothing of what native
/// XDP on the same interface handles.
#[derive(Debug)]
pub struct Capture {
    shared: Arc<Shared>,
    place: String,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    seen: Mutex<Seen>,
    grown: Condvar,
    stop: AtomicBool,
}

#[derive(Debug, Default)]
struct Seen {
    frames: Vec<Frame>,
    /// Frames that the socket lost for want of room.
    lost: u32,
    /// Why the reader gave up.
    failed: Option<String>,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Capture {
    /// Starts watching; frames from now on are seen.
    pub fn start(netns: &Netns, interface: &str) -> Result<Self> {
        Self::start_keeping(netns, interface, |_| true)
    }

    /// The same, of the frames alone for which `keep` holds: the others are forgotten at once.
    pub fn start_keeping(
        netns: &Netns,
        interface: &str,
        keep: impl Fn(&Frame) -> bool + Send + 'static,
    ) -> Result<Self> {
        let socket = StampedSocket::new(open(netns, interface, Taking::Everything)?)?;
        let shared =
            Arc::new(Shared { seen: Mutex::default(), grown: Condvar::new(), stop: AtomicBool::new(false) });
        let theirs = Arc::clone(&shared);
        let place = format!("{interface} of {}", netns.label());
        let reader = thread::Builder::new()
            .name(format!("capture {place}"))
            .spawn(move || read(&socket, &theirs, keep))
            .context("cannot start a capture's thread")?;
        Ok(Self { shared, place, reader: Some(reader) })
    }

    /// All frames so far. A capture that has lost frames is an error: what it did not see proves nothing.
    pub fn frames(&self) -> Result<Vec<Frame>> {
        self.matching(|_| true)
    }

    /// The frames so far for which `wanted` holds.
    pub fn matching(&self, wanted: impl Fn(&Frame) -> bool) -> Result<Vec<Frame>> {
        let seen = self.shared.seen();
        self.complete(&seen)?;
        Ok(seen.frames.iter().filter(|frame| wanted(frame)).cloned().collect())
    }

    /// How many frames so far `wanted` holds for.
    pub fn count(&self, wanted: impl Fn(&Frame) -> bool) -> Result<usize> {
        let seen = self.shared.seen();
        self.complete(&seen)?;
        Ok(seen.frames.iter().filter(|frame| wanted(frame)).count())
    }

    /// The first frame, also of the past, for which `wanted` holds, waited for at most `limit`; `what` names it in
    /// the error.
    pub fn wait_for(&self, limit: Duration, what: &str, wanted: impl Fn(&Frame) -> bool) -> Result<Frame> {
        let found = self.wait_for_count(limit, what, 1, wanted)?;
        found.into_iter().next().context("a capture that found one frame has none")
    }

    /// The first `count` frames, also of the past, for which `wanted` holds, waited for at most `limit`; `what` names
    /// them in the error.
    pub fn wait_for_count(
        &self,
        limit: Duration,
        what: &str,
        count: usize,
        wanted: impl Fn(&Frame) -> bool,
    ) -> Result<Vec<Frame>> {
        let mut looked_at = 0;
        let mut found = Vec::new();
        let (seen, _) = self
            .shared
            .grown
            .wait_timeout_while(self.shared.seen(), limit, |seen| {
                let new = seen.frames.iter().skip(looked_at).filter(|frame| wanted(frame));
                found.extend(new.take(count - found.len()).cloned());
                looked_at = seen.frames.len();
                found.len() < count && seen.failed.is_none()
            })
            .unwrap_or_else(PoisonError::into_inner);
        self.complete(&seen)?;
        let (frames, last) = (seen.frames.len(), seen.frames.iter().rev().take(5).rev().collect::<Vec<_>>());
        ensure!(
            found.len() == count,
            "waited {limit:?} in vain for {what} on {}: {} of {count} came; {frames} frames were seen, lastly {last:#?}",
            self.place,
            found.len()
        );
        Ok(found)
    }

    /// Forgets the frames so far.
    pub fn clear(&self) {
        self.shared.seen().frames.clear();
    }

    fn complete(&self, seen: &Seen) -> Result<()> {
        ensure!(seen.lost == 0, "the capture on {} lost {} frames: it proves nothing", self.place, seen.lost);
        ensure!(seen.failed.is_none(), "the capture on {} ended: {:?}", self.place, seen.failed);
        Ok(())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            // It panicked or not: a capture that is dropped says nothing any more.
            let _ = reader.join();
        }
    }
}

fn read(socket: &StampedSocket<OwnedFd>, shared: &Shared, keep: impl Fn(&Frame) -> bool) {
    let mut buffer = vec![0; LONGEST];
    let mut lost = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        match socket.receive(&mut buffer) {
            Ok(Some(received)) => {
                // A stream leaves no time to ask.
                if received.overflowed > 0 {
                    let mut seen = shared.seen();
                    seen.lost = seen.lost.max(received.overflowed);
                }
                let bytes = buffer.get(..received.length).unwrap_or_default().to_vec();
                let frame = Frame { at: received.at, outgoing: received.outgoing, bytes };
                if keep(&frame) {
                    shared.seen().frames.push(frame);
                    shared.grown.notify_all();
                }
            }
            Ok(None) => match lost_frames(socket.socket()) {
                Ok(more) => {
                    lost += more;
                    let mut seen = shared.seen();
                    seen.lost = seen.lost.max(lost);
                }
                Err(error) => shared.seen().failed = Some(format!("{error:#}")),
            },
            Err(error) => {
                shared.seen().failed = Some(format!("{error:#}"));
                shared.grown.notify_all();
                return;
            }
        }
    }
}
