//! What limits count and how they stand, in what `app` hands in.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};
use rustc_hash::FxHashMap;

use super::amount::Meter;
use super::node::Node;
use super::rule::{Kind, QuotaAnchor, Rule};
use tacho_core::domain::period::Period;
use tacho_core::domain::time::Timestamp;

#[derive(Clone)]
pub struct LimitMeters {
    /// By limit, decision and reason.
    pub decisions: IntCounterVec,
    pub check_duration: Histogram,
    pub store_up: IntGauge,
    pub holds_expired: IntCounter,
    /// Settlements that the store was not told of, as the memory for limits was full.
    pub unreported: IntCounter,
    /// Takes how all limits stand.
    pub stand: Arc<dyn Fn(Vec<LimitReading>) + Send + Sync>,
}

/// How a limit stands, in units of its meter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitReading {
    pub limit: Arc<str>,
    pub meter: Meter,
    pub amount: i64,
    pub overshoot_bound: i64,
    /// Of the subject that has used most, in millionths of its limit.
    pub used: u64,
    /// Thresholds in thousandths, and how many subjects are there or over.
    pub over: BTreeMap<u16, u64>,
    /// Of a quota: the period that this subject is in.
    pub period: Option<Period>,
}

/// The threshold that every limit has, in thousandths, beside those of `warn_at`.
const FULL: u16 = 1_000;

impl LimitMeters {
    /// From the start, so that the first refusal is seen to come.
    pub fn begin(&self, rules: &[Arc<Rule>]) {
        for (rule, (decision, reason)) in
            rules.iter().flat_map(|rule| [(rule, ("allow", "within_limit")), (rule, ("refuse", "over_limit"))])
        {
            self.decisions.with_label_values(&[&*rule.name, decision, reason]);
        }
    }

    pub fn decided(&self, limit: &str, decision: &str, reason: &str) {
        self.decisions.with_label_values(&[limit, decision, reason]).inc();
    }

    /// Looks at every cell once.
    pub fn publish(&self, node: &Node, rules: &[Arc<Rule>], now: u64) {
        let known: FxHashMap<u64, &Arc<Rule>> = rules.iter().map(|rule| (rule.id, rule)).collect();
        let mut all: FxHashMap<u64, Standing> = FxHashMap::default();
        node.each(|cell| {
            if let Some((rule, used)) = cell.used_share(&known, now) {
                all.entry(rule.id).or_default().see(rule, used);
            }
        });
        let reading = |rule: &Arc<Rule>| all.remove(&rule.id).unwrap_or_default().reading(rule, node, now);
        (self.stand)(rules.iter().map(reading).collect());
    }
}

/// How much of its limit a subject has used and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Used {
    pub millionths: u64,
    /// When its period ends, if it does.
    pub ends: Option<u64>,
}

/// Of all subjects of a limit.
#[derive(Default)]
struct Standing {
    highest: Used,
    over: BTreeMap<u16, u64>,
}

impl Standing {
    fn see(&mut self, rule: &Rule, used: Used) {
        self.highest = self.highest.max(used);
        for threshold in thresholds(rule) {
            let is_over = used.millionths >= u64::from(threshold) * 1_000;
            *self.over.entry(threshold).or_default() += u64::from(is_over);
        }
    }

    fn reading(self, rule: &Rule, node: &Node, now: u64) -> LimitReading {
        let over = |threshold| (threshold, self.over.get(&threshold).copied().unwrap_or(0));
        LimitReading {
            limit: Arc::clone(&rule.name),
            meter: rule.meter,
            amount: rule.kind.limit().0,
            overshoot_bound: rule.overshoot(node.nodes()),
            used: self.highest.millionths,
            over: thresholds(rule).map(over).collect(),
            period: period(rule, self.highest.ends, now),
        }
    }
}

/// Those of `warn_at`, and the whole limit.
pub(super) fn thresholds(rule: &Rule) -> impl Iterator<Item = u16> {
    rule.warn_at.iter().copied().filter(|threshold| *threshold != FULL).chain([FULL])
}

/// The period that ends then. Where nobody is in one, the one that is now, unless each account has its own.
fn period(rule: &Rule, ends: Option<u64>, now: u64) -> Option<Period> {
    let Kind::Quota(quota) = &rule.kind else { return None };
    match ends {
        None if quota.anchor == QuotaAnchor::Account => None,
        None => Some(quota.schedule(Timestamp(now)).period_at(Timestamp(now))),
        // Periods tile time in both directions: that of an account ends where its next begins.
        Some(ends) => Some(quota.schedule(Timestamp(ends)).period_at(Timestamp(ends.saturating_sub(1)))),
    }
}
