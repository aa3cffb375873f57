//! Keeps the billing accounts equal to the fold of their records, in the transaction that writes those.

use std::collections::BTreeMap;

use super::PersistError;
use super::rows::Values;
use super::store::Tx;
use super::value::Kind::{Int, Text, Time};
use super::value::{Kind, Row, Value};
use crate::domain::account::{AccountId, Used, period_after};
use crate::domain::record::Record;
use crate::domain::time::Timestamp;

/// Every account is on it until plans exist.
pub(super) const PLAN: &str = "default";

const COLUMNS: &str = "tenant, user_id, plan, requests_used_current_period, tokens_used_current_period, \
    cost_used_current_period_nanousd, period_started_at, created_at, updated_at";
const KINDS: &[Kind] = &[Text, Text, Text, Int, Int, Int, Time, Time, Time];
const RESET_KINDS: &[Kind] = &[Text, Text, Time, Time, Time, Text, Int, Int, Int];

/// A record before and after a write.
#[derive(Default)]
pub(super) struct Rewrite<'r> {
    pub before: Option<&'r Record>,
    pub after: Option<&'r Record>,
}

/// What a write does to one account.
#[derive(Default)]
struct Touched<'r> {
    before: Vec<&'r Record>,
    after: Vec<&'r Record>,
}

/// An account as it was read and as it becomes.
pub(super) struct Moving {
    pub id: AccountId,
    plan: String,
    period: Timestamp,
    pub used: Used,
    next: Timestamp,
}

/// To be called when the records are written: an account that enters a new period counts them.
pub(super) async fn settle(tx: &mut Tx, rewrites: Vec<Rewrite<'_>>, now: Timestamp) -> Result<(), PersistError> {
    let touched = by_account(&rewrites);
    if touched.is_empty() {
        return Ok(());
    }
    open_accounts(tx, &touched, now).await?;
    let mut accounts = read_accounts(tx, touched.keys()).await?;
    for account in &mut accounts {
        let Some(touched) = touched.get(&account.id) else { continue };
        if let Some(latest) = touched.after.iter().map(|record| record.key.started_at).max() {
            account.next = period_after(Some(account.period), latest, now);
        }
    }
    let (mut moved, mut staying): (Vec<_>, Vec<_>) =
        accounts.into_iter().partition(|account| account.next > account.period);
    for account in &mut staying {
        if let Some(touched) = touched.get(&account.id) {
            touched.apply(&mut account.used, account.period);
        }
    }
    write_resets(tx, &moved, now).await?;
    recount(tx, &mut moved).await?;
    staying.append(&mut moved);
    staying.sort_by(|a, b| a.id.cmp(&b.id));
    write_accounts(tx, &staying, now).await
}

impl Touched<'_> {
    fn apply(&self, used: &mut Used, period: Timestamp) {
        let current = |record: &&&Record| record.key.started_at >= period;
        self.after.iter().filter(current).for_each(|record| used.add(&Used::by(record)));
        self.before.iter().filter(current).for_each(|record| used.subtract(&Used::by(record)));
    }

    /// When the account is new, the month that it opens in.
    fn first_period(&self, now: Timestamp) -> Timestamp {
        let times = self.after.iter().chain(&self.before).map(|record| record.key.started_at);
        period_after(None, times.max().unwrap_or(now), now)
    }
}

fn by_account<'r>(rewrites: &[Rewrite<'r>]) -> BTreeMap<AccountId, Touched<'r>> {
    let mut touched: BTreeMap<AccountId, Touched<'r>> = BTreeMap::new();
    for rewrite in rewrites {
        if let Some((id, record)) = rewrite.before.and_then(|record| Some((payer(record)?, record))) {
            touched.entry(id).or_default().before.push(record);
        }
        if let Some((id, record)) = rewrite.after.and_then(|record| Some((payer(record)?, record))) {
            touched.entry(id).or_default().after.push(record);
        }
    }
    touched
}

/// Under the names that are stored, which have no NUL characters.
fn payer(record: &Record) -> Option<AccountId> {
    let stored = |text: &str| text.replace('\0', "");
    let user = record.user.as_deref()?;
    Some(AccountId { tenant: stored(&record.key.tenant).into(), user: stored(user).into() })
}

/// New accounts first get an empty row, so that there is something to lock: of two instances that see a user first, the second
/// must add to what the first wrote.
async fn open_accounts(
    tx: &mut Tx,
    touched: &BTreeMap<AccountId, Touched<'_>>,
    now: Timestamp,
) -> Result<(), PersistError> {
    let opened: Vec<Values> =
        touched.iter().map(|(id, touched)| empty_row(id, touched.first_period(now), now)).collect();
    insert_accounts(tx, opened).await.map(drop)
}

/// The row of an account that has just been opened.
pub(super) fn empty_row(id: &AccountId, period: Timestamp, now: Timestamp) -> Values {
    account_row(id, PLAN, &Used::default(), period, now)
}

