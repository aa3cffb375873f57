//! The database of the records as the store of limits: a row for each state, changed by the rules of shared.rs in a transaction. A
//! pool of its own, so that no limit waits for the writing of records.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};

use super::shared::{Ask, Key, NodeId, Reporter, Shared, Told};
use super::store::{Answers, StoreError};
use crate::remote::{DatabaseOptions, Target};

pub enum DatabaseStore {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// A row to be written.
#[derive(Serialize)]
struct Row {
    key: String,
    state: String,
    /// SQLite and Postgres have no greater numbers.
    expires_at: Option<i64>,
}

/// A little less than a decision waits.
const PATIENCE: Duration = Duration::from_millis(900);
/// One that decides and one that reports.
const CONNECTIONS: u32 = 2;
/// States deleted at a heartbeat, at most.
const SWEEP: i64 = 1_000;

const READ_SQLITE: &str = "SELECT key, state FROM rate_limits WHERE key IN (SELECT value FROM json_each($1))";
const READ_POSTGRES: &str = "SELECT key, state FROM rate_limits WHERE key = ANY($1)";
const WRITE_SQLITE: &str = "INSERT INTO rate_limits (key, state, expires_at, updated_at) \
    SELECT value ->> 'key', value ->> 'state', value ->> 'expires_at', $2 FROM json_each($1) WHERE true \
    ON CONFLICT (key) DO UPDATE SET state = excluded.state, expires_at = excluded.expires_at, updated_at = excluded.updated_at";
const WRITE_POSTGRES: &str = "INSERT INTO rate_limits (key, state, expires_at, updated_at) \
    SELECT key, state, expires_at, $4 FROM UNNEST($1::text[], $2::text[], $3::bigint[]) AS new (key, state, expires_at) \
    ON CONFLICT (key) DO UPDATE SET state = excluded.state, expires_at = excluded.expires_at, updated_at = excluded.updated_at";
/// Of the sorted numbers, one after the other, so that no two instances wait for each other in a circle. A row that is not there
/// yet is locked as well.
const LOCK: &str = "SELECT pg_advisory_xact_lock(number) FROM UNNEST($1::bigint[]) AS number";
const CLOCK: &str = "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint";
const SWEEP_SQLITE: &str = "DELETE FROM rate_limits WHERE key IN \
    (SELECT key FROM rate_limits WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)";
/// A row that is being written is no longer over, and to wait for it could be to wait in a circle.
const SWEEP_POSTGRES: &str = "DELETE FROM rate_limits WHERE key IN \
    (SELECT key FROM rate_limits WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)";
const BEAT: &str = "INSERT INTO limit_instances (instance, expires_at) VALUES ($1, $2) \
    ON CONFLICT (instance) DO UPDATE SET expires_at = excluded.expires_at";
const SWEEP_NODES: &str = "DELETE FROM limit_instances WHERE expires_at <= $1";
const COUNT_NODES: &str = "SELECT COUNT(*) FROM limit_instances";
const LEAVE: &str = "DELETE FROM limit_instances WHERE instance = $1";

impl DatabaseStore {
    pub async fn open(target: &Target) -> Result<Self, StoreError> {
        let options = match target.database().map_err(|error| StoreError::Unusable(error.into()))? {
            DatabaseOptions::Postgres(options) => {
                let pool = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(PATIENCE);
                return pool.connect_with(*options).await.map(Self::Postgres).map_err(meaning);
            }
            DatabaseOptions::Sqlite(options) => options
                .journal_mode(SqliteJournalMode::Wal)
                // A loss of power may cost what was reported last; the records, which decide quotas, it does not.
                .synchronous(SqliteSynchronous::Normal)
                .busy_timeout(PATIENCE),
        };
        let pool = SqlitePoolOptions::new().max_connections(1).acquire_timeout(PATIENCE);
        pool.connect_with(options).await.map(Self::Sqlite).map_err(meaning)
    }

    /// `now`: the time of the host, which is that of SQLite.
    pub async fn ask(&self, who: &Reporter, asks: &[Ask], now: u64) -> Result<Answers, StoreError> {
        let answers = match self {
            Self::Sqlite(pool) => ask_sqlite(pool, who, asks, now).await,
            Self::Postgres(pool) => ask_postgres(pool, who, asks).await,
        };
        answers.map_err(meaning)
    }

    pub async fn heartbeat(&self, node: &NodeId, ttl: Duration, now: u64) -> Result<u32, StoreError> {
        let ttl = i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX);
        let lived = match self {
            Self::Sqlite(pool) => beat_sqlite(pool, node, ttl, micros(now)).await,
            Self::Postgres(pool) => beat_postgres(pool, node, ttl).await,
        };
        lived.map(|nodes| u32::try_from(nodes).unwrap_or(u32::MAX)).map_err(meaning)
    }

    pub async fn leave(&self, node: &NodeId) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(pool) => sqlx::query(LEAVE).bind(&**node).execute(pool).await.map(drop),
            Self::Postgres(pool) => sqlx::query(LEAVE).bind(&**node).execute(pool).await.map(drop),
        }
        .map_err(meaning)
    }

    pub async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

