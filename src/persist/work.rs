//! One transaction: take some traces, tell what is known of them, write what they have become.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::charges::{self, KnownCharges};
use super::counters;
use super::extracts;
use super::rows::{self, Values};
use super::settle::{self, KnownMarks, Rewrite, Settlement};
use super::store::{Own, Tx};
use super::value::{Kind, Value};
use super::{Change, Checkpoint, Known, PersistError, tombstones};
use tacho_core::domain::account::{AccountId, Mark, Standing};
use tacho_core::domain::call::Key;
use tacho_core::domain::counter::{Counted, Counter, Earlier, Recharge};
use tacho_core::domain::ids::{SpanId, TraceId};
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
    charges: KnownCharges,
}

/// A transaction whose accounts are open and locked, so that whoever else moves them waits. Nothing is written until `commit` has
/// returned.
#[must_use = "a transaction that is not committed is rolled back"]
pub struct Prepared<'c> {
    writing: Writing<'c>,
    settlement: Settlement<'c>,
    charges: KnownCharges,
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

impl<'p> Work<'p> {
    pub(super) async fn begin(mut tx: Tx, own: Own, proposed: &'p [Change]) -> Result<Self, PersistError> {
        let mut open: BTreeMap<TraceId, &Change> = proposed.iter().map(|change| (change.trace_id, change)).collect();
        let (mut fresh, mut known) = (Vec::new(), Vec::new());
        while !open.is_empty() {
            for id in extracts::insert(&mut tx, &own.instance, open.values().copied()).await? {
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
        let (mut requests, marks) = read_requests(&mut tx, &known).await?;
        for known in &mut known {
            let of_trace = requests.remove(&known.trace_id).unwrap_or_default();
            known.requests = of_trace.into_values().collect();
        }
        let charges = charges::read(&mut tx, marks.keys().map(rows::of_key).collect()).await?;
        Ok(Self { tx, own, fresh, known, marks, charges })
    }

    /// What is known of traces that were seen before. For these nothing is written but what `commit` is given. Leaves none behind.
    pub fn take_known(&mut self) -> Vec<Known> {
        std::mem::take(&mut self.known)
    }

    /// Whether limits were charged for any of the known records: then whoever knows limits must go on by `prepare`.
    pub fn is_charged(&self) -> bool {
        !self.charges.is_empty()
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
            return self.prepare(changes, now).await?.commit(&[], &[], checkpoint).await.map(drop);
        }
        // Nothing can be free, so the accounts are locked last and no longer than they must.
        let (mut writing, _) = self.writing(changes, now);
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
        let (mut writing, charges) = self.writing(changes, now);
        let settlement = writing.settlement().await?;
        Ok(Prepared { writing, settlement, charges })
    }

    fn writing<'c>(self, changes: &'c [Change], now: Timestamp) -> (Writing<'c>, KnownCharges)
    where
        'p: 'c,
    {
        let all = self.fresh.into_iter().chain(changes).collect();
        (Writing { tx: self.tx, own: self.own, marks: self.marks, changes, all, now }, self.charges)
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

    /// What a known record was charged by limits until now.
    pub fn charged(&self, record: &Key) -> &[Earlier] {
        self.charges.get(record).map_or(&[], Vec::as_slice)
    }

    /// As `Work::commit`, and moves in the same transaction what records are charged and the counters that have it: sorted by key,
    /// each once. Tells what they say then.
    pub async fn commit(
        mut self,
        recharges: &[Recharge],
        counters: &[Counter],
        checkpoint: Option<&Checkpoint>,
    ) -> Result<Vec<Counted>, PersistError> {
        self.writing.rows(Some(&self.settlement)).await?;
        charges::write(&mut self.writing.tx, recharges).await?;
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
        let Difference { written, gone, calls_written, calls_gone } = self.difference(settlement);
        self.records(written, gone).await?;
        self.calls(calls_written, calls_gone).await?;
        extracts::write(&mut self.tx, &self.own.instance, self.changes).await
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

    async fn records(&mut self, written: Vec<Written>, gone: Vec<Key>) -> Result<(), PersistError> {
        let returning = written.iter().filter(|row| row.may_return).map(|row| rows::of_key(&row.key)).collect();
        let revisions = tombstones::take(&mut self.tx, returning).await?;
        let buried = tombstones::bury(&mut self.tx, gone).await?;
        if written.is_empty() && buried.is_empty() {
            return Ok(());
        }
        let change_seq = self.tx.change_seq(&self.own).await?;
        let now = Value::time(self.now);
        let values = written.into_iter().map(|row| {
            let revision = revisions.get(&row.key).copied().unwrap_or(0) + 1;
            let mut values = row.values;
            values.extend([Value::Int(revision), Value::Int(change_seq), now.clone(), now.clone()]);
            values
        });
        let columns = format!("{}, revision, change_seq, created_at, updated_at", rows::RECORD_COLUMNS);
        let updated = columns.replace(", revision", "").replace(", created_at", "");
        let more = ", revision = usage_records.revision + 1";
        let sql = upsert("usage_records", rows::RECORD_KEY, &columns, &updated, more);
        self.tx.bulk(&sql, rows::RECORD_KINDS, values.collect()).await?;
        tombstones::write(&mut self.tx, buried, change_seq, self.now).await
    }

    async fn calls(&mut self, written: Vec<Values>, gone: Vec<Values>) -> Result<(), PersistError> {
        let sql = format!("DELETE FROM llm_calls WHERE ({}) IN ({{rows}})", rows::CALL_KEY);
        self.tx.bulk(&sql, rows::CALL_KEY_KINDS, gone).await?;
        let sql = upsert("llm_calls", rows::CALL_KEY, rows::CALL_COLUMNS, rows::CALL_COLUMNS, "");
        self.tx.bulk(&sql, rows::CALL_KINDS, written).await.map(drop)
    }

    /// What of the rows is other than it is stored. Rows are compared as they are stored, so that what no column keeps makes no
    /// difference.
    fn difference(&self, settlement: Option<&Settlement<'_>>) -> Difference {
        let mut difference = Difference::default();
        for (key, Pair { before, after, known }) in pairs(&self.all, self.changes) {
            // As it is stored, whatever is decided for it now.
            let before = before.map(|request| {
                (rows::of_record(&request.record, &self.mark(&request.record, None)), call_rows(request))
            });
            let after = after.map(|request| {
                (rows::of_record(&request.record, &self.mark(&request.record, settlement)), call_rows(request))
            });
            difference.add(key, before, after, known);
        }
        difference
    }
}

/// A request before and after a write.
#[derive(Clone, Copy, Default)]
struct Pair<'c> {
    before: Option<&'c Request>,
    after: Option<&'c Request>,
    /// Its trace was known before.
    known: bool,
}

/// By key, which is also the order in which rows are written.
fn pairs<'c>(all: &[&'c Change], known: &[Change]) -> BTreeMap<Key, Pair<'c>> {
    let mut pairs = BTreeMap::<Key, Pair<'_>>::new();
    // Those of known traces stand last.
    for (place, change) in all.iter().enumerate() {
        for request in &change.before {
            pairs.entry(request.record.key).or_default().before = Some(request);
        }
        for request in &change.after {
            let pair = pairs.entry(request.record.key).or_default();
            (pair.after, pair.known) = (Some(request), place >= all.len() - known.len());
        }
    }
    pairs
}

