//! Behind the journal: frames are read back, their spans gathered to traces, and the traces written. All of it can be
//! done again from the checkpoint on, and comes to the same rows.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::limit_events::Waiting;
use super::pause::Pause;
use super::periods;
use super::progress::{Progress, Ticket};
use super::reload::Book;
use super::service::Pulse;
use super::writer::Writer;
use super::{AppError, now};
use crate::config::Config;
use crate::journal::{Follower, Journal};
use crate::limit::Limits;
use crate::metrics::Metrics;
use crate::persist::{PersistError, Store};
use tacho_core::assemble::{Closed, Gatherer, Resolver};
use tacho_core::domain::extract::{EXTRACT_FORM, Extract};
use tacho_core::domain::lsn::Lsn;
use tacho_core::domain::span::Received;

/// Frames that were read and wait for the gatherer.
const WAITING_FRAMES: usize = 2;
/// Batches of closed traces that wait for a writer; beyond it the gatherer waits, and then the reading of the journal.
const WAITING_BATCHES: usize = 1;
/// Most traces in one transaction.
pub(super) const BATCH: usize = 2_000;
/// How often the gatherer looks for quiet traces.
const TICK: Duration = Duration::from_millis(50);
/// The look reads all records of the current periods.
const DRIFT_EVERY: Duration = Duration::from_secs(300);
/// How long a start waits for a database that does not answer, before it goes on without.
const PATIENCE: Duration = Duration::from_secs(3);

/// The spans of one frame.
struct Delivery {
    frame: Lsn,
    spans: Vec<Received>,
}

/// Traces for one transaction, or for as few as can be.
pub(super) struct Batch {
    pub closed: Vec<Closed>,
    pub ticket: Ticket,
}

pub(super) struct Flow {
    pub journal: Journal,
    pub metrics: Arc<Metrics>,
    /// Set when the database is open.
    pub store: Arc<OnceLock<Store>>,
    pub limits: Arc<Limits>,
    pub events: Waiting,
    pub pulse: Arc<Pulse>,
    /// Nothing more will be appended to the journal.
    pub no_more: CancellationToken,
}

/// Lets the flow run until the database is open, or was waited for long enough. What the flow has to say if it ends
/// before.
pub(super) async fn opened<T>(flow: &mut (impl Future<Output = T> + Unpin), store: &OnceLock<Store>) -> Option<T> {
    let open = async {
        while store.get().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        biased;
        ended = flow => Some(ended),
        // The journal takes what comes until the database is back.
        _ = tokio::time::timeout(PATIENCE, open) => None,
    }
}

impl Flow {
    /// Ends by itself only when `no_more` and everything is written, or by an error.
    pub(super) async fn run(self, config: &Config, book: Arc<Book>) -> Result<(), AppError> {
        let Some((store, from)) = self.open(config).await? else { return Ok(()) };
        let follower = self.journal.follow(from)?;
        let progress = Arc::new(Progress::new(from));
        let (deliveries, delivered) = mpsc::channel(WAITING_FRAMES);
        let (batches, waiting) = mpsc::channel(WAITING_BATCHES);
        let writer = Writer {
            store: store.clone(),
            journal: self.journal,
            resolver: Resolver::new(&config.assemble),
            book,
            limits: self.limits,
            metrics: Arc::clone(&self.metrics),
            progress: Arc::clone(&progress),
        };
        let mut stages = JoinSet::new();
        let (no_more, runtime) = (self.no_more.clone(), Handle::current());
        stages.spawn_blocking(move || read_journal(follower, &deliveries, &no_more, &runtime));
        let out = Out { batches, progress, pulse: self.pulse };
        stages.spawn(gather(Gatherer::new(&config.assemble), delivered, out, self.metrics));
        stages.spawn(watch(writer.store.clone(), Arc::clone(&writer.metrics), self.no_more.clone()));
        stages.spawn(periods::keep(writer.store.clone(), self.no_more));
        let written = CancellationToken::new();
        stages.spawn(self.events.write(store.clone(), written.clone()));
        stages.spawn(async move {
            // What the last settlement has seen is in the queue of events by then.
            let _written = written.drop_guard();
            writer.run(waiting).await
        });
        while let Some(stage) = stages.join_next().await {
            // One that breaks down takes the others with it: all of it can be done again.
            stage.map_err(|_| AppError::Stage)??;
        }
        Ok(())
    }

