//! The pipeline as one list: its stages, the channels between them with their bounds, and the order in which it drains. It uses
//! every room and decides nothing about spans, calls or money.

mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api;
use crate::assemble::{Closed, Gatherer, Resolver};
use crate::config::Config;
use crate::domain::time::Timestamp;
use crate::ingest::{self, Delivery, IngestMeters, Intake, Rules};
use crate::metrics::Metrics;
use crate::persist::{PersistError, Store};
use crate::price::PriceBook;
use writer::Writer;

#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("cannot listen on {address}")]
    Listen { address: String, source: std::io::Error },
    #[error("data folder {path} cannot be used")]
    DataDir { path: String, source: std::io::Error },
    #[error("price file {path} cannot be read")]
    PriceFile { path: String, source: std::io::Error },
    #[error(transparent)]
    Prices(#[from] crate::price::OverrideError),
    #[error("database")]
    Database(#[from] PersistError),
    #[error("the drain took longer than {}s; what was still in memory is lost", DRAIN.as_secs())]
    Drain,
}

/// Batches of closed traces that wait for the writer; beyond it the gatherer waits, the queue before it fills and ingest refuses.
const WAITING_BATCHES: usize = 4;
/// Most traces in one transaction.
const BATCH: usize = 2_000;
/// How often the gatherer looks for quiet traces.
const TICK: Duration = Duration::from_millis(50);
/// Under the 30 s after which orchestrators kill.
const DRAIN: Duration = Duration::from_secs(25);

/// The one place where the house reads the clock.
#[expect(clippy::disallowed_methods, reason = "app hands the time to the stages, which read none")]
pub fn now() -> Timestamp {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)).min(Timestamp::LATEST)
}

/// Runs until `stop` ends, then drains: the doors close first, then each stage finishes what the one before it left.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<(), AppError> {
    make_folder(&config.data_dir)?;
    let metrics = Arc::new(Metrics::default());
    let doors = Doors::open(&config).await?;
    let store = Store::open(&config.database_url(), &holder()).await?;
    let writer = Writer {
        store: store.clone(),
        resolver: Resolver::new(&config.assemble),
        book: price_book(&config)?,
        metrics: Arc::clone(&metrics),
        max_age: config.assemble.max_age,
    };
    metrics.persist_up.set(1);
    let rules = Rules::new(&config.ingest, config.privacy.error_messages);
    let (intake, deliveries) = Intake::new(&config.ingest, rules, meters(&metrics));
    let (batches, waiting) = mpsc::channel(WAITING_BATCHES);

    let (closing, tasks, ready) = (CancellationToken::new(), TaskTracker::new(), Arc::new(AtomicBool::new(true)));
    tasks.spawn(gather(Gatherer::new(&config.assemble), deliveries, batches, Arc::clone(&metrics)));
    let written = tasks.spawn(writer.run(waiting));
    doors.tell(&config.data_dir)?;
    let registry = Arc::clone(&metrics);
    let text = move || registry.text().map_err(|error| error.to_string());
    let handles = api::Handles { metrics: Arc::new(text), store, ready: Arc::clone(&ready) };
    doors.serve(intake, handles, &closing, &tasks);

    stop.await;
    tracing::info!("draining");
    ready.store(false, Ordering::Relaxed);
    closing.cancel();
    tasks.close();
    let drained = tokio::time::timeout(DRAIN, written).await;
    tracing::info!("stopped");
    drained.map(drop).map_err(|_| AppError::Drain)
}

fn make_folder(path: &Path) -> Result<(), AppError> {
    std::fs::create_dir_all(path).map_err(|source| AppError::DataDir { path: path.display().to_string(), source })
}

/// Tells this process from others on the same database.
fn holder() -> String {
    format!("{}-{}", std::process::id(), now().0)
}

