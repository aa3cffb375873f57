//! Questions to the store. The same SQL for both databases.

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use super::PersistError;
use super::arrays;
use super::store::Store;
use super::sums::sum;
use super::value::{Row, Value};
use tacho_core::domain::time::Timestamp;

/// What is asked for; what is `None` does not matter.
#[derive(Clone, Debug, Default)]
pub struct RecordFilter {
    pub tenant: Option<String>,
    pub user: Option<String>,
    pub endpoint: Option<String>,
    pub model: Option<String>,
    pub trace_id: Option<String>,
    /// First moment that counts.
    pub since: Option<Timestamp>,
    /// First moment that counts no longer.
    pub until: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// The `id` of the last record already seen.
    pub after: Option<i64>,
    pub limit: u32,
}

/// A row of usage_records as it is shown: times as RFC 3339 text, the cost in dollars as exact decimal text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordRow {
    pub id: i64,
    pub started_at: String,
    pub trace_id: String,
    pub span_id: String,
    pub tenant: String,
    pub user_id: Option<String>,
    pub endpoint: Option<String>,
    pub method: Option<String>,
    pub status_code: Option<i64>,
    pub response_time_ms: f64,
    pub total_tokens: i64,
    #[serde(skip_deserializing)]
    pub cost: Option<String>,
    pub error_message: Option<String>,
    pub created_at: String,
    pub service: Option<String>,
    pub instance: Option<String>,
    pub agent_id: Option<String>,
    pub session_id: Option<String>,
    pub llm_calls: i64,
    pub llm_errors: i64,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub cached_input_tokens: i64,
    pub cache_write_tokens: i64,
    pub reasoning_tokens: i64,
    pub cost_nanousd: Option<i64>,
    pub unknown_usage_calls: i64,
    pub unpriced_calls: i64,
    pub model: Option<String>,
    pub plan: String,
    /// It used up one of the plan's free requests.
    pub free_request: bool,
    pub revision: i64,
    pub change_seq: i64,
    pub updated_at: String,
}

/// In the order of `RecordRow`, but for the cost in dollars.
pub(super) const COLUMNS: &str = "id, started_at, trace_id, span_id, tenant, user_id, endpoint, method, status_code, \
    response_time_ms, total_tokens, error_message, created_at, service, instance, agent_id, session_id, llm_calls, \
    llm_errors, input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, cost_nanousd, \
    unknown_usage_calls, unpriced_calls, model, plan, free_request, revision, change_seq, updated_at";

/// A row of llm_calls as it is shown, without the key of its record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallRow {
    pub span_id: String,
    pub started_at: String,
    pub request_span_id: Option<String>,
    pub provider: Option<String>,
    /// The server that was called.
    pub host: Option<String>,
    pub request_model: Option<String>,
    pub response_model: Option<String>,
    pub operation: Option<String>,
    /// `reported` or `unknown`.
    pub usage: String,
    pub unknown_reason: Option<String>,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub cached_input_tokens: i64,
    pub cache_write_tokens: i64,
    pub reasoning_tokens: i64,
    pub cache_write_1h_tokens: i64,
    pub audio_input_tokens: i64,
    pub audio_output_tokens: i64,
    pub cost_nanousd: Option<i64>,
    pub price_version: Option<String>,
    /// Some of its tokens were charged only as part of others.
    pub partly_priced: bool,
    pub service_tier: Option<String>,
    pub answered_from_cache: bool,
    pub streaming: bool,
    pub duration_ms: f64,
    pub time_to_first_token_ms: Option<f64>,
    pub error_type: Option<String>,
    pub dialect: String,
    /// As the price list calls it, else as it was told.
    pub model: Option<String>,
    /// Part of the cached and of the audio tokens.
    pub cached_audio_tokens: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    User,
    Model,
    Endpoint,
    Day,
}

