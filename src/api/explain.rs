//! `/v1/traces/{id}/explain`: what each span of a trace was taken for, and what was recorded of it.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::Handles;
use super::extract::Path;
use super::problem::Problem;
use crate::persist::{PersistError, Store};
use tacho_core::assemble::{Explained, Explanation, Look, Resolver};
use tacho_core::domain::call::{Call, Cost, Key, Usage};
use tacho_core::domain::ids::{SpanId, TraceId};
use tacho_core::domain::record::Request;
use tacho_core::domain::time::Timestamp;

/// A trace as it is explained.
#[derive(Serialize)]
pub(crate) struct Trace {
    pub trace_id: String,
    /// Parents before children.
    pub spans: Vec<Span>,
    /// What is stored of it; what still waits for its request is not.
    pub records: Vec<Record>,
}

#[derive(Serialize)]
pub(crate) struct Span {
    pub span_id: String,
    pub parent_span_id: Option<String>,
    pub name: Option<String>,
    pub kind: &'static str,
    pub service: Option<String>,
    /// The instrumentation.
    pub scope: String,
    pub started_at: String,
    pub duration_ms: f64,
    pub failed: bool,
    pub taken_for: &'static str,
    /// The call that a twin is another view of; the span whose request a call is part of.
    pub of: Option<String>,
    pub why: String,
    /// The attributes that the numbers came from.
    pub keys: Vec<&'static str>,
    /// Of a call, what was recorded.
    pub call: Option<CallShown>,
    #[serde(skip)]
    pub depth: usize,
}

#[derive(Clone, Serialize)]
pub(crate) struct CallShown {
    pub provider: Option<String>,
    pub model: Option<String>,
    pub operation: Option<String>,
    /// `reported` or `unknown`.
    pub usage: &'static str,
    /// Why it is not known.
    pub unknown_reason: Option<&'static str>,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cached_input_tokens: u64,
    pub cache_write_tokens: u64,
    pub reasoning_tokens: u64,
    pub cost_nanousd: Option<i64>,
    /// By which prices it was charged.
    pub price_version: Option<String>,
    pub lacks_price: bool,
    pub error_type: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct Record {
    pub span_id: String,
    pub started_at: String,
    pub tenant: String,
    pub user_id: Option<String>,
    pub method: Option<String>,
    pub endpoint: Option<String>,
    pub status_code: Option<u16>,
    pub llm_calls: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cost_nanousd: Option<i64>,
    pub unknown_usage_calls: u64,
    pub unpriced_calls: u64,
}

pub(super) async fn explain(State(handles): State<Handles>, Path(id): Path<String>) -> Result<Json<Trace>, Problem> {
    let malformed = || Problem::Malformed { name: "trace id", wanted: "32 hexadecimal digits", value: id.clone() };
    let trace_id = TraceId::parse(&id).ok_or_else(malformed)?;
    let trace = explained(handles.store()?, &handles.resolver, trace_id, (handles.now)()).await?;
    trace.map(Json).ok_or(Problem::NoTrace)
}

/// Nothing of a trace that is not in the database: it never came, or is not quiet yet.
pub(crate) async fn explained(
    store: &Store,
    resolver: &Resolver,
    trace_id: TraceId,
    now: Timestamp,
) -> Result<Option<Trace>, PersistError> {
    let Some(known) = store.known(trace_id, now).await? else { return Ok(None) };
    let stored: Vec<Key> = known.requests.iter().map(|request| request.record.key).collect();
    let look = Look { stored: &stored, waits: &known.waits, first_seen: known.first_seen, came: known.first_seen, now };
    let Explanation { spans, .. } = resolver.explain(trace_id, &known.trace, look);
    let calls = known.requests.iter().flat_map(|request| &request.calls);
    let calls: BTreeMap<SpanId, CallShown> = calls.map(|call| (call.key.span_id, call_shown(call))).collect();
    let spans = spans.into_iter().map(|span| span_shown(span, &calls)).collect();
    let records = known.requests.iter().map(record_shown).collect();
    Ok(Some(Trace { trace_id: trace_id.to_string(), spans, records }))
}

fn span_shown(span: Explained, calls: &BTreeMap<SpanId, CallShown>) -> Span {
    Span {
        span_id: span.span_id.to_string(),
        parent_span_id: span.parent.map(|parent| parent.to_string()),
        name: span.name.map(String::from),
        kind: span.kind.label(),
        service: span.service.map(String::from),
        scope: span.scope.into(),
        started_at: span.start.to_string(),
        duration_ms: span.end.since(span.start).as_secs_f64() * 1e3,
        failed: span.failed,
        taken_for: span.taken_for.label(),
        of: span.of.map(|of| of.to_string()),
        why: span.why,
        keys: span.keys,
        call: calls.get(&span.span_id).cloned(),
        depth: span.depth,
    }
}

fn call_shown(call: &Call) -> CallShown {
    let text = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
    let (usage, unknown_reason) = match call.usage {
        Usage::Reported(_) => ("reported", None),
        Usage::Unknown(reason) => ("unknown", Some(reason.label())),
    };
    let price_version = match &call.cost {
        Cost::Charged { price_version, .. } => Some(price_version.to_string()),
        Cost::Unpriced | Cost::Unknown => None,
    };
    let tokens = call.usage.tokens();
    CallShown {
        provider: text(&call.provider),
        model: call.model().map(str::to_owned),
        operation: text(&call.operation),
        usage,
        unknown_reason,
        input_tokens: tokens.input,
        output_tokens: tokens.output,
        cached_input_tokens: tokens.cached_input,
        cache_write_tokens: tokens.cache_write,
        reasoning_tokens: tokens.reasoning,
        cost_nanousd: call.cost.charged().map(|cost| cost.0),
        price_version,
        lacks_price: call.lacks_price(),
        error_type: text(&call.error_type),
    }
}

fn record_shown(request: &Request) -> Record {
    let (record, totals) = (&request.record, &request.record.totals);
    let text = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
    Record {
        span_id: record.key.span_id.to_string(),
        started_at: record.key.started_at.to_string(),
        tenant: record.tenant.to_string(),
        user_id: text(&record.user),
        method: text(&record.method),
        endpoint: text(&record.endpoint),
        status_code: record.status,
        llm_calls: totals.calls,
        input_tokens: totals.tokens.input,
        output_tokens: totals.tokens.output,
        cost_nanousd: totals.cost.map(|cost| cost.0),
        unknown_usage_calls: totals.unknown_usage_calls,
        unpriced_calls: totals.unpriced_calls,
    }
}
