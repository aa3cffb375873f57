//! `tacho export`: how far the sinks are, and sending again what they were sent before.

use std::time::Duration;

use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::actor::act;
use super::report::{self, grouped};
use crate::app;
use crate::config::Config;
use crate::export::{self, Export, NotInstalled, NotSent, Refill, Refilled, Sink, SinkError};
use crate::metrics::Metrics;
use crate::persist::{Done, PersistError, Span, Store, Stream};
use tacho_core::domain::time::{Timestamp, in_words};

#[derive(Args)]
pub(super) struct ExportArguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// How far each sink is, who serves it, and what it would not take.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Send the records of a time to Elasticsearch or OpenSearch again. What is there already in this state stays as it
    /// is, and where the sink stands in the feed does not change.
    Elasticsearch(Time),
}

#[derive(Args)]
pub(super) struct Time {
    /// Records that started since: a duration back from now (`7d`, `12h`), a date or a time.
    #[arg(long)]
    since: String,
    /// Records that started before this date or time; until now if not given.
    #[arg(long)]
    until: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    #[error(transparent)]
    Time(#[from] report::ReportError),
    #[error("sink {0} is not configured: [export.{0}] names no target")]
    NotConfigured(&'static str),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("database")]
    Database(#[from] PersistError),
    #[error(transparent)]
    NotSent(#[from] NotSent),
    #[error(transparent)]
    NotInstalled(#[from] NotInstalled),
    #[error("sink {sink} has no dead letter {document}")]
    NoLetter { sink: String, document: String },
    #[error("stopped after {documents} documents; go on with --since {since}")]
    Interrupted { documents: u64, since: Timestamp },
    #[error("status could not be written")]
    Json(#[from] serde_json::Error),
}

pub(super) async fn export(
    config: &Config,
    arguments: &ExportArguments,
    now: Timestamp,
) -> Result<String, ExportError> {
    match &arguments.what {
        What::Status { json } => {
            let store = Store::open_existing(config.database(), "export status").await?;
            let found = status(&store, now).await;
            store.close().await;
            let sinks = found?;
            Ok(if *json {
                serde_json::to_string_pretty(&serde_json::json!({"sinks": sinks}))?
            } else {
                as_table(&sinks)
            })
        }
        What::Elasticsearch(time) => {
            let span = Span {
                since: report::time(&time.since, now)?,
                until: time.until.as_deref().map_or(Ok(now), |until| report::time(until, now))?,
            };
            let export = open(config, "elasticsearch").await?;
            let mut done = Done::on("export.refill", export.sink.name().to_owned());
            let (from, to) = (span.since.to_string(), span.until.to_string());
            done.after = Some(serde_json::json!({"since": from, "until": to}));
            export.store.note(&act(None, now), &[done]).await?;
            let sent = refill(&export, span).await;
            export.store.close().await;
            sent
        }
    }
}

/// The sink of this name with the database, for a verb.
pub(super) async fn open(config: &Config, name: &'static str) -> Result<Export, ExportError> {
    let sink = sink(config, name)?;
    let store = Store::open_existing(config.database(), "export").await?;
    let meters = app::export_meters(&Metrics::default(), &sink);
    Ok(Export { sink, store, meters, now: app::now })
}

pub(super) fn sink(config: &Config, name: &'static str) -> Result<Sink, ExportError> {
    let sinks = export::sinks(&config.export)?.into_iter();
    sinks.map(|(sink, _)| sink).find(|sink| sink.name() == name).ok_or(ExportError::NotConfigured(name))
}

async fn refill(export: &Export, span: Span) -> Result<String, ExportError> {
    let bar = bar(export.store.count_between(span).await?);
    let mut refill = Refill::new(export.clone(), span);
    let (mut done, mut told) = (Refilled::default(), None);
    loop {
        let step = tokio::select! {
            step = refill.step() => step?,
            _ = tokio::signal::ctrl_c() => {
                return Err(ExportError::Interrupted { documents: done.finished, since: done.until.unwrap_or(span.since) });
            }
        };
        match step {
            Some(now) => done = now,
            None => break,
        }
        bar.set_position(done.finished);
        let complaint = refill.complaint().map(str::to_owned);
        if complaint != told {
            if let Some(reason) = &complaint {
                super::say_error(&format!("the sink takes nothing now and is tried again: {reason}"));
            }
            told = complaint;
        }
    }
    bar.finish_and_clear();
    let aside = match done.set_aside {
        0 => String::new(),
        letters => format!(", {} of them set aside (tacho dead-letters list)", grouped_count(letters)),
    };
    Ok(format!("{} documents sent to {}{aside}", grouped_count(done.finished), export.sink.name()))
}

fn grouped_count(count: u64) -> String {
    grouped(i64::try_from(count).unwrap_or(i64::MAX))
}

/// On a terminal; nothing where the output goes elsewhere.
fn bar(documents: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {per_sec} {eta}");
    ProgressBar::new(documents).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[derive(Serialize)]
struct SinkStatus {
    sink: String,
    stream: &'static str,
    cursor: String,
    /// What started earlier is left out.
    since: Option<String>,
    lag_seconds: f64,
    /// The instance that exports.
    holder: Option<String>,
    moved_at: String,
    dead_letters: u64,
}

async fn status(store: &Store, now: Timestamp) -> Result<Vec<SinkStatus>, PersistError> {
    let mut sinks = Vec::new();
    for cursor in store.export_cursors().await? {
        let lacking = store.lacking_since(&cursor).await?;
        sinks.push(SinkStatus {
            lag_seconds: lacking.map_or(0.0, |since| now.since(since).as_secs_f64()),
            dead_letters: store.count_export_dead_letters(&cursor.sink, cursor.stream).await?,
            sink: cursor.sink,
            stream: Stream::label(cursor.stream),
            cursor: cursor.cursor.to_string(),
            since: cursor.since.map(|since| since.to_string()),
            holder: cursor.holder,
            moved_at: cursor.updated_at.to_string(),
        });
    }
    Ok(sinks)
}

fn as_table(sinks: &[SinkStatus]) -> String {
    if sinks.is_empty() {
        return "no sink has begun yet".to_owned();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["sink", "stream", "behind", "moved", "served by", "dead letters"]);
    for sink in sinks {
        let behind = in_words(Duration::from_secs(sink.lag_seconds.max(0.0) as u64));
        let holder = sink.holder.as_deref().unwrap_or("nobody");
        table.add_row([&sink.sink, sink.stream, &behind, &sink.moved_at, holder, &sink.dead_letters.to_string()]);
    }
    table.trim_fmt()
}
