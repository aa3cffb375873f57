//! One transaction: take some traces, tell what is known of them, write what they have become.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::accounts::{self, Rewrite};
use super::rows::{self, Values};
use super::store::Tx;
use super::value::{Kind, Value};
use super::{Change, Checkpoint, Known, PersistError};
use crate::domain::call::Call;
use crate::domain::ids::TraceId;
use crate::domain::record::{Record, Request};
use crate::domain::time::Timestamp;
use crate::domain::trace::Trace;

/// Leads every stored extract; another form of it gets another number.
const EXTRACT_VERSION: u8 = 1;

/// An open transaction. Nothing is written until `commit` has returned.
#[must_use = "a transaction that is not committed is rolled back"]
pub struct Work<'p> {
    tx: Tx,
    holder: Arc<str>,
    /// What was proposed for traces never seen before; their extracts are in.
    fresh: Vec<&'p Change>,
    known: Vec<Known>,
}

/// A key of a table as it is stored, in the order of the table.
type StoredKey = (Timestamp, [String; 3]);

impl<'p> Work<'p> {
    pub(super) async fn begin(mut tx: Tx, holder: Arc<str>, proposed: &'p [Change]) -> Result<Self, PersistError> {
        let mut open: BTreeMap<TraceId, &Change> = proposed.iter().map(|change| (change.trace_id, change)).collect();
        let (mut fresh, mut known) = (Vec::new(), Vec::new());
        while !open.is_empty() {
            for id in insert_extracts(&mut tx, &holder, open.values().copied()).await? {
                fresh.extend(open.remove(&id));
            }
            for found in lock_extracts(&mut tx, open.keys()).await? {
                open.remove(&found.trace_id);
                known.push(found);
            }
            // Of what is neither new nor known now, another instance has just deleted the row: once more. What leaves no row is
            // done, as nothing is known of it.
            open.retain(|_, change| !change.is_empty());
        }
        let mut requests = read_requests(&mut tx, known.iter().flat_map(starts).collect()).await?;
        for known in &mut known {
            known.requests = requests.remove(&known.trace_id).unwrap_or_default();
        }
        Ok(Self { tx, holder, fresh, known })
    }

    /// What is known of traces that were seen before. For these nothing is written but what `commit` is given. Leaves none behind.
    pub fn take_known(&mut self) -> Vec<Known> {
        std::mem::take(&mut self.known)
    }

    /// Writes what was proposed for new traces and these changes of known ones: the rows that differ, the extracts and the
    /// accounts, all or nothing, and how far the journal is when that is done. On `Unreachable` begin anew: what is known may have
    /// changed.
    pub async fn commit(
        mut self,
        changes: &[Change],
        checkpoint: Option<&Checkpoint>,
        now: Timestamp,
    ) -> Result<(), PersistError> {
        let all: Vec<&Change> = self.fresh.iter().copied().chain(changes).collect();
        self.write_records(&all, now).await?;
        self.write_calls(&all).await?;
        self.write_extracts(changes).await?;
        let rewrites = all.iter().copied().flat_map(rewrites).collect();
        accounts::settle(&mut self.tx, rewrites, now).await?;
        if let Some(checkpoint) = checkpoint {
            self.tx.checkpoint(checkpoint, now).await?;
        }
        self.tx.commit().await
    }

    async fn write_records(&mut self, changes: &[&Change], now: Timestamp) -> Result<(), PersistError> {
        let before = changes.iter().flat_map(|change| &change.before).map(|request| rows::of_record(&request.record));
        let after = changes.iter().flat_map(|change| &change.after).map(|request| rows::of_record(&request.record));
        let (gone, mut written) = difference(before, after);
        delete(&mut self.tx, "usage_records", gone).await?;
        let numbers = self.tx.change_numbers(written.len()).await?;
        for (row, number) in written.iter_mut().zip(&numbers) {
            row.extend([
                Value::text(accounts::PLAN),
                Value::Int(1),
                Value::Int(*number),
                Value::time(now),
                Value::time(now),
            ]);
        }
        let columns = format!("{}, plan, revision, change_seq, created_at, updated_at", rows::RECORD_COLUMNS);
        let updated = columns.replace(", revision", "").replace(", created_at", "");
        let sql = upsert("usage_records", &columns, &updated, ", revision = usage_records.revision + 1");
        self.tx.bulk(&sql, rows::RECORD_KINDS, written).await.map(drop)
    }

