//! Counters that are folds of the records and decide quotas: what each record is charged, what a write changes in them, and
//! what they say after it.

use std::sync::Arc;

use super::call::Key;
use super::time::Timestamp;

/// What a write changes in the usage of one quota, subject and period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    pub key: u128,
    /// Name of the limit.
    pub limit: Arc<str>,
    /// `{"user":"ann"}`.
    pub subject: String,
    pub period_started_at: Timestamp,
    /// `None` for a lifetime.
    pub period_ends_at: Option<Timestamp>,
    pub change: i64,
}

/// What a counter says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    pub key: u128,
    pub used: i64,
    /// Goes up with every change.
    pub version: u64,
}

/// What a record is charged by one limit, as it is kept beside the record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Charged {
    /// Of the counter or, for a rate, of the bucket.
    pub key: u128,
    /// Which of the record's calls count: empty for all, else `=` and the name of their model.
    pub calls: Box<str>,
    /// Label of what is counted: `requests`, `tokens`, …
    pub meter: Box<str>,
    /// Whether a counter has it: a rate has none.
    pub counted: bool,
    /// What the record says.
    pub amount: i64,
    /// Beyond that, as long as the usage of some call is not known: what was held for the request.
    pub estimate: i64,
}

impl Charged {
    pub fn total(&self) -> i64 {
        self.amount.saturating_add(self.estimate)
    }
}

/// What a record was charged until now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earlier {
    pub charged: Charged,
    /// The counter that has it, with no change; `None` for a rate, or where the counter is gone.
    pub counter: Option<Counter>,
}

/// What a write changes in what a record is charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recharge {
    pub record: Key,
    pub before: Vec<Charged>,
    pub after: Vec<Charged>,
}
