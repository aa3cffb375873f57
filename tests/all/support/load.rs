//! Traffic with an exact account of what was sent: batches of traces whose ids, users and tokens follow from a seed, so that any
//! of them can be sent again, letter by letter, and the sum of what was acknowledged is known.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What a unit looks like.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub seed: u64,
    /// Traces in a unit, each a server span with `calls` LLM calls below it.
    pub traces: u64,
    pub calls: u64,
    pub users: u32,
    /// The calls go in a body before that of the server spans.
    pub split: bool,
    /// When the spans began, in nanoseconds since 1970.
    pub began: u64,
}

/// What one user used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    pub requests: u64,
    pub calls: u64,
    pub input: u64,
    pub output: u64,
}

pub(crate) type Account = BTreeMap<String, Used>;

/// One or two bodies, and what they say was used.
pub(crate) struct Unit {
    pub bodies: Vec<Vec<u8>>,
    pub account: Account,
}

impl Shape {
    /// The same for the same number, always.
    pub(crate) fn unit(&self, number: u64) -> Unit {
        let mut random = StdRng::seed_from_u64(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number);
        let mut account = Account::new();
        let (mut servers, mut calls) = (Vec::new(), Vec::new());
        for _ in 0..self.traces {
            let trace = random.random::<[u8; 16]>();
            let server = random.random::<[u8; 8]>();
            let user = format!("user-{}", random.random_range(0..self.users));
            let used = account.entry(user.clone()).or_default();
            used.requests += 1;
            servers.push(self.server_span(trace, server, &user));
            for _ in 0..self.calls {
                let (input, output) = (random.random_range(1..4_000), random.random_range(1..1_000));
                used.calls += 1;
                used.input += input;
                used.output += output;
                calls.push(self.call_span(trace, random.random(), server, input, output));
            }
        }
        let groups = if self.split { vec![(vec![], calls), (servers, vec![])] } else { vec![(servers, calls)] };
        Unit { bodies: groups.into_iter().map(|(servers, calls)| body(servers, calls)).collect(), account }
    }

    fn server_span(&self, trace: [u8; 16], id: [u8; 8], user: &str) -> Span {
        let attributes = vec![
            text("http.request.method", "POST"),
            text("url.scheme", "http"),
            text("server.address", "127.0.0.1"),
            text("network.protocol.version", "1.1"),
            text("url.path", "/agents/support/invoke"),
            text("http.route", "/agents/{agent_id}/invoke"),
            text("user_agent.original", "python-httpx/0.28.1"),
            text("user.id", user),
            count("http.response.status_code", 200),
        ];
        let name = "POST /agents/{agent_id}/invoke";
        Span { start_time_unix_nano: self.began, ..self.span(trace, id, vec![], 2, name, attributes) }
    }

    fn call_span(&self, trace: [u8; 16], id: [u8; 8], parent: [u8; 8], input: u64, output: u64) -> Span {
        let attributes = vec![
            text("gen_ai.operation.name", "chat"),
            text("gen_ai.provider.name", "openai"),
            text("gen_ai.request.model", "gpt-4o-mini"),
            text("gen_ai.response.model", "gpt-4o-mini-2024-07-18"),
            text("gen_ai.response.id", &format!("chatcmpl-{:016x}", u64::from_be_bytes(id))),
            text("server.address", "127.0.0.1"),
            count("server.port", 8_080),
            count("gen_ai.usage.input_tokens", input),
            count("gen_ai.usage.output_tokens", output),
        ];
        self.span(trace, id, parent.to_vec(), 3, "chat gpt-4o-mini", attributes)
    }

    fn span(
        &self,
        trace: [u8; 16],
        id: [u8; 8],
        parent_span_id: Vec<u8>,
        kind: i32,
        name: &str,
        attributes: Vec<KeyValue>,
    ) -> Span {
        Span {
            trace_id: trace.to_vec(),
            span_id: id.to_vec(),
            parent_span_id,
            kind,
            name: name.into(),
            // A call begins a while after its request.
            start_time_unix_nano: self.began + 1_000_000,
            end_time_unix_nano: self.began + 800_000_000,
            attributes,
            ..Span::default()
        }
    }
}

/// Adds what another account says.
pub(crate) fn add(account: &mut Account, other: &Account) {
    for (user, used) in other {
        let sum = account.entry(user.clone()).or_default();
        sum.requests += used.requests;
        sum.calls += used.calls;
        sum.input += used.input;
        sum.output += used.output;
    }
}

fn body(servers: Vec<Span>, calls: Vec<Span>) -> Vec<u8> {
    let scope = |name: &str, spans| ScopeSpans {
        scope: Some(InstrumentationScope { name: name.into(), ..InstrumentationScope::default() }),
        spans,
        ..ScopeSpans::default()
    };
    let resource = Resource { attributes: vec![text("service.name", "load")], ..Resource::default() };
    let scope_spans = vec![
        scope("opentelemetry.instrumentation.fastapi", servers),
        scope("opentelemetry.instrumentation.openai_v2", calls),
    ];
    let resource_spans = ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec()
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

fn count(key: &str, value: u64) -> KeyValue {
    attribute(key, Value::IntValue(value.cast_signed()))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
