//! Billing accounts: counters per tenant and user that are always the fold of the records of the current period.

use std::sync::Arc;

use super::record::Record;
use super::time::Timestamp;

/// Who pays. Requests without a user have no account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId {
    pub tenant: Arc<str>,
    pub user: Box<str>,
}

/// The account as it stands. Its period is a calendar month in UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub id: AccountId,
    pub plan: Box<str>,
    pub period_started_at: Timestamp,
    pub used: Used,
}

/// What was used in one period, or the difference that a write makes to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    pub requests: i64,
    pub tokens: i64,
    pub cost_nanousd: i64,
}

impl Used {
    /// What one record adds to its account.
    pub fn by(record: &Record) -> Self {
        let tokens = record.totals.tokens.total();
        Self {
            requests: 1,
            tokens: i64::try_from(tokens).unwrap_or(i64::MAX),
            cost_nanousd: record.totals.cost.map_or(0, |cost| cost.0),
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.tokens = self.tokens.saturating_add(other.tokens);
        self.cost_nanousd = self.cost_nanousd.saturating_add(other.cost_nanousd);
    }

    pub fn subtract(&mut self, other: &Self) {
        self.requests = self.requests.saturating_sub(other.requests);
        self.tokens = self.tokens.saturating_sub(other.tokens);
        self.cost_nanousd = self.cost_nanousd.saturating_sub(other.cost_nanousd);
    }

    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

/// How far the counters of all accounts are from the fold of their records: sums of differences without their signs, so that no
/// two cancel out. All zero while every account is right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drift {
    pub requests: i64,
    pub tokens: i64,
    pub cost_nanousd: i64,
}

/// The month an account stands in after a record of time `latest` was seen. It never goes back, and never past the month of
/// `now`: a clock that runs ahead must not close a period early.
pub fn period_after(current: Option<Timestamp>, latest: Timestamp, now: Timestamp) -> Timestamp {
    let month = latest.min(now).month_start();
    current.map_or(month, |current| current.max(month))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_moves_on_with_the_records_but_never_back_and_never_ahead_of_the_clock() {
        let time = |text| Timestamp::parse(text).unwrap();
        let (may, june) = (time("2026-05-01"), time("2026-06-01"));
        assert_eq!(period_after(None, time("2026-05-17"), time("2026-06-02")), may);
        assert_eq!(period_after(Some(may), time("2026-06-01"), time("2026-06-02")), june);
        assert_eq!(period_after(Some(june), time("2026-05-31"), time("2026-06-02")), june);
        assert_eq!(period_after(Some(may), time("2027-01-01"), time("2026-05-31")), may);
    }
}
