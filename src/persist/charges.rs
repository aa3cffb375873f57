//! What each record is charged by limits: rows beside the records, moved in the transaction that moves those. The counters of
//! quotas are their sums.

use rustc_hash::FxHashMap;

use super::PersistError;
use super::counters::{key_text, to_key};
use super::rows::{self, Values};
use super::store::Tx;
use super::value::Kind::{Flag, Int, Text, Time};
use super::value::{Kind, Row, Value};
use tacho_core::domain::call::Key;
use tacho_core::domain::counter::{Charged, Counter, Earlier, Recharge};

const COLUMNS: &str = "record_started_at, trace_id, record_span_id, key, calls, meter, counted, amount, estimate";
const KINDS: &[Kind] = &[Time, Text, Text, Text, Text, Text, Flag, Int, Int];
const KEY: &str = "record_started_at, trace_id, record_span_id, key, calls";
const KEY_KINDS: &[Kind] = &[Time, Text, Text, Text, Text];

/// By record.
pub(super) type KnownCharges = FxHashMap<Key, Vec<Earlier>>;

/// What these records are charged, with the counters that have it.
pub(super) async fn read(tx: &mut Tx, records: Vec<Values>) -> Result<KnownCharges, PersistError> {
    let sql = "SELECT l.record_started_at, l.trace_id, l.record_span_id, l.key, l.calls, l.meter, l.counted, l.amount, l.estimate, \
               u.limit_name, u.subject, u.period_started_at, u.period_ends_at \
               FROM limit_charges l LEFT JOIN limit_usage u ON u.key = l.key \
               WHERE (l.record_started_at, l.trace_id, l.record_span_id) IN ({rows})";
    let mut known = KnownCharges::default();
    for row in tx.bulk(sql, rows::RECORD_KEY_KINDS, records).await? {
        known.entry(rows::to_key(&row)?).or_default().push(to_earlier(&row)?);
    }
    Ok(known)
}

/// Before the counters are moved: whoever mends both goes the same way.
pub(super) async fn write(tx: &mut Tx, recharges: &[Recharge]) -> Result<(), PersistError> {
    let gone = |recharge: &Recharge| {
        let goes = |charged: &&Charged| !recharge.after.iter().any(|after| of(after) == of(charged));
        let keys = recharge.before.iter().filter(goes).map(|charged| to_values(&recharge.record, charged));
        keys.map(|mut values| values.drain(..KEY_KINDS.len()).collect()).collect::<Vec<Values>>()
    };
    let sql = format!("DELETE FROM limit_charges WHERE ({KEY}) IN ({{rows}})");
    tx.bulk(&sql, KEY_KINDS, recharges.iter().flat_map(gone).collect()).await?;
    let written = |recharge: &Recharge| {
        let differs = |charged: &&Charged| !recharge.before.contains(charged);
        let values = recharge.after.iter().filter(differs).map(|charged| to_values(&recharge.record, charged));
        values.collect::<Vec<Values>>()
    };
    let sql = format!(
        "INSERT INTO limit_charges ({COLUMNS}) {{rows}} ON CONFLICT ({KEY}) DO UPDATE SET meter = excluded.meter, \
         counted = excluded.counted, amount = excluded.amount, estimate = excluded.estimate"
    );
    tx.bulk(&sql, KINDS, recharges.iter().flat_map(written).collect()).await.map(drop)
}

/// What names it among those of its record.
fn of(charged: &Charged) -> (u128, &str) {
    (charged.key, &charged.calls)
}

fn to_values(record: &Key, charged: &Charged) -> Values {
    let mut values = rows::of_key(record);
    values.extend([
        Value::Text(key_text(charged.key)),
        Value::text(&charged.calls),
        Value::text(&charged.meter),
        Value::Flag(charged.counted),
        Value::Int(charged.amount),
        Value::Int(charged.estimate),
    ]);
    values
}

fn to_earlier(row: &Row) -> Result<Earlier, PersistError> {
    let charged = Charged {
        key: to_key(row, 3)?,
        calls: row.text(4)?.into(),
        meter: row.text(5)?.into(),
        counted: row.flag(6)?,
        amount: row.int(7)?,
        estimate: row.int(8)?,
    };
    let counter = match row.maybe_text(9)? {
        Some(limit) => Some(Counter {
            key: charged.key,
            limit: limit.into(),
            subject: row.text(10)?,
            period_started_at: row.time(11)?,
            period_ends_at: row.maybe_time(12)?,
            change: 0,
        }),
        None => None,
    };
    Ok(Earlier { charged, counter })
}
