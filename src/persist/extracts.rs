//! The usage extracts of traces: what was received of each, kept so that a late span sees the whole.

use super::rows::{self, Values};
use super::store::Tx;
use super::value::{Kind, Value};
use super::{Change, Known, PersistError};
use tacho_core::domain::ids::TraceId;
use tacho_core::domain::trace::Trace;

/// Leads every stored extract; another form of it gets another number.
const EXTRACT_VERSION: u8 = 1;

/// Puts in the extracts of traces that have none yet, which nobody else can see or touch from here on; answers which.
pub(super) async fn insert(
    tx: &mut Tx,
    holder: &str,
    changes: impl Iterator<Item = &Change>,
) -> Result<Vec<TraceId>, PersistError> {
    let sql = format!(
        "INSERT INTO trace_extracts ({}) {{rows}} ON CONFLICT (trace_id) DO NOTHING RETURNING trace_id",
        rows::EXTRACT_COLUMNS
    );
    let rows = rows_of(changes.filter(|change| !change.is_empty()), holder)?;
    let inserted = tx.bulk(&sql, rows::EXTRACT_KINDS, rows).await?;
    Ok(inserted.iter().map(|row| rows::to_trace_id(row, 0)).collect::<Result<_, _>>()?)
}

/// The stored extracts of these traces, each locked, without their rows.
pub(super) async fn lock(tx: &mut Tx, ids: impl Iterator<Item = &TraceId>) -> Result<Vec<Known>, PersistError> {
    let sql = format!(
        "SELECT trace_id, extract, first_seen_at, last_word FROM trace_extracts WHERE trace_id IN ({{rows}}) \
         ORDER BY trace_id{}",
        tx.lock()
    );
    let ids = ids.map(|id| vec![Value::Text(id.to_string())]).collect();
    let mut known = Vec::new();
    for row in tx.bulk(&sql, &[Kind::Text], ids).await? {
        let trace_id = rows::to_trace_id(&row, 0)?;
        known.push(Known {
            trace_id,
            trace: decode(&row.bytes(1)?).ok_or(PersistError::Extract(trace_id))?,
            first_seen: row.time(2)?,
            last_word: row.flag(3)?,
            requests: Vec::new(),
        });
    }
    Ok(known)
}

/// Those of known traces, as they have become; what is empty now is forgotten.
pub(super) async fn write(tx: &mut Tx, holder: &str, changes: &[Change]) -> Result<(), PersistError> {
    let (gone, kept): (Vec<&Change>, Vec<&Change>) = changes.iter().partition(|change| change.is_empty());
    let kept = rows_of(kept.into_iter(), holder)?;
    let sql = format!(
        "INSERT INTO trace_extracts ({}) {{rows}} ON CONFLICT (trace_id) DO UPDATE SET extract = excluded.extract, \
         first_seen_at = excluded.first_seen_at, last_word = excluded.last_word, due_at = excluded.due_at, \
         held_by = excluded.held_by",
        rows::EXTRACT_COLUMNS
    );
    tx.bulk(&sql, rows::EXTRACT_KINDS, kept).await?;
    let gone = gone.into_iter().map(|change| vec![Value::Text(change.trace_id.to_string())]).collect();
    tx.bulk("DELETE FROM trace_extracts WHERE trace_id IN ({rows})", &[Kind::Text], gone).await.map(drop)
}

fn rows_of<'c>(changes: impl Iterator<Item = &'c Change>, holder: &str) -> Result<Vec<Values>, PersistError> {
    let row = |change: &Change| {
        Ok(vec![
            Value::Text(change.trace_id.to_string()),
            Value::Bytes(encode(&change.trace)?),
            Value::time(change.first_seen),
            Value::Flag(change.last_word),
            change.due.map_or(Value::Null, Value::time),
            Value::text(holder),
        ])
    };
    changes.map(row).collect()
}

pub(super) fn encode(trace: &Trace) -> Result<Vec<u8>, PersistError> {
    postcard::to_stdvec(&(EXTRACT_VERSION, trace))
        .map_err(|error| PersistError::Refused(sqlx::Error::Encode(error.into())))
}

fn decode(extract: &[u8]) -> Option<Trace> {
    let (version, rest) = extract.split_first()?;
    (*version == EXTRACT_VERSION).then(|| postcard::from_bytes(rest).ok())?
}
