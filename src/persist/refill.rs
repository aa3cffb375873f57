//! Records in the order of their time, or by their keys, as the feed tells them: for who reads again what the feed has told long ago.

use super::PersistError;
use super::feed::RecordChange;
use super::rows;
use super::states::{self, Order};
use super::store::Store;
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
        let mut condition = "started_at >= $1 AND started_at < $2".to_owned();
        let mut values = vec![Value::time(span.since), Value::time(span.until)];
        if let Some(after) = after {
            values.extend(rows::of_key(after));
            condition += &format!(" AND ({}) > ($3, $4, $5)", rows::RECORD_KEY);
        }
        let (states, _) = states::read(&mut tx, &condition, values, Order::Key, most).await?;
        tx.commit().await?;
        Ok((states, horizon.epoch))
    }

    /// Those of these records that are or were, and the epoch of the database.
    pub async fn states_of(&self, keys: &[Key]) -> Result<(Vec<RecordChange>, i64), PersistError> {
        let mut tx = self.snapshot().await?;
        let horizon = self.horizon_in(&mut tx).await?;
        let condition = format!("({}) = ($1, $2, $3)", rows::RECORD_KEY);
        let mut all = Vec::new();
        for key in keys {
            all.extend(states::read(&mut tx, &condition, rows::of_key(key), Order::Key, 1).await?.0);
        }
        tx.commit().await?;
        Ok((all, horizon.epoch))
    }
}
