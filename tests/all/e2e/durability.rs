//! What is acknowledged is kept, whatever the database does; what cannot be kept is refused. The drill does the same by chance.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, Row};

use super::truth::rows_of;
use crate::install::verbs::tacho as tacho_says;
use crate::support::client::{JSON, call, post};
use crate::support::load::{Shape, Unit};
use crate::support::postgres::Postgres;
use crate::support::tacho_process::Tacho;

const SETTINGS: [(&str, &str); 2] = [("TACHO_ASSEMBLE__QUIET", "100ms"), ("TACHO_JOURNAL__MAX_SIZE", "1MiB")];

fn start(folder: &Path, url: &str) -> Tacho {
    Tacho::start(folder, url, &SETTINGS)
}

/// The same for the same number.
fn unit(number: u64) -> Unit {
    Shape { seed: 7, traces: 20, calls: 1, users: 5, split: false, began: 1_790_000_000_000_000_000 }.unit(number)
}

async fn send(tacho: &Tacho, unit: &Unit) -> String {
    call(&unit.bodies[0]).send(tacho.grpc).await
}

pub async fn get(tacho: &Tacho, path: &'static str) -> String {
    post(JSON, "").method("GET").path(path).token(&tacho.admin_token()).send(tacho.http).await.text()
}

/// Waits until a line of the metrics is there.
pub async fn until(tacho: &Tacho, line: &str) {
    let begun = Instant::now();
    while !get(tacho, "/metrics").await.lines().any(|found| found == line) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{line} never came: {}", get(tacho, "/metrics").await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Away before the start, and while spans come until the journal is full; then it comes back.
#[tokio::test]
async fn the_database_may_be_away() {
    let folder = tempfile::tempdir().unwrap();
    let server = Postgres::start();
    let url = server.database("away");
    server.halt();
    let tacho = start(folder.path(), &url);
    assert_eq!(get(&tacho, "/readyz").await, "ready\n");
    assert!(get(&tacho, "/v1/usage").await.contains("could not be opened yet"));
    let mut taken = 0;
    let refused = loop {
        let answer = send(&tacho, &unit(taken)).await;
        if answer != "Ok" {
            break answer;
        }
        taken += 1;
    };
    assert!(refused.starts_with("Unavailable: the journal is full"), "{refused}");
    let http = post(crate::support::client::PROTOBUF, unit(taken).bodies.remove(0)).send(tacho.otlp_http).await.line();
    assert!(http.starts_with("503 Unavailable: the journal is full"), "{http}");
    assert!(taken > 20, "{taken}");
    // It takes no more, and says so to whoever sends traffic here.
    let begun = Instant::now();
    while get(&tacho, "/readyz").await == "ready\n" {
        drop(send(&tacho, &unit(taken)).await);
        assert!(begun.elapsed() < Duration::from_secs(30), "ready with a full journal");
    }
    let (code, said) = tacho_says(folder.path(), &["healthcheck"]);
    assert!(code == 1 && said.ends_with("/readyz answers 503: the journal is full\n"), "{said}");
    server.resume();
    until(&tacho, &format!("tacho_persist_records_total{{result=\"new\"}} {}", taken * 20)).await;
    until(&tacho, "tacho_persist_up 1").await;
    // The journal is cut a moment after the last row is counted.
    let begun = Instant::now();
    while get(&tacho, "/readyz").await != "ready\n" {
        assert!(begun.elapsed() < Duration::from_secs(30), "not ready with an empty journal");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(send(&tacho, &unit(taken)).await, "Ok");
    tacho.stop();
    assert_eq!(rows_of(&url).await.len() as u64, (taken + 1) * 20);
}

/// Killed as soon as it has answered; a second start finds it in the journal, and the same bodies again change nothing.
#[tokio::test]
async fn what_was_answered_survives_a_kill_and_comes_twice_for_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("tacho.db").display());
    let tacho = start(folder.path(), &url);
    for number in 0..10 {
        assert_eq!(send(&tacho, &unit(number)).await, "Ok");
    }
    tacho.signal("-KILL");
    assert!(!tacho.wait().success());
    let tacho = start(folder.path(), &url);
    until(&tacho, "tacho_journal_oldest_seconds 0").await;
    let rows = rows_of(&url).await;
    assert_eq!(rows.len(), 200);
    for number in 0..10 {
        assert_eq!(send(&tacho, &unit(number)).await, "Ok");
    }
    tacho.stop();
    assert!(rows_of(&url).await == rows, "the same bodies again changed something");
}