/// Each call's row behind its key.
type CallRows = BTreeMap<SpanId, Values>;

fn call_rows(request: &Request) -> CallRows {
    request.calls.iter().map(|call| (call.key.span_id, rows::of_call(call, &request.record))).collect()
}

/// The row of a record that is new or other than before, or whose calls are.
struct Written {
    key: Key,
    values: Values,
    /// It is new, and there may have been one with its key that went.
    may_return: bool,
}

/// What is to be done to the tables, all in the order of the keys.
#[derive(Default)]
struct Difference {
    written: Vec<Written>,
    gone: Vec<Key>,
    calls_written: Vec<Values>,
    calls_gone: Vec<Values>,
}

impl Difference {
    fn add(&mut self, key: Key, before: Option<(Values, CallRows)>, after: Option<(Values, CallRows)>, known: bool) {
        let is_new = before.is_none();
        let (record_before, mut calls_before) =
            before.map_or((None, CallRows::new()), |(row, calls)| (Some(row), calls));
        let Some((values, mut calls)) = after else {
            self.gone.push(key);
            return self.calls_gone.extend(calls_before.into_values().map(key_of_call));
        };
        calls.retain(|span, row| calls_before.remove(span).is_none_or(|old| old != *row));
        if record_before.as_ref() != Some(&values) || !calls.is_empty() || !calls_before.is_empty() {
            self.written.push(Written { key, values, may_return: is_new && known });
        }
        self.calls_gone.extend(calls_before.into_values().map(key_of_call));
        self.calls_written.extend(calls.into_values());
    }
}

