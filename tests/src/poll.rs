//! Waiting for a condition.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::virtio;

/// Time between two looks: short against every timeout, long against the cost of most conditions.
const STEP: Duration = Duration::from_millis(10);

/// How many times as long everything may take on an emulated processor.
const PATIENCE: u32 = 4;

/// Calls `look` until it gives a value, at most for `timeout`, or on an emulated processor several times that.
///
/// `what` names the condition in the error, e.g. "guest a to become master". `look` runs at least once, and once more
/// after the time is up, so that a machine that stood still meanwhile does not fail a condition that holds.
pub fn poll_until<T>(timeout: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let timeout = if virtio::is_emulated() { timeout * PATIENCE } else { timeout };
    let deadline = Instant::now() + timeout;
    loop {
        let last = Instant::now() >= deadline;
        if let Some(value) = look() {
            return Ok(value);
        }
        if last {
            bail!("waited {timeout:?} in vain for {what}");
        }
        thread::sleep(STEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_gives_its_value() {
        let mut looks = 0;
        let value = poll_until(Duration::from_secs(5), "the third look", || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(value.ok(), Some(3));
    }

    #[test]
    fn a_condition_that_never_holds_is_named_in_the_error() {
        let error = poll_until(Duration::from_millis(1), "the moon", || None::<()>).expect_err("never true");
        assert!(error.to_string().contains("the moon"), "{error}");
    }
}
