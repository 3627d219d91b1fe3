//! What the programs tell.

use std::io;

use aya::maps::{MapData, RingBuf};
use tokio::io::{Interest, unix::AsyncFd};
use vip_common::tables::Event;
use zerocopy::FromBytes as _;

use super::KernelError;

/// The programs' events, in the order in which they were told. They are hints: some may be lost, which METERS counts.
pub struct EventStream {
    ring: AsyncFd<RingBuf<MapData>>,
    malformed: u64,
}

impl EventStream {
    /// Needs a tokio runtime with I/O.
    pub(super) fn new(ring: RingBuf<MapData>) -> Result<Self, KernelError> {
        // SAFETY: the ring's descriptor is that of the map it owns: the same one, and open, for as long as the ring lives,
        // which the AsyncFd owns in turn. tokio offers no safe way.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        let ring = ring.map_err(|error| failed(error.into()))?;
        Ok(Self { ring, malformed: 0 })
    }

    /// Waits for the next event. Cancel-safe: no event is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Event, KernelError> {
        loop {
            if let Some(event) = self.try_next() {
                return Ok(event);
            }
            // The kernel wakes us when a record comes after we found the ring empty, so look again after clearing.
            let mut ready = self.ring.readable_mut().await.map_err(failed)?;
            ready.clear_ready();
            if let Some(event) = self.try_next() {
                return Ok(event);
            }
        }
    }

    /// The next event if there is one already.
    pub fn try_next(&mut self) -> Option<Event> {
        next_event(self.ring.get_mut(), &mut self.malformed)
    }

    /// Records that were passed over, because they do not have the size of an event: 0 unless programs and agent are of
    /// different versions.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }
}

/// The next event of a ring; records of another size are counted and passed over.
pub(super) fn next_event(ring: &mut RingBuf<MapData>, malformed: &mut u64) -> Option<Event> {
    loop {
        let record = ring.next()?;
        if let Ok(event) = Event::read_from_bytes(&record) {
            return Some(event);
        }
        *malformed += 1;
    }
}

fn failed(source: io::Error) -> KernelError {
    KernelError::Events { source }
}
