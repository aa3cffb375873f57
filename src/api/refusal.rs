//! What a decision looks like over HTTP: the headers of the IETF draft on rate limits and the older ones, RFC 9457 problems, and
//! OpenAI's error shape.

use std::fmt::Write as _;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Value, json};

use crate::limit::{Admission, Figure, LimitState, Meter, Reason, Refusal, RefusalForm, Subject};
use tacho_core::domain::time::in_words;

pub(super) const PROBLEM: &str = "application/problem+json";
/// From the IETF draft on rate limit headers.
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";
const REDUCED_CAPACITY: &str = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";

/// In which shape a refusal is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Problem,
    Openai,
}

impl Form {
    /// `Accept: application/json; profile=openai` or `application/vnd.openai+json` asks for OpenAI's, `application/problem+json` for
    /// the problem; else the operator has chosen.
    pub(super) fn wanted(headers: &HeaderMap, configured: RefusalForm) -> Self {
        let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        for accept in accept {
            let accept = accept.to_ascii_lowercase();
            if accept.contains("openai") {
                return Self::Openai;
            }
            if accept.contains(PROBLEM) {
                return Self::Problem;
            }
        }
        match configured {
            RefusalForm::Problem => Self::Problem,
            RefusalForm::Openai => Self::Openai,
        }
    }
}

/// The body of an admission.
#[derive(Serialize)]
struct Allowed<'a> {
    decision: &'static str,
    reservation: String,
    degraded: bool,
    limits: Vec<Shown<'a>>,
}

pub(super) fn allowed(admission: &Admission) -> Response {
    let body = Allowed {
        decision: "allow",
        reservation: admission.reservation.to_string(),
        degraded: admission.degraded,
        limits: admission.limits.iter().map(shown).collect(),
    };
    let mut response = axum::Json(body).into_response();
    limit_headers(response.headers_mut(), &admission.limits, tightest(&admission.limits));
    response
}

pub(super) fn refused(refusal: &Refusal, form: Form) -> Response {
    let limit = &refusal.limits[refusal.place];
    let (content, body) = match form {
        Form::Problem => (PROBLEM, problem(refusal, limit)),
        Form::Openai => ("application/json", openai(refusal, limit)),
    };
    let mut response =
        (StatusCode::TOO_MANY_REQUESTS, [(header::CONTENT_TYPE, content)], body.to_string()).into_response();
    let headers = response.headers_mut();
    if let Some(wait) = refusal.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds_up(wait)));
    }
    limit_headers(headers, &refusal.limits, Some(refusal.place));
    response
}

fn problem(refusal: &Refusal, limit: &LimitState) -> Value {
    let kind = if refusal.reason == Reason::StoreUnavailable { REDUCED_CAPACITY } else { QUOTA_EXCEEDED };
    let limits: Vec<Shown<'_>> = refusal.limits.iter().map(shown).collect();
    json!({
        "type": kind,
        "title": title(refusal.reason),
        "status": 429,
        "detail": detail(refusal, limit),
        "violated-policies": [&*limit.name],
        "decision": "refuse",
        "reason": refusal.reason.label(),
        "limit": shown(limit),
        "retry_after_seconds": refusal.retry_after.map(seconds_up),
        "degraded": refusal.degraded,
        "limits": limits,
    })
}

/// OpenAI's clients try again after `rate_limit_exceeded` and give up after `insufficient_quota`.
fn openai(refusal: &Refusal, limit: &LimitState) -> Value {
    let code = if limit.is_quota { "insufficient_quota" } else { "rate_limit_exceeded" };
    let kind = match (limit.is_quota, limit.meter) {
        (true, _) => "insufficient_quota",
        (false, Meter::Requests) => "requests",
        (false, _) => "tokens",
    };
    json!({"error": {"message": detail(refusal, limit), "type": kind, "param": null, "code": code}})
}

fn title(reason: Reason) -> &'static str {
    match reason {
        Reason::OverLimit => "The limit is used up",
        Reason::TooLarge => "The request is larger than the limit",
        Reason::StoreUnavailable => "Limits cannot be checked now",
        Reason::TooManySubjects => "Too many subjects are limited at once",
    }
}

