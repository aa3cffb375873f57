//! Alerts on their way: to each Alertmanager apart, so that one that is away or slow keeps no other from its notices. Nothing is
//! tried again: what is still true is said again in the next round.

use std::time::Duration;

use bytes::Bytes;
use prometheus::IntCounterVec;
use reqwest::{Certificate, Client, Url, header, redirect};
use tokio::sync::mpsc;

use super::alert::Alert;
use super::{Endpoint, NotifyConfig};
use crate::remote::{CertificateFiles, Misconfigured};
use crate::telemetry::chain;

/// For all of it, from the name to the answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Alerts in one message: some hundred kilobytes.
const BATCH: usize = 200;
/// Messages that wait for an Alertmanager: two rounds of all notices there may be.
const WAITING: usize = 10;

#[derive(Debug, thiserror::Error)]
pub enum NotBuilt {
    #[error("client for Alertmanager cannot be made")]
    Client(#[from] reqwest::Error),
    #[error(transparent)]
    Misconfigured(#[from] Misconfigured),
}

/// The way to all Alertmanagers.
pub(crate) struct Pushes {
    queues: Vec<mpsc::Sender<Message>>,
    results: IntCounterVec,
}

/// The same for every Alertmanager.
#[derive(Clone)]
struct Message {
    body: Bytes,
    alerts: u64,
}

/// One Alertmanager.
struct Pusher {
    client: Client,
    name: String,
    alerts: Url,
    results: IntCounterVec,
    is_away: bool,
}

/// The way to all of them, and for each the work that must be done for anything to arrive. `results`: by result.
pub(crate) fn pushes(
    config: &NotifyConfig,
    results: IntCounterVec,
) -> Result<(Pushes, Vec<impl Future<Output = ()> + use<>>), NotBuilt> {
    let client = client(config)?;
    let (mut queues, mut work) = (Vec::new(), Vec::new());
    for endpoint in &config.alertmanager_urls {
        let (queue, messages) = mpsc::channel(WAITING);
        queues.push(queue);
        work.push(Pusher::new(client.clone(), endpoint, results.clone()).run(messages));
    }
    Ok((Pushes { queues, results }, work))
}

/// Whether what is configured can be used, but for the servers.
pub(crate) fn check(config: &NotifyConfig) -> Result<(), NotBuilt> {
    client(config).map(drop)
}

fn client(config: &NotifyConfig) -> Result<Client, NotBuilt> {
    // Another part of the house may have done so before; it can only be the same one.
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut builder = Client::builder()
        .timeout(TIMEOUT)
        // As Prometheus: what is configured is where it goes, whatever proxy the environment names.
        .no_proxy()
        .redirect(redirect::Policy::none())
        .user_agent(concat!("tacho/", env!("CARGO_PKG_VERSION")));
    let files = CertificateFiles { section: "notify", ca_file: config.ca_file.clone(), ..CertificateFiles::default() };
    if let Some(authority) = files.read()?.authority {
        if config.alertmanager_urls.iter().any(|endpoint| endpoint.0.scheme() != "https") {
            Err(files.problem("ca_file", "needs https:// in each of alertmanager_urls"))?;
        }
        for certificate in Certificate::from_pem_bundle(&authority)? {
            builder = builder.add_root_certificate(certificate);
        }
    }
    Ok(builder.build()?)
}

impl Pushes {
    /// Hands the alerts to each Alertmanager's queue. Where one is full, they count as failed.
    pub(crate) fn push(&self, alerts: &[Alert]) {
        for batch in alerts.chunks(BATCH) {
            let body = serde_json::to_vec(batch).expect("an alert is texts under names that are texts");
            let message = Message { body: body.into(), alerts: u64::try_from(batch.len()).unwrap_or(u64::MAX) };
            for queue in &self.queues {
                if queue.try_send(message.clone()).is_err() {
                    self.failed(message.alerts);
                }
            }
        }
    }

    /// So many notices could not be told.
    pub(crate) fn failed(&self, notices: u64) {
        self.results.with_label_values(&["failed"]).inc_by(notices);
    }
}

impl Pusher {
    fn new(client: Client, endpoint: &Endpoint, results: IntCounterVec) -> Self {
        Self { client, name: endpoint.to_string(), alerts: endpoint.alerts(), results, is_away: false }
    }

    async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        while let Some(Message { body, alerts }) = messages.recv().await {
            let sent = self.send(body).await;
            let result = if sent.is_ok() { "sent" } else { "failed" };
            self.results.with_label_values(&[result]).inc_by(alerts);
            let was_away = std::mem::replace(&mut self.is_away, sent.is_err());
            match sent {
                Err(error) if !was_away => {
                    // The URL, which may hold a password, is not in it.
                    let error = error.without_url();
                    tracing::warn!(alertmanager = self.name, error = chain(&error), "notices do not get through");
                }
                Ok(()) if was_away => tracing::info!(alertmanager = self.name, "notices get through again"),
                _ => {}
            }
        }
    }

    async fn send(&self, body: Bytes) -> Result<(), reqwest::Error> {
        let json = (header::CONTENT_TYPE, "application/json");
        let answer = self.client.post(self.alerts.clone()).header(json.0, json.1).body(body).send().await?;
        answer.error_for_status().map(drop)
    }
}
