//! The store of records, calls and accounts, in SQLite or Postgres: every SQL statement of the house. It writes what it is given
//! in one transaction and adds nothing of its own; it never resolves a trace and never prices a call.

mod accounts;
mod postgres;
mod query;
mod rebuild;
mod rows;
mod sqlite;
mod store;
mod value;
mod verify;
mod work;

use serde::Deserialize;

use crate::domain::ids::TraceId;
use crate::domain::record::Request;
use crate::domain::time::Timestamp;
use crate::domain::trace::Trace;

pub use crate::domain::account::Drift;
pub use query::{AccountRow, Group, Page, RecordFilter, RecordRow, SummaryRow};
pub use rebuild::{Mended, Rebuild};
pub use store::{PostgresStore, SqliteStore, Store};
pub use verify::{Checked, Difference, RowKey, Verification, What};
pub use work::Work;

/// The section `[database]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseConfig {
    /// `sqlite:path` or `postgres://…`. Unset: `tacho.db` in the data folder.
    pub url: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum PersistError {
    /// Nothing was written; the same write can be tried again.
    #[error("database unreachable or busy")]
    Unreachable(#[source] sqlx::Error),
    /// The database said no; trying again changes nothing.
    #[error("database refused")]
    Refused(#[source] sqlx::Error),
    #[error("migrations could not be applied")]
    Migration(#[source] sqlx::migrate::MigrateError),
    #[error("database url `{0}` begins with neither sqlite: nor postgres:")]
    Scheme(String),
    #[error("the stored extract of trace {0} was written by a newer version or is damaged")]
    Extract(TraceId),
}

impl From<sqlx::Error> for PersistError {
    fn from(error: sqlx::Error) -> Self {
        let away = match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => true,
            sqlx::Error::Database(cause) => cause.code().is_some_and(|code| passes(&code)),
            _ => false,
        };
        if away { Self::Unreachable(error) } else { Self::Refused(error) }
    }
}

/// Whether an error of this code may be gone at the next attempt. SQLite codes are numbers, those of Postgres have five characters.
fn passes(code: &str) -> bool {
    if code.len() == 5 {
        // Connection, rollback (deadlock, serialization), resources, not in this state (locks), operator, system.
        return ["08", "40", "53", "55", "57", "58"].iter().any(|class| code.starts_with(class));
    }
    // Busy, locked, input or output failed, disk full, file not opened; the low byte of an extended code is the code.
    code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 10 | 13 | 14))
}

/// What the store knows of a trace.
#[derive(Debug)]
pub struct Known {
    pub trace_id: TraceId,
    pub trace: Trace,
    pub first_seen: Timestamp,
    /// Its calls wait for a request no longer.
    pub last_word: bool,
    /// Its rows as they stand, by key.
    pub requests: Vec<Request>,
}

/// What a trace has become; replaces all that was known of it.
#[derive(Debug)]
pub struct Change {
    pub trace_id: TraceId,
    pub trace: Trace,
    pub first_seen: Timestamp,
    pub last_word: bool,
    /// When to look at it again without a new span; `None` if all its calls have their request.
    pub due: Option<Timestamp>,
    /// What stood there before, as `Known` told.
    pub before: Vec<Request>,
    pub after: Vec<Request>,
}

impl Change {
    /// Of a trace of which nothing came and nothing is known.
    pub fn nothing(trace_id: TraceId, first_seen: Timestamp) -> Self {
        let (trace, before, after) = (Trace::default(), Vec::new(), Vec::new());
        Self { trace_id, trace, first_seen, last_word: false, due: None, before, after }
    }

    /// Nothing came of it and nothing is waited for: the store need not remember it.
    pub fn is_empty(&self) -> bool {
        self.after.is_empty() && self.due.is_none()
    }
}
