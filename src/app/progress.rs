//! How far the pipeline is: which frames of the journal are still needed, because a trace of theirs is open or not yet
//! written.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tacho_core::domain::lsn::Lsn;

/// Shared by the gatherer, which opens traces, and the writers, which write them.
pub(super) struct Progress(Mutex<State>);

struct State {
    /// The first frame of all open traces, or the next one that comes.
    gathering: Lsn,
    /// Batches that are being written, with the first frame of each.
    batches: BTreeMap<u64, Lsn>,
    last_batch: u64,
}

/// A batch on its way to the database; what it needs stays needed until `written`.
#[derive(Debug)]
#[must_use = "a batch that never ends keeps the journal from being emptied"]
pub(super) struct Ticket(u64);

impl Progress {
    pub(super) fn new(from: Lsn) -> Self {
        Self(Mutex::new(State { gathering: from, batches: BTreeMap::new(), last_batch: 0 }))
    }

    /// A batch whose oldest trace began in this frame leaves the gatherer. To be called before `gathering` is told that
    /// its traces are gone.
    pub(super) fn batch(&self, first: Lsn) -> Ticket {
        let mut state = self.state();
        state.last_batch += 1;
        let number = state.last_batch;
        state.batches.insert(number, first);
        Ticket(number)
    }

    /// The first frame that the gatherer needs.
    pub(super) fn gathering(&self, needed: Lsn) {
        self.state().gathering = needed;
    }

    /// The first frame that is needed by anything but this batch.
    pub(super) fn needed_without(&self, batch: &Ticket) -> Lsn {
        self.state().needed(Some(batch.0))
    }

    pub(super) fn needed(&self) -> Lsn {
        self.state().needed(None)
    }

    pub(super) fn written(&self, batch: Ticket) {
        self.state().batches.remove(&batch.0);
    }

    /// Nothing in here can be left half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn needed(&self, but: Option<u64>) -> Lsn {
        let others = self.batches.iter().filter(|(number, _)| Some(**number) != but).map(|(_, first)| *first);
        others.min().map_or(self.gathering, |first| first.min(self.gathering))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_all_that_is_open_is_needed() {
        let progress = Progress::new(Lsn(1));
        let old = progress.batch(Lsn(1));
        let young = progress.batch(Lsn(4));
        progress.gathering(Lsn(9));
        assert_eq!(progress.needed(), Lsn(1));
        assert_eq!(progress.needed_without(&old), Lsn(4));
        assert_eq!(progress.needed_without(&young), Lsn(1));
        progress.written(old);
        assert_eq!(progress.needed_without(&young), Lsn(9));
        progress.written(young);
        assert_eq!(progress.needed(), Lsn(9));
    }
}
