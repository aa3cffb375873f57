//! `tacho explain`: the spans of a trace as a tree, and for each what it was taken for and why.

use std::fmt::Write;

use clap::Args;

use super::verify::plain;
use crate::api::{ExplainedCall, ExplainedSpan, ExplainedTrace, explained};
use crate::config::Config;
use crate::persist::{PersistError, Store};
use tacho_core::assemble::Resolver;
use tacho_core::domain::ids::TraceId;
use tacho_core::domain::money::NanoUsd;
use tacho_core::domain::time::Timestamp;

#[derive(Args)]
pub(super) struct ExplainArguments {
    /// The id of the trace: 32 hexadecimal digits.
    trace_id: String,
    #[arg(long)]
    json: bool,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ExplainError {
    #[error("`{0}` is no id of a trace: 32 hexadecimal digits are")]
    NoId(String),
    #[error("nothing is known of trace {0}: it never came, or it is not quiet yet")]
    NoTrace(TraceId),
    #[error("database")]
    Database(#[from] PersistError),
    #[error("the explanation could not be written")]
    Json(#[from] serde_json::Error),
}

pub(super) async fn explain(
    config: &Config,
    arguments: &ExplainArguments,
    now: Timestamp,
) -> Result<String, ExplainError> {
    let id = &arguments.trace_id;
    let trace_id = TraceId::parse(id).ok_or_else(|| ExplainError::NoId(id.clone()))?;
    let store = Store::open_existing(config.database(), "explain").await?;
    let found = explained(&store, &Resolver::new(&config.assemble), trace_id, now).await;
    store.close().await;
    let trace = found?.ok_or(ExplainError::NoTrace(trace_id))?;
    if arguments.json { Ok(serde_json::to_string_pretty(&trace)?) } else { Ok(as_tree(&trace)) }
}

fn as_tree(trace: &ExplainedTrace) -> String {
    let mut text = format!("trace {}\n", trace.trace_id);
    for span in &trace.spans {
        let indent = "  ".repeat(span.depth);
        let name = span.name.as_deref().map_or_else(|| span.kind.to_lowercase(), plain);
        let failed = if span.failed { ", failed" } else { "" };
        text += &format!(
            "{indent}{} {name} [{}] {:.0} ms{failed}\n",
            short(&span.span_id),
            plain(&span.scope),
            span.duration_ms
        );
        text += &format!("{indent}    {}\n", verdict(span));
        if let Some(call) = &span.call {
            text += &format!("{indent}    {}\n", used(call, &span.keys));
        }
    }
    for record in &trace.records {
        let user = record.user_id.as_deref().map_or_else(|| "nobody".to_owned(), plain);
        let asked = [record.method.as_deref(), record.endpoint.as_deref()].into_iter().flatten().map(plain);
        let asked = asked.collect::<Vec<_>>().join(" ");
        let status = record.status_code.map_or_else(String::new, |status| format!(" {status}"));
        write!(text, "record {} of {user}: {asked}{status}, {} calls", short(&record.span_id), record.llm_calls).ok();
        write!(text, ", {} tokens in, {} out", record.input_tokens, record.output_tokens).ok();
        let cost = record.cost_nanousd.map_or_else(|| "cost unknown".to_owned(), dollars);
        writeln!(text, ", {cost}").ok();
        for (count, what) in
            [(record.unknown_usage_calls, "of unknown usage"), (record.unpriced_calls, "without a whole price")]
        {
            if count > 0 {
                writeln!(text, "    calls {what}: {count}").ok();
            }
        }
    }
    text.trim_end().to_owned()
}

fn verdict(span: &ExplainedSpan) -> String {
    let of = span.of.as_deref().map_or_else(String::new, |of| format!(" of {}", short(of)));
    format!("{}{of}: {}", span.taken_for.replace('_', " "), span.why)
}

fn used(call: &ExplainedCall, keys: &[&str]) -> String {
    let model = call.model.as_deref().map_or_else(|| "no model".to_owned(), plain);
    let provider = call.provider.as_deref().map_or_else(String::new, |provider| format!(" of {}", plain(provider)));
    let usage = match call.unknown_reason {
        Some(reason) => format!("usage unknown ({reason})"),
        None => {
            let parts = [("cached", call.cached_input_tokens), ("written to a cache", call.cache_write_tokens)];
            let parts = parts.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!(", {count} {name}"));
            let from = if keys.is_empty() { String::new() } else { format!(", by {}", keys.join(" and ")) };
            format!("{} tokens in{}, {} out{from}", call.input_tokens, parts.collect::<String>(), call.output_tokens)
        }
    };
    let cost = match (call.cost_nanousd, call.price_version.as_deref()) {
        (Some(cost), Some(version)) => format!("{} by {}", dollars(cost), plain(version)),
        _ => "no price".to_owned(),
    };
    let partly = if call.lacks_price && call.cost_nanousd.is_some() { ", not all of it at its own price" } else { "" };
    format!("{model}{provider}: {usage}; {cost}{partly}")
}

fn dollars(nano: i64) -> String {
    format!("${}", NanoUsd(nano))
}

/// The first digits of a span's id tell it from its neighbours.
fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}
