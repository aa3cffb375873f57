//! Plans, periods and resets: after each case every account is the fold of its records.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tacho::persist::{
    AccountFilter, AccountPage, AccountRow, AuditFilter, AuditRow, Change, Known, RecordRow, ResetRow, Store,
};
use tacho_core::domain::account::{AccountId, Drift};
use tacho_core::domain::facts::Facts;
use tacho_core::domain::plan::Plans;
use tacho_core::domain::record::Request;
use tacho_core::domain::span::{Kind, Origin, Span};
use tacho_core::domain::time::Timestamp;
use tacho_core::domain::trace::{Trace, Waits};

use super::faults::execute;
use super::{act, all_accounts, request, request_of, rows, span_id, time, trace_id};
use crate::support::postgres::Postgres;

const PLANS: &str = r#"
    free = { default = true, free_requests = 2, timezone = "Europe/Berlin" }
    five = { free_requests = 5, overage = "deny", timezone = "Europe/Berlin" }
    pro = { period = "year", timezone = "Europe/Berlin" }
    daily = { period = "day", timezone = "Europe/Berlin" }
    ours = { period = "month", anchor = "anniversary" }
    ever = { period = "lifetime" }
"#;

#[tokio::test]
async fn plans_hold_in_both_databases() {
    let folder = tempfile::tempdir().unwrap();
    let server = Postgres::start();
    let sqlite = suite(&format!("sqlite:{}", folder.path().join("tacho.db").display())).await;
    let postgres = suite(&server.database("plans")).await;
    assert_eq!(sqlite, postgres);
}

/// All cases after each other on one database, each with users of its own.
async fn suite(url: &str) -> (Vec<AccountRow>, Vec<ResetRow>) {
    let store = Store::open(url, "one").await.unwrap().with_plans(plans(PLANS));
    let house = House { store: &store, url };
    house.the_first_requests_are_free().await;
    house.what_is_folded_away_was_not_used().await;
    house.a_record_of_another_user_is_new_to_it().await;
    house.two_stores_give_no_request_twice().await;
    house.periods_end_in_their_zone().await;
    house.what_was_missed_is_caught_up_by_one_entry().await;
    house.days_are_as_long_as_their_clock_says().await;
    house.an_entry_is_the_sum_of_its_period().await;
    house.an_anniversary_keeps_its_day().await;
    house.a_reset_by_hand_begins_from_nothing().await;
    house.a_plan_is_changed_in_the_middle_of_a_period().await;
    house.acts_are_in_the_audit_log().await;
    house.a_change_of_plan_never_goes_behind_a_reset().await;
    house.plans_change_in_the_configuration().await;
    house.without_plans_the_records_still_name_theirs().await;
    house.who_limits_learns_how_the_accounts_stand().await;
    house.what_is_spoilt_is_mended().await;
    house.accounts_are_found_by_tenant_and_plan().await;
    let accounts = all_accounts(&store).await;
    let mut resets = Vec::new();
    for account in &accounts {
        resets.extend(store.account_resets(&id(&account.user_id), 100).await.unwrap());
    }
    store.close().await;
    (accounts, resets)
}

fn plans(text: &str) -> Plans {
    toml::from_str(text).unwrap()
}

fn id(user: &str) -> AccountId {
    AccountId { tenant: "acme".into(), user: user.into() }
}

struct House<'h> {
    store: &'h Store,
    url: &'h str,
}

