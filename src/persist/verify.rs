//! Proves that accounts are the fold of their records, records the fold of their calls and counters of quotas the fold of what records
//! are charged. The databases do the comparing, so that only what differs comes back; nothing is ever written here.

use serde::Serialize;

use super::PersistError;
use super::ledger;
use super::query::belongs;
use super::rows::RECORD_KEY;
use super::store::{Store, Tx};
use super::sums::{sum, sum_or_zero};
use super::value::{Row, Value};
use tacho_core::domain::account::Drift;

/// A column of a table and what is added up for it.
type Fold = (&'static str, Adds);

enum Adds {
    /// SQL that counts rows.
    Rows(&'static str),
    /// SQL of a number in each row.
    Numbers(&'static str),
}

impl Adds {
    fn sql(&self) -> String {
        match self {
            Self::Rows(sql) => (*sql).to_owned(),
            Self::Numbers(of) => sum(of),
        }
    }
}

/// Of `a`, an account, over `r`, the records of its period; but the free ones are those of its whole life.
const ACCOUNT_FOLDS: &[Fold] = &[
    (FREE, Adds::Rows("COUNT(CASE WHEN r.free_request THEN 1 END)")),
    ("requests_used_current_period", Adds::Rows("COUNT(CASE WHEN NOT r.free_request THEN 1 END)")),
    ("tokens_used_current_period", Adds::Numbers("r.total_tokens")),
    ("cost_used_current_period_nanousd", Adds::Numbers("r.cost_nanousd")),
];

/// Of a record over `c`, calls of it: what `Totals::of` reckons. Calls of unknown usage have stored no tokens.
const RECORD_FOLDS: &[Fold] = &[
    ("llm_calls", Adds::Rows("COUNT(*)")),
    ("llm_errors", Adds::Rows("COUNT(c.error_type)")),
    ("input_tokens", Adds::Numbers("c.input_tokens")),
    ("output_tokens", Adds::Numbers("c.output_tokens")),
    ("cached_input_tokens", Adds::Numbers("c.cached_input_tokens")),
    ("cache_write_tokens", Adds::Numbers("c.cache_write_tokens")),
    ("reasoning_tokens", Adds::Numbers("c.reasoning_tokens")),
    ("total_tokens", Adds::Numbers("c.input_tokens + c.output_tokens")),
    (COST, Adds::Numbers("c.cost_nanousd")),
    ("unknown_usage_calls", Adds::Rows("COUNT(CASE WHEN c.usage = 'unknown' THEN 1 END)")),
    (
        "unpriced_calls",
        Adds::Rows("COUNT(CASE WHEN c.usage = 'reported' AND (c.cost_nanousd IS NULL OR c.partly_priced) THEN 1 END)"),
    ),
];
const FREE: &str = "free_requests_used";
const COST: &str = "cost_nanousd";

/// Records of users that have no account.
pub(super) const WITHOUT_ACCOUNT: &str = "usage_records r WHERE r.user_id IS NOT NULL AND NOT EXISTS \
    (SELECT 1 FROM billing_accounts a WHERE a.tenant = r.tenant AND a.user_id = r.user_id)";

/// What was looked at and what was found to differ.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Verification {
    pub checked: Checked,
    /// Accounts by name first, then records and calls by time.
    pub differences: Vec<Difference>,
    /// How many more there are.
    pub not_listed: i64,
}

/// How many rows there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    pub accounts: i64,
    pub records: i64,
    pub calls: i64,
    /// Of quotas, in `limit_usage`.
    pub counters: i64,
}

/// One column of one row that is not what the rows below it add up to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub kind: What,
    pub key: RowKey,
    pub column: String,
    pub stored: Option<i64>,
    pub computed: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    Account,
    /// A user has records: of `accounts` there are 0 and should be 1.
    MissingAccount,
    Record,
    /// A call belongs to no record: of `records` there are 0 and should be 1.
    OrphanCall,
    /// What a record is charged by a limit is not what it says.
    LimitCharge,
    /// What was used of a quota is not what records are charged.
    LimitUsage,
}

impl What {
    const ALL: [Self; 6] =
        [Self::Account, Self::MissingAccount, Self::Record, Self::OrphanCall, Self::LimitCharge, Self::LimitUsage];

