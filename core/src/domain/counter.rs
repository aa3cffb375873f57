//! Counters that are folds of the records and decide quotas: what a write changes in them, and what they say after it.

use std::sync::Arc;

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
