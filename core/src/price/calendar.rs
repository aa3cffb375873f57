//! Days and times of day in UTC, as far as prices need them. It never reads a clock and knows no other time zone.

use serde::Deserialize;

use crate::domain::time::Timestamp;

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const SECONDS_PER_DAY: u64 = 86_400;
const NANOS_PER_DAY: u64 = SECONDS_PER_DAY * NANOS_PER_SECOND;

/// A day as the number of days since 1970-01-01. Written `YYYY-MM-DD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Day(u64);

/// Nanoseconds since midnight. Written `HH:MM` or `HH:MM:SS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct TimeOfDay(u64);

impl Day {
    pub(super) fn of(at: Timestamp) -> Self {
        Self(at.0 / NANOS_PER_DAY)
    }

    /// None if there is no such day, or if it is before 1970.
    pub(super) fn from_civil(year: u64, month: u64, day: u64) -> Option<Self> {
        let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let february = if leap { 29 } else { 28 };
        let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let place = usize::try_from(month.checked_sub(1)?).ok()?;
        if day == 0 || day > *lengths.get(place)? || !(1970..=9999).contains(&year) {
            return None;
        }
        let years_before: u64 = year - 1;
        // 477 leap years came before 1970.
        let leap_days = years_before / 4 - years_before / 100 + years_before / 400 - 477;
        let earlier_months: u64 = lengths.iter().take(place).sum();
        Some(Self((year - 1970) * 365 + leap_days + earlier_months + day - 1))
    }
}

impl TimeOfDay {
    pub(super) fn of(at: Timestamp) -> Self {
        Self(at.0 % NANOS_PER_DAY)
    }

    /// From `start` on and before `end`; across midnight if `end` is the earlier one.
    pub(super) fn is_between(self, start: Self, end: Self) -> bool {
        if end < start { self >= start || self < end } else { start <= self && self < end }
    }
}

impl TryFrom<String> for Day {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('-').collect();
        match parts[..] {
            [year, month, day] if [year.len(), month.len(), day.len()] == [4, 2, 2] => number(year)
                .zip(number(month))
                .zip(number(day))
                .and_then(|((year, month), day)| Self::from_civil(year, month, day)),
            _ => None,
        }
        .ok_or_else(|| format!("`{text}` is no day from 1970 on in the form YYYY-MM-DD"))
    }
}

impl TryFrom<String> for TimeOfDay {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parts: Option<Vec<u64>> = text.split(':').map(|part| number(part).filter(|_| part.len() == 2)).collect();
        match parts.as_deref() {
            Some(&[hour, minute]) => Some((hour, minute, 0)),
            Some(&[hour, minute, second]) => Some((hour, minute, second)),
            _ => None,
        }
        .filter(|&(hour, minute, second)| hour < 24 && minute < 60 && second < 60)
        .map(|(hour, minute, second)| Self((hour * 3600 + minute * 60 + second) * NANOS_PER_SECOND))
        .ok_or_else(|| format!("`{text}` is no time of day in the form HH:MM or HH:MM:SS"))
    }
}

/// Digits only: no sign, no space.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_as_the_calendar_does() {
        let day = |text: &str| Day::try_from(text.to_owned()).ok().map(|day| day.0);
        assert_eq!(day("1970-01-01"), Some(0));
        assert_eq!(day("2000-02-29"), Some(11_016));
        assert_eq!(day("2026-11-24"), Some(20_781));
        assert_eq!(day("2100-03-01"), Some(47_541));
        for wrong in
            ["2025-02-29", "2100-02-29", "2026-13-01", "2026-00-10", "1969-12-31", "26-11-24", "2026-1-024", ""]
        {
            assert_eq!(day(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_interval_may_cross_midnight() {
        let time = |text: &str| TimeOfDay::try_from(text.to_owned()).unwrap();
        assert!(time("23:59").is_between(time("22:00"), time("01:00")));
        assert!(time("00:59:59").is_between(time("22:00"), time("01:00")));
        assert!(!time("01:00").is_between(time("22:00"), time("01:00")));
        assert!(time("01:00").is_between(time("01:00"), time("04:00")));
        assert!(!time("04:00").is_between(time("01:00"), time("04:00")));
        assert!(TimeOfDay::try_from("24:00".to_owned()).is_err());
    }
}