fn key_of_call(mut row: Values) -> Values {
    row.truncate(rows::CALL_KEY_KINDS.len());
    row
}

type Requests = FxHashMap<TraceId, BTreeMap<Key, Request>>;

/// By trace and not by the times of its spans: a key stays as it is even where the span that it was made from has come again with
/// another start, and a row that is not found would be counted beside the one that replaces it.
async fn read_requests(tx: &mut Tx, known: &[Known]) -> Result<(Requests, KnownMarks), PersistError> {
    let sql = format!("SELECT {} FROM usage_records WHERE trace_id IN ({{rows}})", rows::RECORD_COLUMNS);
    let traces = known.iter().map(|known| vec![Value::Text(known.trace_id.to_string())]).collect();
    let records = tx.bulk(&sql, &[Kind::Text], traces).await?;
    let (mut requests, mut marks, mut keys) = (Requests::default(), KnownMarks::default(), Vec::new());
    for row in &records {
        let record = rows::to_record(row)?;
        keys.push(rows::of_key(&record.key));
        marks.insert(record.key, rows::to_mark(row)?);
        let of_trace = requests.entry(record.key.trace_id).or_default();
        of_trace.insert(record.key, Request { record, calls: Vec::new() });
    }
    let sql = format!(
        "SELECT {} FROM llm_calls WHERE (record_started_at, trace_id, record_span_id) IN ({{rows}})",
        rows::CALL_COLUMNS
    );
    for row in tx.bulk(&sql, rows::RECORD_KEY_KINDS, keys).await? {
        let (record, call) = rows::to_call(&row)?;
        let request = requests.get_mut(&record.trace_id).and_then(|of_trace| of_trace.get_mut(&record));
        request.expect("only calls of these records were asked for").calls.push(call);
    }
    for request in requests.values_mut().flat_map(BTreeMap::values_mut) {
        request.calls.sort_unstable_by_key(|call| call.key);
    }
    Ok((requests, marks))
}

fn upsert(table: &str, key: &str, columns: &str, updated: &str, more: &str) -> String {
    let columns_of_key = key.split(", ").count();
    let set: Vec<String> =
        updated.split(", ").skip(columns_of_key).map(|column| format!("{column} = excluded.{column}")).collect();
    format!("INSERT INTO {table} ({columns}) {{rows}} ON CONFLICT ({key}) DO UPDATE SET {}{more}", set.join(", "))
}

/// Each record of the change whose row is not what it was, before and after.
fn rewrites(change: &Change) -> impl Iterator<Item = Rewrite<'_>> {
    let mut pairs: BTreeMap<_, Rewrite<'_>> = BTreeMap::new();
    for request in &change.before {
        pairs.entry(request.record.key).or_default().before = Some(&request.record);
    }
    for request in &change.after {
        pairs.entry(request.record.key).or_default().after = Some(&request.record);
    }
    pairs.into_values().filter(|pair| pair.before != pair.after)
}
