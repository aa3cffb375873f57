//! Every family there is: its name, what it says, its labels, and how many series it can come to. The papers are made from this
//! list, and nothing is exported that is not on it.

/// One family of metrics.
#[derive(Debug)]
pub(super) struct Family {
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
    pub labels: &'static [Label],
    /// Where names that others choose are among the labels: so many label sets have series of their own.
    pub most: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    /// A gauge with a label that Prometheus keeps for summaries.
    Untyped,
    /// With these upper bounds, in seconds.
    Histogram(&'static [f64]),
}

/// A label and what its values can be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label {
    pub name: &'static str,
    pub values: Values,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Values {
    /// What others choose: names that are folded into `__other__` past the family's bound.
    Names,
    /// These, and no others.
    Closed(&'static [&'static str]),
    /// As many as the configuration has limits.
    Limits,
    /// As many as a limit has thresholds.
    Thresholds,
}

impl Family {
    const fn new(kind: Kind, name: &'static str, help: &'static str, labels: &'static [Label]) -> Self {
        Self { name, kind, help, labels, most: 0 }
    }

    const fn counter(name: &'static str, help: &'static str, labels: &'static [Label]) -> Self {
        Self::new(Kind::Counter, name, help, labels)
    }

    const fn gauge(name: &'static str, help: &'static str, labels: &'static [Label]) -> Self {
        Self::new(Kind::Gauge, name, help, labels)
    }

    const fn histogram(
        name: &'static str,
        help: &'static str,
        labels: &'static [Label],
        bounds: &'static [f64],
    ) -> Self {
        Self::new(Kind::Histogram(bounds), name, help, labels)
    }

    const fn most(mut self, label_sets: usize) -> Self {
        self.most = label_sets;
        self
    }

    pub(super) fn label_names(&self) -> Vec<&'static str> {
        self.labels.iter().map(|label| label.name).collect()
    }

    /// Whether names that others choose are among its labels.
    pub(super) fn is_capped(&self) -> bool {
        self.most > 0
    }

    /// Label sets with a name that was folded: one for each combination of what is closed.
    pub(super) fn folded_sets(&self) -> usize {
        let closed = self.labels.iter().map(|label| match label.values {
            Values::Closed(values) => values.len(),
            _ => 1,
        });
        closed.product()
    }

    /// Series at most; of limits, for each limit.
    pub(super) fn bound(&self) -> usize {
        let sets = if self.is_capped() { self.most + self.folded_sets() } else { self.folded_sets() };
        let series = match self.kind {
            // The bounds, `+Inf`, sum and count.
            Kind::Histogram(bounds) => bounds.len() + 3,
            _ => 1,
        };
        sets * series
    }

    /// Its number of series goes with the number of limits.
    pub(super) fn is_by_limit(&self) -> bool {
        self.labels.iter().any(|label| matches!(label.values, Values::Limits))
    }

    /// Its number of series also goes with the number of thresholds.
    pub(super) fn is_by_threshold(&self) -> bool {
        self.labels.iter().any(|label| matches!(label.values, Values::Thresholds))
    }
}

const fn names(name: &'static str) -> Label {
    Label { name, values: Values::Names }
}

