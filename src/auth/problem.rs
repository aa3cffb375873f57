//! The one shape of an error over HTTP: a problem by RFC 9457.

use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use serde_json::json;

/// The media type.
const PROBLEM: &str = "application/problem+json";

/// A problem that has no type of its own: its title is the phrase of the status, its detail says what happened.
pub fn problem(status: StatusCode, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or_default();
    let body = json!({"type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail});
    (status, [(header::CONTENT_TYPE, PROBLEM)], body.to_string()).into_response()
}

/// The answer where a route knows other methods; which ones is said in its headers.
pub async fn wrong_method() -> Response {
    problem(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method")
}
