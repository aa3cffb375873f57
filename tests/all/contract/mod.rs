//! One suite over every store: what is written is read back, amended, taken back and counted the same in each.

mod faces;
mod faults;
mod feed;
mod keys;
mod limit_events;
mod limits;
mod plans;
mod readings;
mod sums;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use tacho::persist::{
    AccountFilter, AccountPage, AccountRow, Act, Change, Group, Known, Page, RecordFilter, RecordRow, Store,
};
use tacho_core::domain::account::AccountId;
use tacho_core::domain::call::{Call, Cost, Key, Tokens, Usage};
use tacho_core::domain::facts::Facts;
use tacho_core::domain::ids::{SpanId, TraceId};
use tacho_core::domain::money::NanoUsd;
use tacho_core::domain::record::{Record, Request, Totals};
use tacho_core::domain::span::{Kind, Origin, Span};
use tacho_core::domain::time::Timestamp;
use tacho_core::domain::trace::{Trace, Waits};

use crate::support::postgres::Postgres;
pub use faults::execute;

const NOW: &str = "2026-05-20T12:00:00Z";

#[tokio::test]
async fn both_databases_end_with_the_same_rows() {
    let folder = tempfile::tempdir().unwrap();
    let server = Postgres::start();
    let sqlite = suite(&format!("sqlite:{}", folder.path().join("new/tacho.db").display())).await;
    let postgres = suite(&server.database("contract")).await;
    assert_eq!(sqlite, postgres);
}

/// All cases after each other on one database, each on a trace of its own; the rows that they leave.
async fn suite(url: &str) -> (Vec<RecordRow>, Vec<AccountRow>) {
    let store = Store::open(url, "one").await.unwrap();
    store.ping().await.unwrap();
    a_record_is_read_back_and_amended(&store).await;
    a_record_that_folds_away_is_deleted(&store).await;
    a_new_month_closes_the_period(&store).await;
    a_user_learnt_late_gets_an_account(&store).await;
    two_stores_write_one_trace_after_each_other(&store, &Store::open(url, "two").await.unwrap()).await;
    two_stores_open_one_account(&store, &Store::open(url, "two").await.unwrap()).await;
    waiting_traces_come_due(&store, &Store::open(url, "two").await.unwrap()).await;
    keys::a_tenant_or_user_learnt_late_moves_no_row(&store).await;
    keys::a_call_that_changes_raises_the_revision_of_its_record(&store).await;
    keys::the_revision_of_a_record_that_comes_back_goes_on(&store, url).await;
    keys::a_call_that_is_adopted_moves_with_its_record(&store, url).await;
    keys::a_record_is_known_whose_time_no_span_has_any_more(&store).await;
    keys::a_call_is_counted_where_its_record_is(&store).await;
    keys::ids_are_found_as_they_are_pasted_and_by_an_index(&store, url).await;
    readings::calls_come_back_as_they_were(&store).await;
    readings::summaries_are_sums_of_what_they_name(&store).await;
    readings::a_number_of_a_change_is_never_given_again(&store, url).await;
    faults::a_refused_write_leaves_nothing_and_can_be_done_again(&store, url).await;
    faults::every_part_that_is_set_aside_stays(&store, url).await;
    faults::an_extract_of_another_version_is_never_overwritten(&store, url).await;
    feed::changes_of_calls_and_returns_are_seen(&store).await;
    feed::a_follower_begins_at_a_time_or_now(&store).await;
    limit_events::each_is_added_once(&store).await;
    limit_events::an_event_is_read_back_as_it_was(&store).await;
    limit_events::two_instances_write_many_once(&store, url).await;
    limit_events::nothing_is_added_of_what_is_refused(&store).await;
    accounts_stay_the_sum_of_their_records(&store).await;
    a_batch_of_many_traces(&store).await;
    verify::what_is_spoilt_is_named_and_mended(&store, url).await;
    for group in [Group::User, Group::Model, Group::Endpoint, Group::Day] {
        assert!(!store.summary(group, &RecordFilter::default()).await.unwrap().is_empty(), "{group:?}");
    }
    let mut rows = store.records(&RecordFilter::default(), Page { after: None, limit: 10_000 }).await.unwrap();
    let accounts = all_accounts(&store).await;
    store.close().await;
    // Numbers that a database may skip.
    rows.iter_mut().for_each(|row| (row.id, row.change_seq) = (0, 0));
    rows.sort_by(|a, b| (&a.trace_id, &a.span_id).cmp(&(&b.trace_id, &b.span_id)));
    (rows, accounts)
}

