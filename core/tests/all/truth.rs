//! Captured bodies of real instrumentations in, requests out, compared with what a correct meter must show. The same in any order
//! of arrival and with any repetition.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use expect_test::expect;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde_json::Value;
use tacho_core::assemble::{AssembleConfig, Look, Resolver};
use tacho_core::decode::{OwnKeys, Rules, read_json, read_protobuf};
use tacho_core::domain::ids::TraceId;
use tacho_core::domain::record::Request;
use tacho_core::domain::span::Received;
use tacho_core::domain::time::Timestamp;
use tacho_core::domain::trace::{Trace, Waits};
use tacho_core::price::{PriceBook, Priced};

/// Each capture by its name, with what is expected of it and what its spans come to.
fn resolved() -> impl Iterator<Item = (String, Value, Vec<Request>)> {
    captures().into_iter().map(|capture| {
        let truth = serde_json::from_slice(&std::fs::read(capture.join("expected.json")).unwrap()).unwrap();
        (capture.file_name().unwrap().to_string_lossy().into_owned(), truth, resolve(bodies(&capture)))
    })
}

/// The request of which this is expected.
fn found<'r>(requests: &'r [Request], expectation: &Value) -> Option<&'r Request> {
    let span_id = expectation["observable"]["server_span_id"].as_str();
    requests.iter().find(|request| Some(&*request.record.key.span_id.to_string()) == span_id)
}

pub(crate) fn captures() -> Vec<PathBuf> {
    let mut captures: Vec<_> =
        std::fs::read_dir(crate::golden_captures()).unwrap().map(|entry| entry.unwrap().path()).collect();
    captures.sort();
    assert!(captures.len() >= 14, "the captures are not here");
    captures
}

/// The spans of each body, in the order of arrival.
pub(crate) fn bodies(capture: &Path) -> Vec<Vec<Received>> {
    let rules = Rules::new(OwnKeys::default(), false);
    let index = std::fs::read_to_string(capture.join("index.jsonl")).unwrap();
    let lines = index.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let traces = lines.filter(|line| line["path"].as_str().unwrap().contains("race"));
    let read = |line: Value| {
        let file = line["file"].as_str().unwrap().to_owned();
        let body = std::fs::read(capture.join(&file)).unwrap();
        let batch =
            if file.ends_with(".json") { read_json(&body, &rules) } else { read_protobuf(&body, &rules) }.unwrap();
        assert_eq!(batch.rejected.count, 0, "{file}");
        batch.extract.spans()
    };
    traces.map(read).collect()
}

/// What comes of the spans when they arrive in these deliveries and each delivery is joined to what is known.
pub(crate) fn resolve(deliveries: impl IntoIterator<Item = Vec<Received>>) -> Vec<Request> {
    let mut traces: BTreeMap<TraceId, Trace> = BTreeMap::new();
    for delivery in deliveries {
        let mut news: BTreeMap<TraceId, Trace> = BTreeMap::new();
        for received in delivery {
            news.entry(received.trace_id).or_default().push(&received.origin, received.span);
        }
        for (trace_id, trace) in news {
            let known = traces.remove(&trace_id).unwrap_or_default();
            traces.insert(trace_id, trace.joined(known));
        }
    }
    let resolver = Resolver::new(&AssembleConfig { ignore: vec![], ..AssembleConfig::default() });
    // Nothing is waited for any longer.
    let (start, waits) = (Timestamp(0), Waits::new());
    let look = Look { stored: &[], waits: &waits, first_seen: start, came: start, now: Timestamp::LATEST };
    traces.into_iter().flat_map(|(trace_id, trace)| resolver.resolve(trace_id, &trace, look).requests).collect()
}

/// What is compared of a request.
#[derive(Debug, PartialEq)]
struct Shown {
    status: Option<u64>,
    route: Option<String>,
    user: Option<String>,
    /// input, output, cached, cache write, reasoning
    tokens: [u64; 5],
}

fn expected(observable: &Value) -> Shown {
    let number = |name: &str| observable[name].as_u64().unwrap_or(0);
    Shown {
        status: observable["status"].as_u64(),
        route: observable["route"].as_str().map(str::to_owned),
        user: observable["user_id"].as_str().map(str::to_owned),
        tokens: ["input", "output", "cached", "cache_write", "reasoning"].map(number),
    }
}

fn shown(request: &Request, with_route: bool) -> Shown {
    let tokens = &request.record.totals.tokens;
    Shown {
        status: request.record.status.map(u64::from),
        route: request.record.endpoint.as_deref().filter(|_| with_route).map(str::to_owned),
        user: request.record.user.as_deref().map(str::to_owned),
        tokens: [tokens.input, tokens.output, tokens.cached_input, tokens.cache_write, tokens.reasoning],
    }
}

