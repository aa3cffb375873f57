//! The registry: every metric family of the house, with labels from closed or capped sets. It counts what was committed, and
//! never decides anything.

mod labels;

use std::time::Duration;

use prometheus::{
    CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::domain::account::Drift;
use crate::domain::call::{Call, Key, Usage};
use crate::domain::record::{Record, Request};
use labels::Cap;

/// All families. Cheap to clone are its parts, so stages are handed those they count.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_duration: HistogramVec,
    llm_calls: IntCounterVec,
    llm_call_duration: HistogramVec,
    time_to_first_token: HistogramVec,
    tokens: IntCounterVec,
    token_parts: IntCounterVec,
    cost: CounterVec,
    unknown_usage: IntCounterVec,
    unpriced: IntCounterVec,
    pub ingest_spans: IntCounterVec,
    pub ingest_bodies_refused: IntCounterVec,
    pub ingest_ignored: IntCounterVec,
    last_span: GaugeVec,
    pub open_traces: IntGauge,
    pub journal: JournalFamilies,
    late_calls: IntCounter,
    persist_records: IntCounterVec,
    pub persist_up: IntGauge,
    losses: IntCounterVec,
    ledger_drift: IntGaugeVec,
    pub limits: LimitFamilies,
    /// By result; `notify` counts.
    pub notifications: IntCounterVec,
    /// 1 if the configuration in use is the one last read.
    pub reloaded: IntGauge,
    names: Names,
}

/// What the journal counts.
#[derive(Clone)]
pub struct JournalFamilies {
    pub bytes: IntGauge,
    pub fsync: Histogram,
    pub oldest: Gauge,
    pub quarantined: IntCounter,
}

/// What limits count.
#[derive(Clone)]
pub struct LimitFamilies {
    pub decisions: IntCounterVec,
    pub check_duration: Histogram,
    pub limit: GaugeVec,
    pub used_ratio: GaugeVec,
    pub subjects_over: GaugeVec,
    pub overshoot_bound: GaugeVec,
    pub store_up: IntGauge,
    pub holds_expired: IntCounter,
    pub untold: IntCounter,
}

/// The names that others choose, each kind within its bound.
struct Names {
    services: Cap,
    endpoints: Cap,
    models: Cap,
}

/// Seconds, by the advice of the OpenTelemetry conventions for GenAI durations.
const DURATION_BUCKETS: &[f64] =
    &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];

/// Seconds: from a disk with a cache of its own to one that is in trouble.
const FSYNC_BUCKETS: &[f64] = &[0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0];

/// Seconds: from a decision in memory to one that waited for the store in vain.
const CHECK_BUCKETS: &[f64] = &[0.000_01, 0.000_03, 0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3];

impl Default for Metrics {
    fn default() -> Self {
        Self::new().expect("the names and labels of our own families are valid and each registered once")
    }
}

