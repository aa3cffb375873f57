//! The open store and a transaction on it: where the two databases differ, they differ here.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgPool;
use sqlx::{Postgres, Sqlite, Transaction};

use super::value::{Kind, Row, Value};
use super::work::Work;
use super::{Change, Checkpoint, Known, PersistError, extracts, postgres, rows, sqlite};
use crate::remote::{DatabaseOptions, Target};
use tacho_core::domain::ids::TraceId;
use tacho_core::domain::lsn::Lsn;
use tacho_core::domain::plan::Plans;
use tacho_core::domain::time::Timestamp;

/// How long a claim on a waiting trace counts after it was due. Who has not looked by then has died.
const CLAIM: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub enum Store {
    Sqlite(SqliteStore),
    Postgres(PostgresStore),
}

#[derive(Clone)]
pub struct SqliteStore {
    pools: sqlite::Pools,
    own: Own,
}

#[derive(Clone)]
pub struct PostgresStore {
    pool: PgPool,
    own: Own,
}

/// What this process brings to the database.
#[derive(Clone)]
pub(super) struct Own {
    pub instance: Arc<str>,
    pub plans: Plans,
    /// The SQL expression that names this cluster and its life; nothing in SQLite.
    pub cluster: Arc<str>,
}

/// Which of the two it is, where they write the same otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Database {
    Sqlite,
    Postgres,
}

impl Store {
    /// Opens and migrates; SQLite makes its file. `instance` names this process among those that share the database.
    pub async fn open(target: impl Into<Target>, instance: &str) -> Result<Self, PersistError> {
        let own = |cluster: &str| Own { instance: instance.into(), plans: Plans::default(), cluster: cluster.into() };
        match target.into().database()? {
            DatabaseOptions::Sqlite(options) => {
                let pools = sqlite::Pools::open(*options).await?;
                Ok(Self::Sqlite(SqliteStore { pools, own: own("") }))
            }
            DatabaseOptions::Postgres(options) => {
                let pool = postgres::open(*options).await?;
                let own = own(postgres::cluster(&pool).await?);
                Ok(Self::Postgres(PostgresStore { pool, own }))
            }
        }
    }

    /// For those who only look: where there is no database none is made.
    pub async fn open_existing(target: impl Into<Target>, instance: &str) -> Result<Self, PersistError> {
        let target = target.into();
        if let DatabaseOptions::Sqlite(options) = target.database()? {
            sqlite::must_exist(&options)?;
        }
        Self::open(target, instance).await
    }

