//! What calls cost: by the price book, else as it was told. What was charged stays charged. It writes nothing.

use rustc_hash::FxHashMap;

use tacho_core::domain::call::{Call, Cost, Key, Tokens, Usage};
use tacho_core::domain::money::NanoUsd;
use tacho_core::domain::record::{Request, Totals};
use tacho_core::price::{PriceBook, Priced};

/// The price versions of charges that are not by a price list: nothing was used; a response cache answered; the span told
/// the cost.
const NONE: &str = "none";
const CACHED: &str = "cached";
const REPORTED: &str = "reported";

/// The requests of a trace with their costs. `before` is what is stored of it.
pub(super) fn priced(book: &PriceBook, mut requests: Vec<Request>, before: &[Request]) -> Vec<Request> {
    let stored: FxHashMap<Key, &Call> =
        before.iter().flat_map(|request| &request.calls).map(|call| (call.key, call)).collect();
    for request in &mut requests {
        for call in &mut request.calls {
            if let Some(provider) = provider_by_host(book, call) {
                call.provider = Some(provider);
            }
            let charged = stored.get(&call.key).filter(|stored| stays_charged(stored, call));
            call.model = match charged {
                Some(stored) => stored.model.clone(),
                None => listed_model(book, call).or_else(|| call.told_model().map(Into::into)),
            };
            call.cost = charged.map_or_else(|| cost(book, call).plausible(), |stored| stored.cost.clone());
            call.reported_cost = None;
        }
        request.record.totals = Totals::of(&request.calls);
    }
    requests
}

/// Late and repeated spans, and other prices, change nothing of what was charged; only another use does.
fn stays_charged(stored: &Call, call: &Call) -> bool {
    stored.cost.charged().is_some()
        && stored.usage == call.usage
        && stored.answered_from_cache == call.answered_from_cache
        && is_kept_as(&stored.provider, &call.provider)
        && is_kept_as(&stored.host, &call.host)
        && is_kept_as(&stored.request_model, &call.request_model)
        && is_kept_as(&stored.response_model, &call.response_model)
        && is_kept_as(&stored.service_tier, &call.service_tier)
}

/// Databases keep no NUL.
fn is_kept_as(stored: &Option<Box<str>>, text: &Option<Box<str>>) -> bool {
    stored == text || text.as_ref().map(|text| text.replace('\0', "")).as_deref() == stored.as_deref()
}

/// An SDK of one provider speaks to many: where the host is known and is another's, it is that one that was called.
fn provider_by_host(book: &PriceBook, call: &Call) -> Option<Box<str>> {
    let provider = book.provider_at(call.host.as_deref()?)?;
    let named = call.provider.as_deref().is_some_and(|name| book.is_named(provider, name));
    (!named).then(|| provider.into())
}

/// What the price list calls the model: of a failed call, which names only what was asked for, the same as of others.
fn listed_model(book: &PriceBook, call: &Call) -> Option<Box<str>> {
    book.find(&Priced::of(call)).ok().map(|found| found.model.into())
}

