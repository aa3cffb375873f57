//! Hostile and broken messages over gRPC: what is sent → what is answered.

use opentelemetry_proto::tonic::trace::v1::Span;

use super::service::{MAX_BODY, MOST_KEPT, all_slots, alone, peak_kib, start};
use super::span;
use crate::support::client::{Call, call, compressed};

const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
const LARGE: &str =
    "ResourceExhausted: body is larger than 8388608 bytes; send smaller batches, or raise ingest.max_body, 0 taken";
/// What nobody reads was left out, and was too little.
const REMAINS: &str = "ResourceExhausted: more than 1048576 bytes remain of the body without its prompts; send smaller batches, or raise ingest.max_body, 0 taken";
const INFLATED: &str = "ResourceExhausted: body is larger than 8388608 bytes after decompression; send smaller batches, or raise ingest.max_body, 0 taken";

type Row = (&'static str, Call, &'static str);

async fn check(rows: Vec<Row>) {
    let mut service = start().await;
    let mut wrong = Vec::new();
    for (name, call, expected) in rows {
        let line = call.send(service.grpc).await;
        let answered = format!("{line}, {} taken", service.taken());
        if answered != expected {
            wrong.push(format!("{name}\n  expected {expected}\n  answered {answered}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    assert_eq!(
        call(span::protobuf([span::good()])).send(service.grpc).await,
        "Ok",
        "the service is well after all that"
    );
}

#[tokio::test]
#[rustfmt::skip] // one row, one case
async fn broken_messages() {
    let good = span::protobuf([span::good()]);
    let bad = Span { trace_id: vec![], ..span::good() };
    check(vec![
        ("a good span", call(&good), "Ok, 1 taken"),
        ("an empty message", call(""), "Ok, 0 taken"),
        ("a bad span beside a good one", call(span::protobuf([span::good(), bad])), "Ok rejected 1: span bbbbbbbbbbbbbbbb: trace id is missing or not 16 bytes, 1 taken"),
        ("cut in the middle", call(&good[..good.len() / 2]), "InvalidArgument: malformed body: length beyond the end at byte 2, 0 taken"),
        ("JSON", call(span::json([span::good()])), "InvalidArgument: malformed body: length beyond the end at byte 296, 0 taken"),
        ("no message", call("").frames(""), "Internal: the body broke off, 0 taken"),
        ("half a frame", call("").frames([0, 0, 0]), "Internal: the body broke off, 0 taken"),
        ("a frame longer than what comes", call("").frames([0, 0, 0, 0, 9, 1]), "Internal: the body broke off, 0 taken"),
        ("two messages", call("").frames([0; 10]), "Ok, 0 taken"),
        ("a frame of a flag nobody knows", call("").frames([9, 0, 0, 0, 0]), "Unimplemented: a message of gRPC begins with 0 or 1, and not with 9, 0 taken"),
        ("a compressed message without an encoding", call("").frames([1, 0, 0, 0, 0]), "Unimplemented: a compressed message without grpc-encoding, 0 taken"),
        ("another service", call(&good).path("/grpc.health.v1.Health/Check"), "Unimplemented: not an OTLP service, 0 taken"),
        ("another method", call(&good).path("/opentelemetry.proto.collector.trace.v1.TraceService/Import"), "Unimplemented: not an OTLP service, 0 taken"),
        ("metrics", call("anything").path(METRICS), "Ok, 0 taken"),
        ("logs", call("anything").path(LOGS), "Ok, 0 taken"),
    ])
    .await;
}

#[test]
fn large_and_squeezed_messages() {
    alone("ingest::grpc::large_and_squeezed_messages_alone");
}

#[tokio::test]
#[ignore = "the test above runs it in a process of its own"]
#[rustfmt::skip] // one row, one case
async fn large_and_squeezed_messages_alone() {
    let fits = || span::of_length(MAX_BODY - 200);
    let small = || span::protobuf([span::good()]);
    let cut = |body: Vec<u8>| body[..body.len() - 5].to_vec();
    let before = peak_kib();
    check(vec![
        ("just below the limit", call(fits()), "Ok, 1 taken"),
        ("gzip", compressed("gzip", span::gzip(&fits())), "Ok, 1 taken"),
        ("deflate", compressed("deflate", span::zlib(&fits())), "Ok, 1 taken"),
        ("zstd", compressed("zstd", span::zstd(&fits())), "Ok, 1 taken"),
        ("a prompt over the limit", call(span::of_length(MAX_BODY)), "Ok, 1 taken"),
        ("a prompt over the limit when inflated", compressed("gzip", span::gzip(&span::of_length(MAX_BODY))), "Ok, 1 taken"),
        ("a prompt far over the limit", call(span::of_length(8 * MAX_BODY)), LARGE),
        ("a prompt far over the limit when inflated", compressed("gzip", span::gzip(&span::of_length(8 * MAX_BODY))), INFLATED),
        ("spans over the limit", call(span::protobuf(vec![span::good(); 20_000])), REMAINS),
        ("a length of 4 GiB", call("").frames([0, 0xff, 0xff, 0xff, 0xff, 0]), LARGE),
        ("gzip bomb", compressed("gzip", span::gzip_bomb()), REMAINS),
        ("deflate bomb", compressed("deflate", span::zlib_bomb()), REMAINS),
        ("zstd bomb", compressed("zstd", span::zstd_bomb()), REMAINS),
        ("zstd window of 128 MiB", compressed("zstd", span::zstd_wide_window(&fits())), "Internal: body is no valid zstd stream, 0 taken"),
        ("truncated gzip", compressed("gzip", cut(span::gzip(&small()))), "Internal: body is no valid gzip stream, 0 taken"),
        ("plain, called gzip", compressed("gzip", small()), "Internal: body is no valid gzip stream, 0 taken"),
        ("another encoding", compressed("snappy", small()), "Unimplemented: grpc-encoding is none of gzip,deflate,zstd, 0 taken"),
        ("metrics over the limit", call(vec![0; 8 * MAX_BODY + 1]).path(METRICS), LARGE),
    ])
    .await;
    let grown = peak_kib() - before;
    // The bombs would be 256 MiB.
    assert!(grown < 200 * 1024, "grew by {grown} KiB");
}

/// UNAVAILABLE with `RetryInfo` is what OTLP clients send again.
#[tokio::test]
async fn overload() {
    const BUSY: &str = "Unavailable: too many bodies at a time; try again [retry after 1s]";
    const FULL: &str = "Unavailable: the journal is full until the database has caught up; try again [retry after 1s]";
    let mut service = start().await;
    let slots = all_slots(&service.intake).await;
    assert_eq!(call(span::protobuf([span::good()])).send(service.grpc).await, BUSY);
    assert_eq!(call("broken").send(service.grpc).await, BUSY, "the message was not looked at");
    drop(slots);
    let good = call(span::protobuf([span::good()]));
    for _ in 0..MOST_KEPT {
        assert_eq!(good.send(service.grpc).await, "Ok");
    }
    assert_eq!(good.send(service.grpc).await, FULL);
    assert_eq!(service.taken(), MOST_KEPT);
    assert_eq!(good.send(service.grpc).await, "Ok", "there is room again");
}
