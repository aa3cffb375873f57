//! The walk beside a full decode by prost, on the captured bodies and on a body of many plain spans.

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use tacho_core::decode::{OwnKeys, Rules, read_protobuf};

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// All protobuf bodies of a capture with the number of spans in them.
fn bodies(capture: &str) -> (Vec<Vec<u8>>, u64) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/captures").join(capture);
    let files = std::fs::read_dir(folder).expect("the captures are in the tree").flatten();
    let is_body = |path: &std::path::PathBuf| path.extension().is_some_and(|ending| ending == "pb");
    let bodies: Vec<Vec<u8>> = files
        .map(|file| file.path())
        .filter(is_body)
        .map(|path| std::fs::read(path).expect("a readable body"))
        .collect();
    let spans = |body: &Vec<u8>| read_protobuf(body, &rules()).map_or(0, |batch| batch.extract.len() as u64);
    let count = bodies.iter().map(spans).sum();
    (bodies, count)
}

fn rules() -> Rules {
    Rules::new(OwnKeys::default(), false)
}

/// One batch as an exporter sends it: server spans with 16 attributes, each with three calls of 18 below it.
fn batch() -> Vec<u8> {
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    let attribute = |key: &str, value| KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    };
    let text = |key: &str, value: &str| attribute(key, Value::StringValue(value.into()));
    let count = |key: &str, value| attribute(key, Value::IntValue(value));
    let mut server = vec![text("http.request.method", "POST"), text("http.route", "/agents/{agent_id}/invoke")];
    server.extend([
        text("url.path", "/agents/support/invoke"),
        text("user.id", "user-4711"),
        count("http.response.status_code", 200),
    ]);
    server.extend((0..11).map(|n| text(&format!("server.other.attribute_{n}"), "a value of some length")));
    let mut call = vec![text("gen_ai.operation.name", "chat"), text("gen_ai.provider.name", "openai")];
    call.extend([text("gen_ai.request.model", "gpt-4o-mini"), text("gen_ai.response.model", "gpt-4o-mini-2024-07-18")]);
    call.extend([text("gen_ai.response.id", "chatcmpl-0123456789"), count("gen_ai.usage.input_tokens", 1200)]);
    call.push(count("gen_ai.usage.output_tokens", 340));
    call.extend((0..11).map(|n| text(&format!("gen_ai.request.other_{n}"), "a value of some length")));
    let span = |n: u64| Span {
        trace_id: (u128::from(n / 4) + 1).to_be_bytes().to_vec(),
        span_id: (n + 1).to_be_bytes().to_vec(),
        parent_span_id: if n.is_multiple_of(4) { vec![] } else { (n - n % 4 + 1).to_be_bytes().to_vec() },
        name: "a span".into(),
        kind: if n.is_multiple_of(4) { 2 } else { 3 },
        start_time_unix_nano: 1_790_000_000_000_000_000 + n,
        end_time_unix_nano: 1_790_000_001_000_000_000 + n,
        attributes: if n.is_multiple_of(4) { server.clone() } else { call.clone() },
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans { spans: (0..512).map(span).collect(), ..ScopeSpans::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }
        .encode_to_vec()
}

fn ingest(criterion: &mut Criterion) {
    let rules = rules();
    let captures = ["otel-openai-v2-default", "otel-genai-openai-anthropic", "openllmetry-langchain"];
    let captured = captures.map(|capture| (capture, bodies(capture)));
    for (name, (bodies, spans)) in captured.into_iter().chain([("512-spans", (vec![batch()], 512))]) {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(spans));
        group.bench_function("walk", |bencher| {
            bencher.iter(|| bodies.iter().for_each(|body| drop(black_box(read_protobuf(body, &rules)))));
        });
        group.bench_function("prost", |bencher| {
            bencher.iter(|| {
                bodies.iter().for_each(|body| drop(black_box(ExportTraceServiceRequest::decode(&**body))));
            });
        });
        group.finish();
    }
}

criterion_group!(benches, ingest);
criterion_main!(benches);
