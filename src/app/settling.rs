//! Between records and limits: what a write changes for each limit, told to the database in the same transaction and to
//! the limits after it.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::limit::{Charge, Key, Ledger, Limits, Meter, Rule, Since, charges, counters};
use crate::persist::{Change, Prepared, Standing};
use tacho_core::domain::account::AccountId;
use tacho_core::domain::call::{Tokens, UnknownUsage, Usage};
use tacho_core::domain::counter::{Counted, Counter};
use tacho_core::domain::ids::{SpanId, TraceId};
use tacho_core::domain::record::{Record, Request};
use tacho_core::domain::time::Timestamp;

/// What a write changes for limits. Nothing is done before it is committed.
pub(super) struct Settling<'c>(Vec<Settled<'c>>);

/// One request whose row is new, other than before, or gone.
struct Settled<'c> {
    request: &'c Request,
    trace: TraceId,
    span: SpanId,
    ended: Timestamp,
    before: Vec<Charge>,
    after: Vec<Charge>,
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
        let gone = self.0.iter().flat_map(|settled| &settled.before);
        counters(gone, self.0.iter().flat_map(|settled| &settled.after))
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
        let earlier = before.map(|before| self.charged(before, &self.prepared.mark_before(&before.record).plan));
        let now = after.map(|after| self.charged(after, &self.prepared.mark(&after.record).plan));
        let (earlier, mut now) = (earlier.unwrap_or_default(), now.unwrap_or_default());
        let request = after.or(before).expect("a change is of something");
        let record = &request.record;
        let (trace, span) = (record.key.trace_id, record.key.span_id);
        let new = after.filter(|_| before.is_none());
        if new.is_some_and(is_cut) {
            // What a stream that was cut off used is at least what was seen: the hold stands where it is more.
            for charge in now.iter_mut().filter(|charge| charge.rule.meter != Meter::Requests) {
                charge.amount = charge.amount.max(limits.held_for(trace, span, charge.key).unwrap_or(0));
            }
        }
        let lesson = new.filter(|new| new.record.totals.calls > 0 && !is_unknown(&new.record));
        Settled {
            request,
            trace,
            span,
            ended: record.key.started_at.plus(record.duration),
            before: earlier,
            after: now,
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

fn is_cut(request: &Request) -> bool {
    request.calls.iter().any(|call| call.usage == Usage::Unknown(UnknownUsage::Stream))
}

fn is_unknown(record: &Record) -> bool {
    record.totals.unknown_usage_calls > 0
}
