//! What a recorded request counts for in each limit: a function of its rows and the rules, the same whenever it is asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::amount::Usage;
use super::rule::{Kind, Rule, Tier, Traits};
use super::shared::Key;
use super::subject::{self, Since, Subject, Subjects};
use tacho_core::domain::call::Usage as CallUsage;
use tacho_core::domain::counter::Counter;
use tacho_core::domain::money::NanoUsd;
use tacho_core::domain::record::Request;
use tacho_core::domain::time::Timestamp;

/// An amount of one limit and subject that a request used.
#[derive(Clone, Debug)]
pub struct Charge {
    pub rule: Arc<Rule>,
    pub tier: Tier,
    pub key: Key,
    /// Of a quota: when its period began; `None` for a rate.
    pub period: Option<Timestamp>,
    /// When the period ends, if it does.
    pub ends: Option<Timestamp>,
    pub amount: i64,
    pub subject: String,
    /// Whose calls these are, where the limit tells models apart.
    pub model: Option<Box<str>>,
}

/// All that one request is charged. Where a limit tells models apart, each counts its own calls.
pub fn charges(rules: &[Arc<Rule>], request: &Request, plan: &str, since: &Since) -> Vec<Charge> {
    let record = &request.record;
    let traits = Traits {
        tenant: &record.tenant,
        user: record.user.as_deref(),
        agent: record.agent.as_deref(),
        model: record.totals.model.as_deref(),
        endpoint: record.endpoint.as_deref(),
        plan,
    };
    let whole = Usage::new(1, &record.totals.tokens, record.totals.cost);
    let mut subjects = Subjects::default();
    let mut found = Vec::new();
    for rule in rules {
        if !rule.by_model() {
            if rule.matches.matches(&traits) {
                found.push(charge(rule, &traits, &whole, since, record.key.started_at, &mut subjects));
            }
            continue;
        }
        for (model, usage) in by_model(request) {
            let traits = Traits { model, ..traits };
            if rule.matches.matches(&traits) {
                found.push(charge(rule, &traits, &usage, since, record.key.started_at, &mut Subjects::default()));
            }
        }
    }
    found
}

fn charge(
    rule: &Arc<Rule>,
    traits: &Traits<'_>,
    usage: &Usage,
    since: &Since,
    at: Timestamp,
    subjects: &mut Subjects,
) -> Charge {
    let tier = rule.tier_for(traits);
    let subject = subjects.id(&rule.per, traits);
    let kind = rule.tier(tier);
    let (key, period) = subject::key(rule, kind, subject, since, at);
    let text = match kind {
        Kind::Quota(_) => Subject::new(&rule.per, traits).to_json(),
        Kind::Rate(_) => String::new(),
    };
    Charge {
        rule: Arc::clone(rule),
        tier,
        key,
        period: period.map(|period| period.start),
        ends: period.and_then(|period| period.end),
        amount: usage.of(rule.meter),
        subject: text,
        model: traits.model.filter(|_| rule.by_model()).map(Into::into),
    }
}

/// A request without calls counts for no model.
fn by_model(request: &Request) -> BTreeMap<Option<&str>, Usage> {
    let mut models: BTreeMap<Option<&str>, Usage> = BTreeMap::new();
    for call in &request.calls {
        let tokens = match &call.usage {
            CallUsage::Reported(tokens) => *tokens,
            CallUsage::Unknown(_) => Default::default(),
        };
        let usage = Usage::new(0, &tokens, Some(call.cost.charged().unwrap_or(NanoUsd(0))));
        models.entry(call.model()).or_default().add(&usage);
    }
    models.values_mut().for_each(|usage| usage.requests = 1);
    if models.is_empty() {
        models.insert(None, Usage { requests: 1, ..Usage::default() });
    }
    models
}

/// The sums of many charges, those that went (`-`) and those that came (`+`), of quotas only and without those that come to nothing.
pub fn counters<'c>(gone: impl Iterator<Item = &'c Charge>, come: impl Iterator<Item = &'c Charge>) -> Vec<Counter> {
    let signed = gone.map(|charge| (charge, -1)).chain(come.map(|charge| (charge, 1)));
    let mut counters: BTreeMap<Key, Counter> = BTreeMap::new();
    for (charge, sign) in signed {
        let Some(period) = charge.period else { continue };
        let counter = counters.entry(charge.key).or_insert_with(|| Counter {
            key: charge.key.0,
            limit: Arc::clone(&charge.rule.name),
            subject: charge.subject.clone(),
            period_started_at: period,
            period_ends_at: charge.ends,
            change: 0,
        });
        counter.change = counter.change.saturating_add(sign * charge.amount);
    }
    counters.retain(|_, counter| counter.change != 0);
    counters.into_values().collect()
}