async fn a_record_is_read_back_and_amended(store: &Store) {
    let once = request(1, Some("ann"), "2026-05-19T10:00:00.123456Z", &[100]);
    write(store, 1, vec![once.clone()]).await;
    assert_eq!(known(store, 1).await, std::slice::from_ref(&once));
    write(store, 1, vec![once]).await;
    assert_eq!(rows(store, 1).await[0].revision, 1);
    let late = request(1, Some("ann"), "2026-05-19T10:00:00.123456Z", &[100, 50]);
    write(store, 1, vec![late.clone()]).await;
    assert_eq!(known(store, 1).await, [late]);
    let row = &rows(store, 1).await[0];
    assert_eq!((row.revision, row.total_tokens, row.cost.as_deref()), (2, 150, Some("0.00000015")));
    assert_eq!(summary(store, "ann").await, (1, 150));
    assert_eq!(account(store, "ann").await, "1 requests, 150 tokens, 150 n$ since 2026-05-01, 0 resets");
}

async fn a_record_that_folds_away_is_deleted(store: &Store) {
    let two = [5, 6].map(|span| request_of(2, span, Some("bob"), "2026-05-19T10:00:00Z", &[10]));
    write(store, 2, two.to_vec()).await;
    assert_eq!(rows(store, 2).await.len(), 2);
    write(store, 2, vec![two[0].clone()]).await;
    assert_eq!(known(store, 2).await, [two[0].clone()]);
    write(store, 2, Vec::new()).await;
    assert!(rows(store, 2).await.is_empty());
    assert_eq!(account(store, "bob").await, "0 requests, 0 tokens, 0 n$ since 2026-05-01, 0 resets");
}

async fn a_new_month_closes_the_period(store: &Store) {
    write(store, 3, vec![request(3, Some("eve"), "2026-04-30T23:00:00Z", &[10])]).await;
    assert_eq!(account(store, "eve").await, "1 requests, 10 tokens, 10 n$ since 2026-04-01, 0 resets");
    write(store, 4, vec![request(4, Some("eve"), "2026-05-01T00:00:00Z", &[20])]).await;
    assert_eq!(account(store, "eve").await, "1 requests, 20 tokens, 20 n$ since 2026-05-01, 1 resets");
    // Late for April: May does not count it.
    write(store, 3, vec![request(3, Some("eve"), "2026-04-30T23:00:00Z", &[10, 5])]).await;
    assert_eq!(account(store, "eve").await, "1 requests, 20 tokens, 20 n$ since 2026-05-01, 1 resets");
    // By a clock that runs ahead: the period stays, and the record counts in it.
    write(store, 8, vec![request(8, Some("eve"), "2026-06-01T00:00:00Z", &[7])]).await;
    assert_eq!(account(store, "eve").await, "2 requests, 27 tokens, 27 n$ since 2026-05-01, 1 resets");
}

async fn a_user_learnt_late_gets_an_account(store: &Store) {
    write(store, 5, vec![request(5, None, "2026-05-19T10:00:00Z", &[10])]).await;
    write(store, 5, vec![request(5, Some("zoe"), "2026-05-19T10:00:00Z", &[10])]).await;
    assert_eq!(rows(store, 5).await[0].user_id.as_deref(), Some("zoe"));
    assert_eq!(account(store, "zoe").await, "1 requests, 10 tokens, 10 n$ since 2026-05-01, 0 resets");
    write(store, 5, vec![request(5, Some("yan"), "2026-05-19T10:00:00Z", &[10])]).await;
    assert_eq!(account(store, "zoe").await, "0 requests, 0 tokens, 0 n$ since 2026-05-01, 0 resets");
    assert_eq!(account(store, "yan").await, "1 requests, 10 tokens, 10 n$ since 2026-05-01, 0 resets");
}

