//! Between the types of the house and the columns of the tables, in both directions.

use std::time::Duration;

use super::value::Kind::{Bytes, Flag, Int, Real, Text, Time};
use super::value::{Kind, Row, Value};
use tacho_core::domain::account::Mark;
use tacho_core::domain::call::{Call, Cost, Key, Tokens, UnknownUsage, Usage};
use tacho_core::domain::ids::{SpanId, TraceId};
use tacho_core::domain::money::NanoUsd;
use tacho_core::domain::record::{Record, Totals};

/// What a row is: its values in the order of the columns, the key first.
pub(super) type Values = Vec<Value>;

/// The first columns of `RECORD_COLUMNS`.
pub(super) const RECORD_KEY: &str = "started_at, trace_id, span_id";
pub(super) const RECORD_KEY_KINDS: &[Kind] = &[Time, Text, Text];

/// The first columns of `CALL_COLUMNS`: the key of its record, and its own span.
pub(super) const CALL_KEY: &str = "record_started_at, trace_id, record_span_id, span_id";
pub(super) const CALL_KEY_KINDS: &[Kind] = &[Time, Text, Text, Text];

pub(super) const RECORD_COLUMNS: &str = "started_at, trace_id, span_id, tenant, user_id, endpoint, method, status_code, \
    response_time_ms, total_tokens, error_message, service, instance, agent_id, session_id, llm_calls, llm_errors, \
    input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, cost_nanousd, \
    unknown_usage_calls, unpriced_calls, model, plan, free_request";
/// Those of `RECORD_COLUMNS` and then revision, change_seq, created_at, updated_at.
pub(super) const RECORD_KINDS: &[Kind] = &[
    Time, Text, Text, Text, Text, Text, Text, Int, Real, Int, Text, Text, Text, Text, Text, Int, Int, Int, Int, Int,
    Int, Int, Int, Int, Int, Text, Text, Flag, Int, Int, Time, Time,
];

pub(super) const CALL_COLUMNS: &str = "record_started_at, trace_id, record_span_id, span_id, started_at, request_span_id, \
    provider, host, request_model, response_model, operation, usage, unknown_reason, input_tokens, output_tokens, \
    cached_input_tokens, cache_write_tokens, reasoning_tokens, cache_write_1h_tokens, audio_input_tokens, audio_output_tokens, \
    cost_nanousd, price_version, partly_priced, service_tier, answered_from_cache, streaming, duration_ms, \
    time_to_first_token_ms, error_type, dialect, model, cached_audio_tokens";
pub(super) const CALL_KINDS: &[Kind] = &[
    Time, Text, Text, Text, Time, Text, Text, Text, Text, Text, Text, Text, Text, Int, Int, Int, Int, Int, Int, Int,
    Int, Int, Text, Flag, Text, Flag, Flag, Real, Real, Text, Text, Text, Int,
];

pub(super) const EXTRACT_COLUMNS: &str = "trace_id, extract, first_seen_at, due_at, claimed_by";
pub(super) const EXTRACT_KINDS: &[Kind] = &[Text, Bytes, Time, Time, Text];

pub(super) fn of_record(record: &Record, mark: &Mark) -> Values {
    let totals = &record.totals;
    let mut values = of_key(&record.key);
    values.extend([
        Value::text(&record.tenant),
        Value::optional(record.user.as_deref()),
        Value::optional(record.endpoint.as_deref()),
        Value::optional(record.method.as_deref()),
        record.status.map_or(Value::Null, |status| Value::Int(status.into())),
        milliseconds(record.duration),
        Value::count(totals.tokens.total()),
        Value::optional(record.error.as_deref()),
        Value::optional(record.service.as_deref()),
        Value::optional(record.instance.as_deref()),
        Value::optional(record.agent.as_deref()),
        Value::optional(record.session.as_deref()),
        Value::count(totals.calls),
        Value::count(totals.failed_calls),
    ]);
    values.extend(of_tokens(&totals.tokens));
    values.extend([
        totals.cost.map_or(Value::Null, |cost| Value::Int(cost.0)),
        Value::count(totals.unknown_usage_calls),
        Value::count(totals.unpriced_calls),
        Value::optional(totals.model.as_deref()),
        Value::text(&mark.plan),
        Value::Flag(mark.free),
    ]);
    values
}

