//! One transaction: take some traces, tell what is known of them, write what they have become.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;

use super::counters;
use super::extracts;
use super::rows::{self, Values};
use super::settle::{self, KnownMarks, Rewrite, Settlement};
use super::store::{Own, Tx};
use super::value::{Kind, Value};
use super::{Change, Checkpoint, Known, PersistError};
use tacho_core::domain::account::{AccountId, Mark, Standing};
use tacho_core::domain::call::Call;
use tacho_core::domain::counter::{Counted, Counter};
use tacho_core::domain::ids::TraceId;
use tacho_core::domain::record::{Record, Request};
use tacho_core::domain::time::Timestamp;

/// An open transaction. Nothing is written until `commit` has returned.
#[must_use = "a transaction that is not committed is rolled back"]
pub struct Work<'p> {
    tx: Tx,
    own: Own,
    /// What was proposed for traces never seen before; their extracts are in.
    fresh: Vec<&'p Change>,
    known: Vec<Known>,
    marks: KnownMarks,
}

/// A transaction whose accounts are open and locked, so that whoever else moves them waits. Nothing is written until `commit` has
/// returned.
#[must_use = "a transaction that is not committed is rolled back"]
pub struct Prepared<'c> {
    writing: Writing<'c>,
    settlement: Settlement<'c>,
}

/// What is to be written.
struct Writing<'c> {
    tx: Tx,
    own: Own,
    marks: KnownMarks,
    changes: &'c [Change],
    /// These and the fresh ones.
    all: Vec<&'c Change>,
    now: Timestamp,
}

/// A key of a table as it is stored, in the order of the table.
type StoredKey = (Timestamp, [String; 3]);

impl<'p> Work<'p> {
    pub(super) async fn begin(mut tx: Tx, own: Own, proposed: &'p [Change]) -> Result<Self, PersistError> {
        let mut open: BTreeMap<TraceId, &Change> = proposed.iter().map(|change| (change.trace_id, change)).collect();
        let (mut fresh, mut known) = (Vec::new(), Vec::new());
        while !open.is_empty() {
            for id in extracts::insert(&mut tx, &own.holder, open.values().copied()).await? {
                fresh.extend(open.remove(&id));
            }
            for found in extracts::lock(&mut tx, open.keys()).await? {
                open.remove(&found.trace_id);
                known.push(found);
            }
            // Of what is neither new nor known now, another instance has just deleted the row: once more. What leaves no row is
            // done, as nothing is known of it.
            open.retain(|_, change| !change.is_empty());
        }
        let (mut requests, marks) = read_requests(&mut tx, known.iter().flat_map(starts).collect()).await?;
        for known in &mut known {
            known.requests = requests.remove(&known.trace_id).unwrap_or_default();
        }
        Ok(Self { tx, own, fresh, known, marks })
    }

    /// What is known of traces that were seen before. For these nothing is written but what `commit` is given. Leaves none behind.
    pub fn take_known(&mut self) -> Vec<Known> {
        std::mem::take(&mut self.known)
    }

    /// Writes what was proposed for new traces and these changes of known ones: the rows that differ, the extracts and the
    /// accounts, all or nothing, and how far the journal is when that is done. On `Unreachable` begin anew: what is known may have
    /// changed.
    pub async fn commit(
        self,
        changes: &[Change],
        checkpoint: Option<&Checkpoint>,
        now: Timestamp,
    ) -> Result<(), PersistError> {
        if self.own.plans.are_configured() {
            return self.prepare(changes, now).await?.commit(&[], checkpoint).await.map(drop);
        }
        // Nothing can be free, so the accounts are locked last and no longer than they must.
        let mut writing = self.writing(changes, now);
        writing.rows(None).await?;
        let settlement = writing.settlement().await?;
        settlement.remark(&mut writing.tx, &writing.marks, &writing.own.plans).await?;
        writing.close(settlement, checkpoint).await
    }

    /// Opens and locks the accounts of all records that `commit` will write, once, and tells how they stand. For who must know
    /// them in this transaction; others wait for these accounts until it ends.
    pub async fn prepare<'c>(self, changes: &'c [Change], now: Timestamp) -> Result<Prepared<'c>, PersistError>
    where
        'p: 'c,
    {
        let mut writing = self.writing(changes, now);
        let settlement = writing.settlement().await?;
        Ok(Prepared { writing, settlement })
    }

    fn writing<'c>(self, changes: &'c [Change], now: Timestamp) -> Writing<'c>
    where
        'p: 'c,
    {
        let all = self.fresh.into_iter().chain(changes).collect();
        Writing { tx: self.tx, own: self.own, marks: self.marks, changes, all, now }
    }
}

impl<'c> Prepared<'c> {
    /// The accounts that pay or paid for any record that is written, as they stand before that.
    pub fn standings(&self) -> FxHashMap<&AccountId, &Standing> {
        self.settlement.standings().collect()
    }

    /// What the row of this record will say.
    pub fn mark(&self, record: &Record) -> Mark {
        self.writing.mark(record, Some(&self.settlement))
    }

    /// What the row of a record of before says until now: the same, unless it was another user's.
    pub fn mark_before(&self, record: &Record) -> Mark {
        self.writing.mark(record, None)
    }

    /// What was proposed for new traces, and the changes of known ones.
    pub fn changes(&self) -> &[&'c Change] {
        &self.writing.all
    }

