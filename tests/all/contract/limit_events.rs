//! Events of limits: what is added once stays and is not added again, whoever brings it and in whatever company.

use tacho::persist::{LimitEventRow, Store};
use tacho_core::domain::limit_event::{LimitEvent, LimitEventKind};
use tacho_core::domain::period::Period;

use super::{NOW, time};

const REFUSAL: LimitEventKind = LimitEventKind::Refusal { reason: "over_limit" };

fn threshold(per_mille: u16) -> LimitEventKind {
    LimitEventKind::Threshold { per_mille }
}

/// Of a month and a limit of 100 requests, in a name of the case's own.
fn event(limit: &str, user: &str, kind: LimitEventKind) -> LimitEvent {
    LimitEvent {
        kind,
        limit: limit.into(),
        decision: "deny",
        tenant: None,
        user: Some(user.into()),
        subject: format!("{{\"user\":\"{user}\"}}"),
        meter: "requests",
        used: 100,
        max: 100,
        period: Period { start: time("2026-05-01"), end: Some(time("2026-06-01")) },
    }
}

/// All events of the limit, read in pages that are not a divisor of their number.
async fn rows(store: &Store, limit: &str) -> Vec<LimitEventRow> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = store.limit_events(after.as_ref(), None, 700).await.unwrap();
        all.extend(page.rows);
        if page.is_last {
            break;
        }
        after = Some(page.next);
    }
    assert!(all.is_sorted_by_key(|row| row.change_seq));
    all.retain(|row| row.limit_name == limit);
    all
}

async fn add(store: &Store, events: &[LimitEvent]) -> usize {
    store.add_limit_events(events, time(NOW)).await.unwrap()
}

pub async fn each_is_added_once(store: &Store) {
    let refused = event("once", "ann", REFUSAL);
    assert_eq!(add(store, &[]).await, 0);
    assert_eq!(add(store, std::slice::from_ref(&refused)).await, 1);
    // Neither another reason nor other amounts make it another event; nor does its company keep others out.
    let again = LimitEvent { kind: LimitEventKind::Refusal { reason: "too_large" }, used: 7, ..refused.clone() };
    let next_month = Period { start: time("2026-06-01"), end: Some(time("2026-07-01")) };
    let others = [
        event("once", "ann", threshold(800)),
        again,
        event("once", "ann", threshold(1_000)),
        event("once", "ann", threshold(800)),
        event("once", "bob", REFUSAL),
        LimitEvent { period: next_month, ..refused.clone() },
    ];
    assert_eq!(add(store, &others).await, 4);
    assert_eq!(add(store, &others).await, 0);
    let found = rows(store, "once").await;
    let mut told: Vec<String> = found
        .iter()
        .map(|row| format!("{} {:?} {} {}", row.subject, row.threshold, row.used, &row.period_started_at[..7]))
        .collect();
    told.sort();
    assert_eq!(
        told,
        [
            r#"{"user":"ann"} None 100 2026-05"#,
            r#"{"user":"ann"} None 100 2026-06"#,
            r#"{"user":"ann"} Some(0.8) 100 2026-05"#,
            r#"{"user":"ann"} Some(1.0) 100 2026-05"#,
            r#"{"user":"bob"} None 100 2026-05"#,
        ]
    );
}

pub async fn an_event_is_read_back_as_it_was(store: &Store) {
    let refused = LimitEvent { tenant: Some("acme".into()), ..event("back", "ann", REFUSAL) };
    let of_cost = LimitEvent {
        decision: "warn",
        user: None,
        subject: "{}".to_owned(),
        meter: "cost",
        used: 12_500_000_001,
        max: 12_500_000_000,
        period: Period { start: time("1970-01-01"), end: None },
        ..event("back", "", threshold(1_000))
    };
    let of_tokens = LimitEvent {
        decision: "shadow",
        meter: "output_tokens",
        used: i64::MAX,
        max: 1,
        ..event("back", "nul\0", threshold(1))
    };
    assert_eq!(add(store, &[of_cost, of_tokens, refused]).await, 3);
    let mut found = rows(store, "back").await;
    found.sort_by(|a, b| (&a.subject, &a.kind).cmp(&(&b.subject, &b.kind)));
    let told: Vec<String> = found
        .iter()
        .map(|row| {
            let LimitEventRow { kind, decision, reason, tenant, user_id, subject, meter, used, max, .. } = row;
            let (threshold, start, end) = (row.threshold, &row.period_started_at[..10], &row.period_ends_at);
            format!(
                "{kind} {decision} {reason:?} {tenant:?} {user_id:?} {subject} {used}/{max} {meter} at {threshold:?} \
                 from {start} to {:?} on {}",
                end.as_deref().map(|end| &end[..10]),
                row.created_at
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            r#"refusal deny Some("over_limit") Some("acme") Some("ann") {"user":"ann"} 100/100 requests at None from 2026-05-01 to Some("2026-06-01") on 2026-05-20T12:00:00.000000Z"#,
            r#"threshold shadow None None Some("nul") {"user":"nul"} 9223372036854775807/1 output_tokens at Some(0.001) from 2026-05-01 to Some("2026-06-01") on 2026-05-20T12:00:00.000000Z"#,
            r#"threshold warn None None None {} 12500000001/12500000000 cost at Some(1.0) from 1970-01-01 to None on 2026-05-20T12:00:00.000000Z"#,
        ]
    );
}

/// More than one statement of SQLite takes, brought by two instances in opposite orders, again and again.
pub async fn two_instances_write_many_once(store: &Store, url: &str) {
    let other = Store::open(url, "two").await.unwrap();
    for round in 0..5 {
        let limit = format!("many-{round}");
        let users: Vec<String> = (0..1_000).map(|n| format!("user-{n}")).collect();
        let events: Vec<LimitEvent> = users.iter().map(|user| event(&limit, user, REFUSAL)).collect();
        let backwards: Vec<LimitEvent> = events.iter().rev().cloned().collect();
        let (one, two) = tokio::join!(add(store, &events), add(&other, &backwards));
        assert_eq!(one + two, events.len(), "{one} {two}");
        assert_eq!(rows(store, &limit).await.len(), events.len());
    }
    other.close().await;
}

/// All or none: the caller can find the one that is at fault.
pub async fn nothing_is_added_of_what_is_refused(store: &Store) {
    let unfit = LimitEvent { decision: "never", ..event("unfit", "eve", REFUSAL) };
    let error = store.add_limit_events(&[event("unfit", "ann", REFUSAL), unfit], time(NOW)).await.unwrap_err();
    assert!(!error.passes(), "{error:?}");
    assert_eq!(rows(store, "unfit").await, []);
    assert_eq!(add(store, &[event("unfit", "ann", REFUSAL)]).await, 1);
}
