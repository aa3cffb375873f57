//! Proves that what records are charged by limits is what they say, and that the counters of quotas are the sums of that; mends
//! both. It needs no limit for it: a charge says what it counts.

use super::PersistError;
use super::charges;
use super::counters::{key_text, to_key};
use super::rows::Values;
use super::store::Tx;
use super::sums::{plus, sum_or_zero};
use super::value::Kind::{Int, Text, Time};
use super::value::{Row, Value};
use super::{rows, verify};
use tacho_core::domain::counter::{Charged, Recharge};
use tacho_core::domain::time::Timestamp;

/// Of a charge, as it is stored and as its record has it now.
pub(super) const CHARGE_COLUMNS: &[&str] = &["amount", "estimate"];
pub(super) const CHARGE_KEY: &str = "record_started_at, trace_id, record_span_id, key, calls";
pub(super) const COUNTER_COLUMNS: &[&str] = &["used"];
pub(super) const COUNTER_KEY: &str = "limit_name, subject, period_started_at, key";

/// A counter of a quota that was not the sum of what records are charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MendedCounter {
    pub limit: String,
    /// `{"user":"ann"}`.
    pub subject: String,
    /// `None` where it was missing.
    pub before: Option<i64>,
    pub after: i64,
}

/// `folded`: each charge with what its record comes to; NULL where that is gone.
pub(super) fn folded_charges() -> String {
    let of_calls = |of: &str| sum_or_zero(of);
    let [total, input, output, cost] =
        ["c.input_tokens + c.output_tokens", "c.input_tokens", "c.output_tokens", "c.cost_nanousd"].map(of_calls);
    let its_calls = "llm_calls c WHERE c.record_started_at = l.record_started_at AND c.trace_id = l.trace_id \
                     AND c.record_span_id = l.record_span_id AND '=' || COALESCE(c.model, '') = l.calls";
    format!(
        "folded AS (SELECT l.record_started_at, l.trace_id, l.record_span_id, l.key, l.calls, l.meter, l.counted, \
         l.amount AS stored_0, CASE WHEN r.trace_id IS NULL THEN NULL \
         WHEN l.calls = '' THEN CASE l.meter WHEN 'requests' THEN 1 WHEN 'tokens' THEN r.total_tokens \
         WHEN 'input_tokens' THEN r.input_tokens WHEN 'output_tokens' THEN r.output_tokens \
         ELSE COALESCE(r.cost_nanousd, 0) END \
         WHEN l.meter = 'requests' THEN CASE WHEN (l.calls = '=' AND r.llm_calls = 0) \
         OR EXISTS (SELECT 1 FROM {its_calls}) THEN 1 ELSE 0 END \
         ELSE (SELECT CASE l.meter WHEN 'tokens' THEN {total} WHEN 'input_tokens' THEN {input} \
         WHEN 'output_tokens' THEN {output} ELSE {cost} END FROM {its_calls}) END AS folded_0, \
         l.estimate AS stored_1, CASE WHEN r.unknown_usage_calls > 0 THEN l.estimate ELSE 0 END AS folded_1 \
         FROM limit_charges l LEFT JOIN usage_records r ON r.started_at = l.record_started_at \
         AND r.trace_id = l.trace_id AND r.span_id = l.record_span_id)"
    )
}

/// `folded`: each counter with the sum of what records are charged; stored is NULL where it is missing.
pub(super) fn folded_counters() -> String {
    format!(
        "parts AS MATERIALIZED (SELECT key, {} AS amount, {} AS estimate FROM limit_charges WHERE counted GROUP BY key), \
         sums AS (SELECT key, {} AS used FROM parts), \
         folded AS (SELECT COALESCE(u.limit_name, '?') AS limit_name, COALESCE(u.subject, '{{}}') AS subject, \
         u.period_started_at, COALESCE(u.key, s.key) AS key, u.used AS stored_0, COALESCE(s.used, 0) AS folded_0 \
         FROM limit_usage u FULL JOIN sums s ON s.key = u.key)",
        sum_or_zero("amount"),
        sum_or_zero("estimate"),
        plus("amount", "estimate")
    )
}

