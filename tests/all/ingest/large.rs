//! Bodies larger than what may be in memory, by what nobody reads: they are taken, in every protocol and compression.

use opentelemetry_proto::tonic::trace::v1::Span;

use super::service::{MAX_BODY, start};
use super::span;
use crate::support::client::{JSON, PROTOBUF, call, compressed, post};

/// Spans with a prompt each, three times as large as what may be in memory.
fn spans() -> Vec<Span> {
    let prompt = "Translate this, please: \"äöü\". ".repeat(MAX_BODY / 50 / 32);
    let attributes = vec![span::attribute("gen_ai.input.messages", &prompt), span::attribute("user.id", "ann")];
    vec![Span { attributes, ..span::good() }; 150]
}

#[tokio::test]
async fn prompts_may_be_larger_than_the_memory() {
    let mut service = start().await;
    let protobuf = span::protobuf(spans());
    let json = span::json(spans()).into_bytes();
    assert!(protobuf.len() > 2 * MAX_BODY && json.len() > 2 * MAX_BODY);
    for (kind, body) in [(PROTOBUF, &protobuf), (JSON, &json)] {
        for (encoding, body) in [
            ("identity", body.clone()),
            ("gzip", span::gzip(body)),
            ("deflate", span::zlib(body)),
            ("zstd", span::zstd(body)),
        ] {
            let answer = post(kind, body).encoding(encoding).send(service.http).await.line();
            assert_eq!((answer.as_str(), service.taken()), ("200", 150), "{kind} {encoding}");
        }
    }
    for (encoding, call) in [
        ("identity", call(&protobuf)),
        ("gzip", compressed("gzip", span::gzip(&protobuf))),
        ("deflate", compressed("deflate", span::zlib(&protobuf))),
        ("zstd", compressed("zstd", span::zstd(&protobuf))),
    ] {
        assert_eq!((call.send(service.grpc).await.as_str(), service.taken()), ("Ok", 150), "gRPC {encoding}");
    }
    assert_eq!(service.meters.too_large.get(), 0);
}

#[tokio::test]
async fn a_body_that_is_lost_is_counted() {
    let service = start().await;
    let many = || vec![span::good(); 20_000];
    assert!(post(PROTOBUF, span::protobuf(many())).send(service.http).await.line().starts_with("413"));
    assert!(post(JSON, span::json(many())).send(service.http).await.line().starts_with("413"));
    assert!(call(span::protobuf(many())).send(service.grpc).await.starts_with("ResourceExhausted"));
    assert_eq!(service.meters.too_large.get(), 3);
    let refused = |protocol| service.meters.bodies_refused.with_label_values(&[protocol, "too_large"]).get();
    assert_eq!((refused("http_protobuf"), refused("http_json"), refused("grpc")), (1, 1, 1));
}

#[tokio::test]
async fn what_cannot_be_read_is_counted() {
    let service = start().await;
    let odd = span::json_with("{\"stringValue\":\"gpt-4o-mini\"}", "{\"stringValue\":{}}");
    let answer = post(JSON, odd).send(service.http).await.line();
    assert_eq!(answer, "200 rejected 0: one value could not be read: gen_ai.request.model");
    assert_eq!(service.meters.unreadable.get(), 1);
}
