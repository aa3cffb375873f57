//! Billing accounts: counters per tenant and user that are always the fold of their records.

use std::sync::Arc;

use super::period::Schedule;
use super::plan::Terms;
use super::record::Record;
use super::time::Timestamp;

/// Who pays. Requests without a user have no account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId {
    pub tenant: Arc<str>,
    pub user: Box<str>,
}

/// An account as it stands.
impl AccountId {
    /// Who pays for a record, under the names that are stored, which have no NUL characters.
    pub fn of(record: &Record) -> Option<Self> {
        let user = record.user.as_deref()?;
        let tenant = Arc::clone(&record.tenant);
        let tenant = if tenant.contains('\0') { tenant.replace('\0', "").into() } else { tenant };
        Some(Self { tenant, user: user.replace('\0', "").into() })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub plan: Arc<str>,
    /// Those that the plan had when the account got it, or when Tacho was last started.
    pub terms: Terms,
    pub used: Used,
    /// What began before belongs to an earlier period.
    pub period_started_at: Timestamp,
    /// `None` where the period never ends.
    pub period_ends_at: Option<Timestamp>,
    /// Where anniversaries are counted from.
    pub first_request_at: Timestamp,
    /// When it was last reset by hand.
    pub reset_at: Option<Timestamp>,
    pub created_at: Timestamp,
}

/// What was used in one period, or the difference that a write makes to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Of the whole life of the account, not of the period.
    pub free_requests: i64,
    /// Without the free ones.
    pub requests: i64,
    pub tokens: i64,
    pub cost_nanousd: i64,
}

/// The plan of a record, and whether it used up one of the plan's free requests: decided when it is first counted for an account,
/// and not changed by what comes late.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub plan: Arc<str>,
    pub free: bool,
}

impl Standing {
    pub fn schedule(&self) -> Schedule {
        self.terms.schedule(self.first_request_at)
    }

    /// The start of the period that the account enters when a record of time `latest` is seen, if it enters another. It never goes
    /// back, and never past the period of `now`: a clock that runs ahead must not close a period early.
    pub fn next_period(&self, latest: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let at = latest.min(now);
        self.period_ends_at.filter(|end| at >= *end)?;
        let start = self.schedule().period_at(at).start;
        (start > self.period_started_at).then_some(start)
    }
}

impl Used {
    /// What a record adds to its account when it belongs to the current period, or does not.
    pub fn by(record: &Record, free: bool, current: bool) -> Self {
        let free_requests = i64::from(free);
        if !current {
            return Self { free_requests, ..Self::default() };
        }
        Self {
            free_requests,
            requests: i64::from(!free),
            tokens: i64::try_from(record.totals.tokens.total()).unwrap_or(i64::MAX),
            cost_nanousd: record.totals.cost.map_or(0, |cost| cost.0),
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, i64::saturating_sub);
    }

    fn combine(&mut self, other: &Self, with: fn(i64, i64) -> i64) {
        self.free_requests = with(self.free_requests, other.free_requests);
        self.requests = with(self.requests, other.requests);
        self.tokens = with(self.tokens, other.tokens);
        self.cost_nanousd = with(self.cost_nanousd, other.cost_nanousd);
    }
}

/// How far the counters of all accounts are from the fold of their records: sums of differences without their signs, so that no
/// two cancel out. All zero while every account is right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drift {
    pub free_requests: i64,
    pub requests: i64,
    pub tokens: i64,
    pub cost_nanousd: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn account(since: &str) -> Standing {
        let period = Terms::default().schedule(Timestamp(0)).period_at(time(since));
        Standing {
            plan: "default".into(),
            terms: Terms::default(),
            used: Used::default(),
            period_started_at: time(since),
            period_ends_at: period.end,
            first_request_at: time(since),
            reset_at: None,
            created_at: time(since),
        }
    }

    #[test]
    fn a_period_moves_on_with_the_records_but_never_back_and_never_ahead_of_the_clock() {
        let next = |since, latest, now| account(since).next_period(time(latest), time(now));
        assert_eq!(next("2026-05-01", "2026-06-01", "2026-06-02"), Some(time("2026-06-01")));
        assert_eq!(next("2026-05-01", "2026-08-17", "2026-08-18"), Some(time("2026-08-01")));
        assert_eq!(next("2026-06-01", "2026-05-31", "2026-06-02"), None);
        assert_eq!(next("2026-05-01", "2027-01-01", "2026-05-31"), None);
    }

    #[test]
    fn after_a_reset_by_hand_the_period_ends_when_it_would_have() {
        let next = |latest| account("2026-05-17").next_period(time(latest), time("2026-09-01"));
        assert_eq!((next("2026-05-30"), next("2026-06-01")), (None, Some(time("2026-06-01"))));
    }
}
