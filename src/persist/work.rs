//! One transaction: take some traces, tell what is known of them, write what they have become.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::accounts::{self, Rewrite};
use super::rows::{self, Values};
use super::store::Tx;
use super::value::{Kind, Value};
use super::{Change, Known, PersistError};
use crate::domain::call::Call;
use crate::domain::ids::TraceId;
use crate::domain::record::{Record, Request};
use crate::domain::time::Timestamp;
use crate::domain::trace::Trace;

/// Leads every stored extract; another form of it gets another number.
const EXTRACT_VERSION: u8 = 1;

/// An open transaction. Nothing is written until `commit` has returned.
#[must_use = "a transaction that is not committed is rolled back"]
pub struct Work {
    tx: Tx,
    holder: Arc<str>,
    known: Vec<Known>,
}

/// A key of a table as it is stored, in the order of the table.
type StoredKey = (Timestamp, [String; 3]);

impl Work {
    pub(super) async fn begin(mut tx: Tx, holder: Arc<str>, ids: &[TraceId]) -> Result<Self, PersistError> {
        let wanted: Vec<Values> = ids.iter().map(|id| vec![Value::Text(id.to_string())]).collect();
        let extracts = take_extracts(&mut tx, &holder, &wanted).await?;
        let mut known = read_extracts(extracts)?;
        let mut requests = read_requests(&mut tx, &known.iter().flat_map(starts).collect::<Vec<_>>()).await?;
        for known in &mut known {
            known.requests = requests.remove(&known.trace_id).unwrap_or_default();
        }
        Ok(Self { tx, holder, known })
    }

    pub fn known(&self) -> &[Known] {
        &self.known
    }

    /// Leaves none behind.
    pub fn take_known(&mut self) -> Vec<Known> {
        std::mem::take(&mut self.known)
    }

    /// Writes the rows that differ, the extracts and the accounts, all or nothing. On `Unreachable` begin anew: what is known may
    /// have changed.
    pub async fn commit(mut self, changes: Vec<Change>, now: Timestamp) -> Result<(), PersistError> {
        let last_change = self.write_records(&changes, now).await?;
        self.write_calls(&changes).await?;
        self.write_extracts(&changes).await?;
        let rewrites = changes.iter().flat_map(rewrites).collect();
        accounts::settle(&mut self.tx, rewrites, now).await?;
        self.tx.commit(last_change).await
    }

    async fn write_records(&mut self, changes: &[Change], now: Timestamp) -> Result<Option<i64>, PersistError> {
        let before = changes.iter().flat_map(|change| &change.before).map(|request| rows::of_record(&request.record));
        let after = changes.iter().flat_map(|change| &change.after).map(|request| rows::of_record(&request.record));
        let (gone, mut written) = difference(before, after);
        delete(&mut self.tx, "usage_records", &gone).await?;
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
        self.tx.bulk(&sql, rows::RECORD_KINDS, &written).await?;
        Ok(numbers.last().copied())
    }

    async fn write_calls(&mut self, changes: &[Change]) -> Result<(), PersistError> {
        let before = changes.iter().flat_map(|change| &change.before).flat_map(|request| &request.calls);
        let after = changes.iter().flat_map(|change| &change.after).flat_map(|request| &request.calls);
        let (gone, written) = difference(before.map(rows::of_call), after.map(rows::of_call));
        delete(&mut self.tx, "llm_calls", &gone).await?;
        let sql = upsert("llm_calls", rows::CALL_COLUMNS, rows::CALL_COLUMNS, "");
        self.tx.bulk(&sql, rows::CALL_KINDS, &written).await?;
        Ok(())
    }

