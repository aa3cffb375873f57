//! Mends accounts and counters of quotas from their records, where `verify` says that they differ. It never touches a record or a
//! call.

use std::collections::BTreeSet;

use super::PersistError;
use super::accounts::{self, Opening, account_id};
use super::audit::{self, Act, Done};
use super::ledger::{self, MendedCounter};
use super::store::{Store, Tx};
use super::verify::{WITHOUT_ACCOUNT, differing_accounts};
use tacho_core::domain::account::{AccountId, Used};
use tacho_core::domain::plan::{Plans, Terms};
use tacho_core::domain::time::Timestamp;

/// Accounts that are counted and written together.
const CHUNK: usize = 1_000;

/// An open transaction in which every account is the sum of its records. Nothing is written until `commit` has returned.
#[must_use = "a rebuild that is not committed is rolled back"]
pub struct Rebuild {
    tx: Tx,
    mended: Vec<Mended>,
    charges: usize,
    counters: Vec<MendedCounter>,
}

/// What was done to one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mended {
    pub account: AccountId,
    /// It was missing.
    pub created: bool,
    pub before: Used,
    pub after: Used,
}

impl Rebuild {
    /// By tenant and user.
    pub fn mended(&self) -> &[Mended] {
        &self.mended
    }

    /// Those of quotas.
    pub fn counters(&self) -> &[MendedCounter] {
        &self.counters
    }

    /// How much of what records are charged by limits was not what they say.
    pub fn charges(&self) -> usize {
        self.charges
    }

    pub async fn commit(mut self, act: &Act<'_>) -> Result<(), PersistError> {
        for mended in self.mended.chunks(CHUNK) {
            let done: Vec<Done<'_>> = mended.iter().map(done).collect();
            audit::note(&mut self.tx, act, &done).await?;
        }
        let counters: Vec<Done<'_>> = self.counters.iter().map(counter_done).collect();
        audit::note(&mut self.tx, act, &counters).await?;
        self.tx.commit().await
    }
}

impl Store {
    /// Counts anew every account that differs from its records, and opens those that are missing on the plan and in the period of
    /// their last record, or where they were last reset by hand; then every counter of a quota that differs from what its records are charged.
    /// Until it is committed or dropped, nobody else writes to SQLite, or to these accounts in Postgres. Counted is what others
    /// have committed; whoever still waits for an account adds to what was counted.
    pub async fn rebuild(&self, now: Timestamp) -> Result<Rebuild, PersistError> {
        let mut tx = self.writing().await?;
        let created = open_missing(&mut tx, self.plans(), now).await?;
        let found = tx.fetch(&differing_accounts(), &[]).await?;
        let differing = found.iter().map(account_id).collect::<Result<Vec<_>, _>>()?;
        let mut mended = Vec::new();
        for ids in differing.chunks(CHUNK) {
            // Locked before they are counted: what comes later waits and adds to it.
            let mut locked = accounts::lock(&mut tx, ids.iter()).await?;
            let since = locked.iter().map(|account| (&account.id, account.standing.period_started_at));
            let mut counted = accounts::count(&mut tx, since).await?;
            for account in &mut locked {
                let (before, after) = (account.standing.used, counted.remove(&account.id).unwrap_or_default());
                account.standing.used = after;
                if before != after {
                    let (created, account) = (created.contains(&account.id), account.id.clone());
                    mended.push(Mended { account, created, before, after });
                }
            }
            accounts::write_used(&mut tx, locked.iter(), now).await?;
        }
        let (charges, counters) = ledger::mend(&mut tx, now).await?;
        Ok(Rebuild { tx, mended, charges, counters })
    }
}

/// Of users that have records but no account; empty at first, so that they differ. Answers whose it opened.
async fn open_missing(tx: &mut Tx, plans: &Plans, now: Timestamp) -> Result<BTreeSet<AccountId>, PersistError> {
    let sql = format!(
        "SELECT r.tenant, r.user_id, MIN(r.started_at), MAX(r.started_at), \
         (SELECT p.plan FROM usage_records p WHERE p.tenant = r.tenant AND p.user_id = r.user_id \
         ORDER BY p.started_at DESC, p.id DESC LIMIT 1), \
         (SELECT MAX(m.next_period_started_at) FROM account_resets m \
         WHERE m.tenant = r.tenant AND m.user_id = r.user_id AND m.kind = 'manual') \
         FROM {WITHOUT_ACCOUNT} GROUP BY r.tenant, r.user_id ORDER BY r.tenant, r.user_id"
    );
    let found = tx.fetch(&sql, &[]).await?;
    let ids = found.iter().map(account_id).collect::<Result<Vec<_>, _>>()?;
    // A plan that the configuration does not name any more is kept by name.
    let named = found.iter().map(|row| row.text(4)).collect::<Result<Vec<_>, _>>()?;
    let unknown = Terms::default();
    let mut openings = Vec::new();
    for ((row, id), plan) in found.iter().zip(&ids).zip(&named) {
        openings.push(Opening {
            id,
            plan,
            terms: plans.get(plan).map_or(&unknown, |plan| &plan.terms),
            first_request: row.time(2)?,
            latest: row.time(3)?,
            reset_at: row.maybe_time(5)?,
        });
    }
    let opened = accounts::open(tx, &openings, now).await?;
    Ok(opened.iter().map(account_id).collect::<Result<_, _>>()?)
}

fn done(mended: &Mended) -> Done<'_> {
    Done::to("account.rebuild", &mended.account, audit::used(&mended.before), audit::used(&mended.after))
}

fn counter_done(mended: &MendedCounter) -> Done<'_> {
    let used = |used: Option<i64>| Some(serde_json::json!({"used": used}));
    let object = format!("{} {}", mended.limit, mended.subject);
    Done { before: used(mended.before), after: used(Some(mended.after)), ..Done::on("limit.rebuild", object) }
}