/// Mends the charges first and then the counters, as a write does. Counted is what others have committed; whoever waits for a
/// counter adds to it.
pub(super) async fn mend(tx: &mut Tx, now: Timestamp) -> Result<(usize, Vec<MendedCounter>), PersistError> {
    let recharges = differing_charges(tx).await?;
    charges::write(tx, &recharges).await?;
    let keys = differing_counters(tx).await?;
    let missing = keys.iter().filter(|differing| differing.mended.before.is_none());
    let missing: Vec<u128> = missing.map(|differing| differing.key).collect();
    open(tx, &missing, now).await?;
    let sql = format!("SELECT key FROM limit_usage WHERE key IN ({{rows}}) ORDER BY key{}", tx.lock());
    let mut locked = Vec::new();
    for row in tx.bulk(&sql, &[Text], keys.iter().map(|found| vec![Value::Text(key_text(found.key))]).collect()).await?
    {
        locked.push(to_key(&row, 0)?);
    }
    locked.sort_unstable();
    let mut differing = differing_counters(tx).await?;
    differing.retain(|found| locked.binary_search(&found.key).is_ok());
    let values =
        |found: &Differing| vec![Value::Text(key_text(found.key)), Value::Int(found.mended.after), Value::time(now)];
    let sql = "WITH mended (key, used, written_at) AS ({rows}) UPDATE limit_usage SET used = m.used, \
               version = limit_usage.version + 1, updated_at = m.written_at FROM mended m WHERE limit_usage.key = m.key";
    tx.bulk(sql, &[Text, Int, Time], differing.iter().map(values).collect()).await?;
    let mended = differing.into_iter().map(|found| MendedCounter {
        before: found.mended.before.filter(|_| !missing.contains(&found.key)),
        ..found.mended
    });
    Ok((recharges.len(), mended.collect()))
}

async fn differing_charges(tx: &mut Tx) -> Result<Vec<Recharge>, PersistError> {
    let sql = format!(
        "WITH {} SELECT record_started_at, trace_id, record_span_id, key, calls, meter, counted, stored_0, folded_0, stored_1, \
         folded_1 FROM folded WHERE {} OR {} ORDER BY {CHARGE_KEY}",
        folded_charges(),
        verify::differs(0),
        verify::differs(1)
    );
    let recharge = |row: &Row| {
        let stored = Charged {
            key: to_key(row, 3)?,
            calls: row.text(4)?.into(),
            meter: row.text(5)?.into(),
            counted: row.flag(6)?,
            amount: row.int(7)?,
            estimate: row.int(9)?,
        };
        let estimate = row.int(10)?;
        let after = row.maybe_int(8)?.map(|amount| Charged { amount, estimate, ..stored.clone() });
        Ok(Recharge { record: rows::to_key(row)?, before: vec![stored], after: after.into_iter().collect() })
    };
    tx.fetch(&sql, &[]).await?.iter().map(recharge).collect()
}

struct Differing {
    key: u128,
    mended: MendedCounter,
}

async fn differing_counters(tx: &mut Tx) -> Result<Vec<Differing>, PersistError> {
    let sql = format!(
        "WITH {} SELECT limit_name, subject, key, stored_0, folded_0 FROM folded WHERE {} ORDER BY key",
        folded_counters(),
        verify::differs(0)
    );
    let differing = |row: &Row| {
        let (limit, subject) = (row.text(0)?, row.text(1)?);
        let mended = MendedCounter { limit, subject, before: row.maybe_int(3)?, after: row.int(4)? };
        Ok(Differing { key: to_key(row, 2)?, mended })
    };
    tx.fetch(&sql, &[]).await?.iter().map(differing).collect()
}

/// Counters that are missing, of nothing yet, so that there is something to lock. What their limit and subject are called, the
/// next write says.
async fn open(tx: &mut Tx, keys: &[u128], now: Timestamp) -> Result<(), PersistError> {
    let values = |key: &u128| -> Values { vec![Value::Text(key_text(*key)), Value::time(now), Value::time(now)] };
    let sql = "WITH missing (key, since, written_at) AS ({rows}) \
               INSERT INTO limit_usage (key, limit_name, subject, period_started_at, period_ends_at, used, version, updated_at) \
               SELECT m.key, '?', '{}', m.since, NULL, 0, 0, m.written_at FROM missing m WHERE TRUE \
               ON CONFLICT (key) DO NOTHING";
    tx.bulk(sql, &[Text, Time, Time], keys.iter().map(values).collect()).await.map(drop)
}
