//! Between records and limits: what a write changes for each limit, told to the database in the same transaction and to
//! the limits after it.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::limit::{Charge, Key, Ledger, Limits, Meter, Rule, Since, amount_of, charges, counters};
use crate::persist::{Change, Prepared, Standing};
use tacho_core::domain::account::AccountId;
use tacho_core::domain::call::Tokens;
use tacho_core::domain::counter::{Charged, Counted, Counter, Earlier, Recharge};
use tacho_core::domain::ids::{SpanId, TraceId};
use tacho_core::domain::record::Request;
use tacho_core::domain::time::Timestamp;

/// What a write changes for limits. Nothing is done before it is committed.
pub(super) struct Settling<'c>(Vec<Settled<'c>>);

/// One request whose row is new, other than before, or gone.
struct Settled<'c> {
    request: &'c Request,
    trace: TraceId,
    span: SpanId,
    ended: Timestamp,
    /// What it was charged until now, as it was kept.
    earlier: Vec<Earlier>,
    before: Vec<Charge>,
    after: Vec<Charge>,
    /// Charges of before that no limit explains any more. They go on as they were, by what the request says now.
    kept: Vec<Earlier>,
    /// What it used, if that is a new lesson.
    lesson: Option<Lesson>,
}

struct Lesson {
    model: Option<Box<str>>,
    agent: Option<Box<str>>,
    tokens: Tokens,
}

impl<'c> Settling<'c> {
    pub(super) fn of(limits: &Limits, rules: &[Arc<Rule>], prepared: &Prepared<'c>) -> Self {
        let ledger = Ledgers { rules, prepared, standings: prepared.standings() };
        let changed = prepared.changes().iter().flat_map(|change| changed(change));
        Self(changed.map(|(before, after)| ledger.settled(limits, before, after)).collect())
    }

    /// What changes in the counters of quotas, each once and by key.
    pub(super) fn counters(&self) -> Vec<Counter> {
        let signed = |earlier: &Earlier, sign: i64| {
            let total = earlier.charged.total();
            earlier.counter.clone().map(|counter| (counter, total.saturating_mul(sign)))
        };
        counters(self.0.iter().flat_map(move |settled| {
            let gone = settled.earlier.iter().filter_map(move |earlier| signed(earlier, -1));
            let kept = settled.kept.iter().filter_map(move |kept| signed(kept, 1));
            let come =
                settled.after.iter().filter_map(|charge| charge.counter().map(|counter| (counter, charge.total())));
            gone.chain(kept).chain(come)
        }))
    }

    /// What changes in what is kept beside the records.
    pub(super) fn recharges(&self) -> Vec<Recharge> {
        let recharge = |settled: &Settled<'_>| {
            let mut before: Vec<Charged> = settled.earlier.iter().map(|earlier| earlier.charged.clone()).collect();
            let is_kept = |charge: &&Charge| charge.period.is_some() || charge.estimate != 0;
            let come = settled.after.iter().filter(is_kept).map(Charge::kept);
            let mut after: Vec<Charged> = come.chain(settled.kept.iter().map(|kept| kept.charged.clone())).collect();
            before.sort_unstable();
            after.sort_unstable();
            (before != after).then_some(Recharge { record: settled.request.record.key, before, after })
        };
        self.0.iter().filter_map(recharge).collect()
    }

    /// To be called when all is committed, with what the counters say now.
    pub(super) fn tell(&self, limits: &Limits, counted: &[Counted]) {
        let charges = self.0.iter().flat_map(|settled| {
            settled.before.iter().chain(&settled.after).map(|charge| (charge.key, (charge, settled.request)))
        });
        let by_key: FxHashMap<Key, (&Charge, &Request)> = charges.collect();
        for counted in counted {
            if let Some((charge, request)) = by_key.get(&Key(counted.key)) {
                limits.counted(charge, Ledger { version: counted.version, used: counted.used }, request);
            }
        }
        for settled in &self.0 {
            limits.settle(settled.trace, settled.span, settled.ended, &settled.before, &settled.after);
            if let Some(lesson) = &settled.lesson {
                limits.estimates().observe(lesson.model.as_deref(), lesson.agent.as_deref(), &lesson.tokens);
            }
        }
    }
}

/// Pairs of a request as it was and as it is, without those that stay the same.
fn changed(change: &Change) -> Vec<(Option<&Request>, Option<&Request>)> {
    let was = |after: &Request| change.before.iter().find(|before| before.record.key == after.record.key);
    let come = change.after.iter().map(|after| (was(after), Some(after)));
    let gone =
        change.before.iter().filter(|before| !change.after.iter().any(|after| after.record.key == before.record.key));
    come.chain(gone.map(|gone| (Some(gone), None))).filter(|(before, after)| before != after).collect()
}

