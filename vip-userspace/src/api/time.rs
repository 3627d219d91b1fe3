//! Points in time as the interface writes them.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A point in time, written as RFC 3339 in UTC with milliseconds: `2025-06-01T12:00:00.250Z`.
///
/// Kept in whole milliseconds, so that what is written reads back as the same value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Milliseconds since the beginning of 1970.
    millis: u64,
}

impl Timestamp {
    /// The last moment that RFC 3339 has room for: the end of the year 9999.
    const LAST: u64 = 253_402_300_799_999;

    /// The same moment, cut to milliseconds. What lies before 1970 or after 9999 becomes the first or last moment
    /// between them.
    pub fn new(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { millis: u64::try_from(since.as_millis()).map_or(Self::LAST, |millis| millis.min(Self::LAST)) }
    }

    /// The moment on the system's clock.
    pub fn time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.millis)
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self::new(time)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_millis(self.time()).fmt(f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_rfc3339(&text).map(Self::new).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_in_utc_with_milliseconds_and_reads_back() {
        let moment = Timestamp::new(UNIX_EPOCH + Duration::from_nanos(1_748_779_200_250_999_999));
        assert_eq!(moment.to_string(), "2025-06-01T12:00:00.250Z");
        let text = serde_json::to_string(&moment).expect("text");
        assert_eq!(serde_json::from_str::<Timestamp>(&text).expect("the same moment"), moment);
    }

    #[test]
    fn no_moment_of_the_clock_is_unwritable() {
        assert_eq!(
            Timestamp::new(UNIX_EPOCH - Duration::from_secs(1)).to_string(),
            "1970-01-01T00:00:00.000Z"
        );
        let far = UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert_eq!(Timestamp::new(far).to_string(), "9999-12-31T23:59:59.999Z");
    }
}