/// Says plainly that it was not the provider of the model who refused.
fn detail(refusal: &Refusal, limit: &LimitState) -> String {
    let show = |amount| limit.meter.show(amount);
    let stand = &limit.stand;
    let mut text = format!(
        "Refused by this service's own limit `{}` for {}: {} used",
        limit.name,
        limit.subject,
        show(stand.used)
    );
    if stand.held > 0 {
        write!(text, ", {} held for requests under way", show(stand.held)).expect("a text takes all that is written");
    }
    write!(text, ", of {}", show(stand.limit)).expect("a text takes all that is written");
    if let Some(window) = limit.window {
        write!(text, " in {}", in_words(window)).expect("a text takes all that is written");
    }
    if let Some(burst) = limit.burst.filter(|burst| *burst != stand.limit) {
        write!(text, " and {} at once", show(burst)).expect("a text takes all that is written");
    }
    match refusal.retry_after {
        Some(wait) => write!(text, ". Try again in {} s.", seconds_up(wait)),
        None => write!(text, ". Waiting does not help."),
    }
    .expect("a text takes all that is written");
    text
}

/// One limit, as bodies show it.
#[derive(Serialize)]
pub(super) struct Shown<'a> {
    name: &'a str,
    meter: &'static str,
    unit: &'static str,
    subject: &'a Subject,
    limit: Figure,
    burst: Option<Figure>,
    used: Figure,
    held: Figure,
    remaining: Figure,
    period_seconds: Option<f64>,
    reset_after_seconds: Option<u64>,
    /// Of a check; who only looks is told of no decision.
    decision: Option<&'static str>,
    threshold: Option<f64>,
}

pub(super) fn shown(limit: &LimitState) -> Shown<'_> {
    let amount = |amount| limit.meter.figure(amount);
    Shown {
        name: &limit.name,
        meter: limit.meter.label(),
        unit: limit.meter.unit(),
        subject: &limit.subject,
        limit: amount(limit.stand.limit),
        burst: limit.burst.map(amount),
        used: amount(limit.stand.used),
        held: amount(limit.stand.held),
        remaining: amount(limit.stand.remaining),
        period_seconds: limit.window.map(|window| window.as_secs_f64()),
        reset_after_seconds: limit.stand.reset.map(|nanos| seconds_up(Duration::from_nanos(nanos))),
        decision: limit.decision,
        threshold: limit.warning.map(|share| f64::from(share) / 1e3),
    }
}

/// The limit of which least is left, as a share.
fn tightest(limits: &[LimitState]) -> Option<usize> {
    let share =
        |limit: &LimitState| i128::from(limit.stand.remaining) * 1_000_000 / i128::from(limit.stand.limit.max(1));
    (0..limits.len()).min_by_key(|place| share(&limits[*place]))
}

/// `RateLimit-Policy` and `RateLimit` of every limit; `X-RateLimit-*` of the one that matters most.
fn limit_headers(headers: &mut HeaderMap, limits: &[LimitState], most: Option<usize>) {
    let policies = limits.iter().map(policy).collect::<Vec<_>>().join(", ");
    let states = limits.iter().map(current).collect::<Vec<_>>().join(", ");
    insert(headers, "ratelimit-policy", &policies);
    insert(headers, "ratelimit", &states);
    let Some(limit) = most.map(|place| &limits[place]) else { return };
    insert(headers, "x-ratelimit-limit", &limit.stand.limit.to_string());
    insert(headers, "x-ratelimit-remaining", &limit.stand.remaining.to_string());
    if let Some(reset) = limit.stand.reset {
        insert(headers, "x-ratelimit-reset", &seconds_up(Duration::from_nanos(reset)).to_string());
    }
}

/// `"name";q=100;w=60`; a unit that is not registered has the vendor's prefix.
fn policy(limit: &LimitState) -> String {
    let mut text = format!("\"{}\";q={}", limit.name, limit.stand.limit);
    if let Some(window) = limit.window {
        write!(text, ";w={}", seconds_up(window)).expect("a text takes all that is written");
    }
    match limit.meter {
        Meter::Requests => text.push_str(";qu=\"requests\""),
        Meter::Cost => text.push_str(";qu=\"tacho-nanousd\""),
        Meter::Tokens | Meter::InputTokens | Meter::OutputTokens => text.push_str(";qu=\"tacho-tokens\""),
    }
    text
}

/// `"name";r=50;t=30`.
fn current(limit: &LimitState) -> String {
    let mut text = format!("\"{}\";r={}", limit.name, limit.stand.remaining);
    if let Some(reset) = limit.stand.reset {
        write!(text, ";t={}", seconds_up(Duration::from_nanos(reset))).expect("a text takes all that is written");
    }
    text
}

fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if value.is_empty() {
        return;
    }
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

/// Whole seconds, rounded up: whoever waits that long has waited enough.
fn seconds_up(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}