/// What a charge depends on beside the request.
struct Ledgers<'p> {
    rules: &'p [Arc<Rule>],
    prepared: &'p Prepared<'p>,
    standings: FxHashMap<&'p AccountId, &'p Standing>,
}

impl Ledgers<'_> {
    fn settled<'c>(&self, limits: &Limits, before: Option<&'c Request>, after: Option<&'c Request>) -> Settled<'c> {
        let was = before.map(|before| self.charged(before, &self.prepared.mark_before(&before.record).plan));
        let now = after.map(|after| self.charged(after, &self.prepared.mark(&after.record).plan));
        let (mut was, mut now) = (was.unwrap_or_default(), now.unwrap_or_default());
        let request = after.or(before).expect("a change is of something");
        let record = &request.record;
        let (trace, span) = (record.key.trace_id, record.key.span_id);
        let earlier = self.prepared.charged(&record.key).to_vec();
        for charge in &mut was {
            charge.estimate = estimate_of(&earlier, charge);
        }
        // What a limit that is newer than the record does not have of it, it does not get by a late span either.
        let explained = |charge: &Charge| was.iter().any(|was| was.key == charge.key && was.model == charge.model);
        now.retain(|charge| {
            charge.period.is_none() || !explained(charge) || earlier.iter().any(|earlier| charge.is(&earlier.charged))
        });
        if after.is_some_and(is_unknown) {
            let held = |key| limits.held_for(trace, span, key).filter(|_| before.is_none());
            estimate(&mut now, &earlier, held);
        }
        let kept = after.map(|after| kept(after, &earlier, was.iter().chain(&now))).unwrap_or_default();
        let new = after.filter(|_| before.is_none());
        let lesson = new.filter(|new| new.record.totals.calls > 0 && !is_unknown(new));
        Settled {
            request,
            trace,
            span,
            ended: record.key.started_at.plus(record.duration),
            earlier,
            before: was,
            after: now,
            kept,
            lesson: lesson.map(|request| Lesson {
                model: request.record.totals.model.clone(),
                agent: request.record.agent.clone(),
                tokens: request.record.totals.tokens,
            }),
        }
    }

    fn charged(&self, request: &Request, plan: &str) -> Vec<Charge> {
        let record = &request.record;
        let standing = AccountId::of(record).and_then(|account| self.standings.get(&account).copied());
        let since = standing.map_or_else(Since::default, |standing| Since {
            began: standing.first_request_at,
            reset: standing.reset_at,
        });
        charges(self.rules, request, plan, &since)
    }
}

/// A request of which some usage is not known used at least what was seen: what was held for it stands where that is more, and
/// goes when the usage becomes known.
fn estimate(charges: &mut [Charge], earlier: &[Earlier], held: impl Fn(Key) -> Option<i64>) {
    let mut seen: FxHashMap<Key, i64> = FxHashMap::default();
    for charge in charges.iter() {
        let seen = seen.entry(charge.key).or_default();
        *seen = seen.saturating_add(charge.amount);
    }
    for charge in charges.iter_mut().filter(|charge| charge.rule.meter != Meter::Requests) {
        let was = earlier.iter().find(|earlier| charge.is(&earlier.charged) && earlier.charged.estimate > 0);
        charge.estimate = match was {
            Some(was) => was.charged.total().saturating_sub(charge.amount),
            // Of calls of several models that count together the first has it.
            None => seen.remove(&charge.key).map_or(0, |seen| held(charge.key).unwrap_or(0).saturating_sub(seen)),
        }
        .max(0);
    }
}

fn estimate_of(earlier: &[Earlier], charge: &Charge) -> i64 {
    earlier.iter().find(|earlier| charge.is(&earlier.charged)).map_or(0, |earlier| earlier.charged.estimate)
}

/// What was charged by limits that are not configured now, or in a period that a reset has closed since.
fn kept<'a>(after: &Request, earlier: &[Earlier], explained: impl Iterator<Item = &'a Charge> + Clone) -> Vec<Earlier> {
    let unexplained = earlier.iter().filter(|earlier| !explained.clone().any(|charge| charge.is(&earlier.charged)));
    let now = unexplained.map(|earlier| {
        let charged = &earlier.charged;
        let amount = amount_of(after, charged);
        let estimate = if is_unknown(after) { charged.total().saturating_sub(amount).max(0) } else { 0 };
        let estimate = if charged.estimate > 0 { estimate } else { 0 };
        Earlier { charged: Charged { amount, estimate, ..charged.clone() }, ..earlier.clone() }
    });
    // A rate has a row only for an estimate.
    now.filter(|kept| kept.charged.counted || kept.charged.estimate > 0).collect()
}

fn is_unknown(request: &Request) -> bool {
    request.record.totals.unknown_usage_calls > 0
}
