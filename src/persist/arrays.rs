//! Rows as JSON arrays: where many rows are read with their calls, the database hands over one text a record. To read each column for
//! itself costs several times as much.

use serde::Deserialize;

use super::query::{CallRow, RecordRow};
use super::rows;
use super::store::Database;
use super::value::Row;
use tacho_core::domain::money::NanoUsd;

/// A column of a statement over `usage_records AS r`: the record.
pub(super) fn of_record(database: Database) -> String {
    let record = array(database, "r", super::query::COLUMNS.split(", "));
    match database {
        Database::Sqlite => record,
        Database::Postgres => record + "::text",
    }
}

/// Likewise its calls; NULL where it has none.
pub(super) fn of_calls(database: Database) -> String {
    let call = array(database, "c", rows::CALL_COLUMNS.split(", ").skip(rows::RECORD_KEY_KINDS.len()));
    let all = match database {
        Database::Sqlite => format!("json_group_array({call})"),
        Database::Postgres => format!("json_agg({call})::text"),
    };
    format!(
        "CASE WHEN r.llm_calls > 0 THEN (SELECT {all} FROM llm_calls AS c WHERE c.record_started_at = r.started_at \
         AND c.trace_id = r.trace_id AND c.record_span_id = r.span_id) END"
    )
}

fn array<'a>(database: Database, table: &str, columns: impl Iterator<Item = &'a str>) -> String {
    let columns: Vec<String> = columns.map(|column| value(database, table, column)).collect();
    match database {
        Database::Sqlite => format!("json_array({})", columns.join(", ")),
        Database::Postgres => format!("json_build_array({})", columns.join(", ")),
    }
}

/// Columns that are true or false, which SQLite keeps as numbers.
const FLAGS: [&str; 4] = ["free_request", "partly_priced", "answered_from_cache", "streaming"];

/// A column as both databases write it: times as RFC 3339 with six decimals, flags as true and false.
fn value(database: Database, table: &str, column: &str) -> String {
    match database {
        Database::Sqlite if FLAGS.contains(&column) => {
            format!("json(CASE WHEN {table}.{column} THEN 'true' ELSE 'false' END)")
        }
        Database::Postgres if column.ends_with("_at") => {
            format!("to_char({table}.{column} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
        }
        _ => format!("{table}.{column}"),
    }
}

pub(super) fn to_record(row: &Row, column: usize) -> Result<RecordRow, sqlx::Error> {
    let mut record: RecordRow = parsed(&row.text(column)?)?;
    record.cost = record.cost_nanousd.map(|cost| NanoUsd(cost).to_string());
    Ok(record)
}

/// In the order of their time.
pub(super) fn to_calls(row: &Row, column: usize) -> Result<Vec<CallRow>, sqlx::Error> {
    let mut calls: Vec<CallRow> = match row.maybe_text(column)? {
        Some(calls) => parsed(&calls)?,
        None => Vec::new(),
    };
    calls.sort_unstable_by(|a, b| (&a.started_at, &a.span_id).cmp(&(&b.started_at, &b.span_id)));
    Ok(calls)
}

fn parsed<'t, T: Deserialize<'t>>(text: &'t str) -> Result<T, sqlx::Error> {
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(error.into()))
}