/// Leaves alone those that are there; answers with tenant and user of the others.
pub(super) async fn insert_accounts(tx: &mut Tx, rows: Vec<Values>) -> Result<Vec<Row>, PersistError> {
    let sql = format!(
        "INSERT INTO billing_accounts ({COLUMNS}) {{rows}} ON CONFLICT (tenant, user_id) DO NOTHING \
         RETURNING tenant, user_id"
    );
    tx.bulk(&sql, KINDS, rows).await
}

/// The accounts of these ids, each locked.
pub(super) async fn read_accounts(
    tx: &mut Tx,
    ids: impl Iterator<Item = &AccountId>,
) -> Result<Vec<Moving>, PersistError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM billing_accounts WHERE (tenant, user_id) IN ({{rows}}) ORDER BY tenant, user_id{}",
        tx.lock()
    );
    let ids: Vec<Values> = ids.map(|id| vec![Value::text(&id.tenant), Value::text(&id.user)]).collect();
    let mut accounts = Vec::new();
    for row in tx.bulk(&sql, &[Text, Text], ids).await? {
        let period = row.time(6)?;
        accounts.push(Moving {
            id: AccountId { tenant: row.text(0)?.into(), user: row.text(1)?.into() },
            plan: row.text(2)?,
            period,
            used: Used { requests: row.int(3)?, tokens: row.int(4)?, cost_nanousd: row.int(5)? },
            next: period,
        });
    }
    Ok(accounts)
}

async fn write_resets(tx: &mut Tx, moved: &[Moving], now: Timestamp) -> Result<(), PersistError> {
    let resets: Vec<Values> = moved
        .iter()
        .map(|account| {
            vec![
                Value::text(&account.id.tenant),
                Value::text(&account.id.user),
                Value::time(account.period),
                Value::time(account.next),
                Value::time(now),
                Value::text("period"),
                Value::Int(account.used.requests),
                Value::Int(account.used.tokens),
                Value::Int(account.used.cost_nanousd),
            ]
        })
        .collect();
    let sql = "INSERT INTO account_resets (tenant, user_id, period_started_at, next_period_started_at, reset_at, reason, \
               requests_used, tokens_used, cost_used_nanousd) {rows} ON CONFLICT DO NOTHING";
    tx.bulk(sql, RESET_KINDS, resets).await.map(drop)
}

/// Counts the records of the period that each stands in next: some of them may have come before the account entered it.
pub(super) async fn recount(tx: &mut Tx, moved: &mut [Moving]) -> Result<(), PersistError> {
    let periods: Vec<Values> = moved
        .iter()
        .map(|account| vec![Value::text(&account.id.tenant), Value::text(&account.id.user), Value::time(account.next)])
        .collect();
    let sql = "WITH moved (tenant, user_id, period) AS ({rows}) \
               SELECT m.tenant, m.user_id, COUNT(r.trace_id), CAST(COALESCE(SUM(r.total_tokens), 0) AS BIGINT), \
               CAST(COALESCE(SUM(r.cost_nanousd), 0) AS BIGINT) FROM moved m LEFT JOIN usage_records r \
               ON r.tenant = m.tenant AND r.user_id = m.user_id AND r.started_at >= m.period GROUP BY m.tenant, m.user_id";
    for row in tx.bulk(sql, &[Text, Text, Time], periods).await? {
        let (tenant, user) = (row.text(0)?, row.text(1)?);
        let used = Used { requests: row.int(2)?, tokens: row.int(3)?, cost_nanousd: row.int(4)? };
        let account = moved.iter_mut().find(|account| *account.id.tenant == *tenant && *account.id.user == *user);
        if let Some(account) = account {
            account.used = used;
        }
    }
    Ok(())
}

pub(super) async fn write_accounts(tx: &mut Tx, accounts: &[Moving], now: Timestamp) -> Result<(), PersistError> {
    let written: Vec<Values> = accounts
        .iter()
        .map(|account| account_row(&account.id, &account.plan, &account.used, account.next, now))
        .collect();
    let sql = format!(
        "INSERT INTO billing_accounts ({COLUMNS}) {{rows}} ON CONFLICT (tenant, user_id) DO UPDATE SET \
         requests_used_current_period = excluded.requests_used_current_period, \
         tokens_used_current_period = excluded.tokens_used_current_period, \
         cost_used_current_period_nanousd = excluded.cost_used_current_period_nanousd, \
         period_started_at = excluded.period_started_at, updated_at = excluded.updated_at"
    );
    tx.bulk(&sql, KINDS, written).await.map(drop)
}

fn account_row(id: &AccountId, plan: &str, used: &Used, period: Timestamp, now: Timestamp) -> Values {
    vec![
        Value::text(&id.tenant),
        Value::text(&id.user),
        Value::text(plan),
        Value::Int(used.requests),
        Value::Int(used.tokens),
        Value::Int(used.cost_nanousd),
        Value::time(period),
        Value::time(now),
        Value::time(now),
    ]
}
