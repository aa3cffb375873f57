//! The rows of the accounts: opened, locked, counted, written. What becomes of them is decided elsewhere.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::PersistError;
use super::rows::Values;
use super::store::Tx;
use super::sums::sum_or_zero;
use super::value::Kind::{Int, Text, Time};
use super::value::{Kind, Row, Value};
use tacho_core::domain::account::{AccountId, Standing, Used};
use tacho_core::domain::period::{Cycle, Zone};
use tacho_core::domain::plan::{Origin, Terms};
use tacho_core::domain::time::Timestamp;

/// What `Standings` reads, in its order; `a` is the account.
pub(super) const STANDING: &str = "a.tenant, a.user_id, a.plan, a.free_requests_used, a.requests_used_current_period, \
    a.tokens_used_current_period, a.cost_used_current_period_nanousd, a.period_started_at, a.period_ends_at, a.period_kind, \
    a.period_anchor, a.timezone, a.first_request_at, a.last_manual_reset_at, a.created_at";

/// An account whose row is locked.
pub(super) struct Locked {
    pub id: AccountId,
    pub standing: Standing,
}

/// Where an account goes: a period ends, or the plan changes.
pub(super) struct Turn {
    pub kind: EntryKind,
    /// Who wants it, or why.
    pub reason: Option<String>,
    pub plan: Arc<str>,
    pub terms: Terms,
    pub start: Timestamp,
    pub reset_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryKind {
    Period,
    Manual,
    Plan,
}

impl EntryKind {
    fn label(self) -> &'static str {
        match self {
            Self::Period => "period",
            Self::Manual => "manual",
            Self::Plan => "plan",
        }
    }
}

/// Reads rows of `STANDING`. Many accounts are in few zones.
#[derive(Default)]
pub(super) struct Standings {
    zones: FxHashMap<String, Zone>,
}

impl Standings {
    pub(super) fn read(&mut self, row: &Row) -> Result<Locked, sqlx::Error> {
        let (cycle, origin, zone) = (row.text(9)?, row.text(10)?, row.text(11)?);
        let terms = Terms {
            cycle: Cycle::parse(&cycle).ok_or_else(|| unknown("period", &cycle))?,
            origin: Origin::parse(&origin).ok_or_else(|| unknown("anchor", &origin))?,
            zone: self.zone(zone)?,
        };
        let standing = Standing {
            plan: row.text(2)?.into(),
            terms,
            used: Used {
                free_requests: row.int(3)?,
                requests: row.int(4)?,
                tokens: row.int(5)?,
                cost_nanousd: row.int(6)?,
            },
            period_started_at: row.time(7)?,
            period_ends_at: row.maybe_time(8)?,
            first_request_at: row.time(12)?,
            reset_at: row.maybe_time(13)?,
            created_at: row.time(14)?,
        };
        Ok(Locked { id: account_id(row)?, standing })
    }

    fn zone(&mut self, name: String) -> Result<Zone, sqlx::Error> {
        if let Some(zone) = self.zones.get(&name) {
            return Ok(zone.clone());
        }
        let zone = Zone::parse(&name).ok_or_else(|| unknown("time zone", &name))?;
        self.zones.insert(name, zone.clone());
        Ok(zone)
    }
}

fn unknown(what: &str, text: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("`{text}` is no {what} that this version knows").into())
}

/// Tenant and user lead the row.
pub(super) fn account_id(row: &Row) -> Result<AccountId, sqlx::Error> {
    Ok(AccountId { tenant: row.text(0)?.into(), user: row.text(1)?.into() })
}

/// An account that has no row yet.
pub(super) struct Opening<'a> {
    pub id: &'a AccountId,
    pub plan: &'a str,
    pub terms: &'a Terms,
    pub first_request: Timestamp,
    /// Its period is the one of this moment.
    pub latest: Timestamp,
    pub reset_at: Option<Timestamp>,
}

