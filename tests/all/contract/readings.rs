//! What is read back: rows as they were written, sums, numbers that only rise.

use tacho::persist::{Group, RecordFilter, Store};
use tacho_core::domain::call::{Call, Cost, Tokens, UnknownUsage, Usage};
use tacho_core::domain::money::NanoUsd;
use tacho_core::domain::record::{Record, Request, Totals};

use super::{known, request, rows, write};

/// Every kind of usage and cost, in a record whose request never came.
pub async fn calls_come_back_as_they_were(store: &Store) {
    let mut unattributed = request(20, None, "2026-05-19T10:00:00Z", &[1, 2, 3, 4, 5]);
    for (call, unknown) in unattributed.calls.iter_mut().zip(UnknownUsage::ALL) {
        (call.usage, call.cost) = (Usage::Unknown(unknown), Cost::Unknown);
    }
    let [_, _, told, unpriced, partly] = &mut unattributed.calls[..] else { unreachable!() };
    // Its cost was told, its usage was not.
    told.cost = Cost::Charged { cost: NanoUsd(40), price_version: "reported".into(), whole: true };
    *unpriced = Call {
        cost: Cost::Unpriced,
        provider: None,
        request_model: None,
        operation: None,
        time_to_first_token: None,
        error_type: Some("RateLimitError".into()),
        ..unpriced.clone()
    };
    let tokens = Tokens {
        input: 15,
        output: 14,
        cached_input: 3,
        cache_write: 8,
        cache_write_1h: 7,
        audio_input: 6,
        cached_audio: 2,
        reasoning: 1,
        audio_output: 2,
    };
    (partly.usage, partly.service_tier) = (Usage::Reported(tokens), Some("flex".into()));
    (partly.host, partly.answered_from_cache) = (Some("llm.example".into()), true);
    partly.cost = Cost::Charged { cost: NanoUsd(5), price_version: "v2".into(), whole: false };
    unattributed.record = Record {
        agent: Some("support".into()),
        session: Some("visit".into()),
        endpoint: None,
        method: None,
        status: None,
        error: Some("_OTHER".into()),
        totals: Totals::of(&unattributed.calls),
        ..unattributed.record
    };
    write(store, 20, vec![unattributed.clone()]).await;
    assert_eq!(known(store, 20).await, [unattributed]);
    let row = &rows(store, 20).await[0];
    assert_eq!((row.unknown_usage_calls, row.unpriced_calls, row.llm_errors, row.llm_calls), (3, 2, 1, 5));
    assert_eq!((row.total_tokens, row.cost_nanousd, row.endpoint.as_deref()), (4 + 29, Some(45), None));
    assert_eq!((row.agent_id.as_deref(), row.session_id.as_deref()), (Some("support"), Some("visit")));
}

/// Two users, two endpoints, two models; a call of unknown usage and one without a price.
pub async fn summaries_are_sums_of_what_they_name(store: &Store) {
    let of = |trace, user, endpoint: &str, model: &str, tokens: &[u64]| {
        let mut request = request(trace, Some(user), "2026-03-31T23:00:00Z", tokens);
        request.record.tenant = "sums".into();
        request.record.endpoint = Some(endpoint.into());
        for call in &mut request.calls {
            (call.response_model, call.model) = (Some(model.into()), Some(model.into()));
        }
        request.record.totals = Totals::of(&request.calls);
        request
    };
    let mut odd = of(23, "kay", "/b", "m2", &[100, 200]);
    (odd.calls[0].usage, odd.calls[0].cost) = (Usage::Unknown(UnknownUsage::Stream), Cost::Unknown);
    odd.calls[1].cost = Cost::Unpriced;
    odd.record.totals = Totals::of(&odd.calls);
    write(store, 21, vec![of(21, "kay", "/a", "m1", &[10, 20])]).await;
    write(store, 22, vec![of(22, "lou", "/a", "m2", &[5])]).await;
    write(store, 23, vec![odd]).await;

    let sums = |group, narrowed: RecordFilter| async move {
        let filter = RecordFilter { tenant: Some("sums".into()), ..narrowed };
        let rows = store.summary(group, &filter).await.unwrap().into_iter().map(|row| {
            let cost = row.cost_nanousd.map_or("?".into(), |cost| cost.to_string());
            let (unknown, unpriced) = (row.unknown_usage_calls, row.unpriced_calls);
            format!("{} {}/{} {} {cost} {unknown} {unpriced}", row.group, row.requests, row.llm_calls, row.total_tokens)
        });
        rows.collect::<Vec<_>>().join("; ")
    };
    let all = RecordFilter::default;
    assert_eq!(sums(Group::User, all()).await, "kay 2/4 230 30 1 1; lou 1/1 5 5 0 0");
    assert_eq!(sums(Group::Endpoint, all()).await, "/a 2/3 35 35 0 0; /b 1/2 200 ? 1 1");
    assert_eq!(sums(Group::Model, all()).await, "m1 1/2 30 30 0 0; m2 2/3 205 5 1 1");
    assert_eq!(sums(Group::Day, all()).await, "2026-03-31 3/5 235 35 1 1");
    let kay = || RecordFilter { user: Some("kay".into()), ..all() };
    assert_eq!(sums(Group::Model, kay()).await, "m1 1/2 30 30 0 0; m2 1/2 200 ? 1 1");
    assert_eq!(sums(Group::Model, RecordFilter { endpoint: Some("/a".into()), ..kay() }).await, "m1 1/2 30 30 0 0");
    assert_eq!(
        sums(Group::Endpoint, RecordFilter { model: Some("m2".into()), ..all() }).await,
        "/a 1/1 5 5 0 0; /b 1/2 200 ? 1 1"
    );
}

/// Exporters go by it: a row must not come again under a number they have passed, whatever was deleted or restarted.
pub async fn a_number_of_a_change_is_never_given_again(store: &Store, url: &str) {
    let request = |n| vec![request(24, Some("num"), "2026-05-19T10:00:00Z", &[n])];
    write(store, 24, request(1)).await;
    let first = rows(store, 24).await[0].change_seq;
    write(store, 24, Vec::<Request>::new()).await;
    let again = Store::open(url, "three").await.unwrap();
    write(&again, 24, request(2)).await;
    assert!(rows(store, 24).await[0].change_seq > first);
    again.close().await;
}