    /// Takes the traces for this transaction alone. What is proposed for each holds if the trace was never seen before; of all
    /// others it tells what is known. The proposals must be sorted by trace and each trace stand once, so that two instances never
    /// wait for each other in a circle. Dropped without `commit`, nothing happened.
    pub async fn begin<'p>(&self, proposed: &'p [Change]) -> Result<Work<'p>, PersistError> {
        debug_assert!(proposed.is_sorted_by(|a, b| a.trace_id < b.trace_id), "sorted by trace, each once");
        Work::begin(self.writing().await?, self.own().clone(), proposed).await
    }

    /// What is known of a trace.
    pub async fn known(&self, trace_id: TraceId, now: Timestamp) -> Result<Option<Known>, PersistError> {
        let nothing = [Change::nothing(trace_id, now)];
        let mut work = self.begin(&nothing).await?;
        Ok(work.take_known().pop())
    }

    /// A transaction that may write. In SQLite it is the only one from here on.
    pub(super) async fn writing(&self) -> Result<Tx, PersistError> {
        Ok(match self {
            Self::Sqlite(store) => Tx::Sqlite(store.pools.writer.begin_with("BEGIN IMMEDIATE").await?),
            Self::Postgres(store) => Tx::Postgres(store.pool.begin().await?),
        })
    }

    pub(super) fn database(&self) -> Database {
        match self {
            Self::Sqlite(_) => Database::Sqlite,
            Self::Postgres(_) => Database::Postgres,
        }
    }

    pub(super) fn own(&self) -> &Own {
        match self {
            Self::Sqlite(store) => &store.own,
            Self::Postgres(store) => &store.own,
        }
    }

    /// The plans that accounts can be on, in place of the one that is built in.
    #[must_use]
    pub fn with_plans(mut self, plans: Plans) -> Self {
        match &mut self {
            Self::Sqlite(store) => store.own.plans = plans,
            Self::Postgres(store) => store.own.plans = plans,
        }
        self
    }

    pub fn plans(&self) -> &Plans {
        &self.own().plans
    }

    /// Writes how far a journal is, where no batch does.
    pub async fn write_checkpoint(&self, checkpoint: &Checkpoint, now: Timestamp) -> Result<(), PersistError> {
        let mut tx = self.writing().await?;
        tx.checkpoint(checkpoint, now).await?;
        tx.commit().await
    }

    /// A transaction whose statements all see the database as it stood at the first of them, whoever writes meanwhile. It blocks
    /// no writer, but while it is open SQLite cannot shorten its log and Postgres cannot clean up.
    pub(super) async fn snapshot(&self) -> Result<Tx, PersistError> {
        Ok(match self {
            Self::Sqlite(store) => Tx::Sqlite(store.pools.readers.begin_with("BEGIN DEFERRED").await?),
            Self::Postgres(store) => {
                let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
                Tx::Postgres(store.pool.begin_with(begin).await?)
            }
        })
    }

    /// How many transactions can usefully be open at once. SQLite has one writer.
    pub fn writers(&self) -> usize {
        match self {
            Self::Sqlite(_) => 1,
            Self::Postgres(_) => postgres::WRITERS,
        }
    }

    /// Traces that this instance is to look at again by now: those that it claims, that nobody claims, or whose claimant did not
    /// look in time.
    pub async fn due(&self, now: Timestamp, most: i64) -> Result<Vec<TraceId>, PersistError> {
        let sql = "SELECT trace_id FROM trace_extracts WHERE due_at <= $1 \
                   AND (claimed_by IS NULL OR claimed_by = $2 OR due_at <= $3) ORDER BY due_at, trace_id LIMIT $4";
        let own = Value::text(&self.own().instance);
        let values = [Value::time(now), own, Value::time(now.minus(CLAIM)), Value::Int(most)];
        let found = self.fetch(sql, &values).await?;
        let ids: Result<Vec<_>, _> = found.iter().map(|row| rows::to_trace_id(row, 0)).collect();
        Ok(ids?)
    }

    /// Gives up the claims of this instance, so that whoever comes next looks at what still waits.
    pub async fn release_claims(&self) -> Result<(), PersistError> {
        let sql = "UPDATE trace_extracts SET claimed_by = NULL WHERE claimed_by = $1 AND due_at IS NOT NULL";
        let mut tx = self.writing().await?;
        tx.fetch(sql, &[Value::text(&self.own().instance)]).await?;
        tx.commit().await
    }

    /// The first frame of this journal that is needed; `None` where nothing was written from it yet.
    pub async fn checkpoint(&self, journal: &str) -> Result<Option<Lsn>, PersistError> {
        let sql = "SELECT needed_lsn FROM journal_checkpoints WHERE journal = $1";
        let found = self.fetch(sql, &[Value::text(journal)]).await?;
        Ok(found.first().map(|row| row.count(0)).transpose()?.map(Lsn))
    }

    /// Puts a trace that the database would not take where it blocks nothing, with the reason: a letter each time, so that what was
    /// set aside of a trace before stays.
    pub async fn set_aside(&self, change: &Change, reason: &str, now: Timestamp) -> Result<(), PersistError> {
        let sql = "INSERT INTO dead_letters (trace_id, reason, extract, created_at) VALUES ($1, $2, $3, $4)";
        let values = [
            Value::Text(change.trace_id.to_string()),
            Value::text(reason),
            Value::Bytes(extracts::encode(change)?),
            Value::time(now),
        ];
        let mut tx = self.writing().await?;
        tx.fetch(sql, &values).await?;
        // Else it would come due again and again.
        tx.fetch("UPDATE trace_extracts SET due_at = NULL WHERE trace_id = $1", &values[..1]).await?;
        tx.commit().await
    }

    pub async fn ping(&self) -> Result<(), PersistError> {
        self.fetch("SELECT 1", &[]).await.map(drop)
    }

    pub async fn close(&self) {
        match self {
            Self::Sqlite(store) => {
                if let Err(error) = self.look_at_feed().await {
                    tracing::debug!(%error, "position of the feed not known at the end");
                }
                store.pools.close().await;
            }
            Self::Postgres(store) => store.pool.close().await,
        }
    }

    /// Reads by one statement over many rows; `{rows}` in it stands for them.
    pub(super) async fn look_up(
        &self,
        sql: &str,
        kinds: &[Kind],
        rows: Vec<Vec<Value>>,
    ) -> Result<Vec<Row>, PersistError> {
        let found = match self {
            Self::Sqlite(store) => sqlite::bulk(&mut *store.pools.readers.acquire().await?, sql, rows).await,
            Self::Postgres(store) => postgres::bulk(&mut *store.pool.acquire().await?, sql, kinds, rows).await,
        };
        Ok(found?)
    }

    pub(super) async fn fetch(&self, sql: &str, values: &[Value]) -> Result<Vec<Row>, PersistError> {
        let found = match self {
            Self::Sqlite(store) => sqlite::fetch(&store.pools.readers, sql, values).await,
            Self::Postgres(store) => postgres::fetch(&store.pool, sql, values).await,
        };
        Ok(found?)
    }
}