    async fn write_calls(&mut self, changes: &[&Change]) -> Result<(), PersistError> {
        let before = changes.iter().flat_map(|change| &change.before).flat_map(|request| &request.calls);
        let after = changes.iter().flat_map(|change| &change.after).flat_map(|request| &request.calls);
        let (gone, written) = difference(before.map(rows::of_call), after.map(rows::of_call));
        delete(&mut self.tx, "llm_calls", gone).await?;
        let sql = upsert("llm_calls", rows::CALL_COLUMNS, rows::CALL_COLUMNS, "");
        self.tx.bulk(&sql, rows::CALL_KINDS, written).await?;
        Ok(())
    }

    async fn write_extracts(&mut self, changes: &[Change]) -> Result<(), PersistError> {
        let (gone, kept): (Vec<&Change>, Vec<&Change>) = changes.iter().partition(|change| change.is_empty());
        let kept = extract_rows(kept.into_iter(), &self.holder)?;
        let sql = format!(
            "INSERT INTO trace_extracts ({}) {{rows}} ON CONFLICT (trace_id) DO UPDATE SET extract = excluded.extract, \
             first_seen_at = excluded.first_seen_at, last_word = excluded.last_word, due_at = excluded.due_at, \
             held_by = excluded.held_by",
            rows::EXTRACT_COLUMNS
        );
        self.tx.bulk(&sql, rows::EXTRACT_KINDS, kept).await?;
        let gone = gone.into_iter().map(|change| vec![Value::Text(change.trace_id.to_string())]).collect();
        self.tx.bulk("DELETE FROM trace_extracts WHERE trace_id IN ({rows})", &[Kind::Text], gone).await?;
        Ok(())
    }
}

/// Puts in the extracts of traces that have none yet, which nobody else can see or touch from here on; answers which.
async fn insert_extracts(
    tx: &mut Tx,
    holder: &str,
    changes: impl Iterator<Item = &Change>,
) -> Result<Vec<TraceId>, PersistError> {
    let sql = format!(
        "INSERT INTO trace_extracts ({}) {{rows}} ON CONFLICT (trace_id) DO NOTHING RETURNING trace_id",
        rows::EXTRACT_COLUMNS
    );
    let rows = extract_rows(changes.filter(|change| !change.is_empty()), holder)?;
    let inserted = tx.bulk(&sql, rows::EXTRACT_KINDS, rows).await?;
    Ok(inserted.iter().map(|row| rows::to_trace_id(row, 0)).collect::<Result<_, _>>()?)
}

/// The stored extracts of these traces, each locked, without their rows.
async fn lock_extracts(tx: &mut Tx, ids: impl Iterator<Item = &TraceId>) -> Result<Vec<Known>, PersistError> {
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
            trace: decode_extract(&row.bytes(1)?).ok_or(PersistError::Extract(trace_id))?,
            first_seen: row.time(2)?,
            last_word: row.flag(3)?,
            requests: Vec::new(),
        });
    }
    Ok(known)
}

/// The heads of the keys that rows of this trace can have: each begins when one of its spans began.
fn starts(known: &Known) -> Vec<Values> {
    let starts: BTreeSet<Timestamp> = known.trace.spans().map(|(_, span)| span.start.truncated()).collect();
    let trace_id = known.trace_id.to_string();
    starts.into_iter().map(|start| vec![Value::Time(start), Value::text(&trace_id)]).collect()
}

async fn read_requests(tx: &mut Tx, starts: Vec<Values>) -> Result<BTreeMap<TraceId, Vec<Request>>, PersistError> {
    let select = |columns, table| format!("SELECT {columns} FROM {table} WHERE (started_at, trace_id) IN ({{rows}})");
    let records =
        tx.bulk(&select(rows::RECORD_COLUMNS, "usage_records"), &[Kind::Time, Kind::Text], starts.clone()).await?;
    let calls = tx.bulk(&select(rows::CALL_COLUMNS, "llm_calls"), &[Kind::Time, Kind::Text], starts).await?;
    let mut requests: BTreeMap<TraceId, Vec<Request>> = BTreeMap::new();
    for row in &records {
        let record = rows::to_record(row)?;
        requests.entry(record.key.trace_id).or_default().push(Request { record, calls: Vec::new() });
    }
    for row in &calls {
        let call = rows::to_call(row)?;
        let of_trace = requests.get_mut(&call.key.trace_id);
        if let Some(request) = of_trace.and_then(|of_trace| request_of(&call, of_trace)) {
            request.calls.push(call);
        }
    }
    for request in requests.values_mut().flatten() {
        request.calls.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    }
    for of_trace in requests.values_mut() {
        of_trace.sort_unstable_by(|a, b| a.record.key.cmp(&b.record.key));
    }
    Ok(requests)
}

