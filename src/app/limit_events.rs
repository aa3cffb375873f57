//! Between limits and the store: events of limits wait in a queue and are written beside the records. Nobody waits for
//! it. What finds no room, is refused by the database or is left over at the end is counted as lost.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::IntCounter;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio_util::sync::CancellationToken;

use super::pause::Pause;
use super::{AppError, now};
use crate::metrics::LimitEventLosses;
use crate::persist::Store;
use crate::telemetry::chain;
use tacho_core::domain::limit_event::LimitEvent;

/// Events that wait for the database.
const WAITING: usize = 1_000;
/// Most events in one transaction.
const BATCH: usize = 256;
/// Between the first event and the write, so that a burst makes one transaction.
const GATHERING: Duration = Duration::from_millis(100);
/// Events remembered; then all are forgotten, and what comes again is left out by the database.
const MOST_REMEMBERED: usize = 100_000;

/// Where limits tell what happened.
pub(super) struct LimitEvents {
    queue: Sender<LimitEvent>,
    remembered: Mutex<Remembered>,
    is_full: AtomicBool,
    lost: LimitEventLosses,
}

/// What was told already, as hashes.
struct Remembered {
    most: usize,
    hashes: HashSet<u64>,
    hasher: RandomState,
}

/// The other end of the queue.
pub(super) struct Waiting {
    queue: Receiver<LimitEvent>,
    /// To be written next.
    gathered: Vec<LimitEvent>,
    /// Being written, each part in a transaction.
    parts: Vec<Vec<LimitEvent>>,
    lost: LimitEventLosses,
}

pub(super) fn queue(lost: LimitEventLosses) -> (Arc<LimitEvents>, Waiting) {
    bounded(WAITING, MOST_REMEMBERED, lost)
}

fn bounded(waiting: usize, most: usize, lost: LimitEventLosses) -> (Arc<LimitEvents>, Waiting) {
    let (sender, receiver) = mpsc::channel(waiting);
    let remembered = Mutex::new(Remembered { most, hashes: HashSet::new(), hasher: RandomState::new() });
    let events = LimitEvents { queue: sender, remembered, is_full: AtomicBool::new(false), lost: lost.clone() };
    (Arc::new(events), Waiting { queue: receiver, gathered: Vec::new(), parts: Vec::new(), lost })
}

impl LimitEvents {
    /// Never waits. One that finds no room is lost, and is not told again.
    pub(super) fn add(&self, event: LimitEvent) {
        let is_new = self.remembered.lock().unwrap_or_else(PoisonError::into_inner).add(&event);
        if !is_new {
            return;
        }
        let is_full = match self.queue.try_send(event) {
            Ok(()) => false,
            Err(TrySendError::Full(_)) => {
                self.lost.queue_full.inc();
                true
            }
            Err(TrySendError::Closed(_)) => return lose(&self.lost.stopped, 1, "it came behind the stop"),
        };
        // Said when it changes, as there may be thousands.
        if self.is_full.swap(is_full, Ordering::Relaxed) != is_full {
            if is_full {
                tracing::warn!(max = WAITING, "events of limits lost: too many wait for the database");
            } else {
                tracing::info!("events of limits are kept again");
            }
        }
    }
}

impl Remembered {
    /// Whether it was not told before, as far as is known.
    fn add(&mut self, event: &LimitEvent) -> bool {
        let hash = self.hasher.hash_one(event.identity());
        if self.hashes.len() >= self.most && !self.hashes.contains(&hash) {
            self.hashes.clear();
        }
        self.hashes.insert(hash)
    }
}

impl Waiting {
    /// Writes what comes until `closing`, and then what is left.
    pub(super) async fn write(mut self, store: Store, closing: CancellationToken) -> Result<(), AppError> {
        loop {
            self.gather(&closing).await;
            if self.gathered.is_empty() {
                return Ok(());
            }
            self.parts.push(std::mem::take(&mut self.gathered));
            if !self.write_parts(&store, &closing).await {
                return Ok(());
            }
        }
    }

    /// Waits for a batch; nothing comes only at the end.
    async fn gather(&mut self, closing: &CancellationToken) {
        let Self { queue, gathered, .. } = self;
        let some = async {
            queue.recv_many(gathered, BATCH).await;
            tokio::time::sleep(GATHERING).await;
        };
        tokio::select! {
            () = some => {}
            () = closing.cancelled() => {}
        }
        while gathered.len() < BATCH
            && let Ok(event) = queue.try_recv()
        {
            gathered.push(event);
        }
    }

    /// Halves what the database refuses, until the one event that it will not take stands alone. While the database is
    /// away it tries again, but not at the end: false if something is left.
    async fn write_parts(&mut self, store: &Store, closing: &CancellationToken) -> bool {
        let mut pause = Pause::default();
        while let Some(mut part) = self.parts.pop() {
            let Err(error) = store.add_limit_events(&part, now()).await else { continue };
            if error.passes() {
                let is_last = closing.is_cancelled();
                tracing::debug!(error = chain(&error), events = part.len(), "events of limits not written");
                self.parts.push(part);
                if is_last {
                    return false;
                }
                tokio::select! {
                    () = pause.wait() => {}
                    () = closing.cancelled() => {}
                }
            } else if part.len() > 1 {
                let rest = part.split_off(part.len() / 2);
                self.parts.extend([part, rest]);
            } else {
                lose(&self.lost.refused, part.len(), &chain(&error));
            }
        }
        true
    }
}