    /// The open database and the first frame that is not in it yet. Tries until it succeeds; `None` if told to stop
    /// before.
    async fn open(&self, config: &Config) -> Result<Option<(Store, Lsn)>, AppError> {
        let database = config.database();
        let open = async || {
            let store = Store::open(database.clone(), &holder()).await?.with_plans(config.plans.clone());
            let checkpoint = store.checkpoint(self.journal.id()).await?;
            Ok((store, checkpoint.unwrap_or(Lsn::FIRST)))
        };
        let mut pause = Pause::default();
        loop {
            match open().await {
                Ok((store, from)) => {
                    self.metrics.persist_up.set(1);
                    drop(self.store.set(store.clone()));
                    return Ok(Some((store, from)));
                }
                Err(PersistError::Unreachable(error)) => {
                    tracing::warn!(%error, "database away; the journal takes what comes");
                    self.metrics.persist_up.set(0);
                }
                Err(error) => return Err(error.into()),
            }
            tokio::select! {
                () = pause.wait() => {}
                () = self.no_more.cancelled() => return Ok(None),
            }
        }
    }
}

/// Looks from time to time whether the accounts are still the sums of their records.
async fn watch(store: Store, metrics: Arc<Metrics>, no_more: CancellationToken) -> Result<(), AppError> {
    let mut tick = tokio::time::interval(DRIFT_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let look = async {
            tick.tick().await;
            store.drift().await
        };
        tokio::select! {
            drift = look => match drift {
                Ok(drift) => metrics.drift(drift),
                Err(error) => tracing::debug!(%error, "drift of the accounts not known"),
            },
            () = no_more.cancelled() => return Ok(()),
        }
    }
}

/// Tells this process from others on the same database.
fn holder() -> String {
    format!("{}-{}", std::process::id(), now().0)
}

/// Reads the journal as it grows, in a thread of its own.
fn read_journal(
    mut follower: Follower,
    deliveries: &mpsc::Sender<Delivery>,
    no_more: &CancellationToken,
    runtime: &Handle,
) -> Result<(), AppError> {
    loop {
        // Asked before reading, so that the last of it is read behind the last append.
        let last = no_more.is_cancelled();
        while let Some(entry) = follower.read()? {
            let frame = entry.lsn;
            if entry.kind != EXTRACT_FORM {
                return Err(AppError::Frame(frame));
            }
            let spans = Extract::read(&entry.payload).map_err(|_| AppError::Frame(frame))?;
            if deliveries.blocking_send(Delivery { frame, spans }).is_err() {
                return Ok(());
            }
        }
        if last {
            return Ok(());
        }
        runtime.block_on(async {
            tokio::select! {
                _ = follower.more() => {}
                () = no_more.cancelled() => {}
            }
        });
    }
}

/// Where the gatherer hands on what it has closed, and whom it tells.
struct Out {
    batches: mpsc::Sender<Batch>,
    progress: Arc<Progress>,
    pulse: Arc<Pulse>,
}

impl Out {
    /// `still` is the first frame that the gatherer needs when these traces have left it.
    async fn hand_on(&self, closed: Vec<Closed>, still: Lsn) -> Result<(), AppError> {
        let first = closed.iter().map(|closed| closed.since).min();
        let ticket = first.map(|first| self.progress.batch(first));
        self.progress.gathering(still);
        if let Some(ticket) = ticket {
            self.pulse.wait();
            self.batches.send(Batch { closed, ticket }).await.map_err(|_| AppError::Stage)?;
        }
        self.pulse.turn();
        Ok(())
    }
}

/// Joins spans into traces until no more come, then hands out all that is open.
async fn gather(
    mut gatherer: Gatherer,
    mut deliveries: mpsc::Receiver<Delivery>,
    out: Out,
    metrics: Arc<Metrics>,
) -> Result<(), AppError> {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut next = out.progress.needed();
    loop {
        tokio::select! {
            delivery = deliveries.recv() => match delivery {
                Some(Delivery { frame, spans }) => {
                    let now = now();
                    spans.into_iter().for_each(|span| gatherer.add(span, frame, now));
                    next = frame.next();
                }
                None => break,
            },
            _ = tick.tick() => {}
        }
        let closed = gatherer.close_due(now(), BATCH);
        out.hand_on(closed, gatherer.oldest().unwrap_or(next)).await?;
        metrics.open_traces.set(i64::try_from(gatherer.len()).unwrap_or(i64::MAX));
    }
    while !gatherer.is_empty() {
        let closed = gatherer.close_all(BATCH);
        out.hand_on(closed, gatherer.oldest().unwrap_or(next)).await?;
    }
    Ok(())
}
