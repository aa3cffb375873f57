//! Bodies with prompts in them, larger than what is held in memory.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use prost::Message;

use super::durability::{get, until};
use crate::ingest::span::gzip;
use crate::support::client::{PROTOBUF, call, compressed, post};
use crate::support::load::Shape;
use crate::support::tacho_process::Tacho;

/// Requests with one call each, in whose spans such a prompt stands.
fn body(requests: u64, seed: u64, prompt: &str) -> Vec<u8> {
    let shape = Shape { seed, traces: requests, calls: 1, users: 5, split: false, began: 1_790_000_000_000_000_000 };
    let mut request = ExportTraceServiceRequest::decode(&*shape.unit(0).bodies[0]).unwrap();
    let scopes = request.resource_spans.iter_mut().flat_map(|resource| &mut resource.scope_spans);
    for span in scopes.flat_map(|scope| &mut scope.spans) {
        let value = Some(AnyValue { value: Some(Value::StringValue(prompt.to_owned())) });
        span.attributes.insert(0, KeyValue { key: "gen_ai.input.messages".into(), value, ..KeyValue::default() });
    }
    request.encode_to_vec()
}

#[tokio::test]
async fn prompts_of_many_megabytes_are_records_and_stay_out_of_memory() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("tacho.db").display());
    let tacho = Tacho::start(folder.path(), &url, &[("TACHO_ASSEMBLE__QUIET", "100ms")]);
    let large = |seed| {
        let body = body(150, seed, &"How does this bill come about? ".repeat(2_000));
        assert!(body.len() > 17 << 20, "{}", body.len());
        body
    };
    assert_eq!(call(large(0)).send(tacho.grpc).await, "Ok");
    assert_eq!(compressed("gzip", gzip(&large(1))).send(tacho.grpc).await, "Ok");
    assert_eq!(post(PROTOBUF, large(2)).send(tacho.otlp_http).await.line(), "200");
    assert_eq!(post(PROTOBUF, gzip(&large(3))).encoding("gzip").send(tacho.otlp_http).await.line(), "200");
    // 118 MiB each, six at a time.
    let prompt = "How does this bill come about? ".repeat(14_000);
    let squeezed = |seed| compressed("gzip", gzip(&body(145, seed, &prompt)));
    let sent = futures_util::future::join_all((4..10).map(|seed| {
        let call = squeezed(seed);
        async move { call.send(tacho.grpc).await }
    }));
    assert_eq!(sent.await, ["Ok"; 6]);
    until(&tacho, &format!("tacho_persist_records_total{{result=\"new\"}} {}", 4 * 150 + 6 * 145)).await;
    let peak = tacho.peak_memory() >> 20;
    // All bodies are 780 MiB. Much of the peak is what the allocator has not given back.
    assert!(peak < 200, "{peak} MiB");
    tacho.stop();
}

#[tokio::test]
async fn a_body_beyond_every_bound_is_counted_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("tacho.db").display());
    let tacho = Tacho::start(folder.path(), &url, &[("TACHO_INGEST__MAX_BODY", "100KiB")]);
    let sent = post(PROTOBUF, gzip(&body(1_000, 0, ""))).encoding("gzip").send(tacho.otlp_http).await.line();
    assert_eq!(
        sent,
        "413 ResourceExhausted: more than 102400 bytes remain of the body without its prompts; send smaller batches, or raise ingest.max_body"
    );
    let metrics = get(&tacho, "/metrics").await;
    assert!(metrics.contains("tacho_losses_total{reason=\"too_large\",stage=\"ingest\"} 1\n"), "{metrics}");
    let log = tacho.log();
    let said =
        log.lines().find(|line| line.contains("body lost with all its spans")).unwrap_or_else(|| panic!("{log}"));
    assert!(said.contains("load") && said.contains("raise ingest.max_body"), "{said}");
    tacho.stop();
}
