//! Elasticsearch and OpenSearch: one document for each record in a monthly index. Its version is external, so whatever is sent again
//! changes nothing.

mod answer;
mod client;
mod config;
mod document;
mod setup;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::SinkError;
use super::delivery::{Trouble, Verdict};
use super::pace::Hold;
use crate::persist::{LimitEventRow, RecordChange, Stream};
use client::Client;

pub use config::ElasticsearchConfig;
pub use setup::{Installed, NotInstalled};

pub(super) const NAME: &str = "elasticsearch";
/// While limit events go to monthly indexes, how often the server is asked whether there is a data stream for them by now.
const ASK_AGAIN: Duration = Duration::from_secs(60);

pub struct Elasticsearch {
    config: ElasticsearchConfig,
    client: Client,
    /// It was seen whether the templates are there.
    is_prepared: AtomicBool,
    limits: Mutex<Option<(Limits, Instant)>>,
}

/// Where limit events go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limits {
    DataStream,
    Monthly,
}

impl Elasticsearch {
    /// `None` while no node is configured.
    pub(super) fn new(config: &ElasticsearchConfig) -> Result<Option<Self>, SinkError> {
        if config.urls.is_empty() {
            return Ok(None);
        }
        let client = Client::new(config).map_err(|problem| SinkError { sink: NAME, problem })?;
        let (config, limits) = (config.clone(), Mutex::new(None));
        Ok(Some(Self { config, client, is_prepared: AtomicBool::new(false), limits }))
    }

    pub(super) async fn prepare(&self, stream: Stream) -> Result<(), Hold> {
        match stream {
            Stream::Usage => self.look_for_template().await,
            Stream::Limits => self.look_for_data_stream().await,
        }
    }

    /// Without a template the server guesses the mappings. What it guesses can be summed, but stays for the month.
    async fn look_for_template(&self) -> Result<(), Hold> {
        if self.is_prepared.load(Ordering::Relaxed) {
            return Ok(());
        }
        let path = format!("/_index_template/{}", self.config.index);
        if self.client.get(&path).await?.status == 404 {
            tracing::warn!(template = %self.config.index, "index template is missing; run `tacho setup elasticsearch`");
        }
        self.is_prepared.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn look_for_data_stream(&self) -> Result<(), Hold> {
        let known = self.limits();
        let is_settled = known.is_some_and(|(limits, at)| limits == Limits::DataStream || at.elapsed() < ASK_AGAIN);
        if is_settled {
            return Ok(());
        }
        let template = self.client.get(&format!("/_index_template/{}", self.config.limits_stream)).await?;
        let has_stream = template.status == 200 && String::from_utf8_lossy(&template.body).contains("\"data_stream\"");
        let limits = if has_stream { Limits::DataStream } else { Limits::Monthly };
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = Some((limits, Instant::now()));
        Ok(())
    }

    fn limits(&self) -> Option<(Limits, Instant)> {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn record(&self, change: &RecordChange, epoch: i64) -> Bytes {
        document::record(&self.config.index, change, epoch)
    }

    pub(super) fn event(&self, event: &LimitEventRow) -> Bytes {
        let is_stream = self.limits().is_some_and(|(limits, _)| limits == Limits::DataStream);
        document::event(&self.config.limits_stream, is_stream, event)
    }

    pub(super) async fn send(&self, documents: &[Bytes]) -> Result<Vec<Verdict>, Trouble> {
        let answer = self.client.bulk(documents).await.map_err(Trouble::Again)?;
        answer::verdicts(answer.status, &answer.body)
    }

    pub(super) async fn set_up(&self) -> Result<Installed, NotInstalled> {
        setup::set_up(&self.client, &self.config).await
    }
}