/// Empty rows, so that there is something to lock: of two instances that see a user first, the second must add to what the first
/// wrote. Leaves alone those that are there; answers with tenant and user of the others.
pub(super) async fn open(tx: &mut Tx, openings: &[Opening<'_>], now: Timestamp) -> Result<Vec<Row>, PersistError> {
    const KINDS: &[Kind] = &[Text, Text, Text, Time, Time, Text, Text, Text, Time, Time, Time, Time];
    let row = |opening: &Opening<'_>| {
        // As it will be read back: anniversaries must not move by the part of a microsecond.
        let first = opening.first_request.min(now).truncated();
        let at = opening.latest.min(now).max(opening.reset_at.unwrap_or_default());
        let period = opening.terms.schedule(first).period_at(at);
        vec![
            Value::text(&opening.id.tenant),
            Value::text(&opening.id.user),
            Value::text(opening.plan),
            Value::time(period.start.max(opening.reset_at.unwrap_or_default())),
            optional_time(period.end),
            Value::text(opening.terms.cycle.label()),
            Value::text(opening.terms.origin.label()),
            Value::text(opening.terms.zone.name()),
            Value::time(first),
            optional_time(opening.reset_at),
            Value::time(now),
            Value::time(now),
        ]
    };
    let sql = "INSERT INTO billing_accounts (tenant, user_id, plan, period_started_at, period_ends_at, period_kind, \
               period_anchor, timezone, first_request_at, last_manual_reset_at, created_at, updated_at) {rows} \
               ON CONFLICT (tenant, user_id) DO NOTHING RETURNING tenant, user_id";
    tx.bulk(sql, KINDS, openings.iter().map(row).collect()).await
}

fn optional_time(time: Option<Timestamp>) -> Value {
    time.map_or(Value::Null, Value::time)
}

/// The accounts of these ids, each locked.
pub(super) async fn lock(tx: &mut Tx, ids: impl Iterator<Item = &AccountId>) -> Result<Vec<Locked>, PersistError> {
    let sql = format!(
        "SELECT {STANDING} FROM billing_accounts a WHERE (a.tenant, a.user_id) IN ({{rows}}) \
         ORDER BY a.tenant, a.user_id{}",
        tx.lock()
    );
    let found = tx.bulk(&sql, &[Text, Text], ids.map(id_values).collect()).await?;
    let mut standings = Standings::default();
    Ok(found.iter().map(|row| standings.read(row)).collect::<Result<_, _>>()?)
}

pub(super) fn id_values(id: &AccountId) -> Values {
    vec![Value::text(&id.tenant), Value::text(&id.user)]
}

/// Counts the records of each account from this moment on, and the free ones of its whole life.
pub(super) async fn count(
    tx: &mut Tx,
    since: impl Iterator<Item = (&AccountId, Timestamp)>,
) -> Result<FxHashMap<AccountId, Used>, PersistError> {
    let row = |(id, start)| {
        let mut values = id_values(id);
        values.push(Value::time(start));
        values
    };
    let sql = format!(
        "WITH wanted (tenant, user_id, period) AS ({{rows}}) \
         SELECT w.tenant, w.user_id, (SELECT COUNT(*) FROM usage_records f \
         WHERE f.tenant = w.tenant AND f.user_id = w.user_id AND f.free_request), \
         COUNT(CASE WHEN NOT r.free_request THEN 1 END), {}, {} FROM wanted w LEFT JOIN usage_records r \
         ON r.tenant = w.tenant AND r.user_id = w.user_id AND r.started_at >= w.period GROUP BY w.tenant, w.user_id",
        sum_or_zero("r.total_tokens"),
        sum_or_zero("r.cost_nanousd")
    );
    let mut counted = FxHashMap::default();
    for row in tx.bulk(&sql, &[Text, Text, Time], since.map(row).collect()).await? {
        let used =
            Used { free_requests: row.int(2)?, requests: row.int(3)?, tokens: row.int(4)?, cost_nanousd: row.int(5)? };
        counted.insert(account_id(&row)?, used);
    }
    Ok(counted)
}

/// Sets the counters of locked accounts.
pub(super) async fn write_used(
    tx: &mut Tx,
    accounts: impl Iterator<Item = &Locked>,
    now: Timestamp,
) -> Result<(), PersistError> {
    let row = |account: &Locked| {
        let mut values = id_values(&account.id);
        values.extend(used_values(&account.standing.used));
        values.push(Value::time(now));
        values
    };
    let sql = "WITH moved (tenant, user_id, free, requests, tokens, cost, written_at) AS ({rows}) \
               UPDATE billing_accounts SET free_requests_used = m.free, requests_used_current_period = m.requests, \
               tokens_used_current_period = m.tokens, cost_used_current_period_nanousd = m.cost, \
               updated_at = m.written_at FROM moved m \
               WHERE billing_accounts.tenant = m.tenant AND billing_accounts.user_id = m.user_id";
    let kinds = [Text, Text, Int, Int, Int, Int, Time];
    tx.bulk(sql, &kinds, accounts.map(row).collect()).await.map(drop)
}

