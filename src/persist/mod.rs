//! The store of records, calls and accounts, in SQLite or Postgres: every SQL statement of the house. It writes what it is given
//! in one transaction and adds nothing of its own; it never resolves a trace and never prices a call.

mod account_query;
mod accounts;
mod arrays;
mod audit;
mod charges;
mod counters;
mod cursor;
mod exports;
mod extracts;
mod feed;
mod ledger;
mod limit_events;
mod postgres;
mod query;
mod rebuild;
mod refill;
mod rows;
mod settle;
mod sqlite;
mod states;
mod store;
mod sums;
mod tombstones;
mod turns;
mod value;
mod verify;
mod witness;
mod work;

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use crate::remote::{Address, CertificateFiles, Misconfigured, Target};

use tacho_core::domain::ids::TraceId;
use tacho_core::domain::lsn::Lsn;
use tacho_core::domain::record::Request;
use tacho_core::domain::time::Timestamp;
use tacho_core::domain::trace::{Trace, Waits};

pub use account_query::{AccountFilter, AccountPage, AccountRow, ResetRow};
pub use audit::{Act, AuditFilter, AuditRow, Done};
pub use counters::CounterRow;
pub use cursor::{Cursor, FeedKey, NotACursor};
pub use exports::{ExportCursor, ExportDeadLetter, LeaseLost, Stream};
pub use feed::{FeedError, FeedPage, Horizon, RecordChange, RecordState};
pub use ledger::MendedCounter;
pub use limit_events::LimitEventRow;
pub use query::{CallRow, Group, Page, RecordFilter, RecordRow, SummaryRow};
pub use rebuild::{Mended, Rebuild};
pub use refill::Span;
pub use store::{PostgresStore, SqliteStore, Store};
pub use tacho_core::domain::account::{Drift, Mark, Standing};
pub use verify::{Checked, Difference, RowKey, Verification, What};
pub use work::{Prepared, Work};

/// The section `[database]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseConfig {
    /// `sqlite:path` or `postgres://…`. Unset: `tacho.db` in the data folder.
    #[serde(deserialize_with = "database_url")]
    pub url: Option<Address>,
    /// Of a private certificate authority, PEM. With it the server must speak TLS and its certificate be right for its name.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate, for a server that asks for one.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

impl DatabaseConfig {
    pub fn certificate_files(&self) -> CertificateFiles {
        let (ca_file, cert_file, key_file) = (self.ca_file.clone(), self.cert_file.clone(), self.key_file.clone());
        CertificateFiles { section: "database", ca_file, cert_file, key_file }
    }
}

/// Refused where it stands in the file, if it is none.
fn database_url<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Address>, D::Error> {
    let Some(address) = Option::<Address>::deserialize(deserializer)? else { return Ok(None) };
    let target = Target { address, files: CertificateFiles { section: "database", ..CertificateFiles::default() } };
    target.database().map_err(serde::de::Error::custom)?;
    Ok(Some(target.address))
}

#[derive(Debug, thiserror::Error)]
pub enum PersistError {
    /// Nothing was written; the same write can be tried again.
    #[error("database unreachable or busy")]
    Unreachable(#[source] sqlx::Error),
    /// The database is there but not as we need it: rights, tables, a damaged file. Nothing was written; the same write can be
    /// tried again when somebody has mended it.
    #[error("database cannot be used as it is")]
    Unusable(#[source] sqlx::Error),
    /// The data is at fault; trying again changes nothing.
    #[error("database refused")]
    Refused(#[source] sqlx::Error),
    #[error("migrations could not be applied")]
    Migration(#[source] sqlx::migrate::MigrateError),
    #[error(transparent)]
    Misconfigured(#[from] Misconfigured),
    #[error("there is no database at {0}")]
    NoDatabase(String),
    #[error("the stored extract of trace {0} was written by a newer version or is damaged")]
    Extract(TraceId),
}

impl PersistError {
    /// Whether the same write may succeed later, and nothing of it is written now.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Unusable(_))
    }
}

impl From<sqlx::Error> for PersistError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => Self::Unreachable(error),
            sqlx::Error::Database(cause) => match cause.code().map(|code| fault(&code)) {
                Some(Fault::Moment) => Self::Unreachable(error),
                Some(Fault::Data) => Self::Refused(error),
                Some(Fault::Database) | None => Self::Unusable(error),
            },
            _ => Self::Refused(error),
        }
    }
}

impl From<sqlx::migrate::MigrateError> for PersistError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        match error {
            sqlx::migrate::MigrateError::Execute(cause) => match Self::from(cause) {
                away @ Self::Unreachable(_) => away,
                Self::Unusable(cause) | Self::Refused(cause) => {
                    Self::Migration(sqlx::migrate::MigrateError::Execute(cause))
                }
                other => other,
            },
            other => Self::Migration(other),
        }
    }
}

/// Where an error lies.
enum Fault {
    /// It may be gone at the next attempt.
    Moment,
    Data,
    Database,
}

/// SQLite codes are numbers, those of Postgres have five characters.
fn fault(code: &str) -> Fault {
    if code.len() == 5 {
        return match &code[..2] {
            // Connection, rollback (deadlock, serialization), resources, not in this state (locks), operator, system.
            "08" | "40" | "53" | "55" | "57" | "58" => Fault::Moment,
            // Cardinality, data, constraint, check option, program limit.
            "21" | "22" | "23" | "44" | "54" => Fault::Data,
            _ => Fault::Database,
        };
    }
    // The low byte of an extended code is the code.
    match code.parse::<u32>().map(|code| code & 0xff) {
        // Busy, locked, input or output failed, disk full, file not opened.
        Ok(5 | 6 | 10 | 13 | 14) => Fault::Moment,
        // Too big, constraint, mismatch.
        Ok(18..=20) => Fault::Data,
        _ => Fault::Database,
    }
}

/// What the store knows of a trace.
#[derive(Debug)]
pub struct Known {
    pub trace_id: TraceId,
    pub trace: Trace,
    pub first_seen: Timestamp,
    pub waits: Waits,
    /// Its rows as they stand, by key.
    pub requests: Vec<Request>,
}

/// How far a journal is in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Names the journal among those of all instances.
    pub journal: Arc<str>,
    /// What came before this frame is written.
    pub needed: Lsn,
}

/// What a trace has become; replaces all that was known of it.
#[derive(Debug)]
pub struct Change {
    pub trace_id: TraceId,
    pub trace: Trace,
    pub first_seen: Timestamp,
    pub waits: Waits,
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
        Self { trace_id, trace, first_seen, waits: Waits::new(), due: None, before, after }
    }

    /// Nothing came of it and nothing is waited for: the store need not remember it.
    pub fn is_empty(&self) -> bool {
        self.after.is_empty() && self.due.is_none()
    }
}
