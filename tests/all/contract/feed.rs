//! Whoever follows the feed ends with what the tables say: whatever is written, taken back or given up meanwhile.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlx::{Connection, PgConnection};

use tacho::persist::{Change, Cursor, ExportCursor, FeedError, PersistError, RecordChange, RecordState, Store, Stream};
use tacho_core::domain::call::Key;
use tacho_core::domain::record::Request;

use super::{NOW, STARTS, change, request, request_of, rows, time, trace_id, write};
use crate::support::postgres::Postgres;

/// What a follower keeps.
#[derive(Default)]
struct Copy {
    cursor: Option<Cursor>,
    records: BTreeMap<Key, RecordChange>,
}

impl Copy {
    /// Reads so many pages at most, until there is nothing more.
    async fn follow(&mut self, store: &Store, page: usize, pages: usize) {
        for _ in 0..pages {
            let found = store.changes(self.cursor.as_ref(), None, page).await.unwrap();
            assert!(found.rows.len() <= page);
            let text = found.next.to_string();
            assert_eq!(text.parse::<Cursor>().unwrap(), found.next);
            for change in found.rows {
                let revision = change.revision;
                let old = self.records.insert(change.key, change);
                assert!(old.is_none_or(|old| old.revision <= revision), "a revision never falls");
            }
            self.cursor = Some(found.next);
            if found.is_last {
                break;
            }
        }
    }

