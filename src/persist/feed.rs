//! The feed: all records in their last state, in the order of the transactions that changed them. A position that can be read is
//! final: nothing that is committed later lies before it.

use super::PersistError;
use super::cursor::{Cursor, FeedKey, NotACursor};
use super::exports::{ExportCursor, Stream};
use super::query::{CallRow, RecordRow};
use super::rows::{self, Values};
use super::states::{self, Order};
use super::store::{Own, Store, Tx};
use super::value::Value;
use tacho_core::domain::call::Key;
use tacho_core::domain::time::Timestamp;

/// A record in its last state.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordChange {
    pub key: Key,
    pub revision: i64,
    pub change_seq: i64,
    pub changed_at: Timestamp,
    pub state: RecordState,
}

#[derive(Clone, Debug, PartialEq)]
pub enum RecordState {
    Live(Box<RecordRow>, Vec<CallRow>),
    /// It was folded into another record, adopted or forgotten.
    Gone,
}

/// A part of the feed.
#[derive(Debug)]
pub struct FeedPage<T> {
    pub rows: Vec<T>,
    /// Of the database, now.
    pub epoch: i64,
    /// Behind these rows.
    pub next: Cursor,
    /// There were no more than these.
    pub is_last: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    #[error(transparent)]
    Persist(#[from] PersistError),
    /// The database was restored or lost commits since: the follower must read again from a time before that.
    #[error("the cursor is of epoch {cursor} of the database, which is in epoch {database} now")]
    Epoch { cursor: i64, database: i64 },
    #[error(transparent)]
    Foreign(#[from] NotACursor),
}

/// What can be read now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Horizon {
    pub epoch: i64,
    /// All transactions up to this position are over.
    pub position: i64,
    /// The greatest position that was given to a transaction, over or not.
    pub newest: i64,
}

impl Store {
    /// The next `most` records behind the cursor, each in its last state, with its calls; from the beginning without one. Those
    /// that started before `since` are left out. All of a page is seen at one moment.
    pub async fn changes(
        &self,
        after: Option<&Cursor>,
        since: Option<Timestamp>,
        most: usize,
    ) -> Result<FeedPage<RecordChange>, FeedError> {
        let mut tx = self.snapshot().await?;
        let horizon = self.horizon_in(&mut tx).await?;
        let range = Range::behind(after, &horizon, |row| matches!(row, FeedKey::Record(_)))?;
        let (condition, values) = range.condition(since);
        let (found, is_last) = states::read(&mut tx, &condition, values, Order::Change, most).await?;
        tx.commit().await?;
        let last = found.last().map(|change| (change.change_seq, FeedKey::Record(change.key)));
        Ok(horizon.page(found, last, is_last))
    }

    /// A cursor behind all that can be read now.
    pub async fn head(&self) -> Result<Cursor, PersistError> {
        let Horizon { epoch, position, .. } = self.horizon().await?;
        Ok(Cursor { epoch, position, row: None })
    }

    /// A cursor before the first change of a record that started then or later.
    pub async fn feed_since(&self, since: Timestamp) -> Result<Cursor, PersistError> {
        let horizon = self.horizon().await?;
        let mut first = horizon.position + 1;
        for table in ["usage_records", "record_tombstones"] {
            let sql = format!("SELECT MIN(change_seq) FROM {table} WHERE started_at >= $1");
            let found = self.fetch(&sql, &[Value::time(since)]).await?;
            first = first.min(found.first().map(|row| row.maybe_int(0)).transpose()?.flatten().unwrap_or(first));
        }
        Ok(Cursor { epoch: horizon.epoch, position: first - 1, row: None })
    }

    /// A cursor before everything.
    pub async fn feed_start(&self) -> Result<Cursor, PersistError> {
        Ok(Cursor { epoch: self.horizon().await?.epoch, position: 0, row: None })
    }

    /// When the oldest change that this sink lacks was made; `None` if it lacks none.
    pub async fn lacking_since(&self, export: &ExportCursor) -> Result<Option<Timestamp>, PersistError> {
        let Cursor { position, row, .. } = export.cursor;
        let range = Range { after: position, row, until: i64::MAX };
        let mut oldest = None;
        let tables: &[_] = match export.stream {
            Stream::Usage => &[("updated_at", "usage_records"), ("gone_at", "record_tombstones")],
            Stream::Limits => return self.first_limit_event(&range, export.since).await,
        };
        for (column, table) in tables {
            let (condition, values) = range.condition(export.since);
            let sql = format!("SELECT {column} FROM {table} WHERE {condition} ORDER BY change_seq LIMIT 1");
            let found = self.fetch(&sql, &values).await?;
            let time = found.first().map(|row| row.time(0)).transpose()?;
            oldest = oldest.into_iter().chain(time).min();
        }
        Ok(oldest)
    }

    pub async fn horizon(&self) -> Result<Horizon, PersistError> {
        let mut tx = self.snapshot().await?;
        let horizon = self.horizon_in(&mut tx).await?;
        tx.commit().await?;
        Ok(horizon)
    }

    /// What can be read now. Keeps in mind how far the feed has come, so that a database that is put back from a backup is
    /// recognised: called from time to time.
    pub async fn look_at_feed(&self) -> Result<Horizon, PersistError> {
        let horizon = self.horizon().await?;
        if let Self::Sqlite(store) = self {
            store.note_position(horizon.position).await;
        }
        Ok(horizon)
    }

