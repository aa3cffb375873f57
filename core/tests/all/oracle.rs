//! The second opinion on protobuf bodies: prost decodes the whole request, it is written down as OTLP/JSON, and the JSON reader
//! takes it from there. Nothing of the walk over the bytes is used, so where the two agree, both roads lead to the same facts.
//! The tests and the fuzz targets share this file.

use std::fmt::Write;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use tacho_core::decode::{self, Batch, Rules};

/// How 64-bit numbers are written: the protobuf JSON rule says text, many senders write numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    Text,
    Bare,
}

/// `None` where a full decoder refuses the body.
pub fn read(body: &[u8], rules: &Rules) -> Option<Batch> {
    let request = ExportTraceServiceRequest::decode(body).ok()?;
    let json = to_json(&request, Numbers::Text);
    match decode::read_json(json.as_bytes(), rules) {
        Ok(batch) => Some(batch),
        Err(malformed) => panic!("the JSON reader refused what was written by the rules: {malformed}\n{json}"),
    }
}

/// Panics where the walk and the full decoder disagree. Says whether they accepted.
pub fn check(body: &[u8], rules: &Rules) -> bool {
    match (decode::read_protobuf(body, rules), read(body, rules)) {
        (Ok(walked), Some(decoded)) => {
            assert_eq!(walked, decoded, "both accept, but not the same\nbody: {}", hex(body));
            true
        }
        (Err(_), None) => false,
        (Ok(_), None) => panic!("the walk accepts what a decoder refuses\nbody: {}", hex(body)),
        (Err(malformed), Some(_)) => {
            panic!("the walk refuses what a decoder accepts: {malformed}\nbody: {}", hex(body))
        }
    }
}

/// The request in OTLP/JSON.
pub fn to_json(request: &ExportTraceServiceRequest, numbers: Numbers) -> String {
    let mut writer = Writer { json: String::new(), numbers };
    writer.list("{\"resourceSpans\":", &request.resource_spans, Writer::resource_spans);
    writer.json + "}"
}

struct Writer {
    json: String,
    numbers: Numbers,
}

/// Deeper values are cut off: no fact comes from inside them, and JSON readers have a limit of their own.
const DEEPEST_VALUE: usize = 8;

impl Writer {
    fn resource_spans(&mut self, resource_spans: &ResourceSpans) {
        self.json.push('{');
        if let Some(resource) = &resource_spans.resource {
            self.list("\"resource\":{\"attributes\":", &resource.attributes, Self::attribute);
            self.json.push_str("},");
        }
        self.list("\"scopeSpans\":", &resource_spans.scope_spans, Self::scope_spans);
        self.json.push('}');
    }

    fn scope_spans(&mut self, scope_spans: &ScopeSpans) {
        self.json.push('{');
        if let Some(scope) = &scope_spans.scope {
            self.text("\"scope\":{\"name\":", &scope.name);
            self.json.push_str("},");
        }
        self.list("\"spans\":", &scope_spans.spans, Self::span);
        self.json.push('}');
    }

    fn span(&mut self, span: &Span) {
        self.text("{\"traceId\":", &hex(&span.trace_id));
        self.text(",\"spanId\":", &hex(&span.span_id));
        self.text(",\"parentSpanId\":", &hex(&span.parent_span_id));
        self.text(",\"name\":", &span.name);
        self.plain(",\"kind\":", span.kind);
        self.plain(",\"flags\":", span.flags);
        self.number(",\"startTimeUnixNano\":", span.start_time_unix_nano);
        self.number(",\"endTimeUnixNano\":", span.end_time_unix_nano);
        if let Some(status) = &span.status {
            self.text(",\"status\":{\"message\":", &status.message);
            self.plain(",\"code\":", status.code);
            self.json.push('}');
        }
        self.list(",\"attributes\":", &span.attributes, Self::attribute);
        self.list(",\"events\":", &span.events, |writer, event| {
            writer.list("{\"attributes\":", &event.attributes, Self::attribute);
            writer.json.push('}');
        });
        self.json.push('}');
    }

    fn attribute(&mut self, attribute: &KeyValue) {
        self.attribute_within(attribute, 0);
    }

    fn attribute_within(&mut self, attribute: &KeyValue, depth: usize) {
        self.text("{\"key\":", &attribute.key);
        if let Some(value) = &attribute.value {
            self.json.push_str(",\"value\":");
            self.value(value, depth);
        }
        self.json.push('}');
    }

    fn value(&mut self, value: &AnyValue, depth: usize) {
        use any_value::Value::{
            ArrayValue, BoolValue, BytesValue, DoubleValue, IntValue, KvlistValue, StringValue, StringValueStrindex,
        };
        self.json.push('{');
        match value.value.as_ref().filter(|_| depth < DEEPEST_VALUE) {
            None => {}
            Some(StringValue(text)) => self.text("\"stringValue\":", text),
            Some(BoolValue(set)) => self.plain("\"boolValue\":", set),
            Some(IntValue(number)) => self.number("\"intValue\":", number),
            Some(DoubleValue(number)) => self.double(*number),
            Some(BytesValue(_)) => self.text("\"bytesValue\":", "AAEC"),
            Some(StringValueStrindex(index)) => self.plain("\"stringValueStrindex\":", index),
            Some(ArrayValue(array)) => {
                self.list("\"arrayValue\":{\"values\":", &array.values, |writer, value| writer.value(value, depth + 1));
                self.json.push('}');
            }
            Some(KvlistValue(list)) => {
                self.list("\"kvlistValue\":{\"values\":", &list.values, |writer, attribute| {
                    writer.attribute_within(attribute, depth + 1);
                });
                self.json.push('}');
            }
        }
        self.json.push('}');
    }

    fn double(&mut self, number: f64) {
        // What JSON has no number for is a text in either style.
        if number.is_infinite() {
            self.text("\"doubleValue\":", if number > 0.0 { "Infinity" } else { "-Infinity" });
        } else if self.numbers == Numbers::Text || number.is_nan() {
            self.text("\"doubleValue\":", &format!("{number:?}"));
        } else {
            self.plain("\"doubleValue\":", format_args!("{number:?}"));
        }
    }

    fn number(&mut self, name: &str, number: impl std::fmt::Display) {
        match self.numbers {
            Numbers::Text => self.plain(name, format_args!("\"{number}\"")),
            Numbers::Bare => self.plain(name, number),
        }
    }

    fn text(&mut self, name: &str, text: &str) {
        self.plain(name, serde_json::to_string(text).expect("a text can be written as JSON"));
    }

    fn plain(&mut self, name: &str, value: impl std::fmt::Display) {
        write!(self.json, "{name}{value}").expect("writing to a String does not fail");
    }

    fn list<T>(&mut self, name: &str, items: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.json.push_str(name);
        self.json.push('[');
        for (position, item) in items.iter().enumerate() {
            if position > 0 {
                self.json.push(',');
            }
            write(self, item);
        }
        self.json.push(']');
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
