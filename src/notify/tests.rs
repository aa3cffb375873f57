//! The board in pretended time, the form of an alert, and what the section of the configuration takes.

use std::collections::BTreeMap;
use std::time::Duration;

use expect_test::expect;
use proptest::prelude::*;

use super::*;
use tacho_core::domain::time::Timestamp;

const START: Timestamp = Timestamp(1_790_000_000_000_000_000);
const RESEND: Duration = Duration::from_secs(60);

fn at(seconds: u64) -> Timestamp {
    START.plus(Duration::from_secs(seconds))
}

fn budget(user: &str) -> Budget {
    Budget { limit: "daily".into(), subject: format!("user {user}").into() }
}

fn stand(used: i64, held: i64) -> Stand {
    let unit = Unit::Whole("requests");
    Stand { limit: 5, used, held, unit, refuses: true, ends: Some(at(86_400)) }
}

/// Seconds of one budget: what is seen and found there, and what is then said: how long after now it ends.
struct Course(Board<()>);

impl Course {
    fn new() -> Self {
        Self(Board::new(RESEND, 10, START))
    }

    fn saw(&mut self, second: u64, refused: Option<i64>) -> &mut Self {
        self.0.saw(budget("ann"), || (), refused, at(second));
        self
    }

    fn said(&mut self, second: u64, found: Found) -> String {
        let all = self.0.begin_round(at(second)).is_some();
        if self.0.take_due(all).is_empty() {
            return "nothing to look at".to_owned();
        }
        match self.0.found(&budget("ann"), found, at(second)) {
            None => "nothing".to_owned(),
            Some(alert) if alert.ends > at(second) => {
                format!("since {} for {:?}", alert.starts.since(START).as_secs(), alert.ends.since(at(second)))
            }
            Some(alert) => format!("over at {}", alert.ends.since(START).as_secs()),
        }
    }

    fn check(&mut self, course: &[(u64, Found, &str)]) {
        for (second, found, said) in course {
            assert_eq!(self.said(*second, found.clone()), *said, "at {second}");
        }
    }
}

fn full() -> Found {
    Found::Stands(stand(5, 0))
}

fn room() -> Found {
    Found::Stands(stand(4, 0))
}

#[test]
fn it_is_said_at_once_then_every_round_and_three_times_that_it_is_over() {
    Course::new().saw(10, None).check(&[
        (10, full(), "since 10 for 180s"),
        (11, full(), "nothing to look at"),
        (60, full(), "since 10 for 180s"),
        (120, full(), "since 10 for 180s"),
        (180, room(), "over at 180"),
        (240, room(), "over at 180"),
        (300, Found::Gone, "over at 180"),
        (360, room(), "nothing"),
        (420, full(), "nothing to look at"),
    ]);
}

#[test]
fn a_sight_that_is_not_true_says_nothing() {
    Course::new().saw(0, None).check(&[(0, room(), "nothing"), (60, full(), "nothing to look at")]);
    Course::new().saw(0, Some(1)).check(&[(0, Found::Gone, "nothing"), (60, full(), "nothing to look at")]);
}

#[test]
fn what_is_seen_while_it_is_looked_at_is_looked_at_again() {
    let mut course = Course::new();
    course.saw(0, None);
    assert_eq!(course.0.take_due(false).len(), 1);
    course.saw(0, None);
    assert_eq!(course.0.found(&budget("ann"), room(), at(0)), None);
    course.check(&[(1, full(), "since 0 for 180s")]);
}

#[test]
fn a_refusal_for_what_is_only_held_must_last_a_round() {
    let held = || Found::Stands(stand(3, 2));
    Course::new().saw(30, Some(1)).check(&[
        (30, held(), "nothing"),
        (60, held(), "nothing"),
        (120, held(), "since 30 for 180s"),
        (180, room(), "over at 180"),
    ]);
    Course::new().saw(30, Some(1)).check(&[
        (30, held(), "nothing"),
        (60, room(), "nothing"),
        (120, held(), "nothing to look at"),
    ]);
}

#[test]
fn a_refusal_counts_while_such_a_request_does_not_fit_and_is_made() {
    let left_two = || Found::Stands(stand(3, 0));
    let mut course = Course::new();
    course.saw(0, Some(3)).check(&[(0, left_two(), "since 0 for 180s"), (60, left_two(), "since 0 for 180s")]);
    course.saw(90, Some(4)).check(&[(120, left_two(), "since 0 for 180s"), (690, left_two(), "over at 690")]);
    // What is left is less than nothing of it, however long ago it was.
    let mut course = Course::new();
    course.saw(0, Some(3)).check(&[(0, full(), "since 0 for 180s"), (6_000, full(), "since 0 for 180s")]);
}

