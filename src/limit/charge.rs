//! What a recorded request counts for in each limit: a function of its rows and the rules, the same whenever it is asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::amount::{Meter, Usage};
use super::rule::{Kind, Rule, Tier, Traits};
use super::shared::Key;
use super::subject::{self, Since, Subject, Subjects};
use tacho_core::domain::call::Usage as CallUsage;
use tacho_core::domain::counter::{Charged, Counter};
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
    /// Beyond that: what was held for the request, as long as the usage of some call is not known.
    pub estimate: i64,
    pub subject: String,
    /// Whose calls these are, where the limit tells models apart.
    pub model: Option<Box<str>>,
}

impl Charge {
    pub fn total(&self) -> i64 {
        self.amount.saturating_add(self.estimate)
    }

    /// As it is kept beside the record.
    pub fn kept(&self) -> Charged {
        Charged {
            key: self.key.0,
            calls: self.calls(),
            meter: self.rule.meter.label().into(),
            counted: self.period.is_some(),
            amount: self.amount,
            estimate: self.estimate,
        }
    }

    /// Whether this is what was kept, whatever it came to.
    pub fn is(&self, kept: &Charged) -> bool {
        self.key.0 == kept.key && self.calls() == kept.calls
    }

    fn calls(&self) -> Box<str> {
        if !self.rule.by_model() {
            return "".into();
        }
        // Under the name that is stored, which has no NUL characters.
        format!("={}", self.model.as_deref().unwrap_or_default().replace('\0', "")).into()
    }

    /// The counter that it moves, by nothing yet; a rate has none.
    pub fn counter(&self) -> Option<Counter> {
        Some(Counter {
            key: self.key.0,
            limit: Arc::clone(&self.rule.name),
            subject: self.subject.clone(),
            period_started_at: self.period?,
            period_ends_at: self.ends,
            change: 0,
        })
    }
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
        estimate: 0,
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

/// What a request comes to now by a charge that was kept, whether or not its limit is still known.
pub fn amount_of(request: &Request, kept: &Charged) -> i64 {
    let usage = match kept.calls.strip_prefix('=') {
        None => Usage::new(1, &request.record.totals.tokens, request.record.totals.cost),
        Some(model) => {
            let name = |found: &Option<&str>| found.unwrap_or_default().replace('\0', "") == model;
            let mut usages = by_model(request).into_iter();
            usages.find(|(found, _)| name(found)).map(|(_, usage)| usage).unwrap_or_default()
        }
    };
    Meter::ALL.into_iter().find(|meter| meter.label() == &*kept.meter).map_or(0, |meter| usage.of(meter))
}

/// The sums of many changes, by counter, without those that come to nothing.
pub fn counters(changes: impl Iterator<Item = (Counter, i64)>) -> Vec<Counter> {
    let mut counters: BTreeMap<u128, (Counter, i128)> = BTreeMap::new();
    for (counter, change) in changes {
        counters.entry(counter.key).or_insert((counter, 0)).1 += i128::from(change);
    }
    let saturated = |change: i128| i64::try_from(change).unwrap_or(if change < 0 { i64::MIN } else { i64::MAX });
    let changed = counters.into_values().filter(|(_, change)| *change != 0);
    changed.map(|(counter, change)| Counter { change: saturated(change), ..counter }).collect()
}
