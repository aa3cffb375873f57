//! What a document says: ECS names where there are some, `tacho.*` for the rest. A record that went keeps its ids and no amounts, so
//! that sums need no filter.

use std::io::Write as _;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::persist::{CallRow, LimitEventRow, RecordChange, RecordRow, RecordState};
use tacho_core::domain::call::Key;

/// The revision takes the lower half of a version, the epoch of the database the upper.
const REVISIONS: i64 = 1 << 32;
const NANOS_PER_DOLLAR: f64 = 1e9;
const NANOS_PER_MILLISECOND: f64 = 1e6;

/// The two lines of a bulk request.
pub(super) fn record(index: &str, change: &RecordChange, epoch: i64) -> Bytes {
    let Key { started_at, trace_id, span_id } = &change.key;
    let start = started_at.to_string();
    let version = epoch.saturating_mul(REVISIONS).saturating_add(change.revision);
    let mut lines = Vec::with_capacity(1024);
    let (year, month) = (&start[..4], &start[5..7]);
    // Nothing of it needs to be escaped.
    writeln!(
        lines,
        "{{\"index\":{{\"_index\":\"{index}-{year}.{month}\",\"_id\":\"{}-{trace_id}-{span_id}\",\
         \"version\":{version},\"version_type\":\"external\"}}}}",
        started_at.to_micros()
    )
    .expect("memory can be written");
    let updated_at = change.changed_at.to_string();
    let trace = Id { id: trace_id.to_string() };
    let span = Id { id: span_id.to_string() };
    let written = match &change.state {
        RecordState::Live(record, calls) => {
            let document = Live {
                timestamp: &start,
                trace,
                span,
                event: Event { duration: nanoseconds(record.response_time_ms), outcome: outcome(record) },
                service: record.service.as_deref().map(|name| Name { name }),
                user: record.user_id.as_deref().map(|id| Id { id }),
                http: Http {
                    request: record.method.as_deref().map(|method| Method { method }),
                    response: record.status_code.map(|status_code| Status { status_code }),
                },
                error: record.error_message.as_deref().filter(|error| is_type(error)).map(|kind| Type { kind }),
                tacho: own(change.revision, epoch, &updated_at, record, calls),
            };
            serde_json::to_writer(&mut lines, &document)
        }
        RecordState::Gone => {
            let tacho = OwnOfGone { state: "gone", revision: change.revision, epoch, updated_at: &updated_at };
            serde_json::to_writer(&mut lines, &Gone { timestamp: &start, trace, span, tacho })
        }
    };
    written.expect("a document is texts and numbers under names that are texts");
    lines.push(b'\n');
    lines.into()
}

/// The two lines of a limit event: into the data stream, or into an index for its month. It never changes, so what is there is done.
pub(super) fn event(stream: &str, is_stream: bool, event: &LimitEventRow) -> Bytes {
    let mut lines = Vec::with_capacity(512);
    let (year, month) = (&event.created_at[..4], &event.created_at[5..7]);
    let index = if is_stream { stream.to_owned() } else { format!("{stream}-{year}.{month}") };
    let id = event_id(event);
    writeln!(lines, "{{\"create\":{{\"_index\":\"{index}\",\"_id\":\"{id}\"}}}}").expect("memory can be written");
    let document = json!({
        "@timestamp": event.created_at,
        "event": {"kind": "event", "action": event.kind, "id": id},
        "user": event.user_id.as_ref().map(|id| json!({"id": id})),
        "tacho": {
            "tenant": event.tenant,
            "limit": event.limit_name,
            "decision": event.decision,
            "reason": event.reason,
            "subject": event.subject,
            "unit": event.meter,
            "used": event.used,
            "max": event.max,
            "threshold": event.threshold,
            "period_started_at": event.period_started_at,
            "period_ends_at": event.period_ends_at,
        },
    });
    serde_json::to_writer(&mut lines, &without_nulls(document)).expect("JSON is JSON");
    lines.push(b'\n');
    lines.into()
}

/// Of what the event is about: the number of its row may be given anew by a database that was restored.
fn event_id(event: &LimitEventRow) -> String {
    let LimitEventRow { limit_name, subject, period_started_at, kind, threshold, .. } = event;
    let about = format!("{limit_name}\n{subject}\n{period_started_at}\n{kind}\n{}", threshold.unwrap_or_default());
    Sha256::digest(about).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(parts) => parts
            .into_iter()
            .filter(|(_, part)| !part.is_null())
            .map(|(name, part)| (name, without_nulls(part)))
            .collect(),
        other => other,
    }
}

fn outcome(record: &RecordRow) -> &'static str {
    match record.status_code {
        _ if record.error_message.is_some() => "failure",
        Some(500..) => "failure",
        Some(_) => "success",
        None => "unknown",
    }
}

/// With `privacy.error_messages` the column holds texts, which may quote content.
fn is_type(error: &str) -> bool {
    error.len() <= 256 && !error.contains(char::is_whitespace)
}