#[test]
fn one_that_comes_back_begins_anew_but_not_before_the_next_round() {
    let mut course = Course::new();
    course.saw(0, None).check(&[(0, full(), "since 0 for 180s"), (60, room(), "over at 60")]);
    course.saw(70, None).check(&[(70, full(), "nothing to look at"), (120, full(), "since 120 for 180s")]);
}

#[test]
fn without_the_store_it_is_not_over_until_its_period_is() {
    let unsure = || Found::AtLeast(stand(0, 0));
    Course::new().saw(0, None).check(&[
        (0, Found::AtLeast(stand(5, 0)), "since 0 for 180s"),
        (60, Found::Unknown, "since 0 for 180s"),
        (120, unsure(), "since 0 for 180s"),
        (86_400, unsure(), "over at 86400"),
    ]);
    let mut course = Course::new();
    course.saw(0, None).check(&[(0, Found::Unknown, "nothing"), (60, full(), "since 0 for 180s")]);
}

#[test]
fn a_clock_that_is_set_back_stops_no_round() {
    Course::new().saw(1_000, None).check(&[
        (1_000, full(), "since 1000 for 180s"),
        (10, full(), "since 10 for 180s"),
        (20, full(), "nothing to look at"),
        (70, room(), "over at 70"),
        (5, room(), "over at 5"),
    ]);
}

#[test]
fn beyond_the_bound_sights_are_counted_and_not_kept() {
    let mut board = Board::new(RESEND, 2, START);
    let seen = ["ann", "bob", "eve", "ann", "eve"].map(|user| board.saw(budget(user), || (), None, START));
    assert_eq!(seen, [Seen::New, Seen::New, Seen::Full, Seen::Known, Seen::Full]);
    assert_eq!((board.len(), board.begin_round(at(59)), board.begin_round(at(60))), (2, None, Some(2)));
    assert_eq!(board.begin_round(at(120)), Some(0));
}

/// What an Alertmanager holds: of each budget when its alert ends.
type Told = BTreeMap<Budget, Timestamp>;

/// Hears all that is said in one pass, as an Alertmanager that is always there. At the end of a round: what was looked at.
fn pass(board: &mut Board<()>, truth: &BTreeMap<Budget, Stand>, told: &mut Told, now: Timestamp) -> Vec<Budget> {
    let is_round = board.begin_round(now).is_some();
    let looked_at: Vec<Budget> = board.take_due(is_round).into_iter().map(|(budget, ())| budget).collect();
    for budget in &looked_at {
        let Some(alert) = board.found(budget, Found::Stands(truth[budget].clone()), now) else { continue };
        let was_on = told.get(budget).map(|ends| *ends > now);
        assert!(alert.starts <= now && alert.starts <= alert.ends);
        assert!(alert.ends > now || was_on.is_some(), "over what never began");
        assert!(alert.ends > now || was_on == Some(false) || is_round, "over within a round");
        told.insert(budget.clone(), alert.ends);
    }
    if is_round { looked_at } else { Vec::new() }
}

proptest! {
    /// Whatever is used, given back and seen, an Alertmanager that hears everything knows at the end of each round what is so; a
    /// notice is over only at the end of one; and all is forgotten when all is over.
    #[test]
    fn an_alertmanager_knows_what_is_so(
        steps in proptest::collection::vec((0usize..4, 0i64..=6, 0i64..=2, any::<bool>()), 1..120),
    ) {
        let (mut board, mut told, mut truth) = (Board::new(RESEND, 3, START), Told::new(), BTreeMap::new());
        let mut last = START;
        for (nth, (user, used, held, is_refused)) in (0u64..).zip(steps) {
            let now = at(7 * nth);
            let one = budget(["ann", "bob", "eve", "joe"][user]);
            truth.insert(one.clone(), stand(used, held));
            if used >= 5 || (is_refused && used + held >= 5) {
                board.saw(one, || (), is_refused.then_some(1), now);
            }
            for budget in pass(&mut board, &truth, &mut told, now) {
                let (stand, is_on) = (&truth[&budget], told.get(&budget).is_some_and(|ends| *ends > now));
                prop_assert!(is_on || stand.used < 5, "{budget:?} is used up and not told");
                prop_assert!(!is_on || stand.used + stand.held >= 5, "{budget:?} is told and not used up");
            }
            prop_assert!(board.len() <= 3);
            last = now;
        }
        truth.values_mut().for_each(|one| *one = stand(0, 0));
        for round in 1..=5 {
            pass(&mut board, &truth, &mut told, last.plus(RESEND * round));
        }
        prop_assert!(board.is_empty() && !board.has_new());
        prop_assert!(told.values().all(|ends| *ends <= last.plus(RESEND)), "{told:?}");
    }
}