pub(super) fn of_call(call: &Call, record: &Record) -> Values {
    let (usage, reason) = match call.usage {
        Usage::Reported(_) => ("reported", Value::Null),
        Usage::Unknown(reason) => ("unknown", Value::text(reason.label())),
    };
    let (cost, version, partly) = match &call.cost {
        Cost::Charged { cost, price_version, whole } => (Value::Int(cost.0), Value::text(price_version), !whole),
        Cost::Unpriced | Cost::Unknown => (Value::Null, Value::Null, false),
    };
    let tokens = call.usage.tokens();
    let mut values = of_call_key(call, &record.key);
    values.extend([
        Value::time(call.key.started_at),
        record.request_span().map_or(Value::Null, |span| Value::Text(span.to_string())),
        Value::optional(call.provider.as_deref()),
        Value::optional(call.host.as_deref()),
        Value::optional(call.request_model.as_deref()),
        Value::optional(call.response_model.as_deref()),
        Value::optional(call.operation.as_deref()),
        Value::text(usage),
        reason,
    ]);
    values.extend(of_tokens(&tokens));
    values.extend([tokens.cache_write_1h, tokens.audio_input, tokens.audio_output].map(Value::count));
    values.extend([
        cost,
        version,
        Value::Flag(partly),
        Value::optional(call.service_tier.as_deref()),
        Value::Flag(call.answered_from_cache),
        Value::Flag(call.streaming),
        milliseconds(call.duration),
        call.time_to_first_token.map_or(Value::Null, milliseconds),
        Value::optional(call.error_type.as_deref()),
        Value::text(&call.dialect),
        Value::optional(call.model.as_deref()),
        Value::count(tokens.cached_audio),
    ]);
    values
}

/// A row of `RECORD_COLUMNS`.
pub(super) fn to_record(row: &Row) -> Result<Record, sqlx::Error> {
    let boxed = |column| row.maybe_text(column).map(|text| text.map(String::into_boxed_str));
    Ok(Record {
        key: to_key(row)?,
        tenant: row.text(3)?.into(),
        user: boxed(4)?,
        endpoint: boxed(5)?,
        method: boxed(6)?,
        status: row.maybe_int(7)?.and_then(|status| u16::try_from(status).ok()),
        duration: duration(row.real(8)?),
        error: boxed(10)?,
        service: boxed(11)?,
        instance: boxed(12)?,
        agent: boxed(13)?,
        session: boxed(14)?,
        totals: Totals {
            calls: row.count(15)?,
            failed_calls: row.count(16)?,
            tokens: to_tokens(row, 17)?,
            cost: row.maybe_int(22)?.map(NanoUsd),
            unknown_usage_calls: row.count(23)?,
            unpriced_calls: row.count(24)?,
            model: boxed(25)?,
        },
    })
}

/// The rest of a row of `RECORD_COLUMNS`.
pub(super) fn to_mark(row: &Row) -> Result<Mark, sqlx::Error> {
    Ok(Mark { plan: row.text(26)?.into(), free: row.flag(27)? })
}

