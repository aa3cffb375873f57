//! SQLite: one connection that writes, a few that read, and how a statement over many rows is put to it.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, Sqlite};

use super::PersistError;
use super::value::{Row, Stored, Value};
use super::witness::Witness;
use crate::rights;

/// SQLite takes 32 766 values a statement.
const MOST_VALUES: usize = 32_000;
const MOST_ROWS: usize = 512;
/// Two answer questions, the others follow the feed.
const READERS: u32 = 4;
/// Negative: KiB, not pages.
const PAGE_CACHE_KIB: &str = "-32768";
/// Of each reader: what it reads lies together.
const READER_CACHE_KIB: &str = "-4096";
/// 64 MiB of 4 KiB pages.
const LOG_PAGES: &str = "16384";
/// Each statement exists in up to ten lengths.
const STATEMENTS: usize = 256;

#[derive(Clone)]
pub(super) struct Pools {
    /// One connection: SQLite has one writer anyway, and so waits happen in the pool and in order.
    pub writer: SqlitePool,
    pub readers: SqlitePool,
    pub witness: Option<Witness>,
}

impl Pools {
    pub(super) async fn open(options: SqliteConnectOptions) -> Result<Self, PersistError> {
        if let Some(folder) = options.get_filename().parent().filter(|folder| *folder != Path::new("")) {
            tokio::fs::create_dir_all(folder).await.map_err(sqlx::Error::Io)?;
        }
        tighten(options.get_filename());
        let options = options
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // What was committed was acknowledged, so it must survive a loss of power too.
            .synchronous(SqliteSynchronous::Full)
            // Trace ids are random, so every row of an index lies on another page: with few pages in memory and a short log the
            // same page would be written over and over.
            .pragma("cache_size", PAGE_CACHE_KIB)
            // A statement over many rows must be able to take back what it has done: in memory, not in a file.
            .pragma("temp_store", "memory")
            .pragma("wal_autocheckpoint", LOG_PAGES)
            .busy_timeout(Duration::from_secs(5))
            .statement_cache_capacity(STATEMENTS);
        let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
        sqlx::migrate!("./migrations/sqlite").run(&writer).await?;
        let witness = Witness::of(options.get_filename());
        if let Some(witness) = &witness {
            witness.compare(&writer).await?;
        }
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_lazy_with(options.pragma("cache_size", READER_CACHE_KIB));
        Ok(Self { writer, readers, witness })
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// The file, and what SQLite puts beside it with the same rights.
fn tighten(file: &Path) {
    for ending in ["", "-wal", "-shm"] {
        let mut path = file.to_owned();
        path.as_mut_os_string().push(ending);
        match rights::tighten_file(&path) {
            Ok(rights::Tightened { files: 0, .. }) => {}
            Ok(_) => tracing::info!(path = %path.display(), "others could read the database; now only this user can"),
            Err(error) => tracing::warn!(%error, path = %path.display(), "rights of the database cannot be tightened"),
        }
    }
}

pub(super) fn must_exist(options: &SqliteConnectOptions) -> Result<(), PersistError> {
    let path = options.get_filename();
    if path.exists() { Ok(()) } else { Err(PersistError::NoDatabase(path.display().to_string())) }
}

/// Runs the statement with `{rows}` standing for all rows. In chunks of few lengths, so that prepared statements are met again.
pub(super) async fn bulk(
    connection: &mut SqliteConnection,
    sql: &str,
    rows: Vec<Vec<Value>>,
) -> Result<Vec<Row>, sqlx::Error> {
    let mut answer = Vec::new();
    let mut left = rows.len();
    let columns = rows.first().map_or(0, Vec::len);
    let mut rows = rows.into_iter();
    while left > 0 {
        let length = chunk_length(left, columns);
        let statement = sql.replace("{rows}", &values(length, columns));
        let mut query = sqlx::query(AssertSqlSafe(statement));
        for value in rows.by_ref().take(length).flatten() {
            query = bind(query, value);
        }
        answer.extend(query.fetch_all(&mut *connection).await?.into_iter().map(Row::Sqlite));
        left -= length;
    }
    Ok(answer)
}

pub(super) async fn fetch(
    executor: impl sqlx::Executor<'_, Database = Sqlite>,
    sql: &str,
    values: &[Value],
) -> Result<Vec<Row>, sqlx::Error> {
    let mut query = sqlx::query(AssertSqlSafe(sql.to_owned()));
    for value in values {
        query = bind(query, value.clone());
    }
    Ok(query.fetch_all(executor).await?.into_iter().map(Row::Sqlite).collect())
}

/// The greatest power of two that there are rows for and that fits in a statement.
fn chunk_length(rows: usize, columns: usize) -> usize {
    let most = rows.min(MOST_ROWS).min(MOST_VALUES / columns.max(1)).max(1);
    1 << most.ilog2()
}

fn values(rows: usize, columns: usize) -> String {
    let row = format!("({})", vec!["?"; columns].join(","));
    format!("VALUES {}", vec![row; rows].join(","))
}

type Query<'q> = sqlx::query::Query<'q, Sqlite, SqliteArguments>;

fn bind(query: Query<'_>, value: Value) -> Query<'_> {
    match value {
        Value::Null => query.bind(None::<i64>),
        Value::Text(text) => query.bind(text),
        Value::Int(number) => query.bind(number),
        Value::Real(number) => query.bind(number),
        Value::Flag(flag) => query.bind(flag),
        Value::Time(time) => query.bind(Stored(time)),
        Value::Bytes(bytes) => query.bind(bytes),
    }
}
