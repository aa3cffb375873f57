//! What happens to accounts without a request: periods end, somebody resets an account or puts it on another plan. Each
//! is an entry in the history, and afterwards the account is the fold of its records again.

use std::sync::Arc;

use super::accounts::{self, EntryKind, Locked, Turn, account_id};
use super::audit::{self, Act, Done};
use super::store::{Store, Tx};
use super::value::Value;
use super::{AccountRow, PersistError};
use tacho_core::domain::account::{AccountId, Standing};
use tacho_core::domain::plan::Plan;
use tacho_core::domain::time::Timestamp;

/// Accounts that are locked and written together.
const CHUNK: i64 = 1_000;

impl Store {
    /// Ends the periods that are over by now, of all accounts; answers how many it ended. One that was missed for
    /// several periods is taken to the present one by one entry.
    pub async fn end_periods(&self, now: Timestamp) -> Result<usize, PersistError> {
        let due =
            "SELECT tenant, user_id FROM billing_accounts WHERE period_ends_at <= $1 ORDER BY tenant, user_id LIMIT $2";
        self.turn_all(due, &[Value::time(now), Value::Int(CHUNK)], |standing| over(standing, now), now).await
    }

    /// Gives each account the periods that its plan has in the configuration now, where it has other ones.
    pub async fn adopt_plans(&self, now: Timestamp) -> Result<usize, PersistError> {
        let differing = "SELECT tenant, user_id FROM billing_accounts WHERE plan = $1 AND NOT (period_kind = $2 AND \
                         period_anchor = $3 AND timezone = $4) ORDER BY tenant, user_id LIMIT $5";
        let mut adopted = 0;
        for plan in self.plans().iter() {
            let (cycle, origin) = (plan.terms.cycle.label(), plan.terms.origin.label());
            let (name, zone) = (Value::text(&plan.name), Value::text(plan.terms.zone.name()));
            let values = [name, Value::text(cycle), Value::text(origin), zone, Value::Int(CHUNK)];
            let adopts = |standing: &Standing| Turn::onto_plan(standing, plan, None, now);
            adopted += self.turn_all(differing, &values, adopts, now).await?;
        }
        Ok(adopted)
    }

    /// Sets the counters of the period back to nothing by beginning a new one now; free requests stay used. The account
    /// as it is afterwards, `None` where there is no such account.
    pub async fn reset(&self, id: &AccountId, act: &Act<'_>) -> Result<Option<AccountRow>, PersistError> {
        let reset = |standing: &Standing| Some(Turn::by_hand(standing, act.reason, act.at));
        self.turn_one(id, "account.reset", act, reset).await
    }

    /// Puts an account on a plan. Its counters stay as long as its periods do; else it enters the period of the new
    /// plan, though never behind a reset by hand. The account as it is afterwards, `None` where there is no such
    /// account.
    pub async fn set_plan(
        &self,
        id: &AccountId,
        plan: &Plan,
        act: &Act<'_>,
    ) -> Result<Option<AccountRow>, PersistError> {
        let onto = |standing: &Standing| Turn::onto_plan(standing, plan, act.reason, act.at);
        self.turn_one(id, "account.set_plan", act, onto).await
    }

    async fn turn_one(
        &self,
        id: &AccountId,
        action: &'static str,
        act: &Act<'_>,
        whither: impl Fn(&Standing) -> Option<Turn>,
    ) -> Result<Option<AccountRow>, PersistError> {
        let (mut tx, ids, now) = (self.writing().await?, std::slice::from_ref(id), act.at);
        // A period that is over is not what is reset, nor what another plan takes over.
        turn_some(&mut tx, ids, |standing| over(standing, now), now).await?;
        let before = accounts::lock(&mut tx, ids.iter()).await?;
        turn_some(&mut tx, ids, whither, now).await?;
        let after = accounts::lock(&mut tx, ids.iter()).await?;
        if let ([before], [after]) = (&before[..], &after[..]) {
            let done = Done::to(action, id, audit::account(before), audit::account(after));
            audit::note(&mut tx, act, &[done]).await?;
        }
        tx.commit().await?;
        self.account(id).await
    }

    /// Turns all accounts that the statement finds, some at a time.
    async fn turn_all(
        &self,
        found_by: &str,
        values: &[Value],
        whither: impl Fn(&Standing) -> Option<Turn>,
        now: Timestamp,
    ) -> Result<usize, PersistError> {
        let mut turned = 0;
        loop {
            let found = self.fetch(found_by, values).await?;
            let ids = found.iter().map(account_id).collect::<Result<Vec<_>, _>>()?;
            if ids.is_empty() {
                return Ok(turned);
            }
            let mut tx = self.writing().await?;
            let some = turn_some(&mut tx, &ids, &whither, now).await?;
            tx.commit().await?;
            turned += some;
            // Found but not turned: another instance was faster, or will not let go of them.
            if some == 0 {
                return Ok(turned);
            }
        }
    }
}

fn over(standing: &Standing, now: Timestamp) -> Option<Turn> {
    standing.next_period(now, now).map(|start| Turn::into_period(standing, start))
}

/// Locks these accounts and takes those that have somewhere to go there; answers how many.
async fn turn_some(
    tx: &mut Tx,
    ids: &[AccountId],
    whither: impl Fn(&Standing) -> Option<Turn>,
    now: Timestamp,
) -> Result<usize, PersistError> {
    let locked = accounts::lock(tx, ids.iter()).await?;
    let turning = locked.into_iter().filter_map(|account| Some((whither(&account.standing)?, account)));
    let turning: Vec<(Locked, Turn)> = turning.map(|(turn, account)| (account, turn)).collect();
    Ok(accounts::turn(tx, turning, now).await?.len())
}

impl Turn {
    pub(super) fn into_period(standing: &Standing, start: Timestamp) -> Self {
        Self {
            kind: EntryKind::Period,
            reason: None,
            plan: Arc::clone(&standing.plan),
            terms: standing.terms.clone(),
            start,
            reset_at: standing.reset_at,
        }
    }

    fn by_hand(standing: &Standing, reason: Option<&str>, now: Timestamp) -> Self {
        // By a clock that is behind: still not before what was counted already.
        let start = now.truncated().max(standing.period_started_at);
        let reason = reason.map(Into::into);
        Self { kind: EntryKind::Manual, reason, start, reset_at: Some(start), ..Self::into_period(standing, start) }
    }

    /// `None` where the account is on it already.
    fn onto_plan(standing: &Standing, plan: &Plan, reason: Option<&str>, now: Timestamp) -> Option<Self> {
        if standing.plan == plan.name && standing.terms == plan.terms {
            return None;
        }
        let schedule = plan.terms.schedule(standing.first_request_at);
        let start = if schedule == standing.schedule() {
            standing.period_started_at
        } else {
            schedule.period_at(now).start.max(standing.reset_at.unwrap_or_default())
        };
        Some(Self {
            kind: EntryKind::Plan,
            reason: reason.map(Into::into),
            plan: Arc::clone(&plan.name),
            terms: plan.terms.clone(),
            start,
            reset_at: standing.reset_at,
        })
    }
}
