//! What stays of records that went: their keys and how often they had changed. A key that comes back goes on from there, so that
//! nobody who follows the records takes the old state for the newer one.

use rustc_hash::FxHashMap;

use super::PersistError;
use super::rows::{self, Values};
use super::store::Tx;
use super::value::Kind::{Int, Text, Time};
use super::value::{Kind, Value};
use tacho_core::domain::call::Key;
use tacho_core::domain::time::Timestamp;

/// A record that was deleted, and its last revision.
pub(super) struct Buried {
    key: Key,
    revision: i64,
}

/// Deletes the records of these keys.
pub(super) async fn bury(tx: &mut Tx, gone: Vec<Key>) -> Result<Vec<Buried>, PersistError> {
    let key = rows::RECORD_KEY;
    let sql = format!("DELETE FROM usage_records WHERE ({key}) IN ({{rows}}) RETURNING {key}, revision");
    let gone = gone.iter().map(rows::of_key).collect();
    let mut buried = Vec::new();
    for row in tx.bulk(&sql, rows::RECORD_KEY_KINDS, gone).await? {
        buried.push(Buried { key: rows::to_key(&row)?, revision: row.int(3)? });
    }
    buried.sort_unstable_by_key(|buried| buried.key);
    Ok(buried)
}

/// To go is a change of the record like any other.
pub(super) async fn write(
    tx: &mut Tx,
    buried: Vec<Buried>,
    change_seq: i64,
    now: Timestamp,
) -> Result<(), PersistError> {
    const KINDS: &[Kind] = &[Time, Text, Text, Int, Int, Time];
    let row = |buried: Buried| {
        let mut values = rows::of_key(&buried.key);
        values.extend([Value::Int(buried.revision + 1), Value::Int(change_seq), Value::time(now)]);
        values
    };
    let sql = format!("INSERT INTO record_tombstones ({}, revision, change_seq, gone_at) {{rows}}", rows::RECORD_KEY);
    tx.bulk(&sql, KINDS, buried.into_iter().map(row).collect()).await.map(drop)
}

/// Removes the tombstones of keys that come back, and tells the last revision of each.
pub(super) async fn take(tx: &mut Tx, returning: Vec<Values>) -> Result<FxHashMap<Key, i64>, PersistError> {
    let key = rows::RECORD_KEY;
    let sql = format!("DELETE FROM record_tombstones WHERE ({key}) IN ({{rows}}) RETURNING {key}, revision");
    let found = tx.bulk(&sql, rows::RECORD_KEY_KINDS, returning).await?;
    Ok(found.iter().map(|row| Ok((rows::to_key(row)?, row.int(3)?))).collect::<Result<_, sqlx::Error>>()?)
}
