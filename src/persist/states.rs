//! Records as they are now, with their calls, and what stays of those that went: read together, in one order.

use super::PersistError;
use super::arrays;
use super::feed::{RecordChange, RecordState};
use super::query::RecordRow;
use super::rows;
use super::store::Tx;
use super::value::{Row, Value};
use tacho_core::domain::call::Key;
use tacho_core::domain::ids::{SpanId, TraceId};
use tacho_core::domain::time::Timestamp;

/// Most calls that are read at once, so that what is held in memory has a bound. A record with more comes alone.
const MAX_CALLS: i64 = 20_000;
const TOMBSTONE_COLUMNS: &str = "started_at, trace_id, span_id, revision, change_seq, gone_at";

/// In which order states are read.
#[derive(Clone, Copy)]
pub(super) enum Order {
    Change,
    Key,
}

/// Of `most` at most: those that meet the condition, and whether these are all. The condition is on columns that records and tombstones
/// have, with `values` for $1 and so on.
pub(super) async fn read(
    tx: &mut Tx,
    condition: &str,
    mut values: Vec<Value>,
    order: Order,
    most: usize,
) -> Result<(Vec<RecordChange>, bool), PersistError> {
    values.push(Value::Int(i64::try_from(most).unwrap_or(i64::MAX)));
    let (by, limit) = (order.columns(), values.len());
    let chosen = format!("WHERE {condition} ORDER BY {by} LIMIT ${limit}");
    // Only what orders the rows is sorted; the rest is read of those that are taken.
    let live = format!(
        "SELECT {record}, {calls}, taken.fetched FROM (\
             SELECT id, COUNT(*) OVER () AS fetched, \
             SUM(llm_calls) OVER (ORDER BY {by} ROWS UNBOUNDED PRECEDING) - llm_calls AS calls_before \
             FROM (SELECT id, change_seq, {key}, llm_calls FROM usage_records {chosen}) AS chosen\
         ) AS taken JOIN usage_records AS r ON r.id = taken.id WHERE taken.calls_before < {MAX_CALLS}",
        record = arrays::of_record(tx.database()),
        calls = arrays::of_calls(tx.database()),
        key = rows::RECORD_KEY,
    );
    let found = tx.fetch(&live, &values).await?;
    let fetched = found.first().map_or(Ok(0), |row| row.count(2))?;
    let mut states = found.iter().map(live_state).collect::<Result<Vec<_>, _>>()?;
    let is_cut = (states.len() as u64) < fetched;
    let last_live = states.iter().map(|state| order.place(state)).max();
    let gone = tx.fetch(&format!("SELECT {TOMBSTONE_COLUMNS} FROM record_tombstones {chosen}"), &values).await?;
    for row in &gone {
        let state = gone_state(row)?;
        // Behind what was cut there may be records before it.
        if !is_cut || Some(order.place(&state)) < last_live {
            states.push(state);
        }
    }
    states.sort_unstable_by_key(|state| order.place(state));
    let is_all = !is_cut && states.len() < most;
    states.truncate(most);
    Ok((states, is_all))
}

impl Order {
    fn columns(self) -> String {
        match self {
            Self::Change => format!("change_seq, {}", rows::RECORD_KEY),
            Self::Key => rows::RECORD_KEY.to_owned(),
        }
    }

    fn place(self, state: &RecordChange) -> (i64, Key) {
        match self {
            Self::Change => (state.change_seq, state.key),
            Self::Key => (0, state.key),
        }
    }
}

fn live_state(row: &Row) -> Result<RecordChange, sqlx::Error> {
    let (record, calls) = (arrays::to_record(row, 0)?, arrays::to_calls(row, 1)?);
    let key = key_of(&record).ok_or_else(|| sqlx::Error::Decode("a record has no key".into()))?;
    let changed_at = Timestamp::parse(&record.updated_at).unwrap_or_default();
    let (revision, change_seq) = (record.revision, record.change_seq);
    Ok(RecordChange { key, revision, change_seq, changed_at, state: RecordState::Live(Box::new(record), calls) })
}

fn key_of(record: &RecordRow) -> Option<Key> {
    Some(Key {
        started_at: Timestamp::parse(&record.started_at)?,
        trace_id: TraceId::parse(&record.trace_id)?,
        span_id: SpanId::parse(&record.span_id)?,
    })
}

fn gone_state(row: &Row) -> Result<RecordChange, sqlx::Error> {
    Ok(RecordChange {
        key: rows::to_key(row)?,
        revision: row.int(3)?,
        change_seq: row.int(4)?,
        changed_at: row.time(5)?,
        state: RecordState::Gone,
    })
}