/// Whatever is written in whatever order, an account is the sum of the records of its period.
async fn accounts_stay_the_sum_of_their_records(store: &Store) {
    let mut random = StdRng::seed_from_u64(11);
    for _ in 0..200 {
        let trace = random.random_range(100..130);
        let how_many = random.random_range(0..3);
        let requests = (0..how_many).map(|span| {
            let user = [None, Some("u1"), Some("u2"), Some("u3")][random.random_range(0..4)];
            let start = STARTS[random.random_range(0..STARTS.len())];
            let tokens: Vec<u64> = (0..random.random_range(0..3)).map(|_| random.random_range(0..100)).collect();
            request_of(trace, 5 + span, user, start, &tokens)
        });
        let requests = requests.collect();
        write(store, trace, requests).await;
    }
    for account in all_accounts(store).await {
        let filter = RecordFilter {
            user: Some(account.user_id.clone()),
            since: Timestamp::parse(&account.period_started_at),
            ..RecordFilter::default()
        };
        let records = store.records(&filter, Page { after: None, limit: 1000 }).await.unwrap();
        let sum = |of: fn(&RecordRow) -> i64| records.iter().map(of).sum::<i64>();
        let used = (account.requests_used_current_period, account.tokens_used_current_period);
        assert_eq!(used, (sum(|_| 1), sum(|row| row.total_tokens)), "{account:?}");
        let cost = sum(|row| row.cost_nanousd.unwrap_or(0));
        assert_eq!(account.cost_used_current_period_nanousd, cost, "{account:?}");
    }
}

/// Longer than any statement: the chunks join without a seam, and the same again changes nothing.
async fn a_batch_of_many_traces(store: &Store) {
    let ids: Vec<TraceId> =
        (0..3000u128).map(|n| TraceId::from_bytes(&(n + (1 << 100)).to_be_bytes()).unwrap()).collect();
    for round in 0..2 {
        let change = |id: &TraceId, before| {
            let mut request = request(9, Some("sum"), "2026-05-02T00:00:00Z", &[1, 2, 3]);
            request.record.key.trace_id = *id;
            request.calls.iter_mut().for_each(|call| call.key.trace_id = *id);
            Change { trace_id: *id, ..change(9, before, vec![request]) }
        };
        let proposed: Vec<Change> = ids.iter().map(|id| change(id, Vec::new())).collect();
        let mut work = store.begin(&proposed).await.unwrap();
        let known = work.take_known();
        assert_eq!(known.len(), if round == 0 { 0 } else { ids.len() });
        let changes: Vec<Change> = known.into_iter().map(|known| change(&known.trace_id, known.requests)).collect();
        work.commit(&changes, None, time(NOW)).await.unwrap();
        assert_eq!(account(store, "sum").await, "3000 requests, 18000 tokens, 18000 n$ since 2026-05-01, 0 resets");
    }
    assert_eq!(rows(store, 9).await, []);
    let filter = RecordFilter { user: Some("sum".to_owned()), ..RecordFilter::default() };
    let mut after = None;
    let mut seen = 0;
    loop {
        let page = store.records(&filter, Page { after, limit: 700 }).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        seen += page.len();
        assert!(page.iter().all(|row| row.revision == 1));
    }
    assert_eq!(seen, 3000);
}