#[test]
fn every_request_of_every_capture_is_what_its_spans_show() {
    let mut faults = Vec::new();
    for (name, truth, requests) in resolved() {
        let mut http = requests.iter().filter(|request| request.record.status.is_some()).count();
        for expectation in truth["requests"].as_array().unwrap() {
            let observable = &expectation["observable"];
            let Some(span_id) = observable["server_span_id"].as_str() else { continue };
            let case = format!("{name} {} {}", expectation["req_id"], expectation["scenario"]);
            let found: Vec<_> =
                requests.iter().filter(|request| request.record.key.span_id.to_string() == span_id).collect();
            let [request] = found[..] else {
                faults.push(format!("{case}: {} records", found.len()));
                continue;
            };
            http -= 1;
            let expected = expected(observable);
            let shown = shown(request, expected.route.is_some());
            if shown != expected {
                faults.push(format!("{case}:\n  expected {expected:?}\n  shown    {shown:?}"));
            }
            let unknown = request.record.totals.unknown_usage_calls;
            // Some clients ask for the usage chunk by themselves: then the counts are there, and nothing is unknown.
            let nothing_reported = observable["calls_with_tokens"] == 0;
            if expectation["scenario"] == "stream_nousage" && nothing_reported && unknown != 1 {
                faults.push(format!("{case}: unknown_usage_calls {unknown}"));
            }
        }
        if http != 0 {
            faults.push(format!("{name}: {http} records of HTTP requests that nobody made"));
        }
        faults.extend(outside(&name, &truth, &requests));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What is known is never called unknown, and what is unknown is never free: all requests with calls of unknown usage or in error, and
/// those with another number of calls than have tokens.
#[test]
fn what_is_unknown_is_said() {
    let mut text = String::new();
    for (name, truth, requests) in resolved() {
        writeln!(text, "{name}").unwrap();
        for expectation in truth["requests"].as_array().unwrap() {
            let Some(request) = found(&requests, expectation) else { continue };
            let (totals, told) =
                (&request.record.totals, expectation["observable"]["calls_with_tokens"].as_u64().unwrap());
            if totals.unknown_usage_calls + totals.failed_calls > 0 || totals.calls != told {
                let (calls, unknown, failed) = (totals.calls, totals.unknown_usage_calls, totals.failed_calls);
                let scenario = expectation["scenario"].as_str().unwrap();
                writeln!(text, "  {scenario}: {calls} calls, {told} told, {unknown} unknown, {failed} failed").unwrap();
            }
        }
    }
    expect![[r#"
        bedrock-botocore-django
          llm500: 1 calls, 0 told, 0 unknown, 1 failed
        js-langchain-openinference-plus-openai-koa
          stream_nousage: 1 calls, 0 told, 1 unknown, 0 failed
          embeddings: 1 calls, 0 told, 1 unknown, 0 failed
          llm429: 1 calls, 0 told, 0 unknown, 1 failed
        langfuse-openai-starlette
          stream_nousage: 1 calls, 0 told, 1 unknown, 0 failed
          llm429: 1 calls, 0 told, 0 unknown, 1 failed
        litellm-otel-default-grpc
          simple: 1 calls, 0 told, 1 unknown, 0 failed
          cached: 1 calls, 0 told, 1 unknown, 0 failed
          two_providers: 2 calls, 1 told, 1 unknown, 0 failed
          stream_usage: 1 calls, 0 told, 1 unknown, 0 failed
          retry: 1 calls, 0 told, 1 unknown, 0 failed
          reasoning: 1 calls, 0 told, 1 unknown, 0 failed
          embeddings: 1 calls, 0 told, 1 unknown, 0 failed
          llm429: 1 calls, 0 told, 0 unknown, 1 failed
        logfire-openai-anthropic
          stream_nousage: 1 calls, 0 told, 1 unknown, 0 failed
          llm429: 1 calls, 0 told, 0 unknown, 1 failed
        openinference-openai-agents
          stream_nousage: 1 calls, 0 told, 1 unknown, 0 failed
          llm429: 1 calls, 0 told, 0 unknown, 1 failed
          llm500: 1 calls, 0 told, 0 unknown, 1 failed
        openinference-openai-anthropic
          stream_nousage: 1 calls, 0 told, 1 unknown, 0 failed
          llm429: 1 calls, 0 told, 0 unknown, 1 failed
          llm500: 1 calls, 0 told, 0 unknown, 1 failed
          abort: 1 calls, 0 told, 1 unknown, 1 failed
        openlit
          llm429: 1 calls, 0 told, 0 unknown, 1 failed
          llm500: 1 calls, 0 told, 0 unknown, 1 failed
        openllmetry-langchain
          stream_nousage: 1 calls, 0 told, 1 unknown, 0 failed
          llm429: 1 calls, 0 told, 0 unknown, 1 failed
          llm500: 1 calls, 0 told, 0 unknown, 1 failed
        openllmetry-openai-anthropic
          stream_nousage: 1 calls, 0 told, 1 unknown, 0 failed
          llm429: 1 calls, 0 told, 0 unknown, 1 failed
          llm500: 1 calls, 0 told, 0 unknown, 1 failed
        otel-genai-openai-anthropic
          stream_nousage: 1 calls, 0 told, 1 unknown, 0 failed
          llm429: 1 calls, 0 told, 0 unknown, 1 failed
          llm500: 1 calls, 0 told, 0 unknown, 1 failed
          abort: 1 calls, 0 told, 1 unknown, 1 failed
        otel-openai-v2-default
          stream_nousage: 1 calls, 0 told, 1 unknown, 0 failed
          llm429: 1 calls, 0 told, 0 unknown, 1 failed
          llm500: 1 calls, 0 told, 0 unknown, 1 failed
        otel-openai-v2-genai-latest-httpx
          stream_nousage: 1 calls, 0 told, 1 unknown, 0 failed
          llm429: 1 calls, 0 told, 0 unknown, 1 failed
          llm500: 1 calls, 0 told, 0 unknown, 1 failed
        otel-openai-v2-grpc
          stream_nousage: 1 calls, 0 told, 1 unknown, 0 failed
          llm429: 1 calls, 0 told, 0 unknown, 1 failed
          llm500: 1 calls, 0 told, 0 unknown, 1 failed
        pydantic-ai
          llm429: 1 calls, 0 told, 0 unknown, 1 failed
          llm500: 1 calls, 0 told, 0 unknown, 1 failed
        pydantic-ai-v2format
          llm429: 1 calls, 0 told, 0 unknown, 1 failed
          llm500: 1 calls, 0 told, 0 unknown, 1 failed
        strands-agents
          llm500: 1 calls, 0 told, 0 unknown, 1 failed
        traceloop-sdk
          stream_nousage: 1 calls, 0 told, 1 unknown, 0 failed
          llm429: 1 calls, 0 told, 0 unknown, 1 failed
          llm500: 1 calls, 0 told, 0 unknown, 1 failed
          abort: 1 calls, 0 told, 1 unknown, 0 failed
        vercel-ai-sdk-v4-express-json
          retry: 2 calls, 1 told, 0 unknown, 1 failed
          llm429: 1 calls, 0 told, 0 unknown, 1 failed
          llm500: 1 calls, 0 told, 0 unknown, 1 failed
        vercel-ai-sdk-v6-json
          retry: 2 calls, 1 told, 0 unknown, 1 failed
          llm429: 1 calls, 0 told, 0 unknown, 1 failed
          llm500: 1 calls, 0 told, 0 unknown, 1 failed
    "#]]
    .assert_eq(&text);
}

/// As genai-prices itself reckons, for every call of every capture that used something.
#[test]
fn every_call_of_every_capture_costs_what_the_published_list_says() {
    let golden = crate::golden_captures().join("../captured_costs.json");
    let expected: BTreeMap<String, i64> = serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
    let (book, mut seen) = (PriceBook::shipped(), 0);
    for capture in captures() {
        for call in resolve(bodies(&capture)).into_iter().flat_map(|request| request.calls) {
            if call.usage.tokens().total() == 0 {
                continue;
            }
            let span = call.key.span_id.to_string();
            let cost = book.price(&Priced::of(&call)).map(|charge| charge.cost.0);
            assert_eq!(cost.ok(), expected.get(&span).copied(), "{} {span}", capture.display());
            seen += 1;
        }
    }
    assert_eq!(seen, expected.len(), "the golden file has as many calls as the captures");
}

/// The bots of the captures named a session in some of their requests, by various means; what survives of it on the spans is shown.
/// The others came by the baggage of the caller, or are conversations that a framework made up.
#[test]
fn a_session_that_survives_is_shown() {
    let mut text = String::new();
    for (name, truth, requests) in resolved() {
        let (mut shown, mut others) = (Vec::new(), 0);
        for expectation in truth["requests"].as_array().unwrap() {
            match found(&requests, expectation).and_then(|request| request.record.session.as_deref()) {
                Some(session) if Some(session) == expectation["session_id"].as_str() => {
                    shown.push(format!("{session} ({})", expectation["user_via"].as_str().unwrap()));
                }
                Some(_) => others += 1,
                None => {}
            }
        }
        writeln!(text, "{name}: {}; others {others}", shown.join(", ")).unwrap();
    }
    expect![[r#"
        bedrock-botocore-django: sess-1 (enduser.id), sess-2 (user.id), sess-2 (user.id), sess-1 (enduser.id); others 0
        js-langchain-openinference-plus-openai-koa: sess-1 (enduser.id), sess-2 (user.id), sess-2 (user.id), sess-1 (enduser.id), sess-1 (enduser.id), sess-1 (enduser.id), sess-2 (user.id), sess-2 (user.id); others 0
        langfuse-openai-starlette: sess-1 (enduser.id), sess-7 (propagate), sess-2 (user.id), sess-1 (enduser.id), sess-1 (enduser.id), sess-2 (user.id), sess-1 (enduser.id); others 0
        litellm-otel-default-grpc: sess-1 (enduser.id), sess-2 (user.id), sess-1 (enduser.id), sess-2 (user.id), sess-2 (user.id); others 0
        logfire-openai-anthropic: ; others 0
        openinference-openai-agents: sess-1 (enduser.id), sess-2 (user.id), sess-7 (oinf-using); others 0
        openinference-openai-anthropic: sess-1 (enduser.id), sess-2 (user.id), sess-3 (langfuse.user.id), sess-7 (oinf-using); others 0
        openlit: sess-1 (enduser.id), sess-2 (user.id), sess-3 (langfuse.user.id); others 0
        openllmetry-langchain: sess-1 (enduser.id), sess-2 (user.id), sess-7 (langchain-metadata); others 0
        openllmetry-openai-anthropic: sess-1 (enduser.id), sess-2 (user.id), sess-3 (langfuse.user.id); others 0
        otel-genai-openai-anthropic: sess-1 (enduser.id), sess-2 (user.id), sess-3 (langfuse.user.id); others 0
        otel-openai-v2-default: sess-1 (enduser.id), sess-2 (user.id), sess-3 (langfuse.user.id); others 0
        otel-openai-v2-genai-latest-httpx: sess-1 (enduser.id), sess-2 (user.id), sess-3 (langfuse.user.id), sess-6 (baggage-code); others 1
        otel-openai-v2-grpc: sess-1 (enduser.id), sess-2 (user.id), sess-3 (langfuse.user.id); others 0
        pydantic-ai: sess-1 (enduser.id), sess-2 (user.id); others 20
        pydantic-ai-v2format: sess-1 (enduser.id), sess-2 (user.id); others 14
        strands-agents: sess-1 (enduser.id), sess-7 (trace-attributes), sess-1 (enduser.id), sess-2 (user.id); others 0
        traceloop-sdk: sess-1 (enduser.id), sess-2 (user.id), sess-3 (langfuse.user.id), sess-7 (traceloop-assoc); others 0
        vercel-ai-sdk-v4-express-json: sess-1 (enduser.id), sess-2 (user.id), sess-3 (langfuse.user.id), sess-6 (baggage-code); others 0
        vercel-ai-sdk-v6-json: sess-1 (enduser.id), sess-2 (user.id), sess-3 (langfuse.user.id), sess-6 (baggage-code); others 0
    "#]].assert_eq(&text);
}

/// Calls outside any request appear once.
fn outside(name: &str, truth: &Value, requests: &[Request]) -> Vec<String> {
    let mut expected: Vec<(u64, u64)> = truth["llm_calls_outside_any_request"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|call| (call["input"].as_u64().unwrap(), call["output"].as_u64().unwrap()))
        .collect();
    let of_no_http_request = requests.iter().filter(|request| request.record.status.is_none());
    let calls = of_no_http_request.flat_map(|request| &request.calls).filter(|call| call.usage.tokens().total() > 0);
    let mut shown: Vec<(u64, u64)> =
        calls.map(|call| (call.usage.tokens().input, call.usage.tokens().output)).collect();
    expected.sort_unstable();
    shown.sort_unstable();
    if expected == shown {
        vec![]
    } else {
        vec![format!("{name}: outside any request {shown:?}, expected {expected:?}")]
    }
}

#[test]
fn order_and_repetition_change_nothing() {
    for capture in captures() {
        let bodies = bodies(&capture);
        let plain = resolve(bodies.clone());
        let backwards = bodies.iter().rev().cloned();
        assert_eq!(resolve(backwards), plain, "{} backwards", capture.display());
        let twice = bodies.iter().flat_map(|body| [body.clone(), body.clone()]);
        assert_eq!(resolve(twice), plain, "{} twice", capture.display());
        for seed in 0..10 {
            let mut singles: Vec<_> = bodies.iter().flatten().map(|span| vec![span.clone()]).collect();
            singles.shuffle(&mut StdRng::seed_from_u64(seed));
            assert_eq!(resolve(singles), plain, "{} shuffled by seed {seed}", capture.display());
        }
    }
}
