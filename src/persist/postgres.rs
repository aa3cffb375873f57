//! Postgres: the pool, and how a statement over many rows is put to it.

use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Postgres};

use super::PersistError;
use super::value::{Kind, Row, Stored, Value};

/// How long a connection is waited for before the database counts as unreachable.
const PATIENCE: Duration = Duration::from_secs(5);
/// While one transaction waits for the database, another can be made ready.
pub(super) const WRITERS: usize = 2;
/// Those that write and some that answer questions; a database is shared by many instances.
const CONNECTIONS: u32 = 6;

pub(super) async fn open(options: PgConnectOptions) -> Result<PgPool, PersistError> {
    let pool =
        PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(PATIENCE).connect_with(options).await?;
    sqlx::migrate!("./migrations/postgres").run(&pool).await?;
    Ok(pool)
}

/// Names the cluster, the database and the table in it, and the timeline. A dump that is loaded elsewhere has another cluster or table,
/// and a failover or a restore in place another timeline. Hosted servers may refuse some of it.
const CLUSTER: [&str; 3] = [
    "(SELECT concat_ws('/', (SELECT system_identifier FROM pg_control_system()), 'feed'::regclass::oid, \
     substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)))",
    "(SELECT concat_ws('/', (SELECT system_identifier FROM pg_control_system()), 'feed'::regclass::oid))",
    "(SELECT 'feed'::regclass::oid::text)",
];

/// The expression of these that says the most and that this server answers.
pub(super) async fn cluster(pool: &PgPool) -> Result<&'static str, PersistError> {
    for expression in CLUSTER {
        match sqlx::query(AssertSqlSafe(format!("SELECT {expression}"))).execute(pool).await {
            Ok(_) => return Ok(expression),
            Err(error) if is_withheld(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(CLUSTER[CLUSTER.len() - 1])
}

/// No right to it, not supported, no such function: so says this server to all instances alike.
fn is_withheld(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| ["42501", "0A000", "42883"].contains(&&*code))
}

/// Runs the statement with `{rows}` standing for all rows, which go as one array a column: one statement for any number.
pub(super) async fn bulk(
    connection: &mut PgConnection,
    sql: &str,
    kinds: &[Kind],
    mut rows: Vec<Vec<Value>>,
) -> Result<Vec<Row>, sqlx::Error> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let arrays: Vec<String> = kinds.iter().zip(1..).map(|(kind, n)| format!("${n}::{}", kind.array())).collect();
    let statement = sql.replace("{rows}", &format!("SELECT * FROM UNNEST({})", arrays.join(", ")));
    let mut query = sqlx::query(AssertSqlSafe(statement));
    for (column, kind) in kinds.iter().enumerate() {
        let values = rows.iter_mut().map(|row| std::mem::replace(&mut row[column], Value::Null));
        query = bind_column(query, *kind, values);
    }
    Ok(query.fetch_all(connection).await?.into_iter().map(Row::Postgres).collect())
}

pub(super) async fn fetch(
    executor: impl sqlx::Executor<'_, Database = Postgres>,
    sql: &str,
    values: &[Value],
) -> Result<Vec<Row>, sqlx::Error> {
    let mut query = sqlx::query(AssertSqlSafe(sql.to_owned()));
    for value in values {
        query = match value {
            Value::Null => query.bind(None::<String>),
            Value::Text(text) => query.bind(text.clone()),
            Value::Int(number) => query.bind(*number),
            Value::Real(number) => query.bind(*number),
            Value::Flag(flag) => query.bind(*flag),
            Value::Time(time) => query.bind(Stored(*time)),
            Value::Bytes(bytes) => query.bind(bytes.clone()),
        };
    }
    Ok(query.fetch_all(executor).await?.into_iter().map(Row::Postgres).collect())
}

type Query<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

/// A value of another kind than its column's becomes NULL, which the columns that need one refuse.
fn bind_column(query: Query<'_>, kind: Kind, values: impl Iterator<Item = Value>) -> Query<'_> {
    macro_rules! column {
        ($variant:ident($value:ident) => $as:expr) => {
            query.bind(
                values
                    .map(|value| match value {
                        Value::$variant($value) => Some($as),
                        _ => None,
                    })
                    .collect::<Vec<_>>(),
            )
        };
    }
    match kind {
        Kind::Text => column!(Text(text) => text),
        Kind::Int => column!(Int(number) => number),
        Kind::Real => column!(Real(number) => number),
        Kind::Flag => column!(Flag(flag) => flag),
        Kind::Time => column!(Time(time) => Stored(time)),
        Kind::Bytes => column!(Bytes(bytes) => bytes),
    }
}
