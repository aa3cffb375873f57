//! Mends accounts from their records, where `verify` says that they differ. It never touches a record or a call.

use std::collections::BTreeSet;

use super::PersistError;
use super::accounts::{self, Moving};
use super::rows::Values;
use super::store::{Store, Tx};
use super::value::Row;
use super::verify::{WITHOUT_ACCOUNT, differing_accounts};
use crate::domain::account::{AccountId, Used, period_after};
use crate::domain::time::Timestamp;

/// Accounts that are counted and written together.
const CHUNK: usize = 1_000;

/// An open transaction in which every account is the sum of its records. Nothing is written until `commit` has returned.
#[must_use = "a rebuild that is not committed is rolled back"]
pub struct Rebuild {
    tx: Tx,
    mended: Vec<Mended>,
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

    pub async fn commit(self) -> Result<(), PersistError> {
        self.tx.commit().await
    }
}

impl Store {
    /// Counts anew every account that differs from its records, and opens those that are missing in the month of their last record.
    /// Until it is committed or dropped, nobody else writes to SQLite, or to these accounts in Postgres. Counted is what others
    /// have committed; whoever still waits for an account adds to what was counted.
    pub async fn rebuild(&self, now: Timestamp) -> Result<Rebuild, PersistError> {
        let mut tx = self.writing().await?;
        let created = open_missing(&mut tx, now).await?;
        let found = tx.fetch(&differing_accounts(), &[]).await?;
        let differing = found.iter().map(account_id).collect::<Result<Vec<_>, _>>()?;
        let mut mended = Vec::new();
        for ids in differing.chunks(CHUNK) {
            // Locked before they are counted: what comes later waits and adds to it.
            let mut accounts = accounts::read_accounts(&mut tx, ids.iter()).await?;
            let before: Vec<Used> = accounts.iter().map(|account| account.used).collect();
            accounts::recount(&mut tx, &mut accounts).await?;
            accounts::write_accounts(&mut tx, &accounts, now).await?;
            let changed = accounts.into_iter().zip(before).filter(|(account, before)| account.used != *before);
            mended.extend(changed.map(|(account, before)| mend(account, before, &created)));
        }
        Ok(Rebuild { tx, mended })
    }
}

fn mend(account: Moving, before: Used, created: &BTreeSet<AccountId>) -> Mended {
    Mended { created: created.contains(&account.id), account: account.id, before, after: account.used }
}

/// Of users that have records but no account; empty at first, so that they differ. Answers whose it opened.
async fn open_missing(tx: &mut Tx, now: Timestamp) -> Result<BTreeSet<AccountId>, PersistError> {
    let sql = format!(
        "SELECT r.tenant, r.user_id, MAX(r.started_at) FROM {WITHOUT_ACCOUNT} \
         GROUP BY r.tenant, r.user_id ORDER BY r.tenant, r.user_id"
    );
    let row = |row: &Row| Ok(accounts::empty_row(&account_id(row)?, period_after(None, row.time(2)?, now), now));
    let missing: Result<Vec<Values>, sqlx::Error> = tx.fetch(&sql, &[]).await?.iter().map(row).collect();
    let opened = accounts::insert_accounts(tx, missing?).await?;
    Ok(opened.iter().map(account_id).collect::<Result<_, _>>()?)
}

/// Tenant and user lead the row.
fn account_id(row: &Row) -> Result<AccountId, sqlx::Error> {
    Ok(AccountId { tenant: row.text(0)?.into(), user: row.text(1)?.into() })
}