impl Metrics {
    fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let make = Maker { registry: &registry };
        make.build_info()?;
        Ok(Self {
            requests: make.counters(
                "tacho_requests_total",
                "Bot requests recorded.",
                &["service", "endpoint", "method", "status"],
            )?,
            request_duration: make.histograms(
                "tacho_request_duration_seconds",
                "Duration of bot requests.",
                &["service", "endpoint"],
            )?,
            llm_calls: make.counters(
                "tacho_llm_calls_total",
                "Calls of models.",
                &["service", "provider", "model", "operation", "outcome"],
            )?,
            llm_call_duration: make.histograms(
                "tacho_llm_call_duration_seconds",
                "Duration of calls.",
                &["provider", "model"],
            )?,
            time_to_first_token: make.histograms(
                "tacho_llm_time_to_first_token_seconds",
                "Time from the start of a call to its first token.",
                &["provider", "model"],
            )?,
            tokens: make.counters("tacho_tokens_total", "Tokens used.", &["service", "provider", "model", "type"])?,
            token_parts: make.counters(
                "tacho_token_parts_total",
                "Tokens contained in tacho_tokens_total: cached and cache_write in input, reasoning in output.",
                &["service", "provider", "model", "type"],
            )?,
            cost: make.floats("tacho_cost_usd_total", "Cost in US dollars.", &["service", "provider", "model"])?,
            unknown_usage: make.counters(
                "tacho_unknown_usage_calls_total",
                "Calls whose usage is not known.",
                &["provider", "model", "reason"],
            )?,
            unpriced: make.counters("tacho_unpriced_calls_total", "Calls without a price.", &["provider", "model"])?,
            ingest_spans: make.counters("tacho_ingest_spans_total", "Spans received.", &["protocol", "result"])?,
            ingest_bodies_refused: make.counters(
                "tacho_ingest_bodies_refused_total",
                "Bodies refused whole.",
                &["protocol", "reason"],
            )?,
            ingest_ignored: make.counters(
                "tacho_ingest_ignored_bodies_total",
                "Bodies of other signals.",
                &["signal"],
            )?,
            last_span: make.last_span()?,
            open_traces: make.gauge("tacho_assemble_open_traces", "Traces that are not quiet yet.")?,
            journal: make.journal()?,
            late_calls: make.counter("tacho_late_calls_total", "Calls that amended a record already written.")?,
            persist_records: make.counters("tacho_persist_records_total", "Records written.", &["result"])?,
            persist_up: make.gauge("tacho_persist_up", "1 while the database takes writes.")?,
            losses: make.counters("tacho_losses_total", "What could not be kept.", &["stage", "reason"])?,
            ledger_drift: make.ledger_drift()?,
            limits: make.limits()?,
            notifications: make.notifications()?,
            reloaded: make.reloaded()?,
            names: make.names()?,
            registry,
        })
    }

    /// The whole registry in the text format 0.0.4.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// Spans of this service came at this time, in seconds since 1970.
    pub fn seen(&self, service: &str, seconds: f64) {
        self.last_span.with_label_values(&[&self.names.services.fold(service)]).set(seconds);
    }

    /// The one place for what is lost: count and log line.
    pub fn lost(&self, stage: &str, reason: &str, events: u64) {
        self.losses.with_label_values(&[stage, reason]).inc_by(events);
        tracing::error!(stage, reason, events, "lost");
    }

    /// A trace that the database would not take is in the table of dead letters.
    pub fn set_aside(&self) {
        self.persist_records.with_label_values(&["dead_letter"]).inc();
    }

    /// What the store has found. Until then the family has no series: not known is not zero.
    pub fn drift(&self, drift: &Drift) {
        let set = |counter: &str, by| self.ledger_drift.with_label_values(&[counter]).set(by);
        set("free_requests", drift.free_requests);
        set("requests", drift.requests);
        set("tokens", drift.tokens);
        set("cost_nanousd", drift.cost_nanousd);
    }

    /// Counts what a committed write has changed: what is new is added; what was there already is not counted again.
    pub fn committed(&self, before: &[Request], after: &[Request]) {
        let known: FxHashMap<&Key, &Request> = before.iter().map(|known| (&known.record.key, known)).collect();
        let counted: FxHashSet<&Key> = before.iter().flat_map(|known| &known.calls).map(|call| &call.key).collect();
        for request in after {
            let known = known.get(&request.record.key);
            match known {
                None => self.record(&request.record),
                Some(known) if *known == request => continue,
                Some(_) => self.persist_records.with_label_values(&["amended"]).inc(),
            }
            for call in request.calls.iter().filter(|call| !counted.contains(&call.key)) {
                self.call(&request.record, call);
                self.late_calls.inc_by(u64::from(known.is_some()));
            }
        }
    }

    fn record(&self, record: &Record) {
        self.persist_records.with_label_values(&["new"]).inc();
        let service = self.names.services.fold(record.service.as_deref().unwrap_or("unknown"));
        let endpoint = self.names.endpoints.fold(record.endpoint.as_deref().unwrap_or("unattributed"));
        let method = method(record.method.as_deref());
        let status = record.status.map_or_else(|| "none".to_owned(), |status| status.to_string());
        self.requests.with_label_values(&[&*service, &endpoint, method, &status]).inc();
        observe(&self.request_duration, &[&service, &endpoint], record.duration);
    }

    fn call(&self, record: &Record, call: &Call) {
        let service = self.names.services.fold(record.service.as_deref().unwrap_or("unknown"));
        let provider = self.names.models.fold(call.provider.as_deref().unwrap_or("unknown"));
        let model = self.names.models.fold(call.model().unwrap_or("unknown"));
        let operation = call.operation.as_deref().unwrap_or("unknown");
        let outcome = if call.failed() { "error" } else { "ok" };
        self.llm_calls.with_label_values(&[&*service, &provider, &model, operation, outcome]).inc();
        observe(&self.llm_call_duration, &[&provider, &model], call.duration);
        if let Some(first) = call.time_to_first_token {
            observe(&self.time_to_first_token, &[&provider, &model], first);
        }
        match &call.usage {
            Usage::Unknown(reason) => self.unknown_usage.with_label_values(&[&*provider, &model, reason.label()]).inc(),
            Usage::Reported(tokens) => {
                let add = |family: &IntCounterVec, kind, count| {
                    family.with_label_values(&[&*service, &provider, &model, kind]).inc_by(count);
                };
                add(&self.tokens, "input", tokens.input);
                add(&self.tokens, "output", tokens.output);
                add(&self.token_parts, "cached", tokens.cached_input);
                add(&self.token_parts, "cache_write", tokens.cache_write);
                add(&self.token_parts, "reasoning", tokens.reasoning);
            }
        }
        match (call.cost.charged(), &call.usage) {
            (Some(cost), _) => self.cost.with_label_values(&[&*service, &provider, &model]).inc_by(dollars(cost.0)),
            (None, Usage::Reported(_)) => self.unpriced.with_label_values(&[&*provider, &model]).inc(),
            (None, Usage::Unknown(_)) => {}
        }
    }
}