fn price_book(config: &Config) -> Result<PriceBook, AppError> {
    let Some(path) = &config.prices.override_file else { return Ok(PriceBook::shipped()) };
    let origin = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| AppError::PriceFile { path: origin.clone(), source })?;
    Ok(PriceBook::shipped().with_override(&text, &origin)?)
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus keeps times as floats")]
fn meters(metrics: &Arc<Metrics>) -> IngestMeters {
    let seen = Arc::clone(metrics);
    IngestMeters {
        spans: metrics.ingest_spans.clone(),
        bodies_refused: metrics.ingest_bodies_refused.clone(),
        ignored_signals: metrics.ingest_ignored.clone(),
        seen: Arc::new(move |service| seen.seen(service, now().0 as f64 / 1e9)),
    }
}

/// Joins spans into traces until the last door is closed, then hands out all that is open.
async fn gather(
    mut gatherer: Gatherer,
    mut deliveries: mpsc::Receiver<Delivery>,
    batches: mpsc::Sender<Vec<Closed>>,
    metrics: Arc<Metrics>,
) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            delivery = deliveries.recv() => match delivery {
                Some(delivery) => {
                    let now = now();
                    delivery.spans.into_iter().for_each(|span| gatherer.add(span, now));
                }
                None => break,
            },
            _ = tick.tick() => {}
        }
        hand_on(gatherer.close_due(now(), BATCH), &batches, &metrics).await;
        metrics.open_traces.set(i64::try_from(gatherer.len()).unwrap_or(i64::MAX));
    }
    while !gatherer.is_empty() {
        hand_on(gatherer.close_all(BATCH), &batches, &metrics).await;
    }
}

async fn hand_on(closed: Vec<Closed>, batches: &mpsc::Sender<Vec<Closed>>, metrics: &Metrics) {
    let traces = closed.len() as u64;
    if traces > 0 && batches.send(closed).await.is_err() {
        metrics.lost("assemble", "writer_gone", traces);
    }
}

/// The listening sockets, bound before anything is served.
struct Doors {
    grpc: TcpListener,
    otlp_http: TcpListener,
    http: TcpListener,
}

impl Doors {
    async fn open(config: &Config) -> Result<Self, AppError> {
        let listen = &config.listen;
        Ok(Self {
            grpc: bind(&listen.otlp_grpc).await?,
            otlp_http: bind(&listen.otlp_http).await?,
            http: bind(&listen.http).await?,
        })
    }

    /// Writes where we listen to `listen.json`, for whoever asked for port 0.
    fn tell(&self, data_dir: &Path) -> Result<(), AppError> {
        let address = |listener: &TcpListener| listener.local_addr().map(|address| address.to_string());
        let tell = || {
            let (grpc, otlp_http, http) = (address(&self.grpc)?, address(&self.otlp_http)?, address(&self.http)?);
            tracing::info!(otlp_grpc = grpc, otlp_http, http, "listening");
            let told = serde_json::json!({"otlp_grpc": grpc, "otlp_http": otlp_http, "http": http});
            // Written aside and renamed, so that no reader sees half of it.
            let aside = data_dir.join("listen.json.new");
            std::fs::write(&aside, told.to_string())?;
            std::fs::rename(aside, data_dir.join("listen.json"))
        };
        tell().map_err(|source| AppError::DataDir { path: data_dir.display().to_string(), source })
    }

    fn serve(self, intake: Intake, handles: api::Handles, closing: &CancellationToken, tasks: &TaskTracker) {
        let closed = || closing.clone().cancelled_owned();
        let (grpc, http) = (
            ingest::grpc::serve(self.grpc, intake.clone(), closed()),
            ingest::http::serve(self.otlp_http, intake, closed()),
        );
        tasks.spawn(async move { ended("otlp grpc", grpc.await) });
        tasks.spawn(async move { ended("otlp http", http.await) });
        let api = api::serve(self.http, handles, closed());
        tasks.spawn(async move { ended("http", api.await) });
    }
}

fn ended<E: std::error::Error>(door: &str, result: Result<(), E>) {
    match result {
        Ok(()) => tracing::debug!(door, "closed"),
        Err(error) => tracing::error!(door, %error, "door closed by an error"),
    }
}

async fn bind(address: &str) -> Result<TcpListener, AppError> {
    TcpListener::bind(address).await.map_err(|source| AppError::Listen { address: address.to_owned(), source })
}