#[expect(clippy::cast_possible_truncation, reason = "a duration in nanoseconds fits for 292 years, and saturates")]
fn nanoseconds(milliseconds: f64) -> i64 {
    (milliseconds * NANOS_PER_MILLISECOND).round() as i64
}

#[derive(Serialize)]
struct Gone<'a> {
    #[serde(rename = "@timestamp")]
    timestamp: &'a str,
    trace: Id<String>,
    span: Id<String>,
    tacho: OwnOfGone<'a>,
}

#[derive(Serialize)]
struct OwnOfGone<'a> {
    state: &'static str,
    revision: i64,
    epoch: i64,
    updated_at: &'a str,
}

#[derive(Serialize)]
struct Live<'a> {
    #[serde(rename = "@timestamp")]
    timestamp: &'a str,
    trace: Id<String>,
    span: Id<String>,
    event: Event,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<Name<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Id<&'a str>>,
    http: Http<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Type<'a>>,
    tacho: Own<'a>,
}

#[derive(Serialize)]
struct Event {
    duration: i64,
    outcome: &'static str,
}

#[derive(Serialize)]
struct Id<T> {
    id: T,
}

#[derive(Serialize)]
struct Name<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Http<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<Method<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<Status>,
}

#[derive(Serialize)]
struct Method<'a> {
    method: &'a str,
}

#[derive(Serialize)]
struct Status {
    status_code: i64,
}

#[derive(Serialize)]
struct Type<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
}

#[derive(Serialize)]
struct Own<'a> {
    state: &'static str,
    revision: i64,
    epoch: i64,
    updated_at: &'a str,
    tenant: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<&'a str>,
    plan: &'a str,
    free_request: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    llm_calls: i64,
    llm_errors: i64,
    input_tokens: i64,
    output_tokens: i64,
    cached_input_tokens: i64,
    cache_write_tokens: i64,
    reasoning_tokens: i64,
    total_tokens: i64,
    unknown_usage_calls: i64,
    unpriced_calls: i64,
    /// Absent when unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_nanousd: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_usd: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    calls: Vec<Call<'a>>,
}

#[derive(Serialize)]
struct Call<'a> {
    span_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_requested: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<&'a str>,
    outcome: &'static str,
    usage: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown_reason: Option<&'a str>,
    input_tokens: i64,
    output_tokens: i64,
    cached_input_tokens: i64,
    cache_write_tokens: i64,
    reasoning_tokens: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_nanousd: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    price_version: Option<&'a str>,
    streaming: bool,
    duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_to_first_token_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_type: Option<&'a str>,
    dialect: &'a str,
}

#[expect(clippy::cast_precision_loss, reason = "for display; the exact amount stands beside it")]
fn own<'a>(revision: i64, epoch: i64, updated_at: &'a str, record: &'a RecordRow, calls: &'a [CallRow]) -> Own<'a> {
    Own {
        state: "live",
        revision,
        epoch,
        updated_at,
        tenant: &record.tenant,
        instance: record.instance.as_deref(),
        agent_id: record.agent_id.as_deref(),
        session_id: record.session_id.as_deref(),
        endpoint: record.endpoint.as_deref(),
        plan: &record.plan,
        free_request: record.free_request,
        model: record.model.as_deref(),
        llm_calls: record.llm_calls,
        llm_errors: record.llm_errors,
        input_tokens: record.input_tokens,
        output_tokens: record.output_tokens,
        cached_input_tokens: record.cached_input_tokens,
        cache_write_tokens: record.cache_write_tokens,
        reasoning_tokens: record.reasoning_tokens,
        total_tokens: record.total_tokens,
        unknown_usage_calls: record.unknown_usage_calls,
        unpriced_calls: record.unpriced_calls,
        cost_nanousd: record.cost_nanousd,
        cost_usd: record.cost_nanousd.map(|cost| cost as f64 / NANOS_PER_DOLLAR),
        calls: calls.iter().map(call).collect(),
    }
}

fn call(call: &CallRow) -> Call<'_> {
    Call {
        span_id: &call.span_id,
        provider: call.provider.as_deref(),
        model_requested: call.request_model.as_deref(),
        model: call.model.as_deref(),
        operation: call.operation.as_deref(),
        outcome: if call.error_type.is_some() { "failure" } else { "success" },
        usage: &call.usage,
        unknown_reason: call.unknown_reason.as_deref(),
        input_tokens: call.input_tokens,
        output_tokens: call.output_tokens,
        cached_input_tokens: call.cached_input_tokens,
        cache_write_tokens: call.cache_write_tokens,
        reasoning_tokens: call.reasoning_tokens,
        cost_nanousd: call.cost_nanousd,
        price_version: call.price_version.as_deref(),
        streaming: call.streaming,
        duration_ms: call.duration_ms,
        time_to_first_token_ms: call.time_to_first_token_ms,
        error_type: call.error_type.as_deref(),
        dialect: &call.dialect,
    }
}