async fn two_stores_write_one_trace_after_each_other(one: &Store, two: &Store) {
    let more = |tokens: u64| async move {
        let store = if tokens == 1 { one } else { two };
        let after = |had| vec![request(6, Some("kim"), "2026-05-19T10:00:00Z", &[had + tokens])];
        let proposed = [change(6, Vec::new(), after(0))];
        let mut work = store.begin(&proposed).await.unwrap();
        let joined = |known: Known| {
            let had = known.requests[0].record.totals.tokens.input;
            change(6, known.requests, after(had))
        };
        let changes: Vec<Change> = work.take_known().into_iter().map(joined).collect();
        work.commit(&changes, None, time(NOW)).await.unwrap();
    };
    tokio::join!(more(1), more(2));
    assert_eq!(rows(one, 6).await[0].total_tokens, 3);
    assert_eq!(account(one, "kim").await, "1 requests, 3 tokens, 3 n$ since 2026-05-01, 0 resets");
}

/// Both see the user for the first time.
async fn two_stores_open_one_account(one: &Store, two: &Store) {
    let both = [(10, one), (11, two)].map(|(trace, store)| async move {
        write(store, trace, vec![request(trace, Some("tom"), "2026-05-19T10:00:00Z", &[u64::from(trace)])]).await;
    });
    let [first, second] = both;
    tokio::join!(first, second);
    assert_eq!(account(one, "tom").await, "2 requests, 21 tokens, 21 n$ since 2026-05-01, 0 resets");
}

async fn waiting_traces_come_due(store: &Store, other: &Store) {
    let waits = [Change { due: Some(time("2026-05-20T12:01:00Z")), ..change(7, Vec::new(), Vec::new()) }];
    store.begin(&waits).await.unwrap().commit(&[], None, time(NOW)).await.unwrap();
    let due = async |who: &Store, at| who.due(time(at), 10).await.unwrap();
    assert_eq!(due(store, NOW).await, []);
    assert_eq!(due(store, "2026-05-20T12:01:00Z").await, [trace_id(7)]);
    // Others leave it alone as long as it may be alive, unless it has said that it stops.
    assert_eq!(due(other, "2026-05-20T12:01:29Z").await, []);
    assert_eq!(due(other, "2026-05-20T12:01:30Z").await, [trace_id(7)]);
    other.release_claims().await.unwrap();
    assert_eq!(due(other, "2026-05-20T12:01:00Z").await, []);
    store.release_claims().await.unwrap();
    assert_eq!(due(other, "2026-05-20T12:01:00Z").await, [trace_id(7)]);
}

/// What was proposed is written, or replaces what is known.
async fn write(store: &Store, trace: u8, after: Vec<Request>) {
    let proposed = [change(trace, Vec::new(), after.clone())];
    let mut work = store.begin(&proposed).await.unwrap();
    let known = work.take_known().into_iter();
    let changes: Vec<Change> = known.map(|known| change(trace, known.requests, after.clone())).collect();
    work.commit(&changes, None, time(NOW)).await.unwrap();
}

async fn known(store: &Store, trace: u8) -> Vec<Request> {
    let nothing = [Change::nothing(trace_id(trace), time(NOW))];
    let mut work = store.begin(&nothing).await.unwrap();
    let known = work.take_known().pop().unwrap();
    assert_eq!(known.trace, extract());
    known.requests
}

async fn rows(store: &Store, trace: u8) -> Vec<RecordRow> {
    let filter = RecordFilter { trace_id: Some(trace_id(trace).to_string()), ..RecordFilter::default() };
    store.records(&filter, Page { after: None, limit: 10 }).await.unwrap()
}

async fn account(store: &Store, user: &str) -> String {
    let id = AccountId { tenant: "acme".into(), user: user.into() };
    let account = store.account(&id).await.unwrap().unwrap();
    format!(
        "{} requests, {} tokens, {} n$ since {}, {} resets",
        account.requests_used_current_period,
        account.tokens_used_current_period,
        account.cost_used_current_period_nanousd,
        &account.period_started_at[..10],
        account.ended_periods
    )
}

/// By tenant and user, as databases sort texts differently.
async fn all_accounts(store: &Store) -> Vec<AccountRow> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let some = store.accounts(&AccountFilter::default(), &AccountPage { after, limit: 3 }).await.unwrap();
        let Some(last) = some.last() else { break };
        after = Some(AccountId { tenant: last.tenant.as_str().into(), user: last.user_id.as_str().into() });
        all.extend(some);
    }
    all.sort_by(|a, b| (&a.tenant, &a.user_id).cmp(&(&b.tenant, &b.user_id)));
    all
}

