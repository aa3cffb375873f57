//! JSON with one odd value in it, at every place, beside nineteen good spans: they all come, and what is lost is said.

use tacho_core::decode::{Batch, read_json};
use tacho_core::domain::facts::Field;

use crate::same::rules;

/// A span with everything a span may have, to be made odd.
const SPAN: &str = r#"{"traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"0102030405060708","parentSpanId":"",
    "traceState":"","flags":256,"name":"POST /a","kind":2,
    "startTimeUnixNano":"1790000000000000000","endTimeUnixNano":"1790000001000000000",
    "attributes":[{"key":"http.request.method","value":{"stringValue":"POST"}},{"key":"other","value":{"intValue":"1"}},
        {"key":"gen_ai.usage.input_tokens","value":{"intValue":"7"}},{"key":"gen_ai.request.stream","value":{"boolValue":true}},
        {"key":"gen_ai.usage.cost","value":{"doubleValue":0.5}},
        {"key":"http.request.header.x_user_id","value":{"arrayValue":{"values":[{"stringValue":"ann"}]}}}],
    "droppedAttributesCount":0,
    "events":[{"timeUnixNano":"1","name":"exception","attributes":[{"key":"exception.type","value":{"stringValue":"E"}}],
        "droppedAttributesCount":0}],"droppedEventsCount":0,
    "links":[{"traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"0102030405060708","attributes":[],"flags":256}],
    "droppedLinksCount":0,"status":{"code":2,"message":"no"}}"#;
const RESOURCE: &str =
    r#"{"attributes":[{"key":"service.name","value":{"stringValue":"bot"}}],"droppedAttributesCount":0}"#;
const SCOPE: &str = r#"{"name":"scope","version":"1","attributes":[]}"#;

/// The whole body, in which the last of twenty spans is this one.
fn body(span: &str) -> String {
    let good = |number| SPAN.replace("\"spanId\":\"01", &format!("\"spanId\":\"{number:02x}"));
    let spans: Vec<String> = (2..21).map(good).chain([span.to_owned()]).collect();
    format!(
        r#"{{"resourceSpans":[{{"resource":{RESOURCE},"scopeSpans":[{{"scope":{SCOPE},"spans":[{}],"schemaUrl":""}}],"schemaUrl":""}}]}}"#,
        spans.join(",")
    )
}

fn read(body: &str) -> Batch {
    read_json(body.as_bytes(), &rules()).unwrap_or_else(|malformed| panic!("{malformed}: {body}"))
}

/// The body with one part of it, that of the last span if there are several, replaced.
fn with(part: &str, by: &str) -> String {
    let body = body(SPAN);
    let at = body.rfind(part).unwrap_or_else(|| panic!("{part} is not in the body"));
    format!("{}{by}{}", &body[..at], &body[at + part.len()..])
}

/// How many spans came, and what is said of the rest.
fn said(batch: &Batch) -> String {
    let told = [batch.unread.message(), batch.rejected.message()];
    let told: String = told.iter().filter(|said| !said.is_empty()).map(|said| format!("; {said}")).collect();
    format!("{}{told}", batch.extract.len())
}

const ALL: &str = "20";
const NO_TRACE_ID: &str = "19; span 0102030405060708: trace id is missing or not 16 bytes";
const NO_SPAN_ID: &str = "19; span 00: span id is missing or not 8 bytes";
const NO_PARENT: &str = "19; span 0102030405060708: parent span id is not 8 bytes";
const NO_START: &str = "19; span 0102030405060708: start time is missing or after the year 2199";
const NO_SPAN: &str = "19; span : trace id is missing or not 16 bytes";

/// What is said of one value that is lost.
macro_rules! lost {
    ($name:literal) => {
        concat!("20; one value could not be read: ", $name)
    };
}

#[test]
#[rustfmt::skip] // one row, one case
fn what_is_odd_costs_no_neighbour() {
    let rows = [
        // Attributes that nobody reads.
        (r#"{"intValue":"1"}"#, r#"{"intValue":1e21}"#, ALL),
        (r#"{"intValue":"1"}"#, r#"{"intValue":1e999}"#, ALL),
        (r#"{"intValue":"1"}"#, r#"{"intValue":18446744073709551615}"#, ALL),
        (r#"{"intValue":"1"}"#, r#"{"intValue":-1}"#, ALL),
        (r#"{"intValue":"1"}"#, r#"{"intValue":1.5}"#, ALL),
        (r#"{"intValue":"1"}"#, r#"{"intValue":"SECRET"}"#, ALL),
        (r#"{"intValue":"1"}"#, r#"{"intValue":[[{}]]}"#, ALL),
        (r#"{"intValue":"1"}"#, r#"{"doubleValue":null}"#, ALL),
        (r#"{"intValue":"1"}"#, r#"{"doubleValue":true}"#, ALL),
        (r#"{"intValue":"1"}"#, r#"{"stringValue":7}"#, ALL),
        (r#"{"intValue":"1"}"#, r#"{"stringValue":"cut \ud83d"}"#, ALL),
        (r#"{"intValue":"1"}"#, r#"{"boolValue":"maybe"}"#, ALL),
        (r#"{"intValue":"1"}"#, r#"{"arrayValue":[1,2]}"#, ALL),
        (r#"{"intValue":"1"}"#, r#"{"arrayValue":{"values":7}}"#, ALL),
        (r#"{"intValue":"1"}"#, r#"{"kvlistValue":{"values":[{"key":7,"value":7}]}}"#, ALL),
        (r#"{"intValue":"1"}"#, r#"{"bytesValue":7}"#, ALL),
        (r#"{"intValue":"1"}"#, r#"{"other":7}"#, ALL),
        (r#"{"intValue":"1"}"#, r#"{"intValue":"1","intValue":"1"}"#, ALL),
        (r#"{"intValue":"1"}"#, "7", ALL),
        (r#"{"intValue":"1"}"#, "[]", ALL),
        (r#"{"key":"other","value":{"intValue":"1"}}"#, r#"{"key":7,"value":{}}"#, ALL),
        (r#"{"key":"other","value":{"intValue":"1"}}"#, r#"{"key":["other"],"value":{}}"#, ALL),
        (r#"{"key":"other","value":{"intValue":"1"}}"#, r#"{"value":{}}"#, ALL),
        (r#"{"key":"other","value":{"intValue":"1"}}"#, r#"{"key":"a","key":"b"}"#, ALL),
        (r#"{"key":"other","value":{"intValue":"1"}}"#, "null", ALL),
        (r#"{"key":"other","value":{"intValue":"1"}}"#, "1e999", ALL),
        (r#"{"key":"other","value":{"intValue":"1"}}"#, "[[]]", ALL),
        // Attributes that would be read.
        (r#"{"intValue":"7"}"#, r#"{"intValue":"SECRET"}"#, lost!("gen_ai.usage.input_tokens")),
        (r#"{"intValue":"7"}"#, r#"{"intValue":true}"#, lost!("gen_ai.usage.input_tokens")),
        (r#"{"intValue":"7"}"#, r#"{"intValue":{"low":7,"high":0}}"#, lost!("gen_ai.usage.input_tokens")),
        (r#"{"intValue":"7"}"#, r#"{"intValue":null}"#, lost!("gen_ai.usage.input_tokens")),
        (r#"{"intValue":"7"}"#, "7", lost!("gen_ai.usage.input_tokens")),
        (r#"{"doubleValue":0.5}"#, r#"{"doubleValue":null}"#, lost!("gen_ai.usage.cost")),
        (r#"{"doubleValue":0.5}"#, r#"{"doubleValue":"cheap"}"#, lost!("gen_ai.usage.cost")),
        (r#"{"doubleValue":0.5}"#, r#"{"doubleValue":1e999}"#, ALL),
        (r#"{"boolValue":true}"#, r#"{"boolValue":"maybe"}"#, lost!("gen_ai.request.stream")),
        (r#"{"stringValue":"POST"}"#, r#"{"stringValue":["POST"]}"#, lost!("http.request.method")),
        (r#"{"stringValue":"POST"}"#, r#""POST""#, lost!("http.request.method")),
        (r#"{"stringValue":"POST"}"#, r#"{"bytesValue":"AAEC"}"#, ALL),
        (r#"{"values":[{"stringValue":"ann"}]}"#, r#"["ann"]"#, lost!("http.request.header.x_user_id")),
        (r#"{"values":[{"stringValue":"ann"}]}"#, r#"{"values":[{"stringValue":{}}]}"#, lost!("http.request.header.x_user_id")),
        // Lists, events, links, counts.
        (r#""attributes":[{"key":"http"#, r#""attributes":{},"x":[{"key":"http"#, lost!("attributes")),
        (r#""attributes":[{"key":"http"#, r#""attributes":1e999,"x":[{"key":"http"#, lost!("attributes")),
        (r#""attributes":[{"key":"http"#, r#""attributes":null,"attributes":[{"key":"http"#, ALL),
        (r#""events":["#, r#""events":"none","x":["#, lost!("events")),
        (r#""events":["#, r#""events":[7,"#, lost!("events")),
        (r#""events":["#, r#""events":[null,{"attributes":{}},"#, lost!("attributes")),
        (r#"{"stringValue":"E"}"#, r#"{"stringValue":{}}"#, lost!("exception.type")),
        (r#""timeUnixNano":"1","name":"exception""#, r#""timeUnixNano":[],"name":{}"#, ALL),
        (r#""links":["#, r#""links":7,"x":["#, ALL),
        (r#""links":["#, r#""links":[null,7,{"traceId":7},"#, ALL),
        (r#""droppedAttributesCount":0,
    "events""#, r#""droppedAttributesCount":-1e99,"events""#, ALL),
        (r#""droppedLinksCount":0"#, r#""droppedLinksCount":"many""#, ALL),
        // The span's own fields.
        (r#""kind":2"#, r#""kind":"SPAN_KIND_OTHER""#, lost!("kind")),
        (r#""kind":2"#, r#""kind":1e999"#, lost!("kind")),
        (r#""kind":2"#, r#""kind":null"#, ALL),
        (r#""kind":2"#, r#""kind":2,"kind":2"#, ALL),
        (r#""name":"POST /a""#, r#""name":7"#, ALL),
        (r#""name":"POST /a""#, r#""name":["POST /a"]"#, lost!("name")),
        (r#""flags":256,"name""#, r#""flags":"remote","name""#, lost!("flags")),
        (r#""flags":256,"name""#, r#""flags":4294967296,"name""#, lost!("flags")),
        (r#""traceState":"""#, r#""traceState":{}"#, ALL),
        (r#"{"code":2,"message":"no"}"#, r#""STATUS_CODE_ERROR""#, lost!("status")),
        (r#"{"code":2,"message":"no"}"#, r#"{"code":"broken"}"#, lost!("status.code")),
        (r#"{"code":2,"message":"no"}"#, r#"{"code":2,"message":{}}"#, lost!("status.message")),
        (r#"{"code":2,"message":"no"}"#, "null", ALL),
        // What makes it a span.
        (r#""traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"0102030405060708","p"#, r#""traceId":7,"spanId":"0102030405060708","p"#, NO_TRACE_ID),
        (r#""traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"0102030405060708","p"#, r#""traceId":"AQIDBAUGBwgJCgsMDQ4PEA==","spanId":"0102030405060708","p"#, NO_TRACE_ID),
        (r#""spanId":"0102030405060708","parent"#, r#""spanId":[],"parent"#, NO_SPAN_ID),
        (r#""parentSpanId":"""#, r#""parentSpanId":0"#, NO_PARENT),
        (r#""parentSpanId":"""#, r#""parentSpanId":null"#, ALL),
        (r#""1790000000000000000""#, r#""2026-09-21T14:13:20Z""#, NO_START),
        (r#""1790000000000000000""#, "-1", NO_START),
        (r#""1790000000000000000""#, "1e30", NO_START),
        (r#""1790000000000000000""#, "1e999", NO_START),
        (r#""1790000000000000000""#, "null", NO_START),
        (SPAN, "7", NO_SPAN),
        (SPAN, "null", NO_SPAN),
        (SPAN, "[]", NO_SPAN),
        // What is around the spans.
        (RESOURCE, "7", lost!("resource")),
        (RESOURCE, r#"{"attributes":{"service.name":"bot"}}"#, lost!("attributes")),
        (r#"{"stringValue":"bot"}"#, r#"{"stringValue":{}}"#, lost!("service.name")),
        (r#"{"stringValue":"bot"}"#, r#"{"intValue":1e999}"#, lost!("service.name")),
        (SCOPE, r#""scope""#, lost!("scope")),
        (SCOPE, r#"{"name":{}}"#, lost!("scope.name")),
        (SCOPE, r#"{"name":7,"version":7,"attributes":7}"#, ALL),
        (r#""schemaUrl":""}]}"#, r#""schemaUrl":7}],"schemaUrl":{}}"#, ALL),
        (r#"{"resourceSpans":["#, r#"{"resourceSpans":["SECRET","#, lost!("resourceSpans")),
        (r#"{"resourceSpans":["#, r#"{"resourceSpans":[null,"#, ALL),
        (r#"{"resourceSpans":["#, r#"{"resourceSpans":[{"scopeSpans":7},"#, lost!("scopeSpans")),
        (r#"{"resourceSpans":["#, r#"{"resourceSpans":[{"scopeSpans":[7]},"#, lost!("scopeSpans")),
        (r#"{"resourceSpans":["#, r#"{"resourceSpans":[{"scopeSpans":[{"spans":{}}]},"#, lost!("spans")),
        (r#"{"resourceSpans":["#, r#"{"resourceSpans":null,"other":1e999,"resourceSpans":["#, ALL),
    ];
    let mut wrong = Vec::new();
    for (part, by, expected) in rows {
        let told = said(&read(&with(part, by)));
        if told != expected {
            wrong.push(format!("{by} in the place of {part}\n  expected {expected}\n  said     {told}"));
        }
        assert!(!told.contains("SECRET"), "{told}");
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// Written otherwise than the rules have it, and clear.
#[test]
fn what_is_clear_is_read() {
    for (part, by) in [
        (r#"{"intValue":"7"}"#, r#"{"intValue":7}"#),
        (r#"{"intValue":"7"}"#, r#"{"intValue":"7.0"}"#),
        (r#"{"intValue":"7"}"#, r#"{"intValue":7.0}"#),
        (r#"{"intValue":"7"}"#, r#"{"intValue":0.7e1}"#),
        (r#"{"intValue":"7"}"#, r#"{"stringValue":"7"}"#),
        (r#"{"intValue":"7"}"#, r#"{"stringValue":7}"#),
        (r#"{"intValue":"7"}"#, r#"{"doubleValue":7}"#),
        (r#"{"intValue":"7"}"#, r#"{"bytesValue":"","intValue":"6","intValue":"7"}"#),
        (r#"{"boolValue":true}"#, r#"{"boolValue":"true"}"#),
        (r#"{"boolValue":true}"#, r#"{"boolValue":1}"#),
        (r#"{"boolValue":true}"#, r#"{"stringValue":true}"#),
        (r#"{"doubleValue":0.5}"#, r#"{"doubleValue":"0.5"}"#),
        (r#"{"doubleValue":0.5}"#, r#"{"intValue":0.5}"#),
        (r#""kind":2"#, r#""kind":"SPAN_KIND_SERVER""#),
        (r#""kind":2"#, r#""kind":"2""#),
        (r#""kind":2"#, r#""kind":2.0"#),
        (r#""code":2"#, r#""code":"STATUS_CODE_ERROR""#),
        (r#""code":2"#, r#""\u0063ode":2"#),
        (r#""1790000000000000000""#, "1790000000000000000"),
        (r#""1790000000000000000""#, "1790000000000000000.0"),
        (r#""1790000000000000000""#, "1.79e18"),
        (r#""1790000000000000000""#, r#""1.79E+18""#),
        (r#""spanId":"0102030405060708""#, r#""spanId":"0102030405060708","spanId":null,"spanId":"0102030405060708""#),
        (r#""attributes":[{"key":"http"#, r#""attributes":[],"attributes":[{"key":"http"#),
        (r#"{"key":"other","value":"#, r#"{"value":{"stringValue":"x"},"key":"other","value":"#),
    ] {
        assert_eq!(read(&with(part, by)), read(&body(SPAN)), "{by}");
    }
}

/// As no exporter writes it, but JSON has no order.
#[test]
fn spans_may_stand_before_their_resource_and_scope() {
    let swapped = body(SPAN)
        .replace(&format!(r#""resource":{RESOURCE},"#), "")
        .replace(&format!(r#""scope":{SCOPE},"#), "")
        .replace(r#"],"schemaUrl":""}],"#, &format!(r#"],"scope":{SCOPE}}}],"resource":{RESOURCE},"#));
    assert_eq!(read(&swapped), read(&body(SPAN)));
    assert_eq!(read(&swapped).services[0].service.as_deref(), Some("bot"));
}

/// A count that no call could have is said on the record, not lost.
#[test]
fn a_number_beyond_all_bounds_is_implausible() {
    for by in [r#"{"intValue":1e21}"#, r#"{"intValue":18446744073709551615}"#, r#"{"intValue":"99999999999999999999"}"#]
    {
        let spans = read(&with(r#"{"intValue":"7"}"#, by)).extract.spans();
        let facts = &spans.last().unwrap().span.facts;
        assert_eq!((facts.number(Field::ImplausibleTokens), facts.number(Field::InputTokens)), (Some(1), None), "{by}");
    }
}

#[test]
fn what_is_no_request_is_refused_whole() {
    for (body, fault) in [
        ("", "a request that is no object at byte 0"),
        ("null", "a request that is no object at byte 0"),
        ("[]", "a request that is no object at byte 0"),
        ("{\"resourceSpans\":{}}", "resourceSpans that are no array at byte 19"),
        ("{\"resourceSpans\":\"SECRET\"}", "resourceSpans that are no array at byte 25"),
        ("{\"resourceSpans\":[]} x", "more behind the end at byte 21"),
        ("{\"resourceSpans\":[", "the end, where a value should be at byte 18"),
        ("{\"resourceSpans\":[]", "an object or array without an end at byte 19"),
        ("{\"a\":nothing}", "no value where there should be one at byte 5"),
    ] {
        assert_eq!(read_json(body.as_bytes(), &rules()).unwrap_err().to_string(), fault, "{body}");
    }
}
