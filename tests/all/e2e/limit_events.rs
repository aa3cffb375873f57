//! Refusals and thresholds that are reached, as rows in the database of the real binary.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use tacho::persist::{LimitEventRow, Store};

use crate::support::client::{JSON, call, post};
use crate::support::load::Shape;
use crate::support::postgres::Postgres;
use crate::support::tacho_process::Tacho;

const SETTINGS: [(&str, &str); 1] = [("TACHO_ASSEMBLE__QUIET", "200ms")];

/// Three requests a year, of which the second is past the half.
fn configure(folder: &Path) {
    let limits = r#"
[limits]
backend = "database"
expected_instances = 2
timeout = "5s"

[[limit]]
name = "free"
per = ["user"]
meter = "requests"
quota = { limit = 3, period = "year" }
warn_at = [0.5]
"#;
    std::fs::write(folder.join("tacho.toml"), limits).unwrap();
}

/// A request of `user-0` with one call, made now.
async fn request(tacho: &Tacho, number: u64) {
    let shape = Shape { seed: 5, traces: 1, calls: 1, users: 1, split: false, began: tacho::app::now().0 };
    assert_eq!(call(&shape.unit(number).bodies[0]).send(tacho.grpc).await, "Ok");
}

async fn check(tacho: &Tacho) -> u16 {
    let asked = json!({"user": "user-0", "tenant": "acme"}).to_string();
    post(JSON, asked).path("/v1/check").send(tacho.http).await.status()
}

async fn events(url: &str) -> Vec<LimitEventRow> {
    let store = Store::open(url, "looking").await.unwrap();
    let events = store.limit_events(None, None, 100).await.unwrap().rows;
    store.close().await;
    events
}

