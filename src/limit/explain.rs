//! Each limit in words, with the most that can be used beyond it.

use serde::Serialize;

use super::amount::Figure;
use super::rule::{Action, Kind, Mode, OnStoreError, QuotaAnchor, Rate, Rule, Window};
use tacho_core::domain::period::Cycle;
use tacho_core::domain::time::in_words;

/// What `tacho limits explain` prints of one limit.
#[derive(Debug, Serialize)]
pub struct Explained {
    pub name: String,
    /// For whom it is and what it allows.
    pub allows: String,
    /// What happens to a request over it.
    pub on_excess: String,
    /// How instances agree, and what they do without their store.
    pub consistency: String,
    /// In `unit`, on top of what is allowed, all instances together, while the store is there.
    pub overshoot_bound: Figure,
    pub unit: &'static str,
    pub bound_terms: Vec<String>,
}

/// `nodes`: how many instances there are.
pub fn explain(rule: &Rule, nodes: u32) -> Explained {
    let others = i64::from(nodes.max(1)) - 1;
    let each = rule.slack(&rule.kind) / others.max(1);
    let overshoot = rule.overshoot(nodes);
    Explained {
        name: rule.name.to_string(),
        allows: allows(rule),
        on_excess: on_excess(rule).to_owned(),
        consistency: consistency(rule, each),
        overshoot_bound: rule.meter.figure(overshoot),
        unit: rule.meter.unit(),
        bound_terms: bound_terms(rule, nodes, overshoot),
    }
}

fn allows(rule: &Rule) -> String {
    let whom = match rule.per.iter().map(|dimension| dimension.label()).collect::<Vec<_>>().as_slice() {
        [] => "everyone together".to_owned(),
        per => format!("each {}", per.join(" and ")),
    };
    let only = match rule.matches.to_string() {
        only if only.is_empty() => only,
        only => format!(", of requests with {only},"),
    };
    let mut text = format!("{whom}{only} may use {}", amounts(rule, &rule.kind));
    for (matches, kind) in &rule.overrides {
        text.push_str(&format!("; with {matches}, {}", amounts(rule, kind)));
    }
    text
}

fn amounts(rule: &Rule, kind: &Kind) -> String {
    let show = |amount| rule.meter.show(amount);
    match kind {
        Kind::Rate(rate) => format!(
            "{} in {}, {} of them at once{}",
            show(rate.limit.0),
            in_words(rate.period),
            show(rate.burst.0),
            if rate.window == Window::Strict { ", never more in any such time" } else { "" }
        ),
        Kind::Quota(quota) => match (quota.cycle, quota.anchor) {
            (Cycle::Lifetime, _) => format!("{} in all", show(quota.limit.0)),
            (cycle, QuotaAnchor::Calendar) => format!("{} each {cycle} ({})", show(quota.limit.0), quota.zone),
            (cycle, QuotaAnchor::Account) => {
                format!("{} each {cycle} from the day of the account on ({})", show(quota.limit.0), quota.zone)
            }
            (cycle, QuotaAnchor::At(time)) => {
                format!("{} each {cycle} counted from {time} ({})", show(quota.limit.0), quota.zone)
            }
        },
    }
}

fn on_excess(rule: &Rule) -> &'static str {
    match rule.action {
        Action::Deny => "refused with 429",
        Action::Shadow => "let through and counted as if refused",
        Action::Warn => "let through, charged, and marked as over in the answer",
    }
}

fn consistency(rule: &Rule, each: i64) -> String {
    let away = match rule.on_store_error {
        OnStoreError::Local => "without the store each instance goes on with its share",
        OnStoreError::Open => "without the store all is let through",
        OnStoreError::Closed => "without the store all is refused",
    };
    match rule.mode {
        Mode::Synced => format!(
            "synced: an instance may be {} ahead of what the others know, then it asks the store; {away}",
            rule.meter.show(each)
        ),
        Mode::Lease => format!("lease: instances take amounts in advance and give back what they do not use; {away}"),
        Mode::Exact => format!("exact: every request asks the store; {away}"),
        Mode::Local => "local: every instance counts for itself".to_owned(),
    }
}

