//! What is counted of records: what a committed write has added, once.

use std::sync::Arc;

use prometheus::{Counter, Histogram, IntCounter};
use rustc_hash::FxHashMap;

use super::Maker;
use super::capped::{Capped, Exemplified};
use super::catalogue::{self, METHODS};
use super::labels::{Names, OTHER, status};
use super::users::TopUsers;
use tacho_core::domain::call::{Call, Key, Tokens, Usage};
use tacho_core::domain::record::{Record, Request};

pub(super) struct UsageFamilies {
    requests: Arc<Capped<IntCounter>>,
    request_duration: Arc<Capped<Histogram>>,
    llm_calls: Arc<Capped<IntCounter>>,
    llm_call_duration: Arc<Capped<Histogram>>,
    time_to_first_token: Arc<Capped<Histogram>>,
    tokens: Arc<Capped<IntCounter>>,
    token_parts: Arc<Capped<IntCounter>>,
    cost: Arc<Capped<Counter>>,
    unknown_usage: Arc<Capped<IntCounter>>,
    unpriced: Arc<Capped<IntCounter>>,
    late_calls: IntCounter,
    user_requests: Arc<Capped<IntCounter>>,
    user_tokens: Arc<Capped<IntCounter>>,
    user_cost: Arc<Capped<Counter>>,
    written: IntCounter,
    dead_letters: IntCounter,
    amended: IntCounter,
    users: TopUsers,
}

impl UsageFamilies {
    pub(super) fn new(make: &Maker<'_>, per_user_top: usize) -> Result<Self, prometheus::Error> {
        let records = make.counters(&catalogue::PERSIST_RECORDS)?;
        Ok(Self {
            requests: make.capped_counters(&catalogue::REQUESTS)?,
            request_duration: make.capped_histograms(&catalogue::REQUEST_DURATION)?,
            llm_calls: make.capped_counters(&catalogue::LLM_CALLS)?,
            llm_call_duration: make.capped_histograms(&catalogue::LLM_CALL_DURATION)?,
            time_to_first_token: make.capped_histograms(&catalogue::TIME_TO_FIRST_TOKEN)?,
            tokens: make.capped_counters(&catalogue::TOKENS)?,
            token_parts: make.capped_counters(&catalogue::TOKEN_PARTS)?,
            cost: make.capped_floats(&catalogue::COST)?,
            unknown_usage: make.capped_counters(&catalogue::UNKNOWN_USAGE)?,
            unpriced: make.capped_counters(&catalogue::UNPRICED)?,
            late_calls: make.counter(&catalogue::LATE_CALLS)?,
            user_requests: make.capped_counters(&catalogue::USER_REQUESTS)?,
            user_tokens: make.capped_counters(&catalogue::USER_TOKENS)?,
            user_cost: make.capped_floats(&catalogue::USER_COST)?,
            dead_letters: make.counter(&catalogue::DEAD_LETTERS)?,
            written: records.with_label_values(&["new"]),
            amended: records.with_label_values(&["amended"]),
            users: TopUsers::new(per_user_top),
        })
    }

    /// Those whose series remember a trace.
    pub(super) fn exemplified(&self) -> Vec<Arc<dyn Exemplified>> {
        vec![
            Arc::clone(&self.request_duration) as _,
            Arc::clone(&self.llm_call_duration) as _,
            Arc::clone(&self.time_to_first_token) as _,
            Arc::clone(&self.tokens) as _,
            Arc::clone(&self.cost) as _,
            Arc::clone(&self.user_cost) as _,
        ]
    }

    /// A trace that the database would not take is in the table of dead letters.
    pub(super) fn set_aside(&self) {
        self.dead_letters.inc();
    }

    /// Counts what a committed write has changed: what is new is added, of what was there already only what it has more than before.
    pub(super) fn committed(&self, names: &Names, before: &[Request], after: &[Request]) {
        let known: FxHashMap<&Key, &Request> = before.iter().map(|known| (&known.record.key, known)).collect();
        let calls: FxHashMap<&Key, &Call> =
            before.iter().flat_map(|known| &known.calls).map(|call| (&call.key, call)).collect();
        for request in after {
            let known = known.get(&request.record.key);
            match known {
                None => self.record(names, &request.record),
                Some(known) if *known == request => continue,
                Some(_) => self.amended.inc(),
            }
            let mut added = Added::default();
            for call in &request.calls {
                let earlier = calls.get(&call.key).copied();
                if earlier.is_none() {
                    self.late_calls.inc_by(u64::from(known.is_some()));
                }
                added.join(self.call(names, &request.record, call, earlier));
            }
            self.user(&request.record, u64::from(known.is_none()), &added);
        }
    }