/// Only here does money become a float: for a counter that Prometheus keeps as one.
#[expect(clippy::cast_precision_loss, reason = "shown, not billed")]
fn dollars(nano: i64) -> f64 {
    nano.max(0) as f64 / 1e9
}

fn observe(family: &HistogramVec, labels: &[&str], duration: Duration) {
    family.with_label_values(labels).observe(duration.as_secs_f64());
}

/// HTTP methods and span kinds are a closed set; OpenTelemetry's word for the rest is `_OTHER`.
fn method(method: Option<&str>) -> &str {
    const KNOWN: [&str; 14] = [
        "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "CONNECT", "TRACE", "INTERNAL", "CLIENT",
        "PRODUCER", "CONSUMER", "SERVER",
    ];
    match method {
        None => "none",
        Some(method) if KNOWN.contains(&method) => method,
        Some(_) => "_OTHER",
    }
}

/// Makes a family and registers it.
struct Maker<'r> {
    registry: &'r Registry,
}

impl Maker<'_> {
    fn register<C: prometheus::core::Collector + Clone + 'static>(&self, collector: C) -> Result<C, prometheus::Error> {
        self.registry.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn names(&self) -> Result<Names, prometheus::Error> {
        let dropped =
            self.counters("tacho_series_dropped_total", "Names folded into __other__, by kind of name.", &["metric"])?;
        let cap = |kind: &str, most| Cap::new(most, dropped.with_label_values(&[kind]));
        Ok(Names { services: cap("service", 100), endpoints: cap("endpoint", 300), models: cap("model", 300) })
    }

    fn journal(&self) -> Result<JournalFamilies, prometheus::Error> {
        let (fsync, waited) = ("tacho_journal_fsync_seconds", "How long the journal waited for the disk.");
        let (oldest, age) =
            ("tacho_journal_oldest_seconds", "Age of the oldest part of the journal that is not in the database yet.");
        let (quarantined, damaged) = ("tacho_journal_quarantined_total", "Damaged parts of the journal, set aside.");
        Ok(JournalFamilies {
            bytes: self.gauge("tacho_journal_bytes", "Bytes of the journal on disk.")?,
            fsync: self.seconds(fsync, waited, FSYNC_BUCKETS)?,
            oldest: self.float(oldest, age)?,
            quarantined: self.counter(quarantined, damaged)?,
        })
    }

    fn limits(&self) -> Result<LimitFamilies, prometheus::Error> {
        let (over, ahead) = (
            "Subjects that have used this share of a limit.",
            "What all instances together may be over a limit, beside requests under way.",
        );
        let untold = "Settlements that the store of limits was not told of at once, as there were too many subjects.";
        Ok(LimitFamilies {
            decisions: self.counters(
                "tacho_limit_decisions_total",
                "Decisions of limits.",
                &["limit", "decision", "reason"],
            )?,
            check_duration: self.seconds(
                "tacho_limit_check_duration_seconds",
                "How long a check took.",
                CHECK_BUCKETS,
            )?,
            limit: self.gauges("tacho_limit_limit", "The configured amount, of money in US dollars.", &["limit"])?,
            used_ratio: self.gauges(
                "tacho_limit_used_ratio",
                "Used and held share of a limit.",
                &["limit", "quantile"],
            )?,
            subjects_over: self.gauges("tacho_limit_subjects_over", over, &["limit", "threshold"])?,
            overshoot_bound: self.gauges("tacho_limit_overshoot_bound", ahead, &["limit"])?,
            store_up: self.gauge("tacho_limit_store_up", "1 while the store of limits answers.")?,
            holds_expired: self
                .counter("tacho_limit_holds_expired_total", "Holds whose request was never recorded.")?,
            untold: self.counter("tacho_limit_untold_total", untold)?,
        })
    }

    fn last_span(&self) -> Result<GaugeVec, prometheus::Error> {
        self.gauges("tacho_ingest_last_span_timestamp_seconds", "When the last span came.", &["service"])
    }

    fn notifications(&self) -> Result<IntCounterVec, prometheus::Error> {
        self.counters("tacho_notifications_total", "Notices told to each Alertmanager.", &["result"])
    }

    fn reloaded(&self) -> Result<IntGauge, prometheus::Error> {
        let help = "1 if the configuration in use is the one last read.";
        let reloaded = self.gauge("tacho_config_last_reload_successful", help)?;
        reloaded.set(1);
        Ok(reloaded)
    }

    fn build_info(&self) -> Result<(), prometheus::Error> {
        let build = self.gauges("tacho_build_info", "1, labelled with the version.", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        Ok(())
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn floats(&self, name: &str, help: &str, labels: &[&str]) -> Result<CounterVec, prometheus::Error> {
        self.register(CounterVec::new(Opts::new(name, help), labels)?)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.register(IntCounter::new(name, help)?)
    }

    fn float(&self, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
        self.register(Gauge::new(name, help)?)
    }

    fn seconds(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, prometheus::Error> {
        self.register(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, prometheus::Error> {
        self.register(GaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn ledger_drift(&self) -> Result<IntGaugeVec, prometheus::Error> {
        let help = "How far the counters of the accounts are from the sum of their records.";
        self.register(IntGaugeVec::new(Opts::new("tacho_ledger_drift", help), &["counter"])?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::new(name, help)?)
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, prometheus::Error> {
        self.register(HistogramVec::new(HistogramOpts::new(name, help).buckets(DURATION_BUCKETS.to_vec()), labels)?)
    }
}
