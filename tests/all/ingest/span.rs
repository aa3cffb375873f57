//! Requests for the tables: a span with nothing wrong, to be made wrong, and what squeezes and swells.

use std::io::Write;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::oracle::{Numbers, to_json};

/// Nothing is wrong with it.
pub fn good() -> Span {
    Span {
        trace_id: vec![0xaa; 16],
        span_id: vec![0xbb; 8],
        name: "chat".into(),
        start_time_unix_nano: 1_790_000_000_000_000_000,
        end_time_unix_nano: 1_790_000_001_000_000_000,
        attributes: vec![attribute("gen_ai.request.model", "gpt-4o-mini")],
        ..Span::default()
    }
}

pub fn attribute(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value.into())) });
    KeyValue { key: key.into(), value, ..KeyValue::default() }
}

pub fn request(spans: impl Into<Vec<Span>>) -> ExportTraceServiceRequest {
    let scope_spans = vec![ScopeSpans { spans: spans.into(), ..ScopeSpans::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }
}

pub fn protobuf(spans: impl Into<Vec<Span>>) -> Vec<u8> {
    request(spans).encode_to_vec()
}

pub fn json(spans: impl Into<Vec<Span>>) -> String {
    to_json(&request(spans), Numbers::Text)
}

/// A good span in JSON with one part of it replaced.
pub fn json_with(part: &str, by: &str) -> String {
    let json = json([good()]);
    assert!(json.contains(part), "{json}");
    json.replace(part, by)
}

/// A span's attribute `key` in a body of `length` bytes and a little more.
pub fn of_length(length: usize) -> Vec<u8> {
    let attributes = vec![attribute("gen_ai.input.messages", &"x".repeat(length))];
    protobuf([Span { attributes, ..good() }])
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    squeeze(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()), bytes, 1).finish().unwrap()
}

/// Of what cannot be squeezed.
pub fn gzip_of_noise(length: usize) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(1);
    gzip(&(0..length).map(|_| random.random()).collect::<Vec<u8>>())
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

pub fn zlib(bytes: &[u8]) -> Vec<u8> {
    squeeze(flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast()), bytes, 1).finish().unwrap()
}

/// How large the bombs become: far more than the limit, and than this process may grow.
const BOMB_MIB: usize = 256;

pub fn gzip_bomb() -> Vec<u8> {
    squeeze(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best()), &[0; 1 << 20], BOMB_MIB)
        .finish()
        .unwrap()
}

pub fn zlib_bomb() -> Vec<u8> {
    squeeze(flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best()), &[0; 1 << 20], BOMB_MIB)
        .finish()
        .unwrap()
}

pub fn deflate_bomb() -> Vec<u8> {
    squeeze(flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best()), &[0; 1 << 20], BOMB_MIB)
        .finish()
        .unwrap()
}

pub fn zstd_bomb() -> Vec<u8> {
    squeeze(zstd::Encoder::new(Vec::new(), 1).unwrap(), &[0; 1 << 20], BOMB_MIB).finish().unwrap()
}

/// Declares a window of 128 MiB, which a decoder would set aside.
pub fn zstd_wide_window(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    squeeze(encoder, bytes, 1).finish().unwrap()
}

fn squeeze<W: Write>(mut encoder: W, chunk: &[u8], times: usize) -> W {
    (0..times).for_each(|_| encoder.write_all(chunk).unwrap());
    encoder
}
