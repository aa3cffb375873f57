//! What records and calls are found by, and what stays of a record that went.

use std::fmt::Write as _;

use sqlx::{AssertSqlSafe, Connection, Row};
use tacho::persist::{Group, RecordFilter, Store};
use tacho_core::domain::record::Totals;

use super::faults::count;
use super::{known, request, request_of, rows, time, trace_id, write};

/// Nothing that a late span can tell is in the key: the row stays where it is, and says that it has changed.
pub async fn a_tenant_or_user_learnt_late_moves_no_row(store: &Store) {
    let first = request(60, Some("una"), "2026-05-19T10:00:00Z", &[10, 20]);
    write(store, 60, vec![first.clone()]).await;
    let before = rows(store, 60).await;
    let mut later = first.clone();
    (later.record.tenant, later.record.user) = ("elsewhere".into(), Some("una@elsewhere".into()));
    write(store, 60, vec![later.clone()]).await;
    let after = rows(store, 60).await;
    assert_eq!((before.len(), after.len()), (1, 1));
    let key = |row: &tacho::persist::RecordRow| (row.id, row.started_at.clone(), row.span_id.clone());
    assert_eq!(key(&before[0]), key(&after[0]));
    assert_eq!((after[0].tenant.as_str(), after[0].revision), ("elsewhere", 2));
    assert_eq!(known(store, 60).await, [later]);
}

/// Whoever follows the records gets a request with its calls, so a call that changes is a change of its record, sums or not.
pub async fn a_call_that_changes_raises_the_revision_of_its_record(store: &Store) {
    let mut request = request(61, Some("cal"), "2026-05-19T10:00:00Z", &[10, 20]);
    (request.calls[0].streaming, request.calls[0].time_to_first_token) = (false, None);
    write(store, 61, vec![request.clone()]).await;
    let before = rows(store, 61).await[0].change_seq;
    (request.calls[0].streaming, request.calls[0].time_to_first_token) =
        (true, Some(std::time::Duration::from_millis(5)));
    write(store, 61, vec![request.clone()]).await;
    let row = &rows(store, 61).await[0];
    assert_eq!(row.revision, 2);
    assert!(row.change_seq > before);
    assert_eq!(known(store, 61).await, [request.clone()]);
    write(store, 61, vec![request]).await;
    assert_eq!(rows(store, 61).await[0].revision, 2, "the same again is no change");
}

/// A record goes, comes back and goes again: its revisions are one row of numbers, and each state has a number of a change that
/// no other has.
pub async fn the_revision_of_a_record_that_comes_back_goes_on(store: &Store, url: &str) {
    let both = [5, 6].map(|span| request_of(62, span, Some("lazarus"), "2026-05-19T10:00:00Z", &[10]));
    let tombstones = async |columns: &str| {
        count(url, &format!("SELECT {columns} FROM record_tombstones WHERE trace_id = '{}'", trace_id(62))).await
    };
    let mut seen = Vec::new();
    for round in 0..3 {
        write(store, 62, both.to_vec()).await;
        let row = rows(store, 62).await.pop().unwrap();
        assert_eq!(row.revision, 1 + 2 * round);
        assert_eq!(tombstones("COUNT(*)").await, 0);
        seen.push(row.change_seq);
        write(store, 62, vec![both[0].clone()]).await;
        assert_eq!(tombstones("COUNT(*)").await, 1);
        assert_eq!(tombstones("MAX(revision)").await, 2 + 2 * round);
        seen.push(tombstones("MAX(change_seq)").await);
    }
    assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
    // Even where nothing is left of the trace that could be remembered.
    write(store, 62, Vec::new()).await;
    assert_eq!((rows(store, 62).await.len(), tombstones("COUNT(*)").await), (0, 2));
    write(store, 62, both.to_vec()).await;
    let revisions: Vec<i64> = rows(store, 62).await.iter().map(|row| row.revision).collect();
    assert_eq!((revisions, tombstones("COUNT(*)").await), (vec![3, 7], 0));
}