async fn summary(store: &Store, user: &str) -> (i64, i64) {
    let filter = RecordFilter { user: Some(user.to_owned()), ..RecordFilter::default() };
    let found = store.summary(Group::User, &filter).await.unwrap();
    (found[0].requests, found[0].total_tokens)
}

fn change(trace: u8, before: Vec<Request>, after: Vec<Request>) -> Change {
    let (trace_id, first_seen) = (trace_id(trace), time(NOW));
    Change { trace_id, trace: extract(), first_seen, waits: Waits::new(), due: None, before, after }
}

/// The times at which the requests of the cases begin.
const STARTS: [&str; 7] = [
    "2026-03-31T23:00:00Z",
    "2026-04-30T23:00:00Z",
    "2026-05-01T00:00:00Z",
    "2026-05-02T00:00:00Z",
    "2026-05-19T10:00:00Z",
    "2026-05-19T10:00:00.123456Z",
    "2026-06-01T00:00:00Z",
];

/// Every row of a trace begins with one of its spans.
fn extract() -> Trace {
    let mut trace = Trace::default();
    for (start, n) in STARTS.iter().zip(1..) {
        let (kind, facts) = (Kind::Server, Facts::default());
        let (start, end) = (time(start), time(NOW));
        let span = Span { id: span_id(n), parent: None, remote_parent: false, kind, start, end, failed: false, facts };
        trace.push(&Arc::new(Origin::default()), span);
    }
    trace.joined(Trace::default())
}

fn request(trace: u8, user: Option<&str>, start: &str, tokens: &[u64]) -> Request {
    request_of(trace, 5, user, start, tokens)
}

/// A request whose calls used so many input tokens, at a nano-dollar each.
fn request_of(trace: u8, span: u8, user: Option<&str>, start: &str, tokens: &[u64]) -> Request {
    let key = Key { started_at: time(start), trace_id: trace_id(trace), span_id: span_id(span) };
    let calls: Vec<Call> = tokens.iter().zip(1..).map(|(input, n)| call(&key, n, *input)).collect();
    let record = Record {
        key,
        tenant: "acme".into(),
        service: Some("bot".into()),
        instance: None,
        user: user.map(Into::into),
        agent: None,
        session: None,
        endpoint: Some("/chat".into()),
        method: Some("POST".into()),
        status: Some(200),
        duration: Duration::from_nanos(1_234_567_891),
        error: None,
        totals: Totals::of(&calls),
    };
    Request { record, calls }
}

fn call(request: &Key, n: u8, input: u64) -> Call {
    let cost = NanoUsd(i64::try_from(input).unwrap());
    Call {
        key: Key { span_id: span_id(100 + 10 * n + request.span_id.to_string().as_bytes()[15] % 10), ..*request },
        provider: Some("openai".into()),
        host: None,
        request_model: Some("model-a".into()),
        response_model: None,
        model: Some("model-a".into()),
        operation: Some("chat".into()),
        usage: Usage::Reported(Tokens { input, ..Tokens::default() }),
        cost: Cost::Charged { cost, price_version: "v1".into(), whole: true },
        reported_cost: None,
        service_tier: None,
        answered_from_cache: false,
        streaming: true,
        duration: Duration::from_nanos(987_654_321),
        time_to_first_token: Some(Duration::from_nanos(12_345_678)),
        error_type: None,
        dialect: "test".into(),
    }
}

fn trace_id(number: u8) -> TraceId {
    TraceId::from_bytes(&[number; 16]).unwrap()
}

fn span_id(number: u8) -> SpanId {
    SpanId::from_bytes(&[number; 8]).unwrap()
}

fn act(reason: Option<&str>, at: Timestamp) -> Act<'_> {
    Act { actor: "a test".to_owned(), reason, at }
}

fn time(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}
