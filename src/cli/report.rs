//! `tacho report`: what was used, grouped, as a table for people, JSON for programs or CSV for spreadsheets.

use std::time::Duration;

use clap::{Args, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};

use crate::api::spreadsheet_text;
use crate::config::Config;
use crate::persist::{Group, PersistError, RecordFilter, Store, SummaryRow};
use tacho_core::domain::money::NanoUsd;
use tacho_core::domain::time::Timestamp;

#[derive(Args)]
pub(super) struct ReportArguments {
    /// One line for each of these.
    #[arg(long, value_enum, default_value = "user")]
    by: By,
    /// Only requests since: a duration back from now (`7d`, `12h`), a date or a time.
    #[arg(long)]
    since: Option<String>,
    /// Only requests before this date or time.
    #[arg(long)]
    until: Option<String>,
    #[arg(long)]
    tenant: Option<String>,
    /// As JSON.
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// As CSV.
    #[arg(long)]
    csv: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum By {
    User,
    Model,
    Endpoint,
    Day,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ReportError {
    #[error("`{0}` is neither a duration such as 7d nor a date such as 2026-05-01")]
    Time(String),
    #[error("database")]
    Database(#[from] PersistError),
    #[error("report could not be written")]
    Write(#[from] csv::Error),
    #[error("report could not be written")]
    Json(#[from] serde_json::Error),
}

/// The whole report as text.
pub(super) async fn report(
    config: &Config,
    arguments: &ReportArguments,
    now: Timestamp,
) -> Result<String, ReportError> {
    let time = |text: &Option<String>| text.as_deref().map(|text| time(text, now)).transpose();
    let (since, until) = (time(&arguments.since)?, time(&arguments.until)?);
    let filter = RecordFilter { tenant: arguments.tenant.clone(), since, until, ..RecordFilter::default() };
    let group = match arguments.by {
        By::User => Group::User,
        By::Model => Group::Model,
        By::Endpoint => Group::Endpoint,
        By::Day => Group::Day,
    };
    let store = Store::open_existing(config.database(), "report").await?;
    let rows = store.summary(group, &filter).await;
    store.close().await;
    let rows = rows?;
    match (arguments.json, arguments.csv) {
        (true, _) => Ok(serde_json::to_string_pretty(&serde_json::json!({"summary": rows}))? + "\n"),
        (_, true) => as_csv(&rows),
        _ => Ok(as_table(group, &rows)),
    }
}

pub(super) fn time(text: &str, now: Timestamp) -> Result<Timestamp, ReportError> {
    let back = humantime_serde::re::humantime::parse_duration(text).ok().map(|back: Duration| now.minus(back));
    back.or_else(|| Timestamp::parse(text)).ok_or_else(|| ReportError::Time(text.to_owned()))
}

fn as_csv(rows: &[SummaryRow]) -> Result<String, ReportError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let plain = |row: &SummaryRow| SummaryRow { group: spreadsheet_text(&row.group), ..row.clone() };
    rows.iter().try_for_each(|row| writer.serialize(plain(row)))?;
    let bytes = writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Numbers to the right, a line of sums, and what is not known said in words.
fn as_table(group: Group, rows: &[SummaryRow]) -> String {
    if rows.is_empty() {
        return "nothing recorded yet\n".to_owned();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        group.label(),
        "requests",
        "calls",
        "errors",
        "input",
        "cached",
        "output",
        "USD",
        "ms",
        "unknown",
        "unpriced",
    ]);
    let sum = sum(group, rows);
    for row in rows.iter().chain([&sum]) {
        table.add_row(cells(row));
    }
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    let (unknown, unpriced) = (sum.unknown_usage_calls, sum.unpriced_calls);
    let mut text = format!("{}\n", table.trim_fmt());
    if rows.iter().chain([&sum]).any(is_cut) {
        text += &format!("{} is the greatest number: the sum is higher than shown\n", grouped(i64::MAX));
    }
    if unknown > 0 {
        text += &format!("{unknown} calls did not report their usage: tokens and cost are higher than shown\n");
    }
    if unpriced > 0 {
        text +=
            &format!("{unpriced} calls have no price, or not for all of their tokens: the cost is higher than shown\n");
    }
    text
}

/// Whether a sum of it stands at the greatest number.
fn is_cut(row: &SummaryRow) -> bool {
    let tokens = [row.input_tokens, row.output_tokens, row.cached_input_tokens, row.total_tokens];
    tokens.contains(&i64::MAX) || row.cost_nanousd == Some(i64::MAX)
}

fn cells(row: &SummaryRow) -> Vec<String> {
    let group = if row.group.is_empty() { "(none)" } else { &row.group };
    let cost = row.cost_nanousd.map_or_else(|| "unknown".to_owned(), |cost| NanoUsd(cost).to_string());
    let mut cells = vec![group.to_owned()];
    cells.extend([row.requests, row.llm_calls, row.llm_errors, row.input_tokens, row.cached_input_tokens].map(grouped));
    cells.extend([grouped(row.output_tokens), cost, format!("{:.0}", row.avg_duration_ms)]);
    cells.extend([row.unknown_usage_calls, row.unpriced_calls].map(grouped));
    cells
}

fn sum(by: Group, rows: &[SummaryRow]) -> SummaryRow {
    let total = |of: fn(&SummaryRow) -> i64| rows.iter().map(of).fold(0, i64::saturating_add);
    let (requests, costs) = (total(|row| row.requests), rows.iter().filter_map(|row| row.cost_nanousd));
    SummaryRow {
        by,
        group: "total".to_owned(),
        requests,
        llm_calls: total(|row| row.llm_calls),
        llm_errors: total(|row| row.llm_errors),
        input_tokens: total(|row| row.input_tokens),
        output_tokens: total(|row| row.output_tokens),
        cached_input_tokens: total(|row| row.cached_input_tokens),
        total_tokens: total(|row| row.total_tokens),
        cost_nanousd: costs.reduce(i64::saturating_add),
        unknown_usage_calls: total(|row| row.unknown_usage_calls),
        unpriced_calls: total(|row| row.unpriced_calls),
        avg_duration_ms: average(rows, requests),
    }
}

#[expect(clippy::cast_precision_loss, reason = "an average shown in whole milliseconds")]
fn average(rows: &[SummaryRow], requests: i64) -> f64 {
    let weighted: f64 = rows.iter().map(|row| row.avg_duration_ms * row.requests as f64).sum();
    weighted / requests.max(1) as f64
}

/// `1234567` → `1_234_567`.
pub(super) fn grouped(number: i64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) && digit.is_ascii_digit() && !text.ends_with('-') {
            text.push('_');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_duration_back_or_a_date() {
        let now = Timestamp::parse("2026-05-08T00:00:00Z").unwrap();
        assert_eq!(time("7d", now).unwrap().to_string(), "2026-05-01T00:00:00.000000Z");
        assert_eq!(time("2026-05-02", now).unwrap().to_string(), "2026-05-02T00:00:00.000000Z");
        assert!(time("last week", now).is_err());
    }

    #[test]
    fn the_first_column_is_named_after_what_it_groups_by() {
        let rows = [SummaryRow { group: "m1".to_owned(), requests: 2, avg_duration_ms: 1.5, ..sum(Group::Model, &[]) }];
        expect_test::expect![[r"
            model,requests,llm_calls,llm_errors,input_tokens,output_tokens,cached_input_tokens,total_tokens,cost_nanousd,unknown_usage_calls,unpriced_calls,avg_duration_ms
            m1,2,0,0,0,0,0,0,,0,0,1.5
        "]]
        .assert_eq(&as_csv(&rows).unwrap());
        assert!(as_table(Group::Model, &rows).trim_start().starts_with("model "));
    }

    #[test]
    fn no_name_is_a_formula_in_a_spreadsheet() {
        let named = |group: &str| {
            let row = SummaryRow {
                group: group.to_owned(),
                cost_nanousd: Some(-5),
                avg_duration_ms: 1.5,
                ..sum(Group::User, &[])
            };
            as_csv(&[row]).unwrap().lines().nth(1).unwrap().to_owned()
        };
        assert_eq!(named("=HYPERLINK(1)"), "'=HYPERLINK(1),0,0,0,0,0,0,0,-5,0,0,1.5");
        assert_eq!(named("ann-1"), "ann-1,0,0,0,0,0,0,0,-5,0,0,1.5");
    }

    #[test]
    fn a_sum_that_is_cut_is_said_to_be() {
        let row = |tokens| SummaryRow { total_tokens: tokens, ..sum(Group::User, &[]) };
        let said = |rows: &[SummaryRow]| as_table(Group::User, rows).contains("the sum is higher than shown");
        assert!(!said(&[row(7)]) && said(&[row(i64::MAX)]) && said(&[row(i64::MAX - 1), row(1)]));
    }

    #[test]
    fn digits_are_grouped() {
        assert_eq!([0, 999, 1_000, 1_234_567, -123_456].map(grouped), ["0", "999", "1_000", "1_234_567", "-123_456"]);
    }
}