impl House<'_> {
    async fn the_first_requests_are_free(&self) {
        let starts = ["2026-05-19T12:00:00Z", "2026-05-19T10:00:00Z", "2026-05-19T11:00:00Z"];
        let three = starts.iter().zip(5..).map(|(start, span)| request_of(1, span, Some("ann"), start, &[10]));
        let three: Vec<Request> = three.collect();
        write(self.store, 1, &three, "2026-05-19T12:00:05Z").await;
        self.shows("ann", "free: 2 free, 1 requests, 30 tokens since 2026-04-30T22:00").await;
        assert_eq!(self.marks(1).await, ["10:00 free free", "11:00 free free", "12:00 free"]);
        // Late tokens of a free one: neither it nor the others are decided anew.
        let mut late = three.clone();
        late[1] = request_of(1, 6, Some("ann"), starts[1], &[10, 5]);
        write(self.store, 1, &late, "2026-05-19T12:00:09Z").await;
        self.shows("ann", "free: 2 free, 1 requests, 35 tokens since 2026-04-30T22:00").await;
        assert_eq!(self.marks(1).await, ["10:00 free free", "11:00 free free", "12:00 free"]);
    }

    async fn what_is_folded_away_was_not_used(&self) {
        let start = "2026-05-19T10:00:00Z";
        let two = [5, 6].map(|span| request_of(2, span, Some("bob"), start, &[10]));
        write(self.store, 2, &two, "2026-05-20").await;
        self.shows("bob", "free: 2 free, 0 requests, 20 tokens since 2026-04-30T22:00").await;
        write(self.store, 2, &two[..1], "2026-05-20").await;
        self.shows("bob", "free: 1 free, 0 requests, 10 tokens since 2026-04-30T22:00").await;
        write(self.store, 3, &[request(3, Some("bob"), start, &[1])], "2026-05-20").await;
        write(self.store, 4, &[request(4, Some("bob"), start, &[1])], "2026-05-20").await;
        self.shows("bob", "free: 2 free, 1 requests, 12 tokens since 2026-04-30T22:00").await;
        // One goes and another comes in the same moment.
        write(self.store, 3, &[request_of(3, 9, Some("bob"), start, &[1])], "2026-05-20").await;
        self.shows("bob", "free: 2 free, 1 requests, 12 tokens since 2026-04-30T22:00").await;
        assert_eq!(
            (self.marks(3).await, self.marks(4).await),
            (vec!["10:00 free free".into()], vec!["10:00 free".into()])
        );
    }

    async fn a_record_of_another_user_is_new_to_it(&self) {
        let of = |user| [request(5, user, "2026-05-19T10:00:00Z", &[7])];
        write(self.store, 5, &of(None), "2026-05-20").await;
        assert_eq!(self.marks(5).await, ["10:00 free"]);
        write(self.store, 5, &of(Some("zoe")), "2026-05-20").await;
        self.shows("zoe", "free: 1 free, 0 requests, 7 tokens since 2026-04-30T22:00").await;
        // Whose free requests are used up.
        write(self.store, 5, &of(Some("bob")), "2026-05-20").await;
        self.shows("zoe", "free: 0 free, 0 requests, 0 tokens since 2026-04-30T22:00").await;
        self.shows("bob", "free: 2 free, 2 requests, 19 tokens since 2026-04-30T22:00").await;
        write(self.store, 5, &of(Some("zoe")), "2026-05-20").await;
        assert_eq!(self.marks(5).await, ["10:00 free free"]);
        write(self.store, 5, &of(None), "2026-05-20").await;
        assert_eq!(self.marks(5).await, ["10:00 free"]);
        self.shows("zoe", "free: 0 free, 0 requests, 0 tokens since 2026-04-30T22:00").await;
    }

    async fn two_stores_give_no_request_twice(&self) {
        write(self.store, 10, &[request(10, Some("kim"), "2026-05-19T10:00:00Z", &[1])], "2026-05-20").await;
        self.set_plan("kim", "five", "2026-05-20").await;
        let two = Store::open(self.url, "two").await.unwrap().with_plans(plans(PLANS));
        let some = async |store: &Store, traces: std::ops::Range<u8>| {
            for trace in traces {
                write(store, trace, &[request(trace, Some("kim"), "2026-05-19T10:00:00Z", &[1])], "2026-05-20").await;
            }
        };
        tokio::join!(some(self.store, 11..17), some(&two, 17..23), some(&two, 23..29));
        two.close().await;
        self.shows("kim", "five: 5 free, 14 requests, 19 tokens since 2026-04-30T22:00").await;
    }

    /// In Berlin April begins at ten in the evening UTC, as summer has begun, and November at eleven.
    async fn periods_end_in_their_zone(&self) {
        write(self.store, 30, &[request(30, Some("eve"), "2026-03-31T21:59:59Z", &[1])], "2026-03-31T21:59:59Z").await;
        self.shows("eve", "free: 1 free, 0 requests, 1 tokens since 2026-02-28T23:00").await;
        write(self.store, 31, &[request(31, Some("eve"), "2026-03-31T22:00:00Z", &[2])], "2026-03-31T22:00:00Z").await;
        self.shows("eve", "free: 2 free, 0 requests, 2 tokens since 2026-03-31T22:00").await;
        self.ledger("eve", &["period free 2026-02-28T23:00 2026-03-31T22:00 0 1"]).await;
        // Late for March: April does not count it.
        write(self.store, 30, &[request(30, Some("eve"), "2026-03-31T21:59:59Z", &[1, 9])], "2026-04-01").await;
        self.shows("eve", "free: 2 free, 0 requests, 2 tokens since 2026-03-31T22:00").await;
        assert_eq!(self.store.end_periods(time("2026-04-30T21:59:59.999Z")).await.unwrap(), 0);
        assert!(self.store.end_periods(time("2026-04-30T22:00:00Z")).await.unwrap() > 0);
        assert_eq!(self.store.end_periods(time("2026-04-30T22:00:00Z")).await.unwrap(), 0);
        self.shows("eve", "free: 2 free, 0 requests, 0 tokens since 2026-04-30T22:00").await;
        self.ledger("eve", &["period free 2026-03-31T22:00 2026-04-30T22:00 0 2"]).await;
    }

    async fn what_was_missed_is_caught_up_by_one_entry(&self) {
        let nine: Vec<Request> =
            (1..10).map(|span| request_of(32, span, Some("max"), "2026-01-05T00:00:00Z", &[3])).collect();
        write(self.store, 32, &nine, "2026-01-05T00:01:00Z").await;
        self.shows("max", "free: 2 free, 7 requests, 27 tokens since 2025-12-31T23:00").await;
        self.store.end_periods(time("2026-11-01T00:00:00Z")).await.unwrap();
        self.shows("max", "free: 2 free, 0 requests, 0 tokens since 2026-10-31T23:00").await;
        self.ledger("max", &["period free 2025-12-31T23:00 2026-10-31T23:00 7 27"]).await;
    }

    async fn days_are_as_long_as_their_clock_says(&self) {
        write(self.store, 33, &[request(33, Some("dan"), "2026-03-28T12:00:00Z", &[1])], "2026-03-28T12:00:00Z").await;
        self.set_plan("dan", "daily", "2026-03-28T12:00:01Z").await;
        self.shows("dan", "daily: 1 free, 0 requests, 1 tokens since 2026-03-27T23:00").await;
        write(self.store, 34, &[request(34, Some("dan"), "2026-03-28T23:00:00Z", &[1])], "2026-03-29T21:59:00Z").await;
        self.shows("dan", "daily: 1 free, 1 requests, 1 tokens since 2026-03-28T23:00").await;
        write(self.store, 35, &[request(35, Some("dan"), "2026-03-29T21:59:59Z", &[1])], "2026-03-29T22:00:00Z").await;
        self.shows("dan", "daily: 1 free, 2 requests, 2 tokens since 2026-03-28T23:00").await;
        self.store.end_periods(time("2026-03-29T22:00:00Z")).await.unwrap();
        self.shows("dan", "daily: 1 free, 0 requests, 0 tokens since 2026-03-29T22:00").await;
        self.ledger("dan", &["period daily 2026-03-28T23:00 2026-03-29T22:00 2 2"]).await;
    }

    /// Records of the old period, of the new one and of one that the clock has not reached, in one batch.
    async fn an_entry_is_the_sum_of_its_period(&self) {
        let of = |span, start, tokens| request_of(36, span, Some("sam"), start, &[tokens]);
        let ahead = of(1, "2027-07-01T00:00:00Z", 1_000);
        write(self.store, 36, &[ahead.clone(), of(2, "2026-05-01T00:00:00Z", 1)], "2026-05-02").await;
        self.shows("sam", "free: 2 free, 0 requests, 1001 tokens since 2026-04-30T22:00").await;
        let more = [
            ahead,
            of(2, "2026-05-01T00:00:00Z", 1),
            of(3, "2026-05-03T00:00:00Z", 10),
            of(4, "2026-06-15T00:00:00Z", 20),
            of(5, "2026-07-15T00:00:00Z", 40),
        ];
        write(self.store, 36, &more, "2026-07-16").await;
        self.shows("sam", "free: 2 free, 1 requests, 1040 tokens since 2026-06-30T22:00").await;
        self.ledger("sam", &["period free 2026-04-30T22:00 2026-06-30T22:00 2 31"]).await;
    }

    async fn an_anniversary_keeps_its_day(&self) {
        let start = "2026-01-31T10:30:00.123456Z";
        write(self.store, 37, &[request(37, Some("liv"), start, &[1])], "2026-01-31T10:30:01Z").await;
        self.set_plan("liv", "ours", "2026-01-31T12:00:00Z").await;
        self.shows("liv", "ours: 1 free, 0 requests, 1 tokens since 2026-01-31T10:30").await;
        for (at, since) in [("2026-03-01", "2026-02-28T10:30"), ("2026-03-31T10:30:01Z", "2026-03-31T10:30")] {
            self.store.end_periods(time(at)).await.unwrap();
            self.shows("liv", &format!("ours: 1 free, 0 requests, 0 tokens since {since}")).await;
        }
        // An earlier request that comes late moves nothing.
        write(self.store, 38, &[request(38, Some("liv"), "2026-01-30T00:00:00Z", &[1])], "2026-03-31T11:00:00Z").await;
        self.shows("liv", "ours: 1 free, 0 requests, 0 tokens since 2026-03-31T10:30").await;
    }

    async fn a_reset_by_hand_begins_from_nothing(&self) {
        let of = |span, start, tokens: &[u64]| request_of(40, span, Some("pia"), start, tokens);
        let first = ["2026-05-03T00:00:00Z", "2026-05-04T00:00:00Z", "2026-05-05T00:00:00Z"];
        let mut requests: Vec<Request> = first.iter().zip(1..).map(|(start, span)| of(span, start, &[1])).collect();
        write(self.store, 40, &requests, "2026-05-06").await;
        self.shows("pia", "free: 2 free, 1 requests, 3 tokens since 2026-04-30T22:00").await;
        let row = self
            .store
            .reset(&id("pia"), &act(Some("goodwill"), time("2026-05-06T12:00:00.5Z")))
            .await
            .unwrap()
            .unwrap();
        assert_eq!((row.last_manual_reset_at.as_deref(), row.ended_periods), (Some("2026-05-06T12:00:00.500000Z"), 1));
        self.shows("pia", "free: 2 free, 0 requests, 0 tokens since 2026-05-06T12:00").await;
        self.ledger("pia", &["manual free 2026-04-30T22:00 2026-05-06T12:00 1 3 goodwill"]).await;
        // What began before belongs before, however late it comes; what begins after counts.
        requests[2] = of(3, first[2], &[1, 50]);
        requests.push(of(4, "2026-05-06T12:00:00.499999Z", &[100]));
        requests.push(of(5, "2026-05-06T12:00:00.5Z", &[7]));
        write(self.store, 40, &requests, "2026-05-07").await;
        self.shows("pia", "free: 2 free, 1 requests, 7 tokens since 2026-05-06T12:00").await;
        // By a clock that is behind.
        self.store.reset(&id("pia"), &act(None, time("2026-05-01"))).await.unwrap().unwrap();
        self.shows("pia", "free: 2 free, 1 requests, 7 tokens since 2026-05-06T12:00").await;
        execute(self.url, "DELETE FROM billing_accounts WHERE user_id = 'pia'").await;
        self.store.rebuild(time("2026-05-20")).await.unwrap().commit(&act(None, time("2026-05-20"))).await.unwrap();
        self.shows("pia", "free: 2 free, 1 requests, 7 tokens since 2026-05-06T12:00").await;
        // The period ends when it would have.
        self.store.end_periods(time("2026-06-01")).await.unwrap();
        self.shows("pia", "free: 2 free, 0 requests, 0 tokens since 2026-05-31T22:00").await;
        self.ledger("pia", &["period free 2026-05-06T12:00 2026-05-31T22:00 1 7"]).await;
        assert_eq!(self.store.reset(&id("nobody"), &act(None, time("2026-05-06"))).await.unwrap(), None);
        // A period that is over ends first.
        self.store.reset(&id("pia"), &act(None, time("2026-07-02"))).await.unwrap().unwrap();
        let first = "manual free 2026-06-30T22:00 2026-07-02T00:00 0 0";
        self.ledger("pia", &[first, "period free 2026-05-31T22:00 2026-06-30T22:00 0 0"]).await;
    }

    /// Each act by hand with what it changed, in the transaction that changed it.
    async fn acts_are_in_the_audit_log(&self) {
        let noted = async |user: &str, limit| {
            let filter = AuditFilter { user: Some(user.to_owned()), limit, ..AuditFilter::default() };
            self.store.audit(&filter).await.unwrap()
        };
        let [last, rebuilt, backwards, first] = &noted("pia", 10).await[..] else { panic!("four acts") };
        assert_eq!((&*first.action, &*first.actor), ("account.reset", "a test"));
        assert_eq!((first.tenant.as_deref(), first.reason.as_deref()), (Some("acme"), Some("goodwill")));
        assert_eq!(first.created_at, "2026-05-06T12:00:00.500000Z");
        let requests =
            |side: &Option<serde_json::Value>| side.as_ref().unwrap()["requests_used_current_period"].clone();
        assert_eq!((requests(&first.before), requests(&first.after)), (1.into(), 0.into()));
        assert_eq!(
            (&*rebuilt.action, requests(&rebuilt.before), requests(&rebuilt.after)),
            ("account.rebuild", 0.into(), 1.into())
        );
        assert_eq!((&*backwards.action, &*last.action), ("account.reset", "account.reset"));
        // A period that was over ended first, by itself.
        assert_eq!(last.before.as_ref().unwrap()["period_started_at"], "2026-06-30T22:00:00.000000Z");
        assert!(noted("nobody", 10).await.is_empty());
        assert_eq!(noted("pia", 1).await, std::slice::from_ref(last));
        let since = AuditFilter { since: Some(time("2026-07-02")), limit: 10, ..AuditFilter::default() };
        let since = self.store.audit(&since).await.unwrap();
        assert!(since.contains(last) && !since.contains(first));
        let ivo = noted("ivo", 100).await;
        let plans = |row: &AuditRow| [&row.before, &row.after].map(|side| side.as_ref().unwrap()["plan"].clone());
        assert_eq!(
            (&*ivo.last().unwrap().action, plans(ivo.last().unwrap())),
            ("account.set_plan", ["free".into(), "five".into()])
        );
    }

    async fn a_plan_is_changed_in_the_middle_of_a_period(&self) {
        let of = |trace, start, tokens| [request(trace, Some("ivo"), start, &[tokens])];
        write(self.store, 41, &of(41, "2026-04-10T00:00:00Z", 1), "2026-04-10").await;
        write(self.store, 42, &of(42, "2026-05-10T00:00:00Z", 2), "2026-05-10").await;
        write(self.store, 43, &of(43, "2026-05-11T00:00:00Z", 4), "2026-05-11").await;
        self.shows("ivo", "free: 2 free, 1 requests, 6 tokens since 2026-04-30T22:00").await;
        // The same periods: the counters stay. What was used of the free requests stays used.
        self.set_plan("ivo", "five", "2026-05-12").await;
        self.shows("ivo", "five: 2 free, 1 requests, 6 tokens since 2026-04-30T22:00").await;
        self.ledger("ivo", &["plan free>five 2026-04-30T22:00 2026-04-30T22:00 1 6 by test"]).await;
        write(self.store, 44, &of(44, "2026-05-12T00:00:00Z", 8), "2026-05-12").await;
        self.shows("ivo", "five: 3 free, 1 requests, 14 tokens since 2026-04-30T22:00").await;
        // Other periods: counted anew, April with it.
        self.set_plan("ivo", "pro", "2026-05-13").await;
        self.shows("ivo", "pro: 3 free, 1 requests, 15 tokens since 2025-12-31T23:00").await;
        self.ledger("ivo", &["plan five>pro 2026-04-30T22:00 2025-12-31T23:00 1 14 by test"]).await;
        self.set_plan("ivo", "ever", "2026-05-13").await;
        self.shows("ivo", "ever: 3 free, 1 requests, 15 tokens since 1970-01-01T00:00").await;
        // What is amended keeps its plan, what is new has the new one.
        write(self.store, 44, &of(44, "2026-05-12T00:00:00Z", 9), "2026-05-14").await;
        write(self.store, 45, &of(45, "2026-05-14T00:00:00Z", 16), "2026-05-14").await;
        assert_eq!(
            (self.marks(44).await, self.marks(45).await),
            (vec!["00:00 five free".into()], vec!["00:00 ever".into()])
        );
        self.set_plan("ivo", "ever", "2026-05-13").await;
        self.ledger("ivo", &["plan pro>ever 2025-12-31T23:00 1970-01-01T00:00 1 15 by test"]).await;
    }

    async fn a_change_of_plan_never_goes_behind_a_reset(&self) {
        let of = |span, start| request_of(46, span, Some("una"), start, &[1]);
        write(self.store, 46, &[of(1, "2026-04-10T00:00:00Z"), of(2, "2026-05-10T00:00:00Z")], "2026-05-10").await;
        self.store.reset(&id("una"), &act(None, time("2026-05-11"))).await.unwrap().unwrap();
        self.set_plan("una", "pro", "2026-05-12").await;
        self.shows("una", "pro: 2 free, 0 requests, 0 tokens since 2026-05-11T00:00").await;
        self.set_plan("una", "daily", "2026-05-12").await;
        self.shows("una", "daily: 2 free, 0 requests, 0 tokens since 2026-05-11T22:00").await;
    }

    async fn plans_change_in_the_configuration(&self) {
        write(self.store, 47, &[request(47, Some("tim"), "2026-05-10T00:00:00Z", &[1])], "2026-05-10").await;
        self.set_plan("tim", "five", "2026-05-10").await;
        assert_eq!(self.store.adopt_plans(time("2026-05-10")).await.unwrap(), 0);
        let other = self.store.clone().with_plans(plans("five = { free_requests = 5, period = \"day\" }"));
        assert!(other.adopt_plans(time("2026-05-10T01:00:00Z")).await.unwrap() > 0);
        self.shows("tim", "five: 1 free, 0 requests, 1 tokens since 2026-05-10T00:00").await;
        self.ledger("tim", &["plan five>five 2026-04-30T22:00 2026-05-10T00:00 0 1"]).await;
        assert!(self.store.adopt_plans(time("2026-05-10T02:00:00Z")).await.unwrap() > 0);
        self.shows("tim", "five: 1 free, 0 requests, 1 tokens since 2026-04-30T22:00").await;
    }

    async fn without_plans_the_records_still_name_theirs(&self) {
        let plain = self.store.clone().with_plans(Plans::default());
        let of = |user| [request(48, user, "2026-05-10T00:00:00Z", &[1])];
        write(&plain, 48, &of(Some("ann")), "2026-05-20").await;
        assert_eq!(self.marks(48).await, ["00:00 free"]);
        write(&plain, 48, &of(Some("new")), "2026-05-20").await;
        assert_eq!(self.marks(48).await, ["00:00 default"]);
        self.shows("new", "default: 0 free, 1 requests, 1 tokens since 2026-05-01T00:00").await;
        // A free one that goes to another account is free no longer.
        write(self.store, 49, &[request(49, Some("ron"), "2026-05-10T00:00:00Z", &[1])], "2026-05-20").await;
        assert_eq!(self.marks(49).await, ["00:00 free free"]);
        write(&plain, 49, &[request(49, Some("new"), "2026-05-10T00:00:00Z", &[1])], "2026-05-20").await;
        assert_eq!(self.marks(49).await, ["00:00 default"]);
        self.shows("ron", "free: 0 free, 0 requests, 0 tokens since 2026-04-30T22:00").await;
        self.shows("new", "default: 0 free, 2 requests, 2 tokens since 2026-05-01T00:00").await;
    }

    async fn who_limits_learns_how_the_accounts_stand(&self) {
        let start = "2026-05-10T00:00:00Z";
        let [known, fresh] = [50, 51].map(|trace| request(trace, Some("ute"), start, &[1]));
        write(self.store, 50, std::slice::from_ref(&known), "2026-05-20").await;
        self.store.reset(&id("ute"), &act(None, time("2026-05-20"))).await.unwrap();
        let proposed =
            [change(50, vec![], std::slice::from_ref(&known)), change(51, vec![], std::slice::from_ref(&fresh))];
        let mut work = self.store.begin(&proposed).await.unwrap();
        let after = [request(50, Some("ute"), start, &[1, 1])];
        let changes: Vec<Change> =
            work.take_known().into_iter().map(|known| change(50, known.requests, &after)).collect();
        let prepared = work.prepare(&changes, time("2026-05-21")).await.unwrap();
        let standing = prepared.standings()[&id("ute")].clone();
        assert_eq!((&*standing.plan, standing.used.free_requests), ("free", 1));
        assert_eq!((standing.reset_at, standing.first_request_at), (Some(time("2026-05-20")), time(start)));
        assert_eq!(prepared.changes().len(), 2);
        assert!(prepared.mark_before(&known.record).free && prepared.mark(&known.record).free);
        assert!(prepared.mark(&fresh.record).free);
        prepared.commit(&[], &[], None).await.unwrap();
        self.shows("ute", "free: 2 free, 0 requests, 0 tokens since 2026-05-20T00:00").await;
        let standings = self.store.standings(&[id("ute"), id("nobody"), id("ann")]).await.unwrap();
        assert_eq!((standings.len(), standings[&id("ute")].used.free_requests), (2, 2));
    }

    async fn what_is_spoilt_is_mended(&self) {
        execute(self.url, "UPDATE billing_accounts SET free_requests_used = 7 WHERE user_id = 'ute'").await;
        let found = self.store.verify(10).await.unwrap();
        let [one] = &found.differences[..] else { panic!("{found:?}") };
        assert_eq!((&*one.column, one.stored, one.computed), ("free_requests_used", Some(7), Some(2)));
        assert_eq!(self.store.drift().await.unwrap(), Drift { free_requests: 5, ..Drift::default() });
        self.store.rebuild(time("2026-05-20")).await.unwrap().commit(&act(None, time("2026-05-20"))).await.unwrap();
        self.shows("ute", "free: 2 free, 0 requests, 0 tokens since 2026-05-20T00:00").await;
    }

    async fn accounts_are_found_by_tenant_and_plan(&self) {
        let found = async |tenant: Option<&str>, plan: Option<&str>| {
            let filter = AccountFilter { tenant: tenant.map(Into::into), plan: plan.map(Into::into) };
            let page = AccountPage { after: Some(id("b")), limit: 100 };
            let found = self.store.accounts(&filter, &page).await.unwrap();
            found.into_iter().map(|row| row.user_id).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(found(Some("acme"), Some("five")).await, "kim tim");
        assert_eq!(found(None, Some("daily")).await, "dan una");
        assert_eq!(found(Some("other"), None).await, "");
    }

    /// And that every account is what its records are.
    async fn shows(&self, user: &str, expected: &str) {
        let row = self.store.account(&id(user)).await.unwrap().unwrap();
        let found = format!(
            "{}: {} free, {} requests, {} tokens since {}",
            row.plan,
            row.free_requests_used,
            row.requests_used_current_period,
            row.tokens_used_current_period,
            &row.period_started_at[..16]
        );
        assert_eq!(found, expected, "{user}");
        let verified = self.store.verify(10).await.unwrap();
        assert!(verified.is_clean(), "{user}: {:?}", verified.differences);
        assert_eq!(self.store.drift().await.unwrap(), Drift::default());
        assert!(self.store.rebuild(time("2026-05-20")).await.unwrap().mended().is_empty());
    }

    /// The last entries, the latest first.
    async fn ledger(&self, user: &str, expected: &[&str]) {
        let most = u32::try_from(expected.len()).unwrap();
        let rows = self.store.account_resets(&id(user), most).await.unwrap();
        let line = |row: &ResetRow| {
            let plan = if row.kind == "plan" { format!("{}>{}", row.plan, row.next_plan) } else { row.plan.clone() };
            let (from, to) = (&row.period_started_at[..16], &row.next_period_started_at[..16]);
            let line = format!("{} {plan} {from} {to} {} {}", row.kind, row.requests_used, row.tokens_used);
            line + &row.reason.as_deref().map(|reason| format!(" {reason}")).unwrap_or_default()
        };
        assert_eq!(rows.iter().map(line).collect::<Vec<_>>(), expected, "{user}");
    }

    async fn marks(&self, trace: u8) -> Vec<String> {
        let mut rows = rows(self.store, trace).await;
        rows.sort_by(|a, b| a.started_at.cmp(&b.started_at));
        let line = |row: &RecordRow| {
            format!("{} {}{}", &row.started_at[11..16], row.plan, if row.free_request { " free" } else { "" })
        };
        rows.iter().map(line).collect()
    }

    async fn set_plan(&self, user: &str, plan: &str, now: &str) {
        let plans = self.store.plans();
        let set = self.store.set_plan(&id(user), plans.get(plan).unwrap(), &act(Some("by test"), time(now))).await;
        assert_eq!(set.unwrap().unwrap().plan, plan);
    }
}