    /// As `Work::commit`, and moves these counters in the same transaction: sorted by key, each once. Tells what they say then.
    pub async fn commit(
        mut self,
        counters: &[Counter],
        checkpoint: Option<&Checkpoint>,
    ) -> Result<Vec<Counted>, PersistError> {
        self.writing.rows(Some(&self.settlement)).await?;
        let counted = counters::count(&mut self.writing.tx, counters, self.writing.now).await?;
        self.writing.close(self.settlement, checkpoint).await?;
        Ok(counted)
    }
}

impl<'c> Writing<'c> {
    async fn settlement(&mut self) -> Result<Settlement<'c>, PersistError> {
        let rewrites = self.all.iter().copied().flat_map(rewrites);
        Settlement::open(&mut self.tx, rewrites, &self.marks, &self.own.plans, self.now).await
    }

    async fn rows(&mut self, settlement: Option<&Settlement<'_>>) -> Result<(), PersistError> {
        self.records(settlement).await?;
        self.calls().await?;
        extracts::write(&mut self.tx, &self.own.holder, self.changes).await
    }

    async fn close(mut self, settlement: Settlement<'_>, checkpoint: Option<&Checkpoint>) -> Result<(), PersistError> {
        settlement.close(&mut self.tx, &self.marks, self.now).await?;
        if let Some(checkpoint) = checkpoint {
            self.tx.checkpoint(checkpoint, self.now).await?;
        }
        self.tx.commit().await
    }

    fn mark(&self, record: &Record, settlement: Option<&Settlement<'_>>) -> Mark {
        let decided = settlement.and_then(|settlement| settlement.mark(&record.key)).cloned();
        decided.unwrap_or_else(|| settle::supposed(record, &self.marks, &self.own.plans))
    }

    async fn records(&mut self, settlement: Option<&Settlement<'_>>) -> Result<(), PersistError> {
        let before = self.all.iter().flat_map(|change| &change.before).map(|request| {
            // As it is stored, whatever is decided for it now.
            rows::of_record(&request.record, &self.mark(&request.record, None))
        });
        let after = self.all.iter().flat_map(|change| &change.after);
        let after = after.map(|request| rows::of_record(&request.record, &self.mark(&request.record, settlement)));
        let (gone, mut written) = difference(before, after);
        delete(&mut self.tx, "usage_records", gone).await?;
        let numbers = self.tx.change_numbers(written.len()).await?;
        for (row, number) in written.iter_mut().zip(&numbers) {
            row.extend([Value::Int(1), Value::Int(*number), Value::time(self.now), Value::time(self.now)]);
        }
        let columns = format!("{}, revision, change_seq, created_at, updated_at", rows::RECORD_COLUMNS);
        let updated = columns.replace(", revision", "").replace(", created_at", "");
        let sql = upsert("usage_records", &columns, &updated, ", revision = usage_records.revision + 1");
        self.tx.bulk(&sql, rows::RECORD_KINDS, written).await.map(drop)
    }

    async fn calls(&mut self) -> Result<(), PersistError> {
        let before = self.all.iter().flat_map(|change| &change.before).flat_map(|request| &request.calls);
        let after = self.all.iter().flat_map(|change| &change.after).flat_map(|request| &request.calls);
        let (gone, written) = difference(before.map(rows::of_call), after.map(rows::of_call));
        delete(&mut self.tx, "llm_calls", gone).await?;
        let sql = upsert("llm_calls", rows::CALL_COLUMNS, rows::CALL_COLUMNS, "");
        self.tx.bulk(&sql, rows::CALL_KINDS, written).await?;
        Ok(())
    }
}

/// The heads of the keys that rows of this trace can have: each begins when one of its spans began.
fn starts(known: &Known) -> Vec<Values> {
    let starts: BTreeSet<Timestamp> = known.trace.spans().map(|(_, span)| span.start.truncated()).collect();
    let trace_id = known.trace_id.to_string();
    starts.into_iter().map(|start| vec![Value::Time(start), Value::text(&trace_id)]).collect()
}

type Requests = BTreeMap<TraceId, Vec<Request>>;

async fn read_requests(tx: &mut Tx, starts: Vec<Values>) -> Result<(Requests, KnownMarks), PersistError> {
    let select = |columns, table| format!("SELECT {columns} FROM {table} WHERE (started_at, trace_id) IN ({{rows}})");
    let records =
        tx.bulk(&select(rows::RECORD_COLUMNS, "usage_records"), &[Kind::Time, Kind::Text], starts.clone()).await?;
    let calls = tx.bulk(&select(rows::CALL_COLUMNS, "llm_calls"), &[Kind::Time, Kind::Text], starts).await?;
    let (mut requests, mut marks) = (Requests::new(), KnownMarks::default());
    for row in &records {
        let record = rows::to_record(row)?;
        marks.insert(record.key.clone(), rows::to_mark(row)?);
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
    Ok((requests, marks))
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
fn rewrites(change: &Change) -> impl Iterator<Item = Rewrite<'_>> {
    let mut pairs: BTreeMap<_, Rewrite<'_>> = BTreeMap::new();
    for request in &change.before {
        pairs.entry(&request.record.key).or_default().before = Some(&request.record);
    }
    for request in &change.after {
        pairs.entry(&request.record.key).or_default().after = Some(&request.record);
    }
    pairs.into_values().filter(|pair| pair.before != pair.after)
}
