//! What the registry promises: counters that never fall and lose nothing, a bound on series whoever sends what, and two formats that
//! say the same.

mod exposition;
mod promises;

use std::collections::BTreeMap;
use std::time::Duration;

use expect_test::expect_file;

use super::{Format, Metrics, catalogue, markdown};
use tacho_core::domain::call::{Call, Cost, Key, Tokens, Usage};
use tacho_core::domain::ids::{SpanId, TraceId};
use tacho_core::domain::money::NanoUsd;
use tacho_core::domain::record::{Record, Request, Totals};
use tacho_core::domain::time::Timestamp;

/// 2026-09-21.
const START: Timestamp = Timestamp(1_790_000_000_000_000_000);

fn key(number: u64, span: u64) -> Key {
    Key {
        started_at: START.plus(Duration::from_secs(number)),
        trace_id: TraceId::from_bytes(&u128::from(number + 1).to_be_bytes()).unwrap(),
        span_id: SpanId::from_bytes(&(span + 1).to_be_bytes()).unwrap(),
    }
}

fn call(number: u64, span: u64, model: &str, tokens: Tokens, cost: i64) -> Call {
    Call {
        key: key(number, span),
        provider: Some("openai".into()),
        host: None,
        request_model: Some(model.into()),
        response_model: None,
        model: None,
        operation: Some("chat".into()),
        usage: Usage::Reported(tokens),
        cost: Cost::Charged { cost: NanoUsd(cost), price_version: "test".into(), whole: true },
        reported_cost: None,
        service_tier: None,
        answered_from_cache: false,
        streaming: true,
        duration: Duration::from_millis(700),
        time_to_first_token: Some(Duration::from_millis(90)),
        error_type: None,
        dialect: "test".into(),
    }
}

fn request(number: u64, service: &str, endpoint: &str, user: Option<&str>, calls: Vec<Call>) -> Request {
    let record = Record {
        key: key(number, 0),
        tenant: "default".into(),
        service: Some(service.into()),
        instance: None,
        user: user.map(Into::into),
        agent: None,
        session: None,
        endpoint: Some(endpoint.into()),
        method: Some("POST".into()),
        status: Some(200),
        duration: Duration::from_millis(1_500),
        error: None,
        totals: Totals::of(&calls),
    };
    Request { record, calls }
}

fn tokens(input: u64, output: u64) -> Tokens {
    Tokens { input, output, ..Tokens::default() }
}

/// Every sample of a page, by its series.
fn samples(page: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let line = line.split(" # ").next().unwrap();
        let (series, value) = line.rsplit_once(' ').unwrap();
        (series.to_owned(), value.parse().unwrap())
    };
    lines.map(sample).collect()
}

#[test]
fn the_paper_is_made_from_the_catalogue() {
    expect_file!["../../../docs/metrics.md"].assert_eq(&markdown());
}

/// What is exposed is on the list, as the list has it.
#[test]
fn what_is_registered_is_in_the_catalogue() {
    let metrics = Metrics::default();
    metrics.committed(&[], &[request(1, "bot", "/chat", None, vec![call(1, 1, "m", tokens(1, 1), 1)])]);
    let listed: BTreeMap<&str, &catalogue::Family> =
        catalogue::GROUPS.iter().flat_map(|(_, families)| *families).map(|family| (family.name, *family)).collect();
    let page = metrics.exposition(Format::Text);
    let mut exposed = 0;
    for line in page.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        let (name, help) = line.split_once(' ').unwrap();
        assert_eq!(listed.get(name).map(|family| family.help), Some(help), "{name}");
        exposed += 1;
    }
    assert!(exposed > 20);
    for series in samples(&page).into_keys().filter(|series| series.contains('{')) {
        let (name, labels) = series.split_once('{').unwrap();
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| listed.get(name.strip_suffix(end)?));
        let family = listed.get(name).or(base).unwrap_or_else(|| panic!("{name}"));
        let mut expected = family.label_names();
        expected.sort_unstable();
        let mut found: Vec<&str> =
            labels.split(',').filter_map(|label| label.split_once("=\"")).map(|(name, _)| name).collect();
        found.retain(|name| *name != "le");
        assert_eq!(found, expected, "{series}");
    }
}
