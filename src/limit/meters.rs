//! What limits count, in families that `app` hands in.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus::{GaugeVec, Histogram, IntCounter, IntCounterVec, IntGauge};

use super::node::Node;
use super::rule::Rule;

#[derive(Clone)]
pub struct LimitMeters {
    /// By limit, decision and reason.
    pub decisions: IntCounterVec,
    pub check_duration: Histogram,
    /// By limit.
    pub limit: GaugeVec,
    /// By limit and quantile.
    pub used_ratio: GaugeVec,
    /// By limit and threshold.
    pub subjects_over: GaugeVec,
    /// By limit.
    pub overshoot_bound: GaugeVec,
    pub store_up: IntGauge,
    pub holds_expired: IntCounter,
    /// Settlements that the store was not told of, as the memory for limits was full.
    pub untold: IntCounter,
}

/// The thresholds of `subjects_over`, in thousandths, beside those of `warn_at`.
const FULL: u16 = 1_000;

impl LimitMeters {
    pub fn decided(&self, limit: &str, decision: &str, reason: &str) {
        self.decisions.with_label_values(&[limit, decision, reason]).inc();
    }

    /// Looks at every cell once.
    pub fn publish(&self, node: &Node, rules: &[Arc<Rule>], now: u64) {
        let mut used: BTreeMap<u64, (u64, BTreeMap<u16, u64>)> = BTreeMap::new();
        node.each(|cell| {
            let (rule, share) = cell.used_share(now);
            let (highest, over) = used.entry(rule.id).or_default();
            *highest = share.max(*highest);
            for threshold in rule.warn_at.iter().copied().chain([FULL]) {
                *over.entry(threshold).or_default() += u64::from(share >= u64::from(threshold));
            }
        });
        for family in [&self.limit, &self.used_ratio, &self.subjects_over, &self.overshoot_bound] {
            // A limit that is gone takes its series along.
            family.reset();
        }
        for rule in rules {
            let (highest, over) = used.remove(&rule.id).unwrap_or_default();
            self.limit.with_label_values(&[&*rule.name]).set(units(rule, rule.kind.limit().0));
            self.overshoot_bound.with_label_values(&[&*rule.name]).set(units(rule, rule.overshoot(node.nodes())));
            self.used_ratio.with_label_values(&[&*rule.name, "max"]).set(ratio(highest));
            for threshold in rule.warn_at.iter().copied().chain([FULL]) {
                let subjects = over.get(&threshold).copied().unwrap_or(0);
                let label = ratio(u64::from(threshold)).to_string();
                self.subjects_over.with_label_values(&[&*rule.name, &label]).set(count(subjects));
            }
        }
    }
}

/// Of a limit of money in dollars.
#[expect(
    clippy::float_arithmetic,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "shown, not decided by"
)]
fn units(rule: &Rule, amount: i64) -> f64 {
    match rule.meter {
        super::amount::Meter::Cost => amount as f64 / 1e9,
        _ => amount as f64,
    }
}

#[expect(
    clippy::float_arithmetic,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "shown, not decided by"
)]
fn ratio(per_mille: u64) -> f64 {
    per_mille as f64 / 1e3
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "shown, not decided by")]
fn count(subjects: u64) -> f64 {
    subjects as f64
}