/// What was proposed is written, or replaces what is known.
async fn write(store: &Store, trace: u8, after: &[Request], now: &str) {
    let proposed = [change(trace, Vec::new(), after)];
    let mut work = store.begin(&proposed).await.unwrap();
    let known = work.take_known().into_iter();
    let changes: Vec<Change> = known.map(|known: Known| change(trace, known.requests, after)).collect();
    work.commit(&changes, None, time(now)).await.unwrap();
}

/// Its spans begin when its requests do.
fn change(trace: u8, before: Vec<Request>, after: &[Request]) -> Change {
    let mut spans = Trace::default();
    let starts = before.iter().chain(after).map(|request| request.record.key.started_at);
    for (start, n) in starts.zip(1..) {
        let span = Span {
            id: span_id(n),
            parent: None,
            remote_parent: false,
            kind: Kind::Server,
            start,
            end: start,
            failed: false,
            facts: Facts::default(),
        };
        spans.push(&Arc::new(Origin::default()), span);
    }
    let (trace_id, first_seen) = (trace_id(trace), Timestamp(0));
    let trace = spans.joined(Trace::default());
    Change { trace_id, trace, first_seen, waits: Waits::new(), due: None, before, after: after.to_vec() }
}

/// Two instances write, reset, change plans and end periods of the same few accounts, in any order.
#[tokio::test]
async fn accounts_are_the_fold_of_their_records_whatever_happens_to_them() {
    let folder = tempfile::tempdir().unwrap();
    let server = Postgres::start();
    let seed = rand::rng().random::<u64>();
    for url in [format!("sqlite:{}", folder.path().join("tacho.db").display()), server.database("any")] {
        let [one, two] = ["one", "two"].map(|holder| {
            let url = url.clone();
            async move { Store::open(&url, holder).await.unwrap().with_plans(plans(PLANS)) }
        });
        let (one, two) = (one.await, two.await);
        // One that knows of no plans locks the accounts last, the others first.
        let plain = two.clone().with_plans(Plans::default());
        for round in 0..6 {
            let other = if round % 2 == 0 { &two } else { &plain };
            tokio::join!(anything(&one, seed ^ round, 1), anything(other, seed ^ (round << 8), 2));
            let verified = one.verify(10).await.unwrap();
            assert!(verified.is_clean(), "seed {seed}, {url}, round {round}: {:?}", verified.differences);
            assert!(one.rebuild(time("2026-09-01")).await.unwrap().mended().is_empty());
            for account in all_accounts(&one).await {
                assert!((0..=5).contains(&account.free_requests_used), "{account:?}");
                assert!(
                    account.period_started_at >= account.last_manual_reset_at.clone().unwrap_or_default(),
                    "{account:?}"
                );
            }
        }
        one.close().await;
        two.close().await;
    }
}

