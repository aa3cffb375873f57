//! Cases of `resolve`, each a few spans and the text they come to; then hostile traces, properties, and the gatherer.

mod calls;
mod gather;
mod hostile;
mod made;
mod properties;
mod records;
mod requests;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use expect_test::Expect;

use super::{AssembleConfig, Look, Resolution, Resolver};
use crate::domain::call::{Call, Key, Usage};
use crate::domain::facts::{FactsBuilder, Field};
use crate::domain::ids::{SpanId, TraceId};
use crate::domain::record::Request;
use crate::domain::span::{Kind, Origin, Span};
use crate::domain::time::Timestamp;
use crate::domain::trace::{Trace, Waits};

/// One span being described; times are milliseconds.
#[derive(Clone, Debug)]
struct Sketch {
    id: u64,
    parent: Option<u64>,
    remote: bool,
    kind: Kind,
    time: (u64, u64),
    failed: bool,
    origin: Origin,
    facts: BTreeMap<Field, Said>,
}

#[derive(Clone, Debug)]
enum Said {
    Number(u64),
    Text(String),
}

fn span(id: u64) -> Sketch {
    let origin = Origin { service: Some("bot".into()), scope: "a".into(), ..Origin::default() };
    Sketch {
        id,
        parent: None,
        remote: false,
        kind: Kind::Internal,
        time: (100, 200),
        failed: false,
        origin,
        facts: BTreeMap::new(),
    }
}

/// `POST /chat`, answered with 200.
fn server(id: u64) -> Sketch {
    let http = span(id).kind(Kind::Server).at(0, 1_000).text(Field::HttpMethod, "POST");
    http.text(Field::HttpRoute, "/chat").number(Field::HttpStatus, 200)
}

/// A call of the model `m` without tokens.
fn chat(id: u64) -> Sketch {
    span(id).kind(Kind::Client).text(Field::Operation, "chat").text(Field::RequestModel, "m")
}

impl Sketch {
    fn under(mut self, parent: u64) -> Self {
        self.parent = Some(parent);
        self
    }

    /// Below a span of another process.
    fn under_remote(mut self, parent: u64) -> Self {
        (self.parent, self.remote) = (Some(parent), true);
        self
    }

    fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    fn at(mut self, start: u64, end: u64) -> Self {
        self.time = (start, end);
        self
    }

    fn failed(mut self) -> Self {
        self.failed = true;
        self
    }

    fn scope(mut self, scope: &str) -> Self {
        self.origin.scope = scope.into();
        self
    }

    fn namespace(mut self, namespace: &str) -> Self {
        self.origin.namespace = Some(namespace.into());
        self
    }

    fn number(mut self, field: Field, number: u64) -> Self {
        self.facts.insert(field, Said::Number(number));
        self
    }

    fn text(mut self, field: Field, text: &str) -> Self {
        self.facts.insert(field, Said::Text(text.to_owned()));
        self
    }

    fn without(mut self, field: Field) -> Self {
        self.facts.remove(&field);
        self
    }

    fn tokens(self, input: u64, output: u64) -> Self {
        self.number(Field::InputTokens, input).number(Field::OutputTokens, output)
    }

    fn answer(self, id: u64) -> Self {
        self.text(Field::ResponseId, &id.to_string())
    }

    fn build(&self) -> (Arc<Origin>, Span) {
        let mut facts = FactsBuilder::default();
        for (field, said) in &self.facts {
            match said {
                Said::Number(number) => facts.number(*field, *number),
                Said::Text(text) => facts.text(*field, text),
            }
        }
        let span = Span {
            id: span_id(self.id),
            parent: self.parent.map(span_id),
            remote_parent: self.remote,
            kind: self.kind,
            start: Timestamp(self.time.0 * 1_000_000),
            end: Timestamp(self.time.1 * 1_000_000),
            failed: self.failed,
            facts: facts.take(),
        };
        (Arc::new(self.origin.clone()), span)
    }
}

fn span_id(number: u64) -> SpanId {
    SpanId::from_bytes(&number.to_be_bytes()).unwrap()
}

fn trace_id() -> TraceId {
    TraceId::from_bytes(&[7; 16]).unwrap()
}

fn delivery<'s>(sketches: impl IntoIterator<Item = &'s Sketch>) -> Trace {
    let mut trace = Trace::default();
    for sketch in sketches {
        let (origin, span) = sketch.build();
        trace.push(&origin, span);
    }
    trace
}

fn resolve(sketches: &[Sketch], expired: bool) -> Resolution {
    let trace = Trace::default().joined(delivery(sketches));
    Resolver::new(&AssembleConfig::default()).resolve(trace_id(), &trace, look(&[], &Waits::new(), expired))
}

/// At the first look, or when nothing is waited for any longer.
fn look<'k>(stored: &'k [Key], waits: &'k Waits, expired: bool) -> Look<'k> {
    let now = if expired { Timestamp::LATEST } else { Timestamp(0) };
    Look { stored, waits, first_seen: Timestamp(0), came: Timestamp(0), now }
}

/// What the spans come to while more may come.
fn check<const N: usize>(sketches: [Sketch; N], expected: Expect) {
    expected.assert_eq(&show(&resolve(&sketches, false)));
}

/// What they come to when nothing is waited for any longer.
fn check_expired<const N: usize>(sketches: [Sketch; N], expected: Expect) {
    expected.assert_eq(&show(&resolve(&sketches, true)));
}

fn show(resolution: &Resolution) -> String {
    let mut text = String::new();
    for request in &resolution.requests {
        show_request(&mut text, request);
    }
    if resolution.due.is_some() && resolution.waits.is_empty() {
        text.push_str("nothing yet\n");
    }
    for parent in resolution.waits.keys().filter(|_| resolution.due.is_some()) {
        writeln!(text, "waiting for {}", short(*parent)).unwrap();
    }
    text
}

/// A line for the record, then one for each call.
fn show_request(text: &mut String, request: &Request) {
    let record = &request.record;
    let status = record.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
    let method = record.method.as_deref().unwrap_or("-");
    let endpoint = record.endpoint.as_deref().unwrap_or("-");
    write!(text, "{} {method} {endpoint} {status}", short(record.key.span_id)).unwrap();
    let names =
        [("user", &record.user), ("agent", &record.agent), ("session", &record.session), ("error", &record.error)];
    for (name, value) in names {
        if let Some(value) = value {
            write!(text, " {name}={value}").unwrap();
        }
    }
    if &*record.tenant != "default" {
        write!(text, " tenant={}", record.tenant).unwrap();
    }
    text.push('\n');
    for call in &request.calls {
        show_call(text, call);
    }
}

fn show_call(text: &mut String, call: &Call) {
    write!(text, "  {} {}", short(call.key.span_id), call.model().unwrap_or("-")).unwrap();
    match &call.usage {
        Usage::Unknown(why) => write!(text, " unknown={}", why.label()).unwrap(),
        Usage::Reported(tokens) => {
            write!(text, " in={} out={}", tokens.input, tokens.output).unwrap();
            let parts =
                [("cached", tokens.cached_input), ("write", tokens.cache_write), ("reasoning", tokens.reasoning)];
            for (name, count) in parts.into_iter().filter(|(_, count)| *count > 0) {
                write!(text, " {name}={count}").unwrap();
            }
        }
    }
    if let Some(error) = &call.error_type {
        write!(text, " error={error}").unwrap();
    }
    writeln!(text, " [{}]", call.dialect).unwrap();
}

/// A span id without its leading zeros.
fn short(id: SpanId) -> String {
    format!("#{}", id.to_string().trim_start_matches('0'))
}
