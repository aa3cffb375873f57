//! Keeps the billing accounts equal to the fold of their records, in the transaction that writes those.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::PersistError;
use super::accounts::{self, Locked, Opening, Turn};
use super::rows;
use super::store::Tx;
use super::value::Kind::{Flag, Text, Time};
use super::value::Value;
use tacho_core::domain::account::{AccountId, Mark, Standing, Used};
use tacho_core::domain::call::Key;
use tacho_core::domain::plan::Plans;
use tacho_core::domain::record::Record;
use tacho_core::domain::time::Timestamp;

/// A record before and after a write.
#[derive(Clone, Copy, Default)]
pub(super) struct Rewrite<'r> {
    pub before: Option<&'r Record>,
    pub after: Option<&'r Record>,
}

/// The marks of the records that were known.
pub(super) type KnownMarks = FxHashMap<Key, Mark>;

/// The accounts that a write touches, locked, and what it does to them.
pub(super) struct Settlement<'r> {
    accounts: Vec<(Locked, Touched<'r>)>,
    /// Of the records that were written under the account's name for the first time.
    decided: FxHashMap<&'r Key, Mark>,
}

/// What a write does to one account.
#[derive(Default)]
struct Touched<'r> {
    /// Folded into another, or of another user now.
    leaving: Vec<&'r Record>,
    staying: Vec<(&'r Record, &'r Record)>,
    coming: Vec<&'r Record>,
}

/// What the row of a record says if nothing is decided for it: as when it was known, or as on a plan without free requests.
pub(super) fn supposed(record: &Record, known: &KnownMarks, plans: &Plans) -> Mark {
    match known.get(&record.key) {
        // Free is a thing of an account.
        Some(mark) => Mark { plan: Arc::clone(&mark.plan), free: mark.free && record.user.is_some() },
        None => Mark { plan: Arc::clone(&plans.default_plan().name), free: false },
    }
}

impl<'r> Settlement<'r> {
    /// Opens and locks the accounts and decides which records are free. From here on, others wait for these accounts.
    pub(super) async fn open(
        tx: &mut Tx,
        rewrites: impl Iterator<Item = Rewrite<'r>>,
        known: &KnownMarks,
        plans: &Plans,
        now: Timestamp,
    ) -> Result<Self, PersistError> {
        let mut touched = by_account(rewrites);
        let plan = plans.default_plan();
        let mut openings = Vec::with_capacity(touched.len());
        for (id, touched) in &touched {
            let (first_request, latest) = touched.span().unwrap_or((now, now));
            openings.push(Opening { id, plan: &plan.name, terms: &plan.terms, first_request, latest, reset_at: None });
        }
        accounts::open(tx, &openings, now).await?;
        let mut settlement = Self { accounts: Vec::new(), decided: FxHashMap::default() };
        for mut locked in accounts::lock(tx, touched.keys()).await? {
            let Some(mut touched) = touched.remove(&locked.id) else { continue };
            settlement.decide(&mut locked, &mut touched, known, plans);
            settlement.accounts.push((locked, touched));
        }
        Ok(settlement)
    }

    /// Those that leave give their free requests back; those that come take what is free, in the order of their times.
    fn decide(&mut self, locked: &mut Locked, touched: &mut Touched<'r>, known: &KnownMarks, plans: &Plans) {
        let given_back = touched.leaving.iter().filter(|record| is_free(record, known)).count();
        let plan = &locked.standing.plan;
        let most = plans.get(plan).map_or(0, |plan| plan.free_requests);
        let used = locked.standing.used.free_requests.saturating_sub(i64::try_from(given_back).unwrap_or(i64::MAX));
        let mut left = i64::from(most).saturating_sub(used);
        touched.coming.sort_unstable_by_key(|record| record.key);
        for record in &touched.coming {
            let free = left > 0;
            left -= i64::from(free);
            self.decided.insert(&record.key, Mark { plan: Arc::clone(plan), free });
        }
    }

    pub(super) fn mark(&self, key: &Key) -> Option<&Mark> {
        self.decided.get(key)
    }

    pub(super) fn standings(&self) -> impl Iterator<Item = (&AccountId, &Standing)> {
        self.accounts.iter().map(|(locked, _)| (&locked.id, &locked.standing))
    }

