//! One bot request and what it used: the sum of its calls.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::call::{Call, Key, Tokens, Usage};
use super::ids::SpanId;
use super::money::NanoUsd;

/// One bot request with its calls. Its totals are always the fold of the calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub record: Record,
    pub calls: Vec<Call>,
}

/// The row for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Of the request's span. Where that never came: the span that it would have, and when the first of its calls began that was known
    /// when the record was first written.
    pub key: Key,
    pub tenant: Arc<str>,
    pub service: Option<Box<str>>,
    pub instance: Option<Box<str>>,
    pub user: Option<Box<str>>,
    pub agent: Option<Box<str>>,
    /// What the request is part of, for whoever asked: a chat, a visit.
    pub session: Option<Box<str>>,
    /// Route template; `None` for calls whose request never came.
    pub endpoint: Option<Box<str>>,
    /// HTTP method, else the kind of the request's span; `None` for calls whose request never came.
    pub method: Option<Box<str>>,
    pub status: Option<u16>,
    pub duration: Duration,
    /// The error's type, or its message where the operator asked for messages.
    pub error: Option<Box<str>>,
    pub totals: Totals,
}

impl Record {
    /// The request's span; `None` for calls whose request never came.
    pub fn request_span(&self) -> Option<SpanId> {
        self.method.as_ref().map(|_| self.key.span_id)
    }
}

/// The fold of a request's calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub calls: u64,
    pub failed_calls: u64,
    pub unknown_usage_calls: u64,
    /// Calls without a price, and those that are not fully priced.
    pub unpriced_calls: u64,
    /// Without the parts that only prices need: the one-hour cache and audio.
    pub tokens: Tokens,
    /// The sum of the priced calls; `None` where there are calls and none has a price.
    pub cost: Option<NanoUsd>,
    /// The model that cost most; of equals the one that used most tokens.
    pub model: Option<Box<str>>,
}

impl Totals {
    /// The order of the calls changes nothing.
    pub fn of(calls: &[Call]) -> Self {
        let mut totals = Self::default();
        for call in calls {
            totals.add(call);
        }
        totals.cost = sum_of_costs(calls);
        totals.model = dearest_model(calls).map(Into::into);
        totals
    }

    fn add(&mut self, call: &Call) {
        self.calls += 1;
        self.failed_calls += u64::from(call.failed());
        self.unpriced_calls += u64::from(call.lacks_price());
        match call.usage {
            Usage::Reported(tokens) => {
                self.tokens.add(&Tokens {
                    cache_write_1h: 0,
                    audio_input: 0,
                    cached_audio: 0,
                    audio_output: 0,
                    ..tokens
                });
            }
            Usage::Unknown(_) => self.unknown_usage_calls += 1,
        }
    }
}

/// Saturates: the book refuses a charge long before.
fn sum_of_costs(calls: &[Call]) -> Option<NanoUsd> {
    if calls.is_empty() {
        return Some(NanoUsd(0));
    }
    let charged = calls.iter().filter_map(|call| call.cost.charged());
    charged.reduce(|sum, cost| sum.checked_add(cost).unwrap_or(NanoUsd(i64::MAX)))
}

fn dearest_model(calls: &[Call]) -> Option<&str> {
    let mut models: BTreeMap<&str, (i128, u64)> = BTreeMap::new();
    for (call, model) in calls.iter().filter_map(|call| call.model().map(|model| (call, model))) {
        let (cost, tokens) = models.entry(model).or_default();
        *cost += call.cost.charged().map_or(0, |cost| i128::from(cost.0));
        *tokens = tokens.saturating_add(call.usage.tokens().total());
    }
    // The name last, so that equals do not depend on the order of the calls.
    models.into_iter().max_by_key(|(name, used)| (*used, Reverse(*name))).map(|(name, _)| name)
}
