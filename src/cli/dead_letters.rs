//! `tacho dead-letters`: documents that a sink would never take, and sending them once more.

use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use serde::Serialize;

use super::actor::act;
use super::export::{ExportError, open};
use crate::config::Config;
use crate::export::retry;
use crate::persist::{Done, ExportDeadLetter, RecordChange, RecordState, Store};
use tacho_core::domain::time::Timestamp;

/// Letters in a list; who has more must mend their cause, not read on.
const MOST: u32 = 1_000;

#[derive(Args)]
pub(super) struct DeadLettersArguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// What was set aside, with what the sink said.
    List {
        /// Only of this sink.
        #[arg(long)]
        sink: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// One of them, with the record as it is now, as JSON.
    Show {
        /// As `list` names it.
        document: String,
        #[arg(long)]
        sink: String,
    },
    /// Send them once more, as the records are now. What is refused again stays.
    Retry {
        #[arg(long)]
        sink: SinkName,
    },
}

/// A sink that can be sent to.
#[derive(Clone, Copy, clap::ValueEnum)]
enum SinkName {
    Elasticsearch,
}

#[derive(Serialize)]
struct Shown<'a> {
    sink: &'a str,
    stream: &'static str,
    document: String,
    revision: i64,
    reason: &'a str,
    created_at: String,
}

pub(super) async fn dead_letters(
    config: &Config,
    arguments: &DeadLettersArguments,
    now: Timestamp,
) -> Result<String, ExportError> {
    match &arguments.what {
        What::List { sink, json } => {
            let store = Store::open_existing(config.database(), "dead letters").await?;
            let found = store.export_dead_letters(sink.as_deref(), None, MOST).await;
            store.close().await;
            let letters = found?;
            if *json {
                let shown: Vec<_> = letters.iter().map(shown).collect();
                return Ok(serde_json::to_string_pretty(&serde_json::json!({"dead_letters": shown}))?);
            }
            Ok(as_table(&letters))
        }
        What::Show { document, sink } => show(config, document, sink).await,
        What::Retry { sink: SinkName::Elasticsearch } => {
            let export = open(config, "elasticsearch").await?;
            let done = Done::on("dead_letters.retry", export.sink.name().to_owned());
            export.store.note(&act(None, now), &[done]).await?;
            let tried = retry(&export).await;
            export.store.close().await;
            let (went, stay) = tried?;
            Ok(format!("{went} sent, {stay} refused again"))
        }
    }
}

async fn show(config: &Config, document: &str, sink: &str) -> Result<String, ExportError> {
    let no_such = || ExportError::NoLetter { sink: sink.to_owned(), document: document.to_owned() };
    let key = document.parse().map_err(|_| no_such())?;
    let store = Store::open_existing(config.database(), "dead letters").await?;
    let found = async {
        let letter = store.export_dead_letter(sink, &key).await?;
        let states = store.states_of(&key.record().into_iter().collect::<Vec<_>>()).await?.0;
        Ok::<_, ExportError>((letter, states))
    };
    let found = found.await;
    store.close().await;
    let (letter, states) = found?;
    let letter = letter.ok_or_else(no_such)?;
    let record = states.into_iter().map(|RecordChange { state, .. }| state).find_map(|state| match state {
        RecordState::Live(record, calls) => Some(serde_json::json!({"record": record, "calls": calls})),
        RecordState::Gone => None,
    });
    Ok(serde_json::to_string_pretty(&serde_json::json!({"dead_letter": shown(&letter), "now": record}))?)
}

fn shown(letter: &ExportDeadLetter) -> Shown<'_> {
    Shown {
        sink: &letter.sink,
        stream: letter.stream.label(),
        document: letter.key.to_string(),
        revision: letter.revision,
        reason: &letter.reason,
        created_at: letter.created_at.to_string(),
    }
}

fn as_table(letters: &[ExportDeadLetter]) -> String {
    if letters.is_empty() {
        return "nothing was set aside".to_owned();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["sink", "document", "revision", "since", "reason"]);
    for letter in letters {
        table.add_row([
            &letter.sink,
            &letter.key.to_string(),
            &letter.revision.to_string(),
            &letter.created_at.to_string(),
            &letter.reason,
        ]);
    }
    table.trim_fmt()
}