/// A row of `CALL_COLUMNS`, with the key of the record it is of. What the instrumentation reckoned is not kept.
pub(super) fn to_call(row: &Row) -> Result<(Key, Call), sqlx::Error> {
    let boxed = |column| row.maybe_text(column).map(|text| text.map(String::into_boxed_str));
    let usage = match row.maybe_text(12)? {
        None => Usage::Reported(Tokens {
            cache_write_1h: row.count(18)?,
            audio_input: row.count(19)?,
            cached_audio: row.count(32)?,
            audio_output: row.count(20)?,
            ..to_tokens(row, 13)?
        }),
        Some(label) => {
            let reason = UnknownUsage::ALL.into_iter().find(|reason| reason.label() == label);
            Usage::Unknown(reason.unwrap_or(UnknownUsage::Missing))
        }
    };
    let cost = match (row.maybe_int(21)?, usage) {
        (Some(cost), _) => {
            let price_version = row.maybe_text(22)?.unwrap_or_default().into();
            Cost::Charged { cost: NanoUsd(cost), price_version, whole: !row.flag(23)? }
        }
        (None, Usage::Reported(_)) => Cost::Unpriced,
        (None, Usage::Unknown(_)) => Cost::Unknown,
    };
    let record = to_key(row)?;
    let call = Call {
        key: Key { started_at: row.time(4)?, trace_id: record.trace_id, span_id: to_span_id(row, 3)? },
        provider: boxed(6)?,
        host: boxed(7)?,
        request_model: boxed(8)?,
        response_model: boxed(9)?,
        model: boxed(31)?,
        operation: boxed(10)?,
        usage,
        cost,
        reported_cost: None,
        service_tier: boxed(24)?,
        answered_from_cache: row.flag(25)?,
        streaming: row.flag(26)?,
        duration: duration(row.real(27)?),
        time_to_first_token: row.maybe_real(28)?.map(duration),
        error_type: boxed(29)?,
        dialect: boxed(30)?.unwrap_or_default(),
    };
    Ok((record, call))
}

/// An id that we wrote ourselves; anything else is a fault of the database.
pub(super) fn to_trace_id(row: &Row, column: usize) -> Result<TraceId, sqlx::Error> {
    let text = row.text(column)?;
    TraceId::parse(&text).ok_or_else(|| sqlx::Error::Decode(format!("`{text}` is no trace id").into()))
}

fn to_span_id(row: &Row, column: usize) -> Result<SpanId, sqlx::Error> {
    let text = row.text(column)?;
    SpanId::parse(&text).ok_or_else(|| sqlx::Error::Decode(format!("`{text}` is no span id").into()))
}

/// `RECORD_KEY`.
pub(super) fn of_key(key: &Key) -> Values {
    vec![Value::time(key.started_at), Value::Text(key.trace_id.to_string()), Value::Text(key.span_id.to_string())]
}

/// `CALL_KEY`.
pub(super) fn of_call_key(call: &Call, record: &Key) -> Values {
    let mut values = of_key(record);
    values.push(Value::Text(call.key.span_id.to_string()));
    values
}

/// The key of a record, which leads the row.
pub(super) fn to_key(row: &Row) -> Result<Key, sqlx::Error> {
    Ok(Key { started_at: row.time(0)?, trace_id: to_trace_id(row, 1)?, span_id: to_span_id(row, 2)? })
}

/// The counts that records have too.
fn of_tokens(tokens: &Tokens) -> [Value; 5] {
    [tokens.input, tokens.output, tokens.cached_input, tokens.cache_write, tokens.reasoning].map(Value::count)
}

/// Five columns from this one on.
fn to_tokens(row: &Row, first: usize) -> Result<Tokens, sqlx::Error> {
    Ok(Tokens {
        input: row.count(first)?,
        output: row.count(first + 1)?,
        cached_input: row.count(first + 2)?,
        cache_write: row.count(first + 3)?,
        reasoning: row.count(first + 4)?,
        ..Tokens::default()
    })
}

/// Exact to the nanosecond up to 26 days, beyond which no call lasts.
fn milliseconds(duration: Duration) -> Value {
    Value::Real(duration.as_nanos() as f64 / 1e6)
}

fn duration(milliseconds: f64) -> Duration {
    Duration::from_nanos((milliseconds * 1e6).round() as u64)
}