async fn ask_sqlite(pool: &SqlitePool, who: &Reporter, asks: &[Ask], now: u64) -> Result<Answers, sqlx::Error> {
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    let keys: Vec<String> = asks.iter().map(|ask| ask.key.to_string()).collect();
    let keys = serde_json::to_string(&keys).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let found: Vec<(String, String)> = sqlx::query_as(READ_SQLITE).bind(keys).fetch_all(&mut *tx).await?;
    let (told, rows) = taken(found, who, asks, now)?;
    let rows = serde_json::to_string(&rows).map_err(|error| sqlx::Error::Encode(error.into()))?;
    sqlx::query(WRITE_SQLITE).bind(rows).bind(micros(now)).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(Answers { now, told })
}

async fn ask_postgres(pool: &PgPool, who: &Reporter, asks: &[Ask]) -> Result<Answers, sqlx::Error> {
    let mut tx = pool.begin().await?;
    let mut numbers: Vec<i64> = asks.iter().map(|ask| lock_number(ask.key)).collect();
    numbers.sort_unstable();
    sqlx::query(LOCK).bind(numbers).execute(&mut *tx).await?;
    let keys: Vec<String> = asks.iter().map(|ask| ask.key.to_string()).collect();
    let found: Vec<(String, String)> = sqlx::query_as(READ_POSTGRES).bind(keys).fetch_all(&mut *tx).await?;
    let (clock,): (i64,) = sqlx::query_as(CLOCK).fetch_one(&mut *tx).await?;
    let now = clock.unsigned_abs();
    let (told, mut rows) = taken(found, who, asks, now)?;
    // In one order for all, as the rows are locked too.
    rows.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    let ends: Vec<Option<i64>> = rows.iter().map(|row| row.expires_at).collect();
    let (keys, states): (Vec<String>, Vec<String>) = rows.into_iter().map(|row| (row.key, row.state)).unzip();
    sqlx::query(WRITE_POSTGRES).bind(keys).bind(states).bind(ends).bind(clock).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(Answers { now, told })
}

/// What the asks make of the rows that were found.
fn taken(
    found: Vec<(String, String)>,
    who: &Reporter,
    asks: &[Ask],
    now: u64,
) -> Result<(Vec<Option<Told>>, Vec<Row>), sqlx::Error> {
    let mut states: BTreeMap<String, Shared> = BTreeMap::new();
    for (key, state) in found {
        let state = serde_json::from_str(&state).map_err(|error| sqlx::Error::Decode(error.into()))?;
        states.insert(key, state);
    }
    let (mut told, mut rows) = (Vec::with_capacity(asks.len()), Vec::with_capacity(asks.len()));
    for ask in asks {
        let key = ask.key.to_string();
        let mut state = states.remove(&key).filter(|state| !state.is_over(now));
        told.push(Some(Shared::take(&mut state, who, ask, now)));
        let Some(state) = state else { continue };
        let expires_at = state.expires().map(micros);
        let state = serde_json::to_string(&state).map_err(|error| sqlx::Error::Encode(error.into()))?;
        rows.push(Row { key, state, expires_at });
    }
    Ok((told, rows))
}

async fn beat_sqlite(pool: &SqlitePool, node: &str, ttl: i64, now: i64) -> Result<i64, sqlx::Error> {
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query(BEAT).bind(node).bind(now.saturating_add(ttl)).execute(&mut *tx).await?;
    sqlx::query(SWEEP_NODES).bind(now).execute(&mut *tx).await?;
    sqlx::query(SWEEP_SQLITE).bind(now).bind(SWEEP).execute(&mut *tx).await?;
    let (nodes,): (i64,) = sqlx::query_as(COUNT_NODES).fetch_one(&mut *tx).await?;
    tx.commit().await?;
    Ok(nodes)
}

/// Statement by statement: none of them needs the others, and a transaction could meet another one in a circle.
async fn beat_postgres(pool: &PgPool, node: &str, ttl: i64) -> Result<i64, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let (now,): (i64,) = sqlx::query_as(CLOCK).fetch_one(&mut *connection).await?;
    sqlx::query(BEAT).bind(node).bind(now.saturating_add(ttl)).execute(&mut *connection).await?;
    sqlx::query(SWEEP_NODES).bind(now).execute(&mut *connection).await?;
    sqlx::query(SWEEP_POSTGRES).bind(now).bind(SWEEP).execute(&mut *connection).await?;
    let (nodes,): (i64,) = sqlx::query_as(COUNT_NODES).fetch_one(&mut *connection).await?;
    Ok(nodes)
}

/// The low half of the key: a meeting of two keys there only makes one wait.
fn lock_number(key: Key) -> i64 {
    let bytes = key.0.to_be_bytes();
    i64::from_be_bytes(bytes[8..].try_into().expect("half of sixteen bytes"))
}

fn micros(time: u64) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}

fn meaning(error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Configuration(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => {
            StoreError::Unusable(error.into())
        }
        // A table that is not there yet is made by the first who opens the records.
        _ => StoreError::Away(error.into()),
    }
}
