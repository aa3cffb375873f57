//! `/v1/check`, `/v1/settle`, `/v1/release` and `/v1/limits`: the limits before, during and after a request.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use serde::Deserialize;

use super::Handles;
use super::extract::{Body, Query};
use super::problem::Problem;
use super::refusal::{self, Form};
use crate::limit::{Asked, Decision, Dollars, Origin, Reservation, Usage};
use tacho_core::domain::ids::{SpanId, TraceId};

/// The body of `/v1/check` and the query of `/v1/limits`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskedBody {
    tenant: Option<Box<str>>,
    user: Option<Box<str>>,
    endpoint: Option<Box<str>>,
    agent: Option<Box<str>>,
    model: Option<Box<str>>,
    trace_id: Option<String>,
    input_tokens: Option<u32>,
    max_output_tokens: Option<u32>,
}

/// The body of `/v1/settle`. What is not told was nothing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SettleBody {
    reservation: String,
    #[serde(default)]
    input_tokens: u32,
    #[serde(default)]
    output_tokens: u32,
    /// A number or a text of one.
    #[serde(default)]
    cost_usd: Dollars,
}

/// The body of `/v1/release`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReleaseBody {
    reservation: String,
}

pub(super) async fn check(
    State(handles): State<Handles>,
    headers: HeaderMap,
    Body(body): Body<AskedBody>,
) -> Result<Response, Problem> {
    let asked = body.asked(&headers)?;
    Ok(match handles.limits.check(&asked).await {
        Decision::Admit(admission) => refusal::allowed(&admission),
        Decision::Refuse(refused) => {
            refusal::refused(&refused, Form::wanted(&headers, handles.limits.config().refusal_format))
        }
    })
}

pub(super) async fn settle(State(handles): State<Handles>, Body(body): Body<SettleBody>) -> Result<Response, Problem> {
    let reservation = reservation(&body.reservation)?;
    let used = Usage {
        requests: 1,
        input_tokens: body.input_tokens.into(),
        output_tokens: body.output_tokens.into(),
        cost_nanousd: body.cost_usd.0.0,
    };
    if handles.limits.correct(reservation, &used) {
        Ok(Json(serde_json::json!({"settled": true})).into_response())
    } else {
        Err(Problem::NoReservation(reservation))
    }
}

pub(super) async fn release(
    State(handles): State<Handles>,
    Body(body): Body<ReleaseBody>,
) -> Result<Response, Problem> {
    let reservation = reservation(&body.reservation)?;
    // Once is as good as twice.
    let released = handles.limits.release(reservation);
    Ok(Json(serde_json::json!({"released": released})).into_response())
}

/// How the limits of one subject stand.
pub(super) async fn limits(
    State(handles): State<Handles>,
    Query(query): Query<AskedBody>,
) -> Result<Response, Problem> {
    let asked = query.asked(&HeaderMap::new())?;
    let states = handles.limits.show(&asked).await;
    let limits: Vec<_> = states.iter().map(refusal::shown).collect();
    Ok(Json(serde_json::json!({"limits": limits, "degraded": !states.is_empty() && handles.limits.store_is_away()}))
        .into_response())
}

fn reservation(text: &str) -> Result<Reservation, Problem> {
    let malformed =
        || Problem::Malformed { name: "reservation", wanted: "32 hex digits", value: text.chars().take(64).collect() };
    Reservation::parse(text).ok_or_else(malformed)
}

impl AskedBody {
    /// The header `traceparent` names the request where the body does not.
    fn asked(self, headers: &HeaderMap) -> Result<Asked, Problem> {
        let origin = match &self.trace_id {
            Some(text) => {
                let malformed = || Problem::Malformed {
                    name: "trace_id",
                    wanted: "a trace id of 32 hex digits",
                    value: text.chars().take(64).collect(),
                };
                let trace = TraceId::parse(text).ok_or_else(malformed)?;
                let parent = traceparent(headers).filter(|parent| parent.trace == Some(trace));
                Origin { trace: Some(trace), span: parent.and_then(|parent| parent.span) }
            }
            None => traceparent(headers).unwrap_or_default(),
        };
        Ok(Asked {
            tenant: self.tenant,
            user: self.user,
            endpoint: self.endpoint,
            agent: self.agent,
            model: self.model,
            origin,
            input_tokens: self.input_tokens,
            max_output_tokens: self.max_output_tokens,
        })
    }
}

/// The header of W3C Trace Context: version, trace id, parent id, flags. One that is malformed counts as absent, as it says there.
fn traceparent(headers: &HeaderMap) -> Option<Origin> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = text.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if version.len() != 2 || version == "ff" || flags.len() != 2 {
        return None;
    }
    Some(Origin { trace: Some(TraceId::parse(trace)?), span: SpanId::parse(span) })
}
