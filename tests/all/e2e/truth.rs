//! Every capture, body by body, into the real binary: the rows are what the spans show, on both databases, in any order and with
//! any repetition; and nothing of the content is found anywhere.

use std::collections::BTreeSet;
use std::path::Path;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde_json::Value;
use tacho::persist::{Change, Page, RecordFilter, Store};
use tacho_core::domain::ids::TraceId;
use tacho_core::domain::record::Request;
use tacho_core::domain::time::Timestamp;

use crate::support::captures::{self, Body, Capture, Transport};
use crate::support::client::{JSON, PROTOBUF, call, post};
use crate::support::postgres::Postgres;
use crate::support::prometheus::lint;
use crate::support::tacho_process::Tacho;

/// Comes again while it is told to, as every SDK does.
async fn send(tacho: &Tacho, body: &Body) {
    loop {
        let answer = match body.transport {
            Transport::Grpc => call(&body.bytes).send(tacho.grpc).await,
            Transport::Protobuf => post(PROTOBUF, body.bytes.clone()).send(tacho.otlp_http).await.line(),
            Transport::Json => post(JSON, body.bytes.clone()).send(tacho.otlp_http).await.line(),
        };
        if answer.starts_with("200") || answer.starts_with("Ok") {
            return;
        }
        assert!(answer.starts_with("503") || answer.starts_with("Unavailable"), "{answer}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// Starts, sends, stops; then all rows as the store tells them.
async fn rows_after(folder: &Path, url: &str, bodies: &[Body]) -> Vec<Request> {
    let tacho = Tacho::start(folder, url, &[("TACHO_ASSEMBLE__IGNORE", "[]"), ("TACHO_ASSEMBLE__QUIET", "300ms")]);
    for body in bodies {
        send(&tacho, body).await;
    }
    // What is asked while it runs may show no content either; the quiet traces are written by then.
    tokio::time::sleep(std::time::Duration::from_millis(800)).await;
    let mut shown = tacho.log();
    for path in ["/metrics", "/v1/usage?limit=1000", "/v1/usage/summary?by=model", "/v1/usage?format=csv&limit=1000"] {
        let answer = post(JSON, "").method("GET").path(path).token(&tacho.admin_token()).send(tacho.http).await;
        shown += &answer.text();
    }
    let metrics = post(JSON, "").method("GET").path("/metrics").send(tacho.http).await.text();
    check_metrics(&metrics);
    tacho.stop();
    let rows = rows_of(url).await;
    assert_no_content(&shown, "the log, the metrics or an answer");
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                assert_no_content(
                    &String::from_utf8_lossy(&std::fs::read(&path).unwrap()),
                    &path.display().to_string(),
                );
            }
        }
    }
    rows
}

/// The page is well made, and the counters have moved.
fn check_metrics(text: &str) {
    lint(text);
    assert!(text.contains("tacho_tokens_total{model="), "{text}");
}

/// All records with their calls, by key.
pub async fn rows_of(url: &str) -> Vec<Request> {
    let store = Store::open(url, "test").await.unwrap();
    let mut ids = BTreeSet::new();
    let mut after = None;
    loop {
        let page = store.records(&RecordFilter::default(), Page { after, limit: 1000 }).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        ids.extend(page.iter().map(|row| TraceId::parse(&row.trace_id).unwrap()));
    }
    let nothing: Vec<Change> = ids.into_iter().map(|id| Change::nothing(id, Timestamp(0))).collect();
    let mut work = store.begin(&nothing).await.unwrap();
    let mut requests: Vec<Request> = work.take_known().into_iter().flat_map(|known| known.requests).collect();
    requests.sort_unstable_by_key(|request| request.record.key);
    drop(work);
    store.close().await;
    requests
}

/// Texts that were planted in prompts, answers, headers and queries of the captures.
fn assert_no_content(text: &str, place: &str) {
    for planted in ["SECRETQ", "4111-", "charged twice", "token="] {
        assert!(!text.contains(planted), "`{planted}` is in {place}");
    }
}

fn faults(capture: &Capture, requests: &[Request]) -> Vec<String> {
    let mut faults = Vec::new();
    for expectation in capture.expected["requests"].as_array().unwrap() {
        let observable = &expectation["observable"];
        let Some(span_id) = observable["server_span_id"].as_str() else { continue };
        let found: Vec<_> =
            requests.iter().filter(|request| request.record.key.span_id.to_string() == span_id).collect();
        let [request] = found[..] else {
            faults.push(format!("{} {}: {} records", capture.name, expectation["req_id"], found.len()));
            continue;
        };
        let (expected, shown) = (expected(observable), shown(request, observable["route"].is_string()));
        if expected != shown {
            faults.push(format!("{} {}: expected {expected}, shown {shown}", capture.name, expectation["req_id"]));
        }
    }
    faults
}

fn expected(observable: &Value) -> String {
    let number = |name: &str| observable[name].as_u64().unwrap_or(0);
    let tokens = ["input", "output", "cached", "cache_write", "reasoning"].map(number);
    format!("{} {} {} {tokens:?}", observable["status"], observable["route"], observable["user_id"])
}

fn shown(request: &Request, with_route: bool) -> String {
    let (record, tokens) = (&request.record, &request.record.totals.tokens);
    let text = |text: Option<&str>| serde_json::json!(text).to_string();
    let route = text(record.endpoint.as_deref().filter(|_| with_route));
    let status = record.status.map_or_else(|| "null".to_owned(), |status| status.to_string());
    let tokens = [tokens.input, tokens.output, tokens.cached_input, tokens.cache_write, tokens.reasoning];
    format!("{status} {route} {} {tokens:?}", text(record.user.as_deref()))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rows_are_what_the_spans_show_in_any_order_on_both_databases() {
    let captures = captures::all();
    let plain: Vec<Body> = captures.iter().flat_map(|capture| capture.bodies.clone()).collect();
    let backwards: Vec<Body> = plain.iter().rev().cloned().collect();
    let twice: Vec<Body> = plain.iter().flat_map(|body| [body.clone(), body.clone()]).collect();
    let mut singles: Vec<Body> = plain.iter().flat_map(Body::singles).collect();
    singles.shuffle(&mut StdRng::seed_from_u64(7));

    let postgres = Postgres::start();
    let mut first: Option<Vec<Request>> = None;
    for (name, bodies) in [("plain", &plain), ("backwards", &backwards), ("twice", &twice), ("singles", &singles)] {
        for embedded in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let sqlite = format!("sqlite:{}", folder.path().join("tacho.db").display());
            let url = if embedded { sqlite } else { postgres.database(name) };
            let rows = rows_after(folder.path(), &url, bodies).await;
            let faults: Vec<String> = captures.iter().flat_map(|capture| faults(capture, &rows)).collect();
            assert!(faults.is_empty(), "{name}, embedded {embedded}:\n{}", faults.join("\n"));
            match &first {
                Some(first) => assert!(*first == rows, "{name}, embedded {embedded}: other rows than the first run"),
                None => first = Some(rows),
            }
        }
    }
}