    async fn write_extracts(&mut self, changes: &[Change]) -> Result<(), PersistError> {
        let mut kept = BTreeMap::new();
        let mut gone = Vec::new();
        for change in changes {
            if change.is_empty() {
                gone.push(vec![Value::Text(change.trace_id.to_string())]);
            } else {
                kept.insert(change.trace_id, extract_row(change, &self.holder)?);
            }
        }
        let kept: Vec<Values> = kept.into_values().collect();
        let sql = format!(
            "INSERT INTO trace_extracts ({}) {{rows}} ON CONFLICT (trace_id) DO UPDATE SET extract = excluded.extract, \
             first_seen_at = excluded.first_seen_at, last_word = excluded.last_word, due_at = excluded.due_at, \
             held_by = excluded.held_by",
            rows::EXTRACT_COLUMNS
        );
        self.tx.bulk(&sql, rows::EXTRACT_KINDS, &kept).await?;
        self.tx.bulk("DELETE FROM trace_extracts WHERE trace_id IN ({rows})", &[Kind::Text], &gone).await?;
        Ok(())
    }
}

/// The stored extracts of these traces, each locked. Where another instance could take one of them meanwhile, an empty row is put
/// in its place first, so that there is something to lock.
async fn take_extracts(tx: &mut Tx, holder: &str, wanted: &[Values]) -> Result<Vec<super::value::Row>, PersistError> {
    let lock = tx.lock();
    let select = format!(
        "SELECT trace_id, extract, first_seen_at, last_word FROM trace_extracts WHERE trace_id IN ({{rows}}) \
         ORDER BY trace_id{lock}"
    );
    if lock.is_empty() {
        return tx.bulk(&select, &[Kind::Text], wanted).await;
    }
    let id = |values: &Values| values[0].clone();
    let placeholders: Vec<Values> = wanted
        .iter()
        .map(|values| {
            let epoch = Value::Time(Timestamp(0));
            vec![id(values), Value::Bytes(Vec::new()), epoch, Value::Flag(false), Value::Null, Value::text(holder)]
        })
        .collect();
    let insert = format!("INSERT INTO trace_extracts ({}) {{rows}} ON CONFLICT DO NOTHING", rows::EXTRACT_COLUMNS);
    loop {
        tx.bulk(&insert, rows::EXTRACT_KINDS, &placeholders).await?;
        let taken = tx.bulk(&select, &[Kind::Text], wanted).await?;
        // Fewer when another instance deleted one in between.
        if taken.len() == wanted.len() {
            return Ok(taken);
        }
    }
}

fn read_extracts(found: Vec<super::value::Row>) -> Result<Vec<Known>, PersistError> {
    let mut known = Vec::with_capacity(found.len());
    for row in found {
        let trace_id = rows::to_trace_id(&row, 0)?;
        let extract = row.bytes(1)?;
        if extract.is_empty() {
            continue;
        }
        known.push(Known {
            trace_id,
            trace: decode_extract(&extract).ok_or(PersistError::Extract(trace_id))?,
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

async fn read_requests(tx: &mut Tx, starts: &[Values]) -> Result<BTreeMap<TraceId, Vec<Request>>, PersistError> {
    let select = |columns, table| format!("SELECT {columns} FROM {table} WHERE (started_at, trace_id) IN ({{rows}})");
    let records = tx.bulk(&select(rows::RECORD_COLUMNS, "usage_records"), &[Kind::Time, Kind::Text], starts).await?;
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

fn extract_row(change: &Change, holder: &str) -> Result<Values, PersistError> {
    let extract = postcard::to_stdvec(&(EXTRACT_VERSION, &change.trace))
        .map_err(|error| PersistError::Refused(sqlx::Error::Encode(error.into())))?;
    Ok(vec![
        Value::Text(change.trace_id.to_string()),
        Value::Bytes(extract),
        Value::time(change.first_seen),
        Value::Flag(change.last_word),
        change.due.map_or(Value::Null, Value::time),
        Value::text(holder),
    ])
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

async fn delete(tx: &mut Tx, table: &str, keys: &[Values]) -> Result<(), PersistError> {
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
