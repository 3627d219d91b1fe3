//! How often a watch may take a new snapshot.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Changes within this time after a snapshot are taken together.
const AT_LEAST: Duration = Duration::from_millis(20);

/// After a snapshot the watch rests this many times as long as the snapshot took, so that a storm of changes on a host with
/// very many routes or interfaces costs at most a tenth of one core.
const REST: u32 = 9;

/// Lets the first change through at once and slows down those that follow.
#[derive(Debug)]
pub(super) struct Pacer {
    not_before: Instant,
}

impl Pacer {
    pub(super) fn new() -> Self {
        Self { not_before: Instant::now() }
    }

    /// Waits until the next snapshot may be taken.
    pub(super) async fn ready(&self) {
        sleep_until(self.not_before).await;
    }

    /// Tells that a snapshot was taken (or tried) since `started`.
    pub(super) fn spent(&mut self, started: Instant) {
        let now = Instant::now();
        self.not_before = now + AT_LEAST.max(now.duration_since(started) * REST);
    }
}