    /// Sets right the rows that were written before this was decided.
    pub(super) async fn remark(&self, tx: &mut Tx, known: &KnownMarks, plans: &Plans) -> Result<(), PersistError> {
        let coming = self.accounts.iter().flat_map(|(_, touched)| &touched.coming);
        let differing = coming.filter_map(|record| {
            let mark = self.mark(&record.key)?;
            (*mark != supposed(record, known, plans)).then(|| {
                let mut values = rows::of_key(&record.key);
                values.extend([Value::text(&mark.plan), Value::Flag(mark.free)]);
                values
            })
        });
        let sql = "WITH marked (started_at, trace_id, span_id, plan, free) AS ({rows}) \
                   UPDATE usage_records SET plan = m.plan, free_request = m.free FROM marked m \
                   WHERE usage_records.started_at = m.started_at AND usage_records.trace_id = m.trace_id \
                   AND usage_records.span_id = m.span_id";
        tx.bulk(sql, &[Time, Text, Text, Text, Flag], differing.collect()).await.map(drop)
    }

    /// To be called when the records are written: an account that enters a new period counts them.
    pub(super) async fn close(self, tx: &mut Tx, known: &KnownMarks, now: Timestamp) -> Result<(), PersistError> {
        let (mut staying, mut turning) = (Vec::new(), Vec::new());
        for (mut locked, touched) in self.accounts {
            let standing = &mut locked.standing;
            touched.apply(standing, known, &self.decided);
            let latest = touched.latest();
            match latest.and_then(|latest| standing.next_period(latest, now)) {
                Some(start) => {
                    let turn = Turn::into_period(standing, start);
                    turning.push((locked, turn));
                }
                None => staying.push(locked),
            }
        }
        accounts::write_used(tx, staying.iter(), now).await?;
        accounts::turn(tx, turning, now).await.map(drop)
    }
}

impl Touched<'_> {
    fn apply(&self, standing: &mut Standing, known: &KnownMarks, decided: &FxHashMap<&Key, Mark>) {
        let period = standing.period_started_at;
        let by = |record: &Record, free| Used::by(record, free, record.key.started_at >= period);
        let was = |record: &Record| by(record, is_free(record, known));
        let used = &mut standing.used;
        for record in &self.coming {
            used.add(&by(record, decided.get(&record.key).is_some_and(|mark| mark.free)));
        }
        for (before, after) in &self.staying {
            used.add(&by(after, is_free(before, known)));
            used.subtract(&was(before));
        }
        for record in &self.leaving {
            used.subtract(&was(record));
        }
    }

    fn latest(&self) -> Option<Timestamp> {
        self.coming.iter().copied().chain(self.staying.iter().map(|(_, after)| *after)).map(start).max()
    }

    /// The first and the last time that it touches.
    fn span(&self) -> Option<(Timestamp, Timestamp)> {
        let starts = || {
            let staying = self.staying.iter().map(|(_, after)| *after);
            self.coming.iter().copied().chain(staying).chain(self.leaving.iter().copied()).map(start)
        };
        starts().min().zip(starts().max())
    }
}

fn start(record: &Record) -> Timestamp {
    record.key.started_at
}

fn is_free(record: &Record, known: &KnownMarks) -> bool {
    known.get(&record.key).is_some_and(|mark| mark.free)
}

fn by_account<'r>(rewrites: impl Iterator<Item = Rewrite<'r>>) -> BTreeMap<AccountId, Touched<'r>> {
    let mut touched: BTreeMap<AccountId, Touched<'r>> = BTreeMap::new();
    for Rewrite { before, after } in rewrites {
        let paid = |record: Option<&'r Record>| record.and_then(|record| Some((AccountId::of(record)?, record)));
        match (paid(before), paid(after)) {
            (Some((id, before)), Some((same, after))) if id == same => {
                touched.entry(id).or_default().staying.push((before, after));
            }
            (before, after) => {
                if let Some((id, record)) = before {
                    touched.entry(id).or_default().leaving.push(record);
                }
                if let Some((id, record)) = after {
                    touched.entry(id).or_default().coming.push(record);
                }
            }
        }
    }
    touched
}