impl SqliteStore {
    pub(super) async fn note_position(&self, position: i64) {
        if let Some(witness) = &self.pools.witness {
            witness.note(position).await;
        }
    }
}

pub(super) enum Tx {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

impl Tx {
    pub(super) fn database(&self) -> Database {
        match self {
            Self::Sqlite(_) => Database::Sqlite,
            Self::Postgres(_) => Database::Postgres,
        }
    }

    /// Runs one statement over many rows; `{rows}` in it stands for them.
    pub(super) async fn bulk(
        &mut self,
        sql: &str,
        kinds: &[Kind],
        rows: Vec<Vec<Value>>,
    ) -> Result<Vec<Row>, PersistError> {
        let found = match self {
            Self::Sqlite(tx) => sqlite::bulk(tx, sql, rows).await,
            Self::Postgres(tx) => postgres::bulk(tx, sql, kinds, rows).await,
        };
        Ok(found?)
    }

    pub(super) async fn fetch(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, PersistError> {
        let found = match self {
            Self::Sqlite(tx) => sqlite::fetch(&mut **tx, sql, values).await,
            Self::Postgres(tx) => postgres::fetch(&mut **tx, sql, values).await,
        };
        Ok(found?)
    }

    pub(super) async fn checkpoint(&mut self, checkpoint: &Checkpoint, now: Timestamp) -> Result<(), PersistError> {
        let sql = "INSERT INTO journal_checkpoints (journal, needed_lsn, updated_at) VALUES ($1, $2, $3) \
                   ON CONFLICT (journal) DO UPDATE SET needed_lsn = excluded.needed_lsn, updated_at = excluded.updated_at";
        let values = [Value::text(&checkpoint.journal), Value::count(checkpoint.needed.0), Value::time(now)];
        self.fetch(sql, &values).await.map(drop)
    }

    /// What a SELECT of rows that are about to be written ends in. SQLite has one writer and needs nothing.
    pub(super) fn lock(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "",
            Self::Postgres(_) => " FOR UPDATE",
        }
    }

    pub(super) async fn commit(self) -> Result<(), PersistError> {
        match self {
            Self::Sqlite(tx) => tx.commit().await?,
            Self::Postgres(tx) => tx.commit().await?,
        }
        Ok(())
    }
}