/// The terms of the bound, each in a line. Those that are zero are left out, as is what the operator chose to leave open.
fn bound_terms(rule: &Rule, nodes: u32, overshoot: i64) -> Vec<String> {
    let show = |amount| rule.meter.show(amount);
    let mut lines = vec![match &rule.kind {
        Kind::Rate(rate) => rate_line(rule, rate),
        Kind::Quota(quota) => format!("{} used and held in one period", show(quota.limit.0)),
    }];
    if rule.mode == Mode::Local && nodes > 1 {
        lines.push(format!("all of that {nodes} times, as instances do not tell each other"));
    }
    if overshoot > 0 {
        lines.push(format!("+ {} that {nodes} instances have not told each other yet", show(overshoot)));
    }
    if rule.meter != super::amount::Meter::Requests {
        lines.push("+ what requests under way use beyond what was held for them".to_owned());
    }
    if let Kind::Rate(rate) = &rule.kind {
        let lost = rule.slack(&rule.kind) / i64::from(nodes.saturating_sub(1).max(1));
        if rule.mode == Mode::Synced && lost > 0 {
            lines.push(format!("+ {} for each crash of an instance that had not told the store", show(lost)));
        }
        lines.push(format!("+ {} for each second by which clocks are apart", show(per_second(rate))));
    } else {
        lines.push("+ what an instance that crashed held, until its requests are recorded".to_owned());
    }
    lines.push(match rule.on_store_error {
        OnStoreError::Local => "+ as much again at most while the store is away".to_owned(),
        OnStoreError::Open => "+ anything while the store is away".to_owned(),
        OnStoreError::Closed => "+ nothing while the store is away".to_owned(),
    });
    lines
}

fn rate_line(rule: &Rule, rate: &Rate) -> String {
    let show = |amount| rule.meter.show(amount);
    match rate.window {
        Window::Smooth => format!(
            "{} at once and {} in each {} after it",
            show(rate.burst.0),
            show(rate.limit.0),
            in_words(rate.period)
        ),
        Window::Strict => format!("{} in any {}", show(rate.limit.0), in_words(rate.period)),
    }
}

fn per_second(rate: &Rate) -> i64 {
    rate.amount_of(1_000_000_000).max(1)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::limit::Rules;

    #[track_caller]
    fn check(limit: &str, expected: &Expect) {
        #[derive(serde::Deserialize)]
        struct File {
            limit: Rules,
        }
        let file: File = toml::from_str(&format!("[[limit]]\n{limit}")).unwrap();
        let explained = explain(&file.limit.0[0], 4);
        let bound = explained.bound_terms.join("\n");
        expected
            .assert_eq(&format!("{}\n{}\n{}\n{bound}\n", explained.allows, explained.on_excess, explained.consistency));
    }

    #[test]
    fn limits_are_told_in_words() {
        check(
            "name = \"x\"\nper = [\"user\"]\nmeter = \"requests\"\nrate = { limit = 600, period = \"1m\", burst = 300 }",
            &expect![[r#"
                each user may use 600 requests in 1m, 300 requests of them at once
                refused with 429
                synced: an instance may be 5 requests ahead of what the others know, then it asks the store; without the store each instance goes on with its share
                300 requests at once and 600 requests in each 1m after it
                + 15 requests that 4 instances have not told each other yet
                + 5 requests for each crash of an instance that had not told the store
                + 10 requests for each second by which clocks are apart
                + as much again at most while the store is away
            "#]],
        );
        check(
            "name = \"x\"\nmatch = { plan = \"pro\" }\nmeter = \"cost\"\naction = \"warn\"\non_store_error = \"open\"\n\
             quota = { limit = 12.5, period = \"month\", timezone = \"Europe/Berlin\" }",
            &expect![[r#"
                everyone together, of requests with plan pro, may use 12.50 USD each month (Europe/Berlin)
                let through, charged, and marked as over in the answer
                lease: instances take amounts in advance and give back what they do not use; without the store all is let through
                12.50 USD used and held in one period
                + what requests under way use beyond what was held for them
                + what an instance that crashed held, until its requests are recorded
                + anything while the store is away
            "#]],
        );
    }
}
