//! What is told of limits once for each subject and period: refusals, and thresholds that are reached. Whoever hears of it leaves
//! out what was told before, so here nothing is remembered.

use super::*;
use crate::limit::meters::thresholds;
use crate::limit::rule::QuotaAnchor;
use crate::limit::subject::cut;
use tacho_core::domain::limit_event::LimitEventKind;
use tacho_core::domain::period::Period;
use tacho_core::domain::record::Request;

/// As long as names in records can be.
const LONGEST_NAME: usize = 256;
/// The shortest window that stands for the period of a rate, in nanoseconds: a user who hammers leaves one row in it.
const SHORTEST_WINDOW: u64 = 60_000_000_000;

impl Limits {
    /// Of a check that was refused, or went on over a limit that stops nobody.
    pub(super) fn tell_refusals(
        &self,
        asked: &Asked,
        attempt: &Attempt<'_>,
        refused: Option<&Refused>,
        states: &[LimitState],
        since: &Since,
    ) {
        let Some(tell) = &self.outside.event else { return };
        let now = Timestamp(self.now());
        for (place, (limit, state)) in attempt.limits.iter().zip(states).enumerate() {
            let reason = match refused {
                Some(refused) if refused.place == place => refused.reason,
                None if limit.standing == Standing::Passed => Reason::OverLimit,
                _ => continue,
            };
            let (rule, kind) = (limit.rule, limit.rule.tier(limit.tier));
            let names_tenant = rule.per.contains(&Dimension::Tenant);
            tell(LimitEvent {
                kind: LimitEventKind::Refusal { reason: reason.label() },
                limit: Arc::clone(&rule.name),
                decision: rule.action.label(),
                tenant: asked.tenant.as_deref().or(names_tenant.then_some(DEFAULT_TENANT)).map(name),
                user: asked.user.as_deref().filter(|_| rule.by_user()).map(name),
                subject: state.subject.to_json(),
                meter: rule.meter.label(),
                used: state.stand.used,
                max: state.stand.limit,
                period: match (kind, limit.period) {
                    (Kind::Rate(rate), _) => window(now, nanos(rate.period)),
                    (Kind::Quota(quota), Some(period)) if quota.anchor == QuotaAnchor::Account => {
                        of_account(period, since, now)
                    }
                    (Kind::Quota(_), period) => period.unwrap_or(window(now, SHORTEST_WINDOW)),
                },
            });
        }
    }

    /// Of a record that was counted; so much is used with it. Each threshold that is reached is told again and again, as nobody here
    /// knows who was told: the record that crossed it may have been written by another instance, or just before a crash.
    pub(super) fn tell_thresholds(&self, charge: &Charge, used: i64, request: &Request) {
        let (rule, Kind::Quota(quota), Some(start)) = (&charge.rule, charge.rule.tier(charge.tier), charge.period)
        else {
            return;
        };
        let Some(tell) = self.outside.event.as_ref().filter(|_| rule.is_news && used > 0) else { return };
        let is_reached =
            |per_mille: &u16| i128::from(used) * 1_000 >= i128::from(quota.limit.0) * i128::from(*per_mille);
        let record = &request.record;
        for per_mille in thresholds(rule).filter(is_reached) {
            tell(LimitEvent {
                kind: LimitEventKind::Threshold { per_mille },
                limit: Arc::clone(&rule.name),
                decision: rule.action.label(),
                tenant: Some(name(&record.tenant)),
                user: record.user.as_deref().filter(|_| rule.by_user()).map(name),
                subject: charge.subject.clone(),
                meter: rule.meter.label(),
                used,
                max: quota.limit.0,
                period: Period { start, end: charge.ends },
            });
        }
    }
}

fn name(value: &str) -> Box<str> {
    cut(value, LONGEST_NAME)
}

/// The window of this length that a moment is in, aligned to 1970: what all instances take for the period of a rate.
fn window(at: Timestamp, length: u64) -> Period {
    let length = length.max(SHORTEST_WINDOW);
    let start = at.0 - at.0 % length;
    Period { start: Timestamp(start), end: Some(Timestamp(start.saturating_add(length))) }
}

/// Who has no account yet would begin a period with each check. The first minute of an account therefore counts as one.
fn of_account(period: Period, since: &Since, now: Timestamp) -> Period {
    let is_new = period.start == since.began && now.0.saturating_sub(since.began.0) < SHORTEST_WINDOW;
    if is_new { Period { start: window(period.start, SHORTEST_WINDOW).start, ..period } } else { period }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = SHORTEST_WINDOW;

    fn starts(at: u64, length: u64) -> (u64, u64) {
        let window = window(Timestamp(at), length);
        (window.start.0, window.end.unwrap().0)
    }

    #[test]
    fn a_rate_has_windows_of_its_period_and_a_minute_at_least() {
        assert_eq!(starts(90 * MINUTE + 1, 60 * MINUTE), (60 * MINUTE, 120 * MINUTE));
        assert_eq!(starts(60 * MINUTE, 60 * MINUTE), (60 * MINUTE, 120 * MINUTE));
        assert_eq!(starts(MINUTE + 7, 1_000_000_000), (MINUTE, 2 * MINUTE));
        assert_eq!(starts(u64::MAX, MINUTE).1, u64::MAX);
    }

    #[test]
    fn who_has_no_account_has_no_new_period_with_each_check() {
        let start = |began: u64, at: u64, now: u64| {
            let period = Period { start: Timestamp(at), end: None };
            of_account(period, &Since { began: Timestamp(began), reset: None }, Timestamp(now)).start.0
        };
        // Each check is the first.
        assert_eq!(start(MINUTE + 1, MINUTE + 1, MINUTE + 1), MINUTE);
        assert_eq!(start(MINUTE + 9, MINUTE + 9, MINUTE + 9), MINUTE);
        // An account that is there keeps its periods to the nanosecond.
        assert_eq!(start(MINUTE + 1, MINUTE + 1, 3 * MINUTE), MINUTE + 1);
        assert_eq!(start(7, 30 * MINUTE + 7, 30 * MINUTE + 8), 30 * MINUTE + 7);
    }
}
