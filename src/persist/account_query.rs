//! Questions about accounts.

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::PersistError;
use super::accounts::{STANDING, Standings, id_values};
use super::query::Conditions;
use super::store::Store;
use super::value::Kind::Text;
use super::value::{Row, Value};
use tacho_core::domain::account::{AccountId, Standing};
use tacho_core::domain::time::Timestamp;

/// What is asked for; what is `None` does not matter.
#[derive(Clone, Debug, Default)]
pub struct AccountFilter {
    pub tenant: Option<String>,
    pub plan: Option<String>,
}

#[derive(Clone, Debug)]
pub struct AccountPage {
    /// The last account already seen.
    pub after: Option<AccountId>,
    pub limit: u32,
}

/// A row of billing_accounts as it is shown: times as RFC 3339 text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AccountRow {
    pub tenant: String,
    pub user_id: String,
    pub plan: String,
    pub free_requests_used: i64,
    pub requests_used_current_period: i64,
    pub tokens_used_current_period: i64,
    pub cost_used_current_period_nanousd: i64,
    pub period_started_at: String,
    pub period_ends_at: Option<String>,
    pub period_kind: String,
    pub period_anchor: String,
    pub timezone: String,
    pub first_request_at: String,
    pub last_manual_reset_at: Option<String>,
    pub created_at: String,
    /// By themselves or by hand; a change of plan is not one of them.
    pub ended_periods: i64,
}

/// A row of account_resets as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ResetRow {
    pub period_started_at: String,
    pub next_period_started_at: String,
    pub created_at: String,
    /// `period`, `manual` or `plan`.
    pub kind: String,
    /// Who wanted it, or why.
    pub reason: Option<String>,
    pub plan: String,
    pub next_plan: String,
    pub requests_used: i64,
    pub tokens_used: i64,
    pub cost_used_nanousd: i64,
}

const ENDED_PERIODS: &str = "(SELECT COUNT(*) FROM account_resets r WHERE r.tenant = a.tenant AND r.user_id = a.user_id \
    AND r.kind <> 'plan')";

impl Store {
    /// By tenant and user, in the order of the database.
    pub async fn accounts(&self, filter: &AccountFilter, page: &AccountPage) -> Result<Vec<AccountRow>, PersistError> {
        let mut wanted = Conditions::default();
        wanted.add("a.tenant =", filter.tenant.as_deref().map(Value::text));
        wanted.add("a.plan =", filter.plan.as_deref().map(Value::text));
        let (mut conditions, mut values) = wanted.finish();
        if let Some(after) = &page.after {
            let (place, joined) = (values.len(), if conditions.is_empty() { "WHERE" } else { "AND" });
            conditions += &format!(" {joined} (a.tenant, a.user_id) > (${}, ${})", place + 1, place + 2);
            values.extend(id_values(after));
        }
        values.push(Value::Int(page.limit.into()));
        let sql = format!(
            "SELECT {STANDING}, {ENDED_PERIODS} FROM billing_accounts a{conditions} ORDER BY a.tenant, a.user_id LIMIT ${}",
            values.len()
        );
        let found = self.fetch(&sql, &values).await?;
        Ok(found.iter().map(account_row).collect::<Result<_, _>>()?)
    }

    pub async fn account(&self, id: &AccountId) -> Result<Option<AccountRow>, PersistError> {
        let sql = format!(
            "SELECT {STANDING}, {ENDED_PERIODS} FROM billing_accounts a WHERE a.tenant = $1 AND a.user_id = $2"
        );
        let found = self.fetch(&sql, &id_values(id)).await?;
        Ok(found.first().map(account_row).transpose()?)
    }

    /// The history of this account, the last entry first, at most so much.
    pub async fn account_resets(&self, id: &AccountId, most: u32) -> Result<Vec<ResetRow>, PersistError> {
        let sql = "SELECT period_started_at, next_period_started_at, created_at, kind, reason, plan, next_plan, \
                   requests_used, tokens_used, cost_used_nanousd FROM account_resets \
                   WHERE tenant = $1 AND user_id = $2 ORDER BY id DESC LIMIT $3";
        let mut values = id_values(id);
        values.push(Value::Int(most.into()));
        let found = self.fetch(sql, &values).await?;
        Ok(found.iter().map(reset_row).collect::<Result<_, _>>()?)
    }

    /// How these accounts stand now, by one question. Those that are missing are not there yet; nothing is locked.
    pub async fn standings(&self, ids: &[AccountId]) -> Result<FxHashMap<AccountId, Standing>, PersistError> {
        let sql = format!("SELECT {STANDING} FROM billing_accounts a WHERE (a.tenant, a.user_id) IN ({{rows}})");
        let found = self.look_up(&sql, &[Text, Text], ids.iter().map(id_values).collect()).await?;
        let mut standings = Standings::default();
        let read = |row| standings.read(row).map(|account| (account.id, account.standing));
        Ok(found.iter().map(read).collect::<Result<_, _>>()?)
    }
}

/// A row of `STANDING` and `ENDED_PERIODS`.
fn account_row(row: &Row) -> Result<AccountRow, sqlx::Error> {
    let time = |column| row.time(column).map(|time| time.to_string());
    let maybe_time = |column| Ok::<_, sqlx::Error>(row.maybe_time(column)?.map(|time: Timestamp| time.to_string()));
    Ok(AccountRow {
        tenant: row.text(0)?,
        user_id: row.text(1)?,
        plan: row.text(2)?,
        free_requests_used: row.int(3)?,
        requests_used_current_period: row.int(4)?,
        tokens_used_current_period: row.int(5)?,
        cost_used_current_period_nanousd: row.int(6)?,
        period_started_at: time(7)?,
        period_ends_at: maybe_time(8)?,
        period_kind: row.text(9)?,
        period_anchor: row.text(10)?,
        timezone: row.text(11)?,
        first_request_at: time(12)?,
        last_manual_reset_at: maybe_time(13)?,
        created_at: time(14)?,
        ended_periods: row.int(15)?,
    })
}

fn reset_row(row: &Row) -> Result<ResetRow, sqlx::Error> {
    let time = |column| row.time(column).map(|time| time.to_string());
    Ok(ResetRow {
        period_started_at: time(0)?,
        next_period_started_at: time(1)?,
        created_at: time(2)?,
        kind: row.text(3)?,
        reason: row.maybe_text(4)?,
        plan: row.text(5)?,
        next_plan: row.text(6)?,
        requests_used: row.int(7)?,
        tokens_used: row.int(8)?,
        cost_used_nanousd: row.int(9)?,
    })
}