fn request_of<'r>(call: &Call, requests: &'r mut [Request]) -> Option<&'r mut Request> {
    let owns = |record: &Record| match call.request {
        Some(span) => record.key.span_id == span,
        None => record.endpoint.is_none() && record.method.is_none(),
    };
    let place = requests.iter().position(|request| owns(&request.record));
    // Never lost: a row that belongs nowhere could otherwise never be taken back.
    requests.get_mut(place.unwrap_or(0))
}

fn extract_rows<'c>(changes: impl Iterator<Item = &'c Change>, holder: &str) -> Result<Vec<Values>, PersistError> {
    let row = |change: &Change| {
        Ok(vec![
            Value::Text(change.trace_id.to_string()),
            Value::Bytes(encode_extract(&change.trace)?),
            Value::time(change.first_seen),
            Value::Flag(change.last_word),
            change.due.map_or(Value::Null, Value::time),
            Value::text(holder),
        ])
    };
    changes.map(row).collect()
}

pub(super) fn encode_extract(trace: &Trace) -> Result<Vec<u8>, PersistError> {
    postcard::to_stdvec(&(EXTRACT_VERSION, trace))
        .map_err(|error| PersistError::Refused(sqlx::Error::Encode(error.into())))
}

fn decode_extract(extract: &[u8]) -> Option<Trace> {
    let (version, rest) = extract.split_first()?;
    (*version == EXTRACT_VERSION).then(|| postcard::from_bytes(rest).ok())?
}

/// The keys that vanished and the rows that are new or changed, both in the order of the keys. Rows are compared as they are
/// stored, so that what no column keeps makes no difference.
fn difference(before: impl Iterator<Item = Values>, after: impl Iterator<Item = Values>) -> (Vec<Values>, Vec<Values>) {
    let mut gone: BTreeMap<StoredKey, Values> = before.map(|row| (stored_key(&row), row)).collect();
    let mut written: BTreeMap<StoredKey, Values> = after.map(|row| (stored_key(&row), row)).collect();
    written.retain(|key, row| gone.remove(key).is_none_or(|old| old != *row));
    let keys = gone.into_values().map(|mut row| {
        row.truncate(rows::KEY);
        row
    });
    (keys.collect(), written.into_values().collect())
}

fn stored_key(row: &Values) -> StoredKey {
    let text = |column: usize| match &row[column] {
        Value::Text(text) => text.clone(),
        _ => String::new(),
    };
    let time = match row[0] {
        Value::Time(time) => time,
        _ => Timestamp::default(),
    };
    (time, [text(1), text(2), text(3)])
}

async fn delete(tx: &mut Tx, table: &str, keys: Vec<Values>) -> Result<(), PersistError> {
    let sql = format!("DELETE FROM {table} WHERE (started_at, trace_id, span_id, tenant) IN ({{rows}})");
    tx.bulk(&sql, rows::KEY_KINDS, keys).await.map(drop)
}

fn upsert(table: &str, columns: &str, updated: &str, more: &str) -> String {
    let set: Vec<String> =
        updated.split(", ").skip(rows::KEY).map(|column| format!("{column} = excluded.{column}")).collect();
    format!(
        "INSERT INTO {table} ({columns}) {{rows}} ON CONFLICT (started_at, trace_id, span_id, tenant) \
         DO UPDATE SET {}{more}",
        set.join(", ")
    )
}

/// Each record of the change whose row is not what it was, before and after.
fn rewrites(change: &Change) -> Vec<Rewrite<'_>> {
    let mut pairs: BTreeMap<_, Rewrite<'_>> = BTreeMap::new();
    for request in &change.before {
        pairs.entry(&request.record.key).or_default().before = Some(&request.record);
    }
    for request in &change.after {
        pairs.entry(&request.record.key).or_default().after = Some(&request.record);
    }
    pairs.into_values().filter(|pair| pair.before != pair.after).collect()
}
