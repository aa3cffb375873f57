//! The last stage: what is known of each trace and what came new, joined, resolved, priced and written in one
//! transaction.

use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use super::flow::{BATCH, Batch};
use super::pause::Pause;
use super::progress::Progress;
use super::reload::Book;
use super::settling::Settling;
use super::{AppError, now, pricing};
use crate::journal::Journal;
use crate::limit::Limits;
use crate::metrics::Metrics;
use crate::persist::{Change, Checkpoint, Known, PersistError, Store};
use crate::telemetry::chain;
use tacho_core::assemble::{Closed, Look, Resolution, Resolver};
use tacho_core::domain::call::Key;
use tacho_core::domain::ids::TraceId;
use tacho_core::domain::lsn::Lsn;
use tacho_core::domain::time::Timestamp;
use tacho_core::domain::trace::Trace;

/// How often the store is asked for traces that have waited long enough, and told how far the journal is.
const DUE_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    pub store: Store,
    pub journal: Journal,
    pub resolver: Resolver,
    pub book: Arc<Book>,
    pub limits: Arc<Limits>,
    pub metrics: Arc<Metrics>,
    pub progress: Arc<Progress>,
}

impl Writer {
    /// Writes until the channel closes. What still waits for its request then waits in the database, for whoever comes
    /// next.
    pub(super) async fn run(self, batches: mpsc::Receiver<Batch>) -> Result<(), AppError> {
        let (writer, batches) = (Arc::new(self), Arc::new(Mutex::new(batches)));
        let mut hands = JoinSet::new();
        for _ in 0..writer.store.writers() {
            hands.spawn(Arc::clone(&writer).work_off(Arc::clone(&batches)));
        }
        let mut tick = tokio::time::interval(DUE_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut told = Lsn(0);
        loop {
            tokio::select! {
                hand = hands.join_next() => match hand {
                    Some(ended) => ended.map_err(|_| AppError::Stage)?,
                    None => break,
                },
                _ = tick.tick() => {
                    writer.write_due().await;
                    writer.tell_progress(&mut told).await;
                }
            }
        }
        writer.write_due().await;
        if let Err(error) = writer.store.release_claims().await {
            // Others take up what waits all the same, only later.
            tracing::warn!(error = chain(&error), "claims on waiting traces not released");
        }
        writer.tell_progress(&mut told).await;
        Ok(())
    }

    async fn work_off(self: Arc<Self>, batches: Arc<Mutex<mpsc::Receiver<Batch>>>) {
        let next = || async { batches.lock().await.recv().await };
        while let Some(batch) = next().await {
            self.write(batch).await;
        }
    }

    /// The journal can let go of what is in the database, and the start after this one need not read it.
    async fn tell_progress(&self, told: &mut Lsn) {
        let needed = self.progress.needed();
        if needed > *told {
            let checkpoint = Checkpoint { journal: Arc::clone(self.journal.id()), needed };
            match self.store.write_checkpoint(&checkpoint, now()).await {
                Ok(()) => *told = needed,
                Err(error) => return tracing::debug!(error = chain(&error), "checkpoint not written"),
            }
        }
        self.journal.trim(*told);
    }

    async fn write(&self, Batch { closed, ticket }: Batch) {
        // Some ten milliseconds of work, in which nobody who sends should wait for an answer.
        let proposed = tokio::task::block_in_place(|| self.proposals(closed));
        // True once the whole batch is written, and so part of the same transaction if that is one.
        let needed = self.progress.needed_without(&ticket);
        let checkpoint = Checkpoint { journal: Arc::clone(self.journal.id()), needed };
        match self.persist(&proposed, Some(&checkpoint)).await {
            Ok(()) => self.journal.trim(needed),
            Err(error) => self.write_apart(&proposed, error).await,
        }
        self.progress.written(ticket);
    }

    fn proposals(&self, closed: Vec<Closed>) -> Vec<Change> {
        let now = now();
        let mut proposed: Vec<Change> = closed.into_iter().map(|closed| self.proposal(closed, now)).collect();
        proposed.sort_unstable_by_key(|change| change.trace_id);
        proposed
    }

    /// Halves what the database refuses, until the one trace it will not take stands alone; that is set aside.
    async fn write_apart(&self, proposed: &[Change], refusal: PersistError) {
        let mut parts = vec![(proposed, refusal)];
        while let Some((part, refusal)) = parts.pop() {
            if let [change] = part {
                self.set_aside(change, &refusal).await;
                continue;
            }
            let (left, right) = part.split_at(part.len() / 2);
            for half in [left, right] {
                if let Err(error) = self.persist(half, None).await {
                    parts.push((half, error));
                }
            }
        }
    }

    /// Where even that is not taken, it is the database that is at fault and not the trace.
    async fn set_aside(&self, change: &Change, refusal: &PersistError) {
        tracing::error!(trace_id = %change.trace_id, error = chain(refusal), "trace refused by the database");
        let mut pause = Pause::default();
        while let Err(error) = self.store.set_aside(change, &chain(refusal), now()).await {
            tracing::error!(error = chain(&error), "refused trace not set aside");
            pause.wait().await;
        }
        self.metrics.set_aside();
    }

    /// Traces whose calls waited for `max_age`.
    async fn write_due(&self) {
        loop {
            let now = now();
            let most = i64::try_from(BATCH).unwrap_or(i64::MAX);
            let mut due = match self.store.due(now, most).await {
                Ok(due) => due,
                Err(error) => return tracing::warn!(error = chain(&error), "waiting traces not read"),
            };
            if due.is_empty() {
                return;
            }
            due.sort_unstable();
            let no_news: Vec<Change> = due.into_iter().map(|trace_id| Change::nothing(trace_id, now)).collect();
            match self.attempt(&no_news, None).await {
                Ok(()) => {}
                // Read again in a second: nothing is lost, and new traces must not wait for it.
                Err(error) if error.passes() => {
                    return tracing::warn!(error = chain(&error), "waiting traces not written");
                }
                Err(error) => self.write_apart(&no_news, error).await,
            }
        }
    }

    /// Tries until the database has taken it or refused it.
    async fn persist(&self, proposed: &[Change], checkpoint: Option<&Checkpoint>) -> Result<(), PersistError> {
        let mut pause = Pause::default();
        loop {
            match self.attempt(proposed, checkpoint).await {
                Err(error) if error.passes() => {
                    if self.metrics.persist_up.get() == 1 {
                        tracing::warn!(error = chain(&error), "database away; the journal holds what comes");
                    }
                    self.metrics.persist_up.set(0);
                    pause.wait().await;
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

    async fn attempt(&self, proposed: &[Change], checkpoint: Option<&Checkpoint>) -> Result<(), PersistError> {
        let mut work = self.store.begin(proposed).await?;
        let known = work.take_known();
        let now = now();
        let joined = |known: Known| {
            let place = proposed.binary_search_by_key(&known.trace_id, |change| change.trace_id);
            self.joined(&proposed[place.expect("only what was asked for is told")], known, now)
        };
        let changes: Vec<Change> = known.into_iter().map(joined).collect();
        let rules = self.limits.rules();
        if rules.is_empty() && !work.is_charged() {
            work.commit(&changes, checkpoint, now).await?;
        } else {
            let prepared = work.prepare(&changes, now).await?;
            let settling = Settling::of(&self.limits, &rules, &prepared);
            let counted = prepared.commit(&settling.recharges(), &settling.counters(), checkpoint).await?;
            settling.tell(&self.limits, &counted);
        }
        let rewritten: FxHashMap<TraceId, &Change> = changes.iter().map(|change| (change.trace_id, change)).collect();
        for change in proposed {
            let change = rewritten.get(&change.trace_id).copied().unwrap_or(change);
            self.metrics.committed(&change.before, &change.after);
        }
        Ok(())
    }

    /// What the trace becomes if nothing is known of it.
    fn proposal(&self, closed: Closed, now: Timestamp) -> Change {
        let Closed { trace_id, trace, first_seen, .. } = closed;
        let change = Change { trace: trace.joined(Trace::default()), ..Change::nothing(trace_id, first_seen) };
        self.resolved(change, first_seen, now)
    }

    /// What the trace becomes together with what is known of it.
    fn joined(&self, proposal: &Change, known: Known, now: Timestamp) -> Change {
        let change = Change {
            trace: proposal.trace.clone().joined(known.trace),
            waits: known.waits,
            before: known.requests,
            ..Change::nothing(proposal.trace_id, known.first_seen.min(proposal.first_seen))
        };
        self.resolved(change, proposal.first_seen, now)
    }

    fn resolved(&self, change: Change, came: Timestamp, now: Timestamp) -> Change {
        let stored: Vec<Key> = change.before.iter().map(|request| request.record.key).collect();
        let look = Look { stored: &stored, waits: &change.waits, first_seen: change.first_seen, came, now };
        let Resolution { requests, waits, due } = self.resolver.resolve(change.trace_id, &change.trace, look);
        let after = pricing::priced(&self.book.now(), requests, &change.before);
        Change { due, waits, after, ..change }
    }
}
