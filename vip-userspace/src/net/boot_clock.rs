//! From the clock of the BPF programs to the clock of people.

use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};

use super::NetError;

/// How often the clocks are compared; the closest comparison counts.
const ATTEMPTS: usize = 3;

/// The two clocks, read at one moment.
///
/// The programs stamp with `bpf_ktime_get_boot_ns` (`CLOCK_BOOTTIME`): it starts at boot, runs through suspends, and nobody
/// can set it. The wall clock can be set at any time, so a stored wall time would lie after a step, and two events across a
/// step would change their order. Hence only boot times are stored and compared, and each is translated when it is
/// shown, by the offset that holds *then*: after a step, all events of the past move along with the clock, as if it had
/// always been right. Within one `BootClock`, order and distances are exactly those of the boot clock, so translate what
/// is shown together with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootClock {
    /// Since boot.
    boot: Duration,
    /// At the same moment.
    wall: SystemTime,
}

impl BootClock {
    /// Compares the clocks now. The pair is exact to the time between two readings, well below a microsecond.
    pub fn now() -> Result<Self, NetError> {
        let mut closest = Self::compare()?;
        for _ in 1..ATTEMPTS {
            let comparison = Self::compare()?;
            if comparison.0 < closest.0 {
                closest = comparison;
            }
        }
        Ok(closest.1)
    }

    /// One comparison, and the time it took.
    fn compare() -> Result<(Duration, Self), NetError> {
        let before = boot_time()?;
        let wall = SystemTime::now();
        let width = boot_time()?.saturating_sub(before);
        Ok((width, Self { boot: before + width / 2, wall }))
    }

    /// Nanoseconds since boot when the clocks were compared; the scale of the programs' stamps.
    pub fn boot_ns(&self) -> u64 {
        u64::try_from(self.boot.as_nanos()).unwrap_or(u64::MAX)
    }

    /// The wall time of a stamp, in nanoseconds since boot; stamps may lie before or after the comparison.
    pub fn system_time(&self, boot_ns: u64) -> SystemTime {
        let stamp = Duration::from_nanos(boot_ns);
        // A u64 of nanoseconds is 584 years: only a wall clock set to such extremes is left as it is.
        match self.boot.checked_sub(stamp) {
            Some(ago) => self.wall.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH),
            None => self.wall.checked_add(stamp.saturating_sub(self.boot)).unwrap_or(self.wall),
        }
    }

    /// The wall time of a stamp in nanoseconds since boot, as RFC 3339 in UTC with microseconds:
    /// `2026-03-14T09:26:53.589793Z`.
    pub fn rfc3339(&self, boot_ns: u64) -> String {
        // humantime refuses times before 1970, which a host without a battery may show until its clock is set.
        let time = self.system_time(boot_ns).max(SystemTime::UNIX_EPOCH);
        humantime::format_rfc3339_micros(time).to_string()
    }
}

fn boot_time() -> Result<Duration, NetError> {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(Duration::from)
        .map_err(|errno| NetError::Clock { clock: "CLOCK_BOOTTIME", source: errno.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(boot_s: u64, wall_s: u64) -> BootClock {
        BootClock {
            boot: Duration::from_secs(boot_s),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(wall_s),
        }
    }

    #[test]
    fn a_stamp_is_shown_in_utc_with_microseconds() {
        let clock = clock(1_000, 1_773_480_413);
        assert_eq!(clock.rfc3339(1_000_589_793_123), "2026-03-14T09:26:53.589793Z");
        assert_eq!(clock.rfc3339(999_000_000_000), "2026-03-14T09:26:52.000000Z");
    }

    #[test]
    fn order_and_distance_survive_a_step_of_the_wall_clock() {
        for clock in [clock(1_000, 1_800_000_000), clock(1_000, 1_700_000_000)] {
            let (first, second) = (clock.system_time(10), clock.system_time(2_000_000_000_010));
            assert_eq!(second.duration_since(first).ok(), Some(Duration::from_secs(2_000)));
        }
    }

    #[test]
    fn a_host_whose_clock_was_never_set_shows_1970_and_does_not_panic() {
        assert_eq!(clock(1_000, 5).rfc3339(0), "1970-01-01T00:00:00.000000Z");
    }

    #[test]
    fn two_comparisons_agree_on_the_time_of_one_stamp() {
        let first = BootClock::now().expect("the kernel tells the time");
        let second = BootClock::now().expect("the kernel tells the time");
        assert!(first.boot_ns() <= second.boot_ns());
        let stamp = first.boot_ns();
        let (one, other) = (first.system_time(stamp), second.system_time(stamp));
        let apart = one.duration_since(other).or_else(|_| other.duration_since(one)).expect("either order");
        assert!(apart < Duration::from_secs(1), "{apart:?}");
    }
}
