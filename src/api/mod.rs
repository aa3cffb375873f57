//! The HTTP face on the port for everything that is not OTLP: health, metrics, usage, accounts, limits. It reads the
//! handles it is given, and changes nothing but accounts and holds, when somebody says so.

mod accept;
mod accounts;
mod changes;
mod check;
mod explain;
mod exposition;
mod extract;
mod problem;
mod refusal;
mod spreadsheet;
mod usage;

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, StatusCode, header};

use crate::auth::{Guard, Need, Role, problem, wrong_method};
use crate::limit::Limits;
use crate::persist::Store;
use tacho_core::assemble::Resolver;
use tacho_core::domain::time::Timestamp;

pub(crate) use explain::{CallShown as ExplainedCall, Span as ExplainedSpan, Trace as ExplainedTrace, explained};
pub(crate) use exposition::Expositions;
pub(crate) use spreadsheet::text as spreadsheet_text;

/// A limit as bodies show it.
pub(crate) fn limit_body(limit: &crate::limit::LimitState) -> impl serde::Serialize + '_ {
    refusal::shown(limit)
}

/// What the face shows.
#[derive(Clone)]
pub(crate) struct Handles {
    pub expositions: Arc<Expositions>,
    /// There once the database could be opened.
    pub store: Arc<OnceLock<Store>>,
    pub limits: Arc<Limits>,
    /// What made the records, for whoever asks why.
    pub resolver: Arc<Resolver>,
    /// Why no spans are taken now, if so.
    pub not_ready: Arc<dyn Fn() -> Option<&'static str> + Send + Sync>,
    /// What time it is.
    pub now: fn() -> Timestamp,
}

/// Most rows in one answer.
const LARGEST_PAGE: u32 = 1_000;
/// A wish is a few words.
const LARGEST_BODY: usize = 64 * 1024;

/// What is served on the port for everything that is not OTLP; the metrics, unless they have a listener of their own.
pub(crate) fn router(handles: Handles, guard: &Guard, with_metrics: bool) -> Router {
    let needs = |role| guard.before(Need::Role(role));
    let read = Router::new()
        .route("/v1/usage", get(usage::records))
        .route("/v1/usage/summary", get(usage::summary))
        .route("/v1/usage/changes", get(changes::changes))
        .route("/v1/traces/{id}/explain", get(explain::explain))
        .route("/v1/limits", get(check::limits))
        .route("/v1/accounts", get(accounts::list))
        .route("/v1/accounts/{tenant}/{user}", get(accounts::show));
    let check = Router::new()
        .route("/v1/check", post(check::check))
        .route("/v1/settle", post(check::settle))
        .route("/v1/release", post(check::release));
    let admin = Router::new()
        .route("/v1/accounts/{tenant}/{user}/plan", post(accounts::set_plan))
        .route("/v1/accounts/{tenant}/{user}/reset", post(accounts::reset));
    let guarded = [(read, Role::Read), (check, Role::Check), (admin, Role::Admin)];
    let guarded =
        guarded.map(|(router, role)| router.method_not_allowed_fallback(wrong_method).route_layer(needs(role)));
    let all = guarded.into_iter().fold(health(guard), Router::merge);
    let all = if with_metrics { all.merge(exposition(guard)) } else { all };
    finished(all, handles, guard)
}

/// What is served where metrics have a listener of their own.
pub(crate) fn metrics_router(handles: Handles, guard: &Guard) -> Router {
    finished(health(guard).merge(exposition(guard)), handles, guard)
}

fn health(guard: &Guard) -> Router<Handles> {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .method_not_allowed_fallback(wrong_method)
        .route_layer(guard.before(Need::Nothing))
}

fn exposition(guard: &Guard) -> Router<Handles> {
    let router = Router::new().route("/metrics", get(metrics)).method_not_allowed_fallback(wrong_method);
    router.route_layer(guard.before(Need::Metrics))
}

fn finished(router: Router<Handles>, handles: Handles, guard: &Guard) -> Router {
    router.fallback_service(guard.not_found()).layer(DefaultBodyLimit::max(LARGEST_BODY)).with_state(handles)
}

async fn metrics(State(handles): State<Handles>, headers: HeaderMap) -> Response {
    let openmetrics = accept::wants_openmetrics(&headers);
    match handles.expositions.text(openmetrics).await {
        Ok(text) => ([(header::CONTENT_TYPE, accept::content_type(openmetrics))], text).into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn ready(State(handles): State<Handles>) -> Response {
    match (handles.not_ready)() {
        None => "ready\n".into_response(),
        Some(reason) => problem(StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}
