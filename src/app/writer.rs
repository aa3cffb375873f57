//! The last stage: what is known of each trace and what came new, joined, resolved, priced and written in one transaction.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

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

/// New spans by trace.
type News = BTreeMap<TraceId, Closed>;

impl Writer {
    /// Writes until the channel closes; then whatever still waits for its request gets its last word.
    pub async fn run(self, mut batches: mpsc::Receiver<Vec<Closed>>) {
        let mut tick = tokio::time::interval(DUE_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                batch = batches.recv() => match batch {
                    Some(batch) => self.write(batch).await,
                    None => break,
                },
                _ = tick.tick() => self.write_due(false).await,
            }
        }
        self.write_due(true).await;
        self.store.close().await;
    }

    async fn write(&self, batch: Vec<Closed>) {
        let news: News = batch.into_iter().map(|closed| (closed.trace_id, closed)).collect();
        // Halved where the database refuses, until the one trace it will not take stands alone.
        let mut parts = vec![news];
        while let Some(mut part) = parts.pop() {
            match self.persist(&part, false).await {
                Ok(()) => {}
                Err(error) if part.len() > 1 => {
                    tracing::debug!(error = chain(&error), "batch refused; halved");
                    let middle = *part.keys().nth(part.len() / 2).expect("a part of two or more has a middle");
                    parts.push(part.split_off(&middle));
                    parts.push(part);
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
            let most = i64::try_from(BATCH).unwrap_or(i64::MAX);
            let due = match self.store.due(now(), at_the_end, most).await {
                Ok(due) => due,
                Err(error) => return tracing::warn!(error = chain(&error), "waiting traces not read"),
            };
            if due.is_empty() {
                return;
            }
            let no_news = |trace_id| (trace_id, Closed { trace_id, trace: Trace::default(), first_seen: now() });
            let news: News = due.into_iter().map(no_news).collect();
            if let Err(error) = self.persist(&news, true).await {
                return tracing::error!(error = chain(&error), "waiting traces not written");
            }
        }
    }

    /// Tries until the database has taken it or refused it.
    async fn persist(&self, news: &News, last_word: bool) -> Result<(), PersistError> {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.attempt(news, last_word).await {
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

    async fn attempt(&self, news: &News, last_word: bool) -> Result<(), PersistError> {
        let ids: Vec<TraceId> = news.keys().copied().collect();
        let mut work = self.store.begin(&ids).await?;
        let mut known: BTreeMap<TraceId, Known> =
            work.take_known().into_iter().map(|known| (known.trace_id, known)).collect();
        let now = now();
        let changes: Vec<Change> =
            news.values().map(|closed| self.change(closed, known.remove(&closed.trace_id), last_word, now)).collect();
        let counted: Vec<(Vec<Request>, Vec<Request>)> =
            changes.iter().map(|change| (change.before.clone(), change.after.clone())).collect();
        work.commit(changes, now).await?;
        for (before, after) in &counted {
            self.metrics.committed(before, after);
        }
        Ok(())
    }

    fn change(&self, closed: &Closed, known: Option<Known>, last_word: bool, now: Timestamp) -> Change {
        let known = known.unwrap_or_else(|| Known {
            trace_id: closed.trace_id,
            trace: Trace::default(),
            first_seen: closed.first_seen,
            last_word: false,
            requests: Vec::new(),
        });
        let first_seen = known.first_seen.min(closed.first_seen);
        let deadline = first_seen.plus(self.max_age);
        let last_word = last_word || known.last_word || deadline <= now;
        let trace = closed.trace.clone().joined(known.trace);
        let resolution = self.resolver.resolve(closed.trace_id, &trace, last_word);
        let after = resolution.requests.into_iter().map(|request| self.priced(request)).collect();
        let due = resolution.waiting.then_some(deadline);
        Change { trace_id: closed.trace_id, trace, first_seen, last_word, due, before: known.requests, after }
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