    fn record(&self, names: &Names, record: &Record) {
        self.written.inc();
        let service = names.services.fold(service(record));
        let endpoint = names.endpoints.fold(record.endpoint.as_deref().unwrap_or("unattributed"));
        let status = status(record.status);
        let method = method(record.method.as_deref());
        self.requests.add(&[service, endpoint, method, names.statuses.fold(&status)], 1);
        self.request_duration.observe(&[service, endpoint], record.duration.as_secs_f64(), record.key.trace_id);
    }

    /// What is in a call that was not in `earlier`.
    fn call(&self, names: &Names, record: &Record, call: &Call, earlier: Option<&Call>) -> Added {
        let service = names.services.fold(service(record));
        let provider = names.providers.fold(call.provider.as_deref().unwrap_or("unknown"));
        let model = names.models.fold(call.model().unwrap_or("unknown"));
        let trace = call.key.trace_id;
        if earlier.is_none() {
            let operation = names.operations.fold(call.operation.as_deref().unwrap_or("unknown"));
            let outcome = if call.failed() { "failure" } else { "success" };
            self.llm_calls.add(&[service, provider, model, operation, outcome], 1);
            self.llm_call_duration.observe(&[provider, model], call.duration.as_secs_f64(), trace);
            if let Some(first) = call.time_to_first_token {
                self.time_to_first_token.observe(&[provider, model], first.as_secs_f64(), trace);
            }
            if let Usage::Unknown(reason) = &call.usage {
                self.unknown_usage.add(&[provider, model, reason.label()], 1);
            }
            if call.lacks_price() {
                self.unpriced.add(&[provider, model], 1);
            }
        }
        let added = Added::of(call, earlier);
        if let Usage::Reported(_) = call.usage {
            let Tokens { input, output, cached_input, cache_write, reasoning, .. } = added.tokens;
            self.tokens.add_from(&[service, provider, model, "input"], input, trace);
            self.tokens.add_from(&[service, provider, model, "output"], output, trace);
            for (part, count) in [("cached", cached_input), ("cache_write", cache_write), ("reasoning", reasoning)] {
                self.token_parts.add(&[service, provider, model, part], count);
            }
        }
        if call.cost.charged().is_some() {
            self.cost.add_from(&[service, provider, model], dollars(added.nanousd), trace);
        }
        added
    }

    fn user(&self, record: &Record, requests: u64, added: &Added) {
        if self.users.is_off() {
            return;
        }
        let (tenant, user) = (&*record.tenant, record.user.as_deref().unwrap_or("unknown"));
        let is_shown = self.users.spends(tenant, user, added.nanousd);
        let labels = if is_shown { [tenant, user] } else { [OTHER, OTHER] };
        self.user_requests.add(&labels, requests);
        self.user_tokens.add(&[labels[0], labels[1], "input"], added.tokens.input);
        self.user_tokens.add(&[labels[0], labels[1], "output"], added.tokens.output);
        self.user_cost.add_from(&labels, dollars(added.nanousd), record.key.trace_id);
    }
}

/// What counters move by. They never fall, so less than before is nothing.
#[derive(Default)]
struct Added {
    tokens: Tokens,
    nanousd: u64,
}

impl Added {
    fn of(call: &Call, earlier: Option<&Call>) -> Self {
        let charged = |call: &Call| call.cost.charged().map_or(0, |cost| u64::try_from(cost.0).unwrap_or(0));
        let (now, then) = (call.usage.tokens(), earlier.map(|call| call.usage.tokens()).unwrap_or_default());
        Self {
            tokens: Tokens {
                input: now.input.saturating_sub(then.input),
                output: now.output.saturating_sub(then.output),
                cached_input: now.cached_input.saturating_sub(then.cached_input),
                cache_write: now.cache_write.saturating_sub(then.cache_write),
                reasoning: now.reasoning.saturating_sub(then.reasoning),
                // No counter shows the parts that only prices need.
                ..Tokens::default()
            },
            nanousd: charged(call).saturating_sub(earlier.map_or(0, charged)),
        }
    }

    fn join(&mut self, other: Self) {
        self.tokens.add(&other.tokens);
        self.nanousd = self.nanousd.saturating_add(other.nanousd);
    }
}

/// Only here does money become a float: for a counter that Prometheus keeps as one.
#[expect(clippy::cast_precision_loss, reason = "shown, not billed")]
fn dollars(nano: u64) -> f64 {
    nano as f64 / 1e9
}

fn service(record: &Record) -> &str {
    record.service.as_deref().unwrap_or("unknown")
}

fn method(method: Option<&str>) -> &str {
    let method = method.unwrap_or("none");
    if METHODS.contains(&method) { method } else { "_OTHER" }
}
