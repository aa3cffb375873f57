//! The pipeline as one list: its stages, the channels between them with their bounds, and the order in which it drains.
//! It uses every room and decides nothing about spans, calls or money.

mod exports;
mod flow;
mod limit_events;
mod limits;
mod listeners;
mod notices;
mod pause;
mod periods;
mod pricing;
mod progress;
mod reload;
mod service;
mod settling;
mod watch;
mod writer;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api;
use crate::auth::{BadTokens, TokensFile};
use crate::config::Config;
use crate::export;
use crate::ingest::{IngestMeters, Intake, Keeper, NotKept};
use crate::journal::{self, Journal, JournalError, JournalMeters, NotAppended};
use crate::limit::Limits;
use crate::listen::{BadTls, Certificates};
use crate::metrics::{Format, Metrics};
use crate::persist::PersistError;
use crate::rights;
use crate::telemetry::Filter;
use flow::Flow;
use listeners::Listeners;
use notices::Notices;
use reload::{Book, Reach, Reloads};
use tacho_core::assemble::Resolver;
use tacho_core::domain::extract::EXTRACT_FORM;
use tacho_core::domain::lsn::Lsn;
use tacho_core::domain::time::Timestamp;
use tacho_core::price::PriceBook;

pub use exports::meters as export_meters;
pub use limits::{looking_limits, rules};
pub use reload::Reload;

