//! What the databases refuse, and what is gone and comes back.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection};
use tacho::persist::{PersistError, Store};

use super::{NOW, account, change, request, rows, time, trace_id, write};
use crate::support::postgres::Postgres;

/// A statement of somebody else.
pub async fn execute(url: &str, sql: &str) {
    if url.starts_with("sqlite:") {
        let mut connection = sqlx::SqliteConnection::connect(url).await.unwrap();
        sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    } else {
        let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
        sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
}

/// What somebody else counts.
pub async fn count(url: &str, sql: &str) -> i64 {
    let sql = AssertSqlSafe(sql.to_owned());
    if url.starts_with("sqlite:") {
        sqlx::query_scalar(sql).fetch_one(&mut sqlx::SqliteConnection::connect(url).await.unwrap()).await.unwrap()
    } else {
        sqlx::query_scalar(sql).fetch_one(&mut sqlx::PgConnection::connect(url).await.unwrap()).await.unwrap()
    }
}

/// The calls cannot be written, so neither is the record, nor does the account move.
pub async fn a_refused_write_leaves_nothing_and_can_be_done_again(store: &Store, url: &str) {
    write(store, 30, vec![request(30, Some("ref"), "2026-05-19T10:00:00Z", &[1])]).await;
    execute(url, "ALTER TABLE llm_calls RENAME TO llm_calls_away").await;
    let proposed = [change(31, vec![], vec![request(31, Some("ref"), "2026-05-19T10:00:00Z", &[2])])];
    let work = store.begin(&proposed).await.unwrap();
    let refused = work.commit(&[], None, time(NOW)).await;
    assert!(matches!(refused, Err(PersistError::Unusable(_))), "{refused:?}");
    execute(url, "ALTER TABLE llm_calls_away RENAME TO llm_calls").await;
    assert_eq!(rows(store, 31).await, []);
    assert_eq!(account(store, "ref").await, "1 requests, 1 tokens, 1 n$ since 2026-05-01, 0 resets");
    write(store, 31, vec![request(31, Some("ref"), "2026-05-19T10:00:00Z", &[2])]).await;
    assert_eq!(account(store, "ref").await, "2 requests, 3 tokens, 3 n$ since 2026-05-01, 0 resets");
}

/// A newer Tacho wrote it: this one must not take a part for the whole.
pub async fn an_extract_of_another_version_is_never_overwritten(store: &Store, url: &str) {
    write(store, 32, vec![request(32, Some("ver"), "2026-05-19T10:00:00Z", &[1])]).await;
    let other = if url.starts_with("sqlite:") { "x'ff00'" } else { r"'\xff00'" };
    execute(url, &format!("UPDATE trace_extracts SET extract = {other} WHERE trace_id LIKE '2020%'")).await;
    let proposed = [change(32, vec![], vec![])];
    let refused = store.begin(&proposed).await.err();
    assert!(matches!(refused, Some(PersistError::Extract(id)) if id == trace_id(32)), "{refused:?}");
    assert_eq!(rows(store, 32).await.len(), 1);
}

/// Parts of one trace that are refused one after the other: none takes the place of another.
pub async fn every_part_that_is_set_aside_stays(store: &Store, url: &str) {
    for reason in ["one", "two"] {
        store.set_aside(&change(33, vec![], vec![]), reason, time(NOW)).await.unwrap();
    }
    assert_eq!(count(url, "SELECT COUNT(*) FROM dead_letters WHERE trace_id LIKE '2121%'").await, 2);
}

/// In the middle of a transaction, and before one.
#[tokio::test]
async fn a_postgres_that_is_gone_is_unreachable_and_comes_back() {
    let server = Postgres::start();
    let store = Store::open(&server.database("outage"), "one").await.unwrap();
    write(&store, 1, vec![request(1, Some("out"), "2026-05-19T10:00:00Z", &[1])]).await;
    let proposed = [change(2, vec![], vec![request(2, Some("out"), "2026-05-19T10:00:00Z", &[2])])];
    let work = store.begin(&proposed).await.unwrap();
    server.halt();
    let cut = work.commit(&[], None, time(NOW)).await;
    assert!(matches!(cut, Err(PersistError::Unreachable(_))), "{cut:?}");
    let away = store.begin(&proposed).await.err();
    assert!(matches!(away, Some(PersistError::Unreachable(_))), "{away:?}");
    server.resume();
    let back = async {
        while store.ping().await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), back).await.unwrap();
    assert_eq!(rows(&store, 2).await, []);
    store.begin(&proposed).await.unwrap().commit(&[], None, time(NOW)).await.unwrap();
    assert_eq!(account(&store, "out").await, "2 requests, 3 tokens, 3 n$ since 2026-05-01, 0 resets");
    store.close().await;
}

/// Somebody else holds the write lock for longer than we wait.
#[tokio::test]
async fn a_sqlite_that_is_locked_is_unreachable_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("tacho.db").display());
    let store = Store::open(&url, "one").await.unwrap();
    let mut other = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let lock = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let proposed = [change(1, vec![], vec![request(1, Some("loc"), "2026-05-19T10:00:00Z", &[1])])];
    let locked = store.begin(&proposed).await.err();
    assert!(matches!(locked, Some(PersistError::Unreachable(_))), "{locked:?}");
    lock.rollback().await.unwrap();
    store.begin(&proposed).await.unwrap().commit(&[], None, time(NOW)).await.unwrap();
    assert_eq!(rows(&store, 1).await.len(), 1);
    store.close().await;
}

/// Who only looks must not make an empty database and say that all is right.
#[tokio::test]
async fn looking_makes_no_database() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.db");
    let missing = Store::open_existing(&format!("sqlite:{}", path.display()), "look").await.err();
    assert!(matches!(missing, Some(PersistError::NoDatabase(_))), "{missing:?}");
    assert!(!path.exists());
}