    pub(super) async fn horizon_in(&self, tx: &mut Tx) -> Result<Horizon, PersistError> {
        if let Some(horizon) = read_horizon(tx, self.own()).await? {
            return Ok(horizon);
        }
        // Nobody has written in this cluster yet.
        let mut writing = self.writing().await?;
        writing.change_seq(self.own()).await?;
        writing.commit().await?;
        *tx = self.snapshot().await?;
        let horizon = read_horizon(tx, self.own()).await?;
        Ok(horizon.ok_or(sqlx::Error::RowNotFound)?)
    }
}

impl Horizon {
    pub(super) fn page<T>(&self, rows: Vec<T>, last: Option<(i64, FeedKey)>, is_last: bool) -> FeedPage<T> {
        let (position, row) = match last {
            Some((position, row)) if !is_last => (position, Some(row)),
            _ => (self.position, None),
        };
        FeedPage { rows, epoch: self.epoch, next: Cursor { epoch: self.epoch, position, row }, is_last }
    }
}

/// What of the feed is asked for.
pub(super) struct Range {
    pub after: i64,
    pub row: Option<FeedKey>,
    pub until: i64,
}

impl Range {
    pub(super) fn behind(
        after: Option<&Cursor>,
        horizon: &Horizon,
        is_of_feed: impl Fn(FeedKey) -> bool,
    ) -> Result<Self, FeedError> {
        let until = horizon.position;
        let Some(after) = after else { return Ok(Self { after: 0, row: None, until }) };
        // What lies beyond the newest transaction was never given out in this epoch.
        if after.epoch != horizon.epoch || after.position > horizon.newest {
            return Err(FeedError::Epoch { cursor: after.epoch, database: horizon.epoch });
        }
        if after.row.is_some_and(|row| !is_of_feed(row)) {
            return Err(NotACursor.into());
        }
        Ok(Self { after: after.position, row: after.row, until })
    }

    /// The condition on records and tombstones.
    fn condition(&self, since: Option<Timestamp>) -> (String, Values) {
        let mut values = vec![Value::Int(self.after), Value::Int(self.until)];
        let mut condition = match self.row {
            Some(FeedKey::Record(row)) => {
                values.extend(rows::of_key(&row));
                let key = rows::RECORD_KEY;
                format!("change_seq >= $1 AND (change_seq, {key}) > ($1, $3, $4, $5) AND change_seq <= $2")
            }
            Some(FeedKey::Event(_)) | None => "change_seq > $1 AND change_seq <= $2".to_owned(),
        };
        if let Some(since) = since {
            values.push(Value::time(since));
            condition += &format!(" AND started_at >= ${}", values.len());
        }
        (condition, values)
    }
}

/// `None` where the database has come to another cluster, or to another life of it, since its last write.
async fn read_horizon(tx: &mut Tx, own: &Own) -> Result<Option<Horizon>, PersistError> {
    let sql = match tx {
        Tx::Sqlite(_) => "SELECT epoch, position, position FROM feed".to_owned(),
        // Transactions from the snapshot's xmin on may be open; before xmax all ids are given out.
        Tx::Postgres(_) => format!(
            "SELECT epoch, position + pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1, \
             position + pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1 FROM feed WHERE TRUE{}",
            tx.same_cluster(own)
        ),
    };
    let found = tx.fetch(&sql, &[]).await?;
    let Some(row) = found.first() else { return Ok(None) };
    Ok(Some(Horizon { epoch: row.int(0)?, position: row.int(1)?, newest: row.int(2)? }))
}

impl Tx {
    /// The condition on `feed` by which the database is in the cluster, and the life of it, where it was last written.
    pub(super) fn same_cluster(&self, own: &Own) -> String {
        match self {
            Self::Sqlite(_) => String::new(),
            Self::Postgres(_) => format!(" AND cluster = {}", own.cluster),
        }
    }

    /// The position of this transaction in the feed, the same for all that it changes.
    pub(super) async fn change_seq(&mut self, own: &Own) -> Result<i64, PersistError> {
        let sql = match self {
            Self::Sqlite(_) => "UPDATE feed SET position = position + 1 RETURNING position".to_owned(),
            Self::Postgres(_) => format!(
                "SELECT position + pg_current_xact_id()::text::bigint FROM feed WHERE TRUE{}",
                self.same_cluster(own)
            ),
        };
        let found = self.fetch(&sql, &[]).await?;
        if let Some(row) = found.first() {
            return Ok(row.int(0)?);
        }
        self.adopt_cluster(own).await?;
        let found = self.fetch(&sql, &[]).await?;
        Ok(found.first().ok_or(sqlx::Error::RowNotFound)?.int(0)?)
    }

    /// The ids of transactions start elsewhere in another cluster, so positions go on behind the greatest that was given. But for
    /// the first cluster of all it is a new epoch: what a follower has read may never have been written here.
    async fn adopt_cluster(&mut self, own: &Own) -> Result<(), PersistError> {
        let newest = ["usage_records", "record_tombstones", "limit_events"]
            .map(|table| format!("COALESCE((SELECT MAX(change_seq) FROM {table}), 0)"))
            .join(", ");
        let sql = format!(
            "UPDATE feed SET cluster = {cluster}, epoch = epoch + CASE WHEN cluster IS NULL THEN 0 ELSE 1 END, \
             position = GREATEST(position, GREATEST({newest}) + 1 - pg_current_xact_id()::text::bigint) \
             WHERE cluster IS DISTINCT FROM {cluster} RETURNING epoch",
            cluster = own.cluster
        );
        let raised = self.fetch(&sql, &[]).await?;
        if let Some(epoch) = raised.first().map(|row| row.int(0)).transpose()?.filter(|epoch| *epoch > 1) {
            tracing::warn!(epoch, "database was restored or has failed over: who follows the records must read again");
        }
        Ok(())
    }
}