#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("cannot listen on {address}")]
    Listen { address: String, source: std::io::Error },
    #[error(
        "listen.{name} is {address}, which strangers can reach, and there are no tokens: make one by `tacho token new ROLE`, or \
         set auth.insecure = true"
    )]
    Unguarded { name: &'static str, address: String },
    #[error(transparent)]
    Tokens(#[from] BadTokens),
    #[error(transparent)]
    Tls(#[from] BadTls),
    #[error("data folder {path} cannot be used")]
    DataDir { path: String, source: std::io::Error },
    #[error("price file {path} cannot be read")]
    PriceFile { path: String, source: std::io::Error },
    #[error(transparent)]
    Prices(#[from] tacho_core::price::OverrideError),
    #[error(transparent)]
    Misconfigured(#[from] crate::remote::Misconfigured),
    #[error("limits")]
    Limits(#[from] crate::limit::StoreError),
    #[error("database")]
    Database(#[from] PersistError),
    #[error("journal")]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Sink(#[from] export::SinkError),
    #[error("notices")]
    Notices(#[from] crate::notify::NotBuilt),
    #[error("frame {} of the journal has a form that this version does not know: a newer one wrote it", .0.0)]
    Frame(Lsn),
    #[error("a stage of the pipeline broke down; what it had not written is in the journal")]
    Stage,
}

/// How long the listeners may take to answer what they have begun.
const LISTENERS: Duration = Duration::from_secs(5);
/// How long the pipeline behind them may take.
const DRAIN: Duration = Duration::from_secs(20);
/// How long the store of limits and the sinks may take.
const LAST_WORD: Duration = Duration::from_secs(2);
/// How long a stop may take as a whole: under the 30 s after which orchestrators kill.
pub const LONGEST_STOP: Duration = LISTENERS.saturating_add(DRAIN).saturating_add(LAST_WORD);

/// The one place where the house reads the clock.
#[expect(clippy::disallowed_methods, reason = "app hands the time to the stages, which read none")]
pub fn now() -> Timestamp {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)).min(Timestamp::LATEST)
}

/// What the process is told from outside.
pub struct Orders<S> {
    /// Ends when the house is to close.
    pub stop: S,
    pub reloads: mpsc::Receiver<Reload>,
    /// Of the logs; reloads change it.
    pub filter: Option<Filter>,
}

/// Runs until `stop` ends, then drains: the listeners close first, then each stage finishes what the one before it left.
/// What does not reach the database in time stays in the journal, and is written after the next start.
pub async fn run(config: Config, orders: Orders<impl Future<Output = ()>>) -> Result<(), AppError> {
    check(&config)?;
    make_folder(&config.data_dir)?;
    let metrics = Arc::new(Metrics::new(&config.metrics));
    let book = Arc::new(Book::new(price_book(&config)?));
    let journal = journal::open(&config.data_dir.join("journal"), &config.journal, journal_meters(&metrics))?;
    let age = journal.age();
    metrics.read_journal_age(move || age().as_secs_f64());
    let pulse = Arc::new(service::Pulse::default());
    let (listeners, entrance) = Listeners::open(&config, &metrics).await?;
    let rules = config.ingest.rules(config.privacy.error_messages);
    let intake = Intake::new(&config.ingest, rules, meters(&metrics), keeper(&journal));

    let (closing, no_more) = (CancellationToken::new(), CancellationToken::new());
    let store = Arc::new(OnceLock::new());
    let sinks = export::sinks(&config.export)?;
    let notices = Notices::new(&config.notify);
    let (events, waiting_events) = limit_events::queue(metrics.limit_events.clone());
    let others = limits::Others {
        metrics: &metrics,
        book: Arc::clone(&book),
        store: Arc::clone(&store),
        notices: notices.clone(),
        events: Some(events),
    };
    let limits = Arc::new(limits::limits(&config, Arc::clone(journal.id()), others));
    // Ends with the house, at whatever it is.
    let _telling = notices.map(|notices| notices.work(&config.notify, Arc::clone(&limits), &metrics)).transpose()?;
    let flow = Flow {
        journal: journal.clone(),
        metrics: Arc::clone(&metrics),
        store: Arc::clone(&store),
        limits: Arc::clone(&limits),
        events: waiting_events,
        pulse: Arc::clone(&pulse),
        no_more: no_more.clone(),
    };
    let mut flow = Box::pin(flow.run(&config, Arc::clone(&book)));
    // First, so that a database that can be opened at once is there, and one that cannot be used stops the start.
    if let Some(ended) = flow::opened(&mut flow, &store).await {
        return ended;
    }
    let mut beside = JoinSet::new();
    let over = CancellationToken::new();
    beside.spawn(limits::work(Arc::clone(&limits), config.clone(), Arc::clone(&store), over.clone()));
    let reach = Reach { limits: Arc::clone(&limits), book, entrance: entrance.clone(), filter: orders.filter };
    beside.spawn(Reloads::new(reach, Arc::clone(&metrics), config.clone()).follow(orders.reloads));
    let mut exporting = JoinSet::new();
    exporting.spawn(exports::work(sinks, Arc::clone(&store), Arc::clone(&metrics), over.clone()));
    limits::opened(&limits).await;
    listeners.tell(&config.data_dir)?;
    let handles = handles(&metrics, Arc::clone(&store), limits, &config, &journal, &closing);
    let served = listeners.serve(intake, handles, &entrance, &closing);
    let _watching = service::serving(service::Watched { pulse, journal, metrics, closing: closing.clone() });
    let early = tokio::select! {
        () = orders.stop => None,
        ended = &mut flow => Some(ended),
        // Only by a fault of our own.
        _ = exporting.join_next() => Some(Err(AppError::Stage)),
    };
    close_listeners(&served, &closing).await;
    no_more.cancel();
    if let Some(ended) = early {
        return ended.and(Err(AppError::Stage));
    }
    match tokio::time::timeout(DRAIN, flow).await {
        Ok(ended) => ended?,
        Err(_) => tracing::warn!("stopped before all was in the database; the rest is in the journal"),
    }
    last_words(&over, beside, exporting).await;
    close(&store).await;
    tracing::info!("stopped");
    Ok(())
}

/// What they have begun is answered, within bounds.
async fn close_listeners(served: &TaskTracker, closing: &CancellationToken) {
    tracing::info!("draining");
    service::stopping();
    closing.cancel();
    if tokio::time::timeout(LISTENERS, served.wait()).await.is_err() {
        tracing::warn!("some clients were still sending");
    }
}

/// Behind the last settlement and the last record: who works beside the pipeline says what is left to say.
async fn last_words(over: &CancellationToken, mut beside: JoinSet<()>, mut exporting: JoinSet<()>) {
    over.cancel();
    let (told, exported) = tokio::join!(
        tokio::time::timeout(LAST_WORD, beside.join_next()),
        tokio::time::timeout(LAST_WORD, exporting.join_next()),
    );
    if told.is_err() {
        tracing::warn!("stopped before the store of limits was told all");
    }
    if exported.is_err() {
        tracing::warn!("stopped before a sink had answered; what was on its way is sent again");
    }
}

async fn close(store: &OnceLock<crate::persist::Store>) {
    if let Some(store) = store.get() {
        store.close().await;
    }
}

/// All that can be wrong with a configuration that was read and can be seen without a connection: addresses, and the
/// files that are named.
pub fn check(config: &Config) -> Result<(), AppError> {
    config.database().check_database()?;
    config.limits.check_store()?;
    export::sinks(&config.export)?;
    crate::notify::check(&config.notify)?;
    Certificates::read(&config.tls)?;
    TokensFile(config.auth.tokens_path(&config.data_dir)).read()?;
    price_book(config)?;
    Ok(())
}

/// Makes the data folder if it is not there. One that cannot be tightened is used as it is: its rights are the
/// operator's.
fn make_folder(path: &Path) -> Result<(), AppError> {
    std::fs::create_dir_all(path).map_err(|source| AppError::DataDir { path: path.display().to_string(), source })?;
    match rights::tighten_folder(path) {
        Ok(rights::Tightened { files: 0, folders: 0 }) => {}
        Ok(rights::Tightened { files, folders }) => {
            tracing::info!(files, folders, path = %path.display(), "others could read the data folder; now only this user can");
        }
        Err(error) => tracing::warn!(%error, path = %path.display(), "rights of the data folder cannot be tightened"),
    }
    Ok(())
}

/// The shipped price list, with the operator's own entries.
pub fn price_book(config: &Config) -> Result<PriceBook, AppError> {
    let Some(path) = &config.prices.override_file else { return Ok(PriceBook::shipped()) };
    let origin = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| AppError::PriceFile { path: origin.clone(), source })?;
    Ok(PriceBook::shipped().with_override(&text, &origin)?)
}

/// What ingest is told to do with an extract: into the journal.
fn keeper(journal: &Journal) -> Keeper {
    let (room, journal) = (journal.clone(), journal.clone());
    Keeper {
        has_room: Arc::new(move || room.has_room()),
        keep: Arc::new(move |extract| {
            let journal = journal.clone();
            Box::pin(async move {
                journal.append(EXTRACT_FORM, extract).await.map(drop).map_err(|why| match why {
                    NotAppended::Full => NotKept::Full,
                    NotAppended::Broken => NotKept::Broken,
                })
            })
        }),
    }
}

fn handles(
    metrics: &Arc<Metrics>,
    store: Arc<OnceLock<crate::persist::Store>>,
    limits: Arc<Limits>,
    config: &Config,
    journal: &Journal,
    closing: &CancellationToken,
) -> api::Handles {
    let (registry, journal, closing) = (Arc::clone(metrics), journal.clone(), closing.clone());
    let not_ready = move || {
        let reasons = [
            (closing.is_cancelled(), "draining"),
            (journal.is_broken(), "the journal cannot be written"),
            (!journal.has_room(), "the journal is full"),
        ];
        reasons.into_iter().find_map(|(holds, reason)| holds.then_some(reason))
    };
    let exposition =
        move |openmetrics: bool| registry.exposition(if openmetrics { Format::OpenMetrics } else { Format::Text });
    let expositions = Arc::new(api::Expositions::new(Arc::new(exposition)));
    let resolver = Arc::new(Resolver::new(&config.assemble));
    api::Handles { expositions, store, limits, resolver, not_ready: Arc::new(not_ready), now }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus keeps times as floats")]
fn meters(metrics: &Arc<Metrics>) -> IngestMeters {
    let seen = Arc::clone(metrics);
    IngestMeters {
        spans: metrics.ingest.spans.clone(),
        bodies_refused: metrics.ingest.bodies_refused.clone(),
        ignored_signals: metrics.ingest.ignored.clone(),
        unreadable: metrics.ingest.lost.unreadable.clone(),
        too_large: metrics.ingest.lost.too_large.clone(),
        seen: Arc::new(move |service| seen.seen(service, now().0 as f64 / 1e9)),
    }
}

fn journal_meters(metrics: &Metrics) -> JournalMeters {
    let crate::metrics::JournalFamilies { bytes, max_bytes, fsync, quarantined, lost } = metrics.journal.clone();
    JournalMeters { bytes, max_bytes, fsync, quarantined, lost }
}
