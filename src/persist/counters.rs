//! The counters of quotas: folds of the records, moved in the transaction that moves those.

use std::sync::Arc;

use super::PersistError;
use super::rows::Values;
use super::store::{Store, Tx};
use super::sums::plus;
use super::value::Kind::{Int, Text, Time};
use super::value::{Kind, Row, Value};
use tacho_core::domain::counter::{Counted, Counter};
use tacho_core::domain::time::Timestamp;

const KINDS: &[Kind] = &[Text, Text, Text, Time, Time, Int, Int, Time];

/// A counter as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterRow {
    pub key: u128,
    pub limit: String,
    pub subject: String,
    pub period_started_at: Timestamp,
    pub used: i64,
}

impl Store {
    /// Names this database among those that share limits. It was made with it.
    pub async fn database_id(&self) -> Result<Arc<str>, PersistError> {
        let found = self.fetch("SELECT id FROM database_identity", &[]).await?;
        let id = found.first().map_or(Ok(String::new()), |row| row.text(0))?;
        Ok(id.into())
    }

    /// Those counters of these keys that there are.
    pub async fn counted(&self, keys: &[u128]) -> Result<Vec<Counted>, PersistError> {
        let places: Vec<String> = (1..=keys.len()).map(|place| format!("${place}")).collect();
        let sql = format!("SELECT key, used, version FROM limit_usage WHERE key IN ({})", places.join(", "));
        let values: Vec<Value> = keys.iter().map(|key| Value::Text(key_text(*key))).collect();
        self.fetch(&sql, &values).await?.iter().map(to_counted).collect()
    }

    /// Counters of periods that are open at this time, behind `after` in the order of their keys, with the end of each.
    pub async fn open_counters(
        &self,
        at: Timestamp,
        after: Option<u128>,
        most: u32,
    ) -> Result<Vec<(Counted, Option<Timestamp>)>, PersistError> {
        let sql = "SELECT key, used, version, period_ends_at FROM limit_usage \
                   WHERE key > $1 AND (period_ends_at IS NULL OR period_ends_at > $2) ORDER BY key LIMIT $3";
        let values = [Value::Text(after.map(key_text).unwrap_or_default()), Value::time(at), Value::Int(most.into())];
        let found = self.fetch(sql, &values).await?;
        found.iter().map(|row| Ok((to_counted(row)?, row.maybe_time(3)?))).collect()
    }

    /// The greatest counters of the periods that are open at this time, by limit and subject; of one limit or of all.
    pub async fn counters(
        &self,
        limit: Option<&str>,
        at: Timestamp,
        most: u32,
    ) -> Result<Vec<CounterRow>, PersistError> {
        let sql = "SELECT key, limit_name, subject, period_started_at, used FROM limit_usage \
                   WHERE period_started_at <= $1 AND (period_ends_at IS NULL OR period_ends_at > $1) \
                   AND ($2 = '' OR limit_name = $2) ORDER BY limit_name, used DESC, key LIMIT $3";
        let values = [Value::time(at), Value::text(limit.unwrap_or_default()), Value::Int(most.into())];
        let to_row = |row: &Row| {
            Ok(CounterRow {
                key: to_key(row, 0)?,
                limit: row.text(1)?,
                subject: row.text(2)?,
                period_started_at: row.time(3)?,
                used: row.int(4)?,
            })
        };
        self.fetch(sql, &values).await?.iter().map(to_row).collect()
    }
}

/// Moves these counters, each once, and tells how they stand then. In the order of their keys, so that no two instances wait for
/// each other in a circle.
pub(super) async fn count(tx: &mut Tx, counters: &[Counter], now: Timestamp) -> Result<Vec<Counted>, PersistError> {
    debug_assert!(counters.is_sorted_by(|a, b| a.key < b.key), "sorted by key, each once");
    let rows: Vec<Values> = counters.iter().map(|counter| to_values(counter, now)).collect();
    let sql = format!(
        "INSERT INTO limit_usage \
         (key, limit_name, subject, period_started_at, period_ends_at, used, version, updated_at) {{rows}} \
         ON CONFLICT (key) DO UPDATE SET used = {}, \
         version = limit_usage.version + 1, limit_name = excluded.limit_name, subject = excluded.subject, \
         period_started_at = excluded.period_started_at, period_ends_at = excluded.period_ends_at, \
         updated_at = excluded.updated_at RETURNING key, used, version",
        plus("limit_usage.used", "excluded.used")
    );
    tx.bulk(&sql, KINDS, rows).await?.iter().map(to_counted).collect()
}

fn to_values(counter: &Counter, now: Timestamp) -> Values {
    vec![
        Value::Text(key_text(counter.key)),
        Value::text(&counter.limit),
        Value::text(&counter.subject),
        Value::time(counter.period_started_at),
        counter.period_ends_at.map_or(Value::Null, Value::time),
        Value::Int(counter.change),
        Value::Int(1),
        Value::time(now),
    ]
}

fn to_counted(row: &Row) -> Result<Counted, PersistError> {
    Ok(Counted { key: to_key(row, 0)?, used: row.int(1)?, version: row.count(2)? })
}

pub(super) fn key_text(key: u128) -> String {
    format!("{key:032x}")
}

pub(super) fn to_key(row: &Row, column: usize) -> Result<u128, sqlx::Error> {
    let text = row.text(column)?;
    u128::from_str_radix(&text, 16).map_err(|_| sqlx::Error::Decode(format!("`{text}` is no key of a counter").into()))
}
