//! Records leave: each sink follows the feed of what was persisted, by a cursor in the database. One instance at a time serves a sink.
//! It never reads the pipeline, and nothing waits for it.

mod delivery;
mod elasticsearch;
mod follower;
mod pace;
mod pending;
mod refill;

use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use prometheus::IntCounter;
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::persist::{Cursor, FeedKey, LimitEventRow, RecordChange, Store, Stream};
use delivery::{Document, Trouble, Verdict};
use elasticsearch::Elasticsearch;
use follower::Follower;
use pace::Hold;
use tacho_core::domain::time::Timestamp;

pub use elasticsearch::ElasticsearchConfig;
pub use elasticsearch::{Installed, NotInstalled};
pub use refill::{NotSent, Refill, Refilled, retry};

/// The section `[export]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExportConfig {
    pub elasticsearch: ElasticsearchConfig,
}

/// Where a sink begins that is new to the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Start {
    #[default]
    Now,
    All,
    /// What started then or later.
    Since(Timestamp),
}

#[derive(Debug, thiserror::Error)]
#[error("sink {sink}: {problem}")]
pub struct SinkError {
    sink: &'static str,
    problem: String,
}

/// A target of records.
#[derive(Clone)]
pub enum Sink {
    Elasticsearch(Arc<Elasticsearch>),
}

/// What is counted of a sink.
#[derive(Clone)]
pub struct ExportMeters {
    pub written: IntCounter,
    /// Sent again later.
    pub failed: IntCounter,
    pub dead_letters: IntCounter,
}

/// A sink with all that its followers need.
#[derive(Clone)]
pub struct Export {
    pub sink: Sink,
    pub store: Store,
    pub meters: ExportMeters,
    /// What time it is.
    pub now: fn() -> Timestamp,
}

/// All sinks that are configured, with where each begins. Reads the files that the configuration names.
pub fn sinks(config: &ExportConfig) -> Result<Vec<(Sink, Start)>, SinkError> {
    let mut sinks = Vec::new();
    if let Some(elasticsearch) = Elasticsearch::new(&config.elasticsearch)? {
        sinks.push((Sink::Elasticsearch(Arc::new(elasticsearch)), config.elasticsearch.start));
    }
    Ok(sinks)
}

/// Follows the feed for this sink until `stop`, then gives the leases back.
pub fn follow(export: &Export, start: Start, stop: &CancellationToken) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for stream in Stream::ALL {
        tasks.spawn(Follower { export: export.clone(), stream, start, stop: stop.clone() }.run());
    }
    tasks
}

impl Sink {
    /// The name in the configuration, in metrics and in the database.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Elasticsearch(_) => elasticsearch::NAME,
        }
    }

    /// Learns from the target what must be known before documents of this stream are made.
    async fn prepare(&self, stream: Stream) -> Result<(), Hold> {
        match self {
            Self::Elasticsearch(sink) => sink.prepare(stream).await,
        }
    }

    fn record(&self, change: &RecordChange, epoch: i64) -> Document {
        let bytes = match self {
            Self::Elasticsearch(sink) => sink.record(change, epoch),
        };
        Document { key: FeedKey::Record(change.key), revision: change.revision, bytes }
    }

    fn event(&self, event: &LimitEventRow) -> Document {
        let bytes = match self {
            Self::Elasticsearch(sink) => sink.event(event),
        };
        Document { key: FeedKey::Event(event.id), revision: 1, bytes }
    }

    /// Sends these together. The verdicts are in the order of the documents.
    async fn send(&self, documents: &[Bytes]) -> Result<Vec<Verdict>, Trouble> {
        match self {
            Self::Elasticsearch(sink) => sink.send(documents).await,
        }
    }

    /// Installs what the target needs to know of our documents, and nothing else.
    pub async fn set_up(&self) -> Result<Installed, NotInstalled> {
        match self {
            Self::Elasticsearch(sink) => sink.set_up().await,
        }
    }
}

/// The place in the feed behind this change.
fn behind(epoch: i64, change: &RecordChange) -> Cursor {
    Cursor::behind(epoch, change.change_seq, FeedKey::Record(change.key))
}

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "now" => Ok(Self::Now),
            "all" => Ok(Self::All),
            date => Timestamp::parse(date)
                .map(Self::Since)
                .ok_or_else(|| "expected now, all, a date or a time (2026-11-01, 2026-11-01T00:00:00Z)".to_owned()),
        }
    }
}

impl TryFrom<String> for Start {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}