/// Waits for so many rows.
async fn until(tacho: &Tacho, url: &str, rows: usize) {
    let begun = Instant::now();
    loop {
        let events = events(url).await;
        if events.len() >= rows {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{events:#?}\n{}", tacho.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn told(events: &[LimitEventRow]) -> Vec<String> {
    let mut told: Vec<String> = events
        .iter()
        .map(|row| {
            let LimitEventRow { kind, limit_name, decision, reason, user_id, subject, meter, used, max, .. } = row;
            let reason = reason.as_deref().unwrap_or("-");
            let (user, threshold) = (user_id.as_deref().unwrap_or("-"), row.threshold);
            format!("{kind} {threshold:?} {limit_name} {decision} {reason} {user} {subject} {used}/{max} {meter}")
        })
        .collect();
    told.sort();
    told
}

const ONE_OF_EACH: [&str; 3] = [
    r#"refusal None free deny over_limit user-0 {"user":"user-0"} 3/3 requests"#,
    r#"threshold Some(0.5) free deny - user-0 {"user":"user-0"} 2/3 requests"#,
    r#"threshold Some(1.0) free deny - user-0 {"user":"user-0"} 3/3 requests"#,
];

/// Spans on both instances by turns, no check before them; then both refuse a user who hammers.
async fn three_requests_and_two_hundred_refusals(urls: &str) {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    folders.iter().for_each(|folder| configure(folder.path()));
    let both = folders.each_ref().map(|folder| Tacho::start(folder.path(), urls, &SETTINGS));
    request(&both[0], 1).await;
    request(&both[1], 2).await;
    until(&both[0], urls, 1).await;
    request(&both[0], 3).await;
    until(&both[0], urls, 2).await;
    // Past the whole: nothing new.
    for number in 4..8 {
        request(&both[usize::try_from(number % 2).unwrap()], number).await;
    }
    let mut refused = 0;
    for round in 0..200 {
        refused += usize::from(check(&both[round % 2]).await == 429);
    }
    assert_eq!(refused, 200);
    // A stop writes what waits.
    both.into_iter().for_each(Tacho::stop);
    let events = events(urls).await;
    let mut told = told(&events);
    // What is used by the time of the first refusal.
    told.iter_mut().filter(|line| line.starts_with("refusal")).for_each(|line| {
        for used in 4..8 {
            *line = line.replace(&format!(" {used}/3 "), " 3/3 ");
        }
    });
    assert_eq!(told, ONE_OF_EACH);
    let year = &tacho::app::now().to_string()[..4];
    for row in &events {
        let next: i32 = year.parse::<i32>().unwrap() + 1;
        let tenant = if row.kind == "refusal" { "acme" } else { "default" };
        assert_eq!(row.period_started_at, format!("{year}-01-01T00:00:00.000000Z"), "{row:?}");
        assert_eq!(row.period_ends_at, Some(format!("{next}-01-01T00:00:00.000000Z")), "{row:?}");
        assert_eq!(row.tenant.as_deref(), Some(tenant), "{row:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_on_one_postgres_write_each_event_once() {
    let postgres = Postgres::start();
    three_requests_and_two_hundred_refusals(&postgres.database("events")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_on_one_sqlite_write_each_event_once() {
    let folder = tempfile::tempdir().unwrap();
    three_requests_and_two_hundred_refusals(&format!("sqlite:{}", folder.path().join("tacho.db").display())).await;
}

/// The drain settles what has come, and what that settlement sees is written too.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_writes_what_its_last_settlement_saw() {
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path());
    let url = format!("sqlite:{}", folder.path().join("tacho.db").display());
    let tacho = Tacho::start(folder.path(), &url, &[("TACHO_ASSEMBLE__QUIET", "30s")]);
    for number in 1..=3 {
        request(&tacho, number).await;
    }
    tacho.stop();
    let thresholds: Vec<_> = events(&url).await.iter().map(|row| (row.threshold, row.used)).collect();
    assert_eq!(thresholds, [(Some(0.5), 3), (Some(1.0), 3)]);
}

/// Every kind of limit and action: a rate has a window for its period, money is in nano-dollars, and no user is named where none
/// is counted.
#[tokio::test(flavor = "multi_thread")]
async fn limits_of_every_kind_leave_their_events() {
    let limits = r#"
[limits]
backend = "memory"
timeout = "5s"

[[limit]]
name = "an-hour"
per = ["user"]
meter = "requests"
rate = { limit = 1, period = "1h", burst = 1 }

[[limit]]
name = "money"
per = ["tenant"]
meter = "cost"
quota = { limit = 0.000001, period = "month" }
action = "shadow"

[[limit]]
name = "tokens"
meter = "output_tokens"
quota = { limit = 10, period = "lifetime" }
action = "warn"
"#;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tacho.toml"), limits).unwrap();
    let url = format!("sqlite:{}", folder.path().join("tacho.db").display());
    let tacho = Tacho::start(folder.path(), &url, &SETTINGS);
    for decision in [200, 429, 429] {
        assert_eq!(check(&tacho).await, decision);
    }
    request(&tacho, 1).await;
    until(&tacho, &url, 5).await;
    tacho.stop();
    let events = events(&url).await;
    let mut told: Vec<String> = events
        .iter()
        .map(|row| {
            let LimitEventRow { kind, limit_name, decision, tenant, subject, meter, max, .. } = row;
            let (threshold, reason) = (row.threshold, row.reason.as_deref().unwrap_or("-"));
            let names = [tenant, &row.user_id].map(|name| name.as_deref().unwrap_or("-")).join("/");
            format!("{limit_name} {kind} {threshold:?} {decision} {reason} {names} {subject} {max} {meter}")
        })
        .collect();
    told.sort();
    assert_eq!(
        told,
        [
            r#"an-hour refusal None deny over_limit acme/user-0 {"user":"user-0"} 1 requests"#,
            r#"money refusal None shadow over_limit acme/- {"tenant":"acme"} 1000 cost"#,
            r#"money threshold Some(1.0) shadow - default/- {"tenant":"default"} 1000 cost"#,
            r#"tokens refusal None warn over_limit acme/- {} 10 output_tokens"#,
            r#"tokens threshold Some(1.0) warn - default/- {} 10 output_tokens"#,
        ]
    );
    for row in &events {
        let (start, end) = (&*row.period_started_at, row.period_ends_at.as_deref());
        match row.limit_name.as_str() {
            "an-hour" => {
                assert!(start.ends_with(":00:00.000000Z") && end.unwrap().ends_with(":00:00.000000Z"), "{row:?}")
            }
            "money" => assert!(start.ends_with("-01T00:00:00.000000Z") && end.is_some(), "{row:?}"),
            _ => assert_eq!((start, end), ("1970-01-01T00:00:00.000000Z", None)),
        }
        assert_eq!(row.kind == "threshold", row.used > row.max, "{row:?}");
    }
}

/// What cannot be written while the database is away waits, and is written when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_waits_for_the_database() {
    let postgres = Postgres::start();
    let url = postgres.database("events");
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path());
    let limits = std::fs::read_to_string(folder.path().join("tacho.toml")).unwrap();
    std::fs::write(folder.path().join("tacho.toml"), limits.replace("\"database\"", "\"memory\"")).unwrap();
    let tacho = Tacho::start(folder.path(), &url, &SETTINGS);
    for allowed in [200, 200, 200] {
        assert_eq!(check(&tacho).await, allowed);
    }
    postgres.halt();
    for _ in 0..5 {
        assert_eq!(check(&tacho).await, 429);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    postgres.resume();
    until(&tacho, &url, 1).await;
    let metrics = post(JSON, "").method("GET").path("/metrics").send(tacho.http).await.text();
    let lost = metrics.lines().filter(|line| line.contains("stage=\"limit_events\"")).collect::<Vec<_>>();
    assert_eq!(lost.len(), 3, "{lost:?}");
    assert!(lost.iter().all(|line| line.ends_with(" 0")), "{lost:?}");
    tacho.stop();
    assert_eq!(told(&events(&url).await), [ONE_OF_EACH[0].replace("3/3", "0/3")]);
}
