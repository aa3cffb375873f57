//! Records in the order of their time, or by their keys, as the feed tells them: for who reads again what the feed has told long ago.

use super::PersistError;
use super::feed::{self, RecordChange};
use super::query;
use super::rows::{self, Values};
use super::store::{Store, Tx};
use super::value::Value;
use tacho_core::domain::call::Key;
use tacho_core::domain::time::Timestamp;

/// The times of records, the end not among them.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub since: Timestamp,
    pub until: Timestamp,
}

impl Store {
    /// How many records and tombstones have their start in this time.
    pub async fn count_between(&self, span: Span) -> Result<u64, PersistError> {
        let mut total = 0;
        for table in ["usage_records", "record_tombstones"] {
            let sql = format!("SELECT COUNT(*) FROM {table} WHERE started_at >= $1 AND started_at < $2");
            let found = self.fetch(&sql, &[Value::time(span.since), Value::time(span.until)]).await?;
            total += found.first().map(|row| row.count(0)).transpose()?.unwrap_or_default();
        }
        Ok(total)
    }

    /// The next `most` of them behind this key, in the order of their keys, and the epoch of the database.
    pub async fn states_between(
        &self,
        span: Span,
        after: Option<&Key>,
        most: usize,
    ) -> Result<(Vec<RecordChange>, i64), PersistError> {
        let mut tx = self.snapshot().await?;
        let horizon = self.horizon_in(&mut tx).await?;
        let (sql, values) = statement(query::COLUMNS, "usage_records", span, after, most);
        let mut states = to_states(&tx.fetch(&sql, &values).await?, feed::live_change)?;
        let (sql, values) = statement(feed::TOMBSTONE_COLUMNS, "record_tombstones", span, after, most);
        states.extend(to_states(&tx.fetch(&sql, &values).await?, feed::gone_change)?);
        states.sort_unstable_by_key(|state| state.key);
        states.truncate(most.min(feed::within_bounds(&states)));
        feed::add_calls(&mut tx, &mut states).await?;
        tx.commit().await?;
        Ok((states, horizon.epoch))
    }

    /// Those of these records that are or were, in the order of their keys, and the epoch of the database.
    pub async fn states_of(&self, keys: &[Key]) -> Result<(Vec<RecordChange>, i64), PersistError> {
        let mut tx = self.snapshot().await?;
        let horizon = self.horizon_in(&mut tx).await?;
        let of_table = async |tx: &mut Tx, columns: &str, table: &str| {
            let sql = format!("SELECT {columns} FROM {table} WHERE ({}) IN ({{rows}})", rows::RECORD_KEY);
            tx.bulk(&sql, rows::RECORD_KEY_KINDS, keys.iter().map(rows::of_key).collect()).await
        };
        let mut states = to_states(&of_table(&mut tx, query::COLUMNS, "usage_records").await?, feed::live_change)?;
        let gone = of_table(&mut tx, feed::TOMBSTONE_COLUMNS, "record_tombstones").await?;
        states.extend(to_states(&gone, feed::gone_change)?);
        states.sort_unstable_by_key(|state| state.key);
        feed::add_calls(&mut tx, &mut states).await?;
        tx.commit().await?;
        Ok((states, horizon.epoch))
    }
}

type Reader = fn(&super::value::Row) -> Result<RecordChange, sqlx::Error>;

fn to_states(found: &[super::value::Row], reader: Reader) -> Result<Vec<RecordChange>, PersistError> {
    Ok(found.iter().map(reader).collect::<Result<_, _>>()?)
}

fn statement(columns: &str, table: &str, span: Span, after: Option<&Key>, most: usize) -> (String, Values) {
    let key = rows::RECORD_KEY;
    let mut values = vec![Value::time(span.since), Value::time(span.until), Value::Int(feed::count(most))];
    let mut behind = String::new();
    if let Some(after) = after {
        values.extend(rows::of_key(after));
        behind = format!(" AND ({key}) > ($4, $5, $6)");
    }
    let sql = format!(
        "SELECT {columns} FROM {table} WHERE started_at >= $1 AND started_at < $2{behind} ORDER BY {key} LIMIT $3"
    );
    (sql, values)
}
