//! Events of limits: rows that are only added, each once whoever brings it.

use serde::Serialize;

use super::PersistError;
use super::cursor::{Cursor, FeedKey};
use super::feed::{FeedError, FeedPage, Range};
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

    /// The next `most` events behind the cursor, from the beginning without one; those from before `since` are left out.
    pub async fn limit_events(
        &self,
        after: Option<&Cursor>,
        since: Option<Timestamp>,
        most: usize,
    ) -> Result<FeedPage<LimitEventRow>, FeedError> {
        let mut tx = self.snapshot().await?;
        let horizon = self.horizon_in(&mut tx).await?;
        let range = Range::behind(after, &horizon, |row| matches!(row, FeedKey::Event(_)))?;
        let (condition, mut values) = condition(&range, since);
        values.push(Value::Int(i64::try_from(most).unwrap_or(i64::MAX)));
        let sql = format!(
            "SELECT id, {COLUMNS} FROM limit_events WHERE {condition} ORDER BY change_seq, id LIMIT ${}",
            values.len()
        );
        let found = tx.fetch(&sql, &values).await?;
        tx.commit().await?;
        let rows = found.iter().map(to_row).collect::<Result<Vec<_>, _>>().map_err(PersistError::from)?;
        let last = rows.last().map(|row| (row.change_seq, FeedKey::Event(row.id)));
        let is_last = rows.len() < most;
        Ok(horizon.page(rows, last, is_last))
    }

    /// When the first event in this range was written.
    pub(super) async fn first_limit_event(
        &self,
        range: &Range,
        since: Option<Timestamp>,
    ) -> Result<Option<Timestamp>, PersistError> {
        let (condition, values) = condition(range, since);
        let sql = format!("SELECT created_at FROM limit_events WHERE {condition} ORDER BY change_seq, id LIMIT 1");
        let found = self.fetch(&sql, &values).await?;
        Ok(found.first().map(|row| row.time(0)).transpose()?)
    }

    /// Those of these events that there are.
    pub async fn limit_events_of(&self, ids: &[i64]) -> Result<Vec<LimitEventRow>, PersistError> {
        let sql = format!("SELECT id, {COLUMNS} FROM limit_events WHERE id IN ({{rows}})");
        let ids = ids.iter().map(|id| vec![Value::Int(*id)]).collect();
        Ok(self.look_up(&sql, &[Int], ids).await?.iter().map(to_row).collect::<Result<_, _>>()?)
    }
}

fn condition(range: &Range, since: Option<Timestamp>) -> (String, Values) {
    let mut values = vec![Value::Int(range.after), Value::Int(range.until)];
    let mut condition = "change_seq > $1 AND change_seq <= $2".to_owned();
    if let Some(FeedKey::Event(id)) = range.row {
        values.push(Value::Int(id));
        condition = "(change_seq, id) > ($1, $3) AND change_seq <= $2".to_owned();
    }
    if let Some(since) = since {
        values.push(Value::time(since));
        condition += &format!(" AND created_at >= ${}", values.len());
    }
    (condition, values)
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
