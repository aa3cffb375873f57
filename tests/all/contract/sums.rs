//! Sums of what no column can hold: they stop at the greatest number, and nobody else is the worse for it.

use tacho::persist::{Group, RecordFilter, Store};
use tacho_core::domain::counter::{Counted, Counter};

use super::{account, act, change, request, time, write};
use crate::support::postgres::Postgres;

/// Eleven of these are too many for a column.
const MUCH: u64 = 900_000_000_000_000_000;
const MOST: i64 = i64::MAX;

#[tokio::test]
async fn great_amounts_stop_no_report_and_no_writer() {
    let folder = tempfile::tempdir().unwrap();
    let server = Postgres::start();
    for url in [format!("sqlite:{}", folder.path().join("tacho.db").display()), server.database("sums")] {
        let store = Store::open(&url, "one").await.unwrap();
        great_amounts(&store).await;
        great_counters(&store).await;
        store.close().await;
    }
}

async fn great_amounts(store: &Store) {
    write(store, 1, vec![request(1, Some("big"), "2026-05-02T00:00:00Z", &[7])]).await;
    write(store, 2, vec![request(2, Some("ann"), "2026-05-02T00:00:00Z", &[5])]).await;
    // By a clock that runs ahead: counted anew when their period begins.
    for trace in 10..40 {
        write(store, trace, vec![request(trace, Some("big"), "2026-06-01T00:00:00Z", &[MUCH])]).await;
    }
    assert_eq!(
        account(store, "big").await,
        format!("31 requests, {MOST} tokens, {MOST} n$ since 2026-05-01, 0 resets")
    );
    assert_eq!(store.verify(10).await.unwrap().differences, []);
    assert_eq!(store.drift().await.unwrap(), Default::default());
    store.end_periods(time("2026-06-02T00:00:00Z")).await.unwrap();
    assert_eq!(
        account(store, "big").await,
        format!("30 requests, {MOST} tokens, {MOST} n$ since 2026-06-01, 1 resets")
    );

    let rows = |group| async move { store.summary(group, &RecordFilter::default()).await.unwrap() };
    let users = rows(Group::User).await;
    let seen: Vec<_> =
        users.iter().map(|row| (&*row.group, row.requests, row.total_tokens, row.cost_nanousd)).collect();
    assert_eq!(seen, [("big", 31, MOST, Some(MOST)), ("ann", 1, 5, Some(5))]);
    for group in [Group::Model, Group::Endpoint, Group::Day] {
        assert_eq!(rows(group).await.iter().map(|row| row.total_tokens).max(), Some(MOST), "{group:?}");
    }

    write(store, 50, vec![request(50, Some("big"), "2026-06-01T00:00:00Z", &[1; 12].map(|_| MUCH))]).await;
    assert_eq!(store.verify(10).await.unwrap().differences, []);
    assert_eq!(store.rebuild(time("2026-06-02T00:00:00Z")).await.unwrap().mended(), []);
    // What goes leaves an account that is not the sum any more, which is said, and can be mended.
    for trace in (10..40).chain([50]) {
        write(store, trace, vec![]).await;
    }
    assert_eq!(store.verify(10).await.unwrap().differences.len(), 2);
    let rebuild = store.rebuild(time("2026-06-02T00:00:00Z")).await.unwrap();
    rebuild.commit(&act(None, time("2026-06-02T00:00:00Z"))).await.unwrap();
    assert_eq!(account(store, "big").await, "0 requests, 0 tokens, 0 n$ since 2026-06-01, 1 resets");
}

async fn great_counters(store: &Store) {
    let moved = |by| async move {
        let counter = Counter {
            key: 7,
            limit: "tokens".into(),
            subject: "{}".to_owned(),
            period_started_at: time("2026-05-01T00:00:00Z"),
            period_ends_at: None,
            change: by,
        };
        let proposed = [change(60, vec![], vec![])];
        let mut work = store.begin(&proposed).await.unwrap();
        drop(work.take_known());
        let prepared = work.prepare(&[], time("2026-06-02T00:00:00Z")).await.unwrap();
        let [Counted { used, .. }] = prepared.commit(&[], &[counter], None).await.unwrap()[..] else { panic!("one") };
        used
    };
    assert_eq!(moved(MOST - 1).await, MOST - 1);
    assert_eq!([moved(1).await, moved(1).await, moved(MOST).await], [MOST, MOST, MOST]);
    assert_eq!(moved(-5).await, MOST - 5);
    assert_eq!([moved(i64::MIN).await, moved(i64::MIN).await], [-6, i64::MIN]);
}
