use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn time(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

fn zone(name: &str) -> Zone {
    Zone::parse(name).unwrap()
}

fn shown(zone: &Zone, at: Timestamp) -> String {
    let local = instant(nanos(at)).to_zoned_datetime(zone.0.clone());
    let text = local.strftime("%Y-%m-%dT%H:%M:%S%.f%:z").to_string();
    text.replace(":00+", "+").replace(":00-", "-").replace("+00:00", "Z").replace("+00", "Z")
}

/// The period around `at` in local time, its length in minutes behind it.
fn check(cycle: Cycle, anchor: Anchor, name: &str, at: &str, expected: &str) {
    let schedule = Schedule { cycle, anchor, zone: zone(name) };
    let period = schedule.period_at(time(at));
    let end = period.end.unwrap();
    let minutes = end.since(period.start).as_secs() / 60;
    let found = format!("{} to {} {minutes}", shown(&schedule.zone, period.start), shown(&schedule.zone, end));
    assert_eq!(found, expected, "{cycle} {anchor:?} {name} {at}");
}

fn since(text: &str) -> Anchor {
    Anchor::Anniversary(time(text))
}

const CALENDAR: Anchor = Anchor::Calendar;

#[test]
fn calendar_periods_begin_with_the_local_calendar() {
    let check = |cycle, expected| check(cycle, CALENDAR, "Europe/Berlin", "2026-11-24T18:20:30Z", expected);
    check(Cycle::Hour, "2026-11-24T19:00+01:00 to 2026-11-24T20:00+01:00 60");
    check(Cycle::Day, "2026-11-24T00:00+01:00 to 2026-11-25T00:00+01:00 1440");
    check(Cycle::Week, "2026-11-23T00:00+01:00 to 2026-11-30T00:00+01:00 10080");
    check(Cycle::Month, "2026-11-01T00:00+01:00 to 2026-12-01T00:00+01:00 43200");
    check(Cycle::Year, "2026-01-01T00:00+01:00 to 2027-01-01T00:00+01:00 525600");
    let whole = Schedule { cycle: Cycle::Lifetime, anchor: CALENDAR, zone: Zone::UTC };
    assert_eq!(whole.period_at(time("2026-11-24")), Period { start: Timestamp(0), end: None });
}

#[test]
fn a_boundary_belongs_to_the_period_it_opens() {
    let at = time("2026-10-31T23:00:00Z");
    let schedule = Schedule { cycle: Cycle::Month, anchor: CALENDAR, zone: zone("Europe/Berlin") };
    assert_eq!(schedule.period_at(at).start, at);
    assert_eq!(schedule.period_at(Timestamp(at.0 - 1)).end, Some(at));
}

#[test]
fn days_on_which_clocks_change_are_longer_or_shorter() {
    let day = |name, at, expected| check(Cycle::Day, CALENDAR, name, at, expected);
    day("Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-29T00:00+01:00 to 2026-03-30T00:00+02:00 1380");
    day("Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-25T00:00+02:00 to 2026-10-26T00:00+01:00 1500");
    day("Australia/Lord_Howe", "2026-10-04T00:00:00Z", "2026-10-04T00:00+10:30 to 2026-10-05T00:00+11:00 1410");
    day("Australia/Lord_Howe", "2026-04-05T00:00:00Z", "2026-04-05T00:00+11:00 to 2026-04-06T00:00+10:30 1470");
    // Midnight does not exist: the clock jumps from there to one.
    day("America/Santiago", "2026-09-06T12:00:00Z", "2026-09-06T01:00-03:00 to 2026-09-07T00:00-03:00 1380");
}

#[test]
fn hours_are_hours_of_real_time() {
    let hour = |name, at, expected| check(Cycle::Hour, CALENDAR, name, at, expected);
    hour("Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T02:00+02:00 to 2026-10-25T02:00+01:00 60");
    hour("Europe/Berlin", "2026-10-25T01:30:00Z", "2026-10-25T02:00+01:00 to 2026-10-25T03:00+01:00 60");
    hour("Europe/Berlin", "2026-03-29T00:59:00Z", "2026-03-29T01:00+01:00 to 2026-03-29T03:00+02:00 60");
    hour("Asia/Kolkata", "2026-03-29T00:40:00Z", "2026-03-29T06:00+05:30 to 2026-03-29T07:00+05:30 60");
    // Half an hour is skipped, or shown again: the hour is cut there.
    hour("Australia/Lord_Howe", "2026-10-03T15:40:00Z", "2026-10-04T02:30+11:00 to 2026-10-04T03:00+11:00 30");
    hour("Australia/Lord_Howe", "2026-04-04T14:40:00Z", "2026-04-05T01:00+11:00 to 2026-04-05T01:30+10:30 60");
    hour("Australia/Lord_Howe", "2026-04-04T15:10:00Z", "2026-04-05T01:30+10:30 to 2026-04-05T02:00+10:30 30");
    let anchor = since("2026-01-01T00:20:30Z");
    check(
        Cycle::Hour,
        anchor,
        "Europe/Berlin",
        "2026-10-25T01:20:29Z",
        "2026-10-25T02:20:30+02:00 to 2026-10-25T02:20:30+01:00 60",
    );
}

/// Samoa went from the 29th of December 2011 to the 31st.
#[test]
fn a_day_that_was_skipped_is_no_period() {
    let day = |anchor, at, expected| check(Cycle::Day, anchor, "Pacific/Apia", at, expected);
    day(CALENDAR, "2011-12-30T09:59:59Z", "2011-12-29T00:00-10:00 to 2011-12-31T00:00+14:00 1440");
    day(CALENDAR, "2011-12-30T10:00:00Z", "2011-12-31T00:00+14:00 to 2012-01-01T00:00+14:00 1440");
    // At noon: the 30th begins when the 31st does, and lasts until its noon.
    let noon = since("2011-12-01T22:00:00Z");
    day(noon, "2011-12-30T01:00:00Z", "2011-12-29T12:00-10:00 to 2011-12-31T00:00+14:00 720");
    day(noon, "2011-12-30T12:00:00Z", "2011-12-31T00:00+14:00 to 2011-12-31T12:00+14:00 720");
}

#[test]
fn an_anniversary_keeps_its_day_through_short_months() {
    let month = |at, expected| check(Cycle::Month, since("2026-01-31T10:30:00.5Z"), "UTC", at, expected);
    month("2026-01-31T10:30:00.5Z", "2026-01-31T10:30:00.5Z to 2026-02-28T10:30:00.5Z 40320");
    month("2026-03-01", "2026-02-28T10:30:00.5Z to 2026-03-31T10:30:00.5Z 44640");
    month("2026-04-30T10:30:01Z", "2026-04-30T10:30:00.5Z to 2026-05-31T10:30:00.5Z 44640");
    month("2028-02-29T10:30:00Z", "2028-01-31T10:30:00.5Z to 2028-02-29T10:30:00.5Z 41760");
    // Before the anchor too.
    month("2025-12-31T10:30:00Z", "2025-11-30T10:30:00.5Z to 2025-12-31T10:30:00.5Z 44640");
}

#[test]
fn an_anniversary_keeps_its_leap_day() {
    let year = |at, expected| check(Cycle::Year, since("2024-02-29T12:00:00Z"), "UTC", at, expected);
    year("2024-02-29T12:00:00Z", "2024-02-29T12:00Z to 2025-02-28T12:00Z 525600");
    year("2028-02-28T13:00:00Z", "2027-02-28T12:00Z to 2028-02-29T12:00Z 527040");
    year("2028-03-01", "2028-02-29T12:00Z to 2029-02-28T12:00Z 525600");
}

#[test]
fn an_anniversary_keeps_its_weekday_and_its_local_time_of_day() {
    let anchor = since("2026-01-08T17:00:00Z");
    let berlin = |cycle, at, expected| check(cycle, anchor, "Europe/Berlin", at, expected);
    berlin(Cycle::Week, "2026-07-01", "2026-06-25T18:00+02:00 to 2026-07-02T18:00+02:00 10080");
    berlin(Cycle::Week, "2026-03-27", "2026-03-26T18:00+01:00 to 2026-04-02T18:00+02:00 10020");
    berlin(Cycle::Day, "2026-07-01", "2026-06-30T18:00+02:00 to 2026-07-01T18:00+02:00 1440");
    berlin(Cycle::Year, "2026-01-08T16:59:59Z", "2025-01-08T18:00+01:00 to 2026-01-08T18:00+01:00 525600");
    // At half past two: that is skipped in March and shown twice in October.
    let night = since("2026-01-29T01:30:00Z");
    let at_night = |at, expected| check(Cycle::Day, night, "Europe/Berlin", at, expected);
    at_night("2026-03-29T12:00:00Z", "2026-03-29T03:00+02:00 to 2026-03-30T02:30+02:00 1410");
    at_night("2026-10-25T01:00:00Z", "2026-10-25T02:30+02:00 to 2026-10-26T02:30+01:00 1500");
}

#[test]
fn zones_are_those_of_the_database_and_nothing_else() {
    assert_eq!(zone("europe/berlin").name(), "Europe/Berlin");
    assert_eq!((zone("UTC"), zone("utc").name()), (Zone::UTC, "UTC"));
    for name in ["", "Berlin", "Europe/Bärlin", "Etc/Unknown", "+02:00", "CET-1CEST", "../etc/passwd", "Europe/"] {
        assert_eq!(Zone::parse(name), None, "{name}");
    }
}

#[test]
fn cycles_are_read_as_they_are_shown() {
    for cycle in Cycle::ALL {
        let read: Cycle = serde_json::from_str(&format!("\"{cycle}\"")).unwrap();
        assert_eq!(read, cycle);
    }
    assert!(serde_json::from_str::<Cycle>("\"Month\"").is_err());
    let error = serde_json::from_str::<Zone>("\"Berlin\"").unwrap_err().to_string();
    assert!(error.starts_with("expected the name of a time zone"), "{error}");
}

#[test]
fn hostile_times_are_in_some_period() {
    for cycle in Cycle::ALL {
        for (anchor, name) in
            [(CALENDAR, "Pacific/Kiritimati"), (Anchor::Anniversary(Timestamp(u64::MAX)), "Etc/GMT+12")]
        {
            let schedule = Schedule { cycle, anchor, zone: zone(name) };
            assert_eq!(schedule.period_at(Timestamp(0)).start, Timestamp(0));
            assert!(schedule.period_at(Timestamp::LATEST).contains(Timestamp::LATEST));
            assert!(schedule.period_at(Timestamp(u64::MAX)).start > Timestamp(0) || cycle == Cycle::Lifetime);
        }
    }
}

const ZONES: [&str; 16] = [
    "UTC",
    "Europe/Berlin",
    "Europe/Dublin",
    "America/New_York",
    "America/Santiago",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Kwajalein",
    "Pacific/Kiritimati",
    "Asia/Kathmandu",
    "Asia/Tehran",
    "Africa/Casablanca",
    "Africa/Monrovia",
    "Antarctica/Troll",
    "America/Nuuk",
];

fn schedules() -> impl Strategy<Value = Schedule> {
    let anchors = prop_oneof![
        Just(Anchor::Calendar),
        (0..Timestamp::LATEST.0).prop_map(|at| Anchor::Anniversary(Timestamp(at))),
        // On days that not every month or year has, at times that clocks skip.
        (0..Timestamp::LATEST.0 / (86_400 * 1_000_000_000), 0..48_u64).prop_map(|(day, half_hour)| {
            Anchor::Anniversary(Timestamp((day * 86_400 + half_hour * 1_800) * 1_000_000_000))
        }),
    ];
    (0..Cycle::ALL.len(), anchors, 0..ZONES.len()).prop_map(|(cycle, anchor, name)| Schedule {
        cycle: Cycle::ALL[cycle],
        anchor,
        zone: zone(ZONES[name]),
    })
}

/// Any moment, or one near a change of the clock.
fn moments(schedule: &Schedule) -> impl Strategy<Value = Timestamp> + use<> {
    let zone = schedule.zone.clone();
    (0..Timestamp::LATEST.0, any::<bool>(), -172_800_i64..172_800).prop_map(move |(at, near, seconds)| {
        let change = zone.0.following(instant(at.into())).next().filter(|_| near);
        let Some(change) = change else { return Timestamp(at) };
        let at = change.timestamp().as_second() + seconds;
        Timestamp(u64::try_from(at.max(0)).unwrap() * 1_000_000_000).min(Timestamp::LATEST)
    })
}

fn schedules_and_moments() -> impl Strategy<Value = (Schedule, Timestamp, Timestamp)> {
    schedules().prop_flat_map(|schedule| {
        let (one, other) = (moments(&schedule), moments(&schedule));
        (Just(schedule), one, other)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn periods_tile_time((schedule, at, other) in schedules_and_moments()) {
        let period = schedule.period_at(at);
        prop_assert!(period.contains(at), "{period:?} {at}");
        prop_assert_eq!(schedule.period_at(period.start), period);
        if let Some(end) = period.end {
            prop_assert!(period.start < end);
            prop_assert_eq!(schedule.period_at(end).start, end);
            prop_assert_eq!(schedule.period_at(Timestamp(end.0 - 1)), period);
        }
        if period.start.0 > 0 {
            prop_assert_eq!(schedule.period_at(Timestamp(period.start.0 - 1)).end, Some(period.start));
        }
        let between = schedule.period_at(other);
        prop_assert_eq!(between == period, period.contains(other));
        prop_assert_eq!(between.start.cmp(&period.start), if between == period { std::cmp::Ordering::Equal } else { other.cmp(&at) });
    }

    #[test]
    fn periods_are_about_as_long_as_their_name_says((schedule, at, _) in schedules_and_moments()) {
        let period = schedule.period_at(at);
        let hours = |hours: u64| Duration::from_secs(hours * 3_600);
        let longest = match schedule.cycle {
            Cycle::Hour => hours(1),
            Cycle::Day => hours(24),
            Cycle::Week => hours(7 * 24),
            Cycle::Month => hours(31 * 24),
            Cycle::Year => hours(366 * 24),
            Cycle::Lifetime => Duration::MAX,
        };
        // A clock may be set back by most of a day, once.
        let slack = if schedule.cycle == Cycle::Hour { Duration::ZERO } else { hours(24) };
        let length = period.end.map_or(Duration::ZERO, |end| end.since(period.start));
        prop_assert!(length <= longest.saturating_add(slack), "{length:?}");
    }
}
