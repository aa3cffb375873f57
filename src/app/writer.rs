//! The last stage: what is known of each trace and what came new, joined, resolved, priced and written in one transaction.

use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use super::{BATCH, now};
use crate::assemble::{Closed, Resolver};
use crate::domain::call::{Call, Cost, Usage};
use crate::domain::ids::TraceId;
use crate::domain::record::{Request, Totals};
use crate::domain::time::Timestamp;
use crate::domain::trace::Trace;
use crate::metrics::Metrics;
use crate::persist::{Change, Known, PersistError, Store};
use crate::price::{PriceBook, Priced};

/// How often the store is asked for traces that have waited long enough.
const DUE_EVERY: Duration = Duration::from_secs(1);
/// Between two attempts while the database is away.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(super) struct Writer {
    pub store: Store,
    pub resolver: Resolver,
    pub book: PriceBook,
    pub metrics: Arc<Metrics>,
    pub max_age: Duration,
}

impl Writer {
    /// Writes until the channel closes; then whatever still waits for its request gets its last word.
    pub async fn run(self, batches: mpsc::Receiver<Vec<Closed>>) {
        let (writer, batches) = (Arc::new(self), Arc::new(Mutex::new(batches)));
        let mut hands = JoinSet::new();
        for _ in 0..writer.store.writers() {
            hands.spawn(Arc::clone(&writer).work_off(Arc::clone(&batches)));
        }
        let mut tick = tokio::time::interval(DUE_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                hand = hands.join_next() => match hand {
                    Some(ended) => ended.expect("a writer never panics and is never cancelled"),
                    None => break,
                },
                _ = tick.tick() => writer.write_due(false).await,
            }
        }
        writer.write_due(true).await;
        writer.store.close().await;
    }

    async fn work_off(self: Arc<Self>, batches: Arc<Mutex<mpsc::Receiver<Vec<Closed>>>>) {
        let next = || async { batches.lock().await.recv().await };
        while let Some(batch) = next().await {
            self.write(batch).await;
        }
    }

    async fn write(&self, batch: Vec<Closed>) {
        let now = now();
        let mut proposed: Vec<Change> = batch.into_iter().map(|closed| self.proposal(closed, now)).collect();
        proposed.sort_unstable_by_key(|change| change.trace_id);
        // Halved where the database refuses, until the one trace it will not take stands alone.
        let mut parts = vec![&*proposed];
        while let Some(part) = parts.pop() {
            match self.persist(part, false).await {
                Ok(()) => {}
                Err(error) if part.len() > 1 => {
                    tracing::debug!(error = chain(&error), "batch refused; halved");
                    let (left, right) = part.split_at(part.len() / 2);
                    parts.extend([right, left]);
                }
                Err(error) => {
                    tracing::error!(error = chain(&error), "trace refused by the database");
                    self.metrics.lost("persist", "refused", 1);
                }
            }
        }
    }

    /// Traces whose calls waited for `max_age`, or, at the end, all that this process put there.
    async fn write_due(&self, at_the_end: bool) {
        loop {
            let now = now();
            let most = i64::try_from(BATCH).unwrap_or(i64::MAX);
            let mut due = match self.store.due(now, at_the_end, most).await {
                Ok(due) => due,
                Err(error) => return tracing::warn!(error = chain(&error), "waiting traces not read"),
            };
            if due.is_empty() {
                return;
            }
            due.sort_unstable();
            let no_news = |trace_id| Change::nothing(trace_id, now);
            if let Err(error) = self.persist(&due.into_iter().map(no_news).collect::<Vec<_>>(), true).await {
                return tracing::error!(error = chain(&error), "waiting traces not written");
            }
        }
    }

    /// Tries until the database has taken it or refused it.
    async fn persist(&self, proposed: &[Change], last_word: bool) -> Result<(), PersistError> {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.attempt(proposed, last_word).await {
                Err(PersistError::Unreachable(error)) => {
                    if self.metrics.persist_up.get() == 1 {
                        tracing::warn!(%error, "database away; holding what comes");
                    }
                    self.metrics.persist_up.set(0);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                other => {
                    if self.metrics.persist_up.get() == 0 {
                        tracing::info!("database back");
                    }
                    self.metrics.persist_up.set(1);
                    return other;
                }
            }
        }
    }

    async fn attempt(&self, proposed: &[Change], last_word: bool) -> Result<(), PersistError> {
        let mut work = self.store.begin(proposed).await?;
        let known = work.take_known();
        let now = now();
        let joined = |known: Known| {
            let place = proposed.binary_search_by_key(&known.trace_id, |change| change.trace_id);
            self.joined(&proposed[place.expect("only what was asked for is told")], known, last_word, now)
        };
        let changes: Vec<Change> = known.into_iter().map(joined).collect();
        work.commit(&changes, now).await?;
        let rewritten: FxHashMap<TraceId, &Change> = changes.iter().map(|change| (change.trace_id, change)).collect();
        for change in proposed {
            let change = rewritten.get(&change.trace_id).copied().unwrap_or(change);
            self.metrics.committed(&change.before, &change.after);
        }
        Ok(())
    }

    /// What the trace becomes if nothing is known of it.
    fn proposal(&self, closed: Closed, now: Timestamp) -> Change {
        let Closed { trace_id, trace, first_seen } = closed;
        let last_word = first_seen.plus(self.max_age) <= now;
        self.resolved(Change {
            trace: trace.joined(Trace::default()),
            last_word,
            ..Change::nothing(trace_id, first_seen)
        })
    }

    /// What the trace becomes together with what is known of it.
    fn joined(&self, proposal: &Change, known: Known, last_word: bool, now: Timestamp) -> Change {
        let first_seen = known.first_seen.min(proposal.first_seen);
        self.resolved(Change {
            trace: proposal.trace.clone().joined(known.trace),
            last_word: last_word || known.last_word || first_seen.plus(self.max_age) <= now,
            before: known.requests,
            ..Change::nothing(proposal.trace_id, first_seen)
        })
    }

    fn resolved(&self, change: Change) -> Change {
        let resolution = self.resolver.resolve(change.trace_id, &change.trace, change.last_word);
        Change {
            after: resolution.requests.into_iter().map(|request| self.priced(request)).collect(),
            due: resolution.waiting.then(|| change.first_seen.plus(self.max_age)),
            ..change
        }
    }

    fn priced(&self, mut request: Request) -> Request {
        for call in &mut request.calls {
            call.cost = self.charge(call);
            call.reported_cost = None;
        }
        request.record.totals = Totals::of(&request.calls);
        request
    }

    fn charge(&self, call: &Call) -> Cost {
        let Usage::Reported(tokens) = call.usage else { return Cost::Unknown };
        let priced = Priced {
            provider: call.provider.as_deref(),
            model_given: call.response_model.as_deref(),
            model_asked: call.request_model.as_deref(),
            service_tier: call.service_tier.as_deref(),
            started_at: call.key.started_at,
            tokens,
        };
        match (self.book.price(&priced), call.reported_cost) {
            (Ok(charge), _) => Cost::Charged { cost: charge.cost, price_version: charge.price_version },
            // A failed call that used nothing costs nothing, whatever its model.
            (Err(_), _) if call.failed() && tokens == Default::default() => {
                Cost::Charged { cost: Default::default(), price_version: "none".into() }
            }
            (Err(_), Some(cost)) => Cost::Charged { cost, price_version: "reported".into() },
            (Err(unpriced), None) => {
                tracing::debug!(reason = unpriced.label(), "call without a price");
                Cost::Unpriced
            }
        }
    }
}

/// The error with its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
