//! Quotas that are seen to be used up, told to whoever wants to know. Nobody waits for it, and it costs nothing where none is.

use super::*;
use tacho_core::domain::record::Request;

/// A quota that seems used up. What it says may be old already: who hears it asks `Limits::show` how it stands.
pub struct Sight<'a> {
    /// A request for which it counts.
    pub asked: &'a Asked,
    pub limit: &'a Arc<str>,
    pub subject: Subject,
    /// What a request was refused for; `None` where a record was counted.
    pub refused: Option<i64>,
}

impl Limits {
    /// Of a check that was refused, or went on with a warning.
    pub(super) fn saw_over(
        &self,
        asked: &Asked,
        attempt: &Attempt<'_>,
        refused: Option<&Refused>,
        states: &[LimitState],
    ) {
        let Some(see) = &self.outside.used_up else { return };
        for (place, (limit, state)) in attempt.limits.iter().zip(states).enumerate() {
            let is_over = match refused {
                Some(refused) => refused.place == place && refused.reason == Reason::OverLimit,
                None => limit.standing == Standing::Passed && !attempt.degraded,
            };
            // What is more than the limit ever has says nothing of what is left of it.
            if is_over && is_budget(limit.rule, limit.rule.tier(limit.tier)) && limit.amount <= state.stand.limit {
                let (limit, refused) = (&limit.rule.name, Some(limit.amount));
                see(Sight { asked, limit, subject: state.subject.clone(), refused });
            }
        }
    }

    /// Of a record that was counted; so much is used with it.
    pub(super) fn saw_counted(&self, charge: &Charge, used: i64, request: &Request) {
        let (rule, kind) = (&charge.rule, charge.rule.tier(charge.tier));
        let Some(see) = self.outside.used_up.as_ref().filter(|_| used >= kind.limit().0 && is_budget(rule, kind))
        else {
            return;
        };
        let asked = Asked::again(request, charge.model.clone());
        let tenant = asked.tenant();
        // No limit counts for each plan.
        let subject = Subject::new(&rule.per, &asked.traits(&tenant, ""));
        see(Sight { asked: &asked, limit: &rule.name, subject, refused: None });
    }
}

/// A limit on trial (`shadow`) stops nobody, so nobody needs to be told at night; its metrics say what it would have done.
fn is_budget(rule: &Rule, kind: &Kind) -> bool {
    matches!(kind, Kind::Quota(_)) && rule.action != Action::Shadow && rule.is_news
}

impl Asked {
    /// As a request that was recorded would ask once more. `model`: the one that is counted, where that is told apart.
    fn again(request: &Request, model: Option<Box<str>>) -> Self {
        let record = &request.record;
        Self {
            tenant: Some((*record.tenant).into()),
            user: record.user.clone(),
            endpoint: record.endpoint.clone(),
            agent: record.agent.clone(),
            model: model.or_else(|| record.totals.model.clone()),
            ..Self::default()
        }
    }
}