    pub fn label(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::MissingAccount => "missing account",
            Self::Record => "record",
            Self::OrphanCall => "orphan call",
            Self::LimitCharge => "limit charge",
            Self::LimitUsage => "limit usage",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum RowKey {
    Account {
        tenant: String,
        user_id: String,
    },
    Span {
        started_at: String,
        trace_id: String,
        span_id: String,
    },
    /// The period is not known of a counter that is missing.
    Limit {
        limit: String,
        subject: String,
        period_started_at: Option<String>,
        key: String,
    },
}

impl Verification {
    pub fn is_clean(&self) -> bool {
        self.differences.is_empty()
    }
}

impl Store {
    /// Compares everything as it stood at one moment, whoever writes meanwhile. Lists at most so many differences.
    pub async fn verify(&self, most: u32) -> Result<Verification, PersistError> {
        let mut tx = self.snapshot().await?;
        let checked = count(&mut tx).await?;
        let (mut differences, mut all) = (Vec::new(), 0);
        for what in What::ALL {
            let found = tx.fetch(&statement(what), &[Value::Int(most.into())]).await?;
            all += found.first().map_or(Ok(0), |row| row.int(row.len() - 1))?;
            let room = (most as usize).saturating_sub(differences.len());
            for row in found.iter().take(room) {
                differences.push(difference(what, row)?);
            }
        }
        tx.commit().await?;
        let listed = i64::try_from(differences.len()).unwrap_or(i64::MAX);
        Ok(Verification { checked, differences, not_listed: all - listed })
    }

    /// How far all accounts together are from their records. An account that is missing has no period, so all records of its user
    /// count. Reads every record of the current periods: a question for each few minutes, not for each second.
    pub async fn drift(&self) -> Result<Drift, PersistError> {
        let pairs = (0..ACCOUNT_FOLDS.len()).map(|n| format!("stored_{n}, folded_{n}"));
        let nothing_and_folds = ACCOUNT_FOLDS.iter().map(|(_, fold)| format!("0, COALESCE({}, 0)", fold.sql()));
        let sums = (0..ACCOUNT_FOLDS.len()).map(|n| sum_or_zero(&format!("ABS(stored_{n} - folded_{n})")));
        let sql = format!(
            "WITH {}, pairs AS (SELECT {} FROM folded UNION ALL SELECT {} FROM {WITHOUT_ACCOUNT}) SELECT {} FROM pairs",
            folded_accounts(),
            join(pairs),
            join(nothing_and_folds),
            join(sums)
        );
        let found = self.fetch(&sql, &[]).await?;
        let Some(row) = found.first() else { return Ok(Drift::default()) };
        Ok(Drift { free_requests: row.int(0)?, requests: row.int(1)?, tokens: row.int(2)?, cost_nanousd: row.int(3)? })
    }
}

/// Tenant and user of the accounts that are not the fold of their records, in order.
pub(super) fn differing_accounts() -> String {
    let differ = (0..ACCOUNT_FOLDS.len()).map(differs).collect::<Vec<_>>().join(" OR ");
    format!("WITH {} SELECT tenant, user_id FROM folded WHERE {differ} ORDER BY tenant, user_id", folded_accounts())
}

async fn count(tx: &mut Tx) -> Result<Checked, PersistError> {
    let sql = "SELECT (SELECT COUNT(*) FROM billing_accounts), (SELECT COUNT(*) FROM usage_records), \
               (SELECT COUNT(*) FROM llm_calls), (SELECT COUNT(*) FROM limit_usage)";
    let found = tx.fetch(sql, &[]).await?;
    let number = |column| found.first().map_or(Ok(0), |row| row.int(column));
    Ok(Checked { accounts: number(0)?, records: number(1)?, calls: number(2)?, counters: number(3)? })
}

/// Answers with a line for each difference, at most `$1`: the key, the column, what is stored, what is folded and how many lines
/// there are in all.
fn statement(what: What) -> String {
    let one_missing = "CAST(0 AS BIGINT), CAST(1 AS BIGINT), COUNT(*) OVER ()";
    match what {
        What::Account => lines(&folded_accounts(), "tenant, user_id", &names(ACCOUNT_FOLDS)),
        What::Record => lines(&folded_records(), RECORD_KEY, &names(RECORD_FOLDS)),
        What::LimitCharge => lines(&ledger::folded_charges(), ledger::CHARGE_KEY, ledger::CHARGE_COLUMNS),
        What::LimitUsage => lines(&ledger::folded_counters(), ledger::COUNTER_KEY, ledger::COUNTER_COLUMNS),
        What::MissingAccount => format!(
            "SELECT r.tenant, r.user_id, 'accounts', {one_missing} FROM {WITHOUT_ACCOUNT} \
             GROUP BY r.tenant, r.user_id ORDER BY r.tenant, r.user_id LIMIT $1"
        ),
        What::OrphanCall => format!(
            "SELECT c.started_at, c.trace_id, c.span_id, 'records', {one_missing} FROM llm_calls c \
             WHERE NOT EXISTS (SELECT 1 FROM usage_records r WHERE {}) \
             ORDER BY c.started_at, c.trace_id, c.span_id LIMIT $1",
            belongs("c")
        ),
    }
}

/// Of the rows that differ, which are few, each column that does gets a line.
fn lines(folded: &str, key: &str, columns: &[&str]) -> String {
    let differ = (0..columns.len()).map(differs).collect::<Vec<_>>().join(" OR ");
    let line = |(n, column): (usize, &&str)| {
        let differs = differs(n);
        format!(
            "SELECT {key}, '{column}' AS name, stored_{n} AS stored, folded_{n} AS folded FROM differing WHERE {differs}"
        )
    };
    let lines: Vec<String> = columns.iter().enumerate().map(line).collect();
    format!(
        "WITH {folded}, differing AS MATERIALIZED (SELECT * FROM folded WHERE {differ}), lines AS ({}) \
         SELECT {key}, name, stored, folded, COUNT(*) OVER () FROM lines ORDER BY {key}, name LIMIT $1",
        lines.join(" UNION ALL ")
    )
}

pub(super) fn differs(n: usize) -> String {
    format!("stored_{n} IS DISTINCT FROM folded_{n}")
}

fn names(folds: &[Fold]) -> Vec<&'static str> {
    folds.iter().map(|(column, _)| *column).collect()
}

/// `folded`: each account with what is stored and what its records add up to. Free records have an index of their own, so that what
/// is counted over a whole life reads no more than them.
fn folded_accounts() -> String {
    let fold = |(column, fold): &Fold| {
        (
            *column,
            if *column == FREE {
                "COALESCE(MAX(f.used), 0)".to_owned()
            } else {
                format!("COALESCE({}, 0)", fold.sql())
            },
        )
    };
    format!(
        "frees AS MATERIALIZED (SELECT f.tenant, f.user_id, COUNT(*) AS used FROM usage_records f WHERE f.free_request \
         GROUP BY f.tenant, f.user_id), \
         folded AS (SELECT a.tenant, a.user_id, {} FROM billing_accounts a LEFT JOIN frees f \
         ON f.tenant = a.tenant AND f.user_id = a.user_id LEFT JOIN usage_records r \
         ON r.tenant = a.tenant AND r.user_id = a.user_id AND r.started_at >= a.period_started_at \
         GROUP BY a.tenant, a.user_id)",
        stored_and_folded("a", ACCOUNT_FOLDS.iter().map(fold))
    )
}

/// `folded`: each record with what is stored and what its calls add up to. The calls of one record stand side by side, in the order
/// of the records, and are added up first.
fn folded_records() -> String {
    let by_record = join(RECORD_FOLDS.iter().map(|(column, fold)| format!("{} AS {column}", fold.sql())));
    format!(
        "sums AS MATERIALIZED (SELECT c.record_started_at, c.trace_id, c.record_span_id, {by_record} FROM llm_calls c \
         GROUP BY c.record_started_at, c.trace_id, c.record_span_id), \
         folded AS (SELECT r.started_at, r.trace_id, r.span_id, {} FROM usage_records r LEFT JOIN sums c ON {})",
        stored_and_folded("r", RECORD_FOLDS.iter().map(|(column, _)| (*column, sum_of_calls(column)))),
        belongs("c")
    )
}

/// No calls have cost nothing; of calls without a price it is not known.
fn sum_of_calls(column: &str) -> String {
    let sum = format!("CAST(c.{column} AS BIGINT)");
    if column == COST {
        format!("CASE WHEN c.trace_id IS NULL THEN 0 ELSE {sum} END")
    } else {
        format!("COALESCE({sum}, 0)")
    }
}

fn stored_and_folded<'f>(table: &str, folds: impl Iterator<Item = (&'f str, String)>) -> String {
    let pair =
        |(n, (column, fold)): (usize, (&str, String))| format!("{table}.{column} AS stored_{n}, {fold} AS folded_{n}");
    join(folds.enumerate().map(pair))
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

fn difference(what: What, row: &Row) -> Result<Difference, sqlx::Error> {
    let (key, next) = match what {
        What::Account | What::MissingAccount => (RowKey::Account { tenant: row.text(0)?, user_id: row.text(1)? }, 2),
        What::Record | What::OrphanCall => (span(row)?, 3),
        What::LimitCharge => (span(row)?, 5),
        What::LimitUsage => {
            let period_started_at = row.maybe_time(2)?.map(|start| start.to_string());
            (RowKey::Limit { limit: row.text(0)?, subject: row.text(1)?, period_started_at, key: row.text(3)? }, 4)
        }
    };
    let (stored, computed) = (row.maybe_int(next + 1)?, row.maybe_int(next + 2)?);
    Ok(Difference { kind: what, key, column: row.text(next)?, stored, computed })
}

fn span(row: &Row) -> Result<RowKey, sqlx::Error> {
    Ok(RowKey::Span { started_at: row.time(0)?.to_string(), trace_id: row.text(1)?, span_id: row.text(2)? })
}