    /// As somebody who read everything now.
    async fn equals_the_table(&self, store: &Store) {
        let mut fresh = Self::default();
        fresh.follow(store, 1000, 100).await;
        assert_eq!(self.records, fresh.records);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_follower_ends_with_what_the_tables_say() {
    let folder = tempfile::tempdir().unwrap();
    follow_writers(&format!("sqlite:{}", folder.path().join("tacho.db").display()), 31).await;
    let server = Postgres::start();
    follow_writers(&server.database("feed"), 32).await;
}

/// Four writers who amend, take back and bring back records, and give up every seventh transaction.
async fn follow_writers(url: &str, seed: u64) {
    let store = Store::open(url, "reader").await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..4 {
        let url = url.to_owned();
        writers.spawn(async move {
            let store = Store::open(&url, &format!("writer-{number}")).await.unwrap();
            let mut random = StdRng::seed_from_u64(seed + number);
            for round in 0..60 {
                let after = some_traces(&mut random);
                // SQLite may be busy with another writer for too long.
                while let Err(error) = write_some(&store, &after, round % 7 == 6).await {
                    assert!(error.passes(), "{error:?}");
                }
            }
        });
    }
    let (mut copy, mut random) = (Copy::default(), StdRng::seed_from_u64(seed));
    while !writers.is_empty() {
        copy.follow(&store, random.random_range(1..20), 3).await;
        while let Some(ended) = writers.try_join_next() {
            ended.unwrap();
        }
    }
    copy.follow(&store, 7, 1000).await;
    assert!(copy.records.values().any(|change| change.state == RecordState::Gone), "some are gone");
    copy.equals_the_table(&store).await;
    for trace in 1..12 {
        let live: Vec<_> = rows(&store, trace).await;
        let copied = copy.records.values().filter_map(|change| match &change.state {
            RecordState::Live(record, calls) if change.key.trace_id == trace_id(trace) => {
                assert_eq!(i64::try_from(calls.len()).unwrap(), record.llm_calls);
                Some((**record).clone())
            }
            _ => None,
        });
        let mut copied: Vec<_> = copied.collect();
        copied.sort_by_key(|record| record.id);
        assert_eq!(copied, live);
    }
    store.close().await;
}

/// Some traces, each with other requests than before.
fn some_traces(random: &mut StdRng) -> BTreeMap<u8, Vec<Request>> {
    let mut after = BTreeMap::new();
    for _ in 0..random.random_range(1..5) {
        let trace = random.random_range(1..12);
        let spans = (1..4).filter(|_| random.random_bool(0.5)).collect::<Vec<u8>>();
        let requests = spans.iter().map(|span| {
            let tokens: Vec<u64> = (0..random.random_range(0..3)).map(|_| random.random_range(0..50)).collect();
            request_of(trace, *span, Some("ann"), STARTS[usize::from(*span)], &tokens)
        });
        after.insert(trace, requests.collect());
    }
    after
}

async fn write_some(store: &Store, after: &BTreeMap<u8, Vec<Request>>, give_up: bool) -> Result<(), PersistError> {
    let proposed: Vec<Change> = after.iter().map(|(trace, after)| change(*trace, Vec::new(), after.clone())).collect();
    let mut work = store.begin(&proposed).await?;
    let known = work.take_known().into_iter();
    let changes: Vec<Change> = known
        .map(|known| {
            let trace = *after.keys().find(|trace| trace_id(**trace) == known.trace_id).unwrap();
            change(trace, known.requests, after[&trace].clone())
        })
        .collect();
    if give_up {
        return work.prepare(&changes, time(NOW)).await.map(drop);
    }
    work.commit(&changes, None, time(NOW)).await
}

/// A call that changes raises the revision and comes with its record; a key that went and came back is live.
pub async fn changes_of_calls_and_returns_are_seen(store: &Store) {
    let mut copy = Copy::default();
    copy.follow(store, 100, 100).await;
    let seen = async |copy: &mut Copy| {
        copy.follow(store, 1, 100).await;
        let (_, change) = copy.records.iter().find(|(key, _)| key.trace_id == trace_id(70)).unwrap();
        let tokens = match &change.state {
            RecordState::Live(_, calls) => calls.iter().map(|call| call.input_tokens).collect(),
            RecordState::Gone => vec![-1],
        };
        (change.revision, tokens)
    };
    write(store, 70, vec![request(70, Some("fay"), "2026-05-19T10:00:00Z", &[10])]).await;
    assert_eq!(seen(&mut copy).await, (1, vec![10]));
    let mut other = request(70, Some("fay"), "2026-05-19T10:00:00Z", &[10]);
    other.calls[0].provider = Some("azure".into());
    write(store, 70, vec![other]).await;
    assert_eq!(seen(&mut copy).await, (2, vec![10]));
    write(store, 70, Vec::new()).await;
    assert_eq!(seen(&mut copy).await, (3, vec![-1]));
    write(store, 70, vec![request(70, Some("fay"), "2026-05-19T10:00:00Z", &[10, 20])]).await;
    assert_eq!(seen(&mut copy).await, (4, vec![10, 20]));
}

/// Where a follower begins, and what it lacks.
pub async fn a_follower_begins_at_a_time_or_now(store: &Store) {
    let head = store.head().await.unwrap();
    assert!(store.changes(Some(&head), None, 10).await.unwrap().rows.is_empty());
    let export = ExportCursor {
        sink: "elasticsearch".into(),
        stream: Stream::Usage,
        cursor: head.clone(),
        since: None,
        holder: None,
        beat: 0,
        updated_at: time(NOW),
    };
    assert_eq!(store.lacking_since(&export).await.unwrap(), None);
    write(store, 71, vec![request(71, Some("fay"), "2031-01-01T00:00:00Z", &[10])]).await;
    write(store, 72, vec![request(72, Some("fay"), "2031-02-01T00:00:00Z", &[10])]).await;
    assert_eq!(store.lacking_since(&export).await.unwrap(), Some(time(NOW)));
    let starts = async |cursor: &Cursor, since| {
        let found = store.changes(Some(cursor), since, 10).await.unwrap().rows;
        found.iter().map(|change| change.key.started_at.to_string()[..7].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(starts(&head, None).await, ["2031-01", "2031-02"]);
    assert_eq!(starts(&head, Some(time("2031-01-15T00:00:00Z"))).await, ["2031-02"]);
    let since = store.feed_since(time("2031-01-15T00:00:00Z")).await.unwrap();
    assert_eq!(starts(&since, None).await, ["2031-02"]);
    let far = store.feed_since(time("2032-01-01T00:00:00Z")).await.unwrap();
    assert!(starts(&far, None).await.is_empty());
}

#[tokio::test]
async fn an_open_transaction_delays_the_feed_and_hides_nothing() {
    let server = Postgres::start();
    let url = server.database("open");
    let store = Store::open(&url, "one").await.unwrap();
    let start = store.head().await.unwrap();
    // Of somebody else, in another database of the cluster.
    let mut other = PgConnection::connect(&server.database("other")).await.unwrap();
    let mut open = other.begin().await.unwrap();
    sqlx::query("SELECT pg_current_xact_id()").execute(&mut *open).await.unwrap();
    write(&store, 1, vec![request(1, Some("ann"), "2026-05-19T10:00:00Z", &[10])]).await;
    let before = store.changes(Some(&start), None, 10).await.unwrap();
    assert!(before.rows.is_empty());
    let horizon = store.horizon().await.unwrap();
    assert!(horizon.position < horizon.newest);
    open.commit().await.unwrap();
    assert_eq!(store.changes(Some(&before.next), None, 10).await.unwrap().rows.len(), 1);
    store.close().await;
}

#[tokio::test]
async fn a_dump_in_another_cluster_is_a_new_epoch_and_its_positions_go_on() {
    let (old, new) = (Postgres::start(), Postgres::start());
    let store = Store::open(&old.database("moved"), "one").await.unwrap();
    for n in 0..20 {
        write(&store, 1, vec![request(1, Some("ann"), "2026-05-19T10:00:00Z", &[n])]).await;
    }
    let cursor = store.head().await.unwrap();
    let last = rows(&store, 1).await[0].change_seq;
    store.close().await;
    // As if the old cluster had seen many more transactions than the new one.
    let mut raw = PgConnection::connect(&old.url("moved")).await.unwrap();
    sqlx::query("UPDATE usage_records SET change_seq = change_seq + 1000000").execute(&mut raw).await.unwrap();
    let store = Store::open(&old.restore_into("moved", &new), "one").await.unwrap();
    let refused = store.changes(Some(&cursor), None, 10).await;
    assert!(matches!(refused, Err(FeedError::Epoch { cursor: 1, database: 2 })), "{refused:?}");
    write(&store, 2, vec![request(2, Some("ann"), "2026-05-19T10:00:00Z", &[1])]).await;
    assert!(rows(&store, 2).await[0].change_seq > last + 1_000_000);
    let mut copy = Copy::default();
    copy.follow(&store, 1, 10).await;
    assert_eq!(copy.records.len(), 2);
    assert_eq!(store.head().await.unwrap().epoch(), 2, "once, not at every look");
    store.close().await;
}

#[tokio::test]
async fn a_failover_is_a_new_epoch() {
    let old = Postgres::start();
    let store = Store::open(&old.database("high"), "one").await.unwrap();
    write(&store, 1, vec![request(1, Some("ann"), "2026-05-19T10:00:00Z", &[1])]).await;
    let standby = old.standby();
    write(&store, 2, vec![request(2, Some("ann"), "2026-05-19T10:00:00Z", &[1])]).await;
    let cursor = store.head().await.unwrap();
    store.close().await;
    old.halt();
    standby.promote();
    let store = Store::open(&standby.url("high"), "one").await.unwrap();
    let refused = store.changes(Some(&cursor), None, 10).await;
    assert!(matches!(refused, Err(FeedError::Epoch { cursor: 1, database: 2 })), "{refused:?}");
    let mut copy = Copy::default();
    copy.follow(&store, 10, 10).await;
    copy.equals_the_table(&store).await;
    store.close().await;
}

#[tokio::test]
async fn a_sqlite_file_that_is_put_back_is_a_new_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let (file, backup) = (folder.path().join("tacho.db"), folder.path().join("backup.db"));
    let url = format!("sqlite:{}", file.display());
    let write_one = async |trace| {
        let store = Store::open(&url, "one").await.unwrap();
        write(&store, trace, vec![request(trace, Some("ann"), "2026-05-19T10:00:00Z", &[1])]).await;
        let head = store.head().await.unwrap();
        store.close().await;
        head
    };
    assert_eq!(write_one(1).await.epoch(), 1);
    std::fs::copy(&file, &backup).unwrap();
    let cursor = write_one(2).await;
    assert_eq!(cursor.epoch(), 1, "a restart is none");
    std::fs::copy(&backup, &file).unwrap();
    assert_eq!(write_one(3).await.epoch(), 2);
    let store = Store::open(&url, "one").await.unwrap();
    assert!(matches!(store.changes(Some(&cursor), None, 10).await, Err(FeedError::Epoch { .. })));
    store.close().await;
}
