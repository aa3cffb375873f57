//! `/v1/usage` and `/v1/usage/summary`: the records and their sums, filtered; JSON, or CSV for the records.

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::Deserialize;

use super::Handles;
use crate::domain::time::Timestamp;
use crate::persist::{Group, Page, PersistError, RecordFilter, RecordRow, Store};

/// Most records in one answer.
const LARGEST_PAGE: u32 = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UsageQuery {
    tenant: Option<String>,
    user: Option<String>,
    endpoint: Option<String>,
    model: Option<String>,
    trace_id: Option<String>,
    since: Option<String>,
    until: Option<String>,
    /// The `id` of the last record of the page before.
    after: Option<i64>,
    limit: Option<u32>,
    /// `json` or `csv`.
    format: Option<String>,
    /// Of the summary: user, model, endpoint or day.
    by: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum UsageError {
    #[error("`{name}` is neither a date nor a time: `{value}`")]
    Time { name: &'static str, value: String },
    #[error("`{name}` is not one of {known}")]
    Choice { name: &'static str, known: &'static str },
    #[error("the database cannot be read now")]
    Database(#[from] PersistError),
    #[error("the database could not be opened yet")]
    NotOpen,
    #[error("the records could not be written as CSV")]
    Csv,
}

impl IntoResponse for UsageError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Time { .. } | Self::Choice { .. } => StatusCode::BAD_REQUEST,
            Self::Database(_) | Self::NotOpen => StatusCode::SERVICE_UNAVAILABLE,
            Self::Csv => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(serde_json::json!({"title": self.to_string(), "status": status.as_u16()}))).into_response()
    }
}

impl Handles {
    fn store(&self) -> Result<&Store, UsageError> {
        self.store.get().ok_or(UsageError::NotOpen)
    }
}

pub(super) async fn records(
    State(handles): State<Handles>,
    Query(query): Query<UsageQuery>,
) -> Result<Response, UsageError> {
    let limit = query.limit.unwrap_or(100).clamp(1, LARGEST_PAGE);
    let page = Page { after: query.after, limit };
    let rows = handles.store()?.records(&query.filter()?, page).await?;
    match query.format.as_deref() {
        None | Some("json") => {
            // A full page may have a next one.
            let next = rows.last().filter(|_| rows.len() == limit as usize).map(|row| row.id);
            Ok(Json(serde_json::json!({"records": rows, "next_after": next})).into_response())
        }
        Some("csv") => Ok(([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], csv(&rows)?).into_response()),
        Some(_) => Err(UsageError::Choice { name: "format", known: "json, csv" }),
    }
}

pub(super) async fn summary(
    State(handles): State<Handles>,
    Query(query): Query<UsageQuery>,
) -> Result<Response, UsageError> {
    let group = match query.by.as_deref() {
        None | Some("user") => Group::User,
        Some("model") => Group::Model,
        Some("endpoint") => Group::Endpoint,
        Some("day") => Group::Day,
        Some(_) => return Err(UsageError::Choice { name: "by", known: "user, model, endpoint, day" }),
    };
    let rows = handles.store()?.summary(group, &query.filter()?).await?;
    Ok(Json(serde_json::json!({"summary": rows})).into_response())
}

impl UsageQuery {
    fn filter(&self) -> Result<RecordFilter, UsageError> {
        let time = |name, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => {
                Timestamp::parse(text).map(Some).ok_or_else(|| UsageError::Time { name, value: text.clone() })
            }
        };
        Ok(RecordFilter {
            tenant: self.tenant.clone(),
            user: self.user.clone(),
            endpoint: self.endpoint.clone(),
            model: self.model.clone(),
            trace_id: self.trace_id.clone(),
            since: time("since", &self.since)?,
            until: time("until", &self.until)?,
        })
    }
}

fn csv(rows: &[RecordRow]) -> Result<Vec<u8>, UsageError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    rows.iter().try_for_each(|row| writer.serialize(row)).map_err(|_| UsageError::Csv)?;
    writer.into_inner().map_err(|_| UsageError::Csv)
}