const fn closed(name: &'static str, values: &'static [&'static str]) -> Label {
    Label { name, values: Values::Closed(values) }
}

const SERVICE: Label = names("service");
const ENDPOINT: Label = names("endpoint");
const STATUS: Label = names("status");
const PROVIDER: Label = names("provider");
const MODEL: Label = names("model");
const OPERATION: Label = names("operation");
const TENANT: Label = names("tenant");
const USER: Label = names("user");
const METHOD: Label = closed("method", &METHODS);
const OUTCOME: Label = closed("outcome", &["success", "failure"]);
const DIRECTION: Label = closed("type", &["input", "output"]);
const PART: Label = closed("type", &["cached", "cache_write", "reasoning"]);
const UNKNOWN: Label = closed("reason", &["stream", "missing", "implausible"]);
const LIMIT: Label = Label { name: "limit", values: Values::Limits };
const THRESHOLD: Label = Label { name: "threshold", values: Values::Thresholds };
const MAX: Label = closed("quantile", &["max"]);
const DECISION: Label = closed("decision", &["allow", "refuse", "warn", "shadow"]);
const WHY: Label =
    closed("reason", &["within_limit", "over_limit", "too_large", "store_unavailable", "too_many_subjects"]);
const PROTOCOL: Label = closed("protocol", &["grpc", "http_protobuf", "http_json"]);
const REFUSED: Label = closed(
    "reason",
    &["overloaded", "journal_full", "journal_broken", "malformed", "too_large", "encoding", "incomplete"],
);
const SIGNAL: Label = closed("signal", &["logs", "metrics"]);
const COUNTER: Label = closed("counter", &["free_requests", "requests", "tokens", "cost_nanousd"]);
const SINK: Label = closed("sink", &["elasticsearch", "cloudwatch"]);

/// HTTP methods and span kinds. OpenTelemetry's word for the rest is `_OTHER`.
pub(super) const METHODS: [&str; 16] = [
    "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "CONNECT", "TRACE", "INTERNAL", "CLIENT", "PRODUCER",
    "CONSUMER", "SERVER", "none", "_OTHER",
];

/// Seconds, by the advice of the OpenTelemetry conventions for the duration of GenAI operations.
const DURATION: &[f64] = &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
/// Seconds, by their advice for the time to the first token.
const FIRST_TOKEN: &[f64] =
    &[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Seconds: from a disk with a cache of its own to one that is in trouble.
const FSYNC: &[f64] = &[0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0];
/// Seconds: from a decision in memory to one that waited for the store in vain.
const CHECK: &[f64] = &[0.000_01, 0.000_03, 0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3];

pub(super) const REQUESTS: Family =
    Family::counter("tacho_requests_total", "Bot requests recorded.", &[SERVICE, ENDPOINT, METHOD, STATUS]).most(5_000);
pub(super) const REQUEST_DURATION: Family =
    Family::histogram("tacho_request_duration_seconds", "Duration of bot requests.", &[SERVICE, ENDPOINT], DURATION)
        .most(500);
pub(super) const LLM_CALLS: Family =
    Family::counter("tacho_llm_calls_total", "Calls of models.", &[SERVICE, PROVIDER, MODEL, OPERATION, OUTCOME])
        .most(3_000);
pub(super) const LLM_CALL_DURATION: Family =
    Family::histogram("tacho_llm_call_duration_seconds", "Duration of calls.", &[PROVIDER, MODEL], DURATION).most(300);
pub(super) const TIME_TO_FIRST_TOKEN: Family = Family::histogram(
    "tacho_llm_time_to_first_token_seconds",
    "Time from the start of a streamed call to its first token.",
    &[PROVIDER, MODEL],
    FIRST_TOKEN,
)
.most(300);
pub(super) const TOKENS: Family =
    Family::counter("tacho_tokens_total", "Tokens used.", &[SERVICE, PROVIDER, MODEL, DIRECTION]).most(2_000);
pub(super) const TOKEN_PARTS: Family = Family::counter(
    "tacho_token_parts_total",
    "Tokens contained in tacho_tokens_total: cached and cache_write in input, reasoning in output.",
    &[SERVICE, PROVIDER, MODEL, PART],
)
.most(3_000);
pub(super) const COST: Family =
    Family::counter("tacho_cost_usd_total", "Cost in US dollars.", &[SERVICE, PROVIDER, MODEL]).most(1_000);
pub(super) const UNKNOWN_USAGE: Family =
    Family::counter("tacho_unknown_usage_calls_total", "Calls whose usage is not known.", &[PROVIDER, MODEL, UNKNOWN])
        .most(900);
pub(super) const UNPRICED: Family = Family::counter(
    "tacho_unpriced_calls_total",
    "Calls without a price, or with tokens that have none of their own.",
    &[PROVIDER, MODEL],
)
.most(300);
pub(super) const LATE_CALLS: Family =
    Family::counter("tacho_late_calls_total", "Calls that amended a record already written.", &[]);

pub(super) const USER_REQUESTS: Family =
    Family::counter("tacho_user_requests_total", "Bot requests of the users that cost most.", &[TENANT, USER])
        .most(MOST_USERS);
pub(super) const USER_TOKENS: Family =
    Family::counter("tacho_user_tokens_total", "Tokens of the users that cost most.", &[TENANT, USER, DIRECTION])
        .most(2 * MOST_USERS);
pub(super) const USER_COST: Family =
    Family::counter("tacho_user_cost_usd_total", "Cost in US dollars of the users that cost most.", &[TENANT, USER])
        .most(MOST_USERS);
/// Twice the greatest `metrics.per_user_top`.
pub(super) const MOST_USERS: usize = 2_000;

pub(super) const LIMIT_DECISIONS: Family =
    Family::counter("tacho_limit_decisions_total", "Decisions of limits.", &[LIMIT, DECISION, WHY]);
pub(super) const LIMIT_CHECK_DURATION: Family =
    Family::histogram("tacho_limit_check_duration_seconds", "How long a check took.", &[], CHECK);
pub(super) const LIMIT_LIMIT: Family =
    Family::gauge("tacho_limit_limit", "The configured amount, of money in US dollars.", &[LIMIT]);
pub(super) const LIMIT_USED_RATIO: Family = Family::new(
    Kind::Untyped,
    "tacho_limit_used_ratio",
    "Used and held share of a limit, of the subject that has used most.",
    &[LIMIT, MAX],
);
pub(super) const LIMIT_SUBJECTS_OVER: Family =
    Family::gauge("tacho_limit_subjects_over", "Subjects that have used this share of a limit.", &[LIMIT, THRESHOLD]);
pub(super) const LIMIT_OVERSHOOT_BOUND: Family = Family::gauge(
    "tacho_limit_overshoot_bound",
    "What all instances together may be over a limit, beside requests under way.",
    &[LIMIT],
);
pub(super) const LIMIT_PERIOD: Family = Family::gauge(
    "tacho_limit_period_seconds",
    "Of a quota: length of the current period, of the subject that has used most.",
    &[LIMIT],
);
pub(super) const LIMIT_RESET: Family = Family::gauge(
    "tacho_limit_reset_timestamp_seconds",
    "Of a quota: when that period ends, in seconds since 1970.",
    &[LIMIT],
);
pub(super) const LIMIT_STORE_UP: Family =
    Family::gauge("tacho_limit_store_up", "1 while the store of limits answers.", &[]);
pub(super) const LIMIT_HOLDS_EXPIRED: Family =
    Family::counter("tacho_limit_holds_expired_total", "Holds whose request was never recorded.", &[]);
pub(super) const LIMIT_UNREPORTED: Family = Family::counter(
    "tacho_limit_settlements_unreported_total",
    "Settlements that the store of limits was not told of at once, as there were too many subjects.",
    &[],
);

pub(super) const INGEST_SPANS: Family = Family::counter(
    "tacho_ingest_spans_total",
    "Spans received.",
    &[PROTOCOL, closed("result", &["accepted", "rejected"])],
);
pub(super) const INGEST_REFUSED: Family =
    Family::counter("tacho_ingest_bodies_refused_total", "Bodies refused whole.", &[PROTOCOL, REFUSED]);
pub(super) const INGEST_IGNORED: Family =
    Family::counter("tacho_ingest_bodies_ignored_total", "Bodies of other signals.", &[SIGNAL]);
pub(super) const INGEST_LAST_SPAN: Family = Family::gauge(
    "tacho_ingest_last_span_timestamp_seconds",
    "When the last span came, in seconds since 1970.",
    &[SERVICE],
)
.most(100);
pub(super) const JOURNAL_BYTES: Family = Family::gauge("tacho_journal_bytes", "Bytes of the journal on disk.", &[]);
pub(super) const JOURNAL_MAX_BYTES: Family =
    Family::gauge("tacho_journal_max_bytes", "Bytes at which the journal is full.", &[]);
pub(super) const JOURNAL_FSYNC: Family =
    Family::histogram("tacho_journal_fsync_seconds", "How long the journal waited for the disk.", &[], FSYNC);
pub(super) const JOURNAL_OLDEST: Family = Family::gauge(
    "tacho_journal_oldest_seconds",
    "Age of the oldest part of the journal that is not in the database yet.",
    &[],
);
pub(super) const JOURNAL_QUARANTINED: Family =
    Family::counter("tacho_journal_quarantined_total", "Damaged parts of the journal, set aside.", &[]);
pub(super) const ASSEMBLE_OPEN: Family =
    Family::gauge("tacho_assemble_open_traces", "Traces that are not quiet yet.", &[]);
pub(super) const PERSIST_RECORDS: Family =
    Family::counter("tacho_persist_records_total", "Records written.", &[closed("result", &["new", "amended"])]);
pub(super) const DEAD_LETTERS: Family = Family::counter(
    "tacho_dead_letters_total",
    "Traces that the database would not take, in the table dead_letters.",
    &[],
);
pub(super) const PERSIST_UP: Family = Family::gauge("tacho_persist_up", "1 while the database takes writes.", &[]);
pub(super) const LEDGER_DRIFT: Family = Family::gauge(
    "tacho_ledger_drift",
    "How far the counters of the accounts are from the sum of their records.",
    &[COUNTER],
);
pub(super) const EXPORT_DOCUMENTS: Family = Family::counter(
    "tacho_export_documents_total",
    "Documents sent to a sink.",
    &[SINK, closed("result", &["written", "failed", "dead_letter"])],
);
pub(super) const EXPORT_LAG: Family =
    Family::gauge("tacho_export_lag_seconds", "Age of the oldest record that a sink lacks.", &[SINK]);
pub(super) const FEED_HORIZON_AGE: Family = Family::gauge(
    "tacho_feed_horizon_age_seconds",
    "How long a transaction that is open somewhere in the database's cluster has delayed who follows the records.",
    &[],
);
pub(super) const NOTIFICATIONS: Family = Family::counter(
    "tacho_notifications_total",
    "Notices pushed to Alertmanagers, each to each.",
    &[closed("result", &["sent", "failed"])],
);
const LISTENER: Label = closed("listener", &["otlp_grpc", "otlp_http", "http", "metrics"]);
pub(super) const ACCESS_REFUSED: Family = Family::counter(
    "tacho_access_refused_total",
    "Requests that did not come in: no token or a wrong one, a wrong host, a page in a browser, no certificate.",
    &[
        LISTENER,
        closed(
            "reason",
            &[
                "host",
                "cross_site",
                "no_certificate",
                "no_token",
                "wrong_token",
                "expired_token",
                "wrong_role",
                "too_many",
            ],
        ),
    ],
);
pub(super) const CONNECTIONS: Family = Family::gauge("tacho_connections", "Connections that are open.", &[LISTENER]);
pub(super) const CONNECTIONS_ENDED: Family = Family::counter(
    "tacho_connections_ended_total",
    "Connections that Tacho ended: for want of room, TLS not agreed on, slow or malformed requests.",
    &[LISTENER, closed("reason", &["displaced", "full", "handshake", "slow", "malformed"])],
);
pub(super) const LOSSES: Family = Family::counter(
    "tacho_losses_total",
    "What could not be kept.",
    &[
        closed("stage", &["journal", "limit_events", "ingest"]),
        closed("reason", &["damaged", "queue_full", "refused", "stopped", "unreadable", "too_large"]),
    ],
);
/// The stages and reasons that there are together.
pub(super) const LOST: [[&str; 2]; 6] = [
    ["journal", "damaged"],
    ["limit_events", "queue_full"],
    ["limit_events", "refused"],
    ["limit_events", "stopped"],
    ["ingest", "unreadable"],
    ["ingest", "too_large"],
];
pub(super) const SERIES_DROPPED: Family = Family::counter(
    "tacho_series_dropped_total",
    "Counts that went to a series named __other__, as a family had its most series or a name was none.",
    &[closed("metric", &WATCHED)],
);
pub(super) const BUILD_INFO: Family = Family::gauge(
    "tacho_build_info",
    "1, labelled with the version.",
    &[closed("version", &[env!("CARGO_PKG_VERSION")])],
);
pub(super) const RELOADED: Family =
    Family::gauge("tacho_config_last_reload_successful", "1 if the configuration in use is the one last read.", &[]);

/// Families in which `__other__` is a name too many. Of users it is what was asked for.
pub(super) const WATCHED: [&str; 11] = [
    REQUESTS.name,
    REQUEST_DURATION.name,
    LLM_CALLS.name,
    LLM_CALL_DURATION.name,
    TIME_TO_FIRST_TOKEN.name,
    TOKENS.name,
    TOKEN_PARTS.name,
    COST.name,
    UNKNOWN_USAGE.name,
    UNPRICED.name,
    INGEST_LAST_SPAN.name,
];

/// All of them, by what they are about.
pub(super) const GROUPS: [(&str, &[&Family]); 4] = [
    (
        "Requests and calls",
        &[
            &REQUESTS,
            &REQUEST_DURATION,
            &LLM_CALLS,
            &LLM_CALL_DURATION,
            &TIME_TO_FIRST_TOKEN,
            &TOKENS,
            &TOKEN_PARTS,
            &COST,
            &UNKNOWN_USAGE,
            &UNPRICED,
            &LATE_CALLS,
        ],
    ),
    ("Users", &[&USER_REQUESTS, &USER_TOKENS, &USER_COST]),
    (
        "Limits",
        &[
            &LIMIT_DECISIONS,
            &LIMIT_CHECK_DURATION,
            &LIMIT_LIMIT,
            &LIMIT_USED_RATIO,
            &LIMIT_SUBJECTS_OVER,
            &LIMIT_OVERSHOOT_BOUND,
            &LIMIT_PERIOD,
            &LIMIT_RESET,
            &LIMIT_STORE_UP,
            &LIMIT_HOLDS_EXPIRED,
            &LIMIT_UNREPORTED,
        ],
    ),
    (
        "Tacho itself",
        &[
            &INGEST_SPANS,
            &INGEST_REFUSED,
            &INGEST_IGNORED,
            &INGEST_LAST_SPAN,
            &JOURNAL_BYTES,
            &JOURNAL_MAX_BYTES,
            &JOURNAL_FSYNC,
            &JOURNAL_OLDEST,
            &JOURNAL_QUARANTINED,
            &ASSEMBLE_OPEN,
            &PERSIST_RECORDS,
            &DEAD_LETTERS,
            &PERSIST_UP,
            &LEDGER_DRIFT,
            &EXPORT_DOCUMENTS,
            &EXPORT_LAG,
            &FEED_HORIZON_AGE,
            &NOTIFICATIONS,
            &ACCESS_REFUSED,
            &CONNECTIONS,
            &CONNECTIONS_ENDED,
            &LOSSES,
            &SERIES_DROPPED,
            &BUILD_INFO,
            &RELOADED,
        ],
    ),
];
