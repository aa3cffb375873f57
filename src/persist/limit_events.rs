//! Events of limits: rows that are only added, each once whoever brings it.

use serde::Serialize;

use super::PersistError;
use super::rows::Values;
use super::store::Store;
use super::value::Kind::{Int, Real, Text, Time};
use super::value::{Kind, Row, Value};
use tacho_core::domain::limit_event::{LimitEvent, LimitEventKind};
use tacho_core::domain::time::Timestamp;

/// A row of limit_events, with times as RFC 3339 text. Amounts are in units of the meter, of money in nano-dollars.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LimitEventRow {
    pub id: i64,
    pub change_seq: i64,
    pub created_at: String,
    pub kind: String,
    pub limit_name: String,
    pub decision: String,
    pub reason: Option<String>,
    pub tenant: Option<String>,
    pub user_id: Option<String>,
    pub subject: String,
    pub meter: String,
    pub used: i64,
    pub max: i64,
    pub threshold: Option<f64>,
    pub period_started_at: String,
    pub period_ends_at: Option<String>,
}

const COLUMNS: &str = "change_seq, created_at, kind, limit_name, decision, reason, tenant, user_id, subject, meter, \
    used, max, threshold, period_started_at, period_ends_at";
const KINDS: &[Kind] = &[Int, Time, Text, Text, Text, Text, Text, Text, Text, Text, Int, Int, Real, Time, Time];

impl Store {
    /// Adds those that are not there yet, all or none; answers how many that were.
    pub async fn add_limit_events(&self, events: &[LimitEvent], now: Timestamp) -> Result<usize, PersistError> {
        if events.is_empty() {
            return Ok(0);
        }
        // In one order, so that no two instances wait for each other in a circle.
        let mut events: Vec<&LimitEvent> = events.iter().collect();
        events.sort_by(|a, b| a.identity().cmp(&b.identity()));
        let mut tx = self.writing().await?;
        let change_seq = tx.change_seq(self.own()).await?;
        let rows = events.iter().map(|event| to_values(event, change_seq, now)).collect();
        let sql = format!("INSERT INTO limit_events ({COLUMNS}) {{rows}} ON CONFLICT DO NOTHING RETURNING id");
        let added = tx.bulk(&sql, KINDS, rows).await?.len();
        tx.commit().await?;
        Ok(added)
    }

    /// In the order in which they changed, behind this `change_seq` and `id`.
    pub async fn limit_events(&self, after: Option<(i64, i64)>, most: u32) -> Result<Vec<LimitEventRow>, PersistError> {
        let sql = format!(
            "SELECT id, {COLUMNS} FROM limit_events WHERE change_seq > $1 OR (change_seq = $1 AND id > $2) \
             ORDER BY change_seq, id LIMIT $3"
        );
        let (number, id) = after.unwrap_or((i64::MIN, i64::MIN));
        let found = self.fetch(&sql, &[Value::Int(number), Value::Int(id), Value::Int(most.into())]).await?;
        let rows: Result<Vec<_>, _> = found.iter().map(to_row).collect();
        Ok(rows?)
    }
}

fn to_values(event: &LimitEvent, number: i64, now: Timestamp) -> Values {
    let (reason, threshold) = match event.kind {
        LimitEventKind::Refusal { reason } => (Value::text(reason), Value::Null),
        LimitEventKind::Threshold { per_mille } => (Value::Null, Value::Real(f64::from(per_mille) / 1e3)),
    };
    vec![
        Value::Int(number),
        Value::time(now),
        Value::text(event.kind.label()),
        Value::text(&event.limit),
        Value::text(event.decision),
        reason,
        Value::optional(event.tenant.as_deref()),
        Value::optional(event.user.as_deref()),
        Value::text(&event.subject),
        Value::text(event.meter),
        Value::Int(event.used),
        Value::Int(event.max),
        threshold,
        Value::time(event.period.start),
        event.period.end.map_or(Value::Null, Value::time),
    ]
}

fn to_row(row: &Row) -> Result<LimitEventRow, sqlx::Error> {
    Ok(LimitEventRow {
        id: row.int(0)?,
        change_seq: row.int(1)?,
        created_at: row.time(2)?.to_string(),
        kind: row.text(3)?,
        limit_name: row.text(4)?,
        decision: row.text(5)?,
        reason: row.maybe_text(6)?,
        tenant: row.maybe_text(7)?,
        user_id: row.maybe_text(8)?,
        subject: row.text(9)?,
        meter: row.text(10)?,
        used: row.int(11)?,
        max: row.int(12)?,
        threshold: row.maybe_real(13)?,
        period_started_at: row.time(14)?.to_string(),
        period_ends_at: row.maybe_time(15)?.map(|time| time.to_string()),
    })
}