fn cost(book: &PriceBook, call: &Call) -> Cost {
    let charged = |cost, version: &str| Cost::Charged { cost, price_version: version.into(), whole: true };
    let told = call.reported_cost.filter(|cost| *cost <= Cost::MOST).map(|cost| charged(cost, REPORTED));
    if call.answered_from_cache {
        return charged(NanoUsd(0), CACHED);
    }
    let Usage::Reported(tokens) = call.usage else { return told.unwrap_or(Cost::Unknown) };
    match book.price(&Priced::of(call)) {
        Ok(charge) => Cost::Charged { cost: charge.cost, price_version: charge.price_version, whole: charge.whole },
        // A failed call that used nothing costs nothing, whatever its model.
        Err(_) if call.failed() && tokens == Tokens::default() => charged(NanoUsd(0), NONE),
        Err(unpriced) => told.unwrap_or_else(|| {
            tracing::debug!(reason = unpriced.label(), "call without a price");
            Cost::Unpriced
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use tacho_core::domain::call::UnknownUsage;
    use tacho_core::domain::ids::{SpanId, TraceId};
    use tacho_core::domain::record::Record;
    use tacho_core::domain::time::Timestamp;

    fn book(input: u64) -> PriceBook {
        let own = format!(
            r#"{{"providers":[{{"id":"house","models":[{{"id":"m","prices":[{{"input":{input}}}]}},{{"id":"free","prices":[]}}]}}]}}"#
        );
        PriceBook::shipped().with_override(&own, "own.json").unwrap()
    }

    fn call() -> Call {
        let [trace_id, span_id] = [[1; 16].as_slice(), [2; 8].as_slice()];
        Call {
            key: Key {
                started_at: Timestamp(1_793_620_800_000_000_000),
                trace_id: TraceId::from_bytes(trace_id).unwrap(),
                span_id: SpanId::from_bytes(span_id).unwrap(),
            },
            provider: Some("house".into()),
            host: None,
            request_model: Some("m".into()),
            response_model: None,
            model: None,
            operation: None,
            usage: Usage::Reported(Tokens { input: 1_000_000, ..Tokens::default() }),
            cost: Cost::Unknown,
            reported_cost: None,
            service_tier: None,
            answered_from_cache: false,
            streaming: false,
            duration: Duration::ZERO,
            time_to_first_token: None,
            error_type: None,
            dialect: "test".into(),
        }
    }

    fn request(call: Call) -> Request {
        let record = Record {
            key: call.key,
            tenant: "default".into(),
            service: None,
            instance: None,
            user: None,
            agent: None,
            session: None,
            endpoint: None,
            method: None,
            status: None,
            duration: Duration::ZERO,
            error: None,
            totals: Totals::default(),
        };
        Request { record, calls: vec![call] }
    }

    /// Priced by a book with this price where so much was stored of it before.
    fn again(input: u64, call: Call, before: &[Request]) -> Request {
        priced(&book(input), vec![request(call)], before).remove(0)
    }

    /// `cost version`, and whether it counts as without price.
    fn shown(request: &Request) -> String {
        let call = &request.calls[0];
        assert_eq!(request.record.totals, Totals::of(&request.calls));
        assert_eq!(call.reported_cost, None);
        let lacks = if call.lacks_price() { ", lacks a price" } else { "" };
        match &call.cost {
            Cost::Charged { cost, price_version, .. } => {
                format!("{} {}{lacks}", cost.0, price_version.split('+').next().unwrap())
            }
            cost => format!("{cost:?}{lacks}"),
        }
    }

    #[test]
    fn what_was_charged_stays_charged() {
        let first = again(5, call(), &[]);
        assert_eq!(shown(&first), "5 override:own.json");
        let stored = [first.clone()];
        assert_eq!(again(9, call(), &stored), first);
        // What does not decide the price may change.
        let late = Call { duration: Duration::from_secs(1), error_type: Some("x".into()), ..call() };
        assert_eq!(shown(&again(9, late, &stored)), "5 override:own.json");
        // As it is kept: without the NUL that no database takes.
        let mut kept = stored[0].clone();
        kept.calls[0].service_tier = Some("ab".into());
        let nul = Call { service_tier: Some("a\0b".into()), ..call() };
        assert_eq!(shown(&again(9, nul, &[kept])), "5 override:own.json");
        // The key of its record, too.
        let mut moved = stored[0].clone();
        moved.record.key.span_id = SpanId::from_bytes(&[9; 8]).unwrap();
        assert_eq!(shown(&again(9, call(), &[moved])), "5 override:own.json");
    }

    #[test]
    fn another_use_is_priced_anew() {
        let stored = [again(5, call(), &[])];
        let more = Usage::Reported(Tokens { input: 2_000_000, ..Tokens::default() });
        let kept = Usage::Reported(Tokens { input: 1_000_000, cache_write_1h: 1, ..Tokens::default() });
        let check = |changed: Call, expected: &str| assert_eq!(shown(&again(9, changed, &stored)), expected);
        check(Call { usage: more, ..call() }, "18 override:own.json");
        check(Call { usage: kept, ..call() }, "9 override:own.json, lacks a price");
        check(Call { response_model: Some("m".into()), ..call() }, "9 override:own.json");
        check(
            Call { request_model: Some("x".into()), response_model: Some("m".into()), ..call() },
            "9 override:own.json",
        );
        check(Call { provider: Some("House".into()), ..call() }, "9 override:own.json");
        check(Call { host: Some("llm.example".into()), ..call() }, "9 override:own.json");
        check(Call { service_tier: Some("flex".into()), ..call() }, "9 override:own.json");
        check(Call { answered_from_cache: true, ..call() }, "0 cached");
        let mut other = call();
        other.key.span_id = SpanId::from_bytes(&[3; 8]).unwrap();
        check(other, "9 override:own.json");
    }

    #[test]
    fn what_was_not_charged_is_priced_as_soon_as_there_is_a_price() {
        let unpriced = priced(&PriceBook::shipped(), vec![request(call())], &[]);
        assert_eq!(shown(&unpriced[0]), "Unpriced, lacks a price");
        assert_eq!(shown(&again(9, call(), &unpriced)), "9 override:own.json");
        let unknown = Call { usage: Usage::Unknown(UnknownUsage::Missing), ..call() };
        let stored = [again(5, unknown.clone(), &[])];
        assert_eq!(shown(&stored[0]), "Unknown");
        let told = Call { reported_cost: Some(NanoUsd(40)), ..unknown };
        assert_eq!(shown(&again(9, told.clone(), &stored)), "40 reported");
        let stored = [again(9, told.clone(), &stored)];
        assert_eq!(shown(&again(9, Call { reported_cost: None, ..told }, &stored)), "40 reported");
    }

    #[test]
    fn a_cost_that_was_told_stands_in_for_a_price_and_for_an_unknown_usage() {
        let told = Call { reported_cost: Some(NanoUsd(40)), ..call() };
        let check = |call: Call, expected: &str| assert_eq!(shown(&again(5, call, &[])), expected);
        check(told.clone(), "5 override:own.json");
        check(Call { request_model: Some("x".into()), ..told.clone() }, "40 reported");
        check(Call { request_model: Some("free".into()), ..told.clone() }, "40 reported");
        let unknown = Call { usage: Usage::Unknown(UnknownUsage::Missing), ..told.clone() };
        check(unknown.clone(), "40 reported");
        check(Call { reported_cost: Some(NanoUsd(i64::MAX)), ..unknown }, "Unknown");
        let stranger = Call {
            provider: Some("openai".into()),
            host: Some("llm.example".into()),
            request_model: Some("gpt-4o".into()),
            ..told
        };
        check(stranger.clone(), "40 reported");
        check(Call { reported_cost: None, ..stranger }, "Unpriced, lacks a price");
    }

    #[test]
    fn an_answer_of_a_response_cache_costs_nothing() {
        let cached = Call { answered_from_cache: true, reported_cost: Some(NanoUsd(40)), ..call() };
        let check = |call: Call| assert_eq!(shown(&again(5, call, &[])), "0 cached");
        check(cached.clone());
        check(Call { request_model: Some("x".into()), ..cached.clone() });
        check(Call { request_model: None, usage: Usage::Unknown(UnknownUsage::Missing), ..cached.clone() });
        assert_eq!(again(5, cached, &[]).record.totals.tokens.input, 1_000_000);
    }

    #[test]
    fn a_failed_call_that_used_nothing_costs_nothing() {
        let failed = Call { usage: Usage::Reported(Tokens::default()), error_type: Some("x".into()), ..call() };
        let failed = Call { request_model: None, reported_cost: Some(NanoUsd(40)), ..failed };
        assert_eq!(shown(&again(5, failed, &[])), "0 none");
    }
}
