//! Hostile and broken bodies over HTTP: what is sent → what is answered.

use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::encode::{bytes, number, request_of_span, text_attribute};
use super::service::{MAX_BODY, MOST_KEPT, Service, all_slots, alone, peak_kib, start};
use super::span;
use crate::support::client::{Ask, JSON, PROTOBUF, call, post};

type Row = (&'static str, Ask, &'static str);

/// What a body that is no request is answered.
macro_rules! malformed {
    ($fault:literal) => {
        concat!("400 InvalidArgument: malformed body: ", $fault)
    };
}

/// What a body is answered of which some spans were taken, and the one with the usual id was not.
macro_rules! rejected {
    ($taken:literal, $fault:literal) => {
        concat!("200, ", $taken, " taken, rejected 1: span bbbbbbbbbbbbbbbb: ", $fault)
    };
}

/// Sends every row to one service and compares all answers at once. A success also tells how many spans came through.
async fn check(rows: Vec<Row>) {
    let mut service = start().await;
    let mut wrong = Vec::new();
    for (name, ask, expected) in rows {
        let answered = answer(&mut service, &ask).await;
        if answered != expected {
            wrong.push(format!("{name}\n  expected {expected}\n  answered {answered}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    let well = answer(&mut service, &post(PROTOBUF, span::protobuf([span::good()]))).await;
    assert_eq!(well, "200, 1 taken", "the service is well after all that");
}

async fn answer(service: &mut Service, ask: &Ask) -> String {
    let line = ask.send(service.http).await.line();
    match (service.taken(), line.strip_prefix("200")) {
        (taken, Some(said)) => format!("200, {taken} taken{}{said}", if said.is_empty() { "" } else { "," }),
        (0, None) => line,
        (taken, None) => format!("{line}, but {taken} taken"),
    }
}

#[tokio::test]
#[rustfmt::skip] // one row, one case
async fn requests_that_are_not_for_us() {
    let good = || span::protobuf([span::good()]);
    check(vec![
        ("another method", post(PROTOBUF, good()).method("GET"), METHOD),
        ("a method nobody knows", post(PROTOBUF, good()).method("BREW"), METHOD),
        ("another path", post(PROTOBUF, good()).path("/v1/profiles"), NOWHERE),
        ("a path below", post(PROTOBUF, good()).path("/v1/traces/x"), NOWHERE),
        ("a query is no other path", post(PROTOBUF, good()).path("/v1/traces?x=1"), "200, 1 taken"),
        ("no content type", post(PROTOBUF, good()).without_headers(), TYPE),
        ("another content type", post("text/plain", good()), TYPE),
        ("a content type that is no text", post("\u{fe}", good()), TYPE),
        ("a content type with a parameter", post("Application/JSON; charset=utf-8", span::json([span::good()])), "200, 1 taken"),
        ("another encoding", post(PROTOBUF, good()).encoding("br"), ENCODING),
        ("two encodings", post(PROTOBUF, good()).encoding("gzip, zstd"), ENCODING),
        ("two encoding headers", post(PROTOBUF, good()).encoding("gzip").encoding("gzip"), ENCODING),
        ("metrics", post(PROTOBUF, "anything").path("/v1/metrics"), "200, 0 taken"),
        ("logs", post(JSON, "anything").path("/v1/logs"), "200, 0 taken"),
        ("metrics of another content type", post("text/plain", "anything").path("/v1/metrics"), TYPE),
        ("metrics over the limit", post(PROTOBUF, vec![0; 8 * MAX_BODY + 1]).path("/v1/metrics"), LARGE),
    ])
    .await;
}

const METHOD: &str = r#"405{"detail":"this path takes another method","status":405,"title":"Method Not Allowed","type":"about:blank"} [allow: POST]"#;
const NOWHERE: &str =
    r#"404{"detail":"there is nothing at this path","status":404,"title":"Not Found","type":"about:blank"}"#;
const TYPE: &str = r#"415{"detail":"content type is neither application/x-protobuf nor application/json","status":415,"title":"Unsupported Media Type","type":"about:blank"}"#;
const ENCODING: &str = "415 InvalidArgument: content encoding is none of gzip, deflate, zstd, identity";
const LARGE: &str =
    "413 ResourceExhausted: body is larger than 8388608 bytes; send smaller batches, or raise ingest.max_body";
/// What nobody reads was left out, and was too little.
const REMAINS: &str = "413 ResourceExhausted: more than 1048576 bytes remain of the body without its prompts; send smaller batches, or raise ingest.max_body";
const SQUEEZED: &str = "413 ResourceExhausted: body is larger than 1048576 bytes before decompression; send smaller batches, or raise ingest.max_body";
const INFLATED: &str = "413 ResourceExhausted: body is larger than 8388608 bytes after decompression; send smaller batches, or raise ingest.max_body";

#[test]
fn large_and_squeezed_bodies() {
    alone("ingest::http::large_and_squeezed_bodies_alone");
}

#[tokio::test]
#[ignore = "the test above runs it in a process of its own"]
#[rustfmt::skip] // one row, one case
async fn large_and_squeezed_bodies_alone() {
    let fits = || span::of_length(MAX_BODY - 200);
    let small = || span::protobuf([span::good()]);
    let cut = |body: Vec<u8>| body[..body.len() - 5].to_vec();
    let before = peak_kib();
    check(vec![
        ("just below the limit", post(PROTOBUF, fits()), "200, 1 taken"),
        ("just below the limit, gzip", post(PROTOBUF, span::gzip(&fits())).encoding("gzip"), "200, 1 taken"),
        ("a prompt over the limit", post(PROTOBUF, span::of_length(MAX_BODY)), "200, 1 taken"),
        ("a prompt over the limit when inflated", post(PROTOBUF, span::gzip(&span::of_length(MAX_BODY))).encoding("gzip"), "200, 1 taken"),
        ("a prompt far over the limit", post(PROTOBUF, span::of_length(8 * MAX_BODY)), LARGE),
        ("a prompt far over the limit when inflated", post(PROTOBUF, span::gzip(&span::of_length(8 * MAX_BODY))).encoding("gzip"), INFLATED),
        ("a user over the limit", post(PROTOBUF, span::protobuf([Span { attributes: vec![span::attribute("user.id", &"x".repeat(MAX_BODY))], ..span::good() }])), "200, 1 taken, rejected 0: one value could not be read: user.id"),
        ("spans over the limit", post(PROTOBUF, span::protobuf(vec![span::good(); 20_000])), REMAINS),
        ("spans over the limit, JSON", post(JSON, span::json(vec![span::good(); 20_000])), REMAINS),
        ("over the limit and cut", post(PROTOBUF, cut(span::of_length(MAX_BODY))), malformed!("length beyond the end at byte 1048670")),
        ("far over the limit", post(PROTOBUF, vec![b' '; 64 * MAX_BODY]), LARGE),
        ("far over the limit, JSON", post(JSON, vec![b' '; 64 * MAX_BODY]), LARGE),
        ("over the limit as it comes", post(PROTOBUF, span::gzip_of_noise(MAX_BODY + 1)).encoding("gzip"), SQUEEZED),
        ("gzip bomb", post(PROTOBUF, span::gzip_bomb()).encoding("gzip"), REMAINS),
        ("gzip bomb of many members", post(PROTOBUF, span::gzip(&[0; 4096]).repeat(9_000)).encoding("gzip"), REMAINS),
        ("gzip bomb, JSON", post(JSON, span::gzip_bomb()).encoding("x-gzip"), REMAINS),
        ("zlib bomb", post(PROTOBUF, span::zlib_bomb()).encoding("deflate"), REMAINS),
        ("bare deflate bomb", post(PROTOBUF, span::deflate_bomb()).encoding("deflate"), REMAINS),
        ("zstd bomb", post(PROTOBUF, span::zstd_bomb()).encoding("zstd"), REMAINS),
        ("zstd window of 128 MiB", post(PROTOBUF, span::zstd_wide_window(&fits())).encoding("zstd"), BROKEN_ZSTD),
        ("truncated gzip", post(PROTOBUF, cut(span::gzip(&small()))).encoding("gzip"), BROKEN_GZIP),
        ("truncated zlib", post(PROTOBUF, cut(span::zlib(&small()))).encoding("deflate"), BROKEN_DEFLATE),
        ("truncated zstd", post(PROTOBUF, cut(span::zstd(&small()))).encoding("zstd"), BROKEN_ZSTD),
        ("plain, called gzip", post(PROTOBUF, small()).encoding("gzip"), BROKEN_GZIP),
        ("plain, called zstd", post(PROTOBUF, small()).encoding("zstd"), BROKEN_ZSTD),
        ("gzip, called plain", post(PROTOBUF, span::gzip(&small())), malformed!("invalid wire type at byte 1")),
        ("gzip of gzip", post(PROTOBUF, span::gzip(&span::gzip(&small()))).encoding("gzip"), malformed!("invalid wire type at byte 1")),
        ("empty, called gzip", post(PROTOBUF, "").encoding("gzip"), BROKEN_GZIP),
    ])
    .await;
    let grown = peak_kib() - before;
    // The bodies that were sent are 64 MiB; the bombs would be 256.
    assert!(grown < 200 * 1024, "grew by {grown} KiB");
}

const BROKEN_GZIP: &str = "400 InvalidArgument: body is no valid gzip stream";
const BROKEN_DEFLATE: &str = "400 InvalidArgument: body is no valid deflate stream";
const BROKEN_ZSTD: &str = "400 InvalidArgument: body is no valid zstd stream";

#[tokio::test]
#[rustfmt::skip] // one row, one case
async fn bodies_that_are_no_protobuf_request() {
    let good = span::protobuf([span::good()]);
    let in_span = |field: Vec<u8>| post(PROTOBUF, request_of_span(field));
    let nested = |depth: usize| (0..depth).fold(vec![], |inner, level| bytes([1, 5][level % 2], inner));
    let attribute = |value: Vec<u8>| bytes(9, [bytes(1, "http.method"), bytes(2, value)].concat());
    let huge_varint = [&[9 << 3][..], &[0xff; 10]].concat();
    check(vec![
        ("empty", post(PROTOBUF, ""), "200, 0 taken"),
        ("cut in the middle", post(PROTOBUF, &good[..good.len() / 2]), malformed!("length beyond the end at byte 2")),
        ("JSON", post(PROTOBUF, span::json([span::good()])), malformed!("length beyond the end at byte 296")),
        ("text", post(PROTOBUF, "hello"), malformed!("end of a group that was not begun at byte 3")),
        ("field number 0", post(PROTOBUF, [0, 0]), malformed!("field number 0 at byte 1")),
        ("varint of eleven bytes", post(PROTOBUF, huge_varint), malformed!("varint of more than 64 bits at byte 1")),
        ("length of 2^64 - 1", post(PROTOBUF, [&[10][..], &[0xff; 9], &[1]].concat()), malformed!("length beyond the end at byte 11")),
        ("span with a number for a name", in_span(number(5, 1)), malformed!("span: a field has the wrong wire type at byte 8")),
        ("group without an end", in_span(vec![0x9b, 6]), malformed!("group without an end at byte 8")),
        ("end without a group", in_span(vec![0x9c, 6]), malformed!("end of a group that was not begun at byte 8")),
        ("key that is not UTF-8", in_span(text_attribute(9, [0xff], "x")), malformed!("text that is not UTF-8 at byte 10")),
        ("value that is not UTF-8", in_span(text_attribute(9, "http.method", [0xff])), malformed!("text that is not UTF-8 at byte 25")),
        ("value nobody wants that is not UTF-8", in_span(text_attribute(9, "x", [0xff])), malformed!("text that is not UTF-8 at byte 15")),
        ("name that is not UTF-8", in_span(bytes(5, [0xff])), malformed!("text that is not UTF-8 at byte 8")),
        ("nested as deep as allowed", in_span(attribute(nested(94))), "200, 0 taken, rejected 1: span : trace id is missing or not 16 bytes"),
        ("nested too deep", in_span(attribute(nested(96))), malformed!("nested too deep at byte 252")),
        ("nested 100 000 deep", in_span(attribute(nested(100_000))), malformed!("nested too deep at byte 394486")),
        ("100 000 groups begun", post(PROTOBUF, [0x9b, 6].repeat(100_000)), malformed!("nested too deep at byte 202")),
    ])
    .await;
}

#[tokio::test]
#[rustfmt::skip] // one row, one case
async fn bodies_that_are_no_json_request() {
    let good = span::json([span::good()]);
    let attribute = "{\"key\":\"gen_ai.request.model\",\"value\":{\"stringValue\":\"gpt-4o-mini\"}}";
    let deep = |open: &str, close: &str, depth| open.repeat(depth) + "{}" + &close.repeat(depth);
    let value = |value: &str| post(JSON, span::json_with("{\"stringValue\":\"gpt-4o-mini\"}", value));
    check(vec![
        ("empty", post(JSON, ""), malformed!("a request that is no object at byte 0")),
        ("an empty object", post(JSON, "{}"), "200, 0 taken"),
        ("a list", post(JSON, "[]"), malformed!("a request that is no object at byte 0")),
        ("null", post(JSON, "null"), malformed!("a request that is no object at byte 0")),
        ("cut in the middle", post(JSON, &good[..good.len() / 2]), malformed!("a text without an end at byte 176")),
        ("more after the end", post(JSON, format!("{good}{{}}")), malformed!("more behind the end at byte 352")),
        ("protobuf", post(JSON, span::protobuf([span::good()])), malformed!("text that is not UTF-8 at byte 8")),
        ("a text for a list quotes nothing", post(JSON, "{\"resourceSpans\":\"SECRET, expected \\\"x\"}"), malformed!("resourceSpans that are no array at byte 39")),
        ("a number for a text", value("{\"stringValue\":4111222233334444}"), "200, 1 taken"),
        ("a fraction for a whole number", value("{\"intValue\":4111.5}"), "200, 1 taken"),
        ("a text for a number quotes nothing", value("{\"intValue\":\"SECRET\"}"), "200, 1 taken, rejected 0: one value could not be read: gen_ai.request.model"),
        ("a member twice", post(JSON, span::json_with("\"kind\":0", "\"kind\":0,\"kind\":0")), "200, 1 taken"),
        ("members nobody knows", post(JSON, span::json_with("\"kind\":0", "\"kind\":0,\"x\":[{}],\"y\":null")), "200, 1 taken"),
        ("null for every kind of member", post(JSON, span::json_with(attribute, "{\"key\":null,\"value\":null}")), "200, 1 taken"),
        ("key that is not UTF-8", post(JSON, not_utf8(&span::json_with("gen_ai.request.model", "%"))), malformed!("text that is not UTF-8 at byte 272")),
        ("value that is not UTF-8", post(JSON, not_utf8(&span::json_with("gpt-4o-mini", "%"))), malformed!("text that is not UTF-8 at byte 318")),
        ("member nobody knows that is not UTF-8", post(JSON, not_utf8(&span::json_with("\"kind\":0", "\"x\":\"%\""))), malformed!("text that is not UTF-8 at byte 154")),
        ("half of a surrogate pair", value("{\"stringValue\":\"cut \\ud83d\"}"), "200, 1 taken"),
        ("nested 100 000 deep where nobody looks", value(&deep("{\"arrayValue\":{\"values\":[", "]}}", 30_000)), "200, 1 taken"),
        ("100 000 lists begun where nobody looks", post(JSON, "{\"x\":".to_owned() + &"[".repeat(100_000)), malformed!("the end, where a value should be at byte 100005")),
        ("number of 100 000 digits", value(&format!("{{\"intValue\":{}}}", "9".repeat(100_000))), "200, 1 taken, rejected 0: one value could not be read: gen_ai.request.model"),
    ])
    .await;
}

fn not_utf8(json: &str) -> Vec<u8> {
    json.bytes().map(|byte| if byte == b'%' { 0xff } else { byte }).collect()
}

/// Single bad spans are rejected and named by id; the good ones beside them are taken.
#[tokio::test]
#[rustfmt::skip] // one row, one case
async fn single_bad_spans() {
    let beside_good = |bad: Span| post(PROTOBUF, span::protobuf([span::good(), bad]));
    let good = span::good;
    let many = |count| vec![span::attribute("gen_ai.request.model", "m"); count];
    check(vec![
        ("no trace id", beside_good(Span { trace_id: vec![], ..good() }), rejected!(1, "trace id is missing or not 16 bytes")),
        ("trace id of zeros", beside_good(Span { trace_id: vec![0; 16], ..good() }), rejected!(1, "trace id is missing or not 16 bytes")),
        ("short trace id", beside_good(Span { trace_id: vec![1; 15], ..good() }), rejected!(1, "trace id is missing or not 16 bytes")),
        ("long trace id", beside_good(Span { trace_id: vec![1; 17], ..good() }), rejected!(1, "trace id is missing or not 16 bytes")),
        ("no span id", beside_good(Span { span_id: vec![], ..good() }), "200, 1 taken, rejected 1: span : span id is missing or not 8 bytes"),
        ("span id of zeros", beside_good(Span { span_id: vec![0; 8], ..good() }), "200, 1 taken, rejected 1: span 0000000000000000: span id is missing or not 8 bytes"),
        ("short span id", beside_good(Span { span_id: vec![1; 7], ..good() }), "200, 1 taken, rejected 1: span 01010101010101: span id is missing or not 8 bytes"),
        ("long span id is not written out", beside_good(Span { span_id: vec![1; 10_000], ..good() }), "200, 1 taken, rejected 1: span 0101010101010101: span id is missing or not 8 bytes"),
        ("short parent id", beside_good(Span { parent_span_id: vec![1; 7], ..good() }), rejected!(1, "parent span id is not 8 bytes")),
        ("parent id of zeros says no parent", beside_good(Span { parent_span_id: vec![0; 8], ..good() }), "200, 2 taken"),
        ("no start", beside_good(Span { start_time_unix_nano: 0, ..good() }), rejected!(1, "start time is missing or after the year 2199")),
        ("start in the year 2554", beside_good(Span { start_time_unix_nano: u64::MAX, end_time_unix_nano: u64::MAX, ..good() }), rejected!(1, "start time is missing or after the year 2199")),
        ("end before start", beside_good(Span { end_time_unix_nano: 1, ..good() }), "200, 2 taken"),
        ("no end", beside_good(Span { end_time_unix_nano: 0, ..good() }), "200, 2 taken"),
        ("unknown kind", beside_good(Span { kind: 77, ..good() }), "200, 2 taken"),
        ("10 000 attributes", beside_good(Span { attributes: many(10_000), ..good() }), "200, 2 taken"),
        ("the same attribute twice", beside_good(Span { attributes: many(2), ..good() }), "200, 2 taken"),
        ("10 000 bad spans", post(PROTOBUF, span::protobuf(vec![Span { trace_id: vec![], ..good() }; 10_000])), "200, 0 taken, rejected 10000: span bbbbbbbbbbbbbbbb: trace id is missing or not 16 bytes; span bbbbbbbbbbbbbbbb: trace id is missing or not 16 bytes; span bbbbbbbbbbbbbbbb: trace id is missing or not 16 bytes; span bbbbbbbbbbbbbbbb: trace id is missing or not 16 bytes; span bbbbbbbbbbbbbbbb: trace id is missing or not 16 bytes; and 9995 more"),
        ("no trace id, JSON", post(JSON, span::json([Span { trace_id: vec![], ..good() }])), rejected!(0, "trace id is missing or not 16 bytes")),
        ("id that is not hex", post(JSON, span::json_with(&"aa".repeat(16), &"xx".repeat(16))), rejected!(0, "trace id is missing or not 16 bytes")),
        ("id of an odd number of digits", post(JSON, span::json_with(&"aa".repeat(16), &"a".repeat(31))), rejected!(0, "trace id is missing or not 16 bytes")),
        ("start before 1970", post(JSON, span::json_with("\"1790000000000000000\"", "-1")), rejected!(0, "start time is missing or after the year 2199")),
        ("start beyond 64 bits", post(JSON, span::json_with("\"1790000000000000000\"", "1e30")), rejected!(0, "start time is missing or after the year 2199")),
    ])
    .await;
}

/// A full queue refuses before it reads, a queue full of memory after; both say when to come again.
#[tokio::test]
async fn overload() {
    const BUSY: &str = "503 Unavailable: too many bodies at a time; try again [retry-after: 1]";
    const FULL: &str =
        "503 Unavailable: the journal is full until the database has caught up; try again [retry-after: 1]";
    let mut service = start().await;
    let small = post(PROTOBUF, span::protobuf([span::good()]));
    let slots = all_slots(&service.intake).await;
    assert_eq!(answer(&mut service, &small).await, BUSY);
    assert_eq!(answer(&mut service, &post(JSON, "{}")).await, BUSY);
    assert_eq!(answer(&mut service, &post(PROTOBUF, "broken")).await, BUSY, "the body was not looked at");
    drop(slots);
    assert_eq!(answer(&mut service, &small).await, "200, 1 taken");

    for _ in 0..MOST_KEPT {
        assert_eq!(small.send(service.http).await.line(), "200");
    }
    assert_eq!(small.send(service.http).await.line(), FULL);
    assert_eq!(service.taken(), MOST_KEPT);
    assert_eq!(answer(&mut service, &small).await, "200, 1 taken", "there is room again");
    let refused = |reason| service.meters.bodies_refused.with_label_values(&["http_protobuf", reason]).get();
    assert_eq!((refused("overloaded"), refused("journal_full")), (2, 1));
}

/// Bodies that stop a moment before their end hold memory, up to a common bound. There is none left for others, until the slow ones
/// have been slow for a second: then they give way, one by one.
#[tokio::test]
async fn slow_bodies_give_way() {
    // Of one MiB each; there is room for 32.
    const SLOW: usize = 40;
    let service = start().await;
    let mut slow = Vec::new();
    for _ in 0..SLOW {
        slow.push(begun(&service, MAX_BODY - 1).await);
    }
    let small = post(PROTOBUF, span::protobuf([span::good()]));
    let said = async |line: &str| {
        while small.send(service.http).await.line() != line {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let gave_way = async {
        let mut told = 0;
        while told < SLOW - 32 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let mut head = [0; 12];
            let mut is_told = |connection: &TcpStream| {
                connection.try_read(&mut head).is_ok_and(|read| read == 0 || &head == b"HTTP/1.1 503")
            };
            told += slow.extract_if(.., |connection| is_told(connection)).count();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gave_way).await.expect("the slow ones hold more than there is");
    tokio::time::timeout(Duration::from_secs(20), said("200")).await.expect("none has given way");
    assert_eq!(call(span::protobuf([span::good()])).send(service.grpc).await, "Ok");
}

/// Likewise with as many bodies as may be read at a time, of which nothing comes.
#[tokio::test]
async fn bodies_that_do_not_come_hold_no_places() {
    let service = start().await;
    let mut slow = Vec::new();
    for _ in 0..256 {
        slow.push(begun(&service, 1).await);
    }
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let small = post(PROTOBUF, span::protobuf([span::good()]));
    for _ in 0..50 {
        assert_eq!(small.send(service.http).await.line(), "200");
    }
}

/// A body of the largest size, of which so much has come.
async fn begun(service: &Service, bytes: usize) -> TcpStream {
    let mut connection = TcpStream::connect(service.http).await.unwrap();
    let head = "POST /v1/traces HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-protobuf\r\n";
    connection.write_all(format!("{head}content-length: {MAX_BODY}\r\n\r\n").as_bytes()).await.unwrap();
    // An answer before the end may close the connection.
    drop(connection.write_all(&vec![0; bytes]).await);
    connection
}