async fn anything(store: &Store, seed: u64, who: u8) {
    let mut random = StdRng::seed_from_u64(seed);
    let plans = plans(PLANS);
    for _ in 0..60 {
        let quarter_days = random.random_range(600_u64..900);
        let now = Timestamp(time("2026-01-01").0 + quarter_days * 21_600 * 1_000_000_000);
        let user = ["u1", "u2", "u3"][random.random_range(0..3)];
        match random.random_range(0..20) {
            0 => drop(store.reset(&id(user), &act(None, now)).await.unwrap()),
            1 | 2 => {
                let plan = ["free", "five", "pro", "daily", "ours", "ever"][random.random_range(0..6)];
                store.set_plan(&id(user), plans.get(plan).unwrap(), &act(None, now)).await.unwrap();
            }
            3 => drop(store.end_periods(now).await.unwrap()),
            _ => {
                let trace = 100 * who + random.random_range(0..15);
                let how_many = random.random_range(0..4);
                let requests = (1..=how_many).map(|span| {
                    let user = [None, Some("u1"), Some("u2"), Some("u3")][random.random_range(0..4)];
                    let tokens = [random.random_range(0..100)];
                    let start = time("2026-05-01").0 + u64::from(trace % 100) * 5 * 86_400 * 1_000_000_000;
                    request_of(trace, span, user, &Timestamp(start).to_string(), &tokens)
                });
                write(store, trace, &requests.collect::<Vec<_>>(), &now.to_string()).await;
            }
        }
    }
}
