//! Periods of use: they tile time without gap or overlap, by the calendar of a time zone or by the anniversary of a moment.

use std::fmt;

use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::time::Timestamp;

/// How long a period is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cycle {
    /// Of real time: where a clock is turned back, the hour it repeats is another one.
    Hour,
    Day,
    /// From Monday.
    Week,
    Month,
    Year,
    /// One period without end.
    Lifetime,
}

/// Where periods begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Anchor {
    /// With the hour, day, week, month or year of the zone.
    Calendar,
    /// At the time of day, weekday, day of the month or of the year that this moment has in the zone. Where a month has no such
    /// day, at its last one; the months after it are not moved by that.
    Anniversary(Timestamp),
}

/// A time zone of the IANA database that is built in, so that all instances know the same one.
#[derive(Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

/// The periods of one account or one limit. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    pub cycle: Cycle,
    pub anchor: Anchor,
    pub zone: Zone,
}

/// From its start on and before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Period {
    pub start: Timestamp,
    /// `None` where it never ends.
    pub end: Option<Timestamp>,
}

const HOUR: i128 = 3_600_000_000_000;
/// Of the week that 1970 began in.
const MONDAY: Date = Date::constant(1969, 12, 29);

impl Cycle {
    pub const ALL: [Self; 6] = [Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year, Self::Lifetime];

    pub fn label(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
            Self::Lifetime => "lifetime",
        }
    }

    /// Reads a label.
    pub fn parse(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cycle| cycle.label() == label)
    }
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

impl Zone {
    pub const UTC: Self = Self(TimeZone::UTC);

    /// A name such as `Europe/Berlin`, in either case; `None` where the database has no such zone.
    pub fn parse(name: &str) -> Option<Self> {
        TimeZone::get(name).ok().filter(|zone| !zone.is_unknown()).map(Self)
    }

    /// As the database writes it.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        // What was given is not repeated, here and wherever configuration is read: it may be a secret in the wrong place.
        Self::parse(&name).ok_or_else(|| D::Error::custom("expected the name of a time zone such as Europe/Berlin"))
    }
}

impl Period {
    pub fn contains(&self, at: Timestamp) -> bool {
        self.start <= at && self.end.is_none_or(|end| at < end)
    }
}

impl Schedule {
    /// The period that contains this moment. One that begins before 1970 begins with it.
    ///
    /// A boundary that a clock jumps over lies where it jumps to; one that a clock shows twice lies where it is shown first. A
    /// period of which nothing is left by that is none.
    pub fn period_at(&self, at: Timestamp) -> Period {
        match (self.cycle, self.anchor) {
            (Cycle::Lifetime, _) => Period { start: Timestamp(0), end: None },
            (Cycle::Hour, Anchor::Calendar) => self.clock_hour(at),
            (Cycle::Hour, Anchor::Anniversary(anchor)) => {
                let into = (nanos(at) - nanos(anchor)).rem_euclid(HOUR);
                period(nanos(at) - into, nanos(at) - into + HOUR)
            }
            _ => self.civil(at),
        }
    }

    /// From one full hour of the local clock to the next, but never across a change of that clock.
    fn clock_hour(&self, at: Timestamp) -> Period {
        let offset = |nanos| i128::from(self.zone.0.to_offset(instant(nanos)).seconds()) * 1_000_000_000;
        let now = nanos(at);
        let here = offset(now);
        let into = (now + here).rem_euclid(HOUR);
        let (mut start, mut end) = (now - into, now - into + HOUR);
        if offset(start) != here {
            start = self
                .zone
                .0
                .preceding(instant(now + 1))
                .next()
                .map_or(start, |change| change.timestamp().as_nanosecond());
        }
        if offset(end - 1) != here {
            end = self.zone.0.following(instant(now)).next().map_or(end, |change| change.timestamp().as_nanosecond());
        }
        period(start, end)
    }

    /// Counted in days, weeks, months or years of the local calendar.
    fn civil(&self, at: Timestamp) -> Period {
        let local = |at| self.zone.0.to_datetime(instant(nanos(at)));
        let anchor = match self.anchor {
            // A Monday, a first of the month and a first of the year are the anchors of the calendar.
            Anchor::Calendar if self.cycle == Cycle::Week => MONDAY.at(0, 0, 0, 0),
            Anchor::Calendar => Date::constant(1970, 1, 1).at(0, 0, 0, 0),
            Anchor::Anniversary(anchor) => local(anchor),
        };
        let boundary =
            |number| self.first_instant(DateTime::from_parts(self.day(number, anchor.date()), anchor.time()));
        // The guess is a period off at most, or some where a clock skipped days.
        let mut number = self.number(local(at).date(), anchor.date());
        while boundary(number) > nanos(at) {
            number -= 1;
        }
        while boundary(number + 1) <= nanos(at) {
            number += 1;
        }
        period(boundary(number), boundary(number + 1))
    }

    /// On which day the period of this number begins.
    fn day(&self, number: i32, anchor: Date) -> Date {
        let of_month = |year: i32, month: i32| {
            let first =
                i16::try_from(year).ok().zip(i8::try_from(month).ok()).and_then(|(y, m)| Date::new(y, m, 1).ok());
            let first = first.expect("a month of these centuries has a first day");
            first.with().day(anchor.day().min(first.days_in_month())).build().expect("a month has its last day")
        };
        let after = |days: i32| anchor.saturating_add(jiff::Span::new().days(days));
        match self.cycle {
            Cycle::Week => after(7 * number),
            Cycle::Month => of_month(number.div_euclid(12), number.rem_euclid(12) + 1),
            Cycle::Year => of_month(number, anchor.month().into()),
            Cycle::Hour | Cycle::Day | Cycle::Lifetime => after(number),
        }
    }

    /// The number of the period that this day belongs to, or of a neighbour.
    fn number(&self, day: Date, anchor: Date) -> i32 {
        let days = || days_since_1970(day) - days_since_1970(anchor);
        match self.cycle {
            Cycle::Week => days().div_euclid(7),
            Cycle::Month => i32::from(day.year()) * 12 + i32::from(day.month()) - 1,
            Cycle::Year => i32::from(day.year()),
            Cycle::Hour | Cycle::Day | Cycle::Lifetime => days(),
        }
    }

    /// When a local clock first shows this time or, where it never does, first shows a later one.
    fn first_instant(&self, local: DateTime) -> i128 {
        let ambiguous = self.zone.0.to_ambiguous_timestamp(local);
        let in_a_gap = matches!(ambiguous.offset(), AmbiguousOffset::Gap { .. });
        let proof = "times of these centuries are in jiff's range";
        if !in_a_gap {
            return ambiguous.earlier().expect(proof).as_nanosecond();
        }
        let after = ambiguous.later().expect(proof).as_nanosecond();
        let change = self.zone.0.preceding(instant(after + 1)).next();
        change.map_or(after, |change| change.timestamp().as_nanosecond())
    }
}

fn days_since_1970(day: Date) -> i32 {
    day.since(Date::constant(1970, 1, 1)).expect("dates are in days by default").get_days()
}

fn nanos(at: Timestamp) -> i128 {
    at.0.into()
}

fn instant(nanos: i128) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(nanos).expect("64 bits of nanoseconds and an hour are in jiff's range")
}

fn period(start: i128, end: i128) -> Period {
    let clamped = |nanos: i128| Timestamp(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX));
    Period { start: clamped(start), end: Some(clamped(end)) }
}

#[cfg(test)]
mod tests;