/// Tacho on each database, which refuses some rows from now on, each in its own words.
async fn on_both(sqlite_trap: &str, postgres_trap: &str, case: impl AsyncFn(Tacho, &str)) {
    let folder = tempfile::tempdir().unwrap();
    let server = Postgres::start();
    let sqlite = format!("sqlite:{}", folder.path().join("tacho.db").display());
    for (url, trap) in [(sqlite, sqlite_trap), (server.database("poison"), postgres_trap)] {
        let own = tempfile::tempdir().unwrap();
        let settings = [("TACHO_ASSEMBLE__QUIET", "100ms"), ("TACHO_ASSEMBLE__MAX_AGE", "1s")];
        let tacho = Tacho::start(own.path(), &url, &settings);
        query(&url, trap).await;
        case(tacho, &url).await;
    }
}

/// One trace that the database will never take is set aside with the reason; all others are written.
#[tokio::test]
async fn a_poison_row_blocks_nothing() {
    let sqlite = "CREATE TRIGGER poison BEFORE INSERT ON usage_records WHEN NEW.user_id = 'user-3' \
                  BEGIN SELECT RAISE(ABORT, 'poison'); END";
    let postgres = "ALTER TABLE usage_records ADD CONSTRAINT poison CHECK (user_id <> 'user-3')";
    on_both(sqlite, postgres, async |tacho, url| {
        let unit = unit(1);
        let poisoned = unit.account["user-3"].requests;
        assert_eq!(send(&tacho, &unit).await, "Ok");
        until(&tacho, &format!("tacho_dead_letters_total {poisoned}")).await;
        until(&tacho, &format!("tacho_persist_records_total{{result=\"new\"}} {}", 20 - poisoned)).await;
        until(&tacho, "tacho_journal_oldest_seconds 0").await;
        tacho.stop();
        let reasons = query(url, "SELECT DISTINCT reason FROM dead_letters").await;
        assert!(matches!(&*reasons, [reason] if reason.contains("poison")), "{reasons:?}");
        assert_eq!(query(url, "SELECT trace_id FROM dead_letters").await.len() as u64, poisoned);
    })
    .await;
}

/// Calls that have waited long enough for their request, and are refused when they get a record of their own.
#[tokio::test]
async fn a_poison_row_that_waited_blocks_nothing() {
    let sqlite = "CREATE TRIGGER poison BEFORE INSERT ON llm_calls BEGIN SELECT RAISE(ABORT, 'poison'); END";
    let postgres = "ALTER TABLE llm_calls ADD CONSTRAINT poison CHECK (dialect = 'none')";
    on_both(sqlite, postgres, async |tacho, url| {
        let began = 1_790_000_000_000_000_000;
        let unit = Shape { seed: 8, traces: 5, calls: 1, users: 5, split: true, began }.unit(0);
        assert_eq!(send(&tacho, &unit).await, "Ok");
        until(&tacho, "tacho_dead_letters_total 5").await;
        tacho.stop();
        assert_eq!(query(url, "SELECT trace_id FROM dead_letters").await.len(), 5);
        assert_eq!(query(url, "SELECT trace_id FROM trace_extracts WHERE due_at IS NOT NULL").await.len(), 0);
    })
    .await;
}

/// The first column of what is found.
pub async fn query(url: &str, sql: &str) -> Vec<String> {
    let sql = AssertSqlSafe(sql.to_owned());
    if url.starts_with("sqlite:") {
        let mut connection = sqlx::SqliteConnection::connect(url).await.unwrap();
        sqlx::query(sql).fetch_all(&mut connection).await.unwrap().iter().map(|row| row.get(0)).collect()
    } else {
        let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
        sqlx::query(sql).fetch_all(&mut connection).await.unwrap().iter().map(|row| row.get(0)).collect()
    }
}

/// The first signal drains, which waits for the database; the second leaves, and nothing is lost by it.
#[tokio::test]
async fn a_second_signal_leaves_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = Postgres::start();
    let url = server.database("signals");
    let tacho = start(folder.path(), &url);
    server.halt();
    assert_eq!(send(&tacho, &unit(1)).await, "Ok");
    tokio::time::sleep(Duration::from_millis(300)).await;
    tacho.signal("-TERM");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    tacho.signal("-TERM");
    assert!(tokio::task::spawn_blocking(|| tacho.wait()).await.unwrap().success());
    assert!(begun.elapsed() < Duration::from_secs(10), "the drain takes up to 25 s; this must not");
    server.resume();
    let tacho = start(folder.path(), &url);
    until(&tacho, "tacho_persist_records_total{result=\"new\"} 20").await;
    tacho.stop();
}

#[tokio::test]
async fn two_processes_never_share_a_journal() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("tacho.db").display());
    let tacho = start(folder.path(), &url);
    let second = Command::new(env!("CARGO_BIN_EXE_tacho"))
        .arg("run")
        .current_dir(folder.path())
        .env("TACHO_DATA_DIR", folder.path())
        .env("TACHO_DATABASE__URL", &url)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && said.contains("another process uses the journal"), "{said}");
    tacho.stop();
}
