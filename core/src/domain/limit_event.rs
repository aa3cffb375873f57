//! What happened to a limit and is told once for each subject and period: a refusal, or a threshold that was reached.

use std::sync::Arc;

use super::period::Period;
use super::time::Timestamp;

/// An event of one limit and subject. Amounts are in units of the meter, of money in nano-dollars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitEvent {
    pub kind: LimitEventKind,
    /// Name of the limit.
    pub limit: Arc<str>,
    /// What the limit does with a request over it: `deny`, `shadow` or `warn`.
    pub decision: &'static str,
    /// Of the request that brought the event; `None` where nobody named one and the limit does not count for each.
    pub tenant: Option<Box<str>>,
    /// `None` where the limit does not count for each user.
    pub user: Option<Box<str>>,
    /// `{"user":"ann"}`.
    pub subject: String,
    pub meter: &'static str,
    pub used: i64,
    pub max: i64,
    /// Of a rate, which has no period, a window that stands for one.
    pub period: Period,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitEventKind {
    /// A limit refused a request, or would have.
    Refusal { reason: &'static str },
    /// So much of the limit is used, in thousandths of it and more than none.
    Threshold { per_mille: u16 },
}

impl LimitEventKind {
    pub fn label(self) -> &'static str {
        match self {
            Self::Refusal { .. } => "refusal",
            Self::Threshold { .. } => "threshold",
        }
    }

    /// In thousandths; 0 for a refusal.
    pub fn per_mille(self) -> u16 {
        match self {
            Self::Refusal { .. } => 0,
            Self::Threshold { per_mille } => per_mille,
        }
    }
}

impl LimitEvent {
    /// Two events with the same identity are one, whoever saw them and why. Times are cut as they are stored.
    pub fn identity(&self) -> (&str, &str, Timestamp, u16) {
        (&self.limit, &self.subject, self.period.start.truncated(), self.kind.per_mille())
    }
}