/// A call that was counted without its request moves to it, and stands nowhere twice.
pub async fn a_call_that_is_adopted_moves_with_its_record(store: &Store, url: &str) {
    let mut waiting = request_of(63, 7, Some("ado"), "2026-05-19T10:00:00.123456Z", &[10]);
    (waiting.record.method, waiting.record.endpoint, waiting.record.status) = (None, None, None);
    write(store, 63, vec![waiting.clone()]).await;
    let mut request = request_of(63, 5, Some("ado"), "2026-05-19T10:00:00Z", &[10]);
    request.calls.clone_from(&waiting.calls);
    request.record.totals = Totals::of(&request.calls);
    write(store, 63, vec![request.clone()]).await;
    assert_eq!(known(store, 63).await, [request]);
    let of_trace = format!("FROM llm_calls WHERE trace_id = '{}'", trace_id(63));
    assert_eq!(count(url, &format!("SELECT COUNT(*) {of_trace}")).await, 1);
    assert_eq!(count(url, &format!("SELECT COUNT(*) {of_trace} AND request_span_id = record_span_id")).await, 1);
}

/// Known by its trace, whatever the starts of its spans are by now: else it would stay beside what replaces it.
pub async fn a_record_is_known_whose_time_no_span_has_any_more(store: &Store) {
    let request = request(66, Some("odd"), "2026-05-19T11:11:11Z", &[10]);
    write(store, 66, vec![request.clone()]).await;
    assert_eq!(known(store, 66).await, [request]);
    write(store, 66, Vec::new()).await;
    assert_eq!(rows(store, 66).await, []);
}

/// A call counts in the period, the tenant and the trace of its record, so that sums by model are sums by user.
pub async fn a_call_is_counted_where_its_record_is(store: &Store) {
    let mut request = request(64, Some("mid"), "2026-05-19T10:00:00Z", &[10, 20]);
    request.record.tenant = "midnight".into();
    for call in &mut request.calls {
        call.key.started_at = time("2026-05-20T00:00:01Z");
    }
    request.record.totals = Totals::of(&request.calls);
    write(store, 64, vec![request]).await;
    for (since, until, tokens) in [("2026-05-19", "2026-05-20", 30), ("2026-05-20", "2026-05-21", 0)] {
        let filter = RecordFilter {
            tenant: Some("midnight".to_owned()),
            since: Some(time(since)),
            until: Some(time(until)),
            ..RecordFilter::default()
        };
        for group in [Group::User, Group::Model] {
            let sum: i64 = store.summary(group, &filter).await.unwrap().iter().map(|row| row.total_tokens).sum();
            assert_eq!(sum, tokens, "{group:?} {since}");
        }
    }
}

/// How the database would run this.
async fn plan(url: &str, sql: &str) -> String {
    let mut text = String::new();
    if url.starts_with("sqlite:") {
        let mut connection = sqlx::SqliteConnection::connect(url).await.unwrap();
        let sql = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
        for row in sqlx::query(sql).fetch_all(&mut connection).await.unwrap() {
            writeln!(text, "{}", row.get::<String, _>("detail")).unwrap();
        }
    } else {
        let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
        // Few rows are read through faster than by an index; what matters is whether one could be used.
        sqlx::query("SET enable_seqscan = off").execute(&mut connection).await.unwrap();
        for row in sqlx::query(AssertSqlSafe(format!("EXPLAIN {sql}"))).fetch_all(&mut connection).await.unwrap() {
            writeln!(text, "{}", row.get::<String, _>(0)).unwrap();
        }
    }
    text
}

/// An id pasted from a log or a trace viewer, as it is, finds its row by an index; so do the calls of a thousand records.
pub async fn ids_are_found_as_they_are_pasted_and_by_an_index(store: &Store, url: &str) {
    write(store, 65, vec![request(65, Some("pat"), "2026-05-19T10:00:00Z", &[10])]).await;
    let pasted = format!("SELECT COUNT(*) FROM usage_records WHERE trace_id = '{}'", trace_id(65));
    assert_eq!(count(url, &pasted).await, 1);
    let found = plan(url, &pasted).await;
    assert!(found.contains("usage_records_by_trace"), "{found}");
    let thousand = "SELECT c.* FROM usage_records r JOIN llm_calls c ON c.record_started_at = r.started_at \
                    AND c.trace_id = r.trace_id AND c.record_span_id = r.span_id \
                    WHERE r.change_seq > 0 ORDER BY r.change_seq LIMIT 1000";
    let found = plan(url, thousand).await;
    let (records, calls) = if url.starts_with("sqlite:") {
        ("SEARCH r USING INDEX usage_records_by_change", "SEARCH c USING PRIMARY KEY")
    } else {
        ("usage_records_by_change", "Index Scan using llm_calls_pkey")
    };
    assert!(found.contains(records) && found.contains(calls), "{found}");
}
