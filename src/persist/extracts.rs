//! The usage extracts of traces: what was received of each, kept so that a late span sees the whole.

use super::rows::{self, Values};
use super::store::Tx;
use super::value::{Kind, Value};
use super::{Change, Known, PersistError};
use tacho_core::domain::ids::TraceId;
use tacho_core::domain::trace::{Trace, Waits};

/// Leads every stored extract; another form of it gets another number.
const EXTRACT_VERSION: u8 = 1;

/// Puts in the extracts of traces that have none yet, which nobody else can see or touch from here on; answers which.
pub(super) async fn insert(
    tx: &mut Tx,
    instance: &str,
    changes: impl Iterator<Item = &Change>,
) -> Result<Vec<TraceId>, PersistError> {
    let sql = format!(
        "INSERT INTO trace_extracts ({}) {{rows}} ON CONFLICT (trace_id) DO NOTHING RETURNING trace_id",
        rows::EXTRACT_COLUMNS
    );
    let rows = rows_of(changes.filter(|change| !change.is_empty()), instance)?;
    let inserted = tx.bulk(&sql, rows::EXTRACT_KINDS, rows).await?;
    Ok(inserted.iter().map(|row| rows::to_trace_id(row, 0)).collect::<Result<_, _>>()?)
}

/// The stored extracts of these traces, each locked, without their rows.
pub(super) async fn lock(tx: &mut Tx, ids: impl Iterator<Item = &TraceId>) -> Result<Vec<Known>, PersistError> {
    let sql = format!(
        "SELECT trace_id, extract, first_seen_at FROM trace_extracts WHERE trace_id IN ({{rows}}) \
         ORDER BY trace_id{}",
        tx.lock()
    );
    let ids = ids.map(|id| vec![Value::Text(id.to_string())]).collect();
    let mut known = Vec::new();
    for row in tx.bulk(&sql, &[Kind::Text], ids).await? {
        let trace_id = rows::to_trace_id(&row, 0)?;
        let (trace, waits) = decode(&row.bytes(1)?).ok_or(PersistError::Extract(trace_id))?;
        known.push(Known { trace_id, trace, first_seen: row.time(2)?, waits, requests: Vec::new() });
    }
    Ok(known)
}

/// Those of known traces, as they have become; what is empty now is forgotten, unless a record of it went: its key may come back.
pub(super) async fn write(tx: &mut Tx, instance: &str, changes: &[Change]) -> Result<(), PersistError> {
    let rows = rows_of(changes.iter(), instance)?;
    let sql = format!(
        "INSERT INTO trace_extracts ({}) {{rows}} ON CONFLICT (trace_id) DO UPDATE SET extract = excluded.extract, \
         first_seen_at = excluded.first_seen_at, due_at = excluded.due_at, \
         claimed_by = excluded.claimed_by",
        rows::EXTRACT_COLUMNS
    );
    tx.bulk(&sql, rows::EXTRACT_KINDS, rows).await?;
    let empty = changes.iter().filter(|change| change.is_empty());
    let empty = empty.map(|change| vec![Value::Text(change.trace_id.to_string())]).collect();
    let sql = "DELETE FROM trace_extracts WHERE trace_id IN ({rows}) AND NOT EXISTS \
               (SELECT 1 FROM record_tombstones t WHERE t.trace_id = trace_extracts.trace_id)";
    tx.bulk(sql, &[Kind::Text], empty).await.map(drop)
}

fn rows_of<'c>(changes: impl Iterator<Item = &'c Change>, instance: &str) -> Result<Vec<Values>, PersistError> {
    let row = |change: &Change| {
        Ok(vec![
            Value::Text(change.trace_id.to_string()),
            Value::Bytes(encode(change)?),
            Value::time(change.first_seen),
            change.due.map_or(Value::Null, Value::time),
            Value::text(instance),
        ])
    };
    changes.map(row).collect()
}

pub(super) fn encode(change: &Change) -> Result<Vec<u8>, PersistError> {
    postcard::to_stdvec(&(EXTRACT_VERSION, &change.trace, &change.waits))
        .map_err(|error| PersistError::Refused(sqlx::Error::Encode(error.into())))
}

fn decode(extract: &[u8]) -> Option<(Trace, Waits)> {
    let (version, rest) = extract.split_first()?;
    (*version == EXTRACT_VERSION).then(|| postcard::from_bytes(rest).ok())?
}