fn shown(stand: Stand) -> String {
    let alert = Alert { budget: budget("ann"), stand, starts: START, ends: at(180) };
    serde_json::to_string_pretty(&alert).unwrap()
}

#[test]
fn an_alert_as_alertmanager_takes_it() {
    let ends = Timestamp::parse("2026-10-01").unwrap();
    expect![[r#"
        {
          "labels": {
            "alertname": "TachoQuotaUsedUp",
            "severity": "critical",
            "limit": "daily",
            "subject": "user ann"
          },
          "annotations": {
            "summary": "Quota daily of user ann is used up",
            "description": "user ann has used 5.0125 of 5.00 USD, 0.25 more are held for requests under way. Requests that do not fit are refused until 2026-10-01T00:00:00Z.",
            "runbook_url": "https://github.com/tacho/tacho/blob/main/docs/runbook.md#tachoquotausedup",
            "limit_amount": "5.00",
            "used": "5.0125",
            "unit": "USD",
            "reset": "2026-10-01T00:00:00Z"
          },
          "startsAt": "2026-09-21T14:13:20.000000Z",
          "endsAt": "2026-09-21T14:16:20.000000Z"
        }"#]].assert_eq(&shown(Stand {
        limit: 5_000_000_000,
        used: 5_012_500_000,
        held: 250_000_000,
        unit: Unit::Usd,
        refuses: true,
        ends: Some(ends),
    }));
}

#[test]
fn the_description_says_what_happens_now() {
    let said = |refuses, ends| {
        let stand = Stand { refuses, ends, ..stand(5, 0) };
        let alert = Alert { budget: budget("ann"), stand, starts: START, ends: at(180) };
        serde_json::to_value(alert).unwrap()["annotations"]["description"].as_str().unwrap().to_owned()
    };
    let ends = Some(Timestamp::parse("2026-10-01").unwrap());
    expect![[r#"
        user ann has used 5 of 5 requests. Requests that do not fit are refused until 2026-10-01T00:00:00Z.
        user ann has used 5 of 5 requests. Requests that do not fit are refused until the limit is raised: it never resets.
        user ann has used 5 of 5 requests. It only warns, so requests go on; it resets at 2026-10-01T00:00:00Z.
        user ann has used 5 of 5 requests. It only warns, so requests go on; it never resets."#]].assert_eq(&[said(true, ends), said(true, None), said(false, ends), said(false, None)].join("\n"));
}

fn read(section: &str) -> Result<NotifyConfig, String> {
    toml::from_str(section).map_err(|error| error.to_string())
}

#[test]
fn an_endpoint_is_a_url_and_what_is_none_is_refused_with_its_line() {
    let config = read(
        "alertmanager_urls = [\"http://ops:secret@am:9093\", \"https://ops.example/alertmanager/\"]\nresend_interval = \"30s\"",
    );
    let config = config.unwrap();
    let urls: Vec<String> = config.alertmanager_urls.iter().map(|endpoint| endpoint.alerts().to_string()).collect();
    assert_eq!(urls, ["http://ops:secret@am:9093/api/v2/alerts", "https://ops.example/alertmanager/api/v2/alerts"]);
    assert_eq!(format!("{:?}", config.alertmanager_urls), "[http://am:9093, https://ops.example/alertmanager]");
    for (section, problem) in [
        (
            "resend_interval = \"1m\"\nalertmanager_urls = [\n  \"http://am:9093\",\n  \"am:9093\",\n]",
            "line 2, column 21",
        ),
        ("alertmanager_urls = [\"am:9093\"]", "begins with http:// or https://"),
        ("alertmanager_urls = [\"alertmanager\"]", "is no URL: relative URL without a base"),
        ("alertmanager_urls = [\"ftp://am\"]", "begins with http:// or https://"),
        ("alertmanager_urls = [\"http://am:9093/?x=1\"]", "ends with its path"),
        ("alertmanager_urls = \"http://am:9093\"", "expected a sequence"),
        ("resend_interval = \"10ms\"", "must be between 1s and 1h"),
        ("resent = \"1m\"", "unknown field `resent`"),
    ] {
        let error = read(section).unwrap_err();
        assert!(error.contains(problem), "{section}: {error}");
    }
}