/// Takes locked accounts where they go. Their records are counted anew, as some of the period that begins may have come before
/// it; what had been counted until then goes into its history.
pub(super) async fn turn(
    tx: &mut Tx,
    turning: Vec<(Locked, Turn)>,
    now: Timestamp,
) -> Result<Vec<Locked>, PersistError> {
    let counted = count(tx, turning.iter().map(|(account, turn)| (&account.id, turn.start))).await?;
    let (mut entries, mut turned) = (Vec::new(), Vec::new());
    for (mut account, turn) in turning {
        let next = counted.get(&account.id).copied().unwrap_or_default();
        entries.push(entry(&account, &turn, &next, now));
        let standing = &mut account.standing;
        (standing.plan, standing.terms, standing.reset_at) = (turn.plan, turn.terms, turn.reset_at);
        (standing.used, standing.period_started_at) = (next, turn.start);
        standing.period_ends_at = standing.schedule().period_at(turn.start).end;
        turned.push(account);
    }
    write_history(tx, entries).await?;
    write_turned(tx, &turned, now).await?;
    Ok(turned)
}

fn entry(account: &Locked, turn: &Turn, next: &Used, now: Timestamp) -> Values {
    let standing = &account.standing;
    let mut used = standing.used;
    if turn.kind != EntryKind::Plan {
        // What the next period counts too is not part of this one.
        used.subtract(next);
    }
    let mut values = id_values(&account.id);
    values.extend([
        Value::time(standing.period_started_at),
        Value::time(turn.start),
        Value::time(now),
        Value::text(turn.kind.label()),
        Value::optional(turn.reason.as_deref()),
        Value::text(&standing.plan),
        Value::text(&turn.plan),
    ]);
    let [_, period @ ..] = used_values(&used);
    values.extend(period);
    values
}

fn used_values(used: &Used) -> [Value; 4] {
    [used.free_requests, used.requests, used.tokens, used.cost_nanousd].map(Value::Int)
}

async fn write_history(tx: &mut Tx, entries: Vec<Values>) -> Result<(), PersistError> {
    const KINDS: &[Kind] = &[Text, Text, Time, Time, Time, Text, Text, Text, Text, Int, Int, Int];
    let sql = "INSERT INTO account_resets (tenant, user_id, period_started_at, next_period_started_at, created_at, kind, \
               reason, plan, next_plan, requests_used, tokens_used, cost_used_nanousd) {rows}";
    tx.bulk(sql, KINDS, entries).await.map(drop)
}

async fn write_turned(tx: &mut Tx, turned: &[Locked], now: Timestamp) -> Result<(), PersistError> {
    const KINDS: &[Kind] = &[Text, Text, Text, Int, Int, Int, Int, Time, Time, Text, Text, Text, Time, Time];
    let row = |account: &Locked| {
        let standing = &account.standing;
        let mut values = id_values(&account.id);
        values.push(Value::text(&standing.plan));
        values.extend(used_values(&standing.used));
        values.extend([
            Value::time(standing.period_started_at),
            optional_time(standing.period_ends_at),
            Value::text(standing.terms.cycle.label()),
            Value::text(standing.terms.origin.label()),
            Value::text(standing.terms.zone.name()),
            optional_time(standing.reset_at),
            Value::time(now),
        ]);
        values
    };
    let sql = "WITH turned (tenant, user_id, plan, free, requests, tokens, cost, started_at, ends_at, kind, anchor, zone, \
               reset_at, written_at) AS ({rows}) \
               UPDATE billing_accounts SET plan = t.plan, free_requests_used = t.free, \
               requests_used_current_period = t.requests, tokens_used_current_period = t.tokens, \
               cost_used_current_period_nanousd = t.cost, period_started_at = t.started_at, period_ends_at = t.ends_at, \
               period_kind = t.kind, period_anchor = t.anchor, timezone = t.zone, last_manual_reset_at = t.reset_at, \
               updated_at = t.written_at FROM turned t \
               WHERE billing_accounts.tenant = t.tenant AND billing_accounts.user_id = t.user_id";
    tx.bulk(sql, KINDS, turned.iter().map(row).collect()).await.map(drop)
}
