//! Points in time as OTLP carries them. It never asks what time it is.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Nanoseconds since 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The latest time that every store and library on the way can hold: the end of the year 2199.
    pub const LATEST: Self = Self(7_258_118_400 * 1_000_000_000 - 1);

    /// Rounded down to the microsecond, the resolution of a stored time.
    pub fn to_micros(self) -> i64 {
        i64::try_from(self.0 / 1_000).expect("u64::MAX / 1000 fits in an i64")
    }

    /// `None` before 1970.
    pub fn from_micros(micros: i64) -> Option<Self> {
        u64::try_from(micros).ok()?.checked_mul(1_000).map(Self)
    }

    /// Cut to the microsecond, so that a key is the same before it is stored and after.
    #[must_use]
    pub fn truncated(self) -> Self {
        Self(self.0 - self.0 % 1_000)
    }

    /// Zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Saturates at `LATEST`.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos).min(Self::LATEST.0))
    }

    /// Saturates at 1970.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Reads a date (`2026-11-24`, midnight UTC) or a time with its offset (`2026-11-24T08:00:00Z`).
    pub fn parse(text: &str) -> Option<Self> {
        let nanos = match text.parse::<jiff::Timestamp>() {
            Ok(time) => time.as_nanosecond(),
            Err(_) => {
                let date: jiff::civil::Date = text.parse().ok()?;
                jiff::tz::TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()?.as_nanosecond()
            }
        };
        u64::try_from(nanos).ok().map(Self).filter(|time| *time <= Self::LATEST)
    }

    fn utc(self) -> jiff::civil::DateTime {
        let nanos = i128::from(self.0.min(Self::LATEST.0));
        let time = jiff::Timestamp::from_nanosecond(nanos).expect("times up to LATEST are in jiff's range");
        jiff::tz::TimeZone::UTC.to_datetime(time)
    }
}

/// RFC 3339 in UTC, always with six decimals, so that the order of the texts is the order of the times.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let utc = self.utc();
        write!(f, "{:04}-{:02}-{:02}T", utc.year(), utc.month(), utc.day())?;
        write!(f, "{:02}:{:02}:{:02}.{:06}Z", utc.hour(), utc.minute(), utc.second(), utc.subsec_nanosecond() / 1_000)
    }
}

/// In the greatest unit that says it exactly: `1m`, `36h`, `30d`.
pub fn in_words(duration: Duration) -> String {
    let (seconds, parts) = (duration.as_secs(), [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")]);
    let exact = |length: u64| seconds > 0 && duration.subsec_nanos() == 0 && seconds.is_multiple_of(length);
    match parts.iter().find(|(length, _)| exact(*length)) {
        Some((length, unit)) => format!("{}{unit}", seconds / length),
        None => format!("{duration:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_cut_to_the_microsecond_and_read_back() {
        let time = Timestamp(1_790_000_000_123_456_789);
        assert_eq!(time.to_string(), "2026-09-21T14:13:20.123456Z");
        assert_eq!(Timestamp::parse(&time.to_string()), Some(time.truncated()));
        assert_eq!(Timestamp::from_micros(time.to_micros()), Some(time.truncated()));
    }

    #[test]
    fn how_long_is_said_exactly() {
        let said = [60, 90, 5_400, 129_600, 2_678_400].map(|seconds| in_words(Duration::from_secs(seconds)));
        assert_eq!(said, ["1m", "90s", "90m", "36h", "31d"]);
        assert_eq!(in_words(Duration::from_millis(250)), "250ms");
    }

    #[test]
    fn hostile_times_saturate() {
        assert_eq!(Timestamp(u64::MAX).to_string(), Timestamp::LATEST.to_string());
        assert_eq!(Timestamp::LATEST.to_string(), "2199-12-31T23:59:59.999999Z");
        assert_eq!(Timestamp(5).since(Timestamp(9)), Duration::ZERO);
        assert_eq!(Timestamp(u64::MAX).plus(Duration::MAX), Timestamp::LATEST);
        assert_eq!(Timestamp::parse("9999-01-01"), None);
    }
}