impl Group {
    /// Also the name of the field that says which one it is.
    pub fn label(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Model => "model",
            Self::Endpoint => "endpoint",
            Self::Day => "day",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct SummaryRow {
    pub by: Group,
    /// Empty where the records name none.
    pub group: String,
    pub requests: i64,
    pub llm_calls: i64,
    pub llm_errors: i64,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub cached_input_tokens: i64,
    pub total_tokens: i64,
    pub cost_nanousd: Option<i64>,
    pub unknown_usage_calls: i64,
    pub unpriced_calls: i64,
    /// Of calls, where the group is a model.
    pub avg_duration_ms: f64,
}

/// With `user`, `model`, `endpoint` or `day` as the first field.
impl Serialize for SummaryRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut row = serializer.serialize_struct("SummaryRow", 12)?;
        row.serialize_field(self.by.label(), &self.group)?;
        row.serialize_field("requests", &self.requests)?;
        row.serialize_field("llm_calls", &self.llm_calls)?;
        row.serialize_field("llm_errors", &self.llm_errors)?;
        row.serialize_field("input_tokens", &self.input_tokens)?;
        row.serialize_field("output_tokens", &self.output_tokens)?;
        row.serialize_field("cached_input_tokens", &self.cached_input_tokens)?;
        row.serialize_field("total_tokens", &self.total_tokens)?;
        row.serialize_field("cost_nanousd", &self.cost_nanousd)?;
        row.serialize_field("unknown_usage_calls", &self.unknown_usage_calls)?;
        row.serialize_field("unpriced_calls", &self.unpriced_calls)?;
        row.serialize_field("avg_duration_ms", &self.avg_duration_ms)?;
        row.end()
    }
}

impl Store {
    /// In the order of their ids.
    pub async fn records(&self, filter: &RecordFilter, page: Page) -> Result<Vec<RecordRow>, PersistError> {
        let mut wanted = Conditions::default();
        wanted.of_records(filter);
        wanted.add("id >", page.after.map(Value::Int));
        let (conditions, mut values) = wanted.finish();
        values.push(Value::Int(page.limit.into()));
        let limit = values.len();
        let record = arrays::of_record(self.database());
        let sql = format!("SELECT {record} FROM usage_records AS r{conditions} ORDER BY id LIMIT ${limit}");
        let found = self.fetch(&sql, &values).await?;
        let rows: Result<Vec<_>, _> = found.iter().map(|row| arrays::to_record(row, 0)).collect();
        Ok(rows?)
    }

    /// The dearest first; days in their order.
    pub async fn summary(&self, group: Group, filter: &RecordFilter) -> Result<Vec<SummaryRow>, PersistError> {
        let mut wanted = Conditions::default();
        match group {
            Group::Model => wanted.of_calls(filter),
            Group::User | Group::Endpoint | Group::Day => wanted.of_records(filter),
        }
        let (conditions, values) = wanted.finish();
        let name = self.group_expression(group);
        let (sums, table) =
            if group == Group::Model { (call_sums(), "llm_calls") } else { (record_sums(), "usage_records") };
        let sql = format!("SELECT {name}, {sums} FROM {table}{conditions} GROUP BY 1 ORDER BY 1");
        let found = self.fetch(&sql, &values).await?;
        let rows: Result<Vec<_>, _> = found.iter().map(|row| summary_row(group, row)).collect();
        let mut rows = rows?;
        if group != Group::Day {
            // Here, as the databases sort NULL and texts differently.
            rows.sort_by(|a, b| {
                let cost = |row: &SummaryRow| (row.cost_nanousd.unwrap_or(0), row.total_tokens);
                cost(b).cmp(&cost(a)).then_with(|| a.group.cmp(&b.group))
            });
        }
        Ok(rows)
    }

    fn group_expression(&self, group: Group) -> &'static str {
        match (group, self) {
            (Group::User, _) => "COALESCE(user_id, '')",
            (Group::Endpoint, _) => "COALESCE(endpoint, '')",
            (Group::Model, _) => "COALESCE(model, '')",
            (Group::Day, Self::Sqlite(_)) => "substr(started_at, 1, 10)",
            (Group::Day, Self::Postgres(_)) => "to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
        }
    }
}