/// What is left at the end, however it came.
impl Drop for Waiting {
    fn drop(&mut self) {
        let left = self.queue.len() + self.gathered.len() + self.parts.iter().map(Vec::len).sum::<usize>();
        if left > 0 {
            lose(&self.lost.stopped, left, "stopped before the database took them");
        }
    }
}

fn lose(lost: &IntCounter, events: usize, why: &str) {
    lost.inc_by(u64::try_from(events).unwrap_or(u64::MAX));
    tracing::warn!(events, why, "events of limits lost");
}

#[cfg(test)]
mod tests {
    use tacho_core::domain::limit_event::LimitEventKind;
    use tacho_core::domain::period::Period;
    use tacho_core::domain::time::Timestamp;

    use super::*;
    use crate::metrics::Metrics;

    fn refusal(user: &str, start: u64) -> LimitEvent {
        LimitEvent {
            kind: LimitEventKind::Refusal { reason: "over_limit" },
            limit: "free".into(),
            decision: "deny",
            tenant: None,
            user: Some(user.into()),
            subject: user.to_owned(),
            meter: "requests",
            used: 3,
            max: 3,
            period: Period { start: Timestamp(start), end: None },
        }
    }

    fn reached(user: &str, per_mille: u16) -> LimitEvent {
        LimitEvent { kind: LimitEventKind::Threshold { per_mille }, ..refusal(user, 0) }
    }

    fn losses() -> LimitEventLosses {
        Metrics::default().limit_events.clone()
    }

    fn counts(lost: &LimitEventLosses) -> [u64; 3] {
        [&lost.queue_full, &lost.refused, &lost.stopped].map(IntCounter::get)
    }

    async fn store(folder: &tempfile::TempDir) -> Store {
        Store::open(&format!("sqlite:{}", folder.path().join("tacho.db").display()), "one").await.unwrap()
    }

    #[test]
    fn what_is_told_again_comes_once() {
        let (events, waiting) = bounded(10, 100, losses());
        for _ in 0..200 {
            events.add(refusal("ann", 0));
            // Used more since, for another reason: still the same event.
            let kind = LimitEventKind::Refusal { reason: "too_large" };
            events.add(LimitEvent { kind, used: 9, ..refusal("ann", 0) });
            events.add(reached("ann", 500));
        }
        events.add(reached("ann", 1_000));
        events.add(refusal("bob", 0));
        events.add(refusal("ann", 1_000_000));
        assert_eq!(waiting.queue.len(), 5);
    }

    #[test]
    fn what_finds_no_room_is_counted_once_and_nothing_grows() {
        let lost = losses();
        let (events, waiting) = bounded(10, 100, lost.clone());
        for round in 0..2 {
            (0..50).for_each(|n| events.add(refusal(&format!("user-{n}"), 0)));
            assert_eq!((waiting.queue.len(), counts(&lost)), (10, [40, 0, 0]), "round {round}");
        }
        (0..1_000).for_each(|n| events.add(refusal(&format!("other-{n}"), 0)));
        assert!(events.remembered.lock().unwrap().hashes.len() <= 100);
        drop(waiting);
        events.add(refusal("late", 0));
        assert_eq!(counts(&lost), [1_040, 0, 11]);
    }

    #[tokio::test]
    async fn one_that_is_refused_takes_no_other_with_it() {
        let (folder, lost) = (tempfile::tempdir().unwrap(), losses());
        let (store, closing) = (store(&folder).await, CancellationToken::new());
        let (events, waiting) = bounded(1_000, 1_000, lost.clone());
        (0..600).for_each(|n| events.add(refusal(&format!("user-{n}"), 0)));
        events.add(LimitEvent { decision: "never", ..refusal("eve", 0) });
        // What came before the stop is written.
        closing.cancel();
        waiting.write(store.clone(), closing).await.unwrap();
        assert_eq!(store.limit_events(None, None, 1_000).await.unwrap().rows.len(), 600);
        assert_eq!(counts(&lost), [0, 1, 0]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn while_the_database_is_away_events_wait_and_a_stop_counts_them() {
        let (folder, lost) = (tempfile::tempdir().unwrap(), losses());
        let (store, closing) = (store(&folder).await, CancellationToken::new());
        store.close().await;
        let (events, waiting) = bounded(1_000, 1_000, lost.clone());
        let mut writing = tokio::task::JoinSet::new();
        writing.spawn(waiting.write(store, closing.clone()));
        (0..400).for_each(|n| events.add(refusal(&format!("user-{n}"), 0)));
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(writing.try_join_next().is_none());
        assert_eq!(counts(&lost), [0, 0, 0]);
        closing.cancel();
        writing.join_next().await.unwrap().unwrap().unwrap();
        assert_eq!(counts(&lost), [0, 0, 400]);
    }
}
