//! `/v1/usage` and `/v1/usage/summary`: the records and their sums, filtered; JSON, or CSV for the records.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;
use serde::Deserialize;

use super::extract::Query;
use super::problem::Problem;
use super::spreadsheet;
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
        Some("csv") => Ok(([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], csv(rows)?).into_response()),
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

fn csv(rows: Vec<RecordRow>) -> Result<Vec<u8>, Problem> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    rows.into_iter().try_for_each(|row| writer.serialize(plain(row))).map_err(|_| Problem::Csv)?;
    writer.into_inner().map_err(|_| Problem::Csv)
}

/// What others name must not be a formula in the spreadsheet that opens it.
fn plain(mut row: RecordRow) -> RecordRow {
    let named = [&mut row.tenant, &mut row.plan];
    let maybe_named = [
        &mut row.user_id,
        &mut row.endpoint,
        &mut row.method,
        &mut row.error_message,
        &mut row.service,
        &mut row.instance,
        &mut row.agent_id,
        &mut row.session_id,
        &mut row.model,
    ];
    for text in named.into_iter().chain(maybe_named.into_iter().flatten()) {
        *text = spreadsheet::text(text);
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_no_formula_and_a_number_stays_one() {
        let text = |column: &str| match column {
            "user_id" => serde_json::json!("=HYPERLINK(\"http://x\")"),
            "tenant" => serde_json::json!("@acme"),
            "response_time_ms" => serde_json::json!(1.5),
            "cost_nanousd" => serde_json::json!(-5),
            "plan" | "started_at" | "trace_id" | "span_id" | "created_at" | "updated_at" => serde_json::json!("p"),
            "free_request" => serde_json::json!(false),
            _ => serde_json::json!(0),
        };
        let numbers = "id total_tokens llm_calls llm_errors input_tokens output_tokens cached_input_tokens \
                       cache_write_tokens reasoning_tokens unknown_usage_calls unpriced_calls revision change_seq";
        let texts = "user_id tenant response_time_ms cost_nanousd plan started_at trace_id span_id created_at updated_at \
                     free_request";
        let columns = numbers.split_whitespace().chain(texts.split_whitespace());
        let row: serde_json::Map<String, serde_json::Value> =
            columns.map(|column| (column.to_owned(), text(column))).collect();
        let row = serde_json::from_value(row.into()).unwrap();
        let written = String::from_utf8(csv(vec![row]).unwrap()).unwrap();
        let line = written.lines().nth(1).unwrap();
        assert!(line.contains(r#",'@acme,"'=HYPERLINK(""http://x"")","#) && line.contains(",-5,"), "{line}");
    }
}