fn record_sums() -> String {
    let [input, output, cached, total, cost] =
        ["input_tokens", "output_tokens", "cached_input_tokens", "total_tokens", "cost_nanousd"].map(sum);
    format!(
        "COUNT(*), CAST(SUM(llm_calls) AS BIGINT), CAST(SUM(llm_errors) AS BIGINT), {input}, {output}, {cached}, {total}, \
         {cost}, CAST(SUM(unknown_usage_calls) AS BIGINT), CAST(SUM(unpriced_calls) AS BIGINT), AVG(response_time_ms)"
    )
}

fn call_sums() -> String {
    let [input, output, cached, total, cost] =
        ["input_tokens", "output_tokens", "cached_input_tokens", "input_tokens + output_tokens", "cost_nanousd"]
            .map(sum);
    format!(
        "COUNT(DISTINCT trace_id || record_span_id), COUNT(*), COUNT(error_type), {input}, {output}, {cached}, {total}, \
         {cost}, COUNT(CASE WHEN usage = 'unknown' THEN 1 END), \
         COUNT(CASE WHEN usage = 'reported' AND (cost_nanousd IS NULL OR partly_priced) THEN 1 END), AVG(duration_ms)"
    )
}

/// What the record of a call says in this column.
fn of_record(column: &str) -> String {
    format!("(SELECT r.{column} FROM usage_records r WHERE {}) =", belongs("llm_calls"))
}

/// Whether the call of this name is one of the record `r`.
pub(super) fn belongs(call: &str) -> String {
    format!(
        "r.started_at = {call}.record_started_at AND r.trace_id = {call}.trace_id AND r.span_id = {call}.record_span_id"
    )
}

/// A WHERE clause in the making.
#[derive(Default)]
pub(super) struct Conditions {
    parts: Vec<String>,
    values: Vec<Value>,
}

impl Conditions {
    fn of_records(&mut self, filter: &RecordFilter) {
        self.add("user_id =", filter.user.as_deref().map(Value::text));
        self.add("endpoint =", filter.endpoint.as_deref().map(Value::text));
        self.add("model =", filter.model.as_deref().map(Value::text));
        self.add("tenant =", filter.tenant.as_deref().map(Value::text));
        self.of_both(filter, "started_at");
    }

    /// Calls know neither user nor endpoint nor tenant, but their records do. A call counts when its record does.
    fn of_calls(&mut self, filter: &RecordFilter) {
        self.add("model =", filter.model.as_deref().map(Value::text));
        self.add(&of_record("user_id"), filter.user.as_deref().map(Value::text));
        self.add(&of_record("endpoint"), filter.endpoint.as_deref().map(Value::text));
        self.add(&of_record("tenant"), filter.tenant.as_deref().map(Value::text));
        self.of_both(filter, "record_started_at");
    }

    fn of_both(&mut self, filter: &RecordFilter, start: &str) {
        self.add("trace_id =", filter.trace_id.as_deref().map(Value::text));
        self.add(&format!("{start} >="), filter.since.map(Value::time));
        self.add(&format!("{start} <"), filter.until.map(Value::time));
    }

    pub(super) fn add(&mut self, condition: &str, value: Option<Value>) {
        if let Some(value) = value {
            self.values.push(value);
            self.parts.push(format!("{condition} ${}", self.values.len()));
        }
    }

    pub(super) fn finish(self) -> (String, Vec<Value>) {
        let clause = if self.parts.is_empty() { String::new() } else { format!(" WHERE {}", self.parts.join(" AND ")) };
        (clause, self.values)
    }
}

fn summary_row(by: Group, row: &Row) -> Result<SummaryRow, sqlx::Error> {
    Ok(SummaryRow {
        by,
        group: row.text(0)?,
        requests: row.int(1)?,
        llm_calls: row.int(2)?,
        llm_errors: row.int(3)?,
        input_tokens: row.int(4)?,
        output_tokens: row.int(5)?,
        cached_input_tokens: row.int(6)?,
        total_tokens: row.int(7)?,
        cost_nanousd: row.maybe_int(8)?,
        unknown_usage_calls: row.int(9)?,
        unpriced_calls: row.int(10)?,
        avg_duration_ms: row.real(11)?,
    })
}
