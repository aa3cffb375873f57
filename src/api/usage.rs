//! `/v1/usage` and `/v1/usage/summary`: the records and their sums, filtered; JSON, or CSV for the records.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;
use serde::Deserialize;

use super::extract::Query;
use super::problem::Problem;
use super::{Handles, LARGEST_PAGE};
use crate::persist::{Group, Page, RecordFilter, RecordRow};
use tacho_core::domain::time::Timestamp;

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
    /// `next` of the page before.
    after: Option<String>,
    limit: Option<u32>,
    /// `json` or `csv`.
    format: Option<String>,
    /// Of the summary: user, model, endpoint or day.
    by: Option<String>,
}

pub(super) async fn records(
    State(handles): State<Handles>,
    Query(query): Query<UsageQuery>,
) -> Result<Response, Problem> {
    let limit = query.limit.unwrap_or(100).clamp(1, LARGEST_PAGE);
    let after = query.after.as_deref().map(|after| after.parse().map_err(|_| Problem::after(after))).transpose()?;
    let page = Page { after, limit };
    let rows = handles.store()?.records(&query.filter()?, page).await?;
    match query.format.as_deref() {
        None | Some("json") => {
            // A full page may have a next one.
            let next = rows.last().filter(|_| rows.len() == limit as usize).map(|row| row.id.to_string());
            Ok(Json(serde_json::json!({"records": rows, "next": next})).into_response())
        }
        Some("csv") => Ok(([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], csv(&rows)?).into_response()),
        Some(_) => Err(Problem::Choice { name: "format", known: "json, csv".to_owned() }),
    }
}

pub(super) async fn summary(
    State(handles): State<Handles>,
    Query(query): Query<UsageQuery>,
) -> Result<Response, Problem> {
    let group = match query.by.as_deref() {
        None | Some("user") => Group::User,
        Some("model") => Group::Model,
        Some("endpoint") => Group::Endpoint,
        Some("day") => Group::Day,
        Some(_) => return Err(Problem::Choice { name: "by", known: "user, model, endpoint, day".to_owned() }),
    };
    let rows = handles.store()?.summary(group, &query.filter()?).await?;
    Ok(Json(serde_json::json!({"summary": rows})).into_response())
}

impl UsageQuery {
    fn filter(&self) -> Result<RecordFilter, Problem> {
        let time = |name, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => Timestamp::parse(text).map(Some).ok_or_else(|| Problem::Time { name, value: text.clone() }),
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

fn csv(rows: &[RecordRow]) -> Result<Vec<u8>, Problem> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    rows.iter().try_for_each(|row| writer.serialize(row)).map_err(|_| Problem::Csv)?;
    writer.into_inner().map_err(|_| Problem::Csv)
}
